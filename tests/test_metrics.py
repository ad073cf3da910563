"""Intervals: they cover as often as they say, keep groups and pairs together, refuse what they cannot do."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF
from scipy import stats

from course_utils import metrics
from course_utils.metrics import (
    Interval,
    bootstrap_interval,
    crossed_interval,
    distinct,
    mean_interval,
    paired,
    prediction_interval,
    repetition,
    self_bleu,
    translation_differences,
    translation_scores,
)

SOME = np.random.default_rng(5).normal(size=40)
FALSE_ALARM = 1e-6  # chance that a coverage test fails although the coverage lies within its stated range


def cover(intervals, truth):
    return sum(i.low <= truth <= i.high for i in intervals)


def within(covered, trials, low, high):
    """Whether a count agrees with a coverage between `low` and `high`, but for one chance in a million."""
    least, most = (
        stats.binom.ppf(FALSE_ALARM / 2, trials, low),
        stats.binom.isf(FALSE_ALARM / 2, trials, high),
    )
    return least <= covered <= most


@pytest.mark.parametrize("confidence", [0.5, 0.8])
def test_bootstrap_covers_about_as_often_as_it_says(confidence):
    """Of 60 values percentile intervals fall short of their promise by less than 3 points (about 1)."""
    random = np.random.default_rng(0)
    intervals = [
        bootstrap_interval(random.normal(3, 2, 60), confidence=confidence, resamples=400, seed=i)
        for i in range(800)
    ]
    assert within(cover(intervals, 3), 800, confidence - 0.03, confidence + 0.01)


def test_students_interval_covers_as_often_as_it_says_with_five_seeds():
    """Exact for normal values, so the range is one point."""
    random = np.random.default_rng(1)
    intervals = [mean_interval(random.normal(3, 2, 5), confidence=0.8) for _ in range(4000)]
    assert within(cover(intervals, 3), 4000, 0.8, 0.8)


def test_drawing_groups_covers_where_drawing_examples_does_not():
    """25 groups of 8, three quarters of the variance between groups: fewer examples than it looks."""
    random = np.random.default_rng(2)
    groups = np.repeat(np.arange(25), 8)
    whole, single = [], []
    for i in range(200):
        values = random.normal(0, np.sqrt(3), 25)[groups] + random.normal(size=200)
        whole.append(bootstrap_interval(values, confidence=0.8, resamples=200, seed=i, groups=groups))
        single.append(bootstrap_interval(values, confidence=0.8, resamples=200, seed=i))
    assert within(cover(whole, 0), 200, 0.74, 0.81)
    assert cover(single, 0) < stats.binom.ppf(FALSE_ALARM, 200, 0.74)


def test_the_mean_of_many_is_normal():
    """Oracle: the central limit. 5,000 draws tell the width to 1.4 % (one deviation); five are allowed."""
    values = np.random.default_rng(3).exponential(size=4000)
    interval = bootstrap_interval(values, resamples=5000)
    reach = stats.norm.ppf(0.975) * values.std(ddof=1) / np.sqrt(len(values))
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * reach, rel=0.07)


def test_students_interval_is_scipys():
    expected = stats.ttest_1samp(SOME[:5], 0).confidence_interval(0.9)
    ours = mean_interval(SOME[:5], confidence=0.9)
    assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=10, max_size=30), st.integers(0, 9))
def test_bounds_lie_within_the_values_and_do_not_change(values, seed):
    first, again = (bootstrap_interval(values, resamples=100, seed=seed) for _ in range(2))
    assert first == again
    slack = 1e-9 * max(1, *map(abs, values))
    assert min(values) - slack <= first.low <= first.high <= max(values) + slack


def test_another_seed_draws_otherwise_and_more_confidence_is_wider():
    assert bootstrap_interval(SOME, seed=0) != bootstrap_interval(SOME, seed=1)
    narrow, wide = bootstrap_interval(SOME, confidence=0.5), bootstrap_interval(SOME, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_neither_bulk_nor_batches_change_the_draws(monkeypatch):
    in_bulk = bootstrap_interval(SOME, np.median)
    assert bootstrap_interval(SOME, lambda row: np.median(row)) == in_bulk
    monkeypatch.setattr(metrics, "_BATCH", 1)
    assert bootstrap_interval(SOME, np.median) == in_bulk


def test_each_example_its_own_group_is_no_group():
    plain, alone = bootstrap_interval(SOME), bootstrap_interval(SOME, groups=np.arange(len(SOME)))
    assert alone == pytest.approx(plain, rel=1e-12)


def test_names_and_order_of_groups_do_not_matter():
    groups = np.arange(len(SOME)) % 12
    letters = np.array(list("abcdefghijkl"))[groups]
    assert bootstrap_interval(SOME, groups=groups) == bootstrap_interval(SOME, groups=letters)


def test_rows_are_drawn_together():
    """Correlation of a row with itself is 1 in every resample only where pairs stay pairs."""
    same = bootstrap_interval((SOME, SOME), lambda a, b: np.corrcoef(a, b)[0, 1])
    assert same == pytest.approx((1, 1, 1))
    grouped = bootstrap_interval(
        (SOME, SOME), lambda a, b: np.corrcoef(a, b)[0, 1], groups=np.arange(40) // 2
    )
    assert grouped == pytest.approx((1, 1, 1))


@pytest.mark.parametrize("statistic", [np.mean, lambda row: float(np.mean(row))])
def test_a_paired_difference_is_the_interval_of_the_differences(statistic):
    others = SOME + np.random.default_rng(6).normal(0.3, 0.1, len(SOME))
    expected = bootstrap_interval(others - SOME)
    assert paired(others, SOME, statistic) == pytest.approx(expected, rel=1e-9)
    assert (
        paired(others, SOME, statistic).low > 0
    )  # told apart, although each score alone is ten times as wide
    assert paired(others, SOME, statistic, groups=np.arange(40) // 2).low > 0


def test_a_constant_has_no_width():
    assert bootstrap_interval([0.5] * 20) == (0.5, 0.5, 0.5)
    assert mean_interval([2, 2, 2]) == (2, 2, 2)


def test_right_and_wrong_are_counted_as_numbers():
    assert bootstrap_interval([True, False] * 10).estimate == 0.5
    assert bootstrap_interval(tuple([1, 0] * 10)) == bootstrap_interval([1, 0] * 10)


def test_it_reads_well():
    assert str(Interval(0.78049, 0.79, 0.8)) == "0.790 [0.780, 0.800]"


# --- runs and examples ------------------------------------------------------------------------------------


def scored(random, S, N, runs, examples, rest):
    """Scores of S runs on N examples around 0, by three standard deviations."""
    return (
        random.normal(0, runs, (S, 1)) + random.normal(0, examples, (1, N)) + random.normal(0, rest, (S, N))
    )


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("spread", [(0.1, 1, 1), (0.02, 1, 1), (0.3, 1, 0.5), (0.2, 0.1, 1)])
def test_runs_and_examples_drawn_anew_are_covered_as_often_as_it_says(seeds, spread):
    """Satterthwaite's is an approximation: within 2 points."""
    random = np.random.default_rng(9)
    intervals = [crossed_interval(scored(random, seeds, 100, *spread)) for _ in range(1000)]
    assert within(cover(intervals, 0), 1000, 0.93, 0.97)


