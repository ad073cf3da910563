"""The stories' tokenizer: lossless, small enough, found again by training; by hand equal to the library's."""

import os
import random
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel

from course_utils import bpe, runtime
from course_utils.splits import story_split

OURS = bpe.tokenizer()


@pytest.fixture(scope="module")
def parts():
    return story_split()


@given(st.text())
def test_any_text_comes_back(text):
    assert OURS.decode(OURS.encode(text).ids, skip_special_tokens=False) == text


@given(st.text(alphabet=" \n\t’é🙂\u0301\u200d\x00aA'.,"))
def test_spaces_accents_and_emoji_come_back(text):
    assert OURS.decode(OURS.encode(text).ids, skip_special_tokens=False) == text


def test_every_story_comes_back(parts):
    texts = [text for part in parts.values() for text in part]
    encodings = OURS.encode_batch_fast(texts)
    assert OURS.decode_batch([e.ids for e in encodings], skip_special_tokens=False) == texts


def test_pieces_are_as_many_as_named_and_numbered_without_gaps():
    vocabulary = OURS.get_vocab()
    assert OURS.get_vocab_size() == bpe.PIECES
    assert sorted(vocabulary.values()) == list(range(bpe.PIECES))


def test_every_byte_has_a_piece():
    """Bytes that no UTF-8 text holds (0xC0, say) have theirs too, so a model's vocabulary is the full one."""
    assert len(ByteLevel.alphabet()) == 256
    assert set(ByteLevel.alphabet()) <= OURS.get_vocab().keys()


def test_no_story_spells_out_the_end_of_text(parts):
    assert not any(bpe.END in text for part in parts.values() for text in part)
    assert OURS.encode(bpe.END).ids == [OURS.token_to_id(bpe.END)]


@pytest.mark.parametrize("threads", [pytest.param("1", marks=pytest.mark.slow), "3"])
def test_training_again_on_the_training_stories_gives_the_stored_file(threads):
    code = "from course_utils import bpe; print(bpe.train(bpe.story_split()['train']).to_str())"
    environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads, "PYTHONUTF8": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8", check=True
    )
    assert run.stdout == bpe.FILE.read_text(encoding="utf-8")


def test_held_out_stories_would_have_changed_it(parts):
    everything = [text for part in parts.values() for text in part]
    assert bpe.train(everything).get_vocab() != OURS.get_vocab()


def test_a_piece_is_worth_the_same_on_held_out_stories_as_the_card_says(parts):
    worth = {
        side: sum(map(len, texts)) / (len(bpe.token_stream(texts)) - len(texts))
        for side, texts in parts.items()
    }
    assert worth["valid"] == pytest.approx(worth["train"], rel=0.01)
    card = (runtime.DATA / "stories.md").read_text(encoding="utf-8")
    assert "{train:.3f} characters on *train*, {valid:.3f} on *valid*, {test:.3f} on".format(**worth) in card


def test_the_stream_is_each_text_then_the_end(parts):
    texts = parts["valid"][:5]
    stream = bpe.token_stream(texts)
    expected = [i for text in texts for i in [*OURS.encode(text).ids, OURS.token_to_id(bpe.END)]]
    assert stream.tolist() == expected
    assert stream.dtype == np.uint16
    assert np.iinfo(stream.dtype).max >= OURS.get_vocab_size() - 1
    assert bpe.token_stream([]).shape == (0,)


@pytest.mark.parametrize("call", [lambda: bpe.token_stream("a text"), lambda: bpe.train("a text")])
def test_one_text_in_place_of_many_is_refused(call):
    with pytest.raises(ValueError, match="list of texts"):
        call()


def test_a_vocabulary_without_room_for_bytes_is_refused():
    with pytest.raises(ValueError, match="257"):
        bpe.train(["a text"], pieces=256)


# --- by hand ------------------------------------------------------------------------------------------------


