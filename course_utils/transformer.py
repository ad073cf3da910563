"""The Transformer, from one set of parts: encoder, decoder, and the two together.

Source: Vaswani et al., "Attention is all you need", NeurIPS 2017, arXiv:1706.03762; the sections named here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.attention import KVCache, MultiHeadAttention
from course_utils.runtime import generator

__taught__ = [
    "sinusoids",
    "layer_norm",
    "FeedForward",
    "Residual",
    "Layer",
    "Embedding",
    "Stack",
    "Encoder",
    "Decoder",
    "Transformer",
]

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh")}


@dataclass(frozen=True)
class Config:
    """The sizes and switches of a model.

    Attributes:
        V: vocabulary size.
        T: longest sequence.
        C: model width.
        nh: heads.
        layers: layers of a stack; of each, where there are two.
        hidden: width inside the feed-forward part; 0 for 4 C.
        dropout: share of numbers dropped after the embedding and each sublayer, in training.
        norm: "pre" (Xiong et al. 2020), "post" (the paper's) or "none".
        positions: "sinusoidal" (section 3.5), "learned" or "none".
        activation: "relu" (the paper's), "gelu" (BERT's) or "gelu_tanh" (GPT-2's).
        scale: multiply token vectors by √C (section 3.4).
        segments: how many kinds of segment have a vector of their own (BERT: 2).
        norm_embedding: normalise the embedding (BERT).
        eps: of the layer norms.

    Raises:
        ValueError: a size too small, a dropout outside [0, 1), or an unknown choice.
    """

    V: int
    T: int = 256
    C: int = 256
    nh: int = 4
    layers: int = 4
    hidden: int = 0
    dropout: float = 0.1
    norm: str = "pre"
    positions: str = "sinusoidal"
    activation: str = "relu"
    scale: bool = True
    segments: int = 0
    norm_embedding: bool = False
    eps: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        choices = {
            "norm": ("pre", "post", "none"),
            "positions": ("sinusoidal", "learned", "none"),
            "activation": tuple(ACTIVATIONS),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("V", "T", "C", "nh", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("hidden", "segments"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


def sinusoids(T: int, C: int) -> torch.Tensor:
    """Positions as sines and cosines of C / 2 wavelengths from 2π to 10,000 · 2π.

    PE(t, 2i) = sin(t / 10000^(2i/C)), PE(t, 2i + 1) = cos(t / 10000^(2i/C)).

    Returns:
        (T, C).

    Raises:
        ValueError: C is odd.

    Source: section 3.5.
    """
    check_even(C)
    t = torch.arange(T, dtype=torch.float64)[:, None]  # (T, 1); in float32 far angles would be off
    frequencies = 10_000 ** (-torch.arange(0, C, 2, dtype=t.dtype) / C)  # (C / 2,)
    angles = t * frequencies  # (T, C / 2)
    pairs = torch.stack([angles.sin(), angles.cos()], dim=-1)  # (T, C / 2, 2)
    return pairs.flatten(1).to(torch.get_default_dtype())  # (T, C)


def check_even(C: int) -> None:
    """Raises ValueError where C does not split into pairs of sine and cosine."""
    if C % 2:
        raise ValueError(f"C must be even for pairs of sine and cosine, got {C}")


def layer_norm(x: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """Each token's C numbers brought to mean 0 and variance 1, then scaled and shifted.

    Args:
        x: (..., C).
        gain: (C,).
        bias: (C,).
        eps: keeps a token of equal numbers from dividing by 0.

    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, equations (3) and (4); statistics per token.
    """
    mean = x.mean(dim=-1, keepdim=True)  # (..., 1): over the width, not over the batch
    variance = x.var(dim=-1, keepdim=True, correction=0)  # (..., 1)
    return gain * (x - mean) / torch.sqrt(variance + eps) + bias


class FeedForward(nn.Module):
    """FFN(x) = W_2 max(0, W_1 x + b_1) + b_2, each position by itself. Source: section 3.3, equation (2)."""

    def __init__(self, config: Config) -> None:
        """Sizes and the activation come from the config."""
        super().__init__()
        hidden = config.hidden or 4 * config.C
        self.inner = nn.Linear(config.C, hidden)
        self.outer = nn.Linear(hidden, config.C)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, C) → (B, T, C)."""
        return self.outer(self.activation(self.inner(x)))


class Residual(nn.Module):
    """A sublayer's output added to its input; normalised before the sublayer, after the sum, or never.

    Source: section 3.1 (post); Xiong et al. 2020, "On layer normalization in the Transformer architecture",
    arXiv:2002.04745 (pre).
    """

    def __init__(self, config: Config) -> None:
        """Width, dropout and the place of the norm come from the config."""
        super().__init__()
        self.place = config.norm
        self.norm = nn.Identity() if config.norm == "none" else nn.LayerNorm(config.C, config.eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor, sublayer) -> torch.Tensor:
        """(B, T, C) and a function of it → (B, T, C)."""
        if self.place == "pre":
            return x + self.dropout(sublayer(self.norm(x)))
        return self.norm(x + self.dropout(sublayer(x)))


class Layer(nn.Module):
    """Self-attention, then cross-attention where wanted, then feed-forward, each in its residual.

    With neither switch it is the paper's encoder layer, with both its decoder layer, with `causal` alone the
    layer of GPT. Source: section 3.1.
    """

    def __init__(self, config: Config, causal: bool = False, cross: bool = False) -> None:
        """causal: hide later positions. cross: attend to a memory as well."""
        super().__init__()
        self.causal = causal
        self.self_attention = MultiHeadAttention(config.C, config.nh)
        self.around_self = Residual(config)
        if cross:
            self.cross_attention = MultiHeadAttention(config.C, config.nh)
            self.around_cross = Residual(config)
        self.feed_forward = FeedForward(config)
        self.around_feed_forward = Residual(config)

    def forward(self, x, memory=None, mask=None, memory_mask=None, cache=(None, None)) -> torch.Tensor:
        """x (B, T, C) and, with `cross`, a memory (B, S, C) → (B, T, C). Masks spread to (B, T, S)."""
        x = self.around_self(x, lambda y: self.self_attention(y, None, mask, self.causal, cache[0]))
        if memory is not None:
            x = self.around_cross(x, lambda y: self.cross_attention(y, memory, memory_mask, False, cache[1]))
        return self.around_feed_forward(x, self.feed_forward)


class Stack(nn.Module):
    """Layers one after another; with pre-LN a last norm, since no layer normalises its own output."""

    def __init__(self, config: Config, causal: bool = False, cross: bool = False) -> None:
        """causal, cross: as in `Layer`."""
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, causal, cross) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.C, config.eps) if config.norm == "pre" else nn.Identity()

    def forward(self, x, memory=None, mask=None, memory_mask=None, cache=None) -> torch.Tensor:
        """As `Layer`, all of them; cache: one pair a layer."""
        for layer, pair in zip(self.layers, cache or [(None, None)] * len(self.layers), strict=True):
            x = layer(x, memory, mask, memory_mask, pair)
        return self.norm(x)


