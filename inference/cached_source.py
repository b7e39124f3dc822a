"""One source for many target poses: what the generator computes from the source alone is computed once.

That is the source-to-source branch, the Context Augment Blocks and the source encoder; a new target pose needs the
source-to-target branch, the Texture Transfer Blocks and the decoder. Letters as in models/generator.py; N = h*w tokens.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from data.keypoints import draw_heat_maps, scale_keypoints
from inference.pose_transfer import PoseTransfer
from models.generator import Generator
from models.pose_transformer import to_tokens
from util.errors import UserError
from util.image import from_uint8, resize_uint8, size_problem, stretch, to_pil, to_uint8

Pose = np.ndarray | Sequence[Sequence[float]]


class TargetPart(nn.Module):
    """Heat maps (1,18,H,W) of a target pose -> the image (1,3,H,W) in [-1, 1], in a 1-tuple, because compiled functions
    return tuples."""

    def __init__(self, net: Generator) -> None:
        super().__init__()
        self.net = net

    def forward(self, source_input: Tensor, heat_maps: Tensor, memory: Tensor, texture: Tensor) -> tuple[Tensor]:
        """`source_input`, `memory` and `texture`: of the CachedSource."""
        f_st = self.net.encoder(source_input, heat_maps)
        return (self.net.decoder(self.net.ptm.transfer(f_st, memory, texture)),)


def compile_target_part(transfer: PoseTransfer) -> Callable[..., tuple[Tensor]]:
    """The TargetPart for all sources of `transfer`, which --compile compiles on its first call."""
    return transfer.model.compile(TargetPart(transfer.model.nets["G"]).forward)


class CachedSource:
    """The source image and pose that `transfer` is to generate in many poses."""

    def __init__(
        self, transfer: PoseTransfer, image: Image.Image, keypoints: Pose,
        target_part: Callable[..., tuple[Tensor]] | None = None,
    ) -> None:  # fmt: skip
        """`image`: RGB of the stored size. `keypoints`: (18,2) of (y, x) in its pixels, NaN = missing.

        `target_part`: what `compile_target_part` returns; without it, nothing is compiled.

        Raises UserError for an image of another size, and for a network without Texture Transfer Blocks.
        """
        if problem := size_problem(image, transfer.stored_size):
            raise UserError(f"source image: {problem}")
        if not transfer.opt.num_TTBs:
            raise UserError("--num_TTBs 0: this network takes no texture from the source; use one with TTBs")
        self.transfer = transfer
        self.net: Generator = transfer.model.nets["G"]
        self.target_part = target_part or TargetPart(self.net)
        pixels = stretch(image, transfer.network_size)[None]
        with torch.inference_mode(), transfer.model.autocast():
            heat_maps = self._heat_maps(keypoints)
            source_image = from_uint8(transfer.model.images_to_device(pixels))
            self.source_input = torch.cat((source_image, heat_maps), dim=1)  # (1,3+18,H,W)
            f_ss = self.net.encoder(self.source_input, heat_maps)  # (1,d,h,w)
            self.grid: tuple[int, int] = tuple(f_ss.shape[2:])  # (h, w)
            self.memory = self.net.ptm.augment(f_ss)  # (1,N,d)
            self.texture = to_tokens(self.net.texture(f_ss, source_image))  # (1,N,d)

    def generate(self, keypoints: Pose, use_compiled: bool = True) -> Image.Image:
        """The person in the pose (18,2), which is given like the source's: an RGB image of the stored size.

        Equal to what `PoseTransfer` generates, up to the rounding of another batch size. `use_compiled`: False where
        hooks must be called.
        """
        target_part = self.target_part if use_compiled else TargetPart(self.net)
        with torch.inference_mode(), self.transfer.model.autocast():
            (generated,) = target_part(self.source_input, self._heat_maps(keypoints), self.memory, self.texture)
        return to_pil(resize_uint8(to_uint8(generated), self.transfer.stored_size)[0])

    def _heat_maps(self, keypoints: Pose) -> Tensor:
        """(18,2) in pixels of the stored size -> (1,18,H,W) of the network's size."""
        pose = torch.as_tensor(np.asarray(keypoints), dtype=torch.float32)[None]
        scaled = scale_keypoints(pose, self.transfer.stored_size, self.transfer.network_size)
        return draw_heat_maps(self.transfer.model.to_device(scaled), self.transfer.network_size)
