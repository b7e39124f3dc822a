"""inference/attention.py: weights against the fused attention, and what the panel shows."""

import numpy as np
import pytest
import torch
from PIL import Image

from inference.attention import attend, attention_weights, draw_panel, token_at, warp_by_attention
from inference.cached_source import CachedSource
from models.pose_transformer import MultiHeadAttention
from tests.inference.tiny_transfer import keypoints_of, load_tiny, tiny_walk, write_tiny


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> CachedSource:
    photo = tiny_walk()[0]
    transfer = load_tiny(write_tiny(tmp_path_factory.mktemp("checkpoints")))
    return CachedSource(transfer, Image.fromarray(photo.pixels), photo.keypoints)


@pytest.fixture(scope="module")
def target() -> np.ndarray:
    return keypoints_of(tiny_walk())[3]


def test_attention_weights_times_values_equal_the_fused_result():
    torch.manual_seed(0)
    module = MultiHeadAttention(12, heads=3).double()
    torch.nn.init.normal_(module.in_proj.bias)
    query, key, value = (torch.randn(2, n, 12, dtype=torch.float64) for n in (5, 7, 7))
    weights = attention_weights(module, query, key)
    assert weights.shape == (2, 3, 5, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5, dtype=torch.float64))
    values = (value @ module.in_proj.weight[24:].T + module.in_proj.bias[24:]).unflatten(-1, (3, 4))
    attended = torch.einsum("bhnm,bmhd->bnhd", weights, values).flatten(2)
    torch.testing.assert_close(module.out_proj(attended), module(query, key, value))


def test_attend_records_what_the_blocks_compute(source, target):
    """The weights are those of the cross-attention, whose output is recorded here by a hook of its own."""
    seen = []
    block = source.net.ptm.ttbs[0].cross_attention
    hook = block.register_forward_hook(lambda module, inputs, output: seen.append((inputs, output)))
    attention = attend(source, target)
    hook.remove()
    assert attention.grid == (32, 16)  # two down blocks
    assert attention.weights.shape == (1, 2, 512, 512)
    torch.testing.assert_close(attention.weights.sum(-1), torch.ones(1, 2, 512))
    ((_, _, texture), output) = seen[0]
    d = texture.shape[-1]
    with torch.inference_mode():
        values = (texture @ block.in_proj.weight[2 * d :].T + block.in_proj.bias[2 * d :]).unflatten(-1, (2, -1))
        attended = block.out_proj(torch.einsum("hnm,bmhd->bnhd", attention.weights[0], values).flatten(2))
    torch.testing.assert_close(attended, output, atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(attention.image, source.generate(target))
    assert attention.energy.shape == (2, 32, 16)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in source.net.modules())


def test_attend_energy_before_and_after_is_that_of_the_target_features(source, target):
    seen = []
    hook = source.net.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    attention = attend(source, target)
    hook.remove()
    torch.testing.assert_close(attention.energy[1], seen[0][0].square().mean(0))


def test_map_of_a_head_and_the_mean_of_all(source, target):
    attention = attend(source, target)
    torch.testing.assert_close(attention.map(), (attention.map(0, 0) + attention.map(0, 1)) / 2)
    assert (attention.map(0, 0) != attention.map(0, 1)).any()


@pytest.mark.parametrize(("point", "token"), [((0, 0), 0), ((63, 127), 127), ((8, 0), 1), ((0, 8), 8), ((99, -5), 7)])
def test_token_at_is_row_major(point, token):
    assert token_at(point, (128, 64), (16, 8)) == token


def test_warp_by_attention_moves_patches():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    order = torch.tensor([5, 4, 3, 2, 1, 0])  # of 2 x 3 tokens of 2 x 2 pixels
    warped = np.asarray(warp_by_attention(Image.fromarray(pixels), torch.eye(6)[order], (2, 3)))
    np.testing.assert_array_equal(warped[:2, :2], pixels[2:, 4:])
    np.testing.assert_array_equal(warped[2:, 2:4], pixels[:2, 2:4])
    same = warp_by_attention(Image.fromarray(pixels), torch.eye(6), (2, 3))
    np.testing.assert_array_equal(same, pixels)


def test_draw_panel_shows_weights_where_they_are(source, target):
    """All weight on one token of the source: it keeps its brightness in the map, the rest is a quarter as bright."""
    weights = torch.zeros(1, 2, 512, 512)
    weights[..., 8 * 16 + 4] = 1  # row 8, column 4 of 32 x 16: the patch at (32, 16) of 128 x 64
    attention = attend(source, target)._replace(weights=weights)
    white = Image.new("RGB", (64, 128), "white")
    panel = draw_panel(white, target, attention, [(20, 40), (1, 2)])
    assert panel.size == (6 * 128, 2 * 256)
    levels = np.asarray(panel)[:256, 3 * 128 : 4 * 128, 0]
    assert levels[34 * 2, 18 * 2] == pytest.approx(210, abs=2)  # (7 / 8)^2 of the way from 63 to 255, bilinear
    assert (levels[100:] == 63).all()
    assert panel.getpixel((2 * 128 + 41 - 6, 81)) == (255, 0, 255)  # the ring around (20, 40)
    assert draw_panel(white, target, attention, [(1, 2)], flow=True).size == (7 * 128, 256)
