"""The page of scripts/studio.py without a server: a folder for any static host, whose page runs transfer.onnx itself.

The folder has the studio's page with another transport.js (inference/static_page), which asks onnxruntime-web
(WebAssembly, one thread) in a worker instead of a server. onnxruntime-web comes from npm when the folder is made.
"""

import base64
import hashlib
import io
import json
import tarfile
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from inference import onnx_export
from inference.pose_transfer import PoseTransfer
from inference.studio_offers import describe_offers, render_offers
from util.errors import UserError
from util.files import is_taken, write_bytes

# files of the second folder replace those of the first one
PAGE_FOLDERS = [Path(__file__).with_name(name) for name in ("studio_page", "static_page")]
LICENSE = Path(__file__).parent.parent / "LICENSE"
ORT_VERSION = "1.30.0"
ORT = f"onnxruntime-web {ORT_VERSION}"
ORT_URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{ORT_VERSION}.tgz"
# npm's value of "integrity"
ORT_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
ORT_FILES = {  # in the package -> in the folder; .js, because some hosts do not serve .mjs as JavaScript
    "package/dist/ort.wasm.bundle.min.mjs": "ort/ort.js",
    "package/dist/ort-wasm-simd-threaded.wasm": "ort/ort-wasm-simd-threaded.wasm",
}
ORT_LICENSES = ("LICENSE", "ThirdPartyNotices.txt")  # npm's package lacks them; the Python package has them
TIMEOUT = 60.0  # seconds without an answer
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; base-uri 'none'; "
    "form-action 'none'"
)


def read_ort(file: Path | None) -> dict[str, bytes]:
    """onnxruntime-web for the folder, path -> content: downloaded from npm, or from `file`, npm's package.

    Raises UserError if npm cannot be reached, or if the package is not ORT.
    """
    content = download(ORT_URL) if file is None else file.read_bytes()
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != ORT_SHA512:
        raise UserError(f"{file or ORT_URL}: not {ORT} (its SHA-512 is another); --ort takes npm's package, a .tgz")
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        return {path: package.extractfile(name).read() for name, path in ORT_FILES.items()}


def download(url: str) -> bytes:
    try:
        with urlopen(url, timeout=TIMEOUT) as answer:
            return answer.read()
    except (OSError, HTTPException) as error:
        raise UserError(f"{url} could not be fetched ({error}); fetch it elsewhere and give --ort FILE") from error


def make_page(transfer: PoseTransfer, ort: dict[str, bytes]) -> dict[str, bytes]:
    """The files of the folder, path -> content. `transfer` is on the CPU. onnx_export.PACKAGES must be installed."""
    import onnxruntime

    _, graph = onnx_export.graphs(transfer)
    network = onnx_export.to_onnx(graph, onnx_export.describe(transfer, half=True), half=True)
    files = {path.name: path.read_bytes() for folder in PAGE_FOLDERS for path in sorted(folder.iterdir())}
    files["index.html"] = add_policy(files["index.html"].decode()).encode()
    licenses = {f"ort/{name}": Path(onnxruntime.__file__).with_name(name).read_bytes() for name in ORT_LICENSES}
    files |= {"LICENSE": LICENSE.read_bytes(), "transfer.onnx": network, **ort, **licenses}
    loaded = len(network) + sum(map(len, ort.values()))
    return {**files, "start.json": json.dumps(describe_page(transfer, loaded)).encode()}


def add_policy(page: str) -> str:
    """The HTML `page` with a Content-Security-Policy, which static hosts do not send."""
    charset = '<meta charset="utf-8">\n'
    return page.replace(charset, f'{charset}<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n', 1)


def describe_page(transfer: PoseTransfer, loaded: int) -> dict[str, object]:
    """What the page shows first. `loaded`: bytes that it loads before the first image."""
    offers = describe_offers(transfer, render_offers(transfer.opt.dataset_mode, transfer.stored_size))
    return {
        **offers, "name": f"{transfer.opt.name}, computed in this browser; photos are not uploaded",
        "loading": f"loading {loaded / 1e6:.0f} MB …", "server": False, "blocks": 0, "heads": 0, "estimates": False,
    }  # fmt: skip


def check_folder(folder: Path) -> None:
    """Raise UserError unless `folder` is missing or empty."""
    if is_taken(folder):
        raise UserError(f"{folder}: exists and is not an empty folder; choose another --out")


def write_page(files: dict[str, bytes], folder: Path) -> None:
    for path, content in files.items():
        write_bytes(folder / path, content)
