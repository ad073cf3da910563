"""Whatever a reader may type, or a damaged file hold: it works as defined, or one clear error says why."""

from __future__ import annotations

import itertools
import json
import math
import re
import time
from fractions import Fraction
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_exercises import right
from test_gpt2 import MODEL
from tokenizers import models

from course_utils import bpe, data, generation, gpt2, ngram, sentiment, text, word_vectors
from course_utils.bert import LONGEST_WORD, wordpiece
from course_utils.exercises import LONGEST, check, exercises, hint, solution
from course_utils.generation import Decoding
from course_utils.runtime import cache_dir, generator


def some(examples):
    return settings(deadline=None, max_examples=examples, derandomize=True)


# --- texts --------------------------------------------------------------------------------------------------

ODD = [
    "", "\x00", "\r", "\r\n", "\n", "\t", "\x1b[0m", "\x85", "\u2028", "\u200b", "\u00a0", "\ufeff", "\ufffd",
    "e\u0301", "\u0301", "a\u0327\u0301", "ﬃ", "İ", "ẞ", "ǆ", "שלום", "مرحبا", "\u202eabc\u202c", "ﷺ",
    "हि", "中", "😀", "👩\u200d👩\u200d👧", "👍🏽", "🇩🇪", "❤\ufe0f", "\ue000", "\U0010ffff", "½", "Ⅷ", "ↂ",
    "²", "'", "’", "n't", "''", "--", "...", "don't", "word", " ", bpe.END, "<|endof", "a" * 50,
]  # fmt: skip
LETTERS = st.characters(exclude_categories=["Cs"])  # private and unassigned ones too
TEXTS = st.lists(LETTERS | st.sampled_from(ODD), max_size=20).map("".join)
HALVES = st.sampled_from(
    ["\ud800", "\udc00", "\udfff", "\udc00\ud800"]
)  # half a pair, which no file can hold
THEIRS = bpe.tokenizer()
BROKEN = st.tuples(TEXTS, HALVES, TEXTS).map("".join)


@pytest.fixture(scope="module")
def ours():
    return bpe.from_json(bpe.FILE.read_text(encoding="utf-8"))


@some(200)
@given(TEXTS)
def test_any_text_comes_back_from_its_pieces(ours, raw):
    """The library's too: our ids read by it, and its ids by us."""
    for ids in (ours.encode(raw), THEIRS.encode(raw).ids):
        assert ours.decode(ids) == THEIRS.decode(ids) == raw.replace(bpe.END, "")


@some(30)
@given(st.lists(TEXTS, max_size=4), BROKEN)
def test_half_a_pair_has_no_pieces_and_is_named(ours, texts, broken):
    with pytest.raises(ValueError, match="surrogates"):
        ours.encode(broken)
    for call in (bpe.token_stream, bpe.train):
        with pytest.raises(ValueError, match=rf"^texts must be of whole letters, .* at {len(texts)}$"):
            call([*texts, broken])
    assert len(bpe.token_stream(texts)) == sum(len(ours.encode(raw)) + 1 for raw in texts)


@some(200)
@given(TEXTS | BROKEN)
def test_half_a_pair_is_no_letter_and_any_other_sign_is_a_word(raw):
    normal = text.normalise(raw)
    assert not re.search("[\ud800-\udfff]", "".join(text.tokenise(normal)))
    assert "".join(sentiment.words(raw)).replace("-", "") == re.sub(r"[\s-]", "", normal)
    for found in text.tokenised([raw]):
        assert len(found) > 1
        assert all(found)


@some(200)
@given(st.text("ab" + "".join(ODD) + "\ud800", min_size=1, max_size=12), st.data())
def test_a_word_of_any_signs_is_cut_as_by_the_library(word, draw):
    cuts = st.tuples(st.integers(0, len(word) - 1), st.integers(1, 4), st.booleans())
    parts = draw.draw(st.lists(cuts, max_size=12))
    vocabulary = {("##" if mark else "") + word[i : i + n] for i, n, mark in parts}
    found = wordpiece(word, vocabulary)
    assert found == ["[UNK]"] or "".join(piece.removeprefix("##") for piece in found) == word or "##" in word
    if "\ud800" not in word:  # of which the library takes none
        ids = {piece: i for i, piece in enumerate(["[UNK]", *sorted(vocabulary - {"[UNK]"})])}
        theirs = models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD)
        assert found == [token.value for token in theirs.tokenize(word)]


