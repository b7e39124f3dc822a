"""scripts/transfer.py from end to end, with an estimator that reads its answer from the photo."""

import shutil
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.pairs import write_keypoints
from inference import estimators
from inference.estimators import Estimator
from inference.flicker import flicker
from inference.formats import write_poses
from inference.framing import crop, frame_people, frame_person, to_frame
from inference.people import Person
from inference.pose_transfer import PoseTransfer
from inference.tracks import clean, interpolate
from inference.transfer_options import TransferOptions
from inference.video import read_frames, write_animation
from scripts import transfer as script
from tests.helpers import TINY_G
from tests.inference.pose_files import PHANTOM, openpose_person, save
from tests.inference.tiny_transfer import SIZE, assert_close, keypoints_of, load_tiny, tiny_walk, write_tiny
from util.draw_pose import draw_skeleton
from util.errors import UserError

LARGE = (300, 200)  # of photos that do not have a data set's size


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def transfer(checkpoints) -> PoseTransfer:
    return load_tiny(checkpoints)


@pytest.fixture(scope="module")
def people():
    return tiny_walk()


class Stub(Estimator):
    """The red of a photo's corner is the number of people in it, the green is the index of the first one's pose."""

    default_weights = "own"
    uses_gpu = False
    poses: np.ndarray

    def __init__(self, weights: str, device: torch.device) -> None:
        if weights != "own":
            raise UserError(f"--estimator_weights {weights}: not found")

    def find_people(self, photo: Image.Image) -> list[Person]:
        red, green, _ = np.asarray(photo)[2:14, 2:14].mean(axis=(0, 1))
        pose = self.poses[round(green / 40)] * (2 if photo.height > 128 else 1)
        return [Person(pose + shift) for shift in range(0, 3 * round(red / 40), 3)]


def write_photo(path: Path, people, number: int, enlarged: bool = True, count: int = 1) -> Path:
    """A moment of the walk, at the stored size or twice as large in a larger photo."""
    image = Image.fromarray(people[number].pixels)
    if enlarged:
        whole = Image.new("RGB", LARGE[::-1], "gray")
        whole.paste(image.resize((128, 256)))
        image = whole
    image.paste((40 * count, 40 * number, 0), (0, 0, 16, 16))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
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
def generate(call, work, checkpoints):
    """generate(flags...): runs the command with the tiny network, in `work`."""

    def run(*flags: object, own_pose: bool = False):
        own = ["--source_pose=csv:walk_0001.jpg"] if own_pose else []
        where = [f"--checkpoints_dir={checkpoints}", "--dataset_mode=market", "--gpu_id=-1", "--dataroot=root"]
        return call(script, "--source=me.png", "--name=tiny", *where, *TINY_G, "--estimator=stub", *own, *flags)

    return run


@pytest.fixture
def refused(generate, work):
    """refused(flags...): the one error, after which nothing is new."""

    def run(*flags: object) -> str:
        before = sorted(work.rglob("*"))
        done = generate(*flags)
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


def framed(pose: np.ndarray) -> np.ndarray:
    return to_frame(pose, frame_person(pose, SIZE, "market"))


