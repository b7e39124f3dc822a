"""Shows and records a training run: console, logs, web page, visdom, TensorBoard (follows pix2pix's Visualizer)."""

import json
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timezone
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from util import distributed
from util.checkpoint import OPTIONS_FILE
from util.errors import UserError, first_line
from util.files import append_text, write_text
from util.image import contact_sheet, save_image
from util.packages import can_write_pages, require_package
from util.reproducibility import git_revision, versions

SHEETS_ON_PAGE = 100
ROW_INFO = ("epoch", "iters", "total_iters", "time", "is_best")  # what a row of a log has besides losses and scores

Row = dict[str, Any]


def _until_first_error(method: Callable[..., None]) -> Callable[..., None]:
    """Decorate a method of Visualizer: it runs in process 0 only, until the first error, which is printed."""

    @wraps(method)
    def guarded(self: "Visualizer", *args: Any, **kwargs: Any) -> None:
        if not self.active:
            return
        try:
            method(self, *args, **kwargs)
        except (UserError, OSError) as error:
            self.active, self.failed = False, True
            print(f"error: {error}", file=sys.stderr, flush=True)

    return guarded


class Visualizer:
    """Shows and records a training run in process 0; in the other processes every method returns at once.

    After `write_run_files`, a write error (such as a full disk) is printed and sets `failed`; later output is dropped.
    So the caller can still save the training state before it stops.

    Files in the run folder:

        loss_log.txt, val_log.txt       the lines printed for losses and validation scores, with unused losses
        loss_log.jsonl, val_log.jsonl   the same as JSON objects, in full precision
        web/index.html, web/images/     loss curves, and sheets of example images
        tf_log/                         TensorBoard's file, with --tf_log
        train_opt.txt, train_opt.json, parameters.txt, run_info.jsonl: see `write_run_files`

    A resumed run continues the logs and keeps the sheets, without those after `resume_from_total`: the steps that they
    show will be repeated.
    """

    def __init__(
        self, opt: Namespace, run_dir: Path, visual_names: Sequence[str], resume_from_total: int,
        unused_losses: Collection[str] = (),
    ) -> None:  # fmt: skip
        """`visual_names`: titles of the columns of a sheet. `resume_from_total`: samples done so far, 0 in a new run.
        `unused_losses`: losses that the console and the page leave out.

        Raises UserError where the run folder cannot be written, or a package that a flag needs is missing.
        """
        self.run_dir, self.name, self.visual_names, self.unused_losses = run_dir, opt.name, visual_names, unused_losses
        self.active, self.failed = distributed.is_main(), False
        if not self.active:
            return
        self.image_dir = run_dir / "web" / "images"
        try:
            self.image_dir.mkdir(parents=True, exist_ok=True)
            for sheet in self.image_dir.glob("epoch*.jpg"):
                if _sheet_position(sheet)[1] > resume_from_total:
                    sheet.unlink()
            self.loss_log = _Log(run_dir / "loss_log", resume_from_total)
            self.val_log = _Log(run_dir / "val_log", resume_from_total)
        except OSError as error:
            raise UserError(f"{run_dir}: cannot make the run folder ({error})") from error
        self.writes_page = can_write_pages()
        self.visdom = _Visdom(opt) if opt.display_id else None
        self.tensorboard = _open_tensorboard(run_dir / "tf_log", resume_from_total) if opt.tf_log else None

    def write_run_files(
        self, options: Any, opt: Namespace, device: str, data_fingerprints: dict[str, Any], model: Any
    ) -> None:
        """Write train_opt.txt, train_opt.json and parameters.txt, and append a line for this start to run_info.jsonl.

        `options`: the parsed TrainOptions. `device`: its description. `data_fingerprints`: of data/loaders.py.
        `model`: a BaseModel. Raises UserError if a file cannot be written.
        """
        if not self.active:
            return
        listed = {"options": vars(opt), "changed_from_default": options.changed}
        write_text(self.run_dir / "train_opt.txt", options.text + "\n")
        write_text(self.run_dir / "parameters.txt", model.parameter_table() + "\n")
        write_text(self.run_dir / OPTIONS_FILE, json.dumps(listed, indent=2) + "\n")
        start = {
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"), "command": shlex.join(sys.argv),
            "git": git_revision(), "versions": versions(), "device": device,
            "processes": distributed.processes(), "data": data_fingerprints,
        }  # fmt: skip
        append_text(self.run_dir / "run_info.jsonl", json.dumps(start) + "\n")

    def print(self, text: str) -> None:
        """Print on the console, above the progress bar if there is one."""
        if distributed.is_main():
            _print(text)

    @_until_first_error
    def print_current_losses(
        self, epoch: int, iters: int, total_iters: int, seconds: float, losses: Mapping[str, float]
    ) -> None:
        """Print, log and plot losses after `iters` samples of the epoch, `total_iters` in all; `seconds` per sample."""
        row = {"epoch": epoch, "iters": iters, "total_iters": total_iters, "time": seconds, **losses}
        self.loss_log.append(row)
        _print(_log_line({name: value for name, value in row.items() if name not in self.unused_losses}))
        self._plot(total_iters, losses)

    @_until_first_error
    def print_validation(self, epoch: int, total_iters: int, values: Mapping[str, float], is_best: bool) -> None:
        """Print, log and plot validation scores, unless they are logged already: a run that was killed between logging
        and saving validates again."""
        if all(row["total_iters"] != total_iters for row in self.val_log.rows):
            row = {"epoch": epoch, "total_iters": total_iters, **values, "is_best": is_best}
            self.val_log.append(row)
            _print(_log_line(row))
            self._plot(total_iters, {f"val_{name}": value for name, value in values.items()})

    @_until_first_error
    def display_current_results(self, epoch: int, total_iters: int, visuals: list[list[Image.Image]]) -> None:
        """Save `visuals` (a row a sample, a column for each of `visual_names`) as one sheet and update the page."""
        sheet = contact_sheet(visuals)
        save_image(sheet, self.image_dir / f"epoch{epoch:03d}_iters{total_iters:09d}.jpg")
        if self.visdom:
            self.visdom.show_image(sheet, " | ".join(self.visual_names))
        self.update_page()

    @_until_first_error
    def update_page(self) -> None:
        """Write web/index.html: the curves of all losses, then the newest sheets."""
        if self.writes_page:
            from util.html import write_training_page

            rows = self.loss_log.rows
            losses = pd.DataFrame(rows, index=[row["total_iters"] for row in rows])
            losses = losses.drop(columns=[*ROW_INFO, *self.unused_losses], errors="ignore")
            newest = sorted(self.image_dir.glob("epoch*.jpg"), key=_sheet_position, reverse=True)[:SHEETS_ON_PAGE]
            titles = ["epoch {}, {:,} samples".format(*_sheet_position(sheet)) for sheet in newest]
            sheets = {f"images/{sheet.name}": title for sheet, title in zip(newest, titles)}
            write_training_page(self.run_dir / "web/index.html", self.name, losses, self.visual_names, sheets)

    @_until_first_error
    def close(self) -> None:
        """Update the page for the last time and close TensorBoard's file."""
        self.update_page()
        if self.tensorboard:
            self.tensorboard.close()

    def _plot(self, total_iters: int, values: Mapping[str, float]) -> None:
        if self.visdom:
            self.visdom.plot(total_iters, values)
        if self.tensorboard:
            for name, value in values.items():
                self.tensorboard.add_scalar(name, value, total_iters)
            self.tensorboard.flush()


