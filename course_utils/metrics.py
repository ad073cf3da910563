"""How sure a score is: an interval beside every estimate.

The bootstrap (Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics, 1979) draws
the examples again with replacement and looks at how the score moves. We take the percentile interval (Efron &
Tibshirani, "An introduction to the bootstrap", 1993, chapter 13): it suits any score and never leaves the
score's range. For means of 5 to 200 values, normal, exponential or right-or-wrong, it covered as often as
the bias-corrected and accelerated one (BCa), which costs a statistic for every example more.

It needs examples. Of ten values its "95 %" interval for a mean covers about 91 %, of five 84 %: hence
`mean_interval` (Student's t) for a handful of seeds, and `prediction_interval` for one seed more.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from scipy import stats

FEWEST = 10  # units the bootstrap is trusted with
_BATCH = 2_000_000  # numbers drawn at once: bounds memory, not the result

Values = Sequence[float] | np.ndarray


class Interval(NamedTuple):
    """An estimate between its bounds."""

    low: float
    estimate: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_interval(
    values: Values | tuple[Values, ...],
    statistic: Callable = np.mean,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    groups: Sequence | np.ndarray | None = None,
) -> Interval:
    """Percentile bootstrap interval of a statistic.

    Args:
        values: (N,) one value an example, or a tuple of rows drawn together: (labels, predictions), say.
        statistic: from the rows to one number; drawn in bulk where it takes `axis`, else once a resample.
        confidence: share of intervals, over repeated experiments, that should hold the true value.
        resamples: number of draws.
        seed: of the draws.
        groups: (N,) unit of each example where examples are not independent (sentences of one document,
            say); whole groups are drawn then.

    Raises:
        ValueError: rows of different lengths, not finite, fewer than ten independent units (few seeds:
            `mean_interval`), a confidence outside (0, 1), or a statistic that is not one number.
    """
    rows = _rows(values)
    units = None if groups is None else _units(groups, len(rows[0]))
    _check_request(len(rows[0]) if units is None else len(units), confidence, resamples)
    estimate = _number(statistic(*rows))
    sample, on_sample, in_bulk = rows, statistic, "axis" in _parameters(statistic)
    if units is not None:
        sample, on_sample, in_bulk = (np.arange(len(units)),), _on_units(statistic, rows, units), False
    bounds = stats.bootstrap(
        sample,
        on_sample,
        n_resamples=resamples,
        batch=max(1, _BATCH // len(rows[0])),
        vectorized=in_bulk,
        paired=len(sample) > 1,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(bounds.low), estimate, float(bounds.high))


def paired(ours: Values, theirs: Values, statistic: Callable = np.mean, **options) -> Interval:
    """Interval of `statistic(ours) - statistic(theirs)`, both scored on the same examples.

    What makes an example hard for both cancels out, so this is sharper than two intervals side by side. A
    difference is there where the interval leaves 0 out.

    Args:
        ours: (N,) our score on each example.
        theirs: (N,) the other's score on the same examples, in the same order.
        statistic: from a row to one number.
        options: those of `bootstrap_interval`.

    Raises:
        ValueError: as `bootstrap_interval`.
    """
    if "axis" not in _parameters(statistic):
        return bootstrap_interval((ours, theirs), lambda a, b: statistic(a) - statistic(b), **options)

    def difference(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic(a, axis=axis) - statistic(b, axis=axis)

    return bootstrap_interval((ours, theirs), difference, **options)


def mean_interval(values: Values, *, confidence: float = 0.95) -> Interval:
    """Student's t interval of a mean: for a few runs with different seeds.

    Exact at any number of values where they are normally distributed (Student, "The probable error of a
    mean", Biometrika, 1908), close to it for runs of one experiment.

    Raises:
        ValueError: fewer than two values, values that are not finite, or a confidence outside (0, 1).
    """
    (row,) = _rows((values,))
    if len(row) < 2:
        raise ValueError(f"values must be two or more to tell their spread, got {len(row)}")
    _check_confidence(confidence)
    mean = float(row.mean())
    reach = stats.t.ppf((1 + confidence) / 2, len(row) - 1) * row.std(ddof=1) / np.sqrt(len(row))
    return Interval(mean - float(reach), mean, mean + float(reach))


def crossed_interval(values: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """Interval of the mean of S runs on the same N examples, were both the runs and the examples drawn anew.

    With the mean squares of runs, of examples and of what is left, the mean's variance is
    (MS_runs + MS_examples - MS_rest) / (S N); the t distribution's degrees of freedom are Satterthwaite's.

    Args:
        values: (S, N), a score of each run on each example, or the difference of two models' scores.
        confidence: as in `bootstrap_interval`.

    Raises:
        ValueError: fewer than two runs or examples, values that are not finite, or a confidence outside
            (0, 1).

    Source: Cornfield & Tukey, "Average values of mean squares in factorials", Annals of Mathematical
    Statistics 1956; Satterthwaite, "An approximate distribution of estimates of variance components",
    Biometrics 1946.
    """
    table = np.asarray(values, float)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise ValueError(f"values must be (S, N) finite numbers, 2 or more each way, got shape {table.shape}")
    _check_confidence(confidence)
    (S, N), mean = table.shape, table.mean()
    runs, examples = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    freedom = np.array([S - 1, N - 1, (S - 1) * (N - 1)])
    rest = (table - runs - examples + mean) ** 2
    squares = (
        np.array([N * ((runs - mean) ** 2).sum(), S * ((examples - mean) ** 2).sum(), rest.sum()]) / freedom
    )
    whole = max(squares @ [1, 1, -1], squares[2])  # a difference may fall below what it can be
    reach = 0.0
    if whole > 0:
        degrees = whole**2 / (squares**2 / freedom).sum()
        reach = float(stats.t.ppf((1 + confidence) / 2, degrees) * np.sqrt(whole / (S * N)))
    return Interval(float(mean) - reach, float(mean), float(mean) + reach)


def prediction_interval(values: Values, *, confidence: float = 0.95) -> Interval:
    """Student's t interval of one more run: mean ± t s √(1 + 1/n), the new run's own spread included.

    Where `mean_interval` says how well n runs tell their mean, this says where the next run will fall.

    Raises:
        ValueError: as `mean_interval`.

    Source: Hahn, "Factors for calculating two-sided prediction intervals for samples from a normal
    distribution", JASA 1969.
    """
    low, mean, high = mean_interval(values, confidence=confidence)
    reach = (high - low) / 2 * float(np.sqrt(len(values) + 1))  # mean_interval's is t s √(1/n)
    return Interval(mean - reach, mean, mean + reach)


def translation_scores(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], **options
) -> dict[str, Interval]:
    """BLEU and chrF (0 to 100) of a corpus of translations, by sacreBLEU with its default settings.

    The interval is ours, over sentences: sacreBLEU's counts of each sentence are drawn again with replacement
    and added up.

    Args:
        hypotheses: N translations, neither tokenised nor lower-cased.
        references: for each of them one or more right translations.
        options: those of `bootstrap_interval`.

    Returns:
        {"BLEU": interval, "chrF": interval}.

    Raises:
        ValueError: no hypothesis, another number of references, a sentence without reference, something that
            is not a text, or as `bootstrap_interval`.

    Source: Papineni et al. 2002 (BLEU); Popović 2015 (chrF); Post 2018, arXiv:1804.08771 (sacreBLEU).
    """
    scorers = _scorers(hypotheses, references)
    return {
        name: bootstrap_interval(np.arange(len(hypotheses)), scorers[name], **options) for name in scorers
    }


def translation_differences(
    ours: Sequence[str], theirs: Sequence[str], references: Sequence[Sequence[str]], **options
) -> dict[str, Interval]:
    """How many points of BLEU and chrF one system is ahead of another, both drawn the same sentences.

    Args:
        ours: N translations.
        theirs: N translations of the same sentences.
        references: for each sentence one or more right translations.
        options: those of `bootstrap_interval`.

    Raises:
        ValueError: as `translation_scores`.

    Source: Koehn 2004, "Statistical significance tests for machine translation evaluation".
    """
    first, second = _scorers(ours, references), _scorers(theirs, references)

    def difference(name: str) -> Callable:
        return lambda rows: first[name](rows) - second[name](rows)

    return {name: bootstrap_interval(np.arange(len(ours)), difference(name), **options) for name in first}


def distinct(texts: Sequence[str], n: int = 2) -> float:
    """The share of different ones among all runs of n words in some texts, 0 to 1.

    Raises:
        ValueError: no text has n words, or n is below 1.

    Source: Li et al. 2016, arXiv:1510.03055 (distinct-n). It falls with the number of texts: compare like
    numbers.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    rows = [text.split() for text in texts]
    runs = [tuple(row[i : i + n]) for row in rows for i in range(len(row) - n + 1)]
    if not runs:
        raise ValueError(f"texts must hold one of {n} words or more")
    return len(set(runs)) / len(runs)


def repetition(tokens: Sequence, n: int = 4) -> float:
    """The share of a text's n-grams that have occurred in it before: 0 where none has, near 1 in a loop.

    Args:
        tokens: ids or words.

    Raises:
        ValueError: fewer than n tokens.

    Source: Welleck et al. 2020, "Neural text generation with unlikelihood training", arXiv:1908.04319,
    section 6.1 (seq-rep-n).
    """
    grams = list(zip(*(tokens[i:] for i in range(n)), strict=False))
    if not grams:
        raise ValueError(f"tokens must be at least n = {n}, got {len(tokens)}")
    return 1 - len(set(grams)) / len(grams)


def self_bleu(texts: Sequence[str]) -> float:
    """How alike some texts are: the mean BLEU (0 to 100) of each against all the others, by words.

    Raises:
        ValueError: fewer than two texts, or something that is not a text.

    Source: Zhu et al. 2018, arXiv:1802.01886. It grows with the number of texts: compare like numbers.
    """
    if isinstance(texts, str) or len(texts) < 2 or not _texts(texts):
        raise ValueError(f"texts must be a list of two or more, got {reprlib.repr(texts)}")
    from sacrebleu.metrics import BLEU

    scorer = BLEU(effective_order=True, tokenize="none")
    others = ([*texts[:i], *texts[i + 1 :]] for i in range(len(texts)))
    scores = [scorer.sentence_score(text, rest).score for text, rest in zip(texts, others, strict=True)]
    return sum(scores) / len(scores)


def _scorers(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, Callable[[np.ndarray], float]]:
    """For each measure a function from the indices of sentences to their score as a corpus."""
    _check_translations(hypotheses, references)
    from sacrebleu.metrics import BLEU, CHRF

    streams = list(zip_longest(*references))  # None where a sentence has fewer than another

    def scorer(metric: BLEU | CHRF) -> Callable[[np.ndarray], float]:
        # the two methods its own significance tests are made of
        counts = np.array(metric._extract_corpus_statistics(hypotheses, streams), np.int64)  # (N, counts)
        return lambda rows: metric._compute_score_from_stats(counts[rows].sum(axis=0)).score

    return {"BLEU": scorer(BLEU(force=True)), "chrF": scorer(CHRF())}


def _check_translations(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if isinstance(hypotheses, str) or not len(hypotheses) or not _texts(hypotheses):
        raise ValueError(f"hypotheses must be a list of one or more texts, got {reprlib.repr(hypotheses)}")
    if isinstance(references, str) or len(references) != len(hypotheses):
        raise ValueError(
            f"references must hold a list of texts for each of {len(hypotheses)} hypotheses, "
            f"got {len(references)}: {reprlib.repr(references)}"
        )
    for i, own in enumerate(references):
        if isinstance(own, str) or not len(own) or not _texts(own):
            raise ValueError(f"references must hold a list of one or more texts each, got {own!r} at {i}")


def _texts(row: Sequence) -> bool:
    return all(isinstance(text, str) for text in row)


def _rows(values: Values | tuple[Values, ...]) -> tuple[np.ndarray, ...]:
    """The samples as rows of finite numbers, all of one length."""
    rows = values if isinstance(values, tuple) and values and np.ndim(values[0]) else (values,)
    rows = tuple(np.asarray(row) for row in rows)
    for row in rows:
        if row.ndim != 1 or row.dtype.kind not in "biuf" or not np.isfinite(row).all():
            raise ValueError(f"values must be rows of finite numbers, got shape {row.shape} of {row.dtype}")
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"values must be rows of one length, got {[len(row) for row in rows]}")
    return tuple(row.astype(float) if row.dtype.kind == "b" else row for row in rows)


def _units(groups: Sequence | np.ndarray, examples: int) -> list[np.ndarray]:
    """The examples (indices) of each group."""
    if len(groups) != examples:
        raise ValueError(f"groups must name the unit of each of {examples} examples, got {len(groups)}")
    _names, inverse, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    return np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])


def _on_units(statistic: Callable, rows: tuple[np.ndarray, ...], units: list[np.ndarray]) -> Callable:
    def on_sample(drawn: np.ndarray) -> float:
        members = np.concatenate([units[i] for i in drawn])
        return statistic(*(row[members] for row in rows))

    return on_sample


def _parameters(statistic: Callable) -> set[str]:
    try:
        return set(inspect.signature(statistic).parameters)
    except (TypeError, ValueError):  # a built-in that tells no signature
        return set()


def _number(value: object) -> float:
    if np.ndim(value) or not np.isfinite(value):
        raise ValueError(f"statistic must give one finite number, got {value!r}")
    return float(value)


def _check_request(units: int, confidence: float, resamples: int) -> None:
    if units < FEWEST:
        raise ValueError(
            f"values must hold at least {FEWEST} independent units, got {units}: of so few a bootstrap "
            "interval promises more than it keeps; for a mean of a few runs use mean_interval"
        )
    if resamples < 100:
        raise ValueError(f"resamples must be at least 100, got {resamples}")
    _check_confidence(confidence)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
