"""The layouts of keypoint files: how the JSON or text of each program becomes people, and people become JSON.

inference/formats.py reads and writes the files. The content of a file may be any JSON at all: what is not as expected
raises ValueError.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data.keypoints import JOINTS
from data.pairs import read_keypoints, result_stem, write_keypoints
from inference.joints import BLAZEPOSE_MIN_VISIBILITY, BODY_25, COCO_17, MEDIAPIPE_33, from_openpose18, to_openpose18
from inference.json_values import declared_size, field, short, to_numbers, to_points
from inference.people import PeopleByPhoto, Person
from inference.photos import Photos, Size
from util.errors import UserError
from util.files import check_name_lengths, write_text

MAX_FRACTION = 2.0  # nobody is two pixels large, so coordinates up to this are fractions of the photo and not pixels
MIN_FRACTION = -0.2  # a joint may lie a little outside the photo; below this, coordinates run from -1 to 1
OPENPOSE_ORDERS = {18: JOINTS, 25: BODY_25}  # the joint order by the number of joints
# OpenPose's key since version 1.1, its older key, and that of AlphaPose's cmu layout.
OPENPOSE_KEYS = ("pose_keypoints_2d", "pose_keypoints", "joints")
# COCO's 17 joints come first in Halpe's 26 and 136 joints, which AlphaPose finds, and in COCO-WholeBody's 133.
COCO_COUNTS = (17, 26, 133, 136)
COCO_VISIBLE = 2  # COCO's flag of a joint: 0 not labeled, 1 labeled but hidden, 2 visible
LANDMARK_KEYS = ("pose_landmarks", "poseLandmarks", "landmarks", "landmark")
YOLO_BOX = 5  # numbers before the keypoints of a line: class and box


class PoseFormat(ABC):
    """One format of keypoint files: one JSON file per photo, named after it, unless a subclass overrides `write`.

    `content` is the decoded JSON of a file, or its text if it is not JSON. It may be any JSON at all.
    """

    description: ClassVar[str]
    is_written: ClassVar[bool] = True  # False: the format is read only
    suffix: ClassVar[str] = ".json"  # what follows the photo's name without suffix

    @abstractmethod
    def matches(self, content: Any) -> bool:
        """Whether the content looks like this format."""

    @abstractmethod
    def parse(self, content: Any, file: Path, photos: Photos) -> PeopleByPhoto:
        """The people in content that matches; some may lack all joints. Raises ValueError that says what is wrong."""

    def encode(self, pose: np.ndarray, name: str, photos: Photos) -> object:
        """What the JSON file of the photo `name` holds."""
        raise NotImplementedError

    def write(self, path: Path, poses: Mapping[str, np.ndarray], photos: Photos) -> None:
        """Write one (18,2) for each photo name. Raises UserError."""
        one_file = path.suffix.lower() == ".json"
        if one_file and len(poses) > 1:
            raise UserError(f"{path}: this format has one file per photo, and there are {len(poses)}; name a folder")
        files = [path if one_file else path / f"{result_stem(name)}{self.suffix}" for name in poses]
        check_name_lengths([file.name for file in files], "the names of the photos, after which they are named")
        if len(set(files)) < len(poses):
            raise UserError(f"{path}: two photos differ only in suffix or folder; rename one")
        contents = [self.encode(pose, name, photos) for name, pose in poses.items()]
        for file, content in zip(files, contents):
            write_text(file, json.dumps(content) + "\n")


class Patn(PoseFormat):
    """PATN's keypoints csv, which training and testing read."""

    description = "PATN's keypoints csv"

    def matches(self, content: Any) -> bool:
        return isinstance(content, str) and "keypoints_y" in content.partition("\n")[0]

    def parse(self, content: str, file: Path, photos: Photos) -> PeopleByPhoto:
        poses = read_keypoints(file)
        return {name: [] if np.isnan(pose).all() else [Person(pose)] for name, pose in poses.items()}

    def write(self, path: Path, poses: Mapping[str, np.ndarray], photos: Photos) -> None:
        write_keypoints(path, {name: pose.astype(float).round(3) for name, pose in poses.items()})


