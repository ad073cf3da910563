"""Notebook 04's long runs: LSTM against Transformer on the stories, recall of a token at a distance,
truncated back-propagation, and what attention adds to an LSTM that writes what another has read.

Each model has its own learning rate, the best of a grid at a seed that is not reported; the grid's rows are
stored beside the others. One thread each, so that a run is the same again on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from course_utils import bpe, lstm
from course_utils.experiments import Row, Task, check_name, fixed_threads
from course_utils.generation import greedy
from course_utils.ngram import KneserNey, transition_matrix
from course_utils.runtime import generator
from course_utils.splits import story_split
from course_utils.training import History, Options, descend, next_token_loss, train, windows
from course_utils.transformer import Config, Decoder

TUNING_SEED = 99


# Language models on the stories


@dataclass(frozen=True)
class Shape:
    """A language model's layers and width, and its peak learning rate, the tuning rows' best."""

    layers: int
    C: int
    lr: float
    recurrent: bool = True


# Widths by the number of parameters: 0.92 M each.
SHAPES = {
    "Transformer": Shape(2, 128, 8e-3, recurrent=False),
    "LSTM": Shape(1, 168, 1.6e-2),
    "LSTM, 3 layers": Shape(3, 128, 3.2e-2),
}
V, T, BATCH = bpe.PIECES, 128, 4
OPTIONS = Options(steps=600, warmup=100, mixed=False)
FORGET = 1.0  # bias of a language model's forget gates
BINS = (0, 1, 2, 4, 8, 16, 32, 64, T)  # positions in the window: from one to below the next
HELD = 256  # windows


class Stories(NamedTuple):
    """The streams of the training and the validation side, and the latter's windows (HELD, T + 1)."""

    train: np.ndarray
    valid: np.ndarray
    windows: torch.Tensor


@cache
def stories() -> Stories:
    """The stories as pieces; the windows stand evenly along the validation side, the same for every model."""
    parts = story_split()
    known, held = (bpe.token_stream(parts[side]) for side in ("train", "valid"))
    starts = np.linspace(0, len(held) - T - 1, HELD).astype(int)
    rows = held[starts[:, None] + np.arange(T + 1)].astype(np.int64)
    return Stories(known, held, torch.from_numpy(rows))


def language_model(shape: Shape, seed: int, std: float | None = None, compiled: bool = True) -> nn.Module:
    """Draw a language model.

    Args:
        shape: of a Transformer or an LSTM.
        seed: of the weights.
        std: of the token vectors; None for the model's own: 0.3 in an LSTM, 1 / √C in a Transformer.
        compiled: the library's LSTM with the same weights, instead of ours.
    """
    if shape.recurrent:
        reader = lstm.Recurrent(lstm.LSTMCell, shape.C, shape.C, shape.layers, seed=2 * seed)
        lstm.remember(reader, FORGET)
        model = lstm.RecurrentLM(V, shape.C, lstm.as_torch(reader) if compiled else reader, 2 * seed + 1)
    else:
        model = Decoder(Config(V, T, shape.C, nh=4, layers=shape.layers, dropout=0.0), seed=seed)
    if std:
        (table,) = (part for part in model.modules() if isinstance(part, nn.Embedding))
        nn.init.normal_(table.weight, std=std, generator=generator(2 * seed + 1))
    return model


@cache
def flops_per_token(name: str) -> int:
    """Operations of a shape's matrix products for each token of a window, by our own cells."""
    return operations(language_model(SHAPES[name], 0, compiled=False))


