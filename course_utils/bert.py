"""BERT from the course's own encoder: WordPiece, the real weights, and a head that fills in hidden words.

Source: Devlin et al., "BERT: Pre-training of deep bidirectional Transformers for language understanding",
NAACL 2019, arXiv:1810.04805; the sections named here. `python -m course_utils.bert` trains the stored head.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from course_utils import corpora, pretrained
from course_utils.attention import padding_mask
from course_utils.runtime import DATA, cache_dir, device, generator
from course_utils.training import History, Options, save_card, shuffled, train
from course_utils.transformer import Config, Encoder

if TYPE_CHECKING:
    from transformers import BertConfig, BertModel, PreTrainedTokenizerBase

    from course_utils.pretrained import Pretrained

__taught__ = ["wordpiece", "from_bert", "all_states", "hide_words", "MaskedWordHead"]

LONGEST_WORD = 100  # letters; BERT's own limit
# Our names of the weights, and BERT's.
NAMES = {
    "embedding.tokens.": "embeddings.word_embeddings.",
    "embedding.positions": "embeddings.position_embeddings.weight",
    "embedding.segments.": "embeddings.token_type_embeddings.",
    "embedding.norm.": "embeddings.LayerNorm.",
    "stack.layers.": "encoder.layer.",
    "self_attention.out.": "attention.output.dense.",
    "self_attention.": "attention.self.",
    "around_self.norm.": "attention.output.LayerNorm.",
    "around_feed_forward.norm.": "output.LayerNorm.",
    "feed_forward.inner.": "intermediate.dense.",
    "feed_forward.outer.": "output.dense.",
}
HEAD_NAMES = {
    "bias": "bias",
    "dense.weight": "transform.dense.weight",
    "dense.bias": "transform.dense.bias",
    "norm.weight": "transform.LayerNorm.weight",
    "norm.bias": "transform.LayerNorm.bias",
}
FOLDER = DATA / "models" / "masked_words"
PIECES = 64  # a training text's longest
BATCH = 32
# The last layers of the embedded encoder were tuned to say what a sentence means, and know less of its words:
# in short trials the head guessed best from the middle layers.
DEPTH = 3
# Nor did it ever meet [MASK], whose vector says nothing to it; [UNK], which it knows, hides a word better.
HIDDEN = "[UNK]"
OPTIONS = Options(steps=800, lr=1e-2, warmup=100, betas=(0.9, 0.999), every=200)


def wordpiece(word: str, vocabulary: Container[str], unknown: str = "[UNK]") -> list[str]:
    """A word cut from the left into the longest pieces the vocabulary has; ## marks those that go on.

    Returns:
        The pieces; `unknown` alone where what is left begins with no piece, or the word is over-long.

    Source: section 3 (Input/Output Representations); Wu et al. 2016, arXiv:1609.08144, section 4.1.
    """
    if len(word) > LONGEST_WORD:
        return [unknown]
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):  # the longest first
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                break
        else:
            return [unknown]
        pieces.append(piece)
        start = end
    return pieces


def bert_config(theirs: BertConfig) -> Config:
    """The course's config of a BERT.

    Raises:
        ValueError: an activation or positions that our parts do not have.
    """
    found = theirs.hidden_act, getattr(theirs, "position_embedding_type", "absolute")
    if found != ("gelu", "absolute"):
        raise ValueError(f"theirs must be a BERT with gelu and absolute positions, got {' and '.join(found)}")
    return Config(
        V=theirs.vocab_size,
        T=theirs.max_position_embeddings,
        C=theirs.hidden_size,
        nh=theirs.num_attention_heads,
        layers=theirs.num_hidden_layers,
        hidden=theirs.intermediate_size,
        dropout=theirs.hidden_dropout_prob,
        norm="post",
        positions="learned",
        activation="gelu",
        scale=False,
        segments=theirs.type_vocab_size,
        norm_embedding=True,
        eps=theirs.layer_norm_eps,
    )


def bert_name(name: str) -> str:
    """What BERT calls a weight of ours."""
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


@torch.no_grad()
def from_bert(theirs: BertModel) -> Encoder:
    """Our encoder with a BERT's sizes and weights, in evaluation mode.

    It has no pooler, and no dropout of the attention weights.

    Raises:
        ValueError: as `bert_config`.
    """
    encoder = Encoder(bert_config(theirs.config))
    tensors = theirs.state_dict()
    for name, p in encoder.named_parameters():
        p.copy_(tensors[bert_name(name)])
    return encoder.to(device()).eval()


@torch.no_grad()
def to_bert(encoder: Encoder, theirs: BertModel) -> BertModel:
    """Our weights copied into a BERT of that size, as `transformers` knows how to store it."""
    tensors = theirs.state_dict()
    for name, p in encoder.named_parameters():
        tensors[bert_name(name)].copy_(p)
    return theirs


def states_after(encoder: Encoder, ids: torch.Tensor, mask: torch.Tensor, depth: int) -> torch.Tensor:
    """The states (B, T, C) that leave the first `depth` layers; those above are not run."""
    x = encoder.embedding(ids)  # (B, T, C)
    for layer in encoder.stack.layers[:depth]:
        x = layer(x, mask=mask)
    return x


def all_states(encoder: Encoder, ids: torch.Tensor, mask=None, segments=None) -> list[torch.Tensor]:
    """The states (B, T, C) after the embedding and after each layer: layers + 1 of them."""
    states = [encoder.embedding(ids, segments=segments)]  # (B, T, C)
    for layer in encoder.stack.layers:
        states.append(layer(states[-1], mask=mask))
    return states


# --- hidden words -------------------------------------------------------------------------------------------


def hide_words(
    ids: torch.Tensor, words: torch.Tensor, mask_id: int, V: int, draw: torch.Generator, share: float = 0.15
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose tokens to be guessed: of ten, eight become [MASK], one a random token, one stays.

    Args:
        ids: (B, T).
        words: (B, T) bool, the tokens that may be chosen: neither padding nor [CLS] nor [SEP].
        mask_id: of [MASK].
        V: random tokens are drawn from all V.
        draw: a CPU generator.
        share: of the words that are chosen.

    Returns:
        what the model sees, (B, T), and what it has to guess, (B, T) bool.

    Source: section 3.1, task 1; appendix A.1.
    """
    guess = (torch.rand(ids.shape, generator=draw) < share) & words  # (B, T)
    fate = torch.rand(ids.shape, generator=draw)
    random = torch.randint(V, ids.shape, generator=draw)
    seen = torch.where(guess & (fate < 0.8), mask_id, ids)
    return torch.where(guess & (fate >= 0.9), random, seen), guess


