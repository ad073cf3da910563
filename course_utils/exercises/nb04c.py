"""Exercises of notebook 04c: additive attention over padding, operations of a layer, width for a budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import permutations
from math import isqrt

import numpy as np
import torch

from course_utils.exercises import Exercise, expect
from course_utils.exercises.properties import array, by_hand, none_of, ratio_of, signed, sums_to_one

Inputs = tuple[torch.Tensor, ...]  # q, memory, W, U, v, lengths
Terms = dict[tuple[int, int], float]  # (i, j) → how often T^i C^j
LENGTHS = torch.tensor([3, 6, 1])  # the longest sentence fills all columns


def attend(answer: Callable) -> None:
    """Judge 04c.1: weights, then the context they make; padding, batch, sizes, large energies."""

    def ask(inputs: Inputs, case: str = "", nan: str = "") -> tuple[np.ndarray, np.ndarray]:
        return _context_and_weights(answer, inputs, case, nan)

    inputs = attention_inputs(0, 6, 4, LENGTHS)
    nothing = "a softmax of −inf alone? It goes along the words, S, and the first lengths[b] of them stay"
    context, weights = ask(inputs, nan=nothing)
    _judge_weights(weights, inputs)
    _own_sentences(ask, inputs, weights)
    wanted = _attend(*inputs)
    _judge_energies(weights, wanted[1])
    none_of(context, _taken_for_context(weights, inputs))
    mixed = (
        "the weights are right; the context should be their sum of the memory, Σ weights[b, j] · memory[b, j]"
    )
    expect(np.allclose(context, wanted[0], 1e-4, 1e-4), mixed)
    for S, C, lengths in ((1, 1, [1]), (5, 1, [2, 5]), (4, 3, [3]), (4, 4, [4, 4, 4, 4]), (7, 2, [3, 1, 5])):
        case = f"for S = {S}, C = {C} and lengths {lengths} "
        inputs = attention_inputs(1, S, C, torch.tensor(lengths))
        for its, should in zip(ask(inputs, case), _attend(*inputs), strict=True):
            worst = abs(its - should).max()
            expect(worst < 1e-4, f"right for S = 6 and C = 4, but {case}off by {worst:.3g}")
    _large_energies(ask)
    by_hand(answer, "AdditiveAttention", "scaled_dot_product_attention", "MultiheadAttention")


def attention_inputs(seed: int, S: int, C: int, lengths: torch.Tensor) -> Inputs:
    """Random q (B, C), memory (B, S, C), W, U (C, C), v (C,), and the lengths."""
    draw, B = torch.Generator().manual_seed(seed), len(lengths)
    shapes = (B, C), (B, S, C), (C, C), (C, C), (C,)
    return *(torch.randn(shape, generator=draw) for shape in shapes), lengths


def _context_and_weights(
    answer: Callable, inputs: Inputs, case: str, nan: str
) -> tuple[np.ndarray, np.ndarray]:
    """Both results; Wrong where they are no pair of the right shapes, with the reason where one is known."""
    (B, S, C), pair = inputs[1].shape, "return both, the pair (context, weights)"
    try:
        value = answer(*(part.clone() for part in inputs))
    except RuntimeError as error:
        axis = "W q is (B, C), U m is (B, S, C): W q needs an axis of length 1 for the words, [:, None]"
        expect("must match the size of tensor" not in str(error), f"shapes do not fit ({error}). {axis}")
        raise
    expect(value is not None, "your function returned None: is a return missing?")
    expect(isinstance(value, tuple | list), f"{pair}; you return one {type(value).__name__}")
    expect(len(value) == 2, f"{pair}; you return {len(value)} things")
    if [tuple(getattr(part, "shape", ())) for part in value] == [(B, S), (B, C)] and S != C:
        expect(False, "the weights come first; return (context, weights)")
    of_context, of_weights = _shapes(B, S, C)
    return (
        array(value[0], (B, C), f"{case}the context", of_context, nan, nan),
        array(value[1], (B, S), f"{case}the table of weights", of_weights, nan, nan),
    )


def _shapes(B: int, S: int, C: int) -> tuple[dict, dict]:
    """What other shapes of the context and of the weights tell; nothing where sizes are 1."""
    if S == 1 or C == 1:
        return {}, {}
    lost = "an axis of length 1 is left: squeeze it away"
    of_context = {
        (B, 1, C): lost,
        (B, C, 1): lost,
        (B, S, C): "the context is not added up over the words, S",
    }
    return of_context, {
        (B, 1, S): lost,
        (B, S, 1): lost,
        (S, B): "rows and columns are exchanged: weights (B, S)",
        (B, S, C): "a weight for each column of the memory: v makes one energy of C numbers, then softmax",
        (B, B, S): "each query meets each sentence: sentence b has its own query, q[b]",
    }


def _energies(
    q: torch.Tensor, m: torch.Tensor, W: torch.Tensor, U: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    return torch.tanh((q @ W.T)[:, None] + m @ U.T) @ v  # (B, S)


def _words(S: int, lengths: torch.Tensor) -> torch.Tensor:
    """(B, S): True at words, False at padding."""
    return torch.arange(S) < lengths[:, None]


def _softmax(energies: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """(B, S) weights of the words alone."""
    return energies.masked_fill(~words, -torch.inf).softmax(-1)


def _attend(*inputs: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The right context (B, C) and weights (B, S)."""
    *real, lengths = inputs
    real = [part.double() for part in real]
    weights = _softmax(_energies(*real), _words(real[1].shape[1], lengths))
    return (weights[:, None] @ real[1])[:, 0].numpy(), weights.numpy()