def test_it_covers_where_intervals_over_examples_or_runs_alone_do_not():
    random = np.random.default_rng(10)
    tables = [scored(random, 6, 100, 0.25, 1, 0.2) for _ in range(1000)]
    both = [crossed_interval(table, confidence=0.8) for table in tables]
    assert within(cover(both, 0), 1000, 0.78, 0.82)
    for axis in (0, 1):
        alone = [mean_interval(table.mean(axis=axis), confidence=0.8) for table in tables]
        assert cover(alone, 0) < stats.binom.ppf(FALSE_ALARM, 1000, 0.78)


def test_two_runs_on_two_examples_by_hand():
    """Mean squares 9 of runs, 4 of examples, 1 of what is left."""
    found = crossed_interval([[0, 1], [2, 5]], confidence=0.9)
    degrees = (9 + 4 - 1) ** 2 / (9**2 + 4**2 + 1**2)
    reach = stats.t.ppf(0.95, degrees) * math.sqrt((9 + 4 - 1) / 4)
    assert found == pytest.approx((2 - reach, 2, 2 + reach))


def test_mean_squares_are_those_of_least_squares():
    """Oracle: what fitting runs, and then examples, takes away from the squares."""
    table = scored(np.random.default_rng(11), 4, 7, 1, 2, 1) + 3
    run, example = np.eye(4).repeat(7, axis=0), np.tile(np.eye(7), (4, 1))
    one, y = np.ones((28, 1)), table.ravel()

    def left(*parts):
        design = np.hstack(parts)
        return ((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum()

    squares = np.array([left(one) - left(run), left(one) - left(example), left(run, example)])
    freedom = np.array([3, 6, 18])
    means = squares / freedom
    whole = means[0] + means[1] - means[2]
    degrees = whole**2 / (means**2 / freedom).sum()
    reach = stats.t.ppf(0.975, degrees) * math.sqrt(whole / 28)
    assert crossed_interval(table) == pytest.approx((y.mean() - reach, y.mean(), y.mean() + reach))


@pytest.mark.parametrize("axis", [0, 1])
def test_runs_all_alike_leave_the_interval_over_examples_and_the_other_way_round(axis):
    row = np.random.default_rng(12).normal(size=30)
    table = np.broadcast_to(np.expand_dims(row, axis), (3, 30) if axis == 0 else (30, 3))
    assert crossed_interval(table) == pytest.approx(mean_interval(row), rel=1e-9)


def test_what_is_hard_for_both_models_cancels_out():
    """Their difference is told although each alone is ten times as wide."""
    random = np.random.default_rng(13)
    hard = random.normal(size=300)
    ours, theirs = hard - hard.mean() + random.normal(0, 0.1, (2, 3, 300))
    ours += 0.05
    found = crossed_interval(ours - theirs)
    assert found.estimate == pytest.approx(ours.mean() - theirs.mean())
    assert found.low > 0
    wide = [crossed_interval(table) for table in (ours, theirs)]
    assert all(i.low < 0 < i.high and i.high - i.low > 5 * (found.high - found.low) for i in wide)
    assert crossed_interval(theirs - ours) == pytest.approx((-found.high, -found.estimate, -found.low))


def test_neither_order_nor_unit_matters_and_more_confidence_is_wider():
    table = scored(np.random.default_rng(14), 3, 20, 0.5, 1, 1)
    found = crossed_interval(table)
    assert crossed_interval(table[::-1, np.random.default_rng(0).permutation(20)]) == pytest.approx(found)
    assert crossed_interval(10 * table + 5) == pytest.approx(tuple(10 * x + 5 for x in found))
    narrow, wide = crossed_interval(table, confidence=0.5), crossed_interval(table, confidence=0.99)
    assert wide.low < found.low < narrow.low < narrow.high < found.high < wide.high


def test_the_variance_never_falls_below_that_of_what_is_left():
    """Both kinds of mean alike, so that the plain formula has a variance below 0."""
    assert crossed_interval([[0, 1], [1, 0]]) == pytest.approx(
        (0.5 - stats.t.ppf(0.975, 1) / 2, 0.5, 0.5 + stats.t.ppf(0.975, 1) / 2)
    )


def test_scores_all_alike_have_no_width():
    assert crossed_interval(np.full((3, 9), 0.25)) == (0.25, 0.25, 0.25)


# --- one run more -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 5])
def test_the_next_run_falls_within_as_often_as_it_says(n):
    """Exact for normal values, so the range is one point."""
    random = np.random.default_rng(7)
    runs = random.normal(3, 2, (4000, n + 1))
    inside = sum(cover([prediction_interval(row[:-1], confidence=0.8)], row[-1]) for row in runs)
    assert within(inside, 4000, 0.8, 0.8)


def test_a_prediction_is_wider_than_the_mean_and_stays_so():
    """A mean's interval shrinks with √n, a prediction's towards the values' own 95 %."""
    values = np.random.default_rng(8).normal(size=4000)
    mean, next_one = mean_interval(values), prediction_interval(values)
    assert next_one.estimate == mean.estimate == pytest.approx(values.mean())
    assert mean.high - mean.low < 0.1
    assert np.mean((values >= next_one.low) & (values <= next_one.high)) == pytest.approx(0.95, abs=0.01)


# --- translations -----------------------------------------------------------------------------------------

WORDS = [
    "el",
    "El",
    "la",
    "perro",
    "gato",
    "come",
    "una",
    "manzana",
    "no",
    "¡sí!",
    "mañana,",
    "¿dónde",
    "está?",
    ".",
]


def corpus(N, seed=0, kept=0.8):
    """N sentences, one to three references each, and a system that drops and swaps words."""
    random = np.random.default_rng(seed)
    references = [
        [" ".join(random.choice(WORDS, random.integers(4, 12))) for _ in range(random.integers(1, 4))]
        for _ in range(N)
    ]

    def worse(text):
        return " ".join(w if random.random() < kept else random.choice(WORDS) for w in text.split()[1:])

    return [worse(random.choice(own)) for own in references], references


RIGHT = [f"la frase número {i} es buena ." for i in range(12)]
REFERENCES = [[text] for text in RIGHT]


def by_sacrebleu(hypotheses, references):
    """Through its public door; None stands for a reference a sentence lacks."""
    most = max(map(len, references))
    streams = [[own[k] if k < len(own) else None for own in references] for k in range(most)]
    return {
        m.__class__.__name__: m.corpus_score(hypotheses, streams, n_bootstrap=1000) for m in (BLEU(), CHRF())
    }


def test_scores_are_sacrebleus_whatever_the_number_of_references():
    hypotheses, references = corpus(60)
    assert {len(own) for own in references} == {1, 2, 3}
    ours, theirs = translation_scores(hypotheses, references), by_sacrebleu(hypotheses, references)
    assert ours.keys() == {"BLEU", "chrF"}
    assert ours["BLEU"].estimate == pytest.approx(theirs["BLEU"].score, rel=1e-12)
    assert ours["chrF"].estimate == pytest.approx(theirs["CHRF"].score, rel=1e-12)
    assert 5 < ours["BLEU"].estimate < 95


def test_their_intervals_are_as_wide_as_sacrebleus():
    """Other draws of the same bootstrap. 1,000 draws tell a width to about 3 % (one deviation)."""
    hypotheses, references = corpus(300)
    ours, theirs = translation_scores(hypotheses, references), by_sacrebleu(hypotheses, references)
    for name in ours:
        other = theirs[name.upper()]
        assert ours[name].high - ours[name].low == pytest.approx(2 * other._ci, rel=0.2)
        assert (ours[name].high + ours[name].low) / 2 == pytest.approx(other._mean, abs=float(other._ci) / 5)


def test_a_perfect_system_scores_100_and_the_same_draws_the_same():
    hypotheses, references = corpus(30)
    perfect = translation_scores([own[-1] for own in references], references)
    assert [bound for interval in perfect.values() for bound in interval] == pytest.approx([100.0] * 6)
    assert translation_scores(hypotheses, references) == translation_scores(hypotheses, references)
    other = translation_scores(hypotheses, references, seed=1)
    assert other != translation_scores(hypotheses, references)


def test_sentences_are_counted_together_not_averaged():
    """Corpus BLEU adds up counts: a long right sentence weighs more than a short wrong one."""
    long, short = " ".join(WORDS), "no ."
    scores = translation_scores([long] * 6 + ["gato"] * 6, [[long]] * 6 + [[short]] * 6)
    assert scores["BLEU"].estimate > 85


def test_a_difference_of_two_systems_cancels_what_they_share():
    """Better by a little everywhere: neither interval tells it, the paired one does."""
    theirs, references = corpus(200, kept=0.7)
    random = np.random.default_rng(1)
    ours = [
        random.choice(own) if random.random() < 0.05 else h for h, own in zip(theirs, references, strict=True)
    ]
    first, second = translation_scores(ours, references), translation_scores(theirs, references)
    ahead, behind = (translation_differences(*pair, references) for pair in ((ours, theirs), (theirs, ours)))
    for name in ("BLEU", "chrF"):
        assert ahead[name].estimate == pytest.approx(first[name].estimate - second[name].estimate)
        assert behind[name].estimate == pytest.approx(-ahead[name].estimate)
        assert first[name].low < second[name].high
        assert ahead[name].low > 0 > behind[name].high
    same = translation_differences(ours, ours, references)
    assert {bound for interval in same.values() for bound in interval} == {0.0}


# --- how alike texts are ----------------------------------------------------------------------------------

PHRASES = st.lists(st.sampled_from(["a", "b", "c", "."]), min_size=1, max_size=9).map(" ".join)


@pytest.mark.parametrize(
    ("texts", "n", "share"),
    [
        (["a b a b", "b a"], 1, 2 / 6),
        (["a b a b", "b a"], 2, 2 / 4),  # ab ba ab, ba; none from one text into the next
        (["a b a b", "b a"], 3, 2 / 2),
        (["a b", "a b", "a b"], 2, 1 / 3),
        (["a", "", "a  b"], 2, 1),  # a text too short has none
        (["ab c", "a bc"], 2, 1),
    ],
)
def test_distinct_counts_runs_of_words(texts, n, share):
    assert distinct(texts, n) == pytest.approx(share)


def test_distinct_is_of_pairs_where_nothing_is_said():
    assert distinct(RIGHT) == distinct(RIGHT, 2) != distinct(RIGHT, 1)


@given(st.lists(PHRASES, min_size=1, max_size=6), st.integers(1, 3))
def test_distinct_is_a_share_whatever_the_order_and_falls_by_copies(texts, n):
    if max(len(text.split()) for text in texts) < n:
        return
    share = distinct(texts, n)
    assert 0 < share <= 1
    assert distinct(texts[::-1], n) == share
    assert distinct(texts * 3, n) == pytest.approx(share / 3)


@pytest.mark.parametrize(
    ("tokens", "n", "share"),
    [
        ("abcdefgh", 4, 0.0),
        ("aaaaaaaa", 4, 4 / 5),  # one kind among five
        ("abcdabcd", 4, 1 / 5),
        ("abab", 1, 1 / 2),
        ("abcabc", 2, 2 / 5),
        (["the", "cat", "sat", "the", "cat"], 2, 1 / 4),
        ([7, 7], 2, 0.0),
    ],
)
def test_repetition_is_the_share_of_runs_that_were_there_before(tokens, n, share):
    assert repetition(tokens, n) == pytest.approx(share)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=30), st.integers(1, 4))
