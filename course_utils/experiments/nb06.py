"""Notebook 06b's runs: an encoder on film reviews, trained in five ways, with few labels, on other tasks.

Each run is a fixed number of passes with the learning rate going down to 0. The step size of each way was
chosen on the validation side, with fewer labels and a seed of its own (`search`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from torch import nn

from course_utils import corpora, pretrained, sentiment, splits, tuning
from course_utils.bert import (
    MaskedWordHead,
    Passages,
    bert_config,
    from_bert,
    guess_loss,
    guess_scores,
    log_shares,
    paragraphs,
)
from course_utils.experiments import Row, Task, check_name, fixed_threads, nb04b
from course_utils.runtime import device, generator
from course_utils.training import Options, train
from course_utils.transformer import Encoder

if TYPE_CHECKING:
    import pandas as pd

SEEDS = range(5)
FEWER = range(3)  # of runs that take minutes
SEARCH = {"seed": 100, "n": 2000, "side": "valid"}
BATCH = 32
SIZES = (50, 200, 1000)
TASKS = ("questions", "products")
FRACTIONS = {"train": 0.70, "valid": 0.15, "test": 0.15}


@dataclass(frozen=True)
class Method:
    """What is trained, and how.

    Attributes:
        lr: peak learning rate.
        epochs: passes over the labels.
        top: how many of the layers are trained; None for all, and the embedding.
        rank: of LoRA's changes; 0 for none.
        pretrained: begin with BERT's weights, not random ones.
        least: steps that are made even of few labels.
    """

    lr: float
    epochs: int
    top: int | None = None
    rank: int = 0
    pretrained: bool = True
    least: int = 30


METHODS = {
    "head only": Method(3e-3, 20, top=0),
    "top two layers": Method(8e-4, 4, top=2),
    "LoRA": Method(2e-3, 3, rank=8),
    "all layers": Method(1e-4, 3),
    "all layers, one pass": Method(1e-4, 1),
    "random weights": Method(1e-4, 6, pretrained=False, least=300),
}
GRID = {  # step sizes tried
    "head only": (3e-3, 1e-2, 3e-2),
    "top two layers": (2e-4, 4e-4, 8e-4),
    "LoRA": (1e-3, 2e-3, 4e-3),
    "all layers": (5e-5, 1e-4, 2e-4),
    "random weights": (3e-5, 1e-4, 3e-4),
}
FAULTS = ("none", "padding read", "no dropout")
SLOW = ("top two layers", "LoRA", "all layers", "random weights")
ONE_PASS = "all layers, one pass"  # for the page and for other tasks


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


def examples(
    model: tuning.TextClassifier,
    texts: list[str],
    targets: np.ndarray | None,
    kind: type[tuning.Examples] = tuning.Examples,
) -> tuning.Examples:
    """Texts as the model reads them: ids, or the states that enter its first trained layer."""
    rows = tuning.encode(tokenizer(), texts)
    if model.start:
        rows = tuning.frozen_states(model.encoder, rows, model.start)
    return kind(rows, targets, model.head.out_features)


@cache
def tokenizer() -> object:
    """The encoder's."""
    return pretrained.load("bert").tokenizer


