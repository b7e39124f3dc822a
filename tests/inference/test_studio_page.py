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
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs requirements-studio.txt")
pytest.importorskip("uvicorn", reason="needs requirements-studio.txt")
pytest.importorskip("playwright", reason="needs requirements-studio.txt")

import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from inference import studio as server
from inference.attention import attend
from inference.cached_source import CachedSource
from inference.framing import crop, frame_person, to_frame
from inference.studio import Studio, create_app
from inference.studio_offers import Offers
from tests.inference.test_framing import standing
from tests.inference.test_studio import OnePerson
from tests.inference.tiny_transfer import SIZE, assert_close, keypoints_of, load_tiny, tiny_walk, write_tiny

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="needs chromium")]
ELBOW, WRIST = 3, 4
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


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
    return Studio(transfer, None, Offers(examples, list(poses[1:4]), list(poses), poses[0]))


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
        every_name_is_this_computer = "--host-resolver-rules=MAP * 127.0.0.1"  # and there is no network
        flags = ["--no-sandbox", every_name_is_this_computer]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address) -> Iterator[Page]:
    yield from opened(browser, address, viewport={"width": 1200, "height": 900})


@pytest.fixture
def phone(browser, address) -> Iterator[Page]:
    yield from opened(browser, address, **PHONE)


def opened(browser: Browser, address: str, **screen: object) -> Iterator[Page]:
    """The page with its first image, in a tab of its own. No script fails, and nothing is asked of other servers."""
    page = browser.new_page(**screen)
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
    shown = page.wait_for_function(
        """() => {
          const {ariaBusy, dataset: {pose}} = document.querySelector('#generated');
          if (ariaBusy !== 'false' || !pose) return null;
          const shown = JSON.parse(pose), circles = [...document.querySelectorAll('#target .joint')];
          const same = circles.every((circle) => {
            const joint = shown[circle.dataset.joint];
            const [y, x] = ['cy', 'cx'].map((name) => Number(circle.getAttribute(name)));
            return joint && joint[0] === y && joint[1] === x;
          });
          return same && circles.length === shown.filter(Boolean).length ? shown : null;
        }"""
    ).json_value()
    return np.array([[np.nan, np.nan] if joint is None else joint for joint in shown], float)


def pixels(page: Page) -> np.ndarray:
    """uint8 (H,W,3) of the canvas."""
    url = page.evaluate("() => document.querySelector('#generated').toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))


def center(page: Page, joint: int, svg: str = "#target") -> tuple[float, float]:
    box = page.locator(f"{svg} .joint[data-joint='{joint}']").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page: Page, joint: int, x: float, y: float, svg: str = "#target") -> None:
    """Move a joint by (x, y) pixels of the screen, in steps, as a hand does."""
    start = center(page, joint, svg)
    page.mouse.move(*start)
    page.mouse.down()
    for part in (0.3, 0.7, 1):
        page.mouse.move(start[0] + part * x, start[1] + part * y)
    page.mouse.up()


class Fingers:
    """Fingers on the page's screen; each is at an (x, y)."""

    def __init__(self, page: Page) -> None:
        self.session = page.context.new_cdp_session(page)

    def down(self, *fingers: tuple[float, float]) -> None:
        self._send("touchStart", fingers)

    def move(self, *fingers: tuple[float, float]) -> None:
        self._send("touchMove", fingers)

    def up(self) -> None:
        self._send("touchEnd", ())

    def _send(self, event: str, fingers: Sequence[tuple[float, float]]) -> None:
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(fingers)]
        self.session.send("Input.dispatchTouchEvent", {"type": event, "touchPoints": points})


def at_screen(page: Page, x: float, y: float) -> np.ndarray:
    """Where in the target's image, (y, x) in its pixels, a place of the screen is, by the view box."""
    left, top, width, height = map(float, page.get_attribute("#target", "viewBox").split())
    box = page.locator("#target").bounding_box()
    scale = min(box["width"] / width, box["height"] / height)  # the view box is centered
    middle = np.array([box["y"] + box["height"] / 2, box["x"] + box["width"] / 2])
    return (np.array([y, x]) - middle) / scale + [top + height / 2, left + width / 2]


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
    page.click("#target-tools .tray button")
    np.testing.assert_array_equal(wait_for_image(page), second)
    assert page.locator("#target-tools .tray button").count() == 0


