"""Mapping a function over items in several processes."""

import os

import pytest

from util.errors import UserError
from util.worker_processes import available_cores, available_shared_memory, map_in_processes


def square(number: int) -> int:
    return number**2


def process_of(_item: int) -> int:
    return os.getpid()


def die(_item: int) -> None:
    os._exit(1)


def test_map_in_processes_keeps_the_order():
    assert list(map_in_processes(square, range(9), 2, "squares", chunk=2)) == [n**2 for n in range(9)]


def test_map_in_processes_computes_few_items_here():
    assert set(map_in_processes(process_of, range(3), 2, "few", chunk=3)) == {os.getpid()}
    assert os.getpid() not in set(map_in_processes(process_of, range(4), 2, "more", chunk=3))


def test_map_in_processes_reports_a_killed_process():
    with pytest.raises(UserError, match="photos: a process was killed, .* fewer --workers"):
        list(map_in_processes(die, range(4), 2, "photos", chunk=1))


def test_available_resources_are_positive():
    assert 1 <= available_cores() <= os.cpu_count()
    memory = available_shared_memory()
    assert memory is None or memory > 0
