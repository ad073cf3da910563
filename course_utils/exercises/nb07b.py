"""Exercises of notebook 07b: what top-p leaves, how much of a text is repetition, positions by turning."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import numpy as np
import torch

from course_utils.exercises import Exercise, expect
from course_utils.exercises.properties import array, by_hand, none_of, signed
from course_utils.metrics import repetition as share_of_repeats

Ask = Callable[..., np.ndarray]


def nucleus(answer: Callable) -> None:
    """Judge 07b.1: known mistakes; then the most probable, the fewest that reach mass, shares kept, sum 1."""
    chances = 0.09, 0.02, 0.18, 0.007, 0.14, 0.04, 0.2, 0.01, 0.12, 0.16, 0.003, 0.03
    p = torch.tensor(chances, dtype=torch.float64)
    got = _left_of(answer, p, 0.52)
    counts = {int((_left_of(answer, p, mass) > 0).sum()) for mass in (0.3, 0.52, 0.8)}
    always = f"for mass 0.3, 0.52 and 0.8 you leave {max(counts)} tokens each time"
    expect(len(counts) > 1 or counts < {0, 1, len(p)}, f"{always}; the fewest that reach mass stay")
    for diagnosis, values in _taken_for_nucleus(p, 0.52):
        none_of(got, {diagnosis: values}, 1e-6)
    _as_nucleus(got, p.numpy(), 0.52, "")
    exact = torch.tensor([0.125, 0.5, 0.0625, 0.25, 0.0625], dtype=torch.float64)  # sums without rounding
    ties = torch.tensor([0.25, 0.125, 0.25, 0.25, 0.125], dtype=torch.float64)
    for row in (exact, ties):
        for mass in (0.01, 0.25, 0.5, 0.6, 0.75, 0.9, 1.0):
            _as_nucleus(
                _left_of(answer, row, mass), row.numpy(), mass, f"for p = {row.tolist()}, mass {mass}, "
            )
    for seed in range(40):
        row, mass = random_chances(seed)
        V = len(row)
        case = (
            f"for {V} random probabilities and mass {mass:.3f}, "
            if V > 6
            else f"for p = {row.tolist()}, mass {mass:.3f}, "
        )
        _as_nucleus(_left_of(answer, row, mass), row.numpy(), mass, case)
    _whole_mass(answer)
    by_hand(answer, "keep_top_p", "TopPLogitsWarper")


def random_chances(seed: int) -> tuple[torch.Tensor, float]:
    """Probabilities (V,) of 1 to 40 tokens, and a mass that no sum of the largest comes near."""
    draw = np.random.default_rng(seed)
    p = draw.dirichlet(np.full(draw.integers(1, 41), 0.5))
    sums = np.cumsum(np.sort(p)[::-1])
    mass = next(m for m in draw.uniform(0.02, 0.99, 99) if abs(sums - m).min() > 1e-6)
    return torch.from_numpy(p), float(mass)


def _left_of(answer: Callable, p: torch.Tensor, mass: float) -> np.ndarray:
    """The answer's distribution; Wrong where it has another shape, is no number, or the call failed."""
    V, case = len(p), f"for p = {p.tolist()}, mass {mass}, " if len(p) < 9 else f"for mass {mass:.3f}, "
    logs = "where a token is left out its probability is 0, not −∞: return probabilities, not scores"
    nothing = f"{case}no token is left, and 0 / 0 is none; one at least stays, here the likeliest"
    try:
        value = answer(p.clone(), mass)
    except (IndexError, RuntimeError, ValueError) as error:
        expect(False, f"{case}your function raised {type(error).__name__}: {error}")
    shapes = {
        (V + 1,): f"one number more than the {V} tokens: (V,)",
        (1, V): "an axis of length 1 is left: (V,)",
    }
    alone = "only the tokens that are left are returned: (V,), with 0 for the others"
    shapes |= {(n,): alone for n in range(V)} | {
        (): "one number in all; a distribution over the V tokens is asked for"
    }
    truth = isinstance(value, torch.Tensor | np.ndarray) and str(value.dtype) in ("torch.bool", "bool")
    expect(not truth, "that says which tokens are left; return their probabilities, which add up to 1")
    return array(value, (V,), "the distribution", shapes, nothing, logs)


