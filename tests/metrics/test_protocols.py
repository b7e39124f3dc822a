"""metrics/protocols.py."""

from data.fashion_dataset import FashionDataset
from metrics.protocols import PROTOCOLS


def test_protocols_are_named_after_their_keys():
    assert {name: protocol.name for name, protocol in PROTOCOLS.items()} == {"dptn": "dptn", "standard": "standard"}


def test_margin_pads_fashion_to_a_square_under_dptn_only():
    height, width = FashionDataset.stored_size
    assert width + 2 * PROTOCOLS["dptn"].margin("fashion") == height == 256
    assert [PROTOCOLS[name].margin(data) for name, data in (("dptn", "market"), ("standard", "fashion"))] == [0, 0]
