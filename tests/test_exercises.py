"""The two-sided gate: each exercise's solution passes, named wrong answers hear their diagnosis."""

import numpy as np
import pytest
import torch

from course_utils.attention import attention, causal_mask
from course_utils.exercises import check, exercises, hint, solution


def tril(n):
    return torch.ones(n, n).tril().bool()


def masked_after(q, k, v):
    return (q @ k.T / q.shape[-1] ** 0.5).softmax(-1).masked_fill(~tril(len(q)), 0) @ v


def wrong_axis(q, k, v):
    scores = (q @ k.T / q.shape[-1] ** 0.5).masked_fill(~tril(len(q)), -torch.inf)
    return scores.softmax(0) @ v


def off_by_one(q, k, v):
    mask = torch.ones(len(q), len(q)).tril(1).bool()
    return attention(q, k, v, mask)[0]


def scaled(divisor):
    return lambda q, k, v: attention(q * q.shape[-1] ** 0.5 / divisor(q), k, v, causal_mask(len(q)))[0]


def sigma(x):
    return 1 / (1 + np.exp(-x))


# exercise → name of the wrong answer → (the answer, a part of the diagnosis it must hear)
WRONG = {
    "01.1": {
        "plain counts": (lambda c: c / c.sum(), "power of 1.00"),
        "not normalised": (lambda c: c**0.75, "should sum to 1"),
        "normalised before the power": (lambda c: (c / c.sum()) ** 0.75, "should sum to 1"),
        "uniform": (lambda c: np.ones(len(c)) / len(c), "more frequent"),
        "square root": (lambda c: c**0.5 / (c**0.5).sum(), "power of 0.50"),
        "wrong length": (lambda c: c[:2] / c[:2].sum(), "shape (4,)"),
    },
    "01.2": {
        "minus the gradient": (
            lambda v, u, n: (1 - sigma(u @ v)) * u - sigma(n @ v) @ n,
            "minus the gradient",
        ),
        "no negatives": (lambda v, u, n: (sigma(u @ v) - 1) * u, "the negatives pull too"),
        "only negatives": (lambda v, u, n: sigma(n @ v) @ n, "the true pair pulls too"),
        "mean over negatives": (
            lambda v, u, n: (sigma(u @ v) - 1) * u + sigma(n @ v) @ n / len(n),
            "averaged",
        ),
        "no sigmoid": (lambda v, u, n: (u @ v - 1) * u + (n @ v) @ n, "no sigmoid"),
        "label forgotten": (lambda v, u, n: sigma(u @ v) * u + sigma(n @ v) @ n, "disagree by"),
        "by the wrong vector": (lambda v, u, n: (sigma(u @ v) - 1) * v, "disagree by"),
    },
    "01.3": {
        "dot product": (lambda W, i, k: [j for j in np.argsort(-(W @ W[i])) if j != i][:k], "long vectors"),
        "the word itself": (
            lambda W, i, k: np.argsort(-(W @ W[i]) / np.linalg.norm(W, axis=1))[:k],
            "itself",
        ),
        "furthest first": (
            lambda W, i, k: np.argsort((W @ W[i]) / np.linalg.norm(W, axis=1))[:k],
            "furthest",
        ),
        "distance": (
            lambda W, i, k: [j for j in np.argsort(np.linalg.norm(W - W[i], axis=1)) if j != i][:k],
            "by distance",
        ),
        "similarities instead of ids": (lambda W, i, k: (W @ W[i])[:k], "not their similarities"),
    },
    "02.1": {
        "four numbers": (lambda: [5, 5, 5, 5], "five numbers needed, got 4"),
        "all ones": (lambda: [1] * 5, "1/3"),
        "too large": (lambda: [0, 0, 0, 100, 0], "larger than 5"),
        "love's own vector": (lambda: [0, 5, 5, 0, 0], "love listens to itself"),
        "AI's own vector": (lambda: [0, 0, 1, 1, 0], "AI gets 0.49"),
        "one number": (lambda: 5, "five numbers needed, got 1"),
    },
    "02.2": {
        "not scaled": (scaled(lambda q: 1.0), "not divided"),
        "scaled by hs": (scaled(lambda q: q.shape[-1]), "divided by hs"),
        "scaled by root T": (scaled(lambda q: len(q) ** 0.5), "divided by √T"),
        "scaled by something else": (scaled(lambda q: 3.0), "off by"),
        "mask after softmax": (masked_after, "leaks"),
        "softmax over the wrong axis": (wrong_axis, "do not sum to 1"),
        "mask off by one": (off_by_one, "the future leaks"),
        "no mask": (lambda q, k, v: attention(q, k, v)[0], "the future leaks"),
        "weights instead of output": (lambda q, k, v: attention(q, k, v, causal_mask(6))[1], "shape (6, 4)"),
        "diagonal forbidden": (
            lambda q, k, v: (q @ k.T).masked_fill(torch.ones(6, 6).triu().bool(), -torch.inf).softmax(-1) @ v,
            "NaN",
        ),
        "keys for values": (lambda q, k, v: attention(q, k, k, causal_mask(6))[0], "average v"),
    },
    "02.3": {
        "nats": (lambda w: -torch.xlogy(w, w).sum(-1), "nats"),
        "NaN at zero": (lambda w: -(w * w.log2()).sum(-1), "NaN"),
        "over the queries": (lambda w: -(w * w.clamp_min(1e-9).log2()).sum(0), "over the queries"),
        "sign": (lambda w: (w * w.clamp_min(1e-9).log2()).sum(-1), "never negative"),
        "number of words instead of bits": (lambda w: (w > 0).sum(-1), "yours has 4"),
        "one number": (lambda w: torch.tensor(1.0), "shape (3,)"),
    },
}


def right(exercise):
    names = {"np": np, "torch": torch}
    before = set(names)
    exec(solution(exercise).text, names)
    (name,) = set(names) - before - {"__builtins__"}
    return names[name]


def test_each_exercise_has_its_gate():
    assert set(WRONG) == set(exercises())
    assert all(len(wrong) >= 3 for wrong in WRONG.values())


@pytest.mark.parametrize("exercise", list(WRONG))
def test_the_solution_passes(exercise):
    assert check(exercise, right(exercise)).status == "right"
    assert len(repr(hint(exercise))) > 20


@pytest.mark.parametrize(("exercise", "name"), [(e, n) for e, wrong in WRONG.items() for n in wrong])
def test_wrong_answers_hear_what_is_wrong(exercise, name):
    answer, diagnosis = WRONG[exercise][name]
    report = check(exercise, answer)
    assert report.status == "wrong"
    assert diagnosis in report.diagnosis


@pytest.mark.parametrize("exercise", list(WRONG))
def test_blank_forgotten_return_and_crash(exercise):
    def blank(*a): ...

    def documented(*a):
        """A stub with a docstring."""

    def forgets(*a):
        answer = sum(range(3))
        del answer

    def crashes(*a):
        raise KeyError("mine")

    assert check(exercise, blank).status == check(exercise, documented).status == "not attempted yet"
    assert "return missing" in check(exercise, forgets).diagnosis
    assert "KeyError" in check(exercise, crashes).diagnosis
    assert "the function itself" in check(exercise, 3).diagnosis


def test_unknown_exercise():
    with pytest.raises(ValueError, match="exercise must be one of"):
        check("99.9", len)
