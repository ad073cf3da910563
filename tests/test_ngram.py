"""Counting models against their definitions in plain Python, and the properties that make them models."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils import bpe, ngram
from course_utils.ngram import KneserNey, stationary, transition_matrix
from course_utils.splits import story_split

V = 4
IDS = st.integers(0, V - 1)
ROWS = st.lists(IDS, min_size=1, max_size=60)
CONTEXTS = st.lists(IDS, max_size=5)
ORDERS = st.integers(1, 4)
quick = settings(deadline=None)


def natural(number, words, seed=0):
    """A row with a text's few frequent and many rare words, each leaning on the one before."""
    generator = np.random.default_rng(seed)
    row = np.minimum(generator.zipf(1.6, number), words) - 1
    row[1::2] = (row[:-1:2] // 2 + row[1::2]) % words
    return row


# --- the transition matrix ---------------------------------------------------------------------------------


@quick
@given(ROWS, st.sampled_from([0, 0.01, 1, 2.5]))
def test_a_transition_matrix_is_a_dictionary_of_pairs(row, add):
    counts, P = Counter(grams(row, 2)), transition_matrix(row, V, add)
    assert P.shape == (V, V)
    assert P.dtype == np.float64
    for a in range(V):
        raised = [counts[a, b] + add for b in range(V)]
        expected = [c / sum(raised) for c in raised] if sum(raised) else [1 / V] * V
        assert P[a] == pytest.approx(expected, rel=1e-12)
    assert P.sum(axis=1) == pytest.approx(np.ones(V), abs=1e-12)
    assert P.min() > 0 or not add


def test_a_token_that_nothing_follows_is_followed_by_any():
    P = transition_matrix([0, 1, 0, 2], 4)
    assert P.tolist() == [[0, 0.5, 0.5, 0], [1, 0, 0, 0], [0.25] * 4, [0.25] * 4]
    assert (transition_matrix([2], 4) == 0.25).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64])
def test_a_transition_matrix_of_any_integers(dtype):
    row = natural(3000, 200)
    assert (transition_matrix(row.astype(dtype), 256) == transition_matrix(row.tolist(), 256)).all()


@pytest.mark.parametrize("size", [1, 2, 7, 60])
def test_the_stationary_distribution_is_the_left_eigenvector_of_1(size):
    for seed in range(5):
        P = np.random.default_rng(seed).random((size, size)) ** 4 + 1e-3
        P /= P.sum(axis=1, keepdims=True)
        values, vectors = np.linalg.eig(P.T)
        expected = vectors[:, abs(values - 1).argmin()].real
        pi = stationary(P)
        assert pi.shape == (size,)
        assert pi == pytest.approx(expected / expected.sum(), rel=1e-9)
        assert pi @ P == pytest.approx(pi, rel=1e-9)
        assert pi.sum() == pytest.approx(1, abs=1e-15)


def test_rows_rounded_to_float32_settle_too():
    P = np.random.default_rng(0).random((30, 30))
    P /= P.sum(axis=1, keepdims=True)
    assert stationary(P.astype(np.float32)) == pytest.approx(stationary(P), rel=1e-6)


@quick
@given(st.lists(IDS, min_size=1, max_size=60))
def test_a_text_closed_to_a_circle_has_its_own_frequencies(row):
    """Each token is left as often as it is entered. A token twice in a row lets the chain settle."""
    circle = [row[0], *row]
    pi = stationary(transition_matrix([*circle, row[0]], V))
    assert pi == pytest.approx(np.bincount(circle, minlength=V) / len(circle), abs=1e-9)


def test_where_a_chain_has_several_stationary_distributions_it_starts_from_the_uniform_one():
    """Two islands, a third of the tokens and two thirds; inside each all is even."""
    P = np.zeros((6, 6))
    P[:2, :2], P[2:, 2:] = 1 / 2, 1 / 4
    assert stationary(P) == pytest.approx(np.full(6, 1 / 6), rel=1e-12)
    P[0], P[1] = [0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0]  # 0 leaves its island, 1 stays alone
    assert stationary(P) == pytest.approx([0, 1 / 6, *[5 / 24] * 4], abs=1e-12)


