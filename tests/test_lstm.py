"""Recurrent networks equal torch's and their own equations, forward and backward.

Then what must hold of any: padding is as if it were not there, a state carries a text on, dropout falls where
it says and nowhere else, a language model does not see the future, a seed decides every weight.
"""

import math
import re
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_attention import (
    DEVICES,
    DTYPES,
    assert_close,
    draw_weights,
    precise_and_quick,  # noqa: F401 (a fixture for every test)
)
from torch import nn
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from course_utils.lstm import (
    AdditiveAttention,
    GRUCell,
    LSTMCell,
    Recurrent,
    RecurrentLM,
    RNNCell,
    Seq2Seq,
    as_torch,
    dropout_mask,
    remember,
    truncated_loss,
    unroll,
)

LIBRARY = {RNNCell: nn.RNN, GRUCell: nn.GRU, LSTMCell: nn.LSTM}
CELLS = pytest.mark.parametrize("cell", LIBRARY, ids=lambda cell: cell.__name__)
NETS = list(product((1, 2, 3), (False, True), (False, True), (False, True)))  # layers, both, padded, state


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(random, *shape):
    return torch.randn(shape, generator=random, dtype=torch.float64)


def words(random, V, *shape):
    return torch.randint(V, shape, generator=random)


def built(kind, *arguments, seed=0, dtype=torch.float64, **options):
    """A model whose every number is random, biases too."""
    model = kind(*arguments, **options).to(dtype)
    draw_weights(model, seeded(seed))
    return model


# ------------------------------------------------------------------------------------ torch's layers


def in_torchs_words(ours):
    """Our parameters by the library's names."""
    named = {}
    for k, cell in enumerate(ours.cells):
        layer, side = divmod(k, ours.directions)
        for which, linear in (("ih", cell.x), ("hh", cell.h)):
            for kind, p in linear.named_parameters():
                named[f"{kind}_{which}_l{layer}{'_reverse' * side}"] = p
    return named


class Case:
    """Our network and torch's with the same weights, sequences of random sizes, upstream gradients."""

    def __init__(self, cell, seed, net, dtype=torch.float64, device="cpu", sizes=None):
        self.name, self.random = f"{cell.__name__} {net} of seed {seed}", seeded(seed)
        self.layers, self.both, padded, given = net
        drawn = torch.randint(1, 7, (4,), generator=self.random).tolist()
        self.B, self.T, self.inputs, self.C = sizes or drawn
        self.dtype, self.device = dtype, device
        self.ours = Recurrent(cell, self.inputs, self.C, self.layers, self.both).to(device, dtype)
        draw_weights(self.ours, self.random)
        self.theirs = LIBRARY[cell](
            self.inputs, self.C, self.layers, batch_first=True, bidirectional=self.both
        )
        self.theirs.to(device, dtype).load_state_dict(in_torchs_words(self.ours))
        sides, parts = 1 + self.both, 1 + (cell is LSTMCell)
        self.x, self.upstream = (
            self.draw(self.B, self.T, self.inputs),
            self.draw(self.B, self.T, sides * self.C),
        )
        shape = (self.layers * sides, self.B, self.C)
        self.state = tuple(self.draw(*shape) for _ in range(parts)) if given else None
        self.above = [self.draw(*shape) for _ in range(parts)]
        self.lengths = torch.randint(1, self.T + 1, (self.B,), generator=self.random) if padded else None

    def __repr__(self):
        return self.name

    def draw(self, *shape):
        return normal(self.random, *shape).to(self.device, self.dtype).requires_grad_()

    def gradients(self, out, state, parameters):
        """Of the inputs, of the first state, and of the parameters: of all that comes out at once."""
        total = sum((y * up).sum() for y, up in zip((out, *state), (self.upstream, *self.above), strict=True))
        wanted = [self.x, *(self.state or ()), *parameters]
        return [out.detach(), *(part.detach() for part in state), *torch.autograd.grad(total, wanted)]

    def found(self):
        lengths = None if self.lengths is None else self.lengths.to(self.device)
        out, state = self.ours(self.x, self.state, lengths)
        return self.gradients(out, state, in_torchs_words(self.ours).values())

    def expected(self):
        x, single = self.x, not isinstance(self.theirs, nn.LSTM)
        if self.lengths is not None:
            x = pack_padded_sequence(x, self.lengths, batch_first=True, enforce_sorted=False)
        out, state = self.theirs(x, self.state[0] if single and self.state else self.state)
        if self.lengths is not None:
            out = pad_packed_sequence(out, batch_first=True, total_length=self.T)[0]
        theirs = dict(self.theirs.named_parameters())
        parameters = [theirs[name] for name in in_torchs_words(self.ours)]
        return self.gradients(out, (state,) if single else state, parameters)

    def compare(self):
        for a, b in zip(self.found(), self.expected(), strict=True):
            assert a.shape == b.shape, self
            assert_close(a, b, self)


