"""Exercises of notebook 05b: a word by noise, a baseline of the others, what a dropped mode costs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch

from course_utils.exercises import Exercise, Wrong, expect
from course_utils.exercises.properties import array, by_hand, none_of, ratio_of, signed

CLEAR = 0.01  # the largest is ahead by this, so that rounding picks no other word


def pick(answer: Callable) -> None:
    """Judge 05b.1: the largest of logits + noise in each row; shares, sizes, large and impossible logits."""

    def ask(logits: torch.Tensor, u: torch.Tensor, case: str = "") -> np.ndarray:
        return _words(answer, logits, u, case)

    logits, u = rows(0, 200, 5)
    got = ask(logits, u)
    again = "asked twice with the same u, you pick other words: all noise comes from u, draw none yourself"
    expect((ask(logits, u) == got).all(), again)
    none_of(got, dict(_taken_for_words(logits.double(), u.double())))
    expect(len(set(got)) > 1, f"you pick word {got[0]:.0f} each time; is the noise NaN?")
    _shares(ask)
    _the_largest(got, logits, u)
    for B, V in ((1, 2), (3, 1), (4, 4), (50, 30)):
        logits, u = rows(1, B, V)
        case = f"right for B = 200 and V = 5, but for B = {B} and V = {V} "
        _the_largest(ask(logits, u, case), logits, u, case)
    logits, u = rows(2, 100, 6)
    high = "right, but 1,000 more for all logits of a row changes your word: e^1000 overflows; "
    _the_largest(ask(logits + 1000, u, high), logits, u, high)
    logits[:, 2:4] = -torch.inf
    never = "right, but a word whose logit is −∞ must never come; "
    _the_largest(ask(logits, u, never), logits, u, never, clear=False)


def rows(seed: int, B: int, V: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits and uniforms, (B, V) each, whose largest sum is ahead by `CLEAR`."""
    draw = torch.Generator().manual_seed(seed)
    logits, u = 1.5 * torch.randn(2 * B, V, generator=draw), torch.rand(2 * B, V, generator=draw)
    u = u.clamp(1e-6, 1 - 1e-6)
    best = (logits + _gumbel(u)).topk(min(V, 2)).values
    clear = (best[:, 0] - best[:, -1] > CLEAR) if V > 1 else torch.ones(2 * B).bool()
    return logits[clear][:B], u[clear][:B]


def _gumbel(u: torch.Tensor) -> torch.Tensor:
    return -(-u.log()).log()


def _words(answer: Callable, logits: torch.Tensor, u: torch.Tensor, case: str = "") -> np.ndarray:
    """The answer's words, (B,); Wrong where they are no word of each row."""
    B, V = logits.shape
    shapes = {}
    if min(B, V) > 1 and B != V:
        shapes = {
            (V,): "the argmax goes along the batch; along the words, dim=-1, there is one for each row",
            (B, V): "a number for each word: one-hot, or scores? Return the place of the largest, argmax",
            (B, 1): "an axis of length 1 is left: no keepdim",
            (2, B): "that is the largest and its place: return the place alone, .indices or argmax",
            (): "one number for the whole batch: argmax needs dim=-1",
        }
    got = array(answer(logits.clone(), u.clone()), (B,), f"{case}the row of words", shapes)
    whole = (got == np.floor(got)).all()
    expect(
        whole, f"a word is a whole number; yours is {signed(got[0])}: the place of the largest, not itself"
    )
    counted = "words count from 0" if got.max() == V else "a word is one of the row's"
    expect(
        got.min() >= 0 and got.max() < V,
        f"{case}{counted}, 0 to {V - 1}; yours go from {signed(got.min(), 0)} to {got.max():.0f}",
    )
    return got


