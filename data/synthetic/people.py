"""Rendered people: a data set that needs no download, in exactly the layout of the real ones.

    python -m data.synthetic --dataset_mode market --out dataset/demo_market
    python -m data.synthetic --dataset_mode fashion --out dataset/demo_fashion --sheet people.png

Each identity keeps its body, skin, hair, clothes and background in all its poses; training and test identities are
disjoint. Views are front, side, back and those between; images are rendered at a higher resolution and scaled down.
The keypoints are exact: each is the pixel that its joint falls into, or -1 if the joint lies outside the photo or
behind the body. The same flags give the same files, whatever the number of processes.
"""

import json
import math
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data import find_dataset
from data.keypoints import NECK
from data.pairs import PHASES, identity_pairs, read_keypoints, write_keypoints, write_pairs
from data.pose_pair_dataset import PosePairDataset
from data.synthetic import body
from data.synthetic.body import Cloth, Posture, SyntheticPerson
from util.arguments import count, number, positive_int
from util.draw_pose import draw_skeleton
from util.errors import UserError
from util.files import atomic_write, file_names, write_text
from util.image import contact_sheet, decode_photo, image_path, save_image
from util.worker_processes import available_cores, map_in_processes

VERSION = 1  # of the rendering: raise it when the same seed gives other images
SETTINGS_FILE = "synthetic.json"
SKINS = ((0.98, 0.82, 0.72), (0.93, 0.74, 0.6), (0.82, 0.62, 0.47), (0.66, 0.46, 0.33), (0.46, 0.3, 0.21))
HAIRS = ((0.1, 0.08, 0.07), (0.25, 0.16, 0.1), (0.45, 0.3, 0.17), (0.8, 0.64, 0.36), (0.55, 0.24, 0.12),
         (0.62, 0.6, 0.58))  # fmt: skip


class RenderedPhoto(NamedTuple):
    """A name, pixels uint8 (H,W,3), and keypoints (18,2) of (y, x) in whole pixels, NaN = missing."""

    name: str
    pixels: np.ndarray
    keypoints: np.ndarray

    def save(self, folder: Path) -> None:
        """Write the pixels as a JPEG file below `folder`."""
        atomic_write(folder / self.name, partial(Image.fromarray(self.pixels).save, format="JPEG", quality=95))


def random_color(random: np.random.Generator) -> np.ndarray:
    """A color of clothes in 0..1: mostly a bright one, sometimes black, gray or white."""
    if random.random() < 0.2:
        return np.full(3, random.choice([0.12, 0.3, 0.9])) + random.normal(0, 0.02, 3)
    hue, saturation, value = random.random(), random.uniform(0.55, 1), random.uniform(0.45, 0.95)
    return np.clip(value * (1 - saturation * (0.5 + 0.5 * np.cos(2 * np.pi * (hue + np.array([0, 1, 2]) / 3)))), 0, 1)


def random_cloth(random: np.random.Generator, plain: float) -> Cloth:
    """A cloth; `plain` is the probability that it has no pattern."""
    pattern = "plain" if random.random() < plain else random.choice(body.CLOTH_PATTERNS[1:])
    first, second = random_color(random), random_color(random)
    while np.abs(first - second).sum() < 0.7:  # so that the pattern can be seen
        second = random_color(random)
    size = random.uniform(0.05, 0.12)
    return Cloth(str(pattern), np.clip([first, second, (first + second) / 2], 0, 1), size)


def random_person(random: np.random.Generator) -> SyntheticPerson:
    """Body, hair and clothes of one identity."""
    skirt = random.uniform(0.32, 0.75) if random.random() < 0.28 else 0.0
    top = random_cloth(random, plain=0.4)
    dress = skirt > 0 and random.random() < 0.5
    slender = random.uniform(0.88, 1.12)
    style = random.choice(body.HAIR_STYLES, p=[0.1, 0.6, 0.24, 0.02, 0.04] if skirt else [0.5, 0.2, 0.1, 0.07, 0.13])
    return SyntheticPerson(
        skin=np.array(SKINS[random.integers(len(SKINS))]) * random.uniform(0.95, 1.02),
        hair=np.array(HAIRS[random.integers(len(HAIRS))]), hair_style=str(style), top=top,
        sleeve=float(random.choice([0.0, 0.3, 0.42, 0.93, 1.0], p=[0.12, 0.23, 0.2, 0.25, 0.2])),
        inner=random_color(random) if not dress and random.random() < 0.25 else None,
        bottom=top if dress else random_cloth(random, plain=0.75),
        leg=(1.0 if random.random() < 0.25 else 0.0) if skirt else float(random.choice([0.48, 1.0], p=[0.25, 0.75])),
        skirt=skirt, shoe=random_color(random), bag=random_color(random) if random.random() < 0.3 else None,
        shoulder=0.178 * random.uniform(0.92, 1.04) * (0.95 if skirt else 1.03),
        waist=0.132 * slender, hip=0.158 * (0.5 + 0.5 * slender) * (1.04 if skirt else 0.98),
        girth=slender, height=random.uniform(0.95, 1.03),
    )  # fmt: skip


