"""The course's own GPT-2, trained on the stories, and what it has to beat.

`python -m course_utils.stories` (`make story-gpt2`) trains it, two hours on two cores with AVX-512 BF16, and
then an LSTM as large; stopped, it goes on where it was. The stories are samples of a model of 15 million
parameters: a student cannot be wiser than its teacher.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from course_utils import bpe, lstm, pretrained
from course_utils.gpt2 import SHAPE, to_gpt2
from course_utils.ngram import KneserNey
from course_utils.runtime import DATA, cache_dir, device
from course_utils.splits import story_split
from course_utils.training import History, Options, save_card, shuffled, train
from course_utils.transformer import Config, Decoder

FOLDER = DATA / "models" / "story-gpt2"
END = 0  # the id of bpe.END: stands before each story and after it
IGNORED = -100  # the target of a padded position, which cross_entropy leaves out
CONFIG = Config(
    V=bpe.PIECES,
    T=256,
    C=256,
    nh=8,
    layers=6,
    dropout=0.0,
    **SHAPE,
)
WIDTH = 490  # of an LSTM with two layers and as many parameters
BATCH = 24  # stories
OPTIONS = Options(
    steps=4_900, lr=3e-3, warmup=300, weight_decay=0.1, betas=(0.9, 0.95), every=250, mixed=True
)


def story_loss(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each piece given those before it in its story, in nats a piece.

    Args:
        rows: (B, T + 1) ids, IGNORED at padding.
    """
    rows = rows.to(next(model.parameters()).device)
    logits = model(rows[:, :-1].clamp(min=END))  # (B, T, V); what stands at padding is never asked
    return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), ignore_index=IGNORED)


class Stories:
    """Stories as ids, END before and after each, cut at T + 1."""

    def __init__(self, texts: Sequence[str], T: int = CONFIG.T) -> None:
        """texts: of one side of the split."""
        encoded = bpe.tokenizer().encode_batch_fast(list(texts))
        self.rows = [torch.tensor([END, *text.ids, END][: T + 1]) for text in encoded]
        self.lengths = torch.tensor([len(row) for row in self.rows])

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        """The stories of these indices, (B, T + 1), IGNORED at padding."""
        return pad_sequence([self.rows[i] for i in indices.tolist()], True, IGNORED)

    def batches(self, B: int, seed: int = 0) -> Callable[[int], torch.Tensor]:
        """From the step to a batch of B stories of like length."""
        order = shuffled(len(self.rows), B, seed, self.lengths)
        return lambda step: self.batch(order(step))

    @torch.no_grad()
    def nats(self, model: nn.Module, B: int = 64) -> float:
        """The model's cross-entropy over all these stories, in nats a piece."""
        total = pieces = 0
        for indices in self.lengths.argsort(stable=True).split(B):
            n = int(self.lengths[indices].sum()) - len(indices)
            total, pieces = total + n * float(story_loss(model, self.batch(indices))), pieces + n
        return total / pieces


def gpt2_model(seed: int = 0) -> Decoder:
    """The story model, drawn anew."""
    return Decoder(CONFIG, seed=seed)


def lstm_model(seed: int = 0) -> lstm.RecurrentLM:
    """An LSTM of as many parameters, drawn anew."""
    reader = lstm.Recurrent(lstm.LSTMCell, WIDTH, WIDTH, layers=2, seed=2 * seed)
    lstm.remember(reader, 1.0)
    return lstm.RecurrentLM(CONFIG.V, WIDTH, lstm.as_torch(reader), 2 * seed + 1)


def has_half_lstm() -> bool:
    """Whether this device runs an LSTM in half precision; a processor without AVX-512 does not."""
    try:
        with torch.autocast(device(), torch.bfloat16):
            nn.LSTM(1, 1).to(device())(torch.zeros(1, 1, 1, device=device()))
    except RuntimeError:
        return False
    return True


def train_stories(model: nn.Module, options: Options) -> History:
    """Train on all stories of the training side; validated on an eighth of those held out for that."""
    if isinstance(model, lstm.RecurrentLM) and options.mixed and not has_half_lstm():
        options = replace(options, mixed=False)
    sides = story_split()
    known, held = Stories(sides["train"]), Stories(sides["valid"][::8])
    return train(model.to(device()), known.batches(BATCH, options.seed), story_loss, options, held.nats)


def trigram_nats(known: Stories, held: Stories) -> float:
    """What an interpolated Kneser–Ney trigram, which counted the same pieces, pays for the held-out ones."""
    stream = torch.cat([row[1:] for row in known.rows])  # one END between two stories
    counts = KneserNey(stream.numpy(), 3, CONFIG.V)
    logs = [counts.log_probabilities(row.numpy())[1:] for row in held.rows]
    return -float(np.concatenate(logs).mean())


def card() -> dict:
    """What is known of the stored model: data, options, nats a piece on the test side, versions."""
    return json.loads((FOLDER / "card.json").read_text("utf-8"))


def save(model: Decoder, options: Options, history: History, nats: dict[str, float]) -> None:
    """Store the model as `transformers` stores a GPT-2, in half precision, with tokenizer and card."""
    config = GPT2Config(
        vocab_size=CONFIG.V,
        n_positions=CONFIG.T,
        n_embd=CONFIG.C,
        n_layer=CONFIG.layers,
        n_head=CONFIG.nh,
        bos_token_id=END,
        eos_token_id=END,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), CONFIG.dropout),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe.tokenizer(), bos_token=bpe.END, eos_token=bpe.END, model_max_length=CONFIG.T
    )
    with pretrained.without_bars():
        to_gpt2(model.cpu(), GPT2LMHeadModel(config)).half().save_pretrained(FOLDER)
        tokenizer.save_pretrained(FOLDER)
    known = {
        "data": "data/stories.jsonl.xz, training side: samples of stories15M, see data/stories.md",
        "licence": "MIT, as the stories are",
        "stories a batch": BATCH,
        "test": {name: round(value, 4) for name, value in nats.items()},
    }
    save_card(FOLDER, "python -m course_utils.stories", options, history, known)


MODELS = {
    "story-gpt2": (gpt2_model, OPTIONS),
    "LSTM of equal size": (lstm_model, replace(OPTIONS, lr=5e-3)),
}


def main() -> None:
    """Train both, measure on the test side, and store the GPT-2 when all steps are done."""
    parser = argparse.ArgumentParser(
        prog="python -m course_utils.stories", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--steps", type=int, default=OPTIONS.steps)
    steps, runs = parser.parse_args().steps, {}
    for name, (draw, options) in MODELS.items():
        file = cache_dir() / f"{name.replace(' ', '-')}.safetensors"
        options = replace(options, steps=steps, checkpoint=file)
        model = draw(options.seed)
        try:
            history = train_stories(model, options)
        except KeyboardInterrupt as stopped:
            sys.exit(f"{name}: {str(stopped) or 'interrupted'}")
        print(f"{name}: {len(history.loss)} of {steps} steps; validation: {history.valid[-1:]}", flush=True)
        runs[name] = model, options, history
    if any(len(history.loss) != steps for _, _, history in runs.values()):
        return  # a checkpoint is of a longer run
    known, held = (Stories(story_split()[side]) for side in ("train", "test"))
    nats = {name: held.nats(model) for name, (model, _, _) in runs.items()}
    save(*runs["story-gpt2"], nats | {"Kneser–Ney trigram": trigram_nats(known, held)})


if __name__ == "__main__":
    main()
