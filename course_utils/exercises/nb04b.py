"""Exercises of notebook 04b: the last real state, accuracy of scores, the error of calibration."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch

from course_utils.exercises import Exercise, Wrong, expect
from course_utils.exercises.properties import array, none_of, signed


def last(answer: Callable) -> None:
    """Judge 04b.1: where each number of the answer stood: its own sentence, last real word, own column."""
    B, T, C = 4, 6, 3
    shapes = {
        (B, B, C): "each sentence gets every length; two indices at once: [torch.arange(B), lengths − 1]",
        (B, 1, C): "take the axis of length 1 away: squeeze(1)",
        (B, T, C): "all steps are still there; one for each sentence is asked for",
        (C,): "one row in all; one for each sentence is asked for",
        (B,): "one number for each sentence; its whole state, C numbers, is asked for",
        (B, T): "the width is lost: (B, C)",
        (C, B): "rows and columns are exchanged: (B, C)",
    }
    lengths = torch.tensor([3, 6, 1, 4])
    outputs = _coded(B, T, C)
    got = array(_asked(answer, outputs, lengths), (B, C), "the answer", shapes)
    _taken_for_last(got, outputs, lengths)
    _stood(got, outputs.numpy(), lengths.numpy())
    for (b, t, c), n in {(1, 5, 4): [2], (3, 2, 1): [1, 2, 1], (2, 3, 3): [3, 3], (1, 1, 1): [1]}.items():
        outputs, lengths = _coded(b, t, c), torch.tensor(n)
        case = f"for outputs {(b, t, c)} and lengths {n} the answer"
        again = array(_asked(answer, outputs, lengths), (b, c), case)
        wanted = outputs[torch.arange(b), lengths - 1].numpy()
        right = f"right for outputs {(B, T, C)}, but not for {(b, t, c)} and lengths {n}"
        expect((again == wanted).all(), right)


def _asked(answer: Callable, outputs: torch.Tensor, lengths: torch.Tensor) -> object:
    """What the answer returns; Wrong, with the reason, where it looked behind the last column."""
    try:
        return answer(outputs.clone(), lengths.clone())
    except (IndexError, RuntimeError) as error:
        T = outputs.shape[1]
        behind = f"index {T} is out of bounds" in str(error)
        expect(not behind, f"a sentence of {T} words ends at {T - 1}: count from 0, lengths − 1")
        raise


def _coded(B: int, T: int, C: int) -> torch.Tensor:
    """The numbers 1 … B · T · C, shuffled: each tells where it stood."""
    return 1.0 + torch.randperm(B * T * C, generator=torch.Generator().manual_seed(0)).view(B, T, C)


def _taken_for_last(got: np.ndarray, outputs: torch.Tensor, lengths: torch.Tensor) -> None:
    """Raises Wrong where the answer is something else that is often taken for the last state."""
    T, sentences, n = outputs.shape[1], torch.arange(len(outputs)), lengths[:, None]
    real = (torch.arange(T) < n)[..., None]  # (B, T, 1)
    padded, ends = outputs * real, outputs[sentences, lengths - 1]
    ranks = lengths.argsort(descending=True)
    words = "the state after the last word alone is asked for"
    mistakes = {
        "that is the last column, which is padding for short sentences: lengths − 1": outputs[:, -1],
        "that is the first word, where a backward layer ends: lengths − 1": outputs[:, 0],
        "off by one: the step after the last word is padding: lengths − 1": outputs[sentences, lengths % T],
        "off by one: lengths − 1 is the last word, counted from 0": outputs[sentences, lengths - 2],
        f"that is the mean over the real words; {words}": padded.sum(1) / n,
        f"that is the mean over all columns; {words}": (outputs.mean(1), padded.mean(1)),
        f"that is the sum over the words; {words}": (outputs.sum(1), padded.sum(1)),
        f"that is the largest number over the words; {words}": (outputs.amax(1), padded.amax(1)),
        "the padding is set to 0, but its column is still the last one": padded[:, -1],
        "counted from the wrong end: a sentence begins at column 0": outputs[sentences, -lengths],
        "the rows stand in the order of the lengths; keep the batch's": (ends[ranks], ends[ranks.flip(0)]),
    }
    none_of(got, mistakes)


def _stood(got: np.ndarray, outputs: np.ndarray, lengths: np.ndarray) -> None:
    """Raises Wrong unless each number of the answer stood in `outputs`, coded, where it should have."""
    moved = "your answer holds numbers that outputs has not: pick one step, do not combine several"
    expect(np.isin(got, outputs).all(), moved)
    places = outputs.ravel().argsort()[got.astype(int) - 1]  # (B, C)
    b, t, c = np.unravel_index(places, outputs.shape)
    sentence, column = np.indices(got.shape)
    expect((b == sentence).all(), "sentences are mixed: a row holds numbers of another sentence")
    for i, n in enumerate(lengths):
        where = f"sentence {i} has {n} words; its row should be of step {n - 1}, yours is of step {t[i, 0]}"
        expect((t[i] == n - 1).all(), where)
    expect((c == column).all(), "each row is of the right step, but its columns are not in their order")


def accuracy(answer: Callable) -> None:
    """Judge 04b.2: one pair for each text, the threshold at logit 0, labels 0 and 1, whatever their type."""

    def ask(logits: list[float], labels: list[float], kind: torch.dtype = torch.int64) -> float:
        column, row = torch.tensor(logits)[:, None], torch.tensor(labels, dtype=kind)  # (n, 1), (n,)
        n, one = len(logits), "one number for each text; their mean is asked for"
        every = "every text meets every label: (n, 1) == (n,) is n × n; take the axis of 1 away first"
        shapes = {(n, n): every, (n,): one, (n, 1): one} if n > 1 else {}
        return float(array(answer(column, row), (), "the accuracy", shapes))

    logits = [0.1, -0.4, -0.7, 1.2, -0.2, -0.7, -0.3, 0.9, 0.7, -0.4, -0.7, -0.3, -0.4, 0.8]
    labels = [0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1]
    got, wanted = ask(logits, labels), 11 / 14
    none_of(np.array(got), _taken_for_accuracy(np.array(logits), np.array(labels)))
    expect(0 <= got <= 1, f"a share lies between 0 and 1, yours is {signed(got)}")
    louder = ask([10 * z for z in logits], labels)
    expect(abs(louder - got) < 1e-6, "10 times the logits have the same signs, but change your answer")
    back = ask(logits[::-1], labels[::-1])
    expect(abs(back - got) < 1e-6, "the same texts in another order change your answer: pair by pair")
    expect(abs(got - wanted) < 1e-6, f"11 of 14 texts are right, {wanted:.4f}; yours is {signed(got, 4)}")
    _other_texts(ask, logits, labels, wanted)


def _other_texts(ask: Callable[..., float], logits: list[float], labels: list[int], share: float) -> None:
    """Raises Wrong where other logits, or labels of another type, find the answer wrong."""
    zero = ask([0.0, 0.0, 1.0], [0, 0, 1])
    expect(abs(zero - 1) < 1e-6, "a logit of exactly 0 is not above 0: it says negative")
    cases = {
        "labels that are floats": (ask(logits, labels, torch.float32), share),
        "all right": (ask([3.0, -2.0], [1, 0]), 1),
        "all wrong": (ask([3.0, -2.0, 0.1], [0, 1, 0]), 0),
        "a single text": (ask([0.3], [1]), 1),
        "logits of 200 and −200": (ask([200.0, -200, 200, -200], [1, 0, 1, 1]), 3 / 4),
    }
    for case, (its, should) in cases.items():
        expect(
            abs(its - should) < 1e-6, f"right for 14 texts, but for {case} it is {should:g}, yours {its:.4g}"
        )


def _taken_for_accuracy(z: np.ndarray, y: np.ndarray) -> dict[str, object]:
    """What other numbers say about an answer: z (n,) logits, y (n,) labels."""
    n, said, high = len(y), z > 0, z > 0.5
    likely = 1 / (1 + np.exp(np.where(y == 1, -z, z)))  # (n,) probability of the right label
    tp, tn, hits = (said & (y == 1)).sum(), (~said & (y == 0)).sum(), (said == y).sum()
    crossed, higher = (said[:, None] == y), (high[:, None] == y)  # (n, n)
    every = "(n, 1) == (n,) compares every text with every label, n × n: take the axis of 1 away first"
    decide = "first decide, above 0 or not"
    return {
        every: (crossed.mean(), crossed.sum() / n, higher.mean(), higher.sum() / n),
        "0.5 is a threshold for probabilities; σ(0) = 0.5, so a logit's is 0": (high == y).mean(),
        f"scores are compared with labels, and hardly one is exactly 0 or 1; {decide}": 0,
        "that is the share of errors": 1 - hits / n,
        "that is how many are right; divide by n": hits,
        "that is how many are wrong; return the share of those that are right": n - hits,
        "a share, not percent": 100 * hits / n,
        "all are called positive: σ is always above 0, and softmax over one column is 1": y.mean(),
        "all are called negative: argmax over one column is always 0": 1 - y.mean(),
        "only positives can be right for you: labels are 0 and 1, not −1 and 1": tp / n,
        "only negatives can be right for you; positives count too": tn / n,
        "that is precision, of those called positive; all texts count": tp / said.sum(),
        "that is recall, of the positive texts; all texts count": tp / y.sum(),
        "that is F1; plain accuracy is asked for": 2 * tp / (said.sum() + y.sum()),
        "that is the mean of both classes' shares; every text counts the same": (
            tp / y.sum() / 2 + tn / (1 - y).sum() / 2
        ),
        f"that is the mean probability of the right label; {decide}": likely.mean(),
        "that is the loss; accuracy counts": -np.log(likely).mean(),
        "that is the share called positive; labels are not used": said.mean(),
    }


def calibration_error(answer: Callable) -> None:
    """Judge 04b.3: gaps of bins of equal width, weighted by their counts, against a count by hand."""

    def ask(p: np.ndarray, y: np.ndarray, *bins: int) -> float:
        return _gap(answer, p, y, *bins)

    draw = np.random.default_rng(0)
    p = draw.uniform(0.02, 0.98, 60) ** 2
    p = np.where((p > 0.3) & (p < 0.5), p / 4, p)  # two empty bins
    y = (draw.random(60) < p**0.6).astype(int)
    got, wanted = ask(p, y), expected_calibration_error(p, y, 10)
    none_of(np.array(got), _taken_for_calibration(p, y, 10))
    expect(0 <= got <= 1, f"a weighted mean of gaps lies between 0 and 1, yours is {signed(got)}")
    order = draw.permutation(60)
    expect(abs(ask(p[order], y[order]) - got) < 1e-6, "the same texts in another order change your answer")
    expect(abs(got - wanted) < 1e-6, f"the error should be {wanted:.5f}, yours is {signed(got, 5)}")
    for n, bins in ((60, 4), (7, 3), (500, 20), (40, 1)):
        p, y = draw.random(n), draw.integers(0, 2, n)
        its, should = ask(p, y, bins), expected_calibration_error(p, y, bins)
        case = f"right for 60 texts and 10 bins, but for {n} texts and bins={bins}"
        expect(abs(its - should) < 1e-6, f"{case} it should be {should:.5f}, yours is {signed(its, 5)}")
    _edges(ask)


def _gap(answer: Callable, p: np.ndarray, y: np.ndarray, *bins: int) -> float:
    """The answer's number; Wrong, with the reason where one is known, if it is none."""
    number = bins[0] if bins else 10
    shapes = {
        (number,): "one gap for each bin: weigh them by their counts and add them up",
        (len(p),): "one number for each text; one in all is asked for",
    }
    empty = "an empty bin has no mean; it counts nothing, so leave it out"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = answer(p.copy(), y.copy(), *bins)
    except ZeroDivisionError as error:
        raise Wrong(empty) from error
    except IndexError as error:
        top = f"index {number} is out of bounds" in str(error)
        expect(
            not (top and 1.0 in p), f"1.0 belongs to the last bin, number {number - 1}, not to bin {number}"
        )
        raise
    return float(array(value, (), "the error", shapes, empty, empty))


