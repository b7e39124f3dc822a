"""Downloads from a stand-in for Google Drive: gdown itself runs, and its requests go to a server on this machine."""

import io
import re
import sys
import zipfile
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch

from data.fashion_dataset import FashionDataset
from data.market_dataset import MarketDataset
from models.networks import define_G
from models.published_weights import save_network
from scripts import download
from tests.helpers import REPOSITORY, test_options, write_keypoints
from tests.scripts.stand_in_drive import QUOTA, Handler, StandInDrive

requests = pytest.importorskip("requests")
gdown = pytest.importorskip("gdown")

GOOGLE = re.compile(r"https://drive\.(usercontent\.)?google\.com")
ROWS = {"train": [("a_1.jpg", "a_2.jpg"), ("a_2.jpg", "a_1.jpg")], "test": [("b_1.jpg", "b_2.jpg")]}


@pytest.fixture
def drive(monkeypatch, tmp_path) -> Iterator[StandInDrive]:
    """A stand-in that answers all requests to Google. The working folder is empty."""
    drive = StandInDrive()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"drive": drive}))
    send = requests.adapters.HTTPAdapter.send

    def send_to_stand_in(adapter, request, **settings):
        google, there = request.url, f"http://127.0.0.1:{server.server_port}"
        assert GOOGLE.match(google), google
        request.url = GOOGLE.sub(there, google)
        response = send(adapter, request, **settings | {"proxies": {}})
        request.url = response.url = google
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send_to_stand_in)
    monkeypatch.setattr(sys.modules["gdown.download"], "DEFAULT_COOKIES_FILE", str(tmp_path / "cookies.txt"))
    monkeypatch.setattr(download, "RETRIES", 0)
    for dataset in (FashionDataset, MarketDataset):
        monkeypatch.setattr(dataset, "published", {"train": (2, 2), "test": (2, 1)})
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield drive
    server.shutdown()
    server.server_close()


def folder_id(what: str, mode: str) -> str:
    return download.KINDS[what].drive_ids[mode]


@pytest.fixture
def lists(drive, tmp_path) -> dict[str, bytes]:
    """The lists of a small DeepFashion, also on the drive, beside a file that is not needed."""
    files = {}
    for phase, rows in ROWS.items():
        names = sorted({name for row in rows for name in row})
        write_keypoints(tmp_path / "keypoints.csv", {name: np.ones((18, 2), int) for name in names}, ": ")
        files[f"fasion-resize-annotation-{phase}.csv"] = (tmp_path / "keypoints.csv").read_bytes()
        files[f"fasion-resize-pairs-{phase}.csv"] = "\n".join(["from,to", *map(",".join, rows)]).encode()
        files[f"{phase}.lst"] = "\n".join(names).encode()
    drive.folders[folder_id("lists", "fashion")] = {"read me.txt": b"hello", "sub folder": dict(files)}
    return files


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_lists_arrive_where_training_reads_them(call, drive, lists):
    done = call(download, "lists", "--dataset=fashion")
    assert (done.returncode, done.stderr) == (0, "")
    assert contents("dataset/fashion") == lists
    assert "not needed: read me.txt\n6 files, 6 to fetch" in done.stdout
    assert "dataset/fashion: complete" in done.stdout
    assert "password" in done.stdout
    assert "InShopRetrieval.html" in done.stdout

    drive.requests.clear()
    assert call(download, "lists", "--dataset=fashion").returncode == 0
    assert drive.requests == []  # what is complete needs no connection


def test_existing_files_are_kept_and_wrong_ones_reported(call, drive, lists):
    root = Path("dataset/fashion")
    root.mkdir(parents=True)
    (root / "train.lst").write_text("a_1.jpg\n")
    (root / "fasion-resize-pairs-test.csv").write_text("from,to\nb_1.jpg,c_9.jpg\n")
    done = call(download, "lists", "--dataset=fashion")
    assert done.returncode == 1
    assert (root / "train.lst").read_text() == "a_1.jpg\n"
    assert "6 files, 4 to fetch" in done.stdout
    assert "train.lst: 1 rows, published are 2; move it away" in done.stdout
    assert "no row for 1 photos of fasion-resize-pairs-test.csv, such as c_9.jpg" in done.stdout


