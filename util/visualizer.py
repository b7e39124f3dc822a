"""What a run shows and keeps: loss_log.txt, picture sheets, the options."""

from pathlib import Path

from PIL import Image

from util.errors import UserError
from util.image import contact_sheet, save_image


class Visualizer:
    """Writes into the run folder; makes it if there is none."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.image_dir = run_dir / "web" / "images"
        try:
            self.image_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{run_dir}: cannot make the run folder ({error})") from error

    def write_options(self, text: str, name: str) -> None:
        (self.run_dir / name).write_text(text + "\n")

    def log_losses(self, epoch: int, samples: int, total: int, seconds: float, losses: dict[str, float]) -> str:
        """Append the line of pix2pix to loss_log.txt and return it; `seconds` are per sample."""
        line = f"(epoch: {epoch}, iters: {samples}, total iters: {total}, time: {seconds:.3f}) "
        line += " ".join(f"{name}: {value:.6f}" for name, value in losses.items())
        with (self.run_dir / "loss_log.txt").open("a") as file:
            file.write(line + "\n")
        return line

    def save_sheet(self, epoch: int, total: int, rows: list[list[Image.Image]]) -> Path:
        """One picture of a training batch: a row a sample."""
        path = self.image_dir / f"epoch{epoch:03d}_iters{total:09d}.jpg"
        save_image(contact_sheet(rows), path)
        return path
