"""Notebook 05's and 05b's long runs in miniature, and what is stored of them.

The judge is a language of eleven sentences, or one of three places and three words whose every row is listed;
the stories are two dozen words made here.
"""

import json
import math
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from torch import nn

from course_utils import gan, metrics, ngram, results
from course_utils.experiments import nb05
from course_utils.grammar import END, Language, jensen_shannon
from course_utils.runtime import generator

TINY = Language(
    {
        "S": "A dog BARKS . | two dogs BARK . | A dog .",
        "A": "the | a",
        "BARKS": "barks | sees A dog",
        "BARK": "bark | see A dog",
    }
)
V, T = len(TINY.words), TINY.ids.shape[1]
LISTED = Language({"S": "a b . | b . | a ."})  # three words, three places
DISTANCES = {"grammatical", "js", "nll_test", "covered"}
VARIETY = {"different", "distinct_2", "self_bleu"}
JUDGED = DISTANCES | VARIETY | {"nll_oracle", "entropy"}
CENTRES = torch.tensor(nb05.CENTRES)[:, None]  # (4, 1)


def shortened(method):
    """A method of a few steps."""
    few = {"steps": 20, "d_steps": 1, "head_start": 1}
    duel = method.duel and replace(method.duel, **few)
    return replace(method, likelihood=min(method.likelihood, 4), duel=duel, N=min(method.N, 2))


@pytest.fixture
def brief(monkeypatch):
    """Every run in a few steps, on the small language."""
    small = {"KNOWN": 60, "HELD": 30, "BATCH": 8, "ALIKE": 5, "TEMPERATURES": (0.7, 1.0), "COLDER": (0.3,)}
    for name, value in small.items():
        monkeypatch.setattr(nb05, name, value)
    monkeypatch.setattr(nb05, "language", lambda: TINY)
    monkeypatch.setattr(nb05, "METHODS", {name: shortened(m) for name, m in nb05.METHODS.items()})


@pytest.fixture
def short_line(monkeypatch):
    lines = {name: replace(kind, duel=replace(kind.duel, steps=70)) for name, kind in nb05.LINES.items()}
    monkeypatch.setattr(nb05, "LINES", lines)
    monkeypatch.setattr(nb05, "SAMPLES", 2_000)


