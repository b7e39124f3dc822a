"""onnxruntime beside PyTorch, on the CPU: transfer.onnx and `PoseTransfer`, from images and poses to images."""

import tempfile
from collections.abc import Iterator
from functools import partial
from statistics import median

import torch

from inference.onnx_export import graphs, open_session, require_packages, to_onnx
from inference.pose_transfer import PoseTransfer
from models import create_model
from options.test_options import TestOptions
from scripts.benchmark.measure import seconds
from scripts.benchmark.networks import MODES

CPU = torch.device("cpu")
COLUMNS = {"size": "", "batch": "", "program": "", "s/image": ".3f", "fastest": ".3f", "of eager": ".2f"}


def measure(sizes: list[str], batch: int, compiling: list[bool], repeats: int) -> Iterator[tuple]:
    """Rows of a table, with random weights of the published sizes. `compiling`: the forms of PyTorch to measure.

    The programs take turns, because the speed of a shared machine varies; onnxruntime has as many threads as torch.
    """
    require_packages()
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            flags = {"checkpoints_dir": folder, "dataset_mode": MODES[size], "gpu_ids": -1, "batchSize": batch}
            opt = TestOptions().parse(["--name=random", *(f"--{name}={value}" for name, value in flags.items())])
            create_model(opt, CPU, is_train=False).save_networks(opt.which_epoch)
            eager = PoseTransfer(opt, CPU)
            graph = graphs(eager)[1]
            session = open_session(to_onnx(graph, {}, half=False), torch.get_num_threads())
            arrays = [x.numpy() for x in graph.random_inputs(batch)]
            transfers = {"PyTorch, eager": eager}
            if True in compiling:
                transfers["PyTorch, --compile"] = PoseTransfer.load("random", **flags, compile=True)
            programs = {name: partial(transfer, *arrays) for name, transfer in transfers.items()}
            programs["onnxruntime"] = partial(session.run, None, dict(zip(graph.inputs, arrays)))
            rounds = [{name: seconds(run, CPU) for name, run in programs.items()} for _ in range(repeats + 1)][1:]
            times = {name: [each[name] / batch for each in rounds] for name in programs}
            for name, values in times.items():
                middle = median(values)
                yield size, batch, name, middle, min(values), middle / median(times["PyTorch, eager"])
