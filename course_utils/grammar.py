"""A language whose truth is known: a small probabilistic grammar, written out, to judge what models write.

Source: a judge that knows the true distribution is from Yu et al. 2017, arXiv:1609.05473, section 5. Theirs
is a random LSTM; a grammar's sentences can be listed, and its mistakes be seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product

import torch

__taught__ = ["expand", "jensen_shannon"]

END = 0  # id of the full stop: it ends a sentence, fills what comes after, and stands before the first word
SLIP = 0.01  # of the judge's sentences are any words at all, so that it calls nothing impossible
SHARE = 0.1  # of its true probability makes a sentence covered

# Alternatives stand between bars, the k-th weighing 1 / k. A verb agrees with a noun up to four words before.
STORY = {
    "S": "ONE DOES . | SOME DO .",
    "ONE": "A KIND1 | A GIRL PLACE THING",
    "SOME": "TWO KIND2 | TWO GIRLS PLACE THING",
    "KIND1": "GIRL | LITTLE GIRL",
    "KIND2": "GIRLS | LITTLE GIRLS",
    "THING": "A BALL | TWO BALLS",
    "DOES": "SEES THING | RUNS",
    "DO": "SEE THING | RUN",
    "A": "the | a",
    "TWO": "the | two",
    "LITTLE": "little | big | happy",
    "GIRL": "girl | dog | boy | cat | bird",
    "GIRLS": "girls | dogs | boys | cats | birds",
    "PLACE": "with | near",
    "BALL": "ball | tree | flower",
    "BALLS": "balls | trees | flowers",
    "SEES": "sees | likes | finds",
    "SEE": "see | like | find",
    "RUNS": "runs | plays | sings",
    "RUN": "run | play | sing",
}


def expand(grammar: Mapping[str, str], symbol: str) -> dict[tuple[str, ...], float]:
    """Every row of words a symbol can become, and how probable it is.

    Args:
        grammar: from a symbol to its alternatives, between bars, the k-th weighing 1 / k; what is no symbol
            is a word.
        symbol: where to begin.

    Raises:
        ValueError: an alternative without words, or a symbol that can become itself, and so without end.
    """
    if symbol not in grammar:
        return {(symbol,): 1.0}
    check_rule(grammar, symbol)
    rights, found = grammar[symbol].split("|"), {}
    total = sum(1 / k for k in range(1, len(rights) + 1))
    for k, right in enumerate(rights, 1):
        for parts in product(*(expand(grammar, part).items() for part in right.split())):
            row = sum((words for words, _ in parts), ())
            found[row] = found.get(row, 0) + math.prod(p for _, p in parts) / k / total
    return found


def check_rule(grammar: Mapping[str, str], symbol: str) -> None:
    """Raises ValueError where a rule is empty in part, or leads back to itself."""
    if not all(right.split() for right in grammar[symbol].split("|")):
        raise ValueError(f"grammar has an alternative without words at {symbol}: {grammar[symbol]!r}")
    ahead, seen = [symbol], set()
    while ahead:
        parts = set(grammar[ahead.pop()].replace("|", " ").split()) & grammar.keys()
        if symbol in parts:
            raise ValueError(f"grammar must not let {symbol} become itself: its sentences have no end")
        ahead += parts - seen
        seen |= parts


def jensen_shannon(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """JS(p, q) = ½ Σ p log(p / m) + ½ Σ q log(q / m), m = (p + q) / 2, in nats, from 0 to log 2.

    Args:
        p: probabilities, or densities times the width of their cells.
        q: of the same shape. Where either adds up to less than 1, the rest counts as impossible in the other.

    Raises:
        ValueError: shapes differ, a number below 0 or not finite, or more than 1 in all.

    Source: Lin 1991, "Divergence measures based on the Shannon entropy".
    """
    check_probabilities(p, q)
    m = (p + q) / 2
    inside = (torch.xlogy(p, p / m).nansum() + torch.xlogy(q, q / m).nansum()) / 2  # 0 / 0 where neither is
    return inside + math.log(2) * (2 - p.sum() - q.sum()) / 2


def check_probabilities(p: torch.Tensor, q: torch.Tensor) -> None:
    """Raises ValueError unless both have one shape and hold probabilities, of 1 in all or less."""
    if p.shape != q.shape:
        raise ValueError(f"q must have the shape of p, {tuple(p.shape)}, got {tuple(q.shape)}")
    for name, row in (("p", p), ("q", q)):
        if not (row >= 0).all() or not row.sum() <= 1 + 1e-5:  # a sum in float32 may come out above 1
            raise ValueError(f"{name} must hold probabilities, none below 0 and no more than 1 in all")


class Language:
    """All sentences of a grammar, with their probabilities.

    Attributes:
        words: id → word, the full stop first, which must end every sentence.
        ids: (N, T) each sentence, filled up with END.
        p: (N,) float64, adding up to 1.
        entropy: nats a sentence: no model can give held-out ones a better mean log-probability.
    """

    def __init__(self, grammar: Mapping[str, str] = STORY, symbol: str = "S") -> None:
        """List a grammar's sentences; raises as `expand`, and ValueError where a full stop is not the end."""
        sentences = expand(grammar, symbol)
        if any(row.count(".") != 1 or row[-1] != "." for row in sentences):
            raise ValueError("grammar must end every sentence in its only full stop")
        self.words = [".", *sorted({word for row in sentences for word in row} - {"."})]
        number = {word: i for i, word in enumerate(self.words)}
        T = max(map(len, sentences))
        rows = [[number[word] for word in row] + [END] * (T - len(row)) for row in sentences]
        self.ids, self.p = torch.tensor(rows), torch.tensor([*sentences.values()], dtype=torch.double)
        self.entropy = -(self.p * self.p.log()).sum().item()
        self._place = {tuple(row): i for i, row in enumerate(rows)}

    def draw(self, n: int, draw: torch.Generator) -> torch.Tensor:
        """n sentences, (n, T), as often as they are probable."""
        return self.ids[self.p.multinomial(n, replacement=True, generator=draw)]

    def spell(self, ids: torch.Tensor) -> list[str]:
        """(n, T) → texts, up to the first full stop."""
        rows = [row[: row.index(END) + 1] if END in row else row for row in ids.tolist()]
        return [" ".join(self.words[i] for i in row) for row in rows]

    def places(self, ids: torch.Tensor) -> torch.Tensor:
        """(n, T) → (n,) which sentence of the list each is, -1 for none; ValueError for another width."""
        if ids.dim() != 2 or ids.shape[1] != self.ids.shape[1]:
            raise ValueError(f"ids must be (n, {self.ids.shape[1]}), got shape {tuple(ids.shape)}")
        return torch.tensor([self._place.get(tuple(row), -1) for row in ids.tolist()])

    def surprise(self, ids: torch.Tensor) -> torch.Tensor:
        """(n, T) → (n,) float64, -log of each sentence's probability in nats.

        The judge lets one in a hundred sentences be any words whatever: a mistake costs much, not all.
        """
        places, ids = self.places(ids), ids.cpu()
        known = self.p[places] * (places >= 0)
        length = (ids != END).sum(dim=1) + 1
        slip = SLIP * (-math.log(len(self.words)) * length.double()).exp()
        return -torch.log((1 - SLIP) * known + slip)

    def distances(self, log_g: torch.Tensor) -> dict[str, float]:
        """How far a model is from the truth, exactly.

        Args:
            log_g: (N,) its log-probability of each sentence of the list.

        Returns:
            grammatical (the probability it gives to all of them), js (nats, to log 2), nll_test (nats a true
            sentence), covered (probability of the sentences that it gives a tenth of their own or more).

        Raises:
            ValueError: not one number a sentence.
        """
        if log_g.shape != self.p.shape:
            raise ValueError(f"log_g must be ({len(self.p)},), got shape {tuple(log_g.shape)}")
        log_g = log_g.double().cpu()
        g = log_g.exp()
        return {
            "grammatical": g.sum().item(),
            "js": jensen_shannon(self.p, g).item(),
            "nll_test": -(self.p * log_g).sum().item(),
            "covered": self.p[g >= SHARE * self.p].sum().item(),
        }