@pytest.fixture
def other_threads():
    """A number of threads that no run sets by itself; afterwards as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


def spied(monkeypatch, where, name, result=None):
    """Calls of a function from now on, as ((args, kwargs), what it gave)."""
    seen, true = [], getattr(where, name)

    def spy(*args, **kwargs):
        given = true(*args, **kwargs) if result is None else result
        seen.append((args, kwargs, given))
        return given

    monkeypatch.setattr(where, name, spy)
    return seen


def as_json(row):
    return json.loads(json.dumps(row, allow_nan=False))


def sentences(n, seed, language=TINY):
    """(n, T, V) one-hot."""
    return nb05.one_hot(language.draw(n, generator(seed)), len(language.words))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# ---- on a line


def gaps(x, y):
    """How far sorted samples lie apart, on average; x of a size that divides y's."""
    x, y = x.flatten().sort().values.double(), y.flatten().sort().values.double()
    return (x.repeat_interleave(len(y) // len(x)) - y).abs().mean().item()


def truth():
    return nb05.mixture(nb05.SAMPLES, generator(12345))


def test_the_truth_has_four_bells_of_equal_share():
    """20,000 samples: shares within 5 standard errors, each bell's mean and width too."""
    x = truth()
    assert x.shape == (20_000, 1)
    near = (x - CENTRES.T).abs().argmin(dim=1)
    for k, centre in enumerate(nb05.CENTRES):
        bell = x[near == k, 0]
        assert len(bell) == pytest.approx(5_000, abs=5 * math.sqrt(20_000 * 3 / 16))
        assert bell.mean().item() == pytest.approx(centre, abs=5 * nb05.WIDTH / math.sqrt(4_500))
        assert bell.std().item() == pytest.approx(nb05.WIDTH, rel=5 / math.sqrt(9_000))


def test_the_truth_itself_is_near_and_has_all_modes():
    found = nb05.line_distance(nb05.mixture(10_000, generator(1)))
    assert found["modes"] == 4
    assert found["wasserstein"] < 0.2
    assert nb05.line_distance(truth()) == {"wasserstein": 0.0, "modes": 4}


@pytest.mark.parametrize("n", [1, 4, 400, 20_000])
def test_distance_is_the_mean_gap_of_sorted_samples(n):
    x = 3 * torch.randn(n, 1, generator=generator(n)) + 1
    assert nb05.line_distance(x)["wasserstein"] == pytest.approx(gaps(x, truth()), abs=1e-5)


@pytest.mark.parametrize("k", range(4))
def test_one_mode_is_one_and_half_of_all_is_moved(k):
    """All mass of one bell: the others' move to it, by the distances of the centres."""
    x = CENTRES[k].repeat(100, 1)
    found = nb05.line_distance(x)
    assert found["modes"] == 1
    moved = np.mean([abs(c - nb05.CENTRES[k]) for c in nb05.CENTRES])
    own = nb05.WIDTH * math.sqrt(2 / math.pi) / 4  # E|N(0, 1)| of the bell that stays
    assert found["wasserstein"] == pytest.approx(moved + own, abs=0.1)


@pytest.mark.parametrize(("others", "modes"), [(14, 2), (15, 2), (16, 1)])
def test_a_mode_counts_from_a_quarter_of_its_share(others, modes):
    """One of sixteen is a quarter of a quarter."""
    x = torch.cat([CENTRES[:1].repeat(others, 1), CENTRES[2:3]])
    assert nb05.line_distance(x)["modes"] == modes


@pytest.mark.parametrize(("away", "modes"), [(0.99, 4), (-0.99, 4), (1.01, 0), (-1.01, 0)])
def test_a_mode_is_two_widths_wide_to_either_side(away, modes):
    assert nb05.line_distance(CENTRES + away * 2 * nb05.WIDTH)["modes"] == modes


@pytest.mark.parametrize("valley", [-4.0, 0.0, 4.0])
@pytest.mark.parametrize(("hill", "beside", "stands"), [(8, 5, True), (7, 5, False), (2, 0, True)])
def test_a_mode_stands_out_from_the_valleys_beside_it(valley, hill, beside, stands):
    """By half as many again; the others have none beside them."""
    x = torch.cat([CENTRES.repeat(hill, 1), torch.full((beside, 1), valley)])
    assert nb05.line_distance(x)["modes"] == (4 if stands else 2)


def test_what_is_everywhere_alike_is_no_mode():
    assert nb05.line_distance(torch.linspace(-8, 8, 4_001)[:, None])["modes"] == 0


@pytest.mark.parametrize("name", nb05.LINES)
def test_a_duel_on_the_line_measures_what_it_says(short_line, other_threads, name):
    row = nb05.line(name, 0)
    assert torch.get_num_threads() == other_threads
    assert row.keys() == {"wasserstein", "modes", "course"}
    assert [step for step, *_ in row["course"]] == [0, 50, 70]
    assert row["course"][-1][1:] == [row["wasserstein"], row["modes"]]
    assert all(distance > 0 and modes in range(5) for _, distance, modes in row["course"])
    assert as_json(row) == row == nb05.line(name, 0)
    assert nb05.line(name, 1)["course"] != row["course"]


def test_each_duel_on_the_line_begins_alike_and_goes_its_own_way(short_line):
    courses = [nb05.line(name, 3)["course"] for name in nb05.LINES]
    assert len({str(course[0]) for course in courses}) == 1
    assert len({str(course) for course in courses}) == len(courses)


@pytest.mark.parametrize("name", nb05.LINES)
def test_a_duel_on_the_line_plays_for_what_its_name_says(short_line, monkeypatch, name):
    """The generator's loss and the samples, by hand on the same draws; the seed reaches draws and weights."""
    begun, true = [], gan.duel

    def duel(G, D, *rest):
        begun.extend([weights(G), weights(D)])
        return true(G, D, *rest)

    monkeypatch.setattr(gan, "duel", duel)
    calls = spied(monkeypatch, gan, "duel")
    nb05.line(name, 3)
    assert torch.equal(begun[0], weights(nb05.network(nb05.NOISE, 6)))  # no two runs share a network
    assert torch.equal(begun[1], weights(nb05.network(1, 7)))
    (((G, D, real, fake, loss, options, _), _, _),) = calls
    assert options == replace(nb05.LINES[name].duel, seed=3, every=50)
    assert torch.equal(real(generator(5)), nb05.mixture(128, generator(5)))
    x = G(torch.randn(128, 4, generator=generator(5)))
    assert torch.equal(fake(generator(5)), x)
    p = D(x).double().sigmoid()
    wanted = (1 - p).log().mean() if "saturating" in name else -p.log().mean()
    assert loss(generator(5)).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_networks_are_drawn_by_their_seed():
    first, again, other = (nb05.network(4, seed) for seed in (0, 0, 1))
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))
    assert first(torch.zeros(7, 4)).shape == (7, 1)
    assert sum(isinstance(part, nn.ReLU) for part in first) == 2


# ---- on a language


@cache
def brief_row(name):
    """A method's row under `brief`."""
    return nb05.text(name, 0)


@pytest.mark.parametrize("name", nb05.METHODS)
def test_a_method_measures_what_it_says(brief, other_threads, name):
    method, row = nb05.METHODS[name], brief_row(name)
    assert torch.get_num_threads() == other_threads
    assert row.keys() == JUDGED | {"course", "temperatures"}
    assert [step for step, *_ in row["course"]] == ([*range(21)] if method.duel else [])
    if method.duel:
        assert row["course"][-1][1:] == [row["js"], row["grammatical"]]
        assert row["course"][0] != [0, *row["course"][-1][1:]]
    degrees = [0.7, 1.0] if method.duel else [0.3, 0.7, 1.0]
    assert [found["temperature"] for found in row["temperatures"]] == degrees
    assert row["temperatures"][-1] == {"temperature": 1.0} | {key: row[key] for key in JUDGED}
    assert row["temperatures"][-2]["nll_test"] != row["nll_test"]
    for found in (row, *row["temperatures"]):
        check_judged(found, TINY)
    assert as_json(row) == row == nb05.text(name, 0)
    assert nb05.text(name, 1) != row


