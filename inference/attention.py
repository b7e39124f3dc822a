"""Where each target token takes its texture from: the cross-attention of the Texture Transfer Blocks (section 3.2).

The network runs with PyTorch's fused attention, which never stores the weights softmax(q k^T / sqrt(d / heads)).
Hooks recompute them from the inputs of each cross-attention, so the module itself stays as it is. `draw_panel` is the
paper's figure of the module.

Attention shows which source tokens a block reads. It does not prove that they determine the generated pixel: the
skip connections, the other blocks and the decoder take part too.

Letters: N = h*w tokens in row-major order, d channels; H x W is the stored size of the images.
"""

from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from inference.cached_source import CachedSource, Pose
from models.ops import at_least_float32
from models.pose_transformer import MultiHeadAttention
from util.draw_pose import draw_skeleton
from util.image import contact_sheet

PANEL_HEIGHT = 256  # pixels: smaller images are enlarged by a whole factor
MARK = (255, 0, 255)


class Attention(NamedTuple):
    """What the Pose Transformer Module did for one generated image."""

    image: Image.Image  # the generated image, of the stored size
    weights: Tensor  # (blocks,heads,N,N): in each row one target token's weights over the source's tokens, their sum 1
    energy: Tensor  # (2,h,w): mean square of the target features over their channels, before and after the module
    grid: tuple[int, int]  # (h, w)

    def map(self, block: int = -1, head: int | None = None) -> Tensor:
        """(N,N) of one block, the last one by default, and of one head; None: the mean of all heads."""
        weights = self.weights[block]
        return weights.mean(0) if head is None else weights[head]


def attention_weights(module: MultiHeadAttention, query: Tensor, key: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d / heads)) for (B,N,d) and (B,M,d): (B,heads,N,M), in float32 or better."""
    projections = zip((query, key), module.in_proj.weight.chunk(3), module.in_proj.bias.chunk(3))
    q, k = (F.linear(x, w, b).unflatten(-1, (module.heads, -1)).transpose(1, 2) for x, w, b in projections)
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    return at_least_float32(scores).softmax(-1)


def attend(source: CachedSource, keypoints: Pose) -> Attention:
    """Generate `source` in the pose (18,2), and record the cross-attention of every Texture Transfer Block."""
    weights, tokens = [], []
    ptm = source.net.ptm
    with ExitStack() as hooks:  # all are removed at its end
        hooks.enter_context(ptm.ttbs[0].register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0])))
        hooks.enter_context(ptm.norm.register_forward_hook(lambda _, inputs, output: tokens.append(output)))
        for ttb in ptm.ttbs:
            record = ttb.cross_attention.register_forward_pre_hook
            hooks.enter_context(record(lambda module, inputs: weights.append(attention_weights(module, *inputs[:2]))))
        image = source.generate(keypoints, use_compiled=False)  # compiled code calls no hooks
    grid = source.grid
    energy = torch.cat(tokens).float().square().mean(-1).unflatten(1, grid)
    return Attention(image, torch.cat(weights).float().cpu(), energy.cpu(), grid)


def token_at(point: tuple[float, float], size: tuple[int, int], grid: tuple[int, int]) -> int:
    """The number of the token at `point`, (x, y) in pixels of an image of `size` (H, W)."""
    column, row = (int(np.clip(p / length * n, 0, n - 1)) for p, length, n in zip(point, size[::-1], grid[::-1]))
    return row * grid[1] + column


def warp_by_attention(source: Image.Image, attention_map: Tensor, grid: tuple[int, int]) -> Image.Image:
    """The source image with each token's patch replaced by that of the source token with the largest weight."""
    height, width = source.height // grid[0] * grid[0], source.width // grid[1] * grid[1]
    pixels = np.asarray(source.resize((width, height)))
    patches = pixels.reshape(grid[0], height // grid[0], grid[1], width // grid[1], 3).swapaxes(1, 2)
    best = attention_map.argmax(-1).numpy()
    warped = patches.reshape(-1, *patches.shape[2:])[best].reshape(patches.shape).swapaxes(1, 2)
    return Image.fromarray(warped.reshape(height, width, 3)).resize(source.size)


def draw_panel(
    source: Image.Image, keypoints: Pose, attention: Attention, points: list[tuple[float, float]],
    block: int = -1, head: int | None = None, flow: bool = False,
) -> Image.Image:  # fmt: skip
    """The paper's figure of the module, with a row for each of `points`, (x, y) in pixels of the stored size.

    Source image, target pose, generated image with the point marked, the point's weights over the source (the darker,
    the smaller), energy of the target features before and after the module, and with `flow` the source image warped by
    `warp_by_attention`. `keypoints`: the target pose (18,2) in pixels of the stored size.
    """
    size, weights = (source.height, source.width), attention.map(block, head)
    scale = max(1, PANEL_HEIGHT // source.height)
    first = [source, draw_skeleton(keypoints, size)]
    last = [_gray_map(energy, size) for energy in attention.energy]
    last += [warp_by_attention(source, weights, attention.grid)] if flow else []
    rows = []
    for point in points:
        weight = weights[token_at(point, size, attention.grid)].unflatten(0, attention.grid)
        row = [*first, attention.image, _darken(source, weight), *last]
        row = [image.resize((source.width * scale, source.height * scale), Image.Resampling.NEAREST) for image in row]
        _mark(row[2], [(p + 0.5) * scale for p in point])
        rows.append(row)
    return contact_sheet(rows)


def _gray_map(values: Tensor, size: tuple[int, int]) -> Image.Image:
    """(h,w) of at least 0 -> a gray image of `size` (H, W), white where the value is largest."""
    gray = (values / values.max().clamp(min=1e-12) * 255).round().byte().numpy()
    return Image.fromarray(gray).resize(size[::-1], Image.Resampling.BILINEAR).convert("RGB")


def _darken(source: Image.Image, weight: Tensor) -> Image.Image:
    """The source image, a quarter as bright where the weight (h,w) is 0 and as it is where it is largest."""
    mask = _gray_map(weight, (source.height, source.width)).convert("L")
    return Image.composite(source, source.point(lambda level: level // 4), mask)


def _mark(image: Image.Image, point: list[float]) -> None:
    """Draw a ring around the point (x, y) into the image."""
    x, y = point
    ImageDraw.Draw(image).ellipse((x - 6, y - 6, x + 6, y + 6), outline=MARK, width=2)
