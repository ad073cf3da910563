"""Searches against all sequences there are, on random tables; filters against the library and by property."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from course_utils.generation import (
    Decoding,
    LibraryBeams,
    beam_search,
    greedy,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalise,
)
from course_utils.runtime import generator

START, END = 7, 0  # START is outside the vocabulary: only ever read
SEEDS = st.integers(0, 2**32)
ALPHAS = st.sampled_from([0.0, 0.6, 1.0, 3.0])
quick = settings(deadline=None, max_examples=60)


class Table:
    """Random next-token scores of each beginning: the same for equal beginnings of the same sequence.

    As a step function it keeps the beginnings itself, as a model's cache would, and so notices wrong rows.
    """

    def __init__(self, seed, V, sequences=(0,), beams=1, no_end=False):
        self.seed, self.V, self.no_end = seed, V, no_end
        self.names = [name for name in sequences for _ in range(beams)]
        self.held, self.calls = [()] * len(self.names), 0

    def logits(self, name, beginning):
        row = 2 * np.random.default_rng([self.seed, name, len(beginning), *beginning]).normal(size=self.V)
        row[END] = -np.inf if self.no_end else row[END]
        return row

    def logs(self, name, beginning):
        row = self.logits(name, beginning)
        return row - np.log(np.exp(row).sum())

    def __call__(self, last, rows):
        self.calls += 1
        assert last.shape == (len(self.held),)
        if rows is not None:
            assert [self.names[r] for r in rows] == self.names  # none continues another sequence's beginning
            self.held = [self.held[r] for r in rows]
        if self.calls > 1:
            self.held = [(*ids, int(token)) for ids, token in zip(self.held, last, strict=True)]
        else:
            assert set(last.tolist()) == {START}
        scores = [self.logits(name, ids) for name, ids in zip(self.names, self.held, strict=True)]
        return torch.from_numpy(np.stack(scores))


def log_p(table, ids, name=0):
    """log p of these tokens, one after another."""
    return sum(table.logs(name, ids[:i])[token] for i, token in enumerate(ids))


def score(table, ids, alpha, name=0):
    """A finished sequence's, its end counted."""
    return log_p(table, (*ids, END), name) / ((5 + len(ids) + 1) / 6) ** alpha


def words(V, length):
    """All sequences of that length without END."""
    return itertools.product(range(1, V), repeat=length)


def best_of_all(table, limit, alpha, name=0):
    """The best finished sequence of at most `limit` tokens, its end counted, by looking at all."""
    finished = [ids for length in range(limit) for ids in words(table.V, length)]
    return max(finished, key=lambda ids: score(table, ids, alpha, name))


def likeliest(table, limit, name=0, banned=()):
    """Tokens one by one, each the likeliest; END ends."""
    ids = ()
    while len(ids) < limit:
        row = table.logits(name, ids)
        token = max((t for t in range(table.V) if t not in banned), key=lambda t: row[t])
        if token == END:
            break
        ids = (*ids, token)
    return list(ids)


# --- greedy -------------------------------------------------------------------------------------------------


@quick
@given(SEEDS, st.integers(1, 6), st.integers(1, 7))
def test_greedy_takes_the_likeliest_each_time(seed, V, limit):
    assert greedy(Table(seed, V), 1, START, END, limit) == [likeliest(Table(seed, V), limit)]


@quick
@given(SEEDS, st.integers(2, 4), st.integers(1, 5), st.integers(1, 8))
def test_a_batch_is_each_by_itself(seed, V, B, limit):
    """Finished sequences wait for the others and get nothing more."""
    together = greedy(Table(seed, V, range(B)), B, START, END, limit)
    assert together == [greedy(Table(seed, V, [b]), 1, START, END, limit)[0] for b in range(B)]
    assert all(END not in ids and len(ids) <= limit for ids in together)


def test_greedy_asks_no_more_often_than_needed():
    for seed in range(30):
        table = Table(seed, 3, range(3))
        found = greedy(table, 3, START, END, 9)
        assert table.calls == min(9, max(map(len, found)) + 1)