def check_judged(row, language, n=nb05.WRITTEN):
    """Ranges, and bounds that hold between the measures; all are rounded to 4 decimals."""
    slack = 1e-4
    assert row.keys() >= JUDGED
    assert -slack <= row["grammatical"] <= 1 + slack
    assert -slack <= row["covered"] <= 1 + slack
    assert -slack <= row["js"] <= math.log(2) + slack
    # what goes to no sentence of the list is missing from those of the list
    assert row["nll_test"] >= language.entropy - math.log(max(row["grammatical"], slack / 2) + slack) - slack
    coarse = [torch.tensor([a, 1 - a]).double().clamp(0, 1) for a in (1.0, row["grammatical"])]
    assert row["js"] >= jensen_shannon(*coarse).item() - 5 * slack  # telling less, it is no larger
    if row["covered"] < 1 - slack:
        missed = 1 - row["covered"]
        coarse = [torch.tensor([a, 1 - a]).double().clamp(0, 1) for a in (missed, 0.1 * missed)]
        assert row["js"] >= jensen_shannon(*coarse).item() - 5 * slack
    likeliest = -math.log(0.99 * language.p.max().item() + 0.01)
    assert row["nll_oracle"] >= likeliest - slack
    assert row["entropy"] >= -slack
    assert row["different"] in range(1, n + 1)
    assert 0 < row["distinct_2"] <= 1
    assert -slack <= row["self_bleu"] <= 100 + slack


def test_methods_differ(brief):
    """Nothing in a method's settings is forgotten on the way: each ends elsewhere, learnt or not."""
    rows = {name: brief_row(name) for name in nb05.METHODS}
    assert len({str([row[key] for key in sorted(JUDGED)]) for row in rows.values()}) == len(rows)


@pytest.mark.parametrize("setting", [3e-2, (1e-3, 2e-3, 0.5), (1e-3, 2e-3, None)])
def test_a_setting_is_judged_by_its_distances_alone(brief, other_threads, setting):
    name = "likelihood" if isinstance(setting, float) else "SeqGAN" if setting[2] is None else "Gumbel"
    found = nb05.text(name, 0, setting)
    assert torch.get_num_threads() == other_threads
    assert found.keys() == DISTANCES
    assert as_json(found) == found
    nb05.METHODS[name] = nb05.configured(nb05.METHODS[name], setting)
    row = nb05.text(name, 0)
    assert {key: row[key] for key in DISTANCES} == found


def test_a_setting_replaces_its_own_numbers_alone():
    method = nb05.METHODS["Gumbel after likelihood"]
    assert nb05.configured(method, None) == method
    assert nb05.configured(method, 0.5) == replace(method, lr=0.5)
    found = nb05.configured(method, (0.1, 0.2, 0.3))
    assert found == replace(method, tau=0.3, duel=replace(method.duel, lr=0.1, d_lr=0.2))


@pytest.mark.parametrize("method", [nb05.Method(tau=0.5), nb05.Method(tau=2.0, hard=False), nb05.Method()])
def test_words_are_chosen_as_the_method_says(method):
    logits = torch.randn(5, 7, generator=generator(0))
    found = nb05.chooser(method, generator(1))(logits)
    if method.tau:
        u = torch.rand(logits.shape, generator=generator(1), dtype=torch.double)
        soft = ((logits - (-u.log()).log()) / method.tau).softmax(dim=-1).float()
        wanted = soft if not method.hard else soft.eq(soft.amax(dim=-1, keepdim=True)).float()
    else:
        wanted = gan.sample_word(logits, generator(1))
    torch.testing.assert_close(found, wanted)
    assert nb05.chooser(method, generator(1))(logits.requires_grad_()).requires_grad == bool(method.tau)


class Held:
    """A method's loss, taken out of its duel."""

    def __init__(self, monkeypatch, method, seed=0):
        self.calls = spied(monkeypatch, gan, "duel", result=[])
        self.G, self.D = gan.Generator(V, 6, 0), gan.Discriminator(V, 6, seed=1).eval()  # no dropout
        self.known = sentences(40, 1)
        nb05.play(self.G, self.D, self.known, method, seed, None)
        (((G, D, self.real, self.fake, self.loss, self.options, self.watch), _, _),) = self.calls
        assert G is self.G
        assert D is self.D


def short(method):
    return nb05.Method(duel=gan.Duel(20, 1e-2, 1e-2), **method)


@pytest.mark.parametrize("method", [{"tau": 0.7}, {"tau": 0.7, "hard": False}, {"N": 3}, {"N": 0}])
def test_a_duel_over_sentences_shows_known_ones_and_written_ones(brief, monkeypatch, method):
    method = short(method)
    held = Held(monkeypatch, method, seed=4)
    assert held.options == replace(method.duel, seed=4)
    assert held.watch is None
    real, fake = held.real(generator(0)), held.fake(generator(0))
    assert real.shape == fake.shape == (8, T, V)
    known = {tuple(row) for row in held.known.argmax(dim=-1).tolist()}
    assert {tuple(row) for row in real.argmax(dim=-1).tolist()} <= known
    assert not torch.equal(real, held.real(generator(1)))
    assert not fake.requires_grad
    choose = nb05.chooser(method, generator(0))
    torch.testing.assert_close(fake, gan.write(held.G, gan.start(8, held.G), T, choose).detach())


@pytest.mark.parametrize("hard", [True, False])
def test_gumbels_loss_goes_through_the_words(brief, monkeypatch, hard):
    method = short({"tau": 0.7, "hard": hard})
    held = Held(monkeypatch, method)
    value = held.loss(generator(3))
    wanted = -held.D(held.fake(generator(3))).sigmoid().log().mean()
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(value, list(held.G.parameters())))


