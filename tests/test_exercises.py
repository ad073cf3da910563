"""The two-sided gate: each exercise's solution passes, named wrong answers hear their diagnosis."""

import math
from operator import mul

import numpy as np
import pytest
import torch

from course_utils.attention import attention, causal_mask
from course_utils.exercises import check, exercises, hint, solution


def sigma(x):
    return 1 / (1 + np.exp(-x))


def unit(W):
    return W / np.linalg.norm(W, axis=1, keepdims=True)


def top(score):
    """The k best words by score(W, i), the word itself left out."""
    return lambda W, i, k: [j for j in np.argsort(-score(W, i)) if j != i][:k]


def cosine(W, i):
    return unit(W) @ unit(W)[i]


def softmax_of(score, fill=-torch.inf, of=lambda s: s.softmax(-1)):
    """Causal attention, its scores, mask value or softmax replaced."""

    def answer(q, k, v):
        future = torch.ones(len(q), len(q)).triu(1).bool()
        return of(score(q, k).masked_fill(future, fill)) @ v

    return answer


def scores(q, k):
    return q @ k.T / q.shape[-1] ** 0.5


def over(divisor):
    return softmax_of(lambda q, k: q @ k.T / divisor(q))


def direction(x):
    return x / x.norm(dim=-1, keepdim=True)


def masked_after(q, k, v):
    return scores(q, k).softmax(-1).tril() @ v


def mask_off_by(n):
    def answer(q, k, v):
        allowed = torch.ones(len(q), len(q)).tril(n).bool()
        return scores(q, k).masked_fill(~allowed, -torch.inf).softmax(-1) @ v

    return answer


def renormalised(q, k, v):
    w = scores(q, k).softmax(-1).tril()
    return w / w.sum(-1, keepdim=True) @ v


def uniform(q, k, v):
    return torch.ones(len(q), len(q)).tril() @ v / torch.arange(1, len(q) + 1)[:, None]


def argmax(q, k, v):
    best = scores(q, k).masked_fill(torch.ones(len(q), len(q)).triu(1).bool(), -torch.inf).argmax(-1)
    return v[best]


def in_numpy(q, k, v):
    q, k, v = q.numpy(), k.numpy(), v.numpy()
    s = np.where(np.tril(np.ones((len(q), len(q)))) > 0, q @ k.T / np.sqrt(q.shape[1]), -np.inf)
    w = np.exp(s - s.max(1, keepdims=True))
    return w / w.sum(1, keepdims=True) @ v


def rows_of_tensors(q, k, v):
    return [(q[t] @ k[: t + 1].T / len(q[t]) ** 0.5).softmax(0) @ v[: t + 1] for t in range(len(q))]


def nested_lists(q, k, v):
    Q, K, V, out = q.tolist(), k.tolist(), v.tolist(), []
    for t in range(len(Q)):
        raw = [math.exp(sum(map(mul, Q[t], K[s])) / math.sqrt(len(Q[t]))) for s in range(t + 1)]
        out.append([sum(raw[s] * V[s][c] for s in range(t + 1)) / sum(raw) for c in range(len(V[0]))])
    return out


def filled_in(q, k, v):
    w = torch.zeros(len(q), len(q))
    for t in range(len(q)):
        w[t, : t + 1] = scores(q, k)[t, : t + 1].softmax(-1)
    return w @ v


def changes_its_inputs(q, k, v):
    q /= q.shape[-1] ** 0.5
    s = q @ k.T
    k.zero_()
    s[torch.ones_like(s).triu(1).bool()] = -1e9
    v.copy_(s.softmax(-1) @ v)
    return v


def words_of(entropy):
    return lambda w: 2 ** entropy(w)


def bits(w):
    return -(w * w.clamp_min(1e-30).log2()).sum(-1)


def nats(w):
    return -torch.xlogy(w, w).sum(-1)


def autograd(v, u, n):
    v, u, n = (torch.tensor(x, requires_grad=True) for x in (v, u, n))
    (torch.nn.functional.softplus(-(u @ v)) + torch.nn.functional.softplus(n @ v).sum()).backward()
    return v.grad