def _judge_weights(weights: np.ndarray, inputs: Inputs) -> None:
    """Raises Wrong where weights are known mistakes, stand at padding, or do not sum to 1."""
    *real, lengths = inputs
    q, m, W, U, v = (part.double() for part in real)
    words = _words(m.shape[1], lengths)
    right = _energies(q, m, W, U, v)
    none_of(weights, dict(_other_softmaxes(right, words, lengths)))
    none_of(weights, dict(_other_lengths(right, words, lengths)))
    zeroed = _energies(q, m * words[..., None], W, U, v).softmax(-1)
    none_of(weights, {"a memory of 0 at padding does not take its weight away: mask the energies": zeroed})
    others = dict(_other_energies(q, m, W, U, v)) | dict(_products(q, m, W, U))
    none_of(weights, {why: _softmax(e, words) for why, e in others.items()})
    none_of(weights, {f"{why}; and the padding is not masked": e.softmax(-1) for why, e in others.items()})
    for b, j in np.argwhere((weights != 0) & ~words.numpy()):
        where = f"sentence {b} has {lengths[b]} words, so column {j} is padding: its weight should be 0"
        expect(False, f"{where}, exactly; yours is {weights[b, j]:.3g}")
    for b, row in enumerate(weights):
        sums_to_one(row, 0, f"the row of weights of sentence {b}", 1e-4)


