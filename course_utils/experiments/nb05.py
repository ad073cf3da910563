"""Notebook 05's and 05b's long runs: two networks on a line, and eight ways to learn a language whose truth
is known, then short sentences from the stories.

Step sizes are the best of a grid at a seed that is not reported; the grid's rows are stored too. One thread
each, so that a run is the same again on the same machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_utils import gan, metrics, ngram
from course_utils.experiments import Row, Task, check_name, fixed_threads
from course_utils.grammar import END, Language
from course_utils.runtime import generator
from course_utils.splits import story_split
from course_utils.text import normalise, sentences, tokenise
from course_utils.training import Options, shuffled, train

TUNING_SEED = 99
SEEDS = range(5)

# On a line

CENTRES = (-6.0, -2.0, 2.0, 6.0)
WIDTH = 0.5  # standard deviation of each
NOISE, SAMPLES = 4, 20_000


def mixture(n: int, draw: torch.Generator) -> torch.Tensor:
    """n numbers, (n, 1), each from one of four bell curves."""
    centres = torch.tensor(CENTRES)[torch.randint(len(CENTRES), (n, 1), generator=draw)]
    return centres + WIDTH * torch.randn(n, 1, generator=draw)


def network(inputs: int, seed: int, C: int = 64) -> nn.Sequential:
    """From `inputs` numbers to one, by two hidden layers of C."""
    layers = nn.Linear(inputs, C), nn.ReLU(), nn.Linear(C, C), nn.ReLU(), nn.Linear(C, 1)
    gan.initialise(model := nn.Sequential(*layers), seed)
    return model


def noise(n: int, draw: torch.Generator) -> torch.Tensor:
    """What the generator makes its samples of: (n, NOISE)."""
    return torch.randn(n, NOISE, generator=draw)


@dataclass(frozen=True)
class Line:
    """A duel on the line, and which of its two losses the generator has."""

    saturating: bool = False
    duel: gan.Duel = gan.Duel(2000, 1e-3, 1e-3)  # noqa: RUF009


LINES = {
    "equal steps": Line(),
    "equal steps, saturating": Line(saturating=True),
    "slow discriminator": Line(duel=gan.Duel(2000, 1e-3, 2e-5)),
}


def line_distance(x: torch.Tensor) -> dict[str, float]:
    """Samples (n, 1) → wasserstein (how far each would have to be moved, on average), modes (how many of the
    four are found: within two widths a quarter of their share, half as many again as in either valley).
    """
    from scipy.stats import wasserstein_distance

    stretches = torch.arange(min(CENTRES), max(CENTRES) + 1, 2.0)  # hill, valley, hill, …
    share = ((x - stretches).abs() < 2 * WIDTH).float().mean(dim=0)  # (7,)
    hills, valleys = share[::2], F.pad(share[1::2], (1, 1))
    beside = torch.maximum(valleys[:-1], valleys[1:])
    modes = ((hills >= 1 / len(CENTRES) / 4) & (hills >= 1.5 * beside)).sum().item()
    true = mixture(SAMPLES, generator(12345))
    moved = wasserstein_distance(x.flatten().numpy(), true.flatten().numpy())
    return {"wasserstein": float(moved), "modes": modes}


def line(name: str, seed: int, threads: int = 1) -> Row:
    """Let two networks play on the line.

    Args:
        name: one of `LINES`.
        seed: of weights and samples.
        threads: of PyTorch; the stored runs' is 1.

    Returns:
        wasserstein and modes at the end, and course: [step, wasserstein, modes] every 50 steps.

    Raises:
        ValueError: no such duel.
    """
    check_name("name", name, LINES)
    kind, course = LINES[name], []
    G, D = network(NOISE, 2 * seed), network(1, 2 * seed + 1)
    B = 128

    @torch.no_grad()
    def watch(step: int, losses: list) -> None:
        found = line_distance(G(noise(SAMPLES, generator(777))))
        course.append([step, round(found["wasserstein"], 3), found["modes"]])

    def loss(draw: torch.Generator) -> torch.Tensor:
        return gan.generator_loss(D(G(noise(B, draw))), kind.saturating)

    with fixed_threads(threads):
        options = replace(kind.duel, seed=seed, every=50)
        gan.duel(G, D, partial(mixture, B), lambda draw: G(noise(B, draw)), loss, options, watch)
    return {"wasserstein": course[-1][1], "modes": course[-1][2], "course": course}


def lines() -> Iterator[Task]:
    """Each duel on the line, five times."""
    for name in LINES:
        for seed in SEEDS:
            yield {"duel": name, "seed": seed}, partial(line, name, seed)


# On a language

KNOWN, HELD, BATCH = 2_000, 1_000, 64
WRITTEN, ALIKE = 2_000, 200  # sentences each model writes to be judged; of these, for self-BLEU
TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25)
# Likelihood is drawn at these too, far enough to enter the GANs' part of the plane.
COLDER = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45)


@dataclass(frozen=True)
class Method:
    """How to train a generator.

    Attributes:
        likelihood: steps of maximum likelihood before the duel, if any.
        lr: Adam's step size there.
        duel: against a discriminator, if any.
        tau: of the Gumbel softmax; None for REINFORCE with roll-outs.
        hard: straight-through.
        N: roll-outs a word; 0: each word is worth what the whole sentence is.
    """

    likelihood: int = 0
    lr: float = 1e-2
    duel: gan.Duel | None = None
    tau: float | None = None
    hard: bool = True
    N: int = 4


SEQ = {"betas": (0.9, 0.999), "head_start": 200, "d_steps": 3, "d_lr": 1e-3}
METHODS = {
    "likelihood": Method(2_000, 3e-3),
    "Gumbel": Method(duel=gan.Duel(3_000, 3e-3, 3e-3), tau=1.0),
    "Gumbel, soft": Method(duel=gan.Duel(3_000, 1e-3, 1e-3), tau=0.3, hard=False),
    "Gumbel after likelihood": Method(2_000, 3e-3, gan.Duel(1_500, 1e-4, 1e-3, head_start=200), tau=1.0),
    "SeqGAN": Method(2_000, 3e-3, gan.Duel(400, 1e-4, **SEQ)),
    "SeqGAN, large steps": Method(2_000, 3e-3, gan.Duel(400, 1e-3, **SEQ)),
    "SeqGAN, no likelihood": Method(duel=gan.Duel(1_000, 5e-3, **SEQ | {"d_lr": 3e-3})),
    "SeqGAN, no likelihood, no roll-outs": Method(duel=gan.Duel(1_000, 5e-3, **SEQ), N=0),
}
GRIDS = {  # lr of likelihood; (lr, d_lr, tau) of a duel. The best by js is the method's own
    "likelihood": (1e-3, 3e-3, 1e-2, 3e-2),
    "Gumbel": [(1e-3, 1e-3, 1.0), (1e-2, 1e-2, 1.0), *[(3e-3, 3e-3, tau) for tau in (0.5, 1.0, 2.0)]],
    "Gumbel, soft": [(1e-3, 1e-3, 0.3), *[(3e-3, 3e-3, tau) for tau in (0.1, 0.3, 1.0)]],
    "Gumbel after likelihood": [(lr, 1e-3, 1.0) for lr in (1e-4, 3e-4, 1e-3)],
    "SeqGAN": [(1e-4, 1e-3, None), (3e-4, 1e-3, None), (3e-4, 3e-3, None), (1e-3, 1e-3, None)],
    "SeqGAN, no likelihood": [(2e-3, 1e-3, None), (5e-3, 1e-3, None), (5e-3, 3e-3, None)],
    "SeqGAN, no likelihood, no roll-outs": [(2e-3, 1e-3, None), (5e-3, 1e-3, None)],
}


@cache
def language() -> Language:
    """The grammar's."""
    return Language()