@DEVICES
@DTYPES
@CELLS
def test_equal_to_torchs_forward_and_backward(cell, dtype, device):
    """Layers, directions, packed lengths, a given state: outputs, last states, and every gradient."""
    for seed, net in enumerate(NETS):
        Case(cell, seed, net, dtype, device).compare()


@DEVICES
@CELLS
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 6, 3, 4), (5, 1, 3, 4), (3, 16, 5, 9)])
def test_one_sequence_and_one_word_and_many(cell, sizes, device):
    for seed, net in enumerate(NETS):
        Case(cell, seed, net, device=device, sizes=sizes).compare()


@DTYPES
@CELLS
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_librarys_layer_has_our_sizes_and_our_weights(cell, layers, both, dtype):
    ours = built(Recurrent, cell, 3, 4, layers, both, dtype=dtype)
    theirs = as_torch(ours)
    assert type(theirs) is LIBRARY[cell]
    assert theirs.batch_first
    found = dict(theirs.named_parameters())
    assert all(p.requires_grad and p.dtype == dtype for p in found.values())
    for name, p in in_torchs_words(ours).items():
        assert torch.equal(p, found.pop(name)), name
    assert not found
    x = normal(seeded(1), 2, 5, 3).to(dtype)
    before = ours(x)[0].detach()
    assert_close(theirs(x)[0].detach(), before, cell)
    nn.init.zeros_(theirs.weight_hh_l0)
    assert torch.equal(ours(x)[0], before)  # they share no memory


# ----------------------------------------------------------------------------------- the equations

GATES = {RNNCell: "h", GRUCell: "rzn", LSTMCell: "ifgo"}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rnn(x, u, h):
    return (np.tanh(x["h"] + u["h"]),)


def gru(x, u, h):
    r, z = sigmoid(x["r"] + u["r"]), sigmoid(x["z"] + u["z"])
    return ((1 - z) * np.tanh(x["n"] + r * u["n"]) + z * h,)


def lstm(x, u, h, c):
    i, f, o = (sigmoid(x[gate] + u[gate]) for gate in "ifo")
    c = f * c + i * np.tanh(x["g"] + u["g"])
    return o * np.tanh(c), c


EQUATIONS = {RNNCell: rnn, GRUCell: gru, LSTMCell: lstm}


def by_hand(cell, x, state, seen=None):
    """Outputs (B, T, C) and last state of a cell; `seen` is what its gates see of h, T of (B, C)."""
    weights = [p.detach().numpy() for p in (cell.x.weight, cell.x.bias, cell.h.weight, cell.h.bias)]
    names, outputs = GATES[type(cell)], []
    W, b, U, d = (dict(zip(names, np.split(p, len(names)), strict=True)) for p in weights)  # by gate
    for t in range(x.shape[1]):
        h = state[0] if seen is None else seen[t]
        from_x, from_h = ({g: v @ A[g].T + a[g] for g in names} for v, A, a in ((x[:, t], W, b), (h, U, d)))
        state = EQUATIONS[type(cell)](from_x, from_h, *state)
        outputs.append(state[0])
    return np.stack(outputs, axis=1), state


@CELLS
def test_gate_by_gate_without_any_library(cell):
    for seed in range(20):
        random = seeded(seed)
        B, T, inputs, C = torch.randint(1, 7, (4,), generator=random).tolist()
        ours, x = built(cell, inputs, C, seed=seed), normal(random, B, T, inputs)
        state = tuple(normal(random, B, C) for _ in range(ours.states))
        out, last = by_hand(ours, x.numpy(), [part.numpy() for part in state])
        found, end = unroll(ours, x, state)
        assert_close(found.detach(), torch.from_numpy(out), seed)
        assert len(end) == len(last)
        for a, b in zip(end, last, strict=True):
            assert_close(a.detach(), torch.from_numpy(b), seed)


@CELLS
def test_a_cell_by_its_gates_when_they_stand_open_or_shut(cell):
    """Biases of ±40 make each gate exactly 0 or 1 in float64, or nearly: then the equations are easy."""
    C, h, x = 3, normal(seeded(0), 2, 3), torch.zeros(2, 1, 4, dtype=torch.float64)
    model = cell(4, C).double()
    for p in model.parameters():
        nn.init.zeros_(p)
    gate = {name: model.x.bias.detach()[k * C : (k + 1) * C] for k, name in enumerate(GATES[cell])}
    if cell is RNNCell:
        expected = torch.zeros_like(h)  # of zero weights: tanh(0)
    elif cell is GRUCell:
        gate["z"][:] = 40.0
        expected = h  # all kept
    else:
        gate["f"][:], gate["i"][:], gate["o"][:] = 40.0, -40.0, 40.0
        expected = h.tanh()  # c = h below: kept, not written, shown
    out, _ = unroll(model, x, (h,) * model.states)
    assert_close(out[:, 0].detach(), expected, cell, largest=1.0)