def test_greedy_runs_to_the_limit_where_nothing_ends():
    (ids,) = greedy(Table(0, 3, no_end=True), 1, START, END, 11)
    assert len(ids) == 11


# --- beam search --------------------------------------------------------------------------------------------


@quick
@given(SEEDS, st.sampled_from([(1, 3), (2, 5), (3, 3), (4, 2), (3, 1)]), ALPHAS)
def test_with_room_for_all_it_finds_the_best_of_all(seed, size, alpha):
    V, limit = size
    beams = V**limit
    table = Table(seed, V, beams=beams)
    (found,) = beam_search(table, 1, START, END, limit, beams, alpha)
    assert tuple(found) == best_of_all(table, limit, alpha)


def test_length_penalties_change_what_is_best():
    """So that the test above has something to find: the best under one is not always that under another."""
    plain, strong = ([best_of_all(Table(s, 3), 3, alpha) for s in range(60)] for alpha in (0.0, 3.0))
    assert plain != strong
    assert sum(map(len, plain)) < sum(map(len, strong))


@quick
@given(SEEDS, st.integers(2, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), ALPHAS)
def test_a_batch_of_searches_is_each_by_itself(seed, V, B, beams, limit, alpha):
    together = beam_search(Table(seed, V, range(B), beams), B, START, END, limit, beams, alpha)
    alone = [beam_search(Table(seed, V, [b], beams), 1, START, END, limit, beams, alpha)[0] for b in range(B)]
    assert together == alone
    assert all(END not in ids and len(ids) < limit for ids in together)  # the end is one of `limit`


@quick
@given(SEEDS, st.integers(2, 5), st.integers(1, 6), ALPHAS)
def test_one_beam_is_the_best_stop_on_the_likeliest_way(seed, V, limit, alpha):
    """One beam walks on past an end and keeps the best place to have stopped: not greedy, but no worse."""
    table = Table(seed, V)
    way = likeliest(table, limit, banned=(END,))
    (found,) = beam_search(Table(seed, V), 1, START, END, limit, 1, alpha)
    stops = [tuple(way[:n]) for n in range(limit)]
    assert tuple(found) == max(stops, key=lambda ids: score(table, ids, alpha))
    taken = greedy(Table(seed, V), 1, START, END, limit)[0]
    if len(taken) < limit:  # it has ended
        assert score(table, tuple(found), alpha) >= score(table, tuple(taken), alpha) - 1e-12


def test_one_beam_without_a_penalty_is_not_always_greedy():
    """p(END) = 0.4 at once beats 0.6 · 0.5, which greedy, at each step right, ends with."""
    later = torch.tensor([[0.5, 0.3, 0.2]]).log()

    def step(last, rows):
        return torch.tensor([[0.4, 0.6, 1e-9]]).log() if last[0] == START else later

    assert greedy(step, 1, START, END, 5) == [[1]]
    assert beam_search(step, 1, START, END, 5, beams=1, alpha=0.0) == [[]]


@quick
@given(SEEDS, st.integers(2, 3), st.integers(1, 3))
def test_where_nothing_ends_the_likeliest_beginning_comes_back(seed, V, limit):
    table = Table(seed, V, beams=V**limit, no_end=True)
    (found,) = beam_search(table, 1, START, END, limit, V**limit)
    assert tuple(found) == max(words(V, limit), key=lambda ids: log_p(table, ids))


def test_it_stops_when_nothing_can_win_any_more():
    """An end of probability 0.9 at once leaves 0.1 to all others: a limit of 1,000 is not walked to."""
    calls = []

    def step(last, rows):
        calls.append(last)
        return torch.tensor([0.9, 0.05, 0.05]).log().expand(len(last), 3)

    assert beam_search(step, 1, START, END, 1000, beams=3, alpha=0.0) == [[]]
    assert len(calls) == 1


