"""scripts/benchmark/memory.py counts the right bytes for known operations, on real and on fake tensors."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from scripts.benchmark.memory import Counter


@pytest.mark.parametrize("fake", [False, True])
def test_counter_gives_the_bytes_of_known_operations(fake):
    """Float32 matrices of 10 x 10 take 400 bytes. a, b and a @ b are alive together; a @ b is freed before a + b."""
    with FakeTensorMode() if fake else torch.no_grad(), Counter() as counter:
        a, b = torch.ones(10, 10), torch.ones(10, 10)
        assert counter.now == 800
        counter.restart()
        product = a @ b
        assert (counter.now, counter.moved, counter.moved_by_products, counter.kernels) == (1200, 1200, 1200, 1)
        rows = product.t()
        assert (counter.now, counter.kernels) == (1200, 1)  # a view takes no memory
        del product, rows
        assert counter.now == 800
        a.add_(b)
        assert (counter.now, counter.moved, counter.moved_by_products, counter.kernels) == (800, 2400, 1200, 2)
    assert counter.peak == 1200


def test_counter_sees_a_backward_pass_free_saved_tensors():
    with FakeTensorMode(), Counter() as counter:
        x = torch.ones(1000, requires_grad=True)
        counter.restart()
        loss = x.exp().exp().sum()
        assert counter.now == 4000 + 2 * 4000 + 4  # both results are saved for the gradient
        loss.backward()
        del loss
        assert counter.now == 2 * 4000  # x and its gradient
        assert counter.peak > 3 * 4000
