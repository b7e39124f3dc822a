"""The server of scripts/studio.py: a page on which joints are dragged and the generated image follows.

Poses travel as JSON lists of 18 [y, x] in pixels of the stored size, null = missing. Photos stay in memory; GIFs and
keypoint files pass through a temporary folder, which is deleted at once. No path comes from the page.

A tab's source is cached (inference/cached_source.py) until the tab replaces it, closes or has been idle while others
were used. `start` names the tab before it sends a source: so a tab that closes while its source is being computed can
free it too. One thread runs the network; inference/studio_guard.py checks the requests.
"""

import asyncio
import base64
import io
import json
import secrets
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from data.keypoints import NUM_JOINTS
from inference.advice import is_fatal
from inference.attention import attend
from inference.cached_source import CachedSource, compile_target_part
from inference.estimators import Estimator
from inference.formats import read_people, write_poses
from inference.framing import Frame, can_be_framed, crop, frame_person, to_frame
from inference.people import first_pose, rank
from inference.photo_transfer import frame_source
from inference.photos import Photos
from inference.pose_transfer import PoseTransfer
from inference.sources import FoundPeople
from inference.studio_guard import Guard, read_body
from inference.studio_offers import FPS, Offers, describe_offers, to_json, to_png, to_url
from inference.tracks import interpolate
from inference.video import write_animation
from util.errors import UserError, first_line
from util.image import DECODING_ERRORS, to_upright_rgb

PAGE = Path(__file__).with_name("studio_page")
FILES = {"/": "index.html", **{f"/{name}": name for name in ("studio.css", "studio.js", "editor.js", "transport.js")}}
MAX_PIXELS = 50_000_000  # of a photo
MAX_SOURCES = 16  # cached at a time; a page whose source is gone sends it again
TAB_LENGTH = 16  # characters of a tab's name
MAX_JOINT = 10_000.0  # pixels from the image's corner
MAX_FRAMES = 200  # of an animation
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
KEYPOINT_FORMATS = {"dwpose": "pose.json", "patn": "pose.csv"}  # what can be exported, and the file's name


