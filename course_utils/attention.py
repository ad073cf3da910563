"""Attention, from its equation: masks, scaled dot products, many heads, a cache of keys and values."""

from __future__ import annotations

import math
from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import nn

__taught__ = ["causal_mask", "padding_mask", "attention", "KVCache", "MultiHeadAttention"]


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


class KVCache:
    """The keys and values one attention layer has computed so far, so that they are not computed again."""

    def __init__(self) -> None:
        """An empty cache."""
        self.k = self.v = None

    def __len__(self) -> int:
        """How many positions it holds."""
        return 0 if self.k is None else self.k.shape[-2]

    def append(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add T new positions and return all there are.

        Args:
            k: (B, nh, T, hs) keys.
            v: (B, nh, T, hs) values.

        Returns:
            keys and values, (B, nh, S, hs) each, S counting the new ones.
        """
        if len(self):
            k, v = torch.cat([self.k, k], dim=-2), torch.cat([self.v, v], dim=-2)  # (B, nh, S, hs)
        self.k, self.v = k, v
        return k, v

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows of the batch, in this order: what a beam search needs. rows: (B',) indices."""
        if len(self):
            self.k, self.v = self.k[rows], self.v[rows]


class MultiHeadAttention(nn.Module):
    """Attention nh times in parallel, each head on its own C / nh numbers of a learned projection.

    MultiHead(Q, K, V) = Concat(head_1, …, head_nh) W_O with head_i = attention(Q W_Q,i, K W_K,i, V W_V,i).

    Attributes:
        keep_weights: set True to have `weights` filled, by the plain equation; otherwise the fused kernel
            runs, which computes the same outputs and never stores the weights.
        weights: (B, nh, T, S) of the last call, or None.

    Raises:
        ValueError: nh does not divide C.

    Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(self, C: int, nh: int, bias: bool = True) -> None:
        """C: model width. nh: number of heads. bias: whether the four projections add one."""
        super().__init__()
        check_heads(C, nh)
        self.nh, self.keep_weights, self.weights = nh, False, None
        self.query, self.key, self.value, self.out = (nn.Linear(C, C, bias=bias) for _ in range(4))

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, C) → (B, nh, T, hs): each head gets its own slice of the width."""
        B, T, C = x.shape
        return x.view(B, T, self.nh, C // self.nh).transpose(1, 2)  # (B, nh, T, hs)

    def keys_and_values(self, x: torch.Tensor, cache: KVCache | None, grows: bool) -> tuple:
        """Keys and values of x, (B, nh, S, hs) each, together with or instead taken from those cached."""
        if cache is not None and len(cache) and not grows:
            return cache.k, cache.v
        k, v = self.split(self.key(x)), self.split(self.value(x))  # (B, nh, S, hs)
        return (k, v) if cache is None else cache.append(k, v)

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        causal: bool = False,
        cache: KVCache | None = None,
    ) -> torch.Tensor:
        """Let each row of x listen to x itself, or to a memory.

        Args:
            x: (B, T, C) who asks.
            memory: (B, S, C) who is asked, in cross-attention; None for self-attention.
            mask: bool, spreads to (B, T, S), True where attending is allowed.
            causal: hide later positions; with a cache, x holds the last T of S positions.
            cache: of this layer. Self-attention appends to it; cross-attention fills it once.

        Returns:
            (B, T, C).

        Raises:
            ValueError: shapes that do not fit, a mask that is not bool or does not spread to (B, T, S), or
                causal where T exceeds S.
        """
        check_rows(x, memory, cache, self.out.in_features)
        B, T, C = x.shape
        q = self.split(self.query(x))  # (B, nh, T, hs)
        k, v = self.keys_and_values(x if memory is None else memory, cache, grows=memory is None)
        mask, causal = join_masks(mask, causal, (B, T, k.shape[-2]), x.device)
        if self.keep_weights:
            y, self.weights = attention(q, k, v, causal_mask(T).to(x.device) if causal else mask)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out(y.transpose(1, 2).reshape(B, T, C))  # heads side by side again: (B, T, C)


def join_masks(
    mask: torch.Tensor | None, causal: bool, shape: tuple[int, int, int], device: torch.device
) -> tuple[torch.Tensor | None, bool]:
    """One mask for all heads, (B, 1, T, S) or None, and whether the kernel's own causal mask is enough."""
    _, T, S = shape
    if causal and T > S:
        raise ValueError(f"causal needs x to be the last T of S positions, got T = {T} and S = {S}")
    if mask is not None:
        check_mask(mask, shape)
        mask = mask[(None,) * (3 - mask.dim())].unsqueeze(1)  # (B, 1, T, S): the same for every head
    if not causal or T == 1:  # a single query, the last position, may see all
        return mask, False
    if mask is None and T == S:
        return None, True
    recent = causal_mask(S)[S - T :].to(device)  # (T, S): the last T positions' rows
    return (recent if mask is None else recent & mask), False


def check_heads(C: int, nh: int) -> None:
    """Raises ValueError unless C splits evenly into nh heads."""
    if nh < 1 or C % nh:
        raise ValueError(f"nh must divide the width C: C = {C} does not split into nh = {nh} heads")


def check_rows(x: torch.Tensor, memory: torch.Tensor | None, cache: KVCache | None, C: int) -> None:
    """Raises ValueError unless x, and memory where there is one, are (B, T, C) with words in them, one B."""
    for name, value in (("x", x), ("memory", memory)):
        if value is not None and (value.dim() != 3 or value.shape[-1] != C or not value.numel()):
            raise ValueError(f"{name} must be (B, T, C = {C}) and not empty, got shape {tuple(value.shape)}")
    if memory is not None and len(memory) != len(x):
        raise ValueError(f"memory must have one row a row of x: {len(x)}, got {len(memory)}")
    if cache is not None and len(cache) and len(cache.k) != len(x):
        raise ValueError(f"cache must have one row a row of x: {len(x)}, got {len(cache.k)}")


def check_mask(mask: torch.Tensor, shape: tuple[int, int, int]) -> None:
    """Raises ValueError unless a mask is bool and spreads to (B, T, S)."""
    check_bool(mask)
    if mask.dim() > 3 or any(
        n not in (1, size) for n, size in zip(reversed(mask.shape), reversed(shape), strict=False)
    ):
        wanted = "(B = {}, T = {}, S = {})".format(*shape)
        raise ValueError(f"mask must spread to {wanted}, got shape {tuple(mask.shape)}")


def check_bool(mask: torch.Tensor) -> None:
    """Raises ValueError unless a mask is bool: numbers would be added to the scores elsewhere."""
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, True where attending is allowed, got {mask.dtype}")


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
    check_bool(mask)
    T, S = q.shape[-2], k.shape[-2]
    whole = all(n in (1, wanted) for n, wanted in zip(reversed(mask.shape), (S, T), strict=False))
    if not whole or not _fit(mask.shape[:-2], q.shape[:-2], k.shape[:-2]):
        raise ValueError(f"mask must spread to (..., T = {T}, S = {S}), got shape {tuple(mask.shape)}")


def _fit(*shapes: torch.Size) -> bool:
    """Whether axes, counted from the last, are equal or 1; torch.broadcast_shapes would load SymPy for it."""
    return all(len({*sizes} - {1}) <= 1 for sizes in zip_longest(*map(reversed, shapes), fillvalue=1))
