"""`--cuda_graph`: a training step that is recorded once as a CUDA graph and then replayed for each batch.

A step launches thousands of kernels. For small images or batches the host takes longer to launch them than the GPU to
run them; a replay launches all of them at once. The kernels are those of the plain step.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

PLAIN_STEPS = 3  # before the recording: libraries choose their kernels, lazily made tensors are made


class GraphedStep:
    """Call this in place of `step`, a function without arguments or result.

    `inputs` returns the tensors that change from call to call, always of the same shapes. Everything else that the step
    reads must stay where it is in memory. Learning rates become tensors, because a recording keeps plain numbers.
    A training state must be loaded before the first call.
    """

    def __init__(
        self, step: Callable[[], None], inputs: Callable[[], Sequence[Tensor]], optimizers: Iterable[Optimizer],
        device: torch.device,
    ) -> None:  # fmt: skip
        self.step, self.inputs, self.device = step, inputs, device
        self.plain_steps = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        # Gradients are accumulated on the stream of a weight's first use, which must be that of the recording.
        self.stream = torch.cuda.Stream(device)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group.update(capturable=True, lr=torch.tensor(float(group["lr"]), device=device))

    def __call__(self) -> None:
        """Make one step: plain ones first, then replays."""
        if self.graph is None and self.plain_steps < PLAIN_STEPS:
            self.plain_steps += 1
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self.stream), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
                self.step()
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
            return
        if self.graph is None:
            self.record()
        for recorded, new in zip(self.recorded_inputs, self.inputs(), strict=True):
            recorded.copy_(new)
        self.graph.replay()

    def record(self) -> None:
        """Record a step without making it."""
        self.recorded_inputs = tuple(self.inputs())
        graph = torch.cuda.CUDAGraph()
        # thread_local: the loader's thread may allocate pinned memory meanwhile
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            self.step()
        self.graph = graph
