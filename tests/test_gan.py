"""The game has the optimum its theory names, two networks take turns, and words get the slopes they promise.

Expectations over sentences are exact: a vocabulary of three and three places have fifteen sentences, all
listed. What is drawn is held against them with a tolerance from the draws' own standard error.
"""

import copy
import math
from fractions import Fraction
from functools import partial
from itertools import pairwise, product

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from scipy.spatial.distance import jensenshannon
from test_attention import (
    DEVICES,
    DTYPES,
    TOLERANCE,
    assert_close,
    draw_weights,
    precise_and_quick,  # noqa: F401 (a fixture for every test)
)
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call

from course_utils.gan import (
    Discriminator,
    Duel,
    Generator,
    discriminator_loss,
    duel,
    game_value,
    generator_loss,
    gumbel_noise,
    gumbel_softmax,
    optimal_discriminator,
    policy_loss,
    rollout_values,
    sample_word,
    seqgan_loss,
    start,
    word_log_probabilities,
    write,
    written,
)
from course_utils.grammar import END, jensen_shannon

FALSE_ALARM = 1e-6  # chance that draws which follow their probabilities would fail a test, were the seed free
V, T = 3, 3  # of the language whose sentences are all listed


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def probabilities(seed, n=6, empty=0):
    row = torch.rand(n, generator=seeded(seed), dtype=torch.float64)
    row[:empty] = 0
    return row / row.sum()


def rows(ids, words=V):
    return F.one_hot(torch.as_tensor(ids), words).double()


def sentences(words=V, places=T):
    """All there are, as ids: after END comes END alone."""
    return [
        row
        for row in product(range(words), repeat=places)
        if all(second == END for first, second in pairwise(row) if first == END)
    ]


ALL = rows(sentences())


def writer(words=V, C=4, seed=0, device="cpu", dtype=torch.float64):
    """A generator of strong opinions."""
    model = Generator(words, C).to(device, dtype)
    draw_weights(model, seeded(seed))
    return model


class Score(nn.Module):
    """A discriminator with a number of its own for each word at each place."""

    def __init__(self, seed=0, words=V, places=T):
        super().__init__()
        self.weight = nn.Parameter(normal(seed, places, words))

    def forward(self, y):
        return (y * self.weight).sum(dim=(1, 2))


