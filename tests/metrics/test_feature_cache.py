"""metrics/feature_cache.py, by itself and through the command."""

import os

from PIL import Image

from metrics import feature_cache, metrics
from tests.metrics.conftest import read_jsonl


def test_cache_recomputes_only_after_a_change(call, flags, results, market, tiny):
    def run(*more: str) -> int:
        before = tiny.seen
        done = call(metrics, *flags, "--metrics=fid", *more)
        assert done.returncode == 0, done.stderr
        return tiny.seen - before

    assert run() == 8 + 6
    assert run() == 8
    assert run("--protocol=standard") == 8 + 6  # another network
    assert run("--precision=bf16") == 8 + 6
    photo = sorted((market / "train").iterdir())[0]
    state = photo.stat()
    os.utime(photo, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    assert run() == 8 + 6  # touched
    Image.new("RGB", (64, 128)).save(market / "train/new.jpg")
    assert run() == 8 + 7
    (market / "train/new.jpg").unlink()
    assert run() == 8
    first, again = (read_jsonl(results)[number]["metrics"]["fid"]["value"] for number in (0, 1))
    assert first == again
    for file in (market.parent / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert run() == 8 + 6  # damaged


def test_cache_key_depends_on_weights(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"1")
    keys = {feature_cache.cache_key(tmp_path, ["a.jpg"], {"weights": weights}) for weights in ("x", "y")}
    assert len(keys) == 2


def test_unwritable_cache_is_a_warning(call, flags, results, market, tiny):
    (market / "file").touch()
    done = call(metrics, *flags, "--metrics=fid", f"--cache_dir={market}/file/cache")
    assert done.returncode == 0, done.stderr
    assert f"warning: the features of the real photos are not cached: {market}/file/cache/" in done.stderr
    assert read_jsonl(results)[0]["metrics"]["fid"]["n"] == 8


def test_incomplete_statistics_are_not_cached(call, flags, market, tiny):
    (market / "train/broken.jpg").write_bytes(b"no photo")
    done = call(metrics, *flags, "--metrics=fid")
    assert done.returncode == 2
    assert "unreadable" in done.stderr
    assert call(metrics, *flags, "--metrics=fid", "--allow_missing").returncode == 0
    assert not (market.parent / "cache").exists()
