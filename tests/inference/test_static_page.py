"""The folder of scripts/export_page.py in a real browser, chromium, driven by Playwright; skipped where there is none.

A stand-in computes the images, which are known to the level. With ONNXRUNTIME_WEB=FILE, npm's package, the pretrained
network runs in WebAssembly too. The files come from a sub folder of a plain file server, under the page's own policy.
"""

import base64
import io
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="needs requirements-onnx.txt")
pytest.importorskip("onnxruntime", reason="needs requirements-onnx.txt")
pytest.importorskip("starlette", reason="needs requirements-studio.txt")
pytest.importorskip("playwright", reason="needs requirements-studio.txt")

from playwright.sync_api import Browser, Page, sync_playwright

from inference import onnx_export, page_export
from inference.onnx_export import TransferGraph, open_session
from inference.page_export import POLICY
from inference.pose_transfer import PoseTransfer
from inference.studio_offers import Offers, render_offers
from scripts import export_page
from tests.inference.stand_in_ort import expected_image, write_package
from tests.inference.test_studio_page import CHROMIUM, WRIST, assert_close, center, drag, pixels, wait_for_image

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="needs chromium")]
SIZE = (128, 64)
PACKAGE = os.environ.get("ONNXRUNTIME_WEB")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        pass

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)  # stricter than a static host: it binds the worker too
        super().end_headers()


@pytest.fixture
def site(tmp_path) -> Iterator[tuple[Path, str]]:
    """A folder that does not exist yet, and its address."""
    handler = partial(QuietHandler, directory=tmp_path / "site")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield tmp_path / "site/deep/people", f"http://127.0.0.1:{server.server_port}/deep/people/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """The files of a folder with the stand-in."""
    transfer = PoseTransfer.load("rendered_market", checkpoints_dir=export_page.PRETRAINED, gpu_ids=-1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_export, "to_onnx", lambda *_, **__: b"network")
        package = write_package(tmp_path_factory.mktemp("npm") / "ort.tgz", patch)
        return page_export.make_page(transfer, page_export.read_ort(package))


@pytest.fixture(scope="module")
def offers() -> Offers:
    return render_offers("market", SIZE)


@pytest.fixture
def stand_in(site, files) -> Path:
    page_export.write_page(files, site[0])
    return site[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, site) -> Iterator[Callable[..., Page]]:
    """open_page(size of the window...): the page. No script fails, and nothing is asked of other servers."""
    failures, contexts = [], []

    def open_tab(width: int = 1200, **look: object) -> Page:
        contexts.append(browser.new_context(viewport={"width": width, "height": 850}, **look))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("console", lambda line: failures.append(line.text) if "Content Security Policy" in line.text else None)
        page.on("request", lambda request: failures.append(request.url) if is_elsewhere(request.url) else None)
        page.goto(site[1])
        return page

    def is_elsewhere(url: str) -> bool:
        return not url.startswith((site[1], "data:", "blob:"))

    yield open_tab
    for context in contexts:
        context.close()
    assert failures == []


def person(offers: Offers, number: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (H,W,3), and (18,2) rounded as in start.json."""
    image, pose = offers.examples[number]
    return np.asarray(image), pose.round(3)


def test_page_generates_for_drag_preset_hidden_joint_and_other_person(stand_in, open_page, offers):
    page = open_page()
    image, source = person(offers, 0)
    pose = wait_for_image(page)
    np.testing.assert_array_equal(pixels(page), expected_image(image, source, pose))
    drag(page, WRIST, -20, 30)
    moved = wait_for_image(page)
    assert np.abs(moved - pose)[WRIST].min() > 1
    np.testing.assert_array_equal(pixels(page), expected_image(image, source, moved))
    page.mouse.click(*center(page, WRIST))
    page.keyboard.press("Delete")
    hidden = wait_for_image(page)
    assert np.isnan(hidden[WRIST]).all()
    np.testing.assert_array_equal(pixels(page), expected_image(image, source, hidden))
    page.click("#target-tools .tray button:has-text('right wrist')")
    np.testing.assert_array_equal(wait_for_image(page), moved)
    page.click("#examples button:nth-child(2)")
    page.click("#presets button:nth-child(2)")
    preset = offers.presets[1].round(3)
    page.wait_for_function("([y]) => JSON.parse(document.querySelector('#generated').dataset.pose)[1][0] === y",
                           arg=preset[1].tolist())  # fmt: skip
    np.testing.assert_array_equal(wait_for_image(page), preset)
    np.testing.assert_array_equal(pixels(page), expected_image(*person(offers, 1), preset))
    assert page.locator("#latency").text_content().endswith(" ms")
    with page.expect_download() as download:
        page.click("#export-png")
    np.testing.assert_array_equal(np.asarray(Image.open(download.value.path()).convert("RGB")), pixels(page))


