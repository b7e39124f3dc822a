"""scripts/studio.py as a user starts it: which run, which address, how it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from inference.studio_options import StudioOptions
from scripts import studio as script
from tests.helpers import REPOSITORY, TINY_G
from tests.inference.tiny_transfer import write_tiny


def test_options_default_run_is_rendered_market(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opt = StudioOptions().parse([])
    assert (opt.name, opt.dataset_mode, opt.ngf) == ("rendered_market", "market", 32)
    assert opt.checkpoints_dir == str(REPOSITORY / "pretrained")
    (tmp_path / "checkpoints/rendered_market").mkdir(parents=True)  # a run of the user's own comes first
    assert StudioOptions().parse([]).checkpoints_dir == "./checkpoints"
    opt = StudioOptions().parse(["--name=x", "--dataset_mode=fashion"])
    assert (opt.name, opt.dataset_mode, opt.checkpoints_dir) == ("x", "fashion", "./checkpoints")


def test_options_have_no_flag_without_effect(capsys):
    with pytest.raises(SystemExit):
        StudioOptions().parse(["--batchSize=4"])
    assert "unrecognized arguments: --batchSize=4" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        StudioOptions().parse(["--estimator_weights=x.pth"])
    assert "--estimator_weights needs --estimator" in capsys.readouterr().err


def test_studio_without_its_packages_is_one_line(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("util.packages.find_spec", lambda name: None)
    done = call(script)
    assert (done.returncode, done.stderr) == (
        2,
        "error: scripts/studio.py needs the package starlette: pip install starlette\n",
    )


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--host=127.0.0.1"]], ids=["loopback", "token"])
def test_studio_serves_its_page_until_ctrl_c(tmp_path, flags):
    pytest.importorskip("starlette", reason="needs requirements-studio.txt")
    pytest.importorskip("uvicorn", reason="needs requirements-studio.txt")
    command = [sys.executable, str(REPOSITORY / "scripts/studio.py"), "--port=0", "--gpu_ids=-1", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where a shell started us with '&'
    ) as server:  # fmt: skip
        try:
            assert server.stdout.readline().startswith("rendered_market, latest on cpu")
            address = re.match(r"http://127\.0\.0\.1:(\d+)/\S*", server.stdout.readline())
            assert ("token=" in address[0]) == bool(flags)
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with opener.open(address[0]) as page:
                assert b"DPTN studio" in page.read()
            with opener.open(f"http://127.0.0.1:{address[1]}/api/start", data=b"") as start:
                assert len(json.load(start)["examples"]) == 6
            if flags:
                with pytest.raises(urllib.error.HTTPError, match="403"):
                    urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/")
            server.send_signal(signal.SIGINT)
            assert server.wait(60) == 130
        finally:
            server.kill()


@pytest.fixture
def tiny_run(tmp_path, monkeypatch) -> list[str]:
    """Flags of a tiny network's page, which offers nothing."""
    pytest.importorskip("starlette", reason="needs requirements-studio.txt")
    pytest.importorskip("uvicorn", reason="needs requirements-studio.txt")
    from inference.studio_offers import Offers

    write_tiny(tmp_path)
    monkeypatch.setattr("scripts.studio.render_offers", lambda *_: Offers([], [], [], None))
    return ["--name=tiny", f"--checkpoints_dir={tmp_path}", "--dataset_mode=market", "--gpu_ids=-1", *TINY_G]


def test_accepted_connections_send_at_once(call, tiny_run, monkeypatch):
    """Without TCP_NODELAY each image would wait 40 ms for the acknowledgment of its header."""
    import uvicorn

    options = []

    def accept(_server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        with socket.create_connection(sockets[0].getsockname()), sockets[0].accept()[0] as accepted:
            options.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(uvicorn.Server, "run", accept)
    done = call(script, *tiny_run, "--port=0")
    assert done.returncode == 0, done.stderr
    assert options[0]


@pytest.mark.parametrize("port", [80, 8000])
def test_studio_address_without_a_port_is_that_of_port_80(call, tiny_run, monkeypatch, port):
    """Browsers leave out ":80"; only the address that is bound is a stand-in, because port 80 needs root."""
    import uvicorn
    from starlette.testclient import TestClient

    statuses = []
    create_server, getsockname = socket.create_server, lambda _: ("127.0.0.1", port)
    stand_in = type("Listening", (socket.socket,), {"getsockname": getsockname})
    monkeypatch.setattr(socket, "create_server", lambda _: stand_in(fileno=create_server(("127.0.0.1", 0)).detach()))

    def answer(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        client = TestClient(server.config.app)
        for host in ("localhost", f"localhost:{port}"):
            statuses.append(client.get("/", headers={"host": host}).status_code)

    monkeypatch.setattr(uvicorn.Server, "run", answer)
    done = call(script, *tiny_run, f"--port={port}")
    assert done.returncode == 0, done.stderr
    assert statuses == [200 if port == 80 else 403, 200]


def test_studio_port_in_use_is_one_line(call, tiny_run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = call(script, *tiny_run, f"--port={port}")
    assert done.returncode == 2
    assert re.fullmatch(rf"error: .*Address already in use.*{port}\)?.*\n", done.stderr), done.stderr