class Bigram(nn.Module):
    """A generator whose next word hangs on the last, by halves and quarters."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter((torch.full((V, V), 0.25) + torch.eye(V) / 4).double().log())

    def forward(self, y, state=None):
        return y @ self.logits, state


def largest_z(found, expected, deviation):
    """In standard errors; where nothing can vary nothing may differ."""
    error = (found - expected).abs()
    assert (error[deviation < 1e-12] < 1e-9).all()
    return (error / deviation.clamp_min(1e-12))[deviation >= 1e-12].max().item()


def allowed_z(numbers):
    return stats.norm.isf(FALSE_ALARM / 2 / numbers)


# --- the game ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("p", "q"), [("1/2 1/2", "1/4 3/4"), ("1/3 1/6 1/2", "1/6 1/3 1/2"), ("1 0", "0 1")])
def test_the_optimum_in_fractions(p, q):
    """Where p / D = q / (1 - D) the value p log D + q log(1 - D) has no slope, and it is concave."""
    p, q = ([Fraction(number) for number in row.split()] for row in (p, q))
    D = [a / (a + b) for a, b in zip(p, q, strict=True)]
    assert all(a * (1 - d) == b * d for a, b, d in zip(p, q, D, strict=True))
    found = optimal_discriminator(*(torch.tensor([float(x) for x in row]).double() for row in (p, q)))
    assert found.tolist() == pytest.approx([float(d) for d in D], rel=1e-15)


def test_whatever_else_it_answers_is_worth_less():
    for seed in range(100):
        p, q = probabilities(seed), probabilities(seed + 1000)
        best = optimal_discriminator(p, q)
        for reach in (1e-3, 0.3, 3):
            other = (best.logit() + reach * normal(seed, 6)).sigmoid()
            assert game_value(other, p, q) < game_value(best, p, q), seed


@pytest.mark.parametrize("empty", [0, 3])
def test_the_best_value_is_the_divergence(empty):
    """-log 4 + 2 JS: -log 4 where both are the same, 0 where they share nothing."""
    for seed in range(30):
        p, q = probabilities(seed, empty=empty), probabilities(seed + 1000)
        value = game_value(optimal_discriminator(p, q), p, q).item()
        assert value == pytest.approx(2 * jensenshannon(p, q) ** 2 - math.log(4), abs=1e-12)
        assert value == pytest.approx(2 * jensen_shannon(p, q).item() - math.log(4), abs=1e-12)
        same = game_value(optimal_discriminator(q, q), q, q).item()
        assert same == pytest.approx(-math.log(4), abs=1e-12)
    apart = torch.eye(2, dtype=torch.double)
    assert game_value(optimal_discriminator(*apart), *apart) == 0


def test_the_value_is_torchs_cross_entropy():
    for seed in range(30):
        p, q, D = probabilities(seed), probabilities(seed + 1000), probabilities(seed + 2000)
        loss = partial(F.binary_cross_entropy, D, reduction="sum")
        expected = -(loss(torch.ones(6).double(), p) + loss(torch.zeros(6).double(), q))
        assert game_value(D, p, q).item() == pytest.approx(expected.item(), rel=1e-12)


@DEVICES
@DTYPES
def test_losses_are_torchs_with_their_slopes(dtype, device):
    """-log σ slopes by 1 - σ, log(1 - σ) by σ, as many real as fake or not."""
    for seed in range(20):
        real = (4 * normal(seed, 1 + seed % 7, 2)).to(device, dtype).requires_grad_()
        fake = (4 * normal(seed + 100, 9)).to(device, dtype).requires_grad_()
        ones, zeros = torch.ones_like, torch.zeros_like
        bce, σ = F.binary_cross_entropy_with_logits, torch.sigmoid
        cases = (
            (discriminator_loss(real, fake), bce(real, ones(real)) + bce(fake, zeros(fake)), σ(fake)),
            (generator_loss(fake), bce(fake, ones(fake)), σ(fake) - 1),
            (generator_loss(fake, saturating=True), -bce(fake, zeros(fake)), -σ(fake)),
        )
        for found, expected, slope in cases:
            assert_close(found.detach(), expected.detach(), seed)
            (gradient,) = torch.autograd.grad(found, fake, retain_graph=True)
            assert_close(gradient, (slope / fake.numel()).detach(), seed)
        (gradient,) = torch.autograd.grad(cases[0][0], real)
        assert_close(gradient, ((σ(real) - 1) / real.numel()).detach(), seed)


def test_losses_stay_finite_where_the_discriminator_is_sure():
    sure = torch.tensor([1e4, -1e4])
    assert discriminator_loss(sure, sure) == 1e4
    assert generator_loss(sure) == 5e3
    assert generator_loss(sure, saturating=True) == -5e3


def test_the_discriminators_loss_is_minus_the_value():
    """Eighths of samples for eighths of probability: a sample without error."""
    p, q = torch.tensor([1, 2, 5]), torch.tensor([4, 4, 0])
    logits = normal(0, 3)
    found = discriminator_loss(logits.repeat_interleave(p), logits.repeat_interleave(q))
    assert found.item() == pytest.approx(-game_value(logits.sigmoid(), p / 8, q / 8).item(), rel=1e-7)


# --- the duel ---------------------------------------------------------------------------------------------


def drawn(draw, n=16):
    return torch.randn(n, 2, generator=draw)


class Players:
    """A generator of points on a line, a discriminator, and what each call of theirs saw."""

    def __init__(self, dropout=0.0, strength=1.0):
        self.G, self.D = nn.Linear(2, 1), nn.Sequential(nn.Linear(1, 8), nn.Dropout(dropout), nn.Linear(8, 1))
        for i, model in enumerate((self.G, self.D)):
            for p in model.parameters():
                nn.init.normal_(p, generator=seeded(i))
        self.strength, self.calls = strength, []

    def weights(self):
        return [torch.cat([p.detach().flatten() for p in model.parameters()]) for model in (self.G, self.D)]

    def saw(self, what):
        self.calls.append((what, *self.weights()))

    def real(self, draw):
        self.saw("real")
        return 3 + drawn(draw)[:, :1]

    def fake(self, draw):
        return self.G(drawn(draw))

    def loss(self, draw):
        self.saw("loss")
        return self.strength * generator_loss(self.D(self.fake(draw)))

    def watch(self, step, losses):
        self.calls.append((step, *self.weights(), list(losses)))

    def play(self, **options):
        return duel(self.G, self.D, self.real, self.fake, self.loss, Duel(**options), self.watch)


def textbook(players, steps, lr, d_lr, d_steps=1, head_start=0, betas=(0.5, 0.999), clip=5.0, seed=0):
    """Algorithm 1 as torch's users write it: zero_grad, backward, step; generated samples without a slope."""
    draw, losses = seeded(seed), []
    g_adam = torch.optim.Adam(players.G.parameters(), lr=lr, betas=betas)
    d_adam = torch.optim.Adam(players.D.parameters(), lr=d_lr, betas=betas)
    bce = F.binary_cross_entropy_with_logits
    for step in range(steps):
        for _ in range(d_steps + head_start * (step == 0)):
            real = players.D(players.real(draw))
            with torch.no_grad():
                made = players.fake(draw)
            fake = players.D(made)
            d_loss = bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))
            d_adam.zero_grad()
            d_loss.backward()
            nn.utils.clip_grad_norm_(players.D.parameters(), clip)
            d_adam.step()
        g_loss = players.loss(draw)
        g_adam.zero_grad()
        g_loss.backward()
        nn.utils.clip_grad_norm_(players.G.parameters(), clip)
        g_adam.step()
        losses.append((d_loss.item(), g_loss.item()))
    return losses


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 6, "lr": 0.01, "d_lr": 0.03},
        {"steps": 5, "lr": 0.02, "d_lr": 0.01, "d_steps": 3, "head_start": 4, "seed": 7},
        {"steps": 9, "lr": 0.05, "d_lr": 0.01, "betas": (0.9, 0.99), "clip": 1e9},
        {"steps": 9, "lr": 0.05, "d_lr": 0.03, "clip": 0.1},
    ],
    ids=["plain", "ahead", "betas", "clip"],
)
def test_a_duel_is_the_textbooks(options):
    ours, theirs = Players(), Players()
    found, expected = (torch.tensor(losses) for losses in (ours.play(**options), textbook(theirs, **options)))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)
    for a, b in zip(ours.weights(), theirs.weights(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("clip", [1e-8, 0.1])
def test_the_generators_long_gradients_are_shortened(clip):
    """The smallest is of the size of Adam's ε, so that it shows in the step; gradients differ in length."""
    ours, theirs = Players(strength=30.0), Players(strength=30.0)
    options = {"steps": 4, "lr": 0.01, "d_lr": 1e-9, "clip": clip}
    ours.play(**options)
    textbook(theirs, **options)
    free = Players(strength=30.0)
    free.play(**options | {"clip": 1e9})
    assert torch.allclose(ours.weights()[0], theirs.weights()[0], atol=1e-6)
    assert not torch.allclose(ours.weights()[0], free.weights()[0], atol=1e-4)


def test_each_step_moves_its_own_network_alone():
    players = Players()
    players.play(steps=3, d_steps=2, head_start=2, every=1000)
    names = [call[0] for call in players.calls]
    assert names == [0, *["real"] * 4, "loss", "real", "real", "loss", "real", "real", "loss", 3]
    for (name, *before), (_, *after) in zip(players.calls[1:-1], players.calls[2:], strict=True):
        g_moved, d_moved = (not a.equal(b) for a, b in zip(before[:2], after[:2], strict=True))
        assert (g_moved, d_moved) == (name == "loss", name == "real")


@pytest.mark.parametrize("kept", ["G", "D"])
def test_no_gradient_reaches_the_other_network(kept):
    """A mark on the other's gradient is as it was; the generator's loss flows through D, not into it."""
    players = Players()
    players.play(steps=2)
    other = getattr(players, kept)
    marks = [p.grad.clone() for p in other.parameters()]
    if kept == "D":
        players.play(steps=1, d_steps=0)
    else:
        with pytest.raises(FloatingPointError):
            duel(
                players.G, players.D, players.real, players.fake, lambda draw: torch.tensor(math.nan), Duel(1)
            )
    assert all(p.grad.equal(mark) for p, mark in zip(other.parameters(), marks, strict=True))


def test_generated_samples_come_to_the_discriminators_step_without_a_slope():
    players, sloped = Players(), []
    players.D.register_forward_pre_hook(lambda _, x: sloped.append(x[0].requires_grad))
    players.play(steps=2, d_steps=2)
    assert sloped == [False, False, False, False, True] * 2


def test_without_steps_of_its_own_the_discriminator_stays():
    players = Players()
    before = players.weights()
    assert len(players.play(steps=3, d_steps=0)) == 3
    assert players.weights()[1].equal(before[1])
    assert not players.weights()[0].equal(before[0])


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [(7, 3, [0, 3, 6, 7]), (6, 3, [0, 3, 6]), (2, 9, [0, 2]), (2, 1, [0, 1, 2])],
)
def test_watch_is_called_when_promised(steps, every, expected):
    players = Players()
    start, losses = players.weights(), players.play(steps=steps, every=every)
    looks = [call for call in players.calls if isinstance(call[0], int)]
    assert [look[0] for look in looks] == expected
    for step, G, D, so_far in looks:
        assert so_far == losses[:step]
        assert G.equal(start[0]) == D.equal(start[1]) == (step == 0)
    assert all(a.equal(b) for a, b in zip(looks[-1][1:3], players.weights(), strict=True))


def test_a_duel_needs_no_watcher():
    players = Players()
    assert len(duel(players.G, players.D, players.real, players.fake, players.loss, Duel(2))) == 2


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_seed_decides_the_run(dropout):
    """Whatever was drawn before, and wherever it is looked at; another seed plays otherwise."""
    runs = []
    for seed, every in ((0, 100), (0, 2), (1, 100)):
        torch.rand(len(runs))
        players = Players(dropout)
        runs.append((players.play(steps=5, seed=seed, every=every), players.weights()))
    (first, w1), (again, w2), (other, _) = runs
    assert first == again
    assert all(a.equal(b) for a, b in zip(w1, w2, strict=True))
    assert first != other


def test_a_gradient_that_is_not_finite_moves_nothing():
    players = Players()
    loss = players.loss
    players.loss = lambda draw: (
        loss(draw) + (0 * next(players.G.parameters()).sum()).abs().sqrt()
    )  # 0, slope NaN
    with pytest.raises(FloatingPointError, match="a gradient of the duel is not finite"):
        players.play(steps=2, d_steps=0)
    assert all(a.equal(b) for a, b in zip(players.calls[0][1:3], players.weights(), strict=True))


@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_what_divides_logits_must_be_above_0(value):
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"^temperature must be above 0, got"):
        sample_word(logits, torch.Generator(), temperature=value)
    with pytest.raises(ValueError, match=r"^tau must be above 0, got"):
        gumbel_softmax(logits, torch.Generator(), tau=value)


