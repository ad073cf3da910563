"""Notebook 03b's ablations: a small translator with one thing changed, all else as it was, over seeds.

The page runs one again by `ablation(variant, seed)`: 23 s of one free core, with 6 layers a minute. Two
threads took 174 s on two cores that another program shared; the default is one, as in the stored runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch.nn.functional as F
from tokenizers import Tokenizer

from course_utils import translation as tr
from course_utils.attention import MultiHeadAttention
from course_utils.experiments import Row, Task, fixed_threads
from course_utils.metrics import translation_scores
from course_utils.runtime import device
from course_utils.splits import translation_split
from course_utils.training import History, Options, train
from course_utils.transformer import Config, Embedding, FeedForward, Transformer

# One pass over the pairs does not overfit: dropout would only cost (2.9 against 2.6 nats at seed 0).
CONFIG = Config(V=3072, T=16, C=64, nh=4, layers=2, dropout=0.0)
OPTIONS = Options(steps=500, lr=5e-3, warmup=100, every=50, mixed=False)
BATCH, SMOOTHING = 64, 0.1
LONGEST = 8  # pieces a side, all among the first CONFIG.V: short sentences of frequent pieces, soon learnt
LAST = 50  # steps whose mean is the training loss at the end


@dataclass(frozen=True)
class Variant:
    """What differs from the base: switches of model and training, the smoothing, a change to the model."""

    config: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    smoothing: float = SMOOTHING
    change: Callable[[Transformer], None] | None = None


def without_scale(model: Transformer) -> None:
    """softmax(q kᵀ) v: each query made √hs times as long undoes attention's division."""
    for part in model.modules():
        if isinstance(part, MultiHeadAttention):
            factor = math.sqrt(part.query.out_features // part.nh)
            part.query.register_forward_hook(lambda layer, inputs, q, factor=factor: q * factor)


def outer_relu(model: Transformer) -> None:
    """ReLU(W_2 ReLU(W_1 x + b_1) + b_2): a feed-forward part that can only add (claim A11)."""
    for part in model.modules():
        if isinstance(part, FeedForward):
            part.register_forward_hook(lambda layer, inputs, y: F.relu(y))


def causal(model: Transformer, on: bool) -> None:
    """Hide later positions from the decoder, or show them (claim A03)."""
    for layer in model.decoder.stack.layers:
        layer.causal = on


def without_positions(model: Transformer, side: str) -> None:
    """Take the positions from one side, "encoder" or "decoder"; the token vectors stay shared."""
    shared = model.embedding
    own = Embedding(Config(shared.V, shared.T, shared.tokens.embedding_dim, positions="none"))
    own.tokens, own.dropout = shared.tokens, shared.dropout
    getattr(model, side).embedding = own


POST, NO_WARMUP, DEEP = {"norm": "post"}, {"warmup": 0}, {"layers": 6}
VARIANTS = {
    "base": Variant(),
    "no positions": Variant({"positions": "none"}),
    "no positions in the encoder": Variant(change=partial(without_positions, side="encoder")),
    "no positions in the decoder": Variant(change=partial(without_positions, side="decoder")),
    "no √d_k": Variant(change=without_scale),
    "one head": Variant({"nh": 1}),
    "one head, no √d_k": Variant({"nh": 1}, change=without_scale),
    "post-LN": Variant(POST),
    "no LN": Variant({"norm": "none"}),
    "no warm-up": Variant(options=NO_WARMUP),
    "post-LN, no warm-up": Variant(POST, NO_WARMUP),
    "no label smoothing": Variant(smoothing=0.0),
    "outer ReLU": Variant(change=outer_relu),
    "no causal mask": Variant(change=partial(causal, on=False)),
    "6 layers": Variant(DEEP),
    "6 layers, post-LN": Variant(DEEP | POST),
    "6 layers, no LN": Variant(DEEP | {"norm": "none"}),
    "6 layers, no warm-up": Variant(DEEP, NO_WARMUP),
    "6 layers, post-LN, no warm-up": Variant(DEEP | POST, NO_WARMUP),
}
SEEDS = {name: 3 if "layers" in variant.config else 5 for name, variant in VARIANTS.items()}


class Corpus(NamedTuple):
    """The pairs to train on and to validate on, the sentences to translate and their translations."""

    train: tr.Pairs
    valid: tr.Pairs
    english: list[str]
    spanish: list[list[str]]


@cache
def corpus() -> Corpus:
    """The short pairs of the translation split's training and validation sides."""
    tokenizer = tr.tokenizer()
    sides = {name: short(side, tokenizer) for name, side in translation_split().items() if name != "test"}
    right = sides["valid"].groupby("english", sort=False)["spanish"].agg(list)
    pairs = (tr.Pairs(sides[name], tokenizer) for name in ("train", "valid"))
    return Corpus(*pairs, right.index.tolist(), right.tolist())


def short(pairs: pd.DataFrame, tokenizer: Tokenizer) -> pd.DataFrame:
    """The pairs both of whose sides have at most LONGEST pieces, all of them among the first CONFIG.V."""
    fits = np.ones(len(pairs), bool)
    for name in ("english", "spanish"):
        ids = [encoding.ids for encoding in tokenizer.encode_batch(pairs[name].tolist())]
        fits &= [0 < len(row) <= LONGEST and max(row) < CONFIG.V for row in ids]
    return pairs[fits]


def ablation(variant: str, seed: int, threads: int = 1) -> Row:
    """Train one variant and measure it.

    Args:
        variant: one of `VARIANTS`.
        seed: of weights, batches and dropout; the same batches for every variant.
        threads: of PyTorch; the stored runs' is 1. Another number moves the losses' last digits.

    Returns:
        nats (a piece, unsmoothed, over the validation pairs), curve ((step, nats) of every validation),
        chrF and BLEU (0 to 100, of greedy translations of the validation sentences), train_loss (mean
        of the last LAST steps), largest_norm (of the gradient, before clipping), diverged. A run that
        diverged has its error, the curve so far, and None for the rest; a base run has its settings; a run
        that saw the future has masked_nats, measured with the mask put back.

    Raises:
        ValueError: no such variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    with fixed_threads(threads):
        row = measured(VARIANTS[variant], seed)
    return row | {"settings": settings(threads)} if variant == "base" else row


def settings(threads: int) -> Row:
    """What every run shares where its variant says nothing else."""
    known, held, english, _ = corpus()
    sizes = {"train": len(known.rows), "valid": len(held.rows), "sentences": len(english)}
    data = {"longest": LONGEST, **sizes}
    return {"config": asdict(CONFIG), "training": training(), "data": data, "threads": threads}


def training() -> Row:
    """How every run is trained where its variant says nothing else."""
    names = ("steps", "lr", "warmup", "clip", "weight_decay", "betas", "mixed")
    return {name: getattr(OPTIONS, name) for name in names} | {"batch": BATCH, "smoothing": SMOOTHING}


def build(variant: Variant, seed: int) -> Transformer:
    """The variant's model; the decoder's weights are drawn from the number after the encoder's."""
    model = Transformer(replace(CONFIG, **variant.config), 2 * seed)
    if variant.change:
        variant.change(model)
    return model.to(device())


def measured(variant: Variant, seed: int) -> Row:
    """Train and measure; a run that diverges is a result."""
    data, model, curve = corpus(), build(variant, seed), []
    options = replace(OPTIONS, seed=seed, **variant.options)

    def validate(model: Transformer) -> float:
        curve.append([len(curve) * options.every + options.every, round(data.valid.nats(model), 4)])
        return curve[-1][1]

    loss = partial(tr.translation_loss, smoothing=variant.smoothing)
    try:
        history = train(model, data.train.batches(BATCH, seed), loss, options, validate)
    except FloatingPointError as error:
        nothing = dict.fromkeys(("nats", "chrF", "BLEU", "train_loss", "largest_norm"))
        return nothing | {"curve": curve, "diverged": True, "error": str(error)}
    return scores(model, data, history) | {"curve": curve, "diverged": False}


def scores(model: Transformer, data: Corpus, history: History) -> Row:
    """What a trained model and its training come to."""
    said = tr.translate(model, tr.tokenizer(), data.english)
    quality = translation_scores(said, data.spanish, resamples=100)  # the seeds give the interval
    row = {"nats": data.valid.nats(model)} | {name: score.estimate for name, score in quality.items()}
    row |= {"train_loss": np.mean(history.loss[-LAST:]), "largest_norm": max(history.norm)}
    if not model.decoder.stack.layers[0].causal:
        causal(model, True)
        row["masked_nats"] = data.valid.nats(model)
    return {name: round(float(value), 4) for name, value in row.items()}


def ablations() -> Iterator[Task]:
    """Each variant over its seeds; the seeds outermost, so that a run broken off has something of each."""
    for seed in range(max(SEEDS.values())):
        for variant in VARIANTS:
            if seed < SEEDS[variant]:
                yield {"variant": variant, "seed": seed}, partial(ablation, variant, seed)