def _other_softmaxes(
    e: torch.Tensor, words: torch.Tensor, lengths: torch.Tensor
) -> Iterator[tuple[str, object]]:
    """What is often made of the right energies (B, S): diagnosis, weights (B, S)."""
    S, weights, masked = e.shape[1], e.softmax(-1), e.masked_fill(~words, -torch.inf)
    before = "mask before the softmax, with −inf"
    yield f"padding gets weight: {before}", weights
    yield f"you mask after the softmax, so that the words' weights do not sum to 1: {before}", weights * words
    yield f"an energy of 0 is an energy like any other, e^0 = 1: {before}", (e * words).softmax(-1)
    batch = masked.softmax(0), e.softmax(0), (e * words).softmax(0), e.softmax(0) * words
    yield "the softmax goes along the batch; it goes along the words, the last axis of (B, S)", batch
    flat = tuple(part.flatten().softmax(0).view(e.shape) for part in (masked, e))
    yield "the softmax goes over the whole batch at once; each sentence has its own", flat
    yield "every weight is 1: that softmax goes along an axis of length 1", (words * 1.0, torch.ones_like(e))
    even = words / lengths[:, None], torch.full_like(e, 1 / S)
    yield "all words weigh the same: the energy of word j depends on memory[b, j] through U", even
    best = torch.nn.functional.one_hot(masked.argmax(-1), S), torch.nn.functional.one_hot(e.argmax(-1), S)
    yield "all weight is on one word: softmax, not argmax", best
    yield "those are the energies; their softmax is asked for", (e, e * words)
    yield "e^energy is not divided by its sum over the words", (e.exp(), e.exp() * words)
    yield "σ looks at each energy alone; the softmax makes them share 1", (e.sigmoid(), e.sigmoid() * words)


def _other_lengths(
    e: torch.Tensor, words: torch.Tensor, lengths: torch.Tensor
) -> Iterator[tuple[str, object]]:
    """What masks of other columns make of the right energies (B, S)."""
    S = e.shape[1]
    yield (
        "one column too many: the first padding too gets weight, < lengths, not ≤",
        _softmax(e, _words(S, lengths + 1)),
    )
    yield "counted from the wrong end: the padding comes last", _softmax(e, words.flip(1))
    yield "the first sentence's length is used for all", _softmax(e, _words(S, lengths[:1]).expand_as(e))
    yield (
        "lengths of another sentence: lengths[b] belongs to row b",
        tuple(
            _softmax(e, _words(S, lengths[list(order)])) for order in list(permutations(range(len(e))))[1:]
        ),
    )


