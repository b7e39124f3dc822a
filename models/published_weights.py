"""Key names of published DPTN checkpoints, and the way between them and ours.

Published files are plain state dicts, often with a `module.` prefix, in which some tensors stand under two names
(aliases). They load as they are, and the generator that we save carries the same keys, aliases included. Layers that
the published networks lack, as in a subclass, keep their names.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from util.checkpoint import load_tensors, save_file
from util.errors import UserError, summarize


def _prefixed(ours: str, published: str, layers: dict[str, str]) -> dict[str, str]:
    return {f"{ours}.{a}": f"{published}.{b}" for a, b in layers.items()}


_FIRST_DOWN = {"conv1": "model.0", "norm": "model.1", "conv2": "model.3"}
_TWO_CONVS = {"norm1": "model.0", "conv1": "model.2", "norm2": "model.3", "conv2": "model.5"}
_UP = {"norm1": "model.0", "conv": "model.2", "norm2": "model.3", "up": "model.5", "shortcut": "shortcut.0"}
_ATTENTION = {"in_proj.weight": "in_proj_weight", "in_proj.bias": "in_proj_bias", "out_proj": "out_proj"}
_CAB = {"feed_forward.linear1": "linear1", "feed_forward.linear2": "linear2",
        "norm1.norm": "norm1", "norm2.norm": "norm2"}  # fmt: skip

# Our prefix -> published prefix. '#' is a block's number, from 0, the same on both sides.
GENERATOR_KEYS: dict[str, str] = {
    # pose-image encoder
    **_prefixed("encoder.first", "block0", _FIRST_DOWN),
    **_prefixed("encoder.down.#", "encoder#", _TWO_CONVS),
    **_prefixed("encoder.residual.#", "mblock#", {**_TWO_CONVS, "shortcut": "shortcut.0"}),
    # source encoder
    **_prefixed("source_encoder.first", "source_encoder.block0", _FIRST_DOWN),
    **_prefixed("source_encoder.down.#", "source_encoder.encoder#", _TWO_CONVS),
    # Pose Transformer Module
    **_prefixed("ptm.cabs.#.self_attention", "PTM.encoder.layers.#.self_attn", _ATTENTION),
    **_prefixed("ptm.ttbs.#.self_attention", "PTM.decoder.layers.#.self_attn", _ATTENTION),
    **_prefixed("ptm.ttbs.#.cross_attention", "PTM.decoder.layers.#.multihead_attn", _ATTENTION),
    **_prefixed("ptm.cabs.#", "PTM.encoder.layers.#", _CAB),
    **_prefixed("ptm.ttbs.#", "PTM.decoder.layers.#", {**_CAB, "norm3.norm": "norm3"}),
    "ptm.norm.norm": "PTM.decoder.norm",
    # decoder
    **_prefixed("decoder.up.#", "decoder#", _UP),
    "decoder.output.conv": "outconv.model.2",
}
# weight_orig, weight_u, weight_v and bias have the published names, and so has all of DPTN-TA's discriminator.
DISCRIMINATOR_KEYS: dict[str, str] = {
    **_prefixed("first", "block0", {"conv1": "model.0", "conv2": "model.2", "shortcut": "shortcut.1"}),
    **_prefixed("blocks.#", "encoder#", {"conv1": "model.1", "conv2": "model.3", "shortcut": "shortcut.1"}),
    "head": "conv",
}

# Published prefix -> second published name of the same tensor.
ALIASES: dict[str, str] = {
    "mblock#.model.2": "mblock#.conv1",
    "mblock#.model.5": "mblock#.conv2",
    "mblock#.shortcut.0": "mblock#.bypass",
    "outconv.model.2": "outconv.conv1",
}


def _rules(table: Mapping[str, str]) -> list[tuple[re.Pattern[str], str]]:
    """Prefix table -> patterns and their replacements; '#' becomes a captured number."""
    return [
        (re.compile(re.escape(prefix).replace(r"\#", r"(\d+)") + r"(?=\.|$)"), other.replace("#", r"\1"))
        for prefix, other in table.items()
    ]


_GENERATOR_RULES, _DISCRIMINATOR_RULES = _rules(GENERATOR_KEYS), _rules(DISCRIMINATOR_KEYS)
_ALIAS_RULES = _rules(ALIASES)


def _key_rules(state: Mapping[str, Tensor]) -> list[tuple[re.Pattern[str], str]]:
    """The discriminator's short prefixes must not translate the layers of other networks."""
    return _DISCRIMINATOR_RULES if "first.conv1.weight_orig" in state else _GENERATOR_RULES


def _translate(key: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
    """`key` with its known prefix replaced, or None if no rule knows it."""
    for pattern, replacement in rules:
        if match := pattern.match(key):
            return match.expand(replacement) + key[match.end() :]
    return None


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the published names, aliases included (they share their memory)."""
    rules, published = _key_rules(state), {}
    for key, tensor in state.items():
        name = _translate(key, rules) or key
        published[name] = tensor
        if alias := _translate(name, _ALIAS_RULES):
            published[alias] = tensor
    return published


def load_network(net: nn.Module, path: str | Path, what: str) -> None:
    """Fill `net` with the published-format file at `path`, whole or not at all.

    Raises UserError, listing them, for missing, unexpected and mis-shaped keys, for aliases that disagree and for
    tensors with NaN or infinity.
    """
    given, wanted = load_tensors(path, what), net.state_dict()
    if [all(key.startswith("module.") for key in keys) for keys in (given, wanted)] == [True, False]:  # DataParallel's
        given = {key.removeprefix("module."): tensor for key, tensor in given.items()}
    rules, state, problems = _key_rules(wanted), {}, []
    for key, target in wanted.items():
        name = _translate(key, rules) or key
        alias = _translate(name, _ALIAS_RULES)
        found = [given.pop(n) for n in (name, alias) if n in given]
        if not found:
            problems.append(f"missing key {name} {tuple(target.shape)}")
        elif wrong := [tensor for tensor in found if tensor.shape != target.shape]:
            problems.append(f"key {name}: shape {tuple(wrong[0].shape)}, expected {tuple(target.shape)}")
        elif not all(torch.isfinite(tensor).all() for tensor in found):
            problems.append(f"key {name}: contains NaN or infinity")
        elif len(found) == 2 and not torch.equal(*found):
            problems.append(f"keys {name} and {alias} should be the same tensor and differ")
        else:
            state[key] = found[0]
    problems += [f"unexpected key {key} {tuple(tensor.shape)}" for key, tensor in given.items()]
    if problems:
        raise UserError(f"{path}: does not fit this {what} (check --norm and the size flags):\n{summarize(problems)}")
    net.load_state_dict(state)


def save_network(net: nn.Module, path: str | Path) -> None:
    """Write `net` in the published format: CPU tensors in plain memory order under the published keys."""
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in net.state_dict().items()}
    save_file(to_published(state), path)