def _print(text: str) -> None:
    tqdm.write(text)
    sys.stdout.flush()


def _sheet_position(sheet: Path) -> tuple[int, int]:
    """Epoch and total samples of .../epoch001_iters000000320.jpg."""
    epoch, total = sheet.stem.removeprefix("epoch").split("_iters")
    return int(epoch), int(total)


class _Log:
    """The rows of a log in PATH.jsonl, and a line for each of them in PATH.txt."""

    def __init__(self, path: Path, resume_from_total: int) -> None:
        """Keep the rows up to `resume_from_total` samples. A PATH.txt of an older version, which wrote no PATH.jsonl,
        is renamed."""
        self.text, self.jsonl = path.with_suffix(".txt"), path.with_suffix(".jsonl")
        self.rows: list[Row] = []
        if self.jsonl.exists():
            self.rows = _read_rows(self.jsonl, resume_from_total)
            content = "".join(json.dumps(row) + "\n" for row in self.rows)
            lines = "".join(_log_line(row) + "\n" for row in self.rows)
            write_text(self.jsonl, content)
            write_text(self.text, lines)
        elif self.text.exists():
            old = self.text.rename(path.with_name(f"{path.name}_old.txt"))
            _print(f"{self.text.name} was written by an older version: it is now {old.name}; a new log starts here")

    def append(self, row: Row) -> None:
        self.rows.append(row)
        for file, content in ((self.jsonl, json.dumps(row)), (self.text, _log_line(row))):
            append_text(file, content + "\n")


