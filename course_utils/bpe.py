"""One byte-level BPE for the stories, so that the perplexities of every page compare.

Byte-pair encoding: Sennrich, Haddow & Birch, "Neural machine translation of rare words with subword units",
ACL 2016, section 3.2. Over bytes: Radford et al., "Language models are unsupervised multitask learners",
2019, section 2.2, so that any text has pieces and comes back from them unchanged.

Trained on the training stories alone. `python -m course_utils.bpe` trains it again (5 s) and rewrites
`data/stories_bpe.json`, byte for byte, with any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from course_utils.runtime import DATA
from course_utils.splits import story_split

END = "<|endoftext|>"
PIECES = 4096
FILE = DATA / "stories_bpe.json"


def train(texts: Iterable[str], pieces: int = PIECES) -> Tokenizer:
    """Learn a byte-level BPE.

    Args:
        texts: what to learn from.
        pieces: size of the vocabulary at most: END, the 256 bytes, then the merges in the order learnt.

    Raises:
        ValueError: `pieces` below 257, or `texts` a single text.
    """
    if pieces < 257 or isinstance(texts, str):
        raise ValueError(
            f"train needs a list of texts and at least 257 pieces, got {type(texts)} and {pieces}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    bytes_first = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=pieces, special_tokens=[END], initial_alphabet=bytes_first, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


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
        ValueError: `texts` is a single text.
    """
    if isinstance(texts, str):
        raise ValueError(f"texts must be a list of texts, got one text: {texts[:40]!r}")
    ours = tokenizer()
    end = ours.token_to_id(END)
    rows = [[*encoding.ids, end] for encoding in ours.encode_batch_fast(list(texts))]
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
