"""scripts/benchmark/published_step.py computes the losses and gradients of DPTNModel."""

import torch

from models.dptn_model import Batch, DPTNModel
from scripts.benchmark.published_step import PublishedStep, with_heat_maps
from tests.helpers import CPU, TINY, random_batch, train_options


def double_step(model: DPTNModel, batch: dict) -> DPTNModel:
    """One training step in float64."""
    for module in (*model.nets.values(), model.vgg):
        module.double()
    model.set_input(batch)
    model.batch = Batch(*(x.double() if x.shape[1:2] == (3,) else x for x in model.batch))
    if isinstance(model, PublishedStep):
        model.poses = [pose.double() for pose in model.poses]
    model.optimize_parameters()
    return model


def test_published_step_gives_the_losses_and_gradients_of_the_model():
    models = []
    for kind in (DPTNModel, PublishedStep):
        torch.manual_seed(0)
        models.append(double_step(kind(train_options(*TINY), CPU, True), with_heat_maps(random_batch())))
    ours, published = models
    assert ours.losses.keys() == published.losses.keys()
    for name, loss in ours.losses.items():
        torch.testing.assert_close(published.losses[name], loss, rtol=1e-10, atol=1e-12)
    for net in "GD":
        for (name, a), b in zip(ours.nets[net].named_parameters(), published.nets[net].parameters(), strict=True):
            assert (a.grad - b.grad).norm() <= 1e-8 * a.grad.norm() + 1e-10, name
