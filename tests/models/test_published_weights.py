"""Published files load as they are, ours load there, damaged ones are refused with the reason."""

from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.discriminator import Discriminator
from models.networks import define_G
from models.published_weights import load_network, save_network, to_published
from tests.formula import OFFICIAL_KEYS, formula_tensor
from tests.helpers import TINY_G, test_options
from util.errors import UserError


def published_file(kind: str) -> dict[str, torch.Tensor]:
    """A checkpoint as the published project writes it, both names of aliased tensors included."""
    aliases = OFFICIAL_KEYS["generator_aliases"] if kind == "generator" else {}
    return {key: formula_tensor(aliases.get(key, key), tuple(shape)).clone() for key, shape in OFFICIAL_KEYS[kind]}


def network(kind: str) -> nn.Module:
    return deepcopy(shared_network(kind))


@cache
def shared_network(kind: str) -> nn.Module:
    """Built once, because the orthogonal initialization of a full-size generator takes seconds."""
    return define_G(test_options()) if kind == "generator" else Discriminator(32, int(kind.split("_")[1]))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("kind", ["generator", "discriminator_3_layers", "discriminator_4_layers"])
def test_published_file_survives_load_and_save_bit_for_bit(kind, prefix, tmp_path):
    state = published_file(kind)
    torch.save({prefix + key: tensor for key, tensor in state.items()}, tmp_path / "given.pth")
    net = network(kind)
    load_network(net, tmp_path / "given.pth", kind)
    save_network(net, tmp_path / "ours.pth")
    ours = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert set(ours) == set(state)
    for key, tensor in state.items():
        assert ours[key].dtype == tensor.dtype
        assert torch.equal(ours[key], tensor), key


def test_layers_without_published_names_keep_theirs(tmp_path):
    net = define_G(test_options(*TINY_G))
    net.decoder.refine = nn.Linear(2, 3)
    save_network(net, tmp_path / "ours.pth")
    other = define_G(test_options(*TINY_G))
    other.decoder.refine = nn.Linear(2, 3)
    load_network(other, tmp_path / "ours.pth", "generator")
    assert torch.equal(other.decoder.refine.weight, net.decoder.refine.weight)
    with pytest.raises(UserError, match=r"unexpected key decoder.refine.weight \(3, 2\)"):
        load_network(define_G(test_options(*TINY_G)), tmp_path / "ours.pth", "generator")


def test_other_networks_keep_names_that_mean_something_in_the_discriminator(tmp_path):
    """Such as conv and head, or a child called module."""

    def make() -> nn.Module:
        layers = {"conv": nn.Linear(2, 3), "head": nn.Linear(3, 4), "first": nn.Linear(4, 5), "module": nn.Linear(5, 6)}
        return nn.ModuleDict(layers)

    net, other = make(), make()
    save_network(net, tmp_path / "ours.pth")
    load_network(other, tmp_path / "ours.pth", "generator")
    torch.testing.assert_close(other.state_dict(), net.state_dict(), rtol=0, atol=0)


def test_saved_file_stores_aliased_tensors_once(tmp_path):
    save_network(network("generator"), tmp_path / "ours.pth")
    assert (tmp_path / "ours.pth").stat().st_size < 9_794_371 * 4 * 1.01


@pytest.mark.parametrize("first_name", [True, False])
def test_file_with_one_name_of_each_alias_loads(first_name, tmp_path):
    state = published_file("generator")
    for alias, first in OFFICIAL_KEYS["generator_aliases"].items():
        del state[alias if first_name else first]
    torch.save(state, tmp_path / "g.pth")
    net = network("generator")
    load_network(net, tmp_path / "g.pth", "generator")
    loaded = to_published(net.state_dict())
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_channels_last_weights_are_saved_in_plain_order(tmp_path):
    net = network("generator").to(memory_format=torch.channels_last)
    save_network(net, tmp_path / "ours.pth")
    assert all(tensor.is_contiguous() for tensor in torch.load(tmp_path / "ours.pth", weights_only=True).values())


