"""N-gram language models: what counting alone reaches, to stand beside a neural model's loss.

Interpolated Kneser–Ney smoothing (Kneser & Ney, "Improved backing-off for m-gram language modeling", ICASSP
1995) with the three discounts of Chen & Goodman ("An empirical study of smoothing techniques for language
modeling", Computer Speech & Language 13, 1999, section 3; they call it modified Kneser–Ney). After the k − 1
tokens h, with h′ being h without its first:

    pₖ(w | h) = (c(hw) − D(c(hw))) / c(h•) + γ(h) pₖ₋₁(w | h′)        γ(h) = Σ_w D(c(hw)) / c(h•)

c counts occurrences at the highest order. Below it, c(hw) counts the different tokens seen before hw: a
word that only ever follows one other ("Francisco") is rare where that other is missing. p₀ = 1 / V, so no
token is impossible. After an h that was never seen, pₖ(w | h) = pₖ₋₁(w | h′).
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import NamedTuple

import numpy as np

from course_utils.text import check_whole, is_whole

__taught__ = ["transition_matrix", "stationary"]

Ids = Sequence[int] | np.ndarray
WITHOUT_ESTIMATE = (0.0, 0.5, 1.0, 1.5)  # what KenLM's lmplz --discount_fallback takes
_LARGEST_KEY = np.iinfo(np.int64).max


def transition_matrix(tokens: Ids, V: int, add: float = 0.0) -> np.ndarray:
    """The probability of each token after each token: counts of pairs, every row divided by its sum.

    Args:
        tokens: (N,) ids in 0 … V − 1.
        V: vocabulary size.
        add: what each count is raised by first, so that no pair is impossible (Laplace's is 1).

    Returns:
        (V, V) float64, P[a, b] = p(b | a). With `add` 0 the row of a token that nothing follows is uniform.

    Raises:
        ValueError: `tokens` is no row of ids in 0 … V − 1, or `add` is negative.

    Source: Markov 1913, who counted vowels and consonants; Jurafsky & Martin, "Speech and language
    processing", chapter 3.
    """
    row = check_tokens(tokens, V, add)
    counts = np.bincount(row[:-1] * V + row[1:], minlength=V * V).reshape(V, V) + float(add)  # (V, V)
    totals = counts.sum(axis=1, keepdims=True)  # (V, 1)
    return np.divide(counts, totals, out=np.full((V, V), 1 / V), where=totals > 0)


def check_tokens(tokens: Ids, V: int, add: float) -> np.ndarray:
    """The ids as (N,) int64. Raises ValueError where a transition matrix cannot be counted from them."""
    check_sizes(2, V)
    if not isinstance(add, Real) or not 0 <= add <= 1e30:  # finite, and so are the sums
        raise ValueError(f"add must be 0 or more, got {add!r:.80}")
    return as_ids("tokens", tokens, V)


def stationary(P: np.ndarray, tolerance: float = 1e-12, limit: int = 10_000) -> np.ndarray:
    """The distribution that a step of the chain leaves as it is: π P = π, by taking steps until none matters.

    Args:
        P: (V, V) transition matrix.
        tolerance: how little, in all, the last step may change.
        limit: steps at most.

    Returns:
        (V,) float64, adding up to 1; the one reached from the uniform distribution, if there are several.

    Raises:
        ValueError: P is no transition matrix, or the chain does not settle, as one that goes to and fro.
    """
    check_transitions(P)
    pi = np.full(len(P), 1 / len(P))  # (V,)
    for _ in range(limit):
        before, pi = pi, pi @ P
        pi /= pi.sum()  # the rows of P add up to 1 but for rounding, in float32 to 1e-7
        if abs(pi - before).sum() < tolerance:
            return pi
    raise ValueError(f"P does not settle within {limit} steps: its chain is periodic, or slow to mix")


def check_transitions(P: np.ndarray) -> None:
    """Raises ValueError unless P is square, not negative, and each row adds up to 1."""
    if not isinstance(P, np.ndarray) or P.dtype.kind not in "biuf":
        raise ValueError(f"P must be an array of numbers, (V, V), got {P!r:.80}")
    if P.ndim != 2 or P.shape[0] != P.shape[1] or not P.size:
        raise ValueError(f"P must be square, (V, V), and not empty, got shape {P.shape}")
    if (P < 0).any() or not np.allclose(P.sum(axis=1), 1):
        raise ValueError("P must hold probabilities, each row adding up to 1")


class Level(NamedTuple):
    """One order k of a model, as sorted rows."""

    grams: np.ndarray  # (G,) int64, hw of each k-gram seen, packed: h · V + w
    shares: np.ndarray  # (G,) float64, (c(hw) − D(c(hw))) / c(h•)
    contexts: np.ndarray  # (H,) int64, h of each of them, packed
    gammas: np.ndarray  # (H,) float64, γ(h)


class KneserNey:
    """Interpolated modified Kneser–Ney model of a row of tokens.

    Order 1 is the unigram, discounted and interpolated with 1 / V. Each higher order is interpolated with the
    one below. A row shorter than the order makes a model of the row's length.

    Args:
        tokens: (N,) ids in 0 … V − 1, to learn from.
        order: how many tokens an n-gram has at most, the predicted one included.
        V: vocabulary size.

    Raises:
        ValueError: `tokens` is empty, not one row of whole numbers, or has an id outside 0 … V − 1; `order`
            or V below 1, or too large for V ** order to fit 63 bits.

    Source: Chen & Goodman 1999, section 3.
    """

    def __init__(self, tokens: Ids, order: int, V: int) -> None:
        check_sizes(order, V)
        row = as_ids("tokens", tokens, V)
        self.V, self.order = V, min(order, len(row))
        self.levels = [make_level(*count(row, k, self.order, V), V) for k in range(1, self.order + 1)]

    def log_probabilities(self, tokens: Ids) -> np.ndarray:
        """Natural log of p(token | the order − 1 tokens before it), for each token of a row.

        The first tokens of the row have less before them and are scored by the lower orders.

        Args:
            tokens: (N,) ids in 0 … V − 1.

        Returns:
            (N,) float64, finite. Minus their mean is the cross-entropy in nats per token.

        Raises:
            ValueError: `tokens` is empty, not one row of whole numbers, or has an id outside 0 … V − 1.
        """
        row = as_ids("tokens", tokens, self.V)
        p = np.full(len(row), 1 / self.V)  # (N,)
        for k, level in enumerate(self.levels, 1):
            grams = pack(row, k, self.V)  # (N − k + 1,): the first k − 1 tokens stay with the order below
            gammas = look_up(level.contexts, level.gammas, grams // self.V, default=1)
            p[k - 1 :] = gammas * p[k - 1 :] + look_up(level.grams, level.shares, grams, default=0)
        return np.log(p)

    def probabilities(self, context: Ids = ()) -> np.ndarray:
        """The distribution of the next token.

        Args:
            context: ids of the tokens before it; the last order − 1 count, there may be fewer or none.

        Returns:
            (V,) float64, positive, adding up to 1.

        Raises:
            ValueError: `context` is not one row of whole numbers, or has an id outside 0 … V − 1.
        """
        row = as_ids("context", context, self.V, fewest=0)
        p = np.full(self.V, 1 / self.V)  # (V,)
        for k, level in enumerate(self.levels[: len(row) + 1], 1):
            h = pack(row[len(row) - k + 1 :], k - 1, self.V)  # (1,)
            first, last = np.searchsorted(level.grams, [h[0] * self.V, (h[0] + 1) * self.V])
            p *= look_up(level.contexts, level.gammas, h, default=1)
            p[level.grams[first:last] % self.V] += level.shares[first:last]
        return p

    def sample(self, number: int, generator: np.random.Generator, context: Ids = ()) -> list[int]:
        """Draw `number` tokens one after another, each from its `probabilities` after those before it.

        Raises:
            ValueError: `number` is not 0 or more, or `context` as in `probabilities`.
        """
        check_whole("number", number, 0)
        row = as_ids("context", context, self.V, fewest=0).tolist()
        for _ in range(number):
            row.append(int(generator.choice(self.V, p=self.probabilities(row))))
        return row[len(row) - number :]


def pack(row: np.ndarray, k: int, V: int) -> np.ndarray:
    """Each k-gram of a row (N,) as one number, its tokens being the digits in base V: (N − k + 1,) int64."""
    length = max(0, len(row) - k + 1)
    keys = np.zeros(length, np.int64)
    for j in range(k):
        keys = keys * V + row[j : j + length]
    return keys


def count(row: np.ndarray, k: int, order: int, V: int) -> tuple[np.ndarray, np.ndarray]:
    """The k-grams seen in a row (N,), packed and sorted, and c of each: (G,) and (G,).

    Occurrences where k is the highest order, else the number of different tokens seen before the k-gram.

    Source: Chen & Goodman 1999, section 2.7, after Kneser & Ney 1995.
    """
    if k == order:
        return np.unique(pack(row, k, V), return_counts=True)
    longer = np.unique(pack(row, k + 1, V))  # each vhw once
    return np.unique(longer % V**k, return_counts=True)


def discounts(counts: np.ndarray) -> np.ndarray:
    """What to take off a count of 0, 1, 2, and 3 or more: D(0) = 0, D₁, D₂, D₃₊, as (4,).

    With nᵢ the number of n-grams that have count i: Y = n₁ / (n₁ + 2 n₂), Dᵢ = i − (i + 1) Y nᵢ₊₁ / nᵢ. Where
    an nᵢ is 0 or a discount would be 0 or less (little text, or unnatural text) they are 0.5, 1 and 1.5.

    Source: Chen & Goodman 1998 (report TR-10-98), equation (26).
    """
    n = np.bincount(np.minimum(counts, 5), minlength=5)  # (5 or 6,)
    if n[1:4].all():
        i = np.arange(1, 4)
        Y = n[1] / (n[1] + 2 * n[2])
        D = i - (i + 1) * Y * n[i + 1] / n[i]  # (3,)
        if (D > 0).all():
            return np.array([0, *D])
    return np.array(WITHOUT_ESTIMATE)


def make_level(grams: np.ndarray, counts: np.ndarray, V: int) -> Level:
    """One order from its k-grams (G,), packed and sorted, and their counts (G,)."""
    contexts, start = np.unique(grams // V, return_index=True)  # (H,): where each context's k-grams begin
    taken = discounts(counts)[np.minimum(counts, 3)]  # (G,) D(c(hw))
    total = np.add.reduceat(counts, start)  # (H,) c(h•)
    of_context = np.repeat(total, np.diff(start, append=len(grams)))  # (G,)
    return Level(grams, (counts - taken) / of_context, contexts, np.add.reduceat(taken, start) / total)


def look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray, default: float) -> np.ndarray:
    """The value of each wanted key, `default` where there is none; `keys` are sorted and not empty."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], default)


def check_sizes(order: int, V: int) -> None:
    """Raises ValueError where no model has such an order and vocabulary."""
    if not is_whole(order) or not is_whole(V):
        raise ValueError(f"order and V must be whole numbers, got order {order!r:.80} and V {V!r:.80}")
    if order < 1 or V < 1:
        raise ValueError(f"order and V must be at least 1, got order {order} and V {V}")
    if int(V).bit_length() * int(order) > 128 or int(V) ** int(order) > _LARGEST_KEY:
        raise ValueError(f"order must keep V ** order within 63 bits, got order {order} with V {V}")


def as_ids(name: str, ids: Ids, V: int, fewest: int = 1) -> np.ndarray:
    """The ids as (N,) int64. Raises ValueError where they are not a row of ids in 0 … V − 1."""
    try:
        row = np.asarray(ids)
    except Exception:  # rows of different lengths, a tensor with gradients
        raise ValueError(
            f"{name} must be one row of {fewest} or more whole numbers, got {ids!r:.80}"
        ) from None
    if row.ndim != 1 or len(row) < fewest or (len(row) and row.dtype.kind not in "iu"):
        raise ValueError(
            f"{name} must be one row of {fewest} or more whole numbers, got shape {row.shape} of {row.dtype}"
        )
    if len(row) and not (row.min() >= 0 and row.max() < V):
        wrong = row.min() if row.min() < 0 else row.max()
        raise ValueError(f"{name} must hold ids from 0 to V − 1 = {V - 1}, got {wrong}")
    return row.astype(np.int64)
