"""Poses in other programs' files: read into PATN's meaning (data/pairs.py), and written from it.

    patn             PATN's keypoints csv
    openpose         OpenPose's JSON, 18 joints (--model_pose COCO) or 25; 18 are written
    openpose-body25  the same; 25 are written
    dwpose           the JSON of ControlNet's openpose editors, DWPose and ComfyUI: OpenPose's with a canvas size
    coco             COCO's annotation file, 17 joints
    mediapipe        BlazePose's 33 landmarks dumped as JSON

patn and coco are one file for all photos; of the others each photo has one, NAME.json or NAME_keypoints.json, in a
folder. What a format lacks is derived: the neck, which coco and mediapipe cannot hold and therefore do not give back as
it was, is the middle of the shoulders; BODY_25's middle hip is the middle of the hips. All other joints that PATN lacks
are written as missing. PATN keeps no confidence, so known joints are written with 1 (coco: 2, visible).
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from data.keypoints import JOINTS
from data.pairs import LARGEST, photo_stem, read_keypoints, write_keypoints
from inference.joints import BODY_25, COCO_17, MEDIAPIPE_33, to_openpose18
from util.errors import UserError, summarize
from util.files import atomic_write
from util.image import PHOTO_SUFFIXES, is_photo, photo_names

People = dict[str, list[np.ndarray]]  # photo name -> the (18,2) of everybody in it who has a joint, in the file's order
Size = tuple[int, int]  # (H, W)

VISIBLE = 0.5  # BlazePose gives all landmarks, with the probability that each can be seen
FRACTION = 2.0  # a person within two pixels is none: coordinates that are no larger are fractions of the photo
OPENPOSE = {54: JOINTS, 75: BODY_25}  # joints by the count of numbers
LANDMARK_KEYS = ("pose_landmarks", "poseLandmarks", "landmarks", "landmark")
SIZE_KEYS = (("height", "width"), ("image_height", "image_width"), ("canvas_height", "canvas_width"))


class Photos:
    """What pose files leave open, the photos' full names and sizes: from their `folder`, or one `size` for all."""

    def __init__(self, folder: Path | None = None, size: Size | None = None) -> None:
        if folder and not folder.is_dir():
            raise UserError(f"{folder}: no such folder of photos")
        self.folder, self._size = folder, size
        self._by_stem: dict[str, list[str]] = {}
        for name in sorted(photo_names(folder)) if folder else ():
            if is_photo(Path(name)):
                self._by_stem.setdefault(photo_stem(name), []).append(name)

    def name(self, stem: str) -> str:
        """The photo whose pose is in `stem`.json; without a folder, stem.jpg unless it is a photo's name already."""
        has_ending = Path(stem).suffix.lower() in PHOTO_SUFFIXES
        if not self.folder:
            return stem if has_ending else f"{stem}.jpg"
        found = self._by_stem.get(photo_stem(stem) if has_ending else stem, [])
        if len(found) != 1:
            raise UserError(f"{self.folder}: {', '.join(found) or 'no photo'} for the pose of '{stem}', expected one")
        return found[0]

    def size(self, name: str, declared: Size | None = None) -> Size:
        """(H, W) of a photo as it is shown (turned by its EXIF tag); what the pose file declares comes second."""
        if self._size:
            return self._size
        if not self.folder:
            if not declared:
                how = "scripts/convert_poses.py takes it by --photos DIR or --size WIDTH HEIGHT"
                raise UserError(f"{name}: the photo's size is needed to turn fractions into pixels; {how}")
            return declared
        try:
            with Image.open(self.folder / name) as image:
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
                return image.size if turned else (image.height, image.width)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{self.folder / name}: the photo's size cannot be read ({error})") from error


UNKNOWN = Photos()
CHOICES = ("largest", "first", "error")  # of several people: by `extent`, by the file's order, none


class Format(NamedTuple):
    """`matches` a file's content: text, or what its JSON holds. `parse` raises ValueError saying what is wrong."""

    what: str
    matches: Callable[[Any], bool]
    parse: Callable[[Any, Path, Photos], People]
    write: Callable[[Path, Mapping[str, np.ndarray], Photos], None]


class PoseFile(NamedTuple):
    format: str  # one of FORMATS
    people: People


