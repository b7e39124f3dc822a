"""metrics/options.py: the flags of the evaluation."""

from pathlib import Path

import pytest

from metrics import metrics, options
from metrics.options import make_parser, parse
from tests.helpers import REPOSITORY


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--gt_path is needed"),
        (("--gt_path=a",), "one of --distorated_path"),
        (("--gt_path=a", "--distorted_path=b", "--baseline=copy_source"), "one of --distorated_path"),
        (("--gt_path=a", "--baseline=copy_source"), "needs --pairs"),
        (("--gt_path=a", "--baseline=mean_image", "--pairs=p", "--metrics=l1"), "needs the training photos"),
        (("--gt_path=a", "--distorated_path=b"), "--metrics fid needs the training photos"),
        (("--gt_path=a", "--distorated_path=b", "--metrics=mask_ssim"), "--annotations"),
        (("--gt_path=a", "--distorated_path=b", "--metrics=psnr,best"), "--metrics: 'best' is not one of psnr, ssim"),
        (("--gt_path=a", "--distorated_path=b", "--protocol=mine"), "--protocol: 'mine' is not one of dptn, standard"),
        (("--gt_path=a", "--distorated_path=b", "--metrics=l1", "--cache_dir=a/cache"), "out of data and results"),
        (("--gt_p=a",), "unrecognized arguments"),
        (("--gt_path=a", "--distorated_path=b", "--metrics=l1", "--checkpoint=gone.pth"), "gone.pth: no such file"),
        (("--published", "--gt_path=a"), "--published needs --compare"),
        (("--compare=x", "--gt_path=a", "--market"), "leave out --dataset_mode, --gt_path"),
        (("--gt_path=gone", "--distorated_path=b", "--metrics=l1"), "--gt_path gone: no such folder"),
        (("--gt_path=a", "--baseline=copy_source", "--pairs=none"), "needs --pairs"),
        (("--gt_path=a", "--distorated_path=b", "--metrics=l1", "--html=b/../b"), "--html b/../b holds data or"),
        (("--gt_path=a", "--distorated_path=b", "--metrics=l1", "--html=./a"), "--html a holds data or results"),
        (("--gt_path=a", "--distorated_path=b", "--metrics=l1", "--against=c", "--html=c"), "--html c holds data or"),
        (
            ("--gt_path=a", "--distorated_path=b", "--fid_real_path=r", "--metrics=fid,is", "--per_image=p"),
            "fid, is",
        ),
    ],
)
def test_bad_command_line_is_one_clear_error(call, flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(metrics, *flags)
    assert done.returncode == 2
    assert message in done.stderr


def test_ssim_of_images_smaller_than_its_window_is_refused(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "WINDOW", 129)
    done = call(metrics, "--market", "--gt_path=a", "--distorated_path=b", "--metrics=ssim,l1")
    assert done.returncode == 2
    images = "the images under the dptn protocol have 128 x 64 (height x width)"
    assert f"--metrics ssim has a window of 129 x 129 pixels, but {images}; leave it out" in done.stderr


def test_distorated_path_has_two_spellings():
    for spelling in ("--distorated_path", "--distorted_path"):
        assert make_parser().parse_args([f"{spelling}=x"]).distorated_path == Path("x")


def test_every_flag_is_read():
    code = "".join(path.read_text() for path in (REPOSITORY / "metrics").glob("*.py"))
    for action in make_parser()._actions:
        if action.dest != "help":
            assert f"args.{action.dest}" in code, action.dest


def test_name_is_that_of_the_results_folder(monkeypatch, tmp_path):
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path / "results")
    assert parse(["--gt_path=a", "--distorated_path=.", "--metrics=l1", "--pairs=none"]).name == "results"
