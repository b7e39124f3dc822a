"""inference/studio.py with a plain client: what the page gets, and what the server refuses."""

import asyncio
import base64
import io
import json
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs requirements-studio.txt")
pytest.importorskip("httpx", reason="needs requirements-studio.txt")

from starlette.testclient import TestClient

from inference.attention import attend
from inference.cached_source import CachedSource
from inference.estimators import Estimator
from inference.framing import crop, frame_person, to_frame
from inference.people import Person
from inference.studio import MAX_SOURCES, TAB_LENGTH, Studio, create_app
from inference.studio_offers import Offers, data_set_poses
from inference.tracks import interpolate
from tests.helpers import write_keypoints
from tests.inference.test_framing import standing
from tests.inference.tiny_transfer import SIZE, keypoints_of, load_tiny, tiny_walk, write_tiny

PORT = "127.0.0.1:8000"


def to_json(pose: np.ndarray) -> list:
    return [None if np.isnan(joint).any() else joint.tolist() for joint in pose.astype(float)]


def from_json(pose: list) -> np.ndarray:
    return np.array([[np.nan, np.nan] if joint is None else joint for joint in pose])


def to_url(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def png(width: int, height: int, mode: str = "1") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, format="PNG")
    return file.getvalue()


class OnePerson(Estimator):
    default_weights, uses_gpu = "", False

    def __init__(self, pose: np.ndarray | None) -> None:
        self.pose = pose

    def find_people(self, photo: Image.Image) -> list[Person]:
        return [] if self.pose is None else [Person(self.pose)]


@pytest.fixture(scope="module")
def people():
    return tiny_walk()


@pytest.fixture(scope="module")
def studio(tmp_path_factory, people) -> Studio:
    transfer = load_tiny(write_tiny(tmp_path_factory.mktemp("checkpoints")))
    poses = list(keypoints_of(people).astype(float))
    offers = Offers([(Image.fromarray(people[0].pixels), poses[0])], poses[:2], poses, poses[0])
    return Studio(transfer, None, offers)


@pytest.fixture
def client(studio) -> TestClient:
    studio.sources.clear()
    return TestClient(create_app(studio, {PORT}), f"http://{PORT}", raise_server_exceptions=False)


@pytest.fixture
def tab(client, people) -> str:
    """The tab whose cached source is the first person of the walk."""
    tab = client.post("/api/start").json()["tab"]
    body = {"tab": tab, "image": to_url(people[0].pixels), "keypoints": to_json(people[0].keypoints)}
    answer = client.post("/api/source", json=body)
    assert answer.json()["grid"] == [32, 16]
    return tab


@pytest.fixture(scope="module")
def expected(studio, people) -> CachedSource:
    return CachedSource(studio.transfer, Image.fromarray(people[0].pixels), people[0].keypoints)


def test_page_is_complete_and_needs_nothing_from_elsewhere(client):
    page = client.get("/").text
    for name in ("studio.css", "studio.js"):
        assert f'"{name}"' in page
    texts = [page, *(client.get(f"/{name}").text for name in ("studio.css", "studio.js", "editor.js", "transport.js"))]
    assert "import { Editor" in texts[2]
    assert not any(
        f"{scheme}://" in text.replace("http://www.w3.org/", "") for text in texts for scheme in ("http", "https")
    )
    assert client.get("/studio.py").status_code == client.get("/../studio.py").status_code == 404


def test_start_offers_people_and_poses(client, people):
    start = client.post("/api/start").json()
    assert (start["size"], start["blocks"], start["heads"], start["estimates"]) == ([128, 64], 1, 2, False)
    assert start["presets"] == [to_json(photo.keypoints) for photo in people[:2]]
    assert len(start["joints"]) == len(start["joint_colors"]) == 18
    content = base64.b64decode(start["examples"][0]["image"].split(",")[1])
    np.testing.assert_array_equal(Image.open(io.BytesIO(content)), people[0].pixels)


def test_image_is_what_the_cached_source_generates(client, tab, expected, people):
    pose = people[3].keypoints.astype(float)
    pose[4] = np.nan
    answer = client.post("/api/image", json={"tab": tab, "keypoints": to_json(pose)})
    np.testing.assert_array_equal(Image.open(io.BytesIO(answer.content)), expected.generate(pose))


@pytest.mark.parametrize("head", [None, 0, 1])
def test_attention_is_a_byte_per_pair_of_tokens(client, tab, expected, people, head):
    pose = people[3].keypoints
    body = {"tab": tab, "keypoints": to_json(pose), "block": 0, "head": head}
    levels = np.frombuffer(client.post("/api/attention", json=body).content, np.uint8).reshape(512, 512)
    weights = attend(expected, pose).map(0, head).numpy()
    np.testing.assert_allclose(levels, weights / weights.max(1, keepdims=True) * 255, atol=0.51)
    assert (levels.max(1) == 255).all()


