"""A photo and a pose in, an image out: inference/pose_transfer.py
and scripts/transfer.py, with an estimator that knows."""

from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.pairs import write_keypoints
from data.synthetic.walk import render_walk
from inference import estimators
from inference.estimators import Estimator, Person
from inference.formats import write_poses
from inference.framing import crop, frame_people, frame_person, to_frame
from inference.pose_transfer import PoseTransfer
from inference.tracks import clean, flicker, interpolate
from inference.transfer_options import TransferOptions
from inference.video import read_frames, write_animation
from models import create_model
from models.published_weights import save_network
from scripts import transfer as script
from tests.conftest import COMMON, CPU, TINY_G, fill_by_formula, make_market, test_options
from util.draw_pose import draw_skeleton
from util.errors import UserError

SIZE = (128, 64)
LARGE = (300, 200)  # of photos that are not a data set's
TINY_FLAGS = {flag.removeprefix("--"): value for flag, value in (flag.split("=") for flag in TINY_G)}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    """The run `tiny`: epoch `latest`, and epoch 7 with other weights."""
    root = tmp_path_factory.mktemp("checkpoints")
    model = create_model(test_options(*COMMON[:2], *TINY_G, f"--checkpoints_dir={root}"), CPU, is_train=False)
    net = model.nets["G"]
    fill_by_formula(net)
    save_network(net, root / "tiny/latest_net_G.pth")
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.mul_(0.9)
    save_network(net, root / "tiny/7_net_G.pth")
    return root


@pytest.fixture(scope="module")
def transfer(checkpoints) -> PoseTransfer:
    return PoseTransfer.load(
        "tiny", checkpoints_dir=checkpoints, dataset_mode="market", gpu_ids=-1, batchSize=2, **TINY_FLAGS
    )


@pytest.fixture(scope="module")
def people():
    """Six moments of a drawn walk: photos of the stored size with their joints."""
    return render_walk("market", 6, 1.0, 60.0, 0)


def keypoints_of(people) -> np.ndarray:
    return np.stack([photo.keypoints for photo in people])


def assert_close(drawn: np.ndarray, expected: np.ndarray) -> None:
    """But for rounding: batches of other sizes are added up in another order."""
    np.testing.assert_allclose(np.asarray(drawn, int), np.asarray(expected, int), atol=1)


