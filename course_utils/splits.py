"""Splits by text: near-duplicates share a side, so that no test story is a training story told again.

Two texts are near-duplicates where their sets of three-word runs overlap by a fifth or more (Jaccard
similarity; Broder, "On the resemblance and containment of documents", 1997). The pairs are found exactly, not
by sampling: a shingle index over each text's rarest shingles with the prefix filter of Chaudhuri, Ganti &
Kaushik ("A primitive operator for similarity joins", ICDE 2006).

Why a fifth: stories that share a quarter of their runs tell one plot in much the same sentences, those that
share a fifth tell one premise and part company later. At 0.15 it is mostly an opening, and linking those
would chain 2,483 of the 32,640 stories into one group (at 0.20 the largest holds 29, at 0.25 four).
`python -m course_utils.splits` finds the stored splits again and rewrites them, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from course_utils import corpora
from course_utils.runtime import DATA

SHINGLE_WORDS = 3
THRESHOLD = 0.2
STORY_FRACTIONS = {"train": 0.90, "valid": 0.05, "test": 0.05}
REVIEW_FRACTIONS = {"train": 0.70, "valid": 0.15, "test": 0.15}
TRANSLATION_FRACTIONS = {"train": 0.97, "valid": 0.01, "test": 0.02}
TRANSLATION_THRESHOLD = 0.5  # of short sentences: at 0.2 "I want to go" would chain to most of the corpus
REVIEW_FILE = DATA / "reviews_split.json"
STORY_FILE = DATA / "stories_split.json"
TRANSLATION_FILE = DATA / "tatoeba_split.json"
_BLOCK = 2000  # texts compared at once: bounds memory, not the result
_EPS = 1e-9  # 0.2 * 35 is 7.000000000000001: counts are compared with this much slack


def shingles(text: str) -> list[str]:
    """The three-word runs of a text, lower case, without punctuation; a shorter text is one run."""
    words = re.findall(r"\w+", text.lower().replace("’", "'").replace("'", ""))
    return [" ".join(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))]


def near_duplicate_groups(texts: Sequence[str], threshold: float = THRESHOLD) -> np.ndarray:
    """Group texts that are near-duplicates, or linked by a chain of them.

    Args:
        texts: N texts.
        threshold: Jaccard similarity of their shingles, in (0, 1], from which two texts belong together.

    Returns:
        (N,) integers: for each text, the index of the first text of its group.

    Raises:
        ValueError: no texts, or a threshold outside (0, 1].
    """
    first, second, _ = near_duplicate_pairs(texts, threshold)
    links = sparse.coo_matrix((np.ones(len(first), bool), (first, second)), shape=(len(texts),) * 2)
    component = sparse.csgraph.connected_components(links, directed=False)[1]
    return np.unique(component, return_index=True)[1][component]


def near_duplicate_pairs(
    texts: Sequence[str], threshold: float = THRESHOLD
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of texts at least `threshold` alike, exactly.

    Returns:
        Three arrays of one length: index i, index j > i, and the pair's Jaccard similarity.

    Raises:
        ValueError: no texts, or a threshold outside (0, 1].
    """
    _check_texts(texts, threshold)
    sets = _shingle_sets(texts)  # (N, shingles), columns from rare to common
    size = np.diff(sets.indptr)
    # Alike pairs share >= threshold * size shingles, so also one outside each set's `common` commonest.
    common = np.ceil(threshold * size - _EPS).astype(int) - 1
    rare = _keep_first(sets, size - common)
    found = [_verify(sets, size, *block) for block in _candidates(rare, size, common, threshold)]
    first, second, jaccard = (np.concatenate(parts) for parts in zip(*found, strict=True))
    alike = jaccard >= threshold
    return first[alike], second[alike], jaccard[alike]


def _check_texts(texts: Sequence[str], threshold: float) -> None:
    if isinstance(texts, str) or not len(texts):
        raise ValueError(f"texts must be a list of one or more texts, got {texts!r}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be a similarity in (0, 1], got {threshold!r}")


def _shingle_sets(texts: Sequence[str]) -> sparse.csr_matrix:
    """(N, shingles) of ones, columns ordered from the rarest shingle to the commonest, ties by spelling."""
    counts = CountVectorizer(analyzer=shingles, binary=True, dtype=np.int32).fit_transform(texts)
    order = np.argsort(counts.getnnz(axis=0), kind="stable")
    column = np.empty_like(order)
    column[order] = np.arange(len(order))
    sets = sparse.csr_matrix((counts.data, column[counts.indices], counts.indptr), shape=counts.shape)
    sets.sort_indices()
    return sets