def test_finger_drags_a_joint(stand_in, open_page):
    page = open_page(400, has_touch=True)
    before = wait_for_image(page)
    page.locator("#target").scroll_into_view_if_needed()
    x, y = center(page, WRIST)
    protocol = page.context.new_cdp_session(page)
    for kind, points in (("touchStart", [(x, y)]), ("touchMove", [(x + 20, y + 30)]), ("touchEnd", [])):
        touches = [{"x": px, "y": py} for px, py in points]
        protocol.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
    page.wait_for_function("() => !document.querySelector('#undo').disabled")
    after = wait_for_image(page)
    assert (after - before)[WRIST].min() > 1
    np.testing.assert_array_equal(np.delete(after, WRIST, 0), np.delete(before, WRIST, 0))


def test_own_photo_is_fitted_and_its_border_continued(stand_in, open_page):
    page = open_page()
    wait_for_image(page)
    photo = np.full((128, 256, 3), (10, 200, 90), np.uint8)  # fills the rows 48 to 80
    photo[:32], photo[-32:] = (250, 0, 0), (0, 0, 250)
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG")
    page.set_input_files("#photo", {"name": "me.png", "mimeType": "image/png", "buffer": file.getvalue()})
    page.wait_for_function("() => document.querySelector('#message').textContent.includes('no estimator')")
    content = base64.b64decode(page.locator("#source image").get_attribute("href").split(",")[1])
    shown = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert shown.shape == (*SIZE, 3)
    for rows, color in ((slice(0, 54), (250, 0, 0)), (slice(60, 68), (10, 200, 90)), (slice(74, 128), (0, 0, 250))):
        np.testing.assert_allclose(shown[rows].astype(int), np.broadcast_to(color, shown[rows].shape), atol=2)
    page.set_input_files("#photo", {"name": "text.png", "mimeType": "image/png", "buffer": b"hello"})
    page.wait_for_function("() => document.querySelector('#message').textContent.includes('text.png: not a photo')")


def test_what_needs_a_server_is_hidden_and_dropped_pose_files_are_a_message(stand_in, open_page):
    page = open_page()
    wait_for_image(page)
    hidden = ("#import", "#photo-pose", "#export-json", "#export-csv", "#block", "#head", "#from", "#to", "#export-gif")
    assert [name for name in hidden if page.locator(name).is_visible()] == []
    assert [name for name in ("#export-png", "#walk", "#play", "#undo") if not page.locator(name).is_visible()] == []
    page.hover("#generated")
    page.evaluate("""() => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File(["{}"], "pose.json"));
      document.dispatchEvent(new DragEvent("drop", { dataTransfer }));
    }""")
    page.wait_for_function("() => document.querySelector('#message').textContent.includes('this page has no server')")


@pytest.mark.parametrize("missing", ["transfer.onnx", "ort/ort.js", "worker.js"])
def test_missing_file_is_a_message(stand_in, open_page, missing):
    (stand_in / missing).unlink()
    page = open_page()
    page.wait_for_function("() => document.querySelector('#message').textContent.includes('the network does not run')")


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (400, "dark"), (1280, "light"), (1280, "dark")])
def test_page_fits_the_width(stand_in, open_page, width, scheme):
    page = open_page(width, color_scheme=scheme)
    wait_for_image(page)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    for view in ("#target", "#generated"):  # both are seen at once
        box = page.locator(view).bounding_box()
        assert box["y"] + box["height"] <= 850


@pytest.mark.skipif(not PACKAGE, reason="needs ONNXRUNTIME_WEB=FILE, npm's package of onnxruntime-web")
def test_pretrained_network_in_the_browser_equals_pose_transfer_and_onnxruntime(site, open_page, offers, call):
    assert call(export_page, f"--ort={PACKAGE}", f"--out={site[0]}").returncode == 0
    transfer = PoseTransfer.load("rendered_market", checkpoints_dir=export_page.PRETRAINED, gpu_ids=-1)
    session = open_session(site[0] / "transfer.onnx")
    page = open_page()
    image, source = person(offers, 0)
    poses = [wait_for_image(page)]
    for x in (-20, -300, None):
        if x is None:
            page.keyboard.press("Delete")  # the joint that was dragged
        else:
            drag(page, WRIST, x, 30)
        poses.append(wait_for_image(page))
        generated = pixels(page)
        assert_close(generated, transfer(image, source, poses[-1]))
        keypoints = [pose[None].astype(np.float32) for pose in (source, poses[-1])]
        inputs = dict(zip(TransferGraph.inputs, (image[None], *keypoints)))
        assert_close(generated, session.run(None, inputs)[0][0])
    assert poses[2][WRIST, 1] < 0
    assert np.isnan(poses[3][WRIST]).all()