def one_hot(ids: torch.Tensor, V: int) -> torch.Tensor:
    """(B, T) → (B, T, V)."""
    return F.one_hot(ids, V).float()


def learn(G: nn.Module, known: torch.Tensor, held: torch.Tensor, method: Method, seed: int) -> None:
    """Maximum likelihood on sentences (n, T, V), back to the best on held-out ones."""
    options = Options(method.likelihood, method.lr, warmup=50, clip=5.0, seed=seed, every=100, patience=10**6)
    batch = shuffled(len(known), BATCH, seed)

    def loss(model: nn.Module, y: torch.Tensor) -> torch.Tensor:
        return -gan.word_log_probabilities(model, y).sum() / gan.written(y).sum()

    train(G, lambda step: known[batch(step)], loss, options, lambda model: loss(model, held).item())


def play(
    G: nn.Module, D: nn.Module, known: torch.Tensor, method: Method, seed: int, watch: gan.Watch = None
) -> None:
    """The duel of a method over sentences (n, T, V)."""
    T = known.shape[1]

    def real(draw: torch.Generator) -> torch.Tensor:
        return known[torch.randint(len(known), (BATCH,), generator=draw)]

    def fake(draw: torch.Generator) -> torch.Tensor:
        return gan.write(G, gan.start(BATCH, G), T, chooser(method, draw))

    def loss(draw: torch.Generator) -> torch.Tensor:
        if method.tau:
            return gan.generator_loss(D(fake(draw)))
        if method.N:
            return gan.seqgan_loss(G, D, BATCH, T, method.N, draw)
        with torch.no_grad():
            values = D(y := fake(draw)).sigmoid()  # (B,)
        return gan.policy_loss(
            gan.word_log_probabilities(G, y), values[:, None].expand(-1, T), gan.written(y)
        )

    gan.duel(G, D, real, torch.no_grad()(fake), loss, replace(method.duel, seed=seed), watch)


