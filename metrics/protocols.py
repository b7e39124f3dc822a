"""Evaluation protocols: everything that changes a number without changing an image.

Numbers of two protocols are never comparable, and never stand in one column.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Protocol:
    """One set of switches.

    pad: pixel metrics see both images with white columns added at each side, 256 x 256 on DeepFashion. White is like
        white, so every PSNR rises by 10 log10(256 / 176) = 1.63 dB, l1 falls to 0.69 of itself, and SSIM s rises
        to almost 0.69 s + 0.31. Market-1501 is not padded.
    ssim_256_range: the data range of ssim_256. "generated": max - min of each generated image, so that an image of
        less contrast is compared with smaller stabilizing constants and scores lower; "full": 255.
    inception: the network behind `fid` and `is`. "torchvision": its ImageNet Inception-v3 with the input scaling of
        pytorch-fid before 2019; "pytorch-fid": the 2015 TensorFlow weights and layers of the FID paper's code. The
        two give different numbers for the same images.
    """

    name: str
    pad: bool
    ssim_256_range: Literal["generated", "full"]
    inception: Literal["torchvision", "pytorch-fid"]

    def margin(self, data_set: str) -> int:
        """White columns at each side of an image of `data_set` ("fashion" or "market")."""
        return 40 if self.pad and data_set == "fashion" else 0


# as in the published evaluation of DPTN (and before it, of GFLA and of PATN's data)
DPTN = Protocol("dptn", pad=True, ssim_256_range="generated", inception="torchvision")
STANDARD = Protocol("standard", pad=False, ssim_256_range="full", inception="pytorch-fid")
PROTOCOLS = {protocol.name: protocol for protocol in (DPTN, STANDARD)}
