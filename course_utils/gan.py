"""Generative adversarial networks: the game, its optimum, and ways to play it with words.

Source: Goodfellow et al. 2014, arXiv:1406.2661, and the papers named here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.grammar import END
from course_utils.lstm import LSTMCell, Recurrent, as_torch
from course_utils.optim import check_ranges
from course_utils.runtime import generator

__taught__ = [
    "optimal_discriminator",
    "game_value",
    "discriminator_loss",
    "generator_loss",
    "duel",
    "gumbel_noise",
    "sample_word",
    "gumbel_softmax",
    "Generator",
    "written",
    "word_log_probabilities",
    "write",
    "Discriminator",
    "rollout_values",
    "policy_loss",
    "seqgan_loss",
]

Draws = Callable[[torch.Generator], torch.Tensor]  # from a source of random numbers to samples, or a loss
Losses = list[tuple[float, float]]  # the discriminator's and the generator's, of each step
Watch = Callable[[int, Losses], object] | None  # who looks on, told the step and the losses so far
Choose = Callable[[torch.Tensor], torch.Tensor]  # logits (B, V) → a word each, (B, V)


# The game


def optimal_discriminator(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """D*(x) = p(x) / (p(x) + q(x)), all of one shape; NaN where neither ever comes.

    Source: Goodfellow et al. 2014, proposition 1.
    """
    return p / (p + q)


def game_value(D: torch.Tensor, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """V(D) = Σ p(x) log D(x) + Σ q(x) log(1 - D(x)), in nats.

    Args:
        D: what the discriminator answers at each x, in (0, 1).
        p, q: true and generated probability of each x.

    Source: Goodfellow et al. 2014, equation 1.
    """
    return (torch.xlogy(p, D) + torch.xlogy(q, 1 - D)).sum()


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """-V from samples: the mean of -log σ(real) plus that of -log(1 - σ(fake)); logits of any shape."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: torch.Tensor, saturating: bool = False) -> torch.Tensor:
    """What the generator minimises: the mean of -log σ(fake), or of log(1 - σ(fake)), as the game has it.

    Args:
        fake: logits of generated samples, any shape.
        saturating: the game's own, whose slope σ(fake) dies where the discriminator is sure.

    Source: Goodfellow et al. 2014, section 3.
    """
    return -F.softplus(fake).mean() if saturating else F.softplus(-fake).mean()


@dataclass(frozen=True)
class Duel:
    """How to let two networks play.

    Attributes:
        steps: of the generator.
        lr, d_lr: Adam's step sizes, of generator and discriminator.
        d_steps: of the discriminator, to each of the generator.
        head_start: steps of the discriminator before the first of the generator.
        betas: Adam's; 0.5 forgets sooner than 0.9 what the other was like. Source: Radford et al. 2016.
        clip: gradients longer than this are shortened to it.
        every: steps between two looks.
        seed: of all draws.

    Raises:
        ValueError: a number out of its range.
    """

    steps: int
    lr: float = 3e-3
    d_lr: float = 3e-3
    d_steps: int = 1
    head_start: int = 0
    betas: tuple[float, float] = (0.5, 0.999)
    clip: float = 5.0
    every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot play."""
        for name in ("steps", "d_steps", "head_start", "every", "seed"):
            if not isinstance(getattr(self, name), int):
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)!r}")
        check_ranges(self, ("steps", "lr", "d_lr", "clip", "every"), ("d_steps", "head_start", "seed"))
        pair = isinstance(self.betas, tuple) and len(self.betas) == 2
        if not pair or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}")


def duel(
    G: nn.Module, D: nn.Module, real: Draws, fake: Draws, loss: Draws, options: Duel, watch: Watch = None
) -> Losses:
    """Let two networks learn against each other, in turn.

    Args:
        G, D: generator and discriminator, changed in place.
        real: draws true samples.
        fake: draws generated ones; their gradients are cut.
        loss: draws what the generator is to minimise.
        options: see `Duel`.
        watch: called with the step and the losses so far, at step 0, every so many steps and at the end.

    Returns:
        losses (D's, G's) of each step.

    Source: Goodfellow et al. 2014, algorithm 1.
    """
    torch.manual_seed(options.seed)  # dropout
    draw, losses, d = generator(options.seed), [], torch.tensor(0.0)
    g_step, d_step = stepper(G, options.lr, options), stepper(D, options.d_lr, options)
    for step in range(options.steps):
        if watch and step % options.every == 0:
            watch(step, losses)
        for _ in range(options.d_steps + (0 if step else options.head_start)):
            d = d_step(discriminator_loss(D(real(draw)), D(fake(draw).detach())))
        g = g_step(loss(draw))
        losses.append((d.item(), g.item()))
    if watch:
        watch(options.steps, losses)
    return losses


def stepper(model: nn.Module, lr: float, options: Duel) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that takes one step of Adam down a loss, moving this model alone, and returns the loss.

    It raises FloatingPointError where the loss or its gradient is not finite; no weight has changed then.
    """
    optimiser = torch.optim.Adam(model.parameters(), lr, options.betas)

    def step(value: torch.Tensor) -> torch.Tensor:
        if not value.isfinite():
            raise FloatingPointError(f"a loss of the duel is {value.item()}: lower lr or d_lr")
        gradients = torch.autograd.grad(value, optimiser.param_groups[0]["params"])
        for p, gradient in zip(model.parameters(), gradients, strict=True):
            p.grad = gradient
        if not nn.utils.clip_grad_norm_(model.parameters(), options.clip).isfinite():
            raise FloatingPointError("a gradient of the duel is not finite: lower lr or d_lr")
        optimiser.step()
        return value.detach()

    return step