def test_transfer_photo_to_photo(generate, transfer, people):
    done = generate("--pose=dancer.png", "--out=out.png", "--sheet=sheet.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert "out.png\n" in done.stdout
    assert "s per image, from file to file" in done.stdout
    photo, source = framed_me(people)
    target = framed(2 * people[3].keypoints)
    expected = transfer(photo, source, target)
    np.testing.assert_array_equal(Image.open("out.png"), expected)
    cells = [photo, draw_skeleton(source, SIZE), draw_skeleton(target, SIZE), expected]
    np.testing.assert_array_equal(Image.open("sheet.png"), np.concatenate(cells, axis=1))


def test_transfer_stored_size_is_not_framed(generate, transfer, people, work):
    """A photo of the stored size, and rows of the data set's csv, but not those of a csv from elsewhere."""
    write_photo(work / "me.png", people, 0, enlarged=False)
    write_photo(work / "small.png", people, 2, enlarged=False)
    photo, poses = Image.open("me.png"), keypoints_of(people)
    for pose, target in (("csv:walk_0003.jpg", poses[2]), ("small.png", poses[2])):
        generate(f"--pose={pose}", "--out=out.png")
        np.testing.assert_array_equal(Image.open("out.png"), transfer(photo, poses[0], target))
        assert generate(f"--pose={pose}", "--out=out.png", "--pose_frame=fit").returncode == 0
        np.testing.assert_array_equal(Image.open("out.png"), transfer(photo, poses[0], framed(target)))
    generate("--pose=csv:walk_0003.jpg", "--out=out.png", "--keypoints_csv=walk.csv", own_pose=True)
    np.testing.assert_array_equal(Image.open("out.png"), transfer(photo, poses[0], poses[2]))
    generate("--pose=root/market-annotation-test.csv", "--out=kept")
    np.testing.assert_array_equal(Image.open("kept/walk_0003.png"), transfer(photo, poses[0], poses[2]))
    for flags, target in ((), framed(poses[2])), (("--pose_frame=keep",), poses[2]):
        generate("--pose=walk.csv", "--out=images", *flags)
        np.testing.assert_array_equal(Image.open("images/walk_0003.png"), transfer(photo, poses[0], target))


def test_transfer_photo_held_sideways_is_turned_upright(generate, people):
    generate("--pose=dancer.png", "--out=upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    Image.open("me.png").transpose(Image.Transpose.ROTATE_90).save("me.png", exif=exif)
    assert generate("--pose=dancer.png", "--out=turned.png").returncode == 0
    np.testing.assert_array_equal(Image.open("turned.png"), Image.open("upright.png"))


def test_transfer_reads_keypoint_files(generate, transfer, people, work):
    """The source's pose from a file with a row for each photo, or one for one; the target's from any format."""
    photo, source = framed_me(people)
    poses = {"me.jpg": 2 * people[0].keypoints, "you.jpg": people[1].keypoints}
    write_keypoints(work / "two.csv", poses)
    write_poses(work / "one.json", {"x.jpg": poses["me.jpg"]}, "openpose")
    write_poses(work / "dancer.json", {"dancer.jpg": people[3].keypoints}, "openpose-body25")
    expected = transfer(photo, source, framed(people[3].keypoints))
    for own in ("two.csv", "one.json"):
        assert generate(f"--source_pose={own}", "--pose=dancer.json", "--out=out.png").returncode == 0
        np.testing.assert_array_equal(Image.open("out.png"), expected)
    assert "no entries for me.png" in generate("--source_pose=walk.csv", "--pose=dancer.json", "--out=out.png").stderr
    wrong = generate("--source_pose=dancer.png", "--pose=dancer.json", "--out=out.png").stderr
    assert "a keypoint file (.csv, .json, .txt) or csv:NAME is needed" in wrong


def test_transfer_takes_the_person_beside_a_phantom_and_says_so(generate, transfer, people, work):
    """In a frame of a video's keypoint files too; a phantom is no second person that stops the command."""
    write_keypoints(work / "me.csv", {"me.jpg": 2 * people[0].keypoints})
    frames = [[openpose_person(PHANTOM / 10, 0.12), openpose_person(each.keypoints, 0.9)] for each in people[3:5]]
    save(work / "video.json", [{"people": frame} for frame in frames])
    done = generate("--source_pose=me.csv", "--pose=video.json", "--out=out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the most prominent of several people was taken:\n  video_0000.jpg: 2 people, taken: 1" in done.stdout
    expected = transfer(*framed_me(people), framed(people[3].keypoints))
    assert_close(Image.open("out/video_0000.png"), expected)


def test_transfer_several_poses_go_to_a_folder(generate, transfer, people, work):
    for number in range(1, 4):
        write_photo(work / f"photos/d{number}.png", people, number)
    (work / "photos/notes.txt").write_text("no photo")
    flags = ("--pose", "photos", "dancer.png", "csv:walk_0002.jpg", "--out=new/images", "--sheet=sheet.png")
    done = generate(*flags, "--batchSize=4")
    names = ["d1", "d2", "d3", "dancer", "walk_0002"]
    assert [path.stem for path in sorted(Path("new/images").iterdir())] == names
    assert [Path(line).stem for line in done.stdout.splitlines() if line.endswith(".png")] == names
    photo, source = framed_me(people)
    targets = [framed(2 * people[number].keypoints) for number in (1, 2, 3, 3)] + [people[1].keypoints]
    for name, target in zip(names, targets):
        assert_close(Image.open(f"new/images/{name}.png"), transfer(photo, source, target))
    assert Image.open("sheet.png").size == (4 * 64, 5 * 128)
    generate("--pose=photos", "--out=second", "--every=2")
    assert sorted(path.name for path in Path("second").iterdir()) == ["d1.png", "d3.png"]


def framed_walk(people) -> np.ndarray:
    """The walk as a sequence of 25 per second, in pixels of the stored size."""
    track = clean(keypoints_of(people), 25)
    return np.stack([to_frame(pose, frame) for pose, frame in zip(track, frame_people(track, SIZE, "market", 12.5))])


def test_transfer_sequence_is_cleaned_and_framed_as_one(generate, transfer, people):
    done = generate("--pose=walk.csv", "--sequence", "--out=frames", "--batchSize=2")
    photo, source = framed_me(people)
    targets = framed_walk(people)
    expected = transfer(np.asarray(photo), source, targets)
    written = [np.asarray(Image.open(path)) for path in sorted(Path("frames").iterdir())]
    assert_close(written, expected)
    assert "6 images, 25 per second, in frames" in done.stdout
    levels = flicker(expected.transpose(0, 3, 1, 2), targets)
    assert f"flicker outside the person: {levels:.2f} of 255 levels" in done.stdout


def test_transfer_interpolate_smooths_by_the_rate_of_the_poses(generate, transfer, people):
    """10 images per second with one added between each two are 5 poses per second."""
    generate("--pose=walk.csv", "--out=frames", "--sequence", "--interpolate=1", "--fps=10", "--no-smooth")
    track = keypoints_of(people)
    frames = frame_people(track, SIZE, "market", 2.5)
    targets = interpolate(np.stack([to_frame(*both) for both in zip(track, frames)]), 1)
    photo, source = framed_me(people)
    written = np.stack([np.asarray(Image.open(path)) for path in sorted(Path("frames").iterdir())])
    assert_close(written, transfer(np.asarray(photo), source, targets.astype(np.float32)))


@pytest.mark.parametrize("ending", ["gif", "webp", "mp4"])
def test_transfer_writes_animations(generate, work, people, ending):
    if ending == "mp4" and not find_spec("imageio_ffmpeg"):
        assert "pip install imageio-ffmpeg" in generate("--pose=walk.csv", "--out=x.mp4").stderr
        return
    done = generate("--pose=walk.csv", f"--out=x.{ending}", "--every=2", "--fps=5", "--sheet=sheet.png")
    assert done.returncode == 0, done.stderr
    frames, fps = read_frames(Path(f"x.{ending}"))
    assert (len(list(frames)), fps) == (3, pytest.approx(5))
    assert Image.open("sheet.png").size == (4 * 64, 3 * 128)


def test_transfer_animation_as_the_pose_sets_the_rate(generate, work, people):
    """The rate doubles with one pose added between each two. A GIF of one frame is a photo."""
    photos = [Image.open(write_photo(work / f"p{number}.png", people, number)) for number in range(4)]
    write_animation(iter(photos), work / "dance.webp", 10)
    done = generate("--pose=dance.webp", "--out=x.webp", "--interpolate=1")
    assert "7 images, 20 per second" in done.stdout, done.stderr
    assert "a sequence goes to" in generate("--pose=dance.webp", "--out=x.png").stderr
    Image.open("dancer.png").save("still.gif")
    assert generate("--pose=still.gif", "--out=still.png").returncode == 0


def test_transfer_advice_stops_unless_forced(generate, refused, work, people):
    write_photo(work / "me.png", people, 0, count=3)
    write_photo(work / "dancer.png", people, 3, count=2)
    error = refused("--pose=dancer.png", "--out=out.png")
    assert "me.png: 3 people found" in error
    assert "dancer.png: 2 people found" in error
    assert "(--force generates all the same)" in error
    done = generate("--pose=dancer.png", "--out=out.png", "--force")
    assert done.returncode == 0
    assert [line[:8] for line in done.stderr.splitlines()] == ["warning:"] * 2
    assert Path("out.png").exists()


def test_transfer_nobody_stops_even_if_forced(generate, refused, work, people):
    write_photo(work / "nobody.png", people, 1, count=0)
    error = refused("--pose=nobody.png", "--out=out.png", "--force")
    assert "nobody.png: no person found" in error
    assert "--force" not in error
    done = generate("--pose", "nobody.png", "dancer.png", "--out=images", "--force")
    assert "warning: nobody.png: no person found" in done.stderr
    assert [path.name for path in Path("images").iterdir()] == ["dancer.png"]
    write_photo(work / "me.png", people, 0, count=0)
    assert "me.png: no person found" in refused("--pose=dancer.png", "--out=out.png", "--force")


def test_transfer_sequence_with_gaps_fills_short_ones(generate, refused, work, people):
    """Many moments without a person need --force, and are left out."""
    for number in range(6):
        write_photo(work / f"frames/f{number}.png", people, number, count=number != 2)
    assert "6 images" in generate("--pose=frames", "--out=x.gif").stdout
    error = refused("--pose=frames", "--out=y.gif", "--no-smooth")
    assert "frames: 1 of 6 poses have faults, the first is f2.png: no person found" in error
    assert "5 images" in generate("--pose=frames", "--out=y.gif", "--no-smooth", "--force").stdout
    for path in (work / "frames").iterdir():
        write_photo(path, people, 0, count=0)
    error = refused("--pose=frames", "--out=z.gif", "--force")
    assert "frames: 6 of 6 poses have faults, the first is f0.png: no person found" in error


def test_transfer_bad_photo_stops_before_a_video_is_searched(refused, work, people, monkeypatch):
    write_photo(work / "me.png", people, 0, count=2)
    write_animation(iter([Image.open("dancer.png")] * 3), work / "dance.webp", 10)
    searched = []
    find_people = Stub.find_people
    monkeypatch.setattr(Stub, "find_people", lambda self, photo: searched.append(photo) or find_people(self, photo))
    assert "me.png: 2 people found" in refused("--pose=dance.webp", "--out=x.gif")
    assert len(searched) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out=out.png"], "--pose required"),
        (["--pose=dancer.png", "--out=out.bmp"], "known suffixes are .gif, .jpg, .mp4, .png, .webp"),
        (["--pose=gone.png", "--out=out.png"], "gone.png: no such photo"),
        (["--pose=csv:walk_003.jpg", "--out=out.png"], "no such row in root/market-annotation-test.csv; did you mean"),
        (["--pose=csv:x", "--out=out.png", "--dataroot=."], "no market-annotation-test.csv or market-annotation-train"),
        (["--pose=dancer.png", "--source=gone.png", "--out=out.png"], "gone.png: no such photo"),
        (["--pose=dancer.png", "--source=walk.csv", "--out=out.png"], "walk.csv: photo cannot be decoded"),
        (["--pose=walk.csv", "--out=out.png"], "there are 6 poses; name a folder"),
        (["--pose=empty", "--out=out.png"], "neither photos nor keypoint files"),
        (["--pose", "dancer.png", "root/../dancer.png", "--out=new"], "two poses would be written to new/dancer.png"),
        (["--pose=dancer.png", "--out=dancer.png"], "--out dancer.png: would replace one of the inputs"),
        (["--pose=dancer.png", "--out=out.png", "--sheet=me.png"], "--sheet me.png: would replace one of the inputs"),
        (["--pose=poses", "--out=poses"], "--out poses/a.png: would replace one of the inputs"),
        (["--pose=dancer.png", "--out=new", "--sheet=new/dancer.png"], "--sheet new/dancer.png: is --out too"),
        (["--pose=dancer.png", "--out=out.png", "--sheet=out.png"], "is --out too"),
        (["--pose=dancer.png", "--out=walk.csv/out.png"], "walk.csv/out.png: cannot be written"),
        (["--pose=dancer.png", "--out=out.png", "--interpolate=2"], "are for sequences"),
        (["--pose=dancer.png", "--out=out.png", "--fps=2"], "are for sequences"),
        (["--pose=dancer.png", "--out=out.png", "--keypoints_csv=walk.csv"], "give it as --pose FILE"),
        (["--pose=walk.csv", "--out=out.png", "--sequence"], "out.png: a sequence goes to .gif"),
        (["--pose=walk.csv", "--out=out.gif", "--fps=60"], "GIF shows no more than 50"),
        (["--pose=walk.csv", "--out=root", "--sequence"], "root: not an empty folder"),
        (["--pose=dancer.png", "--out=out.png", "--which_epoch=5"], "5_net_G.pth: "),
        (["--pose=dancer.png", "--out=out.png", "--estimator_weights=x"], "--estimator_weights x: not found"),
        (["--pose=dancer.png", "--out=out.png", "--image_format=png"], "unrecognized arguments"),
        (["--pose=dancer.png", "--out=out.png", "--gpu_ids=0,1"], "scripts/transfer.py is one process on one GPU"),
    ],
)  # fmt: skip
def test_transfer_bad_flags_are_one_clear_error(refused, flags, message):
    Path("empty").mkdir()
    Path("poses").mkdir()
    shutil.copy("dancer.png", "poses/a.png")
    assert message in refused(*flags)


def test_transfer_refuses_a_jpeg_sheet_of_too_many_rows(refused, monkeypatch):
    monkeypatch.setattr("inference.photo_transfer.MAX_JPEG_HEIGHT", 6 * 128 - 1)
    message = refused("--pose=walk.csv", "--out=new", "--sheet=sheet.jpg")
    assert "--sheet sheet.jpg: JPEG cannot hold 6 rows of 128 pixels; give .png" in message


def test_transfer_refuses_result_names_that_are_too_long(refused):
    """A result is named after its pose and the folders below --pose."""
    folder = Path("long", "x" * 100)
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 128)).save(folder / f"{'y' * 200}.png")
    message = refused("--pose=long", "--out=new")
    assert "1 file names would be longer than 255 bytes" in message
    assert "shorten the names of the poses" in message