def test_repetition_by_looking_back(tokens, n):
    runs = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    before = sum(run in runs[:i] for i, run in enumerate(runs))
    assert repetition(tokens, n) == pytest.approx(before / len(runs))


def test_self_bleu_by_hand():
    """Precisions of 1 to 4 words; the k-th to find nothing counts 1 / 2**k of a match (sacreBLEU's "exp")."""
    first = math.prod([2 / 4, 1 / 3, 1 / 2 / 2, 1 / 4 / 1]) ** 0.25
    assert self_bleu(["a b c d", "a b x y"]) == pytest.approx(100 * first)
    short = math.exp(1 - 4 / 2) * 1  # all of "a b" is there, but it is half as long
    long = math.prod([2 / 4, 1 / 3, 1 / 2 / 2, 1 / 4 / 1]) ** 0.25
    assert self_bleu(["a b", "a b c d"]) == pytest.approx(100 * (short + long) / 2)


def test_a_text_is_held_against_all_others_at_once():
    """Each half of the first stands in another one; and the shortest of two others says what is too short."""
    texts = ["a b c d e f g h", "a b c d", "e f g h"]
    found = 3 * self_bleu(texts)
    assert found > 3 * max(self_bleu([texts[0], text]) for text in texts[1:])
    whole = math.prod([8 / 8, 6 / 7, 4 / 6, 2 / 5]) ** 0.25  # all but the pairs across the middle
    assert found / 100 == pytest.approx(whole + 1 + 1)


