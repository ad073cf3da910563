"""The two-sided gate: each exercise's solution passes, named wrong answers hear their diagnosis."""

import math
import re
import sys
from collections import Counter
from fractions import Fraction
from itertools import chain, pairwise
from operator import mul

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from scipy.special import expit, rel_entr
from scipy.stats import wasserstein_distance
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import course_utils.optim
import course_utils.transformer
from course_utils.attention import MultiHeadAttention, attention, causal_mask
from course_utils.bert import hide_words, wordpiece
from course_utils.bpe import join_pair, merge
from course_utils.exercises import check, exercises, hint, nb03, solution
from course_utils.gan import optimal_discriminator
from course_utils.grammar import jensen_shannon
from course_utils.lstm import AdditiveAttention, LSTMCell, Recurrent
from course_utils.modern import rotate
from course_utils.transformer import Config
from course_utils.tuning import LoRA, mean_pool


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


def of_pairs(tokens, P):
    return P[tokens[:-1], tokens[1:]]


def quiet_log(p):
    with np.errstate(divide="ignore"):
        return np.log(p)


def to_power(p):
    return np.exp(-quiet_log(p).mean())


def pairs_loop(tokens, P):
    total = 0.0
    for a, b in pairwise(tokens):
        if P[a, b] == 0:
            return math.inf
        total -= math.log(P[a, b])
    return math.exp(total / (len(tokens) - 1))


def by_counts(tokens, P):
    n = np.zeros_like(P)
    np.add.at(n, (tokens[:-1], tokens[1:]), 1)
    logs = np.zeros_like(P)
    logs[n > 0] = quiet_log(P[n > 0])
    return np.exp(-(n * logs).sum() / n.sum())


def zero_times_infinity(tokens, P):
    n = np.zeros_like(P)
    np.add.at(n, (tokens[:-1], tokens[1:]), 1)
    return np.exp(-(n * np.log(P)).sum() / n.sum())


def first_too(tokens, P, q):
    return to_power(np.append(of_pairs(tokens, P), q))


def lstm(order="ifgo", gate=torch.sigmoid, g=torch.tanh, new=None, out=None, bias=1.0):
    """One step, its rows in another order, a function or an equation replaced."""
    new = new or (lambda i, f, g, c: f * c + i * g)
    out = out or (lambda o, c, old: o * c.tanh())

    def answer(x, h, c, W, U, b):
        z = dict(zip(order, (x @ W.T + h @ U.T + bias * b).chunk(4, dim=-1), strict=True))
        later = new(gate(z["i"]), gate(z["f"]), g(z["g"]), c)
        return out(gate(z["o"]), later, c), later

    return answer


def lstm_numpy(x, h, c, W, U, b):
    x, h, c, W, U, b = (part.double().numpy() for part in (x, h, c, W, U, b))
    i, f, g, o = np.split(x @ W.T + h @ U.T + b, 4, axis=1)
    c = sigma(f) * c + sigma(i) * np.tanh(g)
    return [sigma(o) * np.tanh(c), c]


def lstm_loop(x, h, c, W, U, b):
    C, hs, cs = c.shape[1], [], []
    for n in range(len(c)):
        z = (W @ x[n] + U @ h[n] + b).tolist()
        i, f, g, o = (z[k * C : k * C + C] for k in range(4))
        cs.append([sigma(f[k]) * c[n, k].item() + sigma(i[k]) * math.tanh(g[k]) for k in range(C)])
        hs.append([sigma(o[k]) * math.tanh(cs[n][k]) for k in range(C)])
    return hs, cs


def lstm_in_place(x, h, c, W, U, b):
    i, f, g, o = (x @ W.T).add_(h @ U.T).add_(b).chunk(4, dim=-1)
    c.mul_(f.sigmoid()).add_(i.sigmoid() * g.tanh())
    return h.copy_(o.sigmoid() * c.tanh()), c


def torch_cell(x, h, c, W, U, b):
    return torch.lstm_cell(x, (h, c), W, U, b, torch.zeros_like(b))


def norm_of(grads):
    return torch.cat([g.flatten() for g in grads]).norm()


def times(factor):
    return lambda grads, limit: [g * factor(grads, limit) for g in grads]


def limit_over(norm):
    """Clipping by another norm."""
    return times(lambda grads, limit: min(1, limit / max(float(norm(grads)), 1e-30)))


def clip_numpy(grads, limit):
    grads = [g.numpy() for g in grads]
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in grads))
    return [g * min(1.0, limit / (norm + 1e-6)) for g in grads]


def clip_in_place(grads, limit):
    for g, new in zip(grads, limit_over(norm_of)(grads, limit), strict=True):
        g.copy_(new)
    return grads


def new_in_the_old_list(grads, limit):
    grads[:] = limit_over(norm_of)(grads, limit)
    return grads


def torch_clip(grads, limit):
    leaves = [torch.zeros_like(g).requires_grad_() for g in grads]
    for leaf, g in zip(leaves, grads, strict=True):
        leaf.grad = g.clone()
    torch.nn.utils.clip_grad_norm_(leaves, limit)
    return [leaf.grad for leaf in leaves]


def logit(gate):
    return math.log(gate / (1 - gate))


def root(n):
    return 0.5 ** (1 / n)


def by_bisection(steps):
    low, high = -50.0, 50.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sigma(middle) ** steps < 0.5 else (low, middle)
    return low


def step_at(place):
    """One step of each sentence."""
    return lambda y, n: y[torch.arange(len(y)), place(n)]


the_last = step_at(lambda n: n - 1)


def alive(y, n):
    """(B, T, 1): True at words."""
    return (torch.arange(y.shape[1]) < n[:, None])[..., None]


def last_one_hot(y, n):
    chosen = torch.nn.functional.one_hot(n - 1, y.shape[1])[:, None].float()
    return (chosen @ y)[:, 0]


def gathered(y, n):
    return y.gather(1, (n - 1)[:, None, None].expand(-1, 1, y.shape[2]))


def last_not_0(y, n):
    return step_at(lambda n: (y.abs().sum(-1) > 0).sum(1) - 1)(y, n)


def accuracy_loop(z, y):
    pairs = list(zip(z.tolist(), y.tolist(), strict=True))
    return sum((logit > 0) == (label == 1) for (logit,), label in pairs) / len(pairs)


def said(z):
    return z.squeeze(1) > 0


def sums(z, y):
    """True positives, called positive, positive, n."""
    return (said(z) & (y == 1)).sum(), said(z).sum(), (y == 1).sum(), len(y)


def likely(z, y):
    return torch.where(y == 1, z[:, 0].sigmoid(), 1 - z[:, 0].sigmoid())


def bin_of(p, bins=10):
    return np.minimum((p * bins).astype(int), bins - 1)


def ece(k=bin_of, gap=lambda p, y: abs(p.mean() - y.mean()), mean=lambda n, gaps: n @ gaps / n.sum()):
    """Calibration, its bins, its gap or its mean replaced."""

    def answer(p, y, bins=10):
        places = k(p, bins)
        full = [places == i for i in np.unique(places)]
        return mean(np.array([i.sum() for i in full]), np.array([gap(p[i], y[i]) for i in full]))

    return answer


def ece_of(p=lambda p: p, y=lambda p, y: y):
    """Calibration of other probabilities or labels."""
    return lambda a, b, bins=10: ece()(p(a), y(a, b), bins)


def ece_loop(p, y, bins=10):
    inside, total = [[] for _ in range(bins)], 0
    for pair in zip(p.tolist(), y.tolist(), strict=True):
        inside[min(int(pair[0] * bins), bins - 1)].append(pair)
    for pairs in filter(None, inside):
        mean, share = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        total += len(pairs) * abs(mean - share)
    return total / len(p)


def ece_counted(p, y, bins=10):
    k = np.digitize(p, np.arange(1, bins) / bins)
    return abs(np.bincount(k, p, bins) - np.bincount(k, y, bins)).sum() / len(p)


def ece_all_bins(p, y, bins=10):
    k = bin_of(p, bins)
    return [abs(p[k == i].mean() - y[k == i].mean()) * (k == i).mean() for i in range(bins)]


def middle(p):
    return (np.floor(p[0] * 10) + 0.5) / 10


def middles_of_all(p, y, bins=10):
    k, centres = bin_of(p, bins), (np.arange(bins) + 0.5) / bins
    shares = [y[k == i].mean() if (k == i).any() else 0 for i in range(bins)]
    return abs(centres - shares).mean()


def ranked(p, bins):
    return np.argsort(np.argsort(p)) * bins // len(p)


def open_above(p, y, bins=10):
    inside = [(p >= i / bins) & (p < (i + 1) / bins) for i in range(bins)]
    return sum(abs((p - y)[i].sum()) for i in inside) / len(p)


def tallied(p, y, bins=10):
    total = np.zeros(bins)
    for a, b in zip(p, y, strict=True):
        total[int(a * bins)] += a - b
    return abs(total).sum() / len(p)


def closed_above(p, y, bins=10, first=-1.0):
    total = 0
    for i in range(bins):
        inside = (p > (i / bins if i else first)) & (p <= (i + 1) / bins)
        total += abs((p - y)[inside].sum())
    return total / len(p)


def additive(
    energy=lambda q, m, W, U, v: torch.tanh((q @ W.T)[:, None] + m @ U.T) @ v,
    weigh=lambda e, words: e.masked_fill(~words, -torch.inf).softmax(-1),
    mix=lambda w, m: (w[..., None] * m).sum(1),
    words=lambda S, n: torch.arange(S) < n[:, None],
):
    """Additive attention, its energies, softmax, sum or mask replaced."""

    def answer(q, m, W, U, v, n):
        w = weigh(energy(q, m, W, U, v), words(m.shape[1], n))
        return mix(w, m), w

    return answer


attended = additive()


def inside(f):
    """Additive attention with another function in tanh's place."""
    return additive(lambda q, m, W, U, v: f((q @ W.T)[:, None] + m @ U.T) @ v)


def of_inputs(q=lambda q, W, U: q @ W.T, k=lambda m, W, U: m @ U.T):
    """Additive attention whose query or memory goes in another way."""
    return additive(lambda a, m, W, U, v: torch.tanh(q(a, W, U)[:, None] + k(m, W, U)) @ v)


def mixed_by(mix):
    return additive(mix=mix)


def weighed(weigh):
    return additive(weigh=weigh)


def attended_numpy(q, m, W, U, v, n):
    q, m, W, U, v, n = (part.double().numpy() for part in (q, m, W, U, v, n))
    e = np.tanh((q @ W.T)[:, None] + m @ U.T) @ v
    e[np.arange(m.shape[1]) >= n[:, None]] = -np.inf
    w = np.exp(e - e.max(1, keepdims=True))
    w /= w.sum(1, keepdims=True)
    return np.einsum("bs,bsc->bc", w, m), w


def attended_loop(q, m, W, U, v, n):
    contexts, weights = [], []
    for b, k in enumerate(n.tolist()):
        w = torch.stack([v @ torch.tanh(W @ q[b] + U @ m[b, j]) for j in range(k)]).softmax(0)
        contexts.append(w @ m[b, :k])
        weights.append([*w.tolist(), *[0.0] * (m.shape[1] - k)])
    return contexts, weights


def attended_in_place(q, m, W, U, v, n):
    e = (m @ U.T).add_((q @ W.T)[:, None]).tanh_() @ v
    e[~alive(m, n)[..., 0]] = -torch.inf
    w = e.softmax(-1)
    q.zero_(), W.zero_(), U.zero_(), n.zero_()
    return m.mul_(w[..., None]).sum(1), w


def attended_by_layers(q, m, W, U, v, n):
    layer = AdditiveAttention(len(v))
    layer.query.bias.data.zero_()
    for part, p in ((layer.query, W), (layer.key, U), (layer.v, v[None])):
        part.weight.data = p
    found = [layer(q[b : b + 1], m[b : b + 1, :k], layer.key(m[b : b + 1, :k])) for b, k in enumerate(n)]
    w = torch.zeros(m.shape[:2])
    for b, k in enumerate(n):
        w[b, :k] = found[b][1]
    return torch.cat([context for context, _ in found]), w


def renormalised_words(e, words):
    w = e.softmax(-1) * words
    return w / w.sum(-1, keepdim=True)


def unstable(e, words):
    w = e.exp() * words
    return w / w.sum(-1, keepdim=True)


def counted_operations(T, C):
    """The course's own layers, counted by torch, which does not see into the fused attention of a CPU."""
    x, counts = torch.zeros(1, T, C), []
    layers = Recurrent(LSTMCell, C, C), course_utils.transformer.Layer(Config(V=1, C=C, T=T), causal=True)
    for layer in layers:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            layer.eval()(x)
        counts.append(counter.get_total_flops())
    return counts


def costs(lstm=lambda T, C: 16 * T * C**2, transformer=lambda T, C: 24 * T * C**2 + 4 * T**2 * C):
    return lambda T, C: (lstm(T, C), transformer(T, C))


def cost(tokens, pairs):
    """A Transformer layer of other coefficients."""
    return costs(transformer=lambda T, C: tokens * T * C**2 + pairs * T**2 * C)


def by_products(T, C, hidden=4):
    def product(a, b, c):
        return 2 * a * b * c

    step = product(1, C, 4 * C) + product(1, C, 4 * C)
    attention = 3 * product(T, C, C) + product(T, C, T) + product(T, T, C) + product(T, C, C)
    return np.array([T * step, attention + product(T, C, hidden * C) + product(T, hidden * C, C)])


def fitting(parameters):
    """The widest with at most `budget` of these parameters."""

    def answer(V, budget):
        low, high = 0, 2**20
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if parameters(V, middle) <= budget else (low, middle)
        return low

    return answer


def tied(V, C):
    return V * C + 8 * C * C + 8 * C


by_halves = fitting(tied)


def built(V, C):
    """torch's own layers, made without memory for them."""
    parts = torch.nn.Embedding(V, C, device="meta"), torch.nn.LSTM(C, C, device="meta")
    return sum(p.numel() for part in parts for p in part.parameters())


def real_root(V, budget):
    return (-(V + 8) + math.sqrt((V + 8) ** 2 + 32 * budget)) / 16


def by_floats(V, budget):
    b = (V + 8) / 16
    return int(b * (math.sqrt(1 + budget / 8 / b**2) - 1))


def closest(V, budget):
    C = by_halves(V, budget)
    return min(C, C + 1, key=lambda width: abs(tied(V, width) - budget))


def from_above(V, budget):
    C = budget
    while tied(V, C) > budget:
        C -= 1
    return C


def by_trial(p, q, k):
    """The best of 100,000 answers, tried one by one."""
    D = torch.linspace(5e-6, 1 - 5e-6, 100_000).double()
    tried = p[..., None] * D.log() + k * q[..., None] * (1 - D).log()
    return D[tried.argmax(-1)]


def best_in_numpy(p, q, k):
    return p.numpy() / (p.numpy() + k * q.numpy())


def best_in_place(p, q, k):
    return p.div_(q.mul_(k).add_(p))


def sloped(first=lambda s: -F.softplus(s), second=lambda s: F.softplus(-s), of=torch.sum):
    """Slopes by autograd, of losses summed up so."""

    def answer(s):
        s = s.requires_grad_()
        return tuple(torch.autograd.grad(of(loss(s)), s)[0] for loss in (first, second))

    return answer


def backward_twice(s, clear=lambda s: None, keep=torch.clone):
    """Slopes by backward(), what stands in s.grad cleared and kept so."""
    s, found = s.requires_grad_(), []
    for loss in (-F.softplus(s), F.softplus(-s)):
        clear(s)
        loss.sum().backward()
        found.append(keep(s.grad))
    return found


def forget_grad(s):
    s.grad = None


def zero_grad(s):
    if s.grad is not None:
        s.grad.zero_()


def pair_of(first=lambda σ: -σ, second=lambda σ: σ - 1):
    """Slopes as functions of the probability."""
    return lambda s: (first(s.sigmoid()), second(s.sigmoid()))


def jacobians(s):
    losses = lambda z: torch.stack([-F.softplus(z), F.softplus(-z)])  # noqa: E731
    return torch.autograd.functional.jacobian(losses, s)


def ordered(x):
    return x.sort().values


def way(of=lambda x, y: (ordered(x) - ordered(y)).abs(), mean=torch.mean):
    return lambda x, y: mean(of(x, y))


def assigned(x, y):
    table = (x[:, None] - y).abs().numpy()
    return table[linear_sum_assignment(table)].mean()


def between_curves(x, y):
    """The area between the two distribution functions."""
    every = ordered(torch.cat([x, y]))
    F_x, F_y = ((z[:, None] <= every[:-1]).double().mean(0) for z in (x, y))
    return ((F_x - F_y).abs() * every.diff()).sum()


def in_turn(x, y):
    left, total = y.tolist(), 0
    for a in x.tolist():
        b = min(left, key=lambda b: abs(a - b))
        left.remove(b)
        total += abs(a - b)
    return total / len(x)


def bins(x, y):
    edges = torch.linspace(-6, 6, 13)
    of_x, of_y = (torch.histogram(z, edges).hist / len(z) for z in (x, y))
    return (of_x - of_y).cumsum(0).abs().sum()


def noise_of(u):
    return -(-u.log()).log()


def largest(score):
    return lambda logits, u: score(logits, u).argmax(-1)


def drawn(logits, u):
    """As often as softmax says, u not used."""
    return logits.softmax(-1).multinomial(1)[:, 0]


def counted_up(logits, u):
    return (u[:, :1] > logits.softmax(-1).cumsum(-1)).sum(-1)


def words_loop(logits, u):
    return [
        max(range(len(a)), key=lambda j: a[j] - math.log(-math.log(b[j])))
        for a, b in zip(logits, u, strict=True)
    ]


def less(baseline):
    return lambda v: v - baseline(v)


def of_others(v):
    return (v.sum() - v) / (len(v) - 1)


def others_loop(v):
    v = v.tolist()
    return [v[k] - sum(v[:k] + v[k + 1 :]) / (len(v) - 1) for k in range(len(v))]


def others_table(v):
    B = len(v)
    return v - v.expand(B, B)[~torch.eye(B).bool()].view(B, B - 1).mean(1)


def of_other_values(v):
    return torch.stack([v[v != x].mean() for x in v])


def kl(p, q):
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum()


def both_ways(f):
    return lambda p, q: (f(p, q), f(q, p))


def kl_loop(p, q):
    total = 0.0
    for a, b in zip(p.tolist(), q.tolist(), strict=True):
        if a > 0:
            total += a * math.log(a / b) if b > 0 else math.inf
    return total


def kl_divides(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True) if a > 0)


def kl_numpy(p, q):
    p, q = p.numpy(), q.numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * np.log(p / q), 0).sum()


def kl_where(keep):
    """KL over the outcomes that are kept."""
    return lambda p, q: (p * (p / q).log())[keep(p, q)].sum()


# exercise → name of a right answer that is not our solution → the answer
def longest(word, pieces, mark):
    return next((end for end in range(len(word), 0, -1) if mark + word[:end] in pieces), None)


def cut_by(
    next_end=longest,
    looked_up=("", "##"),
    shown=("", "##"),
    stuck=lambda pieces, rest: ["[UNK]"],
):
    """WordPiece, its search, its marks or its end replaced."""

    def answer(word, vocabulary):
        pieces = []
        while word:
            end = next_end(word, vocabulary, looked_up[bool(pieces)])
            if end is None:
                return stuck(pieces, word)
            pieces.append(shown[bool(pieces)] + word[:end])
            word = word[end:]
        return pieces

    return answer


def shortest(word, pieces, mark):
    return next((end for end in range(1, len(word) + 1) if mark + word[:end] in pieces), None)


def of_the_vocabulary(word, pieces, mark):
    """The longest of the pieces themselves that the word begins with."""
    fits = [p for p in pieces if (mark + word).startswith(p) and p.startswith("##") == (mark == "##")]
    return len(max(fits, key=len)) - len(mark) if fits else None


def two_letters_at_least(word, pieces, mark):
    return next((end for end in range(len(word), 1, -1) if mark + word[:end] in pieces), None)


def three_letters_at_most(word, pieces, mark):
    return longest(word[:5], pieces, mark)


def cut_recursively(word, vocabulary, mark=""):
    if not word:
        return []
    for end in range(len(word), 0, -1):
        if mark + word[:end] in vocabulary:
            rest = cut_recursively(word[end:], vocabulary, "##")
            return rest if "[UNK]" in rest else [mark + word[:end], *rest]
    return ["[UNK]"]


def every_cut(word, vocabulary, mark=""):
    if not word:
        yield []
    for end in range(len(word), 0, -1):
        if mark + word[:end] in vocabulary:
            yield from ([mark + word[:end], *rest] for rest in every_cut(word[end:], vocabulary, "##"))


def cut_from_the_right(word, vocabulary):
    pieces = []
    while word:
        start = next((i for i in range(len(word)) if ("##" if i else "") + word[i:] in vocabulary), None)
        if start is None:
            return ["[UNK]"]
        pieces.insert(0, ("##" if start else "") + word[start:])
        word = word[:start]
    return pieces


def leaves_letters_out(word, vocabulary, instead=()):
    pieces, start = [], 0
    while start < len(word):
        end = longest(word[start:], vocabulary, "##" if start else "")
        pieces += instead if end is None else [("##" if start else "") + word[start : start + end]]
        start += end or 1
    return pieces


def hidden(
    chosen=lambda ids, draw: torch.rand(ids.shape, generator=draw) < 0.15,
    fate=lambda ids, draw: torch.rand(ids.shape, generator=draw),
    random=lambda ids, V, draw: torch.randint(V, ids.shape, generator=draw),
    masked=0.8,
    stays=0.9,
    allowed=lambda ids, words: words,
    back=lambda seen, guess, ids: (seen, guess),
):
    """Words hidden, one of its draws or shares replaced."""

    def answer(ids, words, mask_id, V, draw):
        guess = chosen(ids, draw) & allowed(ids, words)
        f = fate(ids, draw)
        seen = torch.where(guess & (f < masked), mask_id, ids)
        seen = torch.where(guess & (f >= stays), random(ids, V, draw), seen)
        return back(seen, guess, ids)

    return answer


