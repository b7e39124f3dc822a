"""latest_state.pt: everything that a run needs to go on bit for bit, in one file."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from util import distributed
from util.checkpoint import load_file, save_file
from util.errors import UserError
from util.reproducibility import git_revision, random_state, seed_everything, set_random_state, versions

FORMAT = 1
KEYS = {"format", "progress", "model", "random", "options", "data", "git", "versions"}


@dataclass
class Progress:
    """Where a run stands: `batches_done` of `epoch` (from 1), `total` samples since the start."""

    epoch: int = 1
    batches_done: int = 0
    total: int = 0
    validated: int = 0  # the last epoch whose validation is done
    best_ssim: float = -1.0

    def next_epoch(self) -> None:
        self.epoch, self.batches_done = self.epoch + 1, 0


def save_state(
    path: Path, progress: Progress, model: dict[str, Any], options: dict[str, Any], data: dict[str, Any]
) -> None:
    """`data`: the data set's fingerprint. Every process takes part (each has its random numbers); process 0 writes."""
    content = {
        "format": FORMAT,
        "progress": asdict(progress),
        "model": model,
        "random": distributed.gather(random_state()),
        "options": options,
        "data": data,
        "git": git_revision(),
        "versions": versions(),
    }
    distributed.run_on_main(lambda: save_file(content, path))


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote; UserError if it is missing, damaged or of another format."""
    if not path.is_file():
        raise UserError(
            f"--continue_train: {path} not found, so there is no run to go on with. Check --name and "
            "--checkpoints_dir; to start from weights alone, use --load_pretrain DIR."
        )
    state = load_file(path, "the state of the run")
    if not isinstance(state, dict) or set(state) != KEYS or state["format"] != FORMAT:
        raise UserError(f"{path}: not a state of format {FORMAT} that train.py wrote")
    return state


def check_data(state: dict[str, Any], data: dict[str, Any]) -> None:
    """UserError if the run was trained on other csv files: its next batches could not be found again."""
    if state["data"] != data:
        raise UserError(
            f"--continue_train: the csv files of the data set changed since the run was saved: {state['data']} then, "
            f"{data} now. Put the old files back, or start another run with --load_pretrain"
        )


def restore_random(state: dict[str, Any]) -> None:
    """The random numbers of this process, if the run had as many processes as now; else fresh ones."""
    if len(state["random"]) == distributed.processes():
        set_random_state(state["random"][distributed.rank()])
    else:
        seed_everything(state["options"]["seed"] + state["progress"]["total"] + distributed.rank())
