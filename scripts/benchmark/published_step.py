"""The training step of the published code in plain form, to compare speeds with: same networks, losses and numbers.

What differs from DPTNModel: encoder and decoder run once for each branch, VGG19 once for each of the four images,
attention is matrix product, softmax and matrix product, heat maps come from the loader as 36 float32 channels, Adam is
torch's default, and nothing is compiled.
"""

from argparse import Namespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from data.keypoints import draw_heat_maps
from models import pose_transformer
from models.dptn_model import DPTNModel
from models.losses import content_and_style, l1_per_sample
from options.train_options import TrainOptions
from scripts.benchmark.networks import DIS_LAYERS


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1) @ v


def with_heat_maps(batch: dict[str, Any]) -> dict[str, Any]:
    """A loader's batch as the published loader makes it: with heat maps (B,18,H,W), float32, on the host."""
    size = batch["source_image"].shape[-2:]
    roles = ("source", "target")
    return batch | {f"{role}_pose": draw_heat_maps(batch[f"{role}_keypoints"], size).contiguous() for role in roles}


class PublishedStep(DPTNModel):
    """Takes batches of `with_heat_maps`. Its learning rates are constant."""

    def __init__(self, opt: Namespace, device: torch.device, is_train: bool = True) -> None:
        super().__init__(opt, device, is_train)
        for name, optimizer in self.optimizers.items():
            (group,) = optimizer.param_groups
            self.optimizers[name] = torch.optim.Adam(group["params"], lr=group["initial_lr"], betas=group["betas"])

    def set_input(self, batch: dict[str, Any]) -> None:
        super().set_input(batch)
        self.poses = [self.to_device(batch[f"{role}_pose"]) for role in ("source", "target")]

    def optimize_parameters(self) -> None:
        with patch.object(pose_transformer, "attention", plain_attention):
            super().optimize_parameters()

    def forward(self, reconstruct_source: bool = True) -> None:
        net, image = self.net_G, self.batch.source_image
        with self.autocast():
            f_ss, f_st = (net.encoder(torch.cat((image, self.poses[0], pose), dim=1)) for pose in self.poses)
            f_st = net.ptm(f_ss, f_st, net.source_encoder(image))
            self.fake_target, self.fake_source = net.decoder(f_st), net.decoder(f_ss)

    def generator_losses(self) -> dict[str, Tensor]:
        batch = self.batch
        losses = {"ad_gen_t": self.gan_loss.generator(self.discriminate(self.fake_target))}
        images = {"t": (self.fake_target, batch.target_image), "s": (self.fake_source, batch.source_image)}
        for task, (fake, real) in images.items():
            with self.autocast():
                fake_features, real_features = self.vgg(fake), self.vgg(real)
            content, style = content_and_style(fake_features, real_features)
            terms = {"app_gen": l1_per_sample(fake, real), "content_gen": content, "style_gen": style}
            losses |= {f"{name}_{task}": values.mean() for name, values in terms.items()}
        return losses


def build_published(mode: str, device: torch.device, flags: list[str]) -> PublishedStep:
    """The published network of a data set ('fashion' or 'market') with random weights, in contiguous memory."""
    common = ["--name=benchmark", f"--dataset_mode={mode}", "--vgg_weights=random", "--init_type=normal"]
    opt = TrainOptions().parse([*common, f"--dis_layers={DIS_LAYERS[mode]}", "--no-channels_last", *flags])
    return PublishedStep(opt, device)
