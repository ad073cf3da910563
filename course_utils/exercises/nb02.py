"""Exercises of notebook 02: a query by hand, causal attention, the effective number of words."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from course_utils.attention import attention, causal_mask
from course_utils.exercises import Exercise, expect
from course_utils.exercises.properties import array, by_hand, does_not_leak, numbers, signed

X = torch.tensor([[1, 0, 0, 0, 1], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0]], dtype=torch.float64)  # I, love, AI
Ask = Callable[..., torch.Tensor]


def query_for_love(answer: Callable) -> None:
    """Judge 02.1: any query under which AI gets more than 0.8 of the weight, no number above 5."""
    query = numbers(answer(), "the query")
    expect(query.ndim < 2, "one row of five numbers, not a list of rows")
    expect(query.shape == (5,), f"five numbers needed, got {query.size}")
    largest = abs(query).max()
    expect(largest <= 5, f"no number larger than 5 in size, got {largest:g}")
    _, weights = attention(torch.tensor(query)[None], X, X)
    i, love, ai = weights[0].tolist()
    expect(max(i, love, ai) - min(i, love, ai) > 1e-6, "all words get 1/3: your query cannot tell them apart")
    than = f"more than to AI ({_cut(ai)}): what has"
    expect(ai >= i, f"love listens to I ({_cut(i)}) {than} I that AI has not?")
    expect(ai >= love, f"love listens to itself ({_cut(love)}) {than} love that AI has not?")
    advice = "which of its numbers could your query ask for, or shun?"
    expect(ai > 0.8, f"AI gets {_cut(ai)} of the weight: {advice}")


def _cut(weight: float) -> str:
    """Three decimals, never rounded up: 0.7999 is not 0.8."""
    return f"{math.floor(weight * 1000) / 1000:.3f}"


def causal_attention(answer: Callable) -> None:
    """Judge 02.2: causality, weights, what they depend on, scale, agreement with the package's attention."""

    def ask(*x: torch.Tensor) -> torch.Tensor:
        """The answer in float64, whatever kind it is; the inputs are copies, so that it may change them."""
        value = answer(*(t.clone() for t in x))
        pair = isinstance(value, tuple) and len(value) == 2
        expect(not pair, "return the output alone, not (output, weights)")
        shapes = {(len(x[0]),) * 2: "(T, T): these are the weights; the output is weights @ v, (T, hs)"}
        nan = "is there a row of only −∞? Each word may see itself"
        return torch.from_numpy(array(value, tuple(x[-1].shape), "the output", shapes, nan))

    draw = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(6, 4, generator=draw) for _ in range(3))
    expect(_same(ask(q, k, v), ask(q, k, v)), "two calls with the same q, k and v differ: no dropout here")
    _causal_average(ask, q, k, v)
    _dependence(ask, q, k, v)
    _scale(ask, q, k, v)
    cosine = "queries twice as long change nothing; a score is a plain dot product, not a cosine"
    expect(not _same(ask(2 * q, k, v), ask(q, k, v)), cosine)
    does_not_leak(lambda x: ask(x, k, v), q)
    worst = (ask(q, k, v) - _wanted(q, k, v)).abs().max()
    expect(worst < 1e-5, f"differs from causal attention by up to {worst:.3g}")
    q, k, v = (torch.randn(3, 9, generator=draw) for _ in range(3))
    sizes = "right for T = 6 and hs = 4, but not for T = 3 and hs = 9: read both from q.shape"
    expect(_same(ask(q, k, v), _wanted(q, k, v)), sizes)
    by_hand(answer, "attention", "scaled_dot_product_attention", "MultiheadAttention")


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5, rtol=1e-5)


def _wanted(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, divisor: float | None = None) -> torch.Tensor:
    """Causal attention in float64, its scores divided by another number where one is given."""
    q, k, v = q.double(), k.double(), v.double()
    root = math.sqrt(q.shape[-1])
    return attention(q * root / (divisor or root), k, v, causal_mask(len(q)))[0]


