"""The two-sided gate: each exercise's solution passes, named wrong answers hear their diagnosis."""

import math
from collections import Counter
from fractions import Fraction
from itertools import chain
from operator import mul

import numpy as np
import pytest
import torch

import course_utils.optim
import course_utils.transformer
from course_utils.attention import MultiHeadAttention, attention, causal_mask
from course_utils.exercises import check, exercises, hint, nb03, solution


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


def cut(x, nh):
    return x.view(*x.shape[:2], nh, x.shape[2] // nh)


def heads(x, nh):
    return cut(x, nh).transpose(1, 2)


def filled_heads(x, nh):
    out = torch.empty(len(x), nh, x.shape[1], x.shape[2] // nh, dtype=torch.float64)
    for h, part in enumerate(x.chunk(nh, dim=-1)):
        out[:, h] = part
    return out


def normal(x, dims=-1, eps=1e-5, correction=0):
    """x with statistics over other axes, another eps or another variance."""
    variance = x.var(dims, keepdim=True, correction=correction)
    return (x - x.mean(dims, keepdim=True)) / (variance + eps).sqrt()


def numpy_norm(x, gain, bias):
    x = x.numpy()
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return gain.numpy() * (x - mean) / np.sqrt(variance + 1e-5) + bias.numpy()


def normal_in_place(x, gain, bias):
    x -= x.mean(-1, keepdim=True)
    x /= (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    return x.mul_(gain).add_(bias)


def norm_loop(x, gain, bias):
    out = []
    for sentence in x.tolist():
        out.append([])
        for row in sentence:
            m = sum(row) / len(row)
            s = math.sqrt(sum((c - m) ** 2 for c in row) / len(row) + 1e-5)
            out[-1].append([g * (c - m) / s + b for c, g, b in zip(row, gain, bias, strict=True)])
    return out


def angle(C, k, exponent=1.0):
    return k * 10_000 ** (-exponent * torch.arange(0, C, 2) / C)


def turned(angles, pairs=lambda p: (p[0::2], p[1::2]), join=lambda s, c: torch.stack([s, c], -1).flatten()):
    """The exercise's answer, its angles or its layout replaced."""

    def answer(p, k):
        (s, c), a = pairs(p), angles(len(p), k)
        return join(s * a.cos() + c * a.sin(), c * a.cos() - s * a.sin())

    return answer


def complex_turn(p, k):
    z = torch.view_as_complex(p.view(-1, 2).contiguous())  # i e^(−iθ) for each pair
    return torch.view_as_real(z * torch.polar(torch.ones(len(z)), -angle(len(p), k))).flatten()


def turn_matrix(p, k):
    R = torch.zeros(len(p), len(p), dtype=torch.float64)
    for i, a in enumerate(angle(len(p), k)):
        R[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = torch.tensor([[a.cos(), a.sin()], [-a.sin(), a.cos()]])
    return R @ p.double()


def turn_loop(p, k):
    out = []
    for i in range(0, len(p), 2):
        a, s, c = k / 10_000 ** (i / len(p)), p[i].item(), p[i + 1].item()
        out += [s * math.cos(a) + c * math.sin(a), c * math.cos(a) - s * math.sin(a)]
    return out


def by_angles(p, k):
    a = torch.atan2(p[0::2], p[1::2]) + angle(len(p), k)
    return torch.stack([a.sin(), a.cos()], -1).flatten()


def looked_up(p, k):
    table = course_utils.transformer.sinusoids(200, len(p))
    t = int((table - p).abs().sum(-1).argmin())
    return table[t + k]


def first_pair_only(p, k):
    return nb03.position(float(torch.atan2(p[0], p[1])) + k, len(p))


def one_hot(z, t):
    return torch.nn.functional.one_hot(torch.tensor(t), len(z))


def minus_one(z, t):
    p = z.softmax(-1)
    p[t] -= 1
    return p


def by_autograd(z, t):
    z.requires_grad_()
    torch.nn.functional.cross_entropy(z[None], torch.tensor([t])).backward()
    return z.grad


def plain_numbers(z, t):
    e = [math.exp(x - max(z.tolist())) for x in z.tolist()]
    return [x / sum(e) - (i == t) for i, x in enumerate(e)]


def smooth(z, t):
    return z.softmax(-1) - 0.9 * one_hot(z, t) - 0.1 / len(z)


def nats_of(logits, targets, dim=-1):
    """(B, T): −log p of each target, padding's as if its target were 0."""
    return -logits.log_softmax(dim).gather(-1, targets.clamp(min=0)[..., None])[..., 0]


def real(targets):
    return targets != -100


def loss_loop(logits, targets):
    total, n = 0.0, 0
    for rows, ids in zip(logits.tolist(), targets.tolist(), strict=True):
        for row, i in zip(rows, ids, strict=True):
            if i >= 0:
                m = max(row)
                total, n = total + m + math.log(sum(math.exp(x - m) for x in row)) - row[i], n + 1
    return total / n


def numpy_loss(logits, targets):
    z, y = logits.double().numpy(), targets.numpy()
    z = z[y >= 0] - z[y >= 0].max(-1, keepdims=True)
    return (np.log(np.exp(z).sum(-1)) - z[np.arange(len(z)), y[y >= 0]]).mean()


def grams(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def counted(words, n):
    return Counter(grams(words, n))


def bleu(clip=max, of=grams, divide=lambda ours, refs, n: len(ours)):
    """Modified precision, its clip, its n-grams or its divisor replaced."""

    def answer(h, refs, n):
        ours, theirs = of(h, n), [of(r, n) for r in refs]
        matches = sum(min(ours.count(g), clip([r.count(g) for r in theirs])) for g in set(ours))
        return matches / max(1, divide(ours, refs, n))

    return answer


def by_counter(h, refs, n):
    ceiling = Counter()
    for r in refs:
        ceiling |= counted(r, n)
    ours = counted(h, n)
    return (ours & ceiling).total() / ours.total() if ours else 0.0


def no_guard(h, refs, n):
    ours = counted(h, n)
    return sum(min(m, max(counted(r, n)[g] for r in refs)) for g, m in ours.items()) / ours.total()


def crosses_out(h, refs, n):
    ours = grams(h, n)
    left = {g: max(grams(r, n).count(g) for r in refs) for g in ours}
    hits = 0
    for g in ours:
        hits += left[g] > 0
        left[g] -= 1
    return hits / len(ours) if ours else 0


def pieces(w, layer):
    return w[layer].mean(0)[:, :-1]


def vote(w, layer):
    return w[layer, :, :, :-1].argmax(-1).mode(0).values


def align_loop(w, layer):
    out = []
    for t in range(w.shape[2]):
        mean = [sum(w[layer, h, t, s].item() for h in range(w.shape[1])) for s in range(w.shape[3] - 1)]
        out.append(mean.index(max(mean)))
    return out


def masks_end(w, layer):
    w[..., -1] = -1
    return w[layer].mean(0).argmax(-1)


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
    "03.1": {
        "reshape, permute": lambda x, nh: x.reshape(*x.shape[:2], nh, -1).permute(0, 2, 1, 3),
        "unflatten": lambda x, nh: x.unflatten(-1, (nh, -1)).movedim(2, 1),
        "stacked slices": lambda x, nh: torch.stack(x.chunk(nh, dim=-1), 1),
        "a tensor filled in, float64": filled_heads,
        "NumPy": lambda x, nh: np.stack(np.split(x.numpy(), nh, axis=-1), axis=1),
        "list of sentences": lambda x, nh: [list(heads(x, nh)[b]) for b in range(len(x))],
        "changes its input": lambda x, nh: (heads(x.clone(), nh), x.zero_())[0],
    },
    "03.2": {
        "var": lambda x, g, b: g * normal(x) + b,
        "NumPy": numpy_norm,
        "float64": lambda x, g, b: g * normal(x.double()) + b,
        "changes its input": normal_in_place,
        "mean of squares": lambda x, g, b: (
            (x - x.mean(-1, keepdim=True))
            * ((x - x.mean(-1, keepdim=True)).square().mean(-1, keepdim=True) + 1e-5).rsqrt()
            * g
            + b
        ),
        "nested lists": norm_loop,
        "transposed": lambda x, g, b: (
            g * ((x.mT - x.mean(-1)[:, None]) / (x.var(-1, correction=0) + 1e-5).sqrt()[:, None]).mT + b
        ),
    },
    "03.3": {
        "complex numbers": complex_turn,
        "matrix, float64": turn_matrix,
        "loop": turn_loop,
        "angles": by_angles,
        "NumPy": lambda p, k: turned(angle)(p, k).numpy(),
        "lists of tensors": lambda p, k: list(turned(angle)(p, k)),
        "changes its input": lambda p, k: p.copy_(turned(angle)(p, k)),
    },
    "03.4": {
        "one-hot": lambda z, t: z.softmax(-1) - one_hot(z, t),
        "by hand, largest subtracted": lambda z, t: (
            (z - z.max()).exp() / (z - z.max()).exp().sum() - one_hot(z, t)
        ),
        "NumPy": lambda z, t: np.exp(z.numpy() - np.logaddexp.reduce(z.numpy())) - np.eye(len(z))[t],
        "lists": plain_numbers,
        "float64": lambda z, t: minus_one(z.double(), t),
        "log_softmax": lambda z, t: z.log_softmax(0).exp() - (torch.arange(len(z)) == t).float(),
        "identity": lambda z, t: z.softmax(-1) - torch.eye(len(z))[t],
        "through the Jacobian": lambda z, t: (
            -(one_hot(z, t) - z.softmax(-1))  # of log p, so that nothing is divided by p
        ),
        "changes its input": lambda z, t: z.copy_(minus_one(z, t)),
    },
    "03b.1": {
        "gather, then the mask": lambda z, y: nats_of(z, y)[real(y)].mean(),
        "a masked sum": lambda z, y: (nats_of(z, y) * real(y)).sum() / real(y).sum(),
        "logsumexp": lambda z, y: (
            z[real(y)].logsumexp(-1) - z[real(y)].gather(1, y[real(y)][:, None]).squeeze(1)
        ).mean(),
        "loop": loss_loop,
        "NumPy": numpy_loss,
        "float": lambda z, y: nats_of(z, y)[real(y)].mean().item(),
        "float64": lambda z, y: nats_of(z.double(), y)[real(y)].mean(),
        "changes its input": lambda z, y: nats_of(z.sub_(z.amax(-1, True)), y)[real(y)].mean(),
        "flat": lambda z, y: nats_of(z.flatten(0, 1), y.flatten())[y.flatten() >= 0].mean(),
        "one-hot": lambda z, y: (
            -(z[real(y)].log_softmax(-1) * torch.eye(z.shape[-1])[y[real(y)]]).sum(-1).mean()
        ),
    },
    "03b.2": {
        "Counter": by_counter,
        "lists": bleu(),
        "fraction": lambda h, refs, n: Fraction(by_counter(h, refs, n)).limit_denominator(1000),
        "crossed out": crosses_out,
        "tensor": lambda h, refs, n: torch.tensor(by_counter(h, refs, n)),
        "guarded by an error": lambda h, refs, n: no_guard(h, refs, n) if len(h) >= n else 0,
        "zip": bleu(of=lambda words, n: list(zip(*(words[i:] for i in range(n)), strict=False))),
        "joined by a space": bleu(of=lambda words, n: [" ".join(g) for g in grams(words, n)]),
        "changes its input": lambda h, refs, n: (by_counter(h, refs, n), h.clear(), refs.clear())[0],
    },
    "03b.3": {
        "tensor": lambda w, layer: pieces(w, layer).argmax(-1),
        "loop": align_loop,
        "NumPy": lambda w, layer: np.argmax(w.numpy()[layer].sum(0)[:, :-1], axis=1),
        "max": lambda w, layer: pieces(w, layer).max(-1).indices,
        "floats": lambda w, layer: pieces(w, layer).argmax(-1).double(),
        "list of tensors": lambda w, layer: [row.argmax() for row in pieces(w, layer)],
        "END at −1, in place": masks_end,
        "renormalised": lambda w, layer: (pieces(w, layer) / pieces(w, layer).sum(-1, True)).argmax(-1),
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
    "03.1": {
        "straight view": (
            lambda x, nh: x.view(len(x), nh, x.shape[1], -1),
            "positions are mixed: in head 0, row 1",
        ),
        "interleaved": (
            lambda x, nh: x.view(*x.shape[:2], -1, nh).permute(0, 3, 1, 2),
            "head 0 gets every 4th column",
        ),
        "no transpose": (cut, "half the way"),
        "T and hs swapped": (lambda x, nh: heads(x, nh).mT, "last two axes are swapped"),
        "nh and hs swapped": (
            lambda x, nh: x.view(*x.shape[:2], -1, nh).transpose(1, 2),
            "the width is nh heads of hs",
        ),
        "batch forgotten": (lambda x, nh: heads(x, nh)[0], "the batch is lost"),
        "list of heads": (lambda x, nh: list(x.chunk(nh, dim=-1)), "before the batch; B comes first"),
        "one axis": (lambda x, nh: heads(x, nh).flatten(0, 1), "share one axis"),
        "one head dropped": (lambda x, nh: heads(x, nh)[:, 1:], "a head is missing"),
        "one head": (lambda x, nh: heads(x, nh)[:, 0], "that is one head"),
        "the whole width each": (lambda x, nh: x[:, None].expand(-1, nh, -1, -1), "the whole width"),
        "nothing": (lambda x, nh: x, "nothing is split"),
        "the first head again and again": (
            lambda x, nh: heads(x, nh)[:, :1].expand(-1, nh, -1, -1),
            "90 of x's 120 numbers are missing",
        ),
        "scaled": (lambda x, nh: heads(x, nh) / 2 + 0.25, "numbers that x has not"),
        "heads turned round": (lambda x, nh: heads(x, nh).flip(1), "head 0 holds column 15; it should hold"),
        "columns turned round": (lambda x, nh: heads(x, nh).flip(-1), "not in their order"),
        "positions turned round": (lambda x, nh: heads(x, nh).flip(2), "row 0 holds a number of position 2"),
        "sentences turned round": (lambda x, nh: heads(x, nh).flip(0), "sentences are mixed"),
        "sizes hard-coded": (lambda x, nh: x.view(2, 3, 4, 5).transpose(1, 2), "RuntimeError: shape '[2, 3"),
        "four heads hard-coded": (
            lambda x, nh: x.unflatten(-1, (4 if nh == 4 else 1, -1)).transpose(1, 2),
            "for x (1, 5, 6) and nh = 3 the answer should have shape (1, 3, 5, 2)",
        ),
        "mixed when T = nh": (
            lambda x, nh: heads(x, nh) if x.shape[1] != nh else cut(x, nh),
            "not for (2, 4, 4) and 4",
        ),
        "the page's": (lambda x, nh: MultiHeadAttention(x.shape[-1], nh).split(x), "write it out yourself"),
    },
    "03.2": {
        "over the batch": (lambda x, g, b: g * normal(x, 0) + b, "over the batch"),
        "over T": (
            lambda x, g, b: g * normal(x, 1) + b,
            "another position changes a token: you average over T",
        ),
        "over T and C": (lambda x, g, b: g * normal(x, (1, 2)) + b, "another position changes a token"),
        "over all": (lambda x, g, b: g * normal(x, (0, 1, 2)) + b, "every other token, in any sentence"),
        "batch norm": (lambda x, g, b: g * normal(x, (0, 1)) + b, "every other token, in any sentence"),
        "unbiased": (lambda x, g, b: g * normal(x, correction=1) + b, "divides by C − 1 = 7"),
        "by the variance": (
            lambda x, g, b: g * (x - x.mean(-1, True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5) + b,
            "divide by its root",
        ),
        "not divided": (lambda x, g, b: g * (x - x.mean(-1, True)) + b, "nothing is divided"),
        "multiplied": (
            lambda x, g, b: g * (x - x.mean(-1, True)) * x.std(-1, correction=0, keepdim=True) + b,
            "you multiply",
        ),
        "RMS norm": (
            lambda x, g, b: g * x / (x.square().mean(-1, True) + 1e-5).sqrt() + b,
            "the mean is not subtracted",
        ),
        "mean left": (
            lambda x, g, b: g * x / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() + b,
            "the mean is not subtracted",
        ),
        "median": (
            lambda x, g, b: g * (x - x.median(-1, True)[0]) / x.std(-1, keepdim=True) + b,
            "a token's mean is",
        ),
        "range": (
            lambda x, g, b: g * (x - x.mean(-1, True)) / (x.amax(-1, True) - x.amin(-1, True)) + b,
            "a token's variance is",
        ),
        "mean absolute deviation": (
            lambda x, g, b: g * (x - x.mean(-1, True)) / (x - x.mean(-1, True)).abs().mean(-1, True) + b,
            "a token's variance is",
        ),
        "ranks": (
            lambda x, g, b: g * normal(x.argsort(-1).argsort(-1).float()) + b,
            "mean 0 and variance 1, and yet off",
        ),
        "no eps": (lambda x, g, b: g * normal(x, eps=0) + b, "eps is missing"),
        "eps outside the root": (
            lambda x, g, b: g * (x - x.mean(-1, True)) / (x.std(-1, correction=0, keepdim=True) + 1e-5) + b,
            "eps goes under the root",
        ),
        "another eps": (lambda x, g, b: g * normal(x, eps=1e-6) + b, "your eps acts as 1e-06"),
        "eps as a floor": (
            lambda x, g, b: (
                g * (x - x.mean(-1, True)) / x.var(-1, correction=0, keepdim=True).clamp(min=1e-5).sqrt() + b
            ),
            "comes out wrong: your eps acts as",
        ),
        "NaN for a constant token": (
            lambda x, g, b: g * normal(x) + b + 0 / (x - x.mean(-1, True)).abs().sum(-1, True),
            "under the root",
        ),
        "no bias": (lambda x, g, b: g * normal(x), "the bias is not added"),
        "no gain": (lambda x, g, b: normal(x) + b, "the gain is not used"),
        "neither": (lambda x, g, b: normal(x), "gain and bias are not used"),
        "gain before": (lambda x, g, b: normal(g * x) + b, "gain comes after"),
        "both before": (lambda x, g, b: normal(g * x + b), "gain comes after"),
        "bias inside": (lambda x, g, b: g * (normal(x) + b), "first the gain, then the bias"),
        "changed places": (lambda x, g, b: b * normal(x) + g, "have changed places"),
        "gain squared": (lambda x, g, b: g * g * normal(x) + b, "right with gain 1 and bias 0, off by"),
        "C hard-coded": (
            lambda x, g, b: (
                g
                * (x - x.sum(-1, True) / 8)
                / ((x - x.sum(-1, True) / 8).square().sum(-1, True) / 8 + 1e-5) ** 0.5
                + b
            ),
            "not for (1, 4, 3)",
        ),
        "gain as a matrix": (lambda x, g, b: g[:, None] * normal(x)[0, 0] + b, "should have shape (2, 3, 8)"),
        "torch's": (
            lambda x, g, b: torch.nn.functional.layer_norm(x, x.shape[-1:], g, b),
            "without layer_norm",
        ),
        "the page's": (
            lambda x, g, b: course_utils.transformer.layer_norm(x, g, b),
            "without layer_norm",
        ),
    },
    "03.3": {
        "PE(k)": (lambda p, k: nb03.position(k, len(p)), "that is PE(k)"),
        "added": (lambda p, k: p + nb03.position(k, len(p)), "a turn is not a sum"),
        "unchanged": (lambda p, k: p, "the position you were given"),
        "k added": (lambda p, k: p + k, "k is added to every number"),
        "the wrong way": (turned(lambda C, k: -angle(C, k)), "turn the wrong way"),
        "pairs as (cos, sin)": (
            turned(angle, lambda p: (p[1::2], p[0::2]), lambda s, c: torch.stack([c, s], -1).flatten()),
            "turn the wrong way",
        ),
        "i/C": (turned(lambda C, k: angle(C, k, 0.5)), "10000^(−i/C) for pair i; it is 2i/C"),
        "4i/C": (turned(lambda C, k: angle(C, k, 2)), "10000^(−4i/C)"),
        "inverted": (turned(lambda C, k: angle(C, k, -1)), "your frequencies grow"),
        "one angle": (turned(lambda C, k: torch.full((C // 2,), float(k))), "every pair turns by k"),
        "degrees": (turned(lambda C, k: angle(C, k) * math.pi / 180), "in degrees"),
        "base 1000": (
            turned(lambda C, k: k * 1000 ** (-torch.arange(0, C, 2) / C)),
            "pair 1 (numbers 2 and 3) turns by 0.533; it should be k / 10000^(2/8) = 0.300",
        ),
        "k ignored": (
            turned(lambda C, k: angle(C, 1)),
            "turns by 1.000; it should be k / 10000^(0/8) = 3.000",
        ),
        "halves": (
            turned(angle, lambda p: p.chunk(2), lambda s, c: torch.cat([s, c])),
            "number i with number i + C/2",
        ),
        "returns halves": (turned(angle, join=lambda s, c: torch.cat([s, c])), "gets length"),
        "rows of pairs": (turned(angle, join=lambda s, c: torch.stack([s, c], -1)), "flatten them to (C,)"),
        "sines and cosines": (turned(angle, join=lambda s, c: (s, c)), "sines and cosines apart"),
        "a matrix": (lambda p, k: torch.eye(len(p)), "multiply the position by it"),
        "twice as long": (lambda p, k: 2 * turned(angle)(p, k), "gets length 2.000"),
        "a sign wrong": (
            lambda p, k: torch.stack(
                [
                    p[0::2] * angle(len(p), k).cos() + p[1::2] * angle(len(p), k).sin(),
                    p[1::2] * angle(len(p), k).cos() + p[0::2] * angle(len(p), k).sin(),
                ],
                -1,
            ).flatten(),
            "gets length",
        ),
        "t from the first pair": (
            first_pair_only,
            "for t = 40, k = 7, C = 8: turn each pair where it stands",
        ),
        "looked up": (
            lambda p, k: looked_up(p, k) if k > 0 else turned(angle)(p, k),
            "for t = 5.5, k = 3, C = 8: turn each pair",
        ),
        "only forwards": (turned(lambda C, k: angle(C, abs(k))), "for t = 2, k = -5, C = 8"),
        "width hard-coded": (turned(lambda C, k: angle(8, k)[: C // 2]), "for t = 3, k = 4, C = 6"),
        "a step of 0 is 1": (turned(lambda C, k: angle(C, k or 1)), "for t = 2, k = 0, C = 8"),
        "a batch of one": (lambda p, k: turned(angle)(p, k)[None], "got (1, 8)"),
    },
    "03.4": {
        "p": (lambda z, t: z.softmax(-1), "that is p alone"),
        "y − p": (lambda z, t: one_hot(z, t) - z.softmax(-1), "the sign is turned"),
        "1/p − 1/y": (
            lambda z, t: 1 / z.softmax(-1) - 1 / one_hot(z, t),
            "infinite number: 1/y divides by 0",
        ),
        "1/p − 1/y, eps": (
            lambda z, t: 1 / z.softmax(-1) - 1 / (one_hot(z, t) + 1e-9),
            "the source articles'",
        ),
        "1/p − y": (lambda z, t: 1 / z.softmax(-1) - one_hot(z, t), "the source articles'"),
        "−1/p": (lambda z, t: -one_hot(z, t) / z.softmax(-1), "the gradient by the probabilities; go on"),
        "1/p": (lambda z, t: one_hot(z, t) / z.softmax(-1), "that is y/p"),
        "over V": (lambda z, t: minus_one(z, t) / len(z), "divided by V"),
        "softmax twice": (lambda z, t: minus_one(z.softmax(-1), t), "softmax twice"),
        "no softmax": (lambda z, t: z - one_hot(z, t), "softmax is missing"),
        "log p": (lambda z, t: z.log_softmax(-1) - one_hot(z, t), "without the logarithm"),
        "sigmoid": (lambda z, t: z.sigmoid() - one_hot(z, t), "not a sigmoid"),
        "p (1 − p)": (lambda z, t: z.softmax(-1) * (1 - z.softmax(-1)), "with its own logit"),
        "of p": (lambda z, t: z.softmax(-1)[t] * (one_hot(z, t) - z.softmax(-1)), "right token moves"),
        "of −p": (lambda z, t: z.softmax(-1)[t] * minus_one(z, t), "right token falls"),
        "one entry": (lambda z, t: minus_one(z, t)[t], "one number"),
        "one entry, zeros": (lambda z, t: minus_one(z, t) * one_hot(z, t), "only the right token's entry"),
        "right token 0": (lambda z, t: z.softmax(-1) * (1 - one_hot(z, t)), "the right token's entry is 0"),
        "the loss": (lambda z, t: -z.log_softmax(-1)[t], "that is the loss"),
        "a step": (lambda z, t: -0.1 * minus_one(z, t), "−0.100 times the gradient"),
        "not normalised": (lambda z, t: z.exp() - one_hot(z, t), "the gradient sums to 0"),
        "half a one": (lambda z, t: z.softmax(-1) - one_hot(z, t) / 2, "sums to 0; yours to 0.500"),
        "smoothed": (smooth, "entry 0, a wrong token's, is"),
        "one token late": (
            lambda z, t: z.softmax(-1) - one_hot(z, (t + 1) % len(z)),
            "entry 3, the right token's",
        ),
        "target hard-coded": (lambda z, t: minus_one(z, 3 % len(z)), "for target 0 of 5"),
        "V hard-coded": (lambda z, t: minus_one(z, t) * 5 / len(z), "for target 2 of 3"),
        "overflows": (
            lambda z, t: z.exp() / z.exp().sum() - one_hot(z, t),
            "subtract the largest logit first",
        ),
        "a batch of one": (lambda z, t: minus_one(z, t)[None], "got (1, 5)"),
        "autograd": (
            by_autograd,
            "right, but write it out yourself, without backward or grad or requires_grad_",
        ),
    },
    "03b.1": {
        "padding as 0": (lambda z, y: nats_of(z, y).mean(), "as if the right piece were number 0"),
        "divided by all": (lambda z, y: (nats_of(z, y) * real(y)).mean(), "divide by all B · T"),
        "mean of means": (
            lambda z, y: ((nats_of(z, y) * real(y)).sum(1) / real(y).sum(1)).mean(),
            "short sentences weigh as much",
        ),
        "for each sentence": (
            lambda z, y: (nats_of(z, y) * real(y)).sum(1) / real(y).sum(1),
            "one number for each sentence",
        ),
        "for each position": (lambda z, y: nats_of(z, y) * real(y), "one number for each position"),
        "for each token": (lambda z, y: nats_of(z, y)[real(y)], "one number for each real token"),
        "off by one": (
            lambda z, y: nats_of(z[:, :-1], y[:, 1:])[real(y[:, 1:])].mean(),
            "the batch has done the shift",
        ),
        "off by one, the other way": (
            lambda z, y: nats_of(z[:, 1:], y[:, :-1])[real(y[:, :-1])].mean(),
            "the batch has done the shift",
        ),
        "sum": (lambda z, y: nats_of(z, y)[real(y)].sum(), "that is the sum; divide"),
        "sum over B": (lambda z, y: (nats_of(z, y) * real(y)).sum(1).mean(), "the sum for a sentence"),
        "over positions": (lambda z, y: nats_of(z, y, 1)[real(y)].mean(), "softmax over the wrong axis"),
        "over the batch": (lambda z, y: nats_of(z, y, 0)[real(y)].mean(), "softmax over the wrong axis"),
        "sign": (lambda z, y: -nats_of(z, y)[real(y)].mean(), "the sign is turned"),
        "no softmax": (
            lambda z, y: -z.gather(-1, y.clamp(min=0)[..., None])[..., 0][real(y)].mean(),
            "softmax is missing",
        ),
        "no logarithm": (lambda z, y: -(-nats_of(z, y)[real(y)]).exp().mean(), "the logarithm is missing"),
        "log of the mean": (
            lambda z, y: -(-nats_of(z, y)[real(y)]).exp().mean().log(),
            "the logarithm of the mean",
        ),
        "bits": (lambda z, y: nats_of(z, y)[real(y)].mean() / math.log(2), "these are bits"),
        "perplexity": (lambda z, y: nats_of(z, y)[real(y)].mean().exp(), "that is the perplexity"),
        "mean over V": (
            lambda z, y: -(z[real(y)].log_softmax(-1) * torch.eye(z.shape[-1])[y[real(y)]]).mean(),
            "you average over the vocabulary",
        ),
        "0 as padding": (lambda z, y: nats_of(z, y)[y > 0].mean(), "tokens of id 0 are left out"),
        "gather at −100": (
            lambda z, y: -z.log_softmax(-1).gather(-1, y[..., None])[..., 0][real(y)].mean(),
            "−100 is no id",
        ),
        "indexed at −100": (
            lambda z, y: (
                -z.log_softmax(-1)[torch.arange(len(z))[:, None], torch.arange(z.shape[1]), y].mean()
            ),
            "−100 is no id",
        ),
        "another error": (lambda z, y: z @ y.float(), "your function raised RuntimeError"),
        "NaN": (lambda z, y: nats_of(z, y)[y < -100].mean(), "NaN: a mean over nothing"),
        "logits at the padding": (
            lambda z, y: nats_of(z, y)[real(y)].mean() + 0.1 * z[~real(y)].mean(),
            "the logits at padded positions",
        ),
        "padding's share": (
            lambda z, y: nats_of(z, y)[real(y)].mean() * (1 + 0.1 * (~real(y)).float().mean()),
            "two more columns of padding",
        ),
        "a sigmoid": (
            lambda z, y: -z.sigmoid().log().gather(-1, y.clamp(min=0)[..., None])[..., 0][real(y)].mean(),
            "but no probability",
        ),
        "smoothed": (
            lambda z, y: 0.9 * nats_of(z, y)[real(y)].mean() - 0.1 * z[real(y)].log_softmax(-1).mean(),
            "the loss should be",
        ),
        "first sentence": (
            lambda z, y: nats_of(z, y)[:1][real(y[:1])].mean(),
            "the loss should be",
        ),
        "ten tokens": (
            lambda z, y: nats_of(z, y)[real(y)].sum() / 9,
            "right for one batch, but without padding",
        ),
        "log of softmax": (
            lambda z, y: -z.softmax(-1).log().gather(-1, y.clamp(min=0)[..., None])[..., 0][real(y)].mean(),
            "log_softmax never takes it",
        ),
        "a small number inside the log": (
            lambda z, y: -(nats_of(z, y).neg().exp() + 1e-9).log()[real(y)].mean(),
            "300 times as large",
        ),
        "torch's": (
            lambda z, y: torch.nn.functional.cross_entropy(z.flatten(0, 1), y.flatten()),
            "without cross_entropy",
        ),
        "torch's, half": (
            lambda z, y: torch.nn.functional.nll_loss(z.log_softmax(-1).flatten(0, 1), y.flatten()),
            "without nll_loss",
        ),
        "the page's": (
            lambda z, y: course_utils.optim.cross_entropy(z.flatten(0, 1), y.flatten()),
            "without cross_entropy",
        ),
    },
    "03b.2": {
        "not clipped": (bleu(lambda counts: 99 if any(counts) else 0), "not clipped"),
        "clipped by the sum": (bleu(sum), "you add the references up"),
        "clipped by the smallest": (bleu(min), "the largest count in any reference"),
        "clipped by the first": (bleu(lambda counts: counts[0]), "not the smallest or the first's"),
        "clipped by the last": (bleu(lambda counts: counts[-1]), "one reference alone"),
        "clipped by the mean": (bleu(np.mean), "not their mean"),
        "clipped at 1": (bleu(lambda counts: min(1, max(counts))), "each n-gram matches once; it may"),
        "recall": (bleu(divide=lambda ours, refs, n: len(grams(refs[0], n))), "which is recall"),
        "reference's length": (bleu(divide=lambda ours, refs, n: len(refs[0])), "which is recall"),
        "divided by the words": (
            lambda h, refs, n: bleu()(h, refs, n) * len(grams(h, n)) / max(1, len(h)),
            "three words hold two bigrams",
        ),
        "sets": (bleu(of=lambda words, n: list(set(grams(words, n)))), "a set forgets how often"),
        "last n-gram missing": (bleu(of=lambda words, n: grams(words, n)[:-1]), "the last n-gram is missing"),
        "one n-gram too many": (
            bleu(of=lambda words, n: [tuple(words[i : i + n]) for i in range(len(words) - n + 2)]),
            "a sentence of m words has m − n + 1 n-grams",
        ),
        "n + 1 words": (bleu(of=lambda words, n: grams(words, n + 1)), "counts n + 1 words"),
        "n ignored": (bleu(of=lambda words, n: grams(words, 1)), "n is not used"),
        "order ignored": (
            bleu(of=lambda words, n: [tuple(sorted(g)) for g in grams(words, n)]),
            "order counts",
        ),
        "in the text": (
            lambda h, refs, n: (
                sum(any(" ".join(g) in " ".join(r) for r in refs) for g in grams(h, n))
                / max(1, len(grams(h, n)))
            ),
            "words match whole",
        ),
        "best reference": (
            lambda h, refs, n: max(by_counter(h, [r], n) for r in refs),
            "one reference alone",
        ),
        "references joined": (
            lambda h, refs, n: (
                by_counter(h, [*refs, list(chain(*refs))], n) if n > 1 else by_counter(h, refs, n)
            ),
            "runs over the end",
        ),
        "matches": (
            lambda h, refs, n: by_counter(h, refs, n) * len(grams(h, n)),
            "divide by how many there are",
        ),
        "matches and total": (lambda h, refs, n: (1, 2), "not (matches, n-grams)"),
        "misses": (lambda h, refs, n: 1 - by_counter(h, refs, n), "that do not match"),
        "percent": (lambda h, refs, n: 100 * by_counter(h, refs, n), "between 0 and 1"),
        "brevity penalty": (
            lambda h, refs, n: by_counter(h, refs, n) * math.exp(min(0, 1 - len(refs[0]) / len(h))),
            "the brevity penalty is",
        ),
        "geometric mean": (
            lambda h, refs, n: math.prod(by_counter(h, refs, m + 1) for m in range(n)) ** (1 / n),
            "BLEU's geometric mean",
        ),
        "mean": (
            lambda h, refs, n: sum(by_counter(h, refs, m + 1) for m in range(n)) / n,
            "BLEU's mean",
        ),
        "smoothed": (
            lambda h, refs, n: (by_counter(h, refs, n) * len(grams(h, n)) + 1) / (len(grams(h, n)) + 1),
            "no 1 is added",
        ),
        "half": (
            lambda h, refs, n: 0.6,
            "the precision of “the cat slept” against “the cat sat down today” should be 2/3",
        ),
        "too short": (no_guard, "holds no trigram: return 0, do not divide by 0"),
        "too short, 1": (
            lambda h, refs, n: by_counter(h, refs, n) if len(h) >= n else 1.0,
            "a hypothesis of 2 words holds no trigram: return 0, not 1.0000",
        ),
        "short references whole": (
            lambda h, refs, n: by_counter(
                h, [r for r in refs if len(r) >= n] if len(h) != 6 else refs[:1], n
            ),
            "should be 1, yours is 0.0000",
        ),
        "for each reference": (
            lambda h, refs, n: [by_counter(h, [r], n) for r in refs],
            "should have shape (), got (1,)",
        ),
    },
    "03b.3": {
        "END": (lambda w, layer: w[layer].mean(0).argmax(-1), "which is END: leave the last column out"),
        "other axis": (lambda w, layer: pieces(w, layer).argmax(0), "one number for each source piece"),
        "other axis, END": (lambda w, layer: w[layer].mean(0).argmax(0), "one number for each source piece"),
        "vote": (vote, "and then a vote"),
        "mean of the heads' best": (
            lambda w, layer: w[layer, ..., :-1].argmax(-1).float().mean(0).round(),
            "each head's best, and then their mean",
        ),
        "each head": (lambda w, layer: w[layer, ..., :-1].argmax(-1), "average the heads first"),
        "each layer": (lambda w, layer: w.mean(1)[..., :-1].argmax(-1), "take the layer asked for"),
        "each of all": (lambda w, layer: w[..., :-1].argmax(-1), "take one layer, average its heads"),
        "layers averaged": (lambda w, layer: w.mean((0, 1))[:, :-1].argmax(-1), "the layers are averaged"),
        "last layer": (lambda w, layer: pieces(w, -1).argmax(-1), "layer 2 is read; layer 1 is asked for"),
        "first layer": (lambda w, layer: pieces(w, 0).argmax(-1), "layer 0 is read; layer 1"),
        "layer and head mixed up": (
            lambda w, layer: w.mean(0)[layer][:, :-1].argmax(-1),
            "head 1 over all layers",
        ),
        "head 0": (lambda w, layer: w[layer, 0, :, :-1].argmax(-1), "head 0 alone"),
        "last head": (lambda w, layer: w[layer, -1, :, :-1].argmax(-1), "the last head alone"),
        "largest head": (lambda w, layer: w[layer].amax(0)[:, :-1].argmax(-1), "any head decides"),
        "smallest head": (
            lambda w, layer: w[layer].amin(0)[:, :-1].argmax(-1),
            "smallest weight of the heads",
        ),
        "argmin": (lambda w, layer: pieces(w, layer).argmin(-1), "argmax, not argmin"),
        "first column away": (lambda w, layer: w[layer].mean(0)[:, 1:].argmax(-1), "in front"),
        "both ends away": (lambda w, layer: pieces(w, layer)[:, 1:].argmax(-1), "in front"),
        "from 1": (lambda w, layer: pieces(w, layer).argmax(-1) + 1, "count from 0"),
        "last row away": (lambda w, layer: pieces(w, layer)[:-1].argmax(-1), "a row is missing"),
        "weights": (pieces, "the heads' mean weights"),
        "the largest weights": (lambda w, layer: pieces(w, layer).amax(-1), "not their weights"),
        "one number": (lambda w, layer: pieces(w, layer).argmax(), "one number in all"),
        "negative columns": (
            lambda w, layer: pieces(w, layer).argmax(-1) - w.shape[-1],
            "columns go from 0 to 5",
        ),
        "the diagonal": (lambda w, layer: list(range(w.shape[2])), "should align with column"),
        "layer hard-coded": (
            lambda w, layer: pieces(w, 1).argmax(-1),
            "but for layer 2 of (3, 4, 5, 7) row",
        ),
        "six columns": (
            lambda w, layer: w[layer].mean(0)[:, :6].argmax(-1),
            "but for layer 0 of (2, 3, 6, 6) row 0 aligns with column 5, which is END",
        ),
        "another layer's breath": (
            lambda w, layer: (w[layer] + 0.5 * w[layer - 1]).mean(0)[:, :-1].argmax(-1),
            "other layers change your answer",
        ),
        "dict": (lambda w, layer: dict(enumerate(pieces(w, layer).argmax(-1).tolist())), "got dict"),
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


@pytest.mark.parametrize("C", [2, 6, 64])
def test_the_positions_to_move_are_the_page_s(C):
    rows = torch.stack([nb03.position(t, C) for t in range(9)])
    assert torch.allclose(rows, course_utils.transformer.sinusoids(9, C).double(), atol=1e-6)


def test_unknown_exercise():
    with pytest.raises(ValueError, match="exercise must be one of"):
        check("99.9", len)
