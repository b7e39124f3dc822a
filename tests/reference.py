"""A second, slow DPTN generator for the tests: functional, driven by the published keys alone, one branch at a time,
with torch's own multi-head attention. It shares no code with models/ and runs in any precision."""

import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1)


def _norm(w: State, key: str, x: Tensor) -> Tensor:
    return F.instance_norm(x, weight=w[f"{key}.weight"], bias=w[f"{key}.bias"])


def _conv(w: State, key: str, x: Tensor, **how: int) -> Tensor:
    return F.conv2d(x, w[f"{key}.weight"], w[f"{key}.bias"], **how)


def _up(w: State, key: str, x: Tensor) -> Tensor:
    return F.conv_transpose2d(x, w[f"{key}.weight"], w[f"{key}.bias"], stride=2, padding=1, output_padding=1)


def _encode(w: State, prefix: str, x: Tensor) -> Tensor:
    x = _conv(w, f"{prefix}block0.model.0", x, stride=2, padding=1)
    x = _conv(w, f"{prefix}block0.model.3", _act(_norm(w, f"{prefix}block0.model.1", x)), padding=1)
    for i in range(2):
        key = f"{prefix}encoder{i}.model"
        x = _conv(w, f"{key}.2", _act(_norm(w, f"{key}.0", x)), stride=2, padding=1)
        x = _conv(w, f"{key}.5", _act(_norm(w, f"{key}.3", x)), padding=1)
    return x


def _residual(w: State, x: Tensor) -> Tensor:
    for i in range(3):
        y = _conv(w, f"mblock{i}.conv1", _act(_norm(w, f"mblock{i}.model.0", x)), padding=1)
        y = _conv(w, f"mblock{i}.conv2", _act(_norm(w, f"mblock{i}.model.3", y)), padding=1)
        x = y + _conv(w, f"mblock{i}.bypass", x)
    return x


def _attend(w: State, key: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Tokens first, (N,B,256), as torch's function wants them."""
    out, _ = F.multi_head_attention_forward(
        q, k, v, 256, 2, w[f"{key}.in_proj_weight"], w[f"{key}.in_proj_bias"], None, None, False, 0.0,
        w[f"{key}.out_proj.weight"], w[f"{key}.out_proj.bias"],
    )  # fmt: skip
    return out


def _token_norm(w: State, key: str, x: Tensor) -> Tensor:
    return _norm(w, key, x.permute(1, 2, 0)).permute(2, 0, 1)


def _feed_forward(w: State, key: str, x: Tensor) -> Tensor:
    x = F.linear(x, w[f"{key}.linear1.weight"], w[f"{key}.linear1.bias"])
    return F.linear(_act(x), w[f"{key}.linear2.weight"], w[f"{key}.linear2.bias"])


def _transform(w: State, f_ss: Tensor, f_st: Tensor, f_s: Tensor) -> Tensor:
    memory, tokens, texture = (f.flatten(2).permute(2, 0, 1) for f in (f_ss, f_st, f_s))
    for i in range(2):
        key = f"PTM.encoder.layers.{i}"
        memory = _token_norm(w, f"{key}.norm1", memory + _attend(w, f"{key}.self_attn", memory, memory, memory))
        memory = _token_norm(w, f"{key}.norm2", memory + _feed_forward(w, key, memory))
    for i in range(2):
        key = f"PTM.decoder.layers.{i}"
        tokens = _token_norm(w, f"{key}.norm1", tokens + _attend(w, f"{key}.self_attn", tokens, tokens, tokens))
        crossed = _attend(w, f"{key}.multihead_attn", tokens, memory, texture)
        tokens = _token_norm(w, f"{key}.norm2", tokens + crossed)
        tokens = _token_norm(w, f"{key}.norm3", tokens + _feed_forward(w, key, tokens))
    return _token_norm(w, "PTM.decoder.norm", tokens).permute(1, 2, 0).reshape(f_st.shape)


def _decode(w: State, x: Tensor) -> Tensor:
    for i in range(3):
        y = _conv(w, f"decoder{i}.model.2", _act(_norm(w, f"decoder{i}.model.0", x)), padding=1)
        x = _up(w, f"decoder{i}.model.5", _act(_norm(w, f"decoder{i}.model.3", y))) + _up(
            w, f"decoder{i}.shortcut.0", x
        )
    return _conv(w, "outconv.conv1", F.pad(_act(x), (1, 1, 1, 1), "reflect")).tanh()


def generator(w: State, image: Tensor, source_pose: Tensor, target_pose: Tensor) -> tuple[Tensor, Tensor]:
    """Published state dict, image (B,3,H,W), two heat map stacks (B,18,H,W) -> (fake_target, fake_source)."""
    import torch

    f_ss = _residual(w, _encode(w, "", torch.cat((image, source_pose, source_pose), 1)))
    f_st = _residual(w, _encode(w, "", torch.cat((image, source_pose, target_pose), 1)))
    f_s = _encode(w, "source_encoder.", image)
    return _decode(w, _transform(w, f_ss, f_st, f_s)), _decode(w, f_ss)
