"""GPT-2 from the course's own decoder: its weights, its size, and how it goes on writing.

Source: Radford et al., "Language models are unsupervised multitask learners", 2019; the sections named here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from course_utils.generation import Decoding, LibraryBeams, penalise
from course_utils.runtime import device, generator
from course_utils.text import is_whole
from course_utils.transformer import Config, Decoder

if TYPE_CHECKING:
    from transformers import GPT2Config, GPT2LMHeadModel

__taught__ = ["gpt2_weight", "from_gpt2", "parameters"]

Pair = tuple[torch.Tensor, torch.Tensor]

# Our names of the weights, and GPT-2's.
NAMES = {
    "embedding.tokens.": "wte.",
    "embedding.positions": "wpe.weight",
    "stack.layers.": "h.",
    "stack.norm.": "ln_f.",
    "self_attention.out.": "attn.c_proj.",
    "around_self.norm.": "ln_1.",
    "around_feed_forward.norm.": "ln_2.",
    "feed_forward.inner.": "mlp.c_fc.",
    "feed_forward.outer.": "mlp.c_proj.",
}
SHAPE = {
    "positions": "learned",
    "activation": "gelu_tanh",
    "scale": False,
}  # of a GPT-2
THIRDS = ("query", "key", "value")  # of one matrix, attn.c_attn


# --- the weights --------------------------------------------------------------------------------------------


def gpt2_config(theirs: GPT2Config) -> Config:
    """The course's config of a GPT-2.

    Raises:
        ValueError: switches that our parts do not have.
    """
    fixed = {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "tie_word_embeddings": True,
        "add_cross_attention": False,
    }
    for name, expected in fixed.items():
        if (found := getattr(theirs, name, None)) != expected:
            raise ValueError(f"theirs must be a GPT-2 with {name} = {expected!r}, got {found!r}")
    return Config(
        V=theirs.vocab_size,
        T=theirs.n_positions,
        C=theirs.n_embd,
        nh=theirs.n_head,
        layers=theirs.n_layer,
        hidden=theirs.n_inner or 0,
        dropout=theirs.resid_pdrop,
        **SHAPE,
        eps=theirs.layer_norm_epsilon,
    )


def gpt2_weight(tensors: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """The view of GPT-2's tensors that holds the weight which we call `name`.

    Queries, keys and values lie side by side there, and the layers' matrices are stored the other way round.

    Raises:
        ValueError: there is no such tensor.
    """
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    third = next((part for part in THIRDS if f"self_attention.{part}." in name), None)
    name = name.replace(f"self_attention.{third}.", "attn.c_attn.")
    if name not in tensors:
        raise ValueError(f"tensors must be a GPT-2's, and lack {name}")
    weight = tensors[name]
    if third:
        weight = weight.chunk(3, dim=-1)[THIRDS.index(third)]
    return weight.T if name.startswith("h.") and weight.dim() == 2 else weight


@torch.no_grad()
def from_gpt2(tensors: Mapping[str, torch.Tensor], config: Config) -> Decoder:
    """Our decoder with a GPT-2's weights, in evaluation mode; it has no dropout of the attention weights.

    Args:
        tensors: a state dict or what a file holds; the prefix "transformer." may stand before the names.
        config: see `gpt2_config`.

    Raises:
        ValueError: a tensor is missing or has another shape than the config asks for.
    """
    model = Decoder(config)
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    for name, p in model.named_parameters():
        weight = gpt2_weight(tensors, name)
        if weight.shape != p.shape:
            found, wanted = tuple(weight.shape), tuple(p.shape)
            raise ValueError(f"tensors must fit the config: {name} has shape {found}, expected {wanted}")
        p.copy_(weight)
    return model.to(device()).eval()


@torch.no_grad()
def to_gpt2(model: Decoder, theirs: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Our weights copied into a GPT-2 of that size, as `transformers` knows how to store it."""
    tensors = theirs.transformer.state_dict()
    for name, p in model.named_parameters():
        gpt2_weight(tensors, name).copy_(p)
    return theirs


def load(folder: Path) -> Decoder:
    """Any GPT-2 from its config.json and model.safetensors, in evaluation mode.

    Raises:
        ValueError: the files are not a GPT-2's, or the weights file is damaged.
    """
    from transformers import AutoConfig

    config = gpt2_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    try:
        tensors = load_file(Path(folder) / "model.safetensors")
    except SafetensorError as error:
        raise ValueError(f"model.safetensors in {Path(folder).name} is damaged: {error}") from None
    return from_gpt2(tensors, config)