def test_a_chain_that_goes_to_and_fro_does_not_settle():
    to_and_fro = transition_matrix([0, 1, 2, 1, 0], 3)
    with pytest.raises(
        ValueError, match="P does not settle within 10000 steps: its chain is periodic, or slow"
    ):
        stationary(to_and_fro)
    lazy = stationary((np.eye(3) + to_and_fro) / 2)  # half of the time it stays where it is
    assert lazy == pytest.approx([0.25, 0.5, 0.25], abs=1e-11)


def test_steps_and_tolerance_of_a_slow_chain():
    slow = np.array([[0.9, 0.1], [0.3, 0.7]])
    with pytest.raises(ValueError, match="P does not settle within 5 steps"):
        stationary(slow, limit=5)
    errors = [abs(stationary(slow, tolerance) - [0.75, 0.25]).sum() for tolerance in (1e-2, 1e-5, 1e-12)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] < 2e-2
    assert errors[2] < 1e-11


# --- the definition, with dictionaries ---------------------------------------------------------------------


def grams(row, k):
    return [tuple(row[i : i + k]) for i in range(len(row) - k + 1)]


def counted(row, k, order):
    """c: occurrences at the highest order, below it the different tokens seen before."""
    if k == order:
        return Counter(grams(row, k))
    return Counter(gram[1:] for gram in set(grams(row, k + 1)))


def taken(counts):
    """D as a function of the count."""
    n = Counter(counts.values())
    D = [0.0, 0.5, 1.0, 1.5]
    if n[1] and n[2] and n[3]:
        Y = n[1] / (n[1] + 2 * n[2])
        estimate = [i - (i + 1) * Y * n[i + 1] / n[i] for i in (1, 2, 3)]
        if min(estimate) > 0:
            D = [0.0, *estimate]
    return lambda count: D[min(count, 3)]


def by_definition(row, order, size):
    """The distribution after a context as a function, from the equation and nothing else."""
    order = min(order, len(row))
    counts = {k: counted(row, k, order) for k in range(1, order + 1)}
    D = {k: taken(counts[k]) for k in counts}

    def after(h):
        k = len(h) + 1
        lower = after(h[1:]) if h else [1 / size] * size
        c = [counts[k][(*h, w)] for w in range(size)]
        if not sum(c):
            return lower
        gamma = sum(map(D[k], c)) / sum(c)
        return [(c[w] - D[k](c[w])) / sum(c) + gamma * lower[w] for w in range(size)]

    return lambda context: after(tuple(context)[max(0, len(context) - order + 1) :])


@quick
@given(ROWS, ORDERS, CONTEXTS)
def test_equals_the_definition(row, order, context):
    expected = by_definition(row, order, V)(context)
    assert KneserNey(row, order, V).probabilities(context) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_equals_the_definition_where_every_discount_is_estimated(order):
    row, size = natural(6000, 300), 304  # the ids 300 … 303 never occur
    for k in range(1, order + 1):
        counts = ngram.count(row, k, order, size)[1]
        assert tuple(ngram.discounts(counts)) != ngram.WITHOUT_ESTIMATE
    expected, model = by_definition(row.tolist(), order, size), KneserNey(row, order, size)
    for context in ([], [3], [3, 301], [301, 3], *natural(40, 300, seed=1).reshape(-1, 2).tolist()):
        assert model.probabilities(context) == pytest.approx(expected(context), rel=1e-12)


# --- a language model --------------------------------------------------------------------------------------


@quick
@given(ROWS, ORDERS, CONTEXTS)
def test_a_distribution_after_every_context(row, order, context):
    p = KneserNey(row, order, V).probabilities(context)
    assert p.shape == (V,)
    assert p.dtype == np.float64
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert p.min() > 0


@quick
@given(ROWS, ORDERS, ROWS)
def test_a_row_is_scored_token_by_token(row, order, scored):
    model = KneserNey(row, order, V)
    found = model.log_probabilities(scored)
    expected = [math.log(model.probabilities(scored[:i])[token]) for i, token in enumerate(scored)]
    assert found.dtype == np.float64
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


