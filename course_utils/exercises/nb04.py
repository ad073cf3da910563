"""Exercises of notebook 04: perplexity, one step of an LSTM, clipping by the norm, a bias that remembers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from itertools import permutations

import numpy as np
import torch

from course_utils.exercises import Exercise, Wrong, expect
from course_utils.exercises.properties import array, by_hand, none_of, ratio_of, signed
from course_utils.ngram import stationary

Ask = Callable[..., np.ndarray]
ROW = np.array([0, 2, 1, 3, 2, 1, 0, 0, 2, 1, 3, 1])  # (N,) tokens; several of the V² pairs are missing


def perplexity(answer: Callable) -> None:
    """Judge 04.1: e to the mean −log p(next | this), infinite where a pair is impossible."""

    def ask(tokens: np.ndarray, P: np.ndarray, trouble: str = "") -> float:
        return _perplexity(answer, tokens, P, trouble)

    P = np.random.default_rng(0).dirichlet(np.ones(4), 4)  # (V, V)
    got, wanted = ask(ROW, P), _mean_nats(ROW, P)
    none_of(np.array(got), _taken_for_perplexity(ROW, P))
    even = ask(ROW, np.full((4, 4), 1 / 4))
    expect(abs(even - 4) < 1e-3, f"4 equally likely tokens make the perplexity 4, yours is {signed(even)}")
    other = P.copy()
    other[[1, 3, 2], [2, 3, 0]] *= 0.5  # pairs the row does not have
    expect(abs(ask(ROW, other) - got) < 1e-6, "the probability of a pair that the row has not changes yours")
    should = f"the perplexity should be {math.exp(wanted):.4f}, yours is {signed(got, 4)}"
    expect(abs(got - math.exp(wanted)) < 1e-4 * math.exp(wanted), should)
    product = "a product of so many probabilities is too small for a float; add their logarithms instead"
    for N, V, why in ((2, 2, ""), (60, 7, ""), (3_000, 3, product)):
        draw = np.random.default_rng(N)
        tokens, table = draw.integers(0, V, N), draw.dirichlet(np.ones(V), V)
        its, should = ask(tokens, table, why), math.exp(_mean_nats(tokens, table))
        case = f"right for N = 12, V = 4, but for N = {N}, V = {V} it is {should:.4f}, yours {its:.4f}"
        expect(math.isclose(its, should, rel_tol=1e-4), case)
    _impossible(answer, ask, P)


def _perplexity(answer: Callable, tokens: np.ndarray, P: np.ndarray, trouble: str) -> float:
    """The answer's number; Wrong, with the reason where one is known, if it is none."""
    V, pairs = len(P), len(tokens) - 1
    shapes = {
        (pairs,): "one number for each pair: their mean is asked for, and e to its power",
        (pairs + 1,): "one number for each token; one for the row is asked for",
        (V, V): "one number for each entry of P: look up those of the row's pairs, P[this, next]",
        (pairs, pairs): "P[this][:, next] pairs every token with every other: P[this, next]",
        (pairs, V): "P[this] is a whole row for each token: P[this, next]",
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = answer(tokens.copy(), P.copy())
    except (ArithmeticError, ValueError) as error:
        if trouble:
            raise Wrong(trouble) from error
        raise
    return float(array(value, (), "the perplexity", shapes, trouble, trouble))


def _mean_nats(tokens: np.ndarray, P: np.ndarray) -> float:
    return float(-np.log(P[tokens[:-1], tokens[1:]]).mean())


def _taken_for_perplexity(tokens: np.ndarray, P: np.ndarray) -> dict[str, object]:
    """What other numbers that are often taken for the perplexity say about an answer."""
    p, H = P[tokens[:-1], tokens[1:]], _mean_nats(tokens, P)  # (N − 1,), ()
    bits, whole = H / math.log(2), math.exp(len(p) * H)
    return _other_pairs(tokens, P) | {
        "that is the mean of −log p, nats a token; the perplexity is e to its power": H,
        "that is the mean of −log₂ p, bits a token; the perplexity is 2 to its power": bits,
        "2 to the power of nats: e goes with the natural logarithm, 2 with log₂": 2**H,
        "e to the power of bits: 2 goes with log₂, e with the natural logarithm": math.exp(bits),
        f"you divide by N = {len(tokens)}, but N tokens make N − 1 pairs": whole ** (1 / len(tokens)),
        "that is e to the sum of −log p; take the mean": whole,
        "the sign is turned: e to the mean of −log p, which is 1 or more": (math.exp(-H), -math.exp(H)),
        "that is the mean of 1/p; take the mean of the logarithms": np.mean(1 / p),
        "that is one over the mean of p; take the mean of the logarithms": 1 / p.mean(),
    }


def _other_pairs(tokens: np.ndarray, P: np.ndarray) -> dict[str, object]:
    """The perplexity of other probabilities than those of the row's pairs, and what it tells."""
    this, after, ring = tokens[:-1], tokens[1:], np.roll(tokens, -1)
    p, shares = P[this, after], np.bincount(tokens, minlength=len(P)) / len(tokens)  # (N − 1,), (V,)
    firsts = 1 / len(P), stationary(P)[tokens[0]], shares[tokens[0]]
    others = {
        "rows and columns are exchanged: P[a, b] is p(b | a), so P[this, next]": (P[after, this],),
        "P[this, this] is the probability of staying: P[this, next]": (P[this, this], P[tokens, tokens]),
        "the first token counts too; nothing stands before it": [np.append(p, q) for q in firsts],
        "the last token is followed by the first: np.roll makes a ring": (P[tokens, ring], P[ring, tokens]),
        "the last pair is missing": (p[:-1],),
        "the first pair is missing": (p[1:],),
        "pairs share a token: (0, 1), (1, 2), …, not (0, 1), (2, 3), …": (p[::2],),
        "each pair is counted once; count it as often as it occurs": (np.unique(p),),
        "P is not used: these are the tokens' own shares": (shares[tokens], shares[after]),
        "that is over all entries of P; look up those of the row's pairs, P[this, next]": (P,),
    }
    return {why: tuple(np.exp(-np.log(q).mean()) for q in rows) for why, rows in others.items()}


def _impossible(answer: Callable, ask: Callable[..., float], P: np.ndarray) -> None:
    """Raises Wrong unless a pair of probability 0 of the row, and none else, makes it infinite."""
    absent, present = P.copy(), P.copy()
    absent[3, 3] = present[2, 1] = 0
    absent, present = (table / table.sum(1, keepdims=True) for table in (absent, present))
    unused = "a pair of probability 0 that the row has not must change nothing"
    its, should = ask(ROW, absent, unused), math.exp(_mean_nats(ROW, absent))
    expect(abs(its - should) < 1e-4 * should, unused)
    infinite = "a pair of probability 0 makes the perplexity infinite"
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            value = float(np.asarray(answer(ROW.copy(), present.copy()), dtype=float))
            answer(ROW.copy(), absent.copy())
        except (ArithmeticError, ValueError) as error:
            raise Wrong(f"{infinite}; yours raises {type(error).__name__}: {error}") from error
    expect(value == math.inf, f"{infinite}, not {signed(value)}; add nothing to p, leave nothing out")
    silent = 'right, but silently, please: with np.errstate(divide="ignore"), or look for 0 first'
    expect(not heard, f"{silent}; NumPy warns: {heard[0].message if heard else ''}")


def lstm_step(answer: Callable) -> None:
    """Judge 04.2: both results, gates in their order, each sentence on its own, for other sizes too."""

    def ask(*inputs: torch.Tensor) -> np.ndarray:
        return _h_and_c(answer(*(part.clone() for part in inputs)), *inputs[2].shape)

    inputs = step_inputs(0, 3, 4, 4)  # C inputs, so that W and U may be exchanged without an error
    got, wanted = ask(*inputs), _step(*inputs)
    none_of(got, dict(_taken_for_step(*inputs)))
    others = [part.clone() for part in inputs]
    for part in others[:3]:
        part[1:] = part[1:].flip(-1) + 1
    alone = abs(ask(*others)[:, 0] - got[:, 0]).max() < 1e-4
    expect(alone, "another sentence of the batch changes a sentence: each row goes its own way")
    _parts_of_step(ask, inputs, got, wanted)
    for sizes in ((1, 5, 2), (4, 2, 3), (2, 3, 1)):
        inputs = step_inputs(1, *sizes)
        worst = abs(ask(*inputs) - _step(*inputs)).max()
        B, width, C = sizes
        case = f"right for B = 3 and C = 4, but off by {worst:.3g} for B = {B}, {width} inputs, C = {C}"
        expect(worst < 1e-4, case)
    by_hand(answer, "LSTM", "LSTMCell", "lstm_cell", "Recurrent")


def step_inputs(seed: int, B: int, inputs: int, C: int) -> tuple[torch.Tensor, ...]:
    """Random x (B, inputs), h, c (B, C), W (4 C, inputs), U (4 C, C), b (4 C,)."""
    draw = torch.Generator().manual_seed(seed)
    shapes = (B, inputs), (B, C), (B, C), (4 * C, inputs), (4 * C, C), (4 * C,)
    return tuple(torch.randn(shape, generator=draw) for shape in shapes)


def _h_and_c(value: object, B: int, C: int) -> np.ndarray:
    """The pair as (2, B, C); Wrong where it is no pair of the right shapes."""
    shapes = {
        (C,): "the batch axis is lost",
        (2, B, C): "a pair inside the pair: return (h, c) alone",
        (B, 4 * C): "all four parts still side by side: chunk(4, dim=-1) takes them apart",
        (4 * C, B): "all four parts still together, and turned: x @ W.T has a row for each sentence",
    }
    if not isinstance(value, tuple | list):
        one = {(B, C): "that is one table; return both, the pair (h, c)"}
        return array(value, (2, B, C), "the pair (h, c)", one)
    expect(len(value) == 2, f"return two things, (h, c); you return {len(value)}")
    return np.stack([array(part, (B, C), name, shapes) for part, name in zip(value, "hc", strict=True)])


def _step(
    x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, W: torch.Tensor, U: torch.Tensor, b: torch.Tensor
) -> np.ndarray:
    """The right answer, (2, B, C)."""
    i, f, g, o = (x @ W.T + h @ U.T + b).chunk(4, dim=-1)  # (B, C) each
    return _update(i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid(), c)


def _update(
    i: torch.Tensor, f: torch.Tensor, g: torch.Tensor, o: torch.Tensor, c: torch.Tensor
) -> np.ndarray:
    c = f * c + i * g
    return torch.stack([o * c.tanh(), c]).numpy()


def _taken_for_step(
    x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, W: torch.Tensor, U: torch.Tensor, b: torch.Tensor
) -> Iterator[tuple[str, np.ndarray]]:
    """What other ways of taking the step give, (2, B, C) each."""
    z, zero = (x @ W.T + h @ U.T + b).chunk(4, dim=-1), torch.zeros_like
    yield from _other_orders(z, c)
    yield from _other_gates(z, c)
    o, (new_h, new_c) = z[3].sigmoid(), torch.from_numpy(_step(x, h, c, W, U, b))
    pairs = {
        "tanh of c is missing: h = o ⊙ tanh(c)": (o * new_c, new_c),
        "tanh goes round c alone: h = o ⊙ tanh(c), not tanh(o ⊙ c)": ((o * new_c).tanh(), new_c),
        "σ in the place of tanh: h = o ⊙ tanh(c)": (o * new_c.sigmoid(), new_c),
        "h is made of the old c; take the new one": (o * c.tanh(), new_c),
        "tanh is for h alone: return c itself, not tanh(c)": (new_h, new_c.tanh()),
        "c comes first; return (h, c)": (new_c, new_h),
        "you return the old h": (h, new_c),
        "you return the old c": (new_h, c),
    }
    yield from ((why, torch.stack(pair).numpy()) for why, pair in pairs.items())
    yield "the bias is not added", _step(x, h, c, W, U, zero(b))
    yield "the bias is added twice", _step(x, h, c, W, U, 2 * b)
    yield "U is not used: the gates see h too", _step(x, zero(h), c, W, U, b)
    yield "W is not used: the gates see x too", _step(zero(x), h, c, W, U, b)
    yield "the gates see c in the place of h", _step(x, c, c, W, U, b)
    yield "h and c are exchanged: the gates see h, and c is what is kept", _step(x, c, h, W, U, b)
    yield "W and U are exchanged: W belongs to x, U to h", _step(h, x, c, W, U, b)


def _other_orders(z: tuple[torch.Tensor, ...], c: torch.Tensor) -> Iterator[tuple[str, np.ndarray]]:
    """The four parts z, before σ and tanh, taken in each wrong order."""
    for order in list(permutations("ifgo"))[1:]:
        part = {gate: z.tanh() if gate == "g" else z.sigmoid() for gate, z in zip(order, z, strict=True)}
        why = f"you read the rows in the order {', '.join(order)}; they are i, f, g, o"
        if order == tuple("figo"):
            why = (
                "the forget and the input gate are exchanged: c = f ⊙ c + i ⊙ g, and the rows of i come first"
            )
        yield why, _update(**part, c=c)


def _other_gates(z: tuple[torch.Tensor, ...], c: torch.Tensor) -> Iterator[tuple[str, np.ndarray]]:
    """The four parts z, before σ and tanh, squashed otherwise or left out."""
    i, f, σg, o = (part.sigmoid() for part in z)
    g, one, zero = z[2].tanh(), torch.ones_like(f), torch.zeros_like(f)
    all_tanh = tuple(part.tanh() for part in z)
    others = {
        "g goes through tanh, not σ: it may write negative numbers too": (i, f, σg, o),
        "g is not squashed: it goes through tanh": (i, f, z[2], o),
        "gates go through σ, so that they lie between 0 and 1; tanh is for g and c": all_tanh,
        "σ is missing: i, f and o are gates between 0 and 1": (z[0], z[1], g, z[3]),
        "the forget gate is not used: c = f ⊙ c + i ⊙ g": (i, one, g, o),
        "the forget gate is turned: f is what stays, not what goes": (i, 1 - f, g, o),
        "the old c is lost: c = f ⊙ c + i ⊙ g": (i, zero, g, o),
        "the input gate is not used: c = f ⊙ c + i ⊙ g": (one, f, g, o),
        "the input gate is not 1 − f here: it has rows of its own, the first C": (1 - f, f, g, o),
        "nothing is written: i ⊙ g is missing": (zero, f, g, o),
        "the output gate is not used: h = o ⊙ tanh(c)": (i, f, g, one),
    }
    yield from ((why, _update(*parts, c)) for why, parts in others.items())


def _parts_of_step(ask: Ask, inputs: tuple[torch.Tensor, ...], got: np.ndarray, wanted: np.ndarray) -> None:
    """Raises Wrong with the part of the step that is off, read off the answer."""
    x, h, c, W, U, b = inputs
    i, f, g, _ = (part.numpy() for part in (x @ W.T + h @ U.T + b).chunk(4, dim=-1))
    written, gate = ask(x, h, 0 * c, W, U, b)[1], 1 / (1 + np.exp(-f))  # i ⊙ g, f
    _as_it_should(written, np.tanh(g) / (1 + np.exp(-i)), "with an old c of 0 the new c should be i · g")
    kept = (got[1] - written) / c.numpy()
    _as_it_should(kept, gate, "the share of the old c that stays should be f", 1e-3)
    _as_it_should(got[0], wanted[0], "c is right; h should be o · tanh(c)")


def _as_it_should(yours: np.ndarray, right: np.ndarray, what: str, tolerance: float = 1e-4) -> None:
    """Raises Wrong with the worst entry of (B, C) where one is off."""
    n, k = np.unravel_index(abs(yours - right).argmax(), right.shape)
    where = f"{what}, {signed(right[n, k])} in unit {k} of sentence {n}; yours is {signed(yours[n, k])}"
    expect(np.allclose(yours, right, tolerance, tolerance), where)


def clip(answer: Callable) -> None:
    """Judge 04.3: one factor for all tensors, min(1, limit / their joint norm), the given ones untouched."""

    def ask(grads: list[torch.Tensor], limit: float) -> list[np.ndarray]:
        return _clipped(answer, grads, limit)

    grads, limit = gradients(0, (3, 4), (4,), (), (2,)), 0.5
    got = ask(grads, limit)
    none_of(np.concatenate([part.ravel() for part in got]), _taken_for_clipped(grads, limit))
    _one_factor(got, grads, limit)
    short = [g / 20 for g in grads]
    stretched = "a gradient shorter than the limit stays as it is: the factor is at most 1"
    expect(
        all(np.allclose(a, b, 1e-4, 1e-6) for a, b in zip(ask(short, limit), short, strict=True)), stretched
    )
    zeros = [0 * g for g in grads]
    ask(zeros, limit)  # NaN and errors there have their own diagnosis
    for case, (other, bound) in {
        "one tensor": (gradients(1, (2, 3, 2)), 0.1),
        "seven tensors": (gradients(2, *((n + 1,) for n in range(7))), 3.0),
        "one of them 0": ([*grads[:2], 0 * grads[2]], limit),
        "a gradient 1,000 times as large": ([1000 * g for g in grads], limit),
    }.items():
        factor = min(1, bound / _norm(other))
        right = all(
            np.allclose(a, factor * b, 1e-4, 1e-6) for a, b in zip(ask(other, bound), other, strict=True)
        )
        expect(right, f"right for four tensors and a limit of {limit}, not for {case} and one of {bound:g}")
    by_hand(answer, "clip_grad_norm_", "clip_grad_norm", "clip_grads_with_norm_", "get_total_norm")


def gradients(seed: int, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    """Random gradients, entries about 1."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw) for shape in shapes]


def _norm(grads: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float((g.double() ** 2).sum()) for g in grads))


def _clipped(answer: Callable, grads: list[torch.Tensor], limit: float) -> list[np.ndarray]:
    """The answer's tensors; Wrong where they are others in number or shape, or the given ones changed."""
    tensors = [g.clone() for g in grads]
    given, zero = list(tensors), "a gradient of 0 has norm 0; "
    try:
        value = answer(given, limit)
    except ZeroDivisionError as error:
        raise Wrong(f"{zero}do not divide by it") from error
    same = len(given) == len(grads) and all(
        a is b and torch.equal(b, g) for a, b, g in zip(given, tensors, grads, strict=True)
    )
    expect(same, "you changed what you were given; make new tensors and put them into a new list")
    expect(value is not None, "your function returned None: is a return missing?")
    kind = type(value).__name__
    expect(isinstance(value, list | tuple), f"return a list with a tensor for each gradient, got {kind}")
    pair = len(value) == 2 and isinstance(value[0], list | tuple)
    expect(not pair, "return the list alone, not (list, norm)")
    expect(len(value) == len(grads), f"{len(grads)} gradients went in, {len(value)} came out")
    return [
        array(part, tuple(g.shape), f"gradient {k}", nan=f"{zero}0 / 0 is no number")
        for k, (part, g) in enumerate(zip(value, grads, strict=True))
    ]


def _taken_for_clipped(grads: list[torch.Tensor], limit: float) -> dict[str, object]:
    """What other ways of clipping give, all numbers in one row."""
    every = torch.cat([g.flatten() for g in grads])
    norms, sizes = torch.stack([g.norm() for g in grads]), torch.tensor([g.numel() for g in grads])
    total, own = every.norm(), limit / norms.repeat_interleave(sizes)
    roots = "the norm is the root of the sum of all squares"
    divisors = {
        "nothing is clipped: their joint norm is above the limit": (limit,),
        f"that is limit / norm²: {roots}": (total**2,),
        "upside down: the factor is limit / norm, not norm / limit": (limit**2 / total,),
        "you divide by the norm alone; the factor is limit / norm": (limit * total,),
        "you multiply by the limit alone; the factor is limit / norm": (1,),
        f"norms do not add up, squares do: {roots}": (norms.sum(), norms.mean()),
        f"the root of a root is too much: {roots}": (total**0.5,),
        f"that is the root of the mean of squares: {roots}": (total / len(every) ** 0.5,),
        f"that is the sum of the numbers' sizes: {roots}": (every.abs().sum(), every.abs().mean()),
        f"that is the largest number: {roots}": (every.abs().max(), every.max()),
        f"that is the sum of the numbers: {roots}": (every.sum(), every.sum().abs()),
        "the norm of one tensor decides for all; it is the norm of all numbers together": tuple(norms),
    }
    turned = "which turns the step; one factor for all, limit / norm"
    return {why: tuple(every * limit / d for d in ds) for why, ds in divisors.items()} | {
        f"each tensor is clipped by its own norm, {turned}": (every * own.clamp(max=1), every * own),
        f"each number is clipped, {turned}": (every.clamp(-limit, limit), every.clamp(max=limit)),
    }


def _one_factor(got: list[np.ndarray], grads: list[torch.Tensor], limit: float) -> None:
    """Raises Wrong unless every tensor is limit / norm times what it was."""
    ratios = [ratio_of(part, g.double().numpy()) for part, g in zip(got, grads, strict=True)]
    for k, ratio in enumerate(ratios):
        expect(ratio is not None, f"gradient {k} points another way than before; clipping only shortens")
        one = f"gradient 0 is multiplied by {signed(ratios[0])}, gradient {k} by {signed(ratio)}"
        expect(math.isclose(ratio, ratios[0], rel_tol=1e-4), f"{one}: one factor for all")
    factor = limit / _norm(grads)
    should = f"a joint norm of {_norm(grads):.3f} and a limit of {limit} make it {factor:.4f}"
    all_by = f"all gradients are multiplied by {signed(ratios[0], 4)}; {should}"
    expect(math.isclose(ratios[0], factor, rel_tol=1e-4), all_by)


def forget_bias(answer: Callable) -> None:
    """Judge 04.4: a gate of σ(bias) leaves half after as many steps, tried by taking them."""

    def ask(steps: int) -> float:
        beyond = "is there a logarithm of 0, or a division by 0?"
        return float(
            array(answer(steps), (), "the bias", nan="a logarithm of a negative number?", infinite=beyond)
        )

    got = ask(10)
    none_of(np.array(got), _taken_for_bias(10))
    for steps in (10, 1, 2, 75, 1000):
        bias = got if steps == 10 else ask(steps)
        gate = 1 / (1 + math.exp(-bias)) if bias > -700 else 0.0
        after = "1 step" if steps == 1 else f"{steps} steps"
        left = f"σ({signed(bias)}) = {gate:.4f} leaves {gate**steps:.4f} of the memory after {after}"
        first = "" if steps == 10 else "right for 10 steps, but "
        expect(abs(gate**steps - 1 / 2) < 1e-3, f"{first}{left}; half is asked for")


def _taken_for_bias(n: int) -> dict[str, object]:
    """What other numbers say about an answer."""

    def logit(gate: float) -> float:
        return math.log(gate / (1 - gate))

    f = 0.5 ** (1 / n)
    b, log2, log10 = logit(f), math.log(2), math.log(10)
    thumb = "that is ln(steps − 1) or ln(steps), a rule of thumb that leaves about 1/e; half is asked for"
    root = "0.5^steps is what f = 0.5 leaves; f is the root, 0.5^(1/steps)"
    amount = "the memory does not lose the same amount each step; it is multiplied by f"
    return {
        "that is the gate, f; the bias is what σ turns into it": f,
        "the sign is turned: that gate forgets nearly all at once": -b,
        "that is ln f; σ(x) is 1 / (1 + e^(−x)), so the bias is ln(f / (1 − f))": (math.log(f), -math.log(f)),
        "that is σ of the gate; turn σ round: ln(f / (1 − f))": 1 / (1 + math.exp(-f)),
        "that is f / (1 − f); the bias is its logarithm": f / (1 - f),
        "that is (1 − f) / f; the bias is minus its logarithm": (1 - f) / f,
        "the natural logarithm belongs to σ, not log₂ or log₁₀": (b / log2, b / log10),
        "that leaves 1/e, not half": logit(math.exp(-1 / n)),
        thumb: (math.log(n - 1), math.log(n)),
        amount: logit(1 - 0.5 / n),
        "a bias of 0 leaves half after one step": 0,
        "that leaves half after one step more": logit(0.5 ** (1 / (n + 1))),
        "that leaves half after one step less": logit(0.5 ** (1 / (n - 1))),
        root: (0.5**n, logit(0.5**n), -logit(0.5**n)),
        "that is half of the bias": b / 2,
        "tanh is not the gate's function: σ(x) = 1 / (1 + e^(−x))": math.atanh(f),
    }


EXERCISES = (
    Exercise(
        "04.1",
        "Perplexity",
        perplexity,
        "P[tokens[:-1], tokens[1:]] looks up all pairs at once. np.log(0) is −inf, which is what you want, "
        "but it warns: do it inside \"with np.errstate(divide='ignore'):\".",
        "def perplexity(tokens, P):\n"
        "    p = P[tokens[:-1], tokens[1:]]\n"
        '    with np.errstate(divide="ignore"):\n'
        "        return np.exp(-np.log(p).mean())",
    ),
    Exercise(
        "04.2",
        "One step of an LSTM",
        lstm_step,
        "x @ W.T + h @ U.T + b is (B, 4 C); chunk(4, dim=-1) cuts it into the four parts. First the new c, "
        "then h from it.",
        "def step(x, h, c, W, U, b):\n"
        "    i, f, g, o = (x @ W.T + h @ U.T + b).chunk(4, dim=-1)\n"
        "    c = f.sigmoid() * c + i.sigmoid() * g.tanh()\n"
        "    return o.sigmoid() * c.tanh(), c",
    ),
    Exercise(
        "04.3",
        "Clip by the joint norm",
        clip,
        "The joint norm is the root of the sum of all squares, over all tensors. One factor for all: "
        "min(1, limit / norm), with care where the norm is 0.",
        "def clip(grads, limit):\n"
        "    norm = sum((g**2).sum() for g in grads) ** 0.5\n"
        "    return [g * limit / norm if norm > limit else g.clone() for g in grads]",
    ),
    Exercise(
        "04.4",
        "A bias that remembers",
        forget_bias,
        "After n steps f^n is left, so f is the n-th root of 1/2. Then solve σ(bias) = f for the bias.",
        "def forget_bias(steps):\n    f = 0.5 ** (1 / steps)\n    return np.log(f / (1 - f))",
    ),
)
