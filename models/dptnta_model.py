"""DPTN-TA: DPTN with a texture affinity loss and another discriminator (Zhang et al., TVCG 2023).

The generator is DPTN's; the losses and the discriminator follow the published code's branch DPTN-Affinity.
`--netD spectral` keeps DPTN's discriminator, and `--lambda_affi 0` DPTN's losses, so that each change can be measured
alone.
"""

from argparse import ArgumentParser, Namespace

import torch
from torch import Tensor

from models.dptn_model import DPTNModel
from models.losses import Features, texture_affinity
from util.arguments import weight


class DPTNTAModel(DPTNModel):
    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> None:
        DPTNModel.modify_commandline_options(parser, is_train)
        if is_train:
            loss = parser.add_argument_group("DPTNTA: losses")
            loss.add_argument("--lambda_affi", type=weight, default=100.0, help="weight of the texture affinity loss")
            parser.set_defaults(netD="resnet")

    def __init__(self, opt: Namespace, device: torch.device, is_train: bool) -> None:
        super().__init__(opt, device, is_train)
        if is_train:
            self.loss_weights["affi_gen_t"] = opt.lambda_affi
            self.task_shares["affi_gen_t"] = opt.t_s_ratio

    @staticmethod
    def validate_options(opt: Namespace, network_size: tuple[int, int]) -> None:
        DPTNModel.validate_options(opt, network_size)
        if getattr(opt, "lambda_affi", 0) > 0 and opt.t_s_ratio == 1:
            raise ValueError(
                "--lambda_affi needs the VGG19 features of the source image, which --t_s_ratio 1 leaves out: give "
                "a --t_s_ratio below 1, or --lambda_affi 0"
            )

    @staticmethod
    def needs_vgg(opt: Namespace) -> bool:
        return DPTNModel.needs_vgg(opt) or opt.lambda_affi > 0

    def feature_losses(self, fake_features: Features, real_features: Features) -> dict[str, Tensor]:
        """DPTN's losses, and the texture affinity loss: how differently fake_target and target_image match source_image
        in relu4_1 and relu5_1."""
        losses = super().feature_losses(fake_features, real_features)
        if not self.opt.lambda_affi:  # with --t_s_ratio 1 there are no features of the source image
            return losses | {"affi_gen_t": torch.zeros((), device=self.device)}
        (fakes, _), (reals, _) = fake_features, real_features
        affinity = sum(
            texture_affinity(fake.chunk(2)[0], *real.chunk(2)) for fake, real in zip(fakes[3:], reals[3:])
        )  # fake_target, target, source
        return losses | {"affi_gen_t": affinity.mean()}