def _keep_first(sets: sparse.csr_matrix, number: np.ndarray) -> sparse.csr_matrix:
    """The same rows with only their first `number` entries; shingles that then occur once are dropped too."""
    size = np.diff(sets.indptr)
    kept = np.arange(sets.nnz) - np.repeat(sets.indptr[:-1], size) < np.repeat(number, size)
    indptr = np.concatenate([[0], np.cumsum(number)])
    rows = sparse.csr_matrix((sets.data[kept], sets.indices[kept], indptr), shape=sets.shape)
    return rows[:, rows.getnnz(axis=0) > 1]


def _candidates(
    rare: sparse.csr_matrix, size: np.ndarray, common: np.ndarray, threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of pairs (i, j > i) that can still be alike, judged by the rare shingles they share."""
    for start in range(0, rare.shape[0], _BLOCK):
        shared = (rare[start : start + _BLOCK] @ rare[start:].T).tocoo()
        first, second = shared.row + start, shared.col + start
        # Alike means sharing this many; those not seen among the rare are at most one set's common ones.
        needed = threshold / (1 + threshold) * (size[first] + size[second])
        hopeful = shared.data >= needed - np.maximum(common[first], common[second]) - _EPS
        hopeful &= first < second
        yield first[hopeful], second[hopeful]


def _verify(
    sets: sparse.csr_matrix, size: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shared = np.asarray(sets[first].multiply(sets[second]).sum(axis=1)).ravel()
    return first, second, shared / (size[first] + size[second] - shared)


def split_groups(
    groups: Sequence[int] | np.ndarray,
    fractions: Mapping[str, float],
    seed: int = 0,
    strata: Sequence | None = None,
) -> np.ndarray:
    """Deal whole groups to sides, each side close to its fraction within each stratum.

    Groups are dealt in the order of a hash of seed and group, so the result is the same on every machine and
    for every version of every library. A side misses its share by less than the largest group per stratum.

    Args:
        groups: (N,) group of each text, as `near_duplicate_groups` gives.
        fractions: side -> share of the texts, in order; the shares add up to 1.
        seed: another seed deals another split.
        strata: (N,) class of each text to balance (a group counts as its commonest class), or None.

    Returns:
        (N,) names of sides.

    Raises:
        ValueError: shares that do not add up to 1, or strata of another length.
    """
    groups = np.asarray(groups)
    _check_split(groups, fractions, strata)
    names = np.array(list(fractions))
    borders = np.cumsum(list(fractions.values()))[:-1]
    sides = np.empty(len(groups), dtype=names.dtype)
    for members in _by_stratum(groups, strata):
        sides[members] = names[np.searchsorted(borders, _places(groups[members], seed), side="right")]
    return sides


def _places(groups: np.ndarray, seed: int) -> np.ndarray:
    """Where each text's group lies, in (0, 1), with the groups laid end to end in the order of their hash."""
    names, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = sorted(range(len(names)), key=lambda g: hashlib.sha256(f"{seed}:{names[g]}".encode()).digest())
    middle = np.empty(len(names))
    middle[order] = (np.cumsum(counts[order]) - counts[order] / 2) / len(groups)
    return middle[inverse]


def _check_split(groups: np.ndarray, fractions: Mapping[str, float], strata: Sequence | None) -> None:
    shares = list(fractions.values())
    if not shares or min(shares) <= 0 or not np.isclose(sum(shares), 1):
        raise ValueError(f"fractions must be positive shares that add up to 1, got {dict(fractions)}")
    if groups.ndim != 1 or not len(groups):
        raise ValueError(f"groups must be one row of one or more groups, got shape {groups.shape}")
    if strata is not None and len(strata) != len(groups):
        raise ValueError(f"strata must have one entry a text: {len(groups)}, got {len(strata)}")


def _by_stratum(groups: np.ndarray, strata: Sequence | None) -> list[np.ndarray]:
    """The members (indices) of each stratum, whole groups at a time."""
    if strata is None:
        return [np.arange(len(groups))]
    names, stratum = np.unique(np.asarray(strata), return_inverse=True)
    labels, group = np.unique(groups, return_inverse=True)
    votes = np.zeros((len(labels), len(names)), int)
    np.add.at(votes, (group, stratum), 1)
    of_text = votes.argmax(axis=1)[group]
    return [np.flatnonzero(of_text == s) for s in np.unique(of_text)]


def split_by_text(
    texts: Sequence[str],
    fractions: Mapping[str, float],
    seed: int = 0,
    strata: Sequence | None = None,
    threshold: float = THRESHOLD,
) -> np.ndarray:
    """The side of each text, near-duplicates on one side: `split_groups` of `near_duplicate_groups`."""
    return split_groups(near_duplicate_groups(texts, threshold), fractions, seed, strata)


def make_story_split() -> dict:
    """Split the stories afresh (about 20 s): the content of `data/stories_split.json`."""
    stories = corpora.stories()
    strata = [f"{story.temperature} {story.complete}" for story in stories]
    sides = split_by_text([story.text for story in stories], STORY_FRACTIONS, strata=strata)
    return _record([story.text for story in stories], range(len(stories)), sides)


def make_review_split() -> dict:
    """Split the reviews afresh, balanced by rating's sign: the content of `data/reviews_split.json`."""
    reviews = corpora.reviews()
    sides = split_by_text(list(reviews["text"]), REVIEW_FRACTIONS, strata=reviews["rating"] > 0)
    return _record(list(reviews["text"]), reviews["id"].tolist(), sides)


def make_translation_split() -> dict:
    """Split the sentence pairs afresh (about 10 s): the content of `data/tatoeba_split.json`.

    Pairs are linked where their English sides are near-duplicates, or where either side is the same but for
    case and punctuation; what is linked, if only through others, shares a side.
    """
    pairs = corpora.tatoeba()
    english, spanish = (pairs[name].map(_wording).tolist() for name in ("english", "spanish"))
    groups = _joined(
        near_duplicate_groups(english, TRANSLATION_THRESHOLD), np.unique(spanish, return_inverse=True)[1]
    )
    sides = split_groups(
        groups, TRANSLATION_FRACTIONS, strata=np.minimum(pairs["english"].str.split().str.len(), 12)
    )
    return _record(_lines(pairs), range(len(pairs)), sides)


def _wording(sentence: str) -> str:
    """A sentence without case and punctuation."""
    return " ".join(re.findall(r"\w+", sentence.lower().replace("’", "'").replace("'", "")))


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The finest groups that hold both groupings together: for each text, the index of its group's first."""
    N, start = len(first), first.max() + 1
    links = sparse.coo_matrix(
        (np.ones(N, bool), (first, start + second)), shape=(start + second.max() + 1,) * 2
    )
    component = sparse.csgraph.connected_components(links, directed=False)[1][first]
    return np.unique(component, return_index=True)[1][np.unique(component, return_inverse=True)[1]]


def _record(texts: list[str], ids: Sequence, sides: np.ndarray) -> dict:
    held_out = {
        name: [i for i, side in zip(ids, sides, strict=True) if side == name] for name in ("valid", "test")
    }
    return {"texts": len(texts), "sha256": _digest(texts), "train": "all others"} | held_out


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def story_split() -> dict[str, list[str]]:
    """The stories' texts by side: `train` (90 %), `valid` and `test` (5 % each), in the corpus's order.

    Raises:
        ValueError: the corpus is not the one the stored split was made for.
    """
    texts = [story.text for story in corpora.stories()]
    side = _read(STORY_FILE, texts, range(len(texts)))
    return {
        name: [text for text, s in zip(texts, side, strict=True) if s == name] for name in STORY_FRACTIONS
    }


def review_split() -> dict[str, pd.DataFrame]:
    """The rated snippets (`corpora.reviews()`) by side: `train` (70 %), `valid` and `test` (15 % each).

    Raises:
        ValueError: the corpus is not the one the stored split was made for.
    """
    reviews = corpora.reviews()
    side = np.array(_read(REVIEW_FILE, list(reviews["text"]), reviews["id"].tolist()))
    return {name: reviews[side == name].reset_index(drop=True) for name in REVIEW_FRACTIONS}


def translation_split() -> dict[str, pd.DataFrame]:
    """The sentence pairs (`corpora.tatoeba()`) by side: `train` (97 %), `valid` (1 %) and `test` (2 %).

    Raises:
        ValueError: the corpus is not the one the stored split was made for.
    """
    pairs = corpora.tatoeba()
    side = np.array(_read(TRANSLATION_FILE, _lines(pairs), range(len(pairs))))
    return {name: pairs[side == name].reset_index(drop=True) for name in TRANSLATION_FRACTIONS}


def _lines(pairs: pd.DataFrame) -> list[str]:
    return (pairs["english"] + "\t" + pairs["spanish"]).tolist()


def _read(file: Path, texts: list[str], ids: Sequence) -> list[str]:
    """The stored side of each text."""
    record = json.loads(file.read_text(encoding="utf-8"))
    if record["sha256"] != _digest(texts):
        raise ValueError(
            f"{file.name} was made for other texts; `python -m course_utils.splits` makes it anew"
        )
    side = {i: name for name in ("valid", "test") for i in record[name]}
    return [side.get(i, "train") for i in ids]


def main() -> None:
    """Find the splits again and rewrite their files."""
    for file, make in (
        (STORY_FILE, make_story_split),
        (REVIEW_FILE, make_review_split),
        (TRANSLATION_FILE, make_translation_split),
    ):
        record = make()
        file.write_text(json.dumps(record) + "\n", encoding="utf-8")
        print(
            f"{file.name}: {record['texts']} texts, {len(record['valid'])} valid, {len(record['test'])} test"
        )


if __name__ == "__main__":
    main()
