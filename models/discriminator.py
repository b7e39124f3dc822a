"""The discriminators of DPTN and of its successor DPTN-TA. Both see images only, no pose.

DPTN's is a residual patch discriminator with spectral normalization on every convolution and no feature normalization.
It has 4 layers for DeepFashion, 3 for Market-1501. Letters: B batch, H x W image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ops import at_least_float32, leaky_relu, reflection_pad

MAX_WIDTH = 128  # most channels in DPTN's, unless --ndf is larger


class SpectralNormConv2d(nn.Module):
    """Convolution whose weight is divided by its largest singular value (Miyato et al., ICLR 2018).

    In training mode each forward makes one power iteration, in float32 whatever the dtype of the input. Parameters and
    buffers carry the names of published checkpoints.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.padding = stride, (kernel - 1) // 2
        self.weight_orig = nn.Conv2d(in_channels, out_channels, kernel).weight  # torch's default initialization
        self.bias = nn.Parameter(torch.zeros(out_channels))
        rows, columns = self.weight_orig.flatten(1).shape
        self.register_buffer("weight_u", F.normalize(torch.randn(rows), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(columns), dim=0))

    def normalized_weight(self) -> Tensor:
        matrix = self.weight_orig.flatten(1)
        if self.training:
            with torch.no_grad():
                v = F.normalize(matrix.t().mv(self.weight_u), dim=0, eps=1e-12)
                u = F.normalize(matrix.mv(v), dim=0, eps=1e-12)
                self.weight_u.copy_(u)
                self.weight_v.copy_(v)
        else:
            u, v = self.weight_u, self.weight_v
        return self.weight_orig / u.dot(matrix.mv(v))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.normalized_weight().to(x.dtype), self.bias.to(x.dtype)
        return F.conv2d(x, weight, bias, self.stride, self.padding)


class DiscriminatorBlock(nn.Module):
    """(B,in,H,W) -> (B,out,H/2,W/2), residual. The first block sees an image, so it has no activation before it."""

    def __init__(self, in_channels: int, out_channels: int, first: bool) -> None:
        super().__init__()
        self.first = first
        inner = out_channels if first else in_channels
        self.conv1 = SpectralNormConv2d(in_channels, inner, 3)
        self.conv2 = SpectralNormConv2d(inner, out_channels, 4, stride=2)
        self.shortcut = SpectralNormConv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x if self.first else leaky_relu(x, inplace=False))
        return self.conv2(leaky_relu(y)) + self.shortcut(F.avg_pool2d(x, 2))


class Discriminator(nn.Module):
    """(B,3,H,W) image in [-1, 1] -> (B,1,H/2^layers,W/2^layers) patch scores, float32.

    Convolutions are computed in the dtype of the image. Call it without autocast: spectral norm needs float32.
    """

    def __init__(self, ndf: int, layers: int) -> None:
        super().__init__()
        widths = [3] + [min(ndf * 2**i, max(MAX_WIDTH, ndf)) for i in range(layers)]
        self.first = DiscriminatorBlock(3, widths[1], first=True)
        self.blocks = nn.ModuleList(DiscriminatorBlock(a, b, first=False) for a, b in zip(widths[1:], widths[2:]))
        self.head = SpectralNormConv2d(widths[-1], 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        for block in self.blocks:
            x = block(x)
        return at_least_float32(self.head(leaky_relu(x)))


class CastingConv2d(nn.Conv2d):
    """Convolution in the dtype of its input, whatever the dtype of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class ReflectionPad(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return reflection_pad(x, self.width)


class ResnetBlock(nn.Module):
    """(B,C,H,W) -> (B,C,H,W); there is no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            ReflectionPad(1), CastingConv2d(channels, channels, 3), nn.InstanceNorm2d(channels), nn.ReLU(),
            ReflectionPad(1), CastingConv2d(channels, channels, 3), nn.InstanceNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class ResnetDiscriminator(nn.Module):
    """DPTN-TA's, with `blocks` residual blocks: (B,3,H,W) image in [-1, 1] -> (B,4*ndf,H/4,W/4) scores, float32.

    It has no head: the adversarial loss averages over all channels, as published. The norm and ReLU before the residual
    blocks bound each channel's mean over positions by 0.5, whatever the weights, and each block ends in a norm, which
    adds 0 to it; so the network tells real from generated images by how scores vary over positions. Its modules are
    numbered so that they carry the published key names.
    """

    def __init__(self, ndf: int, blocks: int) -> None:
        super().__init__()
        layers = [ReflectionPad(3), CastingConv2d(3, ndf, 7), nn.InstanceNorm2d(ndf), nn.ReLU()]
        for width in (ndf, 2 * ndf):
            halve = CastingConv2d(width, 2 * width, 3, stride=2, padding=1)
            layers += [halve, nn.InstanceNorm2d(2 * width), nn.ReLU()]
        self.model = nn.Sequential(*layers, *(ResnetBlock(4 * ndf) for _ in range(blocks)))

    def forward(self, image: Tensor) -> Tensor:
        return at_least_float32(self.model(image))
