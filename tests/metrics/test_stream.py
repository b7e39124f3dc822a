"""metrics/stream.py: batches of pairs from disk."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from metrics.pairing import Sample
from metrics.pixel import score_pixels
from metrics.protocols import PROTOCOLS
from metrics.stream import PairDataset, make_loader
from tests.metrics.conftest import PIXELS, golden_images

DPTN = PROTOCOLS["dptn"]


def write_images(folder: Path, images: torch.Tensor) -> list[str]:
    names = [f"{number}.png" for number in range(len(images))]
    for name, image in zip(names, images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name)
    return names


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_any_size_hold_the_same_data(tmp_path, workers):
    fakes, reals = (images.repeat(3, 1, 1, 1) for images in golden_images(128, 64))
    for name, images in (("fake", fakes), ("real", reals)):
        (tmp_path / name).mkdir()
        names = write_images(tmp_path / name, images)
    samples = [Sample(None, name, tmp_path / "fake" / name) for name in names]
    expected = pd.DataFrame([score_pixels(*pair, None, PIXELS, DPTN, "market") for pair in zip(fakes, reals)])
    pairs = PairDataset(samples, tmp_path / "real", "market", [DPTN], PIXELS, None, keep_images=True)
    for size in (1, 7, 9):
        batches, problems = zip(*make_loader(pairs, size, workers))
        assert not any(problems)
        assert [len(batch["index"]) for batch in batches] == [size] * (9 // size) + [9 % size] * (9 % size > 0)
        assert torch.equal(torch.cat([batch["fakes"][DPTN.view("market")] for batch in batches]), fakes)
        for name in PIXELS:
            scores = torch.cat([batch["scores"]["dptn", name] for batch in batches])
            assert scores.tolist() == expected[name].tolist()