@quick
@given(ROWS, ORDERS, ROWS, IDS)
def test_what_comes_later_changes_nothing_before(row, order, scored, token):
    model = KneserNey(row, order, V)
    assert (model.log_probabilities([*scored, token])[:-1] == model.log_probabilities(scored)).all()


@quick
@given(ROWS, ORDERS, CONTEXTS, CONTEXTS)
def test_only_the_last_tokens_of_a_context_count(row, order, older, context):
    model = KneserNey(row, order, V)
    recent = context[-(order - 1) :] if order > 1 else []
    filled = [0] * (order - 1 - len(recent)) + recent
    assert (model.probabilities(older + filled) == model.probabilities(filled)).all()


def test_a_word_that_follows_one_other_alone_is_rare_elsewhere():
    """Kneser and Ney's point: Francisco is frequent, but only after San."""
    san, francisco, glass = 0, 1, 2
    row = [san, francisco] * 20 + [i for other in range(3, 13) for i in (other, glass)]
    unigram, bigram = (KneserNey(row, order, 14).probabilities([13]) for order in (1, 2))
    assert unigram[francisco] > unigram[glass]
    assert bigram[francisco] < bigram[glass]
    assert KneserNey(row, 2, 14).probabilities([san]).argmax() == francisco


@pytest.fixture(scope="module")
def stories():
    parts = story_split()
    parts["train"] = parts["train"][:6000]
    return {side: bpe.token_stream(texts) for side, texts in parts.items()}


@pytest.fixture(scope="module")
def models(stories):
    return [KneserNey(stories["train"], order, bpe.PIECES) for order in (1, 2, 3)]


@pytest.mark.parametrize("side", ["valid", "test"])
def test_a_higher_order_predicts_held_out_stories_better(models, stories, side):
    rows = [model.log_probabilities(stories[side]) for model in models]
    assert np.isfinite(rows).all()
    uniform = -math.log(bpe.PIECES)
    assert (np.diff([uniform, *(row.mean() for row in rows)]) > 0).all()


def test_stories_have_a_distribution_after_every_context(models, stories):
    held_out = stories["test"]
    unseen = np.setdiff1d(np.arange(bpe.PIECES), stories["train"])[:2]
    contexts = [[], unseen, *(held_out[i : i + 2] for i in range(0, len(held_out), 3001))]
    for model in models:
        for context in contexts:
            p = model.probabilities(context)
            assert p.sum() == pytest.approx(1, abs=1e-12)
            assert p.min() > 0


def test_drawn_tokens_are_as_surprising_as_their_distributions_say():
    model = KneserNey(natural(3000, 9), 2, 10)
    draws = model.sample(4000, np.random.default_rng(0), context=[5])
    before = [5, *draws[:-1]]
    p = np.array([model.probabilities([i]) for i in range(10)])
    mean = (p * np.log(p)).sum(1)
    variance = (p * np.log(p) ** 2).sum(1) - mean**2
    off = np.log(p[before, draws]) - mean[before]
    assert len(draws) == 4000
    assert abs(off.sum()) <= 5 * np.sqrt(variance[before].sum())
    assert model.sample(0, np.random.default_rng(0), context=[5]) == []


# --- discounts, rows, errors -------------------------------------------------------------------------------


@quick
@given(st.lists(st.integers(1, 7), min_size=1, max_size=60))
def test_a_discount_takes_something_and_never_more_than_the_count(counts):
    D = ngram.discounts(np.array(counts))
    assert D[0] == 0
    assert (D[1:] > 0).all()
    assert (D[1:] <= [1, 2, 3]).all()


def test_the_first_discount_is_the_one_of_kneser_and_ney():
    counts = ngram.count(natural(6000, 300), 2, 2, 300)[1]
    singles, doubles = (counts == 1).sum(), (counts == 2).sum()
    assert ngram.discounts(counts)[1] == pytest.approx(singles / (singles + 2 * doubles), rel=1e-12)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint64])
def test_any_integers_serve_and_the_row_stays_as_it_was(dtype):
    row = natural(3000, 4000).astype(dtype)
    before = row.copy()
    found, expected = KneserNey(row, 5, 4096), KneserNey(row.tolist(), 5, 4096)
    assert (found.log_probabilities(row) == expected.log_probabilities(row.tolist())).all()
    assert (row == before).all()


