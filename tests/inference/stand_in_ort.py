"""A stand-in for npm's package of onnxruntime-web, for tests, which download nothing.

Its "network" inverts the image, and writes both poses, rounded, into the first 72 levels: the target's, the source's.
"""

import base64
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from inference import page_export

MISSING = 7  # the level of a missing joint's coordinates
MODULE = """
export const env = { wasm: {} };
export class Tensor { constructor(type, data, dims) { Object.assign(this, { type, data, dims }); } }
export const InferenceSession = { create: async (url) => {
  const network = await (await fetch(url)).text();
  if (network !== "network") throw new Error(`not a network: ${network}`);
  return { run };
} };
async function run({ image, source_keypoints, target_keypoints }) {
  const levels = image.data.map((level) => 255 - level);
  const poses = [...target_keypoints.data, ...source_keypoints.data];
  poses.forEach((x, i) => { levels[i] = Number.isNaN(x) ? 7 : Math.round(x); });
  return { generated: { data: levels } };
}
"""


def expected_image(image: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """What the network makes of uint8 (H,W,3) and poses (18,2) that lie in the image: uint8 (H,W,3)."""
    poses = np.concatenate([target, source]).ravel().astype(np.float32)
    levels = 255 - image.ravel()
    levels[: len(poses)] = np.nan_to_num(np.floor(poses + 0.5), nan=MISSING)
    return levels.reshape(image.shape)


def write_package(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the package to `path`; page_export then takes it."""
    with tarfile.open(path, "w:gz") as package:
        for name, content in zip(page_export.ORT_FILES, (MODULE.encode(), b"wasm")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            package.addfile(member, io.BytesIO(content))
    digest = hashlib.sha512(path.read_bytes()).digest()
    monkeypatch.setattr(page_export, "ORT_SHA512", base64.b64encode(digest).decode())
    return path
