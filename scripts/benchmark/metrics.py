"""The metrics part of scripts/benchmark.py: pixel metrics against a scikit-image loop, networks against matmul."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import AlexNet, Inception3

from data import find_dataset
from metrics.inception import Inception
from metrics.lpips import LPIPS
from metrics.pairing import Sample
from metrics.protocols import PROTOCOLS
from metrics.stream import PairDataset, make_loader
from tests.formula import formula_images
from tests.metrics.reference_metrics import reference_scores
from util.device import PRECISIONS
from util.image import save_image

PIXELS = ["psnr", "ssim", "ssim_256", "mae", "l1"]
FILES = 8  # different pairs; their files stay in the disk's cache
WORKERS, PAIRS = 2, {"fashion": 400, "market": 4000}  # long enough for starting the processes not to matter


def report_pixels(repeats: int) -> None:
    """Print a table: the five pixel metrics of the dptn protocol, JPEG decoding included, in ms a pair."""
    print(
        "| data set | scikit-image loop, 1 process | here, 2 processes | times as fast | ms of processor: loop | here |"
    )
    print("|---|---|---|---|---|---|", flush=True)
    for name in PAIRS:
        with tempfile.TemporaryDirectory() as folder:
            samples = write_pairs(Path(folder), name, PAIRS[name])
            loops = [timed(scikit_image_loop, samples[:FILES], Path(folder), name) for _ in range(repeats)]
            loop, loop_processor = sorted(loops)[repeats // 2]
            here, here_processor = timed(stream, samples, Path(folder), name)
        print(
            f"| {name} | {loop:.2f} | {here:.2f} | {loop / here:.1f} | {loop_processor:.2f} | {here_processor:.2f} |",
            flush=True,
        )


def timed(
    call: Callable[[list[Sample], Path, str], None], samples: list[Sample], folder: Path, data_set: str
) -> tuple[float, float]:
    """Milliseconds a pair: by the clock, and of processor time over all processes."""
    start, before = time.perf_counter(), sum(os.times()[:4])
    call(samples, folder, data_set)
    return (time.perf_counter() - start) / len(samples) * 1e3, (sum(os.times()[:4]) - before) / len(samples) * 1e3


def write_pairs(folder: Path, data_set: str, count: int) -> list[Sample]:
    """`count` pairs of a few files, in the place of generated image and target."""
    pixels = ((formula_images("metrics", (FILES, 3, *find_dataset(data_set).stored_size)) + 1) * 127.5).astype(np.uint8)
    names = [f"{number}.jpg" for number in range(FILES)]
    for name, image in zip(names, pixels):
        save_image(Image.fromarray(image.transpose(1, 2, 0)), folder / name)
    return [Sample(None, names[number % FILES], folder / names[(number + 1) % FILES]) for number in range(count)]


def scikit_image_loop(samples: list[Sample], folder: Path, data_set: str) -> None:
    for sample in samples:
        fake, real = (np.asarray(Image.open(path)) for path in (sample.generated, folder / sample.target))
        reference_scores(fake, real, fake.shape[1] + 2 * PROTOCOLS["dptn"].margin(data_set), full_range=False)


def stream(samples: list[Sample], folder: Path, data_set: str) -> None:
    pairs = PairDataset(samples, folder, data_set, [PROTOCOLS["dptn"]], PIXELS, None, keep_images=False)
    for _ in make_loader(pairs, 8, WORKERS):
        pass


def report_networks(
    device: torch.device, batch: int | None, precisions: list[str], repeats: int,
    median_seconds: Callable[..., float], matmul_rate: Callable[..., float],
) -> None:  # fmt: skip
    """Print a table: LPIPS and Inception features (random weights) of DeepFashion's 256 x 176 images."""
    print("| network | batch | precision | s/image | GFLOP/image | GFLOP/s | of matmul |")
    print("|---|---|---|---|---|---|---|", flush=True)
    batch = batch or (8 if device.type == "cpu" else 64)
    images = torch.randint(0, 256, (batch, 3, *find_dataset("fashion").stored_size), dtype=torch.uint8, device=device)
    for name, call in networks(device, images).items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            call()
        gflop = counter.get_total_flops() / batch / 1e9
        for precision in precisions:
            dtype = PRECISIONS[precision]
            with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32"):
                call()
                peak = matmul_rate(dtype, device)
                seconds = median_seconds(call, repeats, device) / batch
            rate = gflop / seconds
            print(
                f"| {name} | {batch} | {precision} | {seconds:.4f} | {gflop:.2f} | {rate:.0f} | {rate / peak:.0%} |",
                flush=True,
            )


def networks(device: torch.device, images: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """What each network does with a batch: distances of `images` to their mirror images, features of `images`."""
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, net in (("alexnet", AlexNet()), ("inception", Inception3(aux_logits=False, init_weights=False))):
            files[name] = f"{folder}/{name}.pth"
            torch.save(net.state_dict(), files[name])
        lpips, inception = LPIPS(files["alexnet"]), Inception("torchvision", files["inception"])
    lpips, inception = (net.to(device).to(memory_format=torch.channels_last) for net in (lpips, inception))
    mirrored = images.flip(-1)
    return {"LPIPS, a pair": lambda: lpips(images, mirrored), "Inception-v3": lambda: inception(images)}