class Coco(PoseFormat):
    """COCO's annotation file of person keypoints (cocodataset.org/#format-data)."""

    description = "COCO's images and annotations"

    def matches(self, content: Any) -> bool:
        return isinstance(content, dict) and {"images", "annotations"} <= content.keys()

    def parse(self, content: Any, file: Path, photos: Photos) -> PeopleByPhoto:
        """All labeled joints count as known. Other joints than COCO's 17, such as those of animals, are an error."""
        for category in field(content, "categories", list) if "categories" in content else []:
            joints = category.get("keypoints") if isinstance(category, dict) else None
            if joints and _plain_names(joints) != list(COCO_17):
                raise ValueError(f"joints other than COCO's 17, or in another order: {short(joints)}")
        images = field(content, "images", list)
        paths = {field(image, "id", int | str): field(image, "file_name", str) for image in images}
        names = {image: photos.name_of_path(path) for image, path in paths.items()}
        people: PeopleByPhoto = {name: [] for name in names.values()}
        if not len(people) == len(names) == len(images):
            raise ValueError("two images have one id or one file_name")
        for annotation in field(content, "annotations", list):
            image = field(annotation, "image_id", int | str)
            if image not in names:
                raise ValueError(f"annotation {short(annotation.get('id'))}: no image {short(image)}")
            people[names[image]].append(self._parse_annotation(annotation))
        return people

    @staticmethod
    def _parse_annotation(annotation: dict[str, Any]) -> Person:
        """The person of an annotation, without any joint if it has a box only."""
        numbers = field(annotation, "keypoints", list) if annotation.get("keypoints") else [0] * 3 * len(COCO_17)
        if len(numbers) != 3 * len(COCO_17):
            count = f"{len(numbers)} numbers in keypoints, expected 51"
            raise ValueError(f"annotation {short(annotation.get('id'))}: {count}")
        return _to_person(_to_rows(numbers), COCO_17)

    def write(self, path: Path, poses: Mapping[str, np.ndarray], photos: Photos) -> None:
        images = [{"id": number, "file_name": name} for number, name in enumerate(poses, 1)]
        keypoints = [from_openpose18(pose, COCO_17) for pose in poses.values()]
        known = {number: pose for number, pose in enumerate(keypoints, 1) if not np.isnan(pose).all()}
        annotations = [self._annotation(number, pose) for number, pose in known.items()]
        names = [name.replace(" ", "_") for name in COCO_17]
        person = {"id": 1, "name": "person", "supercategory": "person", "keypoints": names, "skeleton": []}
        write_text(path, json.dumps({"images": images, "annotations": annotations, "categories": [person]}) + "\n")

    @staticmethod
    def _annotation(number: int, keypoints: np.ndarray) -> dict[str, object]:
        """Box and area are those of the known joints, because nothing else is known of the person's outline."""
        known = keypoints[~np.isnan(keypoints[:, 0])]
        (top, left), (height, width) = known.min(axis=0), np.ptp(known, axis=0)
        box = [round(float(value), 3) for value in (left, top, width, height)]
        return {
            "id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": box,
            "area": round(box[2] * box[3], 3), "num_keypoints": len(known),
            "keypoints": _to_flat_list(keypoints, confidence=COCO_VISIBLE),
        }  # fmt: skip


