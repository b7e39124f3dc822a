"""Renders a synthetic person: an articulated 3-D body whose skin and clothes are textured tubes, with a depth buffer.

Lengths are in meters. Axes of the image: x to the right, y down, z towards the viewer. Axes of the body and of every
bone: x to the person's own left, y down the bone, z to the front. The projection has no perspective. There are no
triangles: surfaces are sampled more densely than the pixels, and each pixel gets the sample nearest to the viewer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from data.keypoints import NUM_JOINTS

DOWN = np.array([0.0, 1.0, 0.0])
LIGHT = np.array([-0.45, -0.6, 0.66], np.float32)  # unit vector towards the light
CAMERA_TILT = 8.0  # degrees by which the camera looks down
SPACING = 0.67  # pixels between neighboring samples: less than 1 / sqrt(2), so that no pixel is missed

NECK, HIPS, SHOULDERS = 1, (8, 11), (2, 5)
# Joint -> its depth in meters below the skin; a surface that lies further in front of the joint hides it.
JOINT_DEPTH = {0: 0.03, 14: 0.03, 15: 0.03, 16: 0.03, 17: 0.03, 3: 0.08, 6: 0.08, 4: 0.07, 7: 0.07,
               9: 0.11, 12: 0.11, 10: 0.1, 13: 0.1}  # fmt: skip

# A function of the position on a tube, in meters `around` it from the middle of its front and `along` it from its start
SurfaceFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Cloth(NamedTuple):
    """A pattern of `CLOTH_PATTERNS`, its three colors (3,3) in 0..1, and the size of one repeat in meters."""

    pattern: str
    colors: np.ndarray
    size: float


def _stripes(around: np.ndarray, along: np.ndarray, size: float) -> np.ndarray:
    return (along / size % 1 < 0.5).astype(int)


def _pinstripes(around: np.ndarray, along: np.ndarray, size: float) -> np.ndarray:
    return (around / size % 1 < 0.3).astype(int)


def _checks(around: np.ndarray, along: np.ndarray, size: float) -> np.ndarray:
    return (around / size % 1 < 0.5).astype(int) + (along / size % 1 < 0.5)


def _dots(around: np.ndarray, along: np.ndarray, size: float) -> np.ndarray:
    row = np.floor(along / size)
    return ((((around / size + row / 2) % 1) - 0.5) ** 2 + (along / size % 1 - 0.5) ** 2 < 0.09).astype(int)


def _print(around: np.ndarray, along: np.ndarray, size: float) -> np.ndarray:
    """A round badge with a horizontal bar, on the chest."""
    radius = np.hypot(around, along - 0.2)
    return np.where(radius < 0.085, 1 + (np.abs(along - 0.2) < 0.022), 0)


def _block(around: np.ndarray, along: np.ndarray, size: float) -> np.ndarray:
    return (along > 0.24).astype(int)


def _plain(around: np.ndarray, along: np.ndarray, size: float) -> np.ndarray:
    return np.zeros(np.broadcast_shapes(around.shape, along.shape), int)


CLOTH_PATTERNS = {"plain": _plain, "stripes": _stripes, "pinstripes": _pinstripes, "checks": _checks, "dots": _dots,
                  "print": _print, "block": _block}  # fmt: skip


def cloth_colors(cloth: Cloth, around: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Colors (...,3) at meters `around` the body from the middle of its front and `along` it from the top."""
    return cloth.colors[CLOTH_PATTERNS[cloth.pattern](around, along, cloth.size)]


@dataclass(frozen=True)
class SyntheticPerson:
    """What all photos of one identity share: body, hair and clothes. Lengths in meters, colors in 0..1."""

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
    bag: np.ndarray | None
    shoulder: float = 0.18  # half width, as the next two
    waist: float = 0.14
    hip: float = 0.165
    girth: float = 1.0  # thickness of the limbs, relative
    height: float = 1.0  # relative to 1.75 m


