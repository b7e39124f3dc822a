"""`--ema`: the generator's weights averaged over training steps.

The average moves a little towards the weights after each step (an exponential moving average), which smooths the noise
of adversarial training; StyleGAN and BigGAN generate with such weights. Training itself does not read it.
"""

from copy import deepcopy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """`average` is a network like `net`: its weights are averages, its buffers (of batch norm) those of `net`."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net, self.move = net, get_ema_multi_avg_fn(decay)
        self.average = deepcopy(net).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self) -> None:
        """average = decay * average + (1 - decay) * weights; call it after each step."""
        self.move(list(self.average.parameters()), list(self.net.parameters()), None)
        for average, buffer in zip(self.average.buffers(), self.net.buffers()):
            average.copy_(buffer)

    def restart(self) -> None:
        """Begin with the network's current weights, as when it was made."""
        self.average.load_state_dict(self.net.state_dict())
