"""Keypoint files of other programs, read into PATN's convention (data/pairs.py) and written from it.

scripts/convert_poses.py --help lists the formats. A patn or coco file holds all photos; the other formats have one JSON
file per photo, NAME.json or NAME_keypoints.json, in a folder. Joints that a format lacks are derived or missing: the
neck, which coco and mediapipe cannot hold, becomes the middle of the shoulders when read; BODY_25's middle hip is the
middle of the hips; all other joints that PATN lacks are written as missing. PATN has no confidence, so known joints are
written with confidence 1 (coco: 2, visible).
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from data.keypoints import JOINTS, NUM_JOINTS
from data.pairs import MAX_COORDINATE, photo_stem, read_keypoints, write_keypoints
from inference.joints import BLAZEPOSE_MIN_VISIBILITY, BODY_25, COCO_17, MEDIAPIPE_33, from_openpose18, to_openpose18
from util.errors import UserError, summarize
from util.files import atomic_write, natural_sort_key
from util.image import PHOTO_SUFFIXES, photo_names

Size = tuple[int, int]  # (H, W)
PosesByPhoto = dict[str, list[np.ndarray]]  # photo name -> (18,2) of each person with a known joint, in file order

CHOICES = ("largest", "first", "error")  # if a photo shows several people: the largest by `extent`, the first, or none
MAX_FRACTION = 2.0  # nobody is two pixels large, so coordinates up to this are fractions of the photo and not pixels
MIN_FRACTION = -0.2  # a joint may lie a little outside the photo; below this, coordinates run from -1 to 1
OPENPOSE_ORDERS = {54: JOINTS, 75: BODY_25}  # the joint order by the count of numbers, three for each joint
COCO_VISIBLE = 2  # COCO's flag of a joint: 0 not labeled, 1 labeled but hidden, 2 visible
LANDMARK_KEYS = ("pose_landmarks", "poseLandmarks", "landmarks", "landmark")
EXIF_SIDEWAYS = 5  # EXIF orientations from 5 on exchange height and width


class Photos:
    """Names and sizes of the photos, from a `folder`, or one `size` (H, W) for all, or what keypoint files declare."""

    def __init__(self, folder: Path | None = None, size: Size | None = None) -> None:
        if folder and not folder.is_dir():
            raise UserError(f"{folder}: no such folder of photos")
        self.folder, self._size = folder, size
        self._names_by_stem: dict[str, list[str]] = {}
        for name in photo_names(folder) if folder else ():
            self._names_by_stem.setdefault(photo_stem(name), []).append(name)

    def name(self, stem: str) -> str:
        """The photo of the keypoint file `stem`.json; without a folder, `stem` or `stem`.jpg. Raises UserError."""
        has_suffix = Path(stem).suffix.lower() in PHOTO_SUFFIXES
        if not self.folder:
            return stem if has_suffix else f"{stem}.jpg"
        found = self._names_by_stem.get(photo_stem(stem) if has_suffix else stem, [])
        if len(found) != 1:
            raise UserError(f"{self.folder}: {', '.join(found) or 'no photo'} for the pose of '{stem}', expected one")
        return found[0]

    def size(self, name: str, declared: Size | None = None) -> Size:
        """(H, W) of a photo after its EXIF rotation; without a folder, what its file `declared`. Raises UserError."""
        if self._size:
            return self._size
        if not self.folder:
            if not declared:
                how = "scripts/convert_poses.py takes it by --photos DIR or --size WIDTH HEIGHT"
                raise UserError(f"{name}: the photo's size is needed to turn fractions into pixels; {how}")
            return declared
        try:
            with Image.open(self.folder / name) as image:
                sideways = image.getexif().get(ExifTags.Base.Orientation, 1) >= EXIF_SIDEWAYS
                return image.size if sideways else (image.height, image.width)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{self.folder / name}: the photo's size cannot be read ({error})") from error


UNKNOWN_PHOTOS = Photos()


class PoseFormat(ABC):
    """One format of keypoint files: one JSON file per photo, named after it, unless a subclass overrides `write`.

    `content` is the decoded JSON of a file, or its text if it is not JSON.
    """

    description: ClassVar[str]
    suffix: ClassVar[str] = ".json"  # what follows the photo's name without suffix

    @abstractmethod
    def matches(self, content: Any) -> bool:
        """Whether the content looks like this format."""

    @abstractmethod
    def parse(self, content: Any, file: Path, photos: Photos) -> PosesByPhoto:
        """The poses in content that matches. Raises ValueError that says what is wrong."""

    def encode(self, pose: np.ndarray, name: str, photos: Photos) -> object:
        """What the JSON file of the photo `name` holds."""
        raise NotImplementedError

    def write(self, path: Path, poses: Mapping[str, np.ndarray], photos: Photos) -> None:
        """Write one (18,2) for each photo name. Raises UserError."""
        one_file = path.suffix.lower() == ".json"
        if one_file and len(poses) > 1:
            raise UserError(f"{path}: this format has one file per photo, and there are {len(poses)}; name a folder")
        files = [path if one_file else path / f"{photo_stem(name)}{self.suffix}" for name in poses]
        if len(set(files)) < len(poses):
            raise UserError(f"{path}: two photos differ only in suffix or folder; rename one")
        contents = [self.encode(pose, name, photos) for name, pose in poses.items()]
        for file, content in zip(files, contents):
            _write_json(file, content)


class Patn(PoseFormat):
    """PATN's keypoints csv, which training and testing read."""

    description = "PATN's keypoints csv"

    def matches(self, content: Any) -> bool:
        return isinstance(content, str) and "keypoints_y" in content.partition("\n")[0]

    def parse(self, content: str, file: Path, photos: Photos) -> PosesByPhoto:
        return {name: [pose] for name, pose in read_keypoints(file).items()}

    def write(self, path: Path, poses: Mapping[str, np.ndarray], photos: Photos) -> None:
        write_keypoints(path, {name: pose.astype(float).round(3) for name, pose in poses.items()})


