"""From a model's next-token scores to text: greedy, sampling and beam search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from course_utils.text import is_whole

__taught__ = ["greedy", "Beams", "beam_search", "penalise", "keep_top_k", "keep_top_p", "keep_min_p"]

Step = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


def greedy(step: Step, B: int, start: int, end: int, limit: int) -> list[list[int]]:
    """Take the likeliest token each time, for B sequences at once.

    Args:
        step: from the last tokens (B,) to the logits (B, V) of the next; it keeps what came before.
        B: sequences.
        start: the first token, not returned.
        end: the token that ends a sequence, not returned.
        limit: tokens at most.

    Returns:
        B lists of ids.

    Raises:
        ValueError: no sequence or no token asked for.
    """
    check_search(B, limit)
    last, columns = torch.full((B,), start), []
    open_ = torch.ones(B, dtype=torch.bool)
    while len(columns) < limit and open_.any():
        last = step(last, None).argmax(dim=-1).cpu()  # (B, V) -> (B,)
        open_ &= last != end
        columns.append(last.where(open_, end))
    rows = torch.stack(columns, dim=1).tolist()  # (B, T)
    return [row[: row.index(end)] if end in row else row for row in rows]


def beam_search(
    step: Step, B: int, start: int, end: int, limit: int, beams: int = 4, alpha: float = 0.6
) -> list[list[int]]:
    """Keep the `beams` best beginnings of each of B sequences, and return the best finished one.

    A finished sequence of n tokens, its end counted, scores log p / ((5 + n) / 6)^alpha: without that divisor
    short ones win, since every token costs.

    Args:
        step: from the last tokens (B · beams,) and the rows they continue (B · beams,), None at first, to the
            logits (B · beams, V) of the next.
        alpha: strength of the length penalty; 0 for none.
        B, start, end, limit: as in `greedy`.

    Raises:
        ValueError: no sequence, token or beam asked for, or a negative alpha.

    Source: Wu et al. 2016, arXiv:1609.08144, section 7; Vaswani et al. 2017, section 6.1.
    """
    check_search(B, limit, beams, alpha)
    search = Beams(B, beams, start, end, limit, alpha)
    while not search.done():
        logits = step(search.last(), search.rows)  # (B * beams, V)
        search.extend(logits.log_softmax(dim=-1).cpu())
    return search.best()


class Beams:
    """The running beginnings of B sequences, and the finished ones."""

    def __init__(self, B: int, beams: int, start: int, end: int, limit: int, alpha: float) -> None:
        """One beginning a sequence counts at first: the others would be the same."""
        self.end, self.limit, self.alpha = end, limit, alpha
        self.ids = torch.full((B, beams, 1), start)  # (B, beams, t)
        self.logs = torch.full((B, beams), -torch.inf)  # log p of each beginning
        self.logs[:, 0] = 0.0
        self.rows = None
        self.finished = [(-torch.inf, []) for _ in range(B)]

    def last(self) -> torch.Tensor:
        """The last tokens, (B * beams,)."""
        return self.ids[:, :, -1].flatten()

    def penalty(self, n: int) -> float:
        """What the log-probability of n tokens is divided by."""
        return ((5 + n) / 6) ** self.alpha

    def extend(self, logs: torch.Tensor) -> None:
        """Take the best continuations, given (B * beams, V) log-probabilities; set finished ones aside."""
        B, beams, n = self.ids.shape
        V = logs.shape[-1]
        total = self.logs[:, :, None] + logs.view(B, beams, V)  # (B, beams, V)
        ended = total[:, :, self.end] / self.penalty(n)  # (B, beams)
        for b, (score, k) in enumerate(zip(*(x.tolist() for x in ended.max(dim=1)), strict=True)):
            if score > self.finished[b][0]:
                self.finished[b] = (score, self.ids[b, k, 1:].tolist())
        total[:, :, self.end] = -torch.inf
        self.logs, flat = total.view(B, beams * V).topk(beams)  # (B, beams)
        parent, token = flat // V, flat % V
        self.rows = (torch.arange(B)[:, None] * beams + parent).flatten()  # which row each one continues
        kept = self.ids.gather(1, parent[:, :, None].expand(B, beams, n))  # (B, beams, t)
        self.ids = torch.cat([kept, token[:, :, None]], dim=2)

    def done(self) -> bool:
        """Whether the limit is reached, or no beginning can still beat its sequence's best finished one."""
        longest = self.penalty(self.limit + 1)
        hope = (self.logs.max(dim=1).values / longest).tolist()
        beaten = all(h <= score for h, (score, _) in zip(hope, self.finished, strict=True))
        return beaten or self.ids.shape[2] > self.limit

    def best(self) -> list[list[int]]:
        """Each sequence's best finished tokens; where none has finished, its best beginning."""
        best = self.logs.argmax(dim=1).tolist()
        running = [self.ids[b, k, 1:].tolist() for b, k in enumerate(best)]
        return [
            ids if score > -torch.inf else rest
            for (score, ids), rest in zip(self.finished, running, strict=True)
        ]


