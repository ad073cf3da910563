"""Fine-tuning: texts to padded batches, an encoder with a head, which of its weights move, storing it.

What is frozen is computed once: `frozen_states` keeps what enters the first layer that is trained.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from course_utils.attention import padding_mask
from course_utils.bert import from_bert, states_after, to_bert
from course_utils.pretrained import without_bars
from course_utils.runtime import device, generator
from course_utils.sentiment import check_texts
from course_utils.training import shuffled
from course_utils.transformer import Encoder

__taught__ = ["mean_pool", "TextClassifier", "text_loss", "frozen_states", "LoRA", "add_lora", "removal"]

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from course_utils.pretrained import Pretrained

LIMIT = 128  # tokens read of a text
HEAD = "head.safetensors"


class Batch(NamedTuple):
    """Texts as tensors.

    x is (B, T) ids, or (B, T, C) states that enter a layer; mask (B, 1, T) is True at tokens; targets are
    (B,) classes or (B, K) probabilities.
    """

    x: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor


# --- texts to batches ---------------------------------------------------------------------------------------


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], limit: int = LIMIT
) -> list[torch.Tensor]:
    """Each text's ids, (T,), between [CLS] and [SEP]; a warning says how many are cut to `limit` tokens.

    Raises:
        ValueError: no text, a single one, an empty one, or a limit with no room for a token.
    """
    rows = check_texts(texts)
    if limit < 3:
        raise ValueError(f"limit must leave room for a token between [CLS] and [SEP], got {limit}")
    ids = tokenizer(rows, verbose=False).input_ids
    if cut := sum(len(row) > limit for row in ids):
        warnings.warn(
            f"{cut} of {len(ids)} texts have more than {limit} tokens: the rest is not read", stacklevel=2
        )
    return [torch.tensor([*row[: limit - 1], row[-1]] if len(row) > limit else row) for row in ids]


class Examples:
    """Texts with their targets, and the function from the step to its batch.

    Attributes:
        rows: N tensors, (T,) ids or (T, C) states.
        lengths: (N,) tokens of each.
        targets: (N,) classes or (N, K) probabilities; zeros where they are asked for.
    """

    def __init__(
        self, rows: Sequence[torch.Tensor], targets: Sequence | np.ndarray | None = None, K: int = 2
    ) -> None:
        """Hold some examples.

        Args:
            rows: as `encode` or `frozen_states` gives.
            targets: classes in [0, K), or the probabilities of each.
            K: number of classes.

        Raises:
            ValueError: no rows, targets of another number, out of range or missing, or all of one class.
        """
        if not len(rows):
            raise ValueError("rows must hold at least one text's ids or states, got none")
        self.rows, self.lengths = list(rows), torch.tensor([len(row) for row in rows])
        self.targets = torch.zeros(len(rows), dtype=torch.int64)
        if targets is not None:
            self.targets = check_targets(targets, len(rows), K)

    def batch(self, indices: torch.Tensor) -> Batch:
        """The examples of these indices, padded to the longest."""
        x = pad_sequence([self.rows[i] for i in indices.tolist()], batch_first=True)  # (B, T) or (B, T, C)
        mask = padding_mask(self.lengths[indices], x.shape[1])
        return Batch(*(tensor.to(device()) for tensor in (x, mask, self.targets[indices])))

    def batches(self, B: int, seed: int = 0) -> Callable[[int], Batch]:
        """From the step to a batch of B texts of like length."""
        order = shuffled(len(self.rows), B, seed, self.lengths)
        return lambda step: self.batch(order(step))

    def in_order(self, B: int = 128) -> list[torch.Tensor]:
        """The indices of all, once each, B a batch, from short to long."""
        return list(self.lengths.argsort(stable=True).split(B))

    @torch.no_grad()
    def loss(self, model: nn.Module) -> float:
        """The model's mean cross-entropy over all examples, in nats."""
        parts = self.in_order()
        return sum(text_loss(model, self.batch(part)).item() * len(part) for part in parts) / len(self.rows)


def check_targets(targets: Sequence | np.ndarray, N: int, K: int) -> torch.Tensor:
    """Targets as a tensor; raises ValueError unless they are N classes in [0, K), or N rows of K chances."""
    try:
        values = np.asarray(targets, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"targets must be numbers: {error}") from None
    if values.shape not in ((N,), (N, K)):
        raise ValueError(f"targets must be (N = {N},) classes or (N, K = {K}), got shape {values.shape}")
    if missing := int(np.isnan(values).sum()):
        raise ValueError(f"targets must not be missing, got {missing} nan")
    if values.ndim == 2:
        if (values < 0).any() or not np.allclose(values.sum(axis=1), 1):
            raise ValueError("targets must be rows of probabilities: 0 or more, with a sum of 1")
        return torch.tensor(values, dtype=torch.float32)
    classes = np.unique(values)
    if not np.isin(classes, np.arange(K)).all():
        raise ValueError(f"targets must be whole numbers in [0, K = {K}), got {classes.tolist()[:8]}")
    if len(classes) < 2:
        raise ValueError(f"targets must hold two classes or more, got only class {int(classes[0])}")
    return torch.tensor(values, dtype=torch.int64)


