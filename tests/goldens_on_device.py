"""The published numbers on a device of your choice: prints one JSON object a line (a part of scripts/benchmark/gpu.sh).

    python -m tests.goldens_on_device cuda:0
    python -m tests.goldens_on_device cpu --quick     # images in fp32 of the default layout only

Everything is compared with a float64 run on the same device, as in tests/models/test_goldens.py: in fp32 no distance
may exceed FACTOR times that of the goldens, which were computed in float32. tf32 and bf16 are reported, not judged.
tests/conftest.py hides all GPUs, so nothing of it may be imported here.
"""

import json
import sys
from collections.abc import Iterator

import numpy as np
import torch

from models import create_model
from models.base_model import BaseModel
from models.published_weights import to_published
from options.train_options import TrainOptions
from tests.formula import GOLDENS, fill_model_by_formula, set_formula_input

FACTOR = 10  # as in tests/models/test_goldens.py
SIZES = [(2, 64, 64), (1, 128, 64)]
SETTINGS = {
    "fashion": (64, 64, []),
    "market": (64, 32, ["--dis_layers=3", "--lambda_g=5", "--lambda_rec=2", "--t_s_ratio=0.8"]),
}
LAYOUTS = {"contiguous": "--no-channels_last", "channels_last": "--channels_last"}


def formula_model(device: torch.device, *flags: str) -> BaseModel:
    opt = TrainOptions().parse(["--name=x", "--vgg_weights=random", "--init_type=normal", *flags])
    model = create_model(opt, device, is_train=True)
    fill_model_by_formula(model)
    return model


def images(model: BaseModel, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """The generator's images by the names of the goldens."""
    model.net_G.to(dtype)
    found = {}
    for n, h, w in SIZES:
        set_formula_input(model, n, h, w, dtype)
        with torch.no_grad():
            model.forward()
        for role in ("source", "target"):
            found[f"G_{n}x{h}x{w}_{role}"] = getattr(model, f"fake_{role}").double().cpu().numpy()
    return found


def first_step(model: BaseModel, setting: str, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Losses and gradient norms of one training step, in the order of the goldens."""
    h, w, _ = SETTINGS[setting]
    for module in (*model.nets.values(), model.vgg):
        module.to(dtype)
    set_formula_input(model, 2, h, w, dtype)
    model.optimize_parameters()
    losses = model.get_current_losses()
    numbers = {"losses": np.array([losses[name] for name in GOLDENS["train_loss_names"]])}
    for net, watched in (("G", GOLDENS["train_watch"]), ("D", GOLDENS["train_watch_D"])):
        parameters = to_published(dict(model.nets[net].named_parameters()))
        norms = [parameters[name].grad.norm().item() for name in watched]
        numbers[f"{net}_grad_norms_step1"] = np.array(norms)
    return numbers


def golden_step(setting: str) -> dict[str, np.ndarray]:
    names = ("G_grad_norms_step1", "D_grad_norms_step1")
    return {"losses": GOLDENS[f"train_{setting}_losses"][0], **{n: GOLDENS[f"train_{setting}_{n}"] for n in names}}


def compare(
    name: str, variant: str, ours: np.ndarray, exact: np.ndarray, golden: np.ndarray, relative: bool, judged: bool
) -> dict[str, object]:
    """A row: largest and mean distance from float64, of ours and of the golden."""
    scale = np.abs(exact) if relative else 1.0
    error, bound = (np.abs(x - exact) / scale for x in (ours, golden))
    passes = bool(error.max() < FACTOR * bound.max()) and (relative or bool(error.mean() < FACTOR * bound.mean()))
    return {"number": name, "precision": variant, "distance": "relative" if relative else "absolute",
            "max": float(error.max()), "mean": float(error.mean()), "golden max": float(bound.max()),
            "golden mean": float(bound.mean()), "passes": passes if judged else None}  # fmt: skip


def measure(device: torch.device, quick: bool) -> Iterator[dict[str, object]]:
    """Rows of a table: images of the generator, then losses and gradients of a training step."""
    precisions = ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32",) if quick else ("fp32", "bf16")
    layouts = ["contiguous"] if quick else list(LAYOUTS)
    variants = [(p, layout) for p in precisions for layout in (layouts if p == "fp32" else ["channels_last"])]
    exact_images = images(formula_model(device, "--precision=fp32"), torch.float64)
    for precision, layout in variants:
        ours = images(formula_model(device, f"--precision={precision}", LAYOUTS[layout]), torch.float32)
        for name, image in ours.items():
            label = f"{precision} {layout}"
            yield compare(name, label, image, exact_images[name], GOLDENS[name], False, precision == "fp32")
    for setting, (_, _, flags) in ({} if quick else SETTINGS).items():
        exact = first_step(formula_model(device, "--precision=fp32", *flags), setting, torch.float64)
        golden = golden_step(setting)
        for precision, layout in variants:
            model = formula_model(device, f"--precision={precision}", LAYOUTS[layout], *flags)
            ours, label = first_step(model, setting, torch.float32), f"{precision} {layout}"
            for name, values in ours.items():
                number = f"{setting} {name}"
                yield compare(number, label, values, exact[name], golden[name], True, precision == "fp32")


if __name__ == "__main__":
    for row in measure(torch.device(sys.argv[1]), "--quick" in sys.argv):
        print(json.dumps(row), flush=True)
