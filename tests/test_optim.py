"""Loss, optimisers and schedule equal torch's; the loss's gradients are those of the formulas."""

import math
import re
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from test_attention import CUDA, DTYPES, assert_close, precise_and_quick  # noqa: F401 (a fixture for every test)
from torch import nn

from course_utils.optim import SGD, Adam, cross_entropy, warmup_cosine

SEEDS = range(40)


def drawn(seed, dtype=torch.float64, device="cpu"):
    """Logits (N, V) of any size, a third of the targets negative but never all, a share of smoothing."""
    random = torch.Generator().manual_seed(seed)
    N, V = torch.randint(1, 12, (2,), generator=random).tolist()
    size = 10 ** torch.empty((), dtype=torch.float64).uniform_(-1, 2, generator=random)
    logits = torch.randn(N, V, generator=random, dtype=torch.float64) * size
    targets = torch.randint(V, (N,), generator=random)
    ignored = torch.rand(N, generator=random) < 1 / 3
    ignored[torch.randint(N, (), generator=random)] = False
    smoothing = float(torch.rand((), generator=random)) * (seed % 2)
    targets = torch.where(ignored, -1 - torch.randint(200, (N,), generator=random), targets)
    return logits.to(device, dtype).requires_grad_(), targets.to(device), smoothing


@pytest.mark.parametrize("device", ["cpu", CUDA])
@DTYPES
def test_cross_entropy_equals_torchs_forward_and_backward(dtype, device):
    for seed in SEEDS:
        logits, targets, smoothing = drawn(seed, dtype, device)
        found = cross_entropy(logits, targets, smoothing)
        theirs = targets.where(targets >= 0, -100)  # torch leaves out one id, ours every negative one
        expected = F.cross_entropy(logits, theirs, label_smoothing=smoothing)
        assert_close(found, expected, seed, largest=max(expected.abs(), logits.abs().max()))
        (a,), (b,) = (torch.autograd.grad(loss, logits) for loss in (found, expected))
        assert_close(a, b, seed, largest=1 / (targets >= 0).sum())
        assert not a[targets < 0].any(), seed


@pytest.mark.parametrize("N", [0, 3])
def test_cross_entropy_of_no_target_is_nan_as_torchs(N):
    logits, targets = torch.zeros(N, 4), torch.full((N,), -100)
    assert F.cross_entropy(logits, targets).isnan()
    assert cross_entropy(logits, targets).isnan()


def test_cross_entropy_neither_overflows_nor_forgets():
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])
    assert cross_entropy(logits, torch.tensor([0, 1])) == 0
    assert cross_entropy(logits, torch.tensor([1, 0])) == 2e4


def test_its_gradient_is_minus_y_over_p_by_the_probabilities_and_p_minus_y_by_the_logits():
    """The second from the first through softmax's Jacobian, diag(p) - p pᵀ; and by autograd from ours."""
    for seed in SEEDS:
        logits, targets, smoothing = drawn(seed)
        logits = (logits / logits.detach().abs().max()).detach().requires_grad_()  # no probability near 0
        N, V = logits.shape
        targets = targets.clamp(min=0)
        y = (1 - smoothing) * F.one_hot(targets, V).double() + smoothing / V
        p = logits.detach().softmax(-1).requires_grad_()
        (by_p,) = torch.autograd.grad(-(y * p.log()).sum(), p)
        assert_close(by_p, -y / p, seed)
        jacobian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]  # (N, V, V), symmetric
        through = (jacobian @ by_p[:, :, None]).squeeze(-1)
        (by_logits,) = torch.autograd.grad(cross_entropy(logits, targets, smoothing) * N, logits)
        assert_close(through, p - y, seed, largest=1.0)
        assert_close(by_logits, p - y, seed, largest=1.0)