# --- the model ----------------------------------------------------------------------------------------------


def mean_pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of each text's states (B, T, C) over its tokens, where mask (B, 1, T) is True: (B, C).

    Source: Reimers & Gurevych 2019, arXiv:1908.10084, section 3.
    """
    weights = mask.mT.to(states.dtype)  # (B, T, 1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


class TextClassifier(nn.Module):
    """An encoder, the mean of its states, and one linear layer on that.

    Source: Devlin et al. 2019, section 4.1, with the mean in place of the first token's state.
    """

    def __init__(self, encoder: Encoder, K: int = 2, start: int = 0, dropout: float = 0.1, seed: int = 0):
        """Put a head on an encoder.

        Args:
            encoder: is not copied, but trained; what is frozen in it already stays so.
            K: number of classes.
            start: the first layer that is trained; from 1 on, the embedding and the layers below stay as
                they are. The number of layers itself: only the head is trained.
            dropout: share of the pooled numbers dropped in training.
            seed: of the head's weights.

        Raises:
            ValueError: fewer than two classes, or no such layer.
        """
        super().__init__()
        layers = encoder.stack.layers
        check_choice(K, start, len(layers))
        self.encoder, self.start = encoder, start
        if start:
            encoder.embedding.requires_grad_(False)
            layers[:start].requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.embedding.tokens.embedding_dim, K)
        nn.init.normal_(self.head.weight, std=0.02, generator=generator(seed))
        nn.init.zeros_(self.head.bias)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """ids (B, T), or the states (B, T, C) that enter layer `start`; mask (B, 1, T) → logits (B, K)."""
        if x.is_floating_point():
            return self.read(x, mask, self.start)
        return self.read(self.encoder.embedding(x), mask, 0)  # ids: the whole way

    def read(self, x: torch.Tensor, mask: torch.Tensor, first: int) -> torch.Tensor:
        """States (B, T, C) that enter layer `first`, mask (B, 1, T) → logits (B, K)."""
        for layer in self.encoder.stack.layers[first:]:
            x = layer(x, mask=mask)
        return self.head(self.dropout(mean_pool(x, mask)))


def check_choice(K: int, start: int, layers: int) -> None:
    """Raises ValueError for fewer than two classes, or a first layer the encoder has not."""
    if K < 2:
        raise ValueError(f"K must be at least 2 classes, got {K}")
    if not 0 <= start <= layers:
        raise ValueError(f"start must lie in [0, {layers}], the encoder's layers, got {start}")


def text_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Cross-entropy, in nats a text, mean over the batch."""
    return F.cross_entropy(model(batch.x, batch.mask), batch.targets)


@torch.no_grad()
def chances(model: nn.Module, examples: Examples) -> np.ndarray:
    """The probability of each class for each text, (N, K), in the order given."""
    model.eval()
    parts = examples.in_order()
    logits = torch.cat([model(*examples.batch(part)[:2]).cpu().double() for part in parts])
    return logits[torch.cat(parts).argsort()].softmax(dim=-1).numpy()


@torch.no_grad()
def frozen_states(encoder: Encoder, rows: Sequence[torch.Tensor], start: int) -> list[torch.Tensor]:
    """What enters layer `start` for each row of ids, (T, C) each: the layers below are run once for all."""
    examples, found = Examples(rows), [None] * len(rows)
    for part in examples.in_order():
        ids, mask, _ = examples.batch(part)
        x = states_after(encoder.eval(), ids, mask, start).cpu()  # (B, T, C)
        for i, states in zip(part.tolist(), x, strict=True):
            found[i] = states[: examples.lengths[i]].clone()  # the padding goes
    return found


# --- a few new weights beside the old -----------------------------------------------------------------------


