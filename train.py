"""Train DPTN (CVPR 2022).

    python train.py --name=DPTN_fashion --model=DPTN --dataset_mode=fashion --dataroot=./dataset/fashion --batchSize 32
    python train.py --name=DPTN_market --model=DPTN --dataset_mode=market --dataroot=./dataset/market --dis_layers=3 \\
        --lambda_g=5 --lambda_rec 2 --t_s_ratio=0.8 --save_latest_freq=10400 --batchSize 32
    python train.py --name=DPTN_fashion --continue_train                  # goes on exactly where the run was saved
    torchrun --nproc_per_node=4 train.py --name=DPTN_fashion ...          # four GPUs; --batchSize is their total

Add --gpu_id=-1 for the CPU. All flags: python train.py --help
"""

import sys
from pathlib import Path

from data.loaders import create_train_loaders
from data.pairs import write_pairs
from metrics.validation import validate
from models import create_model
from options.train_options import TrainOptions
from util import distributed
from util.checkpoint import Progress, check_data, load_state, restore_random, save_state
from util.device import describe_device
from util.errors import UserError, run_main
from util.reproducibility import seed_everything
from util.training import TIME_UP, NonFiniteCheck, Steps, StopSignal
from util.visualizer import Visualizer


def main() -> None:
    options = TrainOptions()
    opt = options.parse()
    run_dir = Path(opt.checkpoints_dir) / opt.name
    state_file = run_dir / "latest_state.pt"
    state = None
    if opt.continue_train:
        state = load_state(state_file)
        opt = options.resume(state["options"], opt)
    elif state_file.exists():
        raise UserError(f"{state_file} exists: go on with that run by --continue_train, or give another --name")
    elif (run_dir / "latest_net_G.pth").exists():
        raise UserError(
            f"{run_dir}/latest_net_G.pth exists and would be overwritten: give another --name; to start from these "
            f"weights, add --load_pretrain {run_dir}"
        )
    device = distributed.start(opt.gpu_ids)
    progress = Progress(**state["progress"]) if state else Progress()

    seed_everything(opt.seed)
    loader, val_loader = create_train_loaders(opt, device)
    model = create_model(opt, device, is_train=True)
    visualizer = Visualizer(opt, model.run_dir, model.visual_names, progress.total)
    visualizer.print(f"{options.text}\ndevice: {describe_device(device)}\n{model.parameter_table()}")
    data = {"train": loader.dataset.fingerprint(), "validation": val_loader and val_loader.dataset.fingerprint()}
    visualizer.write_run_files(options, opt, device=describe_device(device), data=data, model=model)
    if val_loader and distributed.is_main():
        write_pairs(model.run_dir / "val_pairs.csv", val_loader.dataset.pairs)
    if state:
        check_data(state, data)
        model.load_state_dict(state["model"])
        restore_random(state)
        visualizer.print(f"continuing in epoch {progress.epoch}, after {progress.total} samples")
    else:
        if opt.load_pretrain:
            names = ", ".join(model.load_pretrained(opt.load_pretrain))
            visualizer.print(f"started from {opt.load_pretrain}: networks {names}")
        seed_everything(opt.seed + distributed.rank())

    def save(*labels: str | int) -> None:
        """'latest', the generator under `labels`, and the state last: it never promises files that are not there."""
        nonlocal fresh
        watch.check()
        distributed.check_weights(model.nets)

        def networks() -> None:
            model.save_networks("latest")
            for label in labels:
                model.save_networks(label, names=("G",))

        def whole_state() -> None:
            save_state(state_file, progress, model.state_dict(), vars(opt), data)

        if fresh:  # weights without a state would look like somebody else's
            whole_state()
            fresh = False
        distributed.run_on_main(networks)
        whole_state()

    def validate_epoch() -> None:
        """Once after each epoch: score the held-out pairs and keep the best generator."""
        values, better = {}, False
        if distributed.is_main():
            values = validate(model, val_loader)
            better = values["ssim"] > progress.best_ssim
            progress.best_ssim = max(progress.best_ssim, values["ssim"])
        progress.validated = progress.epoch - 1
        visualizer.print_validation(progress.validated, progress.total, values, better)
        save(*(["best"] if distributed.maximum(better) else []))

    fresh = state is None
    watch, stop = NonFiniteCheck(), StopSignal(opt.max_minutes)
    last_epoch = opt.niter + opt.niter_decay
    visualizer.print(
        f"{len(loader.dataset)} pairs, {len(loader)} batches an epoch, epochs {progress.epoch} to {last_epoch}"
    )
    while True:
        if val_loader and progress.validated < progress.epoch - 1:
            validate_epoch()
        if progress.epoch > last_epoch:
            break
        loader.set_position(progress.epoch, progress.batches_done)
        steps = Steps(loader, f"epoch {progress.epoch}/{last_epoch}", progress.batches_done, opt.batchSize)
        for batch in steps:
            model.set_input(batch)
            model.optimize_parameters()
            progress.batches_done += 1
            progress.total += opt.batchSize
            watch.record(progress.total, batch["source_name"] + batch["target_name"], model.losses)

            def due(frequency: int) -> bool:
                return progress.total // frequency > (progress.total - opt.batchSize) // frequency

            if due(opt.print_freq):
                watch.check()
                losses = model.get_current_losses()
                samples = progress.batches_done * opt.batchSize
                visualizer.print_current_losses(
                    progress.epoch, samples, progress.total, steps.seconds_per_sample(), losses
                )
            if due(opt.display_freq) and distributed.is_main():
                visualizer.display_current_results(progress.epoch, progress.total, model.get_current_visuals())
            stopping = distributed.maximum(stop.wanted())
            if stopping or due(opt.save_latest_freq):
                save(*([progress.total] if opt.save_by_iter and due(opt.save_latest_freq) else []))
            if stopping:
                reason = "after --max_minutes" if stopping == TIME_UP else f"by signal {stopping}"
                visualizer.print(f"stopped {reason}; go on with: {options.resume_command(opt)}")
                visualizer.close()
                distributed.finish()
                sys.exit(0 if stopping == TIME_UP else 128 + stopping)
        model.update_learning_rate()
        progress.next_epoch()
        save(*([progress.epoch - 1] if (progress.epoch - 1) % opt.save_epoch_freq == 0 else []))
        visualizer.update_page()
    stop.restore()
    visualizer.close()
    distributed.finish()
    visualizer.print(f"done: {progress.total} samples; weights in {model.run_dir}")


if __name__ == "__main__":
    run_main(main)
