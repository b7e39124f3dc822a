"""The shell scripts: every flag they give is one that its program takes, and theirs reach it."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from metrics import options as metrics_options
from metrics.protocols import PROTOCOLS
from options.test_options import TestOptions
from options.train_options import TrainOptions
from tests.conftest import REPOSITORY

RECORDER = """#!/usr/bin/env python3
import json, sys
with open({log!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "-c":
    print("fp32")
"""


@pytest.fixture
def recorder(tmp_path):
    """A stand-in for Python that notes its arguments; what it noted."""
    log, program = tmp_path / "calls.jsonl", tmp_path / "python"
    program.write_text(RECORDER.format(log=str(log)))
    program.chmod(0o755)
    return program, lambda: [json.loads(line) for line in log.read_text().splitlines()]


def parsed(call: list[str]) -> object:
    """Options of a noted call, by the program's own parser; SystemExit where it would refuse them."""
    if call[0] == "train.py":
        return TrainOptions().parse(call[1:])
    if call[0] == "test.py":
        return TestOptions().parse(call[1:])
    assert call[:2] == ["-m", "metrics.metrics"]
    return metrics_options.parse(call[2:])


@pytest.mark.parametrize("data", ["fashion", "market"])
@pytest.mark.parametrize("work", ["train", "test", "eval"])
def test_published_commands(recorder, work, data):
    """The scripts are the README's commands, and a later flag wins."""
    python, calls = recorder
    more = {"train": "--batchSize=7", "test": "--batchSize=7", "eval": "--batch_size=7"}[work]
    environment = {**os.environ, "PYTHON": str(python)}
    subprocess.run(["bash", REPOSITORY / f"scripts/{work}_{data}.sh", more], env=environment, check=True)
    (call,) = calls()
    opt = parsed(call)
    assert (opt.batch_size if work == "eval" else opt.batchSize) == 7
    assert f"python {' '.join(call[:-1])}\n" in (REPOSITORY / "README.md").read_text()


@pytest.fixture
def demo(tmp_path, recorder):
    """The demo in a folder of its own, with a stand-in for .venv's Python."""
    python, calls = recorder
    root = tmp_path / "repository"
    (root / "scripts").mkdir(parents=True)
    for name in ("demo.sh", "environment.sh"):
        shutil.copy(REPOSITORY / "scripts" / name, root / "scripts")
    (root / ".venv/bin").mkdir(parents=True)
    shutil.copy(python, root / ".venv/bin/python")
    for name in ("requirements.txt", ".venv/installed-requirements.txt"):
        (root / name).write_text("torch\n")

    def run(*flags: str) -> tuple[subprocess.CompletedProcess, list[list[str]]]:
        done = subprocess.run(["bash", root / "scripts/demo.sh", *flags], capture_output=True, text=True)
        return done, calls() if done.returncode == 0 else []

    return root, run


@pytest.mark.parametrize(("flags", "name", "minutes"), [([], "demo", 10), (["--quick"], "demo_quick", 1)])
def test_demo(demo, flags, name, minutes):
    """Draws, trains, draws results, measures them beside both baselines, and makes a page of them."""
    root, run = demo
    done, calls = run(*flags)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"== (\d)/5", done.stdout) == list("12345")
    people, _, train, test, *measured, page = calls
    assert people == ["-m", "data.synthetic", "--dataset_mode", "market", "--out", "dataset/demo_market"]
    opt = parsed(train)
    assert (opt.max_minutes, opt.name, opt.precision) == (minutes, name, "fp32")
    assert (opt.lambda_content, opt.lambda_style) == (0, 0)  # no VGG19, nothing to download
    assert parsed(test).results_dir == f"results/{name}"
    evaluations = [parsed(call) for call in measured]
    assert [e.baseline for e in evaluations] == [None, "copy_source", "mean_image"]
    assert evaluations[0].distorated_path == Path(f"results/{name}")
    assert len({e.out for e in evaluations}) == 1
    assert page[0] == "scripts/demo_page.py"
    assert f"--metrics={evaluations[0].out}" in page


def test_demo_goes_on(demo):
    root, run = demo
    (root / "checkpoints/demo").mkdir(parents=True)
    (root / "checkpoints/demo/latest_state.pt").touch()
    _, calls = run()
    assert calls[2] == ["train.py", "--name=demo", "--continue_train", "--max_minutes=10"]


def test_demo_refuses_other_flags(demo):
    _, run = demo
    done, _ = run("--fast")
    assert (done.returncode, done.stderr) == (2, "error: --fast: the only flag is --quick\n")


def test_demo_page(command, tmp_path):
    """One table of all evaluations and some of the strips."""
    results = tmp_path / "results"
    (results / "strips").mkdir(parents=True)
    for number in range(30):
        Image.new("RGB", (8, 8)).save(results / f"strips/{number:02}.jpg")
    common = {"data_set": "market", "protocol": "standard", "switches": asdict(PROTOCOLS["standard"]), "paths": {}}
    lines = [
        {**common, "name": name, "time": "now", "metrics": {"l1": {"value": value, "n": 560}}}
        for name, value in (("network", 0.05), ("<copy>", 0.07))
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    flags = ("--results", results, "--metrics", tmp_path / "m.jsonl", "--training", tmp_path / "run")
    done = command("scripts/demo_page.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "l1 ↓    0.0500 (n 560)  0.0700 (n 560)" in done.stdout
    html = (results / "demo.html").read_text()
    assert "<th>&lt;copy&gt;</th>" in html
    assert 6 <= html.count("<img") <= 12
    assert "../run/web/index.html" in html
    shutil.rmtree(results / "strips")
    assert "run test.py first" in command("scripts/demo_page.py", *flags).stderr
