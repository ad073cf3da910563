"""Good review or bad: texts as padded ids, a recurrent classifier, its loss and scores, what a word weighs.

Beside it what it has to beat: word and word-pair counts (TF-IDF) with logistic regression.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support
from sklearn.pipeline import Pipeline, make_pipeline
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from course_utils import corpora, text
from course_utils.attention import padding_mask
from course_utils.lstm import LSTMCell, Recurrent, initialise
from course_utils.runtime import device, generator
from course_utils.training import Options, shuffled

__taught__ = [
    "words",
    "encode",
    "review_batch",
    "Classifier",
    "classification_loss",
    "gradient_times_input",
    "occlusion",
]

PAD, UNKNOWN = 0, 1
KNOWN = 20_000  # of GloVe's words that have an id without having been trained on
LIMIT = 60  # words read of a text; one review of all has more, 63
POOLS = ("last", "max", "mean")
BATCH = 64
# Adam at 1e-3 without weight decay; 115 batches are an epoch of the 7,397 training reviews. The best of the
# validations, one an epoch, is kept, long before the learning rate has sunk much.
OPTIONS = Options(steps=3_450, lr=1e-3, warmup=0, weight_decay=0.0, betas=(0.9, 0.999), every=115, patience=3)
ENDING = r"n't|'(?:s|re|ve|ll|d|m)"


class Batch(NamedTuple):
    """Reviews as tensors: ids (B, T), lengths (B,), and what the model is to say, targets (B,) in [0, 1]."""

    ids: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor


# --- texts to batches ---------------------------------------------------------------------------------------


def words(review: str) -> list[str]:
    """A text's words as GloVe's were cut, lower case: "don't" is do n't, "it's" it 's, a mark is a word."""
    split = re.sub(rf"({ENDING})\b", r" \1", text.normalise(review))
    return re.findall(rf"(?:{ENDING})\b|\w+|''|\.\.\.|--|[^\w\s-]", split)


def word_ids(texts: Iterable[str], known: Iterable[str] = ()) -> dict[str, int]:
    """Word → id of all words of some texts, most frequent first, and then of those known beforehand.

    The ids 0 and 1 stay free for PAD and UNKNOWN.
    """
    seen = text.Vocabulary(map(words, check_texts(texts))).words
    return {word: i for i, word in enumerate(dict.fromkeys([*seen, *known]), start=2)}


def encode(review: str, ids: Mapping[str, int], limit: int = LIMIT) -> list[int]:
    """The ids of a text's first `limit` words; what lies beyond is not read. Other words are UNKNOWN."""
    return [ids.get(word, UNKNOWN) for word in words(review)[:limit]]


def check_texts(texts: Iterable[str]) -> list[str]:
    """The texts as a list; raises ValueError for a single text, none, or an empty one."""
    try:
        rows = [] if isinstance(texts, str | bytes) else list(texts)
    except TypeError:
        rows = []
    if not rows:
        raise ValueError(f"texts must be a list of one or more texts, got {texts!r:.80}")
    for i, row in enumerate(rows):
        if not isinstance(row, str) or not words(row):
            raise ValueError(f"texts must hold a word or a mark each, got {row!r:.80} at {i}")
    return rows


def review_batch(rows: Sequence[list[int]], targets: Sequence[float] | torch.Tensor | None = None) -> Batch:
    """Pad reviews to one length.

    Args:
        rows: B lists of ids.
        targets: (B,) the probability that a review is good, 0 or 1 where it is known; None where it is asked.

    Raises:
        ValueError: no row, an empty one, or targets of another number.
    """
    check_rows(rows, targets)
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)  # (B, T)
    lengths = torch.tensor([len(row) for row in rows])
    targets = torch.zeros(len(rows)) if targets is None else torch.as_tensor(targets, dtype=torch.float32)
    return Batch(*(tensor.to(device()) for tensor in (ids, lengths, targets)))


