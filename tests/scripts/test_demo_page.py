"""scripts/demo_page.py: one table for networks and baselines, examples with all networks, and an honest sentence."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from metrics.protocols import PROTOCOLS
from scripts import demo_page
from scripts.demo_page import judge

COLORS = {"pretrained": "red", "own": "lime"}
SCORES = {"pretrained": 22.0, "own": 19.5, "copy_source": 18.0, "mean_image": 18.5}


@pytest.fixture
def results(tmp_path) -> Path:
    """Thirty strips of two networks: each has its own color in the column of generated images, the rest is black."""
    for network, color in COLORS.items():
        (tmp_path / f"results/{network}/strips").mkdir(parents=True)
        strip = Image.new("RGB", (5 * 64, 128))
        strip.paste(color, (3 * 64, 0, 4 * 64, 128))
        for number in range(30):
            strip.save(tmp_path / f"results/{network}/strips/{number:02}.jpg")
    return tmp_path / "results"


def write_metrics(path: Path, *names: str) -> Path:
    common = {"data_set": "market", "protocol": "standard", "switches": PROTOCOLS["standard"].switches()}
    common |= {"paths": {"generated": "results"}, "time": "now"}
    lines = []
    for name in names:
        values = {"l1": 0.05, "psnr": SCORES[name], "ssim_256": 0.6, "mask_ssim": 0.8}
        lines.append({**common, "name": name, "metrics": {m: {"value": v, "n": 30} for m, v in values.items()}})
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def flags(results: Path, metrics: Path) -> tuple:
    return "--results", results, "--metrics", metrics, "--training", results.parent / "run"


def test_page_before_the_training_shows_the_pretrained_network(call, results, tmp_path):
    metrics = write_metrics(tmp_path / "m.jsonl", "pretrained", "copy_source", "mean_image")
    done = call(demo_page, *flags(results, metrics))
    assert done.returncode == 0, done.stderr
    html = (results / "demo.html").read_text()
    assert "trained here" not in html
    assert "pretrained/index.html" in html
    assert 6 <= html.count("<img") <= 12
    with Image.open(results / "examples/00.jpg") as example:
        assert example.size == (4 * 64, 128)


def test_page_after_the_training_shows_both_networks(call, results, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_page, "load_state", lambda path: {"progress": {"total": 4321}})
    metrics = write_metrics(tmp_path / "m.jsonl", *SCORES)
    done = call(demo_page, *flags(results, metrics))
    assert done.returncode == 0, done.stderr
    assert "network trained here                19.50" in done.stdout
    html = (results / "demo.html").read_text()
    assert "4,321 pairs" in html
    assert "../run/web/index.html" in html
    assert html.index("<td>22.00</td>") < html.index("<td>19.50</td>") < html.index("<td>18.00</td>")
    columns = np.array(Image.open(results / "examples/00.jpg").convert("RGB")).reshape(128, 5, 64, 3)[64, :, 32]
    dark, red, lime = (0, 0, 0), (255, 0, 0), (0, 255, 0)
    np.testing.assert_allclose(columns, [dark, dark, red, lime, dark], atol=8)


def test_page_without_results_is_a_user_error(call, tmp_path):
    metrics = write_metrics(tmp_path / "m.jsonl", "pretrained")
    done = call(demo_page, *flags(tmp_path / "results", metrics))
    assert done.returncode == 2
    assert "run test.py" in done.stderr


def table(own: dict[str, float]) -> pd.DataFrame:
    columns = ["psnr", "ssim_256", "mask_ssim"]
    rows = {"own": [own[name] for name in columns], "copy_source": [17.0, 0.5, 0.82], "mean_image": [18.0, 0.45, 0.8]}
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def test_judge_says_where_both_baselines_are_beaten():
    text = judge(table({"psnr": 18.1, "ssim_256": 0.51, "mask_ssim": 0.83}), 5000)
    assert text == "The network trained here has seen 5,000 pairs and beats both baselines in PSNR, SSIM, mask SSIM."


@pytest.mark.parametrize("mask_ssim", [0.82, 0.81, float("nan")])  # equal, worse, not a number
def test_judge_says_what_too_few_pairs_did_not_reach(mask_ssim):
    text = judge(table({"psnr": 18.1, "ssim_256": 0.51, "mask_ssim": mask_ssim}), 500)
    assert "too few" in text
    assert "not yet beat both baselines in mask SSIM. Run" in text
