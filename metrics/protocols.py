"""Evaluation protocols: everything that changes a number without changing the files.

Each is a frozen set of switches, read off the published code of its project. Numbers of two protocols are never
comparable, and never stand in one column.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from data import find_dataset

Filter = Literal["pillow bicubic", "torch bicubic", "opencv bicubic"]  # see metrics/resize.py


class View(NamedTuple):
    """How files become the images that are measured: at `size` (H, W), by these filters. None: refuse other sizes."""

    size: tuple[int, int]
    photos: Filter | None = None
    generated: Filter | None = None
    strips: bool = False

    @property
    def image_bytes(self) -> int:
        """Memory of one image: of uint8, or of the float32 levels that OpenCV's bicubic filter gives."""
        is_float = "opencv bicubic" in (self.photos, self.generated)
        return 3 * self.size[0] * self.size[1] * (4 if is_float else 1)


@dataclass(frozen=True)
class Protocol:
    """One set of switches. Their defaults are those of `dptn`.

    metrics: what the project's code computes; None: all that are here.
    size: of the images that pixel metrics see: "stored", or "network", for which DeepFashion's photos are stretched.
    photos, generated: the filter that brings files of another size to `size`; None: they are refused.
    strips: a generated file may be PATN's strip of five images; its third is then the target, its fifth the generated.
    pad: pixel metrics see both images with white columns added at each side, 256 x 256 on DeepFashion. They are
        equal in both images, so every PSNR rises by 10 log10(256 / 176) = 1.63 dB, l1 falls to 0.69 of itself, and
        SSIM s rises to almost 0.69 s + 0.31. Market-1501 is not padded.
    ssim_256_sigma, ssim_256_taps: the Gaussian window of `ssim_256`. Those centered at least 3.5 sigma inside the image
        count.
    ssim_256_range: its data range. "generated": max - min of each generated image, so that an image of less contrast is
        compared with smaller stabilizing constants and scores lower; "full": 255.
    l1_range: the range of the levels in `l1`: 1, or 2 for images in [-1, 1].
    network_resize: LPIPS and Inception see the images resized to the stored size, by OpenCV's bilinear filter.
    lpips_input: the levels that LPIPS gets; it was made for [-1, 1].
    lpips_batch, fid_batch: the last images, in the order of file names, that do not fill such a batch are dropped; 1
        drops none.
    inception: the network behind `fid` and `is`. "torchvision": its ImageNet Inception-v3 with the input scaling of
        pytorch-fid before 2019; "pytorch-fid": the 2015 TensorFlow weights and layers of the FID paper's code, in
        PyTorch; "tensorflow": that graph itself. They give different numbers for the same images.
    """

    name: str
    metrics: tuple[str, ...] | None = None
    size: Literal["stored", "network"] = "stored"
    photos: Filter | None = None
    generated: Filter | None = None
    strips: bool = False
    pad: bool = True
    ssim_256_sigma: float = 1.5
    ssim_256_taps: int = 11
    ssim_256_range: Literal["generated", "full"] = "generated"
    l1_range: int = 1
    network_resize: bool = False
    lpips_input: Literal["[-1, 1]", "[0, 1]"] = "[-1, 1]"
    lpips_batch: int = 1
    fid_batch: int = 1
    inception: Literal["torchvision", "pytorch-fid", "tensorflow"] = "torchvision"

    def has(self, metric: str) -> bool:
        return self.metrics is None or metric in self.metrics

    def switches(self) -> dict[str, Any]:
        """All that changes numbers, for records."""
        return {name: value for name, value in asdict(self).items() if name != "metrics"}

    def view(self, dataset_mode: str) -> View:
        """How the files of a data set become images."""
        dataset = find_dataset(dataset_mode)
        size = dataset.stored_size if self.size == "stored" else dataset.network_size
        return View(size, self.photos, self.generated, self.strips)

    def margin(self, dataset_mode: str) -> int:
        """White columns at each side of an image of a data set: those that its photos lack to the network's width."""
        dataset = find_dataset(dataset_mode)
        return max(0, dataset.network_size[1] - dataset.stored_size[1]) // 2 if self.pad else 0


PIXELS_AND_NETWORKS = ("psnr", "ssim", "ssim_256", "mae", "l1", "fid", "lpips")
STRETCHED = {"size": "network", "photos": "pillow bicubic", "generated": "pillow bicubic", "pad": False}
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # as in the published evaluation of DPTN, but for the images that it drops
        Protocol("dptn"),
        # common practice today
        Protocol("standard", pad=False, ssim_256_range="full", inception="pytorch-fid"),
        # other papers, as their scripts compute; scikit-image cuts a Gaussian window at 3.5 sigma (of 1.5: 11 taps, of
        # 1.2: 9), before 0.15 at 4 sigma (PATN: 13)
        Protocol("patn", ("ssim_256", "l1", "mask_ssim", "is"), strips=True, ssim_256_taps=13, l1_range=2,
                 inception="tensorflow"),
        Protocol("gfla", PIXELS_AND_NETWORKS, **STRETCHED, lpips_batch=64, fid_batch=64),
        Protocol("pidm", PIXELS_AND_NETWORKS, **STRETCHED, ssim_256_sigma=1.2, ssim_256_taps=9, network_resize=True,
                 lpips_batch=64, fid_batch=64),
        Protocol("cfld", ("psnr", "ssim", "ssim_256", "fid", "lpips"), photos="pillow bicubic",
                 generated="torch bicubic", pad=False),
        Protocol("pcdms", PIXELS_AND_NETWORKS, photos="opencv bicubic", generated="opencv bicubic", pad=False,
                 ssim_256_sigma=1.2, ssim_256_taps=9, lpips_input="[0, 1]", lpips_batch=64, fid_batch=128),
    )
}  # fmt: skip