class Studio:
    """What the page asks for. Methods that answer a request take its body, and run in the network's thread."""

    def __init__(self, transfer: PoseTransfer, estimator: Estimator | None, offers: Offers) -> None:
        self.transfer, self.estimator, self.offers = transfer, estimator, offers
        self.target_part = compile_target_part(transfer)
        self.thread = ThreadPoolExecutor(1)  # runs the network
        self.sources: OrderedDict[str, CachedSource] = OrderedDict()  # of each tab; the one used last at the end

    def warm_up(self) -> None:
        """Generate one image in the network's thread, so that no page waits until the network is compiled."""
        image, pose = self.offers.examples[0]
        source = CachedSource(self.transfer, image, pose, self.target_part)
        self.thread.submit(source.generate, pose).result()

    def start(self, body: bytes) -> Response:
        """What the page shows first, and the sizes of the network."""
        opt = self.transfer.opt
        network = {"blocks": opt.num_TTBs, "heads": opt.nhead, "estimates": self.estimator is not None}
        tab = secrets.token_urlsafe(TAB_LENGTH * 3 // 4)
        return JSONResponse({**describe_offers(self.transfer, self.offers), **network, "tab": tab, "server": True})

    def frame_photo(self, body: bytes) -> Response:
        """A user's photo -> the image and pose of its person, framed, and advice; without an estimator a template."""
        photo, size = _decode(body), self.transfer.stored_size
        if self.estimator is None:
            pose, frame = self.offers.template, _whole_photo(photo, size)
            advice = ["place the joints of the source by hand: this page runs without --estimator"]
        else:
            people = self.estimator.find_people(photo)
            found = FoundPeople("photo", people, (photo.height, photo.width))
            frame, found_advice = frame_source(found, size, self.transfer.opt.dataset_mode)
            if is_fatal(found_advice):
                raise UserError("\n".join(one.text for one in found_advice))
            pose, advice = to_frame(people[0].keypoints, frame), [one.text for one in found_advice]
        image = crop(photo, frame)
        return JSONResponse({"image": to_url(image), "keypoints": to_json(pose), "advice": advice})

    def set_source(self, body: bytes) -> Response:
        """{tab, image, keypoints} -> {grid}: compute and cache what depends on the source alone."""
        request = _to_object(body)
        tab = request.get("tab")
        if not isinstance(tab, str) or len(tab) != TAB_LENGTH:
            raise UserError("tab: expected what start returns; reload the page")
        image = _decode(_from_url(request.get("image")), ("PNG",))
        source = CachedSource(self.transfer, image, _to_pose(request.get("keypoints")), self.target_part)
        self.sources[tab] = source
        self.sources.move_to_end(tab)
        while len(self.sources) > MAX_SOURCES:
            self.sources.popitem(last=False)
        return JSONResponse({"grid": source.grid})

    def generate(self, body: bytes) -> Response:
        """{tab, keypoints} -> the generated image, PNG."""
        request = _to_object(body)
        image = self._source(request).generate(_to_pose(request.get("keypoints")))
        return Response(to_png(image), media_type="image/png")

    def attend(self, body: bytes) -> Response:
        """{tab, keypoints, block, head} -> N*N bytes (N tokens): each target token's weights over the source's tokens.

        They are scaled so that the largest of each target token is 255. A head of null is the mean of all.
        """
        request = _to_object(body)
        block, head = request.get("block"), request.get("head")
        if block not in range(self.transfer.opt.num_TTBs) or head not in (None, *range(self.transfer.opt.nhead)):
            raise UserError(f"no block {block!r} or head {head!r} in this network")
        weights = attend(self._source(request), _to_pose(request.get("keypoints"))).map(block, head)
        levels = (weights / weights.amax(-1, keepdim=True) * 255).round().byte()
        return Response(levels.numpy().tobytes(), media_type="application/octet-stream")

    def close(self, body: bytes) -> Response:
        """{tab}: it was closed."""
        self.sources.pop(str(_to_object(body).get("tab")), None)
        return JSONResponse({})

    def import_pose(self, body: bytes) -> Response:
        """A keypoint file -> {keypoints} of the most prominent person of its first photo that shows anyone.

        They are kept if they lie in the image or at most a quarter of its size outside, and framed otherwise. UserError
        also for a file in fractions of a photo whose size it does not state.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pose.json"
            path.write_bytes(body)
            try:
                people = next(found for found in read_people(path).people.values() if found)
            except UserError as error:
                raise UserError(str(error).replace(str(path), "the file")) from error
        pose, size = first_pose(rank(people)), self.transfer.stored_size
        inside = (np.nanmin(pose, 0) >= -0.25 * np.array(size)) & (np.nanmax(pose, 0) <= 1.25 * np.array(size))
        if not inside.all():
            if not can_be_framed(pose):
                raise UserError("the file: its pose needs a neck or shoulder, and hips or head")
            pose = to_frame(pose, frame_person(pose, size, self.transfer.opt.dataset_mode))
        return JSONResponse({"keypoints": to_json(pose)})

    def export_pose(self, body: bytes) -> Response:
        """{format, keypoints} -> the keypoint file."""
        request = _to_object(body)
        if (format_name := request.get("format")) not in KEYPOINT_FORMATS:
            raise UserError(f"format: one of {', '.join(KEYPOINT_FORMATS)}")
        with tempfile.TemporaryDirectory() as folder:
            path, photos = Path(folder) / KEYPOINT_FORMATS[format_name], Photos(size=self.transfer.stored_size)
            write_poses(path, {"pose.jpg": _to_pose(request.get("keypoints"))}, format_name, photos)
            return Response(path.read_bytes(), media_type="text/plain")

    def interpolate(self, body: bytes) -> Response:
        """{poses, between} -> {poses} with `between` more between each two."""
        request = _to_object(body)
        poses, between = _to_poses(request.get("poses")), request.get("between")
        if not isinstance(between, int) or between < 0 or len(poses) + (len(poses) - 1) * between > MAX_FRAMES:
            raise UserError(f"between: expected a number that makes {MAX_FRAMES} poses at most, got {between!r}")
        return JSONResponse({"poses": [to_json(pose) for pose in interpolate(poses, between)]})

    def animate(self, body: bytes) -> Response:
        """{tab, poses} -> an animated GIF."""
        request = _to_object(body)
        source = self._source(request)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "animation.gif"
            write_animation(map(source.generate, _to_poses(request.get("poses"))), path, FPS)
            return Response(path.read_bytes(), media_type="image/gif")

    def _source(self, request: dict[str, Any]) -> CachedSource:
        """The cached source of a tab. HTTPException 410 if it is no longer cached; for images the page resends it."""
        tab = str(request.get("tab"))
        if tab not in self.sources:
            raise HTTPException(410, "other tabs have displaced the source; move a joint, then try again")
        self.sources.move_to_end(tab)
        return self.sources[tab]


def create_app(studio: Studio, hosts: set[str], token: str | None = None) -> Starlette:
    """The ASGI app; `hosts` and `token` as in Guard."""
    requests = {
        "start": studio.start, "photo": studio.frame_photo, "source": studio.set_source, "image": studio.generate,
        "attention": studio.attend, "close": studio.close, "import": studio.import_pose, "export": studio.export_pose,
        "interpolate": studio.interpolate, "animation": studio.animate,
    }  # fmt: skip
    call = partial(_call, studio.thread)
    routes = [Route(path, partial(_send_file, PAGE / name)) for path, name in FILES.items()]
    routes += [Route(f"/api/{name}", partial(call, work), methods=["POST"]) for name, work in requests.items()]
    handlers = {UserError: _error, HTTPException: _error, ClientDisconnect: _nobody_reads}
    return Starlette(routes=routes, middleware=[Middleware(Guard, hosts, token)], exception_handlers=handlers)


async def _send_file(path: Path, request: Request) -> Response:
    return FileResponse(path)


async def _call(thread: ThreadPoolExecutor, work: Callable[[bytes], Response], request: Request) -> Response:
    """Give the request's body to `work` in `thread`."""
    return await asyncio.get_running_loop().run_in_executor(thread, work, await read_body(request))


async def _error(request: Request, error: UserError | HTTPException) -> Response:
    message, status = (error.detail, error.status_code) if isinstance(error, HTTPException) else (str(error), 400)
    return JSONResponse({"error": message}, status)


async def _nobody_reads(request: Request, error: ClientDisconnect) -> Response:
    """A tab that was closed during an upload is no failure of the server."""
    return Response(status_code=400)


def _to_object(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON ({first_line(error)})") from error
    if not isinstance(request, dict):
        raise UserError("expected a JSON object")
    return request


def _to_pose(value: Any) -> np.ndarray:
    """A list of 18 [y, x] or null -> float64 (18,2), NaN = missing."""
    if not isinstance(value, list) or len(value) != NUM_JOINTS:
        raise UserError(f"keypoints: expected a list of {NUM_JOINTS} [y, x] or null")
    known = [joint for joint in value if joint is not None]
    if not all(isinstance(joint, list) and len(joint) == 2 and all(map(_is_coordinate, joint)) for joint in known):
        raise UserError(f"keypoints: a joint is not [y, x] within {MAX_JOINT:g} pixels")
    return np.array([[np.nan, np.nan] if joint is None else joint for joint in value], float)


def _is_coordinate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_JOINT


def _to_poses(value: Any) -> np.ndarray:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_FRAMES:
        raise UserError(f"poses: expected a list of 1 to {MAX_FRAMES}")
    return np.stack([_to_pose(pose) for pose in value])


def _decode(content: bytes, formats: tuple[str, ...] = PHOTO_FORMATS) -> Image.Image:
    """RGB, as viewers show it. UserError, before any pixel is decoded, for more than MAX_PIXELS."""
    try:
        with Image.open(io.BytesIO(content), formats=formats) as file:
            if file.width * file.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return to_upright_rgb(file).image
    except Image.DecompressionBombError as error:
        raise UserError(f"more than {MAX_PIXELS // 1_000_000} million pixels; use a smaller photo") from error
    except DECODING_ERRORS as error:
        raise UserError(f"not a photo that can be decoded ({', '.join(formats)})") from error


def _whole_photo(photo: Image.Image, size: tuple[int, int]) -> Frame:
    """A frame of `size` (H, W) in the middle of which the whole photo is."""
    scale = min(size[0] / photo.height, size[1] / photo.width)
    top, left = (-(length / scale - own) / 2 for length, own in zip(size, (photo.height, photo.width)))
    return Frame(scale, top, left, size)


def _from_url(value: Any) -> bytes:
    try:
        return base64.b64decode(str(value).removeprefix("data:image/png;base64,"), validate=True)
    except ValueError as error:
        raise UserError("image: expected a PNG as a data URL") from error
