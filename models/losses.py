"""Losses of DPTN (section 3.3 of the paper) and of DPTN-TA: unweighted terms.

Means, Gram matrices and norms are float32, also when the features come in bfloat16.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ops import at_least_float32, max_pool2, relu
from util.pretrained import PretrainedWeights, load_pretrained

Loss = Callable[[Tensor], Tensor]


def _squared_distance(goal: float) -> Loss:
    return lambda scores: (scores - goal).square().mean()


class GANLoss(NamedTuple):
    """The losses of one GAN mode on patch scores of any shape."""

    discriminator_real: Loss
    discriminator_fake: Loss
    generator: Loss  # on scores of generated images


GAN_MODES = {
    "lsgan": GANLoss(_squared_distance(1), _squared_distance(0), _squared_distance(1)),
    "vanilla": GANLoss(
        lambda scores: F.softplus(-scores).mean(),  # binary cross-entropy with logits against 1
        lambda scores: F.softplus(scores).mean(),
        lambda scores: F.softplus(-scores).mean(),
    ),
    "hinge": GANLoss(
        lambda scores: F.relu(1 - scores).mean(),
        lambda scores: F.relu(1 + scores).mean(),
        lambda scores: -scores.mean(),
    ),
    "wgangp": GANLoss(lambda scores: -scores.mean(), lambda scores: scores.mean(), lambda scores: -scores.mean()),
}


def gan_mode(name: str) -> str:
    """An argparse type for keys of GAN_MODES (`choices` checks them): 'wgan-gp' is the published name of 'wgangp'."""
    return "wgangp" if name == "wgan-gp" else name


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """WGAN-GP's mean (|gradient| - 1)^2 at random mixtures of real and fake images (B,3,H,W), unweighted."""
    mix = torch.rand(len(real), 1, 1, 1, device=real.device)
    mixed = (mix * real + (1 - mix) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(mixed).sum(), mixed, create_graph=True)
    return (at_least_float32(gradient).flatten(1).norm(dim=1) - 1).square().mean()


# index in torchvision's vgg19().features: name of that ReLU
CONTENT_LAYERS = {1: "relu1_1", 6: "relu2_1", 11: "relu3_1", 20: "relu4_1", 29: "relu5_1"}
STYLE_LAYERS = {8: "relu2_2", 17: "relu3_4", 26: "relu4_4", 31: "relu5_2"}
FAST_FORMS = {nn.ReLU: relu, nn.MaxPool2d: max_pool2}  # called in place of the layers: same numbers, see models/ops.py


Features = tuple[list[Tensor], list[Tensor]]  # content and style features of VGG19Features


class VGG19Features(nn.Module):
    """Frozen VGG19 up to relu5_2 (Simonyan and Zisserman, 2015).

    It is fed [-1, 1] images **without** ImageNet normalization, as published.
    """

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models.vgg import cfgs, make_layers  # slow to import, and inference does not need it

        self.features = make_layers(cfgs["E"], batch_norm=False)[: max(STYLE_LAYERS) + 1]
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Features:
        """(N,3,H,W) -> content features (5) and style features (4), each (N,C,h,w)."""
        content, style = [], []
        x = images
        for index, layer in enumerate(self.features):
            x = FAST_FORMS.get(type(layer), layer)(x)
            if index in CONTENT_LAYERS:
                content.append(x)
            elif index in STYLE_LAYERS:
                style.append(x)
        return content, style


def l1_per_sample(a: Tensor, b: Tensor) -> Tensor:
    """L1 distance, the mean absolute difference, of each sample: two (N,...) -> (N,) float32.

    Differences of bfloat16 values are rounded to bfloat16, which saves two float32 copies of all features; the errors
    average out in the mean of so many.
    """
    dtype = torch.promote_types(a.dtype, torch.float32)
    return (a - b).abs().mean(tuple(range(1, a.ndim)), dtype=dtype)


def gram_matrix(features: Tensor) -> Tensor:
    """(N,C,h,w) -> (N,C,C) F F^T / (h*w*C), float32. Call it without autocast."""
    flat = at_least_float32(features).flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()


def content_and_style(fake_features: Features, real_features: Features) -> tuple[Tensor, Tensor]:
    """VGG19 features of two image batches of N -> content (N,) and style (N,) terms, unweighted. No autocast.

    Content sums the mean absolute feature differences, style those of the Gram matrices.
    """
    (fake_content, fake_style), (real_content, real_style) = fake_features, real_features
    content = sum(l1_per_sample(a, b) for a, b in zip(fake_content, real_content))
    style = sum(l1_per_sample(gram_matrix(a), gram_matrix(b)) for a, b in zip(fake_style, real_style))
    return content, style


def texture_affinity(fake: Tensor, real: Tensor, source: Tensor) -> Tensor:
    """How differently the positions of two images match those of the source: three (B,C,h,w) features -> (B,) float32.

    Each position's matches are the softmax of its cosine similarities to all positions of the source; the loss is the
    mean absolute difference of the matches of `fake` and `real`. (Zhang et al., TVCG 2023, as its code computes it:
    there is no temperature.) No autocast.
    """
    fake, real, source = (F.normalize(at_least_float32(f).flatten(2), dim=1, eps=1e-4) for f in (fake, real, source))
    matches_fake, matches_real = ((f.transpose(1, 2) @ source).softmax(-1) for f in (fake, real))  # (B,h*w,h*w)
    return l1_per_sample(matches_fake, matches_real)


def load_vgg19(weights: str) -> VGG19Features:
    """VGG19 by `--vgg_weights`: 'imagenet' (torchvision, cached under TORCH_HOME), 'random' (seeded), or a file.

    A file is a torchvision vgg19 state dict; its `features.*` keys up to relu5_2 are enough.
    """
    from torchvision.models import VGG19_Weights

    vgg = VGG19Features()
    if weights == "random":
        generator = torch.Generator().manual_seed(0)
        for module in vgg.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(module.bias)
        return vgg
    imagenet = PretrainedWeights("VGG19", "torchvision", "imagenet", VGG19_Weights.IMAGENET1K_V1.url)
    load_pretrained(vgg, weights, imagenet, "--vgg_weights", ", or --vgg_weights random for a trial")
    return vgg
