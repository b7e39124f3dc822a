"""The order of the batches, their share of each process, and errors of workers."""

import pytest

from data.loaders import EpochBatchSampler, create_test_dataset, create_test_loader, create_train_loaders
from tests.data.loader_options import loader_options as options
from tests.helpers import CPU
from util.errors import UserError


def test_loader_order_depends_on_seed_and_epoch_only(market):
    """Training: shuffled by seed and epoch, the tail dropped. Test: every pair, in csv order."""
    loader = create_train_loaders(options(market, batchSize=3), CPU)[0]
    epochs = []
    for epoch in (1, 2, 1):
        loader.set_position(epoch)
        epochs.append([name for batch in loader for name in zip(batch["source_name"], batch["target_name"])])
    assert epochs[0] == epochs[2] != epochs[1]
    assert len(epochs[0]) == 6  # of 8
    loader.set_position(1, batches_done=1)
    assert [name for batch in loader for name in zip(batch["source_name"], batch["target_name"])] == epochs[0][3:]

    serial = create_train_loaders(options(market, serial_batches=True), CPU)[0]
    assert next(iter(serial))["source_name"] == [pair.source for pair in serial.dataset.pairs[:2]]

    test_options = options(market, batchSize=3)
    loader = create_test_loader(test_options, create_test_dataset(test_options), CPU)
    names = [name for batch in loader for name in zip(batch["source_name"], batch["target_name"])]
    assert names == [tuple(pair) for pair in loader.dataset.pairs]


def test_sampler_shares_each_batch_among_processes():
    alone = list(EpochBatchSampler(20, 6, shuffle=True, seed=3, drop_last=True))
    shared = [list(EpochBatchSampler(20, 6, True, 3, True, rank, 2)) for rank in range(2)]
    for whole, a, b in zip(alone, *shared):
        assert len(a) == len(b) == 3
        assert sorted(whole) == sorted(a + b)


def test_train_loader_rejects_fewer_pairs_than_a_batch(market):
    with pytest.raises(UserError, match="8 training pairs do not fill one batch of --batchSize 9"):
        create_train_loaders(options(market, batchSize=9), CPU)[0]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 not a photo"])
def test_loader_names_a_broken_photo_in_one_line(market, workers, content):
    dataset_options = options(market, nThreads=workers)
    loader = create_train_loaders(dataset_options, CPU)[0]
    (market / "train" / loader.dataset.pairs[0].source).write_bytes(content)
    with pytest.raises(UserError, match="photo cannot be decoded") as caught:
        list(loader)
    assert loader.dataset.pairs[0].source in str(caught.value)
    assert "\n" not in str(caught.value)


def test_loader_rejects_a_truncated_photo(market):
    loader = create_train_loaders(options(market), CPU)[0]
    path = market / "train" / loader.dataset.pairs[0].source
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="photo cannot be decoded"):
        list(loader)