def chooser(method: Method, draw: torch.Generator) -> gan.Choose:
    """How a method's generator picks its words."""
    if method.tau:
        return partial(gan.gumbel_softmax, draw=draw, tau=method.tau, hard=method.hard)
    return partial(gan.sample_word, draw=draw)


@torch.no_grad()
def log_likelihoods(G: nn.Module, y: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Sentences (N, T, V) → (N,) float64, on the CPU."""
    device = next(G.parameters()).device
    parts = [gan.word_log_probabilities(G, part.to(device), temperature) for part in y.split(2048)]
    return torch.cat(parts).double().sum(dim=1).cpu()


@torch.no_grad()
def sampled(G: nn.Module, n: int, T: int, temperature: float) -> torch.Tensor:
    """n sentences a generator writes at a temperature, (n, T, V), from the same random numbers each time."""
    choose = partial(gan.sample_word, draw=generator(555), temperature=temperature)
    return gan.write(G, gan.start(n, G), T, choose)


@torch.no_grad()
def judged(G: nn.Module, temperature: float = 1.0, n: int = WRITTEN) -> Row:
    """A generator's distances from the truth, and what its sentences are like: `Language.distances`,
    nll_oracle (nats of one of its sentences under the judge), entropy (nats), and `variety` of n sentences.
    """
    L = language()
    y = sampled(G, n, L.ids.shape[1], temperature)
    ids = y.argmax(dim=-1)
    row = L.distances(log_likelihoods(G, one_hot(L.ids, len(L.words)), temperature))
    row["nll_oracle"] = L.surprise(ids).mean().item()
    row["entropy"] = -log_likelihoods(G, y, temperature).mean().item()
    row |= variety(L.spell(ids))
    return {name: round(value, 4) for name, value in row.items()}


def variety(texts: list[str]) -> Row:
    """different (how many of the texts), distinct_2 and self_bleu (of the first `ALIKE`)."""
    some = texts[:ALIKE]
    return {
        "different": len(set(texts)),
        "distinct_2": metrics.distinct(some) if any(" " in text for text in some) else 0.0,
        "self_bleu": metrics.self_bleu(some),
    }


class Table(nn.Module):
    """The bigram as a generator: a matrix of log-probabilities, counted."""

    def __init__(self, known: torch.Tensor, V: int) -> None:
        """known: (n, T) sentences, filled up with END."""
        super().__init__()
        self.V, rows = V, F.pad(known, (1, 0), value=END).tolist()
        stream = np.concatenate([row[: row.index(END, 1)] for row in rows] + [[END]])
        P = ngram.transition_matrix(stream, V, add=0.01)
        self.logs = nn.Parameter(torch.from_numpy(P).float().log(), requires_grad=False)

    def forward(self, y: torch.Tensor, state: object = None) -> tuple[torch.Tensor, None]:
        """y (B, T, V), one-hot → logits (B, T, V) of the next words, and no state."""
        return y @ self.logs, None


def bigram() -> Row:
    """`judged`, of the bigram on the same sentences."""
    L = language()
    return judged(Table(L.draw(KNOWN, generator(1)), len(L.words)))


def text(name: str, seed: int, setting: tuple | float | None = None, threads: int = 1) -> Row:
    """Train a generator on 2,000 sentences and judge it.

    Args:
        name: one of `METHODS`.
        seed: of weights, batches and noise; the sentences are the same for all.
        setting: one of the method's grid, None for its own.
        threads: of PyTorch; the stored runs' is 1.

    Returns:
        with a setting, `Language.distances`; else `judged` at temperature 1, course ([step, js,
        grammatical]), and temperatures: `judged` at each.

    Raises:
        ValueError: no such method.
    """
    check_name("name", name, METHODS)
    method, L = configured(METHODS[name], setting), language()
    V, course = len(L.words), []
    known, held = (one_hot(L.draw(n, generator(k)), V) for k, n in ((1, KNOWN), (2, HELD)))

    def watch(step: int, losses: gan.Losses) -> None:
        found = L.distances(log_likelihoods(G, one_hot(L.ids, V)))
        course.append([step, round(found["js"], 4), round(found["grammatical"], 4)])

    G = gan.Generator(V, 32, 2 * seed)
    with fixed_threads(threads):
        trained(G, known, held, method, seed, watch)
        if setting is not None:
            found = L.distances(log_likelihoods(G, one_hot(L.ids, V)))
            return {name: round(value, 4) for name, value in found.items()}
        degrees = TEMPERATURES if method.duel else COLDER + TEMPERATURES
        found = {t: judged(G, t) for t in degrees}
        temperatures = [{"temperature": t} | row for t, row in found.items()]
        return found[1.0] | {"course": course, "temperatures": temperatures}


def trained(
    G: nn.Module,
    known: torch.Tensor,
    held: torch.Tensor,
    method: Method,
    seed: int,
    watch: gan.Watch = None,
) -> nn.Module:
    """Train a generator by a method on sentences (n, T, V), with 20 looks at its duel, and return it."""
    if method.likelihood:
        learn(G, known, held, method, seed)
    if method.duel:
        D = gan.Discriminator(known.shape[-1], G.words.out_features, seed=2 * seed + 1)
        options = replace(method.duel, every=max(1, method.duel.steps // 20))
        play(G, D, known, replace(method, duel=options), seed, watch)
    return G


def configured(method: Method, setting: tuple | float | None) -> Method:
    """A method with a setting of its grid."""
    if setting is None:
        return method
    if not isinstance(setting, tuple):
        return replace(method, lr=setting)
    lr, d_lr, tau = setting
    return replace(method, duel=replace(method.duel, lr=lr, d_lr=d_lr), tau=tau)


def texts() -> Iterator[Task]:
    """Each method's grid at the tuning seed, then each method five times."""
    for name, grid in GRIDS.items():
        for setting in grid:
            key = {"tuning": True, "method": name, "setting": setting, "seed": TUNING_SEED}
            yield json_like(key), partial(text, name, TUNING_SEED, setting)
    yield {"method": "bigram"}, bigram
    for seed in SEEDS:
        for name in METHODS:
            yield {"method": name, "seed": seed}, partial(text, name, seed)


def json_like(key: Row) -> Row:
    """Tuples as lists, as JSON gives them back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in key.items()}


# On the stories

STORY_V, STORY_T, STORY_C = 500, 9, 96  # commonest words; words a sentence, its END counted; width
STORY_KNOWN, STORY_HELD, SHOWN = 20_000, 2_000, 10
STORY_METHODS = ("likelihood", "Gumbel", "SeqGAN, large steps", "SeqGAN, no likelihood")


class Sentences(NamedTuple):
    """Short sentences of the stories: id → word, (n, T) ids to learn from and to hold back, and the counts of
    all short ones on the training side."""

    words: list[str]
    known: torch.Tensor
    held: torch.Tensor
    trigram: ngram.KneserNey


@cache
def short_sentences() -> Sentences:
    """Sentences of 3 to 8 words, all of them among the commonest 500."""
    sides = story_split()
    rows = {
        side: [tokenise(part) for text in sides[side] for part in sentences(normalise(text))]
        for side in ("train", "valid")
    }
    words = [".", *(w for w, _ in Counter(chain.from_iterable(rows["train"])).most_common(STORY_V - 1))]
    number = {word: i for i, word in enumerate(words)}
    short = {
        side: [
            [number[w] for w in row] for row in group if 3 <= len(row) < STORY_T and number.keys() >= {*row}
        ]
        for side, group in rows.items()
    }
    stream = np.array([END, *chain.from_iterable([*row, END] for row in short["train"])])
    full = {
        side: torch.tensor([row + [END] * (STORY_T - len(row)) for row in group])
        for side, group in short.items()
    }
    known, held = pick(full["train"], STORY_KNOWN), pick(full["valid"], STORY_HELD)
    return Sentences(words, known, held, ngram.KneserNey(stream, 3, STORY_V))


def pick(rows: torch.Tensor, n: int) -> torch.Tensor:
    """n of the rows, the same each time."""
    return rows[torch.randperm(len(rows), generator=generator(3))[:n]]


def read(ids: torch.Tensor) -> Row:
    """What sentences (n, T) of the stories' words are like: nll_trigram (nats a sentence, by the counts of
    all short sentences), `variety`, and some of them."""
    data = short_sentences()
    rows = [[END, *row[: row.index(END) if END in row else None], END] for row in ids.tolist()]
    nats = [-data.trigram.log_probabilities(np.array(row))[1:].sum() for row in rows]
    texts = [" ".join(data.words[i] for i in row[1:-1]) for row in rows]
    return {"nll_trigram": round(float(np.mean(nats)), 4)} | variety(texts) | {"sentences": texts[:SHOWN]}


def story(name: str, seed: int, threads: int = 1) -> Row:
    """Train a generator on 20,000 short sentences of the stories.

    Args:
        name: one of `STORY_METHODS`.
        seed: of weights, batches and noise.
        threads: of PyTorch; the stored runs' is 1.

    Returns:
        nll_test (nats of a held-out sentence), and `read` of 1,000 of its own at temperatures 1 and 0.7.

    Raises:
        ValueError: no such method.
    """
    check_name("name", name, STORY_METHODS)
    data = short_sentences()
    known, held = one_hot(data.known, STORY_V), one_hot(data.held, STORY_V)
    G = gan.Generator(STORY_V, STORY_C, 2 * seed)
    with fixed_threads(threads):
        trained(G, known, held[:1000], METHODS[name], seed)
        row = {"nll_test": round(-log_likelihoods(G, held[1000:]).mean().item(), 4)}
        for name, t in (("as trained", 1.0), ("at temperature 0.7", 0.7)):
            row[name] = read(sampled(G, 1000, STORY_T, t).argmax(dim=-1))
    return row


def stories() -> Iterator[Task]:
    """True sentences for comparison, then each method three times."""
    yield {"method": "true sentences"}, lambda: {"as trained": read(short_sentences().held[1000:])}
    for seed in range(3):
        for name in STORY_METHODS:
            yield {"method": name, "seed": seed}, partial(story, name, seed)