def hidden_loop(ids, words, mask_id, V, draw):
    seen, guess = ids.tolist(), torch.zeros_like(ids).bool()
    for b, t in words.nonzero().tolist():
        choice, fate = torch.rand(2, generator=draw).tolist()
        guess[b, t] = choice < 0.15
        if guess[b, t] and fate < 0.9:
            seen[b][t] = mask_id if fate < 0.8 else int(torch.randint(V, (), generator=draw))
    return torch.tensor(seen), guess


def hidden_in_place(ids, words, mask_id, V, draw):
    r = torch.rand(ids.shape, generator=draw)
    guess = words & (r < 0.15)  # one draw serves for both
    ids[guess & (r < 0.12)] = mask_id
    other = guess & (r >= 0.135)
    ids[other] = torch.randint(0, V, (int(other.sum()),), generator=draw)
    return ids, guess


def hidden_bernoulli(ids, words, mask_id, V, draw):
    guess = torch.bernoulli(words * 0.15, generator=draw).bool()
    masked = torch.bernoulli(torch.full(ids.shape, 0.8), generator=draw).bool() & guess
    other = torch.bernoulli(torch.full(ids.shape, 0.5), generator=draw).bool() & guess & ~masked
    seen = ids.masked_fill(masked, mask_id)
    return seen.masked_scatter(other, torch.randint(V, ids.shape, generator=draw)), guess


def hidden_numpy(ids, words, mask_id, V, draw):
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=draw)))
    guess = words.numpy() & (rng.random(ids.shape) < 0.15)
    fate = rng.choice(3, ids.shape, p=[0.8, 0.1, 0.1])
    seen = np.select(
        [guess & (fate == 0), guess & (fate == 1)], [mask_id, rng.integers(V, size=ids.shape)], ids
    )
    return seen, guess


def independent_tenths(ids, words, mask_id, V, draw):
    """Eight tenths are masked, then a tenth of the rest is random."""
    guess = (torch.rand(ids.shape, generator=draw) < 0.15) & words
    masked = guess & (torch.rand(ids.shape, generator=draw) < 0.8)
    other = guess & ~masked & (torch.rand(ids.shape, generator=draw) < 0.1)
    seen = ids.masked_fill(masked, mask_id)
    return torch.where(other, torch.randint(V, ids.shape, generator=draw), seen), guess


def changes_others(ids, words, mask_id, V, draw):
    """A tenth of all words becomes random, hidden or not."""
    guess = (torch.rand(ids.shape, generator=draw) < 0.15) & words
    seen = torch.where(guess & (torch.rand(ids.shape, generator=draw) < 0.8), mask_id, ids)
    other = (torch.rand(ids.shape, generator=draw) < 0.1) & words
    return torch.where(other, torch.randint(V, ids.shape, generator=draw), seen), guess


def so_many_a_sentence(ids, words, mask_id, V, draw):
    scores = torch.rand(ids.shape, generator=draw).masked_fill(~words, 2)
    ranks = scores.argsort(1).argsort(1)
    return hidden(lambda *_: ranks < (0.15 * words.sum(1, keepdim=True)).round())(
        ids, words, mask_id, V, draw
    )


def so_many_a_batch(ids, words, mask_id, V, draw):
    places = words.flatten().nonzero()[:, 0]
    some = places[torch.randperm(len(places), generator=draw)[: round(0.15 * len(places))]]
    chosen = torch.zeros(ids.numel()).bool().index_fill(0, some, True).view(ids.shape)
    return hidden(lambda *_: chosen)(ids, words, mask_id, V, draw)


def own_generator(ids, words, mask_id, V, draw):
    return hidden()(ids, words, mask_id, V, torch.Generator().manual_seed(0))


def loss_of(
    pick=lambda logits, ids, guess: (logits[guess], ids[guess]),
    of=lambda scores, targets: scores.log_softmax(-1).gather(-1, targets[..., None])[..., 0],
    mean=lambda log_p: -log_p.mean(),
):
    """The loss of hidden words, what is picked, its log probabilities or its mean replaced."""
    return lambda logits, ids, guess: mean(of(*pick(logits, ids, guess)))


def each_nats(logits, ids):
    return F.cross_entropy(logits.mT, ids, reduction="none")


def chosen_p(logits, ids, guess):
    return logits.softmax(-1)[guess].gather(1, ids[guess][:, None])


def hidden_loss_loop(logits, ids, guess):
    losses = []
    for row, token, hide in zip(logits.flatten(0, 1), ids.flatten(), guess.flatten(), strict=True):
        if hide:
            losses.append(torch.logsumexp(row, 0) - row[token])
    return sum(losses) / len(losses)


def loss_numpy(logits, ids, guess):
    rows, targets = logits.numpy()[guess.numpy()].astype(float), ids.numpy()[guess.numpy()]
    rows = rows - rows.max(1, keepdims=True)
    return (np.log(np.exp(rows).sum(1)) - rows[np.arange(len(rows)), targets]).mean()


def pooled(
    words=lambda mask: mask.mT.float(),
    total=lambda x, w: (x * w).sum(1),
    count=lambda x, w: w.sum(1),
):
    """The mean over words, its weights, its sum or its count replaced."""

    def answer(states, mask):
        w = words(mask)
        return total(states, w) / count(states, w)

    return answer


def pooled_loop(states, mask):
    return [states[b][mask[b, 0]].mean(0) for b in range(len(states))]


def pooled_in_place(states, mask):
    states[~mask[:, 0]] = 0
    return states.sum(1).div_(mask.sum(-1))


def merged(change):
    return lambda W, A, B, alpha: W + change(A, B, alpha)


def merged_in_place(W, A, B, alpha):
    W += alpha / len(A) * B @ A
    return W


def merged_loop(W, A, B, alpha):
    scale, rank = alpha / A.shape[0], A.shape[0]
    return [
        [
            W[i, j].item() + scale * sum(B[i, r].item() * A[r, j].item() for r in range(rank))
            for j in range(W.shape[1])
        ]
        for i in range(W.shape[0])
    ]


def merged_by_layer(W, A, B, alpha):
    layer = torch.nn.Linear(W.shape[1], W.shape[0], bias=False)
    layer.weight.data = W.clone()
    lora = LoRA(layer, len(A), alpha)
    lora.A.data, lora.B.data = A, B
    return lora.merged().weight


def ppl(of=lambda z, y: F.cross_entropy(z, y), to=torch.exp, rows=lambda z: z, tokens=lambda y: y[1:]):
    """Perplexity, its loss, its power, or what meets what replaced."""
    return lambda z, y: to(of(rows(z), tokens(y)))


def ppl_loop(logits, ids):
    total = 0.0
    for row, token in zip(logits.tolist(), ids[1:].tolist(), strict=True):
        highest = max(row)
        total += highest + math.log(sum(math.exp(x - highest) for x in row)) - row[token]
    return math.exp(total / len(logits))


def chance(z, y):
    return z.softmax(-1)[torch.arange(len(z)), y[1:]]


def by_rank(word, merges, join=join_pair, pick=min):
    row = list(word)
    while found := [pair for pair in pairwise(row) if pair in merges]:
        row = join(row, pick(found, key=merges.index))
    return row


def one_pass(word, merges, join=join_pair):
    row = list(word)
    for pair in merges:
        row = join(row, pair)
    return row


def joined_at(row, pair, where=min):
    at = [i for i, here in enumerate(pairwise(row)) if here == pair]
    return [*row[: where(at)], "".join(pair), *row[where(at) + 2 :]] if at else row


def joined_recursively(word, merges):
    def go(row):
        found = set(pairwise(row)) & set(merges)
        return go(join_pair(row, min(found, key=merges.index))) if found else row

    return go(list(word))


def joined_by_regex(word, merges):
    text = " ".join(word)
    for pair in merges:
        text = re.sub(rf"(?<!\S){re.escape(' '.join(pair))}(?!\S)", "".join(pair), text)
    return text.split()


def by_replace(word, merges):
    text = " ".join(word)
    for pair in merges:
        text = text.replace(" ".join(pair), "".join(pair))
    return text.split()


def longest_piece(word, merges):
    made, row = {a + b for a, b in merges}, []
    while word:
        n = max((n for n in range(1, len(word) + 1) if word[:n] in made), default=1)
        row, word = [*row, word[:n]], word[n:]
    return row


def used_up(word, merges):
    row = list(word)
    while merges:
        row = join_pair(row, merges.pop(0))
    return row


def never_done(word, merges):
    row = list(word)
    while set(pairwise(row)) | {None}:
        row = join_pair(row, merges[0]) if merges else row
    return row


def cached(
    append=lambda old, new: torch.cat([old, new], 1),
    score=lambda q, K: q @ K.mT / q.shape[-1] ** 0.5,
    weigh=lambda s: s.softmax(-1),
    look=lambda K, V: (K, V),
    back=lambda y, K, V: (y, K, V),
):
    """One step with a cache, its parts replaced."""

    def answer(q, k, v, keys, values):
        keys, values = append(keys, k), append(values, v)
        K, V = look(keys, values)
        return back(weigh(score(q, K)) @ V, keys, values)

    return answer


def cached_loop(q, k, v, keys, values):
    nh, S, hs = keys.shape
    K, V = torch.empty(nh, S + 1, hs), torch.empty(nh, S + 1, hs)
    K[:, :S], V[:, :S], K[:, S], V[:, S] = keys, values, k[:, 0], v[:, 0]
    out = torch.zeros_like(q)
    for h in range(nh):
        s = [float(q[h, 0] @ K[h, t]) / math.sqrt(hs) for t in range(S + 1)]
        e = [math.exp(x - max(s)) for x in s]
        out[h, 0] = sum(w / sum(e) * V[h, t] for t, w in enumerate(e))
    return out, K, V


def cached_numpy(q, k, v, keys, values):
    K, V = (np.concatenate([a.numpy(), b.numpy()], 1) for a, b in ((keys, k), (values, v)))
    s = q.numpy() @ K.transpose(0, 2, 1) / np.sqrt(K.shape[-1])
    e = np.exp(s - s.max(-1, keepdims=True))
    return [e / e.sum(-1, keepdims=True) @ V, K, V]


def over_written(q, k, v, keys, values):
    out = cached()(q, k, v, keys, values)
    if keys.shape[1]:
        keys[:, -1:] = k
    return out


def cut_at(count, share=lambda p, left: p / p[left].sum()):
    """The distribution of the count(sorted cumulative sums, mass) most probable."""

    def answer(p, mass):
        order = p.argsort(descending=True)
        left = order[: int(count(p[order].cumsum(0), mass))]
        return torch.zeros_like(p).index_copy(0, left, share(p, left)[left])

    return answer


def reaching(c, mass):
    return (c < mass).sum() + 1


def nucleus_loop(p, mass):
    left, total = [0.0] * len(p), 0.0
    for i in sorted(range(len(p)), key=lambda i: -p[i]):
        left[i] = p[i].item()
        total += left[i]
        if total >= mass:
            break
    return [x / total for x in left]


def nucleus_numpy(p, mass):
    p = p.numpy()
    order = np.argsort(p)[::-1]
    before = np.concatenate([[0], np.cumsum(p[order])[:-1]])
    out = np.zeros_like(p)
    out[order[before < mass]] = p[order[before < mass]]
    return out / out.sum()


def nucleus_in_place(p, mass):
    ordered, order = p.sort(descending=True)
    before = ordered.cumsum(0).roll(1)
    before[0] = 0
    p[order[before >= mass]] = 0
    return p.div_(p.sum())


def while_below(p, mass):
    order, total, n = p.argsort(descending=True), 0, 0
    while total < mass:
        total += p[order[n]]
        n += 1
    return cut_at(lambda c, mass: n)(p, mass)


def at_least(threshold):
    """Every token of at least that probability."""
    return lambda p, mass: torch.where(p >= threshold(p, mass), p, 0) / p[p >= threshold(p, mass)].sum()


def last_kept(p, mass):
    ordered = p.sort(descending=True).values
    return ordered[min(int(reaching(ordered.cumsum(0), mass)), len(p)) - 1]


def scattered_wrong(p, mass):
    c = p.sort(descending=True).values.cumsum(0)
    return torch.where(c < mass, p, 0) / p[c < mass].sum()


def windows(x, n, step=1, end=0):
    return [tuple(x[i : i + n]) for i in range(0, len(x) - n + 1 + end, step)]


def repeats(of=windows):
    return lambda x, n: 1 - len(set(of(x, n))) / len(of(x, n))


def repeats_loop(tokens, n):
    seen, again, i = [], 0, 0
    while i + n <= len(tokens):
        again += tokens[i : i + n] in seen
        seen.append(tokens[i : i + n])
        i += 1
    return again / i


