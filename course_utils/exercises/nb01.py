"""Exercises of notebook 01: the noise distribution, a gradient, nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from course_utils.exercises import Exercise, expect
from course_utils.exercises.properties import array, gradient_of, returned, sums_to_one
from course_utils.word_vectors import noise_distribution, sgns_loss


def noise(answer: Callable) -> None:
    """Judge 01.1: probabilities, counts^¾."""
    counts = np.array([1000, 100, 10, 1])
    p = array(answer(counts), (4,), "the distribution")
    sums_to_one(p, 0, "the distribution")
    expect((np.diff(p) < 0).all(), "a more frequent word should be drawn more often")
    power = np.log(p[0] / p[1]) / np.log(10)
    expect(
        abs(power - 0.75) < 1e-6,
        f"a word 10 times as frequent is drawn {p[0] / p[1]:.2f} times as often: that is a power of "
        f"{power:.2f}, not ¾",
    )
    expect(np.allclose(p, noise_distribution(counts)), "close, yet not counts^¾ divided by its sum")


def centre_gradient(answer: Callable) -> None:
    """Judge 01.2: the loss's gradient by the centre word's vector, against finite differences."""
    draw = np.random.default_rng(1)
    v, u, negatives = draw.normal(size=4), draw.normal(size=4), draw.normal(size=(3, 4))
    got = array(answer(v, u, negatives), (4,), "the gradient")
    wanted = gradient_of(lambda x: sgns_loss(x, u, negatives), v)
    near = {
        "that is minus the gradient: it would climb the loss": -wanted,
        "only the true pair's part: the negatives pull too": gradient_of(
            lambda x: sgns_loss(x, u, negatives[:0]), v
        ),
        "only the negatives' part: the true pair pulls too": gradient_of(
            lambda x: sgns_loss(x, u, negatives) - sgns_loss(x, u, negatives[:0]), v
        ),
        "the negatives' parts are averaged; the loss sums them": _averaged(v, u, negatives),
        "no sigmoid: weigh each vector by σ(score) − label, not by score − label": (u @ v - 1) * u
        + (negatives @ v) @ negatives,
    }
    for diagnosis, value in near.items():
        expect(not np.allclose(got, value, atol=1e-5), diagnosis)
    worst = abs(got - wanted).max()
    expect(worst < 1e-5, f"finite differences of the loss disagree by {worst:.3g}")


def _averaged(v: np.ndarray, u: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    true_part = gradient_of(lambda x: sgns_loss(x, u, negatives[:0]), v)
    return true_part + (gradient_of(lambda x: sgns_loss(x, u, negatives), v) - true_part) / len(negatives)


def nearest(answer: Callable) -> None:
    """Judge 01.3: cosine, nearest first, never the word itself."""
    vectors = np.array([[1.0, 0.0], [8.0, 6.0], [0.5, 0.1], [-1.0, 0.0], [0.9, -0.5]])
    value = returned(answer(vectors, 0, 3))
    numbers = array(value, (3,), "the answer")
    expect((numbers == numbers.round()).all(), "return the words' ids, not their similarities")
    ids = numbers.astype(int).tolist()
    expect(0 not in ids, "the word is its own nearest neighbour: leave it out")
    expect(ids != [3, 1, 4], "these are the furthest words: sort the other way")
    expect(ids != [1, 4, 2], "long vectors win here: divide each dot product by both lengths")
    expect(ids != [2, 4, 3], "that is ordered by distance; cosine looks at the angle alone")
    expect(
        ids == [2, 4, 1], f"by cosine, words 2, 4, 1 are nearest to word 0, in this order; yours are {ids}"
    )
    scaled = vectors * np.array([[3.0], [1.0], [7.0], [2.0], [0.1]])
    again = array(answer(scaled, 0, 3), (3,), "the answer").astype(int).tolist()
    expect(again == ids, "longer or shorter vectors changed your answer; cosine does not depend on length")


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