class OpenPose(PoseFormat):
    """A JSON object for one photo, or a list of them for a video, as ControlNet's editors write it.

    AlphaPose writes an object that holds them by photo name: with `people` in its format open, with `bodies` of
    `joints` in its format cmu.
    """

    description = "OpenPose's JSON of people, or AlphaPose's in the formats cmu and open"
    suffix = "_keypoints.json"
    joints: ClassVar[Sequence[str]] = JOINTS  # those that are written

    def matches(self, content: Any) -> bool:
        frames = self._frames(content)
        return bool(frames) and all(isinstance(frame, dict) and frame.keys() & {"people", "bodies"} for frame in frames)

    @staticmethod
    def _is_by_name(content: Any) -> bool:
        return isinstance(content, dict) and not content.keys() & {"people", "bodies"}

    def _frames(self, content: Any) -> list[Any]:
        return list(content.values()) if self._is_by_name(content) else _as_list(content)

    def parse(self, content: Any, file: Path, photos: Photos) -> PeopleByPhoto:
        frames = self._frames(content)
        if self._is_by_name(content):
            names = list(map(photos.name_of_path, content))
            if len(set(names)) < len(names):
                raise ValueError("two of its photos have one name")
        else:
            names = _frame_names(file.stem.removesuffix("_keypoints"), len(frames), photos)
        return {name: self._parse_frame(frame, name, photos) for name, frame in zip(names, frames)}

    @staticmethod
    def _parse_frame(frame: Any, name: str, photos: Photos) -> list[Person]:
        """The people of one frame. ValueError for another number of joints than OpenPose's 18 or 25."""
        found = []
        for person in field(frame, "people" if "people" in frame else "bodies", list):
            keys = [key for key in OPENPOSE_KEYS if isinstance(person, dict) and key in person]
            if not keys:
                raise ValueError(f"no {OPENPOSE_KEYS[0]} in {short(person)}")
            numbers = field(person, keys[0], list) if person[keys[0]] else [0] * 54  # null or [] beside a lone face
            if (count := len(numbers)) not in [3 * joints for joints in OPENPOSE_ORDERS]:
                raise ValueError(f"{keys[0]} has {count} numbers, not 54 (18 joints) or 75 (BODY_25)")
            found.append(_ParsedPerson(_to_rows(numbers), OPENPOSE_ORDERS[count // 3]))
        return _to_people(found, name, photos, declared_size(frame))

    def encode(self, pose: np.ndarray, name: str, photos: Photos) -> object:
        return {"version": 1.3, "people": [{"person_id": [-1], **person} for person in self._encode_people(pose)]}

    def _encode_people(self, pose: np.ndarray) -> list[dict[str, object]]:
        """A list of the one person, or an empty list if all joints are missing."""
        if np.isnan(pose).all():
            return []
        others: dict[str, object] = {f"{part}_keypoints_2d": [] for part in ("face", "hand_left", "hand_right")}
        return [{"pose_keypoints_2d": _to_flat_list(from_openpose18(pose, self.joints)), **others}]


class OpenPoseBody25(OpenPose):
    description = "OpenPose's JSON, written with 25 joints"
    joints = BODY_25


class DWPose(OpenPose):
    """The JSON of ControlNet's openpose editors, DWPose and ComfyUI: OpenPose's with the size of a canvas."""

    description = "JSON of people, canvas_width and canvas_height"
    suffix = ".json"

    def matches(self, content: Any) -> bool:
        return super().matches(content) and any("canvas_width" in frame for frame in self._frames(content))

    def encode(self, pose: np.ndarray, name: str, photos: Photos) -> object:
        height, width = photos.size(name)
        return {"people": self._encode_people(pose), "canvas_height": height, "canvas_width": width}


class OpenPoseEditor(PoseFormat):
    """The JSON of the openpose-editor of Stable Diffusion's web UI: [x, y] of 18 joints of each person."""

    description = "the openpose-editor's JSON of width, height and keypoints"
    is_written = False

    def matches(self, content: Any) -> bool:
        return isinstance(content, dict) and {"width", "height", "keypoints"} <= content.keys()

    def parse(self, content: Any, file: Path, photos: Photos) -> PeopleByPhoto:
        people = [to_points(points) for points in field(content, "keypoints", list)]
        if wrong := [len(rows) for rows in people if len(rows) not in OPENPOSE_ORDERS]:
            raise ValueError(f"keypoints of {wrong[0]} joints, expected 18 or 25")
        name = photos.name(file.stem)
        found = [_ParsedPerson(rows, OPENPOSE_ORDERS[len(rows)]) for rows in people]
        return {name: _to_people(found, name, photos, declared_size(content))}


class Detections(PoseFormat):
    """A JSON list of detected people with COCO's joints: COCO results, AlphaPose, MMPose, YOLO (Ultralytics).

    The photo is `image_id`, a name or COCO's number, or the one that the file is named after. MMPose's files of a video
    have frames with `instances`.
    """

    description = "a JSON list of people with keypoints: COCO results, AlphaPose, MMPose, YOLO"
    is_written = False

    def matches(self, content: Any) -> bool:
        entries = self._entries(content)
        are_objects = all(isinstance(entry, dict) for entry in entries)
        return are_objects and any(entry.keys() & {"keypoints", "instances"} for entry in entries)

    @staticmethod
    def _entries(content: Any) -> list[Any]:
        entries = content.get("instance_info") if isinstance(content, dict) else content
        return entries if isinstance(entries, list) else []

    def parse(self, content: Any, file: Path, photos: Photos) -> PeopleByPhoto:
        entries = self._entries(content)
        if "instances" in entries[0]:
            frames = [field(entry, "instances", list) for entry in entries]
            detections = dict(zip(_frame_names(file.stem, len(frames), photos), frames))
        else:
            detections = {}
            for entry in entries:
                detections.setdefault(self._photo_name(entry, file, photos), []).append(entry)
        return {
            name: _to_people([self._parse_detection(one) for one in found], name, photos)
            for name, found in detections.items()
        }

    @staticmethod
    def _photo_name(detection: Any, file: Path, photos: Photos) -> str:
        if not isinstance(detection, dict) or "image_id" not in detection:
            return photos.name(file.stem)
        image = field(detection, "image_id", int | str)
        return photos.name_of_id(image) if isinstance(image, int) else photos.name_of_path(image)

    @staticmethod
    def _parse_detection(detection: Any) -> "_ParsedPerson":
        """Keypoints are x, y, confidence in one list; a list of [x, y] and `keypoint_scores`; or lists by axis.

        They are left out for things that are no person, of which there is a box only.
        """
        if isinstance(detection, dict) and not detection.get("keypoints"):
            return _ParsedPerson(np.zeros((len(COCO_17), 3)), COCO_17)
        keypoints = field(detection, "keypoints", list | dict)
        if isinstance(keypoints, dict):
            x, y = (field(keypoints, axis, list) for axis in "xy")
            rows = to_points([list(point) for point in zip(x, y, strict=True)], keypoints.get("visible"))
        elif isinstance(keypoints[0], list | None):
            rows = to_points(keypoints, detection.get("keypoint_scores"))
        else:
            rows = _to_rows(keypoints)
        if len(rows) not in COCO_COUNTS:
            raise ValueError(f"keypoints of {len(rows)} joints, expected COCO's 17 (or 26, 133 or 136 that begin so)")
        scores = [detection.get(key) for key in ("score", "bbox_score", "confidence")]
        score = next((score for score in scores if isinstance(score, int | float) and 0 <= score <= 1), 1.0)
        return _ParsedPerson(rows[: len(COCO_17)], COCO_17, float(score))


class YoloText(PoseFormat):
    """YOLO's label or prediction NAME.txt: a line of fractions per person, class, box, keypoints, maybe confidence."""

    description = "YOLO's text of class, box and 17 joints a line"
    is_written = False

    def matches(self, content: Any) -> bool:
        if not isinstance(content, str):
            return False
        try:
            return bool(content) and all(len(numbers) > YOLO_BOX for numbers in self._lines(content))
        except ValueError:
            return False

    @staticmethod
    def _lines(content: str) -> list[list[float]]:
        return [[float(word) for word in line.split()] for line in content.splitlines() if line.strip()]

    def parse(self, content: str, file: Path, photos: Photos) -> PeopleByPhoto:
        name = photos.name(file.stem)
        people = [self._parse_line(line) for line in self._lines(content)]
        for rows in people:
            _check_fractions(rows)
        size = np.array(photos.size(name))
        return {name: [_to_person(rows, COCO_17, size) for rows in people]}

    @staticmethod
    def _parse_line(numbers: list[float]) -> np.ndarray:
        """(17,3) of x, y, confidence, with x and y as fractions of the photo. One more number at the end is ignored."""
        keypoints, count = numbers[YOLO_BOX:], len(COCO_17)
        if len(keypoints) in (3 * count, 3 * count + 1):
            return _to_rows(keypoints[: 3 * count])
        if len(keypoints) in (2 * count, 2 * count + 1):
            return to_points(np.reshape(keypoints[: 2 * count], (-1, 2)).tolist())
        raise ValueError(f"{len(numbers)} numbers in a line, expected 5 of class and box, and 51 or 34 of 17 joints")


class MediaPipe(PoseFormat):
    """The 33 landmarks of BlazePose, in any of the layouts in which MediaPipe's users save them as JSON."""

    description = "JSON of BlazePose's 33 landmarks"

    def matches(self, content: Any) -> bool:
        if isinstance(content, dict):
            return any(key in content for key in LANDMARK_KEYS)
        people = self._landmark_lists(content)
        return bool(people) and all(
            isinstance(person, list) and isinstance(person[0], dict) and "x" in person[0] for person in people
        )

    def parse(self, content: Any, file: Path, photos: Photos) -> PeopleByPhoto:
        name = photos.name(file.stem)
        people = [self._parse_landmarks(landmarks) for landmarks in self._landmark_lists(content)]
        size = np.array(photos.size(name, declared_size(content))) if people else 1
        return {name: [_to_person(rows, MEDIAPIPE_33, size) for rows in people]}

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
        """(33,3) of x, y, visibility, with x and y as fractions of the photo. BlazePose invents joints that it cannot
        see, or that lie outside the photo: their visibility becomes 0."""
        if not isinstance(landmarks, list) or len(landmarks) != len(MEDIAPIPE_33):
            raise ValueError(f"not the 33 landmarks of BlazePose: {short(landmarks)}")
        numbers = []
        for landmark in landmarks:
            visibility = landmark.get("visibility") if isinstance(landmark, dict) else None
            x, y = (field(landmark, axis, int | float) for axis in "xy")
            numbers += [x, y, 1 if visibility is None else visibility]  # landmarks without visibility are visible
        rows = _to_rows(numbers)
        rows[rows[:, 2] < BLAZEPOSE_MIN_VISIBILITY, 2] = 0
        _check_fractions(rows)
        rows[((rows[:, :2] < 0) | (rows[:, :2] > 1)).any(axis=1), 2] = 0
        return rows

    def encode(self, pose: np.ndarray, name: str, photos: Photos) -> object:
        height, width = photos.size(name)
        numbers = _to_flat_list(from_openpose18(pose, MEDIAPIPE_33) / (height, width), digits=6)
        triples = zip(numbers[::3], numbers[1::3], numbers[2::3])
        landmarks = [{"x": x, "y": y, "z": 0, "visibility": visibility} for x, y, visibility in triples]
        return {"width": width, "height": height, "pose_landmarks": [] if np.isnan(pose).all() else [landmarks]}


def _as_list(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [content]


def _plain_names(joints: Any) -> list[str]:
    """COCO's joint names in lower case, with spaces."""
    names = [name for name in _as_list(joints) if isinstance(name, str)]
    return [name.lower().replace("_", " ") for name in names]


def _frame_names(stem: str, count: int, photos: Photos) -> list[str]:
    """The photo of each frame in the file `stem`: of several frames STEM_0000, STEM_0001 and so on."""
    stems = [stem] if count == 1 else [f"{stem}_{number:04d}" for number in range(count)]
    return list(map(photos.name, stems))


class _ParsedPerson(NamedTuple):
    """A person as a file has them."""

    rows: np.ndarray  # (K,3) of x, y, confidence; confidence 0 = missing
    joints: Sequence[str]  # names of the K rows
    score: float = 1.0  # the confidence that it is a person


def _to_rows(values: Sequence[Any]) -> np.ndarray:
    """A flat list of x, y, confidence for each joint -> (K,3)."""
    numbers = to_numbers(values)
    if len(numbers) % 3:
        raise ValueError(f"{len(numbers)} numbers in keypoints, expected x, y, confidence for each joint")
    return numbers.reshape(-1, 3)


def _to_person(rows: np.ndarray, joints: Sequence[str], scale: float | np.ndarray = 1.0, score: float = 1.0) -> Person:
    """(K,3) of x, y, confidence in the order `joints` -> a person; without known joints it is all NaN."""
    known = rows[:, 2] > 0
    keypoints = np.where(known[:, None], rows[:, 1::-1] * scale, np.nan)
    confidence = score * float(rows[known, 2].clip(0, 1).mean()) if known.any() else 0.0
    return Person(to_openpose18(keypoints, joints), confidence)


def _to_people(found: Sequence[_ParsedPerson], name: str, photos: Photos, canvas: Size | None = None) -> list[Person]:
    """The people of one photo; fractions, and pixels of a canvas of another size, become the photo's pixels."""
    scale = np.ones(2)
    if _are_fractions([rows for rows, _, _ in found]):
        scale = np.array(photos.size(name, canvas))
    elif canvas:
        scale = np.array(photos.size(name, canvas)) / canvas
    return [_to_person(rows, joints, scale, score) for rows, joints, score in found]


def _to_flat_list(keypoints: np.ndarray, confidence: int = 1, digits: int = 3) -> list[float]:
    """(K,2) of (y, x) -> a flat list of x, y, `confidence` for each joint, and 0, 0, 0 for a missing one."""
    flat: list[float] = []
    for y, x in keypoints.tolist():
        flat += [0, 0, 0] if math.isnan(y + x) else [round(x, digits), round(y, digits), confidence]
    return flat


def _check_fractions(rows: np.ndarray) -> None:
    """ValueError for (K,3) coordinates that cannot be fractions of the photo."""
    if np.abs(rows[rows[:, 2] > 0, :2]).max(initial=0) > MAX_FRACTION:
        raise ValueError(f"joints beyond {MAX_FRACTION:g}: fractions of the photo from 0 to 1 are expected, not pixels")


def _are_fractions(people: Sequence[np.ndarray]) -> bool:
    """Whether (K,3) coordinates are fractions of the photo. ValueError for coordinates from -1 to 1, OpenPose's
    --keypoint_scale 4.

    Small numbers are pixels all the same if, as fractions, they would put every joint outside the photo.
    """
    points = np.concatenate([rows[rows[:, 2] > 0, :2] for rows in people] or [np.zeros((0, 2))])
    if np.abs(points).max(initial=0) > MAX_FRACTION or not (points < 1).all(axis=1).any():
        return False
    if points.min() < MIN_FRACTION:
        raise ValueError("coordinates from -1 to 1; only pixels and fractions from 0 to 1 can be read")
    return True


# A file gets the first format that matches, so a narrower format stands before a wider one.
FORMATS: dict[str, PoseFormat] = {
    "patn": Patn(), "dwpose": DWPose(), "openpose": OpenPose(), "openpose-body25": OpenPoseBody25(), "coco": Coco(),
    "openpose-editor": OpenPoseEditor(), "detections": Detections(), "mediapipe": MediaPipe(), "yolo": YoloText(),
}  # fmt: skip
WRITTEN_FORMATS = [name for name, pose_format in FORMATS.items() if pose_format.is_written]
