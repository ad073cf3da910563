"""A restless reader, who interrupts, repeats, jumps back and restarts; two pages at once; a locked folder."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from reader import Reader, code_cells, page, reading, tags

from course_utils import sync

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


def read_restlessly(reader: Reader, cells: list[nbformat.NotebookNode]) -> int:
    """Run each cell twice, one still running after PATIENCE interrupted first; then jump back to each claim.

    The verdicts must be the stored ones each time. Returns how many cells were interrupted.
    """
    interrupted = 0
    for cell in cells:
        impatient = reader.run(cell.source, PATIENCE).error
        interrupted += impatient.startswith("KeyboardInterrupt")
        for _ in range(2 if impatient else 1):
            shown = reader.must_run(cell).shown
        if is_claim(cell):
            assert shown == stored(cell)
    for cell in reversed([cell for cell in cells if is_claim(cell)]):
        assert reader.must_run(cell).shown == stored(cell)
    return interrupted


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