def rotary(
    angles=lambda t, i, hs: t / 10000 ** (2 * i / hs),
    pair=lambda a, b, c, s: (a * c - b * s, b * c + a * s),
    split=lambda x: x.chunk(2, 1),
    back=lambda a, b: torch.cat([a, b], 1),
):
    """Rotary positions, their parts replaced."""

    def answer(x):
        T, hs = x.shape
        angle = angles(torch.arange(T).double()[:, None], torch.arange(hs // 2).double(), hs)
        return back(*pair(*split(x), angle.cos(), angle.sin()))

    return answer


def turned_loop(x):
    T, hs = x.shape
    out = [[0.0] * hs for _ in range(T)]
    for t in range(T):
        for i in range(hs // 2):
            angle, a, b = t / 10000 ** (2 * i / hs), x[t, i].item(), x[t, i + hs // 2].item()
            out[t][i] = a * math.cos(angle) - b * math.sin(angle)
            out[t][i + hs // 2] = a * math.sin(angle) + b * math.cos(angle)
    return out


def turned_complex(x):
    T, hs = x.shape
    z = torch.complex(*x.chunk(2, 1))
    angle = torch.outer(torch.arange(T), 10000 ** (-torch.arange(0, hs, 2) / hs))
    z = z * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([z.real, z.imag], 1)


def turned_numpy(x):
    x = x.numpy()
    T, hs = x.shape
    angle = np.tile(np.arange(T)[:, None] / 10000 ** (np.arange(0, hs, 2) / hs), 2)
    half = np.concatenate([-x[:, hs // 2 :], x[:, : hs // 2]], 1)
    return x * np.cos(angle) + half * np.sin(angle)


def turned_in_place(x, copy=torch.clone):
    T, hs = x.shape
    angle = torch.arange(T)[:, None] / 10000 ** (2 * torch.arange(hs // 2) / hs)
    a, b = copy(x[:, : hs // 2]), copy(x[:, hs // 2 :])
    x[:, : hs // 2], x[:, hs // 2 :] = a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()
    return x


def turned_late(x):
    T, hs = x.shape
    angle = torch.arange(T)[:, None] / 10000 ** (2 * torch.arange(hs // 2) / hs)
    a, b = x.chunk(2, 1)
    a.copy_(a * angle.cos() - b * angle.sin())
    b.copy_(b * angle.cos() + a * angle.sin())
    return x


CALIBRATED = {
    "gaps and counts": ece(),
    "nansum": lambda p, y, bins=10: np.nansum(ece_all_bins(p, y, bins)),
    "histograms": lambda p, y, bins=10: abs(np.histogram(p, bins, (0, 1), weights=p - y)[0]).sum() / len(p),
    "a tensor": lambda p, y, bins=10: torch.tensor(ece_loop(torch.tensor(p), torch.tensor(y), bins)),
    "changes its inputs": lambda p, y, bins=10: (ece_loop(p, y, bins), p.fill(0), y.fill(0))[0],
}
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
    "04.1": {
        "loop, infinity at a zero": pairs_loop,
        "2 to the bits": lambda t, P: 2 ** (-quiet_log(of_pairs(t, P)).mean() / np.log(2)),
        "a zero looked for": lambda t, P: to_power(of_pairs(t, P)) if of_pairs(t, P).all() else math.inf,
        "tensors, which do not warn": lambda t, P: torch.tensor(of_pairs(t, P)).log().mean().neg().exp(),
        "counts of pairs": by_counts,
        "changes its inputs": lambda t, P: (to_power(of_pairs(t, P)), P.fill(0), t.fill(0))[0],
    },
    "04.2": {
        "from parts": lstm(),
        "NumPy, a list": lstm_numpy,
        "loop, nested lists": lstm_loop,
        "in place": lstm_in_place,
        "one product for both": lambda x, h, c, W, U, b: lstm()(
            torch.cat([x, h], 1), h, c, torch.cat([W, U], 1), 0 * U, b
        ),
        "stacked": lambda *a: torch.stack(lstm()(*a)),
        "σ by tanh": lstm(gate=lambda z: (1 + (z / 2).tanh()) / 2),
        "float64": lambda *a: lstm()(*(part.double() for part in a)),
        "with gradients": lambda *a: lstm()(*(part.requires_grad_() for part in a)),
    },
    "04.3": {
        "clamped factor": times(lambda grads, limit: (limit / norm_of(grads)).clamp(max=1)),
        "torch's 1e-6": times(lambda grads, limit: (limit / (norm_of(grads) + 1e-6)).clamp(max=1)),
        "NumPy": clip_numpy,
        "norm of norms": limit_over(lambda grads: torch.stack([g.norm() for g in grads]).norm()),
        "the same tensors when short": lambda grads, limit: (
            grads if norm_of(grads) <= limit else [g / norm_of(grads) * limit for g in grads]
        ),
        "a tuple": lambda grads, limit: tuple(limit_over(norm_of)(grads, limit)),
        "float64": lambda grads, limit: limit_over(norm_of)([g.double() for g in grads], limit),
        "copies, in place": lambda grads, limit: clip_in_place([g.clone() for g in grads], limit),
    },
    "04.4": {
        "closed form": lambda n: -math.log(math.expm1(math.log(2) / n)),
        "another": lambda n: -np.log(2 ** (1 / n) - 1),
        "tensor": lambda n: torch.logit(torch.tensor(0.5) ** (1 / n)),
        "by search": by_bisection,
    },
    "04b.1": {
        "lists": lambda y, n: [[x.item() for x in y[b, k - 1]] for b, k in enumerate(n)],
        "list of rows": lambda y, n: [row[k - 1] for row, k in zip(y, n, strict=True)],
        "cut, then the last": lambda y, n: torch.stack(
            [row[:k][-1] for row, k in zip(y, n.tolist(), strict=True)]
        ),
        "gather": lambda y, n: gathered(y, n).squeeze(1),
        "one-hot product": last_one_hot,
        "a mask": lambda y, n: y[torch.arange(y.shape[1]) == n[:, None] - 1],
        "NumPy": lambda y, n: y.numpy()[np.arange(len(y)), n.numpy() - 1],
        "diagonal": lambda y, n: y[:, n - 1].diagonal().T,
        "changes its inputs": lambda y, n: (the_last(y, n), y.zero_(), n.zero_())[0],
    },
    "04b.2": {
        "column of labels": lambda z, y: ((z > 0) == y[:, None]).double().mean(),
        "float": lambda z, y: ((z[:, 0] > 0) == y).float().mean().item(),
        "probabilities": lambda z, y: ((z.sigmoid().flatten() > 0.5) == y.bool()).float().mean(),
        "rounded": lambda z, y: (z.sigmoid().round().squeeze(-1) == y).sum() / len(y),
        "NumPy": lambda z, y: np.mean((z.numpy().ravel() > 0) == y.numpy()),
        "loop": accuracy_loop,
        "errors taken away": lambda z, y: 1 - (said(z).float() - y).abs().mean(),
        "squeezed": lambda z, y: ((z.squeeze() > 0) == y).float().mean(),
        "changes its inputs": lambda z, y: y.sub_(z.squeeze_(1).gt(0).long()).eq(0).float().mean(),
    },
    "04b.3": {
        **CALIBRATED,
        "loop": ece_loop,
        "counts": ece_counted,
        "float32": lambda p, y, bins=10: ece()(p.astype("f4"), y, bins),
    },
    "04c.1": {
        "from parts": attended,
        "NumPy": attended_numpy,
        "loop, lists": attended_loop,
        "in place": attended_in_place,
        "−10⁹": weighed(lambda e, words: e.masked_fill(~words, -1e9).softmax(-1)),
        "added mask": weighed(lambda e, words: (e + torch.log(words.float())).softmax(-1)),
        "batched product": mixed_by(lambda w, m: torch.bmm(w.unsqueeze(1), m).squeeze(1)),
        "columns": additive(lambda q, m, W, U, v: (v * torch.tanh((W @ q.T).T[:, None] + m @ U.T)).sum(-1)),
        "float64": lambda *a: attended(*(p.double() for p in a[:-1]), a[-1]),
        "with gradients": lambda *a: attended(*(p.requires_grad_() for p in a[:-1]), a[-1]),
        "a list": lambda *a: list(attended(*a)),
    },
    "04c.2": {
        "products": by_products,
        "the course's layers, counted": counted_operations,
        "one power": lambda T, C: (2**4 * T * C * C, 4 * T * C * (6 * C + T)),
        "floats": lambda T, C: [16.0 * T * C**2, 24.0 * T * C**2 + 4.0 * T**2 * C],
        "tensor": lambda T, C: torch.tensor(by_products(T, C)),
    },
    "04c.3": {
        "by halves": by_halves,
        "torch's own layers": fitting(built),
        "quadratic formula": lambda V, budget: int(real_root(V, budget)),
        "floor of it": lambda V, budget: np.floor(real_root(V, budget)),
        "a tensor": lambda V, budget: torch.tensor(by_halves(V, budget)),
        "whole numbers": lambda V, budget: (math.isqrt((V + 8) ** 2 + 32 * budget) - V - 8) // 16,
        "Vieta": lambda V, budget: int(2 * budget / (V + 8 + math.sqrt((V + 8) ** 2 + 32 * budget))),
    },
    "05.1": {
        "1 / (1 + k q / p)": lambda p, q, k: 1 / (1 + k * q / p),
        "σ of the log odds": lambda p, q, k: (p.log() - (k * q).log()).sigmoid(),
        "the page's own, of k q": lambda p, q, k: optimal_discriminator(p, k * q),
        "NumPy": best_in_numpy,
        "lists": lambda p, q, k: np.vectorize(lambda a, b: a / (a + k * b))(p.tolist(), q.tolist()).tolist(),
        "tried out": by_trial,
        "1 − the fakes' share": lambda p, q, k: 1 - k * q / (p + k * q),
        "a small number below": lambda p, q, k: p / (p + k * q + 1e-9),
        "changes its inputs": best_in_place,
    },
    "05.2": {
        "σ(−s)": lambda s: (-s.sigmoid(), -(-s).sigmoid()),
        "autograd of softplus": sloped(),
        "autograd of logsigmoid": sloped(lambda s: F.logsigmoid(-s), lambda s: -F.logsigmoid(s)),
        "backward twice": lambda s: backward_twice(s, forget_grad),
        "zeroed": lambda s: backward_twice(s, zero_grad),
        "stacked": lambda s: torch.stack([-s.sigmoid(), s.sigmoid() - 1]),
        "NumPy": lambda s: [-expit(s.numpy()), -expit(-s.numpy())],
        "lists": lambda s: [(-s.sigmoid()).tolist(), (s.sigmoid() - 1).tolist()],
        "float64": lambda s: pair_of()(s.double()),
        "tanh": lambda s: ((-1 - (s / 2).tanh()) / 2, ((s / 2).tanh() - 1) / 2),
        "changes its input": lambda s: (-s.sigmoid_(), s - 1),
    },
    "05.3": {
        "assignment": assigned,
        "area between curves": between_curves,
        "downwards": lambda x, y: (x.sort(descending=True)[0] - y.sort(descending=True)[0]).abs().mean(),
        "NumPy": lambda x, y: np.abs(np.sort(x) - np.sort(y)).mean(),
        "argsort": lambda x, y: (x[x.argsort()] - y[y.argsort()]).abs().mean(),
        "lists": lambda x, y: (
            sum(map(abs, map(float.__sub__, sorted(x.tolist()), sorted(y.tolist())))) / len(x)
        ),
        "l1_loss": lambda x, y: F.l1_loss(ordered(x), ordered(y)),
        "changes its inputs": lambda x, y: x.copy_(ordered(x)).sub_(ordered(y)).abs_().mean(),
    },
    "05b.1": {
        "a plus": largest(lambda z, u: z + noise_of(u)),
        "log softmax": largest(lambda z, u: z.log_softmax(-1) + noise_of(u)),
        "a race": lambda z, u: (-u.log() / z.softmax(-1)).argmin(-1),
        "a power": largest(lambda z, u: u.double() ** (1 / z.double().softmax(-1))),
        "softmax after": largest(lambda z, u: ((z + noise_of(u)) / 0.5).softmax(-1)),
        "max": lambda z, u: (z + noise_of(u)).max(-1).indices,
        "NumPy": lambda z, u: np.argmax(z.numpy() - np.log(-np.log(u.numpy())), axis=1),
        "a loop": words_loop,
        "floats": lambda z, u: (z + noise_of(u)).argmax(-1).float(),
        "clamped": largest(lambda z, u: z + noise_of(u.clamp(1e-9, 1 - 1e-7))),
        "changes its inputs": lambda z, u: z.sub_(u.log_().neg_().log_()).argmax(-1),
    },
    "05b.2": {
        "B / (B − 1)": lambda v: (v - v.mean()) * len(v) / (len(v) - 1),
        "a loop": others_loop,
        "a table": others_table,
        "NumPy": lambda v: v.numpy() - (v.numpy().sum() - v.numpy()) / (len(v) - 1),
        "a matrix": lambda v: v - (torch.ones(len(v), len(v)) - torch.eye(len(v))) @ v / (len(v) - 1),
        "means of pairs": lambda v: (v[:, None] - v).sum(1) / (len(v) - 1),
        "changes its input": lambda v: v.sub_(of_others(v)),
    },
    "05b.3": {
        "a loop": both_ways(kl_loop),
        "NumPy": both_ways(kl_numpy),
        "nansum": both_ways(lambda p, q: (p * (p / q).log()).nansum()),
        "p above 0": both_ways(kl_where(lambda p, q: p > 0)),
        "a ratio inside xlogy": both_ways(lambda p, q: torch.xlogy(p, p / q.where(p > 0, 1)).sum()),
        "one tensor": lambda p, q: torch.stack([kl(p, q), kl(q, p)]),
        "list of numbers": lambda p, q: [kl(p, q).item(), kl(q, p).item()],
        "NumPy array": lambda p, q: np.array([kl_numpy(p, q), kl_numpy(q, p)]),
        "float64": lambda p, q: (kl(p.double(), q.double()), kl(q.double(), p.double())),
        "with gradients": lambda p, q: both_ways(kl)(p.requires_grad_(), q),
    },
    "06.1": {
        "slices": cut_by(),
        "over the vocabulary": cut_by(of_the_vocabulary),
        "recursive": cut_recursively,
        "the course's own, longer": lambda w, v: list(cut_by()(w, frozenset(v))),
        "a tuple": lambda w, v: tuple(cut_by()(w, v)),
        "changes its inputs": lambda w, v: (cut_by()(w, v), v.clear())[0],
    },
    "06.2": {
        "draws of each": hidden(),
        "a loop": hidden_loop,
        "one draw, in place": hidden_in_place,
        "Bernoulli": hidden_bernoulli,
        "NumPy": hidden_numpy,
        "a list": hidden(back=lambda seen, guess, ids: [seen, guess]),
        "0 and 1": hidden(back=lambda seen, guess, ids: (seen, guess.long())),
        "random first": hidden(fate=lambda ids, draw: 1 - torch.rand(ids.shape, generator=draw)),
        "lists": hidden(back=lambda seen, guess, ids: (seen.tolist(), guess.tolist())),
    },
    "06.3": {
        "log softmax": loss_of(),
        "a loop": hidden_loss_loop,
        "NumPy": loss_numpy,
        "masked sum": lambda z, y, g: (each_nats(z, y) * g).sum() / g.sum(),
        "−100": lambda z, y, g: F.cross_entropy(z.mT, y.masked_fill(~g, -100)),
        "masked mean": lambda z, y, g: each_nats(z, y)[g].mean(),
        "float64": lambda z, y, g: loss_of()(z.double(), y, g).item(),
        "nll": lambda z, y, g: F.nll_loss(z[g].log_softmax(1), y[g]),
        "changes its inputs": lambda z, y, g: (z.sub_(z.logsumexp(-1, keepdim=True)), -z[g, y[g]].mean())[1],
    },
    "06b.1": {
        "weights": pooled(),
        "a loop": pooled_loop,
        "a product": lambda x, m: (m.float() @ x)[:, 0] / m.sum(-1),
        "in place": pooled_in_place,
        "softmax of 0 and −∞": lambda x, m: (
            torch.zeros(m.shape).masked_fill(~m, -torch.inf).softmax(-1) @ x
        ).squeeze(1),
        "nanmean": lambda x, m: x.masked_fill(~m.mT, torch.nan).nanmean(1),
        "NumPy": lambda x, m: np.stack(
            [np.average(a, axis=0, weights=w) for a, w in zip(x, m[:, 0], strict=True)]
        ),
        "einsum": lambda x, m: torch.einsum("btc,bt->bc", x, m[:, 0] / m[:, 0].sum(-1, keepdim=True)),
    },
    "06b.2": {
        "a loop": merged_loop,
        "outer products": merged(
            lambda A, B, alpha: (
                sum(torch.outer(b, a) for b, a in zip(B.T, A, strict=True)) * alpha / B.shape[1]
            )
        ),
        "addmm": lambda W, A, B, alpha: torch.addmm(W, B, A, alpha=alpha / len(A)),
        "NumPy": lambda W, A, B, alpha: W.numpy() + (alpha / A.shape[0]) * (B.numpy() @ A.numpy()),
        "columns": lambda W, A, B, alpha: (W.T + (alpha / len(A)) * A.T @ B.T).T,
        "a copy in place": lambda W, A, B, alpha: merged_in_place(W.clone(), A, B, alpha),
        "float64": lambda W, A, B, alpha: W.double() + B.double() @ A.double() * alpha / B.shape[1],
    },
    "06b.3": {
        **CALIBRATED,
        "page 4b's": ece_loop,
        "closed above": closed_above,
    },
    "07.1": {
        "cross-entropy": ppl(),
        "a loop": ppl_loop,
        "gather": lambda z, y: z.log_softmax(-1).gather(1, y[1:, None]).mean().neg().exp().item(),
        "bits": lambda z, y: 2 ** (F.cross_entropy(z, y[1:]).item() / math.log(2)),
        "float64": lambda z, y: chance(z.double(), y).log().mean().neg().exp(),
        "NumPy": lambda z, y: np.exp(F.cross_entropy(z, y[1:]).numpy()),
        "sum": lambda z, y: math.exp(F.cross_entropy(z, y[1:], reduction="sum") / len(z)),
        "rolled": lambda z, y: ppl()(z, y.roll(1).roll(-1)),
    },
    "07.2": {
        "by rank": by_rank,
        "one pass": one_pass,
        "recursive": joined_recursively,
        "one place at a time": lambda w, m: by_rank(w, m, joined_at),
        "regular expressions": joined_by_regex,
        "a tuple": lambda w, m: tuple(one_pass(w, m)),
        "a copy used up": lambda w, m: used_up(w, list(m)),
    },
    "07.3": {
        "cat": cached(),
        "a loop": cached_loop,
        "NumPy": cached_numpy,
        "einsum": cached(score=lambda q, K: torch.einsum("hqd,hkd->hqk", q, K) / K.shape[-1] ** 0.5),
        "a mask of True": cached(
            score=lambda q, K: (q @ K.mT / q.shape[-1] ** 0.5).masked_fill(
                ~torch.ones(1, K.shape[1]).bool(), -torch.inf
            )
        ),
        "float64": lambda *parts: cached()(*(part.double() for part in parts)),
        "a list": cached(back=lambda *three: list(three)),
        "with gradients": lambda *parts: cached()(*(part.requires_grad_() for part in parts)),
    },
    "07b.1": {
        "counted": cut_at(reaching),
        "sum before": cut_at(lambda c, mass: (torch.cat([c.new_zeros(1), c[:-1]]) < mass).sum()),
        "searchsorted": cut_at(lambda c, mass: torch.searchsorted(c, mass) + 1),
        "a loop": nucleus_loop,
        "NumPy": nucleus_numpy,
        "in place": nucleus_in_place,
        "scores of −∞": lambda p, mass: torch.where(
            cut_at(reaching)(p, mass) > 0, p.log(), -torch.inf
        ).softmax(0),
        "float32": lambda p, mass: cut_at(reaching)(p.float(), mass),
    },
    "07b.2": {
        "a set": repeats(),
        "a loop": repeats_loop,
        "zip": lambda x, n: repeats(lambda x, n: list(zip(*(x[i:] for i in range(n)), strict=False)))(x, n),
        "a counter": lambda x, n: sum(m - 1 for m in Counter(windows(x, n)).values()) / (len(x) - n + 1),
        "fraction": lambda x, n: Fraction(len(x) - n + 1 - len(set(windows(x, n))), len(x) - n + 1),
        "unfold": lambda x, n: 1 - len(torch.tensor(x).unfold(0, n, 1).unique(dim=0)) / (len(x) - n + 1),
        "strings": repeats(lambda x, n: [" ".join(map(str, gram)) for gram in windows(x, n)]),
    },
    "07b.3": {
        "two halves": rotary(),
        "a loop": turned_loop,
        "complex": turned_complex,
        "NumPy": turned_numpy,
        "in place": turned_in_place,
        "the package's angles": lambda x: rotary(
            lambda t, i, hs: t.float() * 10000.0 ** (-i.float() / (hs // 2))
        )(x),
        "float32": lambda x: rotary()(x.float()),
        "matrices": lambda x: torch.stack([torch.tensor(turned_loop(x[: t + 1]))[t] for t in range(len(x))]),
    },
}

# exercise → name of the wrong answer → (the answer, a part of the diagnosis it must hear)
MISCALIBRATED = {
    "not weighted": (ece(mean=lambda n, gaps: gaps.mean()), "each bin counts the same for you"),
    "over all bins": (ece(mean=lambda n, gaps: gaps.sum() / 10), "you average over all bins"),
    "empty bins as gaps": (middles_of_all, "an empty bin is counted as a gap"),
    "empty bins as NaN": (
        lambda p, y, bins=10: sum(ece_all_bins(p, y, bins)),
        "an empty bin has no mean",
    ),
    "division by 0": (
        lambda p, y, bins=10: sum(1 / int((bin_of(p, bins) == i).sum()) for i in range(bins)),
        "an empty bin has no mean",
    ),
    "middles": (ece(gap=lambda p, y: abs(middle(p) - y.mean())), "you take the middle of the bin"),
    "signed": (ece(gap=lambda p, y: p.mean() - y.mean()), "the gaps keep their sign and cancel"),
    "largest": (ece(mean=lambda n, gaps: gaps.max()), "that is the largest gap"),
    "squared": (ece(gap=lambda p, y: (p.mean() - y.mean()) ** 2), "the gaps are squared"),
    "added up": (ece(mean=lambda n, gaps: gaps.sum()), "the gaps are added up"),
    "gap of each text": (ece(gap=lambda p, y: abs(p - y).mean()), "that is the gap of each text"),
    "Brier": (lambda p, y, bins=10: ((p - y) ** 2).mean(), "that is the Brier score"),
    "equal counts": (ece(ranked), "the bins hold equally many texts"),
    "percent": (lambda p, y, bins=10: 100 * ece_loop(p, y, bins), "a share, not percent"),
    "last bin missing": (
        lambda p, y, bins=10: ece_loop(p, y, bins) - abs((p - y)[p >= 0.9].sum()) / len(p),
        "the last bin is missing",
    ),
    "for each bin": (
        lambda p, y, bins=10: np.nan_to_num(ece_all_bins(p, y, bins)),
        "one gap for each bin",
    ),
    "for each text": (lambda p, y, bins=10: abs(p - y), "one number for each text"),
    "no bin for 1": (tallied, "1.0 belongs to the last bin, number 9, not to bin 10"),
    "order counts": (
        lambda p, y, bins=10: ece_loop(p[1:], y[1:], bins),
        "the same texts in another order change your answer",
    ),
    "negative": (
        lambda p, y, bins=10: -ece_loop(p, y, bins),
        "a weighted mean of gaps lies between 0 and 1",
    ),
}
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
    "04.1": {
        "the mean": (lambda t, P: -np.log(of_pairs(t, P)).mean(), "nats a token; the perplexity is e to its"),
        "bits": (lambda t, P: -np.log2(of_pairs(t, P)).mean(), "bits a token"),
        "2 to the nats": (lambda t, P: 2 ** -np.log(of_pairs(t, P)).mean(), "2 to the power of nats"),
        "e to the bits": (lambda t, P: np.exp(-np.log2(of_pairs(t, P)).mean()), "e to the power of bits"),
        "divided by N": (
            lambda t, P: np.exp(-np.log(of_pairs(t, P)).sum() / len(t)),
            "you divide by N = 12, but N tokens make N − 1 pairs",
        ),
        "the sum": (lambda t, P: np.exp(-np.log(of_pairs(t, P)).sum()), "take the mean"),
        "sign": (lambda t, P: np.exp(np.log(of_pairs(t, P)).mean()), "the sign is turned"),
        "mean of 1/p": (lambda t, P: (1 / of_pairs(t, P)).mean(), "that is the mean of 1/p"),
        "1 / mean p": (lambda t, P: 1 / of_pairs(t, P).mean(), "one over the mean of p"),
        "columns for rows": (lambda t, P: to_power(P[t[1:], t[:-1]]), "rows and columns are exchanged"),
        "P.T": (lambda t, P: to_power(of_pairs(t, P.T)), "P[a, b] is p(b | a)"),
        "staying": (lambda t, P: to_power(P[t, t]), "the probability of staying"),
        "first by share": (lambda t, P: first_too(t, P, np.mean(t == t[0])), "the first token counts too"),
        "first by 1 / V": (lambda t, P: first_too(t, P, 1 / len(P)), "the first token counts too"),
        "first by π": (
            lambda t, P: first_too(t, P, np.linalg.matrix_power(P, 99)[0, t[0]]),
            "the first token counts too",
        ),
        "a ring": (lambda t, P: to_power(P[np.roll(t, 1), t]), "np.roll makes a ring"),
        "last pair missing": (lambda t, P: to_power(P[t[:-2], t[1:-1]]), "the last pair is missing"),
        "first pair missing": (lambda t, P: to_power(P[t[1:-1], t[2:]]), "the first pair is missing"),
        "every other pair": (lambda t, P: to_power(P[t[::2], t[1::2]]), "pairs share a token"),
        "different pairs": (
            lambda t, P: to_power(np.array([P[pair] for pair in set(pairwise(t))])),
            "each pair is counted once",
        ),
        "unigram": (lambda t, P: to_power(np.bincount(t)[t] / len(t)), "these are the tokens' own shares"),
        "all of P": (lambda t, P: to_power(P), "that is over all entries of P"),
        "for each pair": (lambda t, P: 1 / of_pairs(t, P), "one number for each pair"),
        "for each token": (lambda t, P: 1 / P[t, t], "one number for each token"),
        "grid": (lambda t, P: -np.log(P[t[:-1]][:, t[1:]]), "pairs every token with every other"),
        "whole rows": (lambda t, P: -np.log(P[t[:-1]]), "a whole row for each token"),
        "for each entry": (lambda t, P: -np.log(P), "one number for each entry of P"),
        "number of tokens": (lambda t, P: len(t), "make the perplexity 4, yours is 12.000"),
        "number of states": (lambda t, P: len(P), "the perplexity should be"),
        "entropy of the rows": (
            lambda t, P: np.exp(-(P * np.log(P)).sum(1).mean()),
            "a pair that the row has not changes yours",
        ),
        "the likelier pairs": (
            lambda t, P: to_power(np.sort(of_pairs(t, P))[4:]),
            "the perplexity should be",
        ),
        "eleven pairs": (
            lambda t, P: np.exp(-np.log(of_pairs(t, P)).sum() / 11),
            "right for N = 12, V = 4, but for N = 2, V = 2",
        ),
        "a product": (
            lambda t, P: 1 / np.prod(of_pairs(t, P)) ** (1 / (len(t) - 1)),
            "too small for a float; add their logarithms",
        ),
        "a product of floats": (
            lambda t, P: (1 / math.prod(of_pairs(t, P).tolist())) ** (1 / (len(t) - 1)),
            "too small for a float; add their logarithms",
        ),
        "a small number inside the log": (
            lambda t, P: np.exp(-np.log(of_pairs(t, P) + 1e-12).mean()),
            "makes the perplexity infinite, not",
        ),
        "zeros left out": (
            lambda t, P: to_power(of_pairs(t, P)[of_pairs(t, P) > 0]),
            "add nothing to p, leave nothing out",
        ),
        "math.log": (
            lambda t, P: math.exp(-sum(map(math.log, of_pairs(t, P))) / (len(t) - 1)),
            "makes the perplexity infinite; yours raises ValueError",
        ),
        "any zero": (
            lambda t, P: to_power(of_pairs(t, P)) if P.all() else math.inf,
            "a pair of probability 0 that the row has not must change nothing",
        ),
        "0 · ∞": (zero_times_infinity, "a pair of probability 0 that the row has not must change nothing"),
        "warns": (lambda t, P: np.exp(-np.log(of_pairs(t, P)).mean()), "NumPy warns: divide by zero"),
        "warns of what it does not use": (
            lambda t, P: np.exp(-of_pairs(t, np.log(P)).mean()),
            "right, but silently, please",
        ),
    },
    "04.2": {
        "Caffe's order": (lstm("ifog"), "you read the rows in the order i, f, o, g; they are i, f, g, o"),
        "another order": (lstm("iofg"), "you read the rows in the order i, o, f, g"),
        "g first": (lstm("gifo"), "you read the rows in the order g, i, f, o"),
        "forget and input exchanged": (lstm("figo"), "the forget and the input gate are exchanged"),
        "exchanged in the equation": (
            lstm(new=lambda i, f, g, c: i * c + f * g),
            "the forget and the input gate are exchanged",
        ),
        "σ for g": (lstm(g=torch.sigmoid), "g goes through tanh, not σ"),
        "g as it is": (lstm(g=lambda z: z), "g is not squashed"),
        "tanh for gates": (lstm(gate=torch.tanh), "gates go through σ"),
        "no σ": (lstm(gate=lambda z: z), "σ is missing"),
        "no forgetting": (lstm(new=lambda i, f, g, c: c + i * g), "the forget gate is not used"),
        "1 − f": (lstm(new=lambda i, f, g, c: (1 - f) * c + i * g), "f is what stays, not what goes"),
        "c lost": (lstm(new=lambda i, f, g, c: i * g), "the old c is lost"),
        "no input gate": (lstm(new=lambda i, f, g, c: f * c + g), "the input gate is not used"),
        "coupled": (lstm(new=lambda i, f, g, c: f * c + (1 - f) * g), "the input gate is not 1 − f here"),
        "nothing written": (lstm(new=lambda i, f, g, c: f * c), "nothing is written"),
        "no output gate": (lstm(out=lambda o, c, old: c.tanh()), "the output gate is not used"),
        "no tanh of c": (lstm(out=lambda o, c, old: o * c), "tanh of c is missing"),
        "tanh round both": (lstm(out=lambda o, c, old: (o * c).tanh()), "not tanh(o ⊙ c)"),
        "σ of c": (lstm(out=lambda o, c, old: o * c.sigmoid()), "σ in the place of tanh"),
        "h of the old c": (lstm(out=lambda o, c, old: o * old.tanh()), "h is made of the old c"),
        "c squashed": (lambda *a: (lstm()(*a)[0], lstm()(*a)[1].tanh()), "tanh is for h alone"),
        "c, h": (lambda *a: lstm()(*a)[::-1], "c comes first; return (h, c)"),
        "old h": (lambda x, h, *a: (h, lstm()(x, h, *a)[1]), "you return the old h"),
        "old c": (lambda x, h, c, *a: (lstm()(x, h, c, *a)[0], c), "you return the old c"),
        "no bias": (lstm(bias=0), "the bias is not added"),
        "two biases": (lstm(bias=2), "the bias is added twice"),
        "h not used": (lambda x, h, *a: lstm()(x, 0 * h, *a), "the gates see h too"),
        "x not used": (lambda x, *a: lstm()(0 * x, *a), "the gates see x too"),
        "gates of c": (lambda x, h, c, *a: lstm()(x, c, c, *a), "the gates see c in the place of h"),
        "arguments mixed up": (lambda x, h, c, *a: lstm()(x, c, h, *a), "h and c are exchanged"),
        "W and U": (lambda x, h, c, W, U, b: lstm()(x, h, c, U, W, b), "W belongs to x, U to h"),
        "h alone": (lambda *a: lstm()(*a)[0], "return both, the pair (h, c)"),
        "like nn.LSTM": (lambda *a: (lstm()(*a)[0], lstm()(*a)), "a pair inside the pair"),
        "three things": (lambda *a: (*lstm()(*a), 1), "return two things, (h, c); you return 3"),
        "not cut": (
            lambda x, h, c, W, U, b: ((x @ W.T + h @ U.T + b).tanh(), c),
            "all four parts still side by side",
        ),
        "not transposed": (
            lambda x, h, c, W, U, b: (((W @ x.T + U @ h.T).T + b).T.tanh(), c),
            "a row for each sentence",
        ),
        "first sentence": (lambda *a: [part[0] for part in lstm()(*a)], "the batch axis is lost"),
        "transposed": (lambda *a: [part.T for part in lstm()(*a)], "h should have shape (3, 4), got (4, 3)"),
        "a mean over the batch": (
            lambda x, *a: lstm()(x - x.mean(0), *a),
            "another sentence of the batch changes a sentence",
        ),
        "hard sigmoid": (
            lstm(gate=lambda z: (0.2 * z + 0.5).clamp(0, 1)),
            "with an old c of 0 the new c should be i · g, ",
        ),
        "a forget bias of 1": (
            lstm(new=lambda i, f, g, c: (f.logit() + 1).sigmoid() * c + i * g),
            "the share of the old c that stays should be f, ",
        ),
        "half a tanh": (
            lstm(out=lambda o, c, old: o * (c / 2).tanh()),
            "c is right; h should be o · tanh(c), ",
        ),
        "3 × 4 alone": (
            lambda x, h, c, *a: [y * (1 if c.shape == (3, 4) else 0.9) for y in lstm()(x, h, c, *a)],
            "right for B = 3 and C = 4, but off by",
        ),
        "torch's": (torch_cell, "right, but write it out yourself, without lstm_cell"),
    },
    "04.3": {
        "each by itself": (
            lambda grads, limit: [g * min(1, limit / float(g.norm() + 1e-6)) for g in grads],
            "each tensor is clipped by its own norm",
        ),
        "each to the limit": (
            lambda grads, limit: [g * limit / g.norm() for g in grads],
            "each tensor is clipped by its own norm",
        ),
        "by value": (lambda grads, limit: [g.clamp(-limit, limit) for g in grads], "each number is clipped"),
        "by value, above": (
            lambda grads, limit: [g.clamp(max=limit) for g in grads],
            "each number is clipped",
        ),
        "nothing": (lambda grads, limit: [g.clone() for g in grads], "nothing is clipped"),
        "squared norm": (limit_over(lambda grads: norm_of(grads) ** 2), "that is limit / norm²"),
        "upside down": (times(lambda grads, limit: norm_of(grads) / limit), "upside down"),
        "to length 1": (times(lambda grads, limit: 1 / norm_of(grads)), "you divide by the norm alone"),
        "times the limit": (times(lambda grads, limit: limit), "you multiply by the limit alone"),
        "sum of norms": (limit_over(lambda grads: sum(g.norm() for g in grads)), "norms do not add up"),
        "root of the norm": (limit_over(lambda grads: norm_of(grads) ** 0.5), "the root of a root"),
        "root mean square": (
            limit_over(lambda grads: torch.cat([g.flatten() for g in grads]).square().mean().sqrt()),
            "the root of the mean of squares",
        ),
        "sum of sizes": (
            limit_over(lambda grads: sum(g.abs().sum() for g in grads)),
            "the sum of the numbers' sizes",
        ),
        "largest": (
            limit_over(lambda grads: max(g.abs().max() for g in grads)),
            "that is the largest number",
        ),
        "sum": (times(lambda grads, limit: limit / sum(g.sum() for g in grads)), "the sum of the numbers:"),
        "the first's norm": (limit_over(lambda grads: grads[0].norm()), "the norm of one tensor decides"),
        "the longest's norm": (
            limit_over(lambda grads: max(g.norm() for g in grads)),
            "the norm of one tensor decides",
        ),
        "also stretched": (
            times(lambda grads, limit: limit / norm_of(grads)),
            "a gradient shorter than the limit stays as it is",
        ),
        "shorter ones to 0": (
            times(lambda grads, limit: limit / norm_of(grads) if norm_of(grads) > limit else 0),
            "a gradient shorter than the limit stays as it is",
        ),
        "in place": (clip_in_place, "you changed what you were given"),
        "the old list": (new_in_the_old_list, "you changed what you were given"),
        "0 / 0": (
            lambda grads, limit: [g / norm_of(grads) * norm_of(grads).clamp(max=limit) for g in grads],
            "a gradient of 0 has norm 0; 0 / 0 is no number",
        ),
        "division by 0": (
            times(lambda grads, limit: min(1, limit / norm_of(grads).item())),
            "a gradient of 0 has norm 0; do not divide by it",
        ),
        "a large eps": (
            times(lambda grads, limit: min(1, limit / (norm_of(grads) + 0.1))),
            "all gradients are multiplied by",
        ),
        "squashed": (lambda grads, limit: [g.tanh() for g in grads], "points another way than before"),
        "by size": (
            lambda grads, limit: [g * min(1, limit / norm_of(grads)) / (1 + g.dim()) for g in grads],
            "one factor for all",
        ),
        "one limit": (
            times(lambda grads, limit: min(1, 0.5 / max(norm_of(grads).item(), 1e-9))),
            "right for four tensors and a limit of 0.5, not for one tensor and one of 0.1",
        ),
        "four tensors": (limit_over(lambda grads: norm_of(grads[:4])), "not for seven tensors and one of 3"),
        "a longest norm": (
            limit_over(lambda grads: norm_of(grads).clamp(max=100)),
            "not for a gradient 1,000 times as large",
        ),
        "flat": (
            lambda grads, limit: torch.cat([g.flatten() for g in grads]),
            "a tensor for each gradient, got Tensor",
        ),
        "with the norm": (
            lambda grads, limit: (limit_over(norm_of)(grads, limit), norm_of(grads)),
            "return the list alone, not (list, norm)",
        ),
        "one missing": (lambda grads, limit: grads[:-1], "4 gradients went in, 3 came out"),
        "flat tensors": (
            lambda grads, limit: [g.flatten() for g in grads],
            "gradient 0 should have shape (3, 4), got (12,)",
        ),
        "generator": (lambda grads, limit: (g for g in grads), "got generator"),
        "torch's": (torch_clip, "right, but write it out yourself, without clip_grad_norm_"),
    },
    "04.4": {
        "the gate": (root, "that is the gate, f"),
        "sign": (lambda n: -logit(root(n)), "the sign is turned"),
        "ln f": (lambda n: math.log(root(n)), "that is ln f"),
        "−ln f": (lambda n: math.log(2) / n, "that is ln f"),
        "σ of the gate": (lambda n: sigma(root(n)), "turn σ round"),
        "odds": (lambda n: root(n) / (1 - root(n)), "the bias is its logarithm"),
        "odds upside down": (lambda n: (1 - root(n)) / root(n), "the bias is minus its logarithm"),
        "log₂": (lambda n: math.log2(root(n) / (1 - root(n))), "the natural logarithm belongs to σ"),
        "log₁₀": (lambda n: math.log10(root(n) / (1 - root(n))), "the natural logarithm belongs to σ"),
        "1/e": (lambda n: logit(math.exp(-1 / n)), "that leaves 1/e, not half"),
        "rule of thumb": (lambda n: math.log(n - 1), "a rule of thumb that leaves about 1/e"),
        "the same amount": (lambda n: logit(1 - 0.5 / n), "does not lose the same amount each step"),
        "0": (lambda n: 0, "a bias of 0 leaves half after one step"),
        "a step more": (lambda n: logit(root(n + 1)), "half after one step more"),
        "a step less": (lambda n: logit(root(n - 1)), "half after one step less"),
        "power for root": (lambda n: logit(0.5**n), "f is the root"),
        "half": (lambda n: logit(root(n)) / 2, "that is half of the bias"),
        "tanh": (lambda n: math.atanh(root(n)), "tanh is not the gate's function"),
        "3": (lambda n: 3, "σ(3.000) = 0.9526 leaves 0.6152 of the memory after 10 steps; half is asked for"),
        "for 10 steps": (lambda n: logit(root(10)), "right for 10 steps, but σ(2.634)"),
        "no step at all": (lambda n: logit(root(n)) if n > 1 else -math.inf, "the bias holds an infinite"),
        "NaN": (lambda n: torch.tensor(root(n) - 1).log(), "a logarithm of a negative number?"),
        "a list": (lambda n: [logit(root(n))], "the bias should have shape (), got (1,)"),
        "half for 1": (lambda n: logit(root(n)) if n > 1 else -1e6, "σ(−1000000.000) = 0.0000"),
    },
    "04b.1": {
        "last column": (lambda y, n: y[:, -1], "which is padding for short sentences"),
        "first word": (lambda y, n: y[:, 0], "where a backward layer ends"),
        "one too far": (step_at(lambda n: n), "count from 0, lengths − 1"),
        "one too far, gathered": (
            lambda y, n: y.gather(1, n[:, None, None].expand(-1, 1, y.shape[2])).squeeze(1),
            "count from 0, lengths − 1",
        ),
        "one too far, round": (
            lambda y, n: step_at(lambda n: n % y.shape[1])(y, n),
            "the step after the last",
        ),
        "one too short": (step_at(lambda n: n - 2), "off by one: lengths − 1 is the last word"),
        "one too short, cut": (step_at(lambda n: (n - 2).clamp(min=0)), "sentence 0 has 3 words"),
        "mean": (lambda y, n: y.mean(1), "the mean over all columns"),
        "mean of the words": (lambda y, n: (y * alive(y, n)).sum(1) / n[:, None], "mean over the real words"),
        "sum": (lambda y, n: (y * alive(y, n)).sum(1), "the sum over the words"),
        "largest": (lambda y, n: (y * alive(y, n)).amax(1), "the largest number over the words"),
        "padding at 0": (lambda y, n: (y * alive(y, n))[:, -1], "its column is still the last one"),
        "from the end": (step_at(lambda n: -n), "counted from the wrong end"),
        "the last that is not 0": (last_not_0, "that is the last column"),
        "by length": (lambda y, n: the_last(y, n)[n.argsort()], "in the order of the lengths"),
        "longest first": (
            lambda y, n: the_last(y, n)[n.argsort(descending=True)],
            "in the order of the lengths",
        ),
        "all lengths": (lambda y, n: y[:, n - 1], "each sentence gets every length"),
        "not squeezed": (gathered, "take the axis of length 1 away"),
        "squeezed too much": (
            lambda y, n: gathered(y, n).squeeze(),
            "for outputs (1, 5, 4) and lengths [2] the answer should have shape (1, 4), got (4,)",
        ),
        "all steps": (lambda y, n: y * alive(y, n), "all steps are still there"),
        "one row": (lambda y, n: the_last(y, n)[-1], "one row in all"),
        "one number": (lambda y, n: the_last(y, n)[:, 0], "one number for each sentence"),
        "no width": (lambda y, n: y[..., 0], "the width is lost"),
        "transposed": (lambda y, n: the_last(y, n).T, "rows and columns are exchanged"),
        "the first's length": (
            lambda y, n: y[:, n[0] - 1],
            "sentence 1 has 6 words; its row should be of step 5",
        ),
        "other sentences": (lambda y, n: the_last(y, n).roll(1, 0), "sentences are mixed"),
        "columns turned": (lambda y, n: the_last(y, n).flip(1), "its columns are not in their order"),
        "smoothed": (lambda y, n: 0.9 * the_last(y, n) + 0.1 * y[:, 0], "holds numbers that outputs has not"),
        "four sentences": (
            lambda y, n: the_last(y, n) if len(n) != 3 else y[:, 0],
            "right for outputs (4, 6, 3), but not for (3, 2, 1) and lengths [1, 2, 1]",
        ),
    },
    "04b.2": {
        "spread": (lambda z, y: ((z > 0) == y).float().mean(), "compares every text with every label"),
        "spread, over n": (
            lambda z, y: ((z > 0) == y).sum() / len(y),
            "compares every text with every label",
        ),
        "spread, at 0.5": (lambda z, y: ((z > 0.5) == y).float().mean(), "compares every text with every"),
        "spread, not averaged": (lambda z, y: ((z > 0) == y).float(), "every text meets every label"),
        "the articles'": (lambda z, y: (z.sigmoid() == y).float().mean(), "hardly one is exactly 0 or 1"),
        "at 0.5": (
            lambda z, y: ((z[:, 0] > 0.5) == y).float().mean(),
            "0.5 is a threshold for probabilities",
        ),
        "scores for labels": (lambda z, y: (z[:, 0] == y).float().mean(), "hardly one is exactly 0 or 1"),
        "errors": (lambda z, y: (said(z) != y).float().mean(), "that is the share of errors"),
        "turned": (lambda z, y: ((z[:, 0] < 0) == y).float().mean(), "that is the share of errors"),
        "how many": (lambda z, y: (said(z) == y).sum(), "that is how many are right; divide by n"),
        "how many errors": (lambda z, y: (said(z) != y).sum(), "that is how many are wrong"),
        "percent": (lambda z, y: 100 * (said(z) == y).float().mean(), "a share, not percent"),
        "σ above 0": (lambda z, y: ((z.sigmoid()[:, 0] > 0) == y).float().mean(), "all are called positive"),
        "argmax": (lambda z, y: (z.argmax(-1) == y).float().mean(), "all are called negative"),
        "softmax": (lambda z, y: (z.softmax(-1)[:, 0] == y).float().mean(), "all are called positive"),
        "labels of −1": (lambda z, y: (z[:, 0].sign() == y).float().mean(), "labels are 0 and 1, not −1"),
        "negatives alone": (
            lambda z, y: ((z[:, 0] <= 0) & (y == 0)).float().mean(),
            "only negatives can be right",
        ),
        "precision": (lambda z, y: sums(z, y)[0] / sums(z, y)[1], "that is precision"),
        "recall": (lambda z, y: sums(z, y)[0] / sums(z, y)[2], "that is recall"),
        "F1": (lambda z, y: 2 * sums(z, y)[0] / (sums(z, y)[1] + sums(z, y)[2]), "that is F1"),
        "balanced": (
            lambda z, y: sum((said(z) == y)[y == k].float().mean() for k in (0, 1)) / 2,
            "the mean of both classes' shares",
        ),
        "probability": (lambda z, y: likely(z, y).mean(), "the mean probability of the right label"),
        "loss": (lambda z, y: -likely(z, y).log().mean(), "that is the loss"),
        "share of positives": (lambda z, y: said(z).float().mean(), "labels are not used"),
        "for each text": (lambda z, y: (said(z) == y).float(), "one number for each text"),
        "beyond 1": (lambda z, y: 1 + (said(z) == y).float().mean(), "a share lies between 0 and 1"),
        "at 1": (lambda z, y: ((z[:, 0] > 1) == y).float().mean(), "10 times the logits have the same signs"),
        "sorted": (
            lambda z, y: (said(z) == y)[1:].float().mean(),
            "the same texts in another order",
        ),
        "smoothed": (lambda z, y: ((said(z) == y).sum() + 1) / (len(y) + 2), "11 of 14 texts are right"),
        "0 is positive": (lambda z, y: ((z[:, 0] >= 0) == y).float().mean(), "a logit of exactly 0"),
        "fourteen texts": (lambda z, y: (said(z) == y).sum() / 14, "a logit of exactly 0 is not above 0"),
        "whole labels": (
            lambda z, y: (said(z) == y).float().mean() * (not y.is_floating_point()),
            "right for 14 texts, but for labels that are floats",
        ),
        "e to the 200": (
            lambda z, y: ((z.exp() / (1 + z.exp()))[:, 0].gt(0.5) == y).float().mean(),
            "right for 14 texts, but for logits of 200 and −200",
        ),
        "bool mean": (lambda z, y: (said(z) == y).mean(), "your function raised RuntimeError"),
    },
    "04b.3": {
        **MISCALIBRATED,
        "lower edges": (
            ece(gap=lambda p, y: abs(middle(p) - 0.05 - y.mean())),
            "you take the lower edge of the bin",
        ),
        "confidence": (
            ece_of(lambda p: np.maximum(p, 1 - p), lambda p, y: (p > 0.5) == y),
            "confidence against accuracy is another variant",
        ),
        "against accuracy": (
            ece_of(y=lambda p, y: (p > 0.5) == y),
            "that compares probability with accuracy",
        ),
        "not divided": (ece(mean=lambda n, gaps: n @ gaps), "the gaps are added up"),
        "rounded": (ece(lambda p, bins: np.round(p * bins).astype(int)), "p · bins is rounded"),
        "labels turned": (ece_of(y=lambda p, y: 1 - y), "the labels are turned"),
        "first bin missing": (
            lambda p, y, bins=10: ece_loop(p, y, bins) - abs((p - y)[p < 0.1].sum()) / len(p),
            "the first bin is missing",
        ),
        "own bin for 1": (
            ece(lambda p, bins: (p * bins).astype(int)),
            "1.0 belongs to the last bin: p = [1.0, 0.95]",
        ),
        "1 lost": (open_above, "1.0 belongs to the last bin"),
        "0 lost": (lambda *a: closed_above(*a, first=0.0), "0.0 belongs to the first bin"),
        "closed above": (closed_above, "a probability on an edge belongs to the bin above it"),
        "bins not used": (lambda p, y, bins=10: ece_loop(p, y), "10 bins, but for 60 texts and bins=4"),
        "smoothed": (
            ece(gap=lambda p, y: abs(p.mean() - (y.sum() + 1) / (len(y) + 2))),
            "the error should be",
        ),
    },
    "04c.1": {
        "no mask": (weighed(lambda e, words: e.softmax(-1)), "padding gets weight: mask before"),
        "mask after": (weighed(lambda e, words: e.softmax(-1) * words), "you mask after the softmax"),
        "0 for padding": (weighed(lambda e, words: (e * words).softmax(-1)), "an energy of 0 is an energy"),
        "a memory of 0": (
            lambda q, m, W, U, v, n: additive(words=lambda S, n: torch.ones(len(n), S).bool())(
                q, m * alive(m, n), W, U, v, n
            ),
            "does not take its weight away",
        ),
        "−2 for padding": (
            weighed(lambda e, words: e.masked_fill(~words, -2).softmax(-1)),
            "sentence 0 has 3 words, so column 3 is padding: its weight should be 0, exactly",
        ),
        "−1000 for padding": (
            weighed(lambda e, words: e.masked_fill(~words, -1e3).softmax(-1)),
            "for energies in the thousands padding gets weight",
        ),
        "renormalised": (weighed(renormalised_words), "a softmax masked afterwards may have nothing left"),
        "overflows": (weighed(unstable), "e^1000 overflows"),
        "over the batch": (
            weighed(lambda e, words: e.masked_fill(~words, -torch.inf).softmax(0)),
            "the softmax goes along the batch",
        ),
        "over the batch, masked after": (
            weighed(lambda e, words: e.softmax(0) * words),
            "the softmax goes along the batch",
        ),
        "over everything": (
            weighed(lambda e, words: e.masked_fill(~words, -torch.inf).flatten().softmax(0).view(e.shape)),
            "over the whole batch at once",
        ),
        "over an axis of 1": (
            weighed(lambda e, words: e[..., None].softmax(-1)[..., 0] * words),
            "every weight is 1: that softmax goes along an axis of length 1",
        ),
        "over an axis of 1, masked": (
            weighed(lambda e, words: e.masked_fill(~words, -torch.inf)[..., None].softmax(-1)[..., 0]),
            "a softmax of −inf alone",
        ),
        "over C": (inside(lambda z: z.tanh().softmax(-1)), "the C numbers go through a softmax"),
        "over C, weights": (
            lambda q, m, W, U, v, n: (q, (v * torch.tanh((q @ W.T)[:, None] + m @ U.T)).softmax(-1)),
            "a weight for each column of the memory",
        ),
        "mask turned": (additive(words=lambda S, n: torch.arange(S) >= n[:, None]), "softmax of −inf alone"),
        "one too many": (additive(words=lambda S, n: torch.arange(S) <= n[:, None]), "one column too many"),
        "one too few": (additive(words=lambda S, n: torch.arange(S) < n[:, None] - 1), "of them stay"),
        "from the end": (
            additive(words=lambda S, n: torch.arange(S) >= S - n[:, None]),
            "the padding comes last",
        ),
        "the first's length": (
            additive(words=lambda S, n: torch.arange(S).expand(len(n), S) < n[0]),
            "the first sentence's length is used for all",
        ),
        "sorted lengths": (
            lambda *a: attended(*a[:-1], a[-1].sort(descending=True).values),
            "lengths of another sentence",
        ),
        "no tanh": (inside(lambda z: z), "without it the softmax takes W q away"),
        "no tanh, no mask": (
            additive(
                lambda q, m, W, U, v: ((q @ W.T)[:, None] + m @ U.T) @ v, lambda e, words: e.softmax(-1)
            ),
            "the same for all words; and the padding is not masked",
        ),
        "σ": (inside(torch.sigmoid), "σ in the place of tanh"),
        "relu": (inside(torch.relu), "relu in the place of tanh"),
        "a tanh each": (
            additive(lambda q, m, W, U, v: ((q @ W.T).tanh()[:, None] + (m @ U.T).tanh()) @ v),
            "has a tanh of its own",
        ),
        "tanh of the energy": (
            additive(lambda q, m, W, U, v: torch.tanh(((q @ W.T)[:, None] + m @ U.T) @ v)),
            "before v, not round the energy",
        ),
        "v inside": (
            additive(lambda q, m, W, U, v: torch.tanh(((q @ W.T)[:, None] + m @ U.T) * v).sum(-1)),
            "v comes after tanh",
        ),
        "no v": (
            additive(lambda q, m, W, U, v: torch.tanh((q @ W.T)[:, None] + m @ U.T).sum(-1)),
            "v is not used",
        ),
        "product": (
            additive(lambda q, m, W, U, v: torch.tanh((q @ W.T)[:, None] * (m @ U.T)) @ v),
            "W q and U m are multiplied",
        ),
        "no q": (of_inputs(q=lambda q, W, U: 0 * q), "q changes nothing: it is not used"),
        "no W": (of_inputs(q=lambda q, W, U: q), "q goes in without W"),
        "no U": (of_inputs(k=lambda m, W, U: m), "the memory goes in without U"),
        "no memory": (of_inputs(k=lambda m, W, U: 0 * m), "all words weigh the same"),
        "W and U": (of_inputs(lambda q, W, U: q @ U.T, lambda m, W, U: m @ W.T), "W and U are exchanged: W"),
        "W transposed": (of_inputs(q=lambda q, W, U: q @ W), "W is transposed"),
        "U transposed": (of_inputs(k=lambda m, W, U: m @ U), "U is transposed"),
        "both transposed": (
            of_inputs(lambda q, W, U: q @ W, lambda m, W, U: m @ U),
            "W and U are transposed",
        ),
        "√C": (inside(lambda z: z.tanh() / z.shape[-1] ** 0.5), "that belongs to the dot product"),
        "a temperature": (inside(lambda z: z.tanh() * 0.8), "your energies are 0.800 times"),
        "sign": (inside(lambda z: -z.tanh()), "the sign is turned"),
        "dot product": (
            additive(lambda q, m, W, U, v: (q[:, None] * m).sum(-1)),
            "that is a dot product; additive attention is v · tanh(W q + U m): yours is of q and m",
        ),
        "scaled dot product": (
            additive(
                lambda q, m, W, U, v: ((q @ W.T)[:, None] * (m @ U.T)).sum(-1) / len(v) ** 0.5,
            ),
            "yours is of W q and U m, by √C",
        ),
        "bilinear": (additive(lambda q, m, W, U, v: ((q @ W)[:, None] * m).sum(-1)), "yours is of q W and m"),
        "argmax": (
            weighed(lambda e, words: (e == e.masked_fill(~words, -9).amax(-1, True)).float()),
            "softmax, not argmax",
        ),
        "energies": (weighed(lambda e, words: e * words), "those are the energies"),
        "not normalised": (weighed(lambda e, words: e.exp() * words), "is not divided by its sum"),
        "σ of energies": (weighed(lambda e, words: e.sigmoid() * words), "σ looks at each energy alone"),
        "log-softmax": (
            weighed(lambda e, words: e.masked_fill(~words, -torch.inf).log_softmax(-1)),
            "holds NaN",
        ),
        "half a softmax": (
            weighed(lambda e, words: e.masked_fill(~words, -torch.inf).softmax(-1) * 0.5),
            "the row of weights of sentence 0 should sum to 1, got 0.5",
        ),
        "sparse": (
            weighed(lambda e, words: renormalised_words(e, words & (e > -1e-9 + (e * words).mean(1, True)))),
            "the weight of word 3 of sentence 1 should be",
        ),
        "a mean over the batch": (
            lambda q, *a: attended(q - q.mean(0), *a),
            "another sentence of the batch changes",
        ),
        "the memory's mean": (
            of_inputs(k=lambda m, W, U: (m - m[:, 3:].mean(1, True)) @ U.T),
            "the memory at padding changes your weights",
        ),
        "plain sum": (mixed_by(lambda w, m: m.sum(1)), "the plain sum of the memory"),
        "plain sum of words": (
            mixed_by(lambda w, m: (m * (w > 0)[..., None]).sum(1)),
            "the plain sum of the memory",
        ),
        "plain mean": (mixed_by(lambda w, m: m.mean(1)), "the plain mean of the memory"),
        "mean of the weighed": (mixed_by(lambda w, m: (w[..., None] * m).mean(1)), "the weights sum to 1"),
        "keys mixed": (
            lambda q, m, W, U, v, n: (attended(q, m, W, U, v, n)[0] @ U.T, attended(q, m, W, U, v, n)[1]),
            "the context is made of U m",
        ),
        "residual": (
            lambda q, *a: (attended(q, *a)[0] + q, attended(q, *a)[1]),
            "that is the query",
        ),
        "weighed twice": (mixed_by(lambda w, m: (w[..., None] ** 2 * m).sum(1)), "is weighed twice"),
        "the best word": (
            mixed_by(lambda w, m: m[torch.arange(len(m)), w.argmax(1)]),
            "that is the word with most weight",
        ),
        "context turned": (mixed_by(lambda w, m: (w[..., None] * m).sum(1).flip(1)), "the weights are right"),
        "context alone": (
            lambda *a: attended(*a)[0],
            "return both, the pair (context, weights); you return one",
        ),
        "three things": (lambda *a: (*attended(*a), 0), "you return 3 things"),
        "weights first": (lambda *a: attended(*a)[::-1], "the weights come first"),
        "not added up": (
            mixed_by(lambda w, m: w[..., None] * m),
            "the context is not added up over the words",
        ),
        "not squeezed": (mixed_by(lambda w, m: w[:, None] @ m), "an axis of length 1 is left"),
        "squeezed too much": (
            mixed_by(lambda w, m: (w[:, None] @ m).squeeze()),
            "for S = 1, C = 1 and lengths [1] the context should have shape (1, 1), got ()",
        ),
        "transposed": (lambda *a: [p.T for p in attended(*a)][::-1], "the context should have shape (3, 4)"),
        "no axis for the words": (
            additive(lambda q, m, W, U, v: torch.tanh(q @ W.T + m @ U.T) @ v),
            "W q needs an axis of length 1 for the words",
        ),
        "6 × 4 alone": (
            lambda q, m, *a: [p * (1 if m.shape[1:] == (6, 4) else 0.9) for p in attended(q, m, *a)],
            "right for S = 6 and C = 4, but for S = 1, C = 1 and lengths [1] off by",
        ),
        "the layer itself": (
            attended_by_layers,
            "right, but write it out yourself, without AdditiveAttention",
        ),
    },
    "04c.2": {
        "factor 2": (lambda T, C: by_products(T, C) / 2, "both are half of it"),
        "factor 2, twice": (lambda T, C: by_products(T, C) * 2, "both are twice of it"),
        "backward too": (lambda T, C: by_products(T, C) * 3, "the backward pass too"),
        "exchanged": (lambda T, C: by_products(T, C)[::-1], "the Transformer comes first"),
        "no W_h": (
            costs(lambda T, C: 8 * T * C**2),
            "for the LSTM you count 8 T C²; W_x x and W_h h are two",
        ),
        "one gate": (costs(lambda T, C: 4 * T * C**2), "there are two matrices, W_x and W_h, and four gates"),
        "a GRU": (costs(lambda T, C: 12 * T * C**2), "that is a GRU"),
        "2 C to 4 C, twice": (costs(lambda T, C: 32 * T * C**2), "input and state are C wide"),
        "one step": (costs(lambda T, C: 16 * C**2), "that is for one token; a sequence has T"),
        "LSTM over pairs": (costs(lambda T, C: 16 * T**2 * C**2), "T² with C²"),
        "biases": (costs(lambda T, C: 16 * T * C**2 + 8 * T * C), "you count 16 T C² + 8 T C; T C alone"),
        "another LSTM": (
            costs(lambda T, C: 20 * T * C**2),
            "for the LSTM you count 20 T C²; that is too much by 4 T C²",
        ),
        "no values": (cost(24, 2), "2 T² C is one product over T × T pairs"),
        "causal": (
            costs(transformer=lambda T, C: 24 * T * C**2 + 2 * T * (T + 1) * C),
            "what a mask would save",
        ),
        "no pairs": (cost(24, 0), "attention itself is forgotten"),
        "pairs, no addition": (cost(24, 1), "additions count too"),
        "each head C wide": (cost(24, 8), "heads share C"),
        "no feed-forward": (cost(8, 4), "the feed-forward is forgotten"),
        "half a feed-forward": (cost(16, 4), "half of the feed-forward is forgotten"),
        "feed-forward C wide": (lambda T, C: by_products(T, C, hidden=1), "and the feed-forward is 4 C wide"),
        "feed-forward alone": (cost(16, 0), "that is the feed-forward alone"),
        "no output": (cost(22, 4), "is it the output projection?"),
        "no q, k, v": (cost(18, 4), "those that make q, k and v"),
        "factor 2 in the Transformer": (cost(12, 2), "half of it"),
        "T² with C²": (
            costs(transformer=lambda T, C: 24 * T * C**2 + 4 * T**2 * C**2),
            "for the Transformer you count 4 T² C² + 24 T C²; T² with C²",
        ),
        "pairs without C": (
            costs(transformer=lambda T, C: 24 * T * C**2 + 4 * T**2),
            "T² alone is no matrix product's",
        ),
        "the softmax too": (
            costs(transformer=lambda T, C: 24 * T * C**2 + 4 * T**2 * C + 3 * T**2),
            "the softmax is left out",
        ),
        "one token": (
            costs(transformer=lambda T, C: 24 * C**2 + 4 * T * C),
            "that is for one token; a sequence has T",
        ),
        "another Transformer": (cost(26, 3), "that is too much by 2 T C²"),
        "too little": (
            cost(24, 3.5),
            "for the Transformer you count 24 T C² + 3.5 T² C; that is too little by 0.5",
        ),
        "cubes": (
            costs(transformer=lambda T, C: 24 * T * C**2 + 4 * T**2 * C + T**3),
            "that is too much by T³",
        ),
        "heads of 64": (
            costs(transformer=lambda T, C: 24 * T * C**2 + 4 * T**2 * max(C, 64)),
            "no sum of products of T and C",
        ),
        "T log T": (
            costs(transformer=lambda T, C: 24 * T * C**2 + T * math.log(T) * C),
            "the Transformer's number is no sum of products of T and C",
        ),
        "one number": (lambda T, C: 16 * T * C**2, "return two numbers, (LSTM, Transformer); you return one"),
        "three numbers": (lambda T, C: (1, 2, 3), "the pair should have shape (2,), got (3,)"),
        "dict": (lambda T, C: {"LSTM": 16 * T * C**2, "Transformer": 1}, "not a dict"),
    },
    "04c.3": {
        "one bias": (fitting(lambda V, C: V * C + 8 * C**2 + 4 * C), "torch has two biases"),
        "no bias": (fitting(lambda V, C: V * C + 8 * C**2), "the biases are not counted"),
        "embedding twice": (fitting(lambda V, C: tied(2 * V, C)), "tied, it is one table"),
        "no embedding": (fitting(lambda V, C: tied(0, C)), "the embedding is not counted"),
        "√(budget / 8)": (lambda V, budget: math.isqrt(budget // 8), "neither the embedding nor the biases"),
        "one matrix": (fitting(lambda V, C: V * C + 4 * C**2 + 8 * C), "one matrix is missing"),
        "one matrix, one bias": (fitting(lambda V, C: V * C + 4 * C**2 + 4 * C), "one matrix and one bias"),
        "4 C² only": (fitting(lambda V, C: V * C + 4 * C**2), "one matrix and the biases are missing"),
        "a GRU": (fitting(lambda V, C: V * C + 6 * C**2 + 6 * C), "that is a GRU"),
        "a plain RNN": (fitting(lambda V, C: V * C + 2 * C**2 + 2 * C), "that is a plain RNN"),
        "two layers": (fitting(lambda V, C: V * C + 16 * C**2 + 16 * C), "that is for two layers"),
        "no matrices": (fitting(lambda V, C: V * C + 8 * C), "the LSTM's matrices are not counted"),
        "a bias of the scores": (fitting(lambda V, C: tied(V, C) + V), "have no bias of V numbers"),
        "one too many": (lambda V, budget: by_halves(V, budget) + 1, "not the smallest that does not"),
        "one too few": (lambda V, budget: by_halves(V, budget) - 1, "one more fits"),
        "the closest": (closest, "that is the closest"),
        "not rounded": (
            real_root,
            "a width is a whole number; for V = 1000, budget = 301,013 yours is 140.95",
        ),
        "rounded up": (lambda V, budget: math.ceil(real_root(V, budget)), "not the smallest that does not"),
        "parameters": (lambda V, budget: tied(V, by_halves(V, budget)), "that is the number of parameters"),
        "multiples of 8": (
            lambda V, budget: by_halves(V, budget) // 8 * 8,
            "yours is 136, but C = 137 fits too",
        ),
        "powers of 2": (lambda V, budget: 2 ** round(math.log2(1 + real_root(V, budget))), "fits too, with"),
        "three layers": (
            fitting(lambda V, C: V * C + 24 * (C**2 + C)),
            "V = 1000, budget = 301,013: yours is 92, but C = 93 fits too",
        ),
        "no table for V < 100": (
            fitting(lambda V, C: tied(V if V > 100 else 0, C)),
            "parameters, too many",
        ),
        "fewer than the budget": (fitting(lambda V, C: tied(V, C) + 1), "at most, ≤, not <"),
        "rounding": (by_floats, "rounding? Count in whole numbers"),
        "at least 1": (lambda V, budget: max(1, by_halves(V, budget)), "so none fits: 0, not 1"),
        "−1 for none": (
            lambda V, budget: by_halves(V, budget) or -1,
            "a width is not negative",
        ),
        "None for none": (lambda V, budget: by_halves(V, budget) or None, "your function returned None"),
        "from above": (from_above, "solve 8 C² + (V + 8) C = budget"),
        "a pair": (lambda V, budget: (by_halves(V, budget), tied(V, 1)), "return the width alone"),
    },
    "05.1": {
        "no k": (lambda p, q, k: p / (p + q), "k is forgotten"),
        "k on p": (lambda p, q, k: k * p / (k * p + q), "k is on p"),
        "1 − D": (lambda p, q, k: k * q / (p + k * q), "that is 1 − D, how sure"),
        "p and q exchanged": (lambda p, q, k: q / (q + k * p), "p and q are exchanged"),
        "1 − D, no k": (lambda p, q, k: q / (p + q), "that is 1 − D, and k is forgotten"),
        "normalised over x": (
            lambda p, q, k: (p / (p + k * q)) / (p / (p + k * q)).sum(),
            "normalised over x",
        ),
        "adds up to 1": (lambda p, q, k: p**2 / (p**2).sum(), "your D adds up to 1 over x"),
        "k above": (lambda p, q, k: k * p / (p + k * q), "k stands above"),
        "k over both": (lambda p, q, k: p / (k * (p + q)), "k multiplies p below too"),
        "odds": (lambda p, q, k: p / (k * q), "a ratio of true to fake"),
        "logit": (lambda p, q, k: (p / (k * q)).log(), "σ of it is D"),
        "log D": (lambda p, q, k: (p / (p + k * q)).log(), "that is log D"),
        "a power": (lambda p, q, k: p / (p + q**k), "not a power"),
        "k twice": (lambda p, q, k: p / (p + k**2 * q), "k counts twice"),
        "k added": (lambda p, q, k: p / (p + q + k), "k is added"),
        "hard": (lambda p, q, k: (p > k * q).float(), "a hard yes or no"),
        "1/2": (lambda p, q, k: torch.full_like(p, 0.5), "1/2 is the answer where p = k q"),
        "1 / (1 + k)": (lambda p, q, k: torch.full_like(p, 1 / (1 + k)), "where p = q, not everywhere"),
        "the game's value": (
            lambda p, q, k: (p * (p / (p + k * q)).log()).sum(),
            "not the value of the game",
        ),
        "both answers": (lambda p, q, k: (p / (p + k * q), k * q / (p + k * q)), "return D alone"),
        "above 1": (lambda p, q, k: 20 * p, "D is a probability, 0 to 1"),
        "a guess": (
            lambda p, q, k: 0.9 * p / (p + k * q),
            "D should be 0.4947, where p log D + k q log(1 − D) is −0.3515; yours is 0.4452, where it is",
        ),
        "2 for k": (lambda p, q, k: p / (p + 2 * q), "right for k = 2, but at p ="),
        "made probabilities": (
            lambda p, q, k: (p / p.sum()) / (p / p.sum() + k * q / q.sum()),
            "densities need not add up to 1",
        ),
        "0 / 0": (lambda p, q, k: 1 / (1 + k * (p * q) / (p * p)), "where p alone is 0 D is 0"),
        "a floor": (lambda p, q, k: p.clamp(1e-3) / (p.clamp(1e-3) + k * q), "right, but at p = 0.000"),
    },
    "05.2": {
        "signs": (pair_of(lambda σ: σ, lambda σ: 1 - σ), "both signs are turned"),
        "exchanged": (pair_of(lambda σ: σ - 1, lambda σ: -σ), "the two are exchanged: log"),
        "exchanged, signs": (pair_of(lambda σ: 1 - σ, lambda σ: σ), "exchanged and both signs turned"),
        "σ'": (
            pair_of(lambda σ: σ * (1 - σ), lambda σ: σ * (1 - σ)),
            "that is the slope of σ; the logarithm",
        ),
        "of the probability": (
            pair_of(lambda σ: -1 / (1 - σ), lambda σ: -1 / σ),
            "slopes with respect to the probability",
        ),
        "the losses": (pair_of(lambda σ: (1 - σ).log(), lambda σ: -σ.log()), "those are the losses"),
        "probabilities": (pair_of(lambda σ: σ, lambda σ: σ), "those are probabilities"),
        "never cleared": (backward_twice, "both are added up in s.grad"),
        "never cleared, one tensor": (
            lambda s: backward_twice(s, keep=lambda g: g),
            "both are added up in s.grad",
        ),
        "zeroed, one tensor": (
            lambda s: backward_twice(s, zero_grad, lambda g: g),
            "both are the slope of −log σ(s)",
        ),
        "the first twice": (pair_of(second=lambda σ: -σ), "both are the slope of log(1 − σ(s))"),
        "of the mean": (sloped(of=torch.mean), "that is the slope of the mean over 6 logits"),
        "log₂": (pair_of(lambda σ: -σ / math.log(2), lambda σ: (σ - 1) / math.log(2)), "natural logarithm"),
        "the discriminator's": (pair_of(lambda σ: σ), "while the discriminator's, −log(1 − σ(s)), rises"),
        "second sign": (pair_of(second=lambda σ: 1 - σ), "look at −log σ(s)"),
        "second loss": (pair_of(second=lambda σ: -σ.log()), "that is the loss, not its slope: look at −log"),
        "one of the probability": (pair_of(second=lambda σ: -1 / σ), "without the slope of σ: look at −log"),
        "one of σ": (pair_of(lambda σ: -σ * (1 - σ)), "without that of the logarithm: look at log(1"),
        "squared": (pair_of(lambda σ: -(σ**2)), "is squared; it stands there once: look at log(1"),
        "cut": (pair_of(lambda σ: 0 * σ), "that is 0; it has a slope"),
        "half": (pair_of(lambda σ: -σ / 2), "the slope of log(1 − σ(s)) is 0.500 times"),
        "tanh": (lambda s: (-s.sigmoid(), s.tanh() - 1), "at s = −1.2 the slope of −log σ(s) is"),
        "summed": (lambda s: [part.sum() for part in sloped()(s)], "one number for all logits together"),
        "of all": (lambda s: sum(part.sum() for part in sloped()(s)), "you return one number"),
        "the first alone": (lambda s: -s.sigmoid(), "the pair of tensors; you return one"),
        "three": (lambda s: (-s.sigmoid(), s.sigmoid(), s), "you return 3 things"),
        "pairs": (lambda s: torch.stack(pair_of()(s), -1), "not a pair for each s"),
        "Jacobians": (jacobians, "only the diagonal is not 0"),
        "not a number": (sloped(of=lambda loss: loss), "autograd starts from one number"),
        "unseen": (
            lambda s: (F.softplus(s).sum().backward(), s.grad),
            "autograd did not see s",
        ),
        "no leaf": (
            lambda s: ((-F.softplus(2 * s.requires_grad_())).sum().backward(), None),
            "a slope is None",
        ),
        "log(1 − σ)": (
            sloped(lambda s: (1 - s.sigmoid()).log(), lambda s: -s.sigmoid().log()),
            "for large s the pair of slopes holds NaN: σ(1000) rounds to 1",
        ),
        "rows alone": (
            lambda s: (-s.sigmoid(), s.sigmoid() - 1) if s.dim() == 1 else (-s.sigmoid(), -s.sigmoid()),
            "for s of shape (2, 3) at s =",
        ),
        "saturates": (
            lambda s: (-s.clamp(-4, 4).sigmoid(), s.clamp(-4, 4).sigmoid() - 1),
            "for large s at s =",
        ),
    },
    "05.3": {
        "unsorted": (way(lambda x, y: (x - y).abs()), "not sorted"),
        "one sorted": (way(lambda x, y: (ordered(x) - y).abs()), "only one of the two is sorted"),
        "against each other": (way(lambda x, y: (ordered(x) - ordered(y).flip(0)).abs()), "the longest way"),
        "means": (lambda x, y: (x.mean() - y.mean()).abs(), "that is the difference of the means"),
        "squared": (way(lambda x, y: (ordered(x) - ordered(y)) ** 2), "that is the squared way"),
        "root mean square": (lambda x, y: (ordered(x) - ordered(y)).square().mean().sqrt(), "W₂"),
        "sum": (way(mean=torch.sum), "that is the sum of all ways"),
        "N − 1": (lambda x, y: way(mean=torch.sum)(x, y) / (len(x) - 1), "you divide by N − 1 = 6"),
        "2 N": (lambda x, y: way()(x, y) / 2, "you divide by 2 N"),
        "max": (way(mean=torch.max), "the longest way of one sample"),
        "median": (way(mean=torch.median), "that is the middle way"),
        "nearest": (lambda x, y: (x[:, None] - y).abs().amin(1).mean(), "two may share one"),
        "in turn": (in_turn, "the nearest that is left"),
        "all pairs": (lambda x, y: (x[:, None] - y).abs().mean(), "that pairs every x with every y"),
        "energy": (
            lambda x, y: (
                2 * torch.cdist(x[:, None], y[:, None]).mean()
                - torch.cdist(x[:, None], x[:, None]).mean()
                - torch.cdist(y[:, None], y[:, None]).mean()
            ),
            "the energy distance",
        ),
        "places": (
            lambda x, y: (x.argsort() - y.argsort()).abs().float().mean(),
            "argsort gives places, not the samples",
        ),
        "sort twice": (lambda x, y: (torch.sort(x) - torch.sort(y)).abs().mean(), "take .values"),
        "each": (lambda x, y: (ordered(x) - ordered(y)).abs(), "the way of each sample; the mean"),
        "table": (lambda x, y: (x[:, None] - y).abs(), "each x goes to one y alone"),
        "bins": (bins, "changes your distance"),
        "nothing moves": (lambda x, y: 0.0, "in another order the mean way is 3, yours 0.000"),
        "widths": (
            lambda x, y: (x.std() - y.std()).abs(),
            "with y = x + 3 in another order the mean way is 3",
        ),
        "signed": (lambda x, y: x.mean() - y.mean() - 9, "a distance is not negative"),
        "the first's order": (
            lambda x, y: (x[x.argsort()] - y[x.argsort()]).abs().mean() * 1.01,
            "with y = x in another order the mean way is 0",
        ),
        "not back": (
            lambda x, y: way()(x, y) * (1 + 0.1 * (x.std() > y.std())),
            "from y to x should be as far",
        ),
        "from 0": (
            lambda x, y: way()(x, y) * (1 + 0.01 * (x.std() - y.std()).abs() * (x.mean() + y.mean())),
            "moving x and y together by 20",
        ),
        "bounded": (
            lambda x, y: way()(x, y) if (x.std() - y.std()).abs() < 1e-3 else 4 * way()(x, y).tanh(),
            "makes your distance",
        ),
        "short of it": (
            lambda x, y: way()(x, y) - 0.1 * (x.std() - y.std()).abs(),
            "the cheapest pairing moves a sample by",
        ),
        "7 alone": (lambda x, y: way()(x, y) * len(x) / 7, "right for 7 samples, but for 1"),
        "a set": (
            lambda x, y: way()(x.unique(), y.unique()) if len(x.unique()) == len(y.unique()) else 0,
            "where samples are equal",
        ),
        "scipy": (lambda x, y: wasserstein_distance(x, y), "without wasserstein_distance"),
    },
    "05b.1": {
        "no minus in front": (largest(lambda z, u: z + (-u.log()).log()), "the minus in front is missing"),
        "no inner minus": (largest(lambda z, u: z - u.log().log()), "the inner minus is missing"),
        "one logarithm": (largest(lambda z, u: z - u.log()), "a logarithm is missing"),
        "u": (largest(lambda z, u: z + u), "u itself is added: the noise is"),
        "softmax + u": (largest(lambda z, u: z.softmax(-1) + u), "u itself is added, and to softmax"),
        "softmax + noise": (
            largest(lambda z, u: z.softmax(-1) + noise_of(u)),
            "the noise is added to softmax",
        ),
        "e^logits + noise": (largest(lambda z, u: z.exp() + noise_of(u)), "the noise is added to e^logits"),
        "no noise": (largest(lambda z, u: z), "the likeliest word each time"),
        "one noise a row": (largest(lambda z, u: z + noise_of(u[:, :1])), "the same for all words of a row"),
        "noise alone": (largest(lambda z, u: noise_of(u)), "that is the noise alone"),
        "argmin": (lambda z, u: (z + noise_of(u)).argmin(-1), "that is the smallest"),
        "times": (largest(lambda z, u: z * noise_of(u)), "the noise multiplies"),
        "1 − u": (largest(lambda z, u: z + noise_of(1 - u)), "1 − u in the place of u"),
        "normal": (largest(lambda z, u: z + torch.special.ndtri(u)), "the noise is normal"),
        "logistic": (largest(lambda z, u: z + u.logit()), "that is logistic noise"),
        "log₂": (largest(lambda z, u: z - (-u.log2()).log2()), "the natural logarithm is meant"),
        "one row's noise": (largest(lambda z, u: z + noise_of(u[0])), "the first row's noise"),
        "counts up": (counted_up, "that counts up softmax"),
        "from 1": (lambda z, u: (z + noise_of(u)).argmax(-1) + 1, "words count from 0"),
        "from −1": (
            lambda z, u: (z + noise_of(u)).argmax(-1) - 1,
            "a word is one of the row's, 0 to 4; yours go from −1 to 3",
        ),
        "other axis": (lambda z, u: (z + noise_of(u)).argmax(0), "the argmax goes along the batch"),
        "no axis": (lambda z, u: (z + noise_of(u)).argmax(), "one number for the whole batch"),
        "kept axis": (lambda z, u: (z + noise_of(u)).argmax(-1, keepdim=True), "no keepdim"),
        "one-hot": (
            lambda z, u: F.one_hot((z + noise_of(u)).argmax(-1), z.shape[-1]),
            "a number for each word: one-hot, or scores?",
        ),
        "max": (lambda z, u: (z + noise_of(u)).max(-1), "that is the largest and its place"),
        "amax": (lambda z, u: (z + noise_of(u)).amax(-1), "the place of the largest, not itself"),
        "noise of its own": (drawn, "asked twice with the same u"),
        "gumbel_softmax": (lambda z, u: F.gumbel_softmax(z).argmax(-1), "asked twice with the same u"),
        "the first word": (lambda z, u: torch.full((len(z),), 1), "you pick word 1 each time"),
        "colder": (largest(lambda z, u: 2 * z + noise_of(u)), "a word of probability 0.45 comes"),
        "backwards": (
            largest(lambda z, u: z + noise_of(u.flip(-1))),
            "in row 1 word 4 has the largest logit + noise, 1.516; yours, word 0, has 0.838",
        ),
        "5 words": (
            largest(lambda z, u: z + noise_of(u) * (1 if z.shape[1] in (4, 5) else 0)),
            "right for B = 200 and V = 5, but for B =",
        ),
        "overflows": (lambda z, u: (-u.log() / z.exp()).argmin(-1), "e^1000 overflows"),
        "impossible": (
            largest(lambda z, u: z.nan_to_num(neginf=0) + noise_of(u)),
            "a word whose logit is −∞ must never come",
        ),
    },
    "05b.2": {
        "mean of all": (less(torch.mean), "that is the mean of all 5: a sentence's own"),
        "standardised": (lambda v: (v - v.mean()) / v.std(), "you divide by the spread"),
        "others, standardised": (lambda v: (v - of_others(v)) / v.std(), "you divide by the spread"),
        "sum of others": (less(lambda v: v.sum() - v), "the others are added up"),
        "sum of all": (less(torch.sum), "all are added up"),
        "by B": (less(lambda v: (v.sum() - v) / len(v)), "you divide the others' sum by B = 5"),
        "all by B − 1": (less(lambda v: v.sum() / (len(v) - 1)), "the sum of all 5 is divided by B − 1"),
        "the baseline": (of_others, "those are the baselines"),
        "sign": (lambda v: of_others(v) - v, "the sign is turned"),
        "mean of all, sign": (lambda v: v.mean() - v, "that is the mean of all, turned round"),
        "nothing": (lambda v: v, "nothing is taken away"),
        "median": (less(torch.median), "the median is taken away"),
        "best": (less(torch.max), "the best is taken away"),
        "worst": (less(torch.min), "the worst is taken away"),
        "neighbour": (lambda v: v - v.roll(1), "that is one other sentence"),
        "those before": (
            less(lambda v: torch.stack([v[:k].mean() if k else 0 * v[0] for k in range(len(v))])),
            "the mean of those before",
        ),
        "ratio": (lambda v: v / of_others(v), "that is a ratio"),
        "softmax": (lambda v: v.softmax(0), "that is a softmax"),
        "ranks": (lambda v: v.argsort().argsort(), "those are places in the order"),
        "sorted": (lambda v: (v - of_others(v)).sort().values, "no sorting"),
        "(B − 1) / B": (
            lambda v: (v - v.mean()) * (len(v) - 1) / len(v),
            "that is 0.800 times (value − mean of all)",
        ),
        "a tenth of its own": (less(lambda v: 0.9 * of_others(v) + 0.1 * v), "that is 1.125 times (value"),
        "knows itself": (
            less(lambda v: of_others(v) + 0.1 * v**2),
            "its baseline knows its own value",
        ),
        "root of the others": (
            less(lambda v: ((v.square().sum() - v.square()) / (len(v) - 1)).sqrt()),
            "the share it has in their mean",
        ),
        "0.1 too much": (lambda v: v - of_others(v) + 0.1, "less the mean of the others is"),
        "5 alone": (lambda v: (v - v.mean()) * 1.25, "right for 5 values, but for 2"),
        "two alone": (
            lambda v: (v - v.mean()) / (v.mean() - v.mean()) if len(v) == 2 else v - of_others(v),
            "each of two sentences has one other",
        ),
        "other values": (less(of_other_values), "leave out a place, not a value"),
        "one number": (lambda v: (v - of_others(v)).mean(), "one number for all"),
        "differences": (lambda v: v[:, None] - v, "a number for each pair of sentences"),
        "all but one": (lambda v: (v - of_others(v))[1:], "one is missing"),
        "a column": (lambda v: (v - of_others(v))[:, None], "an axis of length 1 is left"),
    },
    "05b.3": {
        "exchanged": (lambda p, q: (kl(q, p), kl(p, q)), "the two are exchanged: KL"),
        "bits": (both_ways(lambda p, q: kl(p, q) / math.log(2)), "that is in bits"),
        "log₁₀": (both_ways(lambda p, q: (p * (p / q).log10()).sum()), "those are base 10"),
        "sign": (both_ways(lambda p, q: (p * (q / p).log()).sum()), "both signs are turned: Σ"),
        "exchanged, sign": (lambda p, q: (-kl(q, p), -kl(p, q)), "which exchanges them and turns both signs"),
        "cross entropy": (both_ways(lambda p, q: -(p * q.log()).sum()), "that is the cross entropy; take"),
        "cross entropy, exchanged": (
            both_ways(lambda p, q: -(q * p.log()).sum()),
            "that is the cross entropy, exchanged",
        ),
        "entropies": (both_ways(lambda p, q: -(p * p.log()).sum()), "those are the entropies"),
        "the first twice": (lambda p, q: (kl(p, q), kl(p, q)), "both are KL(p‖q)"),
        "the second twice": (lambda p, q: (kl(q, p), kl(q, p)), "both are KL(q‖p)"),
        "mean": (both_ways(lambda p, q: (p * (p / q).log()).mean()), "that is the mean over 4 outcomes"),
        "against the middle": (both_ways(lambda p, q: kl(p, (p + q) / 2)), "Jensen–Shannon's half"),
        "Jensen–Shannon": (both_ways(jensen_shannon), "that is Jensen–Shannon, the same both ways"),
        "both ways": (both_ways(lambda p, q: kl(p, q) + kl(q, p)), "that is the mean or the sum of both"),
        "not weighed": (both_ways(lambda p, q: (p / q).log().sum()), "the logarithm is not weighed"),
        "no logarithm": (both_ways(lambda p, q: (p * (p - q)).sum()), "the logarithm is missing"),
        "log outside": (both_ways(lambda p, q: (p * p / q).sum().log()), "the logarithm goes inside"),
        "abs": (both_ways(lambda p, q: (p * (p / q).log().abs()).sum()), "abs does not belong there"),
        "NaN at 0": (
            both_ways(lambda p, q: (p * (p / q).log()).sum()),
            "one is NaN: where p and q are both 0",
        ),
        "0 log 0": (
            both_ways(
                lambda p, q: (p * (p.where((p > 0) | (q > 0), 1) / q.where((p > 0) | (q > 0), 1)).log()).sum()
            ),
            "one is NaN: where one is 0 alone",
        ),
        "epsilon": (
            both_ways(lambda p, q: (p * ((p + 1e-12) / (q + 1e-12)).log()).sum()),
            "where p is 0.1 and q 0, KL(p‖q) is infinite, not 2.",
        ),
        "clamped": (both_ways(lambda p, q: kl(p, q.clamp(1e-30))), "clamp nothing, leave nothing out"),
        "both above 0": (both_ways(kl_where(lambda p, q: (p > 0) & (q > 0))), "leave nothing out"),
        "divides by 0": (both_ways(kl_divides), "where one is 0 alone: 0 log 0 = 0"),
        "one infinite, both infinite": (
            lambda p, q: (torch.inf, torch.inf) if (p > 0).ne(q > 0).any() else (kl(p, q), kl(q, p)),
            "right, but where p is 0.1 and q 0, KL(q‖p) should be",
        ),
        "none in common": (
            lambda p, q: (0.0, 0.0) if p @ q == 0 else (kl(p, q), kl(q, p)),
            "with nothing in common both are infinite",
        ),
        "0.1 too much": (
            both_ways(lambda p, q: kl(p, q) + 0.1),
            "from p to p itself both are 0, yours 0.100",
        ),
        "squares": (both_ways(lambda p, q: ((p - q) ** 2 / q).sum()), "KL(p‖q) should be"),
        "4 outcomes": (
            both_ways(lambda p, q: kl(p, q) * len(p) / 4),
            "right for 4 outcomes, but for 2",
        ),
        "terms": (both_ways(lambda p, q: torch.xlogy(p, p / q)), "a number for each outcome"),
        "the first alone": (kl, "you return one Tensor"),
        "three": (lambda p, q: (kl(p, q), kl(q, p), 0.0), "KL(q‖p)); you return 3"),
        "ready-made": (
            lambda p, q: (F.kl_div(q.log(), p, reduction="sum"), F.kl_div(p.log(), q, reduction="sum")),
            "one is NaN: where p and q are both 0",
        ),
        "rel_entr": (lambda p, q: (rel_entr(p, q).sum(), rel_entr(q, p).sum()), "without rel_entr"),
    },
    "06.1": {
        "shortest": (cut_by(shortest), "you take the shortest piece that fits"),
        "no ##": (cut_by(looked_up=("", ""), shown=("", "")), "you look pieces up without ##: a piece"),
        "## added later": (cut_by(looked_up=("", "")), "without ##, and add it later"),
        "## left out": (cut_by(shown=("", "")), "the ## is missing in what you return"),
        "## throughout": (
            cut_by(looked_up=("##", "##"), shown=("##", "##")),
            "neither looked up nor returned",
        ),
        "## before the first": (cut_by(shown=("##", "##")), "the first piece begins the word: no ## there"),
        "marks exchanged": (cut_by(looked_up=("##", ""), shown=("##", "")), "## marks the pieces that go on"),
        "pieces so far": (cut_by(stuck=lambda pieces, rest: pieces), "you give the pieces found so far"),
        "and [UNK]": (
            cut_by(stuck=lambda pieces, rest: [*pieces, "[UNK]"]),
            "you add it to the pieces found",
        ),
        "and the rest": (
            cut_by(stuck=lambda pieces, rest: [*pieces, ("##" if pieces else "") + rest]),
            "you give what is left as a piece",
        ),
        "UNK": (cut_by(stuck=lambda pieces, rest: ["UNK"]), "with its brackets"),
        "nothing": (cut_by(stuck=lambda pieces, rest: []), "you return an empty list"),
        "None": (cut_by(stuck=lambda pieces, rest: None), "return the list ['[UNK]'], not None"),
        "a string": (cut_by(stuck=lambda pieces, rest: "[UNK]"), "['[UNK]'], not '[UNK]'"),
        "the word": (lambda w, v: [w] if (a := cut_by()(w, v)) == ["[UNK]"] else a, "you return the word"),
        "letters left out": (leaves_letters_out, "you leave out letters and go on"),
        "letters unknown": (lambda w, v: leaves_letters_out(w, v, ["[UNK]"]), "you put it for a letter"),
        "turns back": (lambda w, v: next(every_cut(w, v), ["[UNK]"]), "you turn back where you get stuck"),
        "fewest": (lambda w, v: min(every_cut(w, v), key=len, default=["[UNK]"]), "you look for the fewest"),
        "from the right": (cut_from_the_right, "you cut from the right"),
        "whole or nothing": (lambda w, v: [w] if w in v else ["[UNK]"], "the whole word or [UNK]; cut it"),
        "letters": (lambda w, v: list(w), "those are letters"),
        "the word itself": (lambda w, v: [w], "that is the word itself"),
        "never to the end": (
            cut_by(lambda w, v, mark: longest(w[:-1], v, mark)),
            "every word is [UNK]: is the whole of what is left tried",
        ),
        "for ever": (cut_by(lambda w, v, mark: longest(w, v, mark) or 0), "'happen' is never done"),
        "stands still": (cut_by(lambda w, v, mark: 0), "'unaffable' is never done"),
        "joined": (lambda w, v: " ".join(cut_by()(w, v)), "return a list of pieces, not a str"),
        "numbers": (lambda w, v: list(map(len, cut_by()(w, v))), "a piece is a string; one of yours is 2"),
        "long pieces alone": (
            cut_by(two_letters_at_least),
            "'players' should become ['player', '##s'], yours is ['[UNK]']: it can be cut to its end",
        ),
        "short pieces alone": (cut_by(three_letters_at_most), "'play' fits, but 'player' is longer"),
        "the last forgotten": (lambda w, v: cut_by()(w, v)[:2], "pieces are missing"),
        "all twice": (lambda w, v: cut_by()(w, v) * 2, "the word is done before"),
        "one unknown": (
            lambda w, v: ["##x" if p == "##able" else p for p in cut_by()(w, v)],
            "'##x' is not in the vocabulary",
        ),
        "learned by heart": (
            lambda w, v: cut_by()(w, v) if "play" in v else [w],
            "with the vocabulary [",
        ),
        "the package's": (lambda w, v: wordpiece(w, v), "without wordpiece"),
    },
    "06.2": {
        "always [MASK]": (hidden(masked=1, stays=2), "each chosen word becomes [MASK]: of ten"),
        "[CLS] too": (
            hidden(allowed=lambda ids, words: words | (ids == 1)),
            "[CLS] is to be guessed: only where words is True",
        ),
        "[SEP] too": (hidden(allowed=lambda ids, words: ids > 1), "[SEP] is to be guessed"),
        "padding too": (hidden(allowed=lambda ids, words: words | (ids == 0)), "padding is to be guessed"),
        "padding changed": (
            hidden(back=lambda seen, guess, ids: (seen.masked_fill(ids == 0, 3), guess)),
            "padding, [CLS] or [SEP] is changed in seen",
        ),
        "guess where changed": (
            hidden(back=lambda seen, guess, ids: (seen, seen != ids)),
            "guess is True only where seen differs from ids: the tenth that stays",
        ),
        "guess where masked": (
            hidden(back=lambda seen, guess, ids: (seen, guess & (seen == 3))),
            "guess is True only where [MASK] stands",
        ),
        "none stays": (hidden(stays=0.8), "none stays as it is"),
        "none random": (hidden(stays=2), "none becomes a random token"),
        "all stay": (hidden(masked=0, stays=2), "each chosen word stays as it is"),
        "a tenth of the rest": (independent_tenths, "the last fifth is shared by halves"),
        "half masked": (
            hidden(masked=0.5, stays=0.75),
            "it should be 0.8, 0.1 and 0.1",
        ),
        "others changed": (changes_others, "of the words are changed in seen, but not to be guessed"),
        "85 %": (
            hidden(lambda ids, draw: torch.rand(ids.shape, generator=draw) > 0.15),
            "that is the other 85 %",
        ),
        "a fifth": (
            hidden(lambda ids, draw: torch.rand(ids.shape, generator=draw) < 0.2),
            "of the words are to be guessed; it should be 0.15",
        ),
        "none": (hidden(lambda ids, draw: ids < 0), "no word is to be guessed"),
        "103": (
            lambda ids, words, mask_id, V, draw: hidden()(ids, words, 103, V, draw),
            "most chosen words become token 103; [MASK] is mask_id, here 3",
        ),
        "same places": (
            hidden(lambda ids, draw: torch.rand(ids.shape[1], generator=draw) < 0.15),
            "the same places are chosen in each sentence",
        ),
        "whole sentences": (
            hidden(lambda ids, draw: torch.rand(len(ids), 1, generator=draw) < 0.15),
            "some sentences have far more to guess",
        ),
        "so many a sentence": (so_many_a_sentence, "as many are to be guessed in each sentence"),
        "so many a batch": (
            so_many_a_batch,
            "in each of seven draws 34 words are to be guessed; each word by itself has a chance of 0.15",
        ),
        "one fate a place": (
            hidden(fate=lambda ids, draw: torch.rand(ids.shape[1], generator=draw)),
            "is one draw for all chosen words of a place",
        ),
        "one fate a sentence": (
            hidden(fate=lambda ids, draw: torch.rand(len(ids), 1, generator=draw)),
            "is one draw for all chosen words of a sentence",
        ),
        "one random token": (
            hidden(random=lambda ids, V, draw: torch.randint(V, (), generator=draw)),
            "draw one for each place",
        ),
        "one random token a sentence": (
            hidden(random=lambda ids, V, draw: torch.randint(V, (len(ids), 1), generator=draw)),
            "the random tokens of a sentence are all the same",
        ),
        "one random token a place": (
            hidden(random=lambda ids, V, draw: torch.randint(V, (ids.shape[1],), generator=draw)),
            "different tokens among",
        ),
        "another of the batch": (
            hidden(
                random=lambda ids, V, draw: ids.flatten()[
                    torch.randperm(ids.numel(), generator=draw)
                ].view_as(ids)
            ),
            "the random tokens all stand in the batch",
        ),
        "up to V": (
            hidden(random=lambda ids, V, draw: V + 0 * ids + torch.randint(2, ids.shape, generator=draw)),
            "the V = 1000 tokens count from 0 to 999",
        ),
        "from 100 on": (
            hidden(random=lambda ids, V, draw: torch.randint(V // 2, V, ids.shape, generator=draw)),
            "your random tokens go from 50",
        ),
        "1,000 throughout": (
            hidden(random=lambda ids, V, draw: torch.randint(1000, ids.shape, generator=draw)),
            "for V = 40 a random token is above 39",
        ),
        "no draw": (
            hidden(lambda ids, draw: torch.rand(ids.shape) < 0.15),
            "asked twice with the same draw you hide other words",
        ),
        "own seed": (own_generator, "asked with another draw you hide the same words"),
        "exchanged": (hidden(back=lambda seen, guess, ids: (guess, seen)), "seen comes first, then guess"),
        "targets": (
            hidden(back=lambda seen, guess, ids: (seen, ids.where(guess, -100))),
            "guess is True or False for each token, not the token",
        ),
        "seen alone": (hidden(back=lambda seen, guess, ids: seen), "you return one"),
        "three": (hidden(back=lambda seen, guess, ids: (seen, guess, ids)), "you return 3"),
        "the package's": (lambda *a: hide_words(*a), "without hide_words"),
    },
    "06.3": {
        "all tokens": (lambda z, y, g: F.cross_entropy(z.mT, y), "that is the mean over all tokens"),
        "sum": (loss_of(mean=lambda log_p: -log_p.sum()), "that is the sum; take the mean"),
        "by B T": (lambda z, y, g: (each_nats(z, y) * g).mean(), "you divide by B · T = 15"),
        "by B": (lambda z, y, g: (each_nats(z, y) * g).sum() / len(z), "you divide by B = 3"),
        "by sentences": (
            lambda z, y, g: ((each_nats(z, y) * g).sum(1) / g.sum(1)).mean(),
            "each sentence counts the same for you",
        ),
        "no log": (lambda z, y, g: -chosen_p(z, y, g).mean(), "probabilities without the logarithm"),
        "1 − p": (lambda z, y, g: (1 - chosen_p(z, y, g)).mean(), "probabilities without the logarithm"),
        "log of the mean": (lambda z, y, g: -chosen_p(z, y, g).mean().log(), "the logarithm goes inside"),
        "next token": (
            lambda z, y, g: F.cross_entropy(z[:, :-1][g[:, 1:]], y[:, 1:][g[:, 1:]]),
            "compared with the next token, as in a causal model",
        ),
        "next token, rolled": (
            lambda z, y, g: F.cross_entropy(z[g], y.roll(-1, 1)[g]),
            "compared with the next token, as in a causal model",
        ),
        "token before": (
            lambda z, y, g: F.cross_entropy(z[:, 1:][g[:, 1:]], y[:, :-1][g[:, 1:]]),
            "compared with the token before",
        ),
        "guess shifted": (
            lambda z, y, g: each_nats(z, y)[:, 1:][g[:, :-1]].mean(),
            "guess is shifted by one place",
        ),
        "those not hidden": (lambda z, y, g: each_nats(z, y)[~g].mean(), "the words that are not hidden"),
        "logits of 0": (
            lambda z, y, g: F.cross_entropy((z * g[..., None]).mT, y),
            "logits set to 0 still cost ln V",
        ),
        "tokens of 0": (lambda z, y, g: F.cross_entropy(z.mT, y * g), "token 0 is to be guessed there"),
        "sign": (loss_of(mean=torch.mean), "the sign is turned"),
        "bits": (loss_of(mean=lambda log_p: -log_p.mean() / math.log(2)), "nats are asked for"),
        "logits": (loss_of(of=lambda z, y: z.gather(1, y[:, None])), "that is the logit"),
        "softmax twice": (
            lambda z, y, g: F.cross_entropy(z.softmax(-1)[g], y[g]),
            "softmax is applied twice",
        ),
        "over places": (
            lambda z, y, g: -z.log_softmax(1)[g].gather(1, y[g][:, None]).mean(),
            "the softmax goes over V, dim=-1; yours goes over the places",
        ),
        "perplexity": (loss_of(mean=lambda log_p: (-log_p.mean()).exp()), "that is the perplexity"),
        "entropy": (
            lambda z, y, g: torch.distributions.Categorical(logits=z[g]).entropy().mean(),
            "how unsure the model is",
        ),
        "errors": (lambda z, y, g: (z[g].argmax(1) != y[g]).float().mean(), "counts right or wrong guesses"),
        "each": (loss_of(mean=lambda log_p: -log_p), "one loss for each hidden word"),
        "each token": (lambda z, y, g: each_nats(z, y) * g, "a loss for each token"),
        "each sentence": (lambda z, y, g: (each_nats(z, y) * g).sum(1), "one loss for each sentence"),
        "a little of all": (
            lambda z, y, g: (each_nats(z, y) * (g + 0.1)).sum() / (g + 0.1).sum(),
            "the logits of words that are not to be guessed change your loss",
        ),
        "tokens of all": (
            lambda z, y, g: loss_of()(z, y, g) + 0.01 * y.float().mean(),
            "tokens that are not to be guessed change your loss",
        ),
        "squares": (
            lambda z, y, g: (z[g] - F.one_hot(y[g], z.shape[-1])).square().mean(),
            "more for all V logits of a place changes your loss",
        ),
        "smoothed": (
            lambda z, y, g: F.cross_entropy(z[g], y[g], label_smoothing=0.1),
            "the loss should be",
        ),
        "half": (
            loss_of(mean=lambda log_p: -log_p.mean() / 2),
            "as likely the loss is ln 7 = 1.9459, yours 0.973",
        ),
        "six words": (loss_of(mean=lambda log_p: -log_p.sum() / 6), "but for (1, 1, 2) it is"),
        "overflows": (
            loss_of(of=lambda z, y: (z.exp() / z.exp().sum(1, keepdim=True)).log().gather(1, y[:, None])),
            "e^1000 overflows",
        ),
        "a floor": (
            lambda z, y, g: -chosen_p(z, y, g).clamp_min(1e-9).log().mean(),
            "for logits in the thousands it is",
        ),
    },
    "06b.1": {
        "by T": (pooled(count=lambda x, w: w.shape[1]), "you divide by T = 6"),
        "first token": (lambda x, m: x[:, 0], "that is the first token, [CLS]"),
        "padding too": (lambda x, m: x.mean(1), "the padding is averaged too"),
        "padding in the sum": (pooled(total=lambda x, w: x.sum(1)), "the padding is in the sum"),
        "max": (lambda x, m: x.masked_fill(~m.mT, -torch.inf).amax(1), "that is the largest number"),
        "sum": (pooled(count=lambda x, w: 1), "that is the sum; divide"),
        "last word": (
            lambda x, m: x[torch.arange(len(x)), m[:, 0].sum(1) - 1],
            "that is the last word",
        ),
        "last column": (lambda x, m: x[:, -1], "that is the last column"),
        "all words": (pooled(count=lambda x, w: w.sum()), "all texts are divided by one number"),
        "padding's places": (pooled(count=lambda x, w: (1 - w).sum(1)), "text 1 has no padding to divide by"),
        "turned": (pooled(words=lambda m: (~m).mT.float()), "the number of words, where mask is True"),
        "turned sum": (pooled(words=lambda m: (~m).mT.float(), count=lambda x, w: 1), "mask is turned round"),
        "root": (pooled(count=lambda x, w: w.sum(1).sqrt()), "the root of the number of words"),
        "without [CLS]": (
            pooled(total=lambda x, w: (x * w)[:, 1:].sum(1), count=lambda x, w: w[:, 1:].sum(1)),
            "a word is left out",
        ),
        "without [CLS] and [SEP]": (
            lambda x, m: [x[b, 1 : n - 1].mean(0) for b, n in enumerate(m.sum((1, 2)))],
            "[CLS] and [SEP] too",
        ),
        "one more": (pooled(count=lambda x, w: w.sum(1) + 1), "something is added to the number of words"),
        "length 1": (lambda x, m: F.normalize(pooled()(x, m)), "the row is scaled to length 1"),
        "turned over": (lambda x, m: pooled()(x, m).flip(0), "the rows stand in another order"),
        "kept axis": (lambda x, m: pooled()(x, m)[:, None], "an axis of length 1 is left"),
        "not summed": (
            pooled(total=lambda x, w: x * w, count=lambda x, w: w.sum(1, True)),
            "all words are still",
        ),
        "width": (lambda x, m: x.mean(-1), "the width is averaged"),
        "texts": (lambda x, m: x.mean(0), "the texts are averaged"),
        "every count": (
            lambda x, m: (x * m.mT).sum(1) / m.sum(-1, keepdim=True),
            "each text's sum meets each text's count",
        ),
        "columns": (lambda x, m: pooled()(x, m).T, "rows and columns are exchanged"),
        "a little padding": (
            lambda x, m: pooled()(x, m) + 0.01 * x.mean(1),
            "what stands at the padding changes your answer",
        ),
        "less the batch's mean": (
            lambda x, m: pooled()(x, m) - pooled()(x, m).mean(0),
            "another text changes a text's row",
        ),
        "later words more": (
            pooled(words=lambda m: m.mT * torch.arange(1, m.shape[-1] + 1)[:, None]),
            "the order of words changes your answer",
        ),
        "0.1 more": (
            lambda x, m: pooled()(x, m) + 0.1,
            "where all states are 2 so is their mean; yours is 2.100",
        ),
        "root mean square": (
            lambda x, m: ((x * m.mT).square().sum(1) / m.sum(-1)).sqrt(),
            "has the mean",
        ),
        "six columns": (
            pooled(total=lambda x, w: (x * w)[:, :6].sum(1) * 6 / max(6, 1 + x.shape[2])),
            "but for",
        ),
        "prefix": (
            lambda x, m: pooled()(x, torch.arange(m.shape[-1]) < m.sum(-1, keepdim=True)),
            "where it stands in front or in between",
        ),
        "the package's": (lambda x, m: mean_pool(x, m), "without mean_pool"),
    },
    "06b.2": {
        "no scale": (merged(lambda A, B, alpha: B @ A), "the change is not scaled"),
        "alpha · rank": (merged(lambda A, B, alpha: alpha * len(A) * B @ A), "you multiply by alpha · rank"),
        "rsLoRA": (merged(lambda A, B, alpha: alpha / len(A) ** 0.5 * B @ A), "as rsLoRA does"),
        "alpha alone": (merged(lambda A, B, alpha: alpha * B @ A), "you multiply by alpha alone"),
        "1 / rank": (merged(lambda A, B, alpha: B @ A / len(A)), "you divide by the rank alone"),
        "rank / alpha": (merged(lambda A, B, alpha: len(A) / alpha * B @ A), "the scale is turned"),
        "alpha // rank": (merged(lambda A, B, alpha: alpha // len(A) * B @ A), "alpha // rank drops"),
        "by columns": (merged(lambda A, B, alpha: alpha / A.shape[1] * B @ A), "you divide by the size of W"),
        "taken away": (merged(lambda A, B, alpha: -alpha / len(A) * B @ A), "the change is taken away"),
        "change alone": (lambda W, A, B, alpha: alpha / len(A) * B @ A, "that is the change alone"),
        "W": (lambda W, A, B, alpha: W.clone(), "W is not changed at all"),
        "both scaled": (lambda W, A, B, alpha: alpha / len(A) * (W + B @ A), "W is scaled too"),
        "Aᵀ Bᵀ": (merged(lambda A, B, alpha: alpha / len(A) * A.T @ B.T), "Aᵀ Bᵀ is the change transposed"),
        "A B": (merged(lambda A, B, alpha: alpha / len(A) * A @ B), "A and B are exchanged"),
        "A Bᵀ": (merged(lambda A, B, alpha: alpha / len(A) * A @ B.T), "a transpose too many"),
        "one by one": (merged(lambda A, B, alpha: alpha / len(A) * A * B), "one by one"),
        "transposed": (
            lambda W, A, B, alpha: (W + alpha / len(A) * B @ A).T,
            "the merged weight is transposed",
        ),
        "Wᵀ": (lambda W, A, B, alpha: W.T + alpha / len(A) * B @ A, "W is transposed"),
        "times W": (lambda W, A, B, alpha: W @ (alpha / len(A) * B @ A), "W is multiplied"),
        "in place": (merged_in_place, "W itself has changed"),
        "A in place": (merged(lambda A, B, alpha: B @ A.mul_(alpha / len(A))), "A itself has changed"),
        "two thirds": (
            merged(lambda A, B, alpha: B @ A * alpha / (len(A) + 1)),
            "your change is 1.750 times B A",
        ),
        "0.1 too much": (
            lambda W, A, B, alpha: W + alpha / len(A) * B @ A + 0.1,
            "where B is 0 nothing changes",
        ),
        "B apart": (
            lambda W, A, B, alpha: W + alpha / len(A) * B @ A + 0.1 * B.mean(),
            "where A is 0 nothing changes",
        ),
        "squared": (merged(lambda A, B, alpha: alpha / len(A) * B @ A.abs()), "row "),
        "B for oblongs": (
            lambda W, A, B, alpha: B if len(W) != W.shape[1] else W + alpha / len(A) * B @ A,
            "that is B's shape",
        ),
        "at most 4": (
            merged(
                lambda A, B, alpha: min(4, alpha) / len(A) * B @ A if alpha > 16 else alpha / len(A) * B @ A
            ),
            "right for others, but for rank 4, alpha = 32",
        ),
        "a pair": (lambda W, A, B, alpha: (W, B @ A), "should have shape"),
        "the course's layer": (merged_by_layer, "without LoRA or merged"),
        "only squares": (
            lambda W, A, B, alpha: W + alpha / len(A) * (B @ A if len(W) == W.shape[1] else A @ B),
            "it is B @ A that has W's shape",
        ),
    },
    "06b.3": {
        **MISCALIBRATED,
        "overall": (
            lambda p, y, bins=10: abs(p.mean() - y.mean()),
            "the gaps keep their sign and cancel",
        ),
        "upper edges": (
            ece(gap=lambda p, y: abs(middle(p) + 0.05 - y.mean())),
            "you take an edge of the bin",
        ),
        "from a half": (
            ece(lambda p, bins: np.digitize(p, np.linspace(0.5, 1, bins + 1)[1:-1])),
            "your bins cut another stretch than [0, 1]",
        ),
        "rounded": (ece(lambda p, bins: np.round(p * bins).astype(int)), "is rounded"),
        "errors": (ece_of(y=lambda p, y: ~y), "right or the chances are turned round"),
        "accuracy": (lambda p, y, bins=10: y.mean(), "that is the accuracy"),
        "confidence": (lambda p, y, bins=10: p.mean(), "that is the mean confidence"),
        "True − False": (lambda p, y, bins=10: y - y, "True and False cannot be subtracted"),
        "own bin for 1": (
            ece(lambda p, bins: (p * bins).astype(int)),
            "1.0 belongs to the last bin: chances [1.0, 0.95]",
        ),
        "1 lost": (open_above, "1.0 belongs to the last bin: chances [1.0, 0.95]"),
        "bins not used": (lambda p, y, bins=10: ece_loop(p, y), "10 bins, but for 80 texts and bins=4"),
        "smoothed": (
            ece(gap=lambda p, y: abs(p.mean() - (y.sum() + 1) / (len(y) + 2))),
            "with 0.75 ten times and six of ten right",
        ),
        "few texts left out": (
            ece(mean=lambda n, gaps: n[n > 5] @ gaps[n > 5] / n.sum()),
            "the error should be",
        ),
    },
    "07.1": {
        "loss": (ppl(to=lambda nats: nats), "that is the loss, in nats"),
        "loss in bits": (ppl(to=lambda nats: nats / math.log(2)), "that is the loss, in bits"),
        "2 to nats": (ppl(to=lambda nats: 2**nats), "2 to the power of a loss in nats"),
        "e to bits": (ppl(to=lambda nats: (nats / math.log(2)).exp()), "e to the power of a loss in bits"),
        "sign": (ppl(to=lambda nats: (-nats).exp()), "the sign is turned"),
        "mean of probabilities": (lambda z, y: 1 / chance(z, y).mean(), "a mean of probabilities"),
        "mean of 1 / p": (lambda z, y: (1 / chance(z, y)).mean(), "a mean of 1 / p"),
        "no logarithm": (lambda z, y: (-chance(z, y).mean()).exp(), "the logarithm is missing"),
        "sum": (
            ppl(lambda z, y: F.cross_entropy(z, y, reduction="sum")),
            "that is the sum; divide by the 11",
        ),
        "T + 1": (
            ppl(lambda z, y: F.cross_entropy(z, y, reduction="sum") / (len(z) + 1)),
            "11 tokens are predicted, not 12",
        ),
        "T − 1": (
            ppl(lambda z, y: F.cross_entropy(z, y, reduction="sum") / (len(z) - 1)),
            "11 tokens are predicted, not 10",
        ),
        "whole text": (lambda z, y: chance(z, y).prod(), "that is the probability of the whole text"),
        "no shift": (ppl(tokens=lambda y: y[:-1]), "no shift: row t meets ids[t]"),
        "wrong way": (
            ppl(rows=lambda z: z[1:], tokens=lambda y: y[:-2]),
            "shifted the wrong way: row t meets ids[t − 1]",
        ),
        "wrong way, rolled": (ppl(tokens=lambda y: y.roll(1)[:-1]), "shifted the wrong way"),
        "twice": (
            ppl(rows=lambda z: z[:-1], tokens=lambda y: y[2:]),
            "shifted twice: row t meets ids[t + 2]",
        ),
        "first left out": (
            ppl(rows=lambda z: z[1:], tokens=lambda y: y[2:]),
            "the first prediction is left out",
        ),
        "last left out": (
            ppl(rows=lambda z: z[:-1], tokens=lambda y: y[1:-1]),
            "the last prediction is left out: row 10 scores ids[11]",
        ),
        "lengths": (ppl(tokens=lambda y: y), "here 11 rows and 12 ids"),
        "shifted as the library does": (ppl(rows=lambda z: z[:-1]), "here 11 rows and 12 ids"),
        "indexed": (lambda z, y: z.log_softmax(-1)[range(1, 12), y[1:]].mean(), "here 11 rows and 12 ids"),
        "over rows": (
            lambda z, y: (-z.log_softmax(0)[torch.arange(len(z)), y[1:]].mean()).exp(),
            "softmax over the wrong axis",
        ),
        "no softmax": (lambda z, y: (-z.gather(1, y[1:, None]).mean()).exp(), "softmax is missing"),
        "softmax twice": (ppl(rows=lambda z: z.softmax(-1)), "softmax is applied twice"),
        "entropy": (
            lambda z, y: torch.distributions.Categorical(logits=z).entropy().mean().exp(),
            "how unsure the model is",
        ),
        "likeliest": (
            lambda z, y: (-z.log_softmax(-1).amax(-1).mean()).exp(),
            "each row's largest probability",
        ),
        "by V": (
            ppl(lambda z, y: F.cross_entropy(z, y, reduction="sum") / z.shape[1]),
            "you divide by V = 23",
        ),
        "each": (ppl(lambda z, y: F.cross_entropy(z, y, reduction="none")), "one number for each token"),
        "product": (lambda z, y: chance(z, y).prod() ** (-1 / len(z)), "a product of 2,000 probabilities"),
        "plain sum of e": (
            lambda z, y: (z.exp().sum(1).log() - z[torch.arange(len(z)), y[1:]]).mean().exp(),
            "e^1000 overflows",
        ),
        "log of softmax": (lambda z, y: chance(z, y).log().mean().neg().exp(), "e^−200 is 0 as a float32"),
        "smoothed": (
            ppl(lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1)),
            "where every token was certain the perplexity is 1",
        ),
        "half": (ppl(to=lambda nats: (nats / 2).exp()), "as likely the perplexity is 23, yours is 4.796"),
        "the first counts": (
            lambda z, y: ppl()(z, y) + 0.01 * y[0],
            "ids[0] changes your answer",
        ),
        "distances": (
            lambda z, y: (z - F.one_hot(y[1:], z.shape[1])).square().mean(),
            "more for all scores of a row changes your answer",
        ),
        "later rows more": (
            ppl(lambda z, y: F.cross_entropy(z, y, reduction="none") @ torch.linspace(0, 2, len(z)) / len(z)),
            "in another order change your answer",
        ),
        "eleven": (ppl(lambda z, y: F.cross_entropy(z, y, reduction="sum") / 11), "right for 11 rows"),
    },
    "07.2": {
        "letters": (lambda w, m: list(w), "those are letters"),
        "the word": (lambda w, m: [w], "that is the word itself"),
        "longest": (longest_piece, "you take the longest piece that fits"),
        "first in the word": (
            lambda w, m: by_rank(w, m, pick=lambda found, key: found[0]),
            "you join the pair that stands first in the word",
        ),
        "learnt last": (lambda w, m: by_rank(w, m, pick=max), "you join the pair learnt last"),
        "from the end": (lambda w, m: one_pass(w, m[::-1]), "you go through merges from the end"),
        "one pair": (
            lambda w, m: join_pair(list(w), next((p for p in m if p in pairwise(w)), ("", ""))),
            "you join one pair and stop",
        ),
        "one place": (
            lambda w, m: joined_at(list(w), next((p for p in m if p in pairwise(w)), ("", ""))),
            "you join one pair in one place and stop",
        ),
        "first place": (
            lambda w, m: one_pass(w, m, joined_at),
            "only the first place of each pair is joined",
        ),
        "letters alone": (
            lambda w, m: one_pass(w, [p for p in m if len(p[0] + p[1]) == 2]),
            "pieces join with pieces",
        ),
        "from the right": (
            lambda w, m: by_rank(w, m, lambda row, pair: joined_at(row, pair, max)),
            "joined from the right",
        ),
        "loop too short": (
            lambda w, m: one_pass(w, m, lambda row, pair: [*join_pair(row[:-1], pair), row[-1]]),
            "the last two pieces of a word are never joined",
        ),
        "replace": (by_replace, "the pair is found inside longer pieces"),
        "marked": (
            lambda w, m: [("##" if i else "") + p for i, p in enumerate(one_pass(w, m))],
            "nothing marks a piece here",
        ),
        "a string": (lambda w, m: " ".join(one_pass(w, m)), "return a list of pieces, not a str"),
        "pairs": (
            lambda w, m: [pair for pair in m if "".join(pair) in w],
            "a piece is a string; one of yours is (",
        ),
        "uses up merges": (used_up, "merges itself has changed"),
        "never done": (never_done, "is never done"),
        "a letter lost": (lambda w, m: one_pass(w, m)[1:], "which spells"),
        "empty pieces": (lambda w, m: [*one_pass(w, m), ""], "an empty piece is none"),
        "pairs of two": (
            lambda w, m: [w[i : i + 2] for i in range(0, len(w), 2)],
            "are a learnt pair, join them",
        ),
        "threes": (lambda w, m: [w[i : i + 3] for i in range(0, len(w), 3)], "but no merge makes 'ana'"),
        "without the last merge": (lambda w, m: one_pass(w, m[:-1]), "are a learnt pair, join them"),
        "by the alphabet": (lambda w, m: one_pass(w, sorted(m)), "is learnt before what you joined instead"),
        "two letters at least": (
            lambda w, m: one_pass(w, m) if len(w) > 1 else [],
            "a word of one letter is its only piece",
        ),
        "the package's": (lambda w, m: merge(w, {p: i for i, p in enumerate(m)}), "without merge"),
    },
    "07.3": {
        "not itself": (cached(look=lambda K, V: (K[:, :-1], V[:, :-1])), "the new token does not see itself"),
        "itself alone": (cached(look=lambda K, V: (K[:, -1:], V[:, -1:])), "the new token sees itself alone"),
        "causal mask": (
            cached(
                weigh=lambda s: s.masked_fill(~causal_mask(s.shape[-1])[: s.shape[-2]], -torch.inf).softmax(
                    -1
                )
            ),
            "a causal mask for one row hides all but the first token",
        ),
        "in front": (cached(append=lambda old, new: torch.cat([new, old], 1)), "put in front of the keys"),
        "along heads": (cached(append=lambda old, new: torch.cat([old, new], 0)), "yours joins axis 0"),
        "along columns": (cached(append=lambda old, new: torch.cat([old, new], -1)), "yours joins axis 2"),
        "no scale": (cached(score=lambda q, K: q @ K.mT), "the scores are not scaled"),
        "√C": (
            cached(score=lambda q, K: q @ K.mT / (len(q) * q.shape[-1]) ** 0.5),
            "the scores are divided by √C",
        ),
        "hs": (cached(score=lambda q, K: q @ K.mT / q.shape[-1]), "the scores are divided by hs"),
        "over the query": (cached(weigh=lambda s: s.softmax(-2)), "every token gets weight 1"),
        "over heads": (cached(weigh=lambda s: s.softmax(0)), "softmax goes over the heads"),
        "over all": (cached(weigh=lambda s: s.flatten().softmax(0).view_as(s)), "one softmax for all heads"),
        "no softmax": (cached(weigh=lambda s: s), "softmax is missing"),
        "not normalised": (cached(weigh=torch.exp), "the weights do not add up to 1"),
        "mean": (
            cached(weigh=lambda s: torch.full_like(s, 1 / s.shape[-1])),
            "that is the mean of all values",
        ),
        "hard": (
            cached(weigh=lambda s: F.one_hot(s.argmax(-1), s.shape[-1]).float()),
            "that is the value of the best key alone",
        ),
        "heads mixed": (
            cached(
                score=lambda q, K: (q @ K.mT).sum(0, keepdim=True).expand(len(q), -1, -1) / q.shape[-1] ** 0.5
            ),
            "the heads' scores are mixed",
        ),
        "another head": (
            cached(score=lambda q, K: q.roll(1, 0) @ K.mT / q.shape[-1] ** 0.5),
            "the keys of another one",
        ),
        "weights shifted": (cached(weigh=lambda s: s.softmax(-1).roll(1, -1)), "one place apart"),
        "reshaped": (
            cached(score=lambda q, K: q @ K.reshape(len(q), q.shape[-1], -1) / q.shape[-1] ** 0.5),
            "the keys are reshaped",
        ),
        "values asked": (cached(look=lambda K, V: (V, V)), "q meets the values"),
        "keys averaged": (cached(look=lambda K, V: (K, K)), "the keys are averaged"),
        "k asks": (lambda q, k, v, K, V: cached()(k, k, v, K, V), "the new key asks; q does"),
        "q appended": (lambda q, k, v, K, V: cached()(q, q, v, K, V), "q is appended to the keys"),
        "k and v exchanged": (lambda q, k, v, K, V: cached()(q, v, k, K, V), "v is appended to the keys"),
        "returned exchanged": (cached(back=lambda y, K, V: (y, V, K)), "keys and values are exchanged"),
        "old cache": (
            lambda q, k, v, K, V: (cached()(q, k, v, K, V)[0], K, V),
            "the keys are as many as before",
        ),
        "output last": (cached(back=lambda y, K, V: (K, V, y)), "It comes first of the three"),
        "output alone": (cached(back=lambda y, K, V: y), "return three things"),
        "heads side by side": (
            cached(back=lambda y, K, V: (y.transpose(0, 1).flatten(1), K, V)),
            "the heads are side by side",
        ),
        "weights": (
            lambda q, k, v, K, V: (q @ torch.cat([K, k], 1).mT, *cached()(q, k, v, K, V)[1:]),
            "these are weights or scores",
        ),
        "in place": (over_written, "keys itself has changed"),
        "residual": (
            lambda q, k, v, K, V: (q + cached()(q, k, v, K, V)[0], *cached()(q, k, v, K, V)[1:]),
            "q is added",
        ),
        "slides": (
            cached(append=lambda old, new: torch.cat([old[:, 1:] * 2, old[:, :1], new], 1)),
            "the keys before have changed",
        ),
        "cube root": (
            cached(score=lambda q, K: q @ K.mT / q.shape[-1] ** (1 / 3)),
            "your scores are q · k times 0.630",
        ),
        "ten percent less": (
            cached(weigh=lambda s: 0.9 * s.softmax(-1)),
            "where all values are 2 the output is 2",
        ),
        "a mean head": (
            cached(score=lambda q, K: (q @ K.mT + 0.1 * q.mean(0, keepdim=True) @ K.mT) / 2),
            "another head changes head 0",
        ),
        "near ones more": (
            cached(score=lambda q, K: q @ K.mT / 2 + torch.arange(K.shape[1])),
            "the order of the tokens before changes your output",
        ),
        "half": (cached(score=lambda q, K: q @ K.mT / 2), "but for nh = 1, S = 1, hs = 1"),
        "empty cache": (
            lambda q, k, v, K, V: cached()(q, k, v, K, V) if K.shape[1] else 1 / K.shape[1],
            "S = 0, hs = 4 your function raised ZeroDivisionError",
        ),
        "overflows": (
            cached(weigh=lambda s: s.exp() / s.exp().sum(-1, keepdim=True)),
            "e to a score in the hundreds overflows",
        ),
        "the library's": (
            lambda q, k, v, K, V: cached(
                back=lambda y, K, V: (F.scaled_dot_product_attention(q, K, V), K, V)
            )(q, k, v, K, V),
            "write it out yourself, without scaled_dot_product_attention",
        ),
    },
    "07b.1": {
        "one early": (cut_at(lambda c, mass: (c < mass).sum()), "you stop one early: 2 tokens do not reach"),
        "one too many": (cut_at(lambda c, mass: reaching(c, mass) + 1), "one token too many: 3 reach 0.52"),
        "not normalised": (cut_at(reaching, lambda p, left: p), "what is left does not add up to 1"),
        "mass left": (lambda p, mass: mass * cut_at(reaching)(p, mass), "what is left adds up to 0.52"),
        "sorted": (
            lambda p, mass: cut_at(reaching)(p, mass).sort(descending=True).values,
            "the tokens are sorted",
        ),
        "order lost": (
            lambda p, mass: (
                cut_at(reaching)(torch.sort(p, descending=True).values, mass).gt(0)
                * p
                / p[: int(reaching(p.sort(descending=True).values.cumsum(0), mass))].sum()
            ),
            "the order is lost",
        ),
        "tail": (
            lambda p, mass: (
                torch.where(cut_at(reaching)(p, mass) > 0, 0, p) / p[cut_at(reaching)(p, mass) == 0].sum()
            ),
            "that is the tail",
        ),
        "not sorted": (
            lambda p, mass: torch.where(p.cumsum(0) - p < mass, p, 0) / p[p.cumsum(0) - p < mass].sum(),
            "in the vocabulary's order",
        ),
        "fixed k": (cut_at(lambda c, mass: int(mass * len(c))), "you leave a share of the tokens"),
        "always two": (cut_at(lambda c, mass: 2), "for mass 0.3, 0.52 and 0.8 you leave 2 tokens each time"),
        "min-p": (at_least(lambda p, mass: mass * p.max()), "which is min-p"),
        "softmax": (
            lambda p, mass: cut_at(reaching, lambda p, left: p)(p, mass).softmax(0),
            "no softmax, divide by the sum",
        ),
        "untouched": (lambda p, mass: p, "nothing is left out"),
        "greedy": (cut_at(lambda c, mass: 1), "that is the likeliest alone"),
        "uniform": (
            cut_at(reaching, lambda p, left: torch.ones_like(p) / len(left)),
            "yours are equally likely",
        ),
        "a mask": (lambda p, mass: cut_at(reaching)(p, mass) > 0, "that says which tokens are left"),
        "the kept alone": (
            lambda p, mass: cut_at(reaching)(p, mass)[cut_at(reaching)(p, mass) > 0],
            "only the tokens that are left are returned",
        ),
        "logarithms": (
            lambda p, mass: cut_at(reaching)(p, mass).log(),
            "where a token is left out its probability is 0, not −∞",
        ),
        "strict": (cut_at(lambda c, mass: (c <= mass).sum() + 1), "which reaches 0.5: leave the fewest"),
        "below mass": (
            lambda p, mass: cut_at(lambda c, mass: (c <= mass).sum() if mass != 0.52 else 3)(p, mass),
            "no token is left; one at least stays",
        ),
        "ties": (at_least(last_kept), "of equally probable tokens only as many stay"),
        "mass 1": (while_below, "mass 1 leaves all, even where the sum of p, rounded"),
        "argmax of reach": (
            cut_at(lambda c, mass: (c >= mass).int().argmax() + 1),
            "mass 1 leaves all, even where the sum of p, rounded",
        ),
        "sharper": (
            cut_at(reaching, lambda p, left: p**1.01 / (p[left] ** 1.01).sum()),
            "the proportions have changed",
        ),
        "ten at most": (
            cut_at(lambda c, mass: min(10, reaching(c, mass))),
            "the 10 tokens you leave have",
        ),
    },
    "07b.2": {
        "distinct": (
            lambda x, n: len(set(windows(x, n))) / len(windows(x, n)),
            "that is the share of different ones",
        ),
        "tokens": (lambda x, n: 1 - len(set(x)) / len(x), "tokens are counted; n-grams should be"),
        "side by side": (repeats(lambda x, n: windows(x, n, n)), "your n-grams lie side by side"),
        "by tokens": (
            lambda x, n: 1 - len(set(windows(x, n))) / len(x),
            "you divide by the number of tokens",
        ),
        "repeated by tokens": (
            lambda x, n: (len(windows(x, n)) - len(set(windows(x, n)))) / len(x),
            "you divide by the number of tokens",
        ),
        "ragged end": (repeats(lambda x, n: windows(x, n, end=n - 1)), "or count shorter pieces at the end"),
        "by len − n": (
            lambda x, n: 1 - len(set(windows(x, n))) / max(1, len(x) - n),
            "you divide by len(tokens) − n;",
        ),
        "by different": (
            lambda x, n: (len(windows(x, n)) - len(set(windows(x, n)))) / len(set(windows(x, n))),
            "you divide by the number of different n-grams",
        ),
        "a number": (
            lambda x, n: len(windows(x, n)) - len(set(windows(x, n))),
            "that is a number of n-grams",
        ),
        "percent": (lambda x, n: 100 * repeats()(x, n), "that is in percent"),
        "sorted": (
            repeats(lambda x, n: [tuple(sorted(g)) for g in windows(x, n)]),
            "the order within an n-gram is lost",
        ),
        "sets": (
            repeats(lambda x, n: [frozenset(g) for g in windows(x, n)]),
            "the order within an n-gram is lost",
        ),
        "sums": (repeats(lambda x, n: [sum(g) for g in windows(x, n)]), "more than the sum of its tokens"),
        "glued": (
            repeats(lambda x, n: ["".join(map(str, g)) for g in windows(x, n)]),
            "tokens are glued together",
        ),
        "last left out": (
            lambda x, n: 1 - len(set(windows(x, n, end=-1))) / max(1, len(windows(x, n, end=-1))),
            "the last n-gram is left out",
        ),
        "one too many": (repeats(lambda x, n: windows(x, n, end=1)), "pieces shorter than n at the end"),
        "n + 1": (lambda x, n: repeats()(x, n + 1) if len(x) > n else 0, "your n-grams have n + 1 tokens"),
        "n not used": (lambda x, n: repeats()(x, 2), "n is not used"),
        "first too": (
            lambda x, n: sum(windows(x, n).count(g) > 1 for g in windows(x, n)) / len(windows(x, n)),
            "the first time counts too",
        ),
        "kinds": (
            lambda x, n: np.mean([m > 1 for m in Counter(windows(x, n)).values()]),
            "each different n-gram counts once",
        ),
        "side by side repeats": (
            lambda x, n: sum(a == b for a, b in pairwise(windows(x, n))) / len(windows(x, n)),
            "only an n-gram that was there just before counts",
        ),
        "lists in a set": (lambda x, n: len({x[i : i + n] for i in range(len(x))}), "a set takes no lists"),
        "divides by 0": (
            lambda x, n: (1 - len(set(windows(x, n))) / (len(x) - n + 1)) if len(x) > n else 1 / (len(x) - n),
            "1 tokens hold 1 n-gram for n = 1",
        ),
        "negative": (lambda x, n: repeats()(x, n) - 1, "lies between 0 and 1"),
        "a floor": (lambda x, n: max(0.1, repeats()(x, n)), "where no token comes twice nothing is repeated"),
        "even tokens": (
            repeats(lambda x, n: [tuple(t // 3 for t in g) for g in windows(x, n)]),
            "nothing is repeated: 0",
        ),
        "5 at most": (lambda x, n: min(0.6, repeats()(x, n)), "n-grams for n ="),
        "small ids": (
            lambda x, n: repeats()(x, n) if max(x) < 60 else 0.5,
            "other ids for the same tokens change your answer",
        ),
    },
    "07b.3": {
        "neighbours": (
            rotary(
                split=lambda x: (x[:, ::2], x[:, 1::2]), back=lambda a, b: torch.stack([a, b], 2).flatten(1)
            ),
            "pairs are neighbours, (2 i, 2 i + 1), as in the paper",
        ),
        "neighbours as halves": (rotary(split=lambda x: (x[:, ::2], x[:, 1::2])), "put them back as halves"),
        "halves as neighbours": (
            rotary(back=lambda a, b: torch.stack([a, b], 2).flatten(1)),
            "put them back as neighbours",
        ),
        "mirrored": (
            rotary(
                split=lambda x: (x.chunk(2, 1)[0], x.chunk(2, 1)[1].flip(1)),
                back=lambda a, b: torch.cat([a, b.flip(1)], 1),
            ),
            "not (i, hs − 1 − i)",
        ),
        "sign": (rotary(lambda t, i, hs: -t / 10000 ** (2 * i / hs)), "the sign of the angle is turned"),
        "i / hs": (rotary(lambda t, i, hs: t / 10000 ** (i / hs)), "yours is i / hs"),
        "2 i": (rotary(lambda t, i, hs: t / 10000 ** (4 * i / hs)), "yours is 4 i / hs"),
        "times": (rotary(lambda t, i, hs: t * 10000 ** (2 * i / hs)), "yours is −2 i / hs"),
        "from 1": (rotary(lambda t, i, hs: (t + 1) / 10000 ** (2 * i / hs)), "positions count from 0"),
        "degrees": (
            rotary(lambda t, i, hs: torch.deg2rad(t / 10000 ** (2 * i / hs))),
            "you take it for degrees",
        ),
        "same angle": (
            rotary(lambda t, i, hs: t.expand(len(t), len(i))),
            "every pair is turned by the same angle",
        ),
        "one position": (
            rotary(lambda t, i, hs: (1 / 10000 ** (2 * i / hs)).expand(len(t), len(i))),
            "every position is turned by the same angle",
        ),
        "reversed": (rotary(lambda t, i, hs: t / 10000 ** (2 * i.flip(0) / hs)), "pair 0 turns fastest"),
        "base 1000": (rotary(lambda t, i, hs: t / 1000 ** (2 * i / hs)), "the base is 10000; yours is 1000"),
        "added": (
            rotary(pair=lambda a, b, c, s: (a + s, b + c)),
            "sines and cosines are added",
        ),
        "multiplied": (
            rotary(pair=lambda a, b, c, s: (a * c, b * c)),
            "multiplied by cosines or sines alone",
        ),
        "one sign": (rotary(pair=lambda a, b, c, s: (a * c + b * s, b * c + a * s)), "one sign is wrong"),
        "exchanged": (
            rotary(pair=lambda a, b, c, s: (a * s - b * c, b * s + a * c)),
            "sine and cosine are exchanged",
        ),
        "halves exchanged": (
            rotary(pair=lambda a, b, c, s: (b * c + a * s, a * c - b * s)),
            "the two halves are exchanged",
        ),
        "late": (turned_late, "keep a copy of the first"),
        "first half": (rotary(pair=lambda a, b, c, s: (a * c - b * s, b)), "only the first half is turned"),
        "nothing": (lambda x: x, "nothing is turned"),
        "half missing": (rotary(back=lambda a, b: a), "half of the numbers are missing"),
        "complex": (lambda x: torch.complex(*x.chunk(2, 1)), "complex numbers"),
        "transposed": (lambda x: rotary()(x).T, "rows and columns are exchanged"),
        "base 777": (
            rotary(lambda t, i, hs: t / 777 ** (2 * i / hs)),
            "pair 1 at position 1 is turned by 0.189",
        ),
        "squared positions": (
            rotary(lambda t, i, hs: t**2 / 10000 ** (2 * i / hs)),
            "it should depend on the distance alone",
        ),
        "half a turn more": (
            rotary(lambda t, i, hs: t / 10000 ** (2 * i / hs) + math.pi),
            "row 0 has changed",
        ),
        "other partners": (
            rotary(
                split=lambda x: (x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :].roll(1, 1)),
                back=lambda a, b: torch.cat([a, b.roll(-1, 1)], 1),
            ),
            "column 0 is turned into column 7; its partner is column 4",
        ),
        "longer": (
            rotary(pair=lambda a, b, c, s: (2 * (a * c - b * s), 2 * (b * c + a * s))),
            "row 0 has changed",
        ),
        "growing": (
            lambda x: rotary()(x) * (1 + 0.1 * torch.arange(len(x)))[:, None],
            "turning keeps lengths",
        ),
        "less the mean": (lambda x: rotary()(x - x.mean(0)), "later rows change row 0"),
        "0.1 more": (lambda x: rotary()(x) + 0.1, "a row of zeros becomes 0.100"),
        "eight columns": (
            rotary(lambda t, i, hs: t / 10000 ** (2 * i / 8)),
            "right for x (6, 8), but for",
        ),
        "the package's": (lambda x: rotate(x[None, None])[0, 0], "without rotate"),
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
    assert list(exercises()) == sorted(exercises())  # the order of the pages
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


def test_an_endless_loop_ends_and_leaves_the_tracer_as_it_was():
    def endless(word, vocabulary):
        while True:
            pass

    before = sys.gettrace()
    assert "is never done" in check("06.1", endless).diagnosis
    assert sys.gettrace() is before


def test_unknown_exercise():
    with pytest.raises(ValueError, match="exercise must be one of"):
        check("99.9", len)
