"""What `course_utils.results` runs: one module for each notebook, of functions that yield tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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


def check_name(argument: str, name: str, known: Iterable[str]) -> None:
    """Raises ValueError where there is nothing of that name."""
    if name not in known:
        raise ValueError(f"{argument} must be one of {'; '.join(known)}, got {name!r}")
