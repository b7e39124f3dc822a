"""Fetches what the authors of the paper share on Google Drive, puts it where the commands look, and checks it.

    python scripts/download.py lists --dataset fashion     # lists, pairs and keypoints -> dataset/fashion
    python scripts/download.py weights --dataset market    # released weights -> checkpoints/DPTN_market
    python scripts/download.py results --dataset fashion   # released test images -> results/DPTN_fashion
    python scripts/download.py logs --dataset fashion      # training logs -> checkpoints/DPTN_fashion/released_logs

It needs the package gdown, 6.3 or newer. A file that exists is neither fetched again nor overwritten, and a stopped
download resumes. Zip files are unpacked into the same folder. Where Google refuses, or gdown is missing, the message
says what to get by hand; put it there, also as a zip file, and run the same command again: it checks what is there.
Logs are different: nobody knows which there are, so Google is asked each time, and zip files stay as they are.

The photos cannot be fetched. DeepFashion's owners send a password on request, and Market-1501 is a download by hand:
  http://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html
  http://zheng-lab.cecs.anu.edu.au/Project/project_reid.html

Exit status: 0 complete, 1 files are missing or not as published, 2 the download failed.
"""

import re
import shlex
import sys
import textwrap
import zipfile
import zlib
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import find_dataset
from data.pairs import read_keypoints, read_pairs, result_name
from models.networks import define_G
from models.published_weights import load_network
from options.test_options import TestOptions
from util.checkpoint import STATE_FILE
from util.errors import UserError, run_main, summarize
from util.files import natural_sort_key, write_bytes
from util.image import IMAGE_FORMATS, read_list
from util.packages import require_package
from util.results import RUN_FILE

DRIVE = "https://drive.google.com/drive/folders/"
TIMEOUT = 30  # seconds without an answer
RETRIES = 2  # for a file whose connection breaks
ARCHIVES = r".*\.(zip|rar|7z|tar|gz|tgz)"
HOW_TO_GET_PHOTOS = {
    "fashion": "DeepFashion's owners send a password for the photos on request "
    "(http://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html); get Img/img.zip, then run "
    "python data/generate_fashion_datasets.py",
    "market": "the photos are a download by hand (http://zheng-lab.cecs.anu.edu.au/Project/project_reid.html); get "
    "Market-1501-v15.09.15.zip, then run python scripts/prepare_market.py",
}


class SharedFiles(NamedTuple):
    """One kind of files that the authors share."""

    drive_ids: dict[str, str]  # data set -> its folder on Google Drive
    folder: str  # where the commands look; {root} and {name} are the data set's default root and name of a run
    wanted: str | None  # regular expression of the files' names, or None: all files, in the folders that they are in
    check: Callable[[str, Path], list[str]]  # (data set, folder) -> problems, a line each


def check_lists(dataset_mode: str, folder: Path) -> list[str]:
    """The files must be there: pairs and lists with the published numbers of rows, keypoints of each photo in pairs."""
    dataset, problems = find_dataset(dataset_mode), []
    for phase, (photos, pairs) in dataset.published.items():
        pairs_csv, keypoints_csv = dataset.pairs_csv.format(phase=phase), dataset.keypoints_csv.format(phase=phase)
        used = {name for pair in _read(folder / pairs_csv, read_pairs, problems, pairs) for name in pair}
        known = _read(folder / keypoints_csv, read_keypoints, problems)
        if known and (missing := used - known.keys()):
            problems.append(f"{keypoints_csv}: no row for {len(missing)} photos of {pairs_csv}, such as {min(missing)}")
        if dataset_mode == "fashion":
            _read(folder / f"{phase}.lst", read_list, problems, photos)
    return problems


def _read(path: Path, read: Callable[[Path], Any], problems: list[str], published: int | None = None) -> Any:
    """What `read` returns, or an empty dict. A problem is added for a file that is missing or
    unreadable, or has another number of rows than `published`."""
    if not path.exists():
        problems.append(f"{path.name}: missing")
        return {}
    try:
        rows = read(path)
    except UserError as error:
        problems.append(str(error))
        return {}
    if published and len(rows) != published:
        problems.append(f"{path.name}: {len(rows):,} rows, published are {published:,}; move it away to fetch it again")
    return rows


