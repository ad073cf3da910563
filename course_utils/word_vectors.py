"""Word vectors: skip-gram with negative sampling, counting (PPMI and SVD), and how to score them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from gensim.models import KeyedVectors
from gensim.test.utils import datapath
from sklearn.utils.extmath import randomized_svd
from torch import nn
from torch.nn import functional as F

from course_utils.ngram import as_ids
from course_utils.text import check_whole, is_whole

__taught__ = [
    "skip_gram_pairs",
    "sgns_loss",
    "sgns_gradients",
    "noise_distribution",
    "SkipGram",
    "cooccurrences",
    "ppmi",
    "svd_vectors",
    "similarities",
    "score",
]


def skip_gram_pairs(ids: list[int], window: int) -> list[tuple[int, int]]:
    """Every (centre, context) pair of a sentence, context at most `window` words away.

    Raises:
        ValueError: window is less than 1.
    """
    check_window(window)
    return [
        (centre, ids[j])
        for i, centre in enumerate(ids)
        for j in range(max(0, i - window), min(len(ids), i + window + 1))
        if j != i
    ]


def sgns_loss(v: np.ndarray, u: np.ndarray, negatives: np.ndarray) -> float:
    """Negative-sampling loss of one pair: −log σ(u·v) − Σₖ log σ(−uₖ·v).

    Args:
        v: (C,) the centre word's vector.
        u: (C,) the true context word's output vector.
        negatives: (K, C) output vectors of K words drawn from the noise distribution.

    Source: Mikolov et al. 2013 (NIPS), equation (4), with the sign turned.
    """
    agree = np.logaddexp(0, -(u @ v))  # −log σ(x) = log(1 + e^−x)
    differ = np.logaddexp(0, negatives @ v).sum()
    return float(agree + differ)


def sgns_gradients(
    v: np.ndarray, u: np.ndarray, negatives: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of sgns_loss with respect to v (C,), u (C,) and the negatives (K, C)."""
    outputs = np.vstack([u, negatives])  # (1 + K, C)
    labels = np.array([1.0] + [0.0] * len(negatives))  # (1 + K,)
    error = 1 / (1 + np.exp(-outputs @ v)) - labels  # (1 + K,): σ(u·v) − label
    to_outputs = np.outer(error, v)  # (1 + K, C)
    return error @ outputs, to_outputs[0], to_outputs[1:]


def noise_distribution(counts: np.ndarray, power: float = 0.75) -> np.ndarray:
    """Probabilities (V,) negatives are drawn with: counts^¾, normalised.

    Raises:
        ValueError: a count is negative, or none is positive.

    Source: Mikolov et al. 2013 (NIPS), section 2.2.
    """
    check_counts(counts)
    weights = counts.astype(float) ** power
    return weights / weights.sum()


