"""util/packages.py, and train.py, test.py and the evaluation where no optional package is installed."""

import sys
from pathlib import Path

import pytest

from tests.helpers import COMMON, REPOSITORY, TINY_G, train_flags
from util.errors import UserError
from util.packages import can_write_pages, require_package

# Runs a program of the repository as a machine without the optional packages does: importing them fails.
WITHOUT_PACKAGES = """
import runpy, sys
sys.modules.update(dict.fromkeys(["dominate", "visdom", "tensorboard", "lpips", "pytorch_fid"]))
del sys.argv[0]
run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
run(sys.argv[0], run_name="__main__")
"""
WARNING = "warning: web pages are left out, because they need the package dominate: pip install dominate\n"


def test_require_package_names_flag_and_package():
    require_package("torch", "--x")
    with pytest.raises(UserError, match="^--x needs the package no-such-package: pip install no-such-package$"):
        require_package("no-such-package", "--x")


def test_require_package_finds_a_module_named_with_an_underscore(monkeypatch):
    require_package("pytorch-fid", "--x")
    monkeypatch.setitem(sys.modules, "pytorch_fid", None)
    with pytest.raises(UserError, match="pip install pytorch-fid"):
        require_package("pytorch-fid", "--x")


def test_can_write_pages_warns_where_dominate_is_missing(monkeypatch, capsys):
    assert can_write_pages()
    assert capsys.readouterr().err == ""
    monkeypatch.setitem(sys.modules, "dominate", None)
    assert not can_write_pages()
    assert capsys.readouterr().err == WARNING


def test_programs_run_without_optional_packages(command, market, tmp_path):
    script, work = str(tmp_path / "without_packages.py"), tmp_path / "work"
    Path(script).write_text(WITHOUT_PACKAGES)
    done = command(script, REPOSITORY / "train.py", *train_flags(market), "--name=a", "--display_freq=3")
    assert (done.returncode, done.stderr.count(WARNING)) == (0, 1), done.stderr
    assert len(list((work / "checkpoints/a/web/images").iterdir())) == 4
    assert not (work / "checkpoints/a/web/index.html").exists()

    done = command(script, REPOSITORY / "test.py", *COMMON, *TINY_G, "--name=a", f"--dataroot={market}")
    assert (done.returncode, done.stderr.count(WARNING)) == (0, 1), done.stderr
    assert done.stdout.endswith("8 images generated in ./results\n")
    assert not (work / "results/index.html").exists()

    photos = ["--market", f"--gt_path={market}/test", "--distorated_path=results", "--nThreads=0", "--gpu_id=-1"]
    done = command(script, "metrics.metrics", *photos, "--metrics=l1,psnr,lpips", "--skip_unavailable")
    assert done.returncode == 0, done.stderr
    assert "not measured: lpips (dptn): LPIPS needs the package lpips: pip install lpips" in done.stdout