def test_presets_people_and_mirror(page, studio, poses):
    page.click("#presets button:nth-child(3)")
    np.testing.assert_allclose(wait_for_image(page), poses[3])
    page.click("#examples button:nth-child(2)")
    page.wait_for_function("() => !document.querySelector('#undo').disabled")
    page.click("#target-tools [data-tool=mirror]")
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


def test_tabs_have_sources_of_their_own_and_free_them(page, browser, address, studio, poses):
    count = len(studio.sources)
    tabs = [browser.new_page(), browser.new_page()]
    for number, tab in enumerate(tabs):
        tab.goto(address)
        tab.click(f"#examples button:nth-child({2 - number})")
    drag(page, WRIST, 10, 10)
    drag(tabs[0], WRIST, 20, 0)
    for tab, example in ((page, 0), (tabs[0], 1), (tabs[1], 0)):
        wait_until_shown(tab, studio.transfer(*studio.offers.examples[example], wait_for_image(tab)))
    assert len(studio.sources) == count + 2
    for number, tab in enumerate(tabs, start=1):
        tab.close(run_before_unload=True)
        wait_for_count(page, studio, count + 2 - number)
    studio.sources.clear()  # as if other tabs had displaced the source: the page sends it again
    page.click("#presets button:nth-child(2)")  # one request, unlike a drag
    wait_for_image(page)
    assert len(studio.sources) == 1


def test_tab_that_closes_while_its_source_is_computed_frees_it(page, browser, address, studio, monkeypatch):
    count, computed, compute = len(studio.sources), threading.Event(), CachedSource.__init__

    def compute_slowly(source: CachedSource, *given: object) -> None:
        time.sleep(1)
        compute(source, *given)
        computed.set()

    monkeypatch.setattr(CachedSource, "__init__", compute_slowly)
    other = browser.new_page()
    with other.expect_request("**/api/source"):
        other.goto(address)
    other.wait_for_timeout(200)
    assert not computed.is_set()
    other.close(run_before_unload=True)
    while not computed.is_set():
        page.wait_for_timeout(50)
    drag(page, WRIST, 10, 10)  # the server answers in order
    wait_for_image(page)
    assert len(studio.sources) == count