def test_without_roll_outs_each_word_is_worth_what_the_sentence_is(brief, monkeypatch):
    held = Held(monkeypatch, short({"N": 0}))
    calls = spied(monkeypatch, gan, "policy_loss")
    monkeypatch.setattr(gan, "rollout_values", None)
    value = held.loss(generator(3))
    (((logs, values, mask), _, _),) = calls
    y = held.fake(generator(3))
    assert torch.equal(values, held.D(y).sigmoid()[:, None].expand(8, T))
    assert not values.requires_grad
    assert torch.equal(mask, gan.written(y))
    torch.testing.assert_close(logs, gan.word_log_probabilities(held.G, y))
    baseline = torch.tensor([values[mask[:, t] > 0, t].mean() for t in range(T) if mask[:, t].any()])
    gain = (values[:, : len(baseline)] - baseline) * logs[:, : len(baseline)]
    assert value.item() == pytest.approx(-(gain.sum() / 8).item(), rel=1e-4, abs=1e-6)
    assert any(g.abs().max() > 0 for g in torch.autograd.grad(value, list(held.G.parameters())))


@pytest.mark.parametrize("N", [1, 3])
def test_with_roll_outs_the_loss_is_seqgans(brief, monkeypatch, N):
    held = Held(monkeypatch, short({"N": N}))
    calls = spied(monkeypatch, gan, "rollout_values")
    value = held.loss(generator(3))
    ((args, _, _),) = calls
    assert args[3] == N
    wanted = gan.seqgan_loss(held.G, held.D, 8, T, N, generator(3)).item()
    assert value.item() == pytest.approx(wanted, rel=1e-5)


def test_learning_goes_back_to_the_best_on_what_is_held_out(brief, monkeypatch):
    """Eight sentences are soon known by heart, and the others all the worse."""
    calls = spied(monkeypatch, nb05, "train")
    G, known, held = gan.Generator(V, 16, 0), sentences(8, 1), sentences(200, 2)
    nb05.learn(G, known, held, nb05.Method(400, 5e-2), seed=0)
    ((_, _, history),) = calls
    steps, values = zip(*history.valid, strict=True)
    assert steps == (100, 200, 300, 400)
    assert min(values) < values[-1] - 0.01  # there is something to go back from
    words = gan.written(held).sum().item()
    nats = -nb05.log_likelihoods(G, held).sum().item() / words
    assert nats == pytest.approx(min(values), rel=1e-5)


def test_learning_takes_its_steps_from_the_method_and_its_batches_from_the_seed(brief, monkeypatch):
    calls = spied(monkeypatch, nb05, "train")
    ends = []
    for lr, seed in ((1e-2, 3), (1e-2, 4), (3e-2, 3)):
        G = gan.Generator(V, 8, 0)
        nb05.learn(G, sentences(60, 1), sentences(30, 2), nb05.Method(5, lr), seed)
        ends.append(weights(G))
    options = [args[3] for args, _, _ in calls]
    assert [(o.steps, o.lr, o.seed) for o in options] == [(5, 1e-2, 3), (5, 1e-2, 4), (5, 3e-2, 3)]
    assert not any(torch.equal(a, b) for a, b in ((ends[0], ends[1]), (ends[0], ends[2])))


@pytest.mark.parametrize("likelihood", [0, 5])
def test_a_duel_begins_with_what_was_learnt(brief, monkeypatch, likelihood):
    """Its twenty looks, its discriminator's width and seed are those of the run."""
    known, held, method = sentences(60, 1), sentences(30, 2), nb05.Method(likelihood, duel=gan.Duel(60))
    alone, seen = gan.Generator(V, 8, 0), []

    def play(G, D, shown, played, seed, watch):
        seen.append((weights(G), weights(D), shown is known, played, seed, watch))

    monkeypatch.setattr(nb05, "play", play)
    G = gan.Generator(V, 8, 0)
    assert nb05.trained(G, known, held, method, 3, None) is G
    if likelihood:
        nb05.learn(alone, known, held, method, 3)
        assert not torch.equal(weights(alone), weights(gan.Generator(V, 8, 0)))
    ((begun, judge, same, played, seed, watch),) = seen
    assert torch.equal(begun, weights(alone))
    assert torch.equal(judge, weights(gan.Discriminator(V, 8, seed=7)))
    assert same
    assert played == replace(method, duel=replace(method.duel, every=3))
    assert (seed, watch) == (3, None)


def test_without_a_duel_there_is_no_second_network(brief, monkeypatch):
    monkeypatch.setattr(nb05, "play", None)
    monkeypatch.setattr(gan, "Discriminator", None)
    G = gan.Generator(V, 8, 0)
    nb05.trained(G, sentences(60, 1), sentences(30, 2), nb05.Method(5), 0, None)
    assert not torch.equal(weights(G), weights(gan.Generator(V, 8, 0)))


def test_sentences_to_learn_from_and_to_hold_back_are_other_ones_alike_for_all_seeds(brief, monkeypatch):
    calls = spied(monkeypatch, nb05, "trained")
    for seed in (0, 1):
        nb05.text("likelihood", seed)
    for (_, known, held, *_), _, _ in calls:
        assert torch.equal(known, sentences(60, 1))
        assert torch.equal(held, sentences(30, 2))
    generators = [gan.Generator(V, 32, 2 * seed) for seed in (0, 1)]
    assert [args[0].V for args, _, _ in calls] == [V, V]
    assert not torch.equal(weights(generators[0]), weights(generators[1]))


# ---- the judge


def every_row(words, places):
    """All sentences a model can write: after END there is only END."""
    rows = [row for row in product(range(words), repeat=places) if END not in row[:-1] or ended(row)]
    return torch.tensor(rows)


def ended(row):
    return not any(row[row.index(END) :])


