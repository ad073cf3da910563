"""One byte-level BPE for the stories, so that the perplexities of every page compare.

Byte-pair encoding: Sennrich, Haddow & Birch, "Neural machine translation of rare words with subword units",
ACL 2016, section 3.2. Over bytes: Radford et al., "Language models are unsupervised multitask learners",
2019, section 2.2, so that any text has pieces and comes back from them unchanged.

Trained on the training stories alone. `python -m course_utils.bpe` trains it again (5 s) and rewrites
`data/stories_bpe.json`, byte for byte, with any number of threads.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import regex
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from course_utils import data
from course_utils.runtime import DATA
from course_utils.splits import story_split
from course_utils.text import check_whole, each_text

__taught__ = ["join_pair", "merge", "byte_letters", "ByteBPE"]

END = "<|endoftext|>"
PIECES = 4096
FILE = DATA / "stories_bpe.json"
# GPT-2's: the end of a contraction; a word, number or run of other signs, with a space before it; blanks.
WORDS = regex.compile(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

Pair = tuple[str, str]


def train(texts: Iterable[str], pieces: int = PIECES) -> Tokenizer:
    """Learn a byte-level BPE.

    Args:
        texts: what to learn from.
        pieces: size of the vocabulary at most: END, the 256 bytes, then the merges in the order learnt.

    Raises:
        ValueError: `pieces` not from 257 to 2^20, or `texts` no texts, or a single one.
    """
    check_whole("pieces", pieces, 257)
    if pieces > 2**20:  # the library sets memory aside for all of them
        raise ValueError(f"pieces must be at most 2^20, got {pieces!r:.80}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    bytes_first = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=pieces, special_tokens=[END], initial_alphabet=bytes_first, show_progress=False
    )
    tokenizer.train_from_iterator(each_unicode(texts), trainer)
    return tokenizer


def each_unicode(texts: Iterable[str]) -> Iterator[str]:
    """The texts one by one; raises ValueError as `each_text`, and for half a pair, which has no bytes."""
    for i, text in enumerate(each_text(texts)):
        if half := re.search("[\ud800-\udfff]", text):
            raise ValueError(f"texts must be of whole letters, got half a pair, {half[0]!r}, at {i}")
        yield text


# --- the same by hand ---------------------------------------------------------------------------------------


def byte_letters() -> dict[int, str]:
    """A printable letter for each of the 256 bytes, so that pieces can be shown and stored as text.

    Source: the authors' published code, `bytes_to_unicode`; a space becomes Ġ, a line break Ċ.
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    hidden = [byte for byte in range(256) if byte not in letters]
    return letters | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def join_pair(pieces: Sequence[str], pair: Pair) -> list[str]:
    """The pieces with each neighbouring `pair` made one, from the left."""
    joined = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def merge(word: str, ranks: Mapping[Pair, int]) -> list[str]:
    """A word cut into pieces: again and again, join the pair that was learnt first.

    Args:
        word: in byte letters.
        ranks: from a pair to its place in the order of learning.

    Source: Sennrich, Haddow & Birch 2016, algorithm 1.
    """
    pieces = list(word)
    while len(pieces) > 1:
        best = min(pairwise(pieces), key=lambda pair: ranks.get(pair, math.inf))
        if best not in ranks:
            break
        pieces = join_pair(pieces, best)
    return pieces


class ByteBPE:
    """A byte-level BPE from its vocabulary and merges: text to ids and back, without loss.

    Attributes:
        ids: from a piece to its id.
        pieces: from an id to its piece.
        ranks: from a pair to its place in the order of learning.
    """

    def __init__(self, ids: Mapping[str, int], merges: Sequence[Pair], end: str = END) -> None:
        """ids, merges: what was learnt. end: the piece that ends a text, never cut."""
        self.ids, self.pieces = dict(ids), {i: piece for piece, i in ids.items()}
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.letters, self.end = byte_letters(), end
        self.bytes = {letter: byte for byte, letter in self.letters.items()}
        self.cut = lru_cache(maxsize=2**16)(lambda word: merge(word, self.ranks))  # words repeat

    def encode(self, text: str) -> list[int]:
        """Text to ids; END, where it is spelt out, to its one id."""
        ids = []
        for i, part in enumerate(text.split(self.end)):
            ids += [self.ids[self.end]] if i else []
            for word in WORDS.findall(part):
                letters = "".join(self.letters[byte] for byte in word.encode("utf-8"))
                ids += [self.ids[piece] for piece in self.cut(letters)]
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text, without END; what is no UTF-8, half an emoji say, becomes the sign �."""
        letters = "".join(self.pieces[i] for i in ids if self.pieces[i] != self.end)
        return bytes(self.bytes[letter] for letter in letters).decode("utf-8", errors="replace")


def from_json(text: str) -> ByteBPE:
    """Our tokenizer from the library's `tokenizer.json`."""
    model = json.loads(text)["model"]
    return ByteBPE(model["vocab"], [tuple(pair) for pair in model["merges"]])


def gpt2() -> ByteBPE:
    """GPT-2's own tokenizer: 256 bytes, 50,000 merges, END; fetched at first use."""
    ids = json.loads(data.fetch("gpt2-vocab").read_text("utf-8"))
    lines = data.fetch("gpt2-merges").read_text("utf-8").splitlines()[1:]  # the first is a version
    return ByteBPE(ids, [tuple(line.split(" ")) for line in lines])


# --- the stories' -------------------------------------------------------------------------------------------


def tokenizer() -> Tokenizer:
    """The stories' tokenizer: `.encode(text).ids`, `.decode(ids)`, `.get_vocab_size()`, `.token_to_id(END)`.

    A text that spells END out gets the END piece; `.decode` leaves it out unless `skip_special_tokens=False`.
    """
    return Tokenizer.from_file(str(FILE))


def token_stream(texts: Sequence[str]) -> np.ndarray:
    """The texts as one row of pieces, END after each: what a language model trains on and is scored on.

    Returns:
        (number of pieces,) uint16.

    Raises:
        ValueError: `texts` is a single text, or no text.
    """
    ours = tokenizer()
    end = ours.token_to_id(END)
    rows = [[*encoding.ids, end] for encoding in ours.encode_batch_fast(list(each_unicode(texts)))]
    return np.concatenate([np.array(row, np.uint16) for row in rows] or [np.empty(0, np.uint16)])


def main() -> None:
    """Train again on the training stories and rewrite the file; print what a piece is worth on each side."""
    parts = story_split()
    FILE.write_text(train(parts["train"]).to_str() + "\n", encoding="utf-8")
    for side, texts in parts.items():
        pieces = len(token_stream(texts)) - len(texts)
        print(f"{side}: {pieces:,} pieces, {sum(map(len, texts)) / pieces:.3f} characters each")


if __name__ == "__main__":
    main()