def read_poses(
    path: Path, format: str | None = None, photos: Photos = UNKNOWN, on_many: str = "largest"
) -> dict[str, np.ndarray]:
    """Photo name -> (18,2) float32 of (y, x), as data.pairs.read_keypoints gives it; nobody in a photo is all NaN.

    `format` is one of FORMATS, None: told by the content; `on_many` one of CHOICES. Raises UserError.
    """
    return choose(read_people(path, format, photos).people, on_many)


def read_people(path: Path, format: str | None = None, photos: Photos = UNKNOWN) -> PoseFile:
    """Everybody in each photo of a pose file, or of a folder of JSON files. Raises UserError, also for nobody at all.

    A coordinate of exactly -1 makes a joint missing in every format, because PATN's csv could not hold it.
    """
    people: People = {}
    for file in _files(path):
        content = _load(file)
        format = format or _tell(file, content)
        if not FORMATS[format].matches(content):
            raise UserError(f"{file}: not {FORMATS[format].what} ({format})")
        try:
            found = FORMATS[format].parse(content, file, photos)
        except ValueError as error:
            raise UserError(f"{file}: {error}") from error
        for name, poses in found.items():
            if name in people:
                raise UserError(f"{file}: {name} came before in {path}")
            _check_name(name, file)
            for pose in poses:
                pose[(pose == -1).any(axis=1)] = np.nan
            people[name] = [pose for pose in poses if not np.isnan(pose).all()]
    if not any(people.values()):
        raise UserError(f"{path}: nobody in it")
    return PoseFile(format, people)


def choose(people: People, on_many: str = "largest") -> dict[str, np.ndarray]:
    """One person of each photo, by `on_many`, one of CHOICES; all NaN where there is none."""
    several = [f"{name}: {len(poses)} people" for name, poses in people.items() if len(poses) > 1]
    if several and on_many == "error":
        raise UserError(f"{len(several)} photos with several people:\n{summarize(several)}")
    key = extent if on_many == "largest" else lambda pose: 0  # of equals, max takes the first
    return {name: max(poses, key=key, default=_nobody()) for name, poses in people.items()}


def write_poses(path: Path, poses: Mapping[str, np.ndarray], format: str, photos: Photos = UNKNOWN) -> None:
    """Write one file, or a folder of one JSON a photo (one photo also to `path`.json), each whole or not at all.

    `poses` are (18,2) of (y, x), NaN = missing; `dwpose` and `mediapipe` need the photos' sizes. Raises UserError.
    """
    for name in poses:
        _check_name(name, path)
    FORMATS[format].write(path, poses, photos)


def extent(pose: np.ndarray) -> float:
    """Pixels: the diagonal of the box around the known joints."""
    return math.hypot(*np.nanmax(pose, axis=0) - np.nanmin(pose, axis=0))


# Files