CUTS = {
    "normalise": text.normalise,
    "sentences": text.sentences,
    "tokenise": text.tokenise,
    "words": sentiment.words,
    "ends": lambda raw: bpe.WORDS.findall(raw),
}
LONG = [
    "a",
    " ",
    "\n",
    "\r",
    "'",
    "a'",
    "n't",
    ".",
    ". ",
    "-",
    "1",
    "é",
    "e\u0301",
    "ﷺ",
    "👩\u200d",
    "中文",
    "<|endof",
]


@pytest.mark.parametrize("cut", CUTS)
def test_a_long_text_takes_no_time(cut):
    """100,000 letters: where time grew with their square this would take minutes."""
    for sign, tail in itertools.product(LONG, ["", "x", "'"]):
        before = time.process_time()
        CUTS[cut](sign * (100_000 // len(sign)) + tail)
        assert time.process_time() - before < 10, sign


# --- arguments of another kind ------------------------------------------------------------------------------


class Hostile:
    """An object that answers no question."""

    def _refuse(self, *_, **__):
        raise RuntimeError("no answer\nat all")

    __eq__ = __bool__ = __len__ = __iter__ = __getitem__ = __array__ = __float__ = __int__ = _refuse
    __hash__ = None


NUMBERS = [
    -1, 0, 1, 2, 5, 10**30, True, False, 0.0, -0.0, 1.0, 2.5, 1e-320, 1e308, math.nan, math.inf, -math.inf,
    1j, Fraction(1, 2), np.int64(2), np.int8(-1), np.float32(0.5), np.float64(2.0), np.bool_(True),
]  # fmt: skip
ARRAYS = [
    np.array(2), np.array([1, 2]), np.array([1.5, np.nan]), np.array([np.inf, 1]), np.array([[1, 0], [0, 1]]),
    np.array(["a"]), np.array([None]), torch.tensor(2), torch.tensor(0.5), torch.tensor([1.0, 2.0]),
    torch.tensor([1, 0]), torch.ones(2, requires_grad=True),
]  # fmt: skip
THINGS = [
    None,
    "",
    "a",
    "1",
    "nan",
    "some text",
    b"ab",
    (),
    {},
    {1: 2},
    {1, 2},
    range(2),
    int,
    len,
    object(),
    ...,
]
LEAVES = st.sampled_from(NUMBERS) | st.sampled_from(ARRAYS) | st.sampled_from(THINGS)
NONSENSE = (
    st.builds(Hostile) | st.lists(LEAVES, max_size=3) | st.lists(st.lists(LEAVES, max_size=2), max_size=2)
)


def each_alone(test):
    """Each of these things by itself, and then lists of them."""
    for value in [*NUMBERS, *ARRAYS, *THINGS]:
        test = example(value=value)(test)
    return test


GUESSER = ngram.KneserNey([0, 1, 2, 1, 0], 2, 3)


def outcome(call, *arguments):
    """The message of the ValueError that a call raises, and what it returns; None for the other of them."""
    try:
        return None, call(*arguments)
    except ValueError as error:
        message = str(error)
    assert 0 < len(message) < 300
    return message, None


def rows(found):
    """Probabilities along the last axis."""
    assert np.allclose(np.asarray(found).sum(axis=-1), 1)
    assert (np.asarray(found) >= 0).all()


def ids_of(batch):
    assert batch.ids.dtype == torch.int64
    assert (batch.ids >= 0).all()
    assert ((batch.targets >= 0) & (batch.targets <= 1)).all()


# From a name to calls with that argument, each of which checks what it gets.
CALLS = {
    "tokens": [
        lambda v: rows(ngram.transition_matrix(v, 3)),
        lambda v: rows(ngram.KneserNey(v, 2, 3).probabilities()),
        lambda v: GUESSER.log_probabilities(v).sum() + 0.0,
    ],
    "context": [lambda v: rows(GUESSER.probabilities(v)), lambda v: GUESSER.sample(1, seeded(), v)],
    "order": [lambda v: rows(ngram.KneserNey([0, 1], v, 3).probabilities([1]))],
    "V": [
        lambda v: rows(ngram.transition_matrix([0, 0], v)),
        lambda v: rows(ngram.KneserNey([0, 0], 2, v).probabilities([0])),
        lambda v: word_vectors.cooccurrences([[0, 0]], v, 1).sum(),
    ],
    "add": [lambda v: rows(ngram.transition_matrix([0, 1], 3, v))],
    "P": [lambda v: rows(ngram.stationary(v))],
    "window": [
        lambda v: [*word_vectors.skip_gram_pairs([1, 2], v)],
        lambda v: word_vectors.cooccurrences([[0, 1]], 2, v).sum(),
    ],
    "sentences": [lambda v: word_vectors.cooccurrences(v, 3, 1).sum()],
    "counts": [lambda v: rows(word_vectors.noise_distribution(v))],
    "vectors": [lambda v: word_vectors.similarities(["a"], v).shape],
    "words": [lambda v: word_vectors.similarities(v, np.ones((1, 2))).shape],
    "C": [lambda v: word_vectors.svd_vectors(np.eye(3), v).shape],
    "texts": [
        lambda v: [found for found in text.tokenised(v) if len(found) < 2] or None,
        lambda v: bpe.token_stream(v).size,
        lambda v: bpe.train(v, 300).get_vocab_size(),
        lambda v: len(sentiment.word_ids(v)),
    ],
    "pieces": [lambda v: bpe.train(["ab"], v).get_vocab_size()],
    "rows": [lambda v: ids_of(sentiment.review_batch(v))],
    "targets": [
        lambda v: ids_of(sentiment.review_batch([[1, 2], [3]], v)),
        lambda v: sentiment.Reviews(["a", "b"], [0, 1], {}, v),
    ],
    "labels": [lambda v: sentiment.Reviews(["a", "b"], v, {})],
}


def seeded():
    return np.random.default_rng(0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of a vector of length 0
@pytest.mark.parametrize("name", CALLS)
@some(40)
@given(value=st.lists(LEAVES, max_size=3) | st.lists(st.lists(LEAVES, max_size=2), max_size=2))
@each_alone
def test_an_argument_of_another_kind_is_refused_by_its_name(name, value):
    """Or it is taken, and what comes back is what should."""
    for call in CALLS[name]:
        message, _ = outcome(call, value)
        assert not message or re.match(rf"({name}|order|order and V|vectors) must ", message), message


# --- ways of writing ----------------------------------------------------------------------------------------

GOOD = {
    "do_sample": st.booleans(),
    "temperature": st.sampled_from([1e-6, 0.5, 1, 1.0, np.float32(0.7), 1e6]),
    "top_k": st.sampled_from([0, 1, 3, np.int64(2), 10**30]),
    "top_p": st.sampled_from([1e-320, 1e-9, 0.5, 0.999, 1, np.float64(0.3)]),
    "min_p": st.sampled_from([0, 1e-320, 0.1, 1.0, np.float32(0.2)]),
    "repetition_penalty": st.sampled_from([1e-6, 0.5, 1, 1.3, 1e6]),
    "num_beams": st.sampled_from([1, 1, 2, np.int64(3)]),
    "length_penalty": st.sampled_from([0, 1.0, 1, 10.0, np.float32(0.5)]),
    "num_return_sequences": st.sampled_from([1, 1, 2, np.int64(2)]),
}
OPTIONS = st.fixed_dictionaries({}, optional=GOOD)


@st.composite
def scores(draw):
    """(B, V) float32: ties, -∞, hundreds and thousandths; never all at -∞."""
    B, V = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    numbers = st.sampled_from([-math.inf, -300.0, -1.5, -1e-3, 0.0, 0.0, 1e-3, 2.0, 2.0, 300.0])
    table = torch.tensor([[draw(numbers) for _ in range(V)] for _ in range(B)])
    table[:, draw(st.integers(0, V - 1))] = draw(st.sampled_from([-2.0, 0.0, 3.0]))
    return table


@some(300)
@given(OPTIONS, scores(), st.integers(0, 2**32))
def test_options_that_are_taken_leave_probabilities(options, logits, seed):
    refused, how = outcome(lambda: Decoding(**options))
    if refused:
        assert re.match(r"\w+(=True and num_beams > 1)? (must be|acts on|contradict) ", refused), refused
        return
    seen = torch.rand(logits.shape, generator=generator(seed)) < 0.5
    found = how.scores(logits, seen)
    chances = found.softmax(dim=-1)
    assert torch.allclose(chances.sum(dim=-1), torch.ones(len(logits)))
    left = found > -math.inf
    assert left.any(dim=-1).all()
    assert not (left & (logits == -math.inf)).any()  # what was impossible stays so
    chosen = how.choose(logits, seen, generator(seed))
    assert left.gather(1, chosen[:, None]).all()
    if how.top_k:  # the last place may be shared
        for row in found:
            assert int((row > row[row > -math.inf].min()).sum()) < how.top_k
    if how.min_p:
        assert (chances[left] >= how.min_p * chances.amax() * 0.999).all() or len(logits) > 1


@pytest.mark.parametrize("name", GOOD)
@some(20)
@given(value=NONSENSE)
@each_alone
def test_an_option_of_another_kind_is_refused_by_its_name(name, value):
    with_it = {"do_sample": name not in ("do_sample", "num_beams", "length_penalty")}
    with_it |= {"num_beams": 2} if name == "length_penalty" else {}
    refused, _ = outcome(lambda: Decoding(**with_it | {name: value}))
    if refused:
        assert re.match(rf"{name}(=True| must be | acts on )", refused), refused
    elif name == "do_sample":
        assert value is True or value is False
    else:
        assert isinstance(value, (int, float, np.number))
        assert not isinstance(value, bool)
        low, high = {
            "temperature": (1e-6, 1e6),
            "repetition_penalty": (1e-6, 1e6),
            "length_penalty": (0, 10),
        }.get(name, (0, 1) if name.endswith("_p") else (0, math.inf))
        assert low <= value <= high


WRITING = {
    "prompts": lambda v: gpt2.generate(MODEL, v, 2),
    "limit": lambda v: gpt2.generate(MODEL, [[3, 4]], v),
    "how": lambda v: gpt2.generate(MODEL, [[3]], 2, v),
    "seed": lambda v: gpt2.generate(MODEL, [[3]], 2, Decoding(do_sample=True), v),
    "end": lambda v: gpt2.generate(MODEL, [[3]], 2, end=v),
    "stop": lambda v: gpt2.generate(MODEL, [[3]], 2, stop=v),
}


@pytest.mark.parametrize("name", WRITING)
@some(60)
@given(value=NONSENSE | st.lists(st.lists(st.integers(-1, 11), max_size=25), max_size=3))
@each_alone
def test_what_cannot_be_continued_is_refused_before_anything_is_read(name, value):
    if name == "stop" and callable(value):
        return
    with mock.patch.object(gpt2, "Continuation", wraps=gpt2.Continuation) as reading:
        refused, found = outcome(WRITING[name], value)
    assert reading.called != bool(refused)
    if refused:
        assert re.match(rf"({name}|limit) must ", refused), refused
        return
    assert name != "end" or value is None or 0 <= value < 11
    assert len(found) == (len(value) if name == "prompts" else 1)
    assert all(0 <= token < 11 for row in found for token in row)
    assert {len(row) for row in found} <= ({value} if name == "limit" else {1, 2})


SEARCHES = {
    "B": lambda step, v: generation.greedy(step, v, 0, 1, 3),
    "limit": lambda step, v: generation.greedy(step, 1, 0, 1, v),
    "beams": lambda step, v: generation.beam_search(step, 1, 0, 1, 3, v),
    "alpha": lambda step, v: generation.beam_search(step, 1, 0, 1, 3, 2, v),
}


@pytest.mark.parametrize("name", SEARCHES)
@some(20)
@given(value=NONSENSE)
@each_alone
def test_no_search_begins_with_an_argument_of_another_kind(name, value):
    if type(value) is int and value > 99:  # as good as any, and long
        return
    steps = []

    def step(last, rows):
        steps.append(last)
        assert len(steps) < 99
        return torch.zeros(len(last), 4)

    refused, found = outcome(SEARCHES[name], step, value)
    assert bool(steps) != bool(refused)
    if refused:
        assert refused.startswith(f"{name} must be "), refused
    else:
        assert len(found) == (value if name == "B" else 1)
        assert all(len(ids) <= (value if name == "limit" else 3) for ids in found)


@some(20)
@given(value=NONSENSE | st.lists(LEAVES, min_size=1, max_size=2))
@each_alone
def test_stop_strings_of_another_kind_are_refused(value):
    refused, stop = outcome(gpt2.stops_at, "".join, value)
    fit = isinstance(value, list | tuple) and value and all(isinstance(s, str) and s for s in value)
    assert bool(stop) == bool(fit)
    assert fit or refused.startswith("strings must be a list of texts, none of them empty, got ")


@some(100)
@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=3), st.text("ab", max_size=9))
def test_a_text_stops_where_its_last_letter_completes_a_string(strings, raw):
    stop = gpt2.stops_at("".join, strings)
    for n in range(1, len(raw) + 1):
        assert stop(list(raw[:n])) == raw[:n].endswith(tuple(strings))


# --- a damaged list of assets -------------------------------------------------------------------------------

SUM = "0123456789abcdef" * 4
LIST = {
    "archives": {
        "tiny": {
            "package": "tiny", "version": "1.0", "kind": "wheel", "filename": "tiny-1.0-py3-none-any.whl",
            "sha256": SUM, "size": 9,
        }
    },
    "assets": {
        "alpha": {
            "what": "a test", "archive": "tiny", "file": "tiny/a.txt", "sha256": SUM, "size": 3,
            "licence": "MIT", "citation": "Nobody (2026)", "notebooks": ["01"],
        },
        "texts": {
            "what": "texts", "archive": "tiny", "file": "tiny/*.txt", "sha256": SUM, "size": 3,
            "licence": "MIT", "citation": "Nobody (2026)", "notebooks": ["01", "02"],
        },
        "model": {
            "what": "a model", "hub": "someone/model", "revision": "abc", "licence": "MIT",
            "citation": "Nobody (2026)", "notebooks": [],
        },
    },
}  # fmt: skip
PLACES = [(part, name, key) for part, names in LIST.items() for name in names for key in names[name]]
NO_TEXT = [0, -1, True, 1.5, [], ["a"], {}, {"a": "b"}, "", " \n"]
BAD = {
    "size": [0, -5, True, 1.5, "9", [9], {}],
    "notebooks": ["01", 1, [1], [["01"]], {}, True],
    "sha256": [*NO_TEXT, "abc", SUM.upper(), SUM + "0", SUM[:-1], SUM + "\n", "g" * 64],
    "kind": [*NO_TEXT, "egg", "Wheel", "wheel "],
    "file": [
        *NO_TEXT, "..", ".", "../a.txt", "tiny/..", "tiny/../../a", "/etc/a", "/", "a//b", "a/", "a\\b",
        "C:\\a", "C:/a", "a\x00b", "tiny/./a",
    ],
    "filename": [*NO_TEXT, "..", "../a.whl", "/tmp/a.whl", "a/b.whl", "a\\b.whl", ".hidden", "a\n", "C:a"],
    "archive": [*NO_TEXT, "tinny", "TINY", "../tiny"],
}  # fmt: skip
NAMES = ["", ".", "..", "../x", "/x", "a/b", "a\\b", "x\n", ".x", "C:x", "a b", "\u202e"]


def toml(value):
    """A value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A folder for a list of assets, in whose place nothing is downloaded: the archive is a text file."""
    folder = tmp_path_factory.mktemp("list")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "ASSETS", folder / "assets.toml")
        patch.setenv("COURSE_CACHE", str(folder / "in" / "cache"))
        patch.setattr(data, "_indexes", lambda _: [])
        patch.setenv("PIP_NO_INDEX", "1")
        yield folder


