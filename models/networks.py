"""Builds the networks from options: `define_G`, `define_D`, and the choices behind their flags."""

from argparse import Namespace
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from models.blocks import InstanceNorm, Norm
from models.discriminator import Discriminator, ResnetDiscriminator
from models.generator import Generator

# --norm: (for feature maps, for transformer tokens). The published instance norms keep no running statistics.
NORMS: dict[str, tuple[Norm, Norm]] = {
    "instance": (InstanceNorm, InstanceNorm),
    "batch": (nn.BatchNorm2d, nn.BatchNorm1d),
}

DISCRIMINATORS = ("spectral", "resnet")  # --netD: DPTN's and DPTN-TA's
INIT_GAIN = 0.02
INITIALIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "orthogonal": partial(nn.init.orthogonal_, gain=INIT_GAIN),
    "normal": partial(nn.init.normal_, std=INIT_GAIN),
    "xavier": partial(nn.init.xavier_normal_, gain=INIT_GAIN),
    "kaiming": nn.init.kaiming_normal_,
}


def initialize(net: nn.Module, init_type: str) -> None:
    """Weights of every convolution and linear layer by `init_type`, their biases 0.

    As published, the weights of BatchNorm2d come from N(1, 0.02), and the fused attention input projections stay
    Xavier-uniform. Other norms, of transformer tokens too, are as torch makes them: weights 1, biases 0.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and not name.endswith("in_proj"):
            INITIALIZERS[init_type](module.weight)
            if module.bias is not None:  # DPTN's have one; a network of one's own may do without
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, INIT_GAIN)


def define_G(opt: Namespace) -> Generator:
    norm, token_norm = NORMS[opt.norm]
    return Generator(
        ngf=opt.ngf, layers=opt.layers_g, num_blocks=opt.num_blocks, heads=opt.nhead, num_cabs=opt.num_CABs,
        num_ttbs=opt.num_TTBs, norm=norm, token_norm=token_norm, separate_branches=opt.norm == "batch",
        ptm_values=opt.ptm_values,
    )  # fmt: skip


def define_D(opt: Namespace) -> Discriminator | ResnetDiscriminator:
    """The spectrally normalized one has PyTorch's default convolution weights and zero biases, whatever `--init_type`.

    On purpose: the published training ran its initializer on a stale copy of the spectrally normalized weights,
    so the discriminator behind the paper's numbers kept the defaults.
    """
    if opt.netD == "spectral":
        return Discriminator(opt.ndf, opt.dis_layers)
    net_D = ResnetDiscriminator(opt.ndf, opt.dis_layers)
    initialize(net_D, opt.init_type)
    return net_D


def linear_decay(optimizer: Optimizer, niter: int, niter_decay: int) -> LambdaLR:
    """Epochs 1..niter at the full rate, then a straight line that would reach 0 one epoch after the last."""
    return LambdaLR(optimizer, lambda epochs_done: 1.0 - max(0, epochs_done + 1 - niter) / (niter_decay + 1))
