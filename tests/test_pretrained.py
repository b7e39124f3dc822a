"""The weights in pretrained/: they load by name alone, and generate people whom they have not seen."""

import json
import re
from hashlib import sha256

import pytest

from data.synthetic.people import render_people
from tests.helpers import REPOSITORY

FOLDER = REPOSITORY / "pretrained" / "rendered_market"


def test_card_names_the_weights():
    card = (FOLDER / "README.md").read_text()
    weights = (FOLDER / "latest_net_G.pth").read_bytes()
    assert sha256(weights).hexdigest() in card
    assert len(weights) < 6e6


@pytest.mark.slow
def test_scores_of_the_card(command, tmp_path):
    """Three of the card's ten people: the network is as good as the card says, and far better than the source image."""
    people = tmp_path / "people"
    render_people(people, "market", (1, 3), 6, seed=1, workers=1)
    folders = (f"--checkpoints_dir={FOLDER.parent}", f"--dataroot={people}", f"--results_dir={tmp_path / 'results'}")
    done = command("test.py", "--name=rendered_market", "--gpu_id=-1", "--nThreads=0", "--batchSize=8", *folders)
    assert done.returncode == 0, done.stderr
    assert "ngf 32" in done.stdout

    def scores(*flags: str) -> dict[str, float]:
        out = tmp_path / f"{len(flags)}.jsonl"
        done = command(
            "-m metrics.metrics", "--market", "--protocol=standard", "--metrics=psnr,ssim_256", "--gpu_ids=-1",
            f"--gt_path={people / 'test'}", f"--pairs={people / 'market-pairs-test.csv'}", f"--out={out}", *flags,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return {name: metric["value"] for name, metric in json.loads(out.read_text())["metrics"].items()}

    psnr, ssim = re.search(r"this network \| ([\d.]+) \| ([\d.]+)", (FOLDER / "README.md").read_text()).groups()
    network = scores(f"--distorted_path={tmp_path / 'results'}", "--name=network")
    source = scores("--baseline=copy_source")
    assert network["psnr"] > max(float(psnr) - 1.5, source["psnr"] + 3)  # three people differ from ten
    assert network["ssim_256"] > max(float(ssim) - 0.05, source["ssim_256"] + 0.1)