def _head(p: np.ndarray, mass: float) -> int:
    """How many of the most probable reach mass: exact sums, so that rounding decides nothing."""
    total, wanted = Fraction(0), Fraction(mass)
    for n, value in enumerate(sorted(map(Fraction, p.tolist()), reverse=True), 1):
        total += value
        if total >= wanted:
            return n
    return len(p)


def _as_nucleus(got: np.ndarray, p: np.ndarray, mass: float, case: str) -> None:
    """Raises Wrong at the first property that the distribution left by top-p lacks."""
    expect((got > -1e-12).all(), f"{case}a probability is below 0: {got.min():.4g}")
    left, n = got > 1e-12, _head(p, mass)
    expect(left.any(), f"{case}no token is left; one at least stays, the likeliest")
    born = left & (p == 0)
    expect(not born.any(), f"{case}a token of probability 0 is left")
    kept, sums = int(left.sum()), np.sort(p)[::-1].cumsum()
    least, most = p[left].min(), p[~left].max(initial=0)
    head = f"{case}a token with probability {least:.4g} is left and one with {most:.4g} is not"
    expect(least >= most, f"{head}: the most probable stay, each in its place")
    few = f"{case}the {kept} tokens you leave have {sums[kept - 1]:.4g} together, less than {mass:.4g}"
    expect(kept >= n, f"{few}: {n} reach it")
    tied = np.sort(p)[-n] == least
    ties = f"{case}of equally probable tokens only as many stay as reach mass: {n} in all, not {kept}"
    expect(kept <= n or not tied, ties)
    many = f"{case}you leave {kept} tokens, where {n} have {sums[n - 1]:.4g}, which reaches {mass:.4g}"
    expect(kept <= n, f"{many}: leave the fewest")
    total = got.sum()
    expect(abs(total - 1) < 1e-5, f"{case}what is left adds up to {total:.4f}: divide by the sum, to get 1")
    shares = got[left] * p[left].sum() / p[left]
    odd = f"{case}among the tokens left the proportions have changed: each is p, divided by one number"
    expect(np.allclose(shares, 1, 1e-4), odd)


def _whole_mass(answer: Callable) -> None:
    """Raises Wrong where mass 1 fails since the sum of p, rounded, stays below 1 or reaches it too soon."""
    for V in (6, 10, 30):
        p = torch.full((V,), 1 / V, dtype=torch.float64) * (1 - 1e-15)
        p[0] += 1e-9
        p[1] -= 1e-9
        try:
            got = array(answer(p.clone(), 1.0), (V,), "the distribution")
        except (IndexError, RuntimeError, ValueError) as error:
            expect(False, f"{WHOLE}; your function raised {type(error).__name__}: {error}")
        expect(np.allclose(got, p, 1e-5, 1e-6), f"{WHOLE}; of {V} tokens you leave {int((got > 0).sum())}")


WHOLE = "mass 1 leaves all, even where the sum of p, rounded, stays 1e−15 below 1 and never reaches it"


def _taken_for_nucleus(p: torch.Tensor, mass: float) -> Iterator[tuple[str, object]]:
    """What other ways of leaving tokens out give."""
    V, n = len(p), _head(p.numpy(), mass)
    order = p.argsort(descending=True)
    ranks = order.argsort()

    def share(left: torch.Tensor) -> torch.Tensor:
        return torch.where(left, p, 0) / p[left].sum()

    right = share(ranks < n)
    yield f"you stop one early: {n - 1} tokens do not reach {mass} together", share(ranks < n - 1)
    yield f"one token too many: {n} reach {mass} together", share(ranks < n + 1)
    yield "what is left does not add up to 1: divide by its sum", torch.where(ranks < n, p, 0)
    yield f"what is left adds up to {mass}; to 1 it should", mass * right
    yield (
        "the tokens are sorted; each keeps its place in the vocabulary",
        (right[order], right[order.flip(0)]),
    )
    places = "the order is lost: the cut was found in sorted order, and made in the vocabulary's"
    yield places, share(torch.arange(V) < n)
    rising = p[order.flip(0)].cumsum(0)
    reach = int((rising < mass).sum()) + 1  # of the least probable
    tail = "that is the tail: the most probable stay, not the least"
    yield tail, (share(ranks >= V - reach), share(ranks >= n), share(ranks >= V - n))
    yield from _taken_for_other_rules(p, mass, n, ranks)


