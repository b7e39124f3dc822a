"""Deterministic tensors from a name, so that no weights need to be stored, and networks and batches made of them.

value = RandomState(crc32(name) + seed).standard_normal(shape), scaled by the tensor's role:
  weight_u / weight_v (spectral norm)      unit vector
  running_var                              1 + 0.1*|n|
  running_mean, any 1-d bias               0.1*n
  any 1-d weight (normalization scale)     1 + 0.1*n
  everything else                          n * sqrt(2 / fan_in),   fan_in = prod(shape[1:])
  num_batches_tracked                      0
"""

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.base_model import BaseModel
from models.dptn_model import Batch
from models.published_weights import to_published

GOLDENS_DIR = Path(__file__).parent / "goldens"
GOLDENS = np.load(GOLDENS_DIR / "network_goldens.npz")
OFFICIAL_KEYS = json.loads((GOLDENS_DIR / "official_checkpoint_keys.json").read_text())


def formula_array(name, shape, seed=0):
    n = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32).standard_normal(shape)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf in ("weight_u", "weight_v"):
        n = n / np.linalg.norm(n)
    elif leaf == "running_var":
        n = 1 + 0.1 * np.abs(n)
    elif leaf == "running_mean" or (len(shape) == 1 and leaf.endswith("bias")):
        n = 0.1 * n
    elif len(shape) == 1:
        n = 1 + 0.1 * n
    else:
        n = n * np.sqrt(2.0 / np.prod(shape[1:]))
    return n.astype(np.float32)


def formula_images(name, shape, seed=0):
    """Smooth images in [-1, 1], NCHW."""
    rs = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    n, c, h, w = shape
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    a = rs.uniform(1, 6, (n, c, 2, 1, 1))
    p = rs.uniform(0, 6.28, (n, c, 2, 1, 1))
    img = 0.6 * np.sin(6.28 * a[:, :, 0] * x + p[:, :, 0]) * np.cos(6.28 * a[:, :, 1] * y + p[:, :, 1])
    return np.clip(img + 0.2 * rs.standard_normal(shape), -1, 1).astype(np.float32)


def formula_keypoints(name, n, h, w, seed=0):
    """Integer keypoints (n, 18, 2) as (y, x), about a fifth missing (-1, -1)."""
    rs = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    k = np.stack([rs.randint(0, h, (n, 18)), rs.randint(0, w, (n, 18))], -1)
    k[rs.rand(n, 18) < 0.2] = -1
    return k


def fill_by_formula(net: nn.Module) -> None:
    """Give each tensor of a network the values that its published name stands for; aliases share their first name's."""
    state = net.state_dict()
    names: dict[int, list[str]] = {}
    for name, tensor in to_published(state).items():
        names.setdefault(id(tensor), []).append(OFFICIAL_KEYS["generator_aliases"].get(name, name))
    filled = {}
    for key, tensor in state.items():
        (first,) = set(names[id(tensor)])
        filled[key] = formula_tensor(first, tuple(tensor.shape))
    net.load_state_dict(filled)


@cache
def formula_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """`formula_array`, computed once in a process. The tensor is shared, so it must not be changed."""
    return torch.from_numpy(formula_array(name, shape))


def fill_model_by_formula(model: BaseModel) -> None:
    """Give a training model formula weights in generator, discriminator and VGG19."""
    for net in model.nets.values():
        fill_by_formula(net)
    vgg = {key: formula_tensor(key, tuple(tensor.shape)) for key, tensor in model.vgg.state_dict().items()}
    model.vgg.load_state_dict(vgg)


def set_formula_input(model: BaseModel, n: int, h: int, w: int, dtype: torch.dtype = torch.float32) -> Batch:
    """Give a model the inputs of the goldens, in floating point where a loader gives uint8 images."""
    images, keypoints = {}, {}
    for role in ("source", "target"):
        images[role] = torch.from_numpy(formula_images(role, (n, 3, h, w))).to(model.device, dtype)
        joints = torch.from_numpy(formula_keypoints(f"{role}_pose", n, h, w)).float()
        joints[(joints == -1).any(-1)] = torch.nan
        keypoints[role] = joints.to(model.device)
    model.batch = Batch(images["source"], keypoints["source"], keypoints["target"], images["target"])
    return model.batch
