"""What a run shows and keeps: console, loss_log.txt, web page, visdom, TensorBoard. Only process 0 does anything."""

import json
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from util import distributed
from util.errors import UserError
from util.html import write_training_page
from util.image import contact_sheet, save_image
from util.reproducibility import git_revision, versions

SHEETS_ON_PAGE = 100


class Visualizer:
    """Writes into the run folder, which it makes if there is none.

    A continued run takes up the old log: lines and pictures after `continue_from` (made after the last save, and about
    to be made again) are dropped.
    """

    def __init__(self, opt: Namespace, run_dir: Path, columns: Sequence[str], continue_from: int) -> None:
        """`columns`: titles over the pictures. `continue_from`: samples done so far."""
        self.run_dir, self.name, self.active = run_dir, opt.name, distributed.is_main()
        if not self.active:
            return
        self.log_file, self.val_file = run_dir / "loss_log.txt", run_dir / "val_log.txt"
        self.image_dir = run_dir / "web" / "images"
        try:
            self.image_dir.mkdir(parents=True, exist_ok=True)
            for file in (self.log_file, self.val_file):
                lines = lines_of(file)
                whole = [line for line in lines if line.endswith("\n")]  # the process may have died in a line
                kept = [line for line in whole if total_of(line) <= continue_from]
                if kept != lines:
                    file.write_text("".join(kept))
            for sheet in self.image_dir.glob("epoch*.jpg"):
                if int(sheet.stem.rpartition("iters")[2]) > continue_from:
                    sheet.unlink()
        except OSError as error:
            raise UserError(f"{run_dir}: cannot make the run folder ({error})") from error
        self.losses: dict[str, list[tuple[float, float]]] = {}
        self.columns = columns
        for line in lines_of(self.log_file):
            self._remember(total_of(line), losses_of(line))
        self.visdom = _Visdom(opt) if opt.display_id else None
        self.tensorboard = _tensorboard(run_dir / "tf_log", continue_from) if opt.tf_log else None

    def write_run_files(self, options: Any, opt: Namespace, device: str, data: dict[str, Any], model: Any) -> None:
        """train_opt.txt, train_opt.json, parameters.txt, and one more line in run_info.jsonl for each start."""
        if not self.active:
            return
        (self.run_dir / "train_opt.txt").write_text(options.text + "\n")
        (self.run_dir / "parameters.txt").write_text(model.parameter_table() + "\n")
        listed = {"options": vars(opt), "changed_from_default": options.changed}
        (self.run_dir / "train_opt.json").write_text(json.dumps(listed, indent=2) + "\n")
        facts = {
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"), "command": shlex.join(sys.argv),
            "git": git_revision(), "versions": versions(), "device": device, "data": data,
        }  # fmt: skip
        with (self.run_dir / "run_info.jsonl").open("a") as file:
            file.write(json.dumps(facts) + "\n")

    def say(self, text: str) -> None:
        """A line on the console, above the progress bar if there is one."""
        if self.active:
            tqdm.write(text)
            sys.stdout.flush()

    def log_losses(self, epoch: int, samples: int, total: int, seconds: float, losses: dict[str, float]) -> None:
        """A line as pix2pix writes it (`seconds` a sample), on the console and in loss_log.txt; curves elsewhere."""
        if not self.active:
            return
        line = f"(epoch: {epoch}, iters: {samples}, total iters: {total}, time: {seconds:.3f}) "
        line += " ".join(f"{name}: {value:.6f}" for name, value in losses.items())
        self._append(self.log_file, line)
        self._remember(total, losses)
        self._curves(total, losses)

    def log_validation(self, epoch: int, total: int, values: dict[str, float], best: bool) -> None:
        """A line in val_log.txt and on the console; curves elsewhere."""
        if not self.active or any(total_of(line) == total for line in lines_of(self.val_file)):
            return  # a run killed right after it wrote the line validates again
        line = f"(epoch: {epoch}, total iters: {total}, validation) "
        line += " ".join(f"{name}: {value:.6f}" for name, value in values.items())
        self._append(self.val_file, line + (" best" if best else ""))
        self._curves(total, {f"val_{name}": value for name, value in values.items()})

    def show(self, epoch: int, total: int, rows: list[list[Image.Image]]) -> None:
        """Keep a picture sheet (a row a sample) and bring the page up to date. For process 0 to call."""
        sheet = contact_sheet(rows)
        save_image(sheet, self.image_dir / f"epoch{epoch:03d}_iters{total:09d}.jpg")
        if self.visdom:
            self.visdom.picture(sheet, " | ".join(self.columns))
        self.update_page()

    def update_page(self) -> None:
        """web/index.html: curves of everything logged, newest picture sheets first."""
        if self.active:
            sheets = sorted(self.image_dir.glob("epoch*.jpg"), reverse=True)[:SHEETS_ON_PAGE]
            write_training_page(self.run_dir / "web/index.html", self.name, self.losses, self.columns, sheets)

    def close(self) -> None:
        self.update_page()
        if self.active and self.tensorboard:
            self.tensorboard.close()

    def _append(self, file: Path, line: str) -> None:
        self.say(line)
        with file.open("a") as log:
            log.write(line + "\n")

    def _remember(self, total: int, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            self.losses.setdefault(name, []).append((total, value))

    def _curves(self, total: int, values: dict[str, float]) -> None:
        if self.visdom:
            self.visdom.curves(total, values)
        if self.tensorboard:
            for name, value in values.items():
                self.tensorboard.add_scalar(name, value, total)
            self.tensorboard.flush()


def lines_of(file: Path) -> list[str]:
    """Lines with their ends; none if there is no file."""
    return file.read_text().splitlines(keepends=True) if file.exists() else []


def total_of(line: str) -> int:
    """The `total iters` of a log line; 0 if it has none."""
    match = re.search(r"total iters: (\d+)", line)
    return int(match[1]) if match else 0


def losses_of(line: str) -> dict[str, float]:
    """The named numbers of a log line."""
    return {name: float(value) for name, value in re.findall(r"(\w+): (-?\d+\.\d+)", line.partition(") ")[2])}


class _Visdom:
    """Curves and pictures in a browser. If the server is not there: one warning, and training goes on."""

    def __init__(self, opt: Namespace) -> None:
        self.window, self.client = opt.display_id, None
        self.address = f"{opt.display_server}:{opt.display_port}"
        try:
            import visdom

            self.client = visdom.Visdom(
                server=opt.display_server, port=opt.display_port, env=opt.display_env, raise_exceptions=True,
                use_incoming_socket=False,
            )  # fmt: skip
        except ImportError as error:
            raise UserError("--display_id needs visdom; see requirements.txt for how to install it") from error
        except Exception as error:
            self._give_up(error)

    def curves(self, total: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            if self.client:
                self._try(
                    self.client.line, np.array([value]), np.array([total]), win=f"{self.window}_{name}",
                    update="append", opts={"title": name, "xlabel": "samples"},
                )  # fmt: skip

    def picture(self, sheet: Image.Image, caption: str) -> None:
        if self.client:
            self._try(
                self.client.image, np.asarray(sheet).transpose(2, 0, 1), win=f"{self.window}_pictures",
                opts={"title": caption, "caption": caption},
            )  # fmt: skip

    def _try(self, call: Any, *args: Any, **named: Any) -> None:
        try:
            call(*args, **named)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.client = None
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        tqdm.write(
            f"warning: visdom at {self.address} does not answer ({reason}); going on without it", file=sys.stderr
        )


def _tensorboard(folder: Path, continue_from: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("--tf_log needs the tensorboard package: pip install tensorboard") from error
    return SummaryWriter(folder, purge_step=continue_from + 1)
