"""A trained generator as ONNX files, for programs that do without PyTorch.

    python scripts/export_onnx.py --name DPTN_fashion --dataset_mode fashion --out onnx
    python scripts/export_onnx.py --checkpoints_dir pretrained --name rendered_market --out onnx

It writes two files to --out, and replaces existing ones:
  generator.onnx  the network: image (B,3,h,w) in [-1, 1], heat maps (B,18,h,w) of its pose and of the target pose ->
                  image (B,3,h,w)
  transfer.onnx   everything: uint8 RGB images (B,H,W,3) of the stored size, keypoints (B,18,2) of their poses and of
                  the target poses, float32 (y, x) in pixels, NaN = missing -> uint8 RGB images (B,H,W,3)
Then it runs both in onnxruntime on random inputs, and prints how far they are from PyTorch. It needs the packages of
requirements-onnx.txt; example_onnx.py uses transfer.onnx.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import dataset_names
from inference import onnx_export
from options.test_options import add_which_epoch
from util.errors import run_main


def parse_arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--name", required=True, help="the run, a folder below --checkpoints_dir")
    parser.add_argument("--checkpoints_dir", default="./checkpoints", metavar="DIR", help="default: ./checkpoints")
    parser.add_argument("--dataset_mode", choices=dataset_names(), help="default: that of the run, or fashion")
    add_which_epoch(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the files")
    parser.add_argument(
        "--half", action="store_true", help="store weights as float16: half the size, less exact images"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    onnx_export.require_packages()
    run = {name: value for name, value in vars(args).items() if name not in ("out", "half")}
    transfer = onnx_export.load_on_cpu(**run)
    args.out.mkdir(parents=True, exist_ok=True)
    paths = onnx_export.export(transfer, args.out, args.half)
    generator, levels = onnx_export.compare(transfer, paths)
    print("\n".join(f"{path}: {path.stat().st_size / 1e6:.1f} MB" for path in paths))
    print(f"generator.onnx in onnxruntime differs from PyTorch by at most {generator:.1e}, of values in [-1, 1]")
    differ = f"in {(levels > 0).mean():.2%} of the values, by at most {levels.max()} of 255 levels"
    print(f"transfer.onnx in onnxruntime differs from PyTorch {differ}")


if __name__ == "__main__":
    run_main(main)
