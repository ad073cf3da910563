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
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from course_utils import runtime
from course_utils.experiments import Task, nb01, nb03, nb03b, nb04, nb04b, nb05, nb06, nb07
from course_utils.experiments.nb01 import CBOW, SKIP_GRAM

__all__ = ["CBOW", "EXPERIMENTS", "SKIP_GRAM", "Experiment", "load", "run"]

FOLDER = runtime.DATA / "results"


class Experiment(NamedTuple):
    """What yields the tasks, and the packages whose versions the results depend on."""

    tasks: Callable[[], Iterator[Task]]
    packages: tuple[str, ...]


TUNING = ("numpy", "scikit-learn", "tokenizers", "torch", "transformers")
EXPERIMENTS = {
    "word_vectors": Experiment(nb01.word_vectors, ("gensim", "numpy", "scipy", "scikit-learn", "torch")),
    "ablations": Experiment(nb03.ablations, ("numpy", "sacrebleu", "tokenizers", "torch")),
    "translation": Experiment(nb03b.translations, ("numpy", "sacrebleu", "tokenizers", "torch")),
    "story_models": Experiment(nb04.story_models, ("numpy", "tokenizers", "torch")),
    "recall": Experiment(nb04.recalls, ("numpy", "torch")),
    "truncation": Experiment(nb04.truncations, ("numpy", "tokenizers", "torch")),
    "bridge": Experiment(nb04.bridges, ("numpy", "torch")),
    "gan_line": Experiment(nb05.lines, ("numpy", "scipy", "torch")),
    "gan_text": Experiment(nb05.texts, ("numpy", "sacrebleu", "torch")),
    "gan_stories": Experiment(nb05.stories, ("numpy", "sacrebleu", "torch")),
    "hidden_words": Experiment(nb06.hidings, TUNING),
    "tuning_search": Experiment(nb06.search, TUNING),
    "tuning": Experiment(nb06.tunings, TUNING),
    "few_labels": Experiment(nb06.curve, TUNING),
    "listing_faults": Experiment(nb06.faults, TUNING),
    "other_tasks": Experiment(nb06.transfers, TUNING),
    "decodings": Experiment(nb07.decodings, ("numpy", "sacrebleu", "tokenizers", "torch")),
    "swaps": Experiment(nb07.swaps, ("numpy", "tokenizers", "torch")),
    "reviews": Experiment(nb04b.classifications, ("numpy", "scikit-learn", "torch")),
}


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
    path, experiment = FOLDER / f"{name}.json", EXPERIMENTS[name]
    versions = {package: version(package) for package in experiment.packages} | {
        "python": platform.python_version()
    }
    old = load(name) if path.is_file() else {}
    done = old.get("rows", []) if old.get("versions") == versions else []
    tasks = list(experiment.tasks())
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
