"""The shell scripts: their programs accept every flag that they give, and flags of the user reach the program."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from metrics import options as metrics_options
from options.test_options import TestOptions
from options.train_options import TrainOptions
from tests.helpers import REPOSITORY

RECORDER = """#!/usr/bin/env python3
import json, sys
with open({log!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "scripts/demo_plan.py":
    print("--dataset_mode=market --ngf=16 --niter=1 --niter_decay=2")
"""


@pytest.fixture
def repository(tmp_path):
    """A copy of the scripts, with a .venv whose Python only records its arguments."""
    root = tmp_path / "repository"
    shutil.copytree(REPOSITORY / "scripts", root / "scripts", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (root / ".venv/bin").mkdir(parents=True)
    program = root / ".venv/bin/python"
    program.write_text(RECORDER.format(log=str(root / "calls.jsonl")))
    program.chmod(0o755)
    for name in ("requirements.txt", ".venv/installed-requirements.txt"):
        (root / name).write_text("torch\n")
    return root


def run(root: Path, script: str, *flags: str, **variables: str) -> tuple[subprocess.CompletedProcess, list[list[str]]]:
    """Run a script of `repository`; returns the process and the calls of Python that it made, except those of pip."""
    environment = {**os.environ, "CDPATH": "/", **variables}
    done = subprocess.run(["bash", root / "scripts" / script, *flags], capture_output=True, text=True, env=environment)
    log = root / "calls.jsonl"
    calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return done, [call for call in calls if call[:2] != ["-m", "pip"]]


def parsed(call: list[str]) -> object:
    """The options of a recorded call, from the program's own parser; SystemExit where it would reject them."""
    if call[0] == "train.py":
        return TrainOptions().parse(call[1:])
    if call[0] == "test.py":
        return TestOptions().parse(call[1:])
    assert call[:2] == ["-m", "metrics.metrics"]
    return metrics_options.parse(call[2:])


@pytest.mark.parametrize("data", ["fashion", "market"])
@pytest.mark.parametrize("work", ["train", "test", "eval"])
def test_published_commands_are_documented_and_accept_more_flags(repository, work, data):
    """Each script is a command that README or docs give, and a later flag overrides."""
    more = {"train": "--batchSize=7", "test": "--batchSize=7", "eval": "--batch_size=7"}[work]
    _, (call,) = run(repository, f"{work}_{data}.sh", more)
    opt = parsed(call)
    assert (opt.batch_size if work == "eval" else opt.batchSize) == 7
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    assert any(f"python {' '.join(call[:-1])}\n" in page.read_text(encoding="utf-8") for page in pages)


@pytest.mark.parametrize(("flags", "name", "minutes"), [([], "demo", 10), (["--quick"], "demo_quick", 1)])
def test_demo_runs_every_step_with_accepted_flags(repository, flags, name, minutes):
    """Renders people, tests the pretrained weights, measures them beside both baselines, and makes a page; then trains,
    tests and measures a network of its own for the same table."""
    done, calls = run(repository, "demo.sh", *flags)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"== (\d)/6", done.stdout) == list("123456")
    people, pretrained, *measured, first_page, plan, train, own, measured_own, last_page = calls
    assert people[:2] == ["-m", "data.synthetic"]
    assert people[-2:] == ["--out", "dataset/demo_people"]
    assert plan[0] == "scripts/demo_plan.py"
    assert plan[1:] == [f"--name={name}", "--dataroot=dataset/demo_people", f"--minutes={minutes}"]
    assert (parsed(train).max_minutes, parsed(train).name) == (minutes, name)
    assert (parsed(train).ngf, parsed(train).niter_decay) == (16, 2)  # the flags that the plan printed
    assert f"--results_dir=results/{name}/pretrained" in pretrained
    assert "--name=rendered_market" in pretrained
    assert parsed(own).results_dir == f"results/{name}/own"
    evaluations = [parsed(call) for call in (*measured, measured_own)]
    assert [e.name for e in evaluations] == ["pretrained", "copy_source", "mean_image", "own"]
    assert [e.baseline for e in evaluations] == [None, "copy_source", "mean_image", None]
    assert evaluations[0].distorated_path == Path(f"results/{name}/pretrained")
    assert evaluations[3].distorated_path == Path(f"results/{name}/own")
    assert len({e.out for e in evaluations}) == 1
    assert first_page == last_page
    assert first_page[0] == "scripts/demo_page.py"
    assert f"--metrics={evaluations[0].out}" in first_page


def test_demo_tests_weights_on_people_of_another_seed(repository):
    """The card of the pretrained weights says which seeds they were trained on."""
    people = run(repository, "demo.sh")[1][0]
    seed = people[people.index("--seed") + 1]
    card = (REPOSITORY / "pretrained/rendered_market/README.md").read_text(encoding="utf-8")
    trained_on = re.findall(
        r"seeds? (\d+)", next(line for line in card.splitlines() if line.startswith("| trained on"))
    )
    assert trained_on
    assert seed not in trained_on


@pytest.mark.parametrize("flags", [["--fast"], ["--quick", "--fast"]])
def test_demo_rejects_other_flags(repository, flags):
    done, calls = run(repository, "demo.sh", *flags)
    assert (done.returncode, done.stderr) == (2, f"error: {' '.join(flags)}: the only flag is --quick\n")
    assert not calls


def test_demo_rejects_an_old_python(repository, tmp_path):
    """It stops before it makes anything, and says what to do."""
    shutil.rmtree(repository / ".venv")
    old = tmp_path / "old_python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done, _ = run(repository, "demo.sh", PYTHON=str(old))
    assert done.returncode == 2
    assert "older than Python 3.10; name another: PYTHON=python3.11 bash" in done.stderr
    assert not (repository / ".venv").exists()


def test_demo_replaces_a_broken_environment(repository, tmp_path):
    """A .venv without pip, as an interrupted or incomplete installation leaves it."""
    python = repository / ".venv/bin/python"
    working = python.read_text()
    python.write_text("#!/bin/sh\nexit 1\n")
    base = tmp_path / "base_python"
    base.write_text(f'#!/bin/sh\n[ "$2" = venv ] && cp {tmp_path}/working {python}\nexit 0\n')
    base.chmod(0o755)
    (tmp_path / "working").write_text(working)
    (tmp_path / "working").chmod(0o755)
    done, calls = run(repository, "demo.sh", PYTHON=str(base))
    assert "making .venv" in done.stdout
    assert done.returncode == 0, done.stderr
    assert calls[-1][0] == "scripts/demo_page.py"
