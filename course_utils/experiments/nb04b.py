"""Notebook 04b's runs: an LSTM on film reviews with one thing changed, what it has to beat, the listing.

The page trains the base once more, by `classifier("base", seed)`'s own settings: about 40 s of one free core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch

from course_utils import corpora, sentiment
from course_utils.experiments import Row, Task, fixed_threads
from course_utils.lstm import as_torch
from course_utils.runtime import device
from course_utils.splits import review_split
from course_utils.training import History, train

SEEDS = range(5)
EPOCHS = (100, 150)  # the listing trains for so many, and then for so many more


@dataclass(frozen=True)
class Variant:
    """What differs from the base: arguments of the classifier, its word vectors, what it learns."""

    config: dict = field(default_factory=dict)
    vectors: str = "glove"  # or "random"
    graded: bool = True  # learns how good a review was found, not only on which side it is


VARIANTS = {
    "base": Variant(),
    "zeros and ones": Variant(graded=False),
    "frozen GloVe": Variant({"frozen": True}),
    "random vectors": Variant(vectors="random"),
    "last state, one direction": Variant({"C": 128, "pool": "last", "bidirectional": False}),
    "no dropout": Variant({"dropout": 0.0}),
    "dropout anew each step": Variant({"variational": False}),
    "dropout 0.5": Variant({"dropout": 0.5}),
    "dropout 0.5 anew each step": Variant({"dropout": 0.5, "variational": False}),
}


class Data(NamedTuple):
    """The split: texts, labels and graded targets of each side, and the ids of all known words."""

    texts: dict[str, list[str]]
    labels: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]
    clear: dict[str, np.ndarray]  # where the mean rating is beyond ±1
    ids: dict[str, int]


@cache
def data() -> Data:
    """The reviews; the words of the training side, and GloVe's KNOWN first, have ids."""
    sides = review_split()
    ratings = {name: side["rating"].to_numpy() for name, side in sides.items()}
    return Data(
        {name: side["text"].tolist() for name, side in sides.items()},
        {name: (row > 0).astype(int) for name, row in ratings.items()},
        {name: sentiment.graded(row) for name, row in ratings.items()},
        {name: abs(row) > 1 for name, row in ratings.items()},
        sentiment.word_ids(sides["train"]["text"], corpora.glove(sentiment.KNOWN)[0]),
    )


def reviews(side: str, graded: bool) -> sentiment.Reviews:
    """One side as ids."""
    d = data()
    return sentiment.Reviews(d.texts[side], d.labels[side], d.ids, d.targets[side] if graded else None)


def classifier(variant: str, seed: int, threads: int = 1) -> Row:
    """Train one variant with early stopping and measure it.

    Args:
        variant: one of `VARIANTS`.
        seed: of weights, batches and dropout; the same batches for every variant.
        threads: of PyTorch; the stored runs' is 1.

    Returns:
        steps (of the best validation), curve ((step, validation loss)), and for each of "valid" and "test"
        the scores on all reviews, with the accuracy and number of the clear ones.

    Raises:
        ValueError: no such variant.
    """
    with fixed_threads(threads):
        model, history = trained(variant, seed)
        row = both_sides(lambda texts: sentiment.probabilities(model, texts, data().ids))
    best = min(history.valid, key=lambda pair: pair[1])
    return {"steps": best[0], "curve": [[step, round(loss, 4)] for step, loss in history.valid]} | row


def trained(variant: str, seed: int) -> tuple[sentiment.Classifier, History]:
    """One variant at the end of its training; arguments as `classifier`."""
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    kind = VARIANTS[variant]
    known, held = (reviews(side, kind.graded) for side in ("train", "valid"))
    model = sentiment.Classifier(vectors(kind.vectors, seed), **kind.config, seed=seed).to(device())
    options = replace(sentiment.OPTIONS, seed=seed)
    return model, train(model, known.batches(seed=seed), sentiment.classification_loss, options, held.loss)


def vectors(kind: str, seed: int) -> torch.Tensor:
    """GloVe's vectors, or random ones as many."""
    if kind == "glove":
        return sentiment.glove_vectors(data().ids)
    return sentiment.random_vectors(max(data().ids.values()) + 1, seed=seed)


def both_sides(chances) -> Row:
    """Scores on the validation and the test side of a function from texts to probabilities of "good"."""
    return {side: side_scores(chances(data().texts[side]), side) for side in ("valid", "test")}


