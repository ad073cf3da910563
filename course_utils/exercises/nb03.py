"""Exercises of notebook 03: heads, layer norm, positions as rotations, the gradient of cross-entropy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from course_utils.exercises import Exercise, expect
from course_utils.exercises.properties import array, by_hand, gradient_of, none_of, ratio_of, signed
from course_utils.transformer import layer_norm

Ask = Callable[..., np.ndarray]


def split_heads(answer: Callable) -> None:
    """Judge 03.1: where each number of x goes: every one once, its sentence, position, head and place."""
    B, T, nh, hs = 2, 3, 4, 5
    C = nh * hs
    shapes = {
        (B, T, nh, hs): "(B, T, nh, hs) is half the way: transpose(1, 2) puts heads before positions",
        (B, nh, hs, T): "the last two axes are swapped: a head has T rows of hs numbers",
        (B, hs, T, nh): "the width is nh heads of hs numbers: view as (B, T, nh, hs), not (B, T, hs, nh)",
        (nh, B, T, hs): "the heads come before the batch; B comes first: stack them along dim 1",
        (nh, T, hs): "the batch is lost: (B, nh, T, hs)",
        (B * nh, T, hs): "sentences and heads share one axis: keep both, (B, nh, T, hs)",
        (B, T, hs): "that is one head; all nh are asked for",
        (B, nh - 1, T, hs): "a head is missing: all nh are asked for",
        (B, nh, T, C): "each head has the whole width; it gets hs = C / nh numbers of it",
        (B, T, C): "nothing is split yet",
    }
    x = torch.arange(B * T * C).float().view(B, T, C)  # each number tells where it stood
    got = array(answer(x.clone(), nh), (B, nh, T, hs), "the answer", shapes)
    _each_once(got, x.numpy())
    _places(got, *np.unravel_index(got.astype(int), x.shape))
    for (b, t, c), n in {(1, 5, 6): 3, (3, 2, 4): 1, (2, 4, 4): 4}.items():
        x = torch.arange(b * t * c).float().view(b, t, c)
        again = array(answer(x.clone(), n), (b, n, t, c // n), f"for x {(b, t, c)} and nh = {n} the answer")
        wanted = x.view(b, t, n, c // n).transpose(1, 2).numpy()
        expect((again == wanted).all(), f"right for x {(B, T, C)} and nh = {nh}, not for {(b, t, c)} and {n}")
    by_hand(answer, "MultiHeadAttention")


def _each_once(got: np.ndarray, x: np.ndarray) -> None:
    """Raises Wrong unless the answer holds each number of x once."""
    expect(np.isin(got, x).all(), "your answer holds numbers that x has not; splitting only moves them")
    missing = int((~np.isin(x, got)).sum())
    expect(not missing, f"{missing} of x's {x.size} numbers are missing: each belongs to exactly one head")


def _places(got: np.ndarray, b: np.ndarray, t: np.ndarray, c: np.ndarray) -> None:
    """Raises Wrong unless each number of the answer, (B, nh, T, hs), stood in x where it should have."""
    sentence, head, row, place = np.indices(got.shape)
    _, nh, _, hs = got.shape
    expect((b == sentence).all(), "sentences are mixed: a head of one holds numbers of another")
    if (t != row).any():
        i = tuple(np.argwhere(t != row)[0])
        mixed = f"positions are mixed: in head {i[1]}, row {i[2]} holds a number of position {t[i]}"
        expect(False, mixed + "; view as (B, T, nh, hs) first, then transpose(1, 2)")
    every = f"head 0 gets every {nh}th column; it should get neighbours, columns 0 to {hs - 1}"
    expect((c % nh != head).any(), every + ": view as (B, T, nh, hs), not (B, T, hs, nh)")
    if (c // hs != head).any():
        i = tuple(np.argwhere(c // hs != head)[0])
        should = f"it should hold columns {i[1] * hs} to {i[1] * hs + hs - 1}"
        expect(False, f"head {i[1]} holds column {c[i]}; {should}")
    expect((c % hs == place).all(), "each head has the right columns, but not in their order")


def normalise(answer: Callable) -> None:
    """Judge 03.2: statistics of each token's own, mean 0, variance 1, eps, gain and bias, any size."""

    def ask(x: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor) -> np.ndarray:
        nan = "a token of equal numbers has variance 0: add eps to it, under the root"
        return array(answer(x.clone(), gain.clone(), bias.clone()), tuple(x.shape), "the answer", nan=nan)

    draw = torch.Generator().manual_seed(3)
    x, gain, bias = 3 + 2 * torch.randn(2, 3, 8, generator=draw), *torch.randn(2, 8, generator=draw)
    plain = torch.ones(8), torch.zeros(8)
    _own_statistics(lambda x: ask(x, *plain), x)
    _standard(ask(x, *plain), x.double().numpy())
    _eps(lambda x: ask(x, *plain), x)
    _gain_and_bias(ask, x, gain, bias)
    x, gain, bias = torch.randn(1, 4, 3, generator=draw), *torch.randn(2, 3, generator=draw)
    other = np.allclose(ask(x, gain, bias), layer_norm(x, gain, bias), 1e-4, 1e-4)
    expect(other, "right for x (2, 3, 8), not for (1, 4, 3): C is x.shape[-1]")
    by_hand(answer, "layer_norm", "LayerNorm", "native_layer_norm")


