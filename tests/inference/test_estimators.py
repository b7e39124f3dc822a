"""How the networks' outputs become people. The networks have random weights, or a stand-in answers for them."""

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import detection
from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights

from data.keypoints import JOINTS
from data.synthetic.people import render_identity
from inference import estimators
from inference.estimators import MIN_PEAK, MIN_PERSON_PROBABILITY, is_back_view, load_estimator
from inference.joints import COCO_17, MEDIAPIPE_33, to_openpose18
from tests.helpers import smooth
from util.errors import UserError

NAN = np.nan
PHOTO = Image.new("RGB", (80, 160), "gray")


class StandIn(torch.nn.Module):
    """Stands in for Keypoint R-CNN: returns a given answer and remembers its inputs."""

    def __init__(self, answer: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.answer, self.seen = answer, []
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        self.seen += images
        return [self.answer]


def detections(*people: tuple[tuple[float, ...], float, np.ndarray, np.ndarray]) -> dict[str, torch.Tensor]:
    """(box left, top, right, bottom; score; (17,2) of (y, x); (17,) peaks) of each, as torchvision returns them."""
    boxes, scores, points, peaks = zip(*people)
    flipped = [np.concatenate([joints[:, ::-1], np.ones((17, 1))], 1) for joints in points]
    content = {"boxes": boxes, "scores": scores, "keypoints": flipped, "keypoints_scores": peaks}
    return {key: torch.tensor(np.array(values), dtype=torch.float32) for key, values in content.items()}


@pytest.fixture
def stand_in(monkeypatch, tmp_path) -> Callable[..., estimators.Estimator]:
    def load(answer: dict[str, torch.Tensor]) -> estimators.Estimator:
        def build(weights: None, weights_backbone: None, box_score_thresh: float) -> StandIn:
            assert (weights, weights_backbone, box_score_thresh) == (None, None, MIN_PERSON_PROBABILITY)
            return StandIn(answer)

        monkeypatch.setattr(detection, "keypointrcnn_resnet50_fpn", build)
        torch.save({"weight": torch.ones(1)}, tmp_path / "net.pt")
        return load_estimator(weights=str(tmp_path / "net.pt"))

    return load


def test_keypoint_rcnn_output_becomes_sorted_people(stand_in):
    random = np.random.RandomState(0)
    small, large, faint = (random.rand(17, 2) * (159, 79) for _ in range(3))
    small /= 5  # a person of low height, of whom the network is surer
    peaks = np.full(17, MIN_PEAK + 1)
    peaks[COCO_17.index("right knee")] = MIN_PEAK - 0.01
    large[COCO_17.index("left wrist")] = 20, 80.0  # the first column that the photo does not have
    estimator = stand_in(
        detections(
            ((5, 10, 25, 40), 0.99, small, np.full(17, 9.0)),
            ((0, 0, 79, 150), 0.8, large, peaks),
            ((0, 0, 80, 160), 0.9, faint, np.full(17, MIN_PEAK - 1)),
        )
    )
    (pose, confidence), (second, _) = estimator.find_people(smooth(80, 160))
    assert confidence == pytest.approx(0.8)
    np.testing.assert_allclose(second, to_openpose18(small, COCO_17), rtol=1e-6)
    assert [JOINTS[i] for i in np.flatnonzero(np.isnan(pose).all(1))] == ["left wrist", "right knee"]
    np.testing.assert_allclose(pose[1], (large[5] + large[6]) / 2, rtol=1e-6)
    assert pose.dtype == np.float32
    (image,) = estimator.net.seen
    expected = np.asarray(smooth(80, 160), np.float32).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(image, expected, rtol=1e-6)
    assert estimator.net.weight.item() == 1
    assert not estimator.net.training


def random_keypoint_rcnn_weights() -> dict[str, torch.Tensor]:
    """Finite weights that find people everywhere, and so small variances that batch norm's epsilon would be noticed."""
    torch.manual_seed(0)
    state = detection.keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    state = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    for key, tensor in state.items():
        if tensor.ndim > 1:
            tensor.uniform_(-1, 1).mul_((6 / tensor[0].numel()) ** 0.5)
        elif key.endswith("running_var"):
            tensor.fill_(1e-4)
            state[key.replace("running_var", "weight")].fill_(0.5e-2)
    state["roi_heads.box_predictor.cls_score.weight"].zero_()
    state["roi_heads.box_predictor.cls_score.bias"].copy_(torch.tensor([0.0, 2.0]))  # everything is a person
    return state


@pytest.mark.slow
def test_keypoint_rcnn_computes_what_torchvisions_own_loading_does(tmp_path, monkeypatch):
    """Random weights stand in for the published ones."""
    for name in ("kaiming_uniform_", "kaiming_normal_", "normal_"):  # slow, and overwritten by loading anyway
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
    state = random_keypoint_rcnn_weights()
    torch.save(state, tmp_path / "net.pt")
    ours = load_estimator("keypointrcnn", str(tmp_path / "net.pt"))
    (tmp_path / "net.pt").unlink()  # it is large
    monkeypatch.setattr(KeypointRCNN_ResNet50_FPN_Weights, "get_state_dict", lambda *_, **__: state)
    theirs = detection.keypointrcnn_resnet50_fpn(weights=KeypointRCNN_ResNet50_FPN_Weights.COCO_V1).eval()
    photo = torch.from_numpy(np.array(smooth(80, 160))).permute(2, 0, 1) / 255
    outputs = []
    for net in (ours.net, theirs):
        net.transform.min_size, net.roi_heads.detections_per_img = (96,), 3
        net.rpn._post_nms_top_n = {"training": 20, "testing": 20}
        with torch.inference_mode():
            outputs += net([photo])
    found, expected = outputs
    assert len(expected["boxes"]) == 3
    for key in ("boxes", "scores", "keypoints_scores"):
        torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=1e-3)


