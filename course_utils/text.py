"""From raw text to word ids: sentences, tokens, vocabularies."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from numbers import Integral

import numpy as np

__taught__ = ["normalise", "sentences", "tokenise", "Vocabulary"]


def normalise(text: str) -> str:
    """One spelling a word: compatible characters unified (NFKC), curly apostrophes straight, lower case."""
    return unicodedata.normalize("NFKC", text).replace("’", "'").lower()


def sentences(text: str) -> list[str]:
    """Split at line ends and after `.`, `!` or `?` and space. Errs at abbreviations; good enough here."""
    return [part for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]


def tokenise(text: str) -> list[str]:
    """The words of a normalised text: runs of letters, inner apostrophes kept; digits and signs dropped.

    A numeral that is no decimal digit, such as ↂ, passes as a letter.
    """
    return re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text)


class Vocabulary:
    """Words and their ids, most frequent first.

    Attributes:
        words: id → word.
        counts: (V,) how often each word occurs.
        ids: word → id.
    """

    def __init__(self, corpus: Iterable[list[str]], min_count: int = 1) -> None:
        """Count a corpus of tokenised sentences and keep the words seen at least `min_count` times.

        Raises:
            ValueError: no word is frequent enough.
        """
        counted = Counter(word for sentence in corpus for word in sentence)
        kept = sorted((-n, word) for word, n in counted.items() if n >= min_count)  # ties: a…z
        self.words = [word for _, word in kept]
        self.counts = np.array([-n for n, _ in kept])  # (V,)
        self.ids = {word: i for i, word in enumerate(self.words)}
        require_words(self.words, min_count)

    def __len__(self) -> int:
        """V, the number of words."""
        return len(self.words)

    def encode(self, sentence: list[str]) -> list[int]:
        """Ids of a sentence's words; unknown words are left out."""
        return [self.ids[word] for word in sentence if word in self.ids]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Words of ids."""
        return [self.words[i] for i in ids]


def require_words(words: list[str], min_count: int) -> None:
    """Raises ValueError where a vocabulary would be empty."""
    if not words:
        raise ValueError(f"corpus must hold a word seen at least min_count={min_count} times, none is")


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, Python's or NumPy's: True and 2.0 are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_whole(name: str, value: object, least: int) -> None:
    """Raises ValueError unless a value is a whole number, and large enough."""
    if not is_whole(value) or value < least:
        raise ValueError(f"{name} must be a whole number, at least {least}, got {value!r:.80}")


def each_text(texts: Iterable[str]) -> Iterator[str]:
    """The texts one by one; raises ValueError for a single text, or where one is something else."""
    try:
        rows = iter(() if isinstance(texts, str | bytes) else texts)
    except TypeError:
        rows = None
    if rows is None or isinstance(texts, str | bytes):
        raise ValueError(f"texts must be a list of texts, got {texts!r:.80}")
    for i, text in enumerate(rows):
        if not isinstance(text, str):
            raise ValueError(f"texts must be a list of texts, got {text!r:.80} at {i}")
        yield text


def tokenised(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts → normalised, tokenised sentences of at least two words, ready for word vectors.

    Raises:
        ValueError: a single text, or something else than texts.
    """
    for text in each_text(texts):
        for sentence in sentences(normalise(text)):
            if len(words := tokenise(sentence)) > 1:
                yield words
