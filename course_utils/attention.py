"""Attention, from its equation: masks and scaled dot-product attention."""

from __future__ import annotations

import math
from itertools import zip_longest

import torch

__taught__ = ["causal_mask", "padding_mask", "attention"]


def causal_mask(T: int) -> torch.Tensor:
    """Which words each word may look at when it must not see the future: itself and those before.

    Args:
        T: number of words.

    Returns:
        (T, T) bool, True where row t may attend to column s, that is s <= t.

    Source: Vaswani et al. 2017, section 3.2.3.
    """
    return torch.ones(T, T, dtype=torch.bool).tril()


def padding_mask(lengths: torch.Tensor, S: int) -> torch.Tensor:
    """Which columns of a padded batch hold words.

    Args:
        lengths: (B,) number of words in each sequence, the rest being padding.
        S: padded length.

    Returns:
        (B, 1, S) bool, True at words; the middle axis spreads over the queries.
    """
    return (torch.arange(S, device=lengths.device) < lengths[:, None])[:, None, :]


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled dot-product attention: softmax(q kᵀ / √hs) v.

    Args:
        q: (..., T, hs) queries.
        k: (..., S, hs) keys.
        v: (..., S, hs') values.
        mask: bool, spreads to (..., T, S), True where attending is allowed. A row that may look at nothing
            gets weights of 0, and so an output of 0, not NaN.

    Returns:
        output (..., T, hs') and weights (..., T, S).

    Raises:
        ValueError: the last axes of q and k, or the lengths of k and v, differ; batch axes do not fit; the
            mask is not bool or does not spread to (..., T, S).

    Source: Vaswani et al. 2017, equation (1).
    """
    check_inputs(q, k, v, mask)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., T, S)
    if mask is None:
        weights = scores.softmax(dim=-1)  # (..., T, S)
    else:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1).masked_fill(~mask, 0.0)  # a row of padding only: 0, not NaN
    return weights @ v, weights  # (..., T, hs'), (..., T, S)


def check_inputs(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> None:
    """Raises ValueError where the arguments of `attention` do not fit together."""
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"q and k must have vectors of one length, got {q.shape[-1]} and {k.shape[-1]}")
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(f"k and v must have one row a word each, got {k.shape[-2]} and {v.shape[-2]} rows")
    if not _fit(q.shape[:-2], k.shape[:-2], v.shape[:-2]):
        shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
        raise ValueError(f"the batch axes of q, k and v must be equal or 1, got shapes {shapes}")
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, True where attending is allowed, got {mask.dtype}")
    T, S = q.shape[-2], k.shape[-2]
    whole = all(n in (1, wanted) for n, wanted in zip(reversed(mask.shape), (S, T), strict=False))
    if not whole or not _fit(mask.shape[:-2], q.shape[:-2], k.shape[:-2]):
        raise ValueError(f"mask must spread to (..., T = {T}, S = {S}), got shape {tuple(mask.shape)}")


def _fit(*shapes: torch.Size) -> bool:
    """Whether axes, counted from the last, are equal or 1; torch.broadcast_shapes would load SymPy for it."""
    return all(len({*sizes} - {1}) <= 1 for sizes in zip_longest(*map(reversed, shapes), fillvalue=1))