@given(st.lists(PHRASES, min_size=2, max_size=5))
@settings(max_examples=40, deadline=None)
def test_self_bleu_is_sacrebleus_corpus_of_one_text(texts):
    scorer = BLEU(effective_order=True, tokenize="none")
    scores = [
        scorer.corpus_score([text], [[other] for j, other in enumerate(texts) if j != i]).score
        for i, text in enumerate(texts)
    ]
    found = self_bleu(texts)
    assert found == pytest.approx(np.mean(scores), abs=1e-9)
    assert -1e-9 <= found <= 100 + 1e-9
    assert self_bleu(texts[::-1]) == pytest.approx(found)


def test_copies_are_wholly_alike_and_disjoint_texts_not_at_all():
    for text in ("a", "a b", "the dog sees a ball ."):  # shorter than four words, too
        assert self_bleu([text] * 3) == pytest.approx(100)
    assert self_bleu(["a b c d e", "f g h i j", "k l m n o"]) == pytest.approx(0, abs=1e-9)


def test_self_bleu_takes_words_as_they_stand():
    """No tokeniser splits or lowers them."""
    assert self_bleu(["it's a-b.", "it ' s a - b ."]) == pytest.approx(0, abs=1e-9)
    assert self_bleu(["A B", "a b"]) == pytest.approx(0, abs=1e-9)


