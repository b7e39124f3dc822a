"""Generate an image for every pair of the test split with a trained DPTN generator.

    python test.py --name=DPTN_fashion --model=DPTN --dataset_mode=fashion --dataroot=./dataset/fashion \\
        --which_epoch latest --results_dir ./results/DPTN_fashion --batchSize 1
    python test.py --name=DPTN_market --model=DPTN --dataset_mode=market --dataroot=./dataset/market \\
        --which_epoch latest --results_dir=./results/DPTN_market --batchSize 1

Add --gpu_id=-1 for the CPU, --continue_test to resume a run that was stopped. All flags: python test.py --help
"""

from pathlib import Path

from tqdm import tqdm

from data.loaders import create_test_dataset, create_test_loader
from data.pairs import result_names
from inference.pose_transfer import PoseTransfer
from options.test_options import TestOptions
from util.device import describe_device, select_device
from util.errors import run_main
from util.reproducibility import seed_everything
from util.results import Results, describe_run


def main() -> None:
    options = TestOptions()
    opt = options.parse()
    device = select_device(opt.gpu_ids)
    print(options.changed_text)
    seed_everything(opt.seed)
    transfer = PoseTransfer(opt, device)  # the model with the weights of --name and --which_epoch
    print(f"weights: {transfer.weights_file}\ndevice: {describe_device(device)}, {opt.precision}")
    dataset = create_test_dataset(opt)
    names = result_names(dataset.pairs, opt.image_format)
    run = describe_run(opt, transfer.weights_file, dataset.photo_dir, dataset.fingerprint()["csv_sha256"])
    results = Results(Path(opt.results_dir), names, run, resume=opt.continue_test)
    missing = results.missing_pairs()
    if len(missing) < len(names):
        print(f"{len(names) - len(missing)} of {len(names)} images have already been generated")

    loader = create_test_loader(opt, dataset.subset(missing), device)
    with tqdm(total=len(missing), unit="image", disable=None) as progress, results:
        # for each batch: model.set_input(batch), model.test(), then uint8 images at the stored size
        for batch, images in transfer.generate_all(loader):
            results.add(batch, images)
            progress.update(len(images))
    page = results.write_page(f"{opt.name}, {opt.which_epoch}")
    where = f"; browse them at {page}" if page else ""
    print(f"{len(missing)} images generated in {opt.results_dir}{where}")


if __name__ == "__main__":
    run_main(main)
