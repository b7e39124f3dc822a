"""Flags of scripts/attention.py."""

import argparse

from inference.transfer_options import TransferOptions
from util.arguments import count
from util.image import image_path

DESCRIPTION = """Where the pixels come from: the attention of the Pose Transformer Module, drawn as in the paper.

    attention.py --source me.jpg --pose dancer.jpg --name DPTN_fashion --points 88,60 88,120 --out panel.png

The panel has a row for each of --points: source image, target pose, generated image with the point marked, the point's
weights over the source, energy of the target features before and after the module, and with --flow the source image
with each patch replaced by the one with the largest weight. Attention shows what a block reads, not what determines a
pixel: the blocks' skip connections and the decoder take part too.
"""


class AttentionOptions(TransferOptions):
    command = "scripts/attention.py"
    description = DESCRIPTION

    def add_flags(self, parser: argparse.ArgumentParser) -> None:
        self.add_photo_flags(parser)
        # flags of transfer.py's other results, and of more than one pose
        parser.set_defaults(sheet=None, fps=None, interpolate=0, smooth=True, batchSize=1)
        add = parser.add_argument_group("attention").add_argument
        add("--out", type=image_path, metavar="FILE", help="the panel, .png or .jpg (required)")
        points = "pixels of the generated image, of the data set's stored size (required)"
        add("--points", type=point, nargs="+", metavar="X,Y", help=points)
        add("--ttb", type=count, metavar="K", help="Texture Transfer Block, from 0; default: the last one")
        add("--head", type=count, metavar="K", help="attention head, from 0; default: the mean of all")
        add("--flow", action="store_true", help="add the source image warped by the largest weights")

    def validate(self, opt: argparse.Namespace) -> None:
        super().validate(opt)
        if not opt.points:
            raise ValueError("--points required")
        if len(opt.pose) > 1:
            raise ValueError(f"--pose: there are {len(opt.pose)}; give one")
        if not opt.num_TTBs:
            raise ValueError("--num_TTBs 0: this network has no Texture Transfer Block, so no attention to show")
        for flag, value, limit in (("--ttb", opt.ttb or 0, opt.num_TTBs), ("--head", opt.head or 0, opt.nhead)):
            if value >= limit:
                raise ValueError(f"{flag} {value}: this network has {limit}, numbered from 0")


def point(text: str) -> tuple[float, float]:
    """An argparse type: X,Y."""
    try:
        x, y = (float(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a point X,Y such as 30,64") from error
    return x, y
