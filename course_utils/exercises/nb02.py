"""Exercises of notebook 02: a query by hand, causal attention, the entropy of a row."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from course_utils.attention import attention, causal_mask
from course_utils.exercises import Exercise, expect
from course_utils.exercises.properties import array, does_not_leak, returned

X = torch.tensor([[1, 0, 0, 0, 1], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0]], dtype=torch.float64)  # I, love, AI


def query_for_love(answer: Callable) -> None:
    """Judge 02.1: any query under which AI gets more than 0.8 of the weight, no number above 5."""
    value = returned(answer())
    length = len(value) if hasattr(value, "__len__") else 1
    expect(length == 5, f"five numbers needed, got {length}")
    query = array(value, (5,), "the query")
    largest = abs(query).max()
    expect(largest <= 5, f"no number larger than 5 in size, got {largest:g}")
    _, weights = attention(torch.tensor(query)[None], X, X)
    i, love, ai = weights[0].tolist()
    expect(max(i, love, ai) - min(i, love, ai) > 1e-6, "all words get 1/3: your query cannot tell them apart")
    expect(
        ai >= love,
        f"love listens to itself ({love:.2f}) more than to AI ({ai:.2f}): what has love that AI has not?",
    )
    expect(
        ai > 0.8, f"AI gets {ai:.2f} of the weight: which of its numbers could your query ask for, or shun?"
    )


def causal_attention(answer: Callable) -> None:
    """Judge 02.2: causality, scale, weights and agreement with the package's attention."""
    draw = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(6, 4, generator=draw, dtype=torch.float64) for _ in range(3))
    array(answer(q, k, v), (6, 4), "the output")
    does_not_leak(lambda x: answer(q, x, v), k)
    does_not_leak(lambda x: answer(q, k, x), v)
    expect(not torch.equal(answer(q, k, v + 1), answer(q, k, v)), "the values do not matter: average v")
    level = answer(q, k, torch.ones_like(v))
    expect(
        torch.allclose(level, torch.ones_like(v)),
        "your weights do not sum to 1 over the allowed words (equal values should give that value back): "
        "mask before the softmax, softmax over the last axis",
    )
    first = answer(q, k, v)[0]
    expect(
        torch.allclose(first, v[0]), "the first word sees only itself, so its output is its own value v[0]"
    )
    _right_scale(answer, q, k, v)
    worst = (answer(q, k, v) - attention(q, k, v, causal_mask(6))[0]).abs().max()
    expect(worst < 1e-6, f"close to causal attention, yet off by {worst:.3g}")


def _right_scale(answer: Callable, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Find the divisor an answer must have used, by trying some that are often taken for √hs."""
    T, hs = q.shape
    given = answer(q, k, v)
    for divisor, name in [(1, "not divided"), (hs, "divided by hs"), (math.sqrt(T), "divided by √T")]:
        same = torch.allclose(
            given, attention(q * math.sqrt(hs) / divisor, k, v, causal_mask(T))[0], atol=1e-9
        )
        expect(not same, f"the scores are {name}; divide them by √hs, the root of q.shape[-1]")


def row_entropy(answer: Callable) -> None:
    """Judge 02.3: bits, one number a row, 0 log 0 = 0."""
    rows = {"uniform": [0.25] * 4, "half": [0.5, 0.5, 0, 0], "one": [0, 1.0, 0, 0]}
    weights = torch.tensor(list(rows.values()), dtype=torch.float64)  # (3, 4)
    value = returned(answer(weights))
    expect(np.shape(value) != (4,), "shape (4,): you summed over the queries; sum over the last axis")
    bits = array(value, (3,), "the entropy")
    expect((bits >= -1e-9).all(), "entropy is never negative: mind the minus sign")
    expect(abs(bits[0] - 2 * math.log(2)) > 1e-6, "that is in nats: use the logarithm to base 2")
    for name, got, wanted in zip(rows, bits, [2.0, 1.0, 0.0], strict=True):
        expect(
            abs(got - wanted) < 1e-6, f"the row {rows[name]} should have {wanted:g} bits, yours has {got:.4g}"
        )


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
        "How widely does each word listen?",
        row_entropy,
        "torch.where(weights > 0, weights, 1) puts a 1 where a 0 was, and log 1 is 0.",
        "def row_entropy(weights):\n"
        "    logs = torch.where(weights > 0, weights, 1.0).log2()\n"
        "    return -(weights * logs).sum(-1)",
    ),
)
