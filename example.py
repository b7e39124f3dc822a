"""The whole inference in one file: weights, one image and two poses in, one image out.

    python example.py            # writes example.png
    python example.py --out x.png

The person is rendered; the weights are those of pretrained/rendered_market, which was trained on other rendered
people. With photos the steps are the same; inference/pose_transfer.py has them as a class for many images,
scripts/transfer.py as a command that also finds the keypoints.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import torch
from PIL import Image

from data.keypoints import draw_heat_maps
from data.synthetic.people import render_identity
from models.networks import define_G
from models.published_weights import load_network
from options.test_options import TestOptions
from util.draw_pose import draw_skeleton
from util.errors import run_main
from util.image import contact_sheet, from_uint8, image_path, save_image, to_pil, to_uint8

RUN = Path(__file__).resolve().parent / "pretrained" / "rendered_market"
SIZE = (128, 64)  # (H, W) of Market-1501


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--out", type=image_path, default="example.png", metavar="FILE", help="default: example.png")
    args = parser.parse_args()

    # A person in two poses: pixels are uint8 (128,64,3), keypoints (18,2) of (y, x). The network sees the first image
    # and both poses; the second image only shows what is right.
    source, target = render_identity(identity=7, dataset_mode="market", photos=2, seed=1)

    opt = TestOptions().parse([f"--checkpoints_dir={RUN.parent}", f"--name={RUN.name}"])  # reads the network's flags
    generator = define_G(opt).eval()
    load_network(generator, RUN / "latest_net_G.pth", "generator")

    image = from_uint8(torch.tensor(source.pixels).permute(2, 0, 1)[None])  # (1,3,128,64) in [-1, 1]
    source_pose, target_pose = (  # (1,18,128,64): a Gaussian around each joint
        draw_heat_maps(torch.tensor(photo.keypoints)[None], SIZE) for photo in (source, target)
    )
    with torch.inference_mode():
        generated, _ = generator(image, source_pose, target_pose)  # (1,3,128,64) in [-1, 1]

    skeletons = [draw_skeleton(photo.keypoints, SIZE) for photo in (source, target)]
    shown = [Image.fromarray(source.pixels), *skeletons, to_pil(to_uint8(generated)[0]), Image.fromarray(target.pixels)]
    save_image(contact_sheet([shown]), args.out)
    print(f"{args.out}: source image, its pose, target pose, generated image, target image")


if __name__ == "__main__":
    run_main(main)