def random_arm(random: np.random.Generator) -> tuple[float, float, float, float]:
    """The angles of an arm as in `Posture`: forward, sideways, turn, elbow."""
    kind = random.choice(["hang", "hip", "wave", "hold", "out", "back"], p=[0.42, 0.17, 0.11, 0.16, 0.08, 0.06])
    center, spread = {
        "hang": ((2, 9, 10, 16), (10, 5, 15, 10)),
        "hip": ((-18, 42, 68, 92), (5, 6, 6, 8)),
        "wave": ((8, 128, 0, 52), (8, 16, 15, 22)),
        "hold": ((24, 12, 32, 98), (10, 6, 10, 14)),
        "out": ((6, 68, 10, 18), (10, 14, 15, 12)),
        "back": ((-24, 14, 55, 58), (6, 4, 8, 10)),
    }[str(kind)]
    forward, sideways, turn, elbow = random.normal(center, spread)
    return forward, max(sideways, 3), turn, max(elbow, 2)


def random_posture(random: np.random.Generator, view: int) -> Posture:
    """A standing or walking person, seen from `view`, in eighths of a turn: 0 front, 2 side, 4 back."""
    yaw = 45 * view + random.normal(0, 9)
    right, left = random_arm(random), random_arm(random)
    if random.random() < 0.5:  # walking
        phase = random.uniform(0, 2 * np.pi)
        stride = random.uniform(14, 30)
        swing = stride * np.sin([phase, phase + np.pi])
        hip = swing + 3
        knee = 6 + 1.5 * stride * np.clip(np.cos([phase, phase + np.pi]), 0, 1)
        spread = (2.0, 2.0)
        right, left = ((-s * 0.9, max(a[1], 4), a[2], a[3]) if a[1] < 30 else a for s, a in zip(swing, (right, left)))
    else:
        right_spread = random.uniform(2, 13)
        hip = random.normal(3, 3, 2)
        knee = np.abs(random.normal(3, 4, 2))
        spread = (right_spread, random.uniform(2, right_spread + 0.1))
        if random.random() < 0.4:  # stands on one leg, the other is bent
            bent = int(random.integers(2))
            hip[bent] += random.uniform(8, 20)
            knee[bent] += random.uniform(12, 30)
    forward, sideways, turn, elbow = zip(right, left)
    return Posture(
        yaw=yaw, lean=random.normal(2, 3), twist=random.normal(0, 7), head=(random.normal(0, 14), random.normal(4, 5)),
        hip=tuple(hip), spread=spread, knee=tuple(knee),
        arm_forward=forward, arm_sideways=sideways, arm_turn=turn, elbow=elbow,
    )  # fmt: skip


def studio_background(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A light gray backdrop, (H,W,3) in 0..1."""
    height, width = size
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    light = random.uniform(0.82, 0.95) - 0.1 * ((x - 0.5) ** 2 + (y - random.uniform(0.3, 0.6)) ** 2)
    floor = 0.04 * np.clip((y - random.uniform(0.8, 0.88)) / 0.06, 0, 1)
    return np.clip((light - floor)[..., None] * (1 + random.normal(0, 0.012, 3)), 0, 1)


def street_background(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Ground, walls, trees and cars out of focus, in muted colors, (H,W,3) in 0..1.

    All colors are close to one gray: the network's instance normalization sees colors relative to the rest of the
    image, so a colorful background would change how the person appears to it.
    """
    height, width = size

    def tint(base: Sequence[float], spread: float) -> tuple[int, ...]:
        color = np.array(base) + random.normal(0, spread, 3) + random.normal(0, spread)
        return tuple(int(v) for v in np.clip(255 * color, 0, 255))

    image = Image.new("RGB", (width, height), tint((0.64, 0.65, 0.66), 0.012))
    pen = ImageDraw.Draw(image)
    horizon = int(height * random.uniform(0.35, 0.5))
    colors = ((0.46, 0.53, 0.42), (0.62, 0.54, 0.5), (0.55, 0.55, 0.56), (0.7, 0.69, 0.66), (0.45, 0.47, 0.5))
    for _ in range(random.integers(3, 7)):
        left, top = random.uniform(-0.2, 1) * width, random.uniform(-0.1, 0.9) * horizon
        box = (left, top, left + random.uniform(0.15, 0.6) * width, top + random.uniform(0.2, 0.9) * horizon)
        shape = pen.ellipse if random.random() < 0.3 else pen.rectangle
        shape(box, fill=tint(colors[random.integers(len(colors))], 0.015))
    pen.rectangle((0, horizon, width, height), fill=tint((0.54, 0.53, 0.52), 0.012))
    if random.random() < 0.6:  # a curb
        edge = random.uniform(0.6, 0.95) * height
        tilt = random.uniform(-0.1, 0.1) * height
        line = [(0, edge), (width, edge + tilt), (width, edge + tilt + height * 0.03), (0, edge + height * 0.02)]
        pen.polygon(line, fill=tint((0.66, 0.66, 0.64), 0.01))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(height / 40)), float) / 255