def operations(model: nn.Module) -> int:
    """Operations of all matrix products, forward and backward, for each token of a window.

    torch's counter sees into neither the library's LSTM nor its attention on a CPU, so attention is counted
    as plain products, with the half above the diagonal that the kernel leaves out.
    """
    ids = torch.zeros(2, T + 1, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        next_token_loss(model, ids).backward()
    return counter.get_total_flops() // ids[:, 1:].numel()


def story_model(
    name: str,
    seed: int,
    lr: float | None = None,
    std: float | None = None,
    as_much_as: str | None = None,
    threads: int = 1,
) -> Row:
    """Train a language model on the stories and measure it on held-out windows.

    Args:
        name: one of `SHAPES`.
        seed: of weights and batches; the same windows of the stories for every model.
        lr: peak learning rate; None for the shape's own.
        std: of the token vectors, see `language_model`.
        as_much_as: a model whose operations in `OPTIONS.steps` steps this one may spend, in as many steps as
            that takes; None for `OPTIONS.steps` steps.
        threads: of PyTorch; the stored runs' is 1.

    Returns:
        parameters, flops_per_token, steps, tokens (read in training), flops (of the whole run), nats (a
        token, held out), by_position (the same between the `BINS`), curve ((step, nats on every eighth
        window)), largest_norm (of the gradient, before clipping).

    Raises:
        ValueError: no such model.
    """
    check_name("name", name, SHAPES)
    steps = OPTIONS.steps
    if as_much_as:
        steps = round(steps * flops_per_token(as_much_as) / flops_per_token(name))
    options = replace(OPTIONS, steps=steps, lr=lr or SHAPES[name].lr, every=-(-steps // 6), seed=seed)
    with fixed_threads(threads):
        data, model = stories(), language_model(SHAPES[name], seed, std)
        check = partial(nats, ids=data.windows[::8])
        history = train(model, windows(data.train, BATCH, T, seed), next_token_loss, options, check)
        row = scored(losses(model, data.windows))
    return cost(model, name, steps) | row | course(history)


def cost(model: nn.Module, name: str, steps: int) -> Row:
    """What a run takes."""
    tokens, each = steps * BATCH * T, flops_per_token(name)
    sizes = {"parameters": parameters(model), "flops_per_token": each}
    return sizes | {"steps": steps, "tokens": tokens, "flops": tokens * each}


def parameters(model: nn.Module) -> int:
    """How many numbers are learnt; shared ones count once."""
    return sum(p.numel() for p in model.parameters())


def course(history: History) -> Row:
    """How a run went."""
    curve = [[step, round(value, 4)] for step, value in history.valid]
    return {"curve": curve, "largest_norm": round(max(history.norm), 4)}


@torch.no_grad()
def losses(model: nn.Module, ids: torch.Tensor) -> np.ndarray:
    """The loss of every token after a window's first: ids (N, T + 1) → (N, T), in nats."""
    parts, place = [], next(model.parameters()).device
    for rows in ids.to(place).split(16):
        logs = model(rows[:, :-1]).log_softmax(dim=-1)  # (16, T, V)
        parts.append(-logs.gather(-1, rows[:, 1:, None]).squeeze(-1))  # (16, T)
    return torch.cat(parts).double().cpu().numpy()


def nats(model: nn.Module, ids: torch.Tensor) -> float:
    """The mean of `losses`."""
    return float(losses(model, ids).mean())


def scored(each: np.ndarray) -> Row:
    """The mean of losses (N, T), and their means between the bins' positions."""
    parts = [round(float(each[:, a:b].mean()), 4) for a, b in pairwise(BINS)]
    return {"nats": round(float(each.mean()), 4), "by_position": parts}


def counted(name: str, tokens: int | None = None) -> Row:
    """A model of counts on the same held-out windows, each read by itself.

    Args:
        name: one of `COUNTS`.
        tokens: the training side's first so many; None for all.

    Returns:
        tokens, nats, by_position.
    """
    data = stories()
    read, ids = data.train[:tokens], data.windows.numpy()
    return {"tokens": len(read)} | scored(COUNTS[name](read, ids))


def by_matrix(tokens: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Losses (N, T) of windows ids (N, T + 1) by the transition matrix with 0.01 added to each count."""
    return -np.log(transition_matrix(tokens, V, add=0.01)[ids[:, :-1], ids[:, 1:]])


def by_kneser_ney(tokens: np.ndarray, ids: np.ndarray, order: int) -> np.ndarray:
    """As `by_matrix`, by n-grams of an order."""
    model = KneserNey(tokens, order, V)
    return np.stack([-model.log_probabilities(row)[1:] for row in ids])


COUNTS = {
    "transition matrix": by_matrix,
    "bigram": partial(by_kneser_ney, order=2),
    "trigram": partial(by_kneser_ney, order=3),
}
RATES = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
TUNED = ("Transformer", "LSTM", "LSTM, 3 layers")
SMALL = 0.05  # token vectors as torch's recurrent layers would draw theirs, U(-1/√C, 1/√C), about
MATCHES = {  # what a match holds equal, and who is in it
    "parameters": ("Transformer", "LSTM", "LSTM, 3 layers"),
    "compute": ("LSTM",),
}


def story_models() -> Iterator[Task]:
    """Counts; rates, and other token vectors, at the tuning seed; then each match over three seeds."""
    for name in COUNTS:
        for share, tokens in (("all", None), ("as many as in 600 steps", OPTIONS.steps * BATCH * T)):
            yield {"model": name, "training": share}, partial(counted, name, tokens)
    for name in TUNED:
        for lr in RATES:
            key = {"tuning": "rate", "model": name, "lr": lr, "seed": TUNING_SEED}
            yield key, partial(story_model, name, TUNING_SEED, lr)
        key = {"tuning": "vectors", "model": name, "std": SMALL, "seed": TUNING_SEED}
        yield key, partial(story_model, name, TUNING_SEED, std=SMALL)
    for seed in range(3):
        for match, names in MATCHES.items():
            for name in names:
                budget = "Transformer" if match.startswith("compute") else None
                key = {"match": match, "model": name, "seed": seed}
                yield key, partial(story_model, name, seed, as_much_as=budget)


# Recall of a token at a distance


@dataclass(frozen=True)
class Memory:
    """A reader of about 40,000 parameters: cell (None: attention), width, rate, how the cells start."""

    cell: type[nn.Module] | None
    C: int
    lr: float
    start: Callable[[lstm.Recurrent, int], None] | None = None


@torch.no_grad()
def orthogonal(reader: lstm.Recurrent, seed: int) -> None:
    """Recurrent matrices that keep lengths. Source: Saxe, McClelland & Ganguli 2014, arXiv:1312.6120."""
    for cell in reader.cells:
        nn.init.orthogonal_(cell.h.weight, generator=generator(seed))


@torch.no_grad()
def chrono(reader: lstm.Recurrent, seed: int) -> None:
    """Forget gates that keep for 1 to FARTHEST steps, input gates their mirror.

    b_f = log U(1, FARTHEST - 1), b_i = -b_f. Source: Tallec & Ollivier 2018, arXiv:1804.11188, section 3.
    """
    for cell in reader.cells:
        C = cell.h.in_features
        spans = torch.empty(C).uniform_(1, FARTHEST - 1, generator=generator(seed)).log()
        cell.x.bias[:C], cell.x.bias[C : 2 * C], cell.h.bias[: 2 * C] = -spans, spans, 0.0


def forgets(reader: lstm.Recurrent, seed: int, bias: float) -> None:
    """`lstm.remember`."""
    lstm.remember(reader, bias)


# Rates: of those that reached the best accuracy, to a tenth, the smallest within 25 steps of the fastest.
MEMORIES = {
    "RNN": Memory(lstm.RNNCell, 132, 1e-2),
    "RNN, orthogonal": Memory(lstm.RNNCell, 132, 1e-3, orthogonal),
    "GRU": Memory(lstm.GRUCell, 78, 3e-2),
    "LSTM, forget bias 0": Memory(lstm.LSTMCell, 68, 1e-3),  # as torch draws it: around 0
    "LSTM, forget bias 1": Memory(lstm.LSTMCell, 68, 1e-3, partial(forgets, bias=1.0)),
    "LSTM, forget bias 3": Memory(lstm.LSTMCell, 68, 3e-3, partial(forgets, bias=3.0)),
    "LSTM, chrono": Memory(lstm.LSTMCell, 68, 1e-2, chrono),
    "Transformer": Memory(None, 56, 3e-3),
}
DISTANCES = (4, 8, 16, 32, 64, 128)
FARTHEST = max(DISTANCES)
VALUES = OTHERS = 16
QUERY = VALUES + OTHERS
SYMBOLS = QUERY + 1
RECALL_STEPS, RECALL_EVERY, RECALL_BATCH, RECALL_WARMUP = 400, 25, 64, 20
RECALL_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
RECALL_TUNED = 16  # the distance at which the rates are compared
ENOUGH = 0.99  # accuracy that, reached twice running, ends a run


def sequences(L: int, B: int, draw: torch.Generator) -> torch.Tensor:
    """(B, L + 1): a value, L - 1 other symbols, the query that asks for the value."""
    value = torch.randint(0, VALUES, (B, 1), generator=draw)
    others = torch.randint(VALUES, VALUES + OTHERS, (B, L - 1), generator=draw)
    return torch.cat([value, others, torch.full((B, 1), QUERY)], dim=1)


def memory(name: str, seed: int) -> nn.Module:
    """Draw a reader that scores the symbols after each position."""
    kind = MEMORIES[name]
    if kind.cell is None:
        return Decoder(Config(SYMBOLS, FARTHEST + 1, kind.C, nh=4, layers=1, dropout=0.0), seed=seed)
    reader = lstm.Recurrent(kind.cell, kind.C, kind.C, seed=2 * seed)
    if kind.start:
        kind.start(reader, seed)
    return lstm.RecurrentLM(SYMBOLS, kind.C, lstm.as_torch(reader), 2 * seed + 1)


def recall(name: str, L: int, seed: int, lr: float | None = None, threads: int = 1) -> Row:
    """Train a reader to tell a value L steps later, until it can or `RECALL_STEPS` steps are over.

    Args:
        name: one of `MEMORIES`.
        L: steps from the value to the query, 1 … FARTHEST.
        seed: of weights and sequences, all of which are fresh.
        lr: learning rate; None for the reader's own.
        threads: of PyTorch; the stored runs' is 1.

    Returns:
        accuracy (on 1,000 more sequences; chance: 1 / VALUES), steps, parameters.

    Raises:
        ValueError: no such reader, or no such distance.
    """
    check_name("name", name, MEMORIES)
    if not 1 <= L <= FARTHEST:
        raise ValueError(f"L must lie in 1 … {FARTHEST}, got {L}")
    with fixed_threads(threads):
        model = memory(name, seed)
        steps = learn(model, L, lr or MEMORIES[name].lr, seed)
        accuracy = recalled(model, L, generator(3 * seed + 2))
    return {"accuracy": round(accuracy, 4), "steps": steps, "parameters": parameters(model)}


def learn(model: nn.Module, L: int, rate: float, seed: int) -> int:
    """Train at a steady rate after a warm-up; how many steps it took."""
    known, fresh = generator(3 * seed), generator(3 * seed + 1)
    optimiser, scaler = torch.optim.Adam(model.parameters()), torch.amp.GradScaler(enabled=False)
    before = 0.0
    for step in range(1, RECALL_STEPS + 1):
        ids = sequences(L, RECALL_BATCH, known)
        value = F.cross_entropy(model(ids)[:, -1], ids[:, 0])  # (B, symbols), (B,)
        descend(value, model, optimiser, scaler, rate * min(1, step / RECALL_WARMUP), OPTIONS.clip)
        if step % RECALL_EVERY == 0:
            now = recalled(model, L, fresh)
            if min(before, now) >= ENOUGH:
                return step
            before = now
    return RECALL_STEPS


@torch.no_grad()
def recalled(model: nn.Module, L: int, draw: torch.Generator, N: int = 1000) -> float:
    """The share of N sequences whose value the model scores best at their end."""
    ids = sequences(L, N, draw)
    return (model(ids)[:, -1].argmax(dim=-1) == ids[:, 0]).double().mean().item()


def recalls() -> Iterator[Task]:
    """The rates at the tuning seed, then each reader at each distance over three seeds."""
    for name in MEMORIES:
        for lr in RECALL_RATES:
            key = {"tuning": "rate", "model": name, "L": RECALL_TUNED, "lr": lr, "seed": TUNING_SEED}
            yield key, partial(recall, name, RECALL_TUNED, TUNING_SEED, lr)
    for seed in range(3):
        for name in MEMORIES:
            for L in DISTANCES:
                yield {"model": name, "L": L, "seed": seed}, partial(recall, name, L, seed)


# Truncated back-propagation


@dataclass(frozen=True)
class Stretch:
    """Tokens that gradients go back through, whether the memory goes on from one to the next, the rate."""

    T: int
    carries: bool
    lr: float


STRETCHES = {
    "16 tokens, memory kept": Stretch(16, True, 1.6e-2),
    "16 tokens, memory emptied": Stretch(16, False, 1.6e-2),
    "128 tokens, memory kept": Stretch(128, True, 1.6e-2),
}
TRUNCATED = Shape(1, 128, 0.0)  # the rate is the stretch's
STRETCH_RATES = (8e-3, 1.6e-2, 3.2e-2)
TEXTS, TEXT = 8, 4096  # held-out texts, and how long each is


def truncated(name: str, seed: int, lr: float | None = None, threads: int = 1) -> Row:
    """Train an LSTM along one text, cut in rows that are read side by side, a stretch a step.

    All read as many tokens a step, BATCH · T of `story_model`, in shorter stretches of more rows.

    Args:
        name: one of `STRETCHES`.
        seed: of weights and of where in the training stories the text begins; the same text for every name.
        lr: peak learning rate; None for the stretch's own.
        threads: of PyTorch; the stored runs' is 1.

    Returns:
        nats (a token of long held-out texts, the memory kept from their beginning to their end),
        nats_emptied (of the same texts, the memory emptied every 16 tokens), rows, steps, tokens, parameters.

    Raises:
        ValueError: no such stretch.
    """
    check_name("name", name, STRETCHES)
    kind = STRETCHES[name]
    options = replace(OPTIONS, lr=lr or kind.lr, seed=seed)
    B, tokens = BATCH * T // kind.T, options.steps * BATCH * T
    with fixed_threads(threads):
        model = language_model(TRUNCATED, seed)
        train(model, side_by_side(B, kind.T, seed), stretch_loss(kind.carries), options)
        row = {"nats": read_through(model), "nats_emptied": read_through(model, every=16)}
    row = {key: round(value, 4) for key, value in row.items()}
    return row | {"rows": B, "steps": options.steps, "tokens": tokens, "parameters": parameters(model)}


def side_by_side(B: int, T: int, seed: int) -> Callable[[int], torch.Tensor]:
    """A function from the step to (B, T + 1): in each row the next T tokens of the text, and one more."""
    stream, each = stories().train, OPTIONS.steps * T  # tokens a row
    start = int(torch.randint(0, len(stream) - B * each, (), generator=generator(seed)))
    places = start + each * np.arange(B)[:, None] + np.arange(T + 1)  # (B, T + 1)
    return lambda step: torch.from_numpy(stream[places + step * T].astype(np.int64))


def stretch_loss(carries: bool) -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
    """`lstm.truncated_loss`, going on from the state of the call before where the memory is carried."""
    state = None

    def loss(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        nonlocal state
        value, end = lstm.truncated_loss(model, ids, state)
        state = end if carries else None
        return value

    return loss


@torch.no_grad()
def read_through(model: nn.Module, every: int = 0) -> float:
    """Nats a token of the first TEXTS · TEXT held-out tokens, the memory emptied every so many (0: never)."""
    ids = torch.from_numpy(stories().valid[: TEXTS * TEXT + 1].astype(np.int64))
    rows = ids.unfold(0, TEXT + 1, TEXT)  # (TEXTS, TEXT + 1)
    loss, values = stretch_loss(carries=not every), []
    for part in rows.unfold(1, (every or T) + 1, every or T).unbind(1):  # of (TEXTS, every + 1)
        values.append(loss(model, part).item())
    return float(np.mean(values))


def truncations() -> Iterator[Task]:
    """The rates at the tuning seed, then each way over three seeds."""
    for name in STRETCHES:
        for lr in STRETCH_RATES:
            key = {"tuning": "rate", "model": name, "lr": lr, "seed": TUNING_SEED}
            yield key, partial(truncated, name, TUNING_SEED, lr)
    for seed in range(3):
        for name in STRETCHES:
            yield {"model": name, "seed": seed}, partial(truncated, name, seed)


# Attention on an LSTM


@dataclass(frozen=True)
class Writer:
    """An `lstm.Seq2Seq`: width, learning rate, whether it attends, how many times as long it learns."""

    C: int
    lr: float
    attends: bool
    times: int = 1


# Without attention it is wider: as many parameters, and as many operations within 1 %.
WRITERS = {
    "attention": Writer(64, 1e-2, attends=True),
    "one vector": Writer(68, 2e-2, attends=False),
    "one vector, 3 times the steps": Writer(68, 2e-2, attends=False, times=3),
}
WRITING = Options(steps=1000, warmup=100, mixed=False)
WRITER_RATES = (5e-3, 1e-2, 2e-2, 4e-2)
DIGITS, END = 10, 10
SHORTEST, LONGEST, WRITER_BATCH = 4, 20, 64
LENGTHS = (4, 8, 12, 16, 20, 24, 28)  # the last two are longer than any it has seen


def rows_of_digits(B: int, n: int, draw: torch.Generator) -> torch.Tensor:
    """(B, n)."""
    return torch.randint(0, DIGITS, (B, n), generator=draw)


def reversing_loss(model: nn.Module, digits: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the reversed rows and the END after them; digits (B, n)."""
    end = torch.full((len(digits), 1), END)
    backwards = digits.flip(1)
    logits, _ = model(digits, torch.cat([end, backwards], dim=1))  # (B, n + 1, DIGITS + 1)
    return F.cross_entropy(logits.flatten(0, 1), torch.cat([backwards, end], dim=1).flatten())


@cache
def writer_flops(attends: bool, C: int) -> int:
    """Operations of the products, forward and backward, of a row of the mean length."""
    digits = rows_of_digits(2, (SHORTEST + LONGEST) // 2, generator(0))
    with FlopCounterMode(display=False) as counter:
        reversing_loss(lstm.Seq2Seq(DIGITS + 1, C, attends), digits).backward()
    return counter.get_total_flops() // len(digits)


def bridge(name: str, seed: int, lr: float | None = None, threads: int = 1) -> Row:
    """Train an LSTM to write rows of digits backwards and count what it gets right.

    Args:
        name: one of `WRITERS`.
        seed: of weights and rows; the same rows for every writer.
        lr: peak learning rate; None for the writer's own.
        threads: of PyTorch; the stored runs' is 1.

    Returns:
        exact and digits ((length, share of 200 fresh rows right from first to last, share of digits right in
        their places) each), parameters, flops_per_row, steps, train_loss (mean of the last 50 steps).

    Raises:
        ValueError: no such writer.
    """
    check_name("name", name, WRITERS)
    kind = WRITERS[name]
    options = replace(WRITING, steps=kind.times * WRITING.steps, lr=lr or kind.lr, seed=seed)

    def batch(step: int) -> torch.Tensor:
        draw = generator(seed * 1_000_003 + step)
        n = int(torch.randint(SHORTEST, LONGEST + 1, (), generator=draw))
        return rows_of_digits(WRITER_BATCH, n, draw)

    with fixed_threads(threads):
        model = lstm.Seq2Seq(DIGITS + 1, kind.C, kind.attends, seed)
        history = train(model, batch, reversing_loss, options)
        row = dict(zip(("exact", "digits"), reversed_rows(model), strict=True))
    size = {"parameters": parameters(model), "flops_per_row": writer_flops(kind.attends, kind.C)}
    loss = round(float(np.mean(history.loss[-50:])), 4)
    return row | size | {"steps": options.steps, "train_loss": loss}


def reversed_rows(model: nn.Module, N: int = 200) -> tuple[list, list]:
    """Shares right of N rows of each of the LENGTHS: (length, of rows) and (length, of digits)."""
    rows, places = [], []
    for n in LENGTHS:
        digits = rows_of_digits(N, n, generator(n))
        pairs = list(zip(written(model, digits), digits.flip(1).tolist(), strict=True))
        rows.append([n, sum(said == right for said, right in pairs) / N])
        hits = sum(a == b for said, right in pairs for a, b in zip(said, right, strict=False))
        places.append([n, round(hits / (N * n), 4)])
    return rows, places


@torch.no_grad()
def written(model: nn.Module, digits: torch.Tensor) -> list[list[int]]:
    """What the writer makes of rows (B, n), greedily, up to END or n + 1 digits."""
    B, n = digits.shape
    said = torch.empty(B, 0, dtype=torch.long)

    def step(last: torch.Tensor, rows: None) -> torch.Tensor:
        nonlocal said
        said = torch.cat([said, last[:, None]], dim=1)
        return model(digits, said)[0][:, -1]  # (B, DIGITS + 1); from the start each time: rows are short

    return greedy(step, B, END, END, n + 1)


def bridges() -> Iterator[Task]:
    """The rates at the tuning seed, then each writer over three seeds."""
    for name, kind in WRITERS.items():
        if kind.times == 1:
            for lr in WRITER_RATES:
                key = {"tuning": "rate", "model": name, "lr": lr, "seed": TUNING_SEED}
                yield key, partial(bridge, name, TUNING_SEED, lr)
    for seed in range(3):
        for name in WRITERS:
            yield {"model": name, "seed": seed}, partial(bridge, name, seed)
