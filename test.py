"""Draw every pair of the test split with a trained DPTN generator.

    python test.py --name=DPTN_fashion --model=DPTN --dataset_mode=fashion --dataroot=./dataset/fashion \\
        --which_epoch latest --results_dir ./results/DPTN_fashion --batchSize 1
    python test.py --name=DPTN_market --model=DPTN --dataset_mode=market --dataroot=./dataset/market \\
        --which_epoch latest --results_dir=./results/DPTN_market --batchSize 1

Add --gpu_id=-1 for the CPU. All flags: python test.py --help
"""

from pathlib import Path

from tqdm import tqdm

from data import create_test_loader
from data.pairs import result_name
from models import create_model
from options.test_options import TestOptions
from util.distributed import describe_device, select_device
from util.errors import UserError, run_main
from util.image import resize_uint8, save_image, to_pil, to_uint8
from util.reproducibility import seed_everything


def main() -> None:
    options = TestOptions()
    opt = options.parse()
    device = select_device(opt.gpu_ids)
    print(f"{options.text}\ndevice: {describe_device(device)}")
    seed_everything(opt.seed)
    model = create_model(opt, device, is_train=False)
    model.load_networks(model.run_dir, opt.which_epoch)
    loader = create_test_loader(opt, device)
    results_dir = Path(opt.results_dir)
    try:
        results_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--results_dir {results_dir}: cannot make the folder ({error})") from error

    with tqdm(total=len(loader.dataset), unit="image", disable=None) as bar:
        for batch in loader:
            model.set_input(batch)
            images = resize_uint8(to_uint8(model.test()), loader.dataset.stored_size).cpu()
            for image, source, target in zip(images, batch["source_name"], batch["target_name"]):
                save_image(to_pil(image), results_dir / result_name(source, target, opt.image_format))
            bar.update(len(images))
    print(f"{len(loader.dataset)} pairs drawn into {results_dir}")


if __name__ == "__main__":
    run_main(main)
