"""Exercises of notebook 05: the best answer to many fakes, two slopes, how far samples must move."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from course_utils.exercises import Exercise, Wrong, expect
from course_utils.exercises.properties import array, by_hand, none_of, ratio_of, signed


def best_answer(answer: Callable) -> None:
    """Judge 05.1: the top of p log D + k q log(1 − D) at each x; other k and shapes, densities, zeros."""

    def ask(p: torch.Tensor, q: torch.Tensor, k: float, nan: str = "") -> np.ndarray:
        shapes = {
            (): "one number for all x: return what D answers at each x, not the value of the game",
            (2, *p.shape): "return D alone, not a pair",
        }
        return array(answer(p.clone(), q.clone(), k), tuple(p.shape), "D", shapes, nan, nan)

    p, q = two_tables(0, 6)
    got = ask(p, q, 2)
    none_of(got, _taken_for_best(p.double(), q.double(), 2))
    over_x = "your D adds up to 1 over x; each x has an answer of its own, between 0 and 1"
    expect(abs(got.sum() - 1) > 1e-4, over_x)
    _at_the_top(got, p, q, 2)
    for k, shape in ((1, (6,)), (0.5, (1,)), (7, (3, 4)), (1.5, (2, 2, 2))):
        p, q = two_tables(1, *shape)
        _at_the_top(ask(p, q, k), p, q, k, "right for k = 2, but ")
    _at_the_top(ask(5 * p, 0.3 * q, 3), 5 * p, 0.3 * q, 3, "right, but densities need not add up to 1: ")
    p, q = torch.tensor([0.0, 0.7, 0.3]), torch.tensor([0.4, 0.0, 0.6])
    nan = "where p alone is 0 D is 0, where q alone is 0 it is 1"
    _at_the_top(ask(p, q, 2, nan), p, q, 2, "right, but ")


def two_tables(seed: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random p and q of this shape, each adding up to 1."""
    draw = torch.Generator().manual_seed(seed)
    p, q = (0.05 + torch.rand(shape, generator=draw) for _ in "pq")
    return p / p.sum(), q / q.sum()


def _at_the_top(got: np.ndarray, p: torch.Tensor, q: torch.Tensor, k: float, first: str = "") -> None:
    """Raises Wrong where D is not at the top of the curve of its x, with both heights."""
    wide = ((got < 0) | (got > 1)).any()
    expect(not wide, f"{first}D is a probability, 0 to 1; yours goes from {got.min():.3g} to {got.max():.3g}")
    real, fake = p.double().numpy(), q.double().numpy()
    wanted = real / (real + k * fake)
    x = np.unravel_index(abs(got - wanted).argmax(), got.shape)
    yours, best = (_height(float(D[x]), real[x], k * fake[x]) for D in (got, wanted))
    where = f"at p = {real[x]:.3f}, q = {fake[x]:.3f} and k = {k:g} D should be {wanted[x]:.4f}"
    heights = f"where p log D + k q log(1 − D) is {signed(best, 4)}"
    expect(
        np.allclose(got, wanted, 1e-4, 1e-4),
        f"{first}{where}, {heights}; yours is {got[x]:.4f}, where it is {signed(yours, 4)}",
    )


def _height(D: float, p: float, kq: float) -> float:
    terms = ((p, D), (kq, 1 - D))
    return sum(a * (math.log(b) if b > 0 else -math.inf) for a, b in terms if a > 0)