# ------------------------------------------------------------------------------------------ padding


def padded(cell, seed, both=True):
    """A network, sequences, their lengths, and where nothing stands (B, T, 1)."""
    random = seeded(seed)
    model, lengths = built(Recurrent, cell, 3, 4, 2, both), torch.randint(1, 8, (5,), generator=random)
    return model, normal(random, 5, 7, 3), lengths, ~(torch.arange(7) < lengths[:, None])[..., None]


@CELLS
@pytest.mark.parametrize("both", [False, True])
def test_what_stands_in_padding_does_not_matter(cell, both):
    """Not a bit of it comes out, and no gradient goes in; the outputs there are 0."""
    for seed in range(8):
        model, x, lengths, pad = padded(cell, seed, both)
        runs = []
        for garbage in (0.0, -7.0, 1e6, -torch.inf, torch.nan):
            words = x.masked_fill(pad, garbage).requires_grad_()
            out, state = model(words, lengths=lengths)
            total = out.sum() + sum((part**2).sum() for part in state)
            gradients = torch.autograd.grad(total, [words, *model.parameters()])
            assert not out[pad.expand(out.shape)].any()
            assert not gradients[0][pad.expand(x.shape)].any()
            runs.append([out, *state, *gradients])
        for run in runs[1:]:
            assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True)), seed


@CELLS
@pytest.mark.parametrize("both", [False, True])
def test_a_short_sequence_in_a_batch_is_itself_alone(cell, both):
    for seed in range(8):
        model, x, lengths, _ = padded(cell, seed, both)
        first = tuple(normal(seeded(seed), len(model.cells), 5, 4) for _ in range(model.cells[0].states))
        out, state = model(x, first, lengths)
        for i, n in enumerate(lengths.tolist()):
            alone, end = model(x[i : i + 1, :n], tuple(part[:, i : i + 1] for part in first))
            assert_close(out[i : i + 1, :n].detach(), alone.detach(), seed)
            for a, b in zip(state, end, strict=True):
                assert_close(a[:, i : i + 1].detach(), b.detach(), seed)


@CELLS
def test_full_lengths_are_as_good_as_none(cell):
    model, x, *_ = padded(cell, 0)
    for a, b in zip(model(x), model(x, lengths=torch.full((5,), 7)), strict=True):
        assert all(map(torch.equal, a, b))


def test_lengths_may_lie_elsewhere_than_the_sequences():
    """On the CPU, where torch's packing wants them; the device without memory stands in for a GPU."""
    model, x, lengths, _ = padded(LSTMCell, 0)
    assert model.to("meta")(x.to("meta"), lengths=lengths)[0].shape == (5, 7, 8)


@CELLS
def test_read_backwards_is_the_text_turned_round(cell):
    model, x = built(cell, 3, 4), normal(seeded(0), 2, 5, 3)
    state = tuple(normal(seeded(1), 2, 4) for _ in range(model.states))
    there, end = unroll(model, x.flip(1), state)
    back, other = unroll(model, x, state, backwards=True)
    for a, b in zip((there.flip(1), *end), (back, *other), strict=True):
        assert_close(b.detach(), a.detach(), cell)


# -------------------------------------------------------------------------------------------- state


@CELLS
def test_two_parts_of_a_text_are_the_whole(cell):
    model, x = built(Recurrent, cell, 3, 4, 3), normal(seeded(0), 2, 6, 3)
    whole, end = model(x)
    for t in range(1, 6):
        first, state = model(x[:, :t])
        second, last = model(x[:, t:], state)
        assert_close(torch.cat([first, second], dim=1).detach(), whole.detach(), t)
        for a, b in zip(last, end, strict=True):
            assert_close(a.detach(), b.detach(), t)


@CELLS
def test_before_the_first_word_the_state_is_0(cell):
    model, x = built(Recurrent, cell, 3, 4, 2, True), normal(seeded(0), 2, 6, 3)
    zeros = (torch.zeros(4, 2, 4, dtype=torch.float64),) * model.cells[0].states
    assert torch.equal(model(x)[0], model(x, zeros)[0])


@CELLS
@pytest.mark.parametrize("both", [False, True])
def test_the_last_layers_last_state_is_its_last_output(cell, both):
    model, x = built(Recurrent, cell, 3, 4, 2, both), normal(seeded(0), 2, 6, 3)
    out, (h, *_) = model(x)
    assert torch.equal(h[-1 - both], out[:, -1, :4])
    if both:
        assert torch.equal(h[-1], out[:, 0, 4:])