def check_weights(dataset_mode: str, folder: Path) -> list[str]:
    """Each `*_net_G.pth` must have the names and shapes of the paper's generator."""
    generators = sorted(folder.glob("*_net_G.pth"))
    if not generators:
        others = ", ".join(sorted(path.name for path in folder.glob("*.pth")))
        return [f"latest_net_G.pth: missing{f'; rename the generator among {others}' if others else ''}"]
    run = folder.resolve()
    flags = [f"--dataset_mode={dataset_mode}", f"--checkpoints_dir={run.parent}", f"--name={run.name}"]
    opt = TestOptions().parse(flags)
    problems = []
    for path in generators:
        try:
            load_network(define_G(opt), path, "generator")
        except UserError as error:
            problems.append(str(error))
    return problems


def check_results(dataset_mode: str, folder: Path) -> list[str]:
    """Each test pair must have an image; where the csv of the pairs is missing, the images are only counted."""
    dataset = find_dataset(dataset_mode)
    images = {path.name for ending in IMAGE_FORMATS for path in folder.glob(f"*_vis.{ending}")}
    pairs_csv = Path(dataset.default_root, dataset.pairs_csv.format(phase="test"))
    if pairs_csv.exists():
        names = [[result_name(*pair, ending) for ending in IMAGE_FORMATS] for pair in read_pairs(pairs_csv)]
        return [f"{either[0]}: missing" for either in names if images.isdisjoint(either)]
    published = dataset.published["test"][1]
    found = f"{len(images):,} images named SOURCE_2_TARGET_vis.jpg, published are {published:,}"
    return [] if len(images) == published else [found]


def check_logs(_mode: str, folder: Path) -> list[str]:
    """There must be a file; nothing is known about the names of the logs."""
    return [] if folder.is_dir() and any(folder.iterdir()) else ["no logs"]


KINDS = {
    "lists": SharedFiles(
        {"fashion": "1qZDod3QDD7PaBxnNyHCuLBR7ftTSkSE1", "market": "1zzkimhX_D5gR1G8txTQkPXwdZPRcnrAx"},
        "{root}", r"(fasion-resize|market)-(pairs|annotation)-(train|test)\.csv|(train|test)\.lst", check_lists,
    ),
    "weights": SharedFiles(
        {"fashion": "12Ufr8jkOwAIGVEamDedJy_ZWPvJZn8WG", "market": "1YY_U2pMzLrZMTKoK8oBkMylR6KXnZJKP"},
        "./checkpoints/{name}", r".*\.pth", check_weights,
    ),
    "results": SharedFiles(
        {"fashion": "1Y_Ar7w_CAYRgG2gzBg2vfxTCCen7q7k2", "market": "15UBWEtGAqYaoEREIIeIuD-P4dRgsys19"},
        "./results/{name}", rf".*_vis\.({'|'.join(IMAGE_FORMATS)})", check_results,
    ),
    "logs": SharedFiles(
        {"fashion": "16ZYYl_jVdK8E9FtnQi6oi6JGfBuD2jCt", "market": "1ujlvhz7JILULRVRJsLruT9ZAz2JCT74G"},
        "./checkpoints/{name}/released_logs", None, check_logs,
    ),
}  # fmt: skip


def fetch(link: str, folder: Path, wanted: str | None) -> None:
    """Fetch the `wanted` files of a Google Drive folder that `folder` lacks.

    Raises UserError if gdown is missing or Google does not give a file; what has arrived until then stays.
    """
    require_package("gdown", "scripts/download.py")
    import gdown

    listed = call_gdown(gdown.download_folder, url=link, skip_download=True)
    paths: dict[Path, str] = {}  # -> the file's id
    for file in listed:
        path = Path(file.path) if wanted is None else Path(Path(file.path).name)
        if wanted and not re.fullmatch(f"{wanted}|{ARCHIVES}", path.name):
            print(f"not needed: {file.path}")
        elif paths.setdefault(folder / path, file.id) != file.id:
            raise UserError(f"there are several files {path}")
    if not paths:
        raise UserError("Google lists none of these files")
    missing = {path: file_id for path, file_id in paths.items() if not path.exists()}
    print(f"{len(paths)} files, {len(missing)} to fetch, into {folder}", flush=True)
    for path, file_id in missing.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tqdm(desc=path.name, unit="B", unit_scale=True, leave=False, disable=None) as bar:
            progress = partial(update_bar, bar)
            call_gdown(gdown.download, id=file_id, output=str(path), resume=True, retries=RETRIES, progress=progress)