def test_broken_download_resumes_where_it_stopped(call, drive):
    log = np.random.RandomState(0).bytes(2 << 20)
    drive.folders[folder_id("logs", "market")] = {"loss_log.txt": log}
    drive.cut = "loss_log.txt"
    done = call(download, "logs", "--dataset=market")
    assert done.returncode == 2
    assert "Download is incomplete: received 1048576 bytes but the server announced 2097152" in done.stderr
    assert "loss_log.txt" not in contents("checkpoints/DPTN_market/released_logs")

    assert call(download, "logs", "--dataset=market").returncode == 0
    assert drive.ranges == ["bytes=1048576-"]
    assert contents("checkpoints/DPTN_market/released_logs") == {"loss_log.txt": log}


def test_refusal_says_what_to_get_by_hand(call, drive, lists):
    """Google gives no more of one file; the user gets it with a browser, as a zip file, and the command goes on."""
    drive.refused = "train.lst"
    done = call(download, "lists", "--dataset=fashion")
    assert done.returncode == 2
    assert QUOTA in done.stderr
    assert "  train.lst: missing" in done.stderr
    link = "https://drive.google.com/drive/folders/" + folder_id("lists", "fashion")
    assert f"By hand: open {link} in a browser, put the files into dataset/fashion" in done.stderr
    by_hand = {"lists/train.lst": lists["train.lst"], "lists/fasion-resize-pairs-train.csv": b"not what is there"}
    Path("dataset/fashion/drive-download.zip").write_bytes(zipped(by_hand))
    assert call(download, "lists", "--dataset=fashion").returncode == 0
    assert contents("dataset/fashion").items() >= lists.items()


@pytest.mark.parametrize(
    ("folder", "message"),
    [(None, "status code 404"), ({}, "Google lists none of these files"),
     ({"a": {"train.lst": b"1"}, "b": {"train.lst": b"2"}}, "there are several files train.lst")],
)  # fmt: skip
def test_folder_that_gives_nothing_is_an_error(call, drive, folder, message):
    if folder is not None:
        drive.folders[folder_id("lists", "market")] = folder
    done = call(download, "lists", "--dataset=market")
    assert (done.returncode, contents(".")) == (2, {})
    assert message in done.stderr
    assert "market-pairs-train.csv: missing" in done.stderr


def test_no_connection_is_an_error_of_a_few_lines(call, drive, lists, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise requests.exceptions.ConnectionError("HTTPSConnectionPool(host='drive.google.com', port=443): ...")

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", fail)
    done = call(download, "logs", "--dataset=market")
    assert done.returncode == 2
    assert done.stderr.startswith("error: Google Drive cannot be reached (ConnectionError)\n")
    assert folder_id("logs", "market") in done.stderr


def test_without_gdown_files_got_by_hand_are_checked(call, drive, lists, monkeypatch):
    monkeypatch.setattr("util.packages.find_spec", lambda _name: None)
    done = call(download, "lists", "--dataset=fashion")
    assert done.returncode == 2
    assert "error: scripts/download.py needs the package gdown: pip install gdown\n" in done.stderr
    assert folder_id("lists", "fashion") in done.stderr
    Path("dataset/fashion").mkdir(parents=True)
    for name, content in lists.items():
        Path("dataset/fashion", name).write_bytes(content)
    assert call(download, "lists", "--dataset=fashion").returncode == 0


@pytest.fixture
def generator(tmp_path, monkeypatch) -> bytes:
    """A file of the paper's generator, but smaller, as are all that this test makes."""
    opt = test_options("--ngf=8")
    monkeypatch.setattr(download, "define_G", lambda _opt: define_G(opt))
    torch.manual_seed(0)
    save_network(define_G(opt), tmp_path / "G.pth")
    return (tmp_path / "G.pth").read_bytes()


def test_weights_are_found_by_the_test_command(call, drive, generator):
    drive.confirm = True
    drive.folders[folder_id("weights", "market")] = {"190_net_G.pth": generator, "190_net_D.pth": b"D"}
    done = call(download, "weights", "--dataset=market")
    assert done.returncode == 0, done.stderr
    assert contents("checkpoints/DPTN_market") == {"190_net_G.pth": generator, "190_net_D.pth": b"D"}
    assert "--checkpoints_dir=checkpoints --name=DPTN_market --which_epoch=190" in done.stdout


def test_next_command_can_be_typed_for_every_folder(call, drive, generator, tmp_path, monkeypatch):
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "190_net_G.pth").write_bytes(generator)
    monkeypatch.chdir(folder)
    done = call(download, "weights", "--dataset=market", "--folder=.")
    assert f"--checkpoints_dir={tmp_path} '--name=my run' --which_epoch=190" in done.stdout


