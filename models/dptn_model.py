"""DPTN: generator, discriminator, losses and the training step (sections 3 and 4 of the paper).

Names of losses and outputs: `t` is source-to-target (fake_target against target), `s` is source-to-source
(fake_source against source).
"""

from argparse import ArgumentParser, Namespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from data.keypoints import LIMBS, draw_heat_maps
from models.base_model import BaseModel
from models.losses import GAN_MODES, GANLoss, content_and_style, gradient_penalty, load_vgg19, mean_absolute
from models.networks import INITIALISERS, NORMS, define_D, define_G, initialise, linear_decay
from util.arguments import count, number, positive_int, weight
from util.draw_pose import draw_skeleton
from util.image import to_pil, to_uint8, to_unit

LOSS_NAMES = (
    "app_gen_s", "content_gen_s", "style_gen_s",
    "app_gen_t", "ad_gen_t", "dis_img_gen_t", "content_gen_t", "style_gen_t",
)  # fmt: skip
LAMBDA_GRADIENT_PENALTY = 10.0


class DPTNModel(BaseModel):
    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> None:
        size = parser.add_argument_group("DPTN: networks")
        size.add_argument("--norm", choices=list(NORMS), default="instance", help="normalisation of the generator")
        size.add_argument("--ngf", type=positive_int, default=64, help="width of the generator's first block")
        size.add_argument("--layers_g", type=positive_int, default=3, help="down (and up) blocks of the generator")
        size.add_argument("--num_blocks", type=count, default=3, help="residual blocks of the encoder")
        size.add_argument("--nhead", type=positive_int, default=2, help="attention heads")
        size.add_argument("--num_CABs", type=count, default=2, help="Context Augment Blocks")
        size.add_argument("--num_TTBs", type=count, default=2, help="Texture Transfer Blocks")
        if not is_train:
            return
        size.add_argument("--ndf", type=positive_int, default=32, help="width of the discriminator's first block")
        size.add_argument(
            "--dis_layers", "--dis_layer", type=positive_int, default=4,
            help="blocks of the discriminator (the paper: 4 for DeepFashion, 3 for Market-1501)",
        )  # fmt: skip
        size.add_argument(
            "--init_type",
            choices=list(INITIALISERS),
            default="orthogonal",
            help="first weights of the generator",
        )
        loss = parser.add_argument_group("DPTN: losses")
        loss.add_argument("--gan_mode", choices=list(GAN_MODES), default="lsgan", help="adversarial loss")
        loss.add_argument("--lambda_rec", type=weight, default=5.0, help="weight of the L1 loss")
        loss.add_argument("--lambda_content", type=weight, default=0.5, help="weight of the VGG19 content loss")
        loss.add_argument("--lambda_style", type=weight, default=500.0, help="weight of the VGG19 style loss")
        loss.add_argument("--lambda_g", type=weight, default=2.0, help="weight of the generator's adversarial loss")
        loss.add_argument(
            "--t_s_ratio", type=number(float, 0, 1), default=0.5,
            help="share of the source-to-target losses; the source-to-source ones get the rest",
        )  # fmt: skip
        loss.add_argument("--ratio_g2d", type=weight, default=0.1, help="discriminator's learning rate, in --lr")
        loss.add_argument(
            "--vgg_weights", default="imagenet", metavar="imagenet|random|PATH",
            help="VGG19 of the losses: torchvision's, seeded random ones, or a torchvision vgg19 state dict",
        )  # fmt: skip

    @staticmethod
    def validate_options(opt: Namespace, network_size: tuple[int, int]) -> None:
        width = opt.ngf * 2 ** (opt.layers_g - 1)
        if width % opt.nhead:
            raise ValueError(f"--nhead {opt.nhead} does not divide the transformer's width {width} (--ngf, --layers_g)")
        for flag in ("layers_g", "dis_layers"):
            layers = getattr(opt, flag, 0)
            if any(length % 2**layers for length in network_size):
                height, width = network_size
                raise ValueError(f"--{flag} {layers}: {height} x {width} images cannot be halved {layers} times")

    def __init__(self, opt: Namespace, device: torch.device, is_train: bool) -> None:
        super().__init__(opt, device, is_train)
        net_G = define_G(opt)
        if is_train:
            initialise(net_G, opt.init_type)
        self.net_G = self.nets["G"] = self.prepare(net_G)
        self.run_G = self.compiled(self.net_G)
        if not is_train:
            return
        # never compiled: 3 % of the work, spectral norm changes its buffers in place, WGAN-GP differentiates it twice
        self.net_D = self.nets["D"] = self.prepare(define_D(opt))
        self.vgg = self.compiled(self.prepare(load_vgg19(opt.vgg_weights)))
        self.gan_loss = GANLoss(opt.gan_mode)
        rates = {"G": opt.lr, "D": opt.lr * opt.ratio_g2d}
        for name, net in self.nets.items():
            self.optimizers[name] = torch.optim.Adam(net.parameters(), lr=rates[name], betas=(opt.beta1, 0.999))
            self.schedulers[name] = linear_decay(self.optimizers[name], opt.niter, opt.niter_decay)
        self.losses: dict[str, Tensor] = {}

    def set_input(self, batch: dict[str, Any]) -> None:
        size = batch["source_image"].shape[-2:]
        self.source_image = to_unit(self.images_to_device(batch["source_image"]))  # (B,3,H,W)
        self.target_image = to_unit(self.images_to_device(batch["target_image"]))
        self.source_keypoints, self.target_keypoints = batch["source_keypoints"], batch["target_keypoints"]
        self.source_pose, self.target_pose = (  # (B,18,H,W)
            draw_heat_maps(keypoints.to(self.device, non_blocking=True), size)
            for keypoints in (self.source_keypoints, self.target_keypoints)
        )

    def forward(self, reconstruct_source: bool) -> None:
        with self.autocast():
            self.fake_target, self.fake_source = self.run_G(
                self.source_image, self.source_pose, self.target_pose, reconstruct_source
            )

    def test(self) -> Tensor:
        with torch.inference_mode():
            self.forward(reconstruct_source=False)
        return self.fake_target

    def optimize_parameters(self) -> None:
        self.forward(reconstruct_source=True)

        self.net_D.requires_grad_(True)
        self.optimizers["D"].zero_grad(set_to_none=True)
        self.discriminator_loss().backward()
        self.optimizers["D"].step()

        self.net_D.requires_grad_(False)
        self.optimizers["G"].zero_grad(set_to_none=True)
        self.generator_loss().backward()
        self.optimizers["G"].step()

    def discriminator_loss(self) -> Tensor:
        fake = self.fake_target.detach()
        with self.autocast():
            on_real, on_fake = self.net_D(self.target_image), self.net_D(fake)
            loss = 0.5 * (self.gan_loss.discriminator_real(on_real) + self.gan_loss.discriminator_fake(on_fake))
            if self.opt.gan_mode == "wgangp":
                penalty = gradient_penalty(self.net_D, self.target_image, fake)
                loss = loss + LAMBDA_GRADIENT_PENALTY * penalty
        self.losses["dis_img_gen_t"] = loss.detach()
        return loss

    def generator_loss(self) -> Tensor:
        """The weighted sum of all generator terms; each weighted term goes to `self.losses`."""
        opt = self.opt
        fakes = torch.cat((self.fake_target, self.fake_source))
        reals = torch.cat((self.target_image, self.source_image))
        with self.autocast():
            adversarial = opt.lambda_g * self.gan_loss.generator(self.net_D(self.fake_target))
            content, style = content_and_style(self.vgg, fakes, reals)
        total = adversarial
        self.losses["ad_gen_t"] = adversarial.detach()
        for name, per_sample in (
            ("app_gen", opt.lambda_rec * mean_absolute(fakes, reals)),
            ("content_gen", opt.lambda_content * content),
            ("style_gen", opt.lambda_style * style),
        ):
            t, s = (half.mean() for half in per_sample.chunk(2))
            total = total + opt.t_s_ratio * t + (1 - opt.t_s_ratio) * s
            self.losses[f"{name}_t"], self.losses[f"{name}_s"] = t.detach(), s.detach()
        return total

    def current_losses(self) -> dict[str, float]:
        """The weighted losses of the last step, in the order of the log. Waits for the device."""
        values = torch.stack([self.losses[name] for name in LOSS_NAMES]).tolist()
        return dict(zip(LOSS_NAMES, values))

    def current_pictures(self, most: int = 4) -> list[list[Image.Image]]:
        """For each of the first samples of the last step: source photo and skeleton, target photo and skeleton,
        fake_source, fake_target."""
        size = self.source_image.shape[-2:]
        images = (self.source_image, self.target_image, self.fake_source, self.fake_target)
        source, target, fake_source, fake_target = (
            [to_pil(image) for image in to_uint8(batch[:most].detach())] for batch in images
        )
        source_pose, target_pose = (
            [draw_skeleton(joints, size, LIMBS) for joints in keypoints[:most].tolist()]
            for keypoints in (self.source_keypoints, self.target_keypoints)
        )
        return [list(row) for row in zip(source, source_pose, target, target_pose, fake_source, fake_target)]