def gradient(v, u, n):
    return (sigma(u @ v) - 1) * u + sigma(n @ v) @ n


def softmax_loss(v, u, n):
    outputs = np.vstack([u, n])
    weights = np.exp(outputs @ v)
    return weights / weights.sum() @ outputs - u


def overwrites(v, u, n):
    g = gradient(v, u, n)
    v -= 0.1 * g
    u *= 0
    n[:] = 7
    return g


def overflows(c):
    with np.errstate(all="ignore"):
        return np.exp(1.0 * c) / np.exp(1.0 * c).sum()


def half(c):
    weights = c.astype(np.float16) ** np.float16(0.75)
    return weights / weights.sum()


def sets_then_answers(c):
    p = c**0.75 / (c**0.75).sum()
    c[:] = 0
    return p


def normalises_in_place(W, i, k):
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    return top(lambda W, i: W @ W[i])(W, i, k)


def masks_itself(W, i, k):
    c = cosine(W, i)
    c[i] = -np.inf
    return np.argsort(-c)[:k]


# exercise → name of a right answer that is not our solution → the answer
RIGHT = {
    "01.1": {
        "list": lambda c: [float(x) ** 0.75 / sum(float(y) ** 0.75 for y in c) for x in c],
        "tensor": lambda c: torch.tensor(c).double() ** 0.75 / (torch.tensor(c).double() ** 0.75).sum(),
        "float32": lambda c: c.astype("f4") ** 0.75 / (c.astype("f4") ** 0.75).sum(),
        "float16": half,
        "changes its input": sets_then_answers,
    },
    "01.2": {
        "loop": lambda v, u, n: sum([sigma(x @ v) * x for x in n], (sigma(u @ v) - 1) * u),
        "list": lambda v, u, n: list(gradient(v, u, n)),
        "autograd": autograd,
        "float32": lambda v, u, n: gradient(*(x.astype("f4") for x in (v, u, n))),
        "changes its inputs": overwrites,
    },
    "01.3": {
        "tensor": lambda W, i, k: torch.tensor(cosine(W, i)).topk(k + 1).indices[1:],
        "skips the first": lambda W, i, k: np.argsort(-cosine(W, i))[1 : k + 1],
        "itself at minus infinity": masks_itself,
        "sorted": lambda W, i, k: sorted(set(range(len(W))) - {i}, key=lambda j: -cosine(W, i)[j])[:k],
        "divides by the other's length alone": top(lambda W, i: W @ W[i] / np.linalg.norm(W, axis=1)),
        "floats": lambda W, i, k: np.argsort(-cosine(W, i))[1 : k + 1].astype(float),
        "changes its input": normalises_in_place,
    },
    "02.1": {
        "array": lambda: np.array([0, -5, 0, 5, 0]),
        "tensor": lambda: torch.tensor([0, 0, 0, 5.0, 0], requires_grad=True),
        "tuple": lambda: (0, -1, 0, 5, 0),
        "list of tensors": lambda: list(torch.tensor([-5.0, -5, 5, 5, -5])),
    },
    "02.2": {
        "NumPy": in_numpy,
        "list of rows": rows_of_tensors,
        "tuple of rows": lambda q, k, v: tuple(rows_of_tensors(q, k, v)),
        "stacked rows": lambda q, k, v: torch.stack(rows_of_tensors(q, k, v)),
        "nested lists": nested_lists,
        "torch.tensor(rows)": lambda q, k, v: torch.tensor(nested_lists(q, k, v)),
        "a table filled in": filled_in,
        "float64": lambda q, k, v: softmax_of(scores)(q.double(), k.double(), v.double()),
        "with gradients": lambda q, k, v: softmax_of(scores)(q.requires_grad_(), k, v),
        "large negative scores": softmax_of(scores, fill=-1e9),
        "renormalised": renormalised,
        "changes its inputs": changes_its_inputs,
    },
    "02.3": {
        "the page's entropy": words_of(bits),
        "exp of nats": lambda w: nats(w).exp(),
        "a small number inside the log": words_of(lambda w: -(w * (w + 1e-9).log2()).sum(-1)),
        "NumPy": lambda w: 2 ** -np.sum(w.numpy() * np.log2(np.where(w > 0, w, 1)), axis=-1),
        "lists": lambda w: [2 ** sum(-x * math.log2(x) for x in row if x > 0) for row in w.tolist()],
        "list of tensors": lambda w: [2 ** -(row[row > 0] * row[row > 0].log2()).sum() for row in w],
        "nansum": words_of(lambda w: -(w * w.log2()).nansum(-1)),
        "float64": lambda w: 2 ** bits(w.double()),
        "a product": lambda w: 1 / (w**w).prod(-1),
        "changes its input": lambda w: 2 ** bits(w.clamp_(min=1e-30)),
    },
}

