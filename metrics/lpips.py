"""LPIPS (Zhang et al., CVPR 2018), AlexNet, version 0.1: equal to the lpips package, and about as fast as AlexNet.

The linear layers come out of the lpips package; AlexNet is torchvision's.
"""

from importlib.metadata import PackageNotFoundError, distribution

import torch
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights
from torchvision.models.alexnet import AlexNet

from util.checkpoint import load_tensors
from util.errors import UserError
from util.pretrained import PretrainedWeights, load_pretrained

PUBLISHED = PretrainedWeights("AlexNet", "torchvision", "imagenet", AlexNet_Weights.IMAGENET1K_V1.url)
LAYERS = (1, 4, 7, 9, 11)  # the five ReLUs in torchvision's alexnet().features
EPSILON = 1e-10  # of the lpips package, beside the norm


class LPIPS(nn.Module):
    """Two uint8 (N,3,H,W) -> distances (N,) float32, 0 for equal images."""

    def __init__(self, weights: str) -> None:
        """`weights`: 'imagenet', or a torchvision alexnet state dict (`features.*` is enough)."""
        super().__init__()
        self.features = AlexNet().features[: LAYERS[-1] + 1]
        load_pretrained(self, weights, PUBLISHED, "--alexnet_weights")
        try:
            file = distribution("lpips").locate_file("lpips/weights/v0.1/alex.pth")
        except PackageNotFoundError as error:
            raise UserError("lpips needs the linear layers in the lpips package: pip install lpips") from error
        linear = load_tensors(file, what="linear layers of LPIPS")
        for number in range(len(LAYERS)):
            self.register_buffer(f"lin{number}", linear[f"lin{number}.model.1.weight"])  # (1,C,1,1)
        for name, values in (("shift", (-0.030, -0.088, -0.188)), ("scale", (0.458, 0.448, 0.450))):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, fakes: Tensor, reals: Tensor) -> Tensor:
        x = torch.cat((fakes, reals)).float() / 127.5 - 1
        x = ((x - self.shift) / self.scale).contiguous(memory_format=torch.channels_last)
        total = x.new_zeros(len(fakes))
        for index, module in enumerate(self.features):
            x = module(x)
            if index in LAYERS:
                features = x.float()
                norms = features.square().sum(1, keepdim=True).sqrt() + EPSILON
                a, b = (features / norms).chunk(2)
                linear = getattr(self, f"lin{LAYERS.index(index)}")
                total += (a.sub_(b).square_() * linear).sum(1).mean((1, 2))
        return total
