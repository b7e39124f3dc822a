"""DPTN: generator, discriminator, losses and the training step.

With r = --t_s_ratio, the generator's loss is

    r (lambda_rec app_gen_t + lambda_content content_gen_t + lambda_style style_gen_t)
    + (1 - r) (lambda_rec app_gen_s + lambda_content content_gen_s + lambda_style style_gen_s) + lambda_g ad_gen_t

and the discriminator's is the mean of its losses on target_image and on fake_target (plus 10 times the gradient penalty
with --gan_mode wgangp); it never sees fake_source.

Names of losses are the published code's: `app_gen` is L1 (appearance), `content_gen` and `style_gen` VGG19, `ad_gen`
the generator's adversarial loss, `dis_img_gen` the discriminator's. In names and outputs, `t` is source-to-target
(fake_target against target_image), `s` is source-to-source (fake_source against source_image).
"""

from argparse import ArgumentParser, Namespace
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from data.keypoints import heat_map_factors, multiply_factors
from models.base_model import BaseModel
from models.generator import PTM_VALUES
from models.losses import GAN_MODES, Features, content_and_style, gan_mode, gradient_penalty, l1_per_sample, load_vgg19
from models.networks import DISCRIMINATORS, INITIALIZERS, NORMS, define_D, define_G, initialize, linear_decay
from models.weight_average import WeightAverage
from util import distributed
from util.arguments import count, number, positive_int, weight
from util.draw_pose import draw_skeleton
from util.image import from_uint8, to_pil, to_uint8

LAMBDA_GRADIENT_PENALTY = 10.0
MAX_VISUALS = 4  # most samples in `get_current_visuals`
HeatMapFactors = tuple[Tensor, Tensor]  # of rows (B,H,18) and columns (B,W,18), see data/keypoints.py


class Batch(NamedTuple):
    """The tensors that `set_input` makes of a loader's batch, on the device. With --accumulate a training step splits
    them into equal micro-batches."""

    source_image: Tensor  # (B,3,H,W) in [-1, 1]
    source_keypoints: Tensor  # (B,18,2) of (y, x) in whole pixels of the image, NaN = missing
    target_keypoints: Tensor  # the same
    target_image: Tensor | None = None  # (B,3,H,W) in [-1, 1]; training only

    def micro_batches(self, n: int) -> list["Batch"]:
        return [Batch(*tensors) for tensors in zip(*(tensor.chunk(n) for tensor in self))]