def test_weights_that_do_not_fit_are_reported(call, drive, generator, tmp_path):
    save_network(define_G(test_options("--ngf=16")), tmp_path / "other.pth")
    drive.folders[folder_id("weights", "fashion")] = {"latest_net_G.pth": (tmp_path / "other.pth").read_bytes()}
    done = call(download, "weights", "--dataset=fashion")
    assert done.returncode == 1
    assert "latest_net_G.pth: does not fit this generator" in done.stdout

    drive.folders[folder_id("weights", "market")] = {"model.pth": generator}
    done = call(download, "weights", "--dataset=market")
    assert done.returncode == 1
    assert "latest_net_G.pth: missing; rename the generator among model.pth" in done.stdout


@pytest.mark.parametrize(("what", "file"), [("weights", "latest_state.pt"), ("results", "test_run.json")])
def test_own_run_is_not_mixed_with_released_files(call, drive, what, file):
    Path("own").mkdir()
    Path("own", file).touch()
    done = call(download, what, "--dataset=market", "--folder=own")
    assert (done.returncode, drive.requests) == (2, [])
    assert f"own: holds a run of your own ({file}); choose another folder with --folder" in done.stderr


def test_results_come_out_of_an_archive(call, drive, lists):
    """Nothing is written outside the folder; names are compared with the pairs where these are known."""
    image = {"../results/b_1_2_b_2_vis.jpg": b"image", "notes.txt": b"text"}
    drive.folders[folder_id("results", "fashion")] = {"fashion.zip": zipped(image)}
    done = call(download, "results", "--dataset=fashion")
    assert done.returncode == 0, done.stdout
    assert contents("results/DPTN_fashion").keys() == {"fashion.zip", "b_1_2_b_2_vis.jpg"}
    assert [path.name for path in Path(".").iterdir()] == ["results"]

    assert call(download, "lists", "--dataset=fashion").returncode == 0
    Path("results/DPTN_fashion/b_1_2_b_2_vis.jpg").rename("results/DPTN_fashion/b_2_2_b_1_vis.jpg")
    Path("results/DPTN_fashion/fashion.zip").write_bytes(b"no archive")
    done = call(download, "results", "--dataset=fashion")
    assert done.returncode == 1
    assert "  b_1_2_b_2_vis.jpg: missing" in done.stdout
    assert "warning: results/DPTN_fashion/fashion.zip cannot be unpacked (File is not a zip file)" in done.stderr


def test_results_of_an_archive_of_another_kind_are_unpacked_by_hand(call, drive):
    drive.folders[folder_id("results", "market")] = {"market.rar": b"Rar!"}
    done = call(download, "results", "--dataset=market")
    assert done.returncode == 1
    assert "0 images named SOURCE_2_TARGET_vis.jpg, published are 1\n  market.rar: unpack it there" in done.stdout


def test_logs_keep_their_folders_and_are_completed(call, drive):
    drive.folders[folder_id("logs", "fashion")] = {"loss_log.txt": b"1", "events": {"a": b"2"}}
    root = Path("checkpoints/DPTN_fashion/released_logs")
    root.mkdir(parents=True)
    (root / "loss_log.txt").write_bytes(b"old")
    done = call(download, "logs", "--dataset=fashion")
    assert done.returncode == 0, done.stderr
    assert ((root / "loss_log.txt").read_bytes(), (root / "events/a").read_bytes()) == (b"old", b"2")


def test_links_are_those_of_the_readme():
    table = (REPOSITORY / "README.md").read_text().split("| lists, pairs and keypoints")[1].split("\n\n")[0]
    linked = re.findall(r"drive/folders/([-\w]+)", table)
    kinds = [download.KINDS[what] for what in ("lists", "weights", "results", "logs")]
    assert linked == [kind.drive_ids[mode] for kind in kinds for mode in ("fashion", "market")]
