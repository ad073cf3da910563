"""Notebook 06b's runs: one encoder on film reviews, trained in five ways, on few labels and many, on other tasks.

Each run is a fixed number of passes with the learning rate going down to 0; step size and passes of each way
were chosen on the validation side, at a seed of their own (`SEARCH`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch

from course_utils import pretrained, tuning
from course_utils.bert import bert_config, from_bert
from course_utils.experiments import Row, Task, check_name, fixed_threads, nb04b
from course_utils.runtime import device, generator
from course_utils.training import Options, train
from course_utils.transformer import Encoder

SEEDS = range(5)
SEARCH = 100  # the seed of the search
BATCH = 32


@dataclass(frozen=True)
class Method:
    """What is trained, and how.

    Attributes:
        lr: peak learning rate.
        epochs: passes over the labels.
        top: how many of the layers are trained; None for all, and the embedding.
        rank: of LoRA's changes; 0 for none.
        pretrained: begin with BERT's weights, not random ones.
    """

    lr: float
    epochs: int
    top: int | None = None
    rank: int = 0
    pretrained: bool = True


METHODS = {
    "head only": Method(3e-2, 20, top=0),
    "top two layers": Method(2e-4, 4, top=2),
    "LoRA": Method(1e-3, 4, rank=8),
    "all layers": Method(1e-4, 3),
    "random weights": Method(3e-4, 6, pretrained=False),
}


def classifier(method: Method, seed: int, K: int = 2) -> tuning.TextClassifier:
    """The model before training."""
    theirs = pretrained.load("bert").model
    if method.pretrained:
        encoder = from_bert(theirs)
    else:
        encoder = Encoder(bert_config(theirs.config), seed=seed).to(device())
    if method.rank:
        encoder = tuning.add_lora(encoder, method.rank, seed=seed)
    layers = len(encoder.stack.layers)
    start = 0 if method.top is None else layers - method.top
    return tuning.TextClassifier(encoder, K, start, seed=seed).to(device())


def examples(model: tuning.TextClassifier, texts: list[str], targets: np.ndarray | None) -> tuning.Examples:
    """Texts as the model reads them: ids, or the states that enter its first trained layer."""
    rows = tuning.encode(tokenizer(), texts)
    if model.start:
        rows = tuning.frozen_states(model.encoder, rows, model.start)
    return tuning.Examples(rows, targets, model.head.out_features)


@cache
def tokenizer() -> object:
    """The encoder's."""
    return pretrained.load("bert").tokenizer


def options(method: Method, N: int, B: int, seed: int, mixed: bool | None) -> Options:
    """For so many labels; a tenth of the steps warms up, and few labels still get 30."""
    steps = max(N // B * method.epochs, 30)
    return Options(
        steps, method.lr, warmup=steps // 10, betas=(0.9, 0.999), seed=seed, every=steps, mixed=mixed
    )


def two_sided(targets: np.ndarray) -> np.ndarray:
    """The probability of "good", (N,), as those of "bad" and "good", (N, 2)."""
    return np.stack([1 - targets, targets], axis=1)


def tune(method: Method, seed: int, n: int | None = None, threads: int = 1, mixed: bool | None = True) -> Row:
    """Train on film reviews and measure on the validation and test sides.

    Args:
        method: what is trained, and how.
        seed: of new weights, batches and dropout, and of the choice of labels.
        n: how many labels, as many good as bad; None for all.
        threads: of PyTorch.
        mixed: bfloat16, which AVX-512 BF16 makes half as fast again; None for a GPU alone.

    Returns:
        trained (numbers), train seconds, and the scores of both sides as `nb04b.both_sides` gives them.
    """
    data = nb04b.data()
    chosen = few(data.labels["train"], n, seed)
    with fixed_threads(threads):
        start = time.perf_counter()
        model = classifier(method, seed)
        texts = [data.texts["train"][i] for i in chosen]
        known = examples(model, texts, two_sided(data.targets["train"][chosen]))
        B = min(BATCH, max(8, len(texts) // 8))
        train(
            model,
            known.batches(B, seed),
            tuning.text_loss,
            options(method, len(texts), B, seed, mixed),
        )
        seconds = time.perf_counter() - start
        sides = nb04b.both_sides(lambda texts: tuning.chances(model, examples(model, texts, None))[:, 1])
    return {"trained": tuning.trained(model), "train seconds": round(seconds, 1)} | sides


def few(labels: np.ndarray, n: int | None, seed: int) -> np.ndarray:
    """The indices of n examples, as many of each class, drawn by the seed; of all, where n is None."""
    if n is None:
        return np.arange(len(labels))
    order = torch.randperm(len(labels), generator=generator(seed)).numpy()
    return np.concatenate([order[labels[order] == k][: n // 2] for k in (0, 1)])