def write(folder: Path, entries: dict) -> None:
    lines = [f"{json.dumps(part)} = {toml(names)}" for part, names in entries.items()]
    (folder / "assets.toml").write_text("\n".join(lines), encoding="utf-8")


def copy_of(entries: dict) -> dict:
    return json.loads(json.dumps(entries))


def assert_sentence(error: data.AssetError) -> str:
    message = str(error)
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < 300
    return message


def assert_refused(*words: str) -> None:
    """By all three ways to the list, in one sentence with these words."""
    for ask in (data.assets, lambda: data.fetch("alpha"), data.fetch_all):
        with pytest.raises(data.AssetError) as caught:
            ask()
        message = assert_sentence(caught.value)
        assert all(word in message for word in words), message
    assert not cache_dir().exists()


def is_a_list() -> bool:
    try:
        return bool(data.assets())
    except data.AssetError:
        return False


def test_the_list_the_others_are_made_from_is_good(listed):
    write(listed, LIST)
    found = data.assets()
    assert list(found) == ["alpha", "texts", "model"]
    assert found["alpha"].archive == found["texts"].archive
    with pytest.raises(data.AssetError, match="no package index"):
        data.fetch("alpha")
    assert {path.parent for path in listed.rglob("*") if path.is_file()} <= {listed, cache_dir()}
    for path in sorted(cache_dir().parent.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@some(150)
@given(place=st.sampled_from(PLACES), draw=st.data())
def test_a_key_with_another_value_is_named(listed, place, draw):
    part, name, key = place
    entries = copy_of(LIST)
    entries[part][name][key] = draw.draw(st.sampled_from(BAD.get(key, NO_TEXT)))
    write(listed, entries)
    assert_refused(repr(name), key)


@some(60)
@given(place=st.sampled_from(PLACES), other=st.sampled_from(["packages", "Size", "", "hub ", "rev\nision"]))
def test_a_key_that_is_missing_or_unknown_is_named(listed, place, other):
    part, name, key = place
    for change in ("missing", "unknown", "renamed"):
        entries = copy_of(LIST)
        entry = entries[part][name]
        value = entry[key] if change == "unknown" else entry.pop(key)
        if change != "missing":
            entry[other] = value
        write(listed, entries)
        # without its hub a model is taken for a file of an archive that is not named
        assert_refused(repr(name), *([key] if change == "missing" and key != "hub" else []))


@some(60)
@given(
    part=st.sampled_from(list(LIST)), other=st.sampled_from(NAMES), value=st.sampled_from([0, "x", [], True])
)
def test_an_entry_of_another_name_or_kind_is_named(listed, part, other, value):
    name = next(iter(LIST[part]))
    entries = copy_of(LIST)
    entries[part][other] = entries[part].pop(name)
    write(listed, entries)
    assert_refused(repr(other))
    entries = copy_of(LIST)
    entries[part][name] = value
    write(listed, entries)
    assert_refused(repr(name))
    write(listed, LIST | {part: value})
    assert_refused(part)
    write(listed, {other_part: names for other_part, names in LIST.items() if other_part != part})
    assert_refused(part)
    write(listed, LIST | {"asset": {}})
    assert_refused("'asset'")


def test_two_assets_kept_under_one_name_are_named(listed):
    entries = copy_of(LIST)
    entries["assets"]["beta"] = entries["assets"]["alpha"] | {"file": "elsewhere/a.txt"}
    write(listed, entries)
    assert_refused("'beta'", "'alpha'")


@some(100)
@given(draw=st.data())
def test_a_file_that_is_no_list_is_named(listed, draw):
    """Cut off, with bytes of chance inside, twice the same entry, empty, or not there."""
    write(listed, LIST)
    path = listed / "assets.toml"
    whole = path.read_bytes()
    damage = draw.draw(st.sampled_from(["cut", "bytes", "twice", "gone", "folder", "deep"]))
    place = draw.draw(st.integers(0, len(whole) - 1))
    if damage == "cut":
        path.write_bytes(whole[:place])
    elif damage == "bytes":
        path.write_bytes(whole[:place] + draw.draw(st.binary(min_size=1, max_size=4)) + whole[place:])
    elif damage == "twice":
        path.write_bytes(whole + b"\n" + whole)
    elif damage == "deep":
        path.write_text("a = " + "[" * 5_000)
    else:
        path.unlink()
        if damage == "folder":
            path.mkdir()
    if damage in ("bytes", "cut") and is_a_list():  # within a text, say
        home = cache_dir().resolve()
        found = [asset for asset in data.assets().values() if asset.archive]
        assert all(asset.path.resolve().parent.parent == home for asset in found)
    else:
        assert_refused("assets.toml")
    if damage == "folder":
        path.rmdir()


@some(60)
@given(name=LEAVES | NONSENSE)
def test_an_asset_of_any_name_is_refused(listed, name):
    write(listed, LIST)
    with pytest.raises(data.AssetError, match="There is no asset called"):
        data.fetch(name)


# --- exercises ----------------------------------------------------------------------------------------------

IDS = list(exercises())


def within_itself():
    rows = []
    rows.append(rows)
    return rows


def very_deep():
    rows = []
    for _ in range(20_000):
        rows = [rows]
    return rows


# Each made anew, since some are used up.
ANSWERS = {
    "nothing": lambda: None, "a text": lambda: "x", "no text": lambda: "", "NaN": lambda: math.nan,
    "NaNs": lambda: np.full(3, np.nan), "0": lambda: 0, "1": lambda: 1, "yes": lambda: True,
    "∞": lambda: -math.inf, "a complex number": lambda: 1j, "complex": lambda: np.ones(3) * 1j,
    "huge": lambda: np.zeros((3000, 1000)), "10^400": lambda: -(10**400), "10^5000": lambda: 10**5000,
    "no row": list, "no things": tuple, "a table": dict, "a set": lambda: {1, 2}, "an object": object,
    "a generator": lambda: (i for i in range(3)), "without end": itertools.count, "hostile": Hostile,
    "hostile ones": lambda: [Hostile(), Hostile()], "within itself": within_itself, "very deep": very_deep,
    "gradients": lambda: torch.ones(3, requires_grad=True), "meta": lambda: torch.ones(3, device="meta"),
    "one on meta": lambda: torch.ones((), device="meta"), "bfloat16": lambda: torch.ones(3).bfloat16(),
    "8 bits": lambda: torch.ones(3).to(torch.float8_e4m3fn), "sparse": lambda: torch.eye(3).to_sparse(),
    "complex tensor": lambda: torch.ones(3) * 1j, "objects": lambda: np.array([None, object()]),
    "texts": lambda: np.array(["a", "b"]), "a date": lambda: np.datetime64("2026-01-01"),
    "masked": lambda: np.ma.masked_array([1, 2], [0, 1]), "ragged": lambda: [[1], [1, 2]],
    "ragged tensors": lambda: (torch.ones(2), torch.ones(3)), "pair": lambda: (1, 2),
    "three of nothing": lambda: [None] * 3, "long texts": lambda: ["x" * 100_000] * 3,
    "lines": lambda: ["a\nb", "\x1b[0m"], "half a pair": lambda: ["\ud800"], "a class": lambda: int,
    "bytes": lambda: b"ab", "tables": lambda: {None: {}}, "ones": lambda: np.ones((3, 3)),
    "an error": lambda: ValueError("x"), "dots": lambda: ..., "a range": lambda: range(3),
}  # fmt: skip


class Mute(Exception):  # noqa: N818
    def __str__(self):
        raise RuntimeError("not even a message")


ERRORS = [
    ValueError("boom"), KeyError("k"), SystemExit(3), GeneratorExit(), BaseException("b"), StopIteration(),
    Mute(), MemoryError(), RuntimeError("y" * 5_000), RuntimeError("two\nlines\r\u2028\ud800\x1b[0m"),
    AssertionError(), RecursionError("r"), ZeroDivisionError("z"), IndexError("i"), TypeError("t"),
    NotImplementedError(),
]  # fmt: skip


def assert_report(report, returned: bool) -> None:
    """One of three verdicts; where wrong, one line that can be shown and tells what happened."""
    assert report.status in ("right", "wrong", "not attempted yet")
    assert bool(report.diagnosis) == (report.status == "wrong")
    assert len(report.diagnosis) <= LONGEST
    assert not re.search(r"[\x00-\x1f\x7f\x85\u2028\u2029]|Traceback", report.diagnosis)
    for shown in (repr(report), report._repr_html_()):
        assert report.exercise.id.encode() in shown.encode()
    assert not (returned and report.diagnosis.startswith("your function raised")), report.diagnosis


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exercise", IDS)
def test_an_answer_may_be_anything(exercise):
    for name, make in ANSWERS.items():
        report = check(exercise, lambda *_, make=make: make())
        assert_report(report, returned=True)
        assert report.status == "wrong", name
    for error in ERRORS:

        def fails(*_, error=error):
            raise error

        report = check(exercise, fails)
        assert_report(report, returned=False)
        assert report.status == "wrong"
        assert type(error).__name__ in report.diagnosis or isinstance(error, ArithmeticError | LookupError)


@pytest.mark.parametrize("exercise", IDS)
def test_an_answer_that_cannot_be_called_so_is_wrong(exercise):
    def itself(*inputs):
        return itself(*inputs)

    class Odd(Hostile):
        __code__ = "its own"

        def __call__(self):
            return 1

    odd = [
        Odd(),
        lambda: 1,
        lambda a, b, c, d, e, f, g: 1,
        lambda *, x: x,
        itself,
        int,
        len,
        torch.nn.Linear(2, 2),
        Hostile,
    ]
    for answer in [*odd, mock.MagicMock(), mock.Mock(side_effect=ValueError), 3, None, "name", [len], ...]:
        report = check(exercise, answer)
        assert_report(report, returned=False)
        assert report.status == "wrong", answer


@pytest.mark.parametrize("exercise", IDS)
def test_an_interrupt_goes_through(exercise):
    def stuck(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(exercise, stuck)


CHANGES = {
    "as a list": lambda x: x.tolist(),
    "as an array": lambda x: np.asarray(x),
    "as a tensor": lambda x: torch.as_tensor(x),
    "one axis more": lambda x: x[..., None],
    "in one row": lambda x: x.reshape(-1),
    "turned": lambda x: x.T,
    "its first part": lambda x: x[:1],
    "less its last": lambda x: x[:-1],
    "twice": lambda x: [x, x],
    "a pair": lambda x: (x, x),
    "half precision": lambda x: torch.as_tensor(x).bfloat16(),
    "imaginary": lambda x: x * 1j,
    "negative": lambda x: -x,
    "one more": lambda x: x + 1,
    "with a NaN": lambda x: x * np.nan,
    "infinite": lambda x: x / 0.0,
    "truth": lambda x: x > 0,
    "text": str,
    "with gradients": lambda x: torch.as_tensor(x).clone().requires_grad_(),
    "meta": lambda x: torch.as_tensor(x).to("meta"),
    "backwards": lambda x: x[::-1],
    "whole numbers": lambda x: x.astype(int),
    "each": lambda x: [[part] for part in x],
    "no part": lambda x: x[:0],
    "a table": lambda x: dict(enumerate(x)),
    "hostile at the end": lambda x: [*x[:-1], Hostile()],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exercise", IDS)
@some(12)
@given(late=st.integers(0, 12), change=st.sampled_from(list(CHANGES)), odd=st.sampled_from(list(ANSWERS)))
def test_an_answer_may_go_wrong_late(exercise, late, change, odd):
    """Right a few times, and then changed, or nonsense where it does not change so, or an error."""
    solved, calls = right(exercise), itertools.count()

    def changed(*inputs):
        found = solved(*inputs)
        if next(calls) < late:
            return found
        try:
            return CHANGES[change](found)
        except Exception:
            return ANSWERS[odd]()

    assert_report(check(exercise, changed), returned=True)
    calls = itertools.count()

    def fails(*inputs):
        if next(calls) >= late:
            raise ERRORS[late]
        return solved(*inputs)

    assert_report(check(exercise, fails), returned=False)


@some(100)
@given(LEAVES | NONSENSE | st.sampled_from(["2.1", "02.1 ", "02,1", "02.9", "O2.1", "02", "02.1\n", "0２.1"]))
def test_what_is_no_exercise_is_named(exercise):
    for ask in (hint, solution, lambda exercise: check(exercise, len)):
        with pytest.raises(ValueError, match=r"^exercise must be one of 01\.1, ") as caught:
            ask(exercise)
        assert len(str(caught.value)) < 500
