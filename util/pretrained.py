"""Published weights of other projects' networks (VGG19, Inception, ...): downloaded once, or read from a file."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from util.checkpoint import load_tensors
from util.errors import UserError, first_line


class PretrainedWeights(NamedTuple):
    """Weights that a library publishes and that a flag can name."""

    what: str  # the network, for messages
    library: str  # who publishes them, for messages
    keyword: str  # the value of the flag that selects them
    url: str  # the file name ends in a hash, which is checked after the download


def load_pretrained(net: nn.Module, source: str, published: PretrainedWeights, flag: str, advice: str = "") -> None:
    """Load weights into `net`.

    source: the value of `flag`: `published.keyword` (downloaded into torch.hub's folder, below TORCH_HOME), or the path
        of a state dict, in which keys that `net` lacks are ignored.
    advice: what else the user can do if the download fails; it begins with ", or".

    Raises UserError if the download fails, the file is missing or damaged, or a tensor is missing or of another shape.
    """
    what, library, keyword, url = published
    if source == keyword:
        try:
            state = torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
        except Exception as error:  # torch.load can raise anything for a damaged file
            raise UserError(
                f"{flag} {keyword}: {library} could not fetch its {what} weights or read them ({first_line(error)}). "
                f"Put an undamaged {Path(url).name} under {torch.hub.get_dir()}/checkpoints (TORCH_HOME chooses "
                f"another folder, if this cannot be written), or give {flag} PATH (a {library} {what.lower()} state "
                f"dict){advice}."
            ) from error
    else:
        state = load_tensors(source, what=f"{what} weights ({flag})")
    expected = without_bn_counters(net)
    if wrong := [k for k, tensor in expected.items() if k not in state or state[k].shape != tensor.shape]:
        problem = f"missing or mis-shaped {', '.join(wrong[:10])}"
        raise UserError(f"{source}: not a {library} {what.lower()} state dict: {problem}")
    net.load_state_dict({key: state[key] for key in expected}, strict=False)


def weights_hash(net: nn.Module) -> str:
    """The SHA-256 of the names and values of all weights in `net`; it does not depend on the file they came from."""
    digest = hashlib.sha256()
    for key, tensor in sorted(without_bn_counters(net).items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def without_bn_counters(net: nn.Module) -> dict[str, Tensor]:
    """The state dict without the counters of batch norm, which old files lack and inference never reads."""
    return {key: tensor for key, tensor in net.state_dict().items() if not key.endswith("num_batches_tracked")}
