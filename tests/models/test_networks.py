"""Initial weights and the learning rate schedule."""

import numpy as np
import pytest
import torch
from torch import nn

from models import create_model
from models.networks import INIT_GAIN, initialize, linear_decay
from tests.helpers import CPU, train_options


class TestInitialization:
    @pytest.mark.slow
    def test_generator_is_orthogonal_but_for_input_projections(self):
        net = create_model(train_options(), CPU, is_train=True).net_G
        weight = net.encoder.residual[0].conv1.weight.flatten(1).double()
        assert torch.allclose(weight @ weight.t(), INIT_GAIN**2 * torch.eye(256).double(), atol=1e-8)
        projection = net.ptm.cabs[0].self_attention.in_proj
        bound = np.sqrt(6 / (256 + 768))  # Xavier-uniform
        assert 0.99 * bound < projection.weight.abs().max() <= bound
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                assert not parameter.any(), name
            elif parameter.dim() == 1:
                assert (parameter == 1).all(), name

    def test_batch_norm_of_feature_maps_draws_its_weights(self):
        """From N(1, 0.02); the mean of n weights is within 4 standard errors of 1. Norms of tokens start at 1."""
        net = create_model(train_options("--norm=batch"), CPU, is_train=True).net_G
        maps = torch.cat([module.weight for module in net.modules() if isinstance(module, nn.BatchNorm2d)])
        assert abs(maps.mean() - 1) < 4 * 0.02 / len(maps) ** 0.5
        assert maps.std().item() == pytest.approx(0.02, rel=4 / (2 * len(maps)) ** 0.5)
        tokens = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d)]
        assert tokens
        assert all((module.weight == 1).all() for module in tokens)

    def test_discriminator_keeps_torch_defaults_and_zero_biases(self):
        net = create_model(train_options("--init_type=normal"), CPU, is_train=True).net_D
        weight = net.blocks[0].conv1.weight_orig
        bound = np.sqrt(1 / weight[0].numel())
        assert 0.99 * bound < weight.abs().max() <= bound
        assert all(not p.any() for name, p in net.named_parameters() if name.endswith("bias"))


def test_initialize_takes_layers_without_bias_and_norms_without_weights():
    net = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3, affine=False))
    net[0].weight.data.fill_(7)
    initialize(net, "orthogonal")
    assert net[0].weight.abs().max() <= INIT_GAIN


def test_linear_decay_follows_its_formula():
    """Factor of epoch e: 1 - max(0, e - niter) / (niter_decay + 1)."""
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = linear_decay(optimizer, niter=3, niter_decay=4)
    rates = []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"] / 2)
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(rates, [1, 1, 1, 0.8, 0.6, 0.4, 0.2])