# Words


def gumbel_noise(shape: tuple[int, ...], draw: torch.Generator) -> torch.Tensor:
    """-log(-log u), u uniform: added to logits, its argmax falls as often as softmax says.

    Source: Gumbel 1954; Maddison, Tarlow & Minka 2014, arXiv:1411.0030.
    """
    u = torch.rand(shape, generator=draw, dtype=torch.double)
    return -(-u.clamp_min(1e-300).log()).log().float()


def sample_word(logits: torch.Tensor, draw: torch.Generator, temperature: float = 1.0) -> torch.Tensor:
    """One word from each softmax(logits / temperature), as a one-hot row: (B, V) → (B, V).

    Raises:
        ValueError: a temperature of 0 or less.
    """
    check_temperature(temperature)
    noise = gumbel_noise(logits.shape, draw).to(logits)
    return F.one_hot((logits / temperature + noise).argmax(dim=-1), logits.shape[-1]).to(logits)


def gumbel_softmax(
    logits: torch.Tensor, draw: torch.Generator, tau: float = 1.0, hard: bool = True
) -> torch.Tensor:
    """As `sample_word`, with a slope: that of softmax((logits + noise) / tau).

    Args:
        logits: (B, V).
        draw: source of random numbers.
        tau: small, nearer to one word, and steeper; large, smoother.
        hard: one word forwards, smooth backwards (straight-through); otherwise smooth both ways.

    Returns:
        (B, V), rows that add up to 1.

    Raises:
        ValueError: tau is 0 or less.

    Source: Jang, Gu & Poole 2017, arXiv:1611.01144; Maddison, Mnih & Teh 2017, arXiv:1611.00712.
    """
    check_temperature(tau, "tau")
    soft = ((logits + gumbel_noise(logits.shape, draw).to(logits)) / tau).softmax(dim=-1)
    if not hard:
        return soft
    return F.one_hot(soft.argmax(dim=-1), soft.shape[-1]) - soft.detach() + soft


def check_temperature(value: float, name: str = "temperature") -> None:
    """Raises ValueError unless the number that logits are divided by is above 0."""
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value}")


