"""From a model's next-token scores to text: greedy and beam search over any step function."""

from __future__ import annotations

from collections.abc import Callable

import torch

__taught__ = ["greedy", "Beams", "beam_search"]

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
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not alpha >= 0:
        raise ValueError(f"alpha must be at least 0, got {alpha}")
