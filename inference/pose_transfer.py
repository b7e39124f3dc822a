"""A trained generator for use in Python: images of people and target poses in, the same people in those poses out.

    from inference.pose_transfer import PoseTransfer

    transfer = PoseTransfer.load("DPTN_fashion", dataset_mode="fashion")
    image = transfer(source_image, source_keypoints, target_keypoints)

Images have the data set's stored size (DeepFashion 256 x 176, Market-1501 128 x 64: `transfer.stored_size`);
inference/framing.py crops other photos to it.
"""

import io
from argparse import Namespace
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stderr
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data import find_dataset
from data.keypoints import NUM_JOINTS, scale_keypoints
from models import create_model
from options.test_options import TestOptions
from util.device import select_device
from util.image import resize_uint8, stretch, to_pil, to_uint8, to_upright_rgb

Images = Image.Image | Sequence[Image.Image] | np.ndarray | Tensor  # one or several


class _StartedBatch(NamedTuple):
    """A batch and its images, which on CUDA are complete after the event `copied`."""

    batch: dict[str, Any]
    images: Tensor  # uint8 (B,3,H,W), on the CPU
    copied: torch.cuda.Event | None

    def finish(self) -> tuple[dict[str, Any], Tensor]:
        """Wait until the images are complete."""
        if self.copied:
            self.copied.synchronize()
        return self.batch, self.images