def _own_statistics(ask: Ask, x: torch.Tensor) -> None:
    """Raises Wrong where other sentences, or other positions of its sentence, change a token."""
    before, others, later = ask(x), x.clone(), x.clone()
    others[1:], later[0, 1:] = 5 * x[1:].flip(-1), 5 * x[0, 1:].flip(-1)
    by_sentence = abs(ask(others)[0] - before[0]).max() > 1e-4
    by_position = abs(ask(later)[0, 0] - before[0, 0]).max() > 1e-4
    own = "mean and variance go over a token's own C numbers alone, dim=-1"
    expect(not (by_sentence and by_position), f"every other token, in any sentence, changes a token: {own}")
    expect(not by_sentence, f"another sentence changes a token: you average over the batch; {own}")
    expect(not by_position, f"another position changes a token: you average over T; {own}")


def _standard(y: np.ndarray, x: np.ndarray) -> None:
    """Raises Wrong unless each token came out with mean 0 and variance 1."""
    C, variance = x.shape[-1], x.var(-1, keepdims=True)
    ones = "with gain 1 and bias 0 you return ones: gain and bias have changed places"
    expect(not np.allclose(y, 1, atol=1e-4), ones)
    rms = x / np.sqrt((x**2).mean(-1, keepdims=True))
    none_of(y, {"the mean is not subtracted": (rms, x / np.sqrt(variance))}, 1e-3)
    first = float(y[0, 0].mean())
    expect(abs(y.mean(-1)).max() < 1e-4, f"with gain 1 and bias 0 a token's mean is {signed(first)}, not 0")
    centred = x - x.mean(-1, keepdims=True)
    unbiased = f"your variance divides by C − 1 = {C - 1}; the paper's divides by C: correction=0"
    mistakes = {
        unbiased: centred / np.sqrt(variance * C / (C - 1)),
        "you divide by the variance; divide by its root": centred / variance,
        "the mean is gone, but nothing is divided: divide by the root of the variance": centred,
        "you multiply by the root of the variance; divide by it": centred * np.sqrt(variance),
    }
    none_of(y, mistakes, 1e-3)
    spread = float(y[0, 0].var())
    expect(abs(y.var(-1) - 1).max() < 1e-3, f"with gain 1 a token's variance is {signed(spread)}, not 1")
    worst = abs(y - centred / np.sqrt(variance + 1e-5)).max()
    expect(worst < 1e-4, f"mean 0 and variance 1, and yet off by up to {worst:.3g}")


