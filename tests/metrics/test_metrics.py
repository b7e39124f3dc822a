"""The numbers of metrics/ against goldens, scikit-image, SciPy, the lpips and pytorch-fid packages, closed forms."""

import dataclasses
import re
from pathlib import Path

import lpips
import numpy as np
import pytest
import pytorch_fid.inception
import torch
from PIL import Image
from scipy import linalg, ndimage, stats
from torchvision.models.alexnet import AlexNet
from torchvision.models.inception import Inception3

from data import find_dataset
from data.pairs import Pair, result_name
from metrics.evaluation import Measurement
from metrics.fid import FeatureStatistics, Gaussian, InceptionScore, frechet_distance
from metrics.inception import Inception, _pytorch_fid_network
from metrics.lpips import LPIPS
from metrics.masks import pose_mask
from metrics.page import BINS, histogram
from metrics.pairing import Problem, Problems, Sample, match_names, match_pairs
from metrics.pixel import score_pixels
from metrics.protocols import DATA_SETS, PROTOCOLS
from metrics.stream import PairBatches, make_loader
from tests.conftest import REPOSITORY
from tests.formula import formula_array, formula_images
from tests.reference_metrics import reference_mask, reference_scores
from util.errors import UserError

GOLDENS = np.load(REPOSITORY / "tests/goldens/metric_goldens.npz")
DPTN, STANDARD = PROTOCOLS["dptn"], PROTOCOLS["standard"]
PIXELS = ["psnr", "ssim", "ssim_256", "mae", "l1"]