class Embedding(nn.Module):
    """Token ids to vectors, with their positions added; and, tied, states back to scores of every token.

    Source: sections 3.4 and 3.5; tying: Press & Wolf 2017, arXiv:1608.05859.
    """

    def __init__(self, config: Config) -> None:
        """What is added to the tokens comes from the config."""
        super().__init__()
        V, T, C = config.V, config.T, config.C
        self.V, self.T, self.factor = V, T, math.sqrt(C) if config.scale else 1.0
        self.tokens = nn.Embedding(V, C)
        self.segments = nn.Embedding(config.segments, C) if config.segments else None
        if config.positions == "learned":
            self.positions = nn.Parameter(torch.empty(T, C))
        else:
            fixed = sinusoids(T, C) if config.positions == "sinusoidal" else None
            self.register_buffer("positions", fixed, persistent=False)
        self.norm = nn.LayerNorm(C, config.eps) if config.norm_embedding else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, ids: torch.Tensor, start: int = 0, segments: torch.Tensor | None = None
    ) -> torch.Tensor:
        """ids (B, T), the first of them at position `start`, and their segments (B, T) → (B, T, C)."""
        check_ids(ids, self.V, start, self.T)
        check_segments(segments, ids, self.segments)
        x = self.tokens(ids) * self.factor  # (B, T, C)
        if self.positions is not None:
            x = x + self.positions[start : start + ids.shape[1]]  # (T, C), the same for each sequence
        if self.segments is not None:
            x = x + self.segments(torch.zeros_like(ids) if segments is None else segments)
        return self.dropout(self.norm(x))

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, C) states → (B, T, V) logits: how well each token's own vector fits."""
        return x @ self.tokens.weight.T


class Encoder(nn.Module):
    """Encoder-only: every token reads every other; one state a token comes out (BERT's shape)."""

    def __init__(self, config: Config, embedding: Embedding | None = None, seed: int = 0) -> None:
        """embedding: one to share, drawn anew too, or None for its own. seed: of the first weights."""
        super().__init__()
        self.embedding = embedding or Embedding(config)
        self.stack = Stack(config)
        initialise(self, seed)

    def forward(self, ids: torch.Tensor, mask=None, segments=None) -> torch.Tensor:
        """ids (B, S), mask spreading to (B, S, S) → (B, S, C).

        Raises:
            ValueError: ids out of range, empty, longer than T, or a mask that does not fit.
        """
        return self.stack(self.embedding(ids, segments=segments), mask=mask)


