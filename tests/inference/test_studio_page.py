"""The page of scripts/studio.py in a real browser, chromium, driven by Playwright; skipped where there is none.

The network is the tiny one; the server is the real one, in a thread of this process.
"""

import base64
import io
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs requirements-studio.txt")
pytest.importorskip("uvicorn", reason="needs requirements-studio.txt")
pytest.importorskip("playwright", reason="needs requirements-studio.txt")

import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from inference.attention import attend
from inference.cached_source import CachedSource
from inference.studio import Studio, create_app
from inference.studio_offers import Rendered
from tests.inference.tiny_transfer import SIZE, assert_close, keypoints_of, load_tiny, tiny_walk, write_tiny

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="needs chromium")]
NECK, WRIST = 1, 4


@pytest.fixture(scope="module")
def poses() -> np.ndarray:
    """Poses of the walk with all joints, so that each can be dragged."""
    poses = keypoints_of(tiny_walk()).astype(float)
    missing = np.isnan(poses)
    middle = np.arange(36).reshape(18, 2) + 10.0
    return np.where(missing, middle, poses)


@pytest.fixture(scope="module")
def studio(tmp_path_factory, poses) -> Studio:
    people = tiny_walk()
    transfer = load_tiny(write_tiny(tmp_path_factory.mktemp("checkpoints")))
    examples = [(Image.fromarray(people[number].pixels), poses[number]) for number in (0, 3)]
    return Studio(transfer, None, Rendered(examples, list(poses[1:4]), list(poses), poses[0]))