def expected_calibration_error(p: np.ndarray, y: np.ndarray, bins: int) -> float:
    """The right answer: Σ n_k / n · |mean p − share of positives| over the bins [k, k + 1) / bins."""
    k = np.minimum((p * bins).astype(int), bins - 1)
    return sum(abs((p - y)[k == i].sum()) for i in range(bins)) / len(p)


def _taken_for_calibration(p: np.ndarray, y: np.ndarray, bins: int) -> dict[str, object]:
    """What other weights and gaps of the same bins say about an answer."""
    k = (p * bins).astype(int)  # (n,), below bins: no p is 1
    full, counts = np.unique(k, return_counts=True)
    mean, share = (np.array([row[k == i].mean() for i in full]) for row in (p, y))
    weights, gaps, middle = counts / len(p), abs(mean - share), (full + 0.5) / bins
    empty = (np.setdiff1d(np.arange(bins), full) + 0.5) / bins
    middles = weights @ abs(middle - share), abs(middle - share).mean()
    return _other_bins(p, y, bins) | {
        "each bin counts the same for you; weigh it by its count": gaps.mean(),
        "you average over all bins, empty ones too; weigh each by its count": gaps.sum() / bins,
        "an empty bin is counted as a gap, its middle against 0; it counts nothing": (
            (gaps.sum() + empty.sum()) / bins,
            (abs(middle - share).sum() + empty.sum()) / bins,
        ),
        "you take the middle of the bin; take the mean of its probabilities": middles,
        "you take the lower edge of the bin; take the mean of its probabilities": (
            weights @ abs(full / bins - share)
        ),
        "that is the largest gap; the weighted mean is asked for": gaps.max(),
        "the gaps are squared; take their absolute value": (weights @ gaps**2, (weights @ gaps**2) ** 0.5),
        "the gaps are added up; weigh each by its count, divided by n": (gaps.sum(), counts @ gaps),
        "the first bin is missing": (weights * gaps)[1:].sum(),
        "the last bin is missing": (weights * gaps)[:-1].sum(),
    }


