"""Splits by text: exact near-duplicates, whole groups to one side, the stored files found again."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from course_utils import corpora, runtime, splits

FRACTIONS = {"train": 0.7, "valid": 0.2, "test": 0.1}
texts_of_few_words = st.lists(
    st.lists(st.sampled_from(["the", "cat", "saw", "a", "dog", "run"]), min_size=0, max_size=9).map(" ".join),
    min_size=1,
    max_size=12,
)


def brute_force(texts, threshold):
    """All pairs by plain sets of three-word runs."""
    sets = [set(splits.shingles(text)) for text in texts]
    pairs = ((i, j, len(sets[i] & sets[j])) for i, j in itertools.combinations(range(len(texts)), 2))
    alike = ((i, j, both / (len(sets[i]) + len(sets[j]) - both)) for i, j, both in pairs)
    return {(i, j): jaccard for i, j, jaccard in alike if jaccard >= threshold}


def found(texts, threshold):
    return {
        (int(i), int(j)): k for i, j, k in zip(*splits.near_duplicate_pairs(texts, threshold), strict=True)
    }


@pytest.fixture(scope="module")
def stories():
    return [story.text for story in corpora.stories()]


@settings(deadline=None)
@given(texts_of_few_words, st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.7, 1.0]))
def test_pairs_are_those_of_brute_force(texts, threshold):
    assert found(texts, threshold) == brute_force(texts, threshold)


def test_pairs_are_those_of_brute_force_on_stories(stories):
    texts = stories[:400]
    expected = brute_force(texts, 0.12)
    assert expected
    assert found(texts, 0.12) == expected


def test_blocks_do_not_change_the_pairs(stories, monkeypatch):
    texts = stories[:500]
    whole = found(texts, 0.1)
    monkeypatch.setattr(splits, "_BLOCK", 37)
    assert whole
    assert found(texts, 0.1) == whole


@settings(deadline=None)
@given(texts_of_few_words)
def test_groups_are_the_closure_of_pairs(texts):
    groups = splits.near_duplicate_groups(texts)
    linked = np.eye(len(texts), dtype=bool)
    for i, j in brute_force(texts, splits.THRESHOLD):
        linked[i, j] = linked[j, i] = True
    reach = np.linalg.matrix_power(linked.astype(float), len(texts)) > 0
    assert (reach == (groups[:, None] == groups)).all()
    assert (groups == reach.argmax(axis=1)).all()  # named by the group's first text


def test_case_and_punctuation_do_not_hide_a_copy():
    copies = ["The dog can’t run, it sat!", "the dog can't run; it sat", "A bird flew over the blue house."]
    assert splits.near_duplicate_groups(copies, 1.0).tolist() == [0, 0, 2]


def test_a_changed_word_does_not_hide_a_copy(stories):
    words = stories[0].split()
    words[len(words) // 2] = "rhinoceros"
    assert splits.near_duplicate_groups([stories[0], " ".join(words), stories[1]]).tolist() == [0, 0, 2]


def test_a_standard_opening_does_not_make_a_copy(stories):
    openings = np.array([text.startswith("Once upon a time, there was") for text in stories])
    sample = [stories[i] for i in np.flatnonzero(openings)[:2000]]
    groups = splits.near_duplicate_groups(sample)
    assert np.bincount(groups).max() < 20
    assert len(np.unique(groups)) > 0.98 * len(sample)


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(0, 5), st.booleans())
def test_groups_stay_whole_and_shares_are_kept(groups, seed, stratified):
    strata = [g % 2 for g in groups] if stratified else None
    sides = splits.split_groups(groups, FRACTIONS, seed, strata)
    assert all(len(set(sides[np.array(groups) == g])) == 1 for g in groups)
    largest = np.bincount(groups).max()
    for part in [0, 1] if stratified else [None]:
        mine = sides if part is None else sides[np.array(groups) % 2 == part]
        for name, share in FRACTIONS.items():
            assert abs((mine == name).sum() - share * len(mine)) <= largest


def test_another_seed_deals_another_split():
    groups = range(100)
    first, again, other = (splits.split_groups(groups, FRACTIONS, seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_the_split_does_not_depend_on_the_hash_seed(stories):
    code = (
        "import sys, json; from course_utils.splits import *; t = json.load(sys.stdin);"
        "print(*split_by_text(t, {'a': .5, 'b': .5}, threshold=0.1))"
    )
    dealt = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(stories[:200]),
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(dealt) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: splits.near_duplicate_groups([]), "texts"),
        (lambda: splits.near_duplicate_groups("one text"), "texts"),
        (lambda: splits.near_duplicate_groups(["a"], 0), "threshold"),
        (lambda: splits.near_duplicate_groups(["a"], 1.5), "threshold"),
        (lambda: splits.split_groups([0, 1], {"train": 0.5}), "fractions"),
        (lambda: splits.split_groups([0, 1], {"train": 1.5, "test": -0.5}), "fractions"),
        (lambda: splits.split_groups([], {"train": 1.0}), "groups"),
        (lambda: splits.split_groups([0, 1], {"train": 1.0}, strata=[0]), "strata"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message} must"):
        call()


def test_a_fresh_story_split_is_the_stored_one():
    assert json.loads(splits.STORY_FILE.read_text()) == splits.make_story_split()


def test_a_fresh_review_split_is_the_stored_one():
    assert json.loads(splits.REVIEW_FILE.read_text()) == splits.make_review_split()


def test_no_near_duplicate_story_crosses():
    """Every held-out story against every training story, all 96 million pairs, without any filter."""
    parts = splits.story_split()
    index = CountVectorizer(analyzer=splits.shingles, binary=True, dtype=np.int32)
    train = index.fit_transform(parts["train"])
    held_out = parts["valid"] + parts["test"]
    size = np.array([len(set(splits.shingles(text))) for text in held_out])
    nearest = []
    for start in range(0, len(held_out), 250):
        rows = slice(start, start + 250)
        shared = (index.transform(held_out[rows]) @ train.T).toarray()
        nearest.append((shared / (size[rows, None] + train.getnnz(axis=1) - shared)).max())
    assert 0.15 < max(nearest) < splits.THRESHOLD  # close calls there are, near-duplicates none


def test_the_story_split_holds_every_story_once(stories):
    parts = splits.story_split()
    assert sorted(text for part in parts.values() for text in part) == sorted(stories)
    for name, share in splits.STORY_FRACTIONS.items():
        assert len(parts[name]) == pytest.approx(share * len(stories), rel=0.01)


def test_the_review_split_holds_every_review_once_and_balances_the_signs():
    reviews, parts = corpora.reviews(), splits.review_split()
    assert sorted(i for part in parts.values() for i in part["id"]) == sorted(reviews["id"])
    for name, share in splits.REVIEW_FRACTIONS.items():
        assert len(parts[name]) == pytest.approx(share * len(reviews), rel=0.01)
        assert (parts[name]["rating"] > 0).mean() == pytest.approx((reviews["rating"] > 0).mean(), abs=0.01)


# --- sentence pairs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs():
    return splits.translation_split()


def test_a_fresh_translation_split_is_the_stored_one():
    assert json.loads(splits.TRANSLATION_FILE.read_text()) == splits.make_translation_split()


def table_lines(table):
    return table["english"] + "\t" + table["spanish"] + "\t" + table["attribution"]


def test_the_translation_split_holds_every_pair_once(pairs):
    whole = corpora.tatoeba()
    assert sorted(itertools.chain(*map(table_lines, pairs.values()))) == sorted(table_lines(whole))
    for name, share in splits.TRANSLATION_FRACTIONS.items():
        assert len(pairs[name]) == pytest.approx(share * len(whole), rel=0.01)
        length = pairs[name]["english"].str.split().str.len()
        assert length.mean() == pytest.approx(whole["english"].str.split().str.len().mean(), rel=0.03)


def plain(sentence):
    """Letters and digits alone, one spelling a character: another way to it than the split's own."""
    letters = unicodedata.normalize("NFKC", sentence).casefold().replace("’", "'").replace("'", "")
    return tuple("".join(c if c.isalnum() else " " for c in letters).split())


