"""The re-identification network BoT(R50-IBN) of fast-reid, on top of torchvision's ResNet-50, and its checkpoints.

Bag of tricks: Luo et al., CVPR Workshops 2019. IBN-a: Pan et al., ECCV 2018. Four things differ from torchvision's
network: the max pool is not padded, layer 4 keeps the resolution, the first normalization of each block of layers 1 to
3 is IBN, and features pass a batch norm (the "neck") instead of a classifier.
"""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet50

from util.checkpoint import load_file
from util.errors import UserError, summarize
from util.image import stretch
from util.pretrained import without_bn_counters

SIZE = (256, 128)  # (H, W) of the input
WIDTH = 2048  # of a feature
PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, times 255
POOLS = {"unpadded": 0, "padded": 1}  # padding of the max pool
FLAG = "--reid_weights"
# Parts of keys that only networks of other kinds have -> the kind
OTHER_KINDS = {
    "heads.pool_layer.p": "generalized mean (GeM) pooling", "NL_": "non-local blocks",
    ".se.": "squeeze-and-excitation blocks",
}  # fmt: skip
NECK, OLD_NECK = "heads.bottleneck.0.", "heads.bnneck."  # since and before September 2020
CLASSIFIERS = ("heads.weight", "heads.classifier.weight")  # since March 2021, and before


class IBN(nn.Module):
    """Instance norm of the first half of the channels, batch norm of the second. Attributes are named as in files."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.IN = nn.InstanceNorm2d(channels // 2, affine=True)
        self.BN = nn.BatchNorm2d(channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return torch.cat((self.IN(first), self.BN(second)), dim=1)


class ReidNetwork(nn.Module):
    """uint8 RGB (N,3,256,128) -> features (N,2048) float32, not normalized.

    classes: how many people it was trained on, by the rows of its classifier; None where the file has no classifier.
    is_old: whether the file is of before September 2020.
    """

    def __init__(self, weights: Path, pool: str = "unpadded") -> None:
        """`weights`: a checkpoint of fast-reid. `pool`: a key of POOLS. UserError for a file of another network."""
        super().__init__()
        state = read_state(weights)
        self.pool = pool
        self.backbone = resnet50()
        self.backbone.maxpool = nn.MaxPool2d(3, stride=2, padding=POOLS[pool], ceil_mode=pool == "unpadded")
        last = self.backbone.layer4[0]
        last.conv2.stride = last.downsample[0].stride = (1, 1)
        for layer in (self.backbone.layer1, self.backbone.layer2, self.backbone.layer3):
            for block in layer:
                block.bn1 = IBN(block.bn1.num_features)
        self.backbone.fc = nn.Identity()
        neck = nn.BatchNorm1d(WIDTH)
        self.heads = nn.ModuleDict({"bottleneck": nn.Sequential(neck)})  # so that all keys are those of the files
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(PIXEL_STD).view(1, 3, 1, 1), persistent=False)
        self.classes = next((len(state[name]) for name in CLASSIFIERS if name in state), None)
        self.is_old = any(OLD_NECK in key for key in state)
        self._load(state, weights)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.heads["bottleneck"](self.pooled(images)).float()

    def pooled(self, images: Tensor) -> Tensor:
        """Features before the neck."""
        return self.backbone((images.float() - self.mean) / self.std)

    def _load(self, state: dict[str, Tensor], path: Path) -> None:
        """Load `state` of any layout that fast-reid ever wrote.

        UserError where a tensor is missing, unexpected, of another shape or not finite.
        """
        state = {key.replace(OLD_NECK, NECK): tensor for key, tensor in state.items() if not _is_unused(key)}
        expected = without_bn_counters(self)
        wrong = [f"missing: {key}" for key in expected.keys() - state.keys()]
        wrong += [f"unexpected: {key}" for key in state.keys() - expected.keys()]
        for key in state.keys() & expected.keys():
            if state[key].shape != expected[key].shape:
                wrong.append(f"shape of {key}: {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}")
            elif not state[key].isfinite().all():
                wrong.append(f"not finite: {key}")
        if wrong:
            raise UserError(f"{FLAG} {path}: not the weights of fast-reid's BoT(R50-IBN):\n{summarize(sorted(wrong))}")
        self.load_state_dict(state, strict=False)  # strict but for the counters of batch norm


def to_input(image: Image.Image) -> Tensor:
    """RGB image of any size -> uint8 (3,256,128): stretched by PIL's bicubic filter, which antialiases."""
    return stretch(image, SIZE, Image.Resampling.BICUBIC)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint of fast-reid, without DataParallel's prefix.

    UserError for other files; it names networks of other kinds.
    """
    # mapped, because the optimizer's state and the classifier are several times the network
    content = load_file(path, what=f"weights of the re-id network ({FLAG})", mapped=True)
    state: Any = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(map(_is_named_tensor, state.items())):
        expected = "a checkpoint of fast-reid, which is a dict whose 'model' maps names to tensors"
        raise UserError(f"{FLAG} {path}: not {expected}")
    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    if problem := _other_network(state):
        raise UserError(f"{FLAG} {path}: {problem}; needed is bagtricks_R50-ibn, without any of its options")
    return state


def _other_network(state: dict[str, Tensor]) -> str | None:
    """What shows that a checkpoint is of another network than BoT(R50-IBN), or None."""
    if not any(key.startswith("backbone.") for key in state):
        return "no key begins with 'backbone.', so fast-reid did not write it"
    if not any(".bn1.IN." in key for key in state):
        return "a network without IBN (no key has 'bn1.IN.')"
    for part, kind in OTHER_KINDS.items():
        if any(part in key for key in state):
            return f"a network with {kind} (a key has '{part}')"
    first = state.get("heads.bottleneck.0.weight")
    if first is not None and first.dim() == 4:
        return "a network that reduces the features' width (heads.bottleneck.0 is a convolution)"
    means = {"pixel_mean": PIXEL_MEAN, "pixel_std": PIXEL_STD}
    for name, values in means.items():
        found = state[name].flatten().tolist() if name in state else values
        if len(found) != 3 or any(abs(a - b) > 1e-3 for a, b in zip(found, values)):
            return f"its {name} is {found}, not ImageNet's {list(values)}"
    return None


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _is_unused(key: str) -> bool:
    return key in (*CLASSIFIERS, "pixel_mean", "pixel_std") or key.endswith("num_batches_tracked")
