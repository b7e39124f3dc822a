"""People found in photos, framed as the data set frames people: one photo, independent poses, or a sequence."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.keypoints import NUM_JOINTS
from inference.advice import Advice, advise, has_fatal_warning
from inference.framing import Frame, can_be_framed, frame_people, frame_person, identity_frame, to_frame
from inference.sources import FoundPeople
from inference.tracks import clean

MAX_BAD_POSES = 0.1  # of a sequence: advice on fewer poses is dropped, because their neighbors hide the faults
VIEW_SECONDS = 0.5  # standard deviation of the average over time with which a sequence's view follows the person


class FramedPoses(NamedTuple):
    """Poses in pixels of the stored size, and what is wrong with them."""

    names: list[str]
    keypoints: np.ndarray  # float32 (T,18,2) of (y, x)
    advice: list[Advice]


def frame_source(found: FoundPeople, size: tuple[int, int], style: str) -> tuple[Frame | None, list[Advice]]:
    """How the source photo is framed to `size` (H, W), and what is wrong with it. No frame: it cannot be framed."""
    frame = None
    if found.photo_size == size:
        frame = identity_frame(size)
    elif found.people and can_be_framed(found.people[0]):
        frame = frame_person(found.people[0], size, style)
    return frame, advise(found.people, found.photo_size, frame, found.name)


def frame_poses(poses: Sequence[FoundPeople], size: tuple[int, int], style: str, keep: bool | None) -> FramedPoses:
    """Each pose framed by itself to `size` (H, W). Photos without a person are left out, with fatal advice for each.

    keep: the keypoints are in pixels of the stored size already; None: if their photo has that size.
    """
    names, keypoints, advice = [], [], []
    for found in poses:
        warnings = advise(found.people, None, None, found.name)
        advice += warnings
        if not has_fatal_warning(warnings):
            names.append(found.name)
            keypoints.append(_frame_track(found.people[0][None], size, style, _is_kept(found, size, keep))[0])
    return FramedPoses(names, np.array(keypoints, np.float32).reshape(-1, NUM_JOINTS, 2), advice)


def frame_sequence(
    poses: Sequence[FoundPeople], size: tuple[int, int], style: str, keep: bool | None, fps: float, smooth: bool,
    what: str,
) -> FramedPoses:  # fmt: skip
    """Successive poses of one person, `fps` per second, framed as one; with `smooth` cleaned (inference/tracks.py).

    size, style and keep are those of `frame_poses`; `what` names the sequence in advice. Moments without a person are
    left out, unless `smooth` fills them in.
    """
    nobody = np.full((NUM_JOINTS, 2), np.nan)
    track = np.stack([found.people[0] if found.people else nobody for found in poses])
    if smooth:
        track = clean(track, fps)
    warnings = [
        advise([pose, *found.people[1:]] if not np.isnan(pose).all() else [], None, None, found.name)
        for pose, found in zip(track, poses)
    ]
    usable = np.array([not has_fatal_warning(advice) for advice in warnings])
    names = [found.name for found, good in zip(poses, usable) if good]
    advice = _summarize_advice(warnings, usable, what)
    if not usable.any():
        return FramedPoses(names, track[:0].astype(np.float32), advice)
    kept = all(_is_kept(found, size, keep) for found in poses)
    return FramedPoses(names, _frame_track(track[usable], size, style, kept, VIEW_SECONDS * fps), advice)


def _summarize_advice(warnings: list[list[Advice]], usable: np.ndarray, what: str) -> list[Advice]:
    """One piece of advice for a whole sequence; fatal if no pose is usable, none if few poses are bad."""
    bad = [advice[0] for advice in warnings if advice]
    if usable.any() and len(bad) <= MAX_BAD_POSES * len(warnings):
        return []
    prefix = f"{what}: {len(bad)} of {len(warnings)} poses have faults, the first is " if len(warnings) > 1 else ""
    return [Advice(f"{prefix}{bad[0].text}", fatal=not usable.any())]


def _is_kept(found: FoundPeople, size: tuple[int, int], keep: bool | None) -> bool:
    return found.photo_size == size if keep is None else keep


def _frame_track(track: np.ndarray, size: tuple[int, int], style: str, keep: bool, sigma: float = 1.0) -> np.ndarray:
    """(T,18,2) -> float32 (T,18,2) in frame pixels; unchanged with `keep`."""
    if keep:
        return track.astype(np.float32)
    frames = frame_people(track, size, style, sigma)
    return np.stack([to_frame(pose, frame) for pose, frame in zip(track, frames)])