class Generator(nn.Module):
    """An LSTM that scores each next word. Words come as rows over the vocabulary, so that soft ones will do.

    Source: Graves 2013, arXiv:1308.0850.
    """

    def __init__(self, V: int, C: int, seed: int = 0) -> None:
        """V: vocabulary size. C: width. seed: of the weights."""
        super().__init__()
        self.V, self.words, self.scores = V, nn.Linear(V, C, bias=False), nn.Linear(C, V)
        initialise(self, seed)
        nn.init.normal_(self.words.weight, generator=generator(seed))  # (C, V): one column a word
        self.recurrent = as_torch(Recurrent(LSTMCell, C, C, seed=seed))

    def forward(
        self, y: torch.Tensor, state: tuple[torch.Tensor, ...] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """y (B, T, V), and the state to go on from → logits (B, T, V) of the next words, state."""
        h, state = self.recurrent(self.words(y), state)  # (B, T, C)
        return self.scores(h), state


def initialise(model: nn.Module, seed: int) -> None:
    """Draw weights and biases of linear layers and convolutions as torch does, by a CPU generator."""
    draw = generator(seed)
    for part in model.modules():
        if isinstance(part, nn.Linear | nn.Conv1d):
            bound = part.weight[0].numel() ** -0.5
            for p in part.parameters():
                nn.init.uniform_(p, -bound, bound, generator=draw)


def first_row(y: torch.Tensor) -> torch.Tensor:
    """What is read before the first word, END: for sentences (B, T, V), (B, 1, V)."""
    return F.one_hot(torch.full((len(y), 1), END, device=y.device), y.shape[-1]).to(y)


def written(y: torch.Tensor) -> torch.Tensor:
    """Sentences (B, T, V) → (B, T): 1 for each word up to the first END and for that, 0 for what fills up."""
    ended = (y.detach()[:, :-1, END] > 0.5).cummax(dim=1).values  # (B, T - 1)
    return F.pad(~ended, (1, 0), value=True).to(y)


def word_log_probabilities(G: nn.Module, y: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """log G(y_t | y_1 … y_{t-1}) in nats, 0 for what fills up: sentences (B, T, V) → (B, T).

    Args:
        G: a `Generator`.
        y: one-hot rows.
        temperature: what G's logits are divided by.

    Raises:
        ValueError: y is not (B, T, V) or empty, or a temperature of 0 or less.
    """
    check_sentences(y)
    check_temperature(temperature)
    logits, _ = G(torch.cat([first_row(y), y[:, :-1]], dim=1))  # (B, T, V)
    logs = (logits / temperature).log_softmax(dim=-1)
    return (logs * y).sum(dim=-1) * written(y)


def check_sentences(y: torch.Tensor) -> None:
    """Raises ValueError unless y is (B, T, V) and not empty."""
    if y.dim() != 3 or not y.numel():
        raise ValueError(f"y must be (B, T, V) rows over the vocabulary, got shape {tuple(y.shape)}")


def write(G: nn.Module, given: torch.Tensor, T: int, choose: Choose) -> torch.Tensor:
    """Go on with sentences, word by word.

    Args:
        G: a `Generator`.
        given: (B, t + 1, V) the row of END before the first word, then t words, 0 … T.
        T: words a sentence.
        choose: from logits (B, V) to rows (B, V), such as `sample_word`.

    Returns:
        (B, T, V); after END there is only END.

    Raises:
        ValueError: given is no (B, t + 1, V) with t from 0 to T, or does not begin with END.
    """
    check_given(given, T)
    rows = list(given[:, 1:].unbind(dim=1))  # each (B, V)
    ended = (given[:, 1:, END, None] > 0.5).any(dim=1)  # (B, 1)
    end, state, ahead = given[:, 0], None, given
    while len(rows) < T:
        logits, state = G(ahead, state)
        y = torch.where(ended, end, choose(logits[:, -1]))
        ended = ended | (y[:, END, None] > 0.5)
        rows.append(y)
        ahead = y[:, None]  # (B, 1, V)
    return torch.stack(rows, dim=1)  # (B, T, V)


def check_given(given: torch.Tensor, T: int) -> None:
    """Raises ValueError unless given is (B, t + 1, V) with t from 0 to T, its first row END."""
    if given.dim() != 3 or not given.numel() or not 1 <= given.shape[1] <= T + 1 or T < 1:
        shape = tuple(given.shape)
        raise ValueError(f"given must be (B, t + 1, V) with t from 0 to T = {T}, got shape {shape}")
    if not (given[:, 0, END] > 0.5).all():
        raise ValueError("given must begin with the row of END that comes before the first word")


def start(B: int, G: nn.Module) -> torch.Tensor:
    """What a `Generator` begins B sentences with: (B, 1, V)."""
    return first_row(next(G.parameters()).new_zeros(B, 1, G.V))


class Discriminator(nn.Module):
    """Scores a sentence: convolutions over 1 to 4 neighbours, the strongest answer of each, two layers.

    Source: Kim 2014, arXiv:1408.5882, as in SeqGAN.
    """

    def __init__(self, V: int, C: int = 32, dropout: float = 0.5, seed: int = 0) -> None:
        """V: vocabulary size. C: filters of each width. dropout: of what they found. seed: of the weights."""
        super().__init__()
        self.words = nn.Linear(V, C, bias=False)
        self.looks = nn.ModuleList(nn.Conv1d(C, C, n, padding=n - 1) for n in (1, 2, 3, 4))
        self.score = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * C, C), nn.ReLU(), nn.Linear(C, 1))
        initialise(self, seed)
        nn.init.normal_(self.words.weight, generator=generator(seed))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Rows over the vocabulary (B, T, V) → logits (B,): above 0 where it takes a sentence for true."""
        x = self.words(y).mT  # (B, C, T)
        found = [look(x).relu().amax(dim=-1) for look in self.looks]  # 4 of (B, C)
        return self.score(torch.cat(found, dim=-1)).squeeze(-1)


@torch.no_grad()
def rollout_values(G: nn.Module, D: nn.Module, y: torch.Tensor, N: int, choose: Choose) -> torch.Tensor:
    """Q(t): the mean score of sentences that begin with the first t words and are finished by the generator.

    Args:
        G, D: generator and discriminator.
        y: (B, T, V) sentences.
        N: times each beginning is finished.
        choose: as in `write`.

    Returns:
        (B, T) in (0, 1); the last column is the score of y itself. D scores in the mode it is in, in training
        with dropout.

    Raises:
        ValueError: N is below 1, or y is not (B, T, V).

    Source: Yu et al. 2017, arXiv:1609.05473, equation 4.
    """
    check_rollouts(y, N)
    T, given, values = y.shape[1], torch.cat([first_row(y), y], dim=1), []
    for t in range(1, T):
        ahead = write(G, given[:, : t + 1].repeat(N, 1, 1), T, choose)  # (N * B, T, V)
        values.append(D(ahead).sigmoid().view(N, -1).mean(dim=0))  # (B,)
    return torch.stack([*values, D(y).sigmoid()], dim=1)


def check_rollouts(y: torch.Tensor, N: int) -> None:
    """Raises ValueError where no beginning would be finished."""
    check_sentences(y)
    if N < 1:
        raise ValueError(f"N must be at least 1, got {N}")


def policy_loss(logs: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """REINFORCE: its gradient is that of the expected value, as far as B sentences tell.

    The mean that serves as baseline holds the sentence's own value, too: with n sentences that have got as
    far, the gradient there is (n - 1) / n of its due.

    Args:
        logs: (B, T) log-probability of each word, see `word_log_probabilities`.
        values: (B, T) what each was worth, see `rollout_values`; constants. A place's mean is the baseline.
        mask: (B, T), see `written`.

    Source: Williams 1992, "Simple statistical gradient-following algorithms".
    """
    baseline = (values * mask).sum(dim=0) / mask.sum(dim=0).clamp_min(1)  # (T,)
    return -(logs * (values - baseline) * mask).sum() / len(logs)


def seqgan_loss(G: nn.Module, D: nn.Module, B: int, T: int, N: int, draw: torch.Generator) -> torch.Tensor:
    """What SeqGAN's generator minimises: `policy_loss` on B sentences of T words, N roll-outs a word.

    Source: Yu et al. 2017, arXiv:1609.05473, algorithm 1.
    """
    choose = partial(sample_word, draw=draw)
    with torch.no_grad():
        y = write(G, start(B, G), T, choose)  # (B, T, V)
    values = rollout_values(G, D, y, N, choose)
    return policy_loss(word_log_probabilities(G, y), values, written(y))