def _taken_for_other_rules(
    p: torch.Tensor, mass: float, n: int, ranks: torch.Tensor
) -> Iterator[tuple[str, object]]:
    """What other rules of leaving out, or other shares among the n of the lowest ranks, give."""

    def share(left: torch.Tensor) -> torch.Tensor:
        return torch.where(left, p, 0) / p[left].sum()

    V = len(p)
    unsorted = "you add up in the vocabulary's order; the most probable come first"
    yield unsorted, (share(p.cumsum(0) - p < mass), share(p.cumsum(0) <= mass))
    part = "you leave a share of the tokens; mass is a share of the probability"
    yield part, (share(ranks < int(mass * V)), share(ranks < math.ceil(mass * V)))
    least = "you leave tokens of at least a share of the likeliest one's probability, which is min-p"
    yield least, (share(p >= (1 - mass) * p.max()), share(p >= mass * p.max()))
    chances = "these are probabilities already: no softmax, divide by the sum"
    kept = torch.where(ranks < n, p, -torch.inf).softmax(0)
    yield chances, (kept, torch.where(ranks < n, p, 0).softmax(0), p.softmax(0))
    yield "nothing is left out", p
    yield "that is the likeliest alone; the fewest that reach mass stay", (ranks == 0).double()
    yield "the tokens left keep their proportions; yours are equally likely", (ranks < n).double() / n
    missing = mass - p[ranks < n - 1].sum()
    cut = torch.where(ranks < n - 1, p, torch.where(ranks == n - 1, missing, 0)) / mass
    yield "the last token is cut to what was missing; it stays whole", cut
    yield "all are made smaller by mass; those left keep p, divided by their sum", mass * p


# --- repetition ---------------------------------------------------------------------------------------------

TEXTS = (
    ([9, 5, 1, 2, 5, 1, 2, 5, 1], 2),
    ([3, 7, 7, 3, 3, 7, 9, 3, 7, 7], 3),
    ([1, 23, 4, 12, 3, 4, 1, 23, 12, 3], 2),
    ([4, 4, 4, 4, 4, 6, 4, 4], 2),
    ([8, 2, 6, 2, 8, 9, 6, 2, 2], 1),
    ([1, 2, 2, 1, 3, 2, 1, 2, 9, 1, 2, 3], 2),
    ([6, 5, 4, 6, 5, 4, 1, 6, 5, 4, 6, 5], 4),
)
Grams = list[tuple[int, ...]]


def repetition(answer: Callable) -> None:
    """Judge 07b.2: known mistakes on seven texts; range, other ids, loops, lengths, random texts."""
    found = [_share_of(answer, tokens, n) for tokens, n in TEXTS]
    for diagnosis, way in _taken_for_share():
        same = all(np.isclose(got, way(*case), 1e-4, 1e-6) for got, case in zip(found, TEXTS, strict=True))
        expect(not same, diagnosis)
    for got in found:
        expect(
            -1e-9 < got < 1,
            f"a share of n-grams seen before lies between 0 and 1, below 1; yours is {signed(got)}",
        )
    fresh = _share_of(answer, list(range(9)), 2)
    expect(abs(fresh) < 1e-6, f"where no token comes twice nothing is repeated: 0, yours is {signed(fresh)}")
    tokens, n = TEXTS[5]
    renamed = _share_of(answer, [100 - 7 * token for token in tokens], n)
    names = "other ids for the same tokens change your answer; only which are equal counts"
    expect(abs(renamed - found[5]) < 1e-6, names)
    for got, (tokens, n) in zip(found, TEXTS, strict=True):
        _as_counted(got, tokens, n)
    for tokens, n in (([7], 1), ([7, 7, 7], 3), ([1, 2, 1, 2], 4), ([2] * 30, 4), ([2] * 30, 1)):
        _as_counted(_share_of(answer, tokens, n), tokens, n)
    for seed in range(40):
        tokens, n = random_tokens(seed)
        _as_counted(_share_of(answer, tokens, n), tokens, n)