class Coco(PoseFormat):
    """COCO's annotation file of person keypoints (cocodataset.org/#format-data)."""

    description = "COCO's images and annotations"

    def matches(self, content: Any) -> bool:
        return isinstance(content, dict) and {"images", "annotations"} <= content.keys()

    def parse(self, content: Any, file: Path, photos: Photos) -> PosesByPhoto:
        """All labeled joints count as known. Other joints than COCO's 17, such as those of animals, are an error."""
        for category in _field(content, "categories", list) if "categories" in content else []:
            joints = category.get("keypoints") if isinstance(category, dict) else None
            if joints and str(joints).lower().replace("_", " ") != str(list(COCO_17)):
                raise ValueError(f"joints other than COCO's 17, or in another order: {str(joints)[:100]}")
        images = _field(content, "images", list)
        names = {_field(image, "id", int | str): _field(image, "file_name", str) for image in images}
        people: PosesByPhoto = {name: [] for name in names.values()}
        if not len(people) == len(names) == len(images):
            raise ValueError("two images have one id or one file_name")
        for annotation in _field(content, "annotations", list):
            numbers, image = _field(annotation, "keypoints", list), _field(annotation, "image_id", int | str)
            if image not in names:
                raise ValueError(f"annotation {annotation.get('id')}: no image {image}")
            if len(numbers) != 3 * len(COCO_17):
                raise ValueError(f"annotation {annotation.get('id')}: {len(numbers)} numbers in keypoints, expected 51")
            people[names[image]].append(to_openpose18(_to_keypoints(numbers), COCO_17))
        return people

    def write(self, path: Path, poses: Mapping[str, np.ndarray], photos: Photos) -> None:
        images = [{"id": number, "file_name": name} for number, name in enumerate(poses, 1)]
        keypoints = [from_openpose18(pose, COCO_17) for pose in poses.values()]
        annotations = [self._annotation(*item) for item in enumerate(keypoints, 1) if not np.isnan(item[1]).all()]
        names = [name.replace(" ", "_") for name in COCO_17]
        person = {"id": 1, "name": "person", "supercategory": "person", "keypoints": names, "skeleton": []}
        _write_json(path, {"images": images, "annotations": annotations, "categories": [person]})

    @staticmethod
    def _annotation(number: int, keypoints: np.ndarray) -> dict[str, object]:
        """Box and area are those of the known joints, because nothing else is known of the person's outline."""
        known = keypoints[~np.isnan(keypoints[:, 0])]
        (top, left), (height, width) = known.min(axis=0), np.ptp(known, axis=0)
        box = [round(float(value), 3) for value in (left, top, width, height)]
        return {
            "id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": box,
            "area": round(box[2] * box[3], 3), "num_keypoints": len(known),
            "keypoints": _to_triples(keypoints, confidence=COCO_VISIBLE),
        }  # fmt: skip


