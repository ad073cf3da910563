"""Exercises of notebook 06b: the mean over words, LoRA folded into its weight, the error of calibration."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch

from course_utils.exercises import Exercise, Wrong, expect
from course_utils.exercises.nb04b import expected_calibration_error
from course_utils.exercises.properties import array, by_hand, none_of, ratio_of, signed


def average(answer: Callable) -> None:
    """Judge 06b.1: the mean of each text's own words; padding, other texts, order, places and sizes."""

    def ask(states: torch.Tensor, mask: torch.Tensor, case: str = "", trouble: str = "") -> np.ndarray:
        B, T, C = states.shape
        shapes = _other_shapes(B, T, C) if len({1, B, T, C}) == 4 else {}
        value = answer(states.clone(), mask.clone())
        return array(value, (B, C), f"{case}the answer", shapes, trouble, trouble)

    states = 1 + torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(2))
    mask = torch.arange(6) < torch.tensor([3, 6, 4, 5])[:, None, None]  # (B, 1, T)
    whole = "text 1 has no padding to divide by: divide by the number of words, where mask is True"
    got = ask(states, mask, trouble=whole)
    none_of(got, dict(_taken_for_average(states.double(), mask[:, 0])))
    _own_words(ask, states, mask, got)
    _each_mean(got, states, mask, "")
    for B, T, C in ((1, 1, 1), (1, 5, 2), (5, 5, 5), (3, 2, 8)):
        draw = torch.Generator().manual_seed(T)
        other = torch.randn(B, T, C, generator=draw)
        held = torch.arange(T) < torch.randint(1, T + 1, (B, 1, 1), generator=draw)
        case = f"right for states {tuple(states.shape)}, but for {(B, T, C)}, "
        _each_mean(ask(other, held, case), other, held, case)
    case = "right where the padding stands at the end, but where it stands in front or in between, "
    _each_mean(ask(states, mask.flip(-1), case), states, mask.flip(-1), case)
    held = torch.tensor(
        [[1, 0, 1, 0, 0, 1], [0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0], [1, 1, 0, 1, 1, 1]]
    ).bool()
    _each_mean(ask(states, held[:, None], case), states, held[:, None], case)
    by_hand(answer, "mean_pool")


def _other_shapes(B: int, T: int, C: int) -> dict[tuple[int, ...], str]:
    return {
        (B, 1, C): "an axis of length 1 is left: squeeze(1), or sum(dim=1) without keepdim",
        (B, T, C): "all words are still there: take the mean over them, dim=1",
        (C,): "one row for the whole batch; each text has its own",
        (B,): "one number for each text; its C numbers are asked for, each averaged over the words",
        (B, T): "the width is averaged; the words are to be, dim=1",
        (T, C): "the texts are averaged; the words of each are to be, dim=1",
        (C, B): "rows and columns are exchanged: (B, C)",
        (B, B, C): "each text's sum meets each text's count: the counts should be (B, 1) beside (B, C)",
        (): "one number in all; each text has a row of C",
    }


