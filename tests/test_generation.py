"""Greedy and beam search against all sequences there are, on step functions with random tables."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.generation import beam_search, greedy

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