class LoRA(nn.Module):
    """A frozen linear layer plus a trained change of low rank: W x + b + (alpha / rank) B A x.

    Source: Hu et al. 2021, arXiv:2106.09685, equation (3); A random and B zero, so that it starts unchanged.
    """

    def __init__(self, linear: nn.Linear, rank: int = 8, alpha: float = 16.0, seed: int = 0) -> None:
        """seed: of A's numbers, uniform in ±1 / √(columns)."""
        super().__init__()
        bound = linear.in_features**-0.5
        self.linear, self.scale = linear.requires_grad_(False), alpha / rank
        self.A = nn.Parameter(torch.empty(rank, linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.uniform_(self.A, -bound, bound, generator=generator(seed))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., columns) → (..., rows)."""
        return self.linear(x) + self.scale * (x @ self.A.T) @ self.B.T  # (..., rank) in between

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One linear layer that does the same."""
        self.linear.weight += self.scale * self.B @ self.A
        return self.linear


def add_lora(encoder: Encoder, rank: int = 8, alpha: float = 16.0, seed: int = 0) -> Encoder:
    """Freeze an encoder and add to each layer's queries and values a trained change of low rank.

    Source: Hu et al. 2021, section 4.2 and table 5.

    Raises:
        ValueError: rank or alpha is not positive.
    """
    check_lora(rank, alpha)
    encoder.requires_grad_(False)
    for i, layer in enumerate(encoder.stack.layers):
        heads = layer.self_attention
        heads.query = LoRA(heads.query, rank, alpha, seed + 2 * i)
        heads.value = LoRA(heads.value, rank, alpha, seed + 2 * i + 1)
    return encoder.to(device())


def check_lora(rank: int, alpha: float) -> None:
    """Raises ValueError where rank or alpha is not positive."""
    for name, value in (("rank", rank), ("alpha", alpha)):
        if value <= 0:
            raise ValueError(f"{name} must be positive, got {value}")


def merge_lora(encoder: Encoder) -> Encoder:
    """Fold the changes into the weights they change, and take them away."""
    for layer in encoder.stack.layers:
        for name in ("query", "value"):
            if hasattr(part := getattr(layer.self_attention, name), "merged"):
                setattr(layer.self_attention, name, part.merged())
    return encoder


def trained(model: nn.Module) -> int:
    """How many of a model's numbers are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


# --- what each token weighs ---------------------------------------------------------------------------------


@torch.no_grad()
def removal(model: TextClassifier, ids: torch.Tensor, k: int) -> torch.Tensor:
    """For each token of a text how far the logit of class k falls when it is taken out, (T,).

    [CLS] and [SEP] are never taken out: 0. Source: Li, Monroe & Jurafsky 2016, arXiv:1612.08220.
    """
    without = [torch.cat([ids[:t], ids[t + 1 :]]) for t in range(1, len(ids) - 1)]
    examples = Examples([ids, *without])
    whole, *others = torch.cat(
        [model.eval()(*examples.batch(part)[:2])[:, k] for part in torch.arange(len(without) + 1).split(64)]
    ).cpu()
    falls = [whole - other for other in others]
    return torch.stack([whole * 0, *falls, whole * 0])  # (T,)


def gradient_times_input(model: TextClassifier, ids: torch.Tensor, k: int) -> torch.Tensor:
    """For each token of a text x · ∂logit/∂x, x its embedding, (T,): what it adds to the logit of class k.

    Source: as `sentiment.gradient_times_input`.
    """
    x = model.eval().encoder.embedding(ids[None].to(device())).detach().requires_grad_()  # (1, T, C)
    mask = torch.ones(1, 1, len(ids), dtype=torch.bool, device=x.device)
    (gradient,) = torch.autograd.grad(model.read(x, mask, 0)[0, k], x)
    return (x * gradient).sum(dim=-1)[0].detach().cpu()


# --- storing ------------------------------------------------------------------------------------------------


def save(model: TextClassifier, bert: Pretrained, names: Sequence[str], folder: Path) -> None:
    """Store a classifier as `transformers` stores a BERT, tokenizer included, with the head beside it.

    Args:
        model: without LoRA (`merge_lora` folds it in).
        bert: what its encoder came from, for the config and the tokenizer; its weights are overwritten.
        names: of the classes.
        folder: must not exist; appears when all is written.

    Raises:
        ValueError: another number of names than classes, or LoRA that is not folded in.
        FileExistsError: the folder is there.
    """
    if len(names) != model.head.out_features:
        raise ValueError(f"names must be one a class: {model.head.out_features}, got {len(names)}")
    if any(hasattr(part, "merged") for part in model.modules()):
        raise ValueError("model must hold no LoRA: merge_lora(model.encoder) folds it in")
    if (folder := Path(folder)).exists():
        raise FileExistsError(f"folder {folder.name} is there already: choose another, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as parts:
        theirs = to_bert(model.encoder, bert.model)
        theirs.config.id2label = dict(enumerate(names))
        with without_bars():
            theirs.save_pretrained(Path(parts, "whole"))
        bert.tokenizer.save_pretrained(Path(parts, "whole"))
        head = {name: p.detach().cpu().contiguous() for name, p in model.head.named_parameters()}
        save_file(head, Path(parts, "whole", HEAD))
        Path(parts, "whole").rename(folder)


def load(folder: Path) -> tuple[TextClassifier, PreTrainedTokenizerBase, list[str]]:
    """The classifier in a folder, in evaluation mode, its tokenizer and its classes' names.

    Raises:
        ValueError: the head's shape is not the encoder's width by the number of names.
        FileNotFoundError: the folder holds no head.
    """
    from transformers import AutoModel, AutoTokenizer

    if not Path(folder, HEAD).is_file():
        raise FileNotFoundError(f"folder {Path(folder).name} holds no {HEAD}: was it stored by `save`?")
    with without_bars():
        theirs, head = AutoModel.from_pretrained(folder, local_files_only=True), load_file(Path(folder, HEAD))
    names = list(theirs.config.id2label.values())
    wanted = (len(names), theirs.config.hidden_size)
    if tuple(head["weight"].shape) != wanted:
        raise ValueError(f"head must be {wanted} for this encoder, got {tuple(head['weight'].shape)}")
    model = TextClassifier(from_bert(theirs), len(names))
    model.head.load_state_dict(head)
    return model.to(device()).eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True), names