def random_tokens(seed: int) -> tuple[list[int], int]:
    """A text of a few different tokens, and an n it is long enough for."""
    draw = np.random.default_rng(seed)
    n = int(draw.integers(1, 6))
    return draw.integers(0, draw.integers(2, 30), n + draw.integers(0, 25)).tolist(), n


def _share_of(answer: Callable, tokens: list[int], n: int) -> float:
    """The answer's number; Wrong where lists were put into a set, or the text was too short for it."""
    own, all_of_them = list(tokens), len(tokens) - n + 1
    try:
        value = answer(own, n)
    except TypeError as error:
        expect(
            "unhashable" not in str(error),
            f"a set takes no lists: tuple(tokens[i : i + n]) ({error})",
        )
        raise
    except ZeroDivisionError:
        size = f"{len(tokens)} tokens hold {all_of_them} n-gram{'s' * (all_of_them > 1)} for n = {n}"
        expect(False, f"your function divides by 0: {size}, i from 0 to len(tokens) − n")
    value = float(value) if isinstance(value, Fraction) else value
    return float(array(value, (), "the share"))


def _as_counted(got: float, tokens: list[int], n: int) -> None:
    """Raises Wrong unless the share is right, with the counts."""
    wanted, grams = share_of_repeats(tokens, n), _grams(tokens, n)
    again = len(grams) - len(set(grams))
    counts = f"{tokens} holds {len(grams)} n-grams for n = {n}, of which {again} occurred before"
    expect(abs(got - wanted) < 1e-5, f"{counts}: {wanted:.4f}, yours is {signed(got, 4)}")


def _grams(tokens: Sequence[int], n: int) -> Grams:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def _repeated(grams: Sequence[object]) -> float:
    """The share of things that have occurred before; NaN where there are none."""
    return 1 - len(set(grams)) / len(grams) if grams else math.nan


def _taken_for_share() -> Iterator[tuple[str, Callable[[list[int], int], float]]]:
    """What other counts give."""
    turned = "that is the share of different ones; 1 − it has occurred before"
    yield turned, lambda x, n: 1 - _repeated(_grams(x, n))
    yield "tokens are counted; n-grams should be, n tokens in a row", lambda x, n: _repeated(x)
    yield (
        "tokens are counted, and the different ones; n-grams have occurred before",
        lambda x, n: 1 - _repeated(x),
    )
    apart = "your n-grams lie side by side; one begins at each token: tokens[i : i + n], i = 0, 1, 2 …"
    yield apart, lambda x, n: _repeated(_grams(x, n)[::n])
    yield apart, lambda x, n: _repeated([tuple(x[i : i + n]) for i in range(0, len(x), n)])
    by = "you divide by the number of tokens; divide by the number of n-grams, len(tokens) − n + 1"
    yield by, lambda x, n: 1 - len(set(_grams(x, n))) / len(x)
    by += " (or count shorter pieces at the end as n-grams, which comes to the same)"
    yield by, lambda x, n: _repeated(_grams(x, n)) * len(_grams(x, n)) / len(x)
    fewer = "you divide by len(tokens) − n; there is one n-gram more, len(tokens) − n + 1"
    yield fewer, lambda x, n: 1 - len(set(_grams(x, n))) / (len(x) - n)
    yield fewer, lambda x, n: _repeated(_grams(x, n)) * len(_grams(x, n)) / (len(x) - n)
    different = "you divide by the number of different n-grams; divide by that of all"
    yield different, lambda x, n: len(_grams(x, n)) / len(set(_grams(x, n))) - 1
    yield (
        "that is all / different; 1 − different / all is asked for",
        lambda x, n: len(_grams(x, n)) / len(set(_grams(x, n))),
    )
    number = "that is a number of n-grams; divide by that of all"
    yield number, lambda x, n: _repeated(_grams(x, n)) * len(_grams(x, n))
    yield number + ", and 1 minus it", lambda x, n: len(set(_grams(x, n)))
    yield "that is in percent; a share from 0 to 1 is asked for", lambda x, n: 100 * _repeated(_grams(x, n))
    yield from _taken_for_windows()
    yield from _taken_for_counts()