def options(method: Method, N: int, B: int, seed: int, mixed: bool | None) -> Options:
    """For so many labels; a tenth of the steps warms up."""
    steps = max(N // B * method.epochs, method.least)
    return Options(
        steps, method.lr, warmup=steps // 10, betas=(0.9, 0.999), seed=seed, every=steps, mixed=mixed
    )


def fit(
    method: Method, texts: list[str], targets: np.ndarray, K: int, seed: int, mixed: bool | None
) -> tuple[tuning.TextClassifier, float]:
    """Train one classifier; it, and the seconds from the texts on."""
    start = time.perf_counter()
    model = classifier(method, seed, K)
    known = examples(model, texts, targets)
    B = min(BATCH, max(8, len(texts) // 8))
    train(model, known.batches(B, seed), tuning.text_loss, options(method, len(texts), B, seed, mixed))
    return model, time.perf_counter() - start


def two_sided(targets: np.ndarray) -> np.ndarray:
    """The probability of "good", (N,), as those of "bad" and "good", (N, 2)."""
    return np.stack([1 - targets, targets], axis=1)


def tune(
    method: Method,
    seed: int,
    n: int | None = None,
    side: str = "test",
    threads: int = 1,
    mixed: bool | None = True,
) -> Row:
    """Train on film reviews and measure on another side.

    Args:
        method: what is trained, and how.
        seed: of new weights, batches and dropout, and of the choice of labels.
        n: how many labels, as many good as bad; None for all.
        side: "valid" or "test".
        threads: of PyTorch.
        mixed: bfloat16, which AVX-512 BF16 makes half as fast again; None for a GPU alone.

    Returns:
        trained (numbers), train seconds, and what `judged` gives.
    """
    data = nb04b.data()
    chosen = few(data.labels["train"], n, seed)
    texts = [data.texts["train"][i] for i in chosen]
    with fixed_threads(threads):
        model, seconds = fit(method, texts, two_sided(data.targets["train"][chosen]), 2, seed, mixed)
        row = judged(partial(good, model), side)
    return {"trained": tuning.trained(model), "train seconds": round(seconds, 1)} | row


def judged(chances: Callable[[list[str]], np.ndarray], side: str = "test") -> Row:
    """Scores on a side, and what is said of each of its reviews: bits in hexadecimal."""
    found = chances(nb04b.data().texts[side])
    return {
        side: nb04b.side_scores(found, side),
        "said good": np.packbits(found > 0.5).tobytes().hex(),
    }


def right(row: Row) -> np.ndarray:
    """For each test review whether a stored row has it right, (N,) zeros and ones.

    Raises:
        ValueError: the row was measured on another side.
    """
    if "test" not in row:
        raise ValueError(f"row must be measured on the test side, got {', '.join(row)}")
    labels = nb04b.data().labels["test"]
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(row["said good"]), np.uint8))[: len(labels)]
    return (bits == labels).astype(int)


def lstm(seed: int) -> Row:
    """Notebook 04b's LSTM."""
    with fixed_threads(1):
        start = time.perf_counter()
        model, _ = nb04b.trained("base", seed)
        seconds = time.perf_counter() - start
        row = judged(lambda texts: sentiment.probabilities(model, texts, nb04b.data().ids))
    return {"trained": tuning.trained(model), "train seconds": round(seconds, 1)} | row


def majority() -> Row:
    """Everything is what most of the training side is."""
    share = nb04b.data().labels["train"].mean()
    return {"trained": 0, "train seconds": 0.0} | judged(lambda texts: np.full(len(texts), share))


def blind(batch: tuning.Batch, width: int = 64) -> tuning.Batch:
    """The texts padded, a few long ones cut, to one width, with every place read as if it were a token."""
    x = F.pad(batch.x, (0, width - batch.x.shape[1]))
    return batch._replace(x=x, mask=torch.ones(len(x), 1, width, dtype=torch.bool, device=x.device))


class Blind(tuning.Examples):
    """Examples whose padding is read."""

    def batch(self, indices: torch.Tensor) -> tuning.Batch:
        """As `blind` makes it."""
        return blind(super().batch(indices))


def fault(kind: str, seed: int, n: int = 500, mixed: bool | None = True) -> Row:
    """Two faults of the listing in the source articles, each alone, on n labels; "none" is without.

    Returns:
        what `judged` gives; of "padding read", trained without a mask, also with the mask put back.
    """
    check_name("kind", kind, FAULTS)
    data, method = nb04b.data(), METHODS["all layers"]
    chosen = few(data.labels["train"], n, seed)
    with fixed_threads(1):
        model = classifier(method, seed)
        texts, targets = [data.texts["train"][i] for i in chosen], two_sided(data.targets["train"][chosen])
        held = Blind if kind == "padding read" else tuning.Examples
        known = examples(model, texts, targets, held)
        if kind == "no dropout":
            for part in model.modules():
                if isinstance(part, nn.Dropout):
                    part.p = 0.0
        train(model, known.batches(BATCH, seed), tuning.text_loss, options(method, n, BATCH, seed, mixed))
        rows = {"as trained": judged(partial(good, model, kind=held))}
        if kind == "padding read":
            rows["mask put back"] = judged(partial(good, model))
        if kind == "none":
            rows["mask left out"] = judged(partial(good, model, kind=Blind))
    return rows


def good(
    model: tuning.TextClassifier, texts: list[str], kind: type[tuning.Examples] = tuning.Examples
) -> np.ndarray:
    """The probability of "good" of each text, (N,)."""
    return tuning.chances(model, examples(model, texts, None, kind))[:, 1]


def few(labels: np.ndarray, n: int | None, seed: int) -> np.ndarray:
    """The indices of n examples, half of each class, drawn by the seed; of all where n is None."""
    if n is None:
        return np.arange(len(labels))
    order = torch.randperm(len(labels), generator=generator(seed)).numpy()
    return np.concatenate([order[labels[order] == k][: n // 2] for k in (0, 1)])


def counting(n: int | None, seed: int) -> Row:
    """TF-IDF and logistic regression on n labels, or on all."""
    data = nb04b.data()
    chosen = few(data.labels["train"], n, seed)
    texts = [data.texts["train"][i] for i in chosen]
    start = time.perf_counter()
    model = sentiment.baseline(texts, data.labels["train"][chosen])
    sizes = {"trained": model[-1].coef_.size + 1, "train seconds": round(time.perf_counter() - start, 1)}
    return sizes | judged(lambda texts: model.predict_proba(texts)[:, 1])


# --- other tasks --------------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """Texts and classes (N,) of each side, and the classes' names."""

    texts: dict[str, list[str]]
    labels: dict[str, np.ndarray]
    names: tuple[str, ...]


@cache
def problem(name: str) -> Problem:
    """Question types (their own test side), or opinions on products (split here).

    Raises:
        ValueError: no such task.
    """
    check_name("name", name, TASKS)
    if name == "questions":
        table, names = corpora.trec(), corpora.TREC_LABELS
        held = table.index % 10 == 0
        side = np.where(table["split"] == "test", "test", np.where(held, "valid", "train"))
    else:
        table, names = corpora.rated(name), ("bad", "good")
        table["label"] = (table["rating"] > 0).astype(int)
        side = rated_split(table)
    parts = {part: table[side == part] for part in FRACTIONS}
    texts = {part: rows["text"].tolist() for part, rows in parts.items()}
    return Problem(texts, {part: rows["label"].to_numpy() for part, rows in parts.items()}, tuple(names))


def rated_split(table: pd.DataFrame) -> np.ndarray:
    """Sides of rated texts; the sentences of one review stay together."""
    groups = table["id"].str.partition("_")[0].factorize()[0]
    return splits.split_groups(groups, FRACTIONS, strata=table["label"])


def transfer(name: str, method: str, seed: int, threads: int = 1, mixed: bool | None = True) -> Row:
    """Train on another task and measure on its test side.

    Args:
        name: of TASKS.
        method: of METHODS, "majority" or "TF-IDF + logistic regression".
        seed, threads, mixed: as in `tune`.

    Returns:
        n labels, n (tested), accuracy and macro F1.

    Raises:
        ValueError: no such task or method.
    """
    check_name("method", method, ("majority", "TF-IDF + logistic regression", *METHODS))
    texts, labels, names = problem(name)
    if method == "majority":
        said = np.full(len(labels["test"]), np.bincount(labels["train"]).argmax())
    elif method in METHODS:
        with fixed_threads(threads):
            model, _ = fit(METHODS[method], texts["train"], labels["train"], len(names), seed, mixed)
            said = tuning.chances(model, examples(model, texts["test"], None)).argmax(axis=1)
    else:
        said = sentiment.word_counts().fit(texts["train"], labels["train"]).predict(texts["test"])
    accuracy, f1 = (said == labels["test"]).mean(), f1_score(labels["test"], said, average="macro")
    sizes = {"n labels": len(labels["train"]), "n": len(said)}
    return sizes | {"accuracy": round(float(accuracy), 4), "macro F1": round(float(f1), 4)}


def guesses(hidden: str, depth: int) -> Row:
    """Notebook 06's head for hidden words after 120 steps, on a part of the text and of the test side."""
    bert, options = pretrained.load("bert"), Options(120, lr=1e-2, warmup=12, every=120, mixed=True)
    encoder = from_bert(bert.model).requires_grad_(False)
    tokens, mask_id = encoder.embedding.tokens.weight, bert.tokenizer.convert_tokens_to_ids(hidden)
    known, held = (
        Passages(encoder, bert.tokenizer, paragraphs(side)[:n], depth, mask_id)
        for side, n in (("train", 6000), ("test", 200))
    )
    with fixed_threads(1):
        head = MaskedWordHead(*tokens.shape).to(device())
        head.bias.data.copy_(log_shares(known, len(tokens)))
        train(head, known.batches(), guess_loss(tokens), options)
        scores = guess_scores(head, tokens, held.held())
    return {name: round(value, 4) for name, value in scores.items()}


# --- what `course_utils.results` runs -----------------------------------------------------------------------


def search() -> Iterator[Task]:
    """Each way with each step size."""
    for name, rates in GRID.items():
        for lr in rates:
            method = replace(METHODS[name], lr=lr)
            yield {"method": name, "lr": lr} | SEARCH, partial(tune, method, **SEARCH)


def tunings() -> Iterator[Task]:
    """Each way at its chosen settings, over the seeds."""
    yield {"method": "majority"}, majority
    yield {"method": "TF-IDF + logistic regression"}, partial(counting, None, 0)
    for seed in SEEDS:
        yield {"method": "LSTM", "seed": seed}, partial(lstm, seed)
        for name, method in METHODS.items():
            if name != ONE_PASS and (seed in FEWER or name not in SLOW):
                yield {"method": name, "seed": seed}, partial(tune, method, seed)


def curve() -> Iterator[Task]:
    """Few labels and many: the whole encoder, pretrained and not, and counting words."""
    for seed in FEWER:
        for n in SIZES:
            yield {"method": "TF-IDF + logistic regression", "n": n, "seed": seed}, partial(counting, n, seed)
            for name in ("all layers", "random weights"):
                yield {"method": name, "n": n, "seed": seed}, partial(tune, METHODS[name], seed, n)


def hidings() -> Iterator[Task]:
    """What hides a word, and after which layer it is guessed."""
    for hidden in ("[MASK]", "[UNK]"):
        for depth in (6, 3):
            yield {"hidden": hidden, "depth": depth}, partial(guesses, hidden, depth)


def faults() -> Iterator[Task]:
    """What each fault of the listing costs."""
    for seed in FEWER:
        for kind in FAULTS:
            yield {"fault": kind, "seed": seed}, partial(fault, kind, seed)


def transfers() -> Iterator[Task]:
    """Other tasks, the same encoder and settings."""
    for name in TASKS:
        for method in ("majority", "TF-IDF + logistic regression"):
            yield {"task": name, "method": method}, partial(transfer, name, method, 0)
        for seed in FEWER:
            yield (
                {"task": name, "method": ONE_PASS, "seed": seed},
                partial(transfer, name, ONE_PASS, seed),
            )