# ------------------------------------------------------------------------------------------ dropout


def heard(model, x, state=None):
    """Outputs of a network, and what went into W x and into U h of each cell: (B, T, C) each."""
    into = {}
    for k, cell in enumerate(model.cells):
        for name, linear in (("x", cell.x), ("h", cell.h)):
            hook = lambda _, given, key=(name, k): into.setdefault(key, []).append(given[0].detach())  # noqa: E731
            linear.register_forward_pre_hook(hook)
    out = model(x, state)[0].detach()
    return out, [(into["x", k][0], torch.stack(into["h", k], dim=1)) for k in range(len(model.cells))]


def masks(dropped, whole, rate):
    """Which numbers were kept; each is 0, or scaled by 1 / (1 - rate)."""
    kept = dropped != 0
    assert_close(dropped, (whole / (1 - rate)).where(kept, 0.0), "scale")
    return kept


@CELLS
@pytest.mark.parametrize("rate", [0.3, 0.5])
@pytest.mark.parametrize("variational", [True, False], ids=["variational", "per step"])
def test_dropout_falls_on_what_the_gates_see_and_nowhere_else(cell, variational, rate):
    """A layer's inputs, and h on its way into the gates; c, and the h a GRU keeps, stay whole."""
    model = built(Recurrent, cell, 3, 4, 2, dropout=rate, variational=variational)
    x = normal(seeded(0), 6, 5, 3)
    state = tuple(normal(seeded(k), 2, 6, 4) for k in range(model.cells[0].states))
    torch.manual_seed(0)
    out, layers = heard(model, x, state)
    for k, (read, seen) in enumerate(layers):
        first = [part[k].numpy() for part in state]
        y = by_hand(model.cells[k], read.numpy(), first, seen.transpose(0, 1).numpy())[0]
        y = torch.from_numpy(y)
        before = torch.cat([state[0][k][:, None], y[:, :-1]], dim=1)  # h of one step earlier
        for kept in (masks(read, x, rate), masks(seen, before, rate)):
            assert kept.any()
            assert not kept.all()
            assert torch.equal(kept, kept[:, :1].expand(kept.shape)) == variational
            assert not torch.equal(kept, kept[:1].expand(kept.shape))  # each sequence has its own
        x = y
    assert_close(out, x, "outputs")


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("variational", [True, False], ids=["variational", "per step"])
def test_the_dropped_share_and_what_is_left_add_up(variational, both):
    """Of ones the mean stays 1, and the share of zeros is the rate; no two layers drop the same."""
    model = built(Recurrent, RNNCell, 40, 40, 2, both, dropout=0.25, variational=variational)
    for cell in model.cells:
        nn.init.constant_(cell.h.bias, 40.0)  # h is 1, always
    x, h = (torch.ones(n, 50, 40, dtype=torch.float64) for n in (4, len(model.cells)))
    torch.manual_seed(0)
    _, layers = heard(model, x.transpose(0, 1), (h,))
    parts = [part for layer in layers for part in layer]
    for part in parts:
        assert abs(part.mean() - 1) < 0.06
        assert abs((part == 0).double().mean() - 0.25) < 0.04
    seen = [h for _, h in layers]
    assert not torch.equal(seen[0], seen[1 + both])
    assert not torch.equal(layers[0][0], layers[0][1])


@DEVICES
@DTYPES
@pytest.mark.parametrize("same", [True, False])
def test_a_mask_is_made_like_its_sequences(same, dtype, device):
    x = torch.zeros(20, 5, 3, dtype=dtype, device=device)
    mask = dropout_mask(x, 30, 0.2, same)
    assert mask.shape == (20, 5, 30)
    assert (mask.dtype, mask.device) == (x.dtype, x.device)
    assert set(mask.unique().tolist()) == {0.0, torch.tensor(1 / 0.8, dtype=dtype).item()}
    assert (mask == mask[:, :1]).all() == same
    assert dropout_mask(x, 30, 0.0, same) is None


@CELLS
@pytest.mark.parametrize("variational", [True, False], ids=["variational", "per step"])
def test_nothing_is_dropped_in_evaluation_and_the_generator_decides_in_training(cell, variational):
    model = built(Recurrent, cell, 3, 4, 2, dropout=0.5, variational=variational)
    plain, x = built(Recurrent, cell, 3, 4, 2), normal(seeded(0), 6, 5, 3)
    outs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outs.append(model(x)[0])
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    assert torch.equal(model.eval()(x)[0], plain(x)[0])
    assert torch.equal(plain.eval()(x)[0], plain.train()(x)[0])


