"""Train DPTN (CVPR 2022).

    python train.py --name=DPTN_fashion --model=DPTN --dataset_mode=fashion --dataroot=./dataset/fashion --batchSize 32
    python train.py --name=DPTN_market --model=DPTN --dataset_mode=market --dataroot=./dataset/market --dis_layers=3 \\
        --lambda_g=5 --lambda_rec 2 --t_s_ratio=0.8 --save_latest_freq=10400 --batchSize 32
    python train.py --name=DPTN_fashion --continue_train                  # resume exactly from the last checkpoint
    torchrun --nproc_per_node=4 train.py --name=DPTN_fashion ...          # four GPUs; --batchSize is their total

Add --gpu_id=-1 for the CPU. All flags: python train.py --help
"""

from pathlib import Path

from data.loaders import PairLoader, create_train_loaders, fingerprints
from data.pairs import write_pairs
from metrics.validation import Validation
from models import create_model
from models.base_model import BaseModel
from options.train_options import TrainOptions
from util import distributed
from util.checkpoint import Checkpoints, Progress
from util.device import describe_device
from util.errors import run_main
from util.reproducibility import seed_everything, use_deterministic_kernels
from util.run_lock import RunLock
from util.training import NonFiniteCheck, ProgressBar, StopSignal
from util.visualizer import Visualizer


def main() -> int | None:
    options = TrainOptions()
    opt = options.parse()  # with --continue_train: the checkpoint's options, already merged
    with (
        distributed.process_group(opt.gpu_ids) as device,
        RunLock(Path(opt.checkpoints_dir) / opt.name) as lock,  # taken when the run starts or resumes
        StopSignal(opt.max_minutes) as stop,
    ):
        seed_everything(opt.seed)
        if opt.deterministic:
            use_deterministic_kernels()
        train_loader, val_loader = create_train_loaders(opt, device)
        model = create_model(opt, device, is_train=True)
        validation = None if val_loader is None else Validation(opt, device)
        data_fingerprints = fingerprints(train_loader, val_loader)
        checkpoints = Checkpoints(model, opt, data_fingerprints, lock)
        how_it_started = checkpoints.resume() if opt.continue_train else checkpoints.start()
        progress, last_epoch = checkpoints.progress, opt.niter + opt.niter_decay
        nan_check = NonFiniteCheck()

        visualizer = Visualizer(opt, model.run_dir, model.visual_names, progress.total, model.unused_losses)
        visualizer.write_run_files(options, opt, describe_device(device), data_fingerprints, model)
        if val_loader is not None and distributed.is_main():
            write_pairs(model.run_dir / "val_pairs.csv", val_loader.dataset.pairs)
        visualizer.print(f"{options.changed_text}\nall options, and the networks' parameters: {model.run_dir}/*.txt")
        visualizer.print(f"device: {describe_device(device)}, {model.precision}")
        visualizer.print(f"{how_it_started}; {len(train_loader.dataset)} pairs, {len(train_loader)} batches an epoch")

        for epoch in range(progress.epoch, last_epoch + 1):
            train_loader.set_position(epoch, progress.batches_done)
            batches = ProgressBar(train_loader, f"epoch {epoch}/{last_epoch}", progress.batches_done, opt.batchSize)
            for batch in batches:
                model.set_input(batch)
                model.optimize_parameters()
                progress.step(opt.batchSize)
                nan_check.record(progress.total, batch["source_name"] + batch["target_name"], model.losses)

                if progress.crossed(opt.print_freq):
                    nan_check.check()
                    iters, seconds = progress.batches_done * opt.batchSize, batches.seconds_per_sample()
                    visualizer.print_current_losses(epoch, iters, progress.total, seconds, model.get_current_losses())

                if progress.crossed(opt.display_freq) and distributed.is_main():
                    visualizer.display_current_results(epoch, progress.total, model.get_current_visuals())

                save_is_due, stop_reason = progress.crossed(opt.save_latest_freq), stop.reason(visualizer.failed)
                if save_is_due or stop_reason:
                    nan_check.check()
                    labels = [progress.total] if save_is_due and opt.save_by_iter else []
                    checkpoints.save(*labels)

                if stop_reason:
                    visualizer.print(f"stopped {stop_reason}; resume with: {options.resume_command(opt)}")
                    visualizer.close()
                    return stop_reason.exit_status

            if change := model.update_learning_rate():
                visualizer.print(change)
            nan_check.check()
            labels = [epoch] if epoch % opt.save_epoch_freq == 0 else []
            if validation and validate_epoch(validation, model, val_loader, progress, visualizer):
                labels.append("best")
            progress.next_epoch()
            checkpoints.save(*labels)
            visualizer.update_page()

        visualizer.print(f"done: {progress.total} samples; weights in {model.run_dir}")
        visualizer.close()
    return 2 if visualizer.failed else None


def validate_epoch(
    validation: Validation, model: BaseModel, val_loader: PairLoader, progress: Progress, visualizer: Visualizer
) -> bool:
    """Score the held-out pairs on process 0, log the scores, and keep the best --val_metric in `progress`.

    Returns whether --val_metric is the best so far.
    """
    is_best = False
    if distributed.is_main():
        scores = validation.scores(model, val_loader)
        is_best = validation.is_better(scores, progress.best)
        if is_best:
            progress.best = scores[validation.metric]
        visualizer.print_validation(progress.epoch, progress.total, scores, is_best)
    return bool(distributed.maximum(is_best))


if __name__ == "__main__":
    run_main(main, needs_stdout=False)  # the logs are also in the run folder