def _other_bins(p: np.ndarray, y: np.ndarray, bins: int) -> dict[str, object]:
    """What the same error of other probabilities, labels or bins says about an answer."""
    error, hit, n = expected_calibration_error, (p > 0.5) == y, len(p)
    ranks, rounded = np.array_split(np.argsort(p), bins), np.round(p * bins)
    confidence = "confidence against accuracy is another variant; here the positive class's probability"
    cancel = "the gaps keep their sign and cancel: take each bin's absolute value"
    equal, near = (
        sum(abs((p - y)[r].sum()) for r in ranks) / n,
        sum(abs((p - y)[rounded == i].sum()) for i in range(bins + 1)) / n,
    )
    return {
        f"{confidence} against its share": error(np.maximum(p, 1 - p), hit, bins),
        "that compares probability with accuracy; take the share of positives": error(p, hit, bins),
        cancel: ((p - y).mean(), (y - p).mean(), abs((p - y).mean())),
        "that is the gap of each text; average over a bin first": abs(p - y).mean(),
        "that is the Brier score; calibration compares means of bins": ((p - y) ** 2).mean(),
        "the bins hold equally many texts; they should be equally wide": equal,
        "p · bins is rounded; the bin's number is its whole part": near,
        "the labels are turned: the share of positives, y = 1": error(p, 1 - y, bins),
        "a share, not percent": 100 * error(p, y, bins),
    }