# ------------------------------------------------------------------------------------------ weights


@CELLS
def test_a_seed_decides_every_weight(cell):
    """Whatever torch's own generator has done before."""
    nets = []
    for before, seed in ((0, 5), (1, 5), (0, 6)):
        torch.manual_seed(before)
        nets.append(
            torch.cat([p.flatten() for p in Recurrent(cell, 30, 25, 2, True, seed=seed).parameters()])
        )
    assert torch.equal(nets[0], nets[1])
    assert not (nets[0] == nets[2]).any()


@CELLS
def test_first_weights_are_spread_evenly_up_to_one_over_the_root_of_the_width(cell):
    for name, p in Recurrent(cell, 30, 25, 2).named_parameters():
        share = p.detach().double() * 5  # of U(-1, 1)
        assert share.abs().max() <= 1, name
        assert share.abs().max() > 0.9, name
        assert abs((share**2).mean() - 1 / 3) < 0.13, name
        assert abs(share.mean()) < 0.4, name


@pytest.mark.parametrize("forget", [-2.0, 0.0, 1.0, 3.0])
def test_an_lstm_of_zero_weights_keeps_the_sigmoid_of_what_it_is_told(forget):
    model, T = Recurrent(LSTMCell, 3, 4, 2, True).double(), 6
    remember(model, forget)
    for name, p in model.named_parameters():
        if name.endswith("weight"):
            nn.init.zeros_(p)
        else:
            p.data.view(4, 4)[[0, 2, 3]] = 0.0  # i, g, o: nothing is written, since tanh(0) = 0
    ones = torch.ones(4, 2, 4, dtype=torch.float64)
    _, (_, c) = model(normal(seeded(0), 2, T, 3), (ones, ones))
    assert_close(c.detach(), ones / (1 + math.exp(-forget)) ** T, forget)


def test_remember_changes_the_forget_gates_biases_alone():
    """In every LSTM a model holds: a reader of two directions and a writer."""
    model = built(Seq2Seq, 7, 4, True)
    before = {name: p.clone() for name, p in model.named_parameters()}
    remember(model, 3.0)
    told = 0
    for name, p in model.named_parameters():
        assert p.requires_grad
        if name.endswith((".x.bias", ".h.bias")):
            C, told = len(p) // 4, told + 1
            assert (p[C : 2 * C] == (3.0 if ".x." in name else 0.0)).all()
            p, before[name] = (torch.cat([bias[:C], bias[2 * C :]]) for bias in (p, before[name]))
        assert torch.equal(p, before[name]), name
    assert told == 6


@pytest.mark.parametrize(
    "model",
    [Recurrent(GRUCell, 3, 4), Recurrent(RNNCell, 3, 4), nn.LSTM(3, 4), nn.Linear(2, 2)],
    ids=["gru", "rnn", "library", "linear"],
)
def test_only_an_lstm_of_ours_can_be_told_to_remember(model):
    with pytest.raises(ValueError, match=f"model must hold an LSTMCell, got {type(model).__name__} without"):
        remember(model, 1.0)


# ----------------------------------------------------------------------------------- language models

RECURRENTS = {
    "rnn": lambda: Recurrent(RNNCell, 6, 6, 2),
    "gru": lambda: Recurrent(GRUCell, 6, 6),
    "lstm": lambda: Recurrent(LSTMCell, 6, 6, 2),
    "torch": lambda: nn.LSTM(6, 6, 2, batch_first=True),
}
LMS = pytest.mark.parametrize("inside", RECURRENTS.values(), ids=RECURRENTS)


def language_model(inside, seed=0):
    return built(RecurrentLM, 11, 6, inside(), seed=seed)


@LMS
def test_scores_are_dot_products_of_what_was_read_with_the_tokens_own_vectors(inside):
    model, ids = language_model(inside), words(seeded(0), 11, 3, 7)
    logits = model(ids).detach()
    table = model.tokens.weight.detach()
    y = model.recurrent(table[ids])[0].detach()
    expected = [[[y[b, t].dot(w).item() for w in table] for t in range(7)] for b in range(3)]
    assert_close(logits, torch.tensor(expected, dtype=torch.float64), "scores")


@LMS
def test_one_changed_token_moves_no_bit_before_it(inside):
    model, ids = language_model(inside), words(seeded(0), 11, 2, 6)
    for t in range(6):
        other = ids.clone()
        other[:, t] = (other[:, t] + 1) % 11
        before, after = model(ids), model(other)
        assert torch.equal(before[:, :t], after[:, :t])
        assert (before[:, t:] != after[:, t:]).any(-1).all()