def test_a_beginning_without_its_row_of_end_is_refused():
    G = Generator(3, 4)
    word = torch.eye(3)[[1]][:, None]  # (1, 1, V)
    with pytest.raises(ValueError, match="given must begin with the row of END"):
        write(G, word, 3, lambda logits: logits)


def test_a_loss_that_is_not_finite_ends_the_duel_and_moves_nothing():
    for wrong in (math.nan, math.inf, -math.inf):
        players = Players()
        loss = players.loss
        players.loss = lambda draw, loss=loss, wrong=wrong: loss(draw) * wrong
        with pytest.raises(FloatingPointError, match=r"a loss of the duel is .*: lower lr or d_lr"):
            players.play(steps=2, d_steps=0)
        assert all(a.equal(b) for a, b in zip(players.calls[0][1:3], players.weights(), strict=True))
    players = Players()
    players.real = lambda draw: torch.full((4, 1), math.nan)
    with pytest.raises(FloatingPointError, match="a loss of the duel is nan"):
        players.play(steps=2)
    assert all(a.equal(b) for a, b in zip(players.calls[0][1:3], players.weights(), strict=True))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *((name, 0, "above 0") for name in ("steps", "lr", "d_lr", "clip", "every")),
        *((name, -1, "above 0") for name in ("steps", "lr", "d_lr", "clip", "every")),
        *((name, math.nan, "above 0") for name in ("lr", "d_lr", "clip")),
        *((name, -1, "at least 0") for name in ("d_steps", "head_start", "seed")),
        *((name, 1.5, "a whole number") for name in ("steps", "d_steps", "head_start", "every", "seed")),
        *(("steps", value, "a whole number") for value in (math.inf, 2.0, "2")),
        ("betas", 0.5, r"two numbers in \[0, 1\)"),
        *(("betas", pair, r"two numbers in \[0, 1\)") for pair in ((0.5,), (1, 0.9), (0.5, 1), (-0.1, 0.9))),
    ],
)
def test_options_out_of_range_are_refused_by_name(name, value, expected):
    with pytest.raises(ValueError, match=f"^{name} must be {expected}, got "):
        Duel(**{"steps": 10} | {name: value})