def parameters(config: Config) -> int:
    """How many numbers a GPT-2 learns: V C + T C + layers (12 C² + 13 C) + 2 C, inner layers being 4 C wide.

    Tokens and positions; in each layer four matrices of attention (4 C² + 4 C), two of the feed-forward part
    (8 C² + 5 C) and two norms (4 C); the last norm. The scores' matrix is the tokens' once more.
    """
    V, T, C = config.V, config.T, config.C
    hidden = config.hidden or 4 * C
    layer = 4 * C * C + 4 * C + 2 * C * hidden + hidden + C + 4 * C
    return V * C + T * C + config.layers * layer + 2 * C


# --- writing ------------------------------------------------------------------------------------------------


class Weights(NamedTuple):
    """What one layer multiplies by, a weight and a bias each: queries, keys and values side by side."""

    norm: Pair  # (C,), (C,)
    qkv: Pair  # (3 C, C), (3 C,)
    out: Pair  # (C, C), (C,)
    norm2: Pair
    inner: Pair  # (4 C, C), (4 C,)
    outer: Pair  # (C, 4 C), (C,)


def layer_weights(layer: nn.Module) -> Weights:
    """A layer's weights, ready for `Continuation`."""
    heads = [getattr(layer.self_attention, name) for name in THIRDS]
    parts = (layer.self_attention.out, layer.around_feed_forward.norm, *layer.feed_forward.children())
    pairs = [(part.weight, part.bias) for part in (layer.around_self.norm, *parts)]
    return Weights(
        pairs[0], (torch.cat([h.weight for h in heads]), torch.cat([h.bias for h in heads])), *pairs[1:]
    )