@pytest.mark.parametrize(
    ("logits", "targets", "smoothing", "message"),
    [
        (
            torch.ones(3),
            torch.ones(3).long(),
            0.0,
            "logits and targets must be (N, V) and (N,), got (3,) and",
        ),
        (torch.ones(3, 4), torch.ones(2).long(), 0.0, "got (3, 4) and (2,)"),
        (torch.ones(3, 4), torch.ones(3, 1).long(), 0.0, "got (3, 4) and (3, 1)"),
        (torch.ones(3, 4), torch.ones(3), 0.0, "targets must be integers, got torch.float32"),
        (torch.ones(3, 4), torch.tensor([0, 4, 1]), 0.0, "targets must lie below V = 4, got 4"),
        (torch.ones(3, 4), torch.ones(3).long(), 1.0, "smoothing must lie in [0, 1), got 1.0"),
        (torch.ones(3, 4), torch.ones(3).long(), -0.1, "smoothing must lie in [0, 1), got -0.1"),
        (torch.ones(3, 4), torch.ones(3).long(), math.nan, "smoothing must lie in [0, 1), got nan"),
    ],
)
def test_what_does_not_fit_is_named(logits, targets, smoothing, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        cross_entropy(logits, targets, smoothing)


PAIRS = {
    "SGD": (lambda p: SGD(p, lr=0.05), lambda p: torch.optim.SGD(p, lr=0.05)),
    "Adam": (lambda p: Adam(p, lr=0.05), lambda p: torch.optim.Adam(p, lr=0.05)),
    "Adam, the Transformer's": (
        lambda p: Adam(p, lr=0.01, betas=(0.9, 0.98), eps=1e-9),
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.9, 0.98), eps=1e-9),
    ),
    "Adam, a large eps": (
        lambda p: Adam(p, lr=0.3, betas=(0.5, 0.7), eps=0.1),
        lambda p: torch.optim.Adam(p, lr=0.3, betas=(0.5, 0.7), eps=0.1),
    ),
}


def small(seed, device):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).to(device, torch.float64)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("name", PAIRS)
def test_optimisers_equal_torchs_over_50_steps(name, device):
    """Each on its own copy of a small network, with new data each step; every weight after every step."""
    for seed in range(3):
        models = small(seed, device), small(seed, device)
        begin = [p.detach().clone() for p in models[0].parameters()]
        # ours is given a generator, which can be read only once
        steps = [
            build(p for p in model.parameters()) for build, model in zip(PAIRS[name], models, strict=True)
        ]
        random = torch.Generator().manual_seed(seed)
        for step in range(50):
            x = torch.randn(6, 3, generator=random, dtype=torch.float64).to(device)
            targets = torch.randint(4, (6,), generator=random).to(device)
            for model, optimiser in zip(models, steps, strict=True):
                model.zero_grad()
                cross_entropy(model(x), targets).backward()
                optimiser.step()
            for a, b in zip(*(model.parameters() for model in models), strict=True):
                assert_close(a.detach(), b.detach(), (seed, step))
        moved = [(p - b).abs().max() for p, b in zip(models[0].parameters(), begin, strict=True)]
        assert min(moved) > 0.01


def test_the_first_step_of_adam_is_the_learning_rate_whatever_the_gradient():
    for size in (1e-3, 1.0, 1e6):
        p = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        p.grad = size * torch.tensor([1.0, -1.0, 2.0, -0.5, 3.0], dtype=torch.float64)
        Adam([p], lr=0.1).step()
        assert (p + 0.1 * p.grad.sign()).abs().max() < 1e-5


def test_a_step_leaves_no_graph_and_touches_no_gradient():
    for build in (SGD, Adam):
        p = torch.ones(2, requires_grad=True)
        p.grad = torch.tensor([1.0, -2.0])
        build([p], lr=0.1).step()
        assert p.requires_grad
        assert p.is_leaf
        assert p.grad.tolist() == [1.0, -2.0]


@pytest.mark.parametrize(("steps", "warmup"), [(100, 10), (100, 0), (7, 3), (50, 50), (1, 0), (1000, 1)])
def test_the_rate_climbs_in_a_line_peaks_at_1_and_falls_half_a_cosine_to_0(steps, warmup):
    rates = [warmup_cosine(step, steps, warmup) for step in range(steps + 1)]
    up, down = rates[:warmup], rates[warmup:]
    assert up == [(i + 1) / warmup for i in range(warmup)]
    assert down[0] == 1
    assert all(a > b for a, b in pairwise(down))
    assert all(0 < rate <= 1 for rate in rates[:steps])
    n = steps - warmup
    if n:
        assert rates[steps] == pytest.approx(0, abs=1e-12)
        assert [a + b for a, b in zip(down, reversed(down), strict=True)] == pytest.approx([1.0] * (n + 1))
        theirs = torch.optim.lr_scheduler.CosineAnnealingLR
        optimiser = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0)
        schedule = theirs(optimiser, T_max=n)
        for rate in down[:-1]:
            assert rate == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
            optimiser.step()
            schedule.step()


def test_the_rate_is_continuous_and_stays_at_0_after_the_end():
    """No jump is longer than the steepest slope: 1 / warm-up going up, π / 2 over the rest coming down."""
    steps, warmup = 1000, 100
    rates = [warmup_cosine(step, steps, warmup) for step in range(2 * steps)]
    jumps = [abs(a - b) for a, b in pairwise(rates)]
    assert max(jumps[: warmup - 1]) == pytest.approx(1 / warmup)
    assert max(jumps[warmup - 1 :]) <= math.pi / 2 / (steps - warmup)
    assert max(rates[steps:]) < 1e-12