def test_options_at_the_edge_are_taken():
    Duel(1, d_steps=0, head_start=0, betas=(0, 0), every=1, seed=0, clip=math.inf)


def test_a_duel_nears_the_truth():
    """From 3 to the left of the true mean to nearly on it."""
    players = Players()
    players.play(steps=300, lr=0.02, d_lr=0.02)
    assert abs(players.G.bias.item() - 3) < 1 < abs(Players().G.bias.item() - 3)


# --- words ------------------------------------------------------------------------------------------------


def test_noise_is_gumbels():
    noise = gumbel_noise((200, 100), seeded(0))
    assert noise.shape == (200, 100)
    assert noise.dtype == torch.float32
    assert stats.kstest(noise.flatten(), stats.gumbel_r.cdf).pvalue > FALSE_ALARM
    assert stats.pearsonr(noise[:, :-1].flatten(), noise[:, 1:].flatten()).pvalue > FALSE_ALARM
    assert gumbel_noise((200, 100), seeded(0)).equal(noise)
    assert not gumbel_noise((200, 100), seeded(1)).equal(noise)


def test_noise_is_finite_where_the_uniform_is_at_its_ends(monkeypatch):
    """torch.rand can give 0 and the last number below 1 of its precision."""

    def ends(*arguments, dtype=torch.float32, **options):
        return torch.tensor([0, 1 - torch.finfo(dtype).eps / 2], dtype=dtype)

    monkeypatch.setattr(torch, "rand", ends)
    low, high = gumbel_noise((2,), seeded(0))
    assert -10 < low < high < 40


@DEVICES
@DTYPES
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_words_are_drawn_as_often_as_softmax_says(temperature, dtype, device):
    n, logits = 20_000, normal(0, 2, 5)
    found = sample_word(logits.repeat_interleave(n, dim=0).to(device, dtype), seeded(1), temperature)
    assert found.dtype == dtype
    assert ((found == 0) | (found == 1)).all()
    assert (found.sum(dim=-1) == 1).all()
    for k in range(2):
        counts = found[k * n : (k + 1) * n].sum(dim=0).double().cpu()
        assert stats.chisquare(counts, (logits[k] / temperature).softmax(0) * n).pvalue > FALSE_ALARM


@DEVICES
@DTYPES
@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("tau", [0.3, 1.0, 4.0])
def test_gumbel_softmax_is_torchs_under_the_same_noise(tau, hard, dtype, device, monkeypatch):
    """Forwards and backwards; torch takes its noise as -log of an exponential draw."""
    logits, upstream = (normal(seed, 40, 5).to(device, dtype) for seed in (0, 1))
    logits.requires_grad_()
    noise = gumbel_noise((40, 5), seeded(2)).to(device, dtype)
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: (-noise).exp())
    expected = F.gumbel_softmax(logits, tau=tau, hard=hard)
    found = gumbel_softmax(logits, seeded(2), tau=tau, hard=hard)
    assert found.dtype == dtype
    assert_close(found.detach(), expected.detach(), tau)
    slopes = (torch.autograd.grad((y * upstream).sum(), logits)[0] for y in (found, expected))
    assert_close(*slopes, tau)


def test_hard_rows_are_single_words_and_those_that_would_be_drawn():
    logits = normal(0, 500, 6)
    for tau in (0.2, 1.0, 5.0):
        y = gumbel_softmax(logits, seeded(1), tau)
        assert torch.allclose(y, sample_word(logits, seeded(1)), atol=1e-12)
        soft = gumbel_softmax(logits, seeded(1), tau, hard=False)
        assert torch.allclose(soft.sum(dim=-1), torch.ones(500).double())
        assert soft.argmax(dim=-1).equal(y.argmax(dim=-1))


def test_a_small_tau_is_nearly_one_word_and_a_large_one_nearly_all():
    logits = normal(0, 500, 6)
    strongest = [gumbel_softmax(logits, seeded(1), tau, hard=False).amax(dim=-1) for tau in (0.1, 1, 10, 1e6)]
    assert all((a > b).all() for a, b in pairwise(strongest))
    assert torch.allclose(strongest[-1], torch.full((500,), 1 / 6).double(), atol=1e-4)


# --- the generator ----------------------------------------------------------------------------------------