class Continuation:
    """B texts that a decoder goes on writing, with the keys and values of what they hold so far.

    The arithmetic of `Decoder` and `KVCache` in fewer and larger pieces: queries, keys and values by one
    product, keys and values written into one block of memory, scores of the last position alone.
    """

    @torch.no_grad()
    def __init__(self, model: Decoder, ids: torch.Tensor, padding: torch.Tensor, room: int) -> None:
        """Read the prompts.

        Args:
            model: of GPT-2's shape.
            ids: (B, T), shorter prompts padded on the left.
            padding: (B,), how far.
            room: tokens that may follow.
        """
        check_shape(model)
        self.embedding, self.norm = model.embedding, model.stack.norm
        self.layers = [layer_weights(layer) for layer in model.stack.layers]
        first, C = model.stack.layers[0], self.norm.weight.numel()
        self.activation, nh = first.feed_forward.activation, first.self_attention.nh
        shape = (len(self.layers), 2, len(ids), nh, ids.shape[1] + room, C // nh)
        self.cache = torch.zeros(shape, dtype=self.norm.weight.dtype, device=ids.device)
        self.padding, self.n = padding if padding.any() else None, 0
        self.logits = self.read(ids)  # (B, V), of the next token

    @torch.no_grad()
    def read(self, ids: torch.Tensor) -> torch.Tensor:
        """The next T tokens of each text, (B, T) → logits (B, V) of what follows them."""
        T, n = ids.shape[1], self.n
        x = F.embedding(ids, self.embedding.tokens.weight) + self.positions(n, T)  # (B, T, C)
        mask = self.mask(n, T)
        for weights, (keys, values) in zip(self.layers, self.cache, strict=True):
            x = self.layer(x, weights, keys[:, :, : n + T], values[:, :, : n + T], mask)
        self.n += T
        return self.embedding.scores(self.norm(x[:, -1]))  # (B, V)

    def layer(self, x, weights: Weights, keys, values, mask) -> torch.Tensor:
        """One layer: x (B, T, C) → (B, T, C); its keys and values fill the last T of (B, nh, S, hs)."""
        (B, T, C), nh, eps = x.shape, keys.shape[1], self.norm.eps
        qkv = F.linear(F.layer_norm(x, (C,), *weights.norm, eps), *weights.qkv)  # (B, T, 3 C)
        q, k, v = qkv.view(B, T, 3, nh, C // nh).permute(2, 0, 3, 1, 4)  # (B, nh, T, hs) each
        keys[:, :, -T:], values[:, :, -T:] = k, v
        y = F.scaled_dot_product_attention(q, keys, values, mask, is_causal=mask is None and T > 1)
        x = x + F.linear(y.transpose(1, 2).reshape(B, T, C), *weights.out)
        y = F.linear(F.layer_norm(x, (C,), *weights.norm2, eps), *weights.inner)  # (B, T, 4 C)
        return x + F.linear(self.activation(y), *weights.outer)

    def positions(self, n: int, T: int) -> torch.Tensor:
        """The vectors of positions n to n + T, counted from each text's own first token."""
        if self.padding is None:
            return self.embedding.positions[n : n + T]  # (T, C)
        places = torch.arange(n, n + T, device=self.padding.device) - self.padding[:, None]  # (B, T)
        return self.embedding.positions[places.clamp(min=0)]  # (B, T, C)

    def mask(self, n: int, T: int) -> torch.Tensor | None:
        """Who may look at whom, (B, 1, T, n + T): neither ahead nor at padding; None where there is none."""
        if self.padding is None and (n == 0 or T == 1):  # the kernel's own causal mask, or none, is enough
            return None
        places = torch.arange(n + T, device=self.cache.device)
        past = places <= places[n:, None]  # (T, n + T)
        if self.padding is None:
            return past
        real = (places >= self.padding[:, None])[:, None, None]  # (B, 1, 1, n + T)
        return real & past | (places == places[n:, None])  # padding looks at itself: a row needs something

    def select(self, rows: torch.Tensor) -> None:
        """Go on from these rows, in this order: what a beam search needs. rows: (B,) indices."""
        self.cache[..., : self.n, :] = self.cache[:, :, rows, :, : self.n]


@torch.inference_mode()
def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    limit: int,
    how: Decoding | None = None,
    seed: int = 0,
    end: int | None = None,
    stop: Callable[[list[int]], bool] | None = None,
) -> list[list[int]]:
    """Continue prompts.

    Args:
        model: of GPT-2's shape.
        prompts: lists of ids.
        limit: new tokens at most.
        how: see `Decoding`; None takes the likeliest token each time.
        seed: of what is drawn.
        end: the token that ends a text; None where none does.
        stop: from a prompt and what follows so far to whether that is enough, see `stops_at`.

    Returns:
        What follows each prompt, `how.num_return_sequences` lists of ids a prompt, `end` included where it
        came.

    Raises:
        ValueError: no prompt, an empty one, ids or an end outside the vocabulary, no token asked for, more
            than the model has positions, a stop together with beams, or an argument of another kind.
    """
    how = Decoding() if how is None else how
    check_prompts(prompts, limit, model.embedding)
    check_options(how, seed, end, stop, model.embedding.V)
    end = -1 if end is None else end
    copies = how.num_beams if how.num_beams > 1 else how.num_return_sequences
    prompts = [list(prompt) for prompt in prompts for _ in range(copies)]
    ids = pad_sequence(list(map(torch.tensor, prompts)), True, padding_side="left")  # (B, T)
    padding = torch.tensor([ids.shape[1] - len(prompt) for prompt in prompts])
    place = model.embedding.tokens.weight.device
    texts = Continuation(model, ids.to(place), padding.to(place), limit)
    if how.num_beams > 1:
        return search(texts, prompts, limit, how, end)
    return sample(texts, prompts, limit, how, generator(int(seed)), end, stop)


def sample(
    texts: Continuation,
    prompts: list[list[int]],
    limit: int,
    how: Decoding,
    draw: torch.Generator,
    end: int,
    stop: Callable[[list[int]], bool] | None,
) -> list[list[int]]:
    """One token after another, as `how` chooses them; a text that has ended waits for the others."""
    logits, seen = texts.logits, occurred(prompts, texts.logits)
    rows, open_ = [[] for _ in prompts], set(range(len(prompts)))
    for left in reversed(range(limit)):
        chosen = how.choose(logits, seen, draw)  # (B,)
        for b, token in enumerate(chosen.tolist()):
            if b in open_:
                rows[b].append(token)
                if token == end or (stop and stop(prompts[b] + rows[b])):
                    open_.remove(b)
        if not open_ or not left:
            break
        seen.scatter_(1, chosen[:, None], True)
        logits = texts.read(chosen[:, None])
    return rows


def search(
    texts: Continuation, prompts: list[list[int]], limit: int, how: Decoding, end: int
) -> list[list[int]]:
    """Beam search; prompts holds each one `num_beams` times."""
    beams = how.num_beams
    found = LibraryBeams(
        len(prompts) // beams, beams, 0, end, limit, how.length_penalty, how.num_return_sequences
    )
    logits = texts.logits
    while True:
        logs = logits.log_softmax(dim=-1)
        if how.repetition_penalty != 1:
            rows = found.ids[:, :, 1:].flatten(0, 1).tolist()
            seen = occurred([p + row for p, row in zip(prompts, rows, strict=True)], logs)
            logs = penalise(logs, seen, how.repetition_penalty)
        found.extend(logs.cpu())
        if found.done():
            return found.best()
        texts.select(found.rows.to(logits.device))
        logits = texts.read(found.last()[:, None].to(logits.device))


def occurred(rows: Sequence[Sequence[int]], logits: torch.Tensor) -> torch.Tensor:
    """Which tokens each row holds, (B, V) bool."""
    seen = torch.zeros(logits.shape, dtype=torch.bool)
    for row, ids in zip(seen, rows, strict=True):
        row[list(ids)] = True
    return seen.to(logits.device)


def stops_at(decode: Callable[[list[int]], str], strings: Sequence[str]) -> Callable[[list[int]], bool]:
    """Whether a text's last token completed one of these strings: what `generate` asks after each token.

    Raises:
        ValueError: no string, an empty one, or something else.
    """
    lists = isinstance(strings, (list, tuple)) and all(isinstance(text, str) for text in strings)
    if not lists or not strings or not all(strings):
        raise ValueError(f"strings must be a list of texts, none of them empty, got {strings!r:.80}")

    def stop(ids: list[int]) -> bool:
        before, now = len(decode(ids[:-1]).rstrip("�")), decode(ids)  # half a letter is not there yet
        return any(string in now[max(0, before - len(string) + 1) :] for string in strings)

    return stop


def check_shape(model: Decoder) -> None:
    """Raises ValueError unless a decoder is of GPT-2's shape."""
    place, embedding = model.stack.layers[0].around_self.place, model.embedding
    plain = embedding.factor == 1 and embedding.segments is None and not list(embedding.norm.parameters())
    if model.cross or place != "pre" or embedding.positions is None or not plain:
        raise ValueError(
            "model must be of GPT-2's shape: no memory, the norm before each part, positions, no scale, "
            "no segments, no norm of the embedding"
        )


def check_prompts(prompts: Sequence[Sequence[int]], limit: int, embedding: nn.Module) -> None:
    """Raises ValueError where a prompt cannot be continued by `limit` tokens."""
    if not is_whole(limit) or limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit!r:.80}")
    lists = isinstance(prompts, (list, tuple)) and all(
        isinstance(prompt, (list, tuple)) for prompt in prompts
    )
    if not lists or not prompts or not all(len(prompt) and all(map(is_whole, prompt)) for prompt in prompts):
        raise ValueError(
            f"prompts must be lists of ids, none empty (the end of a text begins one), got {prompts!r:.80}"
        )
    low, high = min(map(min, prompts)), max(map(max, prompts))
    if low < 0 or high >= embedding.V:
        raise ValueError(f"prompts must hold ids in [0, V = {embedding.V}), got {low} to {high}")
    if (longest := max(map(len, prompts))) + limit > embedding.T:
        raise ValueError(
            f"limit must be at most T = {embedding.T} less the longest prompt's {longest} tokens, got {limit}"
        )


def check_options(how: object, seed: object, end: object, stop: object, V: int) -> None:
    """Raises ValueError where an argument of `generate` is of another kind, or beams have a stop."""
    if not isinstance(how, Decoding):
        raise ValueError(f"how must be a Decoding or None, got {how!r:.80}")
    if not is_whole(seed) or not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must be a whole number of 64 bits, got {seed!r:.80}")
    if end is not None and not (is_whole(end) and 0 <= end < V):
        raise ValueError(f"end must be None or an id in [0, V = {V}), got {end!r:.80}")
    if stop is not None and not callable(stop):
        raise ValueError(f"stop must be None or a function, see stops_at, got {stop!r:.80}")
    if stop is not None and how.num_beams > 1:
        raise ValueError("stop must be None with num_beams > 1")