def test_transfer_replaces_an_image_and_chooses_the_epoch(generate, work):
    generate("--pose=dancer.png", "--out=out.png")
    first = Path("out.png").read_bytes()
    generate("--pose=dancer.png", "--out=out.png", "--which_epoch=7")
    assert Path("out.png").read_bytes() != first


class RecordingNamespace(Namespace):
    """Records which options are read."""

    def __getattribute__(self, name: str):
        object.__getattribute__(self, "__dict__").setdefault("_read", set()).add(name)
        return object.__getattribute__(self, name)


def test_transfer_reads_every_flag(generate, monkeypatch):
    """The run needs an estimator, generates a sequence and a sheet, and looks up a row of a csv."""
    runs = []
    parse = TransferOptions.parse

    def watched(self, argv=None):
        runs.append(RecordingNamespace(**vars(parse(self, argv))))
        return runs[-1]

    monkeypatch.setattr(TransferOptions, "parse", watched)
    done = generate("--pose", "dancer.png", "csv:walk_0001.jpg", "--out=x.gif", "--sheet=sheet.png", own_pose=True)
    assert done.returncode == 0, done.stderr
    read = vars(runs[0])["_read"]
    only_with_compile = {"compile_mode"}
    listed = {action.dest for action in TransferOptions().parser([])._actions} - {"help"} - only_with_compile
    assert listed - read == set()