def wait_for_count(page: Page, studio: Studio, count: int) -> None:
    """Wait until `count` tabs have a cached source."""
    for _ in range(100):
        if len(studio.sources) == count:
            break
        page.wait_for_timeout(50)
    assert len(studio.sources) == count


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (800, "dark"), (1400, "light")])
def test_page_fits_the_width(browser, address, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.goto(address)
    wait_for_image(page)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    for view in ("#target", "#generated"):  # both are seen at once
        box = page.locator(view).bounding_box()
        assert box["y"] + box["height"] <= 844
    background = page.evaluate("() => getComputedStyle(document.querySelector('#undo')).backgroundColor")
    assert background == {"light": "rgb(243, 243, 243)", "dark": "rgb(34, 34, 34)"}[scheme]
    page.close()


def test_server_that_ended_is_a_message(page):
    page.route("**/api/image", lambda route: route.abort())
    drag(page, WRIST, 10, 10)
    page.wait_for_function("() => document.querySelector('#message').textContent.includes('does not answer')")
    page.unroute("**/api/image")
    drag(page, WRIST, 10, 10)
    wait_for_image(page)
    expect(page.locator("#message")).to_be_hidden()


def test_finger_drags_the_joint_beside_which_it_lies(phone, studio):
    before = wait_for_image(phone)
    x, y = center(phone, WRIST)
    fingers = Fingers(phone)
    fingers.down((x + 12, y + 9))  # beside the joint's 5 pixels
    for part in (0.3, 0.7, 1):
        fingers.move((x + 12 - 40 * part, y + 9 + 60 * part))
    fingers.up()
    after = wait_for_image(phone)
    unit = phone.locator("#target").bounding_box()["width"] / SIZE[1]  # a phone's view is narrower than the image
    np.testing.assert_allclose(after[WRIST] - before[WRIST], np.array([60, -40]) / unit, atol=0.5)
    np.testing.assert_array_equal(np.delete(after, WRIST, 0), np.delete(before, WRIST, 0))
    assert_close(pixels(phone), expected_image(studio, 0, after))
    assert phone.evaluate("() => scrollY") == 0


def test_two_fingers_zoom_and_a_double_tap_shows_all(phone):
    """What the fingers lie on stays below them, and the joint that the first one touched stays where it was."""
    pose = wait_for_image(phone)
    (x, y), fingers = center(phone, WRIST), Fingers(phone)
    start, end = [(x + 8, y), (x + 40, y + 20)], [(x - 30, y - 25), (x + 70, y + 25)]
    below = [at_screen(phone, *finger) for finger in start]
    fingers.down((x, y))
    fingers.move(start[0])
    fingers.down(*start)
    fingers.move(*end)
    fingers.up()
    expect(phone.locator("#target")).not_to_have_attribute("viewBox", f"0 0 {SIZE[1]} {SIZE[0]}")  # they have arrived
    np.testing.assert_array_equal(wait_for_image(phone), pose)
    assert (phone.locator("#undo").is_disabled(), phone.evaluate("() => visualViewport.scale")) == (True, 1)
    between = np.mean([at_screen(phone, *finger) for finger in end], axis=0)
    np.testing.assert_allclose(between, np.mean(below, axis=0), atol=0.2)
    spread = [np.linalg.norm(np.subtract(*places)) for places in (start, end)]
    height = float(phone.get_attribute("#target", "viewBox").split()[3])
    assert height == pytest.approx(SIZE[0] * spread[0] / spread[1], rel=1e-3)
    box = phone.locator("#target").bounding_box()
    for _ in range(2):
        phone.touchscreen.tap(box["x"] + 4, box["y"] + 4)
    expect(phone.locator("#target")).to_have_attribute("viewBox", f"0 0 {SIZE[1]} {SIZE[0]}")


def test_wheel_zooms_around_the_mouse_and_a_drag_is_finer(page):
    before, unit = wait_for_image(page), pixels_per_unit(page)
    place = center(page, ELBOW)
    page.mouse.move(*place)
    page.mouse.wheel(0, -400)
    factor = 1.0015**400
    page.wait_for_function("height => Math.abs(target.viewBox.baseVal.height - height) < 1e-3", arg=SIZE[0] / factor)
    np.testing.assert_allclose(center(page, ELBOW), place, atol=1)
    page.mouse.down()
    page.mouse.move(place[0] + 60, place[1] + 30)
    page.mouse.up()
    after = wait_for_image(page)
    np.testing.assert_allclose(after[ELBOW] - before[ELBOW], np.array([30, 60]) / unit / factor, atol=0.2)
    page.mouse.dblclick(place[0] + 60, place[1] + 30)
    expect(page.locator("#target")).to_have_attribute("viewBox", f"0 0 {SIZE[1]} {SIZE[0]}")
    source = page.locator("#source").bounding_box()
    page.mouse.move(source["x"] + 50, source["y"] + 50)
    page.mouse.wheel(0, -400)  # not being edited, it is not zoomed
    page.wait_for_timeout(200)
    assert page.get_attribute("#source", "viewBox") == f"0 0 {SIZE[1]} {SIZE[0]}"


def test_whole_pose_is_scaled_rotated_and_moved(page):
    """As complex numbers whose imaginary part points up: a rotation to the left multiplies by exp(5 degrees * i)."""

    def numbers(pose: np.ndarray) -> np.ndarray:
        return pose[:, 1] - 1j * pose[:, 0]

    def middle(pose: np.ndarray) -> complex:
        return numbers(pose).mean()

    expected = numbers(pose := wait_for_image(page))
    for tool, factor in (("left", np.exp(1j * np.pi / 36)), ("larger", 1.05), ("smaller", 1 / 1.05), ("right", None)):
        page.click(f"#target-tools [data-tool={tool}]")
        factor = np.exp(-1j * np.pi / 36) if factor is None else factor
        expected = middle(pose) + (expected - middle(pose)) * factor
        np.testing.assert_allclose(numbers(wait_for_image(page)), expected, atol=1e-6)
    before = wait_for_image(page)
    box = page.locator("#target").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 35, box["y"] + 25)
    page.mouse.up()
    by = np.array([20, 30]) / pixels_per_unit(page)
    np.testing.assert_allclose(wait_for_image(page) - before, np.tile(by, (18, 1)), atol=1e-3)