def test_each_byte_has_a_letter_of_its_own():
    """The library's own; printable, and not a blank, at which a list of pieces would be cut."""
    letters = bpe.byte_letters()
    assert sorted(letters) == list(range(256))
    assert set(letters.values()) == set(ByteLevel.alphabet())
    assert len(set(letters.values())) == 256
    assert all(letter.isprintable() and not letter.isspace() for letter in letters.values())
    for text in map(chr, [*range(256), 0x4E2D, 0x1F600]):  # byte for byte
        (found,) = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
        assert found[0] == "".join(letters[byte] for byte in text.encode("utf-8"))


def test_the_letters_are_those_of_the_published_code():
    source = pytest.importorskip("transformers.convert_slow_tokenizer")
    if not hasattr(source, "bytes_to_unicode"):
        pytest.skip("this version of transformers has no bytes_to_unicode")
    assert bpe.byte_letters() == source.bytes_to_unicode()


@given(st.lists(st.sampled_from(["a", "b", "ab"]), max_size=12), st.sampled_from([("a", "b"), ("a", "a")]))
def test_a_pair_is_joined_wherever_it_stands_from_the_left(pieces, pair):
    joined = bpe.join_pair(pieces, pair)
    assert "".join(joined) == "".join(pieces)
    expected, i = [], 0
    while i < len(pieces):
        both = tuple(pieces[i : i + 2]) == pair
        expected.append("".join(pieces[i : i + 1 + both]))
        i += 1 + both
    assert joined == expected


def test_three_of_a_kind_are_a_pair_and_one():
    assert bpe.join_pair(["a", "a", "a"], ("a", "a")) == ["aa", "a"]
    assert bpe.join_pair(["a"] * 4, ("a", "a")) == ["aa", "aa"]  # not at once the pair of a pair
    assert bpe.merge("aaa", {("a", "a"): 0, ("aa", "a"): 1}) == ["aaa"]


@st.composite
def merges(draw):
    """Pairs as training learns them: of two pieces that are there, a new one each time."""
    pieces, pairs = list("abc"), []
    for _ in range(draw(st.integers(0, 12))):
        pair = draw(st.tuples(st.sampled_from(pieces), st.sampled_from(pieces)))
        if "".join(pair) not in pieces:
            pieces.append("".join(pair))
            pairs.append(pair)
    return pieces, pairs


@settings(deadline=None, max_examples=300)
@given(merges(), st.text("abc", min_size=1, max_size=20))
def test_of_any_merges_the_pieces_are_the_librarys(learnt, word):
    pieces, pairs = learnt
    library = models.BPE({piece: i for i, piece in enumerate(pieces)}, pairs)
    found = bpe.merge(word, {pair: rank for rank, pair in enumerate(pairs)})
    assert found == [token.value for token in library.tokenize(word)]
    assert "".join(found) == word


def test_what_was_learnt_first_is_joined_first():
    assert bpe.merge("abc", {("a", "b"): 0, ("b", "c"): 1}) == ["ab", "c"]
    assert bpe.merge("abc", {("a", "b"): 1, ("b", "c"): 0}) == ["a", "bc"]
    assert bpe.merge("", {}) == []


# --- both vocabularies, on thousands of texts ---------------------------------------------------------------


def by_the_library(ours):
    """The library's tokenizer with the same vocabulary and merges."""
    tokenizer = Tokenizer(models.BPE(ours.ids, list(ours.ranks)))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([bpe.END])
    return tokenizer


@pytest.fixture(scope="module", params=["stories", "gpt2"])
def pair(request):
    """Ours and the library's."""
    if request.param == "stories":
        return bpe.from_json(bpe.FILE.read_text(encoding="utf-8")), OURS
    ours = bpe.gpt2()
    return ours, by_the_library(ours)