def _taken_for_best(p: torch.Tensor, q: torch.Tensor, k: float) -> dict[str, object]:
    """What other answers give, and what they tell."""
    D, even, odds = p / (p + k * q), p / (p + q), p / (k * q)
    below = "below stands all that comes, p + k q"
    return {
        "k is forgotten: fakes come k times as often, so that k q takes the place of q": even,
        "k is on p; it belongs to q, the fakes": k * p / (k * p + q),
        "that is 1 − D, how sure one may be that x is a fake": 1 - D,
        "p and q are exchanged: above stands p, and k belongs to q, the fakes": q / (q + k * p),
        "that is 1 − D, and k is forgotten": 1 - even,
        "D is normalised over x; each x has an answer of its own, and they need not add up to 1": (
            D / D.sum(),
            even / even.sum(),
            D.softmax(-1),
        ),
        f"k stands above; only the fakes count k times: {below}": (k * D, k * even),
        f"k multiplies p below too: {below}": even / k,
        f"that is a ratio of true to fake, which may exceed 1; {below}": (odds, p / q),
        "that is the logit of D, log(p / (k q)); σ of it is D": (odds.log(), (p / q).log()),
        "that is log D": D.log(),
        "k is a factor, not a power: k q": (p / (p + q**k), even**k),
        "k counts twice": p / (p + k * k * q),
        f"k is added; it is a factor: {below}": (p / (p + q + k), p / (p + k + q - 1)),
        "that is a hard yes or no; D is as sure as p and k q allow": (p > k * q, p > q),
        "1/2 is the answer where p = k q, not everywhere": torch.full_like(p, 1 / 2),
        "1 / (1 + k) is the answer where p = q, not everywhere": torch.full_like(p, 1 / (1 + k)),
    }


LOSSES = "log(1 − σ(s))", "−log σ(s)"


def slopes(answer: Callable) -> None:
    """Judge 05.2: both slopes at each s, for other shapes, and where σ(s) rounds to 0 or 1."""
    s = torch.tensor([-3.0, -1.2, -0.4, 0.3, 0.9, 2.5])
    got, wanted = _two_slopes(answer, s), _slopes(s)
    none_of(got, dict(_taken_for_slopes(s)), 1e-3)
    for part, loss, others in zip(got, LOSSES, _taken_for_one(s), strict=True):
        none_of(part, {f"{why}: look at {loss}": values for why, values in others.items()}, 1e-3)
    _multiples(got, wanted)
    _as_steep(got, s)
    for other in (
        torch.tensor([[0.7, -2.0, 1.1], [4.0, 0.0, -0.1]]),
        torch.tensor([-0.6]),
        torch.tensor(1.4),
    ):
        shape = f"right for 6 logits, but for s of shape {tuple(other.shape)} "
        _as_steep(_two_slopes(answer, other, shape), other, shape)
    far = torch.tensor([-1000.0, -100.0, 100.0, 1000.0])
    rounds = "σ(1000) rounds to 1, whose log(1 − σ) is −∞: use σ alone, or −softplus(s) for the loss"
    _as_steep(_two_slopes(answer, far, "for large s ", rounds), far, "for large s ")


def _two_slopes(answer: Callable, s: torch.Tensor, case: str = "", nan: str = "") -> np.ndarray:
    """The answer's pair as (2, *s.shape); Wrong, with the reason where one is known, if it is none."""
    try:
        value = answer(s.clone())
    except RuntimeError as error:
        scalar = "autograd starts from one number: take the slope of the sum, where each s has its own term"
        expect("only for scalar outputs" not in str(error), scalar)
        unseen = "autograd did not see s: s = s.clone().requires_grad_() first, then the loss of it"
        expect("does not require grad" not in str(error), unseen)
        raise
    both = "return two slopes for each s, the pair of tensors"
    if isinstance(value, tuple | list):
        expect(len(value) == 2, f"{both}; you return {len(value)} things")
        expect(all(part is not None for part in value), "a slope is None: s is no leaf, or met no backward()")
    N, shapes = s.numel(), {}
    if s.dim() == 1 and N > 2:
        shapes = {
            (): f"{both}; you return one number",
            (2,): "one number for all logits together; each s has its own two slopes",
            (N,): f"{both}; you return one",
            (N, 2): f"{both}, not a pair for each s",
            (2, N, N): "a slope of each loss with each s: only the diagonal is not 0, so return that",
        }
    return array(value, (2, *s.shape), f"{case}the pair of slopes", shapes, nan, nan)


