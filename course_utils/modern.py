"""What language models changed since GPT-2: the norm, the positions, the feed-forward part, the heads.

Each fits into the course's decoder in the place of the older part (`modernise`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.attention import KVCache, attention, causal_mask, check_heads, check_rows, join_masks
from course_utils.transformer import Config, Decoder, initialise

__taught__ = ["RMSNorm", "rotate", "SwiGLU", "GroupedQueryAttention"]

PARTS = ("RMSNorm", "rotary positions", "SwiGLU", "grouped queries")


class RMSNorm(nn.Module):
    """x / √(mean(x²) + eps) · gain: a layer norm without the mean and without the shift.

    Source: Zhang & Sennrich 2019, "Root mean square layer normalization", arXiv:1910.07467, equation (4).
    """

    def __init__(self, C: int, eps: float = 1e-5) -> None:
        """C: width."""
        super().__init__()
        self.gain, self.eps = nn.Parameter(torch.ones(C)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., C) → (..., C)."""
        return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + self.eps) * self.gain


def rotate(x: torch.Tensor, start: int = 0, base: float = 10_000.0) -> torch.Tensor:
    """Turn each pair of numbers of a query or key by an angle that grows with its position.

    The pair (i, i + hs / 2) at position t turns by t / base^(2 i / hs), so that the product of a query and a
    key depends on how far apart they are and not on where they stand.

    Args:
        x: (B, nh, T, hs) queries or keys.
        start: position of the first of the T.
        base: of the wavelengths.

    Raises:
        ValueError: hs is odd.

    Source: Su et al. 2021, "RoFormer", arXiv:2104.09864, equation (34); the pairing of Llama.
    """
    check_pairs(x)
    T, half = x.shape[-2], x.shape[-1] // 2
    t = torch.arange(start, start + T, device=x.device, dtype=torch.float32)[:, None]  # (T, 1)
    angles = t * base ** (-torch.arange(half, device=x.device) / half)  # (T, hs / 2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]  # (B, nh, T, hs / 2) each
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def check_pairs(x: torch.Tensor) -> None:
    """Raises ValueError where heads do not split into pairs."""
    if x.shape[-1] % 2:
        raise ValueError(f"x must have an even head size to be turned in pairs, got {x.shape[-1]}")


class SwiGLU(nn.Module):
    """W_2 (SiLU(W_g x) · W_1 x): a feed-forward part in which one product decides how much of another passes.

    With the inner width of 8 C / 3 it costs what GPT-2's costs with 4 C.

    Source: Shazeer 2020, "GLU variants improve Transformer", arXiv:2002.05202, equation (6); no biases.
    """

    def __init__(self, C: int, hidden: int) -> None:
        """C: width. hidden: inner width."""
        super().__init__()
        self.gate, self.inner = nn.Linear(C, hidden, bias=False), nn.Linear(C, hidden, bias=False)
        self.outer = nn.Linear(hidden, C, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., C) → (..., C)."""
        return self.outer(F.silu(self.gate(x)) * self.inner(x))


class GroupedQueryAttention(nn.Module):
    """Attention in which several heads' queries share one head's keys and values.

    Attributes:
        keep_weights, weights: as in `MultiHeadAttention`.

    Source: Ainslie et al. 2023, "GQA", arXiv:2305.13245, section 2.2; positions by `rotate` where wanted.
    """

    def __init__(self, C: int, nh: int, groups: int, rotary: bool = False, bias: bool = True) -> None:
        """Sizes and switches.

        Args:
            C: width.
            nh: heads of queries.
            groups: heads of keys and values; nh for plain multi-head attention, 1 for multi-query attention.
            rotary: turn queries and keys by their positions.
            bias: whether the projections add one.

        Raises:
            ValueError: nh does not divide C, or groups not nh.
        """
        super().__init__()
        check_heads(C, nh)
        check_groups(nh, groups)
        self.nh, self.groups, self.hs, self.rotary = nh, groups, C // nh, rotary
        self.keep_weights, self.weights = False, None
        self.query, self.out = nn.Linear(C, C, bias), nn.Linear(C, C, bias)
        self.key, self.value = (nn.Linear(C, groups * self.hs, bias) for _ in range(2))

    def forward(
        self, x: torch.Tensor, memory=None, mask=None, causal: bool = False, cache: KVCache | None = None
    ) -> torch.Tensor:
        """(B, T, C) → (B, T, C); the cache holds `groups` heads alone. As `MultiHeadAttention`, no memory."""
        check_rows(x, memory, cache, self.query.in_features)
        B, T, C = x.shape
        parts = self.query(x), self.key(x), self.value(x)
        q, k, v = (part.view(B, T, -1, self.hs).transpose(1, 2) for part in parts)  # (B, heads, T, hs)
        if self.rotary:
            start = len(cache) if cache is not None else 0
            q, k = rotate(q, start), rotate(k, start)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, groups, S, hs)
        k, v = (part.repeat_interleave(self.nh // self.groups, dim=1) for part in (k, v))  # (B, nh, S, hs)
        mask, causal = join_masks(mask, causal, (B, T, k.shape[-2]), x.device)
        if self.keep_weights:
            y, self.weights = attention(q, k, v, causal_mask(T).to(x.device) if causal else mask)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out(y.transpose(1, 2).reshape(B, T, C))  # (B, T, C)


def check_groups(nh: int, groups: int) -> None:
    """Raises ValueError unless heads split evenly into groups."""
    if groups < 1 or nh % groups:
        raise ValueError(f"groups must divide the heads: nh = {nh} does not split into groups = {groups}")


def modernise(config: Config, parts: tuple[str, ...], seed: int = 0, groups: int = 2) -> Decoder:
    """A decoder of GPT-2's shape with some of its parts exchanged.

    Args:
        config: of the decoder.
        parts: of `PARTS`.
        seed: of the weights.
        groups: of grouped queries.

    Raises:
        ValueError: an unknown part.
    """
    if unknown := set(parts) - set(PARTS):
        raise ValueError(f"parts must be of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    model, rotary = Decoder(config, seed=seed), "rotary positions" in parts
    if rotary:
        model.embedding.positions = None
    for layer in model.stack.layers:
        if "SwiGLU" in parts:
            layer.feed_forward = SwiGLU(config.C, round(2 * (config.hidden or 4 * config.C) / 3))
        if rotary or "grouped queries" in parts:
            heads = groups if "grouped queries" in parts else config.nh
            layer.self_attention = GroupedQueryAttention(config.C, config.nh, heads, rotary)
        if "RMSNorm" in parts:
            layer.around_self.norm = RMSNorm(config.C, config.eps)
            layer.around_feed_forward.norm = RMSNorm(config.C, config.eps)
    if "RMSNorm" in parts:
        model.stack.norm = RMSNorm(config.C, config.eps)
    initialise(model, seed)
    return model