class OpenPose(PoseFormat):
    """One JSON object for one photo, or a list of them, as ControlNet's editors write for a video."""

    description = "OpenPose's JSON of people"
    suffix = "_keypoints.json"
    names: ClassVar[Sequence[str]] = JOINTS  # the joints that are written

    def matches(self, content: Any) -> bool:
        frames = _as_list(content)
        return bool(frames) and all(isinstance(frame, dict) and "people" in frame for frame in frames)

    def parse(self, content: Any, file: Path, photos: Photos) -> PosesByPhoto:
        """If one file has several frames, their photos are STEM_0000, STEM_0001 and so on."""
        stem, frames = file.stem.removesuffix("_keypoints"), _as_list(content)
        stems = [stem] if len(frames) == 1 else [f"{stem}_{number:04d}" for number in range(len(frames))]
        names = [photos.name(stem) for stem in stems]
        return {name: self._parse_frame(frame, name, photos) for name, frame in zip(names, frames)}

    @staticmethod
    def _parse_frame(frame: Any, name: str, photos: Photos) -> list[np.ndarray]:
        """The poses of one photo; fractions, and pixels of a canvas of another size, become the photo's pixels."""
        people = []  # (K,2) and the joint order of each
        for person in _field(frame, "people", list):
            if not isinstance(person, dict) or "pose_keypoints_2d" not in person:
                raise ValueError(f"no pose_keypoints_2d in {str(person)[:60]}")
            if person["pose_keypoints_2d"]:  # it is null or [] if only a face or a hand was found
                numbers = _field(person, "pose_keypoints_2d", list)
                if (count := len(numbers)) not in OPENPOSE_ORDERS:
                    raise ValueError(f"pose_keypoints_2d has {count} numbers, not 54 (18 joints) or 75 (BODY_25)")
                people.append((_to_keypoints(numbers), OPENPOSE_ORDERS[count]))
        canvas, scale = _declared_size(frame), np.ones(2)
        if _are_fractions([keypoints for keypoints, _ in people]):
            scale = np.array(photos.size(name, canvas))
        elif canvas:
            scale = np.array(photos.size(name, canvas)) / canvas
        return [to_openpose18(keypoints * scale, names) for keypoints, names in people]

    def encode(self, pose: np.ndarray, name: str, photos: Photos) -> object:
        return {"version": 1.3, "people": [{"person_id": [-1], **person} for person in self._encode_people(pose)]}

    def _encode_people(self, pose: np.ndarray) -> list[dict[str, object]]:
        """A list of the one person, or an empty list if all joints are missing."""
        if np.isnan(pose).all():
            return []
        others: dict[str, object] = {f"{part}_keypoints_2d": [] for part in ("face", "hand_left", "hand_right")}
        return [{"pose_keypoints_2d": _to_triples(from_openpose18(pose, self.names)), **others}]


class OpenPoseBody25(OpenPose):
    description = "OpenPose's JSON, written with 25 joints"
    names = BODY_25


class DWPose(OpenPose):
    """The JSON of ControlNet's openpose editors, DWPose and ComfyUI: OpenPose's with the size of a canvas."""

    description = "JSON of people, canvas_width and canvas_height"
    suffix = ".json"

    def matches(self, content: Any) -> bool:
        return super().matches(content) and any("canvas_width" in frame for frame in _as_list(content))

    def encode(self, pose: np.ndarray, name: str, photos: Photos) -> object:
        height, width = photos.size(name)
        return {"people": self._encode_people(pose), "canvas_height": height, "canvas_width": width}


