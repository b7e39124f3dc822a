"""The evaluation's pixel metrics beside a scikit-image loop, and its networks beside a matrix product."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import AlexNet, Inception3

from data import find_dataset
from metrics.inception import Inception
from metrics.lpips import LPIPS
from metrics.pairing import Sample
from metrics.protocols import PROTOCOLS
from metrics.stream import PairDataset, make_loader
from scripts.benchmark.measure import matmul_gflops, median_seconds, print_table
from util.device import PRECISIONS
from util.image import save_image

PIXELS = ["psnr", "ssim", "ssim_256", "mae", "l1"]
FILES = 8  # different images on disk; with so few, reading them costs next to nothing
WORKERS, PAIRS = 2, {"fashion": 400, "market": 4000}  # enough pairs to hide the time that the processes take to start
PIXEL_COLUMNS = {"data set": "", "scikit-image loop, 1 process": ".2f", "here, 2 processes": ".2f",
                 "times as fast": ".1f", "ms of processor: loop": ".2f", "here": ".2f"}  # fmt: skip
NETWORK_COLUMNS = {"network": "", "batch": "", "precision": "", "s/image": ".4f", "GFLOP/image": ".2f",
                   "GFLOP/s": ".0f", "of matmul": ".0%"}  # fmt: skip


def report_pixels(repeats: int) -> None:
    """Print a table: the five pixel metrics of the dptn protocol, JPEG decoding included, in ms for each pair."""
    print_table((measure_pixels(name, repeats) for name in PAIRS), PIXEL_COLUMNS)


def measure_pixels(name: str, repeats: int) -> tuple:
    """One row of `report_pixels`' table."""
    with tempfile.TemporaryDirectory() as folder:
        samples = write_pairs(Path(folder), name, PAIRS[name])
        loops = [milliseconds(scikit_image_loop, samples[:FILES], Path(folder), name) for _ in range(repeats)]
        loop, loop_processor = sorted(loops)[repeats // 2]
        here, here_processor = milliseconds(stream, samples, Path(folder), name)
    return name, loop, here, loop / here, loop_processor, here_processor


def milliseconds(
    call: Callable[[list[Sample], Path, str], None], samples: list[Sample], folder: Path, data_set: str
) -> tuple[float, float]:
    """Milliseconds for each pair: by the clock, and of processor time over all processes."""
    start, before = time.perf_counter(), sum(os.times()[:4])
    call(samples, folder, data_set)
    return (time.perf_counter() - start) / len(samples) * 1e3, (sum(os.times()[:4]) - before) / len(samples) * 1e3


def write_pairs(folder: Path, data_set: str, count: int) -> list[Sample]:
    """`count` pairs of a few files, each of which serves as generated image and as target."""
    names = [f"{number}.jpg" for number in range(FILES)]
    for name, pixels in zip(names, noisy_waves(FILES, *find_dataset(data_set).stored_size)):
        save_image(Image.fromarray(pixels), folder / name)
    return [Sample(None, names[number % FILES], folder / names[(number + 1) % FILES]) for number in range(count)]


def noisy_waves(count: int, height: int, width: int) -> np.ndarray:
    """Smooth waves with some noise on them, which a JPEG compresses about as well as photos: uint8 (N,H,W,3)."""
    random = np.random.RandomState(0)
    y, x = np.mgrid[:height, :width, :1] / max(height, width)
    horizontal, vertical = random.uniform(6, 36, (2, count, 1, 1, 3))
    waves = np.sin(horizontal * x) * np.cos(vertical * y)
    return (128 + 76 * waves + 25 * random.standard_normal(waves.shape)).clip(0, 255).astype(np.uint8)


def scikit_image_loop(samples: list[Sample], folder: Path, data_set: str) -> None:
    """The metrics in `PIXELS` as a user of scikit-image would compute them."""
    margin = ((0, 0), (PROTOCOLS["dptn"].margin(data_set),) * 2, (0, 0))
    for sample in samples:
        files = (sample.generated, folder / sample.target)
        fake, real = (np.pad(np.asarray(Image.open(file)), margin, constant_values=255) / 255 for file in files)
        peak_signal_noise_ratio(real, fake, data_range=1)
        structural_similarity(real, fake, data_range=1, win_size=51, channel_axis=2)
        gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        structural_similarity(real, fake, data_range=np.ptp(fake), channel_axis=2, **gaussian)
        difference = np.abs(fake - real)
        difference.sum() / (fake + real).sum()
        difference.mean()


def stream(samples: list[Sample], folder: Path, data_set: str) -> None:
    pairs = PairDataset(samples, folder, data_set, [PROTOCOLS["dptn"]], PIXELS, None, keep_images=False)
    for _ in make_loader(pairs, 8, WORKERS):
        pass


def report_networks(device: torch.device, batch: int | None, precisions: list[str], repeats: int) -> None:
    """Print a table: LPIPS and Inception features (random weights) of DeepFashion's 256 x 176 images."""
    batch = batch or (8 if device.type == "cpu" else 64)
    print_table(measure_networks(device, batch, precisions, repeats), NETWORK_COLUMNS)


def measure_networks(device: torch.device, batch: int, precisions: list[str], repeats: int) -> Iterator[tuple]:
    """The rows of `report_networks`' table."""
    images = torch.randint(0, 256, (batch, 3, *find_dataset("fashion").stored_size), dtype=torch.uint8, device=device)
    for name, call in networks(device, images).items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            call()
        gflop = counter.get_total_flops() / batch / 1e9
        for precision in precisions:
            dtype = PRECISIONS[precision]
            with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32"):
                call()
                peak = matmul_gflops(dtype, device)
                seconds = median_seconds(call, repeats, device) / batch
            rate = gflop / seconds
            yield name, batch, precision, seconds, gflop, rate, rate / peak


def networks(device: torch.device, images: Tensor) -> dict[str, Callable[[], Tensor]]:
    """What each network computes: distances of `images` to their mirror images, and features of `images`."""
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, net in (("alexnet", AlexNet()), ("inception", Inception3(aux_logits=False, init_weights=False))):
            files[name] = f"{folder}/{name}.pth"
            torch.save(net.state_dict(), files[name])
        lpips, inception = LPIPS(files["alexnet"]), Inception("torchvision", files["inception"])
    lpips, inception = (net.to(device).to(memory_format=torch.channels_last) for net in (lpips, inception))
    mirrored = images.flip(-1)
    return {"LPIPS, a pair": lambda: lpips(images, mirrored), "Inception-v3": lambda: inception(images)}