def test_log_likelihoods_are_those_of_the_words_added_up():
    """More than one part; in double precision, on the CPU."""
    G, y = gan.Generator(V, 8, 0), sentences(2050, 0)
    for temperature in (1.0, 0.6):
        found = nb05.log_likelihoods(G, y, temperature)
        assert found.dtype == torch.double
        assert not found.requires_grad
        wanted = torch.stack([gan.word_log_probabilities(G, row[None], temperature).sum() for row in y[-9:]])
        torch.testing.assert_close(found[-9:], wanted.double(), rtol=1e-5, atol=1e-6)
        assert found.shape == (2050,)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_generator_is_judged_by_its_true_distribution(monkeypatch, temperature):
    """Of three places and three words all rows are listed; what is drawn lies within 5 standard errors."""
    monkeypatch.setattr(nb05, "language", lambda: LISTED)
    G, rows = gan.Generator(3, 8, 1), every_row(3, 3)
    with torch.no_grad():
        G.scores.weight *= 6  # surer of itself, so that a temperature tells
    log_g = nb05.log_likelihoods(G, nb05.one_hot(rows, 3), temperature)
    g = log_g.exp()
    assert g.sum().item() == pytest.approx(1, abs=1e-5)
    n = 4_000
    row = nb05.judged(G, temperature, n)
    inside = LISTED.places(rows) >= 0
    assert row["grammatical"] == pytest.approx(g[inside].sum().item(), abs=1e-4)
    p = torch.zeros(len(rows)).double()
    p[inside] = LISTED.p[LISTED.places(rows)[inside]]
    assert row["js"] == pytest.approx(jensen_shannon(p, g).item(), abs=1e-4)
    assert row["nll_test"] == pytest.approx(-(p * log_g).sum().item(), abs=1e-4)
    for name, value in (("entropy", -log_g), ("nll_oracle", LISTED.surprise(rows))):
        mean = (g * value).sum()
        error = ((g * (value - mean) ** 2).sum() / n).sqrt().item()
        assert row[name] == pytest.approx(mean.item(), abs=5 * error), name
    surely, perhaps = (n * g > 30).sum().item(), (n * g > 1e-6).sum().item()
    assert surely <= row["different"] <= perhaps


class Says(nn.Module):
    """A generator that knows one sentence (T,)."""

    def __init__(self, ids):
        super().__init__()
        self.V, self.ids = V, nn.Parameter(nb05.one_hot(ids, V), requires_grad=False)

    def forward(self, y, state=0):
        state = state or 0
        rows = self.ids[state : state + y.shape[1]]
        return 100 * rows.expand(len(y), -1, -1), state + y.shape[1]


@pytest.mark.parametrize("k", [0, 3, 7])
def test_one_sentence_is_no_variety(brief, k):
    row = nb05.judged(Says(TINY.ids[k]))
    assert row["grammatical"] == 1
    assert row["covered"] == pytest.approx(TINY.p[k].item(), abs=1e-4)
    assert row["entropy"] == pytest.approx(0, abs=1e-4)
    assert row["nll_oracle"] == pytest.approx(TINY.surprise(TINY.ids[k : k + 1]).item(), abs=1e-4)
    assert row["different"] == 1
    pairs = [*pairwise(TINY.spell(TINY.ids[k : k + 1])[0].split())]
    assert row["distinct_2"] == pytest.approx(len(set(pairs)) / len(pairs) / 5, abs=1e-4)
    assert row["self_bleu"] == pytest.approx(100)


def test_all_texts_are_counted_and_the_first_few_compared(monkeypatch):
    monkeypatch.setattr(nb05, "ALIKE", 3)
    texts = ["a b c d", "a b c d", "a b x y", "p q r s", "a b c d", "t u v w"]
    found = nb05.variety(texts)
    assert found.keys() == VARIETY
    assert found["different"] == 4
    assert found["distinct_2"] == metrics.distinct(texts[:3]) == 5 / 9
    assert found["self_bleu"] == metrics.self_bleu(texts[:3])


# ---- the bigram


def by_hand(known, words):
    """p(b | a) of sentences (n, T), each between two ENDs."""
    pairs = Counter()
    for row in known.tolist():
        said = row[: row.index(END)] if END in row else row
        pairs.update(pairwise([END, *said, END]))
    counts = np.array([[pairs[a, b] + 0.01 for b in range(words)] for a in range(words)])
    return counts / counts.sum(axis=1, keepdims=True)


def test_the_table_gives_each_sentence_the_product_of_its_pairs():
    known = TINY.draw(60, generator(1))
    G, P = nb05.Table(known, V), by_hand(known, V)
    assert G.logs.exp().numpy() == pytest.approx(P, rel=1e-5)
    stream = [END, *(i for row in known.tolist() for i in [*row[: row.index(END)], END])]
    assert G.logs.exp().numpy() == pytest.approx(ngram.transition_matrix(stream, V, add=0.01), rel=1e-5)
    wanted = []
    for row in TINY.ids.tolist():
        said = row[: row.index(END) + 1]
        wanted.append(math.prod(P[a, b] for a, b in pairwise([END, *said])))
    found = nb05.log_likelihoods(G, nb05.one_hot(TINY.ids, V)).exp()
    assert found.tolist() == pytest.approx(wanted, rel=1e-4)
    assert not any(p.requires_grad for p in G.parameters())


