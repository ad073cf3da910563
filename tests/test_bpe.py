"""The stories' tokenizer: lossless, small enough, found again by training, blind to held-out stories."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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


@pytest.mark.parametrize("threads", ["1", "3"])
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
