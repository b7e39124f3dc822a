"""DPTN: generator, discriminator, losses and the training step (sections 3 and 4 of the paper).

Names of losses and outputs: `t` is source-to-target (fake_target against target), `s` is source-to-source
(fake_source against source).
"""

from argparse import ArgumentParser, Namespace
from functools import partial
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from data.keypoints import heat_map_factors, multiply_factors
from models.base_model import BaseModel
from models.losses import GAN_MODES, GANLoss, content_and_style, gradient_penalty, load_vgg19, mean_absolute
from models.networks import INITIALIZERS, NORMS, define_D, define_G, initialize, linear_decay
from util import distributed
from util.arguments import count, number, positive_int, weight
from util.device import PRECISIONS
from util.draw_pose import draw_skeleton
from util.image import to_pil, to_uint8, to_unit

LOSS_NAMES = (
    "app_gen_s", "content_gen_s", "style_gen_s",
    "app_gen_t", "ad_gen_t", "dis_img_gen_t", "content_gen_t", "style_gen_t",
)  # fmt: skip
LAMBDA_GRADIENT_PENALTY = 10.0


class Part(NamedTuple):
    """A batch, or with --accumulate an equal part of one, on the device."""

    source_image: Tensor  # (B,3,H,W) in [-1, 1]
    source_keypoints: Tensor  # (B,18,2)
    target_keypoints: Tensor
    target_image: Tensor | None = None  # training only