def test_the_table_is_a_distribution_over_all_sentences_and_begins_at_end():
    G, rows = nb05.Table(LISTED.draw(50, generator(0)), 3), every_row(3, 3)
    assert nb05.log_likelihoods(G, nb05.one_hot(rows, 3)).exp().sum().item() == pytest.approx(1, abs=1e-5)
    firsts = Counter(row[0] for row in LISTED.draw(50, generator(0)).tolist())
    logits, state = G(nb05.one_hot(torch.tensor([[END]]), 3))
    assert state is None
    wanted = [(firsts[b] + 0.01) / 50.03 for b in range(3)]
    assert logits[0, 0].exp().tolist() == pytest.approx(wanted, rel=1e-5)


def test_the_bigram_is_judged_on_what_all_learn_from(brief):
    row = nb05.bigram()
    assert row.keys() == JUDGED
    check_judged(row, TINY)
    assert row == nb05.judged(nb05.Table(TINY.draw(60, generator(1)), V))


# ---- on the stories

WORDS = [".", "the", "dog", "cat", "ran", "sat", "and"]
STORY_ROWS = [[1, 2, 4], [1, 3, 5], [1, 2, 4, 6, 5], [1, 3, 6, 1, 2, 4], [2, 6, 3, 5]]


def full(rows, places):
    return torch.tensor([row + [END] * (places - len(row)) for row in rows])


@pytest.fixture
def few_words(brief, monkeypatch):
    """The stories' runs on five sentences of seven words; nothing is read."""
    rows = torch.randint(5, (1100,), generator=generator(0)).tolist()
    stream = np.array([END, *(i for row in STORY_ROWS for i in [*row, END])])
    known = full([STORY_ROWS[i] for i in rows[:64]], 7)
    data = nb05.Sentences(
        WORDS,
        known,
        torch.cat([full([STORY_ROWS[k] for k in rows[64:1064]], 7), full([[1, 2, 5]] * 20, 7)]),
        ngram.KneserNey(stream, 3, len(WORDS)),
    )
    small = {"STORY_V": len(WORDS), "STORY_T": 7, "STORY_C": 8, "ALIKE": 10, "SHOWN": 4}
    for name, value in small.items():
        monkeypatch.setattr(nb05, name, value)
    monkeypatch.setattr(nb05, "short_sentences", lambda: data)
    return data


READ = VARIETY | {"nll_trigram", "sentences"}


@pytest.mark.parametrize("name", nb05.STORY_METHODS)
def test_a_run_on_the_stories_measures_what_it_says(few_words, other_threads, monkeypatch, name):
    calls = spied(monkeypatch, nb05, "trained")
    row = nb05.story(name, 0)
    assert torch.get_num_threads() == other_threads
    assert row.keys() == {"nll_test", "as trained", "at temperature 0.7"}
    for part in ("as trained", "at temperature 0.7"):
        check_read(row[part], n=1000)
    assert row["as trained"] != row["at temperature 0.7"]
    (((G, known, held, method, seed), _, _),) = calls
    assert torch.equal(known.argmax(dim=-1), few_words.known)
    assert torch.equal(held.argmax(dim=-1), few_words.held[:1000])
    assert (method, seed) == (nb05.METHODS[name], 0)
    kept = nb05.one_hot(few_words.held[1000:], len(WORDS))  # none of them chose the weights
    assert row["nll_test"] == pytest.approx(-nb05.log_likelihoods(G, kept).mean().item(), abs=1e-4)
    assert as_json(row) == row == nb05.story(name, 0)
    monkeypatch.setattr(nb05, "read", lambda ids: {})
    assert nb05.story(name, 1)["nll_test"] != row["nll_test"]


def check_read(row, n, shown=4, words=None):
    assert row.keys() == READ
    assert row["nll_trigram"] > 0
    assert row["different"] in range(1, n + 1)
    assert 0 < row["distinct_2"] <= 1
    assert 0 <= row["self_bleu"] <= 100 + 1e-9
    assert len(row["sentences"]) == shown
    assert all(set(text.split()) <= set(words or WORDS) - {"."} for text in row["sentences"])


def test_colder_sentences_are_those_of_a_colder_generator(few_words, monkeypatch):
    """At 0.7 the likely words come oftener: fewer nats by the counts, once something is learnt."""
    monkeypatch.setitem(nb05.METHODS, "likelihood", nb05.Method(100, 3e-2))
    row = nb05.story("likelihood", 0)
    assert row["at temperature 0.7"]["nll_trigram"] < row["as trained"]["nll_trigram"]
    assert row["at temperature 0.7"]["different"] < row["as trained"]["different"]
    data = few_words
    assert row["nll_test"] > 3 * row["as trained"]["nll_trigram"] / 10  # in nats a sentence, both
    assert nb05.read(data.held)["nll_trigram"] < row["as trained"]["nll_trigram"]


def test_what_is_read_ends_at_end_or_with_its_row(few_words):
    """What comes after END is not looked at; a row that is full ends all the same, and is asked to."""
    ids = torch.tensor([[1, 2, 4, 0, 3, 3, 3], [1, 2, 4, 6, 1, 3, 5], [1, 3, 5, 0, 0, 0, 0], [0] * 7])
    row = nb05.read(ids)
    assert row["sentences"] == ["the dog ran", "the dog ran and the cat sat", "the cat sat", ""]
    assert row["different"] == 4
    nats = []
    for said in ([1, 2, 4], [1, 2, 4, 6, 1, 3, 5], [1, 3, 5], []):
        whole = [END, *said, END]
        p = [few_words.trigram.probabilities(whole[:i])[whole[i]] for i in range(1, len(whole))]
        nats.append(-math.log(math.prod(p)))
    assert row["nll_trigram"] == pytest.approx(np.mean(nats), abs=1e-4)
    assert {key: row[key] for key in VARIETY} == nb05.variety(row["sentences"])


