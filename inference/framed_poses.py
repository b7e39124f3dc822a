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
    warnings = [advise(found.people, None, None, found.name) for found in poses]
    usable = [found for found, advice in zip(poses, warnings) if not has_fatal_warning(advice)]
    framed = [_frame_track(found.people[0][None], [found], size, style, keep) for found in usable]
    keypoints = np.concatenate([np.zeros((0, NUM_JOINTS, 2), np.float32), *framed])
    return FramedPoses([found.name for found in usable], keypoints, sum(warnings, []))


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
        advise([] if np.isnan(pose).all() else [pose, *found.people[1:]], None, None, found.name)
        for pose, found in zip(track, poses)
    ]
    usable = np.array([not has_fatal_warning(advice) for advice in warnings])
    names = [found.name for found, good in zip(poses, usable) if good]
    framed = _frame_track(track[usable], poses, size, style, keep, VIEW_SECONDS * fps)
    return FramedPoses(names, framed, _summarize_advice(warnings, usable.any(), what))


def _summarize_advice(warnings: list[list[Advice]], any_usable: bool, what: str) -> list[Advice]:
    """One piece of advice for a whole sequence; fatal if no pose is usable, none if few poses are bad."""
    bad = [advice[0] for advice in warnings if advice]
    if any_usable and len(bad) <= MAX_BAD_POSES * len(warnings):
        return []
    prefix = f"{what}: {len(bad)} of {len(warnings)} poses have faults, the first is " if len(warnings) > 1 else ""
    return [Advice(f"{prefix}{bad[0].text}", fatal=not any_usable)]


def _frame_track(
    track: np.ndarray, photos: Sequence[FoundPeople], size: tuple[int, int], style: str, keep: bool | None,
    sigma: float = 1.0,
) -> np.ndarray:  # fmt: skip
    """(T,18,2) of `photos` -> float32 (T,18,2) in frame pixels; unchanged if they have the stored size already."""
    if not len(track) or (all(found.photo_size == size for found in photos) if keep is None else keep):
        return track.astype(np.float32)
    frames = frame_people(track, size, style, sigma)
    return np.stack([to_frame(pose, frame) for pose, frame in zip(track, frames)])