HAIR_STYLES = ("short", "long", "bun", "bald", "cap")


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


@dataclass
class Skeleton:
    """A posed body: joint positions (18,3) of (x, y, z), and the rotations (3,3) of the bones."""

    joints: np.ndarray
    pelvis: np.ndarray
    chest: np.ndarray
    head: np.ndarray
    hip_center: np.ndarray
    skull: np.ndarray  # position of the top of the head
    arms: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # right, left: (upper arm, forearm)
    legs: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # right, left: (thigh, shin)


SKULL_LENGTH, SKULL_WIDTH, SKULL_DEPTH = 0.235, 0.079, 0.1


def pose_skeleton(person: SyntheticPerson, posture: Posture) -> Skeleton:
    """Forward kinematics. The origin is the middle between the hips."""
    pelvis = rotation("x", -CAMERA_TILT) @ rotation("y", posture.yaw)
    chest = pelvis @ rotation("y", posture.twist) @ rotation("x", -posture.lean)
    head = chest @ rotation("y", posture.head[0]) @ rotation("x", posture.lean * 0.7 - posture.head[1])
    joints = np.zeros((NUM_JOINTS, 3))
    joints[NECK] = chest @ [0, -0.5, 0]
    skull = joints[NECK] + chest @ [0, -0.09, 0.01] + head @ [0, -SKULL_LENGTH + 0.02, 0.02]
    skeleton = Skeleton(joints, pelvis, chest, head, np.zeros(3), skull)
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

        joints[(14, 15)[side]] = skull + head @ [sign * 0.031, 0.47 * SKULL_LENGTH, 0.086]
        joints[(16, 17)[side]] = skull + head @ [sign * 0.085, 0.54 * SKULL_LENGTH, 0]
    joints[0] = skull + head @ [0, 0.63 * SKULL_LENGTH, 0.115]
    return skeleton


class Surface(NamedTuple):
    """Samples of a surface that face the viewer: points (N,3) in meters and shaded colors (N,3) in 0..1, float32."""

    points: np.ndarray
    colors: np.ndarray