def _edges(ask: Callable[..., float]) -> None:
    """Raises Wrong where 0, 1 or a probability on an edge goes into no bin, or into another."""
    cases = {
        "1.0 belongs to the last bin": ([1.0, 0.95], [0, 1], 10),
        "0.0 belongs to the first bin": ([0.0, 0.0, 0.05, 0.75], [1, 1, 1, 1], 4),
        "a probability on an edge belongs to the bin above it": ([0.5, 0.7, 0.4], [1, 0, 0], 4),
    }
    for why, (p, y, bins) in cases.items():
        p, y = np.array(p), np.array(y)
        its, should = ask(p, y, bins), expected_calibration_error(p, y, bins)
        case = f"p = {p.tolist()}, y = {y.tolist()}, {bins} bins make it {should:.4f}, not {signed(its, 4)}"
        expect(abs(its - should) < 1e-6, f"{why}: {case}")


EXERCISES = (
    Exercise(
        "04b.1",
        "After the last real word",
        last,
        "Two indices at once: torch.arange(B) picks the sentences, lengths − 1 the step of each.",
        "def last(outputs, lengths):\n    return outputs[torch.arange(len(outputs)), lengths - 1]",
    ),
    Exercise(
        "04b.2",
        "Accuracy of scores",
        accuracy,
        "Look at the shape of (logits > 0) == labels. squeeze(1) makes (n,) of (n, 1); "
        "True and False need float() before mean().",
        "def accuracy(logits, labels):\n"
        "    positive = logits.squeeze(1) > 0\n"
        "    return (positive == labels).float().mean()",
    ),
    Exercise(
        "04b.3",
        "Are the probabilities true?",
        calibration_error,
        "The bin of p is the whole part of p · bins, at most bins − 1. In a bin, n_k times the gap is "
        "the absolute value of the sum of p − y, so that no mean is needed.",
        "def calibration_error(probabilities, labels, bins=10):\n"
        "    k = np.minimum((probabilities * bins).astype(int), bins - 1)\n"
        "    gaps = [abs((probabilities - labels)[k == i].sum()) for i in range(bins)]\n"
        "    return sum(gaps) / len(labels)",
    ),
)