def test_long_grams_stay_apart_up_to_63_bits():
    row = np.random.default_rng(0).integers(0, 2, 500)
    assert len(KneserNey(row, 62, 2).levels[-1].grams) == len(set(grams(row.tolist(), 62)))
    with pytest.raises(ValueError, match="within 63 bits"):
        KneserNey(row, 63, 2)


def test_a_row_shorter_than_the_order_makes_a_model_of_its_length():
    assert (KneserNey([1, 2], 9, V).probabilities([1]) == KneserNey([1, 2], 2, V).probabilities([1])).all()


MODEL = KneserNey([0, 1, 2, 1], 2, V)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: KneserNey([], 2, V), r"tokens must be one row of 1 or more"),
        (lambda: KneserNey([[0, 1]], 2, V), r"tokens .* shape \(1, 2\)"),
        (lambda: KneserNey([0.0, 1.0], 2, V), r"tokens .* float64"),
        (lambda: KneserNey("a text", 2, V), r"tokens must be one row"),
        (lambda: KneserNey([0, V], 2, V), r"tokens must hold ids from 0 to V − 1 = 3, got 4"),
        (lambda: KneserNey([0, -1], 2, V), r"tokens must hold ids from 0 to V − 1 = 3, got -1"),
        (lambda: KneserNey([0, 1], 0, V), r"order and V must be at least 1, got order 0"),
        (lambda: KneserNey([0, 1], 2, 0), r"at least 1, got order 2 and V 0"),
        (lambda: KneserNey([0, 1], 6, 4096), r"order must keep V \*\* order within 63 bits, got order 6"),
        (lambda: MODEL.log_probabilities([]), r"tokens must be one row of 1 or more"),
        (lambda: MODEL.log_probabilities([V]), r"tokens must hold ids .* got 4"),
        (lambda: MODEL.probabilities([-1]), r"context must hold ids .* got -1"),
        (lambda: MODEL.probabilities(1), r"context must be one row of 0 or more"),
        (lambda: transition_matrix([], V), r"tokens must be one row of 1 or more"),
        (lambda: transition_matrix([[0, 1]], V), r"tokens .* shape \(1, 2\)"),
        (lambda: transition_matrix([0.0, 1.0], V), r"tokens .* float64"),
        (lambda: transition_matrix("a text", V), r"tokens must be one row"),
        (lambda: transition_matrix([0, V], V), r"tokens must hold ids from 0 to V − 1 = 3, got 4"),
        (lambda: transition_matrix([0, -1], V), r"tokens must hold ids from 0 to V − 1 = 3, got -1"),
        (lambda: transition_matrix([0], 0), r"V must be at least 1, got .* V 0"),
        (lambda: transition_matrix([0, 1], V, add=-0.5), r"add must be 0 or more, got -0.5"),
        (lambda: transition_matrix([0, 1], V, add=math.nan), r"add must be 0 or more, got nan"),
        (lambda: transition_matrix([0, 1], V, add=math.inf), r"add must be 0 or more, got inf"),
        (
            lambda: stationary(np.ones((2, 3)) / 3),
            r"P must be square, \(V, V\), and not empty, got shape \(2, 3\)",
        ),
        (lambda: stationary(np.ones(4) / 4), r"P must be square, \(V, V\), .* got shape \(4,\)"),
        (
            lambda: stationary(np.ones((0, 0))),
            r"P must be square, \(V, V\), and not empty, got shape \(0, 0\)",
        ),
        (lambda: stationary(np.ones((2, 2))), r"P must hold probabilities, each row adding up to 1"),
        (lambda: stationary(np.ones((2, 2)) / 3), r"P must hold probabilities, each row adding up to 1"),
        (lambda: stationary(np.array([[0.9, 0.4], [0.1, 0.6]])), r"P must hold .* each row adding up to 1"),
        (lambda: stationary(np.array([[1.5, -0.5], [0.5, 0.5]])), r"P must hold probabilities"),
        (lambda: stationary(np.full((2, 2), math.nan)), r"P must hold probabilities"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
