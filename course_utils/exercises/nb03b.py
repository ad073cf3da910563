"""Exercises of notebook 03b: a loss without padding, clipped precision, who aligns with whom."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch

from course_utils.exercises import Exercise, Wrong, expect
from course_utils.exercises.properties import array, by_hand, none_of, signed
from course_utils.optim import cross_entropy

CAT = "the cat is on the mat"
MILITARY = (  # Papineni et al. 2002, example 1: the candidate and its three references
    "it is a guide to action which ensures that the military always obeys the commands of the party",
    "it is a guide to action that ensures that the military will forever heed party commands",
    "it is the guiding principle which guarantees the military forces always being under the command of the "
    "party",
    "it is the practical guide for the army always to heed the directions of the party",
)
_WHOLE = "BLEU's {} over all n is another step; the n-grams of one n here"
# (hypothesis, references, n), the precision, and what a reader's other number tells.
CASES = (
    (
        ("the cat slept", ("the cat sat down today",), 1),
        Fraction(2, 3),
        {
            "the last n-gram is missing: a sentence of m words has m − n + 1": 1,
            "that is 3 of 4; a sentence of m words has m − n + 1 n-grams, and no 1 is added to them": 3 / 4,
            "you divide by the reference's length, which is recall; divide by the hypothesis's": 2 / 5,
            "that counts n + 1 words at a time: an n-gram is words[i : i + n]": 1 / 2,
            "that is how many n-grams match; divide by how many there are": 2,
            "that is the share of n-grams that do not match": 1 / 3,
            "the brevity penalty is BLEU's other factor; the precision alone here": 2 / 3 * math.exp(-2 / 3),
        },
    ),
    (
        ("the cat slept", ("the cat sat down today",), 2),
        Fraction(1, 2),
        {
            "n is not used: for n = 2 count pairs of neighbours": 2 / 3,
            "you divide by the number of words; three words hold two bigrams": 1 / 3,
            _WHOLE.format("geometric mean"): 3**-0.5,
            _WHOLE.format("mean"): 7 / 12,
        },
    ),
    (
        ("cat the", ("the cat",), 2),
        Fraction(0),
        {"order counts inside an n-gram: “cat the” is not “the cat”": 1},
    ),
    (
        ("he cat", ("the cat",), 1),
        Fraction(1, 2),
        {"words match whole, not as parts of a longer text: “he” is no word of “the cat”": 1},
    ),
    (
        ("the the the cat slept", ("the cat saw the dog today",), 1),
        Fraction(3, 5),
        {
            "not clipped: “the” may match as often as the reference has it, twice": 4 / 5,
            "a set forgets how often: “the” occurs three times and may match twice": 2 / 3,
            "each n-gram matches once; it may match as often as the reference has it": 2 / 5,
        },
    ),
    (
        (" ".join(["the"] * 7), ("there is a cat on the mat", CAT), 1),
        Fraction(2, 7),
        {
            "you add the references up; the clip is the largest count in one of them": 3 / 7,
            "the clip is the largest count in any reference, not the smallest or the first's": 1 / 7,
            "the clip is the largest count in any reference, not their mean": 3 / 14,
        },
    ),
    (
        ("the cat slept well", ("the cat sat", "he slept well"), 1),
        Fraction(1),
        {"one reference alone does not decide: each n-gram may match in another one": 1 / 2},
    ),
    (
        ("cat sat", ("the cat", "sat down"), 2),
        Fraction(0),
        {"an n-gram runs over the end of a reference into the next: count them one by one": 1},
    ),
    ((MILITARY[0], MILITARY[1:], 1), Fraction(17, 18), {}),
    ((MILITARY[0], MILITARY[1:], 2), Fraction(10, 17), {}),
    ((CAT, ("a dog", CAT), 6), Fraction(1), {}),
)
Ask = Callable[..., np.ndarray]


def loss(answer: Callable) -> None:
    """Judge 03b.1: the mean of −log p over the real tokens, whatever stands at the padding."""

    def ask(logits: torch.Tensor, targets: torch.Tensor) -> float:
        return _number(answer, logits, targets)

    draw = torch.Generator().manual_seed(4)
    logits = 2 * torch.randn(3, 5, 7, generator=draw)  # (B, T, V)
    targets = torch.tensor([[3, 0, 5, 2, 0], [6, 1, 0, -100, -100], [4, -100, -100, -100, -100]])
    got, wanted = ask(logits, targets), _nats(logits, targets)
    _taken_for_loss(np.array(got), logits.double(), targets)
    _padding(ask, logits, targets, got)
    louder = logits.clone()
    louder[0, 0] += 1
    constant = "1 added to all logits of a position changes your loss, but no probability"
    expect(abs(ask(louder, targets) - got) < 1e-4, f"{constant}: softmax over dim=-1")
    expect(abs(got - wanted) < 1e-4, f"the loss should be {wanted:.4f} nats, yours is {signed(got, 4)}")
    other = torch.randn(2, 3, 4, generator=draw), torch.tensor([[3, 0, 1], [2, 2, 0]])
    cases = {"without padding": other, "for logits 300 times as large": (300 * logits, targets)}
    for case, inputs in cases.items():
        its, should = ask(*inputs), _nats(*inputs)
        right = f"right for one batch, but {case} it should be {should:.4f} nats, yours is {signed(its, 4)}"
        expect(math.isclose(its, should, rel_tol=1e-4), right)
    by_hand(answer, "cross_entropy", "nll_loss", "CrossEntropyLoss", "NLLLoss", "translation_loss")


def _number(answer: Callable, logits: torch.Tensor, targets: torch.Tensor) -> float:
    """The answer's loss; Wrong, with the reason, where it is no number or an id of −100 was looked up."""
    shapes = {
        tuple(targets.shape): "one number for each position: average over those that are not padding",
        (len(targets),): "one number for each sentence: average over all real tokens at once",
        (int((targets >= 0).sum()),): "one number for each real token: average them",
    }
    small = "the logarithm of a probability too small for a float; log_softmax never takes it"
    try:
        value = answer(logits.clone(), targets.clone())
    except (IndexError, RuntimeError) as error:
        out = "−100 is no id: leave those positions out before you look up the targets' probabilities"
        expect(not ("index" in str(error) and "-100" in str(error)), out)
        raise
    return float(array(value, (), "the loss", shapes, "a mean over nothing, or 0 · ∞?", small))