def _slopes(s: torch.Tensor) -> np.ndarray:
    """The right pair, (2, *s.shape)."""
    return torch.stack([-s.double().sigmoid(), -(-s.double()).sigmoid()]).numpy()


def _taken_for_slopes(s: torch.Tensor) -> Iterator[tuple[str, object]]:
    """What mistakes in both slopes give, (2, N) each."""
    first, second = right = _slopes(s)
    σ, N = -first, len(s)
    of_σ = σ * (1 - σ)
    grows = "as s grows σ(s) does, and both losses fall"
    yield f"both signs are turned: {grows}", -right
    yield "the two are exchanged: log(1 − σ(s)) first, then −log σ(s)", right[::-1]
    yield f"the two are exchanged and both signs turned: {grows}", -right[::-1]
    log_too = "that is the slope of σ; the logarithm has one too, and the two are multiplied"
    yield log_too, _any_signs(of_σ, of_σ)
    chain = "by the chain rule σ(s)'s own slope, σ (1 − σ), is one more factor"
    yield f"those are slopes with respect to the probability σ(s); {chain}", _any_signs(1 / (1 - σ), 1 / σ)
    yield "those are the losses; their slopes are asked for", [np.log(1 - σ), -np.log(σ)]
    yield (
        "those are probabilities, σ(s) or 1 − σ(s); the losses fall, so that both slopes are below 0",
        ([σ, σ], [1 - σ, 1 - σ]),
    )
    adds = "both are added up in s.grad: set s.grad to None before the second backward()"
    yield adds, ([first, first + second], [first + second, first + second])
    same = "both are the slope of {}; is it one tensor, s.grad, returned twice? clone() it"
    yield same.format(LOSSES[0]), [first, first]
    yield same.format(LOSSES[1]), [second, second]
    yield f"that is the slope of the mean over {N} logits, each 1/{N} of its own; take the sum", right / N
    yield "the natural logarithm is meant, not log₂ or log₁₀", (right / math.log(2), right / math.log(10))


def _any_signs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.stack([a * first, b * second]) for a in (1, -1) for b in (1, -1))


def _taken_for_one(s: torch.Tensor) -> Iterator[dict[str, object]]:
    """What mistakes in one slope give, (N,) each: those of the first loss, then those of the second."""
    pair = _slopes(s)
    σ = -pair[0]
    bare = (np.log(1 - σ), -1 / (1 - σ)), (-np.log(σ), -1 / σ)
    for k, (value, of_σ) in enumerate(bare):
        rises = ", while the discriminator's, −log(1 − σ(s)), rises" if k == 0 else ""
        yield {
            f"one sign is turned; this loss falls as s grows{rises}": -pair[k],
            "that is the loss, not its slope": value,
            "that is the slope with respect to σ(s), without the slope of σ": (of_σ, -of_σ),
            "that is the slope of σ alone, without that of the logarithm": (σ * (1 - σ), σ * (σ - 1)),
            "σ, or 1 − σ, is squared; it stands there once": (-(σ**2), -((1 - σ) ** 2)),
            "that is 0; it has a slope": 0 * σ,
        }


def _multiples(got: np.ndarray, wanted: np.ndarray) -> None:
    """Raises Wrong where a slope is a multiple of the right one."""
    for part, right, loss in zip(got, wanted, LOSSES, strict=True):
        ratio = ratio_of(part, right)
        off = ratio is not None and abs(ratio - 1) > 2e-3
        expect(not off, f"the slope of {loss} is {signed(ratio or 0)} times what it should be at each s")


def _as_steep(got: np.ndarray, s: torch.Tensor, case: str = "") -> None:
    """Raises Wrong at the s where a slope is farthest from the loss's own."""
    for part, right, loss in zip(got, _slopes(s), LOSSES, strict=True):
        worst = np.unravel_index(abs(part - right).argmax(), part.shape)
        at = f"{case}at s = {signed(float(s[worst]), 1)} the slope of {loss} is {signed(right[worst])}"
        expect(np.allclose(part, right, 1e-3, 1e-3), f"{at}, yours {signed(part[worst])}")