def _other_energies(
    q: torch.Tensor, m: torch.Tensor, W: torch.Tensor, U: torch.Tensor, v: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """What is often taken for the energies: diagnosis, energies (B, S)."""
    C, Q, own = len(v), q[:, None], torch.tanh  # (B, 1, C)
    a, k = Q @ W.T, m @ U.T
    right = own(a + k)  # (B, S, C)
    yield "tanh is missing; without it the softmax takes W q away, the same for all words", (a + k) @ v
    yield "tanh goes round W q + U m, before v, not round the energy", own((a + k) @ v)
    yield "σ in the place of tanh", (a + k).sigmoid() @ v
    yield "relu in the place of tanh", (a + k).relu() @ v
    yield "W q and U m are multiplied; add them, as the name says", own(a * k) @ v
    yield (
        "q changes nothing: it is not used, or has a tanh of its own, which the softmax takes away: "
        "one tanh round the sum W q + U m",
        own(k) @ v,
    )
    yield "q goes in without W", own(Q + k) @ v
    yield "the memory goes in without U", own(a + m) @ v
    yield "neither W nor U is used", own(Q + m) @ v
    yield "v is not used: it weighs the C numbers", right.sum(-1)
    yield "v comes after tanh", own((a + k) * v).sum(-1)
    yield "the C numbers go through a softmax; one softmax, along the words", right.softmax(-1) @ v
    yield "W and U are exchanged: W belongs to q, U to the memory", own(Q @ U.T + m @ W.T) @ v
    yield "W and U are exchanged, and both transposed: q @ W.T, memory @ U.T", own(Q @ U + m @ W) @ v
    yield "W is transposed: W q of each row is q @ W.T", own(Q @ W + k) @ v
    yield "U is transposed: U m of each row is memory @ U.T", own(a + m @ U) @ v
    yield "W and U are transposed: W q of each row is q @ W.T", own(Q @ W + m @ U) @ v
    yield "divided by √C: that belongs to the dot product", right @ v / C**0.5
    yield "the sign is turned", -right @ v


def _products(
    q: torch.Tensor, m: torch.Tensor, W: torch.Tensor, U: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """Energies (B, S) of dot-product attention, with one matrix, both or none."""
    Q, a, k = q[:, None], (q @ W.T)[:, None], m @ U.T
    dot = "that is a dot product; additive attention is v · tanh(W q + U m)"
    for which, one, other in (
        ("q and m", Q, m),
        ("W q and U m", a, k),
        ("W q and m", a, m),
        ("q and U m", Q, k),
        ("q W and m", Q @ W, m),
    ):
        yield f"{dot}: yours is of {which}", (one * other).sum(-1)
        yield f"{dot}: yours is of {which}, by √C", (one * other).sum(-1) / m.shape[-1] ** 0.5


def _own_sentences(ask: Callable, inputs: Inputs, weights: np.ndarray) -> None:
    """Raises Wrong where other sentences, or padding, move the weights of a sentence."""
    q, m, *rest = (part.clone() for part in inputs)
    q[1:], m[1:] = q[1:].flip(-1) + 1, m[1:].flip(-1) - 1
    alone = abs(ask((q, m, *rest))[1][0] - weights[0]).max() < 1e-4
    expect(alone, "another sentence of the batch changes the weights of sentence 0")
    q, m, *rest = (part.clone() for part in inputs)
    m[~_words(m.shape[1], LENGTHS)] += 3.0
    same = abs(ask((q, m, *rest))[1] - weights).max() < 1e-4
    expect(same, "the memory at padding changes your weights")


def _judge_energies(weights: np.ndarray, wanted: np.ndarray) -> None:
    """Raises Wrong unless the weights are right; with the factor of the energies, where it is one."""
    if not np.allclose(weights, wanted, 1e-4, 1e-4) and (weights[1] > 0).all():
        yours, right = (np.log(row[1]) - np.log(row[1]).mean() for row in (weights, wanted))
        ratio = ratio_of(yours, right)
        if ratio is not None and abs(ratio - 1) > 1e-2:
            expect(False, f"your energies are {signed(ratio)} times v · tanh(W q + U m)")
    b, j = np.unravel_index(abs(weights - wanted).argmax(), wanted.shape)
    where = (
        f"the weight of word {j} of sentence {b} should be {wanted[b, j]:.4f}, yours is {weights[b, j]:.4f}"
    )
    expect(np.allclose(weights, wanted, 1e-4, 1e-4), where)


def _taken_for_context(weights: np.ndarray, inputs: Inputs) -> dict[str, object]:
    """What is often made of the right weights (B, S): diagnosis → context (B, C)."""
    q, m, W, U, _, lengths = inputs
    w, n = torch.from_numpy(weights).float()[..., None], lengths[:, None]  # (B, S, 1), (B, 1)
    words, context, B = _words(m.shape[1], lengths)[..., None], (w * m).sum(1), torch.arange(len(q))
    keys, weigh = m @ U.T, "weigh each word"
    return {
        f"the context is the plain sum of the memory: {weigh}": (m.sum(1), (m * words).sum(1)),
        f"the context is the plain mean of the memory: {weigh}": (m.mean(1), (m * words).sum(1) / n),
        "the weights sum to 1 already: add up, do not divide by a number of words": (
            context / n,
            context / m.shape[1],
        ),
        "the context is made of U m; it is made of the memory itself": (w * keys).sum(1),
        "the context is made of tanh(W q + U m); it is made of the memory itself": (
            w * torch.tanh((q @ W.T)[:, None] + keys)
        ).sum(1),
        "the context is weighed twice": (w * w * m).sum(1),
        "that is the query; the context is made of the memory": (q, context + q),
        "that is the last word; the context mixes all words": (m[:, -1], m[B, lengths - 1]),
        "that is the word with most weight; the context mixes all words": m[B, w[..., 0].argmax(-1)],
    }


def _large_energies(ask: Callable) -> None:
    """Raises Wrong where energies in the thousands overflow, underflow, or get past the mask."""
    q, m, W, U, v, lengths = attention_inputs(2, 12, 4, torch.tensor([12, 1, 2, 1, 3, 1]))
    words = _words(12, lengths)
    nan = (
        "e^1000 overflows, and a softmax masked afterwards may have nothing left: mask, take the largest away"
    )
    inputs = q, m, W, U, 1000 * v, lengths
    got = ask(inputs, "for energies in the thousands ", nan)
    padding = abs(got[1][~words.numpy()]).max()
    expect(padding == 0, f"for energies in the thousands padding gets weight, {padding:.3g}: mask with −inf")
    wrong = max(abs(its - should).max() for its, should in zip(got, _attend(*inputs), strict=True))
    expect(wrong < 1e-2, f"right, but for energies in the thousands off by {wrong:.3g}")


def operations(answer: Callable) -> None:
    """Judge 04c.2: the polynomials in T and C behind the answer, term by term."""
    lengths, widths = 4 * np.arange(1, 5), 8 * np.arange(1, 5)
    table = np.array([[_pair_of_counts(answer, T, C) for C in widths] for T in lengths])  # (4, 4, 2)
    lstm, transformer = (_polynomial(table[..., k]) for k in range(2))
    for T, C in ((7, 40), (100, 64), (1, 128)):
        for name, terms, count in zip(
            ("LSTM", "Transformer"), (lstm, transformer), _pair_of_counts(answer, T, C), strict=True
        ):
            predicted = sum(n * T**i * C**j for (i, j), n in terms.items())
            odd = f"the {name}'s number is no sum of products of T and C: {count:g} for T = {T}, C = {C}"
            expect(np.isclose(count, predicted, 1e-4), f"{odd}; {predicted:g} would go with the smaller ones")
    right = {(1, 2): 16.0}, {(1, 2): 24.0, (2, 1): 4.0}
    expect((transformer, lstm) != right, "the Transformer comes first; return (LSTM, Transformer)")
    for factor, why in _FACTORS.items():
        scaled = tuple({power: n * factor for power, n in terms.items()} for terms in right)
        expect((lstm, transformer) != scaled, why)
    _judge_terms("LSTM", lstm, right[0], _LSTMS)
    _judge_terms("Transformer", transformer, right[1], _TRANSFORMERS)


_TWO = "a (T × C) by (C × D) product takes T C D multiplications and as many additions: 2 T C D"
_FACTORS = {
    0.5: f"both are half of it: {_TWO}",
    2: "both are twice of it: a multiplication and an addition count 1 each",
    3: "both are 3 times of it: that counts the backward pass too; forward alone is asked for",
}
_LSTMS = {
    8: "W_x x and W_h h are two products of this size; you count one, or forget that additions count too",
    4: f"there are two matrices, W_x and W_h, and four gates; {_TWO}",
    2: f"there are two matrices, W_x and W_h, and four gates; {_TWO}",
    12: "that is a GRU, with three parts; the LSTM has four: i, f, g, o",
    32: "input and state are C wide: two matrices from C to 4 C",
    64: "input and state are C wide: two matrices from C to 4 C",
}
_PAIRS = "scores and mixing of values take one each, and the mask saves neither"
_TRANSFORMERS = {
    (24, 2): f"2 T² C is one product over T × T pairs: {_PAIRS}",
    (24, 0): f"attention itself is forgotten: each of T × T pairs costs; {_PAIRS}",
    (24, 1): f"{_PAIRS}, and additions count too",
    (24, 8): f"too much over T × T pairs: {_PAIRS}; heads share C",
    (22, 4): "one C × C matrix is forgotten: is it the output projection?",
    (22, 2): f"one C × C matrix is forgotten, the output projection? And of T × T: {_PAIRS}",
    (20, 4): "two C × C matrices are forgotten, of those that make q, k, v and the output",
    (18, 4): "three C × C matrices are forgotten, those that make q, k and v",
    (16, 4): "half of the feed-forward is forgotten: from C to 4 C, and back; or all four C × C matrices",
    (
        16,
        0,
    ): "that is the feed-forward alone; attention has four C × C matrices and products over T × T pairs",
    (8, 4): "the feed-forward is forgotten",
    (8, 2): f"the feed-forward is forgotten, and of T × T pairs: {_PAIRS}",
    (12, 4): f"12 T C² is half of it: {_TWO}, and the feed-forward is 4 C wide",
    (12, 2): f"half of it: {_TWO}",
}
_POWERS = {0: "", 1: "{}", 2: "{}²", 3: "{}³"}


def _pair_of_counts(answer: Callable, T: int, C: int) -> np.ndarray:
    """The answer's two numbers, (2,)."""
    value, pair = answer(int(T), int(C)), "return two numbers, (LSTM, Transformer)"
    expect(not isinstance(value, dict), f"{pair}, not a dict")
    return array(value, (2,), "the pair", {(): f"{pair}; you return one"})


def _polynomial(table: np.ndarray) -> Terms:
    """The terms n · T^i C^j, i, j ≤ 3, behind numbers (4, 4) at T = 4, 8, 12, 16 and C = 8, 16, 24, 32."""
    basis = np.linalg.inv(np.vander(np.arange(1.0, 5), increasing=True))
    inverse = basis @ table @ basis.T
    powers = np.arange(4)
    n = np.round(inverse / np.outer(4.0**powers, 8.0**powers), 3)
    return {(int(i), int(j)): float(n[i, j]) for i, j in np.argwhere(n)}


def _written(terms: Terms) -> str:
    """The terms as a reader writes them, such as 24 T C² + 4 T² C."""

    def term(power: tuple[int, int], n: float) -> str:
        parts = (
            f"{n:g}" if n != 1 or not any(power) else "",
            *(_POWERS[p].format(letter) for p, letter in zip(power, "TC", strict=True)),
        )
        return " ".join(part for part in parts if part)

    rows = sorted(terms.items(), key=lambda row: (-sum(row[0]), row[0]))
    return " + ".join(term(*row) for row in rows).replace("+ -", "− ").replace("-", "−") or "0"


def _judge_terms(name: str, terms: Terms, right: Terms, known: dict) -> None:
    """Raises Wrong with the term that is off, and the reason where one is known."""
    yours = f"for the {name} you count {_written(terms)}"
    for power, why in {
        (2, 2): "T² with C²: a pair of tokens costs as much as a vector is wide, C, not C²",
        (0, 2): "that is for one token; a sequence has T",
        (
            1,
            1,
        ): "T C alone is no matrix product's: biases, gates, norms and sums are left out, and so is what "
        "a mask would save",
        (2, 0): "T² alone is no matrix product's: a pair of tokens costs C, and the softmax is left out",
    }.items():
        expect(power not in terms or power in right, f"{yours}; {why}")
    if not set(terms) - set(right):
        counts = tuple(terms.get(power, 0.0) for power in right)
        why = known.get(counts[0] if len(counts) == 1 else counts)
        expect(not why, f"{yours}; {why}")
    for power in {**right, **terms}:
        off = terms.get(power, 0.0) - right.get(power, 0.0)
        size = f"{'too much' if off > 0 else 'too little'} by {_written({power: abs(off)})}"
        expect(not off, f"{yours}; that is {size}: a C × C matrix takes 2 T C², a product over pairs 2 T² C")


def width(answer: Callable) -> None:
    """Judge 04c.3: the widest that fits, at and around exact budgets, none, and large ones in a second."""

    def ask(V: int, budget: int) -> int:
        return _one_width(answer, V, budget)

    sizes = (1000, 140, 0.95), (50, 33, 0.6), (9, 24, 0.3), (8_000, 211, 0.6), (3, 93, 0.8), (300, 374, 0.55)
    cases = [(V, _between(V, C, share)) for V, C, share in sizes]
    got = np.array([ask(*case) for case in cases])
    none_of(got, dict(_taken_for_widths(cases)), 1e-9)
    for (V, budget), C in zip(cases, got, strict=True):
        _fits(V, budget, C)
    for V, budget in ((1000, 1015), (1000, 0), (20, 3)):
        its, least = ask(V, budget), parameters(V, 1)
        none = f"V = {V}, budget = {budget}: C = 1 has {least} parameters already, so none fits: 0, not {its}"
        expect(its == 0, none)
    for power in range(6, 13):
        for V in (30, 9_000):
            _fits(V, 10**power, ask(V, 10**power))
    exact = [(V, C) for V in (1, 50, 999, 8_000) for C in (1, 2, 7, 30, 64, 97, 128, 300, 512)]
    less = [(V, C, its) for V, C in exact if (its := ask(V, parameters(V, C))) != C]
    whole = "a model of exactly budget parameters fits: at most, ≤, not <"
    expect(len(less) < len(exact) or any(its != C - 1 for _, C, its in less), whole)
    for V, C, its in less:
        budget = parameters(V, C)
        near = f"V = {V}, budget = {budget:,} is exactly C = {C}, yours is {its}"
        expect(False, f"right elsewhere, but {near}: rounding? Count in whole numbers")
    for V, C in exact:
        _fits(V, parameters(V, C) - 1, ask(V, parameters(V, C) - 1))


def parameters(V: int, C: int) -> int:
    """Of a tied language model with one LSTM layer: V C + 8 C² + 8 C."""
    return V * C + 8 * C * C + 8 * C


def _between(V: int, C: int, share: float) -> int:
    """A budget that lets C in and not C + 1, this share of the way from one to the other."""
    return parameters(V, C) + int(share * (parameters(V, C + 1) - parameters(V, C)))


def _one_width(answer: Callable, V: int, budget: int) -> int:
    """The answer's C; Wrong where it is no whole number or took too long."""
    start = time.thread_time()  # not the clock: others may be using the machine
    value = answer(V, budget)
    took = time.thread_time() - start
    C = float(array(value, (), "the width", {(2,): "return the width alone"}))
    expect(int(C) == C, f"a width is a whole number; for V = {V}, budget = {budget:,} yours is {C:g}")
    expect(C >= 0, f"a width is not negative; for V = {V}, budget = {budget:,} yours is {C:g}")
    slow = f"for a budget of {budget:,} yours took {took:.1f} s: solve 8 C² + (V + 8) C = budget, or halve"
    expect(took < 1, slow)
    return int(C)


def _fits(V: int, budget: int, C: int) -> None:
    """Raises Wrong unless C, and not C + 1, has at most `budget` parameters."""
    case = f"V = {V}, budget = {budget:,}"
    expect(parameters(V, C) <= budget, f"{case}: your C = {C} has {parameters(V, C):,} parameters, too many")
    more = f"C = {C + 1} fits too, with {parameters(V, C + 1):,}"
    expect(parameters(V, C + 1) > budget, f"{case}: yours is {C}, but {more}")


def _widest(V: int, budget: int, a: int = 8, b: int = 8, times: int = 1) -> int:
    """The largest C with a C² + (times · V + b) C ≤ budget."""
    linear = times * V + b
    if not a:
        return budget // linear
    return (isqrt(linear * linear + 4 * a * max(budget, 0)) - linear) // (2 * a)


_BOTH = "W_x and W_h are 4 C × C each: 8 C²"
_COUNTS = {  # diagnosis → how often C², C and V C are counted
    "torch has two biases, 4 C numbers each; you count one": (8, 4, 1),
    "the biases are not counted: torch has two, 4 C numbers each": (8, 0, 1),
    "the embedding is counted twice; tied, it is one table": (8, 8, 2),
    "the embedding is not counted: V C": (8, 8, 0),
    "neither the embedding nor the biases are counted": (8, 0, 0),
    f"one matrix is missing: {_BOTH}": (4, 8, 1),
    f"one matrix and one bias are missing: {_BOTH}, and two biases": (4, 4, 1),
    f"one matrix and the biases are missing: {_BOTH}, and two biases": (4, 0, 1),
    "that is a GRU, with three parts; the LSTM has four": (6, 6, 1),
    "that is a plain RNN; the LSTM has four parts of that size": (2, 2, 1),
    "that is for two layers; one is asked for": (16, 16, 1),
    "the embedding is counted twice, and one bias is missing": (8, 4, 2),
    "the LSTM's matrices are not counted: 8 C²": (0, 8, 1),
}


def _taken_for_widths(cases: list[tuple[int, int]]) -> Iterator[tuple[str, np.ndarray]]:
    """What other counts give for (V, budget): diagnosis, widths."""

    def each(rule: Callable[[int, int], float]) -> np.ndarray:
        return np.array([rule(*case) for case in cases])

    def closer(V: int, budget: int) -> int:
        C = _widest(V, budget)
        return min((C, C + 1), key=lambda width: abs(parameters(V, width) - budget))

    for why, (a, b, times) in _COUNTS.items():
        yield why, each(lambda V, budget, a=a, b=b, times=times: _widest(V, budget, a, b, times))
    yield (
        "one too many: the largest that fits, not the smallest that does not",
        each(lambda V, budget: _widest(V, budget) + 1),
    )
    yield "one too few: one more fits", each(lambda V, budget: _widest(V, budget) - 1)
    yield "that is the closest; the largest that fits is asked for", each(closer)
    yield (
        "the scores of a tied model have no bias of V numbers here",
        each(lambda V, budget: _widest(V, budget - V)),
    )
    yield (
        "that is the number of parameters; its C is asked for",
        each(lambda V, budget: parameters(V, _widest(V, budget))),
    )


EXERCISES = (
    Exercise(
        "04c.1",
        "Attention by addition",
        attend,
        "q @ W.T is (B, C) and memory @ U.T is (B, S, C): [:, None] gives the first an axis for the words. "
        "torch.arange(S) >= lengths[:, None] is True at padding; masked_fill it with −inf, then softmax.",
        "def attend(q, memory, W, U, v, lengths):\n"
        "    energies = torch.tanh((q @ W.T)[:, None] + memory @ U.T) @ v\n"
        "    padding = torch.arange(memory.shape[1]) >= lengths[:, None]\n"
        "    weights = energies.masked_fill(padding, -torch.inf).softmax(dim=-1)\n"
        "    return (weights[:, None] @ memory).squeeze(1), weights",
    ),
    Exercise(
        "04c.2",
        "What a layer costs",
        operations,
        "A (T × C) by (C × D) product takes 2 T C D. The LSTM has two matrices from C to 4 C. The "
        "Transformer makes q, k, v and the output from C to C, goes from C to 4 C and back, and has two "
        "products over pairs.",
        "def operations(T, C):\n"
        "    lstm = 2 * (2 * T * C * 4 * C)\n"
        "    projections, feed_forward = 4 * (2 * T * C * C), 2 * (2 * T * C * 4 * C)\n"
        "    pairs = 2 * (2 * T * T * C)\n"
        "    return lstm, projections + feed_forward + pairs",
    ),
    Exercise(
        "04c.3",
        "As wide as the budget allows",
        width,
        "Add up: V C for the table, 4 C × C twice, 4 C twice. The quadratic formula gives C; math.isqrt "
        "keeps to whole numbers. Trying C = 1, 2, 3 … does it too.",
        "def width(V, budget):\n"
        "    C = 0\n"
        "    while V * (C + 1) + 8 * (C + 1) ** 2 + 8 * (C + 1) <= budget:\n"
        "        C += 1\n"
        "    return C",
    ),
)
