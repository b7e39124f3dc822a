"""metrics/reid_network.py against goldens of fast-reid, and which of its checkpoints it loads."""

import copy
import re
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from metrics.reid_network import ReidNetwork, to_input
from tests.formula import formula_images
from tests.metrics.conftest import REID_GOLDENS
from util.errors import UserError

CONV = "backbone.conv1.weight"
BOUND = 1e-3  # of values up to 12


def plain_images(n: int) -> torch.Tensor:
    """The first of the goldens' images, uint8 (n,3,256,128)."""
    pixels = np.round((formula_images("reid", (6, 3, 256, 128))[:n] + 1) * 127.5)
    return torch.from_numpy(pixels.astype(np.uint8))


def scene_photo(i: int) -> Image.Image:
    """Photo i of the goldens' scene; some are gray."""
    height, width = REID_GOLDENS["scene_size"][i]
    names = f"reid/person{REID_GOLDENS['scene_pid'][i]}", f"reid/photo{i}"
    person, photo = (formula_images(name, (1, 3, height, width)) for name in names)
    values = np.clip(np.float32(0.7) * person[0] + np.float32(0.5) * photo[0], -1, 1)
    pixels = np.round((values + 1) * np.float32(127.5)).astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(pixels[:, :, 0] if REID_GOLDENS["scene_grey"][i] else pixels)


@torch.inference_mode()
def test_features_equal_goldens_of_fast_reid(reid_network):
    images = plain_images(3)
    assert np.abs(reid_network.pooled(images).numpy() - REID_GOLDENS["plain_before"]).max() < BOUND
    features = reid_network(images)
    assert features.dtype == torch.float32
    assert np.abs(features.numpy() - REID_GOLDENS["plain_after"]).max() < BOUND


def test_network_has_the_published_number_of_parameters(reid_network):
    assert sum(parameter.numel() for parameter in reid_network.parameters()) == 23_512_128
    assert not reid_network.training
    assert not any(parameter.requires_grad for parameter in reid_network.parameters())


def blocks(net: ReidNetwork, layers: range) -> list[nn.Module]:
    return [block for number in layers for block in getattr(net.backbone, f"layer{number}")]


def neck(net: ReidNetwork) -> nn.BatchNorm1d:
    return net.heads["bottleneck"][0]


class UnbiasedInstanceNorm(nn.Module):
    def __init__(self, norm: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x):
        variance, mean = torch.var_mean(x, (2, 3), correction=1, keepdim=True)
        scale, shift = (values.view(1, -1, 1, 1) for values in (self.norm.weight, self.norm.bias))
        return (x - mean) / (variance + self.norm.eps).sqrt() * scale + shift


class SwappedIBN(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.IN, self.BN = norm.IN, norm.BN

    def forward(self, x):
        first, second = x.chunk(2, dim=1)
        return torch.cat((self.BN(first), self.IN(second)), dim=1)


def pad_the_max_pool(net):
    net.backbone.maxpool = nn.MaxPool2d(3, stride=2, padding=1)


def stride_in_layer_4(net):
    first = net.backbone.layer4[0]
    first.conv2.stride = first.downsample[0].stride = (2, 2)


def stride_on_the_1x1_convolution(net):
    for layer in (net.backbone.layer2, net.backbone.layer3):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)


def swap_the_halves_of_ibn(net):
    for block in blocks(net, range(1, 4)):
        block.bn1 = SwappedIBN(block.bn1)


def unbiased_variance_of_instance_norm(net):
    for block in blocks(net, range(1, 4)):
        block.bn1.IN = UnbiasedInstanceNorm(block.bn1.IN)


def large_eps_of_instance_norm(net):
    for block in blocks(net, range(1, 4)):
        block.bn1.IN.eps = 1e-3


def large_eps_of_the_neck(net):
    neck(net).eps = 1e-3


def feature_before_the_neck(net):
    net.heads["bottleneck"] = nn.Identity()


def one_deviation_for_all_colors(net):
    net.std = net.std[:, 2:].expand(1, 3, 1, 1)


def blue_green_red(net):
    """What the network would compute of images in that order."""
    net.backbone.register_forward_pre_hook(
        lambda _, args: ((args[0] * net.std + net.mean).flip(1) - net.mean) / net.std
    )


MISTAKES = {  # -> the largest difference that fast-reid's goldens were measured to have from the mistake, of six images
    pad_the_max_pool: 4.2, stride_in_layer_4: 13, stride_on_the_1x1_convolution: 2.5, swap_the_halves_of_ibn: 68,
    unbiased_variance_of_instance_norm: 0.056, large_eps_of_instance_norm: 0.016, large_eps_of_the_neck: 3.8,
    feature_before_the_neck: 6.2, one_deviation_for_all_colors: 0.34, blue_green_red: 7.3,
}  # fmt: skip


