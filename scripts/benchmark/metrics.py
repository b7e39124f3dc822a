"""The evaluation's pixel metrics beside a scikit-image loop, and its networks beside a matrix product."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchvision.models import AlexNet, Inception3

from data import find_dataset
from metrics.inception import Inception
from metrics.lpips import LPIPS
from metrics.pairing import Sample
from metrics.protocols import PROTOCOLS
from metrics.stream import PairDataset, make_loader
from scripts.benchmark.measure import count_gflop, matmul_gflops, median_seconds
from util.device import PRECISIONS, use_precision
from util.image import save_image

PIXELS = ["psnr", "ssim", "ssim_256", "mae", "l1"]
FILES = 8  # different images on disk; with so few, reading them costs next to nothing
WORKERS, PAIRS = 2, {"fashion": 400, "market": 4000}  # enough pairs to hide the time that the processes take to start
PIXEL_COLUMNS = {"data set": "", "scikit-image loop, 1 process": ".2f", "here, 2 processes": ".2f",
                 "times as fast": ".1f", "ms of processor: loop": ".2f", "here": ".2f"}  # fmt: skip
NETWORK_COLUMNS = {"network": "", "batch": "", "precision": "", "s/image": ".4f", "GFLOP/image": ".2f",
                   "GFLOP/s": ".0f", "of matmul": ".0%"}  # fmt: skip


def measure_pixels(repeats: int) -> Iterator[tuple]:
    """Rows of a table: the five pixel metrics of the dptn protocol, JPEG decoding included, in ms for each pair."""
    for name, count in PAIRS.items():
        with tempfile.TemporaryDirectory() as folder:
            samples = write_pairs(Path(folder), name, count)
            loops = [milliseconds(scikit_image_loop, samples[:FILES], folder, name) for _ in range(repeats)]
            loop, loop_processor = sorted(loops)[repeats // 2]
            here, here_processor = milliseconds(evaluation, samples, folder, name)
        yield name, loop, here, loop / here, loop_processor, here_processor


def milliseconds(call: Callable, samples: list[Sample], folder: str, dataset_mode: str) -> tuple[float, float]:
    """Milliseconds for each pair: by the clock, and of processor time over all processes."""
    start, before = time.perf_counter(), sum(os.times()[:4])
    call(samples, Path(folder), dataset_mode)
    return (time.perf_counter() - start) / len(samples) * 1e3, (sum(os.times()[:4]) - before) / len(samples) * 1e3


def write_pairs(folder: Path, dataset_mode: str, count: int) -> list[Sample]:
    """`count` pairs (generated image, target) of FILES noisy waves, which JPEG compresses about as well as photos."""
    random, (height, width) = np.random.RandomState(0), find_dataset(dataset_mode).stored_size
    y, x, _ = np.mgrid[:height, :width, :1] / max(height, width)  # (H,W,1)
    names = [f"{number}.jpg" for number in range(FILES)]
    for name in names:
        horizontal, vertical = random.uniform(6, 36, (2, 1, 1, 3))
        wave = 128 + 76 * np.sin(horizontal * x) * np.cos(vertical * y)
        pixels = wave + 25 * random.standard_normal(wave.shape)
        save_image(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), folder / name)
    return [Sample(None, names[number % FILES], folder / names[(number + 1) % FILES]) for number in range(count)]


def scikit_image_loop(samples: list[Sample], folder: Path, dataset_mode: str) -> None:
    """The metrics in `PIXELS` as a user of scikit-image would compute them."""
    margin = ((0, 0), (PROTOCOLS["dptn"].margin(dataset_mode),) * 2, (0, 0))
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for sample in samples:
        files = (sample.generated, folder / sample.target)
        fake, real = (np.pad(np.asarray(Image.open(file)), margin, constant_values=255) / 255 for file in files)
        peak_signal_noise_ratio(real, fake, data_range=1)
        structural_similarity(real, fake, data_range=1, win_size=51, channel_axis=2)
        structural_similarity(real, fake, data_range=np.ptp(fake), channel_axis=2, **gaussian)
        difference = np.abs(fake - real)
        difference.sum() / (fake + real).sum()
        difference.mean()


def evaluation(samples: list[Sample], folder: Path, dataset_mode: str) -> None:
    """The metrics in `PIXELS` as the evaluation command computes them."""
    pairs = PairDataset(samples, folder, dataset_mode, [PROTOCOLS["dptn"]], PIXELS, None, keep_images=False)
    for _ in make_loader(pairs, 8, WORKERS):
        pass


def measure_networks(device: torch.device, batch: int, precisions: list[str], repeats: int) -> Iterator[tuple]:
    """Rows of a table: LPIPS and Inception features (random weights) of DeepFashion's 256 x 176 images."""
    images = torch.randint(0, 256, (batch, 3, *find_dataset("fashion").stored_size), dtype=torch.uint8, device=device)
    lpips, inception = random_networks(device)
    calls = {"LPIPS, a pair": partial(lpips, images, images.flip(-1)), "Inception-v3": partial(inception, images)}
    for name, call in calls.items():
        with torch.no_grad():
            gflop = count_gflop(call) / batch
        for precision in precisions:
            dtype = PRECISIONS[use_precision(precision, device)]
            with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=precision == "bf16"):
                call()
                peak = matmul_gflops(dtype, device)
                per_image = median_seconds(call, repeats, device) / batch
            yield name, batch, precision, per_image, gflop, gflop / per_image, gflop / per_image / peak


def random_networks(device: torch.device) -> list[torch.nn.Module]:
    """LPIPS and Inception with random weights, which they can only load from files."""
    with tempfile.TemporaryDirectory() as folder:
        alexnet, inception = f"{folder}/alexnet.pth", f"{folder}/inception.pth"
        torch.save(AlexNet().state_dict(), alexnet)
        torch.save(Inception3(aux_logits=False, init_weights=False).state_dict(), inception)
        networks = LPIPS(alexnet), Inception("torchvision", inception)
    return [net.to(device).to(memory_format=torch.channels_last) for net in networks]
