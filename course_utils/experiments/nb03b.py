"""Notebook 03b's scores: the stored translator, by each way of decoding, beside what it has to beat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import NamedTuple

from course_utils import text
from course_utils import translation as tr
from course_utils.experiments import Row, Task
from course_utils.metrics import Interval, translation_differences, translation_scores
from course_utils.splits import translation_split


class Corpus(NamedTuple):
    """Sentences with all their translations, and each English word's likeliest Spanish one."""

    english: list[str]
    spanish: list[list[str]]
    dictionary: dict[str, str]


@cache
def corpus() -> Corpus:
    """The test side, a row an English sentence; the dictionary is learnt from the training side."""
    sides = translation_split()
    test = sides["test"].groupby("english", sort=True)["spanish"].agg(list)
    dictionary = tr.word_dictionary(*(sides["train"][name].tolist() for name in ("english", "spanish")))
    return Corpus(test.index.tolist(), test.tolist(), dictionary)


def copied(sentences: Sequence[str]) -> list[str]:
    """The English as it is."""
    return list(sentences)


def word_for_word(sentences: Sequence[str]) -> list[str]:
    """Each word's likeliest partner in its place; unknown words stay, so do a capital and the last mark."""
    words = [text.tokenise(text.normalise(sentence)) for sentence in sentences]
    said = [" ".join(corpus().dictionary.get(word, word) for word in row) for row in words]
    marks = [sentence.strip()[-1] for sentence in sentences]
    pairs = zip(said, marks, strict=True)
    return [s[:1].upper() + s[1:] + (mark if mark in ".!?" else "") for s, mark in pairs]


def by_model(sentences: Sequence[str], beams: int = 1, alpha: float = 0.6) -> list[str]:
    """The stored translator."""
    return tr.translate_all(*tr.load(), sentences, beams, alpha)


METHODS = {
    "copy the source": copied,
    "dictionary": word_for_word,
    "greedy": by_model,
    "beam 4": partial(by_model, beams=4),
    "beam 4, no length penalty": partial(by_model, beams=4, alpha=0.0),
}


def scored(method: Callable[[Sequence[str]], list[str]]) -> Row:
    """BLEU and chrF of the test side with 95 % intervals over sentences, as [low, estimate, high].

    "over greedy" holds the same of the difference from greedy decoding, paired by sentence.
    """
    said, right = method(corpus().english), corpus().spanish
    row: Row = {"sentences": len(said)} | _rounded(translation_scores(said, right))
    return row | {"over greedy": _rounded(translation_differences(said, greedily(), right))}


@cache
def greedily() -> list[str]:
    """The stored translator's greedy translations of the test side."""
    return by_model(corpus().english)


def _rounded(scores: dict[str, Interval]) -> Row:
    return {name: [round(value, 2) for value in interval] for name, interval in scores.items()}


def translations() -> Iterator[Task]:
    """Each method once: nothing is trained, so there is no seed."""
    for name, method in METHODS.items():
        yield {"method": name}, partial(scored, method)
