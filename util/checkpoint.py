"""Tensor files, read safely (no code is ever run) and written atomically; the training state for exact resume."""

import zipfile
from argparse import Namespace
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from util import distributed
from util.errors import UserError, first_line
from util.files import atomic_write
from util.reproducibility import git_revision, random_state, seed_everything, set_random_state, versions
from util.run_lock import RunLock

STATE_FILE = "latest_state.pt"
OPTIONS_FILE = "train_opt.json"  # in which test.py finds the sizes of the networks
STATE_FORMAT = 1
STATE_KEYS = {"format", "progress", "model", "random", "options", "data", "git", "versions"}


def load_file(path: str | Path, what: str, mapped: bool = False) -> Any:
    """Read what `torch.save` wrote, onto the CPU. UserError if the file is missing or damaged.

    what: what the file holds, for messages.
    mapped: tensors take memory only when they are used, unless torch before 1.6 wrote the file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: {what} not found; check the path")
    try:
        mapped = mapped and zipfile.is_zipfile(path)
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch.load can raise anything for a damaged file
        problem = f"{what} cannot be read; the file is damaged or not a tensor file ({first_line(error)})"
        raise UserError(f"{path}: {problem}") from error


def load_tensors(path: str | Path, what: str) -> dict[str, Tensor]:
    """Read a plain state dict, names to tensors. UserError if the file holds anything else."""
    state = load_file(path, what)
    is_state = isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    if not is_state or not state:
        raise UserError(f"{path}: expected a state dict (names to tensors) as {what}, got {type(state).__name__}")
    return state


def save_file(content: Any, path: str | Path) -> None:
    """`torch.save` as an atomic write, flushed to disk. UserError if the write fails."""
    atomic_write(path, lambda file: torch.save(content, file), flush=True)


@dataclass
class Progress:
    """Where a run stands: `batches_done` of `epoch` (from 1), `total` samples since the start, best validation score.

    `best`: a value of --val_metric, None before the first validation.
    """

    epoch: int = 1
    batches_done: int = 0
    total: int = 0
    best: float | None = None
    _last_step = 0  # samples; without a type it is not stored in the training state

    def step(self, samples: int) -> None:
        """Count a training step on a batch of `samples`."""
        self.batches_done, self.total, self._last_step = self.batches_done + 1, self.total + samples, samples

    def crossed(self, frequency: int) -> bool:
        """Whether the last step reached or passed a multiple of `frequency` samples."""
        return self.total // frequency > (self.total - self._last_step) // frequency

    def next_epoch(self) -> None:
        self.epoch, self.batches_done = self.epoch + 1, 0


class Checkpoints:
    """Writes the checkpoints of a run: weight files in the published format, and all that an exact resume needs."""

    def __init__(self, model: Any, opt: Namespace, data_fingerprints: dict[str, Any], lock: RunLock) -> None:
        """`model`: a BaseModel. `data_fingerprints` must be the same when the run is resumed.

        `lock`: that of the run folder, which process 0 takes in `start` or `resume`.
        """
        self.model, self.opt, self.data_fingerprints, self.lock = model, opt, data_fingerprints, lock
        self.progress = Progress()

    def start(self) -> str:
        """Begin a new run, from the weights of --load_pretrain if given; returns a line for the log.

        UserError where another process trains this run.
        """
        distributed.run_on_main(self.lock.acquire)
        refuse_existing_run(self.model.run_dir)  # again: a process that held the lock may have ended meanwhile
        names = self.model.load_initial_weights(self.opt.load_pretrain) if self.opt.load_pretrain else []
        seed_everything(self.opt.seed + distributed.rank())
        # Before any weights: a process killed in its first `save` must not leave weights without a state, which could
        # neither be resumed nor started again.
        self._save_state()
        origin = f"{self.opt.load_pretrain}: networks {', '.join(names)}" if names else "initial weights"
        return f"starting from {origin}"

    def resume(self) -> str:
        """Restore the training state; returns a line for the log.

        UserError if the data changed, or where another process trains this run. The state is read under the lock,
        because a process that held it may have saved after the options were read.
        """
        distributed.run_on_main(self.lock.acquire)
        state = load_state(self.model.run_dir / STATE_FILE)
        if state["data"] != self.data_fingerprints:
            raise UserError(
                f"--continue_train: the csv files of the data set changed since the run was saved: {state['data']} "
                f"then, {self.data_fingerprints} now. Put the old files back, or start another run with --load_pretrain"
            )
        self.model.load_state_dict(state["model"])
        known = {field.name for field in fields(Progress)}  # states of older versions have more
        if "best_ssim" in state["progress"]:  # of older versions; -1: none yet
            best = state["progress"]["best_ssim"]
            state["progress"]["best"] = best if best > -1 else None
        self.progress = Progress(**{name: value for name, value in state["progress"].items() if name in known})
        if len(state["random"]) == distributed.processes():
            set_random_state(state["random"][distributed.rank()])
        else:  # another number of processes
            seed_everything(state["options"]["seed"] + self.progress.total + distributed.rank())
        return f"resuming in epoch {self.progress.epoch}, after {self.progress.total} samples"

    def save(self, *labels: str | int) -> None:
        """Save all networks as 'latest' and under each of `labels`, and the training state.

        Raises UserError, and saves nothing, if the weights are not finite or differ between processes, or if another
        process trains this run, too.
        """
        distributed.run_on_main(self.lock.check)
        distributed.check_weights(self.model.nets)
        for label in ("latest", *labels):
            distributed.run_on_main(self.model.save_networks, label)
        distributed.run_on_main(self.model.save_average)
        self._save_state()  # last: what it counts as done, an epoch or a best score, has its weight files

    def _save_state(self) -> None:
        state = {
            "format": STATE_FORMAT, "progress": asdict(self.progress), "model": self.model.state_dict(),
            "random": distributed.gather(random_state()), "options": vars(self.opt), "data": self.data_fingerprints,
            "git": git_revision(), "versions": versions(),
        }  # fmt: skip
        distributed.run_on_main(save_file, state, self.model.run_dir / STATE_FILE)


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state; UserError if it is missing, damaged or of another format."""
    if not path.is_file():
        raise UserError(
            f"--continue_train: {path} not found, so there is no run to resume. Check --name and --checkpoints_dir; "
            "to start from weights alone, use --load_pretrain DIR."
        )
    state = load_file(path, "the training state")
    if not isinstance(state, dict) or set(state) != STATE_KEYS or state["format"] != STATE_FORMAT:
        raise UserError(f"{path}: not a training state of format {STATE_FORMAT} that train.py wrote")
    options = state["options"]
    if "compile_mode" not in options and options["precision"] == "fp32":
        options["precision"] = None  # before that flag, "fp32" meant TF32 on CUDA, as the default does
    return state


def refuse_existing_run(run_dir: Path) -> None:
    """Raise UserError if a new run in `run_dir` would overwrite weights, or a run that made at least one step."""
    state, weights = run_dir / STATE_FILE, run_dir / "latest_net_G.pth"
    if state.exists() and (weights.exists() or load_state(state)["progress"]["total"] > 0):
        owner = RunLock(run_dir).note()
        raise UserError(f"{state} exists: resume that run with --continue_train, or give another --name{owner}")
    if kept := sorted(run_dir.glob("*_net_G.pth")):  # released weights, for example
        start = f"; to start from these weights, add --load_pretrain {run_dir}" if weights in kept else ""
        name = weights if weights in kept else kept[0]
        raise UserError(f"{name} exists and could be overwritten: give another --name{start}")