def golden_images(h: int, w: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Generated images and targets, uint8 (3,3,h,w)."""
    real, other = (
        np.round((formula_images(name, (3, 3, h, w)) + 1) * 127.5).astype(np.uint8)
        for name in ("metric_gt", "metric_fake")
    )
    fake = (3 * real.astype(int) + other) // 4
    return torch.from_numpy(fake.astype(np.uint8)), torch.from_numpy(real)


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> dict[str, str]:
    """Files of formula weights, by network."""
    folder = tmp_path_factory.mktemp("weights")
    alexnet = {f"features.{key}": value for key, value in AlexNet().features.state_dict().items()}
    nets = {
        "alexnet": alexnet,
        "torchvision": Inception3(aux_logits=True, init_weights=False).state_dict(),
        "pytorch-fid": _pytorch_fid_network().state_dict(),
    }
    for name, state in nets.items():
        filled = {k: torch.from_numpy(np.asarray(formula_array(k, tuple(v.shape)))) for k, v in state.items()}
        torch.save(filled, folder / f"{name}.pth")
    return {name: str(folder / f"{name}.pth") for name in nets}


class TestPixels:
    @pytest.mark.parametrize(
        ("golden", "protocol", "data_set"),
        [
            ("pixel_fashion", DPTN, "fashion"),
            ("pixel_fashion_unpadded", dataclasses.replace(DPTN, pad=False), "fashion"),
            ("pixel_market", DPTN, "market"),
        ],
    )
    def test_goldens(self, golden, protocol, data_set):
        scores = score_pixels(*golden_images(*DATA_SETS[data_set].size), None, PIXELS, protocol, DATA_SETS[data_set])
        for column, name in enumerate(GOLDENS["pixel_columns"]):
            np.testing.assert_allclose(scores[name], GOLDENS[golden][:, column], rtol=0, atol=1e-6, err_msg=name)

    @pytest.mark.parametrize("data_set", DATA_SETS)
    @pytest.mark.parametrize("protocol", [DPTN, STANDARD], ids=lambda p: p.name)
    def test_agrees_with_scikit_image(self, protocol, data_set):
        """Also where float32 variances would drown: dark, bright, flat, low contrast, half black and half white."""
        size, margin = DATA_SETS[data_set]
        random = np.random.RandomState(0)
        noise = lambda low, high: random.randint(low, high, (3, *size))  # noqa: E731
        smooth = golden_images(*size)[1][0].numpy().astype(int)
        halves = np.zeros((3, *size), int)
        halves[:, :, size[1] // 2 :] = 255
        cases = {
            "unrelated": (noise(0, 256), smooth),
            "a level apart": (smooth - 1, smooth),
            "a little noise": (halves + noise(-3, 4), halves),
            "dark": (noise(0, 2), noise(0, 1)),
            "bright": (255 - noise(0, 3), 255 - noise(0, 3)),
            "low contrast": (noise(100, 120), noise(100, 120)),
            "inverse": (255 - halves + noise(-9, 10), halves),
            "flat": (np.full((3, *size), 93), np.full((3, *size), 255)),
            "flat and white": (np.full((3, *size), 255), np.full((3, *size), 93)),
        }
        for case, pair in cases.items():
            fake, real = (np.clip(image, 0, 255).astype(np.uint8) for image in pair)
            with np.errstate(invalid="ignore"):
                expected = reference_scores(
                    fake.transpose(1, 2, 0), real.transpose(1, 2, 0), size[1] + 2 * margin * protocol.pad,
                    full_range=protocol is STANDARD,
                )  # fmt: skip
            images = (torch.from_numpy(image)[None] for image in (fake, real))
            scores = score_pixels(*images, None, PIXELS, protocol, DATA_SETS[data_set])
            no_range = protocol is DPTN and fake.min() == (255 if margin else fake.max())
            for name in PIXELS:
                if not (name == "ssim_256" and no_range):  # which is undefined then
                    assert scores[name].item() == pytest.approx(expected[name], abs=5e-7), (case, name)

    @pytest.mark.parametrize("protocol", [DPTN, STANDARD], ids=lambda p: p.name)
    def test_equal_images(self, protocol):
        image = golden_images(256, 176)[0]
        scores = score_pixels(image, image, None, PIXELS, protocol, DATA_SETS["fashion"])
        assert {name: value.tolist() for name, value in scores.items()} == {
            "psnr": [np.inf] * 3, "ssim": [1] * 3, "ssim_256": [1] * 3, "mae": [0] * 3, "l1": [0] * 3,
        }  # fmt: skip

    def test_what_the_padding_does(self):
        """As protocols.py says it."""
        images = golden_images(256, 176)
        dptn, plain = (
            score_pixels(*images, None, PIXELS, dataclasses.replace(DPTN, pad=pad), DATA_SETS["fashion"])
            for pad in (True, False)
        )
        np.testing.assert_allclose(dptn["psnr"] - plain["psnr"], 10 * np.log10(256 / 176))
        np.testing.assert_allclose(dptn["l1"], plain["l1"] * 176 / 256)
        np.testing.assert_allclose(dptn["ssim"], 0.69 * plain["ssim"] + 0.31, atol=0.01)

    def test_masked_metrics_see_black_outside_the_mask(self):
        fakes, reals = golden_images(128, 64)
        masks = torch.zeros(3, 1, 128, 64, dtype=torch.bool)
        masks[:, :, 30:90, 20:50] = True
        scores = score_pixels(fakes, reals, masks, ["mask_ssim", "mask_psnr"], STANDARD, DATA_SETS["fashion"])
        for number in range(3):
            fake, real = (image[number].permute(1, 2, 0).numpy().copy() for image in (fakes, reals))
            for image in (fake, real):
                image[:30] = image[90:] = image[:, :20] = image[:, 50:] = 0
            expected = reference_scores(fake, real, 64, full_range=True)
            assert scores["mask_ssim"][number].item() == pytest.approx(expected["ssim_256"], abs=1e-7)
            assert scores["mask_psnr"][number].item() == pytest.approx(expected["psnr"], abs=1e-7)

    def test_sizes_are_those_of_the_data_sets(self):
        assert {name: find_dataset(name).stored_size for name in DATA_SETS} == {
            name: data_set.size for name, data_set in DATA_SETS.items()
        }


class TestLPIPS:
    def test_goldens(self, weights):
        distances = LPIPS(weights["alexnet"])(*golden_images(256, 176))
        np.testing.assert_allclose(distances, GOLDENS["lpips_alex_formula"], rtol=0, atol=1e-7)

    @pytest.mark.filterwarnings("ignore:.*pretrained.*", "ignore:Arguments other than a weight enum")
    def test_equals_the_package_image_by_image(self, weights):
        package = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
        state = torch.load(weights["alexnet"], weights_only=True)
        slices = {}
        for part in range(1, 6):
            slices.update(getattr(package.net, f"slice{part}").named_children())
        for key, value in state.items():
            _, index, kind = key.split(".")
            getattr(slices[index], kind).data.copy_(value)
        fakes, reals = golden_images(128, 64)
        fakes = torch.cat((fakes, reals[:1]))  # the last two are equal
        reals = torch.cat((reals, reals[:1]))
        with torch.no_grad():
            expected = package(fakes / 127.5 - 1, reals / 127.5 - 1).flatten()
        distances = LPIPS(weights["alexnet"])(fakes, reals)
        np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-8)
        assert distances[-1] == 0

    def test_wrong_weights(self, tmp_path):
        torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "a.pth")
        with pytest.raises(UserError, match="not a torchvision alexnet state dict"):
            LPIPS(str(tmp_path / "a.pth"))


class TestInception:
    def test_goldens(self, weights):
        features = Inception("torchvision", weights["torchvision"])(golden_images(256, 176)[1])
        np.testing.assert_allclose(features[:, :32], GOLDENS["fid_legacy_features_first32"], rtol=0, atol=1e-5)
        moments = np.stack([features.mean(1), features.std(1, correction=0)])
        np.testing.assert_allclose(moments, GOLDENS["fid_legacy_features_mean_std"], rtol=0, atol=1e-6)

    def test_equals_pytorch_fid(self, weights, monkeypatch):
        state = torch.load(weights["pytorch-fid"], weights_only=True)
        monkeypatch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *_args, **_kwargs: state)
        package = pytorch_fid.inception.InceptionV3().eval()
        images = golden_images(128, 64)[1][:2]
        ours = Inception("pytorch-fid", weights["pytorch-fid"])
        with torch.no_grad():
            features = ours(images)
            np.testing.assert_allclose(features, package(images / 255)[0].flatten(1), rtol=0, atol=1e-5)
        logits = features.double() @ state["fc.weight"].double().T
        np.testing.assert_allclose(ours.probabilities(features), logits.softmax(1), rtol=0, atol=1e-6)

    def test_imagenet_classes_take_the_bias(self, weights):
        net = Inception("torchvision", weights["torchvision"])
        state = torch.load(weights["torchvision"], weights_only=True)
        zero = torch.zeros(1, 2048)
        np.testing.assert_allclose(net.probabilities(zero)[0], state["fc.bias"].double().softmax(0), rtol=1e-6)


def statistics(features: np.ndarray, batch: int = 10**6) -> Gaussian:
    sums = FeatureStatistics()
    for start in range(0, len(features), batch):
        sums.update(torch.from_numpy(features[start : start + batch].copy()))
    return sums.compute()


class TestFrechet:
    def test_golden(self):
        random = np.random.RandomState(0)
        a, b = random.randn(200, 16), random.randn(150, 16) * 1.2 + 0.3
        assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(float(GOLDENS["frechet_200x16_150x16"]))

    def test_statistics_are_numpys_for_any_batch_and_order(self):
        features = np.random.RandomState(1).rand(53, 9) * 3 + 100
        for batch in (1, 7, 53):
            n, mean, covariance = statistics(features[:: 1 if batch == 7 else -1], batch)
            assert n == 53
            np.testing.assert_allclose(mean, features.mean(0), rtol=1e-13)
            np.testing.assert_allclose(covariance, np.cov(features, rowvar=False), rtol=0, atol=1e-9)

    def test_agrees_with_a_matrix_square_root(self):
        random = np.random.RandomState(2)
        a, b = (statistics(random.randn(100, 20) @ random.randn(20, 20) + shift) for shift in (0, 0.5))
        shared = np.trace(linalg.sqrtm(a.covariance @ b.covariance).real)
        expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance) - 2 * shared
        assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-8)

    def test_closed_form_of_independent_features(self):
        a = Gaussian(9, np.array([0.0, 1.0]), np.diag([4.0, 9.0]))
        b = Gaussian(9, np.array([3.0, 5.0]), np.diag([1.0, 25.0]))
        assert frechet_distance(a, b) == pytest.approx(3**2 + 4**2 + (2 - 1) ** 2 + (3 - 5) ** 2)

    def test_equal_sets_with_fewer_images_than_features(self):
        features = np.random.RandomState(3).rand(20, 60)
        assert frechet_distance(statistics(features), statistics(features[::-1])) == pytest.approx(0, abs=1e-10)

    def test_one_image_has_no_covariance(self):
        with pytest.raises(UserError, match="at least 2 images"):
            statistics(np.zeros((1, 4)))


class TestInceptionScore:
    def test_certain_and_diverse_classes_score_their_number(self):
        classes = torch.eye(4, dtype=torch.float64).repeat(20, 1)  # parts of 8 images, each class twice
        score = InceptionScore(80)
        for start in range(0, 80, 7):
            score.update(np.arange(80)[start : start + 7], classes[start : start + 7])
        np.testing.assert_allclose(score.compute(), np.full(10, 4.0))

    def test_is_the_mean_divergence(self):
        p = np.random.RandomState(0).dirichlet(np.ones(5), 30)
        score = InceptionScore(30)
        for number in reversed(range(30)):
            score.update(np.array([number]), torch.from_numpy(p[number : number + 1]))
        parts = p.reshape(10, 3, 5)
        expected = [np.exp(np.mean([stats.entropy(row, part.mean(0)) for row in part])) for part in parts]
        np.testing.assert_allclose(score.compute(), expected)


class TestMask:
    def joints(self, **known: tuple[float, float]) -> np.ndarray:
        keypoints = np.full((18, 2), np.nan, np.float32)
        for number, point in known.items():
            keypoints[int(number[1:])] = point
        return keypoints

    def test_joint_is_a_disc(self):
        mask = pose_mask(self.joints(j0=(40, 20)), (128, 64))
        rows, columns = np.mgrid[:128, :64]
        inside = (rows - 40) ** 2 + (columns - 20) ** 2 < 4**2
        assert (mask == ndimage.binary_closing(inside, np.ones((5, 5)))).all()
        assert mask[36:45, 20].tolist() == [False, *[True] * 7, False]

    def test_limb_is_a_bar(self):
        """Right hip and knee, one above the other: columns 26 to 34 between them, discs at the ends."""
        mask = pose_mask(self.joints(j8=(50, 30), j9=(80, 30)), (128, 64))
        by_hand = np.zeros((128, 64), bool)
        by_hand[50:81, 26:35] = True
        rows, columns = np.mgrid[:128, :64]
        for row in (50, 80):
            by_hand |= (rows - row) ** 2 + (columns - 30) ** 2 < 4**2
        assert (mask == ndimage.binary_closing(by_hand, np.ones((5, 5)))).all()

    def test_joints_without_a_limb_between_them_stay_apart(self):
        mask = pose_mask(self.joints(j4=(20, 20), j10=(100, 40)), (128, 64))
        assert not mask[30:90].any()

    def test_torso_is_crossed_and_gaps_are_closed(self):
        torso = {"j2": (30, 20), "j5": (30, 44), "j8": (70, 24), "j11": (70, 40)}
        mask = pose_mask(self.joints(**torso), (128, 64))
        assert mask[[50, 50, 70], [22, 42, 32]].all()  # shoulder to hip on both sides, hip to hip
        near = pose_mask(self.joints(j4=(20, 20), j7=(20, 29)), (128, 64))  # discs two pixels apart
        assert near[20, 20:30].all()

    def test_radius_grows_with_the_photo(self):
        mask = pose_mask(self.joints(j0=(100, 80)), (256, 176))
        assert mask[100, 73:88].all()
        assert not mask[100, [71, 89]].any()

    @pytest.mark.parametrize("size", [(128, 64), (256, 176)])
    def test_random_poses(self, size):
        random = np.random.RandomState(0)
        for number in range(100):
            keypoints = random.randint(-4, (size[0] + 4, size[1] + 4), (18, 2)).astype(np.float32)
            keypoints[random.rand(18) < 0.2] = np.nan
            assert (pose_mask(keypoints, size) == reference_mask(keypoints, size)).all(), number

    def test_joint_outside_the_photo(self):
        assert not pose_mask(self.joints(j0=(-40, 10)), (128, 64)).any()


class TestPairing:
    FOLDER = Path("results")

    def match(self, results, targets, sources=None):
        samples, problems = match_names(self.FOLDER, results, targets, targets if sources is None else sources)
        return [tuple(sample) for sample in samples], [problem.kind for problem in problems]

    def test_by_names(self):
        results = ["a_2_b_vis.jpg", "b_2_a_vis.png"]
        assert self.match(results, ["a.jpg", "b.jpg"]) == (
            [("a.jpg", "b.jpg", self.FOLDER / results[0]), ("b.jpg", "a.jpg", self.FOLDER / results[1])], [],
        )  # fmt: skip

    def test_a_folder_in_a_name(self):
        samples, problems = self.match([result_name("x/a.jpg", "y/b.jpg")], ["x/a.jpg", "y/b.jpg"])
        assert samples[0][:2] == ("x/a.jpg", "y/b.jpg")
        assert not problems

    def test_names_with_the_separator_inside(self):
        """1_2_2_2_3 is '1' to '2_2_3', '1_2' to '2_3' (overlapping), or '1_2_2' to '3'."""
        result = ["1_2_2_2_3_vis.jpg"]
        assert self.match(result, ["1_2_2.jpg", "3.jpg"])[0][0][:2] == ("1_2_2.jpg", "3.jpg")
        assert self.match(result, ["1.jpg", "2_2_3.jpg"])[0][0][:2] == ("1.jpg", "2_2_3.jpg")
        # both targets exist, but only one source
        assert self.match(result, ["1.jpg", "2_2_3.jpg", "3.jpg"])[0][0][:2] == ("1.jpg", "2_2_3.jpg")
        assert self.match(result, ["1.jpg", "2_2_3.jpg", "1_2_2.jpg", "3.jpg"]) == ([], ["ambiguous"])

    def test_source_that_is_not_there(self):
        samples, problems = self.match(["a_2_b_vis.jpg"], ["b.jpg"])
        assert samples[0][:2] == (None, "b.jpg")
        assert not problems

    def test_what_fits_nothing(self):
        results = ["a_2_c_vis.jpg", "a_2_b.jpg", "b_vis.jpg"]
        assert self.match(results, ["a.jpg", "b.jpg"]) == ([], ["extra"] * 3)

    def test_two_formats_or_two_photos(self):
        assert self.match(["a_2_b_vis.jpg", "a_2_b_vis.png"], ["a.jpg", "b.jpg"])[1] == ["ambiguous"]
        assert self.match(["a_2_b_vis.jpg"], ["a.jpg", "b.jpg", "b.png"])[1] == ["ambiguous"]

    def test_by_pairs(self):
        pairs = [Pair("a.jpg", "b.jpg"), Pair("b.jpg", "a.jpg"), Pair("a.jpg", "c.jpg"), Pair("c.jpg", "a.jpg")]
        results = ["b_2_a_vis.png", "a_2_b_vis.jpg", "a_2_c_vis.jpg", "z_2_a_vis.jpg"]
        samples, problems = match_pairs(pairs, self.FOLDER, results, ["a.jpg", "b.jpg"])
        assert [sample[:2] for sample in samples] == pairs[:2]
        assert [sample.generated.name for sample in samples] == ["a_2_b_vis.jpg", "b_2_a_vis.png"]
        assert [str(problem).split(" ")[0] for problem in problems] == ["missing:", "missing:", "extra:"]

    def test_pairs_that_share_a_result(self):
        pairs = [Pair("a/b.jpg", "c.jpg"), Pair("a_b.jpg", "c.jpg")]
        samples, problems = match_pairs(pairs, self.FOLDER, ["a_b_2_c_vis.jpg"], ["c.jpg"])
        assert (len(samples), [problem.kind for problem in problems]) == (1, ["ambiguous"])


def test_problems_count_once():
    problems = Problems(allowed=True)
    problem, other = Problem("unreadable", "a.jpg"), Problem("missing", "a.jpg")
    problems.add([problem, problem])
    problems.add([other, problem])
    assert problems == [problem, other]


@pytest.mark.parametrize("values", [[0.1, np.nextafter(0.1, 1)], [7.0, 7.0], [0.0], [0.0, 1.0, 1.0]])
def test_histogram_has_every_value(values):
    """Also values that differ by rounding alone."""
    heights = [float(height) for height in re.findall(r'height="([\d.]+)"', histogram(np.array(values)).render())]
    assert len(heights) == BINS
    shares = np.array(heights) / max(heights)
    assert shares.sum() == pytest.approx(len(values) / np.unique(np.round(values, 9), return_counts=True)[1].max())


def test_measurement_is_mean_variance_and_standard_error():
    values = np.random.RandomState(0).rand(50)
    measured = Measurement.of(values)
    assert (measured.value, measured.n) == (pytest.approx(values.mean()), 50)
    assert measured.variance == pytest.approx(np.mean((values - values.mean()) ** 2))
    assert measured.standard_error == pytest.approx(stats.sem(values))


def write_images(folder: Path, images: torch.Tensor) -> list[str]:
    names = [f"{number}.png" for number in range(len(images))]
    for name, image in zip(names, images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name)
    return names


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_change_nothing(tmp_path, workers):
    fakes, reals = (images.repeat(3, 1, 1, 1) for images in golden_images(128, 64))
    for name, images in (("fake", fakes), ("real", reals)):
        (tmp_path / name).mkdir()
        names = write_images(tmp_path / name, images)
    samples = [Sample(None, name, tmp_path / "fake" / name) for name in names]
    expected = score_pixels(fakes, reals, None, PIXELS, DPTN, DATA_SETS["market"])
    for size in (1, 7, 9):
        batches = PairBatches(samples, tmp_path / "real", DATA_SETS["market"], size, [DPTN], PIXELS, None, True)
        found = list(make_loader(batches, workers))
        assert [len(batch.numbers) for batch in found] == [size] * (9 // size) + [9 % size] * (9 % size > 0)
        assert torch.equal(torch.cat([batch.images.fakes for batch in found]), fakes)
        for name in PIXELS:
            assert (np.concatenate([batch.scores["dptn", name] for batch in found]) == expected[name].numpy()).all()