class Decoder(nn.Module):
    """Each token reads those before it, and a memory where there is one; logits of the next come out.

    Without a memory it is a language model of GPT's shape.
    """

    def __init__(
        self, config: Config, cross: bool = False, embedding: Embedding | None = None, seed: int = 0
    ) -> None:
        """cross: attend to a memory. embedding, seed: as in `Encoder`."""
        super().__init__()
        self.cross = cross
        self.embedding = embedding or Embedding(config)
        self.stack = Stack(config, causal=True, cross=cross)
        initialise(self, seed)

    def forward(
        self, ids: torch.Tensor, memory=None, mask=None, memory_mask=None, cache=None
    ) -> torch.Tensor:
        """ids (B, T) → logits (B, T, V). With a cache, ids are the tokens that follow those it holds.

        Raises:
            ValueError: ids out of range, empty, longer than T together with the cache; a memory where none is
                attended to, or none where one is; a mask that does not fit.
        """
        check_memory(memory, self.cross)
        x = self.embedding(ids, start=len(cache[0][0]) if cache else 0)
        return self.embedding.scores(self.stack(x, memory, mask, memory_mask, cache))

    def new_cache(self) -> list[tuple[KVCache, KVCache]]:
        """An empty cache: for each layer one of its own tokens and one of the memory."""
        return [(KVCache(), KVCache()) for _ in self.stack.layers]


class Transformer(nn.Module):
    """Encoder and decoder with one embedding for source, target and output. Source: figure 1, section 3.4."""

    def __init__(self, config: Config, seed: int = 0) -> None:
        """seed: of the initial weights."""
        super().__init__()
        self.embedding = Embedding(config)
        self.encoder = Encoder(config, self.embedding, seed)
        self.decoder = Decoder(config, True, self.embedding, seed + 1)

    def forward(self, source: torch.Tensor, target: torch.Tensor, source_mask=None) -> torch.Tensor:
        """source (B, S), target (B, T), source_mask spreading to (B, T, S) → logits (B, T, V).

        Raises:
            ValueError: as `Encoder` and `Decoder`.
        """
        memory = self.encoder(source, source_mask)  # (B, S, C)
        return self.decoder(target, memory, memory_mask=source_mask)


def initialise(model: nn.Module, seed: int) -> None:
    """Draw all weights from one CPU generator: Glorot's uniform for matrices, N(0, 1 / C) for embeddings.

    Source: Glorot & Bengio 2010; with √C vectors of variance 1 enter the first layer.
    """
    draw = generator(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=draw)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5, generator=draw)
    for name, p in model.named_parameters():
        if name.endswith("positions"):  # learned ones
            nn.init.normal_(p, std=p.shape[1] ** -0.5, generator=draw)


def recorded(model: nn.Module, *inputs, kind: str = "self_attention", **options) -> torch.Tensor:
    """Run the model once and return the attention weights of one kind of its layers.

    Args:
        inputs, options: what the model is called with.
        kind: "self_attention" or "cross_attention"; more of its name may precede.

    Returns:
        (layers, B, nh, T, S).

    Raises:
        ValueError: the model has no such attention.
    """
    # by name, not by class: a page that shows MultiHeadAttention has a class of its own
    parts = [p for name, p in model.named_modules() if name.endswith(kind) and hasattr(p, "keep_weights")]
    if not parts:
        raise ValueError(f"kind must end the name of an attention of the model, got {kind!r}")
    before = [(part.keep_weights, part.weights) for part in parts]
    for part in parts:
        part.keep_weights = True
    try:
        with torch.no_grad():
            model(*inputs, **options)
        return torch.stack([part.weights for part in parts])
    finally:
        for part, (kept, weights) in zip(parts, before, strict=True):
            part.keep_weights, part.weights = kept, weights


def check_ids(ids: torch.Tensor, V: int, start: int, T: int) -> None:
    """Raises ValueError unless ids are (B, T) whole numbers in [0, V), not empty, and not too long."""
    if ids.dim() != 2 or ids.dtype not in (torch.int64, torch.int32) or not ids.numel():
        raise ValueError(
            f"ids must be (B, T) integers and not empty, got {ids.dtype} of shape {tuple(ids.shape)}"
        )
    if start + ids.shape[1] > T:
        raise ValueError(f"ids must end within T = {T} positions, got {ids.shape[1]} from position {start}")
    low, high = torch.aminmax(ids)
    if low < 0 or high >= V:
        raise ValueError(f"ids must lie in [0, V = {V}), got {int(low)} to {int(high)}")


def check_segments(segments: torch.Tensor | None, ids: torch.Tensor, table: nn.Embedding | None) -> None:
    """Raises ValueError unless segments, where given, are one a token and each has its row in the table."""
    if segments is None:
        return
    if table is None:
        raise ValueError("segments must be None: the config has no segments")
    if segments.shape != ids.shape or segments.min() < 0 or segments.max() >= table.num_embeddings:
        expected = f"shape {tuple(ids.shape)} with values in [0, {table.num_embeddings})"
        got = f"shape {tuple(segments.shape)}, {int(segments.min())} to {int(segments.max())}"
        raise ValueError(f"segments must be of {expected}, got {got}")


def check_memory(memory: torch.Tensor | None, cross: bool) -> None:
    """Raises ValueError where a decoder gets a memory it does not attend to, or lacks the one it does."""
    if (memory is not None) != cross:
        got = "none" if memory is None else f"one of shape {tuple(memory.shape)}"
        raise ValueError(f"memory must be {'(B, S, C)' if cross else 'None: cross is False'}, got {got}")