@pytest.fixture(scope="module")
def address(studio) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host = f"127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(create_app(studio, {host}), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://{host}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address) -> Iterator[Page]:
    """The page with its first image, in a tab of its own. No script fails, and nothing is asked of other servers."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(60_000)
    failures = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("request", lambda request: failures.append(request.url) if is_elsewhere(request.url, address) else None)
    page.goto(address)
    wait_for_image(page)
    yield page
    page.close()
    assert failures == []


def is_elsewhere(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))


def wait_for_image(page: Page) -> np.ndarray:
    """Wait until the generated image is that of the pose on the page; returns the pose."""
    page.wait_for_function("() => document.querySelector('#generated').dataset.pose !== undefined")
    page.wait_for_function(
        """() => {
          const shown = JSON.parse(document.querySelector('#generated').dataset.pose);
          return [...document.querySelectorAll('#target .joint')].every((circle) => {
            const joint = shown[circle.dataset.joint];
            const [y, x] = ['cy', 'cx'].map((name) => Number(circle.getAttribute(name)));
            return joint && joint[0] === y && joint[1] === x;
          }) && document.querySelectorAll('#target .joint').length === shown.filter(Boolean).length;
        }"""
    )
    shown = json.loads(page.locator("#generated").get_attribute("data-pose"))
    return np.array([[np.nan, np.nan] if joint is None else joint for joint in shown], float)


def pixels(page: Page) -> np.ndarray:
    """uint8 (H,W,3) of the canvas."""
    url = page.evaluate("() => document.querySelector('#generated').toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))


def center(page: Page, joint: int) -> tuple[float, float]:
    box = page.locator(f"#target .joint[data-joint='{joint}']").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page: Page, joint: int, x: float, y: float) -> None:
    """Move a joint by (x, y) pixels of the screen, in steps, as a hand does."""
    start = center(page, joint)
    page.mouse.move(*start)
    page.mouse.down()
    for part in (0.3, 0.7, 1):
        page.mouse.move(start[0] + part * x, start[1] + part * y)
    page.mouse.up()


def pixels_per_unit(page: Page) -> float:
    return page.locator("#target").bounding_box()["height"] / SIZE[0]


def expected_image(studio: Studio, example: int, pose: np.ndarray) -> np.ndarray:
    image, keypoints = studio.offers.examples[example]
    return np.asarray(studio.transfer(image, keypoints, pose))


def test_drag_generates_what_pose_transfer_generates(page, studio):
    before = wait_for_image(page)
    assert_close(pixels(page), expected_image(studio, 0, before))
    drag(page, WRIST, 40, -60)
    after = wait_for_image(page)
    moved = np.array([-60, 40]) / pixels_per_unit(page)
    np.testing.assert_allclose(after[WRIST] - before[WRIST], moved, atol=0.3)
    np.testing.assert_array_equal(np.delete(after, WRIST, 0), np.delete(before, WRIST, 0))
    assert (pixels(page) != expected_image(studio, 0, before)).any()
    assert_close(pixels(page), expected_image(studio, 0, after))
    assert page.locator("#latency").text_content().endswith(" ms")


def test_drag_on_a_slow_network_skips_poses_and_ends_with_the_latest(page, monkeypatch):
    """One request is in flight at a time: of nine moves only some are generated, and the last one is."""
    before = wait_for_image(page)
    generate, generated = CachedSource.generate, []

    def generate_slowly(source: CachedSource, keypoints: np.ndarray) -> Image.Image:
        time.sleep(1)
        generated.append(keypoints)
        return generate(source, keypoints)

    monkeypatch.setattr(CachedSource, "generate", generate_slowly)
    for _ in range(3):
        drag(page, WRIST, 10, -10)
    after = wait_for_image(page)
    np.testing.assert_allclose(after[WRIST] - before[WRIST], np.array([-30, 30]) / pixels_per_unit(page), atol=0.9)
    np.testing.assert_array_equal(generated[-1], after)
    assert len(generated) < 9


def test_shift_drag_moves_the_limb_and_lock_keeps_its_length(page):
    before = wait_for_image(page)
    page.keyboard.down("Shift")
    drag(page, 2, 30, 20)  # the right shoulder, above elbow and wrist
    page.keyboard.up("Shift")
    after = wait_for_image(page)
    by = np.array([20, 30]) / pixels_per_unit(page)
    np.testing.assert_allclose(after[[2, 3, 4]] - before[[2, 3, 4]], np.tile(by, (3, 1)), atol=0.3)
    np.testing.assert_array_equal(np.delete(after, [2, 3, 4], 0), np.delete(before, [2, 3, 4], 0))
    page.check("#lock")
    drag(page, 3, 50, -50)
    locked = wait_for_image(page)
    assert np.abs(locked[3] - after[3]).max() > 1
    for parent, child in ((2, 3), (3, 4)):
        lengths = [np.linalg.norm(pose[child] - pose[parent]) for pose in (after, locked)]
        assert lengths[1] == pytest.approx(lengths[0])


def test_undo_redo_hide_and_restore(page, studio):
    first = wait_for_image(page)
    drag(page, WRIST, 30, 30)
    second = wait_for_image(page)
    page.keyboard.press("Control+z")
    np.testing.assert_array_equal(wait_for_image(page), first)
    page.keyboard.press("Control+Shift+z")
    np.testing.assert_array_equal(wait_for_image(page), second)
    page.mouse.click(*center(page, WRIST))
    page.keyboard.press("Delete")
    hidden = wait_for_image(page)
    assert np.isnan(hidden[WRIST]).all()
    assert_close(pixels(page), expected_image(studio, 0, hidden))
    page.click("#tray button")
    np.testing.assert_array_equal(wait_for_image(page), second)
    assert page.locator("#tray button").count() == 0


def test_presets_people_and_mirror(page, studio, poses):
    page.click("#presets button:nth-child(3)")
    np.testing.assert_allclose(wait_for_image(page), poses[3])
    page.click("#examples button:nth-child(2)")
    page.wait_for_function("() => !document.querySelector('#undo').disabled")
    page.click("#mirror")
    mirrored = wait_for_image(page)
    np.testing.assert_allclose(mirrored[2], poses[3][5] * [1, -1] + [0, SIZE[1] - 1])
    page.wait_for_timeout(500)
    wait_for_image(page)
    assert_close(pixels(page), expected_image(studio, 1, mirrored))


def test_hover_shows_where_the_block_reads(page, studio):
    pose = wait_for_image(page)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    box = page.locator("#generated").bounding_box()
    scale = box["height"] / SIZE[0]
    x, y = box["x"] + box["width"] / 2 + 2 * scale, box["y"] + 50 * scale
    page.mouse.move(x, y)
    page.wait_for_selector("#map:not([hidden])")
    page.mouse.move(x, y + 3)
    assert sum(url.endswith("/api/attention") for url in requests) == 1
    image, keypoints = studio.offers.examples[0]
    attention = attend(CachedSource(studio.transfer, image, keypoints), pose)
    row, column = (int(50 + 3 / scale) // 4, (SIZE[1] // 2 + 2) // 4)  # tokens of 4 x 4 pixels
    weights = attention.map()[row * 16 + column].numpy()
    view = page.locator("#source").bounding_box()
    left = view["x"] + view["width"] / 2 - SIZE[1] / 2 * scale
    px, py = (float(page.locator("#arrow circle").get_attribute(name)) for name in ("cx", "cy"))
    token = int((py - view["y"]) / scale // 4 * 16 + (px - left) / scale // 4)
    assert weights[token] >= weights.max() * 254 / 255
    page.mouse.move(2, 2)
    page.wait_for_selector("#map", state="hidden")


def test_export_and_import_again(page):
    drag(page, WRIST, 25, 10)
    pose = wait_for_image(page)
    joint = f"#target .joint[data-joint='{WRIST}']"
    for button in ("#export-json", "#export-csv"):
        with page.expect_download() as download:
            page.click(button)
        wrist_moves = (
            f"([x, far]) => (Math.abs(document.querySelector(`{joint}`).getAttribute('cx') - x) > 0.01) === far"
        )
        page.click("#presets button:nth-child(2)")
        page.wait_for_function(wrist_moves, arg=[float(pose[WRIST, 1]), True])
        page.set_input_files("#import", download.value.path())
        page.wait_for_function(wrist_moves, arg=[float(pose[WRIST, 1]), False])
        np.testing.assert_allclose(wait_for_image(page), pose, atol=1e-2)
    with page.expect_download() as download:
        page.click("#export-png")
    np.testing.assert_array_equal(np.asarray(Image.open(download.value.path()).convert("RGB")), pixels(page))


def test_own_photo_and_bad_files(page, tmp_path):
    bad = {"large.jpg": b"x" * 20 * 2**20, "text.jpg": b"hello", "text.json": b"hello"}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    for name, field, message in (
        ("large.jpg", "#photo", "large.jpg: more than 16 MB; use a smaller file"),
        ("text.jpg", "#photo", "not a photo that can be decoded"),
        ("text.json", "#import", "the file: unknown format"),
    ):
        page.set_input_files(field, tmp_path / name)
        page.wait_for_function("text => document.querySelector('#message').textContent.includes(text)", arg=message)
    Image.new("RGB", (300, 300), "red").save(tmp_path / "red.png")
    page.set_input_files("#photo", tmp_path / "red.png")
    page.wait_for_function("() => document.querySelector('#message').textContent.includes('by hand')")
    assert page.locator("#source .joint").count() == 18  # to be placed


def test_slider_plays_between_two_poses(page, poses):
    page.click("#presets button:nth-child(1)")
    page.click("#from")
    page.click("#presets button:nth-child(3)")
    page.click("#to")
    page.wait_for_function("() => document.querySelector('#slider').max === '23'")
    page.locator("#slider").press("End")
    np.testing.assert_allclose(wait_for_image(page), poses[3], atol=1e-2)
    with page.expect_download() as download:
        page.click("#export-gif")
    with Image.open(download.value.path()) as gif:
        assert gif.size == SIZE[::-1]
        assert gif.n_frames > 1


def test_tabs_have_sources_of_their_own_and_free_them(page, browser, address, studio):
    count = len(studio.sources)
    other = browser.new_page()
    other.goto(address)
    wait_for_image(other)
    assert len(studio.sources) == count + 1
    other.close(run_before_unload=True)
    for _ in range(100):
        if len(studio.sources) == count:
            break
        page.wait_for_timeout(50)
    assert len(studio.sources) == count
    studio.sources.clear()  # as if other tabs had displaced the source: the page sends it again
    drag(page, WRIST, 10, 10)
    wait_for_image(page)
    assert len(studio.sources) == 1


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (800, "dark"), (1400, "light")])
def test_page_fits_the_width(browser, address, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.goto(address)
    wait_for_image(page)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    for view in ("#target", "#generated"):  # both are seen at once
        box = page.locator(view).bounding_box()
        assert box["y"] + box["height"] <= 844
    background = page.evaluate("() => getComputedStyle(document.querySelector('#mirror')).backgroundColor")
    assert background == {"light": "rgb(243, 243, 243)", "dark": "rgb(34, 34, 34)"}[scheme]
    page.close()


def test_server_that_ended_is_a_message(page):
    page.route("**/api/image", lambda route: route.abort())
    drag(page, WRIST, 10, 10)
    page.wait_for_function("() => document.querySelector('#message').textContent.includes('does not answer')")