class MaskedWordHead(nn.Module):
    """Which word stood here: dense, GELU and norm, then a score for each token by its own vector.

    Source: section 3.1; the transform is the one of the authors' published code.
    """

    def __init__(self, V: int, C: int, eps: float = 1e-12, seed: int = 0) -> None:
        """seed: of the dense layer's weights."""
        super().__init__()
        self.dense, self.norm = nn.Linear(C, C), nn.LayerNorm(C, eps)
        self.bias = nn.Parameter(torch.zeros(V))
        nn.init.xavier_uniform_(self.dense.weight, generator=generator(seed))
        nn.init.zeros_(self.dense.bias)

    def forward(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """States (..., C) and the encoder's token vectors (V, C) → logits (..., V)."""
        return self.norm(F.gelu(self.dense(states))) @ tokens.T + self.bias


class Guesses(NamedTuple):
    """What the head learns from: states (N, C) at N hidden places, and the tokens (N,) that stood there."""

    states: torch.Tensor
    targets: torch.Tensor


class Passages:
    """Texts as padded tokens of which some are hidden, and the frozen encoder's states at those."""

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[str],
        depth: int = DEPTH,
        mask_id: int | None = None,
    ) -> None:
        """Cut texts into stretches of at most PIECES tokens.

        Args:
            encoder, tokenizer: of one BERT.
            texts: paragraphs, say.
            depth: the states are those after so many layers.
            mask_id: of the token that hides a word; None for HIDDEN.
        """
        rows = tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids
        n, first, last = PIECES - 2, tokenizer.cls_token_id, tokenizer.sep_token_id
        cut = [[first, *row[i : i + n], last] for row in rows for i in range(0, len(row), n)]
        self.rows = [torch.tensor(row) for row in cut if len(row) > 9]  # too short to tell anything
        self.lengths = torch.tensor([len(row) for row in self.rows])
        self.encoder, self.depth = encoder, depth
        self.mask_id = tokenizer.convert_tokens_to_ids(HIDDEN) if mask_id is None else mask_id
        self.V = encoder.embedding.V

    @torch.no_grad()
    def guesses(self, indices: torch.Tensor, seed: int) -> Guesses:
        """These stretches with words hidden by that seed, read by the encoder."""
        ids = pad_sequence([self.rows[i] for i in indices.tolist()], batch_first=True)  # (B, T)
        lengths = self.lengths[indices]
        place = torch.arange(ids.shape[1])
        words = (place > 0) & (place < lengths[:, None] - 1)  # (B, T)
        seen, guess = hide_words(ids, words, self.mask_id, self.V, generator(seed))
        mask = padding_mask(lengths, ids.shape[1])
        states = states_after(self.encoder, seen.to(device()), mask.to(device()), self.depth)
        return Guesses(states[guess.to(device())], ids[guess].to(device()))

    def batches(self, B: int = BATCH, seed: int = 0) -> Callable[[int], Guesses]:
        """From the step to its batch; each epoch hides other words."""
        order = shuffled(len(self.rows), B, seed, self.lengths)
        return lambda step: self.guesses(order(step), seed * 1_000_003 + step)

    def held(self, seed: int = 0) -> list[Guesses]:
        """All stretches once, in batches of 64."""
        parts = self.lengths.argsort(stable=True).split(64)
        return [self.guesses(part, seed * 1_000_003 + i) for i, part in enumerate(parts)]