def by_hand(G, ids, temperature=1.0):
    """Log-probabilities of one sentence, its LSTM cell word by word: i, f, g, o as torch orders them."""
    w = dict(G.recurrent.named_parameters())
    h = c = torch.zeros(w["weight_hh_l0"].shape[1], dtype=torch.double)
    last, logs, over = END, [], False
    for word in ids:
        x = G.words.weight[:, last]
        gates = w["weight_ih_l0"] @ x + w["bias_ih_l0"] + w["weight_hh_l0"] @ h + w["bias_hh_l0"]
        i, f, g, o = gates.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        logits = G.scores.weight @ h + G.scores.bias
        logs.append(torch.zeros(()).double() if over else (logits / temperature).log_softmax(0)[word])
        last, over = word, over or word == END
    return torch.stack(logs)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_log_probabilities_are_those_of_a_loop(temperature):
    G, ids = writer(5), torch.randint(5, (12, 6), generator=seeded(0)).tolist()
    for row in ids:  # only END after END
        row[:] = [END if END in row[:i] else word for i, word in enumerate(row)]
    assert any(END in row[:-1] for row in ids)
    found = word_log_probabilities(G, rows(ids, 5), temperature)
    expected = torch.stack([by_hand(G, row, temperature) for row in ids])
    assert_close(found.detach(), expected.detach(), temperature)


@DEVICES
@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_probabilities_of_all_sentences_add_up_to_1(temperature, device):
    for seed in range(5):
        G = writer(seed=seed, device=device)
        logs = word_log_probabilities(G, ALL.to(device), temperature)
        assert logs.sum(dim=1).exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert len(ALL) == 1 + 2 + 4 * 3


def test_its_precision_is_its_weights():
    G = writer(dtype=torch.float32)
    double = copy.deepcopy(G).double()
    found = word_log_probabilities(G, ALL.float())
    assert found.dtype == torch.float32
    assert_close(found.detach(), word_log_probabilities(double, ALL).detach().float(), "float32")


def test_a_state_goes_on_where_it_stopped_and_the_future_is_not_seen():
    G, y = writer(5), rows(torch.randint(5, (4, 7), generator=seeded(0)), 5)
    whole, last = G(y)
    assert whole.shape == (4, 7, 5)
    for t in range(1, 7):
        first, state = G(y[:, :t])
        second, end = G(y[:, t:], state)
        assert torch.allclose(torch.cat([first, second], dim=1), whole, atol=1e-12)
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(end, last, strict=True))


def test_a_generator_reads_soft_rows_in_proportion():
    """What is read is the mean of the words' vectors."""
    G = writer()
    mixed = torch.tensor([0.2, 0.3, 0.5], dtype=torch.double)
    with torch.no_grad():
        vector = (G.words.weight * mixed).sum(dim=1)
        assert torch.allclose(G.words(mixed), vector, atol=1e-12)
        expected = G.scores(G.recurrent(vector[None, None])[0])
        assert torch.allclose(G(mixed[None, None])[0], expected, atol=1e-12)


@pytest.mark.parametrize("kind", [Generator, Discriminator])
def test_a_seed_decides_every_weight(kind):
    first = kind(30, 40, seed=0).state_dict()
    torch.rand(3)
    again, other = kind(30, 40, seed=0).state_dict(), kind(30, 40, seed=1).state_dict()
    for name, weight in first.items():
        assert weight.equal(again[name]), name
        assert not weight.isclose(other[name]).all(), name
        if name == "words.weight":
            assert stats.kstest(weight.flatten(), stats.norm.cdf).pvalue > FALSE_ALARM


@pytest.mark.parametrize("kind", [Generator, Discriminator])
def test_weights_are_as_wide_as_torchs(kind):
    """Uniform within 1 / √(inputs of the layer), biases too."""
    model = kind(30, 40)
    layers = [part for part in model.modules() if isinstance(part, nn.Linear | nn.Conv1d)]
    for part in layers[1:]:
        bound = 1 / math.sqrt(part.weight[0].numel())
        for p in part.parameters():
            uniform = stats.uniform(-bound, 2 * bound)
            assert stats.kstest(p.detach().flatten(), uniform.cdf).pvalue > FALSE_ALARM
            assert p.abs().max() <= bound


@DEVICES
def test_start_is_an_end_for_each_in_the_models_numbers(device):
    for dtype in TOLERANCE:
        first = start(4, writer(5, device=device, dtype=dtype))
        assert first.dtype == dtype
        assert first.device.type == device
        assert first.equal(rows([[END]] * 4, 5).to(first))


def test_written_counts_to_the_first_end():
    ids = [[1, 2, 1], [1, 0, 0], [0, 0, 0], [1, 2, 0], [0, 1, 2]]
    expected = [[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0]]
    found = written(rows(ids))
    assert found.tolist() == expected
    assert found.dtype == torch.double
    assert written(rows([[2], [0]])).tolist() == [[1], [1]]  # one place, always written


def test_written_takes_soft_rows_for_what_they_mostly_are_and_passes_no_slope():
    y = torch.tensor([[[0.6, 0.4], [0.1, 0.9]], [[0.4, 0.6], [0.9, 0.1]]], requires_grad=True)
    assert written(y).tolist() == [[1, 0], [1, 1]]
    assert not written(y).requires_grad


@pytest.mark.parametrize("y", [torch.zeros(2, 3), torch.zeros(0, 2, 3), torch.zeros(2, 0, 3), torch.zeros(3)])
def test_what_is_no_sentences_is_refused(y):
    with pytest.raises(ValueError, match=r"y must be .*, got shape"):
        word_log_probabilities(writer(), y)