@LMS
def test_a_text_read_in_two_parts_is_the_text(inside):
    model, ids = language_model(inside), words(seeded(0), 11, 2, 6)
    whole, end = model.read(ids)
    assert torch.equal(whole, model(ids))
    for t in range(1, 6):
        first, state = model.read(ids[:, :t])
        second, last = model.read(ids[:, t:], state)
        assert_close(torch.cat([first, second], dim=1).detach(), whole.detach(), t)
        assert_close(last[0].detach(), end[0].detach(), t)


@LMS
def test_the_embedding_learns_from_both_its_uses(inside):
    """Its gradient is that of a table to read with plus that of a table to score with."""
    model, ids = language_model(inside), words(seeded(0), 8, 2, 6)
    upstream = normal(seeded(1), 2, 6, 11)
    (found,) = torch.autograd.grad((model(ids) * upstream).sum(), model.tokens.weight)
    tables = [model.tokens.weight.detach().clone().requires_grad_() for _ in "ab"]
    logits = model.recurrent(F.embedding(ids, tables[0]))[0] @ tables[1].T
    read, scored = torch.autograd.grad((logits * upstream).sum(), tables)
    assert read.any()
    assert scored.any()
    assert_close(found, read + scored, "tied")
    assert not read[8:].any()  # tokens that were not read
    assert found[8:].any()


def test_a_language_models_seed_decides_its_vectors():
    def drawn(seed, **options):
        return RecurrentLM(90, 25, nn.Identity(), seed, **options).tokens.weight.detach()

    assert torch.equal(drawn(3), drawn(3))
    assert not (drawn(3) == drawn(4)).any()
    assert drawn(3).std() == pytest.approx(0.3, rel=0.05)
    assert torch.allclose(drawn(3, std=0.6), 2 * drawn(3))


@LMS
def test_truncated_stretches_have_the_loss_of_the_whole(inside):
    model, ids = language_model(inside), words(seeded(0), 11, 2, 13)
    logits = model(ids[:, :-1]).log_softmax(-1)
    each = [-logits[b, t, ids[b, t + 1]] for b in range(2) for t in range(12)]
    whole, end = truncated_loss(model, ids)
    assert_close(whole.detach(), torch.stack(each).mean().detach(), "whole")
    for step in (1, 3, 4, 6):
        losses, state = [], None
        for begin in range(0, 12, step):
            loss, state = truncated_loss(model, ids[:, begin : begin + step + 1], state)
            losses.append(loss.detach())
        assert_close(torch.stack(losses).mean(), whole.detach(), step)
        assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(state, end, strict=True))


@LMS
def test_no_gradient_reaches_an_earlier_stretch(inside):
    """Another model with the same weights read it: its gradients are none, and the later ones as if alone."""
    earlier, model = language_model(inside), language_model(inside)
    ids = words(seeded(0), 11, 2, 9)
    first, state = truncated_loss(earlier, ids[:, :5])
    loss, _ = truncated_loss(model, ids[:, 4:], state)
    assert first.requires_grad
    assert loss.requires_grad
    unused = torch.autograd.grad(loss, earlier.parameters(), allow_unused=True, retain_graph=True)
    assert all(gradient is None for gradient in unused)
    assert not any(part.requires_grad for part in state)
    found = torch.autograd.grad(loss, model.parameters())
    assert all(gradient.any() for gradient in found)
    whole = F.cross_entropy(model(ids[:, :-1])[:, 4:].flatten(0, 1), ids[:, 5:].flatten())
    assert_close(loss.detach(), whole.detach(), "loss")
    for a, b in zip(found, torch.autograd.grad(whole, model.parameters()), strict=True):
        assert (a - b).abs().max() > 1e-6  # the whole's gradient goes further back


# -------------------------------------------------------------------------------------------- attention


def test_additive_attention_by_its_equation_in_loops():
    for seed in range(20):
        random = seeded(seed)
        B, S, C = torch.randint(1, 7, (3,), generator=random).tolist()
        model = built(AdditiveAttention, C, seed=seed)
        q, memory = normal(random, B, C), normal(random, B, S, C)
        out, weights = (part.detach() for part in model(q, memory, model.key(memory)))
        W, b, U, v = (
            p.detach().numpy() for p in (*model.query.parameters(), model.key.weight, model.v.weight)
        )
        assert sum(p.numel() for p in model.parameters()) == W.size + b.size + U.size + v.size
        for i in range(B):
            row = memory[i].numpy()
            scores = np.array([v[0] @ np.tanh(W @ q[i].numpy() + b + U @ m) for m in row])
            shares = np.exp(scores) / np.exp(scores).sum()
            assert_close(weights[i], torch.from_numpy(shares), seed)
            assert_close(out[i], torch.from_numpy(sum(s * m for s, m in zip(shares, row, strict=True))), seed)
        assert_close(weights.sum(-1), torch.ones(B, dtype=torch.float64), seed)
        assert (weights > 0).all()


