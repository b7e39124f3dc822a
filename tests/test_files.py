"""Files are replaced in one step: whoever reads sees the old content or the new, never a mixture."""

import pytest

from util.errors import UserError
from util.files import write_whole


def test_a_reader_keeps_the_old_content(tmp_path):
    path = tmp_path / "new folder" / "a.bin"
    write_whole(path, lambda file: file.write(b"old"))
    with path.open("rb") as reader:
        write_whole(path, lambda file: file.write(b"new!"), flush=True)
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new!"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_a_failure_half_way_changes_nothing(tmp_path):
    path = tmp_path / "a.bin"
    write_whole(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="a.bin: could not be written .*No space left"):
        write_whole(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
