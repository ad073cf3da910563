"""From text to ids: nothing lost but what is meant to be, one order of words on every machine."""

import os
import subprocess
import sys
import unicodedata
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.text import Vocabulary, normalise, require_words, sentences, tokenise, tokenised

# İ is the only letter whose lower case ends in a mark, and some marks compose with small letters only.
UNMARKED = st.text(st.characters(exclude_categories=["Cs", "M"], exclude_characters="İ"))
PROSE = st.text(st.sampled_from("abzéßñЖ汉 \n\t.!?,'’-_01½"), max_size=60)
CORPORA = st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", "é", "zz", "it's"]), max_size=8), max_size=8)
quick = settings(deadline=None)


def is_letter(sign):
    """Unicode's letters, and its numerals that are no decimal digits, which stay as letters do."""
    return sign.isalpha() or unicodedata.category(sign) in ("Nl", "No")


@pytest.mark.parametrize("forms", ["Mozart’s mozart's", "ﬁnal FINAL", "Ａ１ a1", "e\u0301 É"])
def test_spellings_of_one_word_become_one(forms):
    assert len({normalise(form) for form in forms.split()}) == 1


def test_every_sign_is_normal_after_one_pass():
    signs = [chr(i) for i in range(sys.maxunicode + 1) if not 0xD800 <= i < 0xE000]
    assert [sign for sign in signs if normalise(normalise(sign)) != normalise(sign)] == []


@quick
@given(UNMARKED)
def test_normalising_twice_is_normalising_once(raw):
    assert normalise(normalise(raw)) == normalise(raw)
    assert unicodedata.is_normalized("NFKC", normalise(raw))
    assert "’" not in normalise(raw)


@quick
@given(st.text() | PROSE)
def test_tokens_are_letters_and_inner_apostrophes(raw):
    for token in tokenise(normalise(raw)):
        assert all(part and all(map(is_letter, part)) for part in token.split("'"))


@quick
@given(st.text() | PROSE)
def test_no_letter_is_lost_or_moved(raw):
    normal = normalise(raw)
    letters = [sign for sign in normal if is_letter(sign)]
    assert [sign for token in tokenise(normal) for sign in token if sign != "'"] == letters


@quick
@given(st.text() | PROSE)
def test_tokenising_tokens_gives_the_same_tokens(raw):
    tokens = tokenise(normalise(raw))
    assert tokenise(" ".join(tokens)) == tokens


@quick
@given(PROSE)
def test_tokens_are_as_long_as_they_can_be(raw):
    """Two letters stand in one token where nothing, or one apostrophe, stands between them."""
    normal = normalise(raw)
    letter = [is_letter(sign) for sign in normal]
    side_by_side = sum(a and b for a, b in pairwise(letter))
    around = zip(letter, normal[1:], letter[2:], strict=False)
    over_apostrophe = sum(before and sign == "'" and after for before, sign, after in around)
    assert len(tokenise(normal)) == sum(letter) - side_by_side - over_apostrophe


def test_apostrophes_stay_inside_words_only():
    text = "'tis the fo'c's'le's dogs' rock''n'roll'"
    assert tokenise(text) == ["tis", "the", "fo'c's'le's", "dogs", "rock", "n'roll"]


@quick
@given(PROSE)
def test_sentences_lose_white_space_only_and_split_everywhere_they_should(raw):
    parts = sentences(raw)
    assert "".join("".join(parts).split()) == "".join(raw.split())
    assert all(part.strip() for part in parts)
    for part in parts:
        assert "\n" not in part
        assert not any(a in ".!?" and b.isspace() for a, b in pairwise(part))


def test_a_stop_splits_only_before_space():
    assert sentences("It is 3.5 m. Is it?! Yes\n\nno") == ["It is 3.5 m.", "Is it?!", "Yes", "no"]
    assert sentences(" \n ") == []


@quick
@given(CORPORA, st.integers(1, 4))
def test_a_vocabulary_counts_and_sorts(corpus, min_count):
    counts = Counter(word for sentence in corpus for word in sentence)
    kept = {word: n for word, n in counts.items() if n >= min_count}
    if not kept:
        with pytest.raises(ValueError, match=f"at least min_count={min_count} times"):
            Vocabulary(corpus, min_count)
        return
    vocabulary = Vocabulary(iter(corpus), min_count)
    assert dict(zip(vocabulary.words, vocabulary.counts.tolist(), strict=True)) == kept
    assert len(vocabulary) == len(kept)
    order = [(-kept[word], word) for word in vocabulary.words]
    assert order == sorted(order)  # the most frequent first, ties from a to z
    assert [vocabulary.ids[word] for word in vocabulary.words] == list(range(len(kept)))


@quick
@given(CORPORA.filter(any), CORPORA)
def test_encoding_leaves_out_what_is_unknown_and_decoding_gives_the_rest_back(corpus, others):
    vocabulary = Vocabulary(corpus)
    for sentence in corpus:
        assert vocabulary.decode(vocabulary.encode(sentence)) == sentence
    known = {word for sentence in corpus for word in sentence}
    for sentence in others:
        assert vocabulary.decode(vocabulary.encode(sentence)) == [w for w in sentence if w in known]


def test_the_order_is_the_same_under_every_hash_seed():
    code = "from course_utils.text import Vocabulary\n"
    code += "print(Vocabulary([list('qwertyuiopasdfghjkl'), list('zxcvbnmasd')]).words)"
    outputs = set()
    for seed in "012":
        environment = os.environ | {"PYTHONHASHSEED": seed}
        run = [sys.executable, "-c", code]
        outputs.add(subprocess.run(run, env=environment, capture_output=True, check=True, text=True).stdout)
    assert len(outputs) == 1
    assert outputs.pop().startswith("['a', 'd', 's', 'b', 'c', 'e'")  # twice each first, then a … z


def test_a_corpus_without_words_is_refused_with_its_reason():
    with pytest.raises(ValueError, match="corpus must hold a word seen at least min_count=5 times"):
        Vocabulary([["a"] * 4], min_count=5)
    require_words(["a"], 5)


@quick
@given(st.lists(PROSE, max_size=4))
def test_tokenised_keeps_sentences_of_two_words_and_more(texts):
    expected = [tokenise(part) for one in texts for part in sentences(normalise(one))]
    assert list(tokenised(texts)) == [words for words in expected if len(words) >= 2]