class TestPoseTransfer:
    def test_kinds_of_photos_agree(self, transfer, people):
        pixels, (source, target) = people[0].pixels, keypoints_of(people[:2])
        array = transfer(pixels, source, target)
        assert (array.shape, array.dtype) == ((*SIZE, 3), np.uint8)
        assert array.std() > 1
        picture = transfer(Image.fromarray(pixels), source, target)
        tensor = transfer(torch.from_numpy(pixels.copy()).permute(2, 0, 1), source, torch.from_numpy(target))
        assert isinstance(picture, Image.Image)
        np.testing.assert_array_equal(picture, array)
        np.testing.assert_array_equal(tensor.permute(1, 2, 0), array)

    def test_several_are_as_one_by_one(self, transfer, people):
        """Three in batches of two; each input may be one for all."""
        photos, poses = np.stack([photo.pixels for photo in people[:3]]), keypoints_of(people)
        alone = np.stack([transfer(photos[i], poses[i], poses[i + 3]) for i in range(3)])
        together = transfer(photos, poses[:3], poses[3:])
        assert (alone[0] != alone[1]).any()
        assert_close(together, alone)
        listed = transfer([Image.fromarray(photo) for photo in photos], poses[:3], poses[3:])
        np.testing.assert_array_equal([np.asarray(picture) for picture in listed], together)
        one_photo = transfer(photos[0], poses[0], poses[3:])
        assert_close(one_photo, [transfer(photos[0], poses[0], pose) for pose in poses[3:]])
        one_pose = transfer(torch.from_numpy(photos).permute(0, 3, 1, 2), poses[:3], poses[5])
        expected = np.stack([transfer(photos[i], poses[i], poses[5]) for i in range(3)])
        assert_close(one_pose.permute(0, 2, 3, 1), expected)

    def test_it_draws_what_the_test_command_draws(self, transfer, checkpoints, run, tmp_path):
        market = make_market(tmp_path / "market", photos=2, pairs=2, phases=["test"])
        folder = f"--checkpoints_dir={checkpoints}"
        run("test", *COMMON, *TINY_G, "--name=tiny", folder, f"--dataroot={market}", "--image_format=png")
        poses = script.sources.read_keypoints(market / "market-annotation-test.csv")
        first, second = sorted(poses)
        drawn = transfer(Image.open(market / "test" / first), poses[first], poses[second])
        written = Image.open(f"results/{Path(first).stem}_2_{Path(second).stem}_vis.png")
        np.testing.assert_array_equal(drawn, written)

    @pytest.mark.parametrize(
        ("photo", "source", "target", "message"),
        [
            (np.zeros((64, 64, 3), np.uint8), 1, 1, r"photos must be \(128, 64\) .*got \(64, 64\)"),
            (np.zeros((128, 64, 3)), 1, 1, "expected uint8"),
            (np.zeros((3, 128, 64), np.uint8), 1, 1, r"expected uint8 \(B,H,W,3\)"),
            (torch.zeros((128, 64, 3), dtype=torch.uint8), 1, 1, r"expected uint8 \(B,3,H,W\)"),
            ([], 1, 1, "expected PIL images"),
            (None, 17, 1, r"source keypoints: expected \(18,2\)"),
            (None, 1, (2, 3, 18, 2), r"target keypoints: expected \(18,2\)"),
            (None, (2, 18, 2), (3, 18, 2), "1 photos, 2 source poses, 3 target poses"),
        ],
    )
    def test_wrong_inputs(self, transfer, photo, source, target, message):
        photo = np.zeros((*SIZE, 3), np.uint8) if photo is None else photo
        shapes = [{1: (18, 2), 17: (17, 2)}.get(shape, shape) for shape in (source, target)]
        with pytest.raises(ValueError, match=message):
            transfer(photo, *map(np.zeros, shapes))

    def test_flags(self, checkpoints):
        where = {"checkpoints_dir": checkpoints, "dataset_mode": "market", "gpu_ids": -1}
        for wrong in ({"niter": 3}, {"precision": "fp8"}, {"compile": "yes"}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                PoseTransfer.load("tiny", **where, **wrong)
        with pytest.raises(UserError, match="5_net_G.pth: .*not found"):
            PoseTransfer.load("tiny", **where, which_epoch=5)
        with pytest.raises(UserError, match="does not fit this network"):
            PoseTransfer.load("tiny", **where)
        assert PoseTransfer.load("tiny", **where, **TINY_FLAGS, channels_last=True, which_epoch=7).opt.channels_last


class Stub(Estimator):
    """The red of a photo's corner tells how many people are in it, the green which of `poses` the first has."""

    default_weights = "own"
    uses_gpu = False
    poses: np.ndarray

    def __init__(self, weights: str, device: torch.device) -> None:
        if weights != "own":
            raise UserError(f"--estimator_weights {weights}: not found")

    def people(self, photo: Image.Image) -> list[Person]:
        red, green, _ = np.asarray(photo)[2:14, 2:14].mean(axis=(0, 1))
        pose = self.poses[round(green / 40)] * (2 if photo.height > 128 else 1)
        return [Person(pose + shift, 0.9, (0.0, 0.0, 1.0, 1.0)) for shift in range(0, 3 * round(red / 40), 3)]


def write_photo(path: Path, people, number: int, enlarged: bool = True, count: int = 1) -> Path:
    """A moment of the walk, at the stored size or twice as large in a larger photo."""
    picture = Image.fromarray(people[number].pixels)
    if enlarged:
        whole = Image.new("RGB", LARGE[::-1], "gray")
        whole.paste(picture.resize((128, 256)))
        picture = whole
    picture.paste((40 * count, 40 * number, 0), (0, 0, 16, 16))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


@pytest.fixture
def work(tmp_path, people, monkeypatch) -> Path:
    """me.png, dancer.png (moment 3), a csv of all moments, and a data root whose csv is the same."""
    monkeypatch.setitem(estimators.ESTIMATORS, "stub", Stub)
    monkeypatch.setattr(Stub, "poses", keypoints_of(people), raising=False)
    write_photo(tmp_path / "me.png", people, 0)
    write_photo(tmp_path / "dancer.png", people, 3)
    rows = {photo.name: photo.keypoints for photo in people}
    write_keypoints(tmp_path / "walk.csv", rows)
    (tmp_path / "root").mkdir()
    write_keypoints(tmp_path / "root/market-annotation-test.csv", rows)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def draw(call, work, checkpoints):
    """draw(flags...): the command with the tiny network, in `work`."""

    def run(*flags: object, own_pose: bool = False):
        own = ["--source_pose=csv:walk_0001.jpg"] if own_pose else []
        where = [f"--checkpoints_dir={checkpoints}", "--dataset_mode=market", "--gpu_id=-1", "--dataroot=root"]
        return call(script, "--source=me.png", "--name=tiny", *where, *TINY_G, "--estimator=stub", *own, *flags)

    return run


@pytest.fixture
def refused(draw, work):
    """refused(flags...): the one error, after which nothing is new."""

    def run(*flags: object) -> str:
        before = sorted(work.rglob("*"))
        done = draw(*flags)
        assert done.returncode == 2
        assert sorted(work.rglob("*")) == before
        assert done.stderr.startswith("error: ") or "transfer.py: error: " in done.stderr
        return done.stderr

    return run


def framed_me(people) -> tuple[Image.Image, np.ndarray]:
    """me.png and its joints, framed."""
    joints = 2 * people[0].keypoints
    frame = frame_person(joints, SIZE, "market")
    return crop(Image.open("me.png"), frame), to_frame(joints, frame)


def fitted(pose: np.ndarray) -> np.ndarray:
    return to_frame(pose, frame_person(pose, SIZE, "market"))


def test_a_photo_in_the_pose_of_a_photo(draw, transfer, people):
    done = draw("--pose=dancer.png", "--out=out.png", "--sheet=sheet.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert "out.png\n" in done.stdout
    assert "s a picture, from file to file" in done.stdout
    photo, source = framed_me(people)
    target = fitted(2 * people[3].keypoints)
    expected = transfer(photo, source, target)
    np.testing.assert_array_equal(Image.open("out.png"), expected)
    cells = [photo, draw_skeleton(source, SIZE), draw_skeleton(target, SIZE), expected]
    np.testing.assert_array_equal(Image.open("sheet.png"), np.concatenate(cells, axis=1))


def test_stored_size_is_taken_as_it_is(draw, transfer, people, work):
    """A photo of the stored size, and rows of the data set's csv, but not those of a csv from elsewhere."""
    write_photo(work / "me.png", people, 0, enlarged=False)
    write_photo(work / "small.png", people, 2, enlarged=False)
    photo, poses = Image.open("me.png"), keypoints_of(people)
    for pose, target in (("csv:walk_0003.jpg", poses[2]), ("small.png", poses[2])):
        draw(f"--pose={pose}", "--out=out.png")
        np.testing.assert_array_equal(Image.open("out.png"), transfer(photo, poses[0], target))
        assert draw(f"--pose={pose}", "--out=out.png", "--pose_frame=fit").returncode == 0
        np.testing.assert_array_equal(Image.open("out.png"), transfer(photo, poses[0], fitted(target)))
    draw("--pose=csv:walk_0003.jpg", "--out=out.png", "--keypoints_csv=walk.csv", own_pose=True)
    np.testing.assert_array_equal(Image.open("out.png"), transfer(photo, poses[0], poses[2]))
    draw("--pose=root/market-annotation-test.csv", "--out=kept")
    np.testing.assert_array_equal(Image.open("kept/walk_0003.png"), transfer(photo, poses[0], poses[2]))
    for flags, target in ((), fitted(poses[2])), (("--pose_frame=keep",), poses[2]):
        draw("--pose=walk.csv", "--out=pictures", *flags)
        np.testing.assert_array_equal(Image.open("pictures/walk_0003.png"), transfer(photo, poses[0], target))


def test_a_photo_that_was_held_sideways(draw, people):
    draw("--pose=dancer.png", "--out=upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    Image.open("me.png").transpose(Image.Transpose.ROTATE_90).save("me.png", exif=exif)
    assert draw("--pose=dancer.png", "--out=turned.png").returncode == 0
    np.testing.assert_array_equal(Image.open("turned.png"), Image.open("upright.png"))


def test_keypoint_files(draw, transfer, people, work):
    """The source's pose from a file with a row for each photo, or one for one; the target's from any format."""
    photo, source = framed_me(people)
    poses = {"me.jpg": 2 * people[0].keypoints, "you.jpg": people[1].keypoints}
    write_keypoints(work / "two.csv", poses)
    write_poses(work / "one.json", {"x.jpg": poses["me.jpg"]}, "openpose")
    write_poses(work / "dancer.json", {"dancer.jpg": people[3].keypoints}, "openpose-body25")
    expected = transfer(photo, source, fitted(people[3].keypoints))
    for own in ("two.csv", "one.json"):
        assert draw(f"--source_pose={own}", "--pose=dancer.json", "--out=out.png").returncode == 0
        np.testing.assert_array_equal(Image.open("out.png"), expected)
    assert "no rows for me.png" in draw("--source_pose=walk.csv", "--pose=dancer.json", "--out=out.png").stderr
    wrong = draw("--source_pose=dancer.png", "--pose=dancer.json", "--out=out.png").stderr
    assert "a keypoint file (.csv, .json) or csv:NAME is needed" in wrong


def test_several_poses(draw, transfer, people, work):
    for number in range(1, 4):
        write_photo(work / f"photos/d{number}.png", people, number)
    (work / "photos/notes.txt").write_text("no photo")
    flags = ("--pose", "photos", "dancer.png", "csv:walk_0002.jpg", "--out=new/pictures", "--sheet=sheet.png")
    done = draw(*flags, "--batchSize=4")
    names = ["d1", "d2", "d3", "dancer", "walk_0002"]
    assert [path.stem for path in sorted(Path("new/pictures").iterdir())] == names
    assert [Path(line).stem for line in done.stdout.splitlines() if line.endswith(".png")] == names
    photo, source = framed_me(people)
    targets = [fitted(2 * people[number].keypoints) for number in (1, 2, 3, 3)] + [people[1].keypoints]
    for name, target in zip(names, targets):
        assert_close(Image.open(f"new/pictures/{name}.png"), transfer(photo, source, target))
    assert Image.open("sheet.png").size == (4 * 64, 5 * 128)
    draw("--pose=photos", "--out=second", "--every=2")
    assert sorted(path.name for path in Path("second").iterdir()) == ["d1.png", "d3.png"]


def placed_walk(people) -> np.ndarray:
    """The walk as a sequence of 25 a second, in the stored picture."""
    track = clean(keypoints_of(people), 25)
    return np.stack([to_frame(pose, frame) for pose, frame in zip(track, frame_people(track, SIZE, "market", 12.5))])


def test_a_sequence(draw, transfer, people):
    done = draw("--pose=walk.csv", "--sequence", "--out=frames", "--batchSize=2")
    photo, source = framed_me(people)
    targets = placed_walk(people)
    expected = transfer(np.asarray(photo), source, targets)
    written = [np.asarray(Image.open(path)) for path in sorted(Path("frames").iterdir())]
    assert_close(written, expected)
    assert "6 pictures, 25 a second, in frames" in done.stdout
    levels = flicker(expected.transpose(0, 3, 1, 2), targets)
    assert f"flicker outside the person: {levels:.2f} of 255 levels" in done.stdout


def test_poses_between_and_rates(draw, transfer, people):
    """10 a second with one between are 5 poses a second, which is what smoothing and the view go by."""
    draw("--pose=walk.csv", "--out=frames", "--sequence", "--interpolate=1", "--fps=10", "--no-smooth")
    track = keypoints_of(people)
    frames = frame_people(track, SIZE, "market", 2.5)
    targets = interpolate(np.stack([to_frame(*both) for both in zip(track, frames)]), 1)
    photo, source = framed_me(people)
    written = np.stack([np.asarray(Image.open(path)) for path in sorted(Path("frames").iterdir())])
    assert_close(written, transfer(np.asarray(photo), source, targets.astype(np.float32)))


@pytest.mark.parametrize("ending", ["gif", "webp", "mp4"])
def test_animations(draw, work, people, ending):
    if ending == "mp4" and not find_spec("imageio_ffmpeg"):
        assert "pip install imageio-ffmpeg" in draw("--pose=walk.csv", "--out=x.mp4").stderr
        return
    done = draw("--pose=walk.csv", f"--out=x.{ending}", "--every=2", "--fps=5", "--sheet=sheet.png")
    assert done.returncode == 0, done.stderr
    frames, fps = read_frames(f"x.{ending}")
    assert (len(list(frames)), fps) == (3, pytest.approx(5))
    assert Image.open("sheet.png").size == (4 * 64, 3 * 128)


def test_an_animation_as_the_pose(draw, work, people):
    """Its own rate is kept, and doubled by a pose between each two; a GIF of one frame is a photo."""
    photos = [Image.open(write_photo(work / f"p{number}.png", people, number)) for number in range(4)]
    write_animation(iter(photos), work / "dance.webp", 10)
    done = draw("--pose=dance.webp", "--out=x.webp", "--interpolate=1")
    assert "7 pictures, 20 a second" in done.stdout, done.stderr
    assert "a sequence goes to" in draw("--pose=dance.webp", "--out=x.png").stderr
    Image.open("dancer.png").save("still.gif")
    assert draw("--pose=still.gif", "--out=still.png").returncode == 0


def test_a_sheet_of_a_long_sequence_shows_some(people):
    drawn = script.Drawn([], Image.fromarray(people[0].pixels), people[0].keypoints,
                         np.zeros((30, 18, 2)), torch.zeros(30, 3, *SIZE, dtype=torch.uint8), 0.0)  # fmt: skip
    assert script.sheet(drawn, 12).size == (4 * 64, 12 * 128)


class TestAdvice:
    def test_all_of_it_stops_and_force_goes_on(self, draw, refused, work, people):
        write_photo(work / "me.png", people, 0, count=3)
        write_photo(work / "dancer.png", people, 3, count=2)
        said = refused("--pose=dancer.png", "--out=out.png")
        assert "me.png: 3 people found" in said
        assert "dancer.png: 2 people found" in said
        assert "(--force goes on all the same)" in said
        done = draw("--pose=dancer.png", "--out=out.png", "--force")
        assert done.returncode == 0
        assert [line[:8] for line in done.stderr.splitlines()] == ["warning:"] * 2
        assert Path("out.png").exists()

    def test_nobody_cannot_be_forced(self, draw, refused, work, people):
        write_photo(work / "nobody.png", people, 1, count=0)
        said = refused("--pose=nobody.png", "--out=out.png", "--force")
        assert "nobody.png: no person found" in said
        assert "--force" not in said
        done = draw("--pose", "nobody.png", "dancer.png", "--out=pictures", "--force")
        assert "warning: nobody.png: no person found" in done.stderr
        assert [path.name for path in Path("pictures").iterdir()] == ["dancer.png"]
        write_photo(work / "me.png", people, 0, count=0)
        assert "me.png: no person found" in refused("--pose=dancer.png", "--out=out.png", "--force")

    def test_a_sequence_with_gaps(self, draw, refused, work, people):
        """A short one is filled; many moments without a person need --force, and are left out."""
        for number in range(6):
            write_photo(work / f"frames/f{number}.png", people, number, count=number != 2)
        assert "6 pictures" in draw("--pose=frames", "--out=x.gif").stdout
        said = refused("--pose=frames", "--out=y.gif", "--no-smooth")
        assert "frames: 1 of 6 poses have faults, the first is f2.png: no person found" in said
        assert "5 pictures" in draw("--pose=frames", "--out=y.gif", "--no-smooth", "--force").stdout
        for path in (work / "frames").iterdir():
            write_photo(path, people, 0, count=0)
        said = refused("--pose=frames", "--out=z.gif", "--force")
        assert "frames: 6 of 6 poses have faults, the first is f0.png: no person found" in said

    def test_a_bad_photo_stops_before_a_video_is_searched(self, refused, work, people, monkeypatch):
        write_photo(work / "me.png", people, 0, count=2)
        write_animation(iter([Image.open("dancer.png")] * 3), work / "dance.webp", 10)
        searched = []
        found = Stub.people
        monkeypatch.setattr(Stub, "people", lambda self, photo: searched.append(photo) or found(self, photo))
        assert "me.png: 2 people found" in refused("--pose=dance.webp", "--out=x.gif")
        assert len(searched) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out=out.png"], "--pose needed"),
        (["--pose=dancer.png", "--out=out.bmp"], "endings known are .gif, .jpg, .mp4, .png, .webp"),
        (["--pose=gone.png", "--out=out.png"], "gone.png: no such photo"),
        (["--pose=csv:walk_003.jpg", "--out=out.png"], "no such row in root/market-annotation-test.csv; did you mean"),
        (["--pose=csv:x", "--out=out.png", "--dataroot=."], "no market-annotation-test.csv or market-annotation-train"),
        (["--pose=dancer.png", "--source=gone.png", "--out=out.png"], "gone.png: no such photo"),
        (["--pose=dancer.png", "--source=walk.csv", "--out=out.png"], "walk.csv: photo cannot be decoded"),
        (["--pose=walk.csv", "--out=out.png"], "there are 6 poses; name a folder"),
        (["--pose=root", "--out=out.png"], "neither photos (.jpg, .png) nor keypoint files"),
        (["--pose", "dancer.png", "root/../dancer.png", "--out=new"], "two poses would be drawn in new/dancer.png"),
        (["--pose=dancer.png", "--out=dancer.png"], "--out dancer.png: would replace one of the inputs"),
        (["--pose=dancer.png", "--out=out.png", "--sheet=me.png"], "--sheet me.png: would replace one of the inputs"),
        (["--pose=dancer.png", "--out=out.png", "--sheet=out.png"], "is --out too"),
        (["--pose=dancer.png", "--out=out.png", "--interpolate=2"], "are for sequences"),
        (["--pose=dancer.png", "--out=out.png", "--fps=2"], "are for sequences"),
        (["--pose=dancer.png", "--out=out.png", "--keypoints_csv=walk.csv"], "give it as --pose FILE"),
        (["--pose=walk.csv", "--out=out.png", "--sequence"], "--out out.png: a sequence goes to .gif"),
        (["--pose=walk.csv", "--out=out.gif", "--fps=60"], "GIF shows no more than 50"),
        (["--pose=walk.csv", "--out=root", "--sequence"], "root: not an empty folder"),
        (["--pose=dancer.png", "--out=out.png", "--which_epoch=5"], "5_net_G.pth: "),
        (["--pose=dancer.png", "--out=out.png", "--estimator_weights=x"], "--estimator_weights x: not found"),
        (["--pose=dancer.png", "--out=out.png", "--image_format=png"], "unrecognized arguments"),
        (["--pose=dancer.png", "--out=out.png", "--gpu_ids=0,1"], "scripts/transfer.py is one process on one GPU"),
    ],
)  # fmt: skip
def test_one_clear_line(refused, flags, message):
    assert message in refused(*flags)


def test_a_picture_is_replaced_and_an_epoch_chosen(draw, work):
    draw("--pose=dancer.png", "--out=out.png")
    first = Path("out.png").read_bytes()
    draw("--pose=dancer.png", "--out=out.png", "--which_epoch=7")
    assert Path("out.png").read_bytes() != first


class Watched(Namespace):
    """Remembers which options are asked for."""

    def __getattribute__(self, name: str):
        object.__getattribute__(self, "__dict__").setdefault("_read", set()).add(name)
        return object.__getattribute__(self, name)


def test_every_flag_is_read(draw, monkeypatch):
    """By a run that needs an estimator, draws a sequence and a sheet and looks into a csv."""
    runs = []
    parse = TransferOptions.parse

    def watched(self, argv=None):
        runs.append(Watched(**vars(parse(self, argv))))
        return runs[-1]

    monkeypatch.setattr(TransferOptions, "parse", watched)
    done = draw("--pose", "dancer.png", "csv:walk_0001.jpg", "--out=x.gif", "--sheet=sheet.png", own_pose=True)
    assert done.returncode == 0, done.stderr
    read = vars(runs[0])["_read"]
    listed = {action.dest for action in TransferOptions().parser([])._actions} - {"help"}
    assert listed - read == set()