def update_bar(bar: tqdm, done: int, total: int | None) -> None:
    """gdown's report of the bytes that have arrived."""
    bar.total = total
    bar.update(done - bar.n)


def call_gdown(function: Callable[..., Any], **arguments: Any) -> Any:
    """Call a function of gdown. UserError for everything but errors of this machine's disk, which are OSErrors."""
    import requests  # gdown needs it

    try:
        return function(quiet=True, timeout=TIMEOUT, **arguments)
    except requests.RequestException as error:  # an OSError too, so it comes first
        raise UserError(f"Google Drive cannot be reached ({type(error).__name__})") from error
    except OSError:
        raise
    except Exception as error:  # gdown can raise anything where Google's pages are not as it expects
        reason = textwrap.shorten(str(error) or type(error).__name__, 300)
        raise UserError(f"gdown {version('gdown')}: {reason}") from error


def unpack_and_check(kind: SharedFiles, dataset_mode: str, folder: Path) -> list[str]:
    """Write the wanted files of all zip files in `folder`, unless they exist, then return its problems."""
    for archive in sorted(folder.glob("*.zip")) if kind.wanted else ():
        try:
            with zipfile.ZipFile(archive) as files:
                for member in files.infolist():
                    path = folder / PurePosixPath(member.filename).name  # of any folder inside them
                    if re.fullmatch(kind.wanted, path.name) and not path.exists():
                        write_bytes(path, files.read(member))
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            print(f"warning: {archive} cannot be unpacked ({error})", file=sys.stderr)
    problems = kind.check(dataset_mode, folder)
    others = [path.name for path in folder.glob("*") if re.fullmatch(ARCHIVES, path.name) and path.suffix != ".zip"]
    return problems and problems + [f"{name}: unpack it there" for name in sorted(others)]


def advise(link: str, folder: Path, problems: list[str]) -> str:
    state = f"missing or wrong:\n{summarize(problems)}" if problems else "may lack files"
    return (
        f"{folder}: {state}\n"
        f"By hand: open {link} in a browser, put the files into {folder} (a zip file will do), and run this command "
        "again: it checks them."
    )


def next_step(what: str, dataset_mode: str, folder: Path) -> str:
    """What can be done with the files that are now complete in `folder`."""
    if what == "lists":
        return f"next: {HOW_TO_GET_PHOTOS[dataset_mode]}"
    if what == "weights":
        labels = [path.name.removesuffix("_net_G.pth") for path in folder.glob("*_net_G.pth")]
        epoch = "latest" if "latest" in labels else max(labels, key=natural_sort_key)
        run = folder if folder.name not in ("", "..") else folder.resolve()
        flags = [f"--checkpoints_dir={run.parent}", f"--name={run.name}", f"--which_epoch={epoch}"]
        flags.append(f"--results_dir=results/{run.name}")
        return f"next: python test.py --dataset_mode={dataset_mode} {shlex.join(flags)}"
    if what == "results":
        return f"next: bash scripts/eval_{dataset_mode}.sh {shlex.join([f'--distorated_path={folder}'])}"
    return "They are for reading; no command needs them."


def main() -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("what", choices=KINDS, help="which files")
    parser.add_argument("--dataset", required=True, choices=HOW_TO_GET_PHOTOS, help="of which data set")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to; default: where the other commands look")
    args = parser.parse_args()

    kind, dataset = KINDS[args.what], find_dataset(args.dataset)
    link = DRIVE + kind.drive_ids[args.dataset]
    folder = args.folder or Path(kind.folder.format(root=dataset.default_root, name=dataset.default_name))
    for own in (STATE_FILE, RUN_FILE):
        if (folder / own).exists():
            raise UserError(f"{folder}: holds a run of your own ({own}); choose another folder with --folder")
    problems = unpack_and_check(kind, args.dataset, folder)
    if problems or args.what == "logs":  # only Google knows which logs there are
        print(f"fetching {link}", flush=True)
        try:
            fetch(link, folder, kind.wanted)
        except UserError as error:
            raise UserError(f"{error}\n{advise(link, folder, unpack_and_check(kind, args.dataset, folder))}") from error
        problems = unpack_and_check(kind, args.dataset, folder)
    if problems:
        print(advise(link, folder, problems))
        return 1
    print(f"{folder}: complete")
    print(next_step(args.what, args.dataset, folder))
    return 0


if __name__ == "__main__":
    run_main(main)