def _taken_for_windows() -> Iterator[tuple[str, Callable[[list[int], int], float]]]:
    """What n-grams of another kind give."""
    order = "the order within an n-gram is lost: 1, 2 is not 2, 1; no sorted and no set of its tokens"
    yield order, lambda x, n: _repeated([tuple(sorted(gram)) for gram in _grams(x, n)])
    yield order, lambda x, n: _repeated([frozenset(gram) for gram in _grams(x, n)])
    yield (
        "an n-gram is more than the sum of its tokens",
        lambda x, n: _repeated([sum(gram) for gram in _grams(x, n)]),
    )
    glued = "tokens are glued together without a sign between: 1, 23 and 12, 3 both become 123"
    yield glued, lambda x, n: _repeated(["".join(map(str, gram)) for gram in _grams(x, n)])
    last = (
        "the last n-gram is left out: it begins at len(tokens) − n, so that range ends at len(tokens) − n + 1"
    )
    yield last, lambda x, n: _repeated(_grams(x, n)[:-1])
    yield last, lambda x, n: 1 - len(set(_grams(x, n)[:-1])) / len(_grams(x, n))
    yield "the first n-gram is left out; it begins at 0", lambda x, n: _repeated(_grams(x, n)[1:])
    short = "pieces shorter than n at the end are counted too: the last n-gram begins at len(tokens) − n"
    yield short, lambda x, n: _repeated([tuple(x[i : i + n]) for i in range(len(x) - n + 2)])
    yield "your n-grams have n + 1 tokens: tokens[i : i + n]", lambda x, n: _repeated(_grams(x, n + 1))
    fewer = "your n-grams have n − 1 tokens: tokens[i : i + n]"
    yield fewer, lambda x, n: _repeated(_grams(x, n - 1)) if n > 1 else 1 - 1 / (len(x) + 1)
    ends = "only the first and the last token of an n-gram are compared"
    yield ends, lambda x, n: _repeated([(gram[0], gram[-1]) for gram in _grams(x, n)])
    pairs = "n is not used: your n-grams are pairs"
    yield pairs, lambda x, n: _repeated(_grams(x, 2))


def _taken_for_counts() -> Iterator[tuple[str, Callable[[list[int], int], float]]]:
    """What else is counted among the right n-grams."""

    def counted(of: Callable[[Grams, Counter], float]) -> Callable[[list[int], int], float]:
        return lambda x, n: of(_grams(x, n), Counter(_grams(x, n)))

    first = "the first time counts too; an n-gram is repeated from its second time on"
    yield first, counted(lambda grams, counts: sum(counts[gram] > 1 for gram in grams) / len(grams))
    kinds = "each different n-gram counts once; of three times two have occurred before"
    yield kinds, counted(lambda grams, counts: sum(m > 1 for m in counts.values()) / len(counts))
    yield kinds, counted(lambda grams, counts: sum(m > 1 for m in counts.values()) / len(grams))
    once = "that is the share of n-grams that occur once; those that have occurred before are asked for"
    yield once, counted(lambda grams, counts: sum(m == 1 for m in counts.values()) / len(grams))
    yield (
        "that is the share of the most frequent n-gram",
        counted(lambda grams, counts: max(counts.values()) / len(grams)),
    )
    beside = "only an n-gram that was there just before counts; it may be anywhere before"
    for gap in (lambda n: 1, lambda n: n):
        yield (
            beside,
            lambda x, n, gap=gap: (
                sum(a == b for a, b in zip(_grams(x, n), _grams(x, n)[gap(n) :], strict=False))
                / len(_grams(x, n))
            ),
        )


# --- rotary positions ---------------------------------------------------------------------------------------


def turn(answer: Callable) -> None:
    """Judge 07b.3: position 0, pairs, lengths, angles read off, distance alone; known mistakes; sizes."""

    def ask(x: torch.Tensor, case: str = "") -> np.ndarray:
        return _turned_by(answer, x, case)

    x = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    got = ask(x)
    none_of(got, dict(_taken_for_turned(x)))
    _turn_properties(ask, x, got)
    _angles(ask, 6, 8)
    _as_turned(got, x, "")
    for T, hs in ((1, 2), (9, 2), (8, 8), (40, 6), (3, 64)):
        other = torch.randn(T, hs, dtype=torch.float64, generator=torch.Generator().manual_seed(T))
        case = f"right for x (6, 8), but for {(T, hs)} "
        _as_turned(ask(other, case), other, case)
    by_hand(answer, "rotate", "LlamaRotaryEmbedding", "apply_rotary_pos_emb")


