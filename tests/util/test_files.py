"""Atomic writes, hashes, listing and natural order of files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY
from util.errors import UserError
from util.files import (
    append_text,
    atomic_write,
    check_name_lengths,
    explain_missing,
    file_names,
    natural_sort_key,
    sha256,
    to_utf8,
    walk,
    write_text,
)


def test_atomic_write_leaves_readers_the_old_content(tmp_path):
    path = tmp_path / "new folder" / "a.bin"
    atomic_write(path, lambda file: file.write(b"old"))
    with path.open("rb") as reader:
        atomic_write(path, lambda file: file.write(b"new!"), flush=True)
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new!"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_atomic_write_that_fails_keeps_the_old_content(tmp_path):
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
def test_atomic_write_raises_other_errors_and_keeps_the_old_content(tmp_path, error):
    path = tmp_path / "a.bin"
    atomic_write(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"ne")
        raise error

    with pytest.raises(type(error)):
        atomic_write(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_atomic_writes_at_the_same_time_do_not_share_a_temporary_file(tmp_path):
    """The inner write ends while the outer one is half done, as if another process made it."""
    path = tmp_path / "a.bin"

    def write_slowly(file):
        file.write(b"slow ")
        atomic_write(path, lambda inner: inner.write(b"fast"))
        assert path.read_bytes() == b"fast"
        file.write(b"writer")

    atomic_write(path, write_slowly)
    assert path.read_bytes() == b"slow writer"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_atomic_write_takes_the_longest_names_and_the_usual_permissions(tmp_path):
    path = tmp_path / ("ä" * 127 + "b")  # 255 bytes
    atomic_write(path, lambda file: file.write(b"content"))
    (tmp_path / "usual").touch()
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_atomic_write_to_a_pipe_leaves_it_a_pipe(tmp_path):
    """Root could replace /dev/null by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    atomic_write(pipe, lambda file: file.write(b"abc"))
    assert os.read(reader, 9) == b"abc"
    os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(not os.path.exists("/dev/fd/1"), reason="a folder of Linux and macOS")
def test_atomic_write_to_stdout_that_is_redirected_to_a_file_writes_there(tmp_path):
    """By /dev/fd/1 and not /dev/stdout, which a failing test would replace for root."""
    code = "from util.files import atomic_write; atomic_write('/dev/fd/1', lambda file: file.write(b'abc'))"
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True, cwd=REPOSITORY)
    assert (tmp_path / "out").read_bytes() == b"abc"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_atomic_write_to_a_full_device_names_it(tmp_path):
    (tmp_path / "link").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"link: could not be written \(No space left on device\)"):
        atomic_write(tmp_path / "link", lambda file: file.write(b"abc"))


def test_atomic_write_gives_the_last_reason(tmp_path):
    """Making folders meets a missing one first, then one that may not be written."""

    def write(_file: object) -> None:
        try:
            raise FileNotFoundError(2, "No such file", "a/b")
        except OSError:
            raise PermissionError(13, "Permission denied", "a")  # noqa: B904

    with pytest.raises(UserError, match=r"could not be written \(\[Errno 13\] Permission denied: 'a'\)"):
        atomic_write(tmp_path / "a.txt", write)


def test_atomic_write_to_a_folder_says_so(tmp_path):
    for folder in (tmp_path, Path(), Path("/")):
        with pytest.raises(UserError, match=r"could not be written \(it is a folder\)"):
            atomic_write(folder, lambda file: file.write(b"abc"))
    assert not list(tmp_path.iterdir())


