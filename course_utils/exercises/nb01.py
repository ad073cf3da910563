"""Exercises of notebook 01: the noise distribution, a gradient, nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from course_utils.exercises import Exercise, expect
from course_utils.exercises.properties import array, gradient_of, numbers, ratio_of, signed, sums_to_one
from course_utils.word_vectors import noise_distribution, sgns_loss

VECTORS = np.array([[-0.8, -1.3], [-1, 1.7], [0.3, 0], [-0.2, -0.2], [0.2, 0.5], [0.3, -1.2]])
# What the three words nearest to word 3 tell, where they are not the right ones, [0, 5, 1].
TELLTALES = {
    (0, 5, 2): "long vectors win here: divide each dot product by both lengths",
    (2, 4, 5): "that is ordered by distance; cosine looks at the angle alone",
    (4, 2, 1): "these are the furthest words: sort the other way",
    (0, 4, 2): "words that point the opposite way count as near: leave the cosine's sign as it is",
    (0, 1, 5): "divide each row by its own length (axis=1), not each column by the column's",
    (3, 5, 1): "these are the words nearest to word 0: compare with row i",
    (1, 5, 0): "the right words, but the nearest should come first",
    (1, 6, 2): "each id is one too high: ids count from 0",
    (0, 4, 1): "once row i is deleted, the ids after it are one too low: leave it out of the answer instead",
}


def noise(answer: Callable) -> None:
    """Judge 01.1: probabilities, counts^¾, in the order of the counts."""
    counts = np.array([10, 1000, 1, 100])
    nan = "e to the power of 1000 is beyond any number; raise the counts to a power instead"
    p = array(answer(counts.copy()), (4,), "the distribution", nan=nan)
    sums_to_one(p, 0, "the distribution", 2e-3)  # half precision is welcome
    wanted = noise_distribution(counts)
    upside_down = (np.diff(p[np.argsort(counts)]) < 0).all()
    expect(not upside_down, "the rarest word is drawn most; a more frequent word should be drawn more often")
    alike = np.allclose(np.sort(p), np.sort(wanted), rtol=5e-3)
    expect(not alike or np.allclose(p, wanted, rtol=5e-3), "the right numbers, but not in the counts' order")
    _power(p[np.argsort(counts)])
    expect(np.allclose(p, wanted, rtol=5e-3), "close, yet not counts^¾ divided by its sum")
    others = np.array([3, 70, 20])
    again = array(answer(others.copy()), (3,), "the distribution")
    expect(np.allclose(again, noise_distribution(others), rtol=5e-3), "right for one corpus, not for another")


def _power(p: np.ndarray) -> None:
    """Raises Wrong unless p, of words counted 1, 10, 100 and 1000 times, grows as counts^¾ does."""
    expect((np.diff(p) >= 0).all(), "a more frequent word should be drawn more often")
    expect((np.diff(p) > 0).all(), "words with different counts get the same probability")
    low, high = float(p[2] / p[1]), float(p[3] / p[2])
    expect(
        abs(np.log10(low / high)) < 5e-3,
        f"from 10 to 100 uses the probability grows {low:.2f} times, from 100 to 1000 {high:.2f} times: "
        "that is not a power of the counts",
    )
    expect(
        abs(np.log10(high) - 0.75) < 5e-3,
        f"a word 10 times as frequent is drawn {high:.2f} times as often: that is a power of "
        f"{np.log10(high):.2f}, not ¾",
    )


def centre_gradient(answer: Callable) -> None:
    """Judge 01.2: the loss's gradient by the centre word's vector, against finite differences."""
    draw = np.random.default_rng(389)  # vectors far from parallel, four different σ(score)
    v, u, negatives = draw.normal(size=4), draw.normal(size=4), draw.normal(size=(3, 4))
    shapes = {
        (3, 4): "one row for each negative: sum the negatives' parts",
        (): "one number: that is the loss, not its gradient",
    }
    got = array(answer(v.copy(), u.copy(), negatives.copy()), (4,), "the gradient", shapes)
    wanted = gradient_of(lambda x: sgns_loss(x, u, negatives), v)
    along = "your answer points along v: by v, the gradient is made of u and negatives"
    expect(ratio_of(got, v) is None, along)
    expect(ratio_of(got - v, wanted) is None, "that is v after an update; return the gradient alone")
    _right_length(ratio_of(got, wanted))
    _right_weights(got, wanted, np.vstack([u, negatives]), v)
    single = array(answer(v.copy(), u.copy(), negatives[:1].copy()), (4,), "the gradient")
    worst = abs(single - gradient_of(lambda x: sgns_loss(x, u, negatives[:1]), v)).max()
    expect(worst < 1e-5, f"right for three negatives, off by {worst:.3g} for a single one")


def _right_length(ratio: float | None) -> None:
    """Raises Wrong where the answer is a multiple of the gradient, but not the gradient."""
    if ratio is None:
        return
    expect(abs(ratio + 1) > 1e-3, "that is minus the gradient: it would climb the loss")
    expect(
        abs(ratio - 1) < 1e-3,
        f"that is {signed(ratio)} times the gradient: no learning rate, and sums rather than means",
    )


def _right_weights(got: np.ndarray, wanted: np.ndarray, outputs: np.ndarray, v: np.ndarray) -> None:
    """Raises Wrong by the weight an answer gives to u and to each negative: outputs, (4, 4), are a basis."""
    used, right = np.linalg.solve(outputs.T, got), np.linalg.solve(outputs.T, wanted)  # (4,), (4,)
    one = np.array([1, 0, 0, 0])  # the labels, and which of the outputs is u
    near = {
        "only the true pair's part: the negatives pull too": right * one,
        "only the negatives' part: the true pair pulls too": right * (1 - one),
        "the negatives' parts are averaged; the loss sums them": right * np.where(one, 1, 1 / 3),
        "no sigmoid: weigh each vector by σ(score) − label, not by score − label": outputs @ v - one,
    }
    for diagnosis, weights in near.items():
        expect(not np.allclose(used, weights, atol=1e-4), diagnosis)
    names = [("u", "σ(u·v) − 1")] + [(f"negative {n}", f"σ(negative {n} · v)") for n in range(3)]
    for (name, formula), its, should in zip(names, used, right, strict=True):
        expect(
            abs(its - should) < 1e-3,
            f"your answer weighs {name} by {signed(its)}; it should be {formula} = {signed(should)}",
        )
    worst = abs(got - wanted).max()
    expect(worst < 1e-5, f"finite differences of the loss disagree by {worst:.3g}")


def nearest(answer: Callable) -> None:
    """Judge 01.3: cosine, nearest first, never the word itself, for any word and any k."""
    ids = _ids(answer, VECTORS, 3, 3)
    expect(tuple(ids) not in TELLTALES, TELLTALES.get(tuple(ids), ""))
    expect(3 not in ids, "the word is its own nearest neighbour: leave it out")
    lengths = np.array([[0.1], [0.05], [9], [2], [3], [9]])  # show who favours long vectors, or short ones
    expect(
        _ids(answer, VECTORS * lengths, 3, 3) == ids,
        "longer or shorter vectors changed your answer; cosine does not depend on length",
    )
    right = _by_cosine(3, 3)
    expect(ids == right, f"by cosine, words {right} are nearest to word 3, in this order; yours are {ids}")
    pairs = [_ids(answer, VECTORS, i, 2) for i in range(len(VECTORS))]
    for i, pair in enumerate(pairs):  # the right pairs are six different ones
        same = pairs.index(pair)
        expect(same == i, f"words {same} and {i} get the same neighbours, {pair}: find those of word i")
    for i, pair in enumerate(pairs):
        right = _by_cosine(i, 2)
        expect(
            pair == right, f"right for word 3; for word {i} and k = 2 it should be {right}, yours is {pair}"
        )


def _ids(answer: Callable, vectors: np.ndarray, i: int, k: int) -> list[int]:
    """The answer as k whole numbers."""
    got = numbers(answer(vectors.copy(), i, k), "the answer", "a length of 0, or 0 / 0?")
    expect(got.ndim < 2, "return the ids alone, without similarities or vectors")
    expect((got == got.round()).all(), "return the words' ids, not their similarities")
    few = f"{k} words are asked for, you return {got.size}: "
    expect(got.size != k - 1, few + "cut to k after leaving the word out")
    expect(got.shape == (k,), few + "return k, no more and no fewer")
    return got.astype(int).tolist()


def _by_cosine(i: int, k: int) -> list[int]:
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    ranked = np.argsort(-(unit @ unit[i])).tolist()
    return [j for j in ranked if j != i][:k]


EXERCISES = (
    Exercise(
        "01.1",
        "The noise distribution",
        noise,
        "Raise the counts to the power first, then divide by the sum of what you have then.",
        "def noise(counts):\n    weights = counts**0.75\n    return weights / weights.sum()",
    ),
    Exercise(
        "01.2",
        "The centre word's gradient",
        centre_gradient,
        "d/dx −log σ(x) = σ(x) − 1 and d/dx −log σ(−x) = σ(x). Each x is a dot product of v with a vector.",
        "def centre_gradient(v, u, negatives):\n"
        "    sigmoid = lambda x: 1 / (1 + np.exp(-x))\n"
        "    return (sigmoid(u @ v) - 1) * u + sigmoid(negatives @ v) @ negatives",
    ),
    Exercise(
        "01.3",
        "Nearest neighbours",
        nearest,
        "Divide every vector by its length first; then cosines are dot products. np.argsort sorts upwards.",
        "def nearest(vectors, i, k):\n"
        "    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)\n"
        "    ranked = np.argsort(-(unit @ unit[i]))\n"
        "    return [j for j in ranked if j != i][:k]",
    ),
)