def test_it_does_not_stop_while_a_longer_one_can_win():
    """Short and likely against long and sure: with a strong enough penalty the long one wins, 12 steps on."""

    def step(last, rows):
        first, on, over = (
            torch.tensor([[0.6, 0.4, 0]]),
            torch.tensor([[0, 0, 1.0]]),
            torch.tensor([[1.0, 0, 0]]),
        )
        step.calls += 1
        chances = {1: first, 13: over}.get(step.calls, on)
        return chances.log().expand(len(last), 3)

    step.calls = 0
    (found,) = beam_search(step, 1, START, END, 20, beams=2, alpha=1.0)
    assert found == [1, *[2] * 11]


@pytest.mark.parametrize(("ratio", "expected"), [(1.16, [1]), (1.17, [])])
def test_the_penalty_is_the_papers(ratio, expected):
    """log p may be 7 / 6 of that of ending at once, no more, for one token before the end (alpha 1)."""
    first = torch.zeros(1, 40)
    first[0, :2] = torch.tensor([-1, -ratio]).exp()  # to end, to say 1 and then end
    first[0, 2:] = (1 - first.sum()) / 38
    others = torch.zeros(1, 40)
    others[0, 2:] = 1 / 38

    def step(last, rows):
        chances = {START: first, 1: torch.eye(40)[:1]}
        return torch.cat([chances.get(int(token), others) for token in last]).log()

    assert beam_search(step, 1, START, END, 6, beams=4, alpha=1.0) == [expected]


def test_more_beams_find_better_ones_on_the_whole():
    def mean(beams):
        tables = [Table(seed, 5, beams=beams) for seed in range(80)]
        return np.mean(
            [score(t, tuple(beam_search(t, 1, START, END, 5, beams, 0.6)[0]), 0.6) for t in tables]
        )

    one, three, all_ = mean(1), mean(3), mean(100)
    assert one < three < all_ + 1e-12


def test_logits_need_not_be_normalised():
    for seed in range(20):
        table, shifted = Table(seed, 4, beams=3), Table(seed, 4, beams=3)
        plain = beam_search(table, 1, START, END, 6, 3)
        assert beam_search(lambda last, rows, s=shifted: s(last, rows) + 100, 1, START, END, 6, 3) == plain