class PoseTransfer:
    """Load once, call many times. Each generated image depends on its own inputs only, not on the rest of the batch.

    On a Linux CPU, the process keeps freed memory from then on (util/device.py). To change the weights, call
    `model.load_networks` and nothing else, because compiled networks hold the weights as constants.
    Letters of the shapes: B images; H x W is `stored_size`, h x w `network_size`.
    """

    def __init__(self, opt: Namespace, device: torch.device) -> None:
        """`opt` as parsed by TestOptions. Raises UserError if the weights are missing or do not fit the options."""
        self.opt, self.device = opt, device
        dataset = find_dataset(opt.dataset_mode)
        self.stored_size, self.network_size = dataset.stored_size, dataset.network_size
        self.model = create_model(opt, device, is_train=False)
        opt.precision = self.model.precision  # the default depends on the device; test_run.json records it
        self.weights_file = self.model.run_dir / f"{opt.which_epoch}_net_G.pth"
        self.model.load_networks(self.model.run_dir, opt.which_epoch)

    @classmethod
    def load(cls, name: str, **flags: Any) -> "PoseTransfer":
        """Load the run `name`, a folder below `checkpoints_dir`, with flags of test.py by name (which_epoch=190, ...).

        Raises ValueError for a bad flag, UserError if the weights are missing or do not fit.
        """
        argv = [f"--name={name}"]
        for flag, value in flags.items():
            if value is not None:
                argv.append(f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag}={value}")
        captured_stderr = io.StringIO()
        try:
            with redirect_stderr(captured_stderr):
                opt = TestOptions().parse(argv)
        except SystemExit as error:  # argparse has printed its message
            raise ValueError(captured_stderr.getvalue().strip().rsplit("error: ", 1)[-1]) from error
        return cls(opt, select_device(opt.gpu_ids))

    def __call__(self, source_images: Images, source_keypoints: Any, target_keypoints: Any) -> Any:
        """Generate the people of the source images in the target poses.

        source_images: stored-size RGB images, 0..255. One PIL image or a sequence of them, a uint8 array (H,W,3) or
            (B,H,W,3), or a uint8 tensor (3,H,W) or (B,3,H,W).
        source_keypoints, target_keypoints: (18,2) or (B,18,2), an array, a tensor or lists, of (y, x) in pixels of the
            stored size, NaN = missing, joints in the order of data/keypoints.py.

        Each input may be a single one that is used for all of the others. Returns uint8 images of the stored size in
        the type of `source_images` (a tensor on the CPU): one image if all three inputs are single, else B (PIL
        images: a list). They are generated `opt.batchSize` at a time. Raises ValueError for wrong types, shapes or
        sizes.
        """
        images, one_image = _to_pil_images(source_images)
        sources, one_source = _to_keypoint_tensor(source_keypoints, "source")
        targets, one_target = _to_keypoint_tensor(target_keypoints, "target")
        batches = self._batches(images, sources, targets)
        generated = torch.cat([result for _, result in self.generate_all(batches)])
        if isinstance(source_images, Tensor):
            results = generated
        elif isinstance(source_images, np.ndarray):
            results = generated.permute(0, 2, 3, 1).numpy()
        else:
            results = [to_pil(image) for image in generated]
        return results[0] if one_image and one_source and one_target else results

    def generate(self, batch: dict[str, Any]) -> Tensor:
        """Generate the images of a loader's batch (data/pose_pair_dataset.py): uint8 (B,3,H,W), on the CPU.

        batch: `source_image` uint8 (B,3,h,w) at the network's resolution, `source_keypoints` and `target_keypoints`
            float32 (B,18,2) in whole pixels of that resolution. On CUDA, and elsewhere with --compile, a batch smaller
            than `opt.batchSize` is filled up with copies of its last sample, because cuDNN would tune its convolutions
            anew for another size, and torch would compile for it.
        """
        ((_, images),) = self.generate_all([batch])
        return images

    def generate_all(self, batches: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Tensor]]:
        """Each batch with its images, as `generate` makes them.

        On CUDA a batch comes only when the next one is queued, so that the GPU works while the images are used. On
        other devices it comes at once.
        """
        ahead = 1 if self.device.type == "cuda" else 0
        started: deque[_StartedBatch] = deque()
        for batch in batches:
            started.append(self._start(batch))
            if len(started) > ahead:
                yield started.popleft().finish()
        for last in started:
            yield last.finish()

    def _start(self, batch: dict[str, Any]) -> _StartedBatch:
        """Generate a batch's images; on CUDA this returns when the work is queued.

        The images of each batch have memory of their own. On CUDA it is pinned and comes from torch's cache, which does
        not hand it out again while a tensor uses it: threads may keep images for as long as they need them.
        """
        count = len(batch["source_image"])
        self.model.set_input(self._fill_up(batch))
        images = resize_uint8(to_uint8(self.model.test()[:count]), self.stored_size)
        if self.device.type != "cuda":
            return _StartedBatch(batch, images.cpu(), None)
        images = images.to("cpu", non_blocking=True)  # torch pins the memory of such a copy
        copied = torch.cuda.Event(blocking=True)  # its wait leaves the core to the threads that write images
        copied.record(torch.cuda.current_stream(self.device))
        return _StartedBatch(batch, images, copied)

    def _fill_up(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Repeat the last sample up to `opt.batchSize`, on CUDA or with --compile."""
        count, size = len(batch["source_image"]), self.opt.batchSize
        if count >= size or not (self.opt.compile or self.device.type == "cuda"):
            return batch
        rows = torch.arange(size).clamp(max=count - 1)
        return {key: value[rows] if isinstance(value, Tensor) else value for key, value in batch.items()}

    def _batches(self, images: list[Image.Image], sources: Tensor, targets: Tensor) -> Iterator[dict[str, Tensor]]:
        """Batches for `generate_all` from stored-size images and poses (B or 1, 18, 2) in pixels of the stored size."""
        if wrong := [image.size for image in images if image.size[::-1] != self.stored_size]:
            raise ValueError(f"source images must be {self.stored_size} (height, width), got {wrong[0][::-1]}")
        lengths = len(images), len(sources), len(targets)
        if 0 in lengths or set(lengths) - {1, max(lengths)}:
            given = "{} source images, {} source poses, {} target poses".format(*lengths)
            raise ValueError(f"{given}: each must be one, or as many as the others, and none empty")
        samples = {
            "source_image": torch.stack([stretch(image, self.network_size) for image in images]),
            "source_keypoints": scale_keypoints(sources, self.stored_size, self.network_size),
            "target_keypoints": scale_keypoints(targets, self.stored_size, self.network_size),
        }
        for start in range(0, max(lengths), self.opt.batchSize):
            rows = torch.arange(start, min(start + self.opt.batchSize, max(lengths)))
            yield {key: values[rows % len(values)] for key, values in samples.items()}


def _to_pil_images(images: Images) -> tuple[list[Image.Image], bool]:
    """RGB images, and whether a single one was given. Raises ValueError for wrong types and shapes."""
    if isinstance(images, Image.Image):
        return [to_upright_rgb(images).image], True
    if not isinstance(images, np.ndarray | Tensor):
        if not isinstance(images, Sequence) or not images or not all(isinstance(x, Image.Image) for x in images):
            raise ValueError("source images: expected PIL images, a uint8 array or a uint8 tensor")
        return [to_upright_rgb(image).image for image in images], False
    channel_axis, shape = (-3, "(3,H,W) or (B,3,H,W)") if isinstance(images, Tensor) else (-1, "(H,W,3) or (B,H,W,3)")
    dtype = str(images.dtype).removeprefix("torch.")
    if dtype != "uint8" or images.ndim not in (3, 4) or images.shape[channel_axis] != 3:
        raise ValueError(f"source images: expected uint8 {shape}, got {dtype} {tuple(images.shape)}")
    array = images.cpu().numpy() if isinstance(images, Tensor) else images
    array = np.ascontiguousarray(np.moveaxis(array, channel_axis, -1))
    single = array.ndim == 3
    return [Image.fromarray(pixels) for pixels in (array[None] if single else array)], single


def _to_keypoint_tensor(keypoints: Any, role: str) -> tuple[Tensor, bool]:
    """float32 (B,18,2), and whether a single pose was given. Raises ValueError for wrong types and shapes."""
    if isinstance(keypoints, Tensor):
        keypoints = keypoints.detach().float().cpu()
    try:
        poses = torch.from_numpy(np.array(keypoints, np.float32))  # None becomes NaN
    except (TypeError, ValueError) as error:
        raise ValueError(f"{role} keypoints: expected numbers of shape (18,2) or (B,18,2) ({error})") from error
    if poses.shape[-2:] != (NUM_JOINTS, 2) or poses.ndim not in (2, 3):
        raise ValueError(f"{role} keypoints: expected (18,2) or (B,18,2), got {tuple(poses.shape)}")
    return poses.reshape(-1, NUM_JOINTS, 2), poses.ndim == 2