def test_walk_plays_until_a_joint_is_dragged(page, poses):
    page.click("#walk")
    np.testing.assert_allclose(wait_for_image(page), poses[0])
    assert page.locator("#slider").get_attribute("max") == "5"
    seen = []
    page.expose_function("see", lambda shown: seen.append(json.loads(shown)))
    page.evaluate(
        """() => new MutationObserver(() => window.see(generated.dataset.pose))
          .observe(generated, { attributeFilter: ['data-pose'] })"""
    )
    page.click("#play")
    while len(seen) < 8:  # once around
        page.wait_for_timeout(50)
    for number, pose in enumerate(seen[:8], start=1):
        np.testing.assert_allclose(np.array(pose), poses[number % 6])
    start = center(page, WRIST)
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + 90, start[1] - 90, steps=3)
    page.mouse.up()
    expect(page.locator("#play")).to_have_text("Play")
    stopped = wait_for_image(page)
    page.wait_for_timeout(300)
    np.testing.assert_array_equal(wait_for_image(page), stopped)
    page.keyboard.press("Control+z")
    assert any(np.allclose(wait_for_image(page), pose) for pose in poses)
    page.click("#play")
    expect(page.locator("#play")).to_have_text("Stop")
    page.click("#presets button:nth-child(2)")
    expect(page.locator("#play")).to_have_text("Play")
    np.testing.assert_allclose(wait_for_image(page), poses[2])


def test_photo_with_an_estimator_is_a_source_or_a_pose(page, studio, monkeypatch, tmp_path):
    assert page.locator("#photo-pose").locator("..").is_hidden()  # without an estimator
    pose = standing() * 3 + 40
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 700, 3), dtype=np.uint8))
    photo.save(tmp_path / "photo.png")
    monkeypatch.setattr(studio, "estimator", OnePerson(pose))
    page.reload()
    target = wait_for_image(page)
    frame = frame_person(pose, SIZE, "market")
    framed = to_frame(pose, frame)
    page.set_input_files("#photo", tmp_path / "photo.png")
    page.wait_for_function("() => !undo.disabled && message.hidden")
    wait_until_shown(page, studio.transfer(crop(photo, frame), framed, target))
    page.set_input_files("#photo-pose", tmp_path / "photo.png")
    page.wait_for_function(
        "wrist => Math.abs(JSON.parse(generated.dataset.pose)[4][0] - wrist) < 1e-3", arg=float(framed[WRIST, 0])
    )
    np.testing.assert_allclose(wait_for_image(page), framed, atol=1e-3)
    monkeypatch.setattr(studio, "estimator", OnePerson(None))
    page.set_input_files("#photo-pose", tmp_path / "photo.png")
    expect(page.locator("#message")).to_contain_text("no person found")
    np.testing.assert_allclose(wait_for_image(page), framed, atol=1e-3)


def wait_until_shown(page: Page, expected: Image.Image) -> None:
    """Wait until the generated image is `expected`, up to rounding."""
    for _ in range(100):
        if np.abs(pixels(page).astype(int) - np.asarray(expected, int)).max() <= 1:
            return
        page.wait_for_timeout(100)
    assert_close(pixels(page), np.asarray(expected))


def test_photo_without_an_estimator_gets_its_joints_by_hand(page, studio, poses, tmp_path):
    """Both poses can have hidden joints, and each has its own buttons."""
    target = wait_for_image(page)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8))
    photo.save(tmp_path / "photo.png")
    page.set_input_files("#photo", tmp_path / "photo.png")
    expect(page.locator("#source .joint")).to_have_count(18)
    drag(page, WRIST, 40, -40, "#source")
    source = poses[0].copy()
    source[WRIST] += np.array([-40, 40]) / pixels_per_unit(page)
    page.mouse.click(*center(page, 7, "#source"))
    page.click("#source-tools [data-tool=hide]")
    source[7] = np.nan
    page.mouse.click(*center(page, ELBOW))
    page.click("#target-tools [data-tool=hide]")
    assert page.locator("#source .joint").count() == page.locator("#target .joint").count() == 17
    hidden = target.copy()
    hidden[ELBOW] = np.nan
    wait_until_shown(page, studio.transfer(photo, source, hidden))
    page.click("#source-tools [data-tool=hide]")
    expect(page.locator("#message")).to_have_text("choose a joint first: click it")
    page.click("#source-tools .tray button")
    page.click("#target-tools .tray button")
    assert page.locator("#source .joint").count() == page.locator("#target .joint").count() == 18


