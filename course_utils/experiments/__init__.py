"""What `course_utils.results` runs: one module for each notebook, of functions that yield tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

Row = dict[str, object]
Task = tuple[Row, Callable[[], Row]]  # what names a row, and how to measure it


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """PyTorch on so many threads, and then on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