def test_half_precision_is_taken():
    table = Table(0, 4, beams=2)
    (found,) = beam_search(lambda last, rows: table(last, rows).bfloat16(), 1, START, END, 4, 2)
    assert END not in found


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda step: greedy(step, 0, START, END, 5), "^B must be at least 1, got 0"),
        (lambda step: greedy(step, 1, START, END, 0), "^limit must be at least 1, got 0"),
        (lambda step: beam_search(step, 0, START, END, 5), "^B must be at least 1, got 0"),
        (lambda step: beam_search(step, 1, START, END, 0), "^limit must be at least 1, got 0"),
        (lambda step: beam_search(step, 1, START, END, 5, beams=0), "^beams must be at least 1, got 0"),
        (
            lambda step: beam_search(step, 1, START, END, 5, alpha=-0.1),
            r"^alpha must be at least 0, got -0\.1",
        ),
        (
            lambda step: beam_search(step, 1, START, END, 5, alpha=math.nan),
            "^alpha must be at least 0, got nan",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(Table(0, 3))


# --- what the scores become before a token is taken ---------------------------------------------------------

KS, PS = st.integers(1, 12), st.sampled_from([1e-300, 1e-20]) | st.floats(1e-6, 1.0)


@st.composite
def logits(draw):
    """(B, V) scores; of whole numbers, so that some tie, in half of the cases; some at -∞, never all."""
    B, V = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    random = np.random.default_rng(draw(SEEDS))
    rows = 2 * random.normal(size=(B, V))
    rows = rows.round() if draw(st.booleans()) else rows
    gone = (random.random((B, V)) < draw(st.sampled_from([0.0, 0.4]))) & (rows < rows.max(1, keepdims=True))
    return torch.from_numpy(np.where(gone, -np.inf, rows))


def kept(found, before):
    """Which tokens are left, (B, V): one or more, with their scores as they were; the others have -∞."""
    left = found > -torch.inf
    assert torch.equal(found, before.masked_fill(~left, -torch.inf))
    assert left.any(dim=-1).all()
    return left


def assert_likeliest(left, before):
    """Whatever went was no likelier than anything that stayed."""
    lowest = before.masked_fill(~left, torch.inf).amin(dim=-1)
    assert (before.masked_fill(left, -torch.inf).amax(dim=-1) <= lowest).all()


@quick
@given(logits(), KS)
def test_top_k_is_the_librarys_and_leaves_k(before, k):
    """More where several tie for the last place, fewer where there are no more."""
    found = keep_top_k(before, k)
    assert torch.equal(found, TopKLogitsWarper(k)(None, before))
    left = kept(found, before)
    assert_likeliest(left, before)
    for row, stays in zip(before, left, strict=True):
        above = (row > row[stays].min()).sum()
        assert above < k
        assert stays.sum() == min(max(k, (row >= row[stays].min()).sum()), (row > -torch.inf).sum())


@quick
@given(logits(), PS)
def test_top_p_is_the_librarys_and_leaves_the_fewest(before, p):
    """What remains has the probability p at least, and without its least likely token would not."""
    found = keep_top_p(before, p)
    assert torch.equal(found, TopPLogitsWarper(p)(None, before))
    left, chances = kept(found, before), before.softmax(dim=-1)
    assert_likeliest(left, before)
    mass = (chances * left).sum(dim=-1)
    assert (mass >= p - 1e-12).all()
    least = chances.masked_fill(~left, torch.inf).amin(dim=-1)
    assert ((mass - least < p + 1e-12) | (left.sum(dim=-1) == 1)).all()


@quick
@given(logits(), st.floats(0.0, 1.0))
def test_min_p_is_the_librarys_and_measures_by_the_likeliest(before, p):
    found = keep_min_p(before, p)
    assert torch.equal(found, MinPLogitsWarper(p)(None, before))
    left, chances = kept(found, before), before.softmax(dim=-1)
    shares = chances / chances.amax(dim=-1, keepdim=True)
    clear = (shares - p).abs() > 1e-12
    assert torch.equal((left | (before == -torch.inf))[clear], ((shares >= p) | (shares == 0))[clear])


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (lambda x: keep_top_k(x, 1), [0]),
        (lambda x: keep_top_k(x, 2), [0, 1, 2]),  # the second place is shared
        (lambda x: keep_top_p(x, 0.3), [0]),
        (lambda x: keep_top_p(x, 0.41), [0, 2]),
        (lambda x: keep_top_p(x, 0.85), [0, 1, 2]),
        (lambda x: keep_min_p(x, 0.6), [0, 1, 2]),
        (lambda x: keep_min_p(x, 0.7), [0]),
        (lambda x: keep_min_p(x, 0.3), [0, 1, 2]),
        (lambda x: keep_min_p(x, 0.2), [0, 1, 2, 3]),
    ],
)
def test_by_hand(keep, expected):
    """Probabilities 0.4, 0.25, 0.25 and 0.1: of two that tie, top-p keeps the later."""
    before = torch.tensor([[0.4, 0.25, 0.25, 0.1]], dtype=torch.float64).log()
    assert kept(keep(before), before)[0].nonzero().flatten().tolist() == expected


def test_just_p_is_enough():
    """Of V tokens that tie exactly, V p stay."""
    for V, p, stay in ((2, 0.5, 1), (4, 0.25, 1), (4, 0.5, 2), (4, 0.75, 3), (4, 0.76, 4)):
        before = torch.zeros(1, V, dtype=torch.float64)
        assert kept(keep_top_p(before, p), before).sum() == stay, (V, p)