class DPTNModel(BaseModel):
    loss_names = LOSS_NAMES  # a model built on this one may add its own
    visual_names = (
        "source photo",
        "source skeleton",
        "target photo",
        "target skeleton",
        "fake_source",
        "fake_target",
    )

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> None:
        size = parser.add_argument_group("DPTN: networks")
        size.add_argument("--norm", choices=list(NORMS), default="instance", help="normalization of the generator")
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
            choices=list(INITIALIZERS),
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
        if opt.norm == "batch" and getattr(opt, "accumulate", 1) > 1:
            raise ValueError("--accumulate needs --norm instance: batch norm would see a part of the batch, twice")
        for flag in ("layers_g", "dis_layers"):
            layers = getattr(opt, flag, 0)
            if any(length % 2**layers for length in network_size):
                height, width = network_size
                raise ValueError(f"--{flag} {layers}: {height} x {width} images cannot be halved {layers} times")

    def __init__(self, opt: Namespace, device: torch.device, is_train: bool) -> None:
        super().__init__(opt, device, is_train)
        net_G = define_G(opt)
        if is_train:
            initialize(net_G, opt.init_type)
        self.net_G = self.nets["G"] = self.prepare(net_G)
        self.run_G = self.compiled(self.generate)
        if not is_train:
            return
        # never compiled: 3 % of the work, spectral norm changes its buffers in place, WGAN-GP differentiates it twice
        self.net_D = self.nets["D"] = self.prepare(define_D(opt))
        self.vgg = None  # as many flops as the generator: left out where nothing needs it
        if opt.lambda_content or opt.lambda_style:
            self.vgg = self.prepare(load_vgg19(opt.vgg_weights))
            self.content_and_style = self.compiled(content_and_style)
        self.gan_loss = GANLoss(opt.gan_mode)
        rates = {"G": opt.lr, "D": opt.lr * opt.ratio_g2d}
        for name, net in self.nets.items():
            self.optimizers[name] = torch.optim.Adam(net.parameters(), lr=rates[name], betas=(opt.beta1, 0.999))
            self.schedulers[name] = linear_decay(self.optimizers[name], opt.niter, opt.niter_decay)
        distributed.broadcast_weights(self.nets.values())

    def set_input(self, batch: dict[str, Any]) -> None:
        """Takes the loader's batch; with --accumulate K it becomes K equal parts."""
        whole = [
            to_unit(self.images_to_device(batch[key])) if key.endswith("image") else self.to_device(batch[key])
            for key in (Part._fields if self.is_train else ("source_image", "source_keypoints", "target_keypoints"))
        ]
        parts = self.opt.accumulate if self.is_train else 1
        self.parts = [Part(*tensors) for tensors in zip(*(tensor.chunk(parts) for tensor in whole))]

    def forward(self, part: Part, reconstruct_source: bool) -> None:
        image = part.source_image
        keypoints = torch.cat((part.source_keypoints, part.target_keypoints))
        exact = torch.float32 if self.opt.precision == "bf16" else torch.float64
        factors = heat_map_factors(keypoints, image.shape[-2:], exact)
        source, target = zip(*(factor.chunk(2) for factor in factors))
        with self.autocast():
            images = self.run_G(image, source, target, reconstruct_source)
        self.fake_target, self.fake_source = images if reconstruct_source else (*images, None)

    def generate(
        self, image: Tensor, source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], reconstruct_source: bool
    ) -> tuple[Tensor, ...]:
        """Source image (B,3,H,W) and the factors of both poses' heat maps -> fake_target, and fake_source if asked for.

        All that is computed for the generator's input and can be compiled with it.
        """
        dtype = image.dtype if image.dtype == torch.float64 else PRECISIONS[self.opt.precision]
        poses = (multiply_factors(*factors).to(dtype) for factors in (source, target))
        images = self.net_G(image.to(dtype), *poses, reconstruct_source)
        return images if reconstruct_source else images[:1]

    def test(self) -> Tensor:
        self.net_G.eval()
        images = []
        with torch.inference_mode():
            for part in self.parts:
                self.forward(part, reconstruct_source=False)
                images.append(self.fake_target)
        self.net_G.train(self.is_train)
        return torch.cat(images)

    def optimize_parameters(self) -> None:
        """One step of the discriminator, then one of the generator.

        With several parts their gradients add up to those of the whole batch. The generator then runs twice, first
        without a graph for the discriminator's step, so that one part's graph is the most that memory must hold; and
        only the first part of a pass makes a power iteration, so that all parts see the same discriminator.
        """
        self.losses = {name: torch.zeros((), device=self.device) for name in self.loss_names}
        once = len(self.parts) == 1
        fakes = []
        for part in self.parts:
            with torch.set_grad_enabled(once):
                self.forward(part, reconstruct_source=once)
            fakes.append(self.fake_target.detach())

        self.net_D.requires_grad_(True)
        self.optimizers["D"].zero_grad(set_to_none=True)
        self.backward_D(fakes)
        self.step("D")

        self.net_D.requires_grad_(False)
        self.optimizers["G"].zero_grad(set_to_none=True)
        for index, part in enumerate(self.parts):
            if not once:
                self.forward(part, reconstruct_source=True)
            self.backward_G(part, iterate=index == 0)
        self.step("G")

    def backward_D(self, fakes: list[Tensor]) -> None:
        """Gradients of 0.5 * (loss on real + loss on fake), and of the gradient penalty for WGAN-GP."""
        reals = [part.target_image for part in self.parts]
        passes = [
            lambda real, _fake, iterate: 0.5 * self.gan_loss.discriminator_real(self.net_D(real, iterate)),
            lambda _real, fake, iterate: 0.5 * self.gan_loss.discriminator_fake(self.net_D(fake, iterate)),
        ]
        if self.opt.gan_mode == "wgangp":
            passes.append(
                lambda real, fake, iterate: (
                    LAMBDA_GRADIENT_PENALTY * gradient_penalty(partial(self.net_D, iterate=iterate), real, fake)
                )
            )
        for loss_of in passes:
            for index, (real, fake) in enumerate(zip(reals, fakes)):
                with self.autocast():
                    loss = loss_of(real, fake, index == 0) / len(fakes)
                loss.backward()
                self.losses["dis_img_gen_t"] += loss.detach()

    def backward_G(self, part: Part, iterate: bool) -> None:
        """Gradients of the weighted sum of all generator terms on one part, after its `forward`."""
        opt = self.opt
        fakes = torch.cat((self.fake_target, self.fake_source))
        reals = torch.cat((part.target_image, part.source_image))
        with self.autocast():
            adversarial = opt.lambda_g * self.gan_loss.generator(self.net_D(self.fake_target, iterate))
            content = style = torch.zeros(len(fakes), device=self.device)
            if self.vgg is not None:
                content, style = self.content_and_style(self.vgg, fakes, reals)
        terms = {"ad_gen_t": (1.0, adversarial)}  # name -> (share in the sum, weighted loss)
        for name, per_sample in (
            ("app_gen", opt.lambda_rec * mean_absolute(fakes, reals)),
            ("content_gen", opt.lambda_content * content),
            ("style_gen", opt.lambda_style * style),
        ):
            t, s = (half.mean() for half in per_sample.chunk(2))
            terms[f"{name}_t"], terms[f"{name}_s"] = (opt.t_s_ratio, t), (1 - opt.t_s_ratio, s)
        terms |= self.extra_terms(part)
        (sum(share * loss for share, loss in terms.values()) / len(self.parts)).backward()
        for name, (_, loss) in terms.items():
            self.losses[name] += loss.detach() / len(self.parts)

    def extra_terms(self, part: Part) -> dict[str, tuple[float, Tensor]]:
        """More generator losses of a model built on this one, after `forward`: name -> (share in the sum, loss)."""
        return {}

    def step(self, name: str) -> None:
        """Average the gradients over all processes and change the weights."""
        distributed.average_gradients(self.nets[name].parameters())
        self.optimizers[name].step()
        if self.opt.norm == "batch":
            distributed.average_statistics(self.nets[name])

    def get_current_losses(self) -> dict[str, float]:
        """The weighted losses of the last step, meaned over all processes, in the log's order. Waits for the device."""
        values = distributed.mean(torch.stack([self.losses[name] for name in self.loss_names]))
        return dict(zip(self.loss_names, values.tolist()))

    def get_current_visuals(self, most: int = 4) -> list[list[Image.Image]]:
        """`visual_names` of the first samples of the last step, a row a sample."""
        part = self.parts[-1]
        size = part.source_image.shape[-2:]

        def photos(images: Tensor) -> list[Image.Image]:
            return [to_pil(image) for image in to_uint8(images[:most].detach())]

        def skeletons(keypoints: Tensor) -> list[Image.Image]:
            return [draw_skeleton(joints, size) for joints in keypoints[:most].tolist()]

        columns = (
            photos(part.source_image), skeletons(part.source_keypoints),
            photos(part.target_image), skeletons(part.target_keypoints),
            photos(self.fake_source), photos(self.fake_target),
        )  # fmt: skip
        return [list(row) for row in zip(*columns)]