def test_true_sentences_are_read_like_the_others(few_words):
    key, measure = next(nb05.stories())
    assert key == {"method": "true sentences"}
    assert measure() == {"as trained": nb05.read(few_words.held[1000:])}


STORY_TEXTS = {
    "train": [
        "The dog ran. The dog sat!\nThe cat ran and the dog ran. The dog",  # the last: two words
        "The dog ran the dog ran the dog. The dog ran the dog ran the dog ran the elephant sat.",
        "The dog ran the dog ran the dog ran.",  # nine
        "The THE dog’s dog ran, the dog ran.",
    ],
    "valid": ["The cat sat. The dog ran. A dog sat?", "the the the"],
    "test": ["The test ran. " * 50],
}


@pytest.fixture
def few_texts(monkeypatch):
    monkeypatch.setattr(nb05, "story_split", lambda: STORY_TEXTS)
    monkeypatch.setattr(nb05, "STORY_V", 6)
    return nb05.short_sentences.__wrapped__()


def spelt(data, ids):
    return Counter(" ".join(data.words[i] for i in row if i != END) for row in ids.tolist())


def test_short_sentences_have_3_to_8_of_the_commonest_words(few_texts):
    """Counted by hand on the training side: the, dog and ran often, sat and cat sooner than the rest."""
    data = few_texts
    assert data.words[:4] == [".", "the", "dog", "ran"]
    assert set(data.words[4:]) == {"sat", "cat"}
    assert spelt(data, data.known) == Counter(
        ["the dog ran", "the dog sat", "the dog ran the dog ran the dog"]
    )
    assert spelt(data, data.held) == Counter(["the cat sat", "the dog ran", "the the the"])
    assert data.known.shape[1] == data.held.shape[1] == nb05.STORY_T
    for row in [*data.known.tolist(), *data.held.tolist()]:
        assert set(row[row.index(END) :]) == {END}


def test_trigrams_are_counted_on_the_short_sentences_of_the_training_side(few_texts):
    number = {word: i for i, word in enumerate(few_texts.words)}
    said = ["the dog ran", "the dog sat", "the dog ran the dog ran the dog"]
    stream = np.array([END, *(i for text in said for i in [*(number[w] for w in text.split()), END])])
    wanted = ngram.KneserNey(stream, 3, 6)
    for context in ([], [END], [END, 1], [1, 2], [2, 3]):
        assert few_texts.trigram.probabilities(context) == pytest.approx(wanted.probabilities(context))


def test_a_longest_sentence_leaves_room_for_its_end(monkeypatch):
    """Eight words are kept, with one END; nine are not."""
    words = "the dog ran the dog ran the dog"
    texts = {"train": [f"{words}. {words} ran."], "valid": [words]}
    monkeypatch.setattr(nb05, "story_split", lambda: texts)
    monkeypatch.setattr(nb05, "STORY_V", 4)
    data = nb05.short_sentences.__wrapped__()
    assert spelt(data, data.known) == spelt(data, data.held) == Counter([words])
    assert data.known[0, -1] == END
    assert (data.known[0, :-1] != END).all()


@pytest.mark.parametrize(("n", "found"), [(10, 10), (50, 50), (80, 50)])
def test_rows_are_picked_once_each_and_the_same_again(n, found):
    rows = torch.arange(50)[:, None] * torch.ones(1, 3).long()
    some = nb05.pick(rows, n)
    assert torch.equal(some, nb05.pick(rows, n))
    assert len({*some[:, 0].tolist()}) == len(some) == found
    assert some[:, 0].tolist() != [*range(found)]


# ---- what runs


@pytest.mark.parametrize(
    ("tasks", "run", "key"),
    [(nb05.lines, "line", "duel"), (nb05.texts, "text", "method"), (nb05.stories, "story", "method")],
)
def test_each_task_runs_what_its_key_says(monkeypatch, tasks, run, key):
    seen = []
    monkeypatch.setattr(nb05, run, lambda *args: seen.append(args) or {})
    for named, measure in tasks():
        if "seed" in named:
            measure()
            setting = named.get("setting")
            setting = tuple(setting) if isinstance(setting, list) else setting
            wanted = (named[key], named["seed"]) + ((setting,) if "tuning" in named else ())
            assert seen.pop() == wanted


# ---- what is stored


def rows_of(name, **key):
    return [row for row in results.load(name)["rows"] if key.items() <= row.items()]


def settled(name):
    """By method, the rows of the runs that are reported."""
    found = {}
    for row in rows_of(name):
        if "seed" in row and "tuning" not in row:
            found.setdefault(row.get("method", row.get("duel")), []).append(row)
    return found


@pytest.mark.parametrize(
    ("name", "methods", "fewest"),
    [
        ("gan_line", nb05.LINES, 5),
        ("gan_text", nb05.METHODS, 5),
        ("gan_stories", nb05.STORY_METHODS, 3),
    ],
)
def test_every_method_has_the_same_seeds(name, methods, fewest):
    seeds = {method: [row["seed"] for row in rows] for method, rows in settled(name).items()}
    assert seeds.keys() == set(methods)
    assert len({*map(tuple, seeds.values())}) == 1
    first = next(iter(seeds.values()))
    assert len(set(first)) == len(first) >= fewest
    assert nb05.TUNING_SEED not in first


