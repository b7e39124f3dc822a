"""Deterministic tensors from a name, so that no weights need to be stored.

value = RandomState(crc32(name) + seed).standard_normal(shape), scaled by the tensor's role:
  weight_u / weight_v (spectral norm)      unit vector
  running_var                              1 + 0.1*|n|
  running_mean, any 1-d bias               0.1*n
  any 1-d weight (normalization scale)     1 + 0.1*n
  everything else                          n * sqrt(2 / fan_in),   fan_in = prod(shape[1:])
  num_batches_tracked                      0
"""

import zlib

import numpy as np


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
