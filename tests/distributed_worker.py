"""Run by torchrun from test_distributed.py: python distributed_worker.py OUT ACCUMULATE [differ]"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models import create_model
from tests.conftest import TINY, random_batch, train_options
from util import distributed
from util.errors import UserError


def gradients_after_one_step(accumulate: int) -> dict[str, torch.Tensor]:
    """Every gradient as left after a step on this process's share of a batch of 4."""
    rank, processes = distributed.rank(), distributed.processes()
    torch.manual_seed(rank)  # process 0's weights must win
    model = create_model(train_options(*TINY, f"--accumulate={accumulate}"), torch.device("cpu"), is_train=True)
    model.set_input({key: value[rank::processes] for key, value in random_batch(4).items()})
    model.optimize_parameters()
    return {f"{n}.{key}": p.grad for n, net in model.nets.items() for key, p in net.named_parameters()}


def notice_differing_weights() -> None:
    net = torch.nn.Linear(2, 2)
    distributed.broadcast_weights([net])
    distributed.check_weights({"G": net})
    with torch.no_grad():
        net.weight[0, 0] += distributed.rank() * 1e-6
    try:
        distributed.check_weights({"G": net})
    except UserError as error:
        Path(f"{sys.argv[1]}{distributed.rank()}").write_text(str(error))


def main() -> None:
    with distributed.process_group("-1"):
        torch.set_num_threads(1)
        if sys.argv[3:] == ["differ"]:
            notice_differing_weights()
        else:
            gradients = gradients_after_one_step(int(sys.argv[2]))
            if distributed.is_main():
                torch.save(gradients, sys.argv[1])


if __name__ == "__main__":
    main()