def _causal_average(ask: Ask, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Raises Wrong unless each word gets a mean of the values up to its own."""
    does_not_leak(lambda x: ask(q, x, v), k)
    does_not_leak(lambda x: ask(q, k, x), v)
    expect(not _same(ask(q, k, v + 1), ask(q, k, v)), "the values do not matter: average v")
    ones = torch.ones_like(v)
    sums = (
        "your weights do not sum to 1 over the allowed words (equal values should give that value back): "
        "mask before the softmax, softmax over the last axis"
    )
    expect(_same(ask(q, k, ones), ones.double()), sums)
    own = "the first word sees only itself, so its output is its own value v[0]"
    expect(_same(ask(q, k, v)[0], v[0].double()), own)
    for word in torch.eye(len(v)):  # a value of 1 at one word, 0 elsewhere, shows the weights it gets
        least = float(ask(q, k, word[:, None].expand(v.shape)).min())
        expect(least > -1e-5, f"a weight is {signed(least)}: the exponential of the softmax is missing")


def _dependence(ask: Ask, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Raises Wrong where the keys or the queries have no part in the weights, or the wrong part."""
    given = ask(q, k, v)
    expect(not _same(ask(q, k.roll(1, 0), v), given), "your answer does not depend on the keys")
    expect(not _same(ask(q.roll(1, 0), k, v), given), "your answer does not depend on the queries")
    expect(not _same(given, _wanted(k, q, v)), "rows are queries: q @ k.T, not k @ q.T")


def _scale(ask: Ask, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Raises Wrong with the number an answer divides by, read off the second word's two weights."""
    first = torch.zeros_like(v)
    first[0] = 1.0
    w = float(ask(q, k, first)[1, 0])
    expect(0 < w < 1, "one word takes all the weight: softmax, not the largest score alone")
    divisor = float(q[1] @ (k[0] - k[1])) / math.log(w / (1 - w)) if w != 0.5 else math.inf
    root = math.sqrt(q.shape[-1])
    if abs(divisor - root) < 1e-3 or not _same(ask(q, k, v), _wanted(q, k, v, divisor)):
        return  # right, or wrong in another way
    ending = f"√hs is {root:.2f}, the root of q.shape[-1]"
    expect(abs(divisor - 1) > 1e-3, f"your scores are not divided; {ending}")
    done = f"multiplied by {1 / divisor:.2f}" if 0 < divisor < 1 else f"divided by {signed(divisor, 2)}"
    expect(False, f"your scores are {done}; {ending}")


def effective_words(answer: Callable) -> None:
    """Judge 02.3: 2 to the power of each row's entropy in bits, 0 log 0 = 0."""
    rows = [[0.5, 0.25, 0.25, 0], [0.25] * 4, [0, 1.0, 0, 0]]
    weights = torch.tensor(rows)  # (3, 4)
    bits = torch.special.entr(weights.double()).sum(-1) / math.log(2)  # (3,): 1.5, 2, 0
    shapes = {
        (4,): "shape (4,): you went over the queries; sum over the last axis",
        (3, 1): "one number a row, without the axis of 1: shape (3,), not (3, 1)",
        (): "one number in all; one for each row is asked for, shape (3,)",
    }

    def ask(x: torch.Tensor) -> torch.Tensor:
        nan = "0 · log 0 counts as 0"
        return torch.from_numpy(array(answer(x.clone()), (len(x),), "the number of words", shapes, nan))

    got = ask(weights)
    for diagnosis, value in _taken_for_words(weights, bits).items():
        expect(not torch.allclose(got, value, atol=1e-4), diagnosis)
    wider = ask(torch.cat([weights, torch.zeros(3, 2)], -1))
    expect(
        torch.allclose(wider, got, atol=1e-4),
        "two more words of weight 0 change your answer; they add nothing",
    )
    for row, its, should in zip(rows, got.tolist(), (2**bits).tolist(), strict=True):
        expect(abs(its - should) < 1e-4, f"the row {row} should have {should:.4g} words, yours has {its:.4g}")


def _taken_for_words(weights: torch.Tensor, bits: torch.Tensor) -> dict[str, torch.Tensor]:
    """What other numbers, often taken for the effective number of words, say about an answer."""
    nats = bits * math.log(2)
    return {
        "these are bits; 2 to that power is the number of words": bits,
        "these are nats, not words: use log2, then 2 to that power": nats,
        "2 to the power of nats: use log2 under a power of 2": 2**nats,
        "e to the power of bits: to a logarithm of base 2 belongs a power of 2": bits.exp(),
        "fewer than one word: mind the minus sign of the entropy": 2**-bits,
        "the mean over the words; the entropy sums over them": 2 ** (bits / weights.shape[-1]),
        "that is 1/Σw², which counts by squares; use the entropy": 1 / (weights.double() ** 2).sum(-1),
        "that counts every word that gets anything at all; weigh them by the entropy": (weights > 0)
        .sum(-1)
        .double(),
        "that is 1/max, which sees the largest weight alone; use the entropy": 1 / weights.double().amax(-1),
    }


EXERCISES = (
    Exercise(
        "02.1",
        "Give love an opinion",
        query_for_love,
        "AI and love share their third number, so it cannot tell them apart. Ask for what only AI has, "
        "and give a negative number to what you want shunned.",
        "def query_for_love():\n    return [-5, -5, 5, 5, -5]",
    ),
    Exercise(
        "02.2",
        "Causal attention from memory",
        causal_attention,
        "Scores, divide, mask, softmax, average, in this order. "
        "torch.ones(T, T).tril() has ones where s <= t.",
        "def causal_attention(q, k, v):\n"
        "    scores = q @ k.T / q.shape[-1] ** 0.5\n"
        "    future = torch.ones(len(q), len(q)).triu(1).bool()\n"
        '    return scores.masked_fill(future, float("-inf")).softmax(-1) @ v',
    ),
    Exercise(
        "02.3",
        "How many words does each word listen to?",
        effective_words,
        "A fair choice among n words has log2(n) bits; turn bits back into words. "
        "torch.where(weights > 0, weights, 1) puts a 1 where a 0 was, and log 1 is 0.",
        "def effective_words(weights):\n"
        "    logs = torch.where(weights > 0, weights, 1.0).log2()\n"
        "    bits = -(weights * logs).sum(-1)\n"
        "    return 2**bits",
    ),
)
