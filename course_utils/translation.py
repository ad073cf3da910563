"""English to Spanish: sentence pairs as ids, batches, the loss, translating, and a word dictionary to beat.

`python -m course_utils.translation` (`make translator`) trains the translator in `data/models`, an hour on a
processor with AVX-512 BF16, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn.utils.rnn import pad_sequence

from course_utils import bpe, text
from course_utils.attention import padding_mask
from course_utils.generation import beam_search, check_search, greedy
from course_utils.runtime import DATA, cache_dir, device
from course_utils.splits import translation_split
from course_utils.training import History, Options, save_card, shuffled, train
from course_utils.transformer import Config, Transformer

__taught__ = ["pair_batch", "translation_loss", "decoding_step", "translate"]

FOLDER = DATA / "models" / "translator"
PIECES = 4096
LONGEST = 40  # pieces of a sentence, its END counted; the 0.1 % of pairs that are longer are not trained on
END = 0  # the id of bpe.END: ends a source and a target, and begins a target
IGNORED = -100  # the target of a padded position, which cross_entropy leaves out
CONFIG = Config(V=PIECES, T=64, C=192, nh=6, layers=3, dropout=0.1)
OPTIONS = Options(steps=5_000, lr=2e-3, warmup=500, every=500, mixed=True)
BATCH = 128


class Batch(NamedTuple):
    """Sentence pairs as tensors: source (B, S), its mask (B, 1, S), target inputs and targets (B, T)."""

    source: torch.Tensor
    mask: torch.Tensor
    inputs: torch.Tensor
    targets: torch.Tensor


def pair_batch(sources: Sequence[list[int]], targets: Sequence[list[int]] | None = None) -> Batch:
    """Pad sentences to one length and shift the targets: the decoder reads END a b c and is to say a b c END.

    Args:
        sources: B lists of ids.
        targets: B lists of ids; None where they are to be found.
    """
    ended = [torch.tensor([*ids, END]) for ids in sources]
    source = pad_sequence(ended, batch_first=True, padding_value=END)  # (B, S)
    mask = padding_mask(torch.tensor([len(ids) for ids in ended]), source.shape[1])  # (B, 1, S)
    targets = [[]] * len(sources) if targets is None else targets
    inputs = pad_sequence([torch.tensor([END, *ids]) for ids in targets], True, END)  # (B, T)
    wanted = pad_sequence([torch.tensor([*ids, END]) for ids in targets], True, IGNORED)  # (B, T)
    return Batch(*(tensor.to(device()) for tensor in (source, mask, inputs, wanted)))


def translation_loss(model: Transformer, batch: Batch, smoothing: float = 0.1) -> torch.Tensor:
    """Cross-entropy of the targets' pieces, padding left out, in nats a piece."""
    logits = model(batch.source, batch.inputs, batch.mask)  # (B, T, V)
    logits, targets = logits.flatten(0, 1), batch.targets.flatten()  # (B * T, V), (B * T,)
    return F.cross_entropy(logits, targets, ignore_index=IGNORED, label_smoothing=smoothing)


