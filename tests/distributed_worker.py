"""Run by tests/util/test_distributed.py in two processes: distributed_worker.py OUT MODE FLAGS..., MODE of MODES."""

import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models import create_model
from tests.helpers import NO_VGG, TINY, random_batch, train_options
from util import distributed
from util.errors import UserError
from util.training import StopSignal


def save_gradients(out: str, flags: list[str]) -> None:
    """Write the gradients of one step with `flags`."""
    gradients = gradients_after_steps(*flags)
    if distributed.is_main():
        torch.save(gradients, out)


def gradients_after_steps(*flags: str, steps: int = 1) -> dict[str, torch.Tensor]:
    """Every gradient as left after steps on this process's share of a batch of 4."""
    rank, processes = distributed.rank(), distributed.processes()
    torch.manual_seed(rank)  # process 0's weights must win
    model = create_model(train_options(*TINY, *flags), torch.device("cpu"), is_train=True)
    model.set_input({key: value[rank::processes] for key, value in random_batch(4).items()})
    for _ in range(steps):
        model.optimize_parameters()
    return {f"{n}.{key}": p.grad for n, net in model.nets.items() for key, p in net.named_parameters()}


class PlainAverager:
    """Averages each gradient in a message of its own after the backward pass."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], _backward_passes: int) -> None:
        self.parameters = list(parameters)

    def finish(self) -> None:
        for parameter in self.parameters:
            dist.all_reduce(parameter.grad)
            parameter.grad /= distributed.processes()


def compare_averagers(out: str, settings: list[str]) -> None:
    """Write gradients after two steps, averaged during and after backward, for each setting: flags in one string."""
    gradients = {}
    averagers = distributed.GradientAverager, PlainAverager
    distributed.GradientAverager.BUCKET_BYTES = 4096  # the network is small
    for setting in settings:
        gradients[setting] = []
        for averager in averagers:
            distributed.GradientAverager = averager
            gradients[setting].append(gradients_after_steps(*NO_VGG, *setting.split(), steps=2))
    if distributed.is_main():
        torch.save(gradients, out)


def notice_differing_weights(out: str, _flags: list[str]) -> None:
    """Write the error of weights that differ between processes, a file for each process."""
    net = torch.nn.Linear(2, 2)
    distributed.broadcast_weights([net])
    distributed.check_weights({"G": net})
    with torch.no_grad():
        net.weight[0, 0] += distributed.rank() * 1e-6
    try:
        distributed.check_weights({"G": net})
    except UserError as error:
        Path(f"{out}{distributed.rank()}").write_text(str(error))


def stop_by_a_signal_to_one_process(out: str, _flags: list[str]) -> None:
    """Write the step at which this process stops, why, and how many messages it took."""
    messages = []
    gather = distributed.gather
    distributed.gather = lambda value: messages.append(value) or gather(value)
    with StopSignal() as stop:
        step, reason = 0, None
        while reason is None:
            time.sleep(0.002)
            step += 1
            if step == 150 and distributed.rank() == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            reason = stop.reason()
    Path(f"{out}{distributed.rank()}").write_text(f"{step} {reason} {len(messages)}")


MODES = {
    "gradients": save_gradients, "averager": compare_averagers, "differ": notice_differing_weights,
    "stop": stop_by_a_signal_to_one_process,
}  # fmt: skip


def main() -> None:
    out, mode, *flags = sys.argv[1:]
    with distributed.process_group("-1"):
        torch.set_num_threads(1)
        MODES[mode](out, flags)


if __name__ == "__main__":
    main()