def test_source_is_replaced_closed_and_displaced(client, studio, tab, people):
    first = studio.sources[tab]
    body = {"image": to_url(people[0].pixels), "keypoints": to_json(people[0].keypoints)}
    assert client.post("/api/source", json={"tab": tab, **body}).status_code == 200
    assert list(studio.sources) == [tab]
    assert studio.sources[tab] is not first
    assert client.post("/api/close", json={"tab": tab}).status_code == 200
    assert not studio.sources
    gone = client.post("/api/image", json={"tab": tab, "keypoints": to_json(people[0].keypoints)})
    assert (gone.status_code, gone.json()) == (
        410,
        {"error": "other tabs have displaced the source; move a joint, then try again"},
    )
    tabs = [client.post("/api/start").json()["tab"] for _ in range(MAX_SOURCES + 1)]
    assert len(set(tabs)) == MAX_SOURCES + 1
    for name in tabs:
        client.post("/api/source", json={"tab": name, **body})
    assert list(studio.sources) == tabs[1:]


def test_photo_without_an_estimator_is_fitted_whole(client, people):
    """A photo of the stored size stays as it is; a wide one is fitted by its width."""
    answer = client.post("/api/photo", content=base64.b64decode(to_url(people[2].pixels).split(",")[1])).json()
    content = base64.b64decode(answer["image"].split(",")[1])
    np.testing.assert_array_equal(Image.open(io.BytesIO(content)), people[2].pixels)
    assert answer["keypoints"] == to_json(people[0].keypoints)
    assert "by hand" in answer["advice"][0]
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, :64] = 255
    answer = client.post("/api/photo", content=base64.b64decode(to_url(wide).split(",")[1])).json()
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["image"].split(",")[1]))))
    assert image.shape == (*SIZE, 3)
    assert (image[60, 2], image[60, 61]) == (pytest.approx(255), pytest.approx(0))


def test_photo_with_an_estimator_is_framed_like_transfer_does(client, studio, monkeypatch):
    pose = standing() * 3 + 40
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 700, 3), dtype=np.uint8))
    file = io.BytesIO()
    photo.save(file, format="PNG")
    monkeypatch.setattr(studio, "estimator", OnePerson(pose))
    answer = client.post("/api/photo", content=file.getvalue()).json()
    frame = frame_person(pose, SIZE, "market")
    image = Image.open(io.BytesIO(base64.b64decode(answer["image"].split(",")[1])))
    np.testing.assert_array_equal(image, crop(photo, frame))
    np.testing.assert_allclose(answer["keypoints"], to_frame(pose, frame), atol=1e-3)


@pytest.mark.parametrize("size", [(900, 700), SIZE])
def test_photo_without_a_person_is_an_error(client, studio, monkeypatch, size):
    monkeypatch.setattr(studio, "estimator", OnePerson(None))
    answer = client.post("/api/photo", content=png(size[1], size[0], "RGB"))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("photo: no person found")


@pytest.mark.parametrize("format_name", ["dwpose", "patn"])
def test_exported_pose_is_imported_again(client, people, format_name):
    pose = people[1].keypoints.astype(float)
    pose[4] = (130, 70)  # a little outside
    file = client.post("/api/export", json={"format": format_name, "keypoints": to_json(pose)}).content
    answer = client.post("/api/import", content=file).json()
    np.testing.assert_allclose(from_json(answer["keypoints"]), pose, atol=1e-3)


def test_imported_pose_of_a_larger_photo_is_framed(client):
    pose = standing() * 4
    file = json.dumps({"people": [{"pose_keypoints_2d": [n for y, x in pose.tolist() for n in (x, y, 1)]}]})
    answer = client.post("/api/import", content=file).json()
    expected = to_frame(pose, frame_person(pose, SIZE, "market"))
    np.testing.assert_allclose(answer["keypoints"], expected, atol=1e-3)


def test_interpolate_and_animate(client, tab, people):
    poses = [to_json(photo.keypoints) for photo in people[:2]]
    between = client.post("/api/interpolate", json={"poses": poses, "between": 3}).json()["poses"]
    expected = interpolate(keypoints_of(people[:2]), 3)
    np.testing.assert_allclose([from_json(pose) for pose in between], expected, atol=1e-3)
    gif = Image.open(io.BytesIO(client.post("/api/animation", json={"tab": tab, "poses": between}).content))
    assert (gif.format, gif.n_frames, gif.size) == ("GIF", 5, SIZE[::-1])