@pytest.mark.parametrize("language", ["english", "spanish"])
def test_no_wording_is_on_two_sides(pairs, language):
    wordings = [set(part[language].map(plain)) for part in pairs.values()]
    assert sum(map(len, wordings)) == len(set.union(*wordings))
    assert sum(map(len, wordings)) < sum(map(len, pairs.values()))  # many a wording is there twice


def test_no_near_duplicate_sentence_crosses(pairs):
    """Every held-out English sentence against all of the other sides, without any filter."""
    texts = [text for part in pairs.values() for text in part["english"]]
    side = np.repeat(np.arange(3), [len(part) for part in pairs.values()])
    sets = CountVectorizer(analyzer=splits.shingles, binary=True, dtype=np.int32).fit_transform(texts).tocsr()
    size, by_shingle, nearest = sets.getnnz(axis=1), sets.T.tocsr(), []
    held_out = np.flatnonzero(side)
    for start in range(0, len(held_out), 500):
        rows = held_out[start : start + 500]
        shared = (sets[rows] @ by_shingle).tocoo()
        i, j = rows[shared.row], shared.col
        jaccard = shared.data / (size[i] + size[j] - shared.data)
        nearest.append(jaccard[side[i] != side[j]].max())
    assert 0.4 < max(nearest) < splits.TRANSLATION_THRESHOLD  # close calls there are, near-duplicates none


def test_joined_groups_are_the_closure_of_both():
    random = np.random.default_rng(0)
    for _ in range(50):
        first, second = random.integers(0, 12, (2, 15))
        linked = (first[:, None] == first) | (second[:, None] == second)
        reach = np.linalg.matrix_power(linked.astype(float), 15) > 0
        assert (splits._joined(first, second) == reach.argmax(axis=1)).all()


@pytest.mark.parametrize("change", ["order", "a word of the Spanish side"])
def test_another_corpus_of_pairs_is_refused(monkeypatch, change):
    others = corpora.tatoeba()
    if change == "order":
        others = others[::-1].reset_index(drop=True)
    else:
        others.loc[77, "spanish"] += " no"
    monkeypatch.setattr(corpora, "tatoeba", lambda: others)
    with pytest.raises(ValueError, match=r"^tatoeba_split\.json was made for other texts"):
        splits.translation_split()


def test_another_corpus_is_refused(monkeypatch):
    others = corpora.stories()[1:]
    monkeypatch.setattr(corpora, "stories", lambda: others)
    with pytest.raises(ValueError, match="other texts"):
        splits.story_split()


def test_the_data_card_tells_the_corpus_and_its_split(stories):
    card = (runtime.DATA / "stories.md").read_text(encoding="utf-8")
    corpus = runtime.DATA / "stories.jsonl.xz"
    parts = splits.story_split()
    assert hashlib.sha256(corpus.read_bytes()).hexdigest() in card
    numbers = [
        corpus.stat().st_size,
        len(stories),
        sum(map(len, stories)),
        sum(len(s.split()) for s in stories),
    ]
    numbers += [sum(not story.complete for story in corpora.stories()), *map(len, parts.values())]
    for number in numbers:
        assert f"{number:,}" in card