def check_search(B: int, limit: int, beams: int = 1, alpha: float = 0.0) -> None:
    """Raises ValueError for a search without sequences, room or beams, or one that rewards short ones."""
    for name, value in (("B", B), ("limit", limit), ("beams", beams)):
        if not is_whole(value) or value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r:.80}")
    check_number("alpha", alpha)
    if not alpha >= 0:
        raise ValueError(f"alpha must be at least 0, got {alpha}")
    check_power("alpha", alpha)


def check_number(name: str, value: object) -> None:
    """Raises ValueError unless a value is a number, Python's or NumPy's: no tensor, no True, no text."""
    if not is_whole(value) and not isinstance(value, (float, np.floating)):
        raise ValueError(f"{name} must be a number, got {value!r:.80}")


def check_power(name: str, value: float) -> None:
    """Raises ValueError for a length penalty whose powers of a length would overflow."""
    if value > 10:
        raise ValueError(f"{name} must be at most 10, got {value!r:.80}")


# --- language models ----------------------------------------------------------------------------------------


def penalise(logits: torch.Tensor, seen: torch.Tensor, factor: float) -> torch.Tensor:
    """Make tokens that have occurred less likely: a score above 0 is divided, one below 0 multiplied.

    Args:
        logits: (B, V).
        seen: (B, V) bool, the tokens of each row so far.
        factor: 1 changes nothing.

    Source: Keskar et al. 2019, "CTRL", arXiv:1909.05858, section 4.1; for scores below 0, the library.
    """
    return torch.where(seen, torch.where(logits < 0, logits * factor, logits / factor), logits)