class DPTNModel(BaseModel):
    fake_target: Tensor | None = None
    fake_source: Tensor | None = None
    define_G, define_D = staticmethod(define_G), staticmethod(define_D)  # a subclass may have networks of its own
    visual_names = ("source image", "source pose", "target image", "target pose", "fake_source", "fake_target")

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> None:
        add = parser.add_argument_group("DPTN: networks").add_argument
        add("--norm", choices=list(NORMS), default="instance", help="normalization of the generator")
        add("--ngf", type=positive_int, default=64, help="width of the generator's first block")
        add("--layers_g", type=positive_int, default=3, help="down (and up) blocks of the generator")
        add("--num_blocks", type=count, default=3, help="residual blocks of the encoder")
        add("--nhead", type=positive_int, default=2, help="attention heads")
        add("--num_CABs", type=count, default=2, help="Context Augment Blocks")
        add("--num_TTBs", type=count, default=2, help="Texture Transfer Blocks; 0: CABs refine f_st")
        add("--ptm_values", choices=PTM_VALUES, default="f_s",
            help="features whose texture is transferred: of the source encoder, or of the "
            "source-to-source branch")  # fmt: skip
        if not is_train:
            return
        add("--netD", choices=DISCRIMINATORS, default="spectral",
            help="discriminator: spectral (with spectral norm), or resnet (with instance norm), which --model DPTNTA "
            "uses unless told otherwise")  # fmt: skip
        add("--ndf", type=positive_int, default=32, help="width of the discriminator's first block")
        add("--dis_layers", "--dis_layer", type=positive_int, default=4,
            help="blocks of the discriminator (the paper: 4 for DeepFashion, 3 for Market-1501)")  # fmt: skip
        add("--init_type", choices=list(INITIALIZERS), default="orthogonal",
            help="initial weights of the generator, and of --netD resnet")  # fmt: skip
        add = parser.add_argument_group("DPTN: losses").add_argument
        add("--gan_mode", type=gan_mode, choices=list(GAN_MODES), default="lsgan",
            help="adversarial loss; wgan-gp, the published code's name of wgangp, is accepted too")  # fmt: skip
        add("--lambda_rec", type=weight, default=5.0, help="weight of the L1 loss")
        add("--lambda_content", type=weight, default=0.5, help="weight of the VGG19 content loss")
        add("--lambda_style", type=weight, default=500.0, help="weight of the VGG19 style loss")
        add("--lambda_g", type=weight, default=2.0, help="weight of the generator's adversarial loss")
        add("--t_s_ratio", type=number(float, 0, 1), default=0.5,
            help="weight of the source-to-target L1 and VGG19 losses; the source-to-source ones get 1 minus it; "
            "1: no source-to-source task")  # fmt: skip
        add("--ratio_g2d", type=weight, default=0.1, help="discriminator's learning rate as a fraction of --lr")
        add("--vgg_weights", default="imagenet", metavar="imagenet|random|PATH",
            help="VGG19 of the losses: torchvision's, seeded random weights, or a torchvision "
            "vgg19 state dict")  # fmt: skip

    @staticmethod
    def validate_options(opt: Namespace, network_size: tuple[int, int]) -> None:
        channels = opt.ngf * 2 ** (opt.layers_g - 1)
        if channels % opt.nhead:
            raise ValueError(
                f"--nhead {opt.nhead} does not divide the transformer's width {channels} (--ngf, --layers_g)"
            )
        if opt.norm == "batch" and getattr(opt, "accumulate", 1) > 1:
            raise ValueError(
                "--accumulate needs --norm instance: batch norm would normalize each micro-batch by itself, and update "
                "its running statistics twice for each of them"
            )
        halvings = {"layers_g": opt.layers_g}
        if getattr(opt, "netD", None) == "spectral":  # the resnet discriminator halves twice, whatever --dis_layers is
            halvings["dis_layers"] = opt.dis_layers
        for flag, times in halvings.items():
            if any(length % 2**times for length in network_size):
                height, width = network_size
                raise ValueError(f"--{flag} {times}: {height} x {width} images cannot be halved {times} times")
        if max(network_size) == 2**opt.layers_g:
            raise ValueError(f"--layers_g {opt.layers_g}: the features would be 1 x 1, which cannot be normalized")

    def __init__(self, opt: Namespace, device: torch.device, is_train: bool) -> None:
        super().__init__(opt, device, is_train)
        net_G = self.define_G(opt)
        if is_train:
            initialize(net_G, opt.init_type)
        self.net_G = self.nets["G"] = self.prepare(net_G)
        self.compiled_generator = self.compile(self.run_generator)  # without --compile, the same function
        if not is_train:
            return
        self.net_D = self.nets["D"] = self.prepare(self.define_D(opt))
        self.trained_D = [parameter for parameter in self.net_D.parameters() if parameter.requires_grad]
        # The discriminator is not compiled: it is 3 % of the work, its buffers change between a forward pass and the
        # backward pass, and WGAN-GP differentiates it twice.
        self.gan_loss = GAN_MODES[opt.gan_mode]
        self.vgg = None  # it costs as much as the generator, so it is left out where no loss needs it
        if self.needs_vgg(opt):
            self.vgg = self.prepare(load_vgg19(opt.vgg_weights))
            self.compiled_vgg_losses = self.compile(self.vgg_losses)
        self.tasks = ("t", "s") if opt.t_s_ratio < 1 else ("t",)  # without a share, the source image is not generated
        if "s" not in self.tasks:
            self.visual_names = tuple(name for name in self.visual_names if name != "fake_source")
        # Losses are logged in this order and with these weights; the sum also takes each task's share. 0.5: the mean of
        # the discriminator's losses on real and on generated images.
        weights = {
            "app_gen_s": opt.lambda_rec, "content_gen_s": opt.lambda_content, "style_gen_s": opt.lambda_style,
            "app_gen_t": opt.lambda_rec, "ad_gen_t": opt.lambda_g, "dis_img_gen_t": 0.5,
            "content_gen_t": opt.lambda_content, "style_gen_t": opt.lambda_style,
        }  # fmt: skip
        self.loss_weights = {name: value for name, value in weights.items() if name[-1] in self.tasks}
        self.task_shares = {
            f"{loss}_{task}": share
            for task, share in (("t", opt.t_s_ratio), ("s", 1 - opt.t_s_ratio))
            for loss in ("app_gen", "content_gen", "style_gen")
        }
        learning_rates = {"G": opt.lr, "D": opt.lr * opt.ratio_g2d}
        for name, net in self.nets.items():
            self.optimizers[name] = torch.optim.Adam(
                net.parameters(), lr=learning_rates[name], betas=(opt.beta1, 0.999),
                fused=True if device.type == "cuda" else None,  # one kernel for all weights
            )  # fmt: skip
            self.schedulers[name] = linear_decay(self.optimizers[name], opt.niter, opt.niter_decay)
        distributed.broadcast_weights(self.nets.values())
        self.averagers = {
            name: distributed.GradientAverager(net.parameters(), opt.accumulate) for name, net in self.nets.items()
        }
        if opt.ema:
            self.ema = WeightAverage(net_G, opt.ema)
        if opt.cuda_graph:
            self.optimize_parameters = self.graphed_step(lambda: self.batch)

    @staticmethod
    def needs_vgg(opt: Namespace) -> bool:
        return bool(opt.lambda_content or opt.lambda_style)

    def set_input(self, batch: dict[str, Any]) -> None:
        names = Batch._fields if self.is_train else Batch._fields[:-1]  # without the target image
        self.batch = Batch(*(
            from_uint8(self.images_to_device(batch[name])) if name.endswith("image") else self.to_device(batch[name])
            for name in names
        ))  # fmt: skip

    def forward(self, reconstruct_source: bool = True) -> None:
        """Generate `fake_target` and, with `reconstruct_source`, `fake_source`, which only training needs."""
        self.fake_target, self.fake_source = self.generate(reconstruct_source)

    def test(self) -> Tensor:
        """Does not change `fake_target` and `fake_source`: `get_current_visuals` shows them, and a CUDA graph writes
        into them."""
        self.net_G.eval()
        with torch.inference_mode():
            generated, _ = self.generate(reconstruct_source=False)
        self.net_G.train(self.is_train)
        return generated

    def generate(self, reconstruct_source: bool) -> tuple[Tensor, Tensor | None]:
        """(fake_target, fake_source or None), (B,3,H,W) in [-1, 1], float32."""
        batch = self.batch
        factors = [self.pose_factors(keypoints) for keypoints in (batch.source_keypoints, batch.target_keypoints)]
        with self.autocast():
            images = self.compiled_generator(batch.source_image, *factors, reconstruct_source)
        return images if reconstruct_source else (*images, None)  # compiled code returns tensors only, no None

    def pose_factors(self, keypoints: Tensor) -> HeatMapFactors:
        """The factors of the heat maps of keypoints (B,18,2), which `run_generator` multiplies out."""
        dtype = torch.float64 if self.precision == "fp32" else torch.float32
        return heat_map_factors(keypoints, self.batch.source_image.shape[-2:], dtype)

    def run_generator(
        self, image: Tensor, source_factors: HeatMapFactors, target_factors: HeatMapFactors, reconstruct_source: bool
    ) -> tuple[Tensor, ...]:
        """Multiply out both poses' heat maps and run the generator on them: one graph where --compile is set."""
        image = self.in_compute_dtype(image)
        heat_maps = (multiply_factors(*factors).to(image.dtype) for factors in (source_factors, target_factors))
        images = self.net_G(image, *heat_maps, reconstruct_source)
        return images if reconstruct_source else images[:1]

    def in_compute_dtype(self, image: Tensor) -> Tensor:
        """Cast to bfloat16 with --precision bf16. The heat maps take the image's dtype, and so does the discriminator,
        which runs without autocast."""
        return image.bfloat16() if self.precision == "bf16" else image

    def discriminate(self, image: Tensor) -> Tensor:
        """Patch scores (B,1,h,w), float32, of images (B,3,H,W) in [-1, 1]."""
        return self.net_D(self.in_compute_dtype(image))

    def vgg_losses(self, fakes: Tensor, reals: Tensor) -> dict[str, Tensor]:
        """`feature_losses` of two image batches. Only VGG19 runs under autocast: Gram matrices need float32."""
        with self.autocast():
            with torch.no_grad():
                real_features = self.vgg(reals)
            fake_features = self.vgg(fakes)
        return self.feature_losses(fake_features, real_features)

    def feature_losses(self, fake_features: Features, real_features: Features) -> dict[str, Tensor]:
        """Unweighted VGG19 losses by name, from features of generated and real images: B source-to-target samples, then
        B source-to-source ones if that task is trained."""
        content, style = content_and_style(fake_features, real_features)
        return self.by_task("content_gen", content) | self.by_task("style_gen", style)

    def by_task(self, name: str, per_sample: Tensor) -> dict[str, Tensor]:
        """Losses of the samples of all tasks, (B,) or (2B,) -> the mean of each task, by its full name."""
        means = per_sample.unflatten(0, (len(self.tasks), -1)).mean(1)
        return {f"{name}_{task}": mean for task, mean in zip(self.tasks, means)}

    def backward_D(self) -> dict[str, Tensor]:
        """Compute the gradients of the discriminator's loss, with --gan_mode wgangp including the gradient penalty;
        returns that loss by name."""
        real, fake = self.batch.target_image, self.fake_target.detach()
        loss_real = self.gan_loss.discriminator_real(self.discriminate(real))
        loss_fake = self.gan_loss.discriminator_fake(self.discriminate(fake))
        loss = self.loss_weights["dis_img_gen_t"] * (loss_real + loss_fake)
        if self.opt.gan_mode == "wgangp":
            loss = loss + LAMBDA_GRADIENT_PENALTY * gradient_penalty(self.discriminate, real, fake)
        loss.backward()
        return {"dis_img_gen_t": loss.detach()}

    def generator_losses(self) -> dict[str, Tensor]:
        """Unweighted losses by name. A subclass adds its own here, and their weights to `loss_weights`."""
        fakes, reals = self.fake_target, self.batch.target_image
        if "s" in self.tasks:  # both tasks as one batch
            fakes, reals = torch.cat((fakes, self.fake_source)), torch.cat((reals, self.batch.source_image))
        losses = {"ad_gen_t": self.gan_loss.generator(self.discriminate(self.fake_target))}
        losses |= self.by_task("app_gen", l1_per_sample(fakes, reals))
        if self.vgg is not None:
            return losses | self.compiled_vgg_losses(fakes, reals)
        zero = torch.zeros((), device=self.device)  # the log has the VGG19 losses all the same
        return {name: zero for name in self.loss_weights if name != "dis_img_gen_t"} | losses

    def backward_G(self) -> dict[str, Tensor]:
        """Compute the gradients of the sum of all generator losses, each times its weight and its task's share; returns
        the losses by name, times their weights only."""
        losses = {name: self.loss_weights[name] * loss for name, loss in self.generator_losses().items()}
        sum(self.task_shares.get(name, 1.0) * loss for name, loss in losses.items()).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def optimize_parameters(self) -> None:
        """One step of the discriminator, then one of the generator."""
        if self.opt.compile and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # the results of the last step may be overwritten
        if self.opt.accumulate > 1:
            self.optimize_in_micro_batches()
            return
        self.forward(reconstruct_source="s" in self.tasks)

        self.train_discriminator(True)
        self.optimizers["D"].zero_grad()
        losses_D = self.backward_D()
        self.update_weights("D")

        self.train_discriminator(False)
        self.optimizers["G"].zero_grad()
        losses_G = self.backward_G()
        self.update_weights("G")
        self.losses = losses_D | losses_G

    def optimize_in_micro_batches(self) -> None:
        """Gradient accumulation: the same step with the activations of no more than one micro-batch in memory.

        The generator runs forward twice: first without gradients, for the discriminator's step. Spectral norm's power
        iteration depends on the weights alone; it restarts from the same vectors for each micro-batch, so that all of
        them see the discriminator of the plain step.
        """
        whole = self.batch
        # in reverse, so that afterwards `fake_target` belongs to the first samples of the batch
        micro_batches = whole.micro_batches(self.opt.accumulate)[::-1]
        fakes, losses_D, losses_G = [], [], []
        with torch.no_grad():
            for batch in micro_batches:
                self.batch = batch
                self.forward(reconstruct_source=False)
                fakes.append(self.fake_target)

        self.train_discriminator(True)
        self.optimizers["D"].zero_grad()
        vectors = [buffer.clone() for buffer in self.net_D.buffers()]
        for batch, fake in zip(micro_batches, fakes):
            self.batch, self.fake_target = batch, fake
            self.set_discriminator_buffers(vectors)
            losses_D.append(self.backward_D())
        self.update_weights("D")

        self.train_discriminator(False)
        self.optimizers["G"].zero_grad()
        vectors = [buffer.clone() for buffer in self.net_D.buffers()]
        for batch in micro_batches:
            self.batch = batch
            self.set_discriminator_buffers(vectors)
            self.forward(reconstruct_source="s" in self.tasks)
            losses_G.append(self.backward_G())
        self.update_weights("G")
        self.losses = _mean_losses(losses_D) | _mean_losses(losses_G)
        self.batch = whole

    def train_discriminator(self, active: bool) -> None:
        for parameter in self.trained_D:
            parameter.requires_grad_(active)

    def set_discriminator_buffers(self, values: list[Tensor]) -> None:
        for buffer, value in zip(self.net_D.buffers(), values):
            buffer.copy_(value)

    def update_weights(self, name: str) -> None:
        """Average the gradients over micro-batches and processes and make the optimizer's step. After the generator's,
        average the statistics of batch norm over the processes, and update the averaged weights of --ema."""
        self.averagers[name].finish()
        if self.opt.accumulate > 1:
            for parameter in self.nets[name].parameters():
                if parameter.grad is not None:
                    parameter.grad /= self.opt.accumulate
        self.optimizers[name].step()
        if name == "G":  # the last update of a step; until then the discriminator's statistics change
            for net in self.nets.values():
                distributed.average_statistics(net)
            if self.ema is not None:
                self.ema.update()

    @property
    def loss_names(self) -> list[str]:
        """Names of the losses in the log's order."""
        return list(self.loss_weights)

    @property
    def unused_losses(self) -> set[str]:
        """Names of the losses whose weight is 0: they stay in the log files, but would only fill the console."""
        return {name for name, value in self.loss_weights.items() if value == 0}

    def get_current_losses(self) -> dict[str, float]:
        values = distributed.mean(torch.stack([self.losses[name] for name in self.loss_names]))
        return dict(zip(self.loss_names, values.tolist()))

    def get_current_visuals(self) -> list[list[Image.Image]]:
        batch = self.batch
        size = batch.source_image.shape[-2:]

        def images(tensor: Tensor) -> list[Image.Image]:
            return [to_pil(image) for image in to_uint8(tensor[:MAX_VISUALS].detach())]

        def skeletons(keypoints: Tensor) -> list[Image.Image]:
            return [draw_skeleton(pose, size) for pose in keypoints[:MAX_VISUALS].tolist()]

        columns = (
            images(batch.source_image), skeletons(batch.source_keypoints),
            images(batch.target_image), skeletons(batch.target_keypoints),
            *(images(fake) for fake in (self.fake_source, self.fake_target) if fake is not None),
        )  # fmt: skip
        return [list(row) for row in zip(*columns)]


def _mean_losses(losses: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of each loss over micro-batches."""
    return {name: torch.stack([each[name] for each in losses]).mean() for name in losses[0]}
