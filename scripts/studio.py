"""A page on which you drag the joints of a pose, and the generated image follows.

    python scripts/studio.py

It prints its address. docs/studio.md describes the page.
"""

import secrets
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from inference.estimators import load_estimator
from inference.pose_transfer import PoseTransfer
from inference.studio_offers import data_set_poses, render_offers
from inference.studio_options import StudioOptions
from util.device import describe_device, select_device
from util.errors import UserError, run_main
from util.packages import require_package

LOOPBACK = "127.0.0.1"


def main() -> None:
    opt = StudioOptions().parse()
    for package in ("starlette", "uvicorn"):
        require_package(package, "scripts/studio.py")
    import uvicorn

    from inference.studio import Studio, create_app

    host = opt.host or LOOPBACK
    try:
        listening = socket.create_server((host, opt.port))
    except OSError as error:
        raise UserError(f"{host}:{opt.port}: {error.strerror}; choose another --port (0: any free one)") from error
    device = select_device(opt.gpu_ids)
    transfer = PoseTransfer(opt, device)
    estimator = load_estimator(opt.estimator, opt.estimator_weights, device) if opt.estimator else None
    offers = render_offers(opt.dataset_mode, transfer.stored_size)
    studio = Studio(transfer, estimator, offers._replace(presets=data_set_poses(opt) + offers.presets))
    if opt.compile:
        print("compiling the network; on a CPU the next start finds it in the cache", flush=True)
        studio.warm_up()
    with listening:
        # asyncio sets it for other kinds of sockets only. Without it, TCP holds each image back for 40 ms, until its
        # header is acknowledged.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = listening.getsockname()[1]
        token = secrets.token_urlsafe(16) if opt.host else None
        print(f"{opt.name}, {opt.which_epoch} on {describe_device(device)}")
        address = f"http://{socket.gethostname() if host == '0.0.0.0' else host}:{port}/"
        print(f"{address}{f'?token={token}' if token else ''} (Ctrl-C ends it)", flush=True)
        names = {LOOPBACK, "localhost"}
        hosts = {f"{name}:{port}" for name in names} | (names if port == 80 else set())  # browsers leave out port 80
        app = create_app(studio, hosts, token)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    run_main(main)