def test_other_sizes_and_batch_norm_have_published_names(tmp_path):
    net = define_G(test_options(*TINY_G, "--layers_g=4", "--num_blocks=12", "--norm=batch"))
    save_network(net, tmp_path / "ours.pth")
    ours = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert "mblock11.model.3.running_mean" in ours
    assert "encoder2.model.2.weight" in ours
    other = define_G(test_options(*TINY_G, "--layers_g=4", "--num_blocks=12", "--norm=batch"))
    load_network(other, tmp_path / "ours.pth", "generator")
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values()))


def missing(state):
    del state["decoder1.model.2.bias"]
    return r"missing key decoder1.model.2.bias \(64,\)"


def unexpected(state):
    state["flow_net.weight"] = torch.zeros(3)
    return r"unexpected key flow_net.weight \(3,\)"


def misshaped(state):
    state["block0.model.0.weight"] = torch.zeros(64, 39, 3, 3)
    return r"block0.model.0.weight: shape \(64, 39, 3, 3\), expected \(64, 39, 4, 4\)"


def not_finite(state):
    state["PTM.decoder.norm.bias"][7] = torch.nan
    return "PTM.decoder.norm.bias: contains NaN"


def aliases_differ(state):
    state["outconv.conv1.bias"] = state["outconv.conv1.bias"] + 1
    return "outconv.model.2.bias and outconv.conv1.bias"


def alias_misshaped(state):
    state["mblock0.conv1.bias"] = torch.zeros(2)
    return r"mblock0.model.2.bias: shape \(2,\), expected \(256,\)"


@pytest.mark.parametrize("damage", [missing, unexpected, misshaped, not_finite, aliases_differ, alias_misshaped])
def test_damaged_keys_are_refused(damage, tmp_path):
    state = published_file("generator")
    reason = damage(state)
    torch.save(state, tmp_path / "g.pth")
    net = network("generator")
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    with pytest.raises(UserError, match=reason) as caught:
        load_network(net, tmp_path / "g.pth", "generator")
    assert str(tmp_path / "g.pth") in str(caught.value)
    assert all(torch.equal(before[key], tensor) for key, tensor in net.state_dict().items())


def test_many_damaged_keys_are_counted(tmp_path):
    state = {f"wrong{i}": torch.zeros(1) for i in range(30)}
    torch.save(state, tmp_path / "g.pth")
    with pytest.raises(UserError, match=r"and \d+ more \(\d+ in all\)"):
        load_network(network("generator"), tmp_path / "g.pth", "generator")


def truncated(path: Path):
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path):
    path.write_bytes(b"")


def text(path: Path):
    path.write_text("<html>Not found</html>")


def code(path: Path):
    torch.save({"a": Path("x")}, path)  # an object: a safe load refuses it


def not_a_dict(path: Path):
    torch.save([torch.zeros(1)], path)


def not_tensors(path: Path):
    torch.save({"epoch": 3}, path)


@pytest.mark.parametrize("damage", [truncated, empty, text, code, not_a_dict, not_tensors])
def test_damaged_files_are_refused(damage, tmp_path):
    path = tmp_path / "g.pth"
    torch.save(published_file("generator"), path)
    damage(path)
    with pytest.raises(UserError, match="g.pth"):
        load_network(network("generator"), path, "generator")


def test_missing_file_is_a_user_error_with_its_path(tmp_path):
    with pytest.raises(UserError, match="nowhere/latest_net_G.pth: .*not found"):
        load_network(network("generator"), tmp_path / "nowhere/latest_net_G.pth", "network G")


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "g.pth"
    save_network(Discriminator(8, 2), path)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left"):
        save_network(Discriminator(8, 2), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["g.pth"]


def test_saved_weights_are_what_the_network_had(tmp_path):
    net = Discriminator(8, 2)
    save_network(net, tmp_path / "d.pth")
    saved = torch.load(tmp_path / "d.pth", weights_only=True)
    np.testing.assert_array_equal(saved["conv.weight_orig"], net.head.weight_orig.detach())