class SkipGram(nn.Module):
    """Skip-gram with negative sampling: an input and an output vector for each word.

    Args:
        V: vocabulary size.
        C: vector length.
        generator: CPU generator for the initial vectors.

    Source: Mikolov et al. 2013 (NIPS), section 2.2.
    """

    def __init__(self, V: int, C: int, generator: torch.Generator) -> None:
        super().__init__()
        self.input = nn.Parameter((torch.rand(V, C, generator=generator) - 0.5) / C)  # (V, C)
        self.output = nn.Parameter(torch.zeros(V, C))  # (V, C)

    def forward(self, centres: torch.Tensor, contexts: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch: centres (B,), contexts (B,), negatives (B, K) → scalar."""
        v = F.embedding(centres, self.input)  # (B, C)
        agree = (v * F.embedding(contexts, self.output)).sum(-1)  # (B,)
        u = F.embedding(negatives, self.output)  # (B, K, C)
        differ = (u @ v[:, :, None]).squeeze(-1)  # (B, K, C) @ (B, C, 1) -> (B, K)
        return -(F.logsigmoid(agree) + F.logsigmoid(-differ).sum(-1)).mean()


def cooccurrences(sentences: list[list[int]], V: int, window: int) -> sp.csr_matrix:
    """How often each word meets each other one within `window` words, nearer counting more.

    Distance d counts (window + 1 − d) / window: what word2vec's randomly shrunk window gives on average.

    Args:
        sentences: word ids.
        V: vocabulary size.

    Returns:
        (V, V) symmetric counts.

    Raises:
        ValueError: there is no sentence, an id is not one of 0 … V − 1, or window is less than 1.

    Source: Levy, Goldberg & Dagan 2015, section 3.1 (dynamic context window).
    """
    check_corpus(sentences, V, window)
    gap = [-1] * window  # keeps the end of one sentence away from the start of the next
    stream = np.concatenate([np.array([*ids, *gap], dtype=np.int32) for ids in sentences])
    total = sp.csr_matrix((V, V))
    for d in range(1, window + 1):
        left, right = stream[:-d], stream[d:]
        ok = (left >= 0) & (right >= 0)
        near = np.full(ok.sum(), (window + 1 - d) / window)
        total += sp.coo_matrix((near, (left[ok], right[ok])), shape=(V, V)).tocsr()
    return (total + total.T).tocsr()


def ppmi(counts: sp.csr_matrix, power: float = 0.75) -> sp.csr_matrix:
    """Positive pointwise mutual information, max(0, log P(w, c) / (P(w) Pₐ(c))), of co-occurrences (V, V).

    Pₐ(c) = n(c)ᵃ / Σ n(c′)ᵃ smooths the contexts, with a = `power`.

    Raises:
        ValueError: a count is negative, or none is positive.

    Source: Levy, Goldberg & Dagan 2015, section 3.2 (context distribution smoothing).
    """
    joint = counts.tocoo()
    rows = np.asarray(counts.sum(1)).ravel()  # (V,)
    contexts = noise_distribution(np.asarray(counts.sum(0)).ravel(), power)  # (V,)
    pmi = np.log(joint.data / (rows[joint.row] * contexts[joint.col]))
    keep = pmi > 0
    return sp.csr_matrix((pmi[keep], (joint.row[keep], joint.col[keep])), shape=counts.shape)


def svd_vectors(matrix: sp.csr_matrix, C: int, seed: int = 0) -> np.ndarray:
    """Vectors (V, C): the C leading left singular vectors, each times the root of its singular value.

    Raises:
        ValueError: C is not one of 1 … V.

    Source: Levy, Goldberg & Dagan 2015, section 3.3 (eigenvalue weighting ½).
    """
    check_width(matrix, C)
    U, s, _ = randomized_svd(matrix, C, n_iter=3, random_state=seed)
    return U * np.sqrt(s)


def similarities(words: list[str], vectors: np.ndarray, test: str = "wordsim353.tsv") -> np.ndarray:
    """People's judgement and the vectors' cosine, for each pair of a test whose two words are known.

    Args:
        words: (V,) lower case.
        vectors: (V, C).
        test: a file of gensim's test data: two words and a judgement a line.

    Returns:
        (2, pairs): judgements, cosines.

    Raises:
        ValueError: there is not one vector a word, or a word comes twice.
    """
    check_vectors(words, vectors)
    unit = dict(zip(words, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True))
    lines = Path(datapath(test)).read_text("utf-8").lower().splitlines()
    rows = [line.split("\t") for line in lines if line[0] != "#"]
    known = [(float(judged), unit[a] @ unit[b]) for a, b, judged in rows if a in unit and b in unit]
    return np.array(known).reshape(-1, 2).T  # (2, pairs)


def score(words: list[str], vectors: np.ndarray, analogies: int = 10_000) -> dict[str, float]:
    """How well vectors (V, C) match people's judgements.

    Args:
        words: (V,) most frequent first.
        vectors: (V, C).
        analogies: how many of the most frequent words may answer an analogy; 0 skips them.

    Returns:
        Spearman's ρ on WordSim-353 and SimLex-999, the share of analogies right.

    Raises:
        ValueError: there is not one vector a word, a word comes twice, or a test has no known pair.
    """
    check_vectors(words, vectors)
    kv = KeyedVectors(vectors.shape[1])
    kv.add_vectors(words, vectors)
    row = {
        name: float(kv.evaluate_word_pairs(datapath(file), restrict_vocab=len(kv))[1][0])
        for name, file in [("wordsim", "wordsim353.tsv"), ("simlex", "simlex999.txt")]
    }
    if analogies:
        row["analogies"] = kv.evaluate_word_analogies(datapath("questions-words.txt"), analogies)[0]
    return row


def check_window(window: int) -> None:
    """Raises ValueError where a window reaches no neighbour."""
    if not is_whole(window) or window > 2**31:
        raise ValueError(f"window must be a whole number of words, got {window!r:.80}")
    if window < 1:
        raise ValueError(f"window must be at least 1 word, got {window}")


def check_corpus(sentences: list[list[int]], V: int, window: int) -> None:
    """Raises ValueError where the arguments of `cooccurrences` do not fit together."""
    check_window(window)
    check_whole("V", V, 1)
    if V > 2**31:
        raise ValueError(f"V must fit 31 bits, got {V!r:.80}")
    if not isinstance(sentences, list | tuple) and not (isinstance(sentences, np.ndarray) and sentences.ndim):
        raise ValueError(f"sentences must be a list of lists of ids, got {sentences!r:.80}")
    if not len(sentences):
        raise ValueError("sentences must hold at least one sentence, got none")
    for ids in sentences:
        as_ids("sentences", ids, V, fewest=0)


def check_counts(counts: np.ndarray) -> None:
    """Raises ValueError where counts make no probabilities."""
    if not isinstance(counts, np.ndarray) or counts.dtype.kind not in "biuf" or counts.ndim != 1:
        raise ValueError(f"counts must be an array of numbers, (V,), got {counts!r:.80}")
    if np.isinf(counts).any():
        raise ValueError("counts must be finite, and one of them is not")
    if not (counts >= 0).all() or not (counts > 0).any():
        raise ValueError("counts must be 0 or more, and one of them positive")


def check_width(matrix: sp.csr_matrix, C: int) -> None:
    """Raises ValueError where a matrix has no C singular vectors."""
    if not is_whole(C) or not 1 <= C <= min(matrix.shape):
        raise ValueError(f"C must be from 1 to {min(matrix.shape)}, the matrix's size, got {C!r:.80}")


def check_vectors(words: list[str], vectors: np.ndarray) -> None:
    """Raises ValueError where vectors do not belong to words one to one."""
    if not isinstance(vectors, np.ndarray) or vectors.dtype.kind not in "biuf" or vectors.ndim != 2:
        raise ValueError(f"vectors must be an array of numbers, (V, C), got {vectors!r:.80}")
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"words must be a list of words, got {words!r:.80}")
    if len(words) != len(vectors):
        raise ValueError(f"vectors must have one row a word, got {len(vectors)} rows and {len(words)} words")
    if len(set(words)) != len(words):
        raise ValueError("words must differ, and one of them comes twice")
