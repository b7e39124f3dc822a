"""A trained generator for use: photos of people and poses in, the same people in those poses out.

    from inference.pose_transfer import PoseTransfer

    transfer = PoseTransfer.load("DPTN_fashion", dataset_mode="fashion")
    image = transfer(photo, source_keypoints, target_keypoints)

`test.py` and `scripts/transfer.py` draw with it. Photos here are as a data set stores them (DeepFashion 256 x 176,
Market-1501 128 x 64: `transfer.stored_size`); inference/framing.py cuts them out of any others.
"""

import io
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data import find_dataset
from data.keypoints import NUM_JOINTS, scale_keypoints
from models import create_model
from util.device import select_device
from util.image import resize_uint8, stretch, to_pil, to_uint8

Photo = Image.Image | np.ndarray | Tensor


class PoseTransfer:
    """Load once, call many times. Each image depends on its own photo and poses only, not on the batch.

    On a Linux CPU, freed memory stays with the process from then on (util/distributed.py). Give other weights to
    `model.load_networks` only: compiled networks hold them as constants.
    """

    def __init__(self, opt: Namespace, device: torch.device) -> None:
        """`opt` as read by TestOptions. Raises UserError where the weights are missing or do not fit."""
        self.opt, self.device = opt, device
        dataset = find_dataset(opt.dataset_mode)
        self.stored_size, self.network_size = dataset.stored_size, dataset.network_size
        self.model = create_model(opt, device, is_train=False)
        self.weights_file = self.model.run_dir / f"{opt.which_epoch}_net_G.pth"
        self.model.load_networks(self.model.run_dir, opt.which_epoch)

    @classmethod
    def load(cls, name: str, **flags: Any) -> "PoseTransfer":
        """`name` is the run's folder below `checkpoints_dir`; `flags` are those of test.py by their names
        (dataset_mode="market", which_epoch=190, precision="bf16", compile=True, gpu_ids="0", ...).

        Raises ValueError for a bad flag, UserError where the weights are missing or do not fit.
        """
        from options.test_options import TestOptions  # options import models

        argv = [f"--name={name}"]
        for flag, value in flags.items():
            argv.append(f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag}={value}")
        said = io.StringIO()
        try:
            with redirect_stderr(said):
                opt = TestOptions().parse(argv)
        except SystemExit as error:
            raise ValueError(said.getvalue().strip().rsplit("error: ", 1)[-1]) from error
        return cls(opt, select_device(opt.gpu_ids))

    def __call__(self, photos: Photo | Sequence[Image.Image], source_keypoints: Any, target_keypoints: Any) -> Any:
        """Redraw people.

        photos: stored-size pictures. One or several PIL images, a uint8 array (H,W,3) or (B,H,W,3), or a uint8
            tensor (3,H,W) or (B,3,H,W).
        source_keypoints, target_keypoints: (18,2), or (B,18,2), of (y, x) in pixels of the stored size, NaN = missing,
            joints in the order of data/keypoints.py.

        One photo may meet many target poses, and one target pose many photos. The images come in the photos' kind
        (PIL, array or tensor), at the stored size: one image where all three inputs are single, else B of them (PIL:
        a list). They are drawn `opt.batchSize` at a time. ValueError for wrong shapes.
        """
        pictures, single_photo = _pictures(photos)
        poses, single = [], single_photo
        for which, given in (("source", source_keypoints), ("target", target_keypoints)):
            points = torch.as_tensor(np.asarray(given), dtype=torch.float32)
            if points.shape[-2:] != (NUM_JOINTS, 2) or points.ndim not in (2, 3):
                raise ValueError(f"{which} keypoints: expected (18,2) or (B,18,2), got {tuple(points.shape)}")
            single = single and points.ndim == 2
            poses.append(points.reshape(-1, NUM_JOINTS, 2))
        count = max(len(pictures), *map(len, poses))
        if any(len(given) not in (1, count) for given in (pictures, *poses)):
            lengths = f"{len(pictures)} photos, {len(poses[0])} source poses, {len(poses[1])} target poses"
            raise ValueError(f"{lengths}: each must be one, or as many as the others")
        drawn = torch.cat(list(self._batches(pictures, *poses, count)))
        if isinstance(photos, Tensor):
            return drawn[0] if single else drawn
        if isinstance(photos, np.ndarray):
            arrays = drawn.permute(0, 2, 3, 1).numpy()
            return arrays[0] if single else arrays
        return to_pil(drawn[0]) if single else [to_pil(image) for image in drawn]

    def _batches(self, pictures: list[Image.Image], source: Tensor, target: Tensor, count: int) -> Iterator[Tensor]:
        if wrong := [picture.size for picture in pictures if picture.size[::-1] != self.stored_size]:
            raise ValueError(f"photos must be {self.stored_size} (height, width), got {wrong[0][::-1]}")
        stretched = [stretch(picture, self.network_size) for picture in pictures]
        source, target = (scale_keypoints(points, self.stored_size, self.network_size) for points in (source, target))
        for start in range(0, count, self.opt.batchSize):
            rows = range(start, min(start + self.opt.batchSize, count))
            yield self.generate({
                "source_image": torch.stack([stretched[row % len(stretched)] for row in rows]),
                "source_keypoints": torch.stack([source[row % len(source)] for row in rows]),
                "target_keypoints": torch.stack([target[row % len(target)] for row in rows]),
            })  # fmt: skip

    def generate(self, batch: dict[str, Any]) -> Tensor:
        """A loader's batch (at network resolution) -> uint8 (B,3,H,W) at the stored size, on the CPU.

        Compiled networks see full batches only: a smaller one is filled up, because each new size would be compiled.
        """
        drawn = len(batch["source_image"])
        if self.opt.compile and drawn < self.opt.batchSize:
            rows = torch.arange(self.opt.batchSize).clamp(max=drawn - 1)
            batch = {key: value[rows] if isinstance(value, Tensor) else value for key, value in batch.items()}
        self.model.set_input(batch)
        return resize_uint8(to_uint8(self.model.test()[:drawn]), self.stored_size).cpu()


def _pictures(photos: Photo | Sequence[Image.Image]) -> tuple[list[Image.Image], bool]:
    """As RGB pictures, and whether it was a single one."""
    if isinstance(photos, Image.Image):
        return [photos.convert("RGB")], True
    if not isinstance(photos, np.ndarray | Tensor):
        if not photos or not all(isinstance(photo, Image.Image) for photo in photos):
            raise ValueError("photos: expected PIL images, a uint8 array or a uint8 tensor")
        return [photo.convert("RGB") for photo in photos], False
    channels_at = -1 if isinstance(photos, np.ndarray) else -3
    array = np.asarray(photos)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[channels_at] != 3:
        shape = "(B,H,W,3)" if channels_at == -1 else "(B,3,H,W)"
        raise ValueError(f"photos: expected uint8 {shape}, got {array.dtype} {array.shape}")
    if channels_at == -3:
        array = np.moveaxis(array, -3, -1)
    single = array.ndim == 3
    return [Image.fromarray(np.ascontiguousarray(photo)) for photo in (array[None] if single else array)], single
