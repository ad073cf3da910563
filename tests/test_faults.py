"""A restless reader, who interrupts, repeats, jumps back and restarts; two pages at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from reader import Reader, code_cells, page, reading, tags

from course_utils import data, sync

PATIENCE = 2.0  # seconds a cell may run before the reader interrupts it
# Imported before anything is interrupted: a library whose import breaks off half-way is broken until the
# kernel restarts, and no page can help that.
LIBRARIES = """
import gensim.models, matplotlib.pyplot, pandas, peft, sacrebleu, scipy.stats, sklearn.linear_model, torch
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import AutoTokenizer, BertModel, GPT2LMHeadModel, LlamaForCausalLM, Trainer
"""
each = pytest.mark.parametrize("path", sync.notebooks(), ids=lambda path: path.stem)


def is_claim(cell: nbformat.NotebookNode) -> bool:
    return any(tag.startswith("claim-") for tag in tags(cell))


def stored(cell: nbformat.NotebookNode) -> str:
    return "\n".join(output.data["text/plain"] for output in cell.outputs if "data" in output)


def read_restlessly(reader: Reader, cells: list[nbformat.NotebookNode]) -> None:
    """Run each cell twice, one still running after PATIENCE interrupted first; then jump back to each claim.

    The verdicts must be the stored ones each time.
    """
    for cell in cells:
        impatient = reader.run(cell.source, PATIENCE).error
        for _ in range(2 if impatient else 1):
            shown = reader.must_run(cell).shown
        if is_claim(cell):
            assert shown == stored(cell)
    for cell in reversed([cell for cell in cells if is_claim(cell)]):
        assert reader.must_run(cell).shown == stored(cell)


def test_a_page_bears_a_restless_reader(tmp_path: Path):
    with reading(tmp_path) as reader:
        cells = code_cells(page("02"))
        for cell in cells[: len(cells) // 2]:
            reader.must_run(cell)
        reader.restart()
        reader.run(LIBRARIES)
        read_restlessly(reader, cells)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@each
def test_each_page_bears_a_restless_reader(tmp_path: Path, path: Path):
    with reading(tmp_path) as reader:
        reader.run(LIBRARIES)
        read_restlessly(reader, code_cells(path))


@pytest.mark.slow
def test_training_that_was_interrupted_is_run_again(tmp_path: Path):
    """Page 03: interrupted in its training's first second, its cell run again gives what the page stores."""
    cells = code_cells(page("03"))
    (training,) = (k for k, cell in enumerate(cells) if "history = train(" in cell.source)
    with reading(tmp_path) as reader:
        for cell in cells[:training]:
            reader.must_run(cell)
        assert reader.run(cells[training].source, patience=1).error.startswith("KeyboardInterrupt")
        for cell in cells[training : training + 4]:
            ran = reader.must_run(cell)
            assert ran.shown == stored(cell) or "nbval-ignore-output" in tags(cell)


@pytest.mark.slow
def test_two_pages_at_once_parse_glove_into_one_cache(tmp_path: Path):
    """Two kernels ask for the vectors that neither finds parsed."""
    source = data.fetch("glove-50d")
    cache = tmp_path / "cache"
    (cache / source.parent.name).mkdir(parents=True)
    (cache / source.parent.name / source.name).symlink_to(source)
    code = "from course_utils import corpora\nwords, vectors = corpora.glove(1000)\nlen(words), vectors.sum()"
    here = {"COURSE_CACHE": str(cache)}
    with reading(tmp_path, **here) as one, reading(tmp_path, **here) as two, ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda reader: reader.run(code), (one, two))
    assert first == second == ("", "", first.shown)
    assert first.shown.startswith("(1000, ")
    assert not list(cache.rglob("*.part"))