ATTENDS = pytest.mark.parametrize("attends", [True, False], ids=["attends", "one vector"])


def translator(attends, seed=0, B=3, S=5, T=4):
    """A model, a source and a target."""
    random = seeded(seed)
    return built(Seq2Seq, 9, 6, attends, seed=seed), words(random, 9, B, S), words(random, 9, B, T)


def translated(model, source, target):
    """Its logits and weights by torch's layers, with its own weights, and the attention of the equation."""
    reader = nn.LSTM(6, 3, batch_first=True, bidirectional=True).double()
    writer, parts = nn.LSTMCell(12, 6).double(), (("ih", model.writer.x), ("hh", model.writer.h))
    of_writer = {f"{kind}_{name}": p for name, part in parts for kind, p in part.named_parameters()}
    E = model.tokens.weight
    memory, (h, c) = functional_call(reader, in_torchs_words(model.reader), E[source])
    h, c = (torch.cat([part[0], part[1]], dim=1) for part in (h, c))
    context, rows, maps = h, [], []
    for t in range(target.shape[1]):
        if a := model.attention:
            shares = (torch.tanh(a.query(h)[:, None] + a.key(memory)) @ a.v.weight[0]).softmax(-1)
            context = torch.einsum("bs,bsc->bc", shares, memory)
            maps.append(shares)
        h, c = functional_call(writer, of_writer, (torch.cat([E[target[:, t]], context], dim=1), (h, c)))
        rows.append(model.scores(h))
    return torch.stack(rows, dim=1), torch.stack(maps, dim=1) if maps else None


@ATTENDS
def test_a_translator_is_torchs_layers_put_together(attends):
    for seed in range(5):
        model, source, target = translator(attends, seed, B=seed + 1, S=6 - seed, T=seed + 1)
        (out, weights), (expected, shares) = model(source, target), translated(model, source, target)
        assert out.shape == (*target.shape, 9)
        assert_close(out.detach(), expected.detach(), seed)
        assert (weights is not None) == attends
        if attends:
            assert weights.shape == (*target.shape, source.shape[1])
            assert_close(weights.detach(), shares.detach(), seed)
            assert_close(weights.detach().sum(-1), torch.ones(target.shape, dtype=torch.float64), seed)
        gradients = [torch.autograd.grad((y**2).sum(), list(model.parameters())) for y in (out, expected)]
        for a, b in zip(*gradients, strict=True):
            assert b.any(), seed
            assert_close(a, b, seed)


@ATTENDS
def test_without_attention_the_source_comes_through_its_last_state_alone(attends):
    """Spoil all that was read on the way: only a model that attends finds out."""
    model, source, target = translator(attends)
    whole = model(source, target)[0]
    model.reader.register_forward_hook(lambda _, given, result: (result[0] * torch.nan, result[1]))
    spoilt = model(source, target)[0]
    assert spoilt.isnan().all() if attends else torch.equal(spoilt, whole)


@ATTENDS
def test_without_its_last_state_nothing_of_the_source_comes_through(attends):
    """Unless it attends: then two sources still differ."""
    model, source, target = translator(attends)
    zeros = tuple(torch.zeros(2, 3, 3, dtype=torch.float64) for _ in "hc")
    model.reader.register_forward_hook(lambda _, given, result: (result[0], zeros))
    other = (source + 1) % 9
    assert torch.equal(model(source, target)[0], model(other, target)[0]) != attends


@ATTENDS
def test_a_written_word_moves_no_bit_before_it(attends):
    model, source, target = translator(attends)
    for t in range(4):
        other = target.clone()
        other[:, t] = (other[:, t] + 1) % 9
        before, after = (model(source, given)[0] for given in (target, other))
        assert torch.equal(before[:, :t], after[:, :t])
        assert (before[:, t:] != after[:, t:]).any(-1).all()


@ATTENDS
def test_a_translators_seed_decides_every_weight(attends):
    models = []
    for before, seed in ((0, 5), (1, 5), (0, 6)):
        torch.manual_seed(before)
        models.append(torch.cat([p.flatten() for p in Seq2Seq(50, 16, attends, seed).parameters()]))
    assert torch.equal(models[0], models[1])
    assert not (models[0] == models[2]).any()
    assert 0.24 < models[0].abs().max() <= 0.25


# ---------------------------------------------------------------------------------------- bad input