def decoding_step(model: Transformer, batch: Batch, beams: int = 1) -> Callable:
    """What `greedy` and `beam_search` ask: the next piece's logits, given the last ones and their rows."""
    mask = batch.mask.repeat_interleave(beams, 0)  # (B * beams, 1, S)
    memory = model.encoder(batch.source, batch.mask).repeat_interleave(beams, 0)  # (B * beams, S, C)
    cache = model.decoder.new_cache()

    def step(last: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        for own, _ in cache if rows is not None else []:
            own.select(rows.to(memory.device))
        ids = last[:, None].to(memory.device)  # (B * beams, 1): only the new piece, the cache has the others
        return model.decoder(ids, memory, memory_mask=mask, cache=cache)[:, -1]  # (B * beams, V)

    return step


@torch.no_grad()
def translate(
    model: Transformer, tokenizer: Tokenizer, sentences: Sequence[str], beams: int = 1, alpha: float = 0.6
) -> list[str]:
    """Translate English sentences, by the likeliest piece each time or by beam search.

    Args:
        sentences: B texts.
        beams: 1 for greedy decoding.
        alpha: the beam search's length penalty.

    Raises:
        ValueError: no sentence, a single text, one that is empty or longer than the model's T, no beam, or a
            negative alpha.
    """
    sources = [encoding.ids for encoding in tokenizer.encode_batch(check_sentences(sentences))]
    check_lengths(sources, model.embedding.T)
    limit = min(LONGEST, model.embedding.T - 1)
    check_search(len(sources), limit, beams, alpha)
    step = decoding_step(model.eval(), pair_batch(sources), beams)
    if beams == 1:
        ids = greedy(step, len(sources), END, END, limit)
    else:
        ids = beam_search(step, len(sources), END, END, limit, beams, alpha)
    return tokenizer.decode_batch(ids)


def translate_all(
    model: Transformer, tokenizer: Tokenizer, sentences: Sequence[str], beams: int = 1, alpha: float = 0.6
) -> list[str]:
    """`translate` for many sentences, those of like length together; returned in the order given."""
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    found = {}
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        found |= zip(
            part, translate(model, tokenizer, [sentences[i] for i in part], beams, alpha), strict=True
        )
    return [found[i] for i in range(len(sentences))]


def check_sentences(sentences: Sequence[str]) -> list[str]:
    """The sentences as a list; raises ValueError for a single text, none, or an empty one."""
    if isinstance(sentences, str) or not len(sentences) or not all(map(_is_text, sentences)):
        raise ValueError(f"sentences must be a list of texts, none of them empty, got {sentences!r}")
    return list(sentences)


def _is_text(sentence: object) -> bool:
    return isinstance(sentence, str) and bool(sentence.strip())


def check_lengths(sources: Sequence[list[int]], T: int) -> None:
    """Raises ValueError where a sentence, its END counted, has more pieces than the model has positions."""
    if (longest := max(map(len, sources)) + 1) > T:
        raise ValueError(f"sentences must have at most T = {T} pieces, the end counted, got one of {longest}")


class Pairs:
    """One side of the split as ids, and the function from the step to its batch."""

    def __init__(self, pairs: pd.DataFrame, tokenizer: Tokenizer, longest: int = LONGEST) -> None:
        """pairs: with columns english and spanish. longest: pieces; longer pairs are left out."""
        sides = [tokenizer.encode_batch(pairs[name].tolist()) for name in ("english", "spanish")]
        rows = [(e.ids, s.ids) for e, s in zip(*sides, strict=True)]
        self.rows = [row for row in rows if max(map(len, row)) < longest]
        self.lengths = torch.tensor([len(e) + len(s) for e, s in self.rows])

    def batch(self, indices: torch.Tensor) -> Batch:
        """The pairs of these indices."""
        return pair_batch(*zip(*(self.rows[i] for i in indices.tolist()), strict=True))

    def batches(self, B: int, seed: int = 0) -> Callable[[int], Batch]:
        """From the step to a batch of B pairs of like length."""
        order = shuffled(len(self.rows), B, seed, self.lengths)
        return lambda step: self.batch(order(step))

    @torch.no_grad()
    def nats(self, model: Transformer) -> float:
        """The model's cross-entropy over all these pairs, in nats a piece."""
        total = pieces = 0
        for indices in self.lengths.argsort(stable=True).split(256):
            batch = self.batch(indices)
            n = int((batch.targets != IGNORED).sum())
            total, pieces = total + n * float(translation_loss(model, batch, 0.0)), pieces + n
        return total / pieces


def word_dictionary(english: Sequence[str], spanish: Sequence[str], rounds: int = 5) -> dict[str, str]:
    """Each English word's likeliest Spanish word, by IBM's first alignment model.

    Each Spanish word of a pair is shared out among the pair's English words, in proportion to how often they
    have gone together so far; the shares are added up, and so on for some rounds.

    Source: Brown et al. 1993, "The mathematics of statistical machine translation", section 4.2; without the
    empty word.

    Raises:
        ValueError: sides of different numbers, or without a word.
    """
    if isinstance(english, str) or len(english) != len(spanish):
        raise ValueError(
            f"english and spanish must be lists of one length, got {len(english)}, {len(spanish)}"
        )
    sides = [[text.tokenise(text.normalise(s)) for s in sentences] for sentences in (english, spanish)]
    e_words, s_words = (text.Vocabulary(side) for side in sides)
    pairs = [(e_words.encode(e), s_words.encode(s)) for e, s in zip(*sides, strict=True)]
    # a link for each pair of words, one English and one Spanish
    e = np.concatenate([np.tile(np.array(es, int), len(ss)) for es, ss in pairs])
    s = np.concatenate([np.repeat(np.array(ss, int), len(es)) for es, ss in pairs])
    fan = np.concatenate([np.full(len(ss), len(es)) for es, ss in pairs if es])  # links of each Spanish word
    slot = np.repeat(np.arange(len(fan)), fan)
    kinds, kind = np.unique(e * len(s_words) + s, return_inverse=True)
    e_of = kinds // len(s_words)
    chance = np.ones(len(kinds))  # of the Spanish word, given the English one
    for _ in range(rounds):
        share = chance[kind] / np.bincount(slot, chance[kind])[slot]
        counts = np.bincount(kind, share)
        chance = counts / np.bincount(e_of, counts)[e_of]
    best = np.lexsort((-chance, e_of))[np.unique(np.sort(e_of), return_index=True)[1]]
    return dict(zip(e_words.decode(e_of[best]), s_words.decode(kinds[best] % len(s_words)), strict=True))


def load() -> tuple[Transformer, Tokenizer]:
    """The translator in `data/models`, in evaluation mode, and its tokenizer."""
    config = Config(**json.loads((FOLDER / "config.json").read_text("utf-8")))
    model = Transformer(config)
    weights = load_file(FOLDER / "model.safetensors")
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(weights[name])
    return model.to(device()).eval(), tokenizer()


def tokenizer() -> Tokenizer:
    """The pieces of both languages, learnt from the training pairs."""
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def card() -> dict:
    """What is known of the stored translator: options, (step, nats a piece) of each validation, versions."""
    return json.loads((FOLDER / "card.json").read_text("utf-8"))


def save(model: Transformer, config: Config, options: Options, history: History) -> None:
    """Store the weights in half precision, 2 bytes each, the config, and how they came about."""
    half = {name: p.detach().half().cpu().contiguous() for name, p in model.named_parameters()}
    save_file(half, FOLDER / "model.safetensors")
    (FOLDER / "config.json").write_text(json.dumps(asdict(config), indent=1) + "\n", "utf-8")
    known = {
        "licence": "trained on Tatoeba sentences, CC BY 2.0 FR; weights MIT",
        "pairs a batch": BATCH,
    }
    save_card(FOLDER, "python -m course_utils.translation", options, history, known)


def train_translator(
    config: Config, options: Options, sides: dict[str, pd.DataFrame]
) -> tuple[Transformer, History]:
    """Train from nothing, or from the options' checkpoint, on the training side; validated on the other."""
    pieces = tokenizer()
    model = Transformer(config, options.seed).to(device())
    known, held = Pairs(sides["train"], pieces), Pairs(sides["valid"], pieces)
    history = train(model, known.batches(BATCH, options.seed), translation_loss, options, held.nats)
    return model, history


def train_large(sides: dict[str, pd.DataFrame]) -> Transformer:
    """A larger translator, for a GPU: width 512, six layers each way, 20 passes over the pairs."""
    config = replace(CONFIG, C=512, nh=8, layers=6)
    options = replace(OPTIONS, steps=20_000, lr=7e-4, warmup=2_000, mixed=None)
    return train_translator(config, options, sides)[0]


def main() -> None:
    """Learn the pieces where there are none, train, store."""
    parser = argparse.ArgumentParser(prog="python -m course_utils.translation", description=__doc__)
    parser.add_argument("--steps", type=int, default=OPTIONS.steps)
    steps = parser.parse_args().steps
    sides = translation_split()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (FOLDER / "tokenizer.json").is_file():
        learnt = bpe.train([*sides["train"]["english"], *sides["train"]["spanish"]], PIECES)
        (FOLDER / "tokenizer.json").write_text(learnt.to_str() + "\n", "utf-8")
    options = replace(OPTIONS, steps=steps, checkpoint=cache_dir() / "translator.safetensors")
    try:
        model, history = train_translator(CONFIG, options, sides)
    except KeyboardInterrupt as stopped:
        sys.exit(str(stopped) or "interrupted")
    print(f"{len(history.loss)} steps, validation {history.valid[-1][1]:.3f} nats a piece")
    if len(history.loss) == steps:  # the checkpoint may be of a longer run
        save(model, CONFIG, options, history)


if __name__ == "__main__":
    main()
