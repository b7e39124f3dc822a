"""COCO's annotation file of person keypoints (cocodataset.org/#format-data)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inference.formats.base import PoseFormat, PosesByPhoto, get_field, to_keypoints, to_triples, write_json
from inference.formats.photos import Photos
from inference.joints import COCO_17, from_openpose18, to_openpose18

VISIBLE = 2  # COCO's flag of a joint: 0 not labeled, 1 labeled but hidden, 2 visible


class Coco(PoseFormat):
    description = "COCO's images and annotations"

    def matches(self, content: Any) -> bool:
        return isinstance(content, dict) and {"images", "annotations"} <= content.keys()

    def parse(self, content: Any, file: Path, photos: Photos) -> PosesByPhoto:
        """All labeled joints count as known. Other joints than COCO's 17, such as those of animals, are an error."""
        _check_categories(content)
        images = get_field(content, "images", list)
        names = {get_field(image, "id", int | str): get_field(image, "file_name", str) for image in images}
        people: PosesByPhoto = {name: [] for name in names.values()}
        if not len(people) == len(names) == len(images):
            raise ValueError("two images have one id or one file_name")
        for annotation in get_field(content, "annotations", list):
            numbers, image = get_field(annotation, "keypoints", list), get_field(annotation, "image_id", int | str)
            if image not in names:
                raise ValueError(f"annotation {annotation.get('id')}: no image {image}")
            if len(numbers) != 3 * len(COCO_17):
                raise ValueError(f"annotation {annotation.get('id')}: {len(numbers)} numbers in keypoints, expected 51")
            people[names[image]].append(to_openpose18(to_keypoints(numbers), COCO_17))
        return people

    def write(self, path: Path, poses: Mapping[str, np.ndarray], photos: Photos) -> None:
        images = [{"id": number, "file_name": name} for number, name in enumerate(poses, 1)]
        annotations = [
            _annotation(number, keypoints)
            for number, pose in enumerate(poses.values(), 1)
            if not np.isnan(keypoints := from_openpose18(pose, COCO_17)).all()
        ]
        names = [name.replace(" ", "_") for name in COCO_17]
        person = {"id": 1, "name": "person", "supercategory": "person", "keypoints": names, "skeleton": []}
        write_json(path, {"images": images, "annotations": annotations, "categories": [person]})


def _check_categories(content: dict) -> None:
    for category in get_field(content, "categories", list) if "categories" in content else []:
        names = category.get("keypoints") if isinstance(category, dict) else None
        if names and str(names).lower().replace("_", " ") != str(list(COCO_17)):
            raise ValueError(f"joints other than COCO's 17, or in another order: {str(names)[:100]}")


def _annotation(number: int, keypoints: np.ndarray) -> dict[str, object]:
    """Box and area are those of the known joints, because nothing else is known of the person's outline."""
    known = keypoints[~np.isnan(keypoints[:, 0])]
    (top, left), (height, width) = known.min(axis=0), np.ptp(known, axis=0)
    box = [round(float(value), 3) for value in (left, top, width, height)]
    return {
        "id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": box,
        "area": round(box[2] * box[3], 3), "num_keypoints": len(known),
        "keypoints": to_triples(keypoints, confidence=VISIBLE),
    }  # fmt: skip
