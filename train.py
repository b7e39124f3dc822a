"""Train DPTN (CVPR 2022).

    python train.py --name=DPTN_fashion --model=DPTN --dataset_mode=fashion --dataroot=./dataset/fashion --batchSize 32
    python train.py --name=DPTN_market --model=DPTN --dataset_mode=market --dataroot=./dataset/market --dis_layers=3 \\
        --lambda_g=5 --lambda_rec 2 --t_s_ratio=0.8 --save_latest_freq=10400 --batchSize 32

Add --gpu_id=-1 for the CPU. All flags: python train.py --help
"""

import time

from tqdm import tqdm

from data import create_loader
from models import create_model
from options.train_options import TrainOptions
from util.distributed import describe_device, select_device
from util.errors import run_main
from util.reproducibility import seed_everything
from util.visualizer import Visualizer


def main() -> None:
    options = TrainOptions()
    opt = options.parse()
    device = select_device(opt.gpu_ids)
    print(f"{options.text}\ndevice: {describe_device(device)}")
    seed_everything(opt.seed)
    loader = create_loader(opt, "train", device)
    model = create_model(opt, device, is_train=True)
    if opt.load_pretrain:
        print(f"started from {opt.load_pretrain}: networks {', '.join(model.load_pretrained(opt.load_pretrain))}")
    visualizer = Visualizer(model.run_dir)
    visualizer.write_options(options.text, "train_opt.txt")
    print(f"{len(loader.dataset)} pairs, {len(loader)} batches an epoch; {model.describe()}")

    total = 0  # samples since the start of training
    for epoch in range(1, opt.niter + opt.niter_decay + 1):
        loader.set_position(epoch)
        bar = tqdm(loader, total=len(loader), desc=f"epoch {epoch}", unit="batch", disable=None)
        since_log, logged_at = time.perf_counter(), total
        for step, batch in enumerate(bar, start=1):
            model.set_input(batch)
            model.optimize_parameters()
            total += opt.batchSize

            def due(frequency: int, total: int = total) -> bool:
                return total // frequency > (total - opt.batchSize) // frequency

            if due(opt.print_freq):
                losses = model.current_losses()
                seconds = (time.perf_counter() - since_log) / (total - logged_at)
                tqdm.write(visualizer.log_losses(epoch, step * opt.batchSize, total, seconds, losses))
                since_log, logged_at = time.perf_counter(), total
            if due(opt.display_freq):
                visualizer.save_sheet(epoch, total, model.current_pictures())
            if due(opt.save_latest_freq):
                model.save_networks("latest")
                if opt.save_by_iter:
                    model.save_networks(total, names=("G",))
        model.update_learning_rate()
        model.save_networks("latest")
        if epoch % opt.save_epoch_freq == 0:
            model.save_networks(epoch, names=("G",))
    print(f"done: {total} samples; weights in {model.run_dir}")


if __name__ == "__main__":
    run_main(main)