def _nats(logits: torch.Tensor, targets: torch.Tensor) -> float:
    return float(cross_entropy(logits.double().flatten(0, 1), targets.flatten()))


def _taken_for_loss(got: np.ndarray, logits: torch.Tensor, targets: torch.Tensor) -> None:
    """Raises Wrong where the answer is something else that is often taken for the loss."""
    real, ids = targets >= 0, targets.clamp(min=0)[..., None]  # (B, T), (B, T, 1)
    nats = -logits.log_softmax(-1).gather(-1, ids)[..., 0]  # (B, T)
    sums, n, mean = (nats * real).sum(1), real.sum(1), nats[real].mean()  # (B,), (B,), ()
    p = (-nats).exp()[real]
    shifted = "off by one: logits[:, t] already belong to targets[:, t]; the batch has done the shift"
    axis = "softmax over the wrong axis: dim=-1 is the vocabulary"
    over = [-logits.log_softmax(d).gather(-1, ids)[..., 0][real].mean() for d in (0, 1)]
    padded = "padding counts: those positions are averaged too, as if the right piece were number 0"
    mistakes = {
        "the sign is turned: −log p, so that a sure right answer costs nothing": -mean,
        "that is the sum; divide by the number of real tokens": sums.sum(),
        "padding counts: you divide by all B · T positions, not by the real tokens": sums.sum()
        / real.numel(),
        "that is the sum for a sentence; divide by the number of real tokens": sums.sum() / len(real),
        "that is the sum for a column; divide by the number of real tokens": sums.sum() / real.shape[1],
        padded: nats.mean(),
        "a mean of the sentences' means: short sentences weigh as much as long ones": (sums / n).mean(),
        "tokens of id 0 are left out; only −100 is padding": nats[targets > 0].mean(),
        shifted: (_nats(logits[:, :-1], targets[:, 1:]), _nats(logits[:, 1:], targets[:, :-1])),
        axis: tuple(over),
        "softmax is missing: these are logits": -logits.gather(-1, ids)[..., 0][real].mean(),
        "the logarithm is missing: −log p": (-p.mean(), p.mean(), 1 - p.mean()),
        "the logarithm of the mean; the mean of the logarithms is asked for": -p.mean().log(),
        "these are bits; nats come from the natural logarithm": mean / math.log(2),
        "that is the perplexity, e to the power of the loss": mean.exp(),
        "you average over the vocabulary too: each token counts once": mean / logits.shape[-1],
    }
    none_of(got, mistakes)


