"""Files are replaced in one step: whoever reads sees the old content or the new, never a mixture."""

import pytest

from util.checkpoint import load_file
from util.errors import UserError
from util.files import atomic_write, natural_sort_key


def test_a_reader_keeps_the_old_content(tmp_path):
    path = tmp_path / "new folder" / "a.bin"
    atomic_write(path, lambda file: file.write(b"old"))
    with path.open("rb") as reader:
        atomic_write(path, lambda file: file.write(b"new!"), flush=True)
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new!"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_a_failure_half_way_changes_nothing(tmp_path):
    path = tmp_path / "a.bin"
    atomic_write(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="a.bin: could not be written .*No space left"):
        atomic_write(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("error", [ValueError("encoder"), KeyboardInterrupt()])
def test_another_error_passes_and_leaves_nothing_behind(tmp_path, error):
    path = tmp_path / "a.bin"
    atomic_write(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"ne")
        raise error

    with pytest.raises(type(error)):
        atomic_write(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("content", [b"", b"text", b"text\n", b"\x80\x02.", b"PK\x03\x04", b"{}", b"\x93NUMPY"])
def test_a_file_that_holds_no_tensors(tmp_path, content):
    path = tmp_path / "latest_net_G.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="latest_net_G.pth: weights cannot be read; .*damaged or not a tensor file"):
        load_file(path, "weights")


def test_natural_sort_key_sorts_numbers_by_value():
    mixed = ["A3", "a2b1", "a1b10", "a1b2", "10.png", "9.png"]
    assert sorted(mixed, key=natural_sort_key) == ["9.png", "10.png", "a1b2", "a1b10", "a2b1", "A3"]