def side_scores(chances: np.ndarray, side: str) -> Row:
    """All scores on a side, four digits each, and accuracy and number of its clear reviews."""
    labels, clear = data().labels[side], data().clear[side]
    row = sentiment.scores(labels, chances)
    row |= {"clear": float(((chances > 0.5) == labels)[clear].mean()), "n clear": int(clear.sum())}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}


def counting(graded: bool) -> Row:
    """TF-IDF and logistic regression, its C chosen on the validation side."""
    d = data()
    targets = d.targets["train"] if graded else None
    rows = []
    for C in (3.0, 10.0, 30.0, 100.0, 300.0):
        model = sentiment.baseline(d.texts["train"], d.labels["train"], C, targets)
        rows.append({"C": C} | both_sides(lambda texts, m=model: m.predict_proba(texts)[:, 1]))
    return max(rows, key=lambda row: row["valid"]["accuracy"])


def majority() -> Row:
    """Everything is what most of the training side is."""
    share = data().labels["train"].mean()
    return both_sides(lambda texts: np.full(len(texts), share))


def listing(seed: int, threads: int = 1) -> Row:
    """What the source articles print: LSTM(128), its last state, a sigmoid; 100 epochs, then 150 more on top.

    Random vectors, learnt along; Adam at 1e-3 throughout, batches of 64, no dropout, no early stopping.

    Returns:
        curve: (epoch, mean training loss of the epoch, validation loss, validation accuracy) of epochs 1, 2,
        3, 5 and every tenth; and the scores after each of the two calls of `fit`.
    """
    known, held = (reviews(side, graded=False) for side in ("train", "valid"))
    with fixed_threads(threads):
        model = listed(seed)
        optimiser, batch = torch.optim.Adam(model.parameters(), lr=1e-3), known.batches(seed=seed)
        each, curve, after = len(known.rows) // sentiment.BATCH, [], {}
        for epoch in range(1, sum(EPOCHS) + 1):
            loss = fit_epoch(model, optimiser, batch, range((epoch - 1) * each, epoch * each))
            if epoch in (1, 2, 3, 5) or epoch % 10 == 0:
                chances = sentiment.probabilities(model, data().texts["valid"], data().ids)
                right = float(((chances > 0.5) == held.labels).mean())
                curve.append([epoch, *(round(x, 4) for x in (loss, held.loss(model), right))])
            if epoch in (EPOCHS[0], sum(EPOCHS)):
                after[f"after {epoch}"] = {side: without_loss(model, side) for side in ("valid", "test")}
    return {"curve": curve} | after


def listed(seed: int) -> sentiment.Classifier:
    """The listing's model, on the library's LSTM: 250 epochs of ours take twice as long."""
    config = {"C": 128, "pool": "last", "bidirectional": False, "dropout": 0.0}
    model = sentiment.Classifier(vectors("random", seed), **config, seed=seed)
    model.recurrent = Compiled(as_torch(model.recurrent))
    return model.to(device())


class Compiled(torch.nn.Module):
    """`nn.LSTM` of one direction called as ours is; padding stands behind the words and is not looked at."""

    def __init__(self, theirs: torch.nn.LSTM) -> None:
        super().__init__()
        self.theirs = theirs

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, tuple]:
        """x (B, T, D), lengths (B,) → outputs (B, T, C), and h (1, B, C) after the last word, with no c."""
        y, _ = self.theirs(x)
        return y, (y[torch.arange(len(y)), lengths - 1][None], None)


def without_loss(model: torch.nn.Module, side: str) -> Row:
    """The scores on a side but for the log loss, which the curve has."""
    row = side_scores(sentiment.probabilities(model, data().texts[side], data().ids), side)
    return {name: value for name, value in row.items() if name != "log loss"}


def fit_epoch(model: torch.nn.Module, optimiser: torch.optim.Optimizer, batch, steps: range) -> float:
    """One pass; the mean loss."""
    model.train()
    total = 0.0
    for step in steps:
        loss = sentiment.classification_loss(model, batch(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item()
    return total / len(steps)


def classifications() -> Iterator[Task]:
    """What has to be beaten, then each variant over the seeds, then the listing."""
    yield {"variant": "majority"}, majority
    for graded in (False, True):
        name = "TF-IDF + logistic regression" + (", graded" if graded else "")
        yield {"variant": name}, partial(counting, graded)
    for seed in SEEDS:
        for variant in VARIANTS:
            yield {"variant": variant, "seed": seed}, partial(classifier, variant, seed)
    yield {"variant": "listing", "seed": 0}, partial(listing, 0)
