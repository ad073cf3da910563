"""Notebook 01's long comparison: word vectors by five roads, over seeds and over settings."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import numpy as np
from gensim.models import Word2Vec
from scipy.stats import spearmanr

from course_utils import corpora, text
from course_utils import word_vectors as wv
from course_utils.experiments import Row, Task


@cache
def _corpus() -> tuple[list[list[str]], text.Vocabulary]:
    corpus = list(text.tokenised(corpora.wikipedia_articles()))
    return corpus, text.Vocabulary(corpus, min_count=5)


def _measured(words: list[str], vectors: np.ndarray) -> Row:
    """Scores, and WordSim-353's two halves: settings are chosen on one, and so may be told on the other."""
    judged, cosine = wv.similarities(words, vectors)
    extra = {"wordsim_choose": spearmanr(judged[::2], cosine[::2])[0]}
    extra["wordsim_hold"] = spearmanr(judged[1::2], cosine[1::2])[0]
    extra["pairs"] = len(judged)
    return {k: round(float(v), 4) for k, v in (wv.score(words, vectors) | extra).items()}


def _word2vec(seed: int, share: float = 1.0, **settings: float) -> Row:
    corpus, _ = _corpus()
    if share < 1:
        drawn = np.random.default_rng(seed).random(len(corpus)) < share
        corpus = [sentence for sentence, taken in zip(corpus, drawn, strict=True) if taken]
    model = Word2Vec(corpus, vector_size=100, window=5, min_count=5, workers=1, seed=seed, **settings)
    return _measured(model.wv.index_to_key, model.wv.vectors)


def _counted(seed: int) -> Row:
    corpus, vocabulary = _corpus()
    counts = wv.cooccurrences([vocabulary.encode(s) for s in corpus], len(vocabulary), window=5)
    return _measured(vocabulary.words, wv.svd_vectors(wv.ppmi(counts), 100, seed))


def _random(seed: int) -> Row:
    vocabulary = _corpus()[1]
    return _measured(vocabulary.words, np.random.default_rng(seed).normal(size=(len(vocabulary), 100)))


def _glove() -> Row:
    """GloVe's vectors of our words, in our order: the analogies' most frequent words are then the same."""
    words, vectors = corpora.glove()
    place = {word: i for i, word in enumerate(words)}
    shared = [word for word in _corpus()[1].words if word in place]
    return _measured(shared, np.asarray(vectors[[place[word] for word in shared]]))


SKIP_GRAM = {"sg": 1, "epochs": 3, "sample": 3e-5, "alpha": 0.1}
CBOW = {"sg": 0, "epochs": 5, "sample": 1e-4, "alpha": 0.1}


def word_vectors() -> Iterator[Task]:
    """Notebook 01: each model over five seeds, GloVe once, skip-gram on less text, the settings tried."""
    yield {"model": "GloVe 6B"}, _glove
    for seed in range(5):
        yield {"model": "random", "seed": seed}, partial(_random, seed)
        yield {"model": "PPMI + SVD", "seed": seed}, partial(_counted, seed)
        yield {"model": "CBOW", "seed": seed, **CBOW}, partial(_word2vec, seed, **CBOW)
        yield {"model": "skip-gram", "seed": seed, **SKIP_GRAM}, partial(_word2vec, seed, **SKIP_GRAM)
    for seed in range(3):
        for share in (1 / 8, 1 / 4, 1 / 2):
            passes = round(SKIP_GRAM["epochs"] / share)  # as many steps on less text: only the text differs
            settings = SKIP_GRAM | {"epochs": passes}
            key = {"share": share, "seed": seed, **settings}
            yield key, partial(_word2vec, seed, share, **settings)
    for sg in (1, 0):
        for alpha in (0.025, 0.05, 0.1):
            for sample in (1e-3, 1e-4, 3e-5):
                settings = {"sg": sg, "epochs": 3 if sg else 5, "sample": sample, "alpha": alpha}
                yield {"search": True, **settings}, partial(_word2vec, 0, **settings)