def test_load_estimator_rejects_bad_weights(stand_in, tmp_path):
    stand_in({})
    with pytest.raises(UserError, match="nowhere.pt"):
        load_estimator(weights=str(tmp_path / "nowhere.pt"))
    (tmp_path / "text.pt").write_text("no tensors")
    with pytest.raises(UserError, match=r"text.pt.*damaged"):
        load_estimator(weights=str(tmp_path / "text.pt"))
    torch.save({"bias": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other.pt.*keypoint r-cnn"):
        load_estimator(weights=str(tmp_path / "other.pt"))


def front_view() -> np.ndarray:
    """(33,4) of y, x, visibility, 1 in pixels of PHOTO: a person of whom everything is seen."""
    pose = np.full((33, 4), (80, 40, 1, 1), float)
    where = {
        "shoulder": (50, 15),
        "hip": (90, 10),
        "ankle": (150, 12),
        "eye": (22, 4),
        "ear": (24, 8),
        "wrist": (85, 20),
    }
    for number, name in enumerate(MEDIAPIPE_33):
        side, _, part = name.partition(" ")
        if part in where:
            y, x = where[part]
            pose[number, :2] = y, 40 - x if side == "right" else 40 + x
    pose[0, :2] = 25, 40
    return pose


@pytest.fixture
def blazepose(monkeypatch) -> Callable[..., estimators.Estimator]:
    """blazepose(see): the estimator, for whose network `see(image, border)` -> (33,4) in PHOTO, or None, stands in."""

    def load(see: Callable[[np.ndarray, int], np.ndarray | None]) -> estimators.Estimator:
        class Pose:
            def __init__(self, static_image_mode: bool) -> None:
                assert static_image_mode

            def process(self, image: np.ndarray) -> SimpleNamespace:
                height, width, _ = image.shape
                border = (height - PHOTO.height) // 2
                assert (width - PHOTO.width) // 2 == border
                seen = see(image, border)
                joints = seen if seen is None else [
                    SimpleNamespace(y=(y + border) / height, x=(x + border) / width, visibility=visibility)
                    for y, x, visibility, _ in seen
                ]  # fmt: skip
                return SimpleNamespace(pose_landmarks=joints and SimpleNamespace(landmark=joints))

        for name in ("mediapipe", "mediapipe.python", "mediapipe.python.solutions", "mediapipe.python.solutions.pose"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        sys.modules["mediapipe.python.solutions.pose"].Pose = Pose
        return load_estimator("blazepose")

    return load


def test_blazepose_output_becomes_a_person(blazepose):
    seen = front_view()
    seen[MEDIAPIPE_33.index("left wrist"), 2] = 0.49
    seen[MEDIAPIPE_33.index("right wrist"), 1] = -0.5
    seen[MEDIAPIPE_33.index("left ankle"), 0] = 160
    ((person, _),) = blazepose(lambda image, border: seen).find_people(PHOTO)
    missing = np.isnan(person).all(1)
    assert [JOINTS[i] for i in np.flatnonzero(missing)] == ["right wrist", "left wrist", "left ankle"]
    np.testing.assert_allclose(person[~missing], to_openpose18(seen[:, :2], MEDIAPIPE_33)[~missing], atol=1e-4)


def test_blazepose_finding_nobody_is_repeated_with_a_border(blazepose):
    seen = front_view()
    images = []

    def see(image: np.ndarray, border: int) -> np.ndarray | None:
        images.append(image)
        return seen if border else None

    photo = smooth(*PHOTO.size)
    ((person, _),) = blazepose(see).find_people(photo)
    np.testing.assert_allclose(person, to_openpose18(seen[:, :2], MEDIAPIPE_33), atol=1e-4)
    assert [image.shape for image in images] == [(160, 80, 3), (320, 240, 3)]
    np.testing.assert_array_equal(images[1][80:240, 80:160], photo)
    np.testing.assert_array_equal(images[1][:80, 80:160], np.broadcast_to(np.asarray(photo)[:1], (80, 80, 3)))


@pytest.mark.parametrize("better", [0, 80])
def test_blazepose_returns_the_attempt_with_more_joints(blazepose, better):
    partly = front_view()
    partly[:20, 2] = 0
    ((person, _),) = blazepose(lambda image, border: front_view() if border == better else partly).find_people(PHOTO)
    assert not np.isnan(person).any()


def test_blazepose_without_visible_joints_returns_nobody(blazepose):
    assert blazepose(lambda image, border: None).find_people(PHOTO) == []
    assert blazepose(lambda image, border: front_view() + (0, 500, 0, 0)).find_people(PHOTO) == []
    assert blazepose(lambda image, border: front_view() * (1, 1, 0.4, 1)).find_people(PHOTO) == []


def test_blazepose_back_view_has_no_face(blazepose):
    back = front_view()
    back[:, 1] = 80 - back[:, 1]  # mirrored: the right shoulder is on the right
    ((person, _),) = blazepose(lambda image, border: back).find_people(PHOTO)
    missing = np.isnan(person).all(1)
    assert [JOINTS[i] for i in np.flatnonzero(missing)] == ["nose", "right eye", "left eye"]


@pytest.mark.parametrize(("half_width", "back"), [(-15, False), (0, False), (9.9, False), (10.1, True), (15, True)])
def test_is_back_view_compares_shoulders_with_torso(half_width, back):
    pose = np.full((18, 2), NAN)
    pose[[2, 5, 8, 11]] = [(50, 40 + half_width), (50, 40 - half_width), (90, 50), (90, 30)]  # a torso of 40
    assert is_back_view(pose) == back


def test_load_estimator_without_mediapipe_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(UserError, match="requirements-blazepose.txt"):
        load_estimator("blazepose")
    with pytest.raises(UserError, match="leave --estimator_weights out"):
        load_estimator("blazepose", "weights.pt")


def test_blazepose_on_rendered_people_is_close():
    """The network itself, where it is installed."""
    pytest.importorskip("mediapipe.python.solutions.pose")
    estimator = load_estimator("blazepose")
    distances = []
    for photo in render_identity(0, "fashion", 3, seed=0):
        ((person, _),) = estimator.find_people(Image.fromarray(photo.pixels))
        distances.append(np.linalg.norm(person - photo.keypoints, axis=1))
    assert np.nanmedian(distances) < 6
    assert estimator.find_people(PHOTO) == []
