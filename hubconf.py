"""DPTN for torch.hub: the generator alone, or ready for images of people.

    generator = torch.hub.load("FOLDER", "dptn", source="local", pretrained="rendered_market")
    transfer = torch.hub.load("FOLDER", "pose_transfer", source="local", pretrained="rendered_market")

`pretrained` is a name in pretrained/ or the path of a file EPOCH_net_G.pth. The sizes of the network come from the file
train_opt.json beside the weights; without one, as with the released weights of the paper, they are the paper's.
"""

import pathlib
import typing

# Modules, not their classes and functions: torch.hub.list() shows everything here that can be called.
import inference.pose_transfer
import models
from models import generator, networks, published_weights
from options import test_options
from util import errors

dependencies = ["torch", "numpy", "pandas", "PIL", "tqdm"]  # torch.hub checks that they are installed
PRETRAINED = pathlib.Path(__file__).resolve().parent / "pretrained"
ENDING = "_net_G.pth"


def dptn(pretrained: str | None = None) -> generator.Generator:
    """The generator, in eval mode, on the CPU.

    It maps an image (B,3,H,W) in [-1, 1] and the heat maps (B,18,H,W) of its pose and of the target pose
    (`draw_heat_maps` in data/keypoints.py) to a tuple: the generated image (B,3,H,W) in [-1, 1], and None. With
    `pretrained=None` it has the random weights with which a training starts, and the paper's sizes.

    Raises UserError if there are no such weights, or they do not fit.
    """
    if pretrained is None:
        net = _build()
        networks.initialize(net, "orthogonal")
        return net
    weights = _find_weights(pretrained)
    net = _build(weights.parent)
    published_weights.load_network(net, weights, "generator")
    return net


def pose_transfer(pretrained: str, **flags: typing.Any) -> inference.pose_transfer.PoseTransfer:
    """A generator that takes images and keypoints: see `PoseTransfer`.

    flags: those of test.py by name, such as `dataset_mode="fashion"`, `gpu_ids="-1"` or `compile=True`.

    Raises UserError if there are no such weights, or they do not fit, and ValueError for a bad flag.
    """
    weights = _find_weights(pretrained)
    run, epoch = weights.parent, weights.name.removesuffix(ENDING)
    return inference.pose_transfer.PoseTransfer.load(run.name, checkpoints_dir=run.parent, which_epoch=epoch, **flags)


def _build(run: pathlib.Path | None = None) -> generator.Generator:
    """A generator in eval mode, of the sizes that the folder of a run names; without one, of the paper's."""
    flags = [f"--checkpoints_dir={run.parent}", f"--name={run.name}"] if run else []
    # not parse(), which refuses to run under torchrun
    opt = test_options.TestOptions().parser(flags, from_run=bool(run)).parse_args(flags)
    return models.find_model(opt.model).define_G(opt).eval()


def _find_weights(pretrained: str) -> pathlib.Path:
    """The path of the weights that `pretrained` names."""
    path = pathlib.Path(pretrained)
    if path.name.endswith(ENDING):
        beside, target = path.parent.resolve() / path.name, path.resolve()
        # a link may lead to a file with another name (in a cache of weights), or into the folder of a run
        has_options = (beside.parent / "train_opt.json").is_file() or not target.name.endswith(ENDING)
        return beside if has_options else target
    names = sorted(folder.name for folder in PRETRAINED.iterdir())
    if pretrained not in names:
        raise errors.UserError(
            f"pretrained='{pretrained}': must be one of {', '.join(names)}, or a path of EPOCH{ENDING}"
        )
    return PRETRAINED / pretrained / f"latest{ENDING}"