def test_data_set_poses_are_spread_over_the_test_split(tmp_path):
    opt = Namespace(dataroot=str(tmp_path), dataset_mode="market")
    assert data_set_poses(opt) == []
    rows = {f"{number:02d}.jpg": standing().round() + number for number in range(40)}
    rows["20.jpg"] = np.full((18, 2), -1.0)  # nobody
    write_keypoints(tmp_path / "market-annotation-test.csv", rows)
    poses = data_set_poses(opt)
    assert [int((pose - standing().round())[0, 0]) for pose in poses] == [
        0, 3, 5, 8, 10, 13, 15, 18, 21, 24, 26, 29, 31, 34, 36, 39,
    ]  # fmt: skip
    opt.dataset_mode = "fashion512"  # PATN's rows are in pixels of 256 x 176
    write_keypoints(tmp_path / "fasion-resize-annotation-test.csv", rows)
    np.testing.assert_array_equal(data_set_poses(opt), np.float32(poses) * 2)


GOOD = [[1, 2]] * 18
SOURCE = {"tab": "x" * TAB_LENGTH, "image": to_url(np.zeros((*SIZE, 3), np.uint8)), "keypoints": GOOD}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("photo", b"", "not a photo that can be decoded"),
        ("photo", b"%PDF-1.4", "not a photo that can be decoded"),
        ("photo", png(90, 90, "RGB")[:60], "not a photo that can be decoded"),
        ("photo", png(10_000, 6_000), "more than 50 million pixels"),
        ("photo", png(20_000, 10_000), "more than 50 million pixels"),  # Pillow's own limit is in between
        ("image", b"[" * 100_000, "not JSON"),
        ("image", b"[]", "expected a JSON object"),
        ("source", {**SOURCE, "tab": "x" * 100_000}, "tab: expected what start returns"),
        ("source", {**SOURCE, "image": "data:image/png;base64,???"}, "image: expected a PNG as a data URL"),
        ("source", {**SOURCE, "image": to_url(np.zeros((4, 4, 3), np.uint8))}, "source image: 4 x 4 pixels"),
        ("source", {**SOURCE, "keypoints": GOOD[:-1]}, "expected a list of 18"),
        ("source", {**SOURCE, "keypoints": [[1, True]] * 18}, "a joint is not"),
        ("source", {**SOURCE, "keypoints": [[1, 1e9]] * 18}, "a joint is not"),
        ("source", {**SOURCE, "keypoints": [[1, 2, 3]] * 18}, "a joint is not"),
        ("source", {**SOURCE, "keypoints": [{"1": 2, "3": 4}] * 18}, "a joint is not"),
        ("source", {**SOURCE, "keypoints": [None] * 17 + [5]}, "a joint is not"),
        ("import", b"hello", "the file: unknown format"),
        ("import", b"\xff\xfe\x00", "the file: not a text file"),
        ("import", b'{"people": []}', "the file: no person in it"),
        ("export", {"format": "/etc/passwd", "keypoints": GOOD}, "format: one of dwpose, patn"),
        ("interpolate", {"poses": [GOOD, GOOD], "between": 199}, "200 poses at most, got 199"),
        ("interpolate", {"poses": [GOOD], "between": -1}, "200 poses at most, got -1"),
        ("interpolate", {"poses": [GOOD], "between": "1"}, "200 poses at most, got '1'"),
        ("interpolate", {"poses": [], "between": 1}, "poses: expected a list of 1 to 200"),
    ],
)
def test_bad_input_is_a_message_and_the_server_lives_on(client, path, body, message):
    answer = client.post(f"/api/{path}", **({"content": body} if isinstance(body, bytes) else {"json": body}))
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert "/tmp" not in answer.json()["error"]
    assert client.post("/api/start").status_code == 200


@pytest.mark.parametrize(("block", "head"), [(1, None), (-1, None), (0, 2), ("0", 0), (None, 0)])
def test_attention_of_an_unknown_block_or_head_is_refused(client, tab, people, block, head):
    body = {"tab": tab, "keypoints": GOOD, "block": block, "head": head}
    answer = client.post("/api/attention", json=body)
    assert (answer.status_code, "in this network" in answer.json()["error"]) == (400, True)


def test_upload_that_breaks_off_is_no_failure_of_the_server(studio):
    """A failure would be a traceback in the terminal: the server logs what the app raises."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/photo",
        "query_string": b"",
        "headers": [(b"host", PORT.encode())],
    }
    messages = iter([{"type": "http.request", "body": b"x" * 1000, "more_body": True}, {"type": "http.disconnect"}])
    sent = []

    async def receive() -> dict:
        return next(messages)

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(create_app(studio, {PORT})(scope, receive, send))
    assert sent[0]["status"] == 400