def _eps(ask: Ask, x: torch.Tensor) -> None:
    """Raises Wrong with the eps an answer uses, read off tokens whose variance is below it."""
    tiny = (x - x.mean(-1, keepdim=True))[:, :1] / 2000  # (2, 1, 8)
    got, exact = ask(tiny)[0, 0], tiny[0, 0].double().numpy()
    variance, ratio = exact.var(), ratio_of(got, exact - exact.mean())
    small = f"a token whose variance is {variance:.2g} comes out wrong"
    expect(ratio is not None and ratio > 0, f"{small}: subtract the mean, divide by √(variance + 1e-5)")
    root = 1 / ratio
    expect(abs(root / np.sqrt(variance) - 1) > 1e-3, "eps is missing: a token of equal numbers gives 0 / 0")
    outside = abs(root / (np.sqrt(variance) + 1e-5) - 1) < 1e-3
    expect(not outside, "eps goes under the root, √(variance + eps); you add it to the root")
    eps = root**2 - variance
    expect(abs(eps - 1e-5) < 1e-7, f"{small}: your eps acts as {eps:.2g}, it should be 1e-5 under the root")
    ask(torch.full_like(x, 3.0))  # NaN here has its own diagnosis


def _gain_and_bias(ask: Ask, x: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor) -> None:
    """Raises Wrong unless gain and bias act on the normalised numbers, in this order."""
    one, zero = torch.ones_like(gain), torch.zeros_like(bias)
    y = layer_norm(x, one, zero)
    before = "gain comes after normalising; before it, the division undoes part of it"
    mistakes = {
        "gain and bias are not used": y,
        "the bias is not added": gain * y,
        "the gain is not used": y + bias,
        "first the gain, then the bias: gain · normalised + bias": gain * (y + bias),
        before: (layer_norm(gain * x, one, bias), layer_norm(gain * x + bias, one, zero)),
    }
    got = ask(x, gain, bias)
    none_of(got, mistakes)
    worst = abs(got - layer_norm(x, gain, bias).numpy()).max()
    expect(worst < 1e-4, f"right with gain 1 and bias 0, off by up to {worst:.3g} with others")


