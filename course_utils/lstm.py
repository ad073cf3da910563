"""Recurrent networks, from their equations: cells, layers of them, a language model, and the first attention.

Source: Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997, with the forget
gate of Gers, Schmidhuber & Cummins 2000; and the papers named here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.attention import padding_mask
from course_utils.runtime import generator

__taught__ = [
    "RNNCell",
    "LSTMCell",
    "GRUCell",
    "unroll",
    "Recurrent",
    "dropout_mask",
    "remember",
    "RecurrentLM",
    "truncated_loss",
    "AdditiveAttention",
    "Seq2Seq",
]

State = tuple[torch.Tensor, ...]  # of one cell: (h,), or (h, c) of an LSTM, each (B, C)


class RNNCell(nn.Module):
    """h_t = tanh(W_x x_t + b_x + W_h h_{t-1} + b_h). Source: Elman 1990, "Finding structure in time"."""

    states = 1

    def __init__(self, inputs: int, C: int) -> None:
        """inputs: width of x. C: width of h."""
        super().__init__()
        self.x, self.h = nn.Linear(inputs, C), nn.Linear(C, C)

    def forward(self, x: torch.Tensor, state: State, keep: torch.Tensor | float = 1.0) -> State:
        """One step.

        Args:
            x: (B, C), W_x x_t + b_x, which `unroll` computes for all steps at once.
            state: (h,), (B, C).
            keep: (B, C) dropout mask of what the gates see of h.
        """
        (h,) = state
        return (torch.tanh(x + self.h(h * keep)),)


class LSTMCell(nn.Module):
    """A memory c that is kept, written and read through gates.

    i, f, o = σ(W x_t + b + U h_{t-1} + b'), each with its own W, U, b, b'; g = tanh(of the same form);
    c_t = f ⊙ c_{t-1} + i ⊙ g, h_t = o ⊙ tanh(c_t). Source: Gers, Schmidhuber & Cummins 2000, "Learning to
    forget", without peepholes.
    """

    states = 2

    def __init__(self, inputs: int, C: int) -> None:
        """inputs: width of x. C: width of h and c. Rows of the matrices: i, f, g, o."""
        super().__init__()
        self.x, self.h = nn.Linear(inputs, 4 * C), nn.Linear(C, 4 * C)

    def forward(self, x: torch.Tensor, state: State, keep: torch.Tensor | float = 1.0) -> State:
        """As `RNNCell`, with x (B, 4 C) and state (h, c)."""
        h, c = state
        i, f, g, o = (x + self.h(h * keep)).chunk(4, dim=-1)  # (B, C) each
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class GRUCell(nn.Module):
    """r, z = σ(W x_t + b + U h_{t-1} + b'), n = tanh(W x_t + b + r ⊙ (U h_{t-1} + b')),
    h_t = (1 - z) ⊙ n + z ⊙ h_{t-1}.

    Source: Cho et al. 2014, arXiv:1406.1078; the reset gate stands after the product, as in cuDNN and torch.
    """

    states = 1

    def __init__(self, inputs: int, C: int) -> None:
        """inputs: width of x. C: width of h. Rows of the matrices: r, z, n."""
        super().__init__()
        self.x, self.h = nn.Linear(inputs, 3 * C), nn.Linear(C, 3 * C)

    def forward(self, x: torch.Tensor, state: State, keep: torch.Tensor | float = 1.0) -> State:
        """As `RNNCell`, with x (B, 3 C)."""
        (h,) = state
        x_r, x_z, x_n = x.chunk(3, dim=-1)  # (B, C) each
        h_r, h_z, h_n = self.h(h * keep).chunk(3, dim=-1)
        z = (x_z + h_z).sigmoid()
        n = torch.tanh(x_n + (x_r + h_r).sigmoid() * h_n)
        return ((1 - z) * n + z * h,)


def unroll(
    cell: nn.Module,
    x: torch.Tensor,
    state: State,
    alive: torch.Tensor | None = None,
    backwards: bool = False,
    keep: torch.Tensor | None = None,
) -> tuple[torch.Tensor, State]:
    """Walk a cell along padded sequences, each step needing the one before.

    Args:
        cell: of this module.
        x: (B, T, inputs).
        state: before the first step.
        alive: (B, T, 1) bool, False at padding, where the state stays as it is and the output is 0; None
            where nothing is padded.
        backwards: from the last word to the first.
        keep: (B, T, C) dropout masks of h, None for no dropout.

    Returns:
        outputs (B, T, C), and the state after the last word of each sequence.
    """
    T = x.shape[1]
    inputs, outputs = cell.x(x).unbind(dim=1), [None] * T  # T of (B, gates · C), independent of one another
    for t in reversed(range(T)) if backwards else range(T):
        new = cell(inputs[t], state) if keep is None else cell(inputs[t], state, keep[:, t])
        if alive is None:
            state, outputs[t] = new, new[0]
        else:
            state = tuple(n.where(alive[:, t], old) for n, old in zip(new, state, strict=True))
            outputs[t] = new[0] * alive[:, t]
    return torch.stack(outputs, dim=1), state  # (B, T, C)


class Recurrent(nn.Module):
    """Layers of cells over padded sequences, in one direction or both.

    Attributes:
        cells: layer by layer, the backward cell after the forward one.

    Raises:
        ValueError: a size below 1, or a dropout outside [0, 1).

    Source: Schuster & Paliwal 1997 (both directions); Gal & Ghahramani 2016, arXiv:1512.05287 (one dropout
    mask for all steps of a sequence).
    """

    def __init__(
        self,
        cell: Callable[[int, int], nn.Module],
        inputs: int,
        C: int,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        variational: bool = True,
        seed: int = 0,
    ) -> None:
        """Draw a network.

        Args:
            cell: RNNCell, GRUCell or LSTMCell.
            inputs: width of x.
            C: width of each cell.
            layers: of cells, each reading the outputs of the one before.
            bidirectional: each layer also reads backwards; the outputs stand side by side.
            dropout: share of each layer's inputs, and of h on its way into the gates, dropped in training.
            variational: one mask for all steps of a sequence; otherwise a new one each step.
            seed: of the first weights.
        """
        super().__init__()
        check_sizes(inputs, C, layers, dropout)
        self.C, self.directions = C, 1 + bidirectional
        self.dropout, self.variational = dropout, variational
        widths = [inputs] + [C * self.directions] * (layers - 1)
        self.cells = nn.ModuleList(cell(width, C) for width in widths for _ in range(self.directions))
        initialise(self, C, seed)

    def forward(
        self, x: torch.Tensor, state: State | None = None, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, State]:
        """Read sequences.

        Args:
            x: (B, T, inputs).
            state: before the first word, (cells, B, C) for h and, of an LSTM, for c, such as this method
                returns; None for zeros.
            lengths: (B,) words in each sequence, the rest being padding; None where all have T.

        Returns:
            outputs (B, T, directions · C), 0 at padding, and the state after each sequence's last word.

        Raises:
            ValueError: x is empty or of another width, a length outside 1 … T, or a state that does not fit.
        """
        check_sequences(x, state, lengths, self)
        alive = None if lengths is None else padding_mask(lengths.to(x.device), x.shape[1]).mT  # (B, T, 1)
        x = x if alive is None else x.where(alive, 0.0)  # else NaN in padding would reach the gradients
        state = state or (x.new_zeros(len(self.cells), len(x), self.C),) * self.cells[0].states
        starts, ends = list(zip(*state, strict=True)), []  # a state for each cell
        rate = self.dropout if self.training else 0.0
        for layer in range(0, len(self.cells), self.directions):
            mask, sides = dropout_mask(x, x.shape[-1], rate, self.variational), []
            x = x if mask is None else x * mask
            for k in range(layer, layer + self.directions):
                keep = dropout_mask(x, self.C, rate, self.variational)
                y, end = unroll(self.cells[k], x, starts[k], alive, backwards=k > layer, keep=keep)
                sides.append(y)
                ends.append(end)
            x = torch.cat(sides, dim=-1)  # (B, T, directions * C)
        return x, tuple(torch.stack(parts) for parts in zip(*ends, strict=True))


def dropout_mask(x: torch.Tensor, width: int, rate: float, same: bool) -> torch.Tensor | None:
    """What to multiply by to drop a share of numbers: 0 where dropped, 1 / (1 - rate) elsewhere.

    Args:
        x: (B, T, …) sequences; B, T, device and precision are theirs.
        width: numbers a step.
        rate: share dropped.
        same: one mask for all steps of a sequence; otherwise a new one each step.

    Returns:
        (B, T, width), or None where nothing is dropped.

    Source: Gal & Ghahramani 2016, arXiv:1512.05287, section 4 (same); Srivastava et al. 2014 (dropout).
    """
    if not rate:
        return None
    B, T, _ = x.shape
    return F.dropout(x.new_ones(B, 1 if same else T, width), rate).expand(B, T, width)


def initialise(module: nn.Module, C: int, seed: int) -> None:
    """Draw all weights and biases from U(-1/√C, 1/√C), as torch's recurrent layers do, by a CPU generator."""
    draw = generator(seed)
    for p in module.parameters():
        nn.init.uniform_(p, -(C**-0.5), C**-0.5, generator=draw)