@st.composite
def scores_and_texts(draw):
    """(B, V) scores and (B, T) ids that have occurred."""
    before = draw(logits())
    T = draw(st.integers(1, 12))
    return before, torch.randint(before.shape[1], (len(before), T), generator=generator(draw(SEEDS)))


def occurred(before, ids):
    return torch.zeros(before.shape, dtype=torch.bool).scatter_(1, ids, True)


@quick
@given(scores_and_texts(), st.floats(0.5, 3.0))
def test_the_penalty_is_the_librarys_and_never_helps_what_has_occurred(case, factor):
    before, ids = case
    seen = occurred(before, ids)
    found = penalise(before, seen, factor)
    assert torch.equal(found, RepetitionPenaltyLogitsProcessor(factor)(ids, before))
    assert torch.equal(found[~seen], before[~seen])
    assert torch.equal(penalise(before, seen, 1.0), before)
    if factor > 1:
        moved = seen & before.isfinite() & (before != 0)
        assert (found < before)[moved].all()


@quick
@given(
    scores_and_texts(),
    st.sampled_from([0.5, 1.0, 1.7]),
    st.sampled_from([0, 2, 5, 99]),
    st.sampled_from([0.3, 0.8, 1.0]),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.sampled_from([1.0, 1.4]),
)
def test_all_together_act_in_the_librarys_order(case, temperature, k, p, min_p, penalty):
    before, ids = case
    how = Decoding(True, temperature, k, p, min_p, penalty)
    chain = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(penalty)])
    chain.append(TemperatureLogitsWarper(temperature))
    chain += [TopKLogitsWarper(k)] if k else []
    chain += [TopPLogitsWarper(p)] if p < 1 else []
    chain += [MinPLogitsWarper(min_p)] if min_p else []
    assert torch.equal(how.scores(before, occurred(before, ids)), chain(ids, before))


def test_each_filter_sees_what_the_one_before_has_left():
    """Of the two likeliest, the first has 0.3 / 0.55; of all five it takes two to have a half."""
    before = torch.tensor([[0.3, 0.25, 0.2, 0.15, 0.1]], dtype=torch.float64).log()
    seen = torch.zeros(1, 5, dtype=torch.bool)

    def count(**options):
        return int(kept(Decoding(do_sample=True, **options).scores(before, seen), before).sum())

    assert [count(top_k=2), count(top_p=0.5), count(top_k=2, top_p=0.5)] == [2, 2, 1]


@quick
@given(scores_and_texts())
def test_untouched_options_touch_nothing(case):
    before, ids = case
    assert torch.equal(Decoding().scores(before, occurred(before, ids)), before)


# --- the token that is taken --------------------------------------------------------------------------------

ROW = torch.tensor([[1.2, 0.3, -0.5, 0.8, -2.0, 0.0, -0.1]], dtype=torch.float64)
OPTIONS = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.8, "top_k": 4},
    {"top_p": 0.7},
    {"min_p": 0.25, "repetition_penalty": 1.6},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_tokens_are_drawn_as_often_as_they_are_likely(options):
    """Where two rows differ, each by its own scores."""
    N, seen = 20_000, torch.zeros(1, 7, dtype=torch.bool)
    seen[0, 3] = True
    how, both = Decoding(do_sample=True, **options), torch.cat([ROW, ROW.flip(1)])
    rows, marks = both.repeat(N, 1), torch.cat([seen, seen.flip(1)]).repeat(N, 1)
    drawn = how.choose(rows, marks, generator(0)).view(N, 2)
    expected = how.scores(ROW, seen).softmax(dim=-1)[0].numpy() * N
    for tokens in (drawn[:, 0], 6 - drawn[:, 1]):
        counts = torch.bincount(tokens, minlength=7).numpy()
        assert not counts[expected == 0].any()
        assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 1e-3
    if options:  # so that the test would notice options that do nothing
        plain = ROW.softmax(dim=-1)[0].numpy() * N
        assert chisquare(torch.bincount(drawn[:, 0], minlength=7).numpy(), plain).pvalue < 1e-9


