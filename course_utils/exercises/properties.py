"""Properties that exercises share, so that a wrong answer nobody foresaw is diagnosed too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from course_utils.exercises import expect


def returned(value: object) -> object:
    """Pass a result on.

    Raises:
        Wrong: it is None.
    """
    expect(value is not None, "your function returned None: is a return missing?")
    return value


def array(value: object, shape: tuple[int, ...], what: str) -> np.ndarray:
    """The result as a float64 array of the given shape.

    Raises:
        Wrong: it is no array of numbers, has another shape, or holds a NaN or an infinity.
    """
    value = returned(value)
    raw = value.detach().cpu() if isinstance(value, torch.Tensor) else value
    try:
        result = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError):
        expect(False, f"{what} should be numbers, got {type(value).__name__}")
    expect(result.shape == shape, f"{what} should have shape {shape}, got {result.shape}")
    expect(not np.isnan(result).any(), f"{what} holds NaN: look for 0 · log 0, 0 / 0, or softmax of only −∞")
    expect(np.isfinite(result).all(), f"{what} holds an infinite number")
    return result


def sums_to_one(weights: np.ndarray, axis: int, what: str) -> None:
    """Raises Wrong unless weights are non-negative and sum to 1 along an axis."""
    expect((weights >= 0).all(), f"{what} has a negative entry; probabilities cannot")
    totals = weights.sum(axis)
    worst = float(totals.flat[np.abs(totals - 1).argmax()])
    expect(abs(worst - 1) < 1e-5, f"{what} should sum to 1, got {worst:.4g}")


def does_not_leak(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
    """Raises Wrong where changing a later row of x, (T, C), changes an earlier row of function(x)."""
    before = function(x)
    for later in range(1, len(x)):
        changed = x.clone()
        changed[later:] += 1.0
        moved = (function(changed)[:later] - before[:later]).abs().max()
        expect(moved < 1e-6, f"row {later - 1} changed when word {later} did: the future leaks into the past")


def gradient_of(loss: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The gradient of a scalar function at x by central differences, in the shape of x."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        nudge = np.zeros_like(x)
        nudge[index] = step
        gradient[index] = (loss(x + nudge) - loss(x - nudge)) / (2 * step)
    return gradient