def move(answer: Callable) -> None:
    """Judge 03.3: each pair of sine and cosine turns by k times its frequency, whatever t, k and C are."""

    def ask(t: float, k: int, C: int) -> np.ndarray:
        shapes = {
            (C // 2, 2): "one row for each pair: flatten them to (C,)",
            (2, C // 2): "sines and cosines apart: they take turns, stack them along dim -1, then flatten",
            (C, C): "that is the matrix of the turn; multiply the position by it",
        }
        return array(answer(position(t, C).float(), k), (C,), "the position", shapes)

    got, here, step = ask(1, 3, 8), position(1, 8), position(3, 8)
    sin, cos = here.unflatten(0, (2, 4)), frequencies(8) * 3  # (2, C / 2) as if in halves, (C / 2,)
    halves = torch.cat([sin[0] * cos.cos() + sin[1] * cos.sin(), sin[1] * cos.cos() - sin[0] * cos.sin()])
    mistakes = {
        "that is the position you were given: turn it": here,
        "that is PE(k), which is k steps from 0; go k steps from the position given": step,
        "that is PE(t) + PE(k): a turn is not a sum": here + step,
        "k is added to every number; a turn mixes sine and cosine": here + 3,
        "that is PE(t − k): you turn the wrong way": position(-2, 8),
        "you pair number i with number i + C/2; sine and cosine are neighbours, 2i and 2i + 1": halves,
    }
    none_of(got, mistakes)
    _turns(got, here.numpy(), 3)
    for t, k, C in ((2, 0, 8), (2, -5, 8), (40, 7, 8), (5.5, 3, 8), (3, 4, 6), (3, 4, 2)):
        worst = abs(ask(t, k, C) - position(t + k, C).numpy()).max()
        case = f"right for t = 1, k = 3, C = 8, but off by {worst:.2g} for t = {t}, k = {k}, C = {C}"
        why = ": turn each pair where it stands, t need not be found" if (k, C) in ((7, 8), (3, 8)) else ""
        expect(worst < 1e-4, case + why)


def frequencies(C: int) -> torch.Tensor:
    """10000^(−2i/C) for each pair i, (C / 2,)."""
    return 10_000 ** (-torch.arange(0, C, 2, dtype=torch.float64) / C)


def position(t: float, C: int) -> torch.Tensor:
    """`sinusoids`' row t, (C,), also between two rows, in float64."""
    angles = t * frequencies(C)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten()


def _turns(got: np.ndarray, here: np.ndarray, k: int) -> None:
    """Raises Wrong with the angle by which a pair turned."""
    (s0, c0), (s1, c1) = here.reshape(-1, 2).T, got.reshape(-1, 2).T  # (C / 2,) each
    C, length = len(here), np.hypot(s1, c1)
    i = int(abs(length - 1).argmax())
    pair = (
        f"pair {i} (numbers {2 * i} and {2 * i + 1}) gets length {length[i]:.3f}; turned, it keeps length 1"
    )
    expect(abs(length[i] - 1) < 1e-3, pair)
    turns, should = np.arctan2(s1 * c0 - c1 * s0, c1 * c0 + s1 * s0), k * frequencies(C).numpy()
    exponents = np.arange(0, C, 2) / C
    mistakes = {
        "every pair turns by k; pair i turns by k / 10000^(2i/C)": np.full(C // 2, k),
        "your frequencies are 10000^(−i/C) for pair i; it is 2i/C": k * 10_000 ** (-exponents / 2),
        "your frequencies are 10000^(−4i/C) for pair i; it is 2i/C": k * 10_000 ** (-2 * exponents),
        "your frequencies grow, 10000^(2i/C); divide by it": k * 10_000**exponents,
        "your angles are in degrees; sine and cosine take radians": np.radians(should),
    }
    for diagnosis, angles in mistakes.items():
        expect(not np.allclose(np.exp(1j * turns), np.exp(1j * angles), atol=1e-3), diagnosis)
    i = int(abs(np.exp(1j * turns) - np.exp(1j * should)).argmax())
    formula = f"it should be k / 10000^({2 * i}/{C}) = {signed(should[i])}"
    expect(
        abs(np.exp(1j * turns[i]) - np.exp(1j * should[i])) < 1e-4,
        f"pair {i} (numbers {2 * i} and {2 * i + 1}) turns by {signed(turns[i])}; {formula}",
    )


def cross_entropy_gradient(answer: Callable) -> None:
    """Judge 03.4: p − y against finite differences, for any target, V and size of the logits."""

    def ask(logits: torch.Tensor, target: int, nan: str = "") -> np.ndarray:
        zero = "1/y divides by 0 for every token but the right one; the true gradient has no 1/y"
        shapes = {(): "one number: that is the loss, or one entry; a gradient has V numbers"}
        value = answer(logits.clone(), target)
        return array(value, tuple(logits.shape), "the gradient", shapes, nan, zero)

    logits, target = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.2]), 3
    got, wanted = ask(logits, target), _finite_differences(logits, target)
    _taken_for_gradient(got, logits.double(), target)
    ratio = ratio_of(got, wanted)
    one = f"that is {signed(ratio or 1)} times the gradient; one token's loss is not averaged or scaled"
    expect(ratio is None or abs(ratio - 1) < 1e-3, one)
    total = "a constant added to all logits changes no probability, so the gradient sums to 0; yours to "
    expect(abs(got.sum()) < 1e-4, total + signed(got.sum()))
    for i, (its, should) in enumerate(zip(got, wanted, strict=True)):
        which = f"entry {i}, {'the right' if i == target else 'a wrong'} token's,"
        expect(abs(its - should) < 1e-4, f"{which} is {signed(its)}; finite differences say {signed(should)}")
    for other, j in ((logits, 0), (logits[:3], 2)):
        worst = abs(ask(other, j) - _finite_differences(other, j)).max()
        case = f"right for target 3 of 5, off by {worst:.3g} for target {j} of {len(other)}"
        expect(worst < 1e-4, case)
    large = "e to the power of 1000 is beyond any number: subtract the largest logit first, or use softmax"
    ask(torch.tensor([1000.0, 0, 990]), 0, large)
    by_hand(answer, "autograd", "backward", "grad", "requires_grad", "requires_grad_", "jacrev", "vjp")


def _finite_differences(logits: torch.Tensor, target: int) -> np.ndarray:
    """The gradient of −log p of the target by the logits."""
    return gradient_of(lambda z: np.logaddexp.reduce(z) - z[target], logits.double().numpy())


def _taken_for_gradient(got: np.ndarray, logits: torch.Tensor, target: int) -> None:
    """Raises Wrong where the answer is something else that is often taken for the gradient."""
    p, y = logits.softmax(-1), torch.zeros_like(logits)
    y[target] = 1
    article = (
        "at the right token that is 1/p − 1/y, the source articles' formula; finite differences disagree"
    )
    expect(abs(got[target] - float(1 / p[target] - 1)) > 1e-3, article)
    sigmoid = "softmax, not a sigmoid of each logit: a token's probability depends on all logits"
    mistakes = {
        "that is p alone: the right token's entry is p − 1": p,
        "the sign is turned: p − y, so that a step against it raises the right token": y - p,
        "that is −y/p, the gradient by the probabilities; go on to the logits": -y / p,
        "that is y/p; the gradient by the probabilities is −y/p, and by the logits p − y": y / p,
        "softmax twice: logits need it once": p.softmax(-1) - y,
        "softmax is missing: logits are not probabilities yet": logits - y,
        "that is log p − y; without the logarithm": p.log() - y,
        sigmoid: logits.sigmoid() - y,
        "divided by V: one token's loss is not averaged over the vocabulary": (p - y) / len(p),
        "that is p (1 − p), how each probability moves with its own logit": p * (1 - p),
        "that is how p of the right token moves; the loss is −log p": p[target] * (y - p),
        "that is how p of the right token falls; the loss is −log p": p[target] * (p - y),
        "only the right token's entry: the wrong tokens' entries are their p": y * (p - y),
        "the wrong tokens are right, but the right token's entry is 0; it is p − 1": p * (1 - y),
    }
    none_of(got, mistakes)


EXERCISES = (
    Exercise(
        "03.1",
        "Heads by one reshape",
        split_heads,
        "A view may only cut the width: (B, T, C) holds (B, T, nh, hs) in the same order. "
        "Swapping two axes is another step.",
        "def split_heads(x, nh):\n"
        "    B, T, C = x.shape\n"
        "    return x.view(B, T, nh, C // nh).transpose(1, 2)",
    ),
    Exercise(
        "03.2",
        "Layer norm from memory",
        normalise,
        "Mean and variance over dim=-1 with keepdim=True, so that they spread over the token again. "
        "torch's var divides by C − 1 unless told correction=0.",
        "def normalise(x, gain, bias):\n"
        "    centred = x - x.mean(-1, keepdim=True)\n"
        "    variance = (centred**2).mean(-1, keepdim=True)\n"
        "    return gain * centred / (variance + 1e-5).sqrt() + bias",
    ),
    Exercise(
        "03.3",
        "A position is a rotation away",
        move,
        "sin(a + b) = sin a cos b + cos a sin b and cos(a + b) = cos a cos b − sin a sin b: "
        "sin a and cos a are given, and b = k / 10000^(2i/C). position[0::2] holds the sines.",
        "def move(position, k):\n"
        "    C = len(position)\n"
        "    b = k * 10_000 ** (-torch.arange(0, C, 2) / C)\n"
        "    sin, cos = position[0::2], position[1::2]\n"
        "    turned = sin * b.cos() + cos * b.sin(), cos * b.cos() - sin * b.sin()\n"
        "    return torch.stack(turned, dim=-1).flatten()",
    ),
    Exercise(
        "03.4",
        "The gradient of cross-entropy",
        cross_entropy_gradient,
        "The loss is log Σ exp(logits) − logits[target]. Differentiate the two terms one by one.",
        "def gradient(logits, target):\n    p = logits.softmax(dim=-1)\n    p[target] -= 1\n    return p",
    ),
)
