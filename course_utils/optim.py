"""What is minimised, and how: cross-entropy, SGD, Adam, the learning rate over time, from their equations."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

__taught__ = ["cross_entropy", "SGD", "Adam", "warmup_cosine"]


def check_ranges(options: object, above: Iterable[str], at_least: Iterable[str]) -> None:
    """Raises ValueError unless attributes named in `above` are above 0, and those in `at_least` no less."""
    for name in above:
        if not getattr(options, name) > 0:
            raise ValueError(f"{name} must be above 0, got {getattr(options, name)}")
    for name in at_least:
        if not getattr(options, name) >= 0:
            raise ValueError(f"{name} must be at least 0, got {getattr(options, name)}")


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Mean of -Σ_j y_j log p_j, y being one-hot, or that with a share of it spread over all V tokens.

    Args:
        logits: (N, V).
        targets: (N,) ids of the right tokens; negative ones are left out.
        smoothing: the share spread evenly, in [0, 1).

    Returns:
        (), in nats a token; NaN where no target counts, as torch's.

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7 (smoothing); Vaswani et al. 2017, section 5.4.
    """
    check_targets(logits, targets, smoothing)
    kept = targets >= 0  # (N,)
    logs = logits.log_softmax(dim=-1)[kept]  # (N', V)
    right = logs.gather(1, targets[kept, None]).squeeze(1)  # (N',): log p_j of the right token
    return -((1 - smoothing) * right + smoothing * logs.mean(dim=-1)).mean()


def check_targets(logits: torch.Tensor, targets: torch.Tensor, smoothing: float) -> None:
    """Raises ValueError unless logits are (N, V), targets (N,) below V, and smoothing in [0, 1)."""
    if logits.dim() != 2 or targets.shape != logits.shape[:1]:
        shapes = f"{tuple(logits.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"logits and targets must be (N, V) and (N,), got {shapes}")
    if targets.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"targets must be integers, got {targets.dtype}")
    if len(targets) and targets.max() >= logits.shape[1]:
        raise ValueError(f"targets must lie below V = {logits.shape[1]}, got {int(targets.max())}")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must lie in [0, 1), got {smoothing}")


class SGD:
    """θ ← θ - lr · ∂L/∂θ. Source: Robbins & Monro 1951."""

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float) -> None:
        """parameters: tensors with gradients. lr: learning rate."""
        self.parameters, self.lr = list(parameters), lr

    @torch.no_grad()
    def step(self) -> None:
        """One step along the gradients of the last backward pass."""
        for p in self.parameters:
            p -= self.lr * p.grad


class Adam:
    """Running means of the gradient and of its square set each number's own step.

    m ← β1 m + (1 - β1) g, v ← β2 v + (1 - β2) g², θ ← θ - lr · m̂ / (√v̂ + ε), m̂ = m / (1 - β1^t),
    v̂ = v / (1 - β2^t). Source: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1.
    """

    def __init__(
        self,
        parameters: Iterable[torch.Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        """parameters: tensors with gradients. lr: learning rate. betas, eps: as in the equations."""
        self.parameters, self.lr, self.betas, self.eps, self.t = list(parameters), lr, betas, eps, 0
        self.m = [torch.zeros_like(p) for p in self.parameters]
        self.v = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self) -> None:
        """One step; the means start at 0, and dividing by 1 - β^t makes up for that."""
        self.t += 1
        b1, b2 = self.betas
        for p, m, v in zip(self.parameters, self.m, self.v, strict=True):
            m += (1 - b1) * (p.grad - m)
            v += (1 - b2) * (p.grad**2 - v)
            m_hat, v_hat = m / (1 - b1**self.t), v / (1 - b2**self.t)
            p -= self.lr * m_hat / (v_hat.sqrt() + self.eps)


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate: up in a line over the warm-up, then down half a cosine to 0.

    Args:
        step: 0 for the first.
        steps: of the whole run.
        warmup: steps until the peak.

    Source: Loshchilov & Hutter 2017, arXiv:1608.03983, equation (5), after a linear warm-up.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)  # 0 at the peak, 1 at the end
    return (1 + math.cos(math.pi * min(1.0, progress))) / 2
