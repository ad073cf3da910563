"""Experiments longer than a page's budget: `make results` runs them and stores what the pages plot.

`python -m course_utils.results [NAME …]` writes data/results/NAME.json with command, versions, seeds, seconds
and date. A row that is already there under the same versions is kept, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from gensim.models import Word2Vec
from scipy.stats import spearmanr

from course_utils import corpora, runtime, text
from course_utils import word_vectors as wv

FOLDER = runtime.DATA / "results"
PACKAGES = ("gensim", "numpy", "scipy", "scikit-learn", "torch")
Row = dict[str, object]
Task = tuple[Row, Callable[[], Row]]  # what names a row, and how to measure it


def load(name: str) -> dict:
    """A stored result: command, versions, seconds, date and rows.

    Raises:
        FileNotFoundError: no such result; says how to make it.
    """
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no stored result {name!r}: python -m course_utils.results {name}")
    return json.loads(path.read_text("utf-8"))


def run(name: str) -> None:
    """Run what an experiment lacks, storing after each row."""
    path = FOLDER / f"{name}.json"
    versions = {package: version(package) for package in PACKAGES} | {"python": platform.python_version()}
    old = load(name) if path.is_file() else {}
    done = old.get("rows", []) if old.get("versions") == versions else []
    tasks = list(EXPERIMENTS[name]())
    rows = [next((row for row in done if key.items() <= row.items()), None) for key, _ in tasks]
    head = {"command": f"python -m course_utils.results {name}", "versions": versions}
    for i, (key, measure) in enumerate(tasks):
        if rows[i] is None:
            start = time.perf_counter()
            rows[i] = key | measure()
            rows[i]["seconds"] = round(time.perf_counter() - start, 1)
            print(json.dumps(rows[i]), flush=True)
            _store(path, head | {"rows": [row for row in rows if row]})
    _store(path, head | {"rows": rows})  # once more: rows no experiment asks for any longer are gone


def _store(path: Path, result: dict) -> None:
    result = {
        "date": date.today().isoformat(),
        "seconds": round(sum(r["seconds"] for r in result["rows"])),
    } | result
    path.parent.mkdir(exist_ok=True)
    partial_file = path.with_suffix(".partial")
    partial_file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    partial_file.replace(path)


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


EXPERIMENTS: dict[str, Callable[[], Iterator[Task]]] = {"word_vectors": word_vectors}


def main() -> None:
    """Run the named experiments, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m course_utils.results", description=__doc__.splitlines()[0]
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(EXPERIMENTS)}; all where none is given")
    names = parser.parse_args().names or list(EXPERIMENTS)
    if unknown := set(names) - set(EXPERIMENTS):
        parser.error(f"no experiment {', '.join(sorted(unknown))}; there is {', '.join(EXPERIMENTS)}")
    for name in names:
        run(name)


if __name__ == "__main__":
    main()
