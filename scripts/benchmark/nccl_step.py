"""Training steps in a group of one process with NCCL, which torchrun starts; train.py alone makes no group of one.

torchrun --standalone --nproc_per_node=1 scripts/benchmark/nccl_step.py cuda|cpu [flags of train.py]
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from scripts.benchmark.gpu_report import TINY_TRAINING
from scripts.benchmark.networks import build, one_call, random_batch
from util import distributed


def main() -> None:
    on_gpu = sys.argv[1] == "cuda"
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    batch, losses = random_batch(2, "market"), []
    for joined in (False, True):
        if joined:
            dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
            distributed._cpu_group = dist.new_group(backend="gloo")
        torch.manual_seed(0)
        model = build("training", "market", ["--init_type=normal", *TINY_TRAINING, *sys.argv[2:]], device)
        run = one_call(model, batch)
        for _ in range(3):
            run()
        losses.append(model.get_current_losses())
    worst = max(abs(a - b) / (abs(b) + 1e-6) for a, b in zip(losses[1].values(), losses[0].values()))
    print(f"backend {dist.get_backend()}, largest relative difference of losses after three steps {worst:.3g}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
