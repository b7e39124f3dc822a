"""metrics/statistics.py: FID's real photos as a file."""

import shutil

import numpy as np
import pytest

from metrics import metrics, statistics
from metrics.fid import Gaussian, read_statistics, write_statistics
from tests.metrics.conftest import read_jsonl
from util.errors import UserError


@pytest.fixture
def file(call, market, tiny):
    path = market / "real.npz"
    flags = [f"--fid_real_path={market}/train", "--dataset_mode=market", "--nThreads=0", "--gpu_id=-1"]
    done = call(statistics, *flags, f"--out={path}", f"--cache_dir={market.parent}/other_cache")
    assert done.returncode == 0, done.stderr
    assert "statistics of 6 photos for FID under the dptn protocol" in done.stdout
    return path


def test_file_gives_the_fid_of_its_photos(file, call, flags, results, market):
    assert call(metrics, *flags, "--metrics=fid").returncode == 0
    shutil.rmtree(market / "train")
    done = call(metrics, *flags, "--metrics=fid", f"--fid_real_path={file}")
    assert done.returncode == 0, done.stderr
    photos, statistics_file = (record["metrics"]["fid"] for record in read_jsonl(results))
    assert statistics_file == photos
    assert photos["n_real"] == 6


def test_damaged_photo_is_one_line_without_a_flag_of_other_commands(call, market, tiny):
    photo = next((market / "train").iterdir())
    photo.write_bytes(photo.read_bytes()[:300])
    flags = [f"--fid_real_path={market}/train", "--dataset_mode=market", "--nThreads=0", "--gpu_id=-1"]
    done = call(statistics, *flags, f"--out={market}/real.npz")
    assert done.returncode == 2
    assert "not all images can be evaluated:" in done.stderr
    assert str(photo) in done.stderr
    assert not (market / "real.npz").exists()


def test_file_of_another_protocol_or_precision_is_refused(file, call, flags):
    for flag, message in (
        ("--protocol=standard", "protocol dptn, not standard; inception torchvision, not pytorch-fid"),
        ("--precision=bf16", "precision fp32, not bf16"),
        ("--protocol=gfla", "protocol dptn, not gfla"),
    ):
        done = call(metrics, *flags, "--metrics=fid", f"--fid_real_path={file}", flag)
        assert done.returncode == 2
        assert message in done.stderr
    done = call(
        metrics, *flags[:1], "--metrics=l1", "--market", f"--fid_real_path={file}", "--baseline=mean_image", "--pairs=x"
    )
    assert "--baseline mean_image needs the training photos themselves" in done.stderr


def test_written_statistics_are_read_back_and_damage_is_an_error(tmp_path):
    wanted = Gaussian(7, np.arange(3.0), np.eye(3))
    write_statistics(tmp_path / "a.npz", wanted, {"weights": "abc"})
    found = read_statistics(tmp_path / "a.npz", {"weights": "abc"})
    assert found.n == 7
    assert (found.mean == wanted.mean).all()
    assert (found.covariance == wanted.covariance).all()
    with pytest.raises(UserError, match="weights abc, not abd"):
        read_statistics(tmp_path / "a.npz", {"weights": "abd"})
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:90])
    for name in ("b.npz", "gone.npz"):
        with pytest.raises(UserError, match="not a file of python -m metrics.statistics"):
            read_statistics(tmp_path / name, {})
