"""Exercises: `check` says what is wrong and why, `hint` helps, `solution` shows one answer."""

from __future__ import annotations

import dis
import html
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

__all__ = ["Exercise", "Report", "Wrong", "check", "exercises", "expect", "hint", "solution"]

PAGES = "01", "02", "03", "03b", "04", "04b", "04c", "05", "05b", "06", "06b", "07", "07b"
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
        return Report(task, "wrong", str(wrong))
    except Exception as error:  # the reader's code may fail in any way; that is a diagnosis, not a crash
        return Report(task, "wrong", f"your function raised {type(error).__name__}: {error}")
    return Report(task, "right")


def hint(exercise: str) -> Note:
    """A nudge towards the answer."""
    return Note(_known(exercise).hint)


def solution(exercise: str) -> Note:
    """One right answer, as code; others may be as good."""
    return Note(_known(exercise).solution)


def _known(exercise: str) -> Exercise:
    known = exercises()
    if exercise not in known:
        raise ValueError(f"exercise must be one of {', '.join(known)}, got {exercise!r}")
    return known[exercise]


def _is_blank(answer: Callable) -> bool:
    """True where the body is only `...`, `pass` or a docstring."""
    code = getattr(answer, "__code__", None)
    if code is None:
        return False
    steps = list(dis.get_instructions(code))
    loaded = [step.argval for step in steps if step.opname in {"LOAD_CONST", "RETURN_CONST"}]
    return {step.opname for step in steps} <= _TRIVIAL and loaded[-1:] in ([None], [...])