def _padding(ask: Ask, logits: torch.Tensor, targets: torch.Tensor, got: float) -> None:
    """Raises Wrong where what stands at the padding, or how much there is, changes the loss."""
    noise = torch.where((targets < 0)[..., None], logits.flip(-1) + 1, logits)
    expect(abs(ask(noise, targets) - got) < 1e-4, "the logits at padded positions change your loss")
    longer = torch.cat([logits, logits[:, :2]], 1), torch.nn.functional.pad(targets, (0, 2), value=-100)
    expect(abs(ask(*longer) - got) < 1e-4, "two more columns of padding change your loss")


def precision(answer: Callable) -> None:
    """Judge 03b.2: small cases that tell mistakes apart, the paper's own examples, sentences too short."""

    def ask(hypothesis: str, references: tuple[str, ...], n: int) -> float:
        value = answer(hypothesis.split(), [reference.split() for reference in references], n)
        pair = isinstance(value, tuple) and len(value) == 2
        expect(not pair, "return the share itself, not (matches, n-grams)")
        value = float(value) if isinstance(value, Fraction) else value
        return float(array(value, (), "the precision"))

    for case, wanted, telltales in CASES:
        got = ask(*case)
        none_of(np.array(got), telltales, 1e-4)
        expect(not 1 < got <= 100, f"a share lies between 0 and 1, yours is {got:.4g}")
        expect(abs(got - wanted) < 1e-4, f"{_quoted(*case)} should be {wanted}, yours is {signed(got, 4)}")
    for short in ("the cat", "", "cat"):
        nothing = f"a hypothesis of {len(short.split())} words holds no trigram: return 0"
        try:
            got = ask(short, (CAT,), 3)
        except ZeroDivisionError:
            expect(False, f"{nothing}, do not divide by 0")
        expect(got == 0, f"{nothing}, not {signed(got, 4)}")
    long = ask("the cat sat on the mat", ("the cat", CAT), 3)
    expect(abs(long - 1 / 4) < 1e-4, "a reference shorter than n has no n-gram to match")


def _quoted(hypothesis: str, references: tuple[str, ...], n: int) -> str:
    """A case in words, long sentences cut."""
    first, *others = (f"“{r if len(r) < 30 else r[:25] + ' …'}”" for r in (hypothesis, *references))
    return f"for n = {n} the precision of {first} against {', '.join(others)}"


def alignment(answer: Callable) -> None:
    """Judge 03b.3: one layer, the heads' mean, END left out, the best column of each row."""

    def ask(weights: torch.Tensor, layer: int) -> list[int]:
        shapes = _shapes_of_alignment(*weights.shape)
        got = array(answer(weights.clone(), layer), (weights.shape[2],), "the alignment", shapes)
        expect((got == got.round()).all(), "return the columns' numbers, not their weights")
        return got.astype(int).tolist()

    weights, layer = attention_weights(10, 3, 4, 5, 7), 1
    ids = ask(weights, layer)
    _end_left_out(ids, weights)
    none_of(np.array(ids), _taken_for_alignment(weights, layer), 0.1)
    noise = weights.flip(-1)
    noise[layer] = weights[layer]
    expect(ask(noise, layer) == ids, f"other layers change your answer: layer {layer} alone is asked for")
    _right_rows(ids, weights, layer)
    for sizes, other in (((3, 4, 5, 7), 2), ((3, 4, 5, 7), 0), ((2, 3, 6, 6), 0), ((1, 1, 2, 9), 0)):
        weights = attention_weights(other + 20, *sizes)
        ids = ask(weights, other)
        try:
            _end_left_out(ids, weights)
            _right_rows(ids, weights, other)
        except Wrong as wrong:
            expect(False, f"right for layer 1 of {(3, 4, 5, 7)}, but for layer {other} of {sizes} {wrong}")


def _shapes_of_alignment(layers: int, nh: int, T: int, S: int) -> dict[tuple[int, ...], str]:
    """What a result of another shape than (T,) tells."""
    columns = "one number for each source piece; each target row asks for one: argmax over dim=-1"
    mean = "these are the heads' mean weights; give the place of each row's largest"
    return {
        (S,): columns,
        (S - 1,): columns,
        (nh, T): "one row for each head: average the heads first",
        (layers, T): "one row for each layer: take the layer asked for",
        (layers, nh, T): "one row for each layer and head: take one layer, average its heads",
        (T, S): mean,
        (T, S - 1): mean,
        (T - 1,): "a row is missing: END is the source's last column; all target rows stay",
        (): "one number in all; each of the T target rows asks for one: argmax over dim=-1",
    }