class Look(NamedTuple):
    """What distinguishes a data set's photos: background, supersampling, framing, file names."""

    background: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    supersampling: float  # width and height of the rendering, relative to the photo that it is scaled down to
    upper_body: float  # fraction of the photos that end at the thighs
    name: str  # format of a file name; the data set's rule for identities finds {identity} in it


LOOKS = {
    "market": Look(street_background, 3, 0.0, "{identity:04d}_c{camera}s1_{number:06d}_00.jpg"),
    "fashion": Look(studio_background, 1.5, 0.3, "fashion{gender}{clothes}id{identity:08d}01_{number}{view}.jpg"),
}
# The names of the views at 0, 45, 90, ... degrees, as DeepFashion has them.
VIEWS = ("front", "additional", "side", "additional", "back", "additional", "side", "additional")


def random_scene(random: np.random.Generator, dataset_mode: str) -> tuple[SyntheticPerson, np.ndarray]:
    """A person, and the background of all its photos: (H,W,3) in 0..1 at the resolution of the rendering."""
    person = random_person(random)
    look = LOOKS[dataset_mode]
    size = tuple(int(length * look.supersampling) for length in find_dataset(dataset_mode).stored_size)
    return person, look.background(random, size)


def render_photo(
    name: str, person: SyntheticPerson, posture: Posture, background: np.ndarray, size: tuple[int, int],
    random: np.random.Generator, upper_body: bool = False,
) -> RenderedPhoto:  # fmt: skip
    """Render the person over a copy of `background` (H',W',3) and scale the result down to `size` (H, W)."""
    height, width = background.shape[:2]
    skeleton = body.pose_skeleton(person, posture)
    scale = height * random.uniform(0.49, 0.53) * person.height * (1.55 if upper_body else 1.0)  # pixels per meter
    surfaces = body.body_surfaces(person, skeleton, scale)
    lowest = max(points[:, 1].max() for points, _ in surfaces)
    highest = min(points[:, 1].min() for points, _ in surfaces)
    if upper_body:
        y = height * random.uniform(0.05, 0.1) - highest * scale
    else:
        y = height * random.uniform(0.94, 1.02) - lowest * scale
    x = width * (0.5 + random.normal(0, 0.035)) - skeleton.joints[NECK, 0] * scale / 2
    image = background.copy()
    if not upper_body:  # a shadow on the ground
        right = (np.arange(width) - x) / (0.38 * scale)
        down = (np.arange(height) - (y + (lowest - 0.03) * scale)) / (0.09 * scale)
        image *= (1 - 0.4 * np.exp(-1.5 * (right**2 + down[:, None] ** 2)))[..., None]
    depth = body.render(surfaces, image, (x, y), scale)
    large = Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8))
    pixels = np.asarray(large.resize(size[::-1], Image.Resampling.BOX))
    return RenderedPhoto(name, pixels, body.visible_keypoints(skeleton.joints, depth, (x, y), scale, size))


def render_identity(identity: int, dataset_mode: str, photos: int, seed: int) -> list[RenderedPhoto]:
    """All photos of one identity. They depend on the arguments only, not on other identities."""
    random = np.random.default_rng([seed, identity, sorted(LOOKS).index(dataset_mode)])
    person, background = random_scene(random, dataset_mode)
    look, size = LOOKS[dataset_mode], find_dataset(dataset_mode).stored_size
    gender = "WOMEN" if person.skirt else "MEN"
    clothes = "Dresses" if person.bottom is person.top else "Skirts" if person.skirt else "Pants"
    name = partial(look.name.format, identity=identity, gender=gender, clothes=clothes)
    rounds = math.ceil(photos / len(VIEWS))  # every view once, in random order, then again
    views = [int(view) for _ in range(rounds) for view in random.permutation(len(VIEWS))][:photos]
    rendered = []
    for index, view in enumerate(views, start=1):
        posture = random_posture(random, view)
        upper_body = random.random() < look.upper_body
        photo_name = name(number=index, camera=view % 6 + 1, view=VIEWS[view])
        rendered.append(render_photo(photo_name, person, posture, background, size, random, upper_body))
    return rendered


