"""Weights of other people's networks: downloaded once into TORCH_HOME, or a file."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from util.checkpoint import load_tensors
from util.errors import UserError


class PretrainedWeights(NamedTuple):
    """Weights that somebody publishes: `library` fetches them from `url` where a flag says `keyword`."""

    what: str
    library: str
    keyword: str
    url: str


def load_pretrained(net: nn.Module, source: str, published: PretrainedWeights, flag: str, otherwise: str = "") -> None:
    """Fill `net` by the value of `flag`: the keyword of `published`, or the path of a state dict with the same keys.

    Keys that `net` does not have are left out. UserError where a download fails (naming the file and, with
    `otherwise`, more ways out), where the file is damaged, or where a tensor is missing or mis-shaped.
    """
    what, library, keyword, url = published
    if source == keyword:
        try:
            state = torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
        except Exception as error:  # torch.load can raise anything for a damaged file
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{flag} {keyword}: {library} could not fetch its {what} weights or read them ({reason}). Put a "
                f"sound {Path(url).name} under {torch.hub.get_dir()}/checkpoints, or give {flag} PATH (a {library} "
                f"{what.lower()} state dict)"
                f"{otherwise}."
            ) from error
    else:
        state = load_tensors(source, what=f"{what} weights ({flag})")
    wanted = _computing(net)
    wrong = [key for key in wanted if key not in state or state[key].shape != wanted[key].shape]
    if wrong:
        raise UserError(
            f"{source}: not a {library} {what.lower()} state dict: missing or mis-shaped {', '.join(wrong[:10])}"
        )
    net.load_state_dict({key: state[key] for key in wanted}, strict=False)


def weights_hash(net: nn.Module) -> str:
    """SHA-256 of the names and values of everything in `net` that computes, whatever file it came from."""
    digest = hashlib.sha256()
    for key, tensor in sorted(_computing(net).items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _computing(net: nn.Module) -> dict[str, Tensor]:
    """The state dict without batch norm's counters, which old files lack and evaluation never reads."""
    return {key: tensor for key, tensor in net.state_dict().items() if not key.endswith("num_batches_tracked")}