@pytest.mark.parametrize("temperature", [0, -1, math.nan])
def test_a_temperature_of_nothing_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0, got"):
        word_log_probabilities(writer(), ALL, temperature)


# --- writing ----------------------------------------------------------------------------------------------


def surest(logits):
    return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits)


def with_first_row(y):
    return torch.cat([rows([[END]] * len(y), y.shape[-1]), y], dim=1)


@DEVICES
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sentences_are_written_as_often_as_they_are_probable(temperature, device):
    """Against `word_log_probabilities`, from nothing."""
    n, G = 20_000, writer(seed=3, device=device)
    y = write(G, start(n, G), T, partial(sample_word, draw=seeded(0), temperature=temperature)).cpu()
    counts = torch.stack([(y == one).all(dim=2).all(dim=1).sum() for one in ALL])
    assert counts.sum() == n
    expected = word_log_probabilities(G.cpu(), ALL, temperature).sum(dim=1).exp().detach() * n
    assert expected.min() > 5
    assert stats.chisquare(counts, expected).pvalue > FALSE_ALARM


def test_writing_reads_all_that_stands_before():
    """Greedily, as if the whole beginning were read again for each word; some sentences end, some do not."""
    ended = 0
    for seed in range(10):
        G = writer(6, seed=seed)
        for t in range(6):
            y = rows(torch.randint(1, 6, (5, t), generator=seeded(seed)), 6)
            found = write(G, with_first_row(y), 5, surest)
            for _ in range(5 - t):
                word = surest(G(with_first_row(y))[0][:, -1])
                over = (y[..., END] == 1).any(dim=1, keepdim=True)
                y = torch.cat([y, torch.where(over, rows([END], 6), word)[:, None]], dim=1)
            assert found.equal(y[:, :5])
            ended += (y[:, 3:4, END] == 1).sum().item()
    assert 0 < ended < 300


def test_what_is_given_is_kept_and_after_end_comes_end_alone():
    G, draw = writer(4), seeded(0)
    for t in range(6):
        ids = torch.randint(4, (200, t), generator=draw)
        ids = torch.where((ids == END).cumsum(dim=1) > 0, END, ids)
        y = write(G, with_first_row(rows(ids, 4)), 5, partial(sample_word, draw=draw))
        assert y.shape == (200, 5, 4)
        assert y[:, :t].equal(rows(ids, 4))
        end = y[..., END] == 1
        assert (end[:, 1:] | ~end[:, :-1]).all()
        assert not end[:, -1].all()


@pytest.mark.parametrize("hard", [True, False])
def test_slopes_reach_every_weight_through_words(hard):
    G, D = writer(), Discriminator(V, 4).double().eval()
    y = write(G, start(40, G), 4, partial(gumbel_softmax, draw=seeded(0), hard=hard))
    gradients = torch.autograd.grad(D(y).sum(), list(G.parameters()))
    assert all((gradient != 0).any() for gradient in gradients)
    assert (gradients[0] != 0).all()  # each word's vector


def test_no_slope_comes_through_drawn_words():
    G = writer()
    assert not write(G, start(4, G), T, partial(sample_word, draw=seeded(0))).requires_grad


def test_soft_writing_has_the_slope_of_its_numbers():
    """Smooth rows under fixed noise: torch's own finite differences."""
    G, D = writer(), Score()

    def value(bias):
        def model(*inputs):
            return functional_call(G, {"scores.bias": bias}, inputs)

        return D(write(model, start(3, G), T, partial(gumbel_softmax, draw=seeded(1), hard=False)))

    bias = G.scores.bias.detach() - 5 * rows(END)  # so far from an end that none comes and goes
    assert gradcheck(value, bias.requires_grad_())


@pytest.mark.parametrize(
    ("shape", "words"),
    [((2, 5, 3), 3), ((2, 0, 3), 3), ((0, 1, 3), 3), ((2, 3), 3), ((2, 1, 3), 0), ((2, 1, 3), -1)],
)
def test_what_cannot_be_gone_on_with_is_refused(shape, words):
    with pytest.raises(ValueError, match=f"given must be .* T = {words}, got shape"):
        write(writer(), torch.zeros(shape), words, surest)


# --- the discriminator ------------------------------------------------------------------------------------


def built_discriminator(words=5, C=3, seed=0, **options):
    D = Discriminator(words, C, **options).double()
    draw_weights(D, seeded(seed))
    return D.eval()


def score_by_hand(D, sentence):
    """Each filter at each place where it touches the sentence, nothing beyond its ends, and the strongest."""
    vectors = [D.words.weight @ row for row in sentence]
    found = []
    for n, look in enumerate(D.looks, 1):
        answers = []
        for begin in range(1 - n, len(vectors)):
            inside = [(j, begin + j) for j in range(n) if 0 <= begin + j < len(vectors)]
            answers.append(look.bias + sum(look.weight[:, :, j] @ vectors[at] for j, at in inside))
        found.append(torch.stack(answers).amax(dim=0).clamp_min(0))
    _, first, _, second = D.score
    hidden = (first.weight @ torch.cat(found) + first.bias).clamp_min(0)
    return (second.weight @ hidden + second.bias).squeeze()


@pytest.mark.parametrize("places", [1, 2, 3, 6])
def test_a_score_is_the_strongest_answers_of_all_filters(places):
    for seed in range(5):
        D, y = built_discriminator(seed=seed), normal(seed, 4, places, 5).softmax(dim=-1)
        expected = torch.stack([score_by_hand(D, one) for one in y])
        assert D(y).shape == (4,)
        assert_close(D(y).detach(), expected.detach(), seed)