def wasserstein(answer: Callable) -> None:
    """Judge 05.3: the mean way of the cheapest pairing; shifts, order, symmetry, ties, other sizes."""

    def ask(x: torch.Tensor, y: torch.Tensor) -> float:
        return _distance(answer, x, y)

    x, y = samples(2, 7)
    got, wanted = ask(x, y), _mean_way(x, y)
    none_of(np.array(got), dict(_taken_for_distance(x.double(), y.double())))
    order = torch.tensor([4, 0, 6, 2, 5, 1, 3])
    _same_pile(ask, x, order)
    reordered = ask(x[order], y)
    expect(abs(reordered - got) < 1e-4, "the order of the samples changes your distance; it must not")
    expect(abs(ask(y, x) - got) < 1e-4, "from y to x should be as far as from x to y")
    moved = ask(x - 20, y - 20)
    expect(abs(moved - got) < 1e-4, "moving x and y together by 20 changes your distance; it must not")
    by = ask(3 * x, 3 * y) / got if got else 0.0
    scale = f"everything 3 times as far apart makes your distance {signed(by, 2)} times as long; 3 times"
    expect(abs(by - 3) < 1e-3, scale)
    _right_distance(got, wanted, "")
    for N in (1, 2, 3, 50, 500):
        x, y = samples(N, N)
        _right_distance(ask(x, y), _mean_way(x, y), f"right for 7 samples, but for {N} ")
    x, y = torch.tensor([0.0, 0, 1, 1, 1]), torch.tensor([1.0, 0, 0, 0, 2])
    _right_distance(ask(x, y), _mean_way(x, y), "right, but where samples are equal ")
    by_hand(answer, "wasserstein_distance", "wasserstein_distance_nd")