def _turned_by(answer: Callable, x: torch.Tensor, case: str) -> np.ndarray:
    """The answer's rows; Wrong where they have another shape or are complex."""
    T, hs = x.shape
    shapes = {
        (T, hs // 2): "half of the numbers are missing: both of each pair are asked for, (T, hs)",
        (T, 2 * hs): "twice as many numbers: two halves of hs / 2 make (T, hs)",
        (hs, T): "rows and columns are exchanged: (T, hs)",
        (
            T,
            hs // 2,
            2,
        ): "the pairs have an axis of their own: (T, hs), first numbers in front, second behind",
        (T, 2, hs // 2): "the two halves have an axis of their own: side by side they are (T, hs)",
        (T, T): "one number for each pair of positions; the turned rows are asked for",
        (hs,): "one row; each of the T positions has its own",
    }
    value = answer(x.clone())
    numbers = "complex numbers: their real parts are the first half of a row, the imaginary ones the second"
    expect("complex" not in str(getattr(value, "dtype", "")), numbers)
    return array(value, (T, hs), f"{case}the answer", shapes if len({T, hs, hs // 2, 2, 1}) == 5 else {})


def _by_angles(
    x: torch.Tensor, angles: torch.Tensor, neighbours: bool = False, back: bool | None = None
) -> torch.Tensor:
    """x (T, hs) turned by angles (T, hs / 2): halves, or neighbours, as pairs; put back so or otherwise."""
    half = x.shape[1] // 2
    a, b = (x[:, ::2], x[:, 1::2]) if neighbours else (x[:, :half], x[:, half:])
    pair = a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()
    back = neighbours if back is None else back
    return torch.stack(pair, 2).flatten(1) if back else torch.cat(pair, 1)


def _grid(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (T, 1) and the share i / (hs / 2) of each pair (hs / 2,)."""
    half = x.shape[1] // 2
    return torch.arange(len(x), dtype=x.dtype)[:, None], torch.arange(half, dtype=x.dtype) / half


def _right_turn(x: torch.Tensor) -> np.ndarray:
    """The right answer, (T, hs)."""
    t, share = _grid(x)
    return _by_angles(x, t / 10_000**share).numpy()


def _as_turned(got: np.ndarray, x: torch.Tensor, case: str) -> None:
    """Raises Wrong at the number farthest from the right one."""
    wanted = _right_turn(x)
    t, j = np.unravel_index(abs(got - wanted).argmax(), got.shape)
    number = f"{case}position {t}, column {j} should be {signed(wanted[t, j])}, yours is {signed(got[t, j])}"
    expect(np.allclose(got, wanted, 1e-3, 1e-4), number)


def _turn_properties(ask: Ask, x: torch.Tensor, got: np.ndarray) -> None:
    """Raises Wrong where something is added, rows mix, position 0 turns, lengths change, or places count."""
    T, hs = x.shape
    nothing = ask(0 * x)
    worst = signed(nothing.flat[abs(nothing).argmax()])
    added = f"a row of zeros becomes {worst} somewhere: nothing is added, pairs are turned"
    expect(abs(nothing).max() < 1e-6, added)
    others = x.clone()
    others[1:] = 3 * x[1:].flip(1)
    expect(
        np.allclose(ask(others)[0], got[0], 1e-4, 1e-6),
        "later rows change row 0; each row is turned by itself",
    )
    expect(
        np.allclose(got[0], x[0], 1e-4, 1e-6),
        "row 0 has changed; at position 0 the angle is 0, so that it stays as it is",
    )
    _partners(ask, T, hs)
    before, after = x.norm(dim=1).numpy(), np.linalg.norm(got, axis=1)
    t = int(abs(after - before).argmax())
    length = f"turning keeps lengths: row {t} had {before[t]:.3f}, yours has {after[t]:.3f}"
    expect(np.allclose(after, before, 1e-4), f"{length}; a cos − b sin, and b cos + a sin")
    q, k = (ask(x[i].expand(T, hs)) for i in (0, 1))
    products = q @ k.T
    near, far = products[0, 2], products[3, 5]
    same = f"a query at 0 and a key at 2 have the product {signed(near)}, at 3 and 5 {signed(far)}"
    expect(abs(near - far) < 1e-3, f"{same}: it should depend on the distance alone")


def _partners(ask: Ask, T: int, hs: int) -> None:
    """Raises Wrong where a column is turned into another one than its partner half a row away."""
    single = torch.eye(hs, dtype=torch.float64)
    for j in range(hs):
        row = ask(single[j].expand(T, hs))[1]  # position 1 turns every pair a little
        met, partner = set(np.flatnonzero(abs(row) > 1e-7).tolist()), (j + hs // 2) % hs
        odd = sorted(met - {j, partner})
        expect(not odd, f"column {j} is turned into column {odd and odd[0]}; its partner is column {partner}")


def _angles(ask: Ask, T: int, hs: int) -> None:
    """Raises Wrong at the first pair and position whose angle, read off, is not t / 10000^(2 i / hs)."""
    half = hs // 2
    row = torch.cat([torch.ones(half), torch.zeros(half)]).double()
    got = ask(row.expand(T, hs))
    for t in range(1, T):
        for i in range(half):
            its, should = math.atan2(got[t, i + half], got[t, i]), t / 10_000 ** (2 * i / hs)
            off = math.remainder(its - should, 2 * math.pi)
            case = f"pair {i} at position {t} is turned by {signed(its, 4)}, or that and full turns"
            expect(abs(off) < 1e-4, f"{case}; {t} / 10000^({2 * i} / {hs}) is {should:.4f}")


def _taken_for_turned(x: torch.Tensor) -> Iterator[tuple[str, object]]:
    """What other pairs, angles and positions give."""
    t, share = _grid(x)
    hs, half = x.shape[1], x.shape[1] // 2
    angles = t / 10_000**share
    yield "nothing is turned", x
    paper = "pairs are neighbours, (2 i, 2 i + 1), as in the paper; here, as in Llama, (i, i + hs / 2)"
    yield paper, _by_angles(x, angles, True)
    mixed = "you take neighbours, (2 i, 2 i + 1), and put them back as halves: pairs are (i, i + hs / 2)"
    yield mixed, _by_angles(x, angles, True, False)
    mixed = "you take halves and put them back as neighbours: a pair's places are i and i + hs / 2"
    yield mixed, _by_angles(x, angles, False, True)
    mirror = [*range(half), *range(hs - 1, half - 1, -1)]
    yield "a pair is (i, i + hs / 2), not (i, hs − 1 − i)", _by_angles(x[:, mirror], angles)[:, mirror]
    yield "the sign of the angle is turned: a cos − b sin, and b cos + a sin", _by_angles(x, -angles)
    yield from _taken_for_angles(x)
    yield from _taken_for_products(x, angles)


def _taken_for_angles(x: torch.Tensor) -> Iterator[tuple[str, object]]:
    """What other exponents, positions, units and bases give."""
    t, share = _grid(x)
    T, half = len(x), x.shape[1] // 2
    angles = t / 10_000**share
    exponents = {
        "i / hs, or the base 100": share / 2,
        "4 i / hs": 2 * share,
        "−2 i / hs": -share,
        "i": share * half,
        "2 i": 2 * share * half,
    }
    exponents |= {"2 (i + 1) / hs": share + 1 / half, "i / (hs / 2 − 1)": share * half / (half - 1)}
    for name, exponent in exponents.items():
        wrong = f"the exponent is 2 i / hs with i = 0 … hs / 2 − 1; yours is {name}"
        yield wrong, _by_angles(x, t / 10_000**exponent)
    yield "positions count from 0; yours from 1", _by_angles(x, (t + 1) / 10_000**share)
    yield "positions are counted from the end", _by_angles(x, angles.flip(0))
    yield "the angle is in radians; you take it for degrees", _by_angles(x, angles.deg2rad())
    yield "the angle is in radians; you turn it into degrees", _by_angles(x, angles.rad2deg())
    yield (
        "every pair is turned by the same angle; pair i by t / 10000^(2 i / hs)",
        _by_angles(x, t.expand(T, half)),
    )
    fixed = "every position is turned by the same angle; position t by t / 10000^(2 i / hs)"
    yield fixed, _by_angles(x, (1 / 10_000**share).expand(T, half))
    yield "the pairs' angles stand in reverse order: pair 0 turns fastest", _by_angles(x, angles.flip(1))
    bases = "the base is 10000; yours is {}"
    for base in (1000, 100_000, 500_000):
        yield bases.format(base), _by_angles(x, t / base**share)
    yield "the angle is 2 π times too large", _by_angles(x, 2 * math.pi * angles)


def _taken_for_products(x: torch.Tensor, angles: torch.Tensor) -> Iterator[tuple[str, object]]:
    """What other uses of the right cosines and sines give."""
    half = x.shape[1] // 2
    a, b, cos, sin = x[:, :half], x[:, half:], angles.cos(), angles.sin()
    both, alternate = torch.cat([sin, cos], 1), torch.stack([sin, cos], 2).flatten(1)
    added = "sines and cosines are added, as page 3 did; here pairs are turned by them"
    yield added, (x + both, x + alternate, x + both.roll(half, 1))
    plain = "the numbers are multiplied by cosines or sines alone; a turn mixes the two of a pair"
    yield plain, (x * cos.repeat(1, 2), x * both, x * both.roll(half, 1), x * sin.repeat(1, 2))
    signs = "one sign is wrong: a cos − b sin, and b cos + a sin"
    yield (
        signs,
        (
            torch.cat([a * cos + b * sin, b * cos + a * sin], 1),
            torch.cat([a * cos - b * sin, b * cos - a * sin], 1),
        ),
    )
    yield "sine and cosine are exchanged", torch.cat([a * sin - b * cos, b * sin + a * cos], 1)
    yield (
        "the two halves are exchanged: the first holds a cos − b sin",
        torch.cat([b * cos + a * sin, a * cos - b * sin], 1),
    )
    first = a * cos - b * sin
    late = "the second half is made from the first after it was turned; keep a copy of the first"
    yield late, torch.cat([first, b * cos + first * sin], 1)
    second = b * cos + a * sin
    late = "the first half is made from the second after it was turned; keep a copy of the second"
    yield late, torch.cat([a * cos - second * sin, second], 1)
    yield "only the first half is turned", torch.cat([first, b], 1)
    yield "only the second half is turned", torch.cat([a, second], 1)
    yield "x is added to what was turned", torch.cat([first, second], 1) + x


EXERCISES = (
    Exercise(
        "07b.1",
        "The nucleus",
        nucleus,
        "Sort from the likeliest, add up. One stays where the sum of those before it has not reached mass. "
        "The first always stays, and the one that reaches mass too. sort also gives the places.",
        "def nucleus(p, mass):\n"
        "    ordered, order = p.sort(descending=True)\n"
        "    before = torch.cat([torch.zeros(1), ordered.cumsum(0)[:-1]])\n"
        "    left = torch.zeros_like(p).scatter(0, order, torch.where(before < mass, ordered, 0))\n"
        "    return left / left.sum()",
    ),
    Exercise(
        "07b.2",
        "How much is repetition",
        repetition,
        "tokens[i : i + n] for i from 0 to len(tokens) − n are the n-grams; as tuples they go into a set, "
        "which keeps one of each.",
        "def repetition(tokens, n):\n"
        "    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]\n"
        "    return 1 - len(set(grams)) / len(grams)",
    ),
    Exercise(
        "07b.3",
        "Positions by turning",
        turn,
        "The angles are (T, 1) positions times (hs / 2,) speeds. A pair (a, b) turned by an angle is "
        "(a cos − b sin, b cos + a sin): a is x[:, :hs // 2], b the rest, and cat puts them side by side.",
        "def turn(x):\n"
        "    T, hs = x.shape\n"
        "    speeds = 10000 ** (-2 * torch.arange(hs // 2) / hs)\n"
        "    angles = torch.arange(T)[:, None] * speeds\n"
        "    (a, b), cos, sin = x.chunk(2, dim=1), angles.cos(), angles.sin()\n"
        "    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=1)",
    ),
)
