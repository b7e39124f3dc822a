"""Reading checkpoint files."""

import pytest

from util.checkpoint import load_file
from util.errors import UserError


@pytest.mark.parametrize("content", [b"", b"text", b"text\n", b"\x80\x02.", b"PK\x03\x04", b"{}", b"\x93NUMPY"])
def test_load_file_rejects_a_file_without_tensors(tmp_path, content):
    path = tmp_path / "latest_net_G.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="latest_net_G.pth: weights cannot be read; .*damaged or not a tensor file"):
        load_file(path, "weights")