# exercise → name of the wrong answer → (the answer, a part of the diagnosis it must hear)
WRONG = {
    "01.1": {
        "plain counts": (lambda c: c / c.sum(), "power of 1.00"),
        "not normalised": (lambda c: c**0.75, "should sum to 1"),
        "normalised before the power": (lambda c: (c / c.sum()) ** 0.75, "should sum to 1"),
        "uniform": (lambda c: np.ones(len(c)) / len(c), "get the same probability"),
        "square root": (lambda c: c**0.5 / (c**0.5).sum(), "power of 0.50"),
        "power 4/3": (lambda c: c ** (4 / 3) / (c ** (4 / 3)).sum(), "power of 1.33"),
        "wrong length": (lambda c: c[:2] / c[:2].sum(), "shape (4,)"),
        "column": (lambda c: (c**0.75 / (c**0.75).sum())[:, None], "got (4, 1)"),
        "log counts": (lambda c: np.log1p(c) / np.log1p(c).sum(), "not a power of the counts"),
        "softmax": (lambda c: np.exp(c - c.max()) / np.exp(c - c.max()).sum(), "get the same probability"),
        "softmax that overflows": (overflows, "beyond any number"),
        "rare words first": (lambda c: 1 / c / (1 / c).sum(), "a more frequent word should"),
        "mixed up": (lambda c: np.roll(c, 1) / c.sum(), "a more frequent word should"),
        "sorted": (lambda c: np.sort(c**0.75 / (c**0.75).sum())[::-1], "not in the counts' order"),
        "negative": (lambda c: c - c.mean() + 0.25, "negative entry"),
        "hard-coded": (lambda c: np.array([10, 1000, 1, 100]) ** 0.75 / 216.1, "should have shape (3,)"),
        "dict": (lambda c: dict(enumerate(c)), "got dict"),
        "generator": (lambda c: (x for x in c), "got generator"),
    },
    "01.2": {
        "minus the gradient": (lambda v, u, n: -gradient(v, u, n), "minus the gradient"),
        "no negatives": (lambda v, u, n: (sigma(u @ v) - 1) * u, "the negatives pull too"),
        "only negatives": (lambda v, u, n: sigma(n @ v) @ n, "the true pair pulls too"),
        "mean over negatives": (
            lambda v, u, n: (sigma(u @ v) - 1) * u + sigma(n @ v) @ n / len(n),
            "averaged",
        ),
        "no sigmoid": (lambda v, u, n: (u @ v - 1) * u + (n @ v) @ n, "no sigmoid"),
        "label forgotten": (
            lambda v, u, n: sigma(u @ v) * u + sigma(n @ v) @ n,
            "weighs u by 0.400; it should be σ(u·v) − 1 = −0.600",
        ),
        "true pair turned": (lambda v, u, n: (1 - sigma(u @ v)) * u + sigma(n @ v) @ n, "weighs u by 0.600"),
        "negatives turned": (lambda v, u, n: (sigma(u @ v) - 1) * u - sigma(n @ v) @ n, "weighs negative 0"),
        "first negative only": (
            lambda v, u, n: (sigma(u @ v) - 1) * u + sigma(n[0] @ v) * n[0],
            "weighs negative 1 by 0.000",
        ),
        "sum before the sigmoid": (
            lambda v, u, n: (sigma(u @ v) - 1) * u + sigma((n @ v).sum()) * n.sum(0),
            "weighs negative 0",
        ),
        "softmax": (softmax_loss, "weighs u by −0.870"),
        "by the wrong vector": (lambda v, u, n: (sigma(u @ v) - 1) * v, "points along v"),
        "not summed": (
            lambda v, u, n: (sigma(u @ v) - 1) * u + sigma(n @ v)[:, None] * n,
            "sum the negatives' parts",
        ),
        "the loss": (
            lambda v, u, n: np.log1p(np.exp(-u @ v)) + np.log1p(np.exp(n @ v)).sum(),
            "not its gradient",
        ),
        "all gradients": (
            lambda v, u, n: (gradient(v, u, n), v, np.outer(sigma(n @ v), v)),
            "gradient alone",
        ),
        "a step": (lambda v, u, n: -0.025 * gradient(v, u, n), "−0.025 times the gradient"),
        "mean over all": (lambda v, u, n: gradient(v, u, n) / 4, "0.250 times the gradient"),
        "updated": (lambda v, u, n: v - 0.1 * gradient(v, u, n), "v after an update"),
        "nothing": (lambda v, u, n: 0 * v, "weighs u by 0.000"),
        "three negatives hard-coded": (
            lambda v, u, n: gradient(v, u, np.resize(n, (3, len(v)))),
            "for a single one",
        ),
    },
    "01.3": {
        "dot product": (top(lambda W, i: W @ W[i]), "long vectors"),
        "one length for all": (top(lambda W, i: W @ W[i] / np.linalg.norm(W)), "long vectors"),
        "the word itself": (lambda W, i, k: np.argsort(-cosine(W, i))[:k], "leave it out"),
        "the last k": (lambda W, i, k: np.argsort(cosine(W, i))[-k:], "leave it out"),
        "furthest first": (top(lambda W, i: -cosine(W, i)), "furthest"),
        "turned round": (lambda W, i, k: np.argsort(cosine(W, i))[-k - 1 : -1], "should come first"),
        "distance": (top(lambda W, i: -np.linalg.norm(W - W[i], axis=1)), "by distance"),
        "absolute cosine": (top(lambda W, i: abs(cosine(W, i))), "opposite way"),
        "columns normalised": (
            top(lambda W, i: W / np.linalg.norm(W, axis=0) @ (W / np.linalg.norm(W, axis=0))[i]),
            "axis=1",
        ),
        "row 0": (lambda W, i, k: np.argsort(-cosine(W, 0))[1 : k + 1], "word 0"),
        "row 0, without i": (top(lambda W, i: cosine(W, 0)), "get the same neighbours"),
        "similarities instead of ids": (
            lambda W, i, k: np.sort(cosine(W, i))[::-1][1 : k + 1],
            "similarities",
        ),
        "pairs": (lambda W, i, k: [(j, cosine(W, i)[j]) for j in top(cosine)(W, i, k)], "ids alone"),
        "vectors": (lambda W, i, k: W[top(cosine)(W, i, k)], "ids alone"),
        "filtered after the cut": (
            lambda W, i, k: [j for j in np.argsort(-cosine(W, i))[:k] if j != i],
            "after leaving the word out",
        ),
        "one too many": (lambda W, i, k: top(cosine)(W, i, k + 1), "you return 4"),
        "k ignored": (lambda W, i, k: top(cosine)(W, i, 3), "2 words are asked for, you return 3"),
        "from 1": (lambda W, i, k: [j + 1 for j in top(cosine)(W, i, k)], "count from 0"),
        "deleted row": (lambda W, i, k: np.argsort(-np.delete(cosine(W, i), i))[:k], "one too low"),
        "hard-coded": (lambda W, i, k: [0, 5, 1][:k], "get the same neighbours"),
        "right for one word": (
            lambda W, i, k: top(cosine if i else lambda W, i: W @ W[i])(W, i, k),
            "for word 0",
        ),
        "divided by the length twice": (top(lambda W, i: W @ W[i] / (W**2).sum(1)), "changed your answer"),
        "any words": (lambda W, i, k: [5, 4, 0], "by cosine, words [0, 5, 1]"),
        "set": (lambda W, i, k: set(top(cosine)(W, i, k)), "got set"),
        "ragged": (lambda W, i, k: [[0, 5], [1]], "rows of one length"),
    },
    "02.1": {
        "four numbers": (lambda: [5, 5, 5, 5], "five numbers needed, got 4"),
        "all ones": (lambda: [1] * 5, "1/3"),
        "too large": (lambda: [0, 0, 0, 100, 0], "larger than 5"),
        "love's own vector": (lambda: [0, 5, 5, 0, 0], "love listens to itself"),
        "I's own vector": (lambda: [5, 0, 0, 0, 5], "love listens to I"),
        "AI's own vector": (lambda: [0, 0, 1, 1, 0], "AI gets 0.488"),
        "almost": (lambda: [0, 0, 0, math.log(2 * 0.79995 / 0.20005) * 5**0.5, 0], "AI gets 0.799 of"),
        "one number": (lambda: 5, "five numbers needed, got 1"),
        "row of rows": (lambda: [[0, -5, 0, 5, 0]], "not a list of rows"),
        "NaN": (lambda: [math.nan] * 5, "the query holds NaN"),
        "infinite": (lambda: [0, 0, 0, math.inf, 0], "infinite"),
        "complex": (lambda: [1j] * 5, "should be numbers"),
        "text": (lambda: "0, -5, 0, 5, 0", "got str"),
    },
    "02.2": {
        "not scaled": (over(lambda q: 1.0), "not divided"),
        "scaled by hs": (over(lambda q: q.shape[-1]), "divided by 4.00; √hs is 2.00"),
        "scaled by T": (over(len), "divided by 6.00; √hs is 2.00"),
        "scaled by root T": (over(lambda q: len(q) ** 0.5), "divided by 2.45"),
        "scaled by something else": (over(lambda q: 3.0), "divided by 3.00"),
        "scaled by a length": (over(torch.norm), "your scores are divided by"),
        "multiplied by the root": (over(lambda q: q.shape[-1] ** -0.5), "multiplied by 2.00; √hs is 2.00"),
        "turned": (over(lambda q: -(q.shape[-1] ** 0.5)), "divided by −2.00"),
        "2 for the root": (over(lambda q: 2.0), "not for T = 3 and hs = 9"),
        "mask after softmax": (masked_after, "leaks"),
        "mask times scores": (softmax_of(scores, fill=0.0), "leaks"),
        "softmax over the wrong axis": (softmax_of(scores, of=lambda s: s.softmax(0)), "do not sum to 1"),
        "divided after the softmax": (softmax_of(scores, of=lambda s: s.softmax(-1) / 2), "do not sum to 1"),
        "no softmax": (softmax_of(scores, 0.0, lambda s: s), "do not sum to 1"),
        "divided by the sum": (softmax_of(scores, 0.0, lambda s: s / s.sum(-1, keepdim=True)), "exponential"),
        "one word takes all": (argmax, "takes all the weight"),
        "mask off by one": (mask_off_by(1), "the future leaks"),
        "diagonal forbidden": (mask_off_by(-1), "NaN: is there a row of only −∞?"),
        "no mask": (lambda q, k, v: attention(q, k, v)[0], "the future leaks"),
        "the future alone": (
            lambda q, k, v: (
                scores(q, k).masked_fill(torch.ones(len(q), len(q)).tril(-1).bool(), -1e9).softmax(-1) @ v
            ),
            "the future leaks",
        ),
        "weights instead of output": (lambda q, k, v: scores(q, k).softmax(-1), "these are the weights"),
        "output and weights": (
            lambda q, k, v: attention(q, k, v, causal_mask(len(q))),
            "not (output, weights)",
        ),
        "keys for values": (lambda q, k, v: softmax_of(scores)(q, k, k), "average v"),
        "the values themselves": (lambda q, k, v: v, "does not depend on the keys"),
        "plain mean": (uniform, "does not depend on the keys"),
        "queries twice": (softmax_of(lambda q, k: scores(q, q)), "does not depend on the keys"),
        "keys twice": (softmax_of(lambda q, k: scores(k, k)), "does not depend on the queries"),
        "swapped": (softmax_of(lambda q, k: scores(k, q)), "q @ k.T, not k @ q.T"),
        "cosine": (softmax_of(lambda q, k: direction(q) @ direction(k).T), "not a cosine"),
        "queries' softmax": (
            softmax_of(lambda q, k: scores(q.softmax(-1), k)),
            "differs from causal attention",
        ),
        "mean query": (softmax_of(lambda q, k: scores(q - q.mean(0), k)), "the future leaks"),
        "dropout": (
            softmax_of(scores, of=lambda s: torch.nn.functional.dropout(s.softmax(-1), 0.5)),
            "no dropout",
        ),
        "transposed": (lambda q, k, v: softmax_of(scores)(q, k, v).T, "got (4, 6)"),
        "a batch of one": (lambda q, k, v: softmax_of(scores)(q, k, v)[None], "got (1, 6, 4)"),
        "the page's": (lambda q, k, v: attention(q, k, v, causal_mask(len(q)))[0], "write it out yourself"),
        "torch's": (
            lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
            "write it out yourself, without scaled",
        ),
        "the page's, inside": (
            lambda q, k, v: [
                (lambda t: attention(q[t:][:1], k[: t + 1], v[: t + 1])[0][0])(t) for t in range(len(q))
            ],
            "write it out yourself",
        ),
    },
    "02.3": {
        "bits": (bits, "these are bits"),
        "nats": (nats, "these are nats"),
        "2 to the nats": (words_of(nats), "2 to the power of nats"),
        "e to the bits": (lambda w: bits(w).exp(), "e to the power of bits"),
        "NaN at zero": (words_of(lambda w: -(w * w.log2()).sum(-1)), "NaN: 0 · log 0"),
        "over the queries": (lambda w: 2 ** -(w * w.clamp_min(1e-9).log2()).sum(0), "over the queries"),
        "sign": (lambda w: 2 ** -bits(w), "minus sign"),
        "counted": (lambda w: (w > 0).sum(-1), "that counts every word"),
        "squares": (lambda w: 1 / (w**2).sum(-1), "1/Σw²"),
        "largest": (lambda w: 1 / w.max(-1).values, "1/max"),
        "mean": (words_of(lambda w: -(w * w.clamp_min(1e-9).log2()).mean(-1)), "the mean over the words"),
        "keeps the axis": (lambda w: 2 ** bits(w)[:, None], "without the axis of 1"),
        "one number": (lambda w: 2 ** bits(w).mean(), "one for each row"),
        "share of the longest": (
            words_of(lambda w: bits(w) / math.log2(w.shape[-1])),
            "two more words of weight 0",
        ),
        "softmax again": (words_of(lambda w: bits(w.softmax(-1))), "two more words of weight 0"),
        "ones": (lambda w: torch.ones(len(w)), "the row [0.5, 0.25, 0.25, 0] should have 2.828 words"),
        "to base 10": (words_of(lambda w: nats(w) / math.log(10)), "should have 2.828 words, yours has"),
        "generator": (lambda w: (x for x in w), "got generator"),
    },
}


def right(exercise):
    names = {"np": np, "torch": torch}
    before = set(names)
    exec(solution(exercise).text, names)
    (name,) = set(names) - before - {"__builtins__"}
    return names[name]


def test_each_exercise_has_its_gate():
    assert set(WRONG) == set(RIGHT) == set(exercises())
    assert all(len(wrong) >= 3 for wrong in WRONG.values())


@pytest.mark.parametrize("exercise", list(WRONG))
def test_the_solution_passes(exercise):
    assert check(exercise, right(exercise)).status == "right"
    assert len(repr(hint(exercise))) > 20


@pytest.mark.parametrize(("exercise", "name"), [(e, n) for e, right in RIGHT.items() for n in right])
def test_other_right_answers_pass(exercise, name):
    report = check(exercise, RIGHT[exercise][name])
    assert (report.status, report.diagnosis) == ("right", "")


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