def test_each_stored_duel_on_the_line_ends_where_its_course_does():
    for name, rows in settled("gan_line").items():
        for row in rows:
            steps, distances, modes = zip(*row["course"], strict=True)
            assert list(steps) == [*range(0, nb05.LINES[name].duel.steps + 1, 50)]
            assert (distances[-1], modes[-1]) == (row["wasserstein"], row["modes"])
            assert min(distances) > 0
            assert set(modes) <= set(range(5))


def test_each_stored_duel_on_the_line_begins_where_its_seed_does():
    """Before the first step, so on any machine."""
    for rows in settled("gan_line").values():
        for row in rows:
            G = nb05.network(nb05.NOISE, 2 * row["seed"])
            with torch.no_grad():
                found = nb05.line_distance(G(nb05.noise(nb05.SAMPLES, generator(777))))
            assert row["course"][0] == [0, pytest.approx(found["wasserstein"], abs=1e-3), found["modes"]]


@pytest.mark.parametrize("name", nb05.GRIDS)
def test_each_method_has_the_best_setting_of_its_grid(name):
    rows = rows_of("gan_text", tuning=True, method=name)
    assert {row["seed"] for row in rows} == {nb05.TUNING_SEED}
    settings = [tuple(row["setting"]) if isinstance(row["setting"], list) else row["setting"] for row in rows]
    assert settings == list(nb05.GRIDS[name])
    assert all(row.keys() >= DISTANCES for row in rows)
    least = min(row["js"] for row in rows)
    best = [s for s, row in zip(settings, rows, strict=True) if row["js"] == least]
    assert nb05.METHODS[name] in [nb05.configured(nb05.METHODS[name], setting) for setting in best]


def test_one_method_alone_is_not_tuned_and_differs_in_its_step_alone():
    assert nb05.METHODS.keys() - nb05.GRIDS.keys() == {"SeqGAN, large steps"}
    large, own = nb05.METHODS["SeqGAN, large steps"], nb05.METHODS["SeqGAN"]
    assert large == replace(own, duel=replace(own.duel, lr=large.duel.lr))
    assert large.duel.lr > own.duel.lr


def test_what_learns_first_learns_as_likelihood_does():
    first = {(m.likelihood, m.lr) for m in nb05.METHODS.values() if m.likelihood}
    assert len(first) == 1


def test_at_temperature_1_a_generator_is_as_trained():
    for name, rows in settled("gan_text").items():
        for row in rows:
            degrees = nb05.TEMPERATURES if nb05.METHODS[name].duel else nb05.COLDER + nb05.TEMPERATURES
            assert [found["temperature"] for found in row["temperatures"]] == list(degrees), name
            (same,) = [found for found in row["temperatures"] if found["temperature"] == 1]
            assert same == {"temperature": 1.0} | {key: row[key] for key in JUDGED}, name


def test_stored_measures_keep_the_bounds_that_hold_for_all():
    language = nb05.language()
    for row in rows_of("gan_text"):
        if "tuning" not in row:
            for found in (row, *row.get("temperatures", ())):
                check_judged(found, language)
        else:
            assert -1e-4 <= row["js"] <= math.log(2) + 1e-4
            assert row["nll_test"] >= language.entropy - 1e-4
            assert max(row["grammatical"], row["covered"]) <= 1 + 1e-4


def test_each_stored_course_ends_at_its_row():
    for name, rows in settled("gan_text").items():
        duel = nb05.METHODS[name].duel
        for row in rows:
            if duel is None:
                assert row["course"] == []
                continue
            assert [step for step, *_ in row["course"]] == [*range(0, duel.steps + 1, duel.steps // 20)]
            assert row["course"][-1][1:] == pytest.approx([row["js"], row["grammatical"]], abs=1e-4)


def test_duels_after_likelihood_begin_at_its_row():
    """With the same seed the steps before the duel are the same, to rounding."""
    learnt = {row["seed"]: row for row in settled("gan_text")["likelihood"]}
    for name, rows in settled("gan_text").items():
        if nb05.METHODS[name].likelihood and nb05.METHODS[name].duel:
            for row in rows:
                same = learnt[row["seed"]]
                wanted = [same["js"], same["grammatical"]]
                assert row["course"][0][1:] == pytest.approx(wanted, abs=2e-3), name


def test_the_stored_bigram_is_counted_again():
    (row,) = rows_of("gan_text", method="bigram")
    found = nb05.bigram()
    assert {key: row[key] for key in found} == pytest.approx(found, abs=1e-4)


def test_stored_sentences_of_the_stories_are_read_as_promised():
    (true,) = rows_of("gan_stories", method="true sentences")
    assert true.keys() == {"method", "as trained", "seconds"}
    parts = [true["as trained"]]
    for rows in settled("gan_stories").values():
        for row in rows:
            assert row.keys() == {
                "method",
                "seed",
                "nll_test",
                "as trained",
                "at temperature 0.7",
                "seconds",
            }
            assert 0 < row["nll_test"] < math.inf
            parts += [row["as trained"], row["at temperature 0.7"]]
    for part in parts:
        check_read(part, 1000, nb05.SHOWN, words={w for text in part["sentences"] for w in text.split()})
        assert all(len(text.split()) <= nb05.STORY_T for text in part["sentences"])
    assert all(3 <= len(text.split()) < nb05.STORY_T for text in true["as trained"]["sentences"])


@pytest.mark.parametrize("run", [nb05.line, nb05.text, nb05.story])
def test_a_run_nobody_knows_is_named(run):
    with pytest.raises(ValueError, match=r"name must be one of .*; .*, got 'nobody'"):
        run("nobody", 0)