def tube(
    axis: np.ndarray, left: np.ndarray, width: Sequence[float], depth: Sequence[float], texture: SurfaceFunction,
    scale: float, exists: SurfaceFunction | None = None, ends: tuple[float, float] = (0.04, 0.04),
) -> Surface:  # fmt: skip
    """A limb with elliptical cross-sections and round ends, sampled for `scale` pixels per meter.

    axis: (K,3) points of the center line; left: (K,3) direction of the person's left at these points; width, depth:
    half widths at equal steps along the line; ends: lengths of the two round ends. `texture` gives the colors (N,3) of
    samples, `exists` (N,) whether they are part of the surface.
    """
    step = SPACING / scale
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(axis, axis=0), axis=1))])
    along = _sample_positions(lengths[-1], ends, max(*width, *depth), step)
    line = PchipInterpolator(lengths, axis)(along)
    tangent = np.gradient(line, along, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = PchipInterpolator(lengths, left)(along)
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
    return Surface(points.astype(np.float32), (texture(around, along) * shade[:, None]).astype(np.float32))


def _sample_positions(length: float, ends: tuple[float, float], radius: float, step: float) -> np.ndarray:
    """Sample positions along a tube: at equal distances, but at equal angles on the round ends, which are steep."""
    caps = [end * (1 - np.cos(np.linspace(0, np.pi / 2, 2 + int(1.6 * max(radius, end) / step)))) for end in ends]
    middle = np.linspace(ends[0], length - ends[1], 2 + int((length - sum(ends)) / step * 1.1))
    sections = [caps[0][:-1] if ends[0] else [], middle, (length - caps[1][-2::-1]) if ends[1] else []]
    along = np.concatenate(sections)
    return along[np.diff(along, prepend=-1) > 1e-9]  # drops duplicates: a ball has round ends but no middle


def body_surfaces(person: SyntheticPerson, skeleton: Skeleton, scale: float) -> list[Surface]:
    """Skin, clothes, hair, shoes and bag of a posed person, sampled for `scale` pixels per meter."""
    surfaces = [_torso(person, skeleton, scale), *_head(person, skeleton, scale)]
    for side in range(2):
        surfaces += _arm(person, skeleton, side, scale) + _leg(person, skeleton, side, scale)
    if person.skirt:
        surfaces.append(_skirt(person, skeleton, scale))
    if person.bag is not None:
        surfaces.append(_backpack(person, skeleton, scale))
    return surfaces


def _plain_texture(color: np.ndarray) -> SurfaceFunction:
    return lambda around, along: np.broadcast_to(color, (*around.shape, 3))


def _bent_joint(
    joint: np.ndarray, bone: np.ndarray, radius: float, texture: SurfaceFunction, along: float, scale: float
) -> Surface:
    """A ball that fills the gap outside a bent elbow or knee. Its texture is that of the limb at `along`."""
    axis = np.stack([joint + bone @ DOWN * t for t in (-radius, 0, radius)])

    def limb_texture(around: np.ndarray, from_top: np.ndarray) -> np.ndarray:
        return texture(around, from_top - radius + along)

    left = np.stack([bone[:, 0]] * 3)
    return tube(axis, left, [radius] * 2, [radius] * 2, limb_texture, scale, ends=(radius, radius))


def _torso(person: SyntheticPerson, skeleton: Skeleton, scale: float) -> Surface:
    neck, hips = skeleton.joints[NECK], skeleton.hip_center
    bend = (neck + hips) / 2 + skeleton.pelvis @ [0, 0, -0.012]
    axis = np.stack(
        [neck + skeleton.chest @ [0, -0.055, -0.01], neck, bend, hips, hips + skeleton.pelvis @ [0, 0.09, 0]]
    )
    left = np.stack(
        [skeleton.chest[:, 0]] * 2 + [skeleton.chest[:, 0] + skeleton.pelvis[:, 0]] + [skeleton.pelvis[:, 0]] * 2
    )
    waist, hip, shoulder = person.waist, person.hip, person.shoulder
    width = [0.06, shoulder * 0.86, shoulder * 0.95, waist * 1.12, waist, hip * 0.97, hip, hip * 0.8]
    depth = [0.055, 0.085, 0.118, 0.108, 0.1, 0.115, 0.122, 0.1]

    def texture(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        colors = cloth_colors(person.top, around, along)
        if person.inner is not None:
            colors = np.where((np.abs(around) < 0.035 + 0.03 * along)[..., None], person.inner, colors)
        if person.bag is not None:
            strap = (np.abs(np.abs(around) - 0.095) < 0.018) & (along < 0.36)
            colors = np.where(strap[..., None], person.bag, colors)
        neckline = along < 0.055 + 0.05 * np.clip(1 - np.abs(around) / 0.07, 0, 1)
        colors = np.where(neckline[..., None], person.skin, colors)
        hem = 0.36 if person.skirt else 0.52
        return np.where((along > hem)[..., None], cloth_colors(person.bottom, around, along - hem), colors)

    return tube(axis, left, width, depth, texture, scale, ends=(0.0, 0.08))


def _arm(person: SyntheticPerson, skeleton: Skeleton, side: int, scale: float) -> list[Surface]:
    shoulder, elbow, wrist = skeleton.joints[SHOULDERS[side] : SHOULDERS[side] + 3]
    upper, lower = skeleton.arms[side]
    length, girth = 0.58, person.girth
    cover = person.sleeve * length

    def texture(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        return np.where((along < cover)[..., None], cloth_colors(person.top, around, along), person.skin)

    loose = [0.01 if t < person.sleeve else 0.0 for t in (0, 0.16, 0.33, 0.5, 0.66, 0.83, 1)]
    width = [r * girth + extra for r, extra in zip((0.044, 0.05, 0.046, 0.041, 0.042, 0.034, 0.026), loose)]
    axis = np.stack([shoulder + upper @ DOWN * -0.03, (shoulder + elbow) / 2, elbow, (elbow + wrist) / 2, wrist])
    left = np.stack([upper[:, 0]] * 2 + [upper[:, 0]] + [lower[:, 0]] * 2)
    hand = np.stack([wrist + lower @ DOWN * t for t in (-0.01, 0.04, 0.09, 0.16)])
    return [
        tube(axis, left, width, width, texture, scale, ends=(0.05, 0.0)),
        _bent_joint(elbow, upper, width[3], texture, 0.32, scale),
        tube(hand, np.stack([lower[:, 0]] * 4), [0.02, 0.024, 0.026, 0.018], [0.026, 0.04, 0.042, 0.024],
             _plain_texture(person.skin * 0.97), scale, ends=(0.0, 0.03)),
    ]  # fmt: skip


def _leg(person: SyntheticPerson, skeleton: Skeleton, side: int, scale: float) -> list[Surface]:
    hip, knee, ankle = skeleton.joints[HIPS[side] : HIPS[side] + 3]
    thigh, shin = skeleton.legs[side]
    length, girth = 0.9, person.girth
    cover = person.leg * length

    def texture(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        return np.where((along < cover)[..., None], cloth_colors(person.bottom, around, along), person.skin)

    loose = [0.012 if t < person.leg else 0.0 for t in (0, 0.16, 0.33, 0.5, 0.66, 0.83, 1)]
    radii = (0.085, 0.09, 0.074, 0.056, 0.056, 0.042, 0.034)
    width = [r * girth + extra for r, extra in zip(radii, loose)]
    axis = np.stack(
        [hip + thigh @ DOWN * -0.05, (hip + knee) / 2, knee, (knee + ankle) / 2, ankle + shin @ DOWN * 0.03]
    )
    left = np.stack([thigh[:, 0]] * 3 + [shin[:, 0]] * 2)
    # The foot stays nearly level with the ground, but turns with the shin when that swings back.
    forward = skeleton.pelvis @ np.array([(-1, 1)[side] * 0.2, 0, 1]) * 0.75 + shin[:, 2] * 0.5
    forward /= np.linalg.norm(forward)
    sole = ankle + shin @ DOWN * 0.035
    shoe = np.stack(
        [sole + forward * t + DOWN * d for t, d in ((-0.075, 0.005), (0, 0.002), (0.1, 0.012), (0.185, 0.02))]
    )

    def shoe_texture(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        upper = np.abs(around) > 0.07  # the front of this tube is the sole of the shoe
        return np.where(upper[..., None], person.shoe, person.shoe * 0.35 + 0.25)

    def below_skirt(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        return along > 0.8 * person.skirt

    return [
        tube(axis, left, width, width, texture, scale, below_skirt, ends=(0.06, 0.0)),
        *([] if person.skirt > 0.55 else [_bent_joint(knee, thigh, width[3], texture, 0.48, scale)]),
        tube(shoe, np.stack([-skeleton.pelvis[:, 0]] * 4), [0.034, 0.042, 0.048, 0.03], [0.055, 0.058, 0.036, 0.024],
             shoe_texture, scale, ends=(0.03, 0.04)),
    ]  # fmt: skip


def _head(person: SyntheticPerson, skeleton: Skeleton, scale: float) -> list[Surface]:
    frame = skeleton.head

    def at(x: float, y: float, z: float) -> np.ndarray:
        return skeleton.skull + frame @ [x, y, z]

    neck = np.stack([at(0, 0.17, -0.015), skeleton.joints[NECK] + skeleton.chest @ [0, 0.0, -0.005]])
    chest_left = np.stack([frame[:, 0], skeleton.chest[:, 0]])
    middle = np.stack([at(0, t * SKULL_LENGTH, 0.012 * t) for t in (0, 0.5, 1)])
    left = np.stack([frame[:, 0]] * 3)
    width = [0.05, 0.074, SKULL_WIDTH, SKULL_WIDTH * 0.98, 0.066, 0.04]
    depth = [0.05, 0.09, SKULL_DEPTH, 0.097, 0.09, 0.062]

    def face(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        x, y = around / 0.078, along / SKULL_LENGTH
        colors = np.broadcast_to(person.skin, (*around.shape, 3)).copy()
        for center in (-0.42, 0.42):
            eye = np.hypot((x - center) / 0.19, (y - 0.475) / 0.032)
            colors[eye < 1] = (0.95, 0.94, 0.92)
            colors[np.hypot((x - center) / 0.09, (y - 0.475) / 0.034) < 1] = (0.16, 0.1, 0.07)
            brow = (np.abs(x - center) < 0.22) & (np.abs(y - 0.405) < 0.014)
            colors[brow] = person.hair * 0.7
        colors[np.hypot(x / 0.3, (y - 0.8) / 0.022) < 1] = person.skin * (0.82, 0.5, 0.5)
        nostril = np.hypot(x / 0.16, (y - 0.67) / 0.02) < 1
        colors[nostril] = person.skin * 0.78
        return colors

    surfaces = [
        tube(neck, chest_left, [0.052, 0.055, 0.065], [0.055, 0.055, 0.06], _plain_texture(person.skin * 0.93), scale),
        tube(middle, left, width, depth, face, scale, ends=(0.09, 0.035)),
        tube(np.stack([at(0, 0.115, 0.1), at(0, 0.15, 0.118), at(0, 0.165, 0.095)]), left, [0.01, 0.016, 0.012],
             [0.01, 0.012, 0.008], _plain_texture(person.skin * 1.03), scale, ends=(0.02, 0.01)),
    ]  # fmt: skip
    for sign in (-1, 1):
        ear = np.stack([at(sign * 0.082, y, -0.005) for y in (0.1, 0.125, 0.155)])
        surfaces.append(tube(ear, left, [0.012] * 3, [0.018, 0.02, 0.012], _plain_texture(person.skin * 0.95), scale,
                             ends=(0.02, 0.02)))  # fmt: skip
    if person.hair_style != "bald":
        surfaces += _hair(person, skeleton, scale, middle, left, width, depth)
    return surfaces


def _hair(
    person: SyntheticPerson, skeleton: Skeleton, scale: float, middle: np.ndarray, left: np.ndarray, width: list[float],
    depth: list[float],
) -> list[Surface]:  # fmt: skip
    def at(x: float, y: float, z: float) -> np.ndarray:
        return skeleton.skull + skeleton.head @ [x, y, z]

    cap = person.hair_style == "cap"

    def strands(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        streak = 0.92 + 0.08 * np.sin(around * 420) + 0.05 * np.sin(around * 150 + along * 20)
        return person.hair * streak[..., None]

    def covers(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        turn = np.abs(around) / (np.pi * 0.088)  # 0 at the front, 1 at the back
        line = np.interp(turn, [0, 0.18, 0.3, 0.42, 0.52, 0.62, 1], [0.06, 0.062, 0.085, 0.13, 0.135, 0.17, 0.2])
        return along < line + 0.012

    color = person.bag if cap and person.bag is not None else person.shoe if cap else None
    texture = strands if color is None else _plain_texture(color)
    shell = middle + (middle[0] - middle[1]) * 0.1
    grown = [[r + 0.012 for r in half] for half in (width, depth)]
    surfaces = [tube(shell, left, *grown, texture, scale, covers, ends=(0.09, 0.03))]
    behind = np.stack([skeleton.head[:, 0]] * 3)
    if person.hair_style == "long":
        fall = np.stack(
            [at(0, 0.07, -0.055), at(0, 0.2, -0.08), skeleton.joints[NECK] + skeleton.chest @ [0, 0.13, -0.115]]
        )
        surfaces.append(tube(fall, behind, [0.085, 0.098, 0.085, 0.06], [0.055, 0.05, 0.035, 0.02], strands, scale,
                             ends=(0.05, 0.06)))  # fmt: skip
        for sign in (-1, 1):
            lock = np.stack([at(sign * 0.072, 0.08, 0.01), at(sign * 0.088, 0.2, 0.01), at(sign * 0.085, 0.29, 0.012)])
            surfaces.append(tube(lock, behind, [0.02, 0.024, 0.014], [0.045, 0.05, 0.025], strands, scale))
    if person.hair_style == "bun":
        knot = np.stack([at(0, 0.0, -0.1), at(0, 0.045, -0.115), at(0, 0.09, -0.1)])
        surfaces.append(tube(knot, behind, [0.04, 0.05, 0.04], [0.04, 0.045, 0.04], strands, scale))
    if cap:
        brim = np.stack([at(0, 0.068, 0.06), at(0, 0.075, 0.12), at(0, 0.088, 0.185)])
        surfaces.append(
            tube(brim, -behind, [0.075, 0.075, 0.05], [0.012, 0.01, 0.006], texture, scale, ends=(0.01, 0.03))
        )
    return surfaces


def _skirt(person: SyntheticPerson, skeleton: Skeleton, scale: float) -> Surface:
    knees = [skeleton.joints[9], skeleton.joints[12]]
    reach = min(person.skirt / 0.5, 1)  # how far the skirt follows the knees, 0..1
    middle = skeleton.hip_center + (np.mean(knees, axis=0) - skeleton.hip_center) * reach * 0.85
    start = skeleton.hip_center + (skeleton.joints[NECK] - skeleton.hip_center) * 0.22
    direction = middle - skeleton.hip_center
    end = skeleton.hip_center + direction / np.linalg.norm(direction) * person.skirt
    apart = np.abs((knees[1] - knees[0]) @ skeleton.pelvis)  # in the directions left, down, front
    axis = np.stack([start, skeleton.hip_center, (skeleton.hip_center + end) / 2, end])
    left = np.stack([skeleton.pelvis[:, 0]] * 4)
    flare = 0.1 * person.skirt
    width = [
        person.waist + 0.012,
        person.hip + 0.018,
        person.hip + 0.02 + flare,
        person.hip + 0.03 + flare * 1.6 + apart[0] * 0.12,
    ]
    depth = [0.115, 0.14, 0.145 + flare + apart[2] * 0.25 * reach, 0.14 + flare * 1.5 + apart[2] * 0.5 * reach]
    return tube(axis, left, width, depth, partial(cloth_colors, person.bottom), scale, ends=(0.0, 0.0))


def _backpack(person: SyntheticPerson, skeleton: Skeleton, scale: float) -> Surface:
    neck, chest = skeleton.joints[NECK], skeleton.chest
    axis = np.stack([neck + chest @ [0, y, -0.165] for y in (0.02, 0.2, 0.4)])

    def texture(around: np.ndarray, along: np.ndarray) -> np.ndarray:
        pocket = (along > 0.22) & (along < 0.235)
        return np.where(pocket[..., None], person.bag * 0.5, person.bag)

    return tube(
        axis, np.stack([chest[:, 0]] * 3), [0.11, 0.135, 0.14, 0.135], [0.06, 0.075, 0.085, 0.08], texture, scale
    )


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
    enlarged = depth.shape[0] / size[0]
    for joint, (x, y, z) in enumerate(joints):
        column, row = x * scale + origin[0], y * scale + origin[1]
        if not (0 <= column < depth.shape[1] and 0 <= row < depth.shape[0]):
            continue
        if joint not in JOINT_DEPTH or depth[int(row), int(column)] - z <= JOINT_DEPTH[joint]:
            keypoints[joint] = int(row / enlarged), int(column / enlarged)
    return keypoints