def test_a_seed_decides_what_is_drawn():
    how, rows, seen = Decoding(do_sample=True), ROW.repeat(50, 1), torch.zeros(50, 7, dtype=torch.bool)
    first, again, other = (how.choose(rows, seen, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@quick
@given(scores_and_texts(), st.sampled_from([1.0, 1.7]))
def test_where_nothing_is_drawn_the_likeliest_is_taken(case, penalty):
    before, ids = case
    seen = occurred(before, ids)
    how = Decoding(repetition_penalty=penalty)
    draw = generator(0)
    chosen = how.choose(before, seen, draw)
    scores = how.scores(before, seen)
    assert torch.equal(scores.gather(1, chosen[:, None])[:, 0], scores.amax(dim=-1))
    assert torch.equal(draw.get_state(), generator(0).get_state())  # no draw was used up


SAMPLE = {"do_sample": True}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            (SAMPLE | {"temperature": t}, rf"^temperature must be above 0, got {t}$")
            for t in (0, -1.0, math.nan)
        ),
        *(
            (SAMPLE | {"top_k": k}, "^top_k must be a whole number, 0 for all, got ")
            for k in (-1, 2.0, 2.5, math.nan)
        ),
        *((SAMPLE | {"top_p": p}, r"^top_p must be in \(0, 1\], got ") for p in (0, -0.1, 1.01, math.nan)),
        *((SAMPLE | {"min_p": p}, r"^min_p must be in \[0, 1\], got ") for p in (-0.1, 1.01, math.nan)),
        *(
            ({"repetition_penalty": r}, "^repetition_penalty must be above 0, got ")
            for r in (0, -1, math.nan)
        ),
        *(({"num_beams": n}, "^num_beams must be a whole number from 1, got ") for n in (0, -2, 1.5)),
        *(
            (
                SAMPLE | {"num_return_sequences": n},
                "^num_return_sequences must be a whole number from 1, got ",
            )
            for n in (0, -1, 1.5)
        ),
        *(
            ({"num_beams": 2, "length_penalty": x}, "^length_penalty must be at least 0, got ")
            for x in (-0.5, math.nan)
        ),
        *(
            ({name: value}, f"^{name} acts on sampling alone: set do_sample=True, or leave it out$")
            for name, value in {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_p": 0.1}.items()
        ),
        ({"num_beams": 4, "top_k": 5}, "^top_k acts on sampling alone"),
        (
            SAMPLE | {"num_beams": 2},
            "^do_sample=True and num_beams > 1 contradict each other: draw or search$",
        ),
        (
            {"length_penalty": 2.0},
            "^length_penalty acts on beams alone: set num_beams above 1, or leave it out$",
        ),
        (SAMPLE | {"length_penalty": 0.0}, "^length_penalty acts on beams alone"),
        (
            {"num_return_sequences": 2},
            "^num_return_sequences must be at most num_beams = 1 .*, got 2: the same",
        ),
        (
            {"num_beams": 3, "num_return_sequences": 4},
            "^num_return_sequences must be at most num_beams = 3 where nothing is drawn, got 4: ",
        ),
    ],
    ids=str,
)
def test_options_out_of_range_or_against_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        SAMPLE | {"temperature": 1e-3, "top_k": 1, "top_p": 1.0, "min_p": 1.0, "repetition_penalty": 0.5},
        SAMPLE | {"num_return_sequences": 9},
        {"num_beams": 3, "num_return_sequences": 3, "length_penalty": 0.0, "repetition_penalty": 1.5},
    ],
    ids=str,
)
def test_what_makes_sense_is_taken_at_the_edge_too(options):
    how = Decoding(**options)
    assert {name: getattr(how, name) for name in options} == options


# --- beam search by the library's rules ---------------------------------------------------------------------

LIBRARY_ALPHAS = st.sampled_from([0.0, 0.3, 1.0, 2.0])


