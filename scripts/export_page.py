"""The studio's page as a folder that runs from any static host: the browser computes the images, without a server.

    python scripts/export_page.py --out page
    python -m http.server -d page

It fetches onnxruntime-web from npm, once for each folder. docs/inference.md describes the page. It needs the packages
of requirements-onnx.txt.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import dataset_names
from inference import onnx_export, page_export
from inference.studio_options import DEFAULT_RUN, PRETRAINED
from options.test_options import add_which_epoch
from util.errors import run_main


def parse_arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--name", default=DEFAULT_RUN, help=f"the run, a folder below --checkpoints_dir; default: {DEFAULT_RUN}")
    add("--checkpoints_dir", metavar="DIR", help="default: ./checkpoints, or pretrained for a run that is not there")
    add("--dataset_mode", choices=dataset_names(), help="default: that of the run, or fashion")
    add_which_epoch(parser)
    add("--out", required=True, type=Path, metavar="DIR", help="a new or empty folder for the page")
    add("--ort", type=Path, metavar="FILE", help=f"npm's package of {page_export.ORT}, instead of the download")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    page_export.check_folder(args.out)
    onnx_export.require_packages()
    run = {name: value for name, value in vars(args).items() if name not in ("out", "ort")}
    if args.checkpoints_dir is None:
        is_pretrained = (PRETRAINED / args.name).is_dir() and not Path("checkpoints", args.name).is_dir()
        run["checkpoints_dir"] = PRETRAINED if is_pretrained else "./checkpoints"
    transfer = onnx_export.load_on_cpu(**run)
    if args.ort is None:
        print(f"fetching {page_export.ORT_URL} (33 MB)", flush=True)
    files = page_export.make_page(transfer, page_export.read_ort(args.ort))
    page_export.write_page(files, args.out)
    for path in ("transfer.onnx", *page_export.ORT_FILES.values()):
        print(f"{path}: {len(files[path]) / 1e6:.1f} MB")
    print(f"{args.out}: {sum(map(len, files.values())) / 1e6:.1f} MB in {len(files)} files")
    print(f"next: python -m http.server -d {args.out}, or copy the folder to a static host")


if __name__ == "__main__":
    run_main(main)