def attention_weights(seed: int, layers: int, nh: int, T: int, S: int) -> torch.Tensor:
    """Random attention, (layers, nh, T, S), in which the last column, END, collects much."""
    scores = 1.5 * torch.randn(layers, nh, T, S, generator=torch.Generator().manual_seed(seed))
    scores[..., -1] += 2
    return scores.softmax(-1)


def _end_left_out(ids: list[int], weights: torch.Tensor) -> None:
    """Raises Wrong where a row is aligned with END, or with no column at all."""
    S = weights.shape[-1]
    for t, s in enumerate(ids):
        expect(s != S - 1, f"row {t} aligns with column {s}, which is END: leave the last column out")
        expect(0 <= s < S, f"row {t} aligns with column {s}; columns go from 0 to {S - 2}, END left out")


def _taken_for_alignment(weights: torch.Tensor, layer: int) -> dict[str, object]:
    """What other ways of reading the weights say about an answer."""
    pieces = weights[..., :-1]
    mean, best = pieces.mean(1), pieces[layer].argmax(-1)  # (layers, T, S − 1), (nh, T)
    mean_of = best.float().mean(0)  # (T,)
    here = "layer {} is read; layer {} is asked for".format
    others = {here(i, layer): mean[i].argmax(-1) for i in range(len(mean)) if i != layer}
    after = "END is taken away in front: it is the last column; the first is a piece"
    sink = weights[layer].mean(0)
    return others | {
        "the layers are averaged; one layer is asked for": mean.mean(0).argmax(-1),
        f"head {layer} over all layers; axis 0 counts layers, axis 1 heads": pieces[:, layer]
        .mean(0)
        .argmax(-1),
        "each head's best, and then a vote: average the weights first, argmax once": best.mode(0).values,
        "each head's best, and then their mean: average the weights first, argmax once": (
            mean_of.round(),
            mean_of.floor(),
        ),
        "the largest weight of any head decides; average the heads": pieces[layer].amax(0).argmax(-1),
        "the smallest weight of the heads decides; average the heads": pieces[layer].amin(0).argmax(-1),
        "head 0 alone is read; average the heads": best[0],
        "the last head alone is read; average the heads": best[-1],
        "these are the columns attended to least: argmax, not argmin": mean[layer].argmin(-1),
        after: (sink[:, 1:].argmax(-1), pieces[layer].mean(0)[:, 1:].argmax(-1)),
        "each column is one too high: count from 0": mean[layer].argmax(-1) + 1,
    }


def _right_rows(ids: list[int], weights: torch.Tensor, layer: int) -> None:
    """Raises Wrong at the first row that is not aligned with its largest weight."""
    mean = weights[layer].mean(0)[:, :-1]  # (T, S − 1)
    for t, (its, should) in enumerate(zip(ids, mean.argmax(-1).tolist(), strict=True)):
        why = f"there the heads' mean is {mean[t, should]:.3f}, at yours {mean[t, its]:.3f}"
        expect(its == should, f"row {t} should align with column {should}, not {its}: {why}")


EXERCISES = (
    Exercise(
        "03b.1",
        "The loss, padding left out",
        loss,
        "targets != -100 picks the real tokens out of both the targets and the logits; "
        "what is left is (N, V) and (N,). log_softmax does the rest.",
        "def loss(logits, targets):\n"
        "    real = targets != -100\n"
        "    logs, ids = logits[real].log_softmax(dim=-1), targets[real]\n"
        "    return -logs[torch.arange(len(ids)), ids].mean()",
    ),
    Exercise(
        "03b.2",
        "Clipped precision",
        precision,
        "Count each different n-gram of the hypothesis; it matches at most as often as the reference "
        "that has it most often. collections.Counter, or a list's count, does the counting.",
        "def precision(hypothesis, references, n):\n"
        "    grams = lambda words: [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]\n"
        "    ours, theirs = grams(hypothesis), [grams(words) for words in references]\n"
        "    matches = sum(min(ours.count(g), max(r.count(g) for r in theirs)) for g in set(ours))\n"
        "    return matches / max(1, len(ours))",
    ),
    Exercise(
        "03b.3",
        "Who aligns with whom",
        alignment,
        "Three steps, in this order: one layer, (nh, T, S); the heads' mean, (T, S); each row's best column, "
        "the last one left out by [:, :-1].",
        "def alignment(weights, layer):\n"
        "    pieces = weights[layer].mean(dim=0)[:, :-1]\n"
        "    return pieces.argmax(dim=-1).tolist()",
    ),
)