def _taken_for_words(logits: torch.Tensor, u: torch.Tensor) -> Iterator[tuple[str, object]]:
    """What other ways of picking give, (B,) each."""

    def best(*scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(score.argmax(-1) for score in scores)

    noise, p = _gumbel(u), logits.softmax(-1)
    add = "the noise is −log(−log u)"
    yield from _other_noises(logits, u)
    yield f"u itself is added, and to softmax: {add}, and it is added to logits", best(p + u)
    yield "the noise is added to softmax; add it to the logits, or to log softmax", best(p + noise)
    yield "the noise is added to e^logits; add it to the logits", best(logits.exp() + noise)
    yield (
        "that is the likeliest word each time: the noise is not added, or the same for all words of a row",
        best(logits),
    )
    yield "that is the noise alone; the logits are not used", best(noise)
    yield "that is the smallest; the largest is asked for", best(-logits - noise)
    yield "the noise multiplies; it is added", best(logits * noise, p * noise, logits * u, p * u)
    counted = (u[:, :1] > p.cumsum(-1)).sum(-1), (u[:, -1:] > p.cumsum(-1)).sum(-1)
    yield "that counts up softmax until it passes u: right as often, but not the word of this noise", counted
    nan = "the inner minus is missing: log u is negative, and has no logarithm"
    yield nan, torch.zeros(len(u))


def _other_noises(logits: torch.Tensor, u: torch.Tensor) -> Iterator[tuple[str, object]]:
    """What other noises, added to the logits, pick, (B,) each."""

    def best(*noises: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple((logits + noise).argmax(-1) for noise in noises)

    noise, add = _gumbel(u), "the noise is −log(−log u)"
    yield f"the minus in front is missing: {add}, and it is added", best(-noise)
    yield f"a logarithm is missing: {add}", best(u.log(), -u.log())
    yield f"u itself is added: {add}", best(u)
    yield f"1 − u in the place of u: as good a draw, but another; {add}", best(_gumbel(1 - u))
    yield f"the noise is normal; a softmax wants Gumbel's: {add}", best(torch.special.ndtri(u))
    yield f"that is logistic noise, for a yes or no; {add}", best(u.logit())
    log = "the natural logarithm is meant, not log₂ or log₁₀"
    yield log, best(-(-u.log2()).log2(), -(-u.log10()).log10())
    yield "the first row's noise is used for all; each row has its own", best(noise[0])


def _shares(ask: Callable[..., np.ndarray], N: int = 20_000) -> None:
    """Raises Wrong where a word comes more or less often than softmax says."""
    p = torch.tensor([0.1, 0.45, 0.25, 0.2])
    u = torch.rand(N, 4, generator=torch.Generator().manual_seed(3)).clamp(1e-6, 1 - 1e-6)
    shares = np.bincount(ask(p.log().expand(N, 4), u).astype(int), minlength=4) / N
    i = int(abs(shares - p.numpy()).argmax())
    often = f"a word of probability {p[i]:.2f} comes {shares[i]:.3f} of the time in {N:,} rows"
    expect(abs(shares[i] - p[i]) < 0.02, often)


def _the_largest(
    got: np.ndarray, logits: torch.Tensor, u: torch.Tensor, case: str = "", clear: bool = True
) -> None:
    """Raises Wrong at the first row whose largest of logits + noise is another word."""
    total = logits.double() + _gumbel(u.double())
    ahead = total.topk(min(2, total.shape[1])).values
    wanted = total.argmax(-1)
    for n in np.argwhere(got != wanted.numpy())[:, 0]:
        near = not clear and ahead[n, 0] - ahead[n, -1] < CLEAR
        numbers = f"{signed(total[n, wanted[n]].item())}; yours, word {got[n]:.0f}"
        row = f"in row {n} word {wanted[n]} has the largest logit + noise, {numbers}"
        expect(near, f"{case}{row}, has {signed(total[n, int(got[n])].item())}")


def advantages(answer: Callable) -> None:
    """Judge 05b.2: each value less the mean of the others; its own leaves the baseline as it is."""

    def ask(values: torch.Tensor, nan: str = "") -> np.ndarray:
        N = len(values)
        shapes = _other_shapes(N) if N > 2 else {}
        return array(answer(values.clone()), (N,), "the row of advantages", shapes, nan, nan)

    values = torch.tensor([0.9, 0.2, 0.5, 0.75, 0.1])
    got, wanted = ask(values), _less_others(values)
    none_of(got, dict(_taken_for_advantages(values.double())))
    centred = (values - values.mean()).double().numpy()
    ratio = ratio_of(got, centred)
    times = (
        f"that is {signed(ratio or 0)} times (value − mean of all); with the others' mean it is B / (B − 1)"
    )
    expect(ratio is None or abs(ratio - 1.25) < 1e-3, f"{times} = 1.25 times")
    _own_and_others(ask, values, got)
    _each(got, wanted, values, "")
    single = "each of two sentences has one other, so divide by B − 1 = 1"
    for other in (torch.tensor([0.3, 0.8]), torch.linspace(-40, 3, 12), torch.tensor([2.0, 8, 1])):
        case = f"right for 5 values, but for {len(other)} "
        _each(ask(other, single if len(other) == 2 else ""), _less_others(other), other, case)
    equal = "equal values belong to different sentences: leave out a place, not a value; "
    for other in (torch.tensor([1.0, 0, 1, 1, 0, 0, 1]), torch.full((4,), 0.5)):
        _each(ask(other, equal), _less_others(other), other, equal)


def _other_shapes(N: int) -> dict[tuple[int, ...], str]:
    lost = "an axis of length 1 is left"
    return {
        (): "one number for all; each sentence has its own",
        (N, N): "a number for each pair of sentences: take the mean over the others",
        (N, N - 1): "one less each of the others: take the mean over them",
        (N - 1,): "one is missing; each sentence has its own",
        (1, N): lost,
        (N, 1): lost,
    }


def _less_others(values: torch.Tensor) -> np.ndarray:
    """The right answer, (B,)."""
    v = values.double()
    return (v - (v.sum() - v) / (len(v) - 1)).numpy()


def _taken_for_advantages(v: torch.Tensor) -> Iterator[tuple[str, object]]:
    """What other baselines give, (B,) each."""
    B, mean = len(v), v.mean()
    others = (v.sum() - v) / (B - 1)
    right = v - others
    own = "a sentence's own value is in its baseline"
    yield f"that is the mean of all {B}: {own}; take the mean of the other {B - 1}", v - mean
    spread = (v.std(), v.std(correction=0), v.var(), right.std(), right.std(correction=0))
    std = "you divide by the spread of the values; only the mean of the others is taken away"
    yield std, tuple(a / s for a in (v - mean, right) for s in spread)
    yield "the others are added up; take their mean", v - (v.sum() - v)
    yield "all are added up; take the mean of the others", v - v.sum()
    yield f"you divide the others' sum by B = {B}; there are B − 1 = {B - 1} others", v - (v.sum() - v) / B
    yield f"the sum of all {B} is divided by B − 1: {own}", v - v.sum() / (B - 1)
    yield "those are the baselines, the means of the others: take them from the values", others
    yield "the sign is turned: value − baseline, above 0 for what was better than the others", -right
    yield "that is the mean of all, turned round: value − baseline", mean - v
    yield from _taken_away(v, others)


def _taken_away(v: torch.Tensor, others: torch.Tensor) -> Iterator[tuple[str, object]]:
    """What is left where something else than the means of the others is taken away, (B,) each."""
    mean, right = v.mean(), v - others
    yield "nothing is taken away", v
    yield "the median is taken away; the mean of the others is asked for", v - v.median()
    yield "the best is taken away; the mean of the others is asked for", v - v.max()
    yield "the worst is taken away; the mean of the others is asked for", v - v.min()
    yield (
        "that is one other sentence, the one beside it; take the mean of all others",
        (v - v.roll(1), v - v.roll(-1)),
    )
    before = (v.cumsum(0) - v) / torch.arange(len(v)).clamp_min(1)
    so_far = v.cumsum(0) / torch.arange(1, len(v) + 1)
    yield "the baseline is the mean of those before; take all others", (v - before, v - so_far)
    yield "that is a ratio; the mean of the others is taken away", (v / others, v / mean, v / others - 1)
    yield "that is a softmax; the mean of the others is taken away", v.softmax(0)
    yield "those are places in the order; values are asked for", v.argsort().argsort()
    yield (
        "the sentences are in another order: no sorting",
        (right.sort().values, right.sort(descending=True).values),
    )


def _own_and_others(ask: Callable[..., np.ndarray], values: torch.Tensor, got: np.ndarray) -> None:
    """Raises Wrong where a baseline knows its own sentence, or does not know the others."""
    B = len(values)
    for k in range(B):
        raised = values.clone()
        raised[k] += 1
        gain = ask(raised) - got
        knows = f"1 more for sentence {k} should give it 1 more, yours gives {signed(gain[k])}"
        expect(abs(gain[k] - 1) < 1e-4, f"{knows}: its baseline knows its own value")
        rest = np.delete(gain, k)
        worst = rest[abs(rest + 1 / (B - 1)).argmax()]
        share = f"1 more for sentence {k} should give each other one {signed(-1 / (B - 1), 2)}"
        expect(
            abs(worst + 1 / (B - 1)) < 1e-4, f"{share}, the share it has in their mean; yours {signed(worst)}"
        )


def _each(got: np.ndarray, wanted: np.ndarray, values: torch.Tensor, case: str) -> None:
    """Raises Wrong at the sentence farthest from value − mean of the others."""
    k = int(abs(got - wanted).argmax())
    its, value = signed(got[k]), f"the value {signed(values[k].item())} of sentence {k}"
    off = f"{case}{value} less the mean of the others is {signed(wanted[k])}, yours {its}"
    expect(np.allclose(got, wanted, 1e-4, 1e-4), off)


def divergences(answer: Callable) -> None:
    """Judge 05b.3: both numbers in nats; 0 log 0 = 0, and infinite where one calls the other impossible."""

    def ask(p: torch.Tensor, q: torch.Tensor, trouble: str = "") -> tuple[float, float]:
        return _two_numbers(answer, p, q, trouble)

    p, q = torch.tensor([0.5, 0.3, 0.15, 0.05]), torch.tensor([0.1, 0.25, 0.25, 0.4])
    got, wanted = ask(p, q), _both(p, q)
    none_of(np.array(got), dict(_taken_for_divergences(p.double(), q.double())))
    same = ask(p, p)
    expect(
        abs(same[0]) + abs(same[1]) < 1e-5,
        f"from p to p itself both are 0, yours {signed(max(same, key=abs))}",
    )
    _as_asked(got, wanted, "")
    draw = torch.Generator().manual_seed(0)
    for N in (2, 9, 300):
        p, q = torch.rand(2, N, generator=draw).pow(2).add(1e-3)
        p, q = p / p.sum(), q / q.sum()
        _as_asked(ask(p, q), _both(p, q), f"right for 4 outcomes, but for {N} ")
    _with_zeros(ask)
    by_hand(answer, "kl_div", "kl_divergence", "rel_entr")


def _two_numbers(answer: Callable, p: torch.Tensor, q: torch.Tensor, trouble: str) -> tuple[float, float]:
    """The answer's pair, infinities allowed; Wrong, with the reason where one is known, if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, of log 0
            value = answer(p.clone(), q.clone())
    except (ArithmeticError, ValueError) as error:
        if trouble:
            raise Wrong(f"{trouble}; yours raises {type(error).__name__}: {error}") from error
        raise
    expect(value is not None, "your function returned None: is a return missing?")
    pair, kind = "return two numbers, (KL(p‖q), KL(q‖p))", type(value).__name__
    sized = isinstance(value, tuple | list) or getattr(value, "shape", ()) != ()
    expect(sized, f"{pair}; you return one {kind}")
    expect(len(value) == 2, f"{pair}; you return {len(value)}")
    parts = [np.asarray(part.detach() if isinstance(part, torch.Tensor) else part) for part in value]
    terms = "you return a number for each outcome; their sum is asked for"
    expect(not any(part.shape == tuple(p.shape) for part in parts), terms)
    for part in parts:
        expect(part.shape == () and part.dtype.kind in "biuf", f"{pair}; one of yours is {part!r}")
        expect(not np.isnan(part), f"one is NaN{': ' if trouble else ''}{trouble}")
    return float(parts[0]), float(parts[1])


def _kl(p: torch.Tensor, q: torch.Tensor) -> float:
    p, q = p.double(), q.double()
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum().item()


def _both(p: torch.Tensor, q: torch.Tensor) -> tuple[float, float]:
    """The right answer."""
    return _kl(p, q), _kl(q, p)


def _taken_for_divergences(p: torch.Tensor, q: torch.Tensor) -> Iterator[tuple[str, object]]:
    """What other numbers say about an answer, (2,) each."""
    right, m, N = np.array(_both(p, q)), (p + q) / 2, len(p)
    entropy, cross = np.array([-(a * a.log()).sum() for a in (p, q)]), -np.array([p @ q.log(), q @ p.log()])
    first = "KL(p‖q), the mean of log(p / q) over p, comes first"
    yield f"the two are exchanged: {first}", right[::-1]
    yield "that is in bits; nats are asked for, the natural logarithm", right / math.log(2)
    yield "those are base 10; nats are asked for, the natural logarithm", right / math.log(10)
    yield "both signs are turned: Σ p log(p / q), which is 0 or more", -right
    turned = "log(p / q) is weighed by p, and log(q / p) by q; yours by the other"
    yield f"{turned}, which exchanges them and turns both signs", -right[::-1]
    yield "that is the cross entropy; take the entropy of the first away: Σ p log(p / q)", cross
    yield "that is the cross entropy, exchanged; Σ p log(p / q) comes first", cross[::-1]
    yield "those are the entropies; Σ p log(p / q) looks at both", entropy
    yield from _other_terms(p.double(), q.double())
    yield "both are KL(p‖q); the second is the other way round", [right[0]] * 2
    yield "both are KL(q‖p); the first is the other way round", [right[1]] * 2
    yield f"that is the mean over {N} outcomes; the sum is weighed by p already", right / N
    yield "that is Jensen–Shannon's half: p against (p + q) / 2; here p against q", [_kl(p, m), _kl(q, m)]
    js = (_kl(p, m) + _kl(q, m)) / 2
    yield "that is Jensen–Shannon, the same both ways; two numbers are asked for", [js, js]
    yield (
        "that is the mean or the sum of both; each alone is asked for",
        ([right.mean()] * 2, [right.sum()] * 2),
    )


def _other_terms(p: torch.Tensor, q: torch.Tensor) -> Iterator[tuple[str, object]]:
    """What other terms than p log(p / q) add up to, (2,) each."""
    log = (p / q).log()
    yield "the logarithm is not weighed: Σ p log(p / q)", ([log.sum(), -log.sum()], [log.mean(), -log.mean()])
    ratios = [p @ (p / q), q @ (q / p)]
    yield "the logarithm is missing", (ratios, [(p @ (p - q)), (q @ (q - p))])
    yield "the logarithm goes inside the sum: Σ p log(p / q)", np.log(ratios)
    yield "abs does not belong there: where q is above p a term is negative", [p @ log.abs(), q @ log.abs()]


def _as_asked(got: tuple[float, float], wanted: tuple[float, float], case: str) -> None:
    """Raises Wrong at the first of the two that is off."""
    for its, should, name in zip(got, wanted, ("KL(p‖q)", "KL(q‖p)"), strict=True):
        off = f"{case}{name} should be {should:.4f}, yours is {signed(its, 4)}"
        expect(math.isclose(its, should, rel_tol=1e-3, abs_tol=1e-4), off)


def _with_zeros(ask: Callable[..., tuple[float, float]]) -> None:
    """Raises Wrong unless 0 log 0 is 0, and 0 against more than 0 infinite, each way."""
    p, q, r = (torch.tensor(row) for row in ([0.7, 0.3, 0.0], [0.4, 0.6, 0.0], [0.4, 0.5, 0.1]))
    nothing = "where p and q are both 0 nothing is lost: 0 log 0 = 0, but log 0 is −∞ and 0 / 0 NaN"
    _as_asked(ask(p, q, nothing), _both(p, q), f"{nothing}; ")
    zero = "where one is 0 alone: 0 log 0 = 0, but log 0 is −∞, and 0 · −∞ NaN"
    for a, b, where in ((r, q, "p is 0.1 and q"), (q, r, "q is 0.1 and p")):
        got, wanted = ask(a, b, zero), _both(a, b)
        name, k = ("KL(p‖q)", 0) if wanted[0] == math.inf else ("KL(q‖p)", 1)
        lost = f"where {where} 0, {name} is infinite, not {signed(got[k])}"
        expect(got[k] == math.inf, f"{lost}: add nothing to a 0, clamp nothing, leave nothing out")
        _as_asked(got, wanted, f"right, but where {where} 0, ")
    far = ask(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), zero)
    expect(far == (math.inf, math.inf), f"with nothing in common both are infinite, yours are {far}")


EXERCISES = (
    Exercise(
        "05b.1",
        "A word by noise",
        pick,
        "Two minus signs and two logarithms make Gumbel's noise of u: log u is below 0, −log u above; the "
        "logarithm of that anywhere. Add it to the logits; argmax(dim=-1) goes along the words.",
        "def pick(logits, u):\n    return (logits - torch.log(-torch.log(u))).argmax(dim=-1)",
    ),
    Exercise(
        "05b.2",
        "A baseline that does not know",
        advantages,
        "values.sum() − values is, for each sentence, the sum of the others. How many are they?",
        "def advantages(values):\n"
        "    others = (values.sum() - values) / (len(values) - 1)\n"
        "    return values - others",
    ),
    Exercise(
        "05b.3",
        "What a dropped mode costs",
        divergences,
        "log(p / q) = log p − log q, and torch.xlogy(a, b) is a log b with 0 log 0 = 0. Where a is above 0 "
        "and b is 0 it is −∞, as it should be.",
        "def divergences(p, q):\n"
        "    def kl(a, b):\n"
        "        return (torch.xlogy(a, a) - torch.xlogy(a, b)).sum()\n\n"
        "    return kl(p, q), kl(q, p)",
    ),
)