def test_importing_metrics_does_not_load_sacrebleu():
    code = "import sys; from course_utils import metrics; sys.exit('sacrebleu' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval(SOME[:9]), "^values must hold at least 10 .* mean_interval"),
        (lambda: bootstrap_interval(SOME, groups=np.arange(40) // 5), "^values must hold at least 10"),
        (lambda: bootstrap_interval([]), "^values must"),
        (lambda: bootstrap_interval([1.0] * 20 + [np.nan]), "^values must be rows of finite numbers"),
        (lambda: bootstrap_interval(["a"] * 20), "^values must be rows of finite numbers"),
        (lambda: bootstrap_interval(np.ones((20, 2))), "^values must be rows of finite numbers"),
        (lambda: bootstrap_interval((SOME, SOME[1:]), np.mean), "^values must be rows of one length"),
        (lambda: bootstrap_interval(SOME, groups=[1, 2]), "^groups must"),
        (lambda: bootstrap_interval(SOME, confidence=95), "^confidence must"),
        (lambda: bootstrap_interval(SOME, resamples=10), "^resamples must"),
        (lambda: bootstrap_interval(SOME, np.sort), "^statistic must give one finite number"),
        (lambda: bootstrap_interval(SOME, lambda row: np.nan), "^statistic must give one finite number"),
        (lambda: paired(SOME, SOME[1:]), "^values must be rows of one length"),
        (lambda: mean_interval([1.0]), "^values must be two or more"),
        (lambda: mean_interval([1.0, np.inf]), "^values must be rows of finite numbers"),
        (lambda: mean_interval([1.0, 2.0], confidence=0), "^confidence must"),
        (lambda: crossed_interval([1.0, 2.0]), r"^values must be \(S, N\) .* got shape \(2,\)$"),
        (lambda: crossed_interval([[1.0, 2.0]]), r"^values must be .* 2 or more .* got shape \(1, 2\)$"),
        (lambda: crossed_interval([[1.0], [2.0]]), r"^values must be .* got shape \(2, 1\)$"),
        (lambda: crossed_interval(np.ones((2, 2, 2))), r"^values must be .* got shape \(2, 2, 2\)$"),
        (lambda: crossed_interval([[1.0, 2.0], [3.0, np.nan]]), "^values must be .* finite numbers"),
        (lambda: crossed_interval([[1.0, 2.0], [3.0, -np.inf]]), "^values must be .* finite numbers"),
        (lambda: crossed_interval([[1.0, 2.0], [3.0, 4.0]], confidence=1), "^confidence must"),
        (lambda: crossed_interval([[1.0, 1.0], [1.0, 1.0]], confidence=0), "^confidence must"),
        (lambda: prediction_interval([1.0]), "^values must be two or more"),
        (lambda: prediction_interval([1.0, np.nan]), "^values must be rows of finite numbers"),
        (lambda: prediction_interval([1.0, 2.0], confidence=1), "^confidence must"),
        (lambda: translation_scores([], []), "^hypotheses must be a list of one or more texts"),
        (lambda: translation_scores("una frase", [["a"]] * 9), "^hypotheses must be a list"),
        (lambda: translation_scores([None] * 12, REFERENCES), "^hypotheses must be a list"),
        (lambda: translation_scores(RIGHT, REFERENCES[1:]), "^references must hold a list .* 12 .* got 11"),
        (lambda: translation_scores(RIGHT, RIGHT), "^references must hold a list .* at 0"),
        (lambda: translation_scores(RIGHT, [*REFERENCES[1:], []]), "^references must hold .* at 11"),
        (lambda: translation_scores(RIGHT, [*REFERENCES[1:], [None]]), "^references must hold .* at 11"),
        (lambda: translation_scores(RIGHT[:9], REFERENCES[:9]), "^values must hold at least 10"),
        (lambda: translation_scores(RIGHT, REFERENCES, confidence=2), "^confidence must"),
        (lambda: translation_differences(RIGHT, RIGHT[1:], REFERENCES), "^references must hold"),
        (lambda: distinct(RIGHT, 0), "^n must be at least 1, got 0"),
        (lambda: distinct(["a", "b c"], 3), "^texts must hold one of 3 words or more"),
        (lambda: distinct([]), "^texts must hold one of 2 words or more"),
        (lambda: repetition([1, 2, 3]), "^tokens must be at least n = 4, got 3"),
        (lambda: repetition([], 1), "^tokens must be at least n = 1, got 0"),
        (lambda: self_bleu(["a b"]), "^texts must be a list of two or more"),
        (lambda: self_bleu([]), "^texts must be a list of two or more"),
        (lambda: self_bleu("a b c"), "^texts must be a list of two or more"),
        (lambda: self_bleu(["a", None]), "^texts must be a list of two or more"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
