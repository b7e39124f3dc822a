"""Pose Transformer Module, PTM (section 3.2 of the paper).

Context Augment Blocks (CAB) refine the source-to-source features into a memory; in Texture Transfer Blocks (TTB) the
source-to-target features attend to it to fetch source texture. The blocks are those of DETR's encoder and decoder
(Carion et al., ECCV 2020) with these differences: every normalization is **instance norm over the tokens** (per
channel), not layer norm; there are no position encodings and no dropout; the feed-forward part has width d and a
LeakyReLU; and every TTB takes its values from the source encoder (with `--ptm_values f_ss`: from f_ss).

Ablations: with `num_ttbs` 0 nothing would read a memory made of f_ss, so the CABs refine f_st itself, by
self-attention and without any texture of the source. With no block at all the module returns f_st as it is: the last
norm is left out, because it is the end of the transformer.

Letters: B batch, N = h*w tokens in row-major order, d channels.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import Norm
from models.ops import at_least_float32, attention, leaky_relu


class MultiHeadAttention(nn.Module):
    """Standard multi-head attention with one fused (3d, d) input projection; no mask, no dropout."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(dim, 3 * dim)
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Three (B,N,d) -> (B,N,d)."""
        if query is key and key is value:
            projected = self.in_proj(query).chunk(3, dim=-1)
        else:
            weights, biases = self.in_proj.weight.chunk(3), self.in_proj.bias.chunk(3)
            projected = [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases)]
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projected)  # (B,heads,N,d/heads)
        attended = attention(q, k, v)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class TokenNorm(nn.Module):
    """Per-channel normalization of (B,N,d) tokens by a norm made for (B,d,N)."""

    def __init__(self, dim: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens.transpose(1, 2)).transpose(1, 2)


class FeedForward(nn.Module):
    """(B,N,d) -> (B,N,d): two linear layers of width d around a LeakyReLU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear2(leaky_relu(self.linear1(tokens)))


class ContextAugmentBlock(nn.Module):
    """Post-norm self-attention and feed-forward: (B,N,d) -> (B,N,d)."""

    def __init__(self, dim: int, heads: int, norm: Norm) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(dim, heads)
        self.norm1 = TokenNorm(dim, norm)
        self.feed_forward = FeedForward(dim)
        self.norm2 = TokenNorm(dim, norm)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attention(x, x, x))
        return self.norm2(x + self.feed_forward(x))


class TextureTransferBlock(nn.Module):
    """Post-norm self-attention, cross-attention and feed-forward of target tokens: (B,N,d) -> (B,N,d).

    In cross-attention, the queries are the target tokens, the keys the memory, the values the source's texture.
    """

    def __init__(self, dim: int, heads: int, norm: Norm) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(dim, heads)
        self.norm1 = TokenNorm(dim, norm)
        self.cross_attention = MultiHeadAttention(dim, heads)
        self.norm2 = TokenNorm(dim, norm)
        self.feed_forward = FeedForward(dim)
        self.norm3 = TokenNorm(dim, norm)

    def forward(self, t: Tensor, memory: Tensor, texture: Tensor) -> Tensor:
        t = self.norm1(t + self.self_attention(t, t, t))
        t = self.norm2(t + self.cross_attention(t, memory, texture))
        return self.norm3(t + self.feed_forward(t))


class PoseTransformerModule(nn.Module):
    """CABs, TTBs and a last norm: moves the source's texture into the target pose."""

    def __init__(self, dim: int, heads: int, num_cabs: int, num_ttbs: int, norm: Norm) -> None:
        super().__init__()
        self.cabs = nn.ModuleList(ContextAugmentBlock(dim, heads, norm) for _ in range(num_cabs))
        self.ttbs = nn.ModuleList(TextureTransferBlock(dim, heads, norm) for _ in range(num_ttbs))
        self.norm = TokenNorm(dim, norm) if num_cabs or num_ttbs else nn.Identity()

    def forward(self, f_ss: Tensor, f_st: Tensor, texture: Tensor) -> Tensor:
        """Source-to-source and source-to-target features, and the source's texture, each (B,d,h,w) -> (B,d,h,w)."""
        memory = self.augment(f_ss if self.ttbs else f_st)
        return self.transfer(f_st, memory, to_tokens(texture))

    def augment(self, features: Tensor) -> Tensor:
        """Features (B,d,h,w) -> the memory (B,N,d)."""
        memory = to_tokens(features)
        for cab in self.cabs:
            memory = cab(memory)
        return memory

    def transfer(self, f_st: Tensor, memory: Tensor, texture: Tensor) -> Tensor:
        """Source-to-target features (B,d,h,w), memory and source texture (B,N,d) each -> (B,d,h,w)."""
        tokens = to_tokens(f_st) if self.ttbs else memory
        for ttb in self.ttbs:
            tokens = ttb(tokens, memory, texture)
        return self.norm(tokens).transpose(1, 2).unflatten(2, f_st.shape[2:])


def to_tokens(features: Tensor) -> Tensor:
    """(B,d,h,w) -> (B,N,d). Also under autocast, tokens are float32 outside of matrix products."""
    return at_least_float32(features).flatten(2).transpose(1, 2)