def check_rows(rows: Sequence[list[int]], targets: Sequence[float] | torch.Tensor | None) -> None:
    """Raises ValueError where rows of ids make no batch."""
    lists = isinstance(rows, list | tuple) and all(isinstance(row, list | tuple) for row in rows)
    if not lists or not all(text.is_whole(i) and i >= 0 for row in rows for i in row):
        raise ValueError(f"rows must be lists of ids, whole numbers from 0, got {rows!r:.80}")
    if not rows or not all(rows):
        raise ValueError(f"rows must be one or more lists of ids, none of length 0, got {[*map(len, rows)]}")
    if targets is None:
        return
    if as_array("targets", targets).ndim and len(targets) != len(rows):
        raise ValueError(f"targets must be one a row: {len(rows)}, got {len(targets)}")
    check_probabilities("targets", targets, len(rows))


class Reviews:
    """One side of the split as ids, and the function from the step to its batch.

    Attributes:
        rows: N lists of ids.
        lengths: (N,) words of each.
        labels: (N,) 1 good, 0 bad.
        targets: (N,) what is learnt, the labels where nothing else was given.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[int] | np.ndarray,
        ids: Mapping[str, int],
        targets: Sequence[float] | np.ndarray | None = None,
        limit: int = LIMIT,
    ) -> None:
        """Encode some reviews.

        Raises:
            ValueError: an empty text, a label other than 0 and 1, targets outside [0, 1], or too few.
        """
        self.rows = [encode(review, ids, limit) for review in check_texts(texts)]
        self.lengths = torch.tensor([len(row) for row in self.rows])
        self.labels = check_labels(labels, len(self.rows))
        self.targets = torch.as_tensor(self.labels, dtype=torch.float32)
        if targets is not None:
            check_probabilities("targets", targets, len(self.rows))
            self.targets = torch.tensor(np.asarray(targets), dtype=torch.float32)

    def batch(self, indices: torch.Tensor) -> Batch:
        """The reviews of these indices."""
        return review_batch([self.rows[i] for i in indices.tolist()], self.targets[indices])

    def batches(self, B: int = BATCH, seed: int = 0) -> Callable[[int], Batch]:
        """From the step to a batch of B reviews of like length."""
        order = shuffled(len(self.rows), B, seed, self.lengths)
        return lambda step: self.batch(order(step))

    @torch.no_grad()
    def loss(self, model: nn.Module) -> float:
        """The model's mean cross-entropy over all these reviews, in nats a review."""
        parts = self.lengths.argsort(stable=True).split(256)
        sums = [float(classification_loss(model, self.batch(part))) * len(part) for part in parts]
        return sum(sums) / len(self.rows)


def check_labels(labels: Sequence[int] | np.ndarray, N: int) -> np.ndarray:
    """Labels as (N,) whole numbers; raises ValueError for others than 0 and 1, or another number of them."""
    row = as_array("labels", labels)
    if others := list(dict.fromkeys(repr(label) for label in row.ravel().tolist() if label not in (0, 1))):
        raise ValueError(f"labels must be zeros and ones, got {', '.join(others[:5])}")
    if row.shape != (N,):
        raise ValueError(f"labels must be (N = {N},) zeros and ones, got shape {row.shape}")
    return row.astype(int)


def as_array(name: str, values: object, kind: type | None = None) -> np.ndarray:
    """Values as an array; raises ValueError, with their name, where they make none of that kind."""
    try:
        return np.asarray(values, kind)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # rows of different lengths, words, tensors
        raise ValueError(f"{name} must be a row of numbers, got {values!r:.80}") from None


def check_probabilities(name: str, values: Sequence[float] | np.ndarray, N: int) -> np.ndarray:
    """Values as (N,) floats; raises ValueError where one is no probability, or for another number of them."""
    row = as_array(name, values, float)
    if row.shape != (N,) or not ((row >= 0) & (row <= 1)).all():
        raise ValueError(f"{name} must be (N = {N},) numbers in [0, 1], got shape {row.shape}")
    return row


def graded(ratings: Sequence[float] | np.ndarray) -> np.ndarray:
    """σ(mean rating) in place of 0 or 1, (N,): a review nobody was sure of does not count as a sure one."""
    return 1 / (1 + np.exp(-np.asarray(ratings, float)))