@torch.inference_mode()
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_goldens_differ_from_each_known_mistake(mistake, reid_network):
    """The bound of the goldens is tight enough to notice it."""
    wrong = copy.deepcopy(reid_network)
    mistake(wrong)
    difference = np.abs(wrong(plain_images(1)).numpy() - REID_GOLDENS["plain_after"][:1]).max()
    assert difference > 5 * BOUND
    assert difference < 1.2 * MISTAKES[mistake]


def test_resized_photos_equal_fast_reid_bit_for_bit():
    """Photos of four sizes, and a gray one."""
    for i, expected in enumerate(zip(REID_GOLDENS["scene_crc"], REID_GOLDENS["scene_resized_crc"])):
        photo = scene_photo(i)
        resized = to_input(photo.convert("RGB"))
        assert resized.shape == (3, 256, 128)
        pixels = (np.asarray(photo), resized.permute(1, 2, 0).numpy())
        assert tuple(zlib.crc32(np.ascontiguousarray(values).tobytes()) for values in pixels) == expected


class TestCheckpoints:
    def save(self, state: object, folder) -> str:
        path = folder / "other.pth"
        torch.save(state, path)
        return path

    @pytest.mark.parametrize("layout", ["bare", "1.0", "0.1", "DataParallel", "no classifier"])
    def test_every_layout_loads_the_same_network(self, layout, reid_state, reid_network, tmp_path):
        state, old = dict(reid_state), {"pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [58.395, 57.12, 57.375]}
        old = {key: torch.tensor(values).view(1, 3, 1, 1) for key, values in old.items()}
        if layout in ("1.0", "0.1"):
            state["heads.classifier.weight"] = state.pop("heads.weight")
            state |= old
        if layout == "0.1":
            state = {key.replace("bottleneck.0", "bnneck"): value for key, value in state.items()}
        if layout == "DataParallel":
            state = {f"module.{key}": value for key, value in state.items()}
        if layout == "no classifier":
            del state["heads.weight"]
        network = ReidNetwork(self.save(state if layout == "bare" else {"model": state}, tmp_path))
        for key, value in reid_network.state_dict().items():
            assert torch.equal(network.state_dict()[key], value), key
        assert neck(network).running_var[0] == REID_GOLDENS["neck_var"][0]
        assert network.classes == (None if layout == "no classifier" else 12_029)
        assert network.is_old == (layout == "0.1")

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (lambda s: {k.replace(".bn1.BN.", ".bn1."): v for k, v in s.items() if ".IN." not in k}, "without IBN"),
            (lambda s: s | {"heads.pool_layer.p": torch.ones(1)}, "generalized mean (GeM) pooling"),
            (lambda s: s | {"backbone.NL_2.0.g.weight": torch.ones(1)}, "non-local blocks"),
            (lambda s: s | {"backbone.layer1.0.se.fc.0.weight": torch.ones(1)}, "squeeze-and-excitation blocks"),
            (lambda s: s | {"heads.bottleneck.0.weight": torch.ones(512, 2048, 1, 1)}, "reduces the features' width"),
            (lambda s: s | {"pixel_mean": torch.full((1, 3, 1, 1), 127.5)}, "pixel_mean is [127.5, 127.5, 127.5]"),
            (lambda s: {k.removeprefix("backbone."): v for k, v in s.items()}, "no key begins with 'backbone.'"),
            (lambda s: {k: v for k, v in s.items() if "bottleneck" not in k}, "missing: heads.bottleneck.0.bias"),
            (lambda s: s | {"backbone.layer3.6.w": torch.ones(1)}, "unexpected: backbone.layer3.6.w"),
            (lambda s: s | {CONV: torch.ones(64, 3, 3, 3)}, f"shape of {CONV}: (64, 3, 3, 3), expected (64, 3, 7, 7)"),
            (lambda s: s | {CONV: s[CONV] / 0}, f"not finite: {CONV}"),
            (lambda s: {"model": {**s, 1: torch.ones(1)}}, "not a checkpoint of fast-reid"),
            (lambda _: {"model": {}}, "not a checkpoint of fast-reid"),
            (lambda _: [1, 2], "not a checkpoint of fast-reid"),
        ],
    )  # fmt: skip
    def test_other_files_are_refused_by_name(self, change, expected, reid_state, tmp_path):
        path = self.save(change(dict(reid_state)), tmp_path)
        with pytest.raises(UserError, match=f"--reid_weights {path}: (.|\n)*{re.escape(expected)}"):
            ReidNetwork(path)

    def test_damaged_file_is_refused(self, tmp_path):
        (tmp_path / "x.pth").write_bytes(b"PK no zip")
        with pytest.raises(UserError, match=f"{tmp_path}/x.pth: .*cannot be read"):
            ReidNetwork(tmp_path / "x.pth")

    @torch.inference_mode()
    def test_padded_pool_is_torchvisions(self, reid_file, reid_network):
        padded, expected = ReidNetwork(reid_file, "padded"), copy.deepcopy(reid_network)
        pad_the_max_pool(expected)
        assert torch.equal(padded(plain_images(1)), expected(plain_images(1)))
