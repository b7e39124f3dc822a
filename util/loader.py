"""Batches from worker processes: through shared memory or, where that is too small, through pipes."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, Dataset, default_collate

from util import distributed
from util.errors import MORE_MEMORY, UserError, first_line, torch_remedy
from util.worker_processes import available_shared_memory, ignore_signals_in_worker

WORKER_EXIT_DELAY = 0.5  # seconds: torch's signal handler takes this to notice a killed worker; its error is clearer


class BatchLoader:
    """A DataLoader whose errors are UserErrors of one line, and which works where /dev/shm is small.

    Docker gives containers 64 MB of it. In that case batches go through pipes (torch's strategy `file_system` needs the
    same space): samples are sent as NumPy arrays and collated in this process, which takes some 20 ms of a step of 32
    pairs at 256 x 256.
    """

    def __init__(
        self, dataset: Dataset, batch_bytes: int, workers: int, collate: Callable[[list], Any] = default_collate,
        **settings: Any,
    ) -> None:  # fmt: skip
        """`batch_bytes`: about how much a batch takes. `settings`: of DataLoader."""
        self._collate = collate
        free = available_shared_memory()
        # each worker is up to two batches ahead; one batch is in use, one is on its way. NCCL needs space, too.
        needed = 2 * distributed.local_processes() * batch_bytes * (2 * workers + 2)
        self._through_pipes = workers > 0 and free is not None and needed > free
        if self._through_pipes and distributed.is_main():
            sizes = f"{workers} workers need {needed / 1e6:.0f} MB of shared memory, {free / 1e6:.0f} MB are free"
            advice = "docker run --shm-size=2g or fewer --nThreads avoid this"
            print(f"{sizes}: batches go through pipes, which is slower ({advice})", file=sys.stderr)
        self.loader = DataLoader(
            dataset, num_workers=workers, worker_init_fn=ignore_signals_in_worker,
            collate_fn=_to_arrays if self._through_pipes else collate, **settings,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Any]:
        try:
            for batch in self.loader:
                yield self._collate(batch) if self._through_pipes else batch
        except UserError as error:
            # torch puts a worker's traceback into the message; the user needs only its last line
            raise UserError(str(error).rsplit("UserError: ", 1)[-1].strip()) from error
        except RuntimeError as error:
            if remedy := torch_remedy(error):
                raise UserError(remedy) from error
            raise
        except (ConnectionError, EOFError) as error:  # a worker was killed while it sent a batch
            time.sleep(WORKER_EXIT_DELAY)
            raise UserError(f"{MORE_MEMORY} ({first_line(error)})") from error
        except OSError as error:
            # Starting a worker flushes the console, whose errors have a file name; they are not the workers'.
            if self.loader.num_workers and "DataLoader worker" not in str(error) and not error.filename:
                raise UserError(f"no worker processes could be started ({error}): use --nThreads 0") from error
            raise

    def end_workers(self) -> None:
        iterator, self.loader._iterator = self.loader._iterator, None
        if iterator is not None:
            iterator._shutdown_workers()


def _to_arrays(samples: list[Any]) -> list[Any]:
    """Tensors, which torch would send through shared memory, become arrays; `default_collate` takes both."""
    return tree_map_only(Tensor, Tensor.numpy, samples)
