"""Pose estimators: pretrained networks that find the keypoints of the people in a photo, behind one interface.

Keypoints are in pixels of the given photo. A joint that the network is not sure of, or that lies outside the photo, is
missing (NaN).
"""

from abc import ABC, abstractmethod
from functools import lru_cache, partial
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

from data.keypoints import JOINTS, NUM_JOINTS, TORSO
from inference.joints import BLAZEPOSE_MIN_VISIBILITY, COCO_17, MEDIAPIPE_33, to_openpose18
from inference.people import Person, known_joints, rank
from util.errors import UserError
from util.image import from_pil
from util.pretrained import PretrainedWeights, load_pretrained

CPU = torch.device("cpu")

# Keypoint R-CNN
MIN_PERSON_PROBABILITY = 0.75  # as in torchvision's own example
MIN_PEAK = 2.0  # logit at a joint's peak in its heat map; Detectron draws the joints above this value

# BlazePose
BORDERS = (0.0, 0.5)  # one attempt each, as a fraction of the longer side: a border helps if people fill the photo
BACK_VIEW_WIDTH = 0.5  # distance of the shoulders in torso lengths, see `is_back_view`
FACE = [JOINTS.index(name) for name in ("nose", "right eye", "left eye")]


class Estimator(ABC):
    """A pose estimator is loaded once and called for many photos."""

    default_weights: ClassVar[str]
    uses_gpu: ClassVar[bool]

    @abstractmethod
    def __init__(self, weights: str, device: torch.device) -> None:
        """Raises UserError if weights or a package are missing or damaged."""

    @abstractmethod
    def find_people(self, photo: Image.Image) -> list[Person]:
        """The people that the network is sure of in an RGB photo, the most prominent first (inference/people.py)."""


class KeypointRCNN(Estimator):
    """torchvision's Keypoint R-CNN (He et al., ICCV 2017; ResNet-50 FPN trained on COCO). It finds several people."""

    default_weights = "coco"
    uses_gpu = True

    def __init__(self, weights: str, device: torch.device) -> None:
        """`weights`: 'coco' (downloaded once by torchvision), or the path of a state dict with the same keys."""
        from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights, keypointrcnn_resnet50_fpn

        url = KeypointRCNN_ResNet50_FPN_Weights.COCO_V1.url
        published = PretrainedWeights("Keypoint R-CNN", "torchvision", self.default_weights, url)
        settings = {"weights": None, "weights_backbone": None, "box_score_thresh": MIN_PERSON_PROBABILITY}
        self.net = keypointrcnn_resnet50_fpn(**settings)
        load_pretrained(self.net, weights, published, "--estimator_weights")
        for module in self.net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 0.0  # torchvision sets this for its published weights, which were trained without epsilon
        self.net.to(device).eval()
        self.device = device

    @torch.inference_mode()
    def find_people(self, photo: Image.Image) -> list[Person]:
        """A person's confidence is the network's probability that it is one."""
        image = from_pil(photo).to(self.device).float() / 255
        (output,) = self.net([image])
        scores, keypoints, peaks = (output[key].cpu().numpy() for key in ("scores", "keypoints", "keypoints_scores"))
        keypoints = np.where(peaks[..., None] >= MIN_PEAK, keypoints[..., 1::-1], np.nan)  # (x, y, 1) -> (y, x)
        poses = [_without_outside_joints(to_openpose18(joints, COCO_17), photo) for joints in keypoints]
        people = [Person(pose, float(score)) for pose, score in zip(poses, scores)]
        return rank([person for person in people if not np.isnan(person.keypoints).all()])


class BlazePose(Estimator):
    """MediaPipe's BlazePose (Bazarevsky et al., 2020), an optional dependency. It finds one person in a photo."""

    default_weights = "inside the package"
    uses_gpu = False

    def __init__(self, weights: str, device: torch.device) -> None:
        """The network is loaded with the first photo, because it does not survive a fork of the process."""
        if weights != self.default_weights:
            problem = "BlazePose's weights are in its package; leave --estimator_weights out"
            raise UserError(f"--estimator_weights {weights}: {problem}")
        try:
            from mediapipe.python.solutions.pose import Pose
        except ImportError as error:
            advice = "see requirements-blazepose.txt, or use --estimator keypointrcnn"
            raise UserError(f"--estimator blazepose cannot load mediapipe ({error}): {advice}") from error
        self._net = lru_cache(partial(Pose, static_image_mode=True))

    def find_people(self, photo: Image.Image) -> list[Person]:
        poses = [self._find_pose(photo, round(border * max(photo.size))) for border in BORDERS]
        found = [Person(pose) for pose in poses if not np.isnan(pose).all()]
        return sorted(found, key=known_joints, reverse=True)[:1]  # two attempts at one person: the more joints

    def _find_pose(self, photo: Image.Image, border: int) -> np.ndarray:
        """(18,2) in photo pixels, searched with `border` more pixels on each side; all NaN if nobody is found."""
        padded = np.pad(photo, ((border, border), (border, border), (0, 0)), mode="edge")
        found = self._net().process(padded).pose_landmarks
        if found is None:
            return np.full((NUM_JOINTS, 2), np.nan, np.float32)
        keypoints = np.array([(joint.y, joint.x) for joint in found.landmark]) * padded.shape[:2] - border
        visible = np.array([[joint.visibility >= BLAZEPOSE_MIN_VISIBILITY] for joint in found.landmark])
        pose = to_openpose18(np.where(visible, keypoints, np.nan), MEDIAPIPE_33)
        if is_back_view(to_openpose18(keypoints, MEDIAPIPE_33)):
            pose[FACE] = np.nan
        return _without_outside_joints(pose, photo)


def is_back_view(pose: np.ndarray) -> bool:
    """Whether (18,2) is seen from behind: the right shoulder is more than half a torso length to the right of the left
    one in the photo.

    BlazePose reports a face on the back of every head, so face joints of such poses are dropped. In Market-1501's rows,
    which OpenPose made, an eighth of these poses have a nose, and nine of ten that are as clearly seen from the front.
    """
    right, left, right_hip, left_hip = (pose[joint] for joint in TORSO)
    torso_length = np.linalg.norm((right + left - right_hip - left_hip) / 2)
    return bool(right[1] - left[1] > BACK_VIEW_WIDTH * torso_length)


def _without_outside_joints(pose: np.ndarray, photo: Image.Image) -> np.ndarray:
    """The pose in which joints outside the photo are missing."""
    inside = ((pose >= 0) & (pose < (photo.height, photo.width))).all(axis=1, keepdims=True)
    return np.where(inside, pose, np.float32(np.nan))


ESTIMATORS: dict[str, type[Estimator]] = {"keypointrcnn": KeypointRCNN, "blazepose": BlazePose}


def load_estimator(name: str = "keypointrcnn", weights: str | None = None, device: torch.device = CPU) -> Estimator:
    """One of ESTIMATORS, by default with its own weights. Raises UserError if it cannot be loaded.

    An estimator that cannot use a GPU runs on the CPU whatever `device` is.
    """
    kind = ESTIMATORS[name]
    return kind(weights or kind.default_weights, device if kind.uses_gpu else CPU)
