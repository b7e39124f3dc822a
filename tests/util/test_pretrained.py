"""Published weights of networks that this project only uses."""

import pytest
import torch
from torch import nn

from util.errors import UserError
from util.pretrained import PretrainedWeights, load_pretrained, weights_hash

PUBLISHED = PretrainedWeights("Toy", "toylib", "toynet", "https://example.invalid/toy-0123abcd.pth")


def network(value: float = 0.0) -> nn.Module:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    nn.init.constant_(net[0].weight, value)
    return net


def test_load_pretrained_ignores_other_keys_and_missing_counters(tmp_path):
    state = network(5.0).state_dict() | {"head.weight": torch.zeros(1)}
    del state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "toy.pth")
    net = network()
    load_pretrained(net, str(tmp_path / "toy.pth"), PUBLISHED, "--toy_weights")
    assert net[0].weight.unique().tolist() == [5.0]


def test_load_pretrained_names_tensors_that_do_not_fit(tmp_path):
    torch.save(nn.Sequential(nn.Linear(2, 4)).state_dict(), tmp_path / "toy.pth")
    with pytest.raises(
        UserError, match="not a toylib toy state dict: missing or mis-shaped 0.weight, 0.bias, 1.weight"
    ):
        load_pretrained(network(), str(tmp_path / "toy.pth"), PUBLISHED, "--toy_weights")


def test_load_pretrained_says_what_to_do_after_a_failed_download(monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(UserError) as caught:
        load_pretrained(network(), "toynet", PUBLISHED, "--toy_weights", ", or --toy_weights random")
    message = str(caught.value)
    assert message.startswith(
        "--toy_weights toynet: toylib could not fetch its Toy weights or read them (no route to host)"
    )
    assert "Put an undamaged toy-0123abcd.pth under" in message
    assert message.endswith("(a toylib toy state dict), or --toy_weights random.")


def test_weights_hash_depends_on_values_only():
    torch.manual_seed(0)
    net = network(1.0)
    before = weights_hash(net)
    net[1].num_batches_tracked += 1
    assert weights_hash(net) == before
    with torch.no_grad():
        net[1].bias[0] += 1
    assert weights_hash(net) != before