@torch.no_grad()
def remember(model: nn.Module, forget: float) -> None:
    """Set the bias of an LSTM's forget gates, so that they start near σ(forget).

    Args:
        model: a `Recurrent` of `LSTMCell`s, or a model that holds some; changed in place.
        forget: the sum of both biases; 0 leaves half of the memory each step, 3 keeps 95 %.

    Raises:
        ValueError: the model has no LSTM cell.

    Source: Gers, Schmidhuber & Cummins 2000; Jozefowicz, Zaremba & Sutskever 2015 (1 instead of 0).
    """
    cells = lstm_cells(model)
    for cell in cells:
        C = cell.h.in_features
        cell.x.bias[C : 2 * C], cell.h.bias[C : 2 * C] = forget, 0.0  # the second of i, f, g, o


def lstm_cells(model: nn.Module) -> list[nn.Module]:
    """The LSTM cells of a model. Raises ValueError where it has none."""
    # by the number of states, not by class: a page that shows LSTMCell has a class of its own
    if not (cells := [part for part in model.modules() if getattr(part, "states", 0) == 2]):
        raise ValueError(f"model must hold an LSTMCell, got {type(model).__name__} without one")
    return cells


@torch.no_grad()
def as_torch(model: nn.Module) -> nn.RNNBase:
    """The library's `nn.RNN`, `nn.GRU` or `nn.LSTM` with the sizes and weights of a `Recurrent`.

    Its loop over the steps is compiled. It has no dropout; its batch axis comes first, too.
    """
    cell = model.cells[0]
    kind = {1: nn.RNN, 3: nn.GRU, 4: nn.LSTM}[cell.h.out_features // model.C]
    layers, both = len(model.cells) // model.directions, model.directions == 2
    theirs = kind(cell.x.in_features, model.C, layers, batch_first=True, bidirectional=both)
    theirs.to(cell.h.weight)  # to its device and precision, before a number is rounded
    ours = [(c.x.weight, c.h.weight, c.x.bias, c.h.bias) for c in model.cells]  # in the library's order
    for p, q in zip(theirs.parameters(), sum(ours, ()), strict=True):
        p.copy_(q)
    return theirs


class RecurrentLM(nn.Module):
    """A recurrent language model: embedding, recurrent layers, and the embedding again for the scores.

    Source: Mikolov et al. 2010, "Recurrent neural network based language model"; tied: Press & Wolf 2017.
    """

    def __init__(self, V: int, C: int, recurrent: nn.Module, seed: int = 0, std: float = 0.3) -> None:
        """Put vectors around a reader.

        Args:
            V: vocabulary size.
            C: width.
            recurrent: `Recurrent` or `nn.LSTM`, C wide, forwards alone.
            seed: of the token vectors.
            std: of the token vectors at first; small ones tell the gates little, and learning starts slowly.

        Raises:
            ValueError: a reader that sees what it is to predict, or reads across the batch.
        """
        super().__init__()
        check_one_way(recurrent)
        self.tokens, self.recurrent = nn.Embedding(V, C), recurrent
        nn.init.normal_(self.tokens.weight, std=std, generator=generator(seed))

    def read(self, ids: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """ids (B, T) and the state they go on from → logits (B, T, V) of the next token, state at the end."""
        y, state = self.recurrent(self.tokens(ids), state)  # (B, T, C)
        return y @ self.tokens.weight.T, state

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """ids (B, T) → logits (B, T, V), from an empty memory."""
        return self.read(ids)[0]


def truncated_loss(
    model: nn.Module, ids: torch.Tensor, state: State | None = None
) -> tuple[torch.Tensor, State]:
    """Next-token loss of one stretch of a long text; its state goes on from the last one, gradients do not.

    Args:
        model: has `read`.
        ids: (B, T + 1), of which the first T are read.
        state: that the last call returned, or None at the start of the text.

    Returns:
        loss in nats a token, and the state for the next stretch, cut from the graph.

    Source: Williams & Peng 1990, "An efficient gradient-based algorithm for on-line training of recurrent
    network trajectories".
    """
    logits, state = model.read(ids[:, :-1], state)  # (B, T, V)
    loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())  # (B * T, V), (B * T,)
    return loss, tuple(part.detach() for part in state)


class AdditiveAttention(nn.Module):
    """weights = softmax_s(v · tanh(W q + U m_s)), output = Σ_s weights_s m_s.

    Source: Bahdanau, Cho & Bengio 2015, arXiv:1409.0473, section 3.1 and appendix A.1.2.
    """

    def __init__(self, C: int) -> None:
        """C: width of the query and of the memory."""
        super().__init__()
        self.query, self.key, self.v = (
            nn.Linear(C, C),
            nn.Linear(C, C, bias=False),
            nn.Linear(C, 1, bias=False),
        )

    def forward(
        self, q: torch.Tensor, memory: torch.Tensor, keys: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """q (B, C), memory (B, S, C), keys (B, S, C) = self.key(memory) → output (B, C), weights (B, S)."""
        energies = self.v(torch.tanh(self.query(q)[:, None] + keys)).squeeze(-1)  # (B, S)
        weights = energies.softmax(dim=-1)
        return (weights[:, None] @ memory).squeeze(1), weights  # (B, C), (B, S)


class Seq2Seq(nn.Module):
    """An LSTM that writes what another has read: from one fixed vector, or attending to all it has read.

    Source: Cho et al. 2014, arXiv:1406.1078 (one vector, at every step); Bahdanau et al. 2015 (attention).
    """

    def __init__(self, V: int, C: int, attends: bool, seed: int = 0) -> None:
        """V: vocabulary size. C: width, even. attends: by `AdditiveAttention`. seed: of the weights."""
        super().__init__()
        check_even(C)
        self.tokens, self.scores = nn.Embedding(V, C), nn.Linear(C, V)
        self.reader = Recurrent(LSTMCell, C, C // 2, bidirectional=True)
        self.writer = LSTMCell(2 * C, C)
        self.attention = AdditiveAttention(C) if attends else None
        initialise(self, C, seed)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """source (B, S), target (B, T) → logits (B, T, V) of what follows, weights (B, T, S) or None."""
        check_pairs(source, target)
        memory, ends = self.reader(self.tokens(source))  # (B, S, C)
        state = tuple(sides.transpose(0, 1).flatten(1) for sides in ends)  # h and c: (2, B, C / 2) -> (B, C)
        context, rows, maps = state[0], [], []
        keys = self.attention.key(memory) if self.attention else None  # (B, S, C)
        for x in self.tokens(target).unbind(dim=1):  # T of (B, C)
            if self.attention:
                context, weights = self.attention(state[0], memory, keys)
                maps.append(weights)
            state = self.writer(self.writer.x(torch.cat([x, context], dim=-1)), state)
            rows.append(self.scores(state[0]))
        return torch.stack(rows, dim=1), torch.stack(maps, dim=1) if maps else None


def check_one_way(recurrent: nn.Module) -> None:
    """Raises ValueError where a language model would see what it predicts, or other texts of the batch."""
    if getattr(recurrent, "bidirectional", False) or getattr(recurrent, "directions", 1) > 1:
        raise ValueError("recurrent must read forwards alone, else it sees the token it is to predict")
    if not getattr(recurrent, "batch_first", True):
        raise ValueError("recurrent must have batch_first=True, else it reads across the batch")


def check_pairs(source: torch.Tensor, target: torch.Tensor) -> None:
    """Raises ValueError unless source is (B, S) and target (B, T), with tokens in them."""
    for name, ids in (("source", source), ("target", target)):
        if ids.dim() != 2 or not ids.numel():
            raise ValueError(f"{name} must be (B, T) and not empty, got shape {tuple(ids.shape)}")
    if len(source) != len(target):
        raise ValueError(f"target must have one row a row of source: {len(source)}, got {len(target)}")


def check_even(C: int) -> None:
    """Raises ValueError where a width does not split into both directions."""
    if C < 2 or C % 2:
        raise ValueError(f"C must be even, half for each direction, got {C}")


def check_sizes(inputs: int, C: int, layers: int, dropout: float) -> None:
    """Raises ValueError where no network has such sizes."""
    for name, size in (("inputs", inputs), ("C", C), ("layers", layers)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {dropout}")


def check_sequences(
    x: torch.Tensor, state: State | None, lengths: torch.Tensor | None, model: nn.Module
) -> None:
    """Raises ValueError unless x is (B, T, inputs) with words in it, and state and lengths fit."""
    inputs = model.cells[0].x.in_features
    if x.dim() != 3 or x.shape[-1] != inputs or not x.numel():
        raise ValueError(f"x must be (B, T, {inputs}) and not empty, got shape {tuple(x.shape)}")
    if lengths is not None:
        check_lengths(lengths, *x.shape[:2])
    wanted = [(len(model.cells), len(x), model.C)] * model.cells[0].states
    if state is not None and [tuple(part.shape) for part in state] != wanted:
        got = [tuple(part.shape) for part in state]
        raise ValueError(f"state must hold tensors of the shapes {wanted}, got {got}")


def check_lengths(lengths: torch.Tensor, B: int, T: int) -> None:
    """Raises ValueError unless lengths are (B,) whole numbers from 1 to T."""
    if lengths.shape != (B,) or lengths.is_floating_point():
        raise ValueError(
            f"lengths must be (B = {B},) whole numbers, got {tuple(lengths.shape)} {lengths.dtype}"
        )
    if lengths.min() < 1 or lengths.max() > T:
        raise ValueError(f"lengths must lie in 1 … T = {T}, got {int(lengths.min())} … {int(lengths.max())}")
