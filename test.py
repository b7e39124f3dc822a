"""Draw every pair of the test split with a trained DPTN generator.

    python test.py --name=DPTN_fashion --model=DPTN --dataset_mode=fashion --dataroot=./dataset/fashion \\
        --which_epoch latest --results_dir ./results/DPTN_fashion --batchSize 1
    python test.py --name=DPTN_market --model=DPTN --dataset_mode=market --dataroot=./dataset/market \\
        --which_epoch latest --results_dir=./results/DPTN_market --batchSize 1

Add --gpu_id=-1 for the CPU, --continue_test to go on with a run that was stopped. All flags: python test.py --help
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.loaders import PairLoader, create_test_dataset, create_test_loader
from data.pairs import Pair, result_names
from data.pose_pair_dataset import PosePairDataset
from inference.pose_transfer import PoseTransfer
from options.test_options import TestOptions
from util.device import describe_device, select_device
from util.errors import run_main
from util.files import sha256
from util.image import to_pil
from util.reproducibility import git_revision, seed_everything, versions
from util.results import Results


def main() -> None:
    options = TestOptions()
    opt = options.parse()
    device = select_device(opt.gpu_ids)
    print(f"{options.text}\ndevice: {describe_device(device)}")
    seed_everything(opt.seed)
    transfer = PoseTransfer(opt, device)
    dataset = create_test_dataset(opt)
    names = result_names(dataset.pairs, opt.image_format)
    results = Results(Path(opt.results_dir), describe_run(transfer, dataset), opt.continue_test)
    pending = [pair for pair, name in names.items() if not (opt.continue_test and results.has(name))]
    if len(pending) < len(names):
        print(f"{len(names) - len(pending)} of {len(names)} pairs are drawn already")

    loader = create_test_loader(opt, dataset.subset(pending), device)
    with tqdm(total=len(pending), unit="image", disable=None) as bar, results:
        for drawn in draw_pairs(transfer, loader, names, results):
            bar.update(drawn)
    page = results.write_page(f"{opt.name}, {opt.which_epoch}", [(*pair, name) for pair, name in names.items()])
    print(f"{len(names)} pairs drawn into {opt.results_dir}; look through them at {page}")


def draw_pairs(
    transfer: PoseTransfer, loader: PairLoader, names: Mapping[Pair, str], results: Results
) -> Iterator[int]:
    """Draw every batch of the loader and hand it to `results`; gives the number of images after each."""
    for batch in loader:
        images = transfer.generate(batch)
        for index, image in enumerate(images):
            pair = Pair(batch["source_name"][index], batch["target_name"][index])
            photos = [to_pil(batch[f"{role}_image"][index]) for role in ("source", "target")]
            keypoints = [batch[f"{role}_keypoints"][index].numpy() for role in ("source", "target")]
            results.add(names[pair], to_pil(image), photos, keypoints)
        yield len(images)


def describe_run(transfer: PoseTransfer, dataset: PosePairDataset) -> dict[str, Any]:
    """What the results depend on (`made_with`), and what else is worth knowing about them."""
    opt, weights = transfer.opt, transfer.weights_file
    shapes = ("model", "dataset_mode", "precision", "image_format")
    data = {"photos": str(dataset.photo_dir.resolve()), "csv files": dataset.fingerprint()["csv_sha256"]}
    made_with = {"weights": sha256(weights), **data, **{name: getattr(opt, name) for name in shapes}}
    return {"made_with": made_with, "weights_file": str(weights), "options": vars(opt), "git": git_revision(),
            "versions": versions()}  # fmt: skip


if __name__ == "__main__":
    run_main(main)