class MediaPipe(PoseFormat):
    """The 33 landmarks of BlazePose, in any of the layouts in which MediaPipe's users save them as JSON."""

    description = "JSON of BlazePose's 33 landmarks"

    def matches(self, content: Any) -> bool:
        if isinstance(content, dict):
            return any(key in content for key in LANDMARK_KEYS)
        people = self._landmark_lists(content)
        return bool(people) and all(isinstance(person, list) and "x" in person[0] for person in people)

    def parse(self, content: Any, file: Path, photos: Photos) -> PosesByPhoto:
        name = photos.name(file.stem)
        people = [self._parse_landmarks(landmarks) for landmarks in self._landmark_lists(content)]
        size = np.array(photos.size(name, _declared_size(content))) if people else 1
        return {name: [to_openpose18(fractions * size, MEDIAPIPE_33) for fractions in people]}

    @staticmethod
    def _landmark_lists(content: Any) -> list[Any]:
        """The landmarks of each person, from a list of 33 objects, a list of such lists (Tasks API), or an object that
        holds either of them under `pose_landmarks` (a results object), `landmark` (MessageToDict) or the like."""
        while isinstance(content, dict) and (keys := [key for key in LANDMARK_KEYS if key in content]):
            content = content[keys[0]]
        if not content or not isinstance(content, list):
            return []
        return [content] if isinstance(content[0], dict) else [person for person in content if person]

    @staticmethod
    def _parse_landmarks(landmarks: Any) -> np.ndarray:
        """(33,2) of (y, x) as fractions of the photo. BlazePose invents joints it cannot see: these become missing."""
        if not isinstance(landmarks, list) or len(landmarks) != len(MEDIAPIPE_33):
            raise ValueError(f"not the 33 landmarks of BlazePose: {str(landmarks)[:60]}")
        numbers = []
        for landmark in landmarks:
            visibility = landmark.get("visibility") if isinstance(landmark, dict) else None
            x, y = (_field(landmark, axis, int | float) for axis in "xy")
            numbers += [x, y, 1 if visibility is None else visibility]  # landmarks without visibility are visible
        keypoints = _to_keypoints(numbers, BLAZEPOSE_MIN_VISIBILITY)
        if np.nanmax(np.abs(keypoints), initial=0) > MAX_FRACTION:
            raise ValueError("landmarks beyond 2: fractions of the photo from 0 to 1 are expected, not pixels")
        keypoints[((keypoints < 0) | (keypoints > 1)).any(axis=1)] = np.nan
        return keypoints

    def encode(self, pose: np.ndarray, name: str, photos: Photos) -> object:
        height, width = photos.size(name)
        numbers = _to_triples(from_openpose18(pose, MEDIAPIPE_33) / (height, width), digits=6)
        triples = zip(numbers[::3], numbers[1::3], numbers[2::3])
        landmarks = [{"x": x, "y": y, "z": 0, "visibility": visibility} for x, y, visibility in triples]
        return {"width": width, "height": height, "pose_landmarks": [] if np.isnan(pose).all() else [landmarks]}


# A file gets the first format that matches, so a narrower format stands before a wider one.
FORMATS: dict[str, PoseFormat] = {
    "patn": Patn(), "dwpose": DWPose(), "openpose": OpenPose(), "openpose-body25": OpenPoseBody25(), "coco": Coco(),
    "mediapipe": MediaPipe(),
}  # fmt: skip


class PoseFile(NamedTuple):
    """What a keypoint file, or a folder of them, holds."""

    format_name: str  # one of FORMATS
    people: PosesByPhoto


