"""Renders a synthetic person: an articulated 3-D body whose skin and clothes are textured tubes, with a depth buffer.

Lengths are in meters. Axes of the image: x to the right, y down, z towards the viewer. Axes of the body and of every
bone: x to the person's own left, y down the bone, z to the front. The projection has no perspective. There are no
triangles: surfaces are sampled more densely than the pixels, and each pixel gets the sample nearest to the viewer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from data.keypoints import EARS, EYES, HIPS, JOINTS, KNEES, NECK, NOSE, NUM_JOINTS, SHOULDERS

DOWN = np.array([0.0, 1.0, 0.0])
LIGHT = np.array([-0.45, -0.6, 0.66], np.float32)  # unit vector towards the light
CAMERA_TILT = 8.0  # degrees by which the camera looks down
SPACING = 0.67  # pixels between neighboring samples: less than 1 / sqrt(2), so that no pixel is missed

# Joint -> its depth in meters below the skin; a surface that lies further in front of the joint hides it.
JOINT_DEPTH = {
    "nose": 0.03, "right eye": 0.03, "left eye": 0.03, "right ear": 0.03, "left ear": 0.03,
    "right elbow": 0.08, "left elbow": 0.08, "right wrist": 0.07, "left wrist": 0.07,
    "right knee": 0.11, "left knee": 0.11, "right ankle": 0.1, "left ankle": 0.1,
}  # fmt: skip

# A function of positions (N,) on a tube: meters `around` it from the middle of its front, and `along` it from its start
SurfaceFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]
# Samples of a surface that face the viewer: points (N,3) in meters and shaded colors (N,3) in 0..1, float32
Surface = tuple[np.ndarray, np.ndarray]

CLOTH_PATTERNS = ("plain", "stripes", "pinstripes", "checks", "dots", "print", "block")
HAIR_STYLES = ("short", "long", "bun", "bald", "cap")


class Cloth(NamedTuple):
    """One of CLOTH_PATTERNS, its three colors (3,3) in 0..1, and the size of one repeat in meters."""

    pattern: str
    colors: np.ndarray
    size: float


def cloth_colors(cloth: Cloth, around: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Colors (...,3) at meters `around` the body from the middle of its front and `along` it from the top."""
    x, y = around / cloth.size, along / cloth.size  # in repeats of the pattern
    match cloth.pattern:
        case "plain":
            color = np.zeros_like(around)
        case "stripes":
            color = y % 1 < 0.5
        case "pinstripes":
            color = x % 1 < 0.3
        case "checks":
            color = (x % 1 < 0.5).astype(int) + (y % 1 < 0.5)
        case "dots":  # every second row is shifted by half a repeat
            color = ((x + np.floor(y) / 2) % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2 < 0.09
        case "print":  # a round badge with a horizontal bar, on the chest
            color = np.where(np.hypot(around, along - 0.2) < 0.085, 1 + (np.abs(along - 0.2) < 0.022), 0)
        case "block":
            color = along > 0.24
    return cloth.colors[color.astype(int)]


@dataclass(frozen=True)
class SyntheticPerson:
    """What all photos of one identity share: body, hair and clothes. Lengths in meters, colors (3,) in 0..1."""

    skin: np.ndarray
    hair: np.ndarray
    hair_style: str  # one of HAIR_STYLES
    top: Cloth
    sleeve: float  # fraction of the arm that the top covers
    inner: np.ndarray | None  # color of the shirt under an open jacket
    bottom: Cloth
    leg: float  # fraction of the leg that trousers cover
    skirt: float  # length of the skirt, 0 for none
    shoe: np.ndarray
    bag: np.ndarray | None  # color of the backpack
    shoulder: float  # half width, like the next two
    waist: float
    hip: float
    girth: float  # thickness of the limbs, relative to an average person
    height: float  # relative to 1.75 m


@dataclass(frozen=True)
class Posture:
    """The angles of a pose in degrees; tuples are (right, left), except `head`.

    With all angles 0 the person stands upright with hanging arms and faces the viewer.
    """

    yaw: float = 0.0  # 90 faces the right edge of the image
    lean: float = 0.0  # forwards
    twist: float = 0.0  # chest against hips
    head: tuple[float, float] = (0.0, 0.0)  # turn, nod
    hip: tuple[float, float] = (0.0, 0.0)  # thigh forwards
    spread: tuple[float, float] = (3.0, 3.0)  # thigh sideways
    knee: tuple[float, float] = (0.0, 0.0)
    arm_forward: tuple[float, float] = (0.0, 0.0)
    arm_sideways: tuple[float, float] = (8.0, 8.0)
    arm_turn: tuple[float, float] = (0.0, 0.0)  # upper arm about its axis, which moves the bent forearm inwards
    elbow: tuple[float, float] = (10.0, 10.0)


def rotation(axis: str, degrees: float) -> np.ndarray:
    """A (3,3) rotation matrix: x turns down to the front, y turns the front to the left, z turns left to down."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rows = {"x": [[1, 0, 0], [0, c, -s], [0, s, c]], "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]]}  # fmt: skip
    return np.array(rows[axis])


class Skeleton(NamedTuple):
    """A posed body: joint positions (18,3) of (x, y, z), and the rotations (3,3) of the bones.

    The origin is the middle between the hips.
    """

    joints: np.ndarray
    pelvis: np.ndarray
    chest: np.ndarray
    head: np.ndarray
    skull: np.ndarray  # position of the top of the head
    arms: list[tuple[np.ndarray, np.ndarray]]  # right, left: (upper arm, forearm)
    legs: list[tuple[np.ndarray, np.ndarray]]  # right, left: (thigh, shin)

    def on_head(self, *offsets: Sequence[float]) -> np.ndarray:
        """Positions (K,3) of points given relative to the top of the head, in the head's axes."""
        return np.stack([self.skull + self.head @ offset for offset in offsets])


SKULL_LENGTH = 0.235
SKULL_AXIS = ((0, 0, 0), (0, 0.5 * SKULL_LENGTH, 0.006), (0, SKULL_LENGTH, 0.012))
SKULL_WIDTH = (0.05, 0.074, 0.079, 0.079 * 0.98, 0.066, 0.04)  # half widths from the top of the head to the chin
SKULL_DEPTH = (0.05, 0.09, 0.1, 0.097, 0.09, 0.062)


def pose_skeleton(person: SyntheticPerson, posture: Posture) -> Skeleton:
    """Forward kinematics: the joints and bones of `person` in `posture`."""
    pelvis = rotation("x", -CAMERA_TILT) @ rotation("y", posture.yaw)
    chest = pelvis @ rotation("y", posture.twist) @ rotation("x", -posture.lean)
    head = chest @ rotation("y", posture.head[0]) @ rotation("x", posture.lean * 0.7 - posture.head[1])
    joints = np.zeros((NUM_JOINTS, 3))
    joints[NECK] = chest @ [0, -0.5, 0]
    skull = joints[NECK] + chest @ [0, -0.09, 0.01] + head @ [0, -SKULL_LENGTH + 0.02, 0.02]
    skeleton = Skeleton(joints, pelvis, chest, head, skull, arms=[], legs=[])
    for side, sign in enumerate((-1, 1)):  # the person's right, left
        shoulder = joints[NECK] + chest @ [sign * person.shoulder, 0.02, 0]
        upper = (chest @ rotation("z", -sign * posture.arm_sideways[side]) @ rotation("x", posture.arm_forward[side])
                 @ rotation("y", -sign * posture.arm_turn[side]))  # fmt: skip
        lower = upper @ rotation("x", posture.elbow[side])
        elbow = shoulder + upper @ DOWN * 0.29
        joints[SHOULDERS[side] : SHOULDERS[side] + 3] = shoulder, elbow, elbow + lower @ DOWN * 0.25
        skeleton.arms.append((upper, lower))

        hip = pelvis @ [sign * 0.6 * person.hip, 0, 0]
        thigh = pelvis @ rotation("z", -sign * posture.spread[side]) @ rotation("x", posture.hip[side])
        shin = thigh @ rotation("x", -posture.knee[side])
        knee = hip + thigh @ DOWN * 0.43
        joints[HIPS[side] : HIPS[side] + 3] = hip, knee, knee + shin @ DOWN * 0.42
        skeleton.legs.append((thigh, shin))

        eye, ear = (sign * 0.031, 0.47 * SKULL_LENGTH, 0.086), (sign * 0.085, 0.54 * SKULL_LENGTH, 0)
        joints[[EYES[side], EARS[side]]] = skeleton.on_head(eye, ear)
    joints[NOSE] = skull + head @ [0, 0.63 * SKULL_LENGTH, 0.115]
    return skeleton


def tube(
    axis: Sequence[np.ndarray], left: np.ndarray | Sequence[np.ndarray], width: Sequence[float],
    depth: Sequence[float], texture: SurfaceFunction | np.ndarray, scale: float,
    exists: SurfaceFunction | None = None, ends: tuple[float, float] = (0.04, 0.04),
) -> Surface:  # fmt: skip
    """A tube with elliptical cross-sections and round ends, sampled for `scale` pixels per meter.

    axis: (K,3) points of the center line; left: direction of the person's left, (K,3) at these points or (3,) for all;
    width, depth: half widths at equal steps along the line; ends: lengths of the two round ends. `texture` is one
    color (3,) or gives the colors (N,3) of samples; `exists` gives a mask (N,) of those that belong to the surface.
    """
    step = SPACING / scale
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(axis, axis=0), axis=1))])
    along = _sample_positions(lengths[-1], ends, max(*width, *depth), step)
    line = PchipInterpolator(lengths, axis)(along)
    tangent = np.gradient(line, along, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = PchipInterpolator(lengths, np.broadcast_to(left, (len(axis), 3)))(along)
    side -= (side * tangent).sum(1, keepdims=True) * tangent
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    front = np.cross(side, tangent)
    a, b = (PchipInterpolator(np.linspace(0, lengths[-1], len(half)), half)(along) for half in (width, depth))
    for distance, end in ((along, ends[0]), (lengths[-1] - along, ends[1])):
        if end:
            rounding = np.sqrt(1 - (1 - np.minimum(distance / end, 1)) ** 2)
            a, b = a * rounding, b * rounding
    angle = np.linspace(-np.pi, np.pi, max(8, int(2 * np.pi * max(a.max(), b.max()) / step)), endpoint=False)

    a_slope, b_slope = np.gradient(a, along), np.gradient(b, along)
    fields = (line, side, front, tangent, a, b, a_slope, b_slope, angle)  # float32: from here on arrays are large
    line, side, front, tangent, a, b, a_slope, b_slope, angle = (field.astype(np.float32) for field in fields)

    # The surface normal is across * side + ahead * front - slope * tangent.
    sin, cos = np.sin(angle), np.cos(angle)
    across, ahead = b[:, None] * sin, a[:, None] * cos
    slope = a_slope[:, None] * across * sin + b_slope[:, None] * ahead * cos
    facing = across * side[:, 2:] + ahead * front[:, 2:] - slope * tangent[:, 2:]  # towards the viewer
    row, column = np.nonzero(facing > 0)
    around, along = (angle * (a.mean() + b.mean()) / 2)[column], along[row]
    if exists is not None:
        kept = exists(around, along)
        row, column, around, along = row[kept], column[kept], around[kept], along[kept]
    normal = [field[row, column] for field in (across, ahead, slope)]
    length = np.sqrt(sum(component**2 for component in normal)) + 1e-12
    lit = sum(n * (direction @ LIGHT)[row] for n, direction in zip(normal, (side, front, -tangent))) / length
    shade = 0.62 + 0.42 * np.maximum(lit, 0) - 0.12 * (1 - facing[row, column] / length) ** 2
    points = line[row] + (a[row] * sin[column])[:, None] * side[row] + (b[row] * cos[column])[:, None] * front[row]
    colors = texture(around, along) if callable(texture) else texture
    return points.astype(np.float32), (colors * shade[:, None]).astype(np.float32)


def _sample_positions(length: float, ends: tuple[float, float], radius: float, step: float) -> np.ndarray:
    """Sample positions along a tube: at equal distances, but at equal angles on the round ends, which are steep."""
    caps = [end * (1 - np.cos(np.linspace(0, np.pi / 2, 2 + int(1.6 * max(radius, end) / step)))) for end in ends]
    middle = np.linspace(ends[0], length - ends[1], 2 + int((length - sum(ends)) / step * 1.1))
    along = np.concatenate([caps[0][:-1] if ends[0] else [], middle, length - caps[1][-2::-1] if ends[1] else []])
    return along[np.diff(along, prepend=-1) > 1e-9]  # drops duplicates: a ball has round ends but no middle


def body_surfaces(person: SyntheticPerson, skeleton: Skeleton, scale: float) -> list[Surface]:
    """Skin, clothes, hair, shoes and bag of a posed person, sampled for `scale` pixels per meter."""
    surfaces = [_torso(person, skeleton, scale), *_head(person, skeleton, scale)]
    if person.hair_style != "bald":
        surfaces += _hair(person, skeleton, scale)
    for side in range(2):
        surfaces += [*_arm(person, skeleton, side, scale), *_leg(person, skeleton, side, scale)]
    if person.skirt:
        surfaces.append(_skirt(person, skeleton, scale))
    if person.bag is not None:
        surfaces.append(_backpack(person, skeleton, scale))
    return surfaces


def _torso(person: SyntheticPerson, skeleton: Skeleton, scale: float) -> Surface:
    neck, chest, pelvis = skeleton.joints[NECK], skeleton.chest, skeleton.pelvis
    bend = neck / 2 + pelvis @ [0, 0, -0.012]
    axis = [neck + chest @ [0, -0.055, -0.01], neck, bend, np.zeros(3), pelvis @ [0, 0.09, 0]]
    left = [chest[:, 0]] * 2 + [chest[:, 0] + pelvis[:, 0]] + [pelvis[:, 0]] * 2
    waist, hip, shoulder = person.waist, person.hip, person.shoulder
    width = [0.06, shoulder * 0.86, shoulder * 0.95, waist * 1.12, waist, hip * 0.97, hip, hip * 0.8]
    depth = [0.055, 0.085, 0.118, 0.108, 0.1, 0.115, 0.122, 0.1]

    def texture(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        colors = cloth_colors(person.top, around, along)
        if person.inner is not None:
            colors = np.where((np.abs(around) < 0.035 + 0.03 * along)[:, None], person.inner, colors)
        if person.bag is not None:
            strap = (np.abs(np.abs(around) - 0.095) < 0.018) & (along < 0.36)
            colors = np.where(strap[:, None], person.bag, colors)
        neckline = along < 0.055 + 0.05 * np.clip(1 - np.abs(around) / 0.07, 0, 1)
        colors = np.where(neckline[:, None], person.skin, colors)
        hem = 0.36 if person.skirt else 0.52
        return np.where((along > hem)[:, None], cloth_colors(person.bottom, around, along - hem), colors)

    return tube(axis, left, width, depth, texture, scale, ends=(0.0, 0.08))


def _dress_limb(
    person: SyntheticPerson, cloth: Cloth, covered: float, length: float, radii: Sequence[float], thickness: float
) -> tuple[list[float], SurfaceFunction]:
    """Half widths and texture of an arm or leg. `cloth` of `thickness` covers the first fraction `covered` of its
    `length`; `radii` are the half widths of the bare limb at seven steps, for a girth of 1."""
    steps = (0, 0.16, 0.33, 0.5, 0.66, 0.83, 1)
    width = [radius * person.girth + (thickness if step < covered else 0.0) for radius, step in zip(radii, steps)]

    def texture(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        return np.where((along < covered * length)[:, None], cloth_colors(cloth, around, along), person.skin)

    return width, texture


def _bent_joint(
    joint: np.ndarray, bone: np.ndarray, radius: float, texture: SurfaceFunction, along_limb: float, scale: float
) -> Surface:
    """A ball that fills the gap outside a bent elbow or knee. Its texture is that of the limb at `along_limb`."""
    axis = [joint + bone @ DOWN * t for t in (-radius, 0, radius)]
    return tube(axis, bone[:, 0], [radius] * 2, [radius] * 2, scale=scale, ends=(radius, radius),
                texture=lambda around, along: texture(around, along - radius + along_limb))  # fmt: skip


def _arm(person: SyntheticPerson, skeleton: Skeleton, side: int, scale: float) -> Iterator[Surface]:
    shoulder, elbow, wrist = skeleton.joints[SHOULDERS[side] : SHOULDERS[side] + 3]
    upper, lower = skeleton.arms[side]
    radii = (0.044, 0.05, 0.046, 0.041, 0.042, 0.034, 0.026)
    width, texture = _dress_limb(person, person.top, person.sleeve, 0.58, radii, 0.01)
    axis = [shoulder + upper @ DOWN * -0.03, (shoulder + elbow) / 2, elbow, (elbow + wrist) / 2, wrist]
    left = [upper[:, 0]] * 3 + [lower[:, 0]] * 2
    hand = [wrist + lower @ DOWN * t for t in (-0.01, 0.04, 0.09, 0.16)]
    yield tube(axis, left, width, width, texture, scale, ends=(0.05, 0.0))
    yield _bent_joint(elbow, upper, width[3], texture, 0.32, scale)
    width, depth = [0.02, 0.024, 0.026, 0.018], [0.026, 0.04, 0.042, 0.024]
    yield tube(hand, lower[:, 0], width, depth, person.skin * 0.97, scale, ends=(0.0, 0.03))


def _leg(person: SyntheticPerson, skeleton: Skeleton, side: int, scale: float) -> Iterator[Surface]:
    hip, knee, ankle = skeleton.joints[HIPS[side] : HIPS[side] + 3]
    thigh, shin = skeleton.legs[side]
    radii = (0.085, 0.09, 0.074, 0.056, 0.056, 0.042, 0.034)
    width, texture = _dress_limb(person, person.bottom, person.leg, 0.9, radii, 0.012)
    axis = [hip + thigh @ DOWN * -0.05, (hip + knee) / 2, knee, (knee + ankle) / 2, ankle + shin @ DOWN * 0.03]
    left = [thigh[:, 0]] * 3 + [shin[:, 0]] * 2
    # The foot stays nearly level with the ground, but turns with the shin when that swings back.
    forward = skeleton.pelvis @ np.array([(-1, 1)[side] * 0.2, 0, 1]) * 0.75 + shin[:, 2] * 0.5
    forward /= np.linalg.norm(forward)
    sole = ankle + shin @ DOWN * 0.035
    shoe = [sole + forward * t + DOWN * d for t, d in ((-0.075, 0.005), (0, 0.002), (0.1, 0.012), (0.185, 0.02))]

    def shoe_texture(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        upper = np.abs(around) > 0.07  # the front of this tube is the sole of the shoe
        return np.where(upper[:, None], person.shoe, person.shoe * 0.35 + 0.25)

    yield tube(axis, left, width, width, texture, scale, lambda around, along: along > 0.8 * person.skirt, (0.06, 0.0))
    if person.skirt <= 0.55:
        yield _bent_joint(knee, thigh, width[3], texture, 0.48, scale)
    width, depth = [0.034, 0.042, 0.048, 0.03], [0.055, 0.058, 0.036, 0.024]
    yield tube(shoe, -skeleton.pelvis[:, 0], width, depth, shoe_texture, scale, ends=(0.03, 0.04))


def _head(person: SyntheticPerson, skeleton: Skeleton, scale: float) -> Iterator[Surface]:
    left, skin = skeleton.head[:, 0], person.skin

    def face(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        x, y = around / 0.078, along / SKULL_LENGTH
        colors = np.tile(skin, (len(around), 1))
        for center in (-0.42, 0.42):
            colors[np.hypot((x - center) / 0.19, (y - 0.475) / 0.032) < 1] = (0.95, 0.94, 0.92)  # white of the eye
            colors[np.hypot((x - center) / 0.09, (y - 0.475) / 0.034) < 1] = (0.16, 0.1, 0.07)  # iris
            brow = (np.abs(x - center) < 0.22) & (np.abs(y - 0.405) < 0.014)
            colors[brow] = person.hair * 0.7
        colors[np.hypot(x / 0.3, (y - 0.8) / 0.022) < 1] = skin * (0.82, 0.5, 0.5)  # mouth
        colors[np.hypot(x / 0.16, (y - 0.67) / 0.02) < 1] = skin * 0.78  # nostrils
        return colors

    neck = [skeleton.on_head((0, 0.17, -0.015))[0], skeleton.joints[NECK] + skeleton.chest @ [0, 0.0, -0.005]]
    nose = skeleton.on_head((0, 0.115, 0.1), (0, 0.15, 0.118), (0, 0.165, 0.095))
    yield tube(neck, [left, skeleton.chest[:, 0]], [0.052, 0.055, 0.065], [0.055, 0.055, 0.06], skin * 0.93, scale)
    yield tube(skeleton.on_head(*SKULL_AXIS), left, SKULL_WIDTH, SKULL_DEPTH, face, scale, ends=(0.09, 0.035))
    yield tube(nose, left, [0.01, 0.016, 0.012], [0.01, 0.012, 0.008], skin * 1.03, scale, ends=(0.02, 0.01))
    for sign in (-1, 1):
        ear = skeleton.on_head(*((sign * 0.082, y, -0.005) for y in (0.1, 0.125, 0.155)))
        yield tube(ear, left, [0.012] * 3, [0.018, 0.02, 0.012], skin * 0.95, scale, ends=(0.02, 0.02))


def _hair(person: SyntheticPerson, skeleton: Skeleton, scale: float) -> Iterator[Surface]:
    """Hair, or a cap in the color of the backpack or else of the shoes."""

    def strands(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        streak = 0.92 + 0.08 * np.sin(around * 420) + 0.05 * np.sin(around * 150 + along * 20)
        return person.hair * streak[:, None]

    def covers(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        turn = np.abs(around) / (np.pi * 0.088)  # 0 at the front, 1 at the back
        line = np.interp(turn, [0, 0.18, 0.3, 0.42, 0.52, 0.62, 1], [0.06, 0.062, 0.085, 0.13, 0.135, 0.17, 0.2])
        return along < line + 0.012

    texture = strands
    if person.hair_style == "cap":
        texture = person.shoe if person.bag is None else person.bag
    left, skull = skeleton.head[:, 0], skeleton.on_head(*SKULL_AXIS)
    width, depth = ([radius + 0.012 for radius in radii] for radii in (SKULL_WIDTH, SKULL_DEPTH))
    yield tube(skull + (skull[0] - skull[1]) * 0.1, left, width, depth, texture, scale, covers, (0.09, 0.03))
    if person.hair_style == "long":
        shoulders = skeleton.joints[NECK] + skeleton.chest @ [0, 0.13, -0.115]
        fall = [*skeleton.on_head((0, 0.07, -0.055), (0, 0.2, -0.08)), shoulders]
        width, depth = [0.085, 0.098, 0.085, 0.06], [0.055, 0.05, 0.035, 0.02]
        yield tube(fall, left, width, depth, strands, scale, ends=(0.05, 0.06))
        for sign in (-1, 1):
            lock = skeleton.on_head((sign * 0.072, 0.08, 0.01), (sign * 0.088, 0.2, 0.01), (sign * 0.085, 0.29, 0.012))
            yield tube(lock, left, [0.02, 0.024, 0.014], [0.045, 0.05, 0.025], strands, scale)
    if person.hair_style == "bun":
        knot = skeleton.on_head((0, 0.0, -0.1), (0, 0.045, -0.115), (0, 0.09, -0.1))
        yield tube(knot, left, [0.04, 0.05, 0.04], [0.04, 0.045, 0.04], strands, scale)
    if person.hair_style == "cap":
        brim = skeleton.on_head((0, 0.068, 0.06), (0, 0.075, 0.12), (0, 0.088, 0.185))
        yield tube(brim, -left, [0.075, 0.075, 0.05], [0.012, 0.01, 0.006], texture, scale, ends=(0.01, 0.03))


def _skirt(person: SyntheticPerson, skeleton: Skeleton, scale: float) -> Surface:
    knees = skeleton.joints[KNEES]
    reach = min(person.skirt / 0.5, 1)  # how far the skirt follows the knees, 0..1
    direction = knees.mean(axis=0) * reach * 0.85
    end = direction / np.linalg.norm(direction) * person.skirt
    apart = np.abs((knees[1] - knees[0]) @ skeleton.pelvis)  # in the directions left, down, front
    flare = 0.1 * person.skirt
    lower_width = person.hip + 0.03 + flare * 1.6 + apart[0] * 0.12
    width = [person.waist + 0.012, person.hip + 0.018, person.hip + 0.02 + flare, lower_width]
    depth = [0.115, 0.14, 0.145 + flare + apart[2] * 0.25 * reach, 0.14 + flare * 1.5 + apart[2] * 0.5 * reach]
    axis = [skeleton.joints[NECK] * 0.22, np.zeros(3), end / 2, end]
    return tube(axis, skeleton.pelvis[:, 0], width, depth, partial(cloth_colors, person.bottom), scale, ends=(0.0, 0.0))


def _backpack(person: SyntheticPerson, skeleton: Skeleton, scale: float) -> Surface:
    axis = [skeleton.joints[NECK] + skeleton.chest @ [0, y, -0.165] for y in (0.02, 0.2, 0.4)]

    def texture(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        pocket = (along > 0.22) & (along < 0.235)
        return np.where(pocket[:, None], person.bag * 0.5, person.bag)

    width, depth = [0.11, 0.135, 0.14, 0.135], [0.06, 0.075, 0.085, 0.08]
    return tube(axis, skeleton.chest[:, 0], width, depth, texture, scale)


def render(surfaces: list[Surface], image: np.ndarray, origin: tuple[float, float], scale: float) -> np.ndarray:
    """Render surfaces over `image` (H,W,3) in 0..1, in-place, and return the depth buffer (H,W) in meters.

    `origin`: the (x, y) in pixels of the body's origin; `scale`: pixels per meter. The depth of pixels without a
    surface is -inf.
    """
    height, width = image.shape[:2]
    points, colors = (np.concatenate(arrays) for arrays in zip(*surfaces))
    column, row = (np.floor(points[:, i] * scale + origin[i]).astype(np.int32) for i in range(2))
    inside = np.nonzero((column >= 0) & (column < width) & (row >= 0) & (row < height))[0]
    order = inside[np.argsort(points[inside, 2], kind="stable")]  # stable: equal depths have one order everywhere
    index = (row * width + column)[order]
    image.reshape(-1, 3)[index] = colors[order]  # of several samples in one pixel the last, nearest one remains
    depth = np.full(height * width, -np.inf, np.float32)
    depth[index] = points[order, 2]
    return depth.reshape(height, width)


def visible_keypoints(
    joints: np.ndarray, depth: np.ndarray, origin: tuple[float, float], scale: float, size: tuple[int, int]
) -> np.ndarray:
    """Keypoints (18,2) of (y, x) in whole pixels of an image of `size` (H, W), NaN for joints outside it or hidden.

    `depth` is the depth buffer of the larger image that was rendered. Neck, shoulders and hips are never hidden,
    because pose estimators infer them from the outline of the body.
    """
    keypoints = np.full((NUM_JOINTS, 2), np.nan)
    supersampling = depth.shape[0] / size[0]
    for joint, (x, y, z) in enumerate(joints):
        column, row = x * scale + origin[0], y * scale + origin[1]
        if not (0 <= column < depth.shape[1] and 0 <= row < depth.shape[0]):
            continue
        if depth[int(row), int(column)] - z <= JOINT_DEPTH.get(JOINTS[joint], np.inf):
            keypoints[joint] = int(row / supersampling), int(column / supersampling)
    return keypoints