@DEVICES
def test_a_discriminator_is_smooth_in_soft_rows(device):
    D = built_discriminator().to(device)
    assert gradcheck(D, normal(0, 3, 4, 5).softmax(dim=-1).to(device).requires_grad_())


def test_dropout_falls_where_it_trains_alone():
    y = normal(0, 3, 4, 5).softmax(dim=-1)
    D = built_discriminator(C=8, dropout=0.5)
    assert D(y).equal(D(y))
    D.train()
    assert not D(y).equal(D(y))
    assert built_discriminator(dropout=0.0).train()(y).equal(built_discriminator(dropout=0.9)(y))


# --- roll-outs --------------------------------------------------------------------------------------------


def expected_scores(G, D, y):
    """Q(t) of each sentence and the variance of one roll-out, over all endings there are."""
    chance = word_log_probabilities(G, ALL).sum(dim=1).exp().detach()
    score, Q, spread = D(ALL).sigmoid().detach(), [], []
    for t in range(1, T + 1):
        same = (ALL[None, :, :t] == y[:, None, :t]).all(dim=3).all(dim=2)  # (B, sentences)
        share = same * chance / (same * chance).sum(dim=1, keepdim=True)
        Q.append(share @ score)
        spread.append(share @ score**2 - Q[-1] ** 2)
    return torch.stack(Q, dim=1), torch.stack(spread, dim=1).clamp_min(0)


@DEVICES
def test_roll_outs_are_the_expected_score_in_the_mean(device):
    """For every sentence and place; ended ones, and the last place, vary by nothing."""
    N, G, D = 4000, writer(seed=1), Score()
    Q, spread = expected_scores(G, D, ALL)
    assert spread[:, 0].max() > 0.001
    G, D = G.to(device), D.to(device)
    found = rollout_values(G, D, ALL.to(device), N, partial(sample_word, draw=seeded(0))).cpu()
    assert found.shape == (len(ALL), T)
    assert largest_z(found, Q, (spread / N).sqrt()) < allowed_z(Q.numel())


def test_the_last_column_is_the_sentences_own_score():
    G, D = writer(), Score()
    found = rollout_values(G, D, ALL, 2, partial(sample_word, draw=seeded(0)))
    assert found[:, -1].equal(D(ALL).sigmoid())
    assert ((found > 0) & (found < 1)).all()
    assert not found.requires_grad
    assert rollout_values(G, Score(places=1), ALL[-2:, :1], 1, surest).shape == (2, 1)


@pytest.mark.parametrize("N", [1, 3])
def test_a_generator_that_knows_how_to_go_on_is_scored_exactly(N):
    """Without chance each ending is one: the greedy one."""
    G, D, y = writer(seed=4), Score(), ALL
    found = rollout_values(G, D, y, N, surest)
    for t in range(1, T + 1):
        ends = write(G, with_first_row(y[:, :t]), T, surest)
        assert torch.allclose(found[:, t - 1], D(ends).sigmoid(), atol=1e-12)


@pytest.mark.parametrize("N", [0, -2])
def test_without_roll_outs_there_is_no_value(N):
    with pytest.raises(ValueError, match=f"N must be at least 1, got {N}"):
        rollout_values(writer(), Score(), ALL, N, surest)


# --- the policy's gradient --------------------------------------------------------------------------------


def flat(loss, model):
    gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


def true_gradient(G, D):
    """Of the expected score, by the sum over all sentences."""
    chance = word_log_probabilities(G, ALL).sum(dim=1).exp()
    return flat(chance @ D(ALL).sigmoid().detach(), G)


def whole_score(y, D):
    return D(y).sigmoid().detach()[:, None].expand(-1, T)


@pytest.mark.parametrize("worth", ["the whole sentence's score", "the expected score from here"])
def test_over_the_whole_population_the_gradient_is_exact(worth):
    """64 sentences, each as often as it is probable: the baseline takes nothing away."""
    G, D = Bigram(), Score()
    chance = word_log_probabilities(G, ALL).sum(dim=1).exp().detach() * 64
    assert torch.allclose(chance, chance.round())
    y = ALL.repeat_interleave(chance.round().long(), dim=0)
    assert len(y) == 64
    values = whole_score(y, D) if worth.startswith("the whole") else expected_scores(G, D, y)[0]
    found = flat(policy_loss(word_log_probabilities(G, y), values, written(y)), G)
    assert_close(found, -true_gradient(G, D), worth)


def test_in_the_mean_over_samples_the_gradient_is_that_of_the_expected_score():
    """20,000 sentences; the variance of one is exact, from the gradients of all fifteen."""
    B, G, D = 20_000, writer(C=2, seed=1), Score()
    y = write(G, start(B, G), T, partial(sample_word, draw=seeded(0)))
    found = -flat(policy_loss(word_log_probabilities(G, y), whole_score(y, D), written(y)), G)
    chance = word_log_probabilities(G, ALL).sum(dim=1).exp().detach()
    mask, values = written(ALL), whole_score(ALL, D)
    baseline = (chance[:, None] * values * mask).sum(dim=0) / (chance[:, None] * mask).sum(dim=0)
    each = (word_log_probabilities(G, ALL) * (values - baseline) * mask).sum(dim=1)
    each = torch.stack([flat(one, G) for one in each])
    expected = true_gradient(G, D)
    assert torch.allclose(chance @ each, expected, atol=1e-12)
    deviation = ((chance @ (each - expected) ** 2) / B).sqrt()
    assert largest_z(found, expected, deviation) < allowed_z(len(expected))
    assert (expected.abs() / deviation).max() > 20  # the draws would tell a wrong gradient