def read_people(path: Path, format_name: str | None = None, photos: Photos = UNKNOWN_PHOTOS) -> PoseFile:
    """The people in each photo of a keypoint file, or of a folder of JSON files.

    `format_name` is one of FORMATS; None detects it by the content. `photos` gives photo names and sizes that the file
    lacks. Poses are (18,2) float32 of (y, x) in photo pixels, NaN = missing. A coordinate of exactly -1 makes a joint
    missing in every format, because PATN's csv cannot hold it. Raises UserError, also if there is no person at all.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    files = [file for file in path.glob("*.json") if not file.name.startswith(".")] if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no .json files in this folder")
    people: PosesByPhoto = {}
    for file in sorted(files, key=lambda file: (natural_sort_key(file.name), file.name)):
        content = _load(file)
        format_name = format_name or next((name for name, each in FORMATS.items() if each.matches(content)), None)
        if not format_name:
            raise UserError(f"{file}: unknown format; {_known_formats()}")
        for name, poses in _parse(file, content, format_name, photos).items():
            if name in people:
                raise UserError(f"{file}: {name} came before in {path}")
            people[name] = poses
    if not any(people.values()):
        raise UserError(f"{path}: no person in it")
    return PoseFile(format_name, people)


def choose_person(people: PosesByPhoto, which: str = "largest") -> dict[str, np.ndarray]:
    """One (18,2) for each photo, all NaN if it has nobody; `which` is one of CHOICES. UserError for "error"."""
    several = [f"{name}: {len(poses)} people" for name, poses in people.items() if len(poses) > 1]
    if several and which == "error":
        raise UserError(f"{len(several)} photos with several people:\n{summarize(several)}")
    key = extent if which == "largest" else lambda pose: 0  # if all are equal, max takes the first
    nobody = np.full((NUM_JOINTS, 2), np.nan, np.float32)
    return {name: max(poses, key=key, default=nobody) for name, poses in people.items()}


def extent(pose: np.ndarray) -> float:
    """Pixels: the diagonal of the box around the known joints."""
    return math.hypot(*np.nanmax(pose, axis=0) - np.nanmin(pose, axis=0))


def write_poses(path: Path, poses: Mapping[str, np.ndarray], format_name: str, photos: Photos = UNKNOWN_PHOTOS) -> None:
    """Write (18,2) of (y, x) by photo name, NaN = missing, to one file or to a folder of one JSON file per photo.

    A single photo may go to a .json file in every format. dwpose and mediapipe need the photos' sizes. Each file is
    written atomically, and none before all are encoded. Raises UserError.
    """
    for name in poses:
        _check_photo_name(name, path)
    FORMATS[format_name].write(path, poses, photos)


def _load(file: Path) -> Any:
    """The decoded content of a JSON file, or the text of another file."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        return json.loads(text) if text.lstrip()[:1] in ("{", "[") else text
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a text file; {_known_formats()}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON, or not all of it ({error})") from error


def _known_formats() -> str:
    return "known formats: " + ", ".join(f"{name} ({pose_format.description})" for name, pose_format in FORMATS.items())


def _parse(file: Path, content: Any, format_name: str, photos: Photos) -> PosesByPhoto:
    """The checked content of one file: photo names are safe, and every pose has a known joint."""
    pose_format = FORMATS[format_name]
    if not pose_format.matches(content):
        raise UserError(f"{file}: not {pose_format.description} ({format_name})")
    try:
        people = pose_format.parse(content, file, photos)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    for name, poses in people.items():
        _check_photo_name(name, file)
        for pose in poses:
            pose[(pose == -1).any(axis=1)] = np.nan
        people[name] = [pose for pose in poses if not np.isnan(pose).all()]
    return people


def _check_photo_name(name: str, file: Path) -> None:
    """UserError for a name that could leave the photo folder, or that PATN's csv cannot hold."""
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or set(name) & set(':\\"\n\r') or name != name.strip():
        raise UserError(f"{file}: '{name}' cannot be the name of a photo; no colons, quotes or ways out of the folder")


def _write_json(path: Path, content: object) -> None:
    atomic_write(path, lambda file: file.write((json.dumps(content) + "\n").encode()))


def _as_list(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [content]


def _field(container: Any, key: str, kind: Any) -> Any:
    """`container[key]`. Raises ValueError if it is missing or not of that kind."""
    if not isinstance(container, dict) or not isinstance(container.get(key), kind):
        raise ValueError(f"no {key}, or not a proper one, in {str(container)[:60]}")
    return container[key]


def _check_numbers(values: Sequence[Any]) -> None:
    """Raise ValueError for the first JSON value that is not a finite number."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MAX_COORDINATE:
            raise ValueError(f"{str(value)[:40]} is not a finite number")


def _to_keypoints(values: Sequence[Any], min_confidence: float = 0.0) -> np.ndarray:
    """A flat list of x, y, confidence for each joint -> (K,2) of (y, x), NaN unless confidence > `min_confidence`."""
    _check_numbers(values)
    triples = np.array(values, float).reshape(-1, 3)
    return np.where(triples[:, 2:] > min_confidence, triples[:, 1::-1], np.nan)


def _to_triples(keypoints: np.ndarray, confidence: int = 1, digits: int = 3) -> list[float]:
    """(K,2) of (y, x) -> a flat list of x, y, `confidence` for each joint, and 0, 0, 0 for a missing one."""
    triples: list[float] = []
    for y, x in keypoints.tolist():
        triples += [0, 0, 0] if math.isnan(y + x) else [round(x, digits), round(y, digits), confidence]
    return triples


def _are_fractions(people: Sequence[np.ndarray]) -> bool:
    """Whether (K,2) coordinates are fractions of the photo. ValueError for OpenPose's third kind, from -1 to 1."""
    values = np.concatenate([keypoints[~np.isnan(keypoints)] for keypoints in people] or [np.zeros(0)])
    if not values.size or np.abs(values).max() > MAX_FRACTION:
        return False
    if values.min() < MIN_FRACTION:
        raise ValueError("coordinates from -1 to 1; only pixels and fractions from 0 to 1 can be read")
    return True


def _declared_size(container: Any) -> Size | None:
    """(H, W) of the photo if the JSON object states it, else None. Raises ValueError for an invalid size."""
    for prefix in ("", "image_", "canvas_") if isinstance(container, dict) else ():
        height, width = container.get(f"{prefix}height"), container.get(f"{prefix}width")
        if height and width:
            _check_numbers((height, width))
            if min(height, width) <= 0:
                raise ValueError(f"{prefix}height {height} and {prefix}width {width} are not a size")
            return height, width
    return None
