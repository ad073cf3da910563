"""Notebook 07b's runs: what each way of decoding writes, and what the parts newer than GPT-2 change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch

from course_utils import bpe, gpt2, metrics, modern, stories
from course_utils.experiments import Row, Task, check_name, fixed_threads, nb04
from course_utils.generation import Decoding
from course_utils.splits import story_split
from course_utils.training import Options, next_token_loss, train, windows
from course_utils.transformer import Config, Decoder

# What each way of decoding writes

FAMILIES = {
    "search": {"greedy": Decoding()} | {f"beams {n}": Decoding(num_beams=n) for n in (2, 4, 8)},
    "greedy with a penalty": {f"penalty {x}": Decoding(repetition_penalty=x) for x in (1.1, 1.2, 1.4)},
    "temperature": {
        f"temperature {x}": Decoding(do_sample=True, temperature=x) for x in (0.5, 0.7, 1.0, 1.3)
    },
    "top-k": {f"top-k {k}": Decoding(do_sample=True, top_k=k) for k in (10, 40, 160)},
    "top-p": {f"top-p {p}": Decoding(do_sample=True, top_p=p) for p in (0.8, 0.9, 0.95)},
    "min-p": {f"min-p {p}": Decoding(do_sample=True, min_p=p) for p in (0.2, 0.1, 0.05)},
}
WAYS = {name: how for ways in FAMILIES.values() for name, how in ways.items()}
HELD = "held-out stories"
WORDS = 60  # of each text, for what depends on its length
PROMPTS, PROMPT, LENGTH = 100, 24, 160  # prompts, pieces of each, pieces that follow at most
SEEDS = range(5)


@cache
def prompts() -> tuple[list[list[int]], list[list[int]]]:
    """The first pieces of test stories, an end before them, and what really follows, its end included."""
    texts = story_split()["test"]
    chosen = [texts[i] for i in np.linspace(0, len(texts) - 1, PROMPTS).astype(int)]
    encoded = [text.ids for text in bpe.tokenizer().encode_batch(chosen)]
    rest = [[*ids[PROMPT:], stories.END][:LENGTH] for ids in encoded]
    return [[stories.END, *ids[:PROMPT]] for ids in encoded], rest


@cache
def model() -> Decoder:
    """The embedded GPT-2 in our decoder."""
    return gpt2.load(stories.FOLDER)


def way(name: str, seed: int, threads: int = 1) -> Row:
    """Continue the prompts in one way.

    Args:
        name: one of `WAYS`, or `HELD` for what really follows.
        seed: of what is drawn.
        threads: of PyTorch.

    Returns:
        What `described` gives.
    """
    check_name("name", name, [*WAYS, HELD])
    begun, real = prompts()
    with fixed_threads(threads):
        if name == HELD:
            return described(begun, real)
        return described(begun, gpt2.generate(model(), begun, LENGTH, WAYS[name], seed, stories.END))


def described(begun: list[list[int]], rows: list[list[int]]) -> Row:
    """Continuations in numbers.

    Returns:
        repetition (seq-rep-4, mean), percent (of each text's 4-grams, rounded), loops (share with more than
        half of the 4-grams repeated), distinct_2 and self_bleu (over the first words of all), perplexity (by
        the model, a piece), length (pieces), ended (share), first (the first text).
    """
    texts = [" ".join(text.split()[:WORDS]) for text in bpe.tokenizer().decode_batch(rows)]
    repeated = np.array([metrics.repetition(row) if len(row) > 3 else 0.0 for row in rows])
    return {
        "repetition": round(float(repeated.mean()), 4),
        "percent": " ".join(f"{100 * share:.0f}" for share in repeated),
        "loops": round(float((repeated > 0.5).mean()), 4),
        "distinct_2": round(metrics.distinct(texts), 4),
        "self_bleu": round(metrics.self_bleu(texts), 2),
        "perplexity": round(float(np.exp(nats(begun, rows))), 4),
        "length": round(float(np.mean([len(row) for row in rows])), 1),
        "ended": round(float(np.mean([row[-1] == stories.END for row in rows])), 4),
        "first": bpe.tokenizer().decode(begun[0] + rows[0]),
    }


def nats(begun: list[list[int]], rows: list[list[int]]) -> float:
    """What the model pays for each continuation's pieces, given its beginning: the mean, in nats a piece."""
    pairs = zip(begun, rows, strict=True)
    paid = [nb04.losses(model(), torch.tensor([start + row]))[0, len(start) - 1 :] for start, row in pairs]
    return float(np.concatenate(paid).mean())


def decodings() -> Iterator[Task]:
    """Each way, by the stored weights: once where nothing is drawn, else over seeds."""
    weights = hashlib.sha256((stories.FOLDER / "model.safetensors").read_bytes()).hexdigest()[:12]
    for name, how in {HELD: Decoding(), **WAYS}.items():
        for seed in SEEDS if how.do_sample else (0,):
            yield {"way": name, "seed": seed, "weights": weights}, partial(way, name, seed)


# What changed since GPT-2

CONFIG = Config(
    bpe.PIECES,
    nb04.T,
    128,
    nh=4,
    layers=2,
    dropout=0.0,
    **gpt2.SHAPE,
)
TUNING_SEED = 99
RATES = (2e-3, 4e-3, 8e-3, 1.6e-2)


@dataclass(frozen=True)
class Swap:
    """Which parts are new, and the peak learning rate, the tuning rows' best."""

    parts: tuple[str, ...]
    lr: float


SWAPS = {
    "GPT-2": Swap((), 4e-3),
    **{part: Swap((part,), 4e-3) for part in modern.PARTS},
    "all four": Swap(modern.PARTS, 4e-3),
}


@cache
def operations(name: str) -> int:
    """Of a swap's matrix products, forward and backward, for each token."""
    return nb04.operations(modern.modernise(CONFIG, SWAPS[name].parts))


def swapped(name: str, seed: int, lr: float | None = None, threads: int = 1) -> Row:
    """Train a small model with some parts exchanged, for as many operations as GPT-2's parts need.

    Args:
        name: one of `SWAPS`.
        seed: of weights and batches.
        lr: peak learning rate; None for the swap's own.
        threads: of PyTorch.

    Returns:
        parameters, flops_per_token, steps, nats (a token, held out), cache (bytes a token).
    """
    check_name("name", name, SWAPS)
    swap, base = SWAPS[name], nb04.OPTIONS.steps
    steps = round(base * operations("GPT-2") / operations(name))
    options: Options = replace(nb04.OPTIONS, steps=steps, lr=lr or swap.lr, seed=seed, every=steps)
    with fixed_threads(threads):
        data, student = nb04.stories(), modern.modernise(CONFIG, swap.parts, seed)
        train(student, windows(data.train, nb04.BATCH, nb04.T, seed), next_token_loss, options)
        found = nb04.nats(student, data.windows)
    attention = student.stack.layers[0].self_attention
    return {
        "parameters": nb04.parameters(student),
        "flops_per_token": operations(name),
        "steps": steps,
        "nats": round(found, 4),
        "cache": CONFIG.layers * 2 * 4 * attention.key.out_features,
    }


def swaps() -> Iterator[Task]:
    """Learning rates at the tuning seed; then each swap over seeds."""
    for name in SWAPS:
        for lr in RATES:
            key = {"tuning": True, "parts": name, "lr": lr, "seed": TUNING_SEED}
            yield key, partial(swapped, name, TUNING_SEED, lr)
    for seed in SEEDS:
        for name in SWAPS:
            key = {"tuning": False, "parts": name, "lr": SWAPS[name].lr, "seed": seed}
            yield key, partial(swapped, name, seed)