# What no table of Unicode had when Python was built may be a letter to one side alone; private ones are many.
SETTLED = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")]
ODD = [
    *" \n\t\r\u00a0\u3000\u200b\x00\x1b\x7f\x85\u2028", "   ",
    "'s", "'S", "'ll", "’t", "'ve", "'re", "'d", "'m", "word", "Once", "7",
    "é", "e\u0301", "\u0301", "ß", "中文", "日本語", "한국어", "नमस्ते", "שלום", "١٢٣", "²", "½", "Ⅷ", "Ġ", "Ċ",
    "😀", "👩\u200d👩\u200d👧", "🇩🇪", "👍🏽", "❤\ufe0f", "�", bpe.END, "<|endoftext", "endoftext|>",
]  # fmt: skip


def drawn_texts(n, seed=0):
    """ASCII, letters of all Unicode, of a corner of it, odd things, and words between odd things."""
    draw = random.Random(seed)
    ascii_, corner = SETTLED[32:127], [c for c in SETTLED if c < "\u3000"]
    kinds = [ascii_, SETTLED, corner, ODD, [*ODD, *["a", "b", " the"] * 20]]
    return ["".join(draw.choices(draw.choice(kinds), k=draw.randrange(1, 40))) for _ in range(n)]


def test_thousands_of_odd_texts_are_cut_as_by_the_library(pair):
    ours, theirs = pair
    texts = drawn_texts(5_000)
    expected = [encoding.ids for encoding in theirs.encode_batch_fast(texts)]
    for text, ids in zip(texts, expected, strict=True):
        assert ours.encode(text) == ids, ascii(text)
        assert ours.decode(ids) == text.replace(bpe.END, ""), ascii(text)
    assert sum(bpe.END in text for text in texts) > 100


@settings(deadline=None, max_examples=200, derandomize=True)
@given(text=st.lists(st.sampled_from(SETTLED) | st.sampled_from(ODD), max_size=30).map("".join))
def test_any_text_is_cut_as_by_the_library(pair, text):
    ours, theirs = pair
    assert ours.encode(text) == theirs.encode(text).ids


def test_stories_are_cut_as_by_the_library(pair, parts):
    ours, theirs = pair
    texts = parts["valid"][:200]
    assert [ours.encode(text) for text in texts] == [e.ids for e in theirs.encode_batch_fast(texts)]


def test_any_ids_are_read_as_by_the_library(pair):
    """Half an emoji, a continuation without a beginning: �, as many and where the library has them."""
    ours, theirs = pair
    draw, broken = random.Random(1), 0
    high = [ours.ids[letter] for byte, letter in ours.letters.items() if byte > 127]
    for _ in range(5_000):
        n = draw.randrange(1, 12)
        some = draw.choice([range(len(ours.ids)), high, [*high, *range(300)]])
        ids = draw.choices(some, k=n)
        text = ours.decode(ids)
        assert text == theirs.decode(ids), ids
        broken += "�" in text
    assert broken > 1_000


def test_the_end_is_one_piece_and_is_not_shown(pair):
    ours, _ = pair
    end = ours.ids[bpe.END]
    assert ours.encode(bpe.END) == [end]
    assert ours.encode(bpe.END * 2 + "a") == [end, end, ours.ids["a"]]
    assert ours.decode([end, ours.ids["a"], end]) == "a"
    assert ours.encode("") == []
    assert ours.decode([]) == ""


def test_another_end_may_be_named():
    ids = bpe.byte_letters().values()
    ours = bpe.ByteBPE({letter: i for i, letter in enumerate([*ids, "[end]"])}, [], end="[end]")
    assert ours.encode("a[end]<|endoftext|>")[:2] == [ours.ids["a"], 256]
    assert ours.decode(ours.encode("a[end]<|endoftext|>")) == "a<|endoftext|>"


def test_gpt2s_vocabulary_is_bytes_merges_and_the_end():
    """The published numbers; each merge makes a piece that was not there."""
    ours = bpe.gpt2()
    assert len(ours.ids) == 50_257 == 256 + len(ours.ranks) + 1
    assert sorted(ours.ids.values()) == list(range(50_257))
    assert {*ours.letters.values(), *map("".join, ours.ranks), bpe.END} == ours.ids.keys()
    assert ours.encode("Hello world" + bpe.END) == [15496, 995, 50256]