def library_search(table, B, limit, beams, alpha, returns=1):
    """What `LibraryBeams` finds on a table."""
    search = LibraryBeams(B, beams, START, END, limit, alpha, returns)
    while True:
        search.extend(table(search.last(), search.rows).log_softmax(dim=-1))
        if search.done():
            return search.best()


def library_score(table, ids, alpha, name=0):
    """Of a sequence with its end, where it has one."""
    return log_p(table, ids, name) / len(ids) ** alpha


def all_finished(V, limit):
    """All sequences that end within the limit, their end included, and all that it cuts off."""
    ended = [(*ids, END) for length in range(limit) for ids in words(V, length)]
    return ended + list(words(V, limit))


@quick
@given(SEEDS, st.sampled_from([(1, 3), (2, 5), (3, 3), (4, 2), (3, 1)]), LIBRARY_ALPHAS, st.integers(1, 20))
def test_with_room_for_all_the_librarys_search_finds_the_best_of_all(seed, size, alpha, returns):
    """As many as are asked for, the best first."""
    V, limit = size
    beams, every = V**limit, all_finished(V, limit)
    returns = min(returns, beams, len(every))
    table = Table(seed, V, beams=beams)
    found = library_search(table, 1, limit, beams, alpha, returns)
    expected = sorted(every, key=lambda ids: -library_score(table, ids, alpha))[:returns]
    scores = [[library_score(table, tuple(ids), alpha) for ids in rows] for rows in (found, expected)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-12, abs=1e-12)
    assert len(set(map(tuple, found))) == returns


@quick
@given(
    SEEDS,
    st.integers(2, 4),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 5),
    LIBRARY_ALPHAS,
    st.data(),
)
def test_a_batch_of_the_librarys_searches_is_each_by_itself(seed, V, B, beams, limit, alpha, data):
    returns = data.draw(st.integers(1, beams))
    together = library_search(Table(seed, V, range(B), beams), B, limit, beams, alpha, returns)
    alone = [library_search(Table(seed, V, [b], beams), 1, limit, beams, alpha, returns) for b in range(B)]
    assert together == [ids for rows in alone for ids in rows]
    assert all(END not in ids[:-1] and len(ids) <= limit for ids in together)


@quick
@given(SEEDS, st.integers(2, 5), st.integers(1, 6), LIBRARY_ALPHAS)
def test_one_beam_of_the_librarys_ends_only_where_an_end_is_likeliest(seed, V, limit, alpha):
    """Of those places on its way, and the limit, it takes the best; our own search may end anywhere."""
    table = Table(seed, V)
    way = likeliest(table, limit, banned=(END,))
    steps = [(*way[:n], int(table.logits(0, way[:n]).argmax())) for n in range(limit)]
    stops = [ids for ids in steps if ids[-1] == END or len(ids) == limit]
    (found,) = library_search(Table(seed, V), 1, limit, 1, alpha)
    assert tuple(found) == max(stops, key=lambda ids: library_score(table, ids, alpha))


def test_the_librarys_search_stops_when_nothing_can_win_any_more():
    calls = []

    def step(last, rows):
        calls.append(last)
        return torch.tensor([0.9, 0.05, 0.05]).log().expand(len(last), 3)

    assert library_search(step, 1, 1000, beams=3, alpha=0.0) == [[END]]
    assert len(calls) == 1


@pytest.mark.parametrize(("alpha", "expected"), [(0.9, [END]), (1.1, [1, END])])
def test_the_librarys_penalty_counts_the_end(alpha, expected):
    """log p of two tokens is twice that of one: even at alpha 1."""
    chances = {START: [0.5, 0.25, 0.25], 1: [1.0, 0, 0], 2: [0, 0.5, 0.5]}

    def step(last, rows):
        return torch.tensor([chances[int(token)] for token in last], dtype=torch.float64).log()

    assert library_search(step, 1, 2, beams=3, alpha=alpha) == [expected]
