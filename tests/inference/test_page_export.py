"""scripts/export_page.py, inference/page_export.py: a folder whose page runs the network in the browser.

A small package stands in for npm's onnxruntime-web. tests/inference/test_static_page.py opens the page in a browser.
"""

import io
import re
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import pytest

pytest.importorskip("onnx", reason="needs requirements-onnx.txt")
pytest.importorskip("onnxruntime", reason="needs requirements-onnx.txt")

from inference import onnx_export, page_export
from scripts import export_page
from tests.helpers import REPOSITORY
from tests.inference.stand_in_ort import write_package
from util.errors import UserError


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    return write_package(tmp_path / "ort.tgz", monkeypatch)


@pytest.fixture
def folder(tmp_path, monkeypatch, call, package) -> Path:
    """What the command writes; its transfer.onnx is the text "network"."""
    monkeypatch.setattr(onnx_export, "to_onnx", lambda *_, **__: b"network")
    folder = tmp_path / "site/people"
    done = call(export_page, f"--ort={package}", f"--out={folder}")
    assert done.returncode == 0, done.stderr
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert f"{folder}: {size / 1e6:.1f} MB in 13 files" in done.stdout
    return folder


def test_folder_names_no_other_host_and_no_root(folder):
    """It may lie in a sub folder of a host: all addresses are relative."""
    texts = {path.name: path.read_text() for path in folder.iterdir() if path.suffix in (".html", ".js", ".css")}
    assert sorted(texts) == ["editor.js", "index.html", "studio.css", "studio.js", "transport.js", "worker.js"]
    for text in texts.values():
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == []
        assert re.findall(r"""["'`]/\w""", text) == []
    assert f'content="{page_export.POLICY}"' in texts["index.html"]


def test_folder_has_the_licenses_of_all_parts(folder):
    assert (folder / "LICENSE").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()
    assert (folder / "ort/LICENSE").read_text().startswith("MIT License\n\nCopyright (c) Microsoft Corporation")
    assert "protobuf" in (folder / "ort/ThirdPartyNotices.txt").read_text()


def test_network_is_stored_as_float16_with_its_origin(tmp_path, monkeypatch, call, package):
    given = {}
    monkeypatch.setattr(onnx_export, "to_onnx", lambda graph, metadata, half: given.update(metadata, half=half) or b"")
    assert call(export_page, f"--ort={package}", f"--out={tmp_path / 'page'}").returncode == 0
    assert (given["half"], given["weights_stored_as"], given["name"]) == (True, "float16", "rendered_market")


def test_out_that_is_not_empty_is_one_line(tmp_path, call):
    (tmp_path / "page").mkdir()
    (tmp_path / "page/mine.txt").write_text("mine")
    for out in (tmp_path / "page", tmp_path / "page/mine.txt"):
        done = call(export_page, f"--out={out}")
        expected = f"error: {out}: exists and is not an empty folder; choose another --out\n"
        assert (done.returncode, done.stderr) == (2, expected)
    assert (tmp_path / "page/mine.txt").read_text() == "mine"


def test_unknown_run_and_package_are_one_line_and_write_nothing(tmp_path, call, package):
    package.write_bytes(package.read_bytes()[:-1])
    wrong = {
        "--name=nobody": "checkpoints/nobody", "--which_epoch=7": "7_net_G.pth",
        f"--ort={package}": "its SHA-512 is another", f"--ort={tmp_path / 'missing.tgz'}": "missing.tgz",
    }  # fmt: skip
    for flag, message in wrong.items():
        done = call(export_page, f"--ort={package}", f"--out={tmp_path / 'page'}", flag)
        assert done.returncode == 2
        assert re.fullmatch(rf"error: .*{re.escape(message)}.*\n", done.stderr), done.stderr
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("error", [URLError("no route"), IncompleteRead(b"half"), TimeoutError("timed out")])
def test_failed_download_says_what_to_do(monkeypatch, error):
    def fail(url: str, timeout: float) -> None:
        raise error

    monkeypatch.setattr(page_export, "urlopen", fail)
    with pytest.raises(UserError, match=r"^https://registry\S+ could not be fetched \(.*\); fetch it .* --ort FILE$"):
        page_export.read_ort(None)


def test_download_of_other_content_is_refused(monkeypatch):
    monkeypatch.setattr(page_export, "urlopen", lambda url, timeout: io.BytesIO(b"<html>log in</html>"))
    with pytest.raises(UserError, match=r"not onnxruntime-web \d+\.\d+\.\d+ \(its SHA-512 is another\)"):
        page_export.read_ort(None)