def guess_loss(tokens: torch.Tensor) -> Callable[[MaskedWordHead, Guesses], torch.Tensor]:
    """Mean cross-entropy of the hidden words in nats, as a function of head and batch."""
    return lambda head, batch: F.cross_entropy(head(batch.states, tokens), batch.targets)


def log_shares(passages: Passages, V: int) -> torch.Tensor:
    """The log of each token's share of some passages, (V,); one never seen counts a tenth."""
    counts = torch.bincount(torch.cat(passages.rows), minlength=V) + 0.1
    return (counts / counts.sum()).log()


@torch.no_grad()
def guess_scores(head: MaskedWordHead, tokens: torch.Tensor, held: Sequence[Guesses]) -> dict[str, float]:
    """How well hidden words are guessed: n, nats a word, share right at the first and among five guesses."""
    n = nats = first = five = 0
    for batch in held:
        logits = head(batch.states, tokens)  # (N, V)
        nats += F.cross_entropy(logits, batch.targets, reduction="sum").item()
        right = logits.topk(5).indices == batch.targets[:, None]  # (N, 5)
        first, five, n = first + right[:, 0].sum().item(), five + right.sum().item(), n + len(right)
    return {"n": n, "nats": nats / n, "first": first / n, "five": five / n}


def paragraphs(split: str) -> list[str]:
    """WikiText-2's paragraphs of a side, headings left out."""
    return [line for article in corpora.wikitext2(split) for line in article.split("\n") if len(line) > 40]


def load_head(bert: Pretrained) -> tuple[MaskedWordHead, int, int]:
    """A head for a BERT, in evaluation mode, the number of layers whose states it reads, and the mask's id.

    Of the embedded encoder the one trained here, of the hub's BERT its own.
    """
    mask = bert.tokenizer.mask_token
    if bert.source == "embedded":
        weights, depth, mask = load_file(FOLDER / "head.safetensors"), card()["depth"], card()["hidden as"]
    else:
        from transformers import BertForMaskedLM

        with pretrained.without_bars():
            whole = BertForMaskedLM.from_pretrained(bert.model.name_or_path, local_files_only=True)
        theirs, depth = whole.cls.predictions.state_dict(), whole.config.num_hidden_layers
        weights = {name: theirs[key] for name, key in HEAD_NAMES.items()}
    head = MaskedWordHead(len(weights["bias"]), len(weights["dense.bias"]), bert.model.config.layer_norm_eps)
    head.load_state_dict(weights)
    return head.to(device()).eval(), depth, bert.tokenizer.convert_tokens_to_ids(mask)


def card() -> dict:
    """What is known of the stored head: data, options, scores, versions."""
    return json.loads((FOLDER / "card.json").read_text("utf-8"))


def save_head(head: MaskedWordHead, options: Options, history: History, known: dict) -> None:
    """Store the head's weights and how they came about."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    weights = {name: p.detach().cpu().contiguous() for name, p in head.named_parameters()}
    save_file(weights, FOLDER / "head.safetensors")
    card = {
        "licence": "trained on WikiText-2, CC BY-SA 4.0, on states of all-MiniLM-L6-v2, Apache-2.0",
        "stretches a batch": BATCH,
        "depth": DEPTH,
        "hidden as": HIDDEN,
    }
    save_card(FOLDER, "python -m course_utils.bert", options, history, card | known)


def train_head(options: Options) -> tuple[MaskedWordHead, History, dict]:
    """Train a head for the embedded encoder; its scores on the test side."""
    bert = pretrained.load("bert")
    encoder = from_bert(bert.model).requires_grad_(False)
    tokens = encoder.embedding.tokens.weight
    sides = {side: Passages(encoder, bert.tokenizer, paragraphs(side)) for side in ("train", "valid", "test")}
    held = sides["valid"].held()
    head = MaskedWordHead(*tokens.shape).to(device())
    head.bias.data.copy_(log_shares(sides["train"], len(tokens)))  # what is known before reading
    validate = lambda head: guess_scores(head, tokens, held)["nats"]  # noqa: E731
    history = train(head, sides["train"].batches(), guess_loss(tokens), options, validate)
    return head, history, {"test": guess_scores(head, tokens, sides["test"].held())}


def main() -> None:
    """Train the head, and store it when all its steps are done."""
    parser = argparse.ArgumentParser(prog="python -m course_utils.bert", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=OPTIONS.steps)
    steps = parser.parse_args().steps
    options = replace(OPTIONS, steps=steps, checkpoint=cache_dir() / "masked_words.safetensors")
    try:
        head, history, known = train_head(options)
    except KeyboardInterrupt as stopped:
        sys.exit(str(stopped) or "interrupted")
    print(f"{len(history.loss)} steps, validation {history.valid[-1][1]:.3f} nats a word")
    if len(history.loss) == steps:  # the checkpoint may be of a longer run
        save_head(head, options, history, known)


if __name__ == "__main__":
    main()