X = torch.ones(2, 5, 3)  # (B, T, inputs)
H = torch.zeros(2, 2, 4)  # (cells, B, C)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": 0}, "inputs must be at least 1, got 0"),
        ({"C": 0}, "C must be at least 1, got 0"),
        ({"C": -4}, "C must be at least 1, got -4"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout must lie in [0, 1), got 1.0"),
        ({"dropout": -0.1}, "dropout must lie in [0, 1), got -0.1"),
        ({"dropout": math.nan}, "dropout must lie in [0, 1), got nan"),
    ],
)
def test_sizes_no_network_has_are_named(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Recurrent(**{"cell": LSTMCell, "inputs": 3, "C": 4} | arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": X[0]}, "x must be (B, T, 3) and not empty, got shape (5, 3)"),
        ({"x": torch.ones(2, 5, 4)}, "x must be (B, T, 3) and not empty, got shape (2, 5, 4)"),
        ({"x": X[:, :0]}, "x must be (B, T, 3) and not empty, got shape (2, 0, 3)"),
        ({"x": X[:0]}, "x must be (B, T, 3) and not empty, got shape (0, 5, 3)"),
        ({"lengths": torch.tensor([5])}, "lengths must be (B = 2,) whole numbers, got (1,) torch.int64"),
        ({"lengths": torch.tensor([[5], [5]])}, "lengths must be (B = 2,) whole numbers, got (2, 1)"),
        (
            {"lengths": torch.tensor([5.0, 3.0])},
            "lengths must be (B = 2,) whole numbers, got (2,) torch.float32",
        ),
        ({"lengths": torch.tensor([5, 0])}, "lengths must lie in 1 … T = 5, got 0 … 5"),
        ({"lengths": torch.tensor([-1, 2])}, "lengths must lie in 1 … T = 5, got -1 … 2"),
        ({"lengths": torch.tensor([6, 2])}, "lengths must lie in 1 … T = 5, got 2 … 6"),
        ({"state": (H,)}, "state must hold tensors of the shapes [(2, 2, 4), (2, 2, 4)], got [(2, 2, 4)]"),
        ({"state": ()}, "state must hold tensors of the shapes [(2, 2, 4), (2, 2, 4)], got []"),
        (
            {"state": (H, H[:1])},
            "state must hold tensors of the shapes [(2, 2, 4), (2, 2, 4)], got [(2, 2, 4), (1",
        ),
        ({"state": (H[:, :1], H)}, "got [(2, 1, 4), (2, 2, 4)]"),
        ({"state": (H[..., :1], H)}, "got [(2, 2, 1), (2, 2, 4)]"),
    ],
)
def test_sequences_that_do_not_fit_are_named(arguments, message):
    model = Recurrent(LSTMCell, 3, 4, bidirectional=True)
    with pytest.raises(ValueError, match=re.escape(message)):
        model(**{"x": X} | arguments)


@CELLS
def test_a_state_has_as_many_parts_as_the_cell(cell):
    model = Recurrent(cell, 3, 4, layers=2)
    model(X, (H,) * model.cells[0].states)
    with pytest.raises(ValueError, match="state must hold tensors of the shapes"):
        model(X, (H,) * (3 - model.cells[0].states))


@pytest.mark.parametrize("C", [-2, 0, 1, 7])
def test_a_width_that_does_not_split_in_two_is_named(C):
    with pytest.raises(ValueError, match=f"C must be even, half for each direction, got {C}"):
        Seq2Seq(9, C, attends=True)


@ATTENDS
@pytest.mark.parametrize(
    ("S", "T", "B", "message"),
    [
        (0, 4, 3, "source must be (B, T) and not empty, got shape (3, 0)"),
        (5, 0, 3, "target must be (B, T) and not empty, got shape (3, 0)"),
        (5, 4, 2, "target must have one row a row of source: 3, got 2"),
    ],
)
def test_pairs_that_do_not_fit_are_named(S, T, B, message, attends):
    model, source, target = translator(attends)
    with pytest.raises(ValueError, match=re.escape(message)):
        model(source[:, :S], target[:B, :T])


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        (Recurrent(LSTMCell, 6, 3, bidirectional=True), "recurrent must read forwards alone"),
        (nn.LSTM(6, 3, batch_first=True, bidirectional=True), "recurrent must read forwards alone"),
        (nn.LSTM(6, 6), "recurrent must have batch_first=True"),
    ],
    ids=["ours", "torch", "across"],
)
def test_a_language_model_that_would_see_what_it_predicts_is_refused(inside, message):
    with pytest.raises(ValueError, match=message):
        RecurrentLM(11, 6, inside)


def test_an_empty_text_is_named():
    model = language_model(RECURRENTS["lstm"])
    with pytest.raises(ValueError, match=re.escape("x must be (B, T, 6) and not empty, got shape (2, 0, 6)")):
        truncated_loss(model, words(seeded(0), 11, 2, 1))