def samples(seed: int, N: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows of N samples, the second somewhat wider and to the right."""
    draw = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, N, generator=draw)
    return x, 2 * y + 0.5


def _distance(answer: Callable, x: torch.Tensor, y: torch.Tensor) -> float:
    """The answer's number; Wrong, with the reason where one is known, if it is none."""
    N = len(x)
    shapes = {
        (N,): "that is the way of each sample; the mean over them is asked for",
        (N, N): "that is the way from every x to every y: each x goes to one y alone",
    }
    try:
        value = answer(x.clone(), y.clone())
    except (TypeError, AttributeError) as error:
        if "return_types.sort" in str(error) or "'torch.sort'" in str(error):
            raise Wrong("torch.sort returns two things, values and indices: take .values") from error
        raise
    got = float(array(value, (), "the distance", shapes if N > 1 else {}))
    expect(got > -1e-6, f"a distance is not negative; yours is {signed(got)}")
    return got


def _mean_way(x: torch.Tensor, y: torch.Tensor) -> float:
    """The right answer."""
    return (x.double().sort().values - y.double().sort().values).abs().mean().item()


def _same_pile(ask: Callable[..., float], x: torch.Tensor, order: torch.Tensor) -> None:
    """Raises Wrong unless nothing moves where y is x in another order, and all by 3 where it is x + 3."""
    for shift in (0.0, 3.0):
        its = ask(x, x[order] + shift)
        case = f"y = x + {shift:g} in another order" if shift else "y = x in another order"
        expect(abs(its - shift) < 1e-4, f"with {case} the mean way is {shift:g}, yours {signed(its)}")


def _right_distance(got: float, wanted: float, case: str) -> None:
    should = (
        f"{case}the cheapest pairing moves a sample by {wanted:.4f} on average, yours by {signed(got, 4)}"
    )
    expect(abs(got - wanted) < 1e-4 + 1e-4 * wanted, should)


def _taken_for_distance(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[str, object]]:
    """What other numbers say about an answer."""
    a, b, N = x.sort().values, y.sort().values, len(x)
    way, table = (a - b).abs(), (x[:, None] - y).abs()
    yield "not sorted: the first x need not go to the first y", (x - y).abs().mean()
    yield "only one of the two is sorted; sort both", ((a - y).abs().mean(), (x - b).abs().mean())
    yield "one is sorted upwards, the other downwards: that is the longest way", (a - b.flip(0)).abs().mean()
    means = "that is the difference of the means: ways to the left and to the right cancel; take abs first"
    yield means, ((x - y).mean().abs(), (x - y).mean())
    yield "that is the squared way; the way itself is asked for", way.square().mean()
    yield "that is the root of the mean square, W₂; W₁ is the mean of the ways", way.square().mean().sqrt()
    yield "that is the sum of all ways; take the mean", way.sum()
    yield f"you divide by N − 1 = {N - 1}; {N} samples move", way.sum() / (N - 1)
    yield f"you divide by 2 N = {2 * N}; only the {N} samples of x move", way.mean() / 2
    yield "that is the longest way of one sample; take the mean", way.max()
    yield "that is the middle way; the mean is asked for", way.median()
    shared = "each goes to its nearest, and two may share one: each y is taken once"
    nearest = table.amin(0).mean(), table.amin(1).mean()
    yield shared, (*nearest, sum(nearest), sum(nearest) / 2, max(nearest))
    greedy = "each takes the nearest that is left; the cheapest pairing of all is another"
    yield greedy, (_greedy(table), _greedy(table.T), _closest_first(table))
    yield "that pairs every x with every y; each x goes to one y alone", table.mean()
    spread = ((x[:, None] - x).abs().mean() + (y[:, None] - y).abs().mean()) / 2
    energy = table.mean() - spread
    yield "that is the energy distance; the mean way is asked for", (2 * energy, energy, (2 * energy).sqrt())
    places = (x.argsort() - y.argsort()).abs().double().mean()
    yield "argsort gives places, not the samples: x[x.argsort()], or x.sort().values", places


def _greedy(table: torch.Tensor) -> torch.Tensor:
    """The mean way where each row, in turn, takes the nearest column left."""
    table, total = table.clone(), 0.0
    for row in table:
        j = row.argmin()
        total = total + row[j].clone()
        table[:, j] = torch.inf
    return total / len(table)


def _closest_first(table: torch.Tensor) -> torch.Tensor:
    """The mean way where the closest pair goes first, then the closest of those left."""
    table, total = table.clone(), 0.0
    for _ in range(len(table)):
        i, j = divmod(int(table.argmin()), len(table))
        total = total + table[i, j].clone()
        table[i], table[:, j] = torch.inf, torch.inf
    return total / len(table)


EXERCISES = (
    Exercise(
        "05.1",
        "When fakes come twice as often",
        best_answer,
        "Each x on its own: the slope of p log D + k q log(1 − D) is p / D − k q / (1 − D). Where is it 0? "
        "Or look for a q' for which this is the page's own game.",
        "def best_answer(p, q, k):\n    return p / (p + k * q)",
    ),
    Exercise(
        "05.2",
        "Two slopes",
        slopes,
        "The slope of σ is σ (1 − σ), that of log x is 1 / x: multiply, and most of it cancels. Or let "
        "autograd do it, from −softplus(s) and softplus(−s), which are the same two losses without rounding.",
        "def slopes(s):\n    return -torch.sigmoid(s), torch.sigmoid(s) - 1",
    ),
    Exercise(
        "05.3",
        "How far must the samples move",
        wasserstein,
        "On a line nobody needs to overtake: the smallest x goes to the smallest y, the next to the next. "
        "x.sort().values is x in order.",
        "def wasserstein(x, y):\n    return (x.sort().values - y.sort().values).abs().mean()",
    ),
)