def test_the_baseline_turns_the_gradient_nowhere():
    """The mean over all pairs of first words. That one counts in its own baseline shortens it only."""
    G, D, one = Bigram(), Score(places=1), rows([[word] for word in range(V)])
    chance = word_log_probabilities(G, one).sum(dim=1).exp()
    expected = flat(chance @ D(one).sigmoid().detach(), G)
    total = torch.zeros_like(expected)
    for pair in product(range(V), repeat=2):
        y = one[list(pair)]
        loss = policy_loss(word_log_probabilities(G, y), D(y).sigmoid().detach()[:, None], written(y))
        total -= chance[list(pair)].prod().detach() * flat(loss, G)
    assert F.cosine_similarity(total, expected, dim=0).item() == pytest.approx(1, abs=1e-12)
    assert 0.4 < (total.norm() / expected.norm()).item() < 1 + 1e-12


def random_policy(seed, B=12):
    """Log-probabilities that take a gradient, values, and a mask of beginnings."""
    logs, values = normal(seed, B, 5).requires_grad_(), normal(seed + 1, B, 5)
    lengths = torch.randint(1, 5, (B, 1), generator=seeded(seed))
    return logs, values, (torch.arange(5) < lengths).double()


def test_what_fills_up_counts_nowhere():
    """Neither its value, nor its log-probability, nor in the baseline of its place."""
    for seed in range(20):
        logs, values, mask = random_policy(seed)
        (expected,) = torch.autograd.grad(policy_loss(logs, values, mask), logs)
        assert not expected[mask == 0].any()
        (found,) = torch.autograd.grad(policy_loss(logs, values + 100 * (1 - mask), mask), logs)
        assert torch.allclose(found, expected, atol=1e-12)


def test_what_all_are_worth_at_a_place_is_no_reason_to_move():
    for seed in range(20):
        logs, values, mask = random_policy(seed)
        (expected,) = torch.autograd.grad(policy_loss(logs, values, mask), logs)
        (found,) = torch.autograd.grad(policy_loss(logs, values + normal(seed + 2, 5), mask), logs)
        assert torch.allclose(found, expected, atol=1e-12)
        assert torch.allclose(expected.sum(dim=0), torch.zeros(5).double(), atol=1e-12)
        assert policy_loss(logs, values, 0 * mask) == 0


def test_a_better_word_than_the_others_at_its_place_is_made_likelier():
    logs, values, mask = random_policy(0, B=2)
    (gradient,) = torch.autograd.grad(policy_loss(logs, values, torch.ones_like(mask)), logs)
    assert ((gradient[0] < 0) == (values[0] > values[1])).all()


# --- SeqGAN -----------------------------------------------------------------------------------------------


@DEVICES
def test_seqgans_gradient_is_that_of_the_expected_score_in_the_mean(device):
    """60 batches of 400 with one roll-out a word; how far they scatter is the tolerance."""
    G, D, draw = writer(C=2), Score(), seeded(0)
    expected = true_gradient(G, D)
    G, D = G.to(device), D.to(device)
    found = torch.stack([-flat(seqgan_loss(G, D, 400, T, 1, draw), G).cpu() for _ in range(60)])
    moves = found.std(dim=0) > 1e-12
    p = stats.ttest_1samp(found[:, moves], expected[moves]).pvalue
    assert p.min() > FALSE_ALARM / len(expected)
    assert torch.allclose(found[:, ~moves].mean(dim=0), expected[~moves], atol=1e-9)
    error = found.std(dim=0) / math.sqrt(len(found))
    assert (expected.abs() / error.clamp_min(1e-12))[moves].max() > 20  # it would tell a wrong gradient


def test_seqgans_loss_is_its_parts_in_order():
    """Write, finish each beginning, and reward what was written: from one source of random numbers."""
    G, D, choose = writer(), Score(), partial(sample_word, draw=seeded(0))
    y = write(G, start(30, G), T, choose)
    assert 0 < written(y).sum() < y[..., 0].numel()
    values = rollout_values(G, D, y, 2, choose)
    expected = policy_loss(word_log_probabilities(G, y), values, written(y))
    assert seqgan_loss(G, D, 30, T, 2, seeded(0)).item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_seed_decides_what_seqgan_learns_from_and_the_discriminator_learns_nothing():
    G, D = writer(), Score()
    first, again, other = (seqgan_loss(G, D, 16, T, 2, seeded(seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    first.backward()
    assert D.weight.grad is None
    assert all(p.grad.any() for p in G.parameters())


@pytest.mark.parametrize("seed", range(3))
def test_seqgan_learns_what_the_discriminator_likes(seed):
    """Sixty steps take its expectation, exactly counted, more than half-way to the best sentence's score."""
    G, D, draw = Generator(V, 8, seed=seed).double(), Score(seed), seeded(seed)

    def expected():
        chance = word_log_probabilities(G, ALL).sum(dim=1).exp()
        return (chance @ D(ALL).sigmoid()).item()

    before, best = expected(), D(ALL).sigmoid().max().item()
    optimiser = torch.optim.Adam(G.parameters(), lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        seqgan_loss(G, D, 64, T, 1, draw).backward()
        optimiser.step()
    assert expected() - before > (best - before) / 2 > 0.1
