"""DPTN generator: two branches (a Siamese structure) that share the pose-image encoder and the decoder.

The *source-to-source* branch reconstructs the source image in its own pose; the *source-to-target* branch generates it
in the target pose. The texture comes from a source encoder: the Pose Transformer Module moves it into the target pose,
guided by the correlation of both branches' features. Letters: B batch, H x W image, h x w = H/8 x W/8 (three down
blocks), d = 256 channels there.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from data.keypoints import NUM_JOINTS
from models.blocks import DownBlock, FirstDownBlock, Norm, OutputBlock, ResidualBlock, UpBlock
from models.pose_transformer import PoseTransformerModule

PTM_VALUES = ("f_s", "f_ss")  # --ptm_values: of the source encoder, as in the paper, or of the pose-image encoder


class Encoder(nn.Module):
    """(B,in,H,W) -> (B,d,h,w): down blocks to `widths`, then residual blocks at the last width."""

    def __init__(self, in_channels: int, widths: list[int], num_residual: int, norm: Norm) -> None:
        super().__init__()
        self.first = FirstDownBlock(in_channels, widths[0], norm)
        self.down = nn.ModuleList(DownBlock(a, b, norm) for a, b in zip(widths, widths[1:]))
        self.residual = nn.ModuleList(ResidualBlock(widths[-1], norm) for _ in range(num_residual))

    def forward(self, shared: Tensor, own: Tensor | None = None) -> Tensor:
        """`shared` (B,S,H,W) -> (B,d,h,w). With `own` (k*B,C,H,W), further channels of k branches, each branch is
        encoded from the shared and its own channels: (k*B,d,h,w)."""
        x = self.first(shared, own)
        for block in (*self.down, *self.residual):
            x = block(x)
        return x


class Decoder(nn.Module):
    """(B,d,h,w) features -> (B,3,H,W) image in [-1, 1]."""

    def __init__(self, widths: list[int], norm: Norm) -> None:
        super().__init__()
        self.up = nn.ModuleList(UpBlock(a, b, norm) for a, b in zip(widths, widths[1:]))
        self.output = OutputBlock(widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.up:
            x = block(x)
        return self.output(x)


class Generator(nn.Module):
    """The whole network; 9,794,371 parameters with the published sizes."""

    def __init__(
        self, ngf: int, layers: int, num_blocks: int, heads: int, num_cabs: int, num_ttbs: int,
        norm: Norm, token_norm: Norm, separate_branches: bool, ptm_values: str = "f_s",
    ) -> None:  # fmt: skip
        """`separate_branches`: batch norm sees one branch at a time in training, as published.

        `ptm_values`: one of PTM_VALUES, the features from which the TTBs take their values. With "f_ss" the source
        encoder is not run; it stays a part of the network, so that weight files have the published keys.
        """
        super().__init__()
        widths = [ngf * 2**i for i in range(layers)]
        self.separate_branches, self.ptm_values = separate_branches, ptm_values
        self.encoder = Encoder(3 + 2 * NUM_JOINTS, widths, num_blocks, norm)  # the pose-image encoder, En_c
        self.source_encoder = Encoder(3, widths, 0, norm)  # En_s
        self.ptm = PoseTransformerModule(widths[-1], heads, num_cabs, num_ttbs, token_norm)
        self.decoder = Decoder([*reversed(widths), ngf], norm)

    def forward(
        self, source_image: Tensor, source_pose: Tensor, target_pose: Tensor, reconstruct_source: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Image (B,3,H,W) in [-1, 1] and two heat map stacks (B,18,H,W) -> (fake_target, fake_source).

        Both outputs are (B,3,H,W) float32 in [-1, 1]; fake_source is None unless `reconstruct_source`
        (it is needed for training only).
        """
        # The encoder sees (image, source pose, source pose) for source-to-source and (image, source pose, target pose)
        # for source-to-target; the image and the source pose, which both share, are convolved once.
        encode = partial(self.encoder, torch.cat((source_image, source_pose), dim=1))
        f_ss, f_st = self._run_both_branches(encode, source_pose, target_pose)
        f_st = self.ptm(f_ss, f_st, self.texture(f_ss, source_image))
        if not reconstruct_source:
            return self.decoder(f_st), None
        fake_source, fake_target = self._run_both_branches(self.decoder, f_ss, f_st)
        return fake_target, fake_source

    def texture(self, f_ss: Tensor, source_image: Tensor) -> Tensor:
        """The features (B,d,h,w) from which the TTBs take their values."""
        return f_ss if self.ptm_values == "f_ss" else self.source_encoder(source_image)

    def _run_both_branches(
        self, module: Callable[[Tensor], Tensor], source: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`module` on both branches' (B,...) inputs; as a single batch where that gives the same numbers."""
        if self.separate_branches and self.training:
            return module(source), module(target)
        return module(torch.cat((source, target))).unflatten(0, (2, -1)).unbind()
