"""Where the joints of the people in a photo are: other people's networks behind one small interface.

Joints are in pixels of the photo as it is given; one that is not sure, or not in the photo, is missing.
"""

from abc import ABC, abstractmethod
from functools import lru_cache, partial
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image

from data.keypoints import JOINTS, TORSO
from inference.joints import COCO_17, MEDIAPIPE_33, to_openpose18
from util.errors import UserError
from util.pretrained import PretrainedWeights, load_pretrained

# Keypoint R-CNN
MIN_PERSON = 0.75  # probability; torchvision's own example takes as much
MIN_PEAK = 2.0  # height of a joint's peak in its map before the softmax; Detectron draws what is above

# BlazePose
MIN_VISIBILITY = 0.5
MARGINS = (0.0, 0.5)  # border of each try, by the photo's longer side: with one, it finds people who fill the photo
BACK = 0.5  # of a torso's length
FACE = [JOINTS.index(name) for name in ("nose", "right eye", "left eye")]


class Person(NamedTuple):
    """One person in a photo."""

    keypoints: np.ndarray  # float32 (18,2) of (y, x), NaN = missing, at least one known
    confidence: float  # 0..1
    box: tuple[float, float, float, float]  # top, left, bottom, right


class Estimator(ABC):
    """Loaded once, called for many photos."""

    default_weights: ClassVar[str]
    uses_gpu: ClassVar[bool]

    @abstractmethod
    def __init__(self, weights: str, device: torch.device) -> None:
        """Raises UserError where weights or a package are missing or damaged."""

    @abstractmethod
    def people(self, photo: Image.Image) -> list[Person]:
        """Everybody in an RGB photo of whom it is sure, the largest first."""


class KeypointRCNN(Estimator):
    """torchvision's Keypoint R-CNN (He et al., ICCV 2017; ResNet-50 and FPN, trained on COCO). Finds everybody."""

    default_weights = "coco"
    uses_gpu = True

    def __init__(self, weights: str, device: torch.device) -> None:
        """`weights`: 'coco' (fetched once by torchvision), or the path of a state dict with the same keys."""
        from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights, keypointrcnn_resnet50_fpn

        published = PretrainedWeights(
            "Keypoint R-CNN", "torchvision", self.default_weights, KeypointRCNN_ResNet50_FPN_Weights.COCO_V1.url
        )
        self.net = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None, box_score_thresh=MIN_PERSON)
        load_pretrained(self.net, weights, published, "--estimator_weights")
        for module in self.net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 0.0  # as torchvision sets it for these weights, which were trained without
        self.net.to(device).eval()
        self.device = device

    @torch.inference_mode()
    def people(self, photo: Image.Image) -> list[Person]:
        image = torch.from_numpy(np.array(photo)).permute(2, 0, 1).to(self.device).float() / 255
        (found,) = self.net([image])
        boxes, scores, points, peaks = (
            found[key].cpu().numpy() for key in ("boxes", "scores", "keypoints", "keypoints_scores")
        )
        people = []
        for (left, top, right, bottom), score, joints, peak in zip(boxes.tolist(), scores.tolist(), points, peaks):
            joints = np.where(peak[:, None] >= MIN_PEAK, joints[:, 1::-1], np.nan)  # (x, y, 1) -> (y, x)
            pose = _inside(to_openpose18(joints, COCO_17), photo)
            if not np.isnan(pose).all():
                people.append(Person(pose, score, (top, left, bottom, right)))
        return sorted(people, key=lambda person: -_area(person.box))


class BlazePose(Estimator):
    """MediaPipe's BlazePose (Bazarevsky et al., 2020), an optional extra. Finds one person a photo.

    Its box is the extent of the known joints, its confidence their mean visibility.
    """

    default_weights = "inside the package"
    uses_gpu = False

    def __init__(self, weights: str, device: torch.device) -> None:
        """The network is loaded by the first photo, for it does not survive a fork of the process."""
        if weights != self.default_weights:
            raise UserError(
                f"--estimator_weights {weights}: BlazePose's weights are in its package; leave --estimator_weights out"
            )
        try:
            from mediapipe.python.solutions.pose import Pose
        except ImportError as error:
            raise UserError(
                f"--estimator blazepose cannot load mediapipe ({error}): see requirements-blazepose.txt, or use "
                "--estimator keypointrcnn"
            ) from error
        self._net = lru_cache(partial(Pose, static_image_mode=True))

    def people(self, photo: Image.Image) -> list[Person]:
        pixels = np.array(photo)
        tries = [self._landmarks(pixels, round(margin * max(photo.size))) for margin in MARGINS]
        people = [person for found in tries if found is not None and (person := _believed(found, photo))]
        people.sort(key=lambda person: np.isnan(person.keypoints).sum())  # the fewest missing joints first
        return people[:1]

    def _landmarks(self, photo: np.ndarray, border: int) -> np.ndarray | None:
        """(33,3) of y, x, visibility in `photo`, to which its edge is added `border` pixels wide; None for nobody."""
        padded = np.pad(photo, ((border, border), (border, border), (0, 0)), mode="edge")
        found = self._net().process(padded).pose_landmarks
        if found is None:
            return None
        height, width = padded.shape[:2]
        return np.array(
            [(joint.y * height - border, joint.x * width - border, joint.visibility) for joint in found.landmark],
            np.float32,
        )


def _believed(landmarks: np.ndarray, photo: Image.Image) -> Person | None:
    """(33,3) of y, x, visibility -> the person; None where no joint is believed."""
    points, visibility = landmarks[:, :2], landmarks[:, 2]
    seen = visibility >= MIN_VISIBILITY
    pose = to_openpose18(np.where(seen[:, None], points, np.nan), MEDIAPIPE_33)
    if shows_back(to_openpose18(points, MEDIAPIPE_33)):
        pose[FACE] = np.nan
    pose = _inside(pose, photo)
    known = pose[~np.isnan(pose).any(axis=1)]
    if not len(known):
        return None
    return Person(pose, float(visibility[seen].mean()), (*known.min(0).tolist(), *known.max(0).tolist()))


def shows_back(pose: np.ndarray) -> bool:
    """Whether a (18,2) pose is seen from behind: the right shoulder is on the right, half a torso from the left one.

    BlazePose sees a face on the back of every head. In PATN's rows of Market-1501, which are OpenPose's, an eighth of
    the poses beyond this line have a nose, and nine in ten of those as far on the other side.
    """
    right, left, right_hip, left_hip = (pose[joint] for joint in TORSO)
    torso = np.linalg.norm((right + left - right_hip - left_hip) / 2)
    return bool(right[1] - left[1] > BACK * torso)


def _inside(pose: np.ndarray, photo: Image.Image) -> np.ndarray:
    """The pose without joints outside the photo."""
    inside = ((pose >= 0) & (pose < (photo.height, photo.width))).all(axis=1, keepdims=True)
    return np.where(inside, pose, np.float32(np.nan))


def _area(box: tuple[float, float, float, float]) -> float:
    top, left, bottom, right = box
    return (bottom - top) * (right - left)


ESTIMATORS: dict[str, type[Estimator]] = {"keypointrcnn": KeypointRCNN, "blazepose": BlazePose}


def load_estimator(
    name: str = "keypointrcnn", weights: str | None = None, device: torch.device | None = None
) -> Estimator:
    """One of ESTIMATORS, on the CPU if no device is given; without `weights` its own. UserError where it cannot be."""
    kind = ESTIMATORS[name]
    return kind(weights or kind.default_weights, device or torch.device("cpu"))
