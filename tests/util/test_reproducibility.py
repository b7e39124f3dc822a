"""Seeds, random states and versions."""

import random
import re
import subprocess

import numpy as np
import torch

from util.reproducibility import git_revision, random_state, seed_everything, set_random_state, versions


def draw_numbers() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()]


def test_seed_everything_repeats_numbers():
    seed_everything(2**32 + 5)  # beyond NumPy's range
    numbers = draw_numbers()
    seed_everything(2**32 + 5)
    assert draw_numbers() == numbers


def test_set_random_state_restores_a_saved_state(tmp_path):
    draw_numbers()  # leaves a second Gaussian number waiting in Python's and NumPy's generators
    torch.save(random_state(), tmp_path / "state.pt")
    numbers = draw_numbers()
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draw_numbers() == numbers


def test_versions_and_git_revision_identify_the_code():
    assert versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert "pytorch-fid" not in versions()
    assert versions("no-such-package") == {**versions(), "no-such-package": "not installed"}
    revision = git_revision()
    assert revision == {} or re.fullmatch("[0-9a-f]{40}", revision["commit"])


def test_git_revision_is_not_that_of_an_outer_repository(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "of another project"], check=True)
    monkeypatch.setattr("util.reproducibility.__file__", str(tmp_path / "reproducibility.py"))
    (tmp_path / "reproducibility.py").touch()
    assert git_revision() == {}
    subprocess.run([*git, "add", "reproducibility.py"], check=True)
    assert git_revision()["changed"]