def keep_top_k(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Leave the k likeliest tokens; the others get -∞.

    Source: Fan, Lewis & Dauphin 2018, "Hierarchical neural story generation", arXiv:1805.04833, section 5.
    """
    smallest = logits.topk(min(k, logits.shape[-1])).values[:, -1:]  # (B, 1)
    return logits.masked_fill(logits < smallest, -torch.inf)


def keep_top_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Leave the fewest tokens that together have the probability p.

    Source: Holtzman et al. 2020, "The curious case of neural text degeneration", arXiv:1904.09751, section 3.
    """
    ordered, order = logits.sort(dim=-1)  # from the least likely
    tail = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - p  # (B, V): all up to here can go
    tail[:, -1] = False  # one stays
    return logits.masked_fill(tail.scatter(1, order, tail), -torch.inf)


def keep_min_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Leave tokens with at least p times the probability of the likeliest.

    Source: Nguyen et al. 2025, "Turning up the heat: min-p sampling", arXiv:2407.01082.
    """
    chances = logits.softmax(dim=-1)
    return logits.masked_fill(chances < p * chances.amax(dim=-1, keepdim=True), -torch.inf)


@dataclass(frozen=True)
class Decoding:
    """How to get from scores to tokens, under the names of the library's `GenerationConfig`.

    Attributes:
        do_sample: draw tokens; otherwise take the likeliest, or search.
        temperature: scores are divided by it.
        top_k: likeliest tokens that stay; 0 for all.
        top_p: probability that stays; 1 for all.
        min_p: of the likeliest token's probability, the share that a token must have to stay; 0 for all.
        repetition_penalty: see `penalise`; 1 for none.
        num_beams: of a beam search; 1 for none.
        length_penalty: a sequence of n tokens scores log p / n ** length_penalty.
        num_return_sequences: continuations of each prompt.

    Raises:
        ValueError: a number out of its range, or options that contradict each other.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    num_beams: int = 1
    length_penalty: float = 1.0
    num_return_sequences: int = 1

    def __post_init__(self) -> None:
        """Refuse what makes no sense, alone or together."""
        check_decoding(self)

    def scores(self, logits: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """(B, V) logits after penalty, temperature and what each filter leaves, in the library's order."""
        if self.repetition_penalty != 1:
            logits = penalise(logits, seen, self.repetition_penalty)
        if self.temperature != 1:
            logits = logits / self.temperature
        if self.top_k:
            logits = keep_top_k(logits, self.top_k)
        if self.top_p < 1:
            logits = keep_top_p(logits, self.top_p)
        return keep_min_p(logits, self.min_p) if self.min_p else logits

    def choose(self, logits: torch.Tensor, seen: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """The next token of each row, (B,)."""
        scores = self.scores(logits, seen)
        if not self.do_sample:
            return scores.argmax(dim=-1)
        return torch.multinomial(scores.softmax(dim=-1).cpu(), 1, generator=draw)[:, 0].to(logits.device)


class LibraryBeams(Beams):
    """Beam search by the library's rules: for each sequence `returns` finished ones, the best first.

    An end counts only among the `beams` best continuations, n tokens score log p / n ** alpha, and at the
    limit every beginning is finished. The library does the same with `early_stopping="never"`.
    """

    def __init__(
        self, B: int, beams: int, start: int, end: int, limit: int, alpha: float, returns: int
    ) -> None:
        """returns: at most `beams`; the rest as in `Beams`."""
        super().__init__(B, beams, start, end, limit, alpha)
        self.finished, self.returns = [[] for _ in range(B)], returns

    def penalty(self, n: int) -> float:
        """What the log-probability of n tokens is divided by."""
        return n**self.alpha

    def extend(self, logs: torch.Tensor) -> None:
        """Take the best continuations, given (B * beams, V) log-probabilities; set finished ones aside."""
        B, beams, n = self.ids.shape
        V = logs.shape[-1]
        total = self.logs[:, :, None] + logs.view(B, beams, V)  # (B, beams, V)
        logs, flat = total.flatten(1).topk(min(2 * beams, beams * V))  # twice as many: half of them may end
        parent, token = flat // V, flat % V  # (B, 2 beams)
        before = self.ids.gather(1, parent[:, :, None].expand(-1, -1, n))  # (B, 2 beams, t)
        ids = torch.cat([before, token[:, :, None]], dim=2)
        ended = (token == self.end) | (n == self.limit)
        for b, k in ended[:, :beams].nonzero().tolist():
            self.finished[b].append((logs[b, k].item() / self.penalty(n), ids[b, k, 1:].tolist()))
            self.finished[b] = sorted(self.finished[b], key=lambda pair: -pair[0])[: self.returns]
        live = ended.long().argsort(dim=1, stable=True)[:, :beams]  # (B, beams): the best that go on
        self.logs, parent = logs.gather(1, live), parent.gather(1, live)
        self.ids = ids.gather(1, live[:, :, None].expand(-1, -1, n + 1))
        self.rows = (torch.arange(B)[:, None] * beams + parent).flatten()

    def done(self) -> bool:
        """Whether the limit is reached, or no beginning can still come among the best finished ones."""
        if self.ids.shape[2] > self.limit:
            return True
        hope = (self.logs.max(dim=1).values / self.penalty(self.limit)).tolist()
        full = [len(found) == self.returns for found in self.finished]
        return all(f and h <= found[-1][0] for f, h, found in zip(full, hope, self.finished, strict=True))

    def best(self) -> list[list[int]]:
        """The finished ones, B * returns, the best of each sequence first."""
        return [ids for found in self.finished for _, ids in found]


def check_decoding(how: Decoding) -> None:
    """Raises ValueError where an option is none, out of its range, or contradicts another."""
    check_ranges(how)
    fresh = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    idle = [name for name, value in fresh.items() if getattr(how, name) != value]
    if idle and not how.do_sample:
        raise ValueError(f"{idle[0]} acts on sampling alone: set do_sample=True, or leave it out")
    if how.do_sample and how.num_beams > 1:
        raise ValueError("do_sample=True and num_beams > 1 contradict each other: draw or search")
    if how.length_penalty != 1 and how.num_beams == 1:
        raise ValueError("length_penalty acts on beams alone: set num_beams above 1, or leave it out")
    if not how.do_sample and how.num_return_sequences > how.num_beams:
        raise ValueError(
            f"num_return_sequences must be at most num_beams = {how.num_beams} where nothing is drawn, "
            f"got {how.num_return_sequences}: the same search gives the same answer"
        )


def check_ranges(how: Decoding) -> None:
    """Raises ValueError where an option is of another kind or out of its range."""
    if not isinstance(how.do_sample, bool):
        raise ValueError(f"do_sample must be True or False, got {how.do_sample!r:.80}")
    for name in ("temperature", "top_p", "min_p", "repetition_penalty", "length_penalty"):
        check_number(name, getattr(how, name))
    ranges = {
        "temperature": (how.temperature > 0, "above 0"),
        "top_k": (is_whole(how.top_k) and how.top_k >= 0, "a whole number, 0 for all"),
        "top_p": (0 < how.top_p <= 1, "in (0, 1]"),
        "min_p": (0 <= how.min_p <= 1, "in [0, 1]"),
        "repetition_penalty": (how.repetition_penalty > 0, "above 0"),
        "length_penalty": (how.length_penalty >= 0, "at least 0"),
        "num_beams": (is_whole(how.num_beams) and how.num_beams >= 1, "a whole number from 1"),
        "num_return_sequences": (
            is_whole(how.num_return_sequences) and how.num_return_sequences >= 1,
            "a whole number from 1",
        ),
    }
    for name, (fits, expected) in ranges.items():
        if not fits:
            raise ValueError(f"{name} must be {expected}, got {getattr(how, name)!s:.80}")
    for name in ("temperature", "repetition_penalty"):  # beyond, scores in float32 overflow
        if not 1e-6 <= (value := getattr(how, name)) <= 1e6:
            raise ValueError(f"{name} must be from 1e-6 to 1e6, got {value!s:.80}")
    check_power("length_penalty", how.length_penalty)