def _files(path: Path) -> list[Path]:
    """`path`, or the JSON files in it, as people count: 2 before 10."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    if not (files := [file for file in path.glob("*.json") if not file.name.startswith(".")]):
        raise UserError(f"{path}: no .json files in this folder")
    return sorted(files, key=lambda f: [(int(d), "") if d.isdecimal() else (0, d) for d in re.split(r"(\d+)", f.name)])


def _load(file: Path) -> Any:
    """The text of a file, or what it holds as JSON."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        return json.loads(text) if text.lstrip()[:1] in ("{", "[") else text
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a text file; {_known()}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON, or not all of it ({error})") from error


def _tell(file: Path, content: Any) -> str:
    """The first of FORMATS whose content it is."""
    for name, format in FORMATS.items():
        if format.matches(content):
            return name
    raise UserError(f"{file}: unknown layout; {_known()}")


def _known() -> str:
    return "known are " + ", ".join(f"{name} ({format.what})" for name, format in FORMATS.items())


def _check_name(name: str, file: Path) -> None:
    """A name that could leave its folder, or that PATN's csv cannot hold, is the file's error."""
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or set(name) & set(':\\"\n\r') or name != name.strip():
        raise UserError(f"{file}: '{name}' cannot be the name of a photo; no colons, quotes or ways out of the folder")


def _dump(path: Path, content: object) -> None:
    atomic_write(path, lambda file: file.write((json.dumps(content) + "\n").encode()))


def _write_each(path: Path, poses: Mapping[str, np.ndarray], ending: str, encode: Callable[[str], object]) -> None:
    """`encode(name)` of each photo: in `path` itself if that is a .json, otherwise in `path`/STEM`ending`."""
    one_file = path.suffix.lower() == ".json"
    if one_file and len(poses) > 1:
        raise UserError(f"{path}: this format has one file a photo, and there are {len(poses)}; name a folder instead")
    files = {path if one_file else path / f"{photo_stem(name)}{ending}": encode(name) for name in poses}
    if len(files) < len(poses):
        raise UserError(f"{path}: two photos have one name but for their endings and folders; rename one")
    for file, content in files.items():
        _dump(file, content)


# What the parsers share


def _nobody() -> np.ndarray:
    return np.full((len(JOINTS), 2), np.nan, np.float32)


def _field(of: Any, key: str, kind: Any) -> Any:
    """`of[key]`; ValueError where there is none, or none of that kind."""
    if not isinstance(of, dict) or not isinstance(of.get(key), kind):
        raise ValueError(f"no {key}, or not a proper one, in {str(of)[:60]}")
    return of[key]


def _numbers(values: Iterable[Any], columns: int) -> np.ndarray:
    """(n, columns) float64 of numbers as JSON has them; ValueError names the first that is none."""
    values = list(values)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
            raise ValueError(f"{str(value)[:40]} is not a finite number")
    return np.array(values, float).reshape(-1, columns)


def _joints(triples: np.ndarray, least: float = 0.0) -> np.ndarray:
    """(K,3) of x, y and confidence -> (K,2) of (y, x); missing unless the confidence is above `least`."""
    return np.where(triples[:, 2:] > least, triples[:, 1::-1], np.nan)


def _declared_size(of: Any) -> Size | None:
    """(H, W) that a file says its photo has, or None."""
    for keys in SIZE_KEYS:
        if isinstance(of, dict) and all(of.get(key) for key in keys):
            height, width = (of[key] for key in keys)
            if not (_numbers((height, width), 2) > 0).all():
                raise ValueError(f"{keys[0]} {height} and {keys[1]} {width} are no size")
            return height, width
    return None


def _are_fractions(people: Sequence[np.ndarray]) -> bool:
    """Of (K,2) joints. ValueError for OpenPose's third kind, -1 to 1 across the photo."""
    values = np.concatenate([points[~np.isnan(points)] for points in people] or [np.zeros(0)])
    if not values.size or np.abs(values).max() > FRACTION:
        return False
    if values.min() < -0.2:
        raise ValueError("coordinates from -1 to 1; only pixels and fractions from 0 to 1 can be read")
    return True


def _for_names(pose: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """(18,2) -> (len(names), 2); the middle hip is derived, what else we lack is NaN."""
    known = dict(zip(JOINTS, pose.astype(float)))
    known["middle hip"] = (known["right hip"] + known["left hip"]) / 2
    return np.stack([known.get(name, np.full(2, np.nan)) for name in names])


def _triples(points: np.ndarray, seen: int = 1, digits: int = 3) -> list[float]:
    """(K,2) of (y, x) -> x, y, `seen` of each joint in turn, 0, 0, 0 for a missing one."""
    rows = [[0, 0, 0] if math.isnan(y + x) else [round(x, digits), round(y, digits), seen] for y, x in points.tolist()]
    return list(chain.from_iterable(rows))


# PATN's csv


def _is_patn(content: Any) -> bool:
    return isinstance(content, str) and "keypoints_y" in content.partition("\n")[0]


def _parse_patn(content: str, file: Path, photos: Photos) -> People:
    return {name: [pose] for name, pose in read_keypoints(file).items()}


def _write_patn(path: Path, poses: Mapping[str, np.ndarray], photos: Photos) -> None:
    write_keypoints(path, {name: pose.astype(float).round(3) for name, pose in poses.items()})


# OpenPose's JSON, and what ControlNet's programs made of it


def _frames(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [content]


def _is_openpose(content: Any) -> bool:
    return bool(_frames(content)) and all(isinstance(frame, dict) and "people" in frame for frame in _frames(content))


def _is_dwpose(content: Any) -> bool:
    return _is_openpose(content) and any("canvas_width" in frame for frame in _frames(content))


def _parse_openpose(content: Any, file: Path, photos: Photos) -> People:
    """One photo, or a list of them, which are numbered from 0 unless there is but one."""
    stem, frames = file.stem.removesuffix("_keypoints"), _frames(content)
    stems = [stem] if len(frames) == 1 else [f"{stem}_{number:04d}" for number in range(len(frames))]
    names = [photos.name(stem) for stem in stems]
    return {name: _openpose_people(frame, name, photos) for name, frame in zip(names, frames)}


def _openpose_people(frame: Any, name: str, photos: Photos) -> list[np.ndarray]:
    """Fractions become pixels of the photo; pixels of a canvas become those of the photo, where its size is known."""
    people = []
    for person in _field(frame, "people", list):
        if not isinstance(person, dict) or "pose_keypoints_2d" not in person:
            raise ValueError(f"no pose_keypoints_2d in {str(person)[:60]}")
        if person["pose_keypoints_2d"]:  # null or []: only a face or a hand was found
            numbers = _field(person, "pose_keypoints_2d", list)
            if len(numbers) not in OPENPOSE:
                raise ValueError(f"pose_keypoints_2d has {len(numbers)} numbers, not 54 (18 joints) or 75 (BODY_25)")
            people.append((_joints(_numbers(numbers, 3)), OPENPOSE[len(numbers)]))
    canvas, scale = _declared_size(frame), np.ones(2)
    if _are_fractions([points for points, _ in people]):
        scale = np.array(photos.size(name, canvas))
    elif canvas:
        scale = np.array(photos.size(name, canvas)) / canvas
    return [to_openpose18(points * scale, names) for points, names in people]


def _openpose_person(pose: np.ndarray, names: Sequence[str]) -> dict[str, object]:
    hands = {f"hand_{side}_keypoints_2d": [] for side in ("left", "right")}
    return {"pose_keypoints_2d": _triples(_for_names(pose, names)), "face_keypoints_2d": [], **hands}


def _write_openpose(path: Path, poses: Mapping[str, np.ndarray], photos: Photos, names: Sequence[str] = JOINTS) -> None:
    def encode(name: str) -> object:
        people = [] if np.isnan(poses[name]).all() else [{"person_id": [-1], **_openpose_person(poses[name], names)}]
        return {"version": 1.3, "people": people}

    _write_each(path, poses, "_keypoints.json", encode)


def _write_dwpose(path: Path, poses: Mapping[str, np.ndarray], photos: Photos) -> None:
    def encode(name: str) -> object:
        people = [] if np.isnan(poses[name]).all() else [_openpose_person(poses[name], JOINTS)]
        height, width = photos.size(name)
        return {"people": people, "canvas_height": height, "canvas_width": width}

    _write_each(path, poses, ".json", encode)


# COCO's annotation file


def _is_coco(content: Any) -> bool:
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def _parse_coco(content: Any, file: Path, photos: Photos) -> People:
    """Labelled joints are known, visible (2) or not (1). Other joints, such as those of animals, are a ValueError."""
    for category in _field(content, "categories", list) if "categories" in content else []:
        names = category.get("keypoints") if isinstance(category, dict) else None
        if names and str(names).lower().replace("_", " ") != str(list(COCO_17)):
            raise ValueError(f"joints other than COCO's 17, or in another order: {str(names)[:100]}")
    images = _field(content, "images", list)
    names = {_field(image, "id", int | str): _field(image, "file_name", str) for image in images}
    people: People = {name: [] for name in names.values()}
    if not len(people) == len(names) == len(images):
        raise ValueError("two images have one id or one file_name")
    for annotation in _field(content, "annotations", list):
        numbers, image = _field(annotation, "keypoints", list), _field(annotation, "image_id", int | str)
        if len(numbers) != 3 * len(COCO_17) or image not in names:
            wrong = f"{len(numbers)} numbers in keypoints, expected 51" if image in names else f"no image {image}"
            raise ValueError(f"annotation {annotation.get('id')}: {wrong}")
        people[names[image]].append(to_openpose18(_joints(_numbers(numbers, 3)), COCO_17))
    return people


def _write_coco(path: Path, poses: Mapping[str, np.ndarray], photos: Photos) -> None:
    """The boxes and areas are those of the joints, for nothing else is known of the people's outlines."""
    images = [{"id": number, "file_name": name} for number, name in enumerate(poses, 1)]
    annotations = []
    for number, pose in enumerate(poses.values(), 1):
        points = _for_names(pose, COCO_17)
        if np.isnan(points).all():
            continue
        (top, left), (height, width) = np.nanmin(points, axis=0), np.ptp(points[~np.isnan(points[:, 0])], axis=0)
        box = [round(float(value), 3) for value in (left, top, width, height)]
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": box,
             "area": round(box[2] * box[3], 3), "num_keypoints": int((~np.isnan(points[:, 0])).sum()),
             "keypoints": _triples(points, seen=2)}
        )  # fmt: skip
    names = [name.replace(" ", "_") for name in COCO_17]
    person = {"id": 1, "name": "person", "supercategory": "person", "keypoints": names, "skeleton": []}
    _dump(path, {"images": images, "annotations": annotations, "categories": [person]})


# MediaPipe


def _landmark_lists(content: Any) -> list[Any]:
    """The landmarks of each person, in any of the shapes that MediaPipe's users dump; [] where there are none.

    A list of 33 objects, a list of such lists (Tasks API), or an object with either under one of LANDMARK_KEYS
    (`pose_landmarks` of the results object; `landmark` of MessageToDict), and there perhaps the photo's size.
    """
    while isinstance(content, dict) and (keys := [key for key in LANDMARK_KEYS if key in content]):
        content = content[keys[0]]
    if not content or not isinstance(content, list):
        return []
    return [content] if isinstance(content[0], dict) else [person for person in content if person]


def _is_mediapipe(content: Any) -> bool:
    if isinstance(content, dict):
        return any(key in content for key in LANDMARK_KEYS)
    people = _landmark_lists(content)
    return bool(people) and all(isinstance(marks, list) and "x" in marks[0] for marks in people)


def _parse_mediapipe(content: Any, file: Path, photos: Photos) -> People:
    """Joints below VISIBLE and those outside the photo are missing: BlazePose invents them."""
    name = photos.name(file.stem)
    people = []
    for landmarks in _landmark_lists(content):
        if not isinstance(landmarks, list) or len(landmarks) != len(MEDIAPIPE_33):
            raise ValueError(f"not the 33 landmarks of BlazePose: {str(landmarks)[:60]}")
        number = int | float
        marks = [(_field(m, "x", number), _field(m, "y", number), m.get("visibility")) for m in landmarks]
        values = [1 if value is None else value for value in chain.from_iterable(marks)]
        points = _joints(_numbers(values, 3), VISIBLE)
        if np.nanmax(np.abs(points), initial=0) > FRACTION:
            raise ValueError("landmarks beyond 2: fractions of the photo from 0 to 1 are expected, not pixels")
        points[((points < 0) | (points > 1)).any(axis=1)] = np.nan
        people.append(points)
    if not people:
        return {name: []}
    size = photos.size(name, _declared_size(content))
    return {name: [to_openpose18(points * np.array(size), MEDIAPIPE_33) for points in people]}


def _write_mediapipe(path: Path, poses: Mapping[str, np.ndarray], photos: Photos) -> None:
    def encode(name: str) -> object:
        height, width = photos.size(name)
        numbers = iter(_triples(_for_names(poses[name], MEDIAPIPE_33) / (height, width), digits=6))
        marks = [{"x": x, "y": y, "z": 0, "visibility": seen} for x, y, seen in zip(numbers, numbers, numbers)]
        return {"width": width, "height": height, "pose_landmarks": [] if np.isnan(poses[name]).all() else [marks]}

    _write_each(path, poses, ".json", encode)


# The first that matches is taken, so the narrower comes first.
FORMATS = {
    "patn": Format("PATN's keypoints csv", _is_patn, _parse_patn, _write_patn),
    "dwpose": Format("JSON of people, canvas_width and canvas_height", _is_dwpose, _parse_openpose, _write_dwpose),
    "openpose": Format("OpenPose's JSON of people", _is_openpose, _parse_openpose, _write_openpose),
    "openpose-body25": Format(
        "OpenPose's JSON, written with 25 joints",
        _is_openpose,
        _parse_openpose,
        partial(_write_openpose, names=BODY_25),
    ),
    "coco": Format("COCO's images and annotations", _is_coco, _parse_coco, _write_coco),
    "mediapipe": Format("JSON of BlazePose's 33 landmarks", _is_mediapipe, _parse_mediapipe, _write_mediapipe),
}
