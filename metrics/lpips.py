"""LPIPS (Zhang et al., CVPR 2018), AlexNet, version 0.1: the lpips package's network with torchvision's weights.

Only the package's `forward` is not used: it runs AlexNet once for each side, and returns bfloat16 under autocast. Here
both sides are one batch, and distances are float32.
"""

import warnings

import torch
from torch import Tensor, nn

from util.image import from_uint8
from util.packages import require_package
from util.pretrained import PretrainedWeights, load_pretrained


class LPIPS(nn.Module):
    """Two (N,3,H,W) of levels 0..255 -> distances (N,) float32, 0 for equal images.

    The network gets levels in [-1, 1], for which it was made, or with `from_zero` in [0, 1]. With bool `masks`
    (N,1,H,W) both images are mid-gray outside them: as published, the images are multiplied by the masks in [-1, 1],
    and distances are averaged over the whole image.
    """

    def __init__(self, weights: str) -> None:
        """`weights`: 'imagenet', or the file of a torchvision alexnet state dict (`features.*` is enough)."""
        require_package("lpips", "LPIPS")
        import lpips
        from torchvision.models import AlexNet_Weights

        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torchvision")  # the package calls it by names of its old version
            self.package = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
        self.normalize = lpips.normalize_tensor
        layers = [layer for stage in self.package.net.children() for layer in stage]
        named_as_torchvision = nn.ModuleDict({"features": nn.Sequential(*layers)})
        published = PretrainedWeights("AlexNet", "torchvision", "imagenet", AlexNet_Weights.IMAGENET1K_V1.url)
        load_pretrained(named_as_torchvision, weights, published, "--alexnet_weights")
        self.requires_grad_(False).eval()

    def forward(self, fakes: Tensor, reals: Tensor, masks: Tensor | None = None, from_zero: bool = False) -> Tensor:
        levels = torch.cat((fakes, reals))
        x = levels.float() / 255 if from_zero else from_uint8(levels)
        if masks is not None:
            x = x * torch.cat((masks, masks))
        x = self.package.scaling_layer(x).contiguous(memory_format=torch.channels_last)
        total = x.new_zeros(len(fakes))
        for features, linear in zip(self.package.net(x), self.package.lins):
            fake, real = self.normalize(features.float()).chunk(2)
            weight = linear.model[-1].weight  # (1,C,1,1)
            total += (fake.sub_(real).square_() * weight).sum(1).mean((1, 2))
        return total