def _means(states: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    """The right answer, (B, C)."""
    return np.array(
        [text[own].double().mean(0).numpy() for text, own in zip(states, mask[:, 0], strict=True)]
    )


def _each_mean(got: np.ndarray, states: torch.Tensor, mask: torch.Tensor, case: str) -> None:
    """Raises Wrong at the number farthest from the mean over the words."""
    wanted = _means(states, mask)
    b, c = np.unravel_index(abs(got - wanted).argmax(), got.shape)
    n = int(mask[b].sum())
    own = f"{case}text {b}, with {n} word{'s' * (n > 1)}, has the mean"
    mean = f"{own} {signed(wanted[b, c])} in column {c}"
    expect(np.allclose(got, wanted, 1e-4, 1e-4), f"{mean}, yours is {signed(got[b, c])}")


def _own_words(
    ask: Callable[..., np.ndarray], states: torch.Tensor, mask: torch.Tensor, got: np.ndarray
) -> None:
    """Raises Wrong where padding, other texts or the order of words matter, or equal words do not."""
    words = mask.mT  # (B, T, 1)
    far = ask(torch.where(words, states, states + 9), mask)
    expect(np.allclose(far, got, 1e-4, 1e-4), "what stands at the padding changes your answer; leave it out")
    others = states.clone()
    others[1:] *= -2
    moved = ask(others, mask)[0]
    expect(
        np.allclose(moved, got[0], 1e-4, 1e-4), "another text changes a text's row; each stands for itself"
    )
    order = states.clone()
    order[1] = states[1].flip(0)
    again = ask(order, mask)[1]
    expect(np.allclose(again, got[1], 1e-4, 1e-4), "the order of words changes your answer; a mean has none")
    same = ask(torch.full_like(states, 2), mask)
    b = int(abs(same - 2).max(1).argmax())
    equal = f"where all states are 2 so is their mean; yours is {signed(same[b, 0])} for text {b}"
    expect(np.allclose(same, 2, 1e-4), f"{equal}, which has {int(mask[b].sum())} words")


def _taken_for_average(states: torch.Tensor, words: torch.Tensor) -> Iterator[tuple[str, object]]:
    """What other ways of making one row of many give: states (B, T, C), words (B, T)."""
    (B, T, _), n = states.shape, words.sum(1, keepdim=True)  # (B, 1)
    held = words[..., None] * states
    total = held.sum(1)  # (B, C)
    mean, last = total / n, states[torch.arange(B), n[:, 0] - 1]
    yield f"you divide by T = {T}; divide by the number of each text's words", held.mean(1)
    count = "the padding is averaged too: leave it out of the sum, and of the count"
    yield count, states.mean(1)
    yield "the padding is in the sum: set it to 0 first", states.sum(1) / n
    yield "that is the first token, [CLS]; take the mean over all words", states[:, 0]
    yield "that is the last word; take the mean over all words", last
    yield "that is the last column, which is padding for short texts", states[:, -1]
    low = states.masked_fill(~words[..., None], -torch.inf).amax(1)
    yield "that is the largest number over the words; take the mean", (low, states.amax(1), held.amax(1))
    yield "that is the sum; divide by the number of words", (total, states.sum(1))
    turned = (states - held).sum(1)
    yield "mask is turned round: it is True at words", (turned, turned / n)
    yield from _taken_for_counts(total, n, states[:, 0], last)
    yield "the row is scaled to length 1; only the mean is asked for", mean / mean.norm(dim=1, keepdim=True)
    yield (
        "that is the median; take the mean",
        torch.stack([text[own].median(0).values for text, own in zip(states, words, strict=True)]),
    )
    yield "the rows stand in another order; keep the batch's", (mean.flip(0), mean[n[:, 0].argsort()])


def _taken_for_counts(
    total: torch.Tensor, n: torch.Tensor, first: torch.Tensor, last: torch.Tensor
) -> Iterator[tuple[str, object]]:
    """What sums (B, C) over other numbers than the words', n (B, 1), give."""
    one = total / n.sum(), total / n.double().mean(), total / len(n)
    yield "all texts are divided by one number: each has its own number of words", one
    yield "you divide by the root of the number of words", total / n.sqrt()
    ends = (total - first) / (n - 1), (total - last) / (n - 1), (total - first - last) / (n - 2)
    yield "a word is left out: all where mask is True count, [CLS] and [SEP] too", ends
    yield "something is added to the number of words", (total / (n + 1), total / (n - 1))


# --- LoRA ---------------------------------------------------------------------------------------------------


def fold(answer: Callable) -> None:
    """Judge 06b.2: W + alpha / rank · B A, in squares and other sizes, zeros; W as it was."""

    def ask(parts: list[torch.Tensor], alpha: float) -> np.ndarray:
        return _folded(answer, parts, alpha)

    squares = matrices(3, 3, 3, 3), matrices(4, 4, 4, 2)  # where all products of A, B and W fit
    for parts in squares:
        rank, got = len(parts[1]), ask(parts, 7)
        none_of(got, dict(_taken_for_folded(*(part.double() for part in parts), 7, rank)))
        _multiple(got, parts, 7, rank)
    oblong = W, A, B = matrices(7, 5, 3, 2)
    got, zero = ask(oblong, 16), torch.zeros_like
    expect(np.allclose(ask([W, A, zero(B)], 16), W, 1e-4, 1e-4), "where B is 0 nothing changes: W as it was")
    expect(np.allclose(ask([W, zero(A), B], 16), W, 1e-4, 1e-4), "where A is 0 nothing changes: W as it was")
    _as_folded(got, oblong, 16, "")
    for parts in squares:
        _as_folded(ask(parts, 7), parts, 7, "")
    for rows, columns, rank, alpha in (
        (1, 6, 1, 1),
        (6, 1, 1, 0.5),
        (4, 4, 4, 32),
        (2, 3, 8, 16),
        (3, 2, 5, 2),
    ):
        parts = matrices(rank, rows, columns, rank)
        case = f"right for others, but for rank {rank}, alpha = {alpha} and W {(rows, columns)}, "
        _as_folded(ask(parts, alpha), parts, alpha, case)
    by_hand(answer, "LoRA", "merged", "merge_lora")


def matrices(seed: int, rows: int, columns: int, rank: int) -> list[torch.Tensor]:
    """Random W (rows, columns), A (rank, columns) and B (rows, rank)."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw) for shape in ((rows, columns), (rank, columns), (rows, rank))]


def _folded(answer: Callable, parts: list[torch.Tensor], alpha: float) -> np.ndarray:
    """The answer's weight; Wrong where it has another shape, or W, A or B were changed."""
    W, A, B = own = [part.clone() for part in parts]
    (rows, columns), rank, shapes = W.shape, len(A), {}
    if len({rows, columns, rank, 1}) == 4:
        wrong = "that is {}; the weight is (rows, columns), as W is: W + … B @ A"
        shapes = {
            (columns, rows): wrong.format("transposed"),
            (rank, rank): wrong.format("A @ B, or W left out"),
            (rows, rank): wrong.format("B's shape"),
            (rank, columns): wrong.format("A's shape"),
        }
    try:
        value = answer(W, A, B, alpha)
    except RuntimeError as error:
        message = str(error)
        fits = "cannot be multiplied" not in message and "must match the size" not in message
        sizes = f"W {(rows, columns)}, A {(rank, columns)}, B {(rows, rank)}"
        expect(fits, f"these do not fit together: with {sizes} it is B @ A that has W's shape")
        raise
    got = array(value, (rows, columns), "the merged weight", shapes)
    for name, part, before in zip("WAB", own, parts, strict=True):
        kept = f"{name} itself has changed: return a new tensor, no +=, add_ or mul_ on {name}"
        expect(torch.equal(part, before), kept)
    return got


def _right_weight(parts: list[torch.Tensor], alpha: float) -> np.ndarray:
    W, A, B = (part.double() for part in parts)
    return (W + alpha / len(A) * B @ A).numpy()


def _as_folded(got: np.ndarray, parts: list[torch.Tensor], alpha: float, case: str) -> None:
    """Raises Wrong at the number farthest from W + alpha / rank · B A."""
    wanted = _right_weight(parts, alpha)
    i, j = np.unravel_index(abs(got - wanted).argmax(), got.shape)
    should = f"{case}row {i}, column {j} should be {signed(wanted[i, j])}, yours is {signed(got[i, j])}"
    expect(np.allclose(got, wanted, 1e-4, 1e-4), should)


def _multiple(got: np.ndarray, parts: list[torch.Tensor], alpha: float, rank: int) -> None:
    """Raises Wrong where the change is a multiple of B A, but not by alpha / rank."""
    W, A, B = (part.double() for part in parts)
    ratio = ratio_of(got - W.numpy(), (B @ A).numpy())
    times = f"your change is {signed(ratio or 0)} times B A; it should be alpha / rank = {alpha} / {rank}"
    expect(ratio is None or abs(ratio - alpha / rank) < 1e-3, f"{times} = {alpha / rank:.3f} times")


def _taken_for_folded(
    W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float, rank: int
) -> Iterator[tuple[str, object]]:
    """What other changes of W give."""
    BA, scale = B @ A, alpha / rank
    yield "the change is not scaled: alpha / rank times B A", W + BA
    yield "you multiply by alpha · rank; alpha is divided by the rank", W + alpha * rank * BA
    root = "you divide by the root of the rank, as rsLoRA does; here by the rank itself"
    yield root, W + alpha / math.sqrt(rank) * BA
    yield "you multiply by alpha alone; divide by the rank too", W + alpha * BA
    yield "you divide by the rank alone; multiply by alpha too", W + BA / rank
    yield "the scale is turned: alpha / rank, not rank / alpha", W + rank / alpha * BA
    yield "alpha // rank drops what is behind the point: alpha / rank", W + alpha // rank * BA
    if len(W) != rank:
        sides = "you divide by the size of W; the rank is A's number of rows, len(A)"
        yield sides, (W + alpha / len(W) * BA, W + alpha / W.numel() * BA)
    yield "the change is taken away; it is added", W - scale * BA
    yield "that is the change alone; add W", scale * BA
    yield "W is not changed at all", W
    yield "W is scaled too; only the change is", (scale * (W + BA), W * scale + BA)
    yield "Aᵀ Bᵀ is the change transposed; rows come from B, columns from A: B A", W + scale * BA.T
    yield "the merged weight is transposed", (W + scale * BA).T
    yield "W is transposed; the change has its own rows and columns", W.T + scale * BA
    if A.shape == B.shape:
        yield "A and B are exchanged: B A", W + scale * A @ B
        yield "the numbers are multiplied one by one; B @ A is a product of matrices", W + scale * A * B
        one = "a transpose too many: B @ A"
        yield one, tuple(W + scale * M for M in (B @ A.T, B.T @ A, A @ B.T, A.T @ B, B.T @ A.T))
    yield "W is multiplied; the change is added to it", (W @ (scale * BA), W * scale * BA)


# --- trust --------------------------------------------------------------------------------------------------


def calibration(answer: Callable) -> None:
    """Judge 06b.3: gaps of accuracy and mean confidence in equally wide bins, weighed by their texts."""

    def ask(p: np.ndarray, right: np.ndarray, *bins: int) -> float:
        return _trust(answer, p, right, *bins)

    p, right = guesses(1, 80)
    p = np.where((p > 0.6) & (p < 0.7), p + 0.12, p)  # the sixth bin is empty, as are the first three
    got, wanted = ask(p, right), expected_calibration_error(p, right, 10)
    none_of(np.array(got), _taken_for_trust(p, right, 10) | _other_bins(p, right, 10))
    expect(0 <= got <= 1, f"a weighted mean of gaps lies between 0 and 1, yours is {signed(got)}")
    order = np.random.default_rng(0).permutation(80)
    expect(
        abs(ask(p[order], right[order]) - got) < 1e-6, "the same texts in another order change your answer"
    )
    same = ask(np.full(10, 0.75), np.arange(10) < 6)
    all_in_one = "with 0.75 ten times and six of ten right the gap is 0.15"
    expect(abs(same - 0.15) < 1e-6, f"{all_in_one}, yours is {signed(same)}")
    expect(abs(got - wanted) < 1e-6, f"the error should be {wanted:.5f}, yours is {signed(got, 5)}")
    for n, bins in ((80, 4), (7, 3), (500, 20), (40, 1)):
        p, right = guesses(n, n)
        its, should = ask(p, right, bins), expected_calibration_error(p, right, bins)
        case = f"right for 80 texts and 10 bins, but for {n} texts and bins={bins}"
        expect(abs(its - should) < 1e-6, f"{case} it should be {should:.5f}, yours is {signed(its, 5)}")
    _sure(ask)


def guesses(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The chances of n predicted classes, 0.3 to 0.99, off all edges, and which of them are right, bool."""
    draw = np.random.default_rng(seed)
    p = 0.3 + 0.69 * draw.random(n) ** 0.6
    near = abs(p * 60 - np.round(p * 60)) < 1e-3  # 60: an edge of 3, 4, 10 or 20 bins is one of these
    p = np.where(near, p + 0.002, p)
    return p, draw.random(n) < 0.5 + 0.25 * p


def _trust(answer: Callable, p: np.ndarray, right: np.ndarray, *bins: int) -> float:
    """The answer's number; Wrong, with the reason where one is known, if it is none."""
    number = bins[0] if bins else 10
    shapes = {(len(p),): "one number for each text; one in all is asked for"}
    shapes |= {(number,): "one gap for each bin: weigh them by their shares of the texts and add them up"}
    empty = "an empty bin has no mean; it counts nothing, so leave it out"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = answer(p.copy(), right.copy(), *bins)
    except ZeroDivisionError as error:
        raise Wrong(empty) from error
    except IndexError as error:
        top = f"index {number} is out of bounds" in str(error) or "list index" in str(error)
        last = f"1.0 belongs to the last bin, number {number - 1}, not to bin {number}"
        expect(not (top and 1.0 in p), last)
        raise
    except TypeError as error:
        minus = "True and False cannot be subtracted: right.mean() is their share, or right.astype(float)"
        expect("boolean subtract" not in str(error), minus)
        raise
    return float(array(value, (), "the error", shapes, empty, empty))


def _taken_for_trust(p: np.ndarray, right: np.ndarray, bins: int) -> dict[str, object]:
    """What other weights and gaps of the same bins say about an answer."""
    k = (p * bins).astype(int)  # (n,), below bins: no p is 1
    full, counts = np.unique(k, return_counts=True)
    mean, share = (np.array([row[k == i].mean() for i in full]) for row in (p, right))
    weights, gaps, middle = counts / len(p), abs(mean - share), (full + 0.5) / bins
    signed_gaps = weights @ (mean - share)
    cancel = "the gaps keep their sign and cancel: take each bin's absolute value"
    return {
        cancel: (signed_gaps, -signed_gaps, abs(signed_gaps), (mean - share).mean(), (share - mean).mean()),
        "each bin counts the same for you; weigh it by its share of the texts": gaps.mean(),
        "you average over all bins, empty ones too; weigh each by its share": gaps.sum() / bins,
        "an empty bin is counted as a gap, its middle against 0; it counts nothing": (
            (abs(middle - share).sum() + sum((i + 0.5) / bins for i in range(bins) if i not in full)) / bins
        ),
        "you take the middle of the bin; take the mean of its chances": (
            weights @ abs(middle - share),
            abs(middle - share).mean(),
        ),
        "you take an edge of the bin; take the mean of its chances": (
            weights @ abs(full / bins - share),
            weights @ abs((full + 1) / bins - share),
        ),
        "that is the largest gap; the weighted mean is asked for": (gaps.max(), abs(middle - share).max()),
        "the gaps are squared; take their absolute value": (weights @ gaps**2, (weights @ gaps**2) ** 0.5),
        "the gaps are added up; weigh each by its share of the texts": (gaps.sum(), counts @ gaps),
        "the last bin is missing": (weights * gaps)[:-1].sum(),
        "the first bin that holds a text is missing": (weights * gaps)[1:].sum(),
    }


def _other_bins(p: np.ndarray, right: np.ndarray, bins: int) -> dict[str, object]:
    """What the same error of other chances, answers or bins says about an answer."""
    error, n = expected_calibration_error, len(p)
    ranks = np.array_split(np.argsort(p), bins)

    def by(places: np.ndarray) -> float:
        return sum(abs((p - right)[places == i].sum()) for i in np.unique(places)) / n

    narrow = (
        np.digitize(p, np.linspace(low, high, bins + 1)[1:-1]) for low, high in ((p.min(), p.max()), (0.5, 1))
    )
    return {
        "the bins hold equally many texts; they should be equally wide": (
            sum(abs((p - right)[rank].sum()) for rank in ranks) / n
        ),
        "your bins cut another stretch than [0, 1] into equal parts": tuple(map(by, narrow)),
        "the number of the bin is rounded; it is the whole part of chance · bins": by(np.round(p * bins)),
        "right or the chances are turned round: the share of those that are right": error(p, ~right, bins),
        "that is the gap of each text; average over a bin first": abs(p - right).mean(),
        "that is the Brier score; calibration compares means of bins": ((p - right) ** 2).mean(),
        "that is the accuracy; how far is it from the confidence?": right.mean(),
        "that is the mean confidence; how far is it from the accuracy?": p.mean(),
        "a share, not percent": 100 * error(p, right, bins),
    }


def _sure(ask: Callable[..., float]) -> None:
    """Raises Wrong where a chance of exactly 1 goes into no bin, or into one of its own."""
    for p, right, bins in (
        ([1.0, 0.95], [False, True], 10),
        ([1.0, 1.0, 0.8, 0.35], [True, False, True, False], 4),
    ):
        p, right = np.array(p), np.array(right)
        its, should = ask(p, right, bins), expected_calibration_error(p, right, bins)
        case = f"chances {p.tolist()}, right {right.tolist()}, {bins} bins make it {should:.4f}"
        expect(abs(its - should) < 1e-6, f"1.0 belongs to the last bin: {case}, not {signed(its, 4)}")


EXERCISES = (
    Exercise(
        "06b.1",
        "Average the words, not the padding",
        average,
        "mask.mT is (B, T, 1): times the states it sets the padding to 0, and its own sum over the words "
        "is how many there are.",
        "def average(states, mask):\n"
        "    words = mask.mT.to(states.dtype)  # (B, T, 1)\n"
        "    return (states * words).sum(dim=1) / words.sum(dim=1)",
    ),
    Exercise(
        "06b.2",
        "LoRA's change folded in",
        fold,
        "The rank is len(A). B @ A has as many rows as B and as many columns as A, which are W's.",
        "def fold(W, A, B, alpha):\n    return W + alpha / len(A) * B @ A",
    ),
    Exercise(
        "06b.3",
        "How far to trust 90 percent",
        calibration,
        "The bin of a chance is the whole part of chance · bins, at most bins − 1. Loop over the bins: "
        "inside = k == i is True for its texts, inside.mean() is their share; skip a bin without any.",
        "def calibration(chances, right, bins=10):\n"
        "    k, error = np.minimum((chances * bins).astype(int), bins - 1), 0.0\n"
        "    for i in range(bins):\n"
        "        inside = k == i\n"
        "        if inside.any():\n"
        "            gap = abs(chances[inside].mean() - right[inside].mean())\n"
        "            error += inside.mean() * gap\n"
        "    return error",
    ),
)