def test_map_follows_the_zoom_of_the_source_and_leaves_with_its_image(page, studio, monkeypatch):
    """The arrow's end, where the source's zoomed view shows it, is the token with the largest weight."""
    pose = wait_for_image(page)
    page.check("#edit-source")
    box = page.locator("#source").bounding_box()
    unit = pixels_per_unit(page)
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.wheel(0, -300)
    zoom = 1.0015**300
    page.wait_for_function("height => Math.abs(source.viewBox.baseVal.height - height) < 1e-3", arg=SIZE[0] / zoom)
    generated = page.locator("#generated").bounding_box()
    place = (generated["x"] + generated["width"] / 2 + 2 * unit, generated["y"] + 50 * unit)
    page.mouse.move(*place)
    page.wait_for_selector("#map:not([hidden])")
    image, keypoints = studio.offers.examples[0]
    weights = attend(CachedSource(studio.transfer, image, keypoints), pose).map()[12 * 16 + 8].numpy()
    x, y = (float(page.locator("#arrow circle").get_attribute(name)) for name in ("cx", "cy"))
    row, column = (y - middle[1]) / unit / zoom + SIZE[0] / 2, (x - middle[0]) / unit / zoom + SIZE[1] / 2
    assert weights[int(row // 4) * 16 + int(column // 4)] >= weights.max() * 254 / 255
    page.keyboard.press("Control+Shift+z")  # nothing to redo
    assert page.locator("#map").is_visible()
    page.locator(f"#target .joint[data-joint='{WRIST}']").press("ArrowUp")
    page.wait_for_selector("#map", state="hidden")
    wait_for_image(page)
    monkeypatch.setattr(server, "attend", lambda *given: time.sleep(0.5) or attend(*given))
    with page.expect_response("**/api/attention"):
        page.mouse.move(place[0], place[1] + 2)
        page.mouse.move(2, 2)
    page.wait_for_timeout(200)
    assert page.locator("#map").is_hidden()
    assert page.locator("#message").is_hidden()


def test_finger_on_the_image_shows_the_source_beside_it(phone):
    """A phone's screen shows both ends of the arrow while the finger moves, and does not scroll."""
    target, generated = (phone.locator(name).bounding_box() for name in ("#target", "#generated"))
    assert phone.locator("#source").bounding_box()["y"] > target["y"] + target["height"]
    fingers, x, y = Fingers(phone), generated["x"] + 90, generated["y"] + 200
    fingers.down((x, y))
    phone.wait_for_selector("#map:not([hidden])")
    fingers.move((x, y - 60))
    source = phone.locator("#source").bounding_box()
    for edge in ("x", "y", "width", "height"):
        assert source[edge] == pytest.approx(target[edge], abs=2)
    cx, cy = (float(phone.locator("#arrow circle").get_attribute(name)) for name in ("cx", "cy"))
    assert 0 <= cx - source["x"] <= source["width"]
    assert 0 <= cy - source["y"] <= source["height"]
    assert phone.evaluate("([x, y]) => reading.contains(document.elementFromPoint(x, y))", [cx, cy])
    end = phone.screenshot(clip={"x": cx - 7, "y": cy - 7, "width": 14, "height": 14})
    colors = np.asarray(Image.open(io.BytesIO(end)).convert("RGB"))
    assert (colors == (221, 0, 255)).all(-1).any()  # the arrow is on top
    assert phone.evaluate("() => scrollY") == 0
    fingers.up()
    phone.wait_for_selector("#map", state="hidden")
    assert phone.locator("#source").bounding_box()["y"] > target["y"] + target["height"]


def test_message_is_seen_wherever_the_page_is_scrolled(phone, tmp_path):
    (tmp_path / "text.jpg").write_bytes(b"hello")
    phone.evaluate("() => scrollTo(0, document.documentElement.scrollHeight)")
    phone.set_input_files("#photo", tmp_path / "text.jpg")
    expect(phone.locator("#message")).to_contain_text("not a photo")
    expect(phone.locator("#message")).to_be_in_viewport(ratio=1)
    phone.tap("#message")
    expect(phone.locator("#message")).to_be_hidden()


def test_upload_of_20_mb_and_another_name_are_refused_and_the_server_lives_on(page, browser, address):
    upload = "() => fetch('/api/photo', { method: 'POST', body: new Blob([new Uint8Array(20 * 2 ** 20)]) })"
    answer = page.evaluate(f"async () => {{ const r = await ({upload})(); return [r.status, await r.json()]; }}")
    assert answer == [413, {"error": "more than 16 MB; use a smaller file"}]
    other = browser.new_page()
    refused = other.goto(address.replace("127.0.0.1", "page.example"))
    assert (refused.status, "not at 'page.example:" in refused.text()) == (403, True)
    other.close()
    drag(page, WRIST, 10, 10)
    wait_for_image(page)