def render_people(out: Path, dataset_mode: str, counts: Sequence[int], photos: int, seed: int, workers: int) -> None:
    """Write the photos of counts[0] training and counts[1] test identities, then the csv files that are missing."""
    dataset = find_dataset(dataset_mode)
    phases = np.repeat(PHASES, counts).tolist()  # of each person
    keypoints: dict[str, dict[str, np.ndarray]] = {phase: {} for phase in PHASES}
    work = partial(render_identity, dataset_mode=dataset_mode, photos=photos, seed=seed)
    people = map_in_processes(work, range(1, len(phases) + 1), workers, "rendering", chunk=1, unit="person")
    for photos_of_person, phase in zip(people, phases):
        for photo in photos_of_person:
            photo.save(out / phase)
            keypoints[phase][photo.name] = photo.keypoints
    for phase, rows in keypoints.items():
        keypoints_csv = out / dataset.keypoints_csv.format(phase=phase)
        pairs_csv = out / dataset.pairs_csv.format(phase=phase)
        if not keypoints_csv.exists():
            write_keypoints(keypoints_csv, rows)
        if not pairs_csv.exists():
            write_pairs(pairs_csv, identity_pairs(rows, dataset.outfit))


def is_rendered(out: Path, dataset: type[PosePairDataset], settings: dict[str, object]) -> bool:
    """Whether `out` holds the whole data set of these `settings`; False if it is missing, empty or incomplete.

    UserError if it was not rendered by this command, or with other settings.
    """
    settings_file = out / SETTINGS_FILE
    if not out.exists() or not any(out.iterdir()):
        return False
    if not settings_file.is_file():
        raise UserError(f"{out}: not empty, and not rendered by this command; give another --out")
    try:
        found = json.loads(settings_file.read_text())
    except ValueError as error:
        raise UserError(f"{settings_file}: cannot be read ({error}); give another --out") from error
    if found != settings:
        raise UserError(
            f"{out}: rendered with other settings ({found}, asked for {settings}); remove it, or give another --out"
        )
    files = file_names(out)
    csv_files = {name.format(phase=phase) for name in (dataset.pairs_csv, dataset.keypoints_csv) for phase in PHASES}
    photos = sum(name.endswith(".jpg") for name in files)
    return csv_files <= files and photos >= sum(settings["identities"]) * settings["poses"]


def make_sheet(out: Path, dataset: type[PosePairDataset]) -> Image.Image:
    """Five training identities, one per row, with up to six photos, each beside its skeleton."""
    rows: dict[str, list[Image.Image]] = {}
    for name, joints in read_keypoints(out / dataset.keypoints_csv.format(phase="train")).items():
        photo = decode_photo(out / "train" / name)
        rows.setdefault(dataset.identity(name), []).extend([photo, draw_skeleton(joints, dataset.stored_size, photo)])
    return contact_sheet([row[:12] for row in list(rows.values())[:5]])


def main() -> None:
    parser = ArgumentParser("python -m data.synthetic", description=__doc__, allow_abbrev=False,
                            formatter_class=RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--dataset_mode", choices=sorted(LOOKS), default="market", help="size, layout and look")
    parser.add_argument("--out", required=True, metavar="DIR", help="data root to create or to complete")
    parser.add_argument("--identities", type=positive_int, default=40, metavar="N", help="training identities")
    parser.add_argument("--test_identities", type=positive_int, default=10, metavar="N", help="test identities")
    parser.add_argument("--poses", type=number(int, 2), default=8, metavar="N", help="photos of each identity")
    parser.add_argument("--seed", type=count, default=0, help="determines the people")
    parser.add_argument("--workers", type=positive_int, default=available_cores(), metavar="N", help="processes")
    parser.add_argument("--sheet", type=image_path, metavar="FILE", help="also write a jpg or png of five identities")
    args = parser.parse_args()
    out, dataset = Path(args.out), find_dataset(args.dataset_mode)
    counts = (args.identities, args.test_identities)
    settings = {"dataset_mode": args.dataset_mode, "identities": list(counts), "poses": args.poses, "seed": args.seed,
                "version": VERSION}  # fmt: skip
    if is_rendered(out, dataset, settings):
        print(f"{out}: exists already")
    else:
        write_text(out / SETTINGS_FILE, json.dumps(settings))
        render_people(out, args.dataset_mode, counts, args.poses, args.seed, args.workers)
        print(f"{sum(counts) * args.poses} photos of {sum(counts)} rendered people in {out}")
    if args.sheet:
        save_image(make_sheet(out, dataset), args.sheet)
