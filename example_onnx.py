"""A person in another pose with onnxruntime, numpy and pillow alone: no PyTorch, no other file of this repository.

    python scripts/export_onnx.py --checkpoints_dir pretrained --name rendered_market --out onnx
    python -m data.synthetic --dataset_mode market --seed 1 --identities 1 --out dataset/unseen_people
    cd dataset/unseen_people && python ../../example_onnx.py ../../onnx/transfer.onnx test market-annotation-test.csv

The first two commands need PyTorch. This program and transfer.onnx also work where it is not installed.
"""

import csv
import json
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def read_keypoints(path: Path) -> dict[str, np.ndarray]:
    """The poses of PATN's csv by photo: float32 (18,2) of (y, x) in pixels; -1 becomes NaN, which means missing."""
    poses = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter=":", skipinitialspace=True):
            pose = np.array([json.loads(row["keypoints_y"]), json.loads(row["keypoints_x"])], np.float32).T
            pose[(pose == -1).any(axis=1)] = np.nan
            poses[row["name"]] = pose
    return poses


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("model", type=Path, metavar="MODEL", help="transfer.onnx of scripts/export_onnx.py")
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of photos of the stored size")
    parser.add_argument("keypoints", type=Path, metavar="KEYPOINTS.csv", help="keypoints csv of the photos")
    parser.add_argument("--source", metavar="NAME", help="photo of the person; default: the first by name")
    parser.add_argument("--pose", metavar="NAME", help="the photo whose pose is taken; default: the last by name")
    parser.add_argument("--out", default="example_onnx.png", metavar="FILE", help="default: example_onnx.png")
    args = parser.parse_args()
    try:
        session = onnxruntime.InferenceSession(args.model.read_bytes(), providers=["CPUExecutionProvider"])
        poses = read_keypoints(args.keypoints)
        source, target = args.source or min(poses), args.pose or max(poses)
        pixels = np.asarray(Image.open(args.photos / source).convert("RGB"))  # uint8 (H,W,3)
        inputs = {"image": pixels, "source_keypoints": poses[source], "target_keypoints": poses[target]}
        shapes = {one.name: tuple(one.shape[1:]) for one in session.get_inputs()}
        for name, value in inputs.items():
            if shapes.get(name) != value.shape:
                raise ValueError(f"{name} has the shape {value.shape}, but {args.model} takes {shapes}")
        (generated,) = session.run(None, {name: value[None] for name, value in inputs.items()})  # a batch of one
        Image.fromarray(np.concatenate([pixels, generated[0]], axis=1)).save(args.out)
    except KeyError as error:
        parser.error(f"{args.keypoints} has no photo or column {error}")
    except Exception as error:  # onnxruntime's errors share no base class
        parser.error((str(error) or type(error).__name__).splitlines()[0])
    print(f"{args.out}: {source}, and the person in it in the pose of {target}")


if __name__ == "__main__":
    main()