def test_write_text_is_utf8_with_line_ends_as_given(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "ü\r\n\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\xc3\xbc\r\n\n"


def test_to_utf8_escapes_bytes_that_are_none():
    assert to_utf8(os.fsdecode(b"\xc3\xbc\xff")) == b"\xc3\xbc\\udcff"


def test_append_text_appends_or_names_the_file(tmp_path):
    append_text(tmp_path / "log", "a\n")
    append_text(tmp_path / "log", "ö\n")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "a\nö\n"
    with pytest.raises(UserError, match="/dev/full: could not be written .No space left on device"):
        append_text(Path("/dev/full"), "a\n")


def test_sha256_of_known_content(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_file_names_lists_all_files_below_a_folder(tmp_path):
    for name in ("a.jpg", "b/c.txt", "b/d/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert file_names(tmp_path) == {"a.jpg", "b/c.txt", "b/d/.hidden"}


def test_file_names_follows_links_and_no_loops(tmp_path, capsys):
    """Two linked folders are two folders, even if they are the same one; links to each other end."""
    root, disk = tmp_path / "root", tmp_path / "disk"
    for folder in (root, disk / "b"):
        folder.mkdir(parents=True)
    (disk / "a.jpg").touch()
    (root / "one").symlink_to(disk)
    (root / "two").symlink_to("../disk")
    (root / "up").symlink_to("..")
    (root / "gone").symlink_to("nowhere")
    (root / "self").symlink_to("self")
    (root / "file.jpg").symlink_to(disk / "a.jpg")
    (disk / "b" / "back").symlink_to(root)
    assert file_names(root) == {"one/a.jpg", "two/a.jpg", "file.jpg"}
    notes = capsys.readouterr().err.splitlines()
    assert sorted(note.split(" is not followed")[0] for note in notes[:-1]) == [
        f"note: {root}/{name}" for name in ("one/b/back", "two/b/back", "up")
    ]
    assert notes[-1].startswith(f"note: {root}: 2 links lead nowhere and are left out: ")
    assert set(notes[-1].split("left out: ")[1].split(", ")) == {f"{root}/gone", f"{root}/self"}
    assert file_names(tmp_path / "no folder") == set()


def test_walk_yields_linked_folders_and_their_files(tmp_path):
    (tmp_path / "disk/b").mkdir(parents=True)
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a").symlink_to(tmp_path / "disk")
    assert [entry.path for entry in walk(tmp_path / "root")] == [f"{tmp_path}/root/a", f"{tmp_path}/root/a/b"]


def test_explain_missing_names_unicode_forms_case_and_links(tmp_path):
    (tmp_path / "d").symlink_to("nowhere")
    names = ["caf\u00e9.jpg", "cafe\u0301s.jpg", "A.jpg", "d/e.jpg", "z.jpg"]
    reasons = explain_missing(names, ["cafe\u0301.jpg", "caf\u00e9s.jpg", "a.jpg"], tmp_path)
    assert list(reasons) == names[:4]
    assert "another Unicode form, NFD, as macOS writes it" in reasons[names[0]]
    assert "another Unicode form, NFC" in reasons[names[1]]
    assert reasons["A.jpg"] == " (a.jpg is there, which differs in capital letters)"
    assert reasons["d/e.jpg"] == f" ({tmp_path}/d is a link to nowhere, which does not exist)"


def test_check_name_lengths_counts_bytes():
    check_name_lengths(["a" * 255, "\u4eba" * 85], "names")
    with pytest.raises(
        UserError, match="1 file names would be longer than 255 bytes.* the longest has 258: .*shorten it"
    ):
        check_name_lengths(["a" * 255, "\u4eba" * 86], "it")


@pytest.mark.parametrize("name", ["a" * 251 + ".jpg", "\u4eba" * 83 + ".jpg"])
def test_atomic_write_of_the_longest_names(name, tmp_path):
    """The temporary file's name fits too."""
    atomic_write(tmp_path / name, lambda file: file.write(b"content"))
    assert (tmp_path / name).read_bytes() == b"content"


def test_natural_sort_key_orders_numbers_by_value():
    assert sorted(["frame10", "Frame2", "b", "1"], key=natural_sort_key) == ["1", "b", "Frame2", "frame10"]
