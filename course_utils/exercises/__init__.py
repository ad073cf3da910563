"""Exercises: `check` says what is wrong and why, `hint` helps, `solution` shows one answer."""

from __future__ import annotations

import dis
import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from traceback import walk_tb
from types import CodeType

__all__ = ["Exercise", "Report", "Wrong", "check", "exercises", "expect", "hint", "solution"]

PAGES = "01", "02", "03", "03b", "04", "04b", "04c", "05", "05b", "06", "06b", "07", "07b"
LONGEST = 300  # letters of a diagnosis
_SYMBOLS = {"right": ("✓", "#117733"), "wrong": ("✗", "#aa3377"), "not attempted yet": ("·", "#555555")}
_TRIVIAL = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}


class Wrong(Exception):  # noqa: N818 (a judgement, not a fault)
    """An answer breaks a property; the message is the diagnosis the reader sees."""


@dataclass(frozen=True)
class Exercise:
    """A task judged by properties: `judge(answer)` raises Wrong, with the diagnosis, at the first."""

    id: str
    title: str
    judge: Callable[[Callable], None]
    hint: str
    solution: str


@dataclass(frozen=True)
class Report:
    """What `check` found, shown as one line."""

    exercise: Exercise
    status: str  # "right", "wrong" or "not attempted yet"
    diagnosis: str = ""

    def __repr__(self) -> str:
        tail = {"right": " ✓", "wrong": f" ✗ {self.diagnosis}"}.get(self.status, f" · {self.status}")
        return f"Exercise {self.exercise.id} · {self.exercise.title}{tail}"

    def _repr_html_(self) -> str:
        symbol, colour = _SYMBOLS[self.status]
        text = html.escape(self.diagnosis or self.status)
        return (
            f"<div>Exercise {self.exercise.id} · {html.escape(self.exercise.title)} "
            f'<strong style="color:{colour}">{symbol} {text}</strong></div>'
        )


@dataclass(frozen=True)
class Note:
    """A hint or a solution, shown as it is."""

    text: str

    def __repr__(self) -> str:
        return self.text


def exercises() -> dict[str, Exercise]:
    """Every exercise of the course, by id."""
    pages = (import_module(f"course_utils.exercises.nb{page}") for page in PAGES)
    return {e.id: e for page in pages for e in page.EXERCISES}


def expect(condition: object, diagnosis: str) -> None:
    """State a property an answer must have.

    Raises:
        Wrong: it does not hold.
    """
    if not condition:
        raise Wrong(diagnosis)


def check(exercise: str, answer: Callable) -> Report:
    """Judge an answer: right, wrong with a diagnosis, or not attempted yet. Never raises on a wrong answer.

    Only an interrupt, which stops an answer that never ends, goes through.

    Args:
        exercise: its id, such as "02.1".
        answer: the reader's function.

    Raises:
        ValueError: no such exercise.
    """
    task = _known(exercise)
    if not callable(answer):
        return Report(task, "wrong", f"pass the function itself, not its value: check({exercise!r}, name)")
    if _is_blank(answer):
        return Report(task, "not attempted yet")
    try:
        task.judge(answer)
    except Wrong as wrong:
        return Report(task, "wrong", _one_line(_said(wrong)))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the reader's code may fail in any way; that is a diagnosis, not a crash
        failed = f"{_whose(answer, error)} raised {type(error).__name__}: {_said(error)}"
        return Report(task, "wrong", _one_line(failed.removesuffix(": ")))
    return Report(task, "right")


def hint(exercise: str) -> Note:
    """A nudge towards the answer."""
    return Note(_known(exercise).hint)


def solution(exercise: str) -> Note:
    """One right answer, as code; others may be as good."""
    return Note(_known(exercise).solution)


def _known(exercise: str) -> Exercise:
    known = exercises()
    if not isinstance(exercise, str) or exercise not in known:
        raise ValueError(f"exercise must be one of {', '.join(known)}, got {exercise!r:.80}")
    return known[exercise]


def _whose(answer: Callable, error: BaseException) -> str:
    """Where an exception arose: in the answer, if its code ran, else perhaps in what it returned."""
    ran = [frame.f_code for frame, _ in walk_tb(error.__traceback__)]
    return (
        "your function" if getattr(answer, "__code__", None) in ran else "your function, or what it returned,"
    )


def _said(error: BaseException) -> str:
    """An exception's message, empty where it cannot tell it."""
    try:
        return str(error)
    except Exception:
        return ""


def _one_line(text: str) -> str:
    """A diagnosis as it is shown: one line of at most LONGEST letters, each of which can be printed."""
    line = re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]+", " ", text)
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _is_blank(answer: Callable) -> bool:
    """True where the body is only `...`, `pass` or a docstring."""
    code = getattr(answer, "__code__", None)
    if not isinstance(code, CodeType):
        return False
    steps = list(dis.get_instructions(code))
    loaded = [step.argval for step in steps if step.opname in {"LOAD_CONST", "RETURN_CONST"}]
    return {step.opname for step in steps} <= _TRIVIAL and loaded[-1:] in ([None], [...])
