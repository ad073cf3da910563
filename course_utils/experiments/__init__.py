"""What `course_utils.results` runs: one module for each notebook, of functions that yield tasks."""

from __future__ import annotations

from collections.abc import Callable

Row = dict[str, object]
Task = tuple[Row, Callable[[], Row]]  # what names a row, and how to measure it
