"""Properties that exercises share, so that a wrong answer nobody foresaw is diagnosed too."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable, Mapping
from types import CodeType, FrameType

import numpy as np
import torch

from course_utils.exercises import expect

PATIENCE = 100_000  # lines of Python an answer may take for a small task


def numbers(value: object, what: str, nan: str = "", infinite: str = "") -> np.ndarray:
    """The result as a float64 array of any shape: from a tensor, an array, a number, or lists of these.

    Args:
        value: what the reader's function returned.
        what: its name in the diagnosis.
        nan: where a NaN is likely to come from in this exercise.
        infinite: where an infinity is.

    Raises:
        Wrong: it is None, no array of real numbers, or holds a NaN or an infinity.
    """
    expect(value is not None, "your function returned None: is a return missing?")
    kind = type(value).__name__
    try:
        result = np.asarray(_plain(value))
    except (TypeError, ValueError):  # parts of different shapes
        expect(not isinstance(value, tuple), f"return {what} alone, not a tuple of several things")
        expect(False, f"{what} should be numbers in rows of one length, got {kind}")
    except Exception:  # a list within itself, a tensor without data, an object that refuses
        expect(False, f"{what} should be numbers in a list, an array or a tensor, got {kind}")
    expect(
        result.dtype.kind in "biuf",
        f"{what} should be numbers in a list, an array or a tensor, got {kind}",
    )
    expect(not np.isnan(result).any(), f"{what} holds NaN" + (f": {nan}" if nan else ""))
    expect(
        np.isfinite(result).all(), f"{what} holds an infinite number" + (f": {infinite}" if infinite else "")
    )
    return result.astype(np.float64)


def array(
    value: object,
    shape: tuple[int, ...],
    what: str,
    shapes: Mapping[tuple[int, ...], str] | None = None,
    nan: str = "",
    infinite: str = "",
) -> np.ndarray:
    """The result as a float64 array of the given shape.

    Args:
        value: what the reader's function returned.
        shape: the shape it should have.
        what: its name in the diagnosis.
        shapes: what a result of another shape tells about the answer.
        nan: where a NaN is likely to come from in this exercise.
        infinite: where an infinity is.

    Raises:
        Wrong: it is no array of finite numbers, or has another shape.
    """
    result = numbers(value, what, nan, infinite)
    if result.shape != shape:
        known = (shapes or {}).get(result.shape)
        expect(False, known or f"{what} should have shape {shape}, got {result.shape}")
    return result


def _plain(value: object) -> object:
    """Tensors, also those in lists, as arrays NumPy can stack."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def sums_to_one(weights: np.ndarray, axis: int, what: str, tolerance: float = 1e-5) -> None:
    """Raises Wrong unless weights are non-negative and sum to 1 along an axis."""
    expect((weights >= 0).all(), f"{what} has a negative entry; probabilities cannot")
    totals = weights.sum(axis)
    worst = float(totals.flat[np.abs(totals - 1).argmax()])
    expect(abs(worst - 1) < tolerance, f"{what} should sum to 1, got {worst:.4g}")


def does_not_leak(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
    """Raises Wrong where changing a later row of x, (T, C), changes an earlier row of function(x)."""
    before = function(x)
    for later in range(1, len(x)):
        changed = x.clone()
        changed[later:] += 1.0
        moved = (function(changed)[:later] - before[:later]).abs().max()
        expect(moved < 1e-5, f"row {later - 1} changed when word {later} did: the future leaks into the past")


def gradient_of(loss: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The gradient of a scalar function at x by central differences, in the shape of x."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        nudge = np.zeros_like(x)
        nudge[index] = step
        gradient[index] = (loss(x + nudge) - loss(x - nudge)) / (2 * step)
    return gradient


def ratio_of(a: np.ndarray, b: np.ndarray) -> float | None:
    """The number r with a = r · b, to 1 part in 1,000, or None where a is no multiple of b."""
    ratio = float(a.ravel() @ b.ravel() / (b.ravel() @ b.ravel()))
    return ratio if abs(a - ratio * b).max() < 1e-3 * abs(ratio * b).max() else None


def signed(x: float, decimals: int = 3) -> str:
    """A number for a diagnosis, with a true minus sign, and none before a zero."""
    return f"{round(x, decimals) + 0.0:.{decimals}f}".replace("-", "−")


def none_of(got: np.ndarray, mistakes: Mapping[str, object], tolerance: float = 1e-4) -> None:
    """Raises Wrong with the diagnosis of the first known mistake that gives these numbers.

    Args:
        got: the result.
        mistakes: diagnosis → what that mistake gives, of the result's shape, or a tuple of such results.
        tolerance: absolute and relative.
    """
    for diagnosis, values in mistakes.items():
        for value in values if isinstance(values, tuple) else (values,):
            expect(not np.allclose(got, np.asarray(value), tolerance, tolerance), diagnosis)


def by_hand(answer: Callable, *ready: str) -> None:
    """Raises Wrong where an answer uses what it was to write out itself."""
    used = sorted(set(ready) & names_in(answer))
    expect(not used, f"right, but write it out yourself, without {' or '.join(used)}")


def names_in(answer: Callable) -> set[str]:
    """The global names and attributes a function uses, those of functions defined inside it too."""
    names, codes = set(), [getattr(answer, "__code__", None)]
    while codes:
        code = codes.pop()
        if isinstance(code, CodeType):
            names |= set(code.co_names)
            codes += code.co_consts
    return names


def strings(value: object) -> list[str]:
    """An answer's list of pieces; Wrong where it is none."""
    expect(value is not None, "your function returned None: is a return missing?")
    expect(isinstance(value, list | tuple), f"return a list of pieces, not a {type(value).__name__}")
    odd = next((piece for piece in value if not isinstance(piece, str)), "")
    expect(isinstance(odd, str), f"a piece is a string; one of yours is {reprlib.repr(odd)}")
    return list(value)


def stops(answer: Callable, endless: str, *arguments: object) -> object:
    """What an answer returns; Wrong, with the diagnosis `endless`, where it loops for ever.

    It counts lines, not seconds, so that a slow machine judges as a fast one does.
    """
    lines, before = 0, sys.gettrace()

    def count(frame: FrameType, event: str, _: object) -> Callable:
        nonlocal lines
        lines += event == "line"
        expect(lines < PATIENCE, endless)
        return count

    sys.settrace(count)
    try:
        return answer(*arguments)
    finally:
        sys.settrace(before)