def glove_vectors(ids: Mapping[str, int], seed: int = 0) -> torch.Tensor:
    """(V, 50): GloVe's vector of each word; a word it lacks, drawn as widely; PAD and UNKNOWN 0.

    Raises ValueError where GloVe has none of the words.
    """
    known, table = corpora.glove()
    if not (found := [(ids[word], i) for i, word in enumerate(known) if word in ids]):
        raise ValueError(f"ids must hold a word that GloVe has, got {len(ids)} others")
    rows, places = (list(part) for part in zip(*found, strict=True))
    own = torch.from_numpy(table[places])
    vectors = random_vectors(max(ids.values()) + 1, own.shape[1], seed) * own.std()
    vectors[rows] = own
    vectors[[PAD, UNKNOWN]] = 0.0
    return vectors


def random_vectors(V: int, D: int = 50, seed: int = 0) -> torch.Tensor:
    """(V, D) draws from the standard normal distribution."""
    return torch.randn(V, D, generator=generator(seed))


# --- the model ----------------------------------------------------------------------------------------------


class Classifier(nn.Module):
    """Word vectors, an LSTM over them, one vector from all its outputs, one number: the logit of "good".

    Source: Hochreiter & Schmidhuber 1997 (LSTM); Conneau et al. 2017, arXiv:1705.02364 (maximum over time).
    """

    def __init__(
        self,
        vectors: torch.Tensor,
        C: int = 64,
        pool: str = "max",
        bidirectional: bool = True,
        dropout: float = 0.3,
        variational: bool = True,
        frozen: bool = False,
        seed: int = 0,
    ) -> None:
        """Draw a classifier.

        Args:
            vectors: (V, D) to start from.
            C: width of the LSTM, of each of its directions.
            pool: "last" reads each direction's last state, "max" and "mean" all its outputs.
            bidirectional: whether the LSTM also reads backwards.
            dropout: share dropped of the word vectors, of h in the gates, and of the pooled outputs.
            variational: one mask for all words of a review; otherwise a new one each word.
            frozen: leave the word vectors as they are.
            seed: of the LSTM's and the last layer's weights.

        Raises:
            ValueError: no such pool, or as `Recurrent`.
        """
        super().__init__()
        check_pool(pool)
        self.pool = pool
        self.tokens = nn.Embedding.from_pretrained(vectors.clone(), freeze=frozen)
        self.recurrent = Recurrent(
            LSTMCell, vectors.shape[1], C, 1, bidirectional, dropout, variational, 2 * seed
        )
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(C * self.recurrent.directions, 1)
        initialise(self.score, C, 2 * seed + 1)

    def read(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Word vectors x (B, T, D) and lengths (B,) → logits (B,)."""
        y, (h, _) = self.recurrent(x, lengths=lengths)  # (B, T, directions * C), (directions, B, C)
        if self.pool == "last":
            pooled = h.transpose(0, 1).flatten(1)
        elif self.pool == "mean":
            pooled = y.sum(dim=1) / lengths[:, None]  # y is 0 at padding
        else:
            alive = padding_mask(lengths, y.shape[1]).mT  # (B, T, 1)
            pooled = y.masked_fill(~alive, -torch.inf).amax(dim=1)
        return self.score(self.dropout(pooled)).squeeze(-1)  # (B, directions * C) -> (B,)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """ids (B, T), lengths (B,) → logits (B,): log p / (1 - p) of "good"."""
        return self.read(self.tokens(ids), lengths)


def check_pool(pool: str) -> None:
    """Raises ValueError where the classifier has no such pool."""
    if pool not in POOLS:
        raise ValueError(f"pool must be one of {', '.join(POOLS)}, got {pool!r}")


def classification_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Binary cross-entropy, −y log p − (1 − y) log(1 − p), mean over the batch; p = σ(logit)."""
    return F.binary_cross_entropy_with_logits(model(batch.ids, batch.lengths), batch.targets)


@torch.no_grad()
def probabilities(
    model: nn.Module, texts: Sequence[str], ids: Mapping[str, int], limit: int = LIMIT
) -> np.ndarray:
    """The probability that each text is a good review, (N,), in the order given.

    A text of unknown words alone is read as that many UNKNOWNs.

    Raises:
        ValueError: no text, a single one, or an empty one.
    """
    rows = [encode(review, ids, limit) for review in check_texts(texts)]
    order = torch.tensor([len(row) for row in rows]).argsort(stable=True)
    found = torch.empty(
        len(rows), dtype=torch.float64
    )  # in float32 a sure one would round to 1, its loss to ∞
    for part in order.split(256):
        batch = review_batch([rows[i] for i in part.tolist()])
        found[part] = model.eval()(batch.ids, batch.lengths).cpu().double().sigmoid()
    return found.numpy()


def scores(labels: Sequence[int] | np.ndarray, chances: Sequence[float] | np.ndarray) -> dict[str, object]:
    """How right the probabilities of "good" are, the line drawn at 0.5.

    Returns:
        n, accuracy, precision, recall and F1 of "good", log loss in nats, and the confusion matrix
        [[bad said bad, bad said good], [good said bad, good said good]].

    Raises:
        ValueError: labels other than 0 and 1, or not one probability each.
    """
    truth = check_labels(labels, len(labels))
    chances = check_probabilities("chances", chances, len(truth))
    said = (chances > 0.5).astype(int)
    precision, recall, f1, _ = precision_recall_fscore_support(truth, said, average="binary", zero_division=0)
    return {
        "n": len(truth),
        "accuracy": float(accuracy_score(truth, said)),
        "precision": float(precision),
        "recall": float(recall),
        "F1": float(f1),
        "log loss": float(log_loss(truth, chances, labels=[0, 1])),
        "confusion": confusion_matrix(truth, said, labels=[0, 1]).tolist(),
    }


# --- what each word weighs ----------------------------------------------------------------------------------


def gradient_times_input(model: Classifier, row: list[int]) -> torch.Tensor:
    """For each word of a review x · ∂logit/∂x, (T,): what it adds to the logit, to first order.

    Source: Denil, Demiraj & de Freitas 2014, arXiv:1412.6815; Shrikumar et al. 2016, arXiv:1605.01713.
    """
    batch = review_batch([row])
    x = model.eval().tokens(batch.ids).detach().requires_grad_()  # (1, T, D)
    (gradient,) = torch.autograd.grad(model.read(x, batch.lengths).sum(), x)
    return (x * gradient).sum(dim=-1)[0].detach().cpu()


@torch.no_grad()
def occlusion(model: Classifier, row: list[int]) -> torch.Tensor:
    """For each word of a review how far the logit falls where UNKNOWN stands in its place, (T,).

    Source: Zeiler & Fergus 2014, arXiv:1311.2901; for words Li, Monroe & Jurafsky 2016, arXiv:1612.08220.
    """
    covered = [[*row[:t], UNKNOWN, *row[t + 1 :]] for t in range(len(row))]
    batch = review_batch([row, *covered])
    whole, *others = model.eval()(batch.ids, batch.lengths).cpu()  # 1 + T logits
    return whole - torch.stack(others)


# --- what it has to beat ------------------------------------------------------------------------------------


def baseline(
    texts: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    C: float = 30.0,
    targets: Sequence[float] | np.ndarray | None = None,
) -> Pipeline:
    """TF-IDF of words and pairs of words, and logistic regression; `.predict_proba(texts)[:, 1]` asks it.

    Args:
        texts: N reviews.
        labels: (N,) zeros and ones.
        C: how weak the pull of the weights to 0 is.
        targets: (N,) probabilities to learn in the labels' place: each review counts as good with this
            weight, and as bad with the rest.

    Raises:
        ValueError: as `Reviews`.
    """
    rows = check_texts(texts)
    y, weight = check_labels(labels, len(rows)), None
    if targets is not None:
        share = check_probabilities("targets", targets, len(rows))
        rows, y = rows * 2, np.repeat([1, 0], len(share))
        weight = np.concatenate([share, 1 - share])
    return word_counts(C).fit(rows, y, logisticregression__sample_weight=weight)


def word_counts(C: float = 30.0) -> Pipeline:
    """TF-IDF of words and pairs of words, and logistic regression, for any number of classes; not fitted."""
    return make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=C, max_iter=3000))