def _read_rows(jsonl: Path, up_to: int) -> list[Row]:
    """The rows up to `up_to` samples. An incomplete last line is left out: the process was killed while writing it."""
    try:
        complete_lines = jsonl.read_text(encoding="utf-8").rpartition("\n")[0]
        rows = [json.loads(line) for line in complete_lines.splitlines()]
        return [row for row in rows if row["total_iters"] <= up_to and _log_line(row)]  # which raises for other rows
    except (ValueError, KeyError, TypeError) as error:
        problem = f"not a log that train.py wrote ({type(error).__name__}: {error})"
        raise UserError(f"{jsonl}: {problem}; move it away to start a new one") from error


def _log_line(row: Row) -> str:
    """A row of losses as pix2pix prints it, or one of validation scores in the same style."""
    values = " ".join(f"{name}: {value:.6f}" for name, value in row.items() if name not in ROW_INFO)
    if "is_best" in row:
        end = " best" if row["is_best"] else ""
        return f"(epoch: {row['epoch']}, total iters: {row['total_iters']}, validation) {values}{end}"
    return "(epoch: {epoch}, iters: {iters}, total iters: {total_iters}, time: {time:.3f}) ".format(**row) + values


class _Visdom:
    """Curves and sheets in a browser. If the server does not answer, training continues without it after a warning."""

    def __init__(self, opt: Namespace) -> None:
        self.window, self.client = opt.display_id, None
        self.address = f"{opt.display_server}:{opt.display_port}"
        server = {"server": opt.display_server, "port": opt.display_port, "env": opt.display_env}
        try:
            import visdom

            self.client = visdom.Visdom(**server, raise_exceptions=True, use_incoming_socket=False)
        except ImportError as error:
            raise UserError("--display_id needs visdom; see requirements.txt for how to install it") from error
        except Exception as error:
            self._give_up(error)

    def plot(self, total_iters: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            window = {"win": f"{self.window}_{name}", "opts": {"title": name, "xlabel": "samples"}}
            self._send("line", np.array([value]), np.array([total_iters]), update="append", **window)

    def show_image(self, image: Image.Image, caption: str) -> None:
        pixels = np.asarray(image).transpose(2, 0, 1)
        self._send("image", pixels, win=f"{self.window}_visuals", opts={"title": caption, "caption": caption})

    def _send(self, method: str, *args: Any, **kwargs: Any) -> None:
        if self.client:
            try:
                getattr(self.client, method)(*args, **kwargs)
            except Exception as error:  # visdom raises errors of several libraries
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.client = None
        problem = f"visdom at {self.address} does not answer ({first_line(error)})"
        tqdm.write(f"warning: {problem}; training continues without it", file=sys.stderr)


def _open_tensorboard(folder: Path, resume_from_total: int) -> Any:
    require_package("tensorboard", "--tf_log")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder, purge_step=resume_from_total + 1)
