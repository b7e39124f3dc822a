"""--cuda_graph: when a step is recorded, what it reads, and learning rates. CUDA itself is replaced by stand-ins."""

from contextlib import nullcontext
from unittest.mock import MagicMock

import pytest
import torch

from models import create_model
from models.base_model import BaseModel
from models.cuda_graph import PLAIN_STEPS, GraphedStep
from tests.helpers import CPU, NO_VGG, TINY, random_batch, train_options
from util.errors import UserError


@pytest.fixture
def cuda(monkeypatch):
    """Records nothing: a step that runs between `graph`'s ends is counted as recorded."""
    for name in ("Stream", "current_stream", "CUDAGraph"):
        monkeypatch.setattr(f"torch.cuda.{name}", MagicMock())
    monkeypatch.setattr("torch.cuda.stream", lambda _: nullcontext())
    monkeypatch.setattr("torch.cuda.graph", lambda *_, **__: nullcontext())


def test_replays_read_the_inputs_of_each_call_from_the_recorded_tensors(cuda):
    made, inputs = [], []
    graphed = GraphedStep(lambda: made.append(inputs[0].item()), lambda: inputs, [], CPU)
    replayed = []
    torch.cuda.CUDAGraph.return_value.replay = lambda: replayed.append(graphed.recorded_inputs[0].item())
    for number in range(PLAIN_STEPS + 3):
        inputs[:] = [torch.tensor(float(number))]  # a new tensor each time, as from set_input
        graphed()
    assert made == [0, 1, 2, 3]  # three plain ones, then the recording
    assert replayed == [3, 4, 5]


def test_inputs_of_another_shape_are_refused(cuda):
    inputs = [torch.zeros(2, 3)]
    graphed = GraphedStep(lambda: None, lambda: inputs, [], CPU)
    for _ in range(PLAIN_STEPS + 1):
        graphed()
    inputs[:] = [torch.zeros(5, 3)]
    with pytest.raises(RuntimeError, match="size"):
        graphed()


def graphed_model() -> BaseModel:
    model = create_model(train_options(*TINY, *NO_VGG, "--niter=1", "--niter_decay=3"), CPU, is_train=True)
    model.graphed = GraphedStep(lambda: None, lambda: (), model.optimizers.values(), CPU)
    return model


def test_learning_rates_become_tensors_that_the_schedule_changes_in_place(cuda):
    model = graphed_model()
    (group,) = model.optimizers["G"].param_groups
    rate = group["lr"]
    assert group["capturable"]
    for wanted in (2e-4 * 3 / 4, 2e-4 * 2 / 4):
        model.update_learning_rate()
        assert group["lr"] is rate
        assert rate.item() == pytest.approx(wanted)


def test_state_holds_plain_learning_rates_and_can_be_loaded_with_and_without_a_graph(cuda):
    model = graphed_model()
    model.update_learning_rate()
    state = model.state_dict()
    assert isinstance(state["optimizers"]["G"]["param_groups"][0]["lr"], float)
    plain = create_model(train_options(*TINY, *NO_VGG, "--niter=1", "--niter_decay=3"), CPU, is_train=True)
    for other, kind in ((plain, float), (graphed_model(), torch.Tensor)):
        other.load_state_dict(state)
        (group,) = other.optimizers["G"].param_groups
        assert isinstance(group["lr"], kind)
        assert float(group["lr"]) == pytest.approx(2e-4 * 3 / 4)
        assert group["capturable"] == (kind is torch.Tensor)


def test_cuda_graph_needs_cuda():
    with pytest.raises(UserError, match="--cuda_graph needs a CUDA GPU"):
        create_model(train_options(*TINY, *NO_VGG, "--cuda_graph"), CPU, is_train=True)


def test_validation_does_not_replace_the_images_of_training(cuda):
    """A replay runs no Python, so nothing would put them back, and the sheets show them."""
    model = create_model(train_options(*TINY, *NO_VGG), CPU, is_train=True)
    step = GraphedStep(model.optimize_parameters, lambda: model.batch, [], CPU)
    for seed in range(PLAIN_STEPS + 1):
        model.set_input(random_batch(seed=seed))
        step()
    trained = model.fake_target
    model.set_input(random_batch(n=3, seed=9))
    assert len(model.test()) == 3
    model.set_input(random_batch(seed=10))
    step()  # a replay
    assert model.fake_target is trained
    assert len(model.get_current_visuals()) == 2


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_modes_that_record_graphs_of_their_own_are_refused(mode, capsys):
    with pytest.raises(SystemExit):
        train_options("--cuda_graph", "--compile", f"--compile_mode={mode}")
    assert f"--compile_mode {mode} parts of it" in capsys.readouterr().err
