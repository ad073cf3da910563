"""One training loop for every model of the course, stopped and gone on with at any step."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm.auto import tqdm

from course_utils.optim import check_ranges, warmup_cosine
from course_utils.runtime import generator, shows_progress

__taught__ = ["shuffled", "train", "descend", "windows", "next_token_loss"]

POOL = 50  # batches sorted by length together


@dataclass(frozen=True)
class Options:
    """How to train.

    Attributes:
        steps: updates of the whole run.
        lr: peak learning rate, reached after `warmup` steps, then down half a cosine to 0.
        warmup: steps up to the peak; 0 for none.
        clip: gradients longer than this are shortened to it.
        weight_decay: AdamW's, on matrices alone.
        betas: AdamW's.
        seed: of dropout; the batches have their own.
        every: steps between two validations, and between two checkpoints.
        patience: stop after so many validations in a row without a new best and go back to that; 0: never.
        mixed: matrix products in half precision; None: on a GPU alone. Processors with AVX-512 BF16 gain too.
        checkpoint: a safetensors file to keep the run in and go on from; None: nothing is kept.

    Raises:
        ValueError: a number out of its range, or a folder in place of the checkpoint's file.
    """

    steps: int
    lr: float = 1e-3
    warmup: int = 100
    clip: float = 1.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    seed: int = 0
    every: int = 200
    patience: int = 0
    mixed: bool | None = None
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        check_ranges(self, ("steps", "lr", "clip", "every"), ("warmup", "weight_decay", "patience"))
        for name in ("steps", "warmup", "seed", "every", "patience"):
            if getattr(self, name) % 1 != 0:
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}")
        if self.checkpoint and Path(self.checkpoint).is_dir():
            raise ValueError(f"checkpoint must be a file, got the folder {self.checkpoint}")


@dataclass
class History:
    """What happened: the loss and the gradient's norm at each step, and (step, value) of each validation."""

    loss: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)
    valid: list[tuple[int, float]] = field(default_factory=list)


def shuffled(
    N: int, B: int, seed: int = 0, lengths: torch.Tensor | None = None
) -> Callable[[int], torch.Tensor]:
    """A function from the step to the indices of its batch; each epoch a new order, alike on every machine.

    Args:
        N: examples.
        B: examples a batch; an epoch's last few that fill none are left out.
        seed: of the orders.
        lengths: (N,) where given, examples of like length share a batch, so that little is padding.

    Raises:
        ValueError: a batch larger than the data, or lengths of another number.
    """
    check_batches(N, B, lengths)

    @lru_cache(maxsize=1)
    def epoch(number: int) -> list[torch.Tensor]:
        draw = generator(seed * 1_000_003 + number)
        order = torch.randperm(N, generator=draw)[: N // B * B]
        if lengths is not None:
            pools = order.split(POOL * B)
            order = torch.cat([pool[lengths[pool].argsort(stable=True)] for pool in pools])
        rows = order.split(B)
        return [rows[i] for i in torch.randperm(len(rows), generator=draw)]

    return lambda step: epoch(step // (N // B))[step % (N // B)]


def check_batches(N: int, B: int, lengths: torch.Tensor | None) -> None:
    """Raises ValueError where N examples give no batch of B, or have another number of lengths."""
    if not 0 < B <= N:
        raise ValueError(f"B must lie in [1, N = {N}], got {B}")
    if lengths is not None and lengths.shape != (N,):
        raise ValueError(f"lengths must be (N = {N},), got shape {tuple(lengths.shape)}")


def windows(stream: np.ndarray, B: int, T: int, seed: int = 0) -> Callable[[int], torch.Tensor]:
    """A function from the step to B stretches of T + 1 tokens, drawn anywhere in a stream.

    Args:
        stream: (N,) ids, as `bpe.token_stream` gives.
        B: stretches a batch.
        T: tokens the model reads; one more is needed to have each one's next.
        seed: of the draws.

    Returns:
        step → (B, T + 1) ids on the CPU.

    Raises:
        ValueError: a stream of T tokens or fewer.
    """
    check_stream(stream, T)

    def batch(step: int) -> torch.Tensor:
        draw = generator(seed * 1_000_003 + step)
        starts = torch.randint(0, len(stream) - T, (B, 1), generator=draw)
        return torch.from_numpy(stream[starts + torch.arange(T + 1)].astype(np.int64))  # (B, T + 1)

    return batch


def next_token_loss(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each token given those before it, in nats a token; ids (B, T + 1)."""
    ids = ids.to(next(model.parameters()).device)
    logits = model(ids[:, :-1])  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())  # (B * T, V), (B * T,)


def check_stream(stream: np.ndarray, T: int) -> None:
    """Raises ValueError where a stream has no stretch of T + 1 tokens."""
    if stream.ndim != 1 or not 0 < T < len(stream):
        raise ValueError(f"stream must be one row of more than T = {T} ids, got shape {stream.shape}")


def save_card(folder: Path, command: str, options: Options, history: History, known: dict) -> None:
    """Write to card.json, beside stored weights, how they came about: command, options, what is known."""
    card = {
        "command": command,
        "options": {name: value for name, value in asdict(options).items() if name != "checkpoint"},
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        "valid": history.valid,
    }
    (folder / "card.json").write_text(json.dumps(card | known, indent=1) + "\n", "utf-8")


def train(
    model: nn.Module,
    batch: Callable[[int], object],
    loss: Callable[[nn.Module, object], torch.Tensor],
    options: Options,
    validate: Callable[[nn.Module], float] | None = None,
) -> History:
    """Train with AdamW; on a GPU in mixed precision. An interrupt waits for the step to be done and saved.

    Args:
        model: on its device already; left in evaluation mode.
        batch: from the step to what `loss` needs; a function of the step alone, so that a run can be resumed.
        loss: from the model and a batch to what is minimised.
        options: see `Options`. Where its checkpoint exists the run goes on from there.
        validate: from the model to a number, smaller being better, called every `every` steps.

    Returns:
        Losses, gradient norms and validations of the whole run, resumed parts included.

    Raises:
        FloatingPointError: loss or gradient is no longer finite; names the step. The last checkpoint stays.
        KeyboardInterrupt: it was interrupted; names the step. The model is left as at a run's end.
        ValueError: the checkpoint is another model's, or damaged.
    """
    run = Run(model, options)
    with interrupts(run.stopped) as interrupted, run.progress() as bar:
        while run.step < options.steps and not run.patience_ended() and not interrupted():
            torch.manual_seed(options.seed * 1_000_003 + run.step)  # dropout: a function of the step alone
            model.train()
            with run.autocast():
                value = loss(model, batch(run.step))
            run.update(value)
            bar.update()
            if run.step % options.every == 0 or run.step == options.steps:
                run.measure(validate)
        run.save()
        return run.finish()


def descend(
    value: torch.Tensor,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    rate: float,
    clip: float,
) -> tuple[float, float]:
    """One update: backward, clip, step.

    Args:
        value: the loss, with its graph.
        scaler: keeps float16 gradients from vanishing; does nothing where it is switched off.
        rate: learning rate of this step.
        clip: the longest gradient allowed.

    Returns:
        The loss and the gradient's norm before clipping.

    Raises:
        FloatingPointError: the loss is not finite; nothing has been changed then.
    """
    require_finite(value)
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    scaler.scale(value).backward()
    scaler.unscale_(optimiser)
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    scaler.step(optimiser)
    scaler.update()
    return value.item(), norm.item()


def require_finite(value: torch.Tensor, name: str = "loss") -> None:
    """Raises FloatingPointError where a loss or a gradient's norm is NaN or infinite."""
    if not math.isfinite(number := value.item()):
        raise FloatingPointError(f"the {name} is {number}: lower lr, or look at the data")


class Run:
    """A training run's state: model, optimiser, step, history, best weights so far."""

    def __init__(self, model: nn.Module, options: Options) -> None:
        """Start afresh, or from the options' checkpoint."""
        self.model, self.options = model, options
        self.step, self.history, self.best = 0, History(), {}
        self.device = next(model.parameters()).device.type
        self.mixed = self.device == "cuda" if options.mixed is None else options.mixed
        fp16 = self.device == "cuda" and not torch.cuda.is_bf16_supported(
            including_emulation=False
        )  # a T4, say
        self.half = torch.float16 if fp16 else torch.bfloat16
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.mixed and fp16)
        self.optimiser = torch.optim.AdamW(
            _groups(model, options), lr=options.lr, betas=options.betas, fused=self.device in ("cpu", "cuda")
        )
        if options.checkpoint and Path(options.checkpoint).is_file():
            self.load(Path(options.checkpoint))

    def autocast(self) -> torch.autocast:
        """Mixed precision: bfloat16, or on a GPU that has none float16, with a scaler."""
        return torch.autocast(self.device, self.half, enabled=self.mixed)

    def progress(self) -> tqdm:
        """A bar over the steps, gone when done; none where COURSE_QUIET asks for none."""
        off = not shows_progress()
        return tqdm(initial=self.step, total=self.options.steps, unit="step", leave=False, disable=off)

    def update(self, value: torch.Tensor) -> None:
        """One step along the gradient of the loss, noted in the history."""
        options = self.options
        rate = options.lr * warmup_cosine(self.step, options.steps, options.warmup)
        try:
            number, norm = descend(value, self.model, self.optimiser, self.scaler, rate, options.clip)
            if not self.scaler.is_enabled():  # which leaves out a step whose gradient is not finite
                require_finite(torch.tensor(norm), "gradient's norm")
        except FloatingPointError as error:
            raise FloatingPointError(f"step {self.step}: {error}") from None
        self.history.loss.append(number)
        self.history.norm.append(norm)
        self.step += 1

    def measure(self, validate: Callable[[nn.Module], float] | None) -> None:
        """Validate and keep a checkpoint, each where it is asked for."""
        self.validate(validate)
        self.save()

    def validate(self, validate: Callable[[nn.Module], float] | None) -> None:
        """Measure the model without dropout or gradients; with patience, remember the best weights."""
        if validate is None:
            return
        self.model.eval()
        with torch.no_grad():
            value = float(validate(self.model))
        if math.isnan(value):
            raise FloatingPointError(f"step {self.step}: validate gave nan")
        self.history.valid.append((self.step, value))
        if self.options.patience and self.since_best() == 0:
            self.best = {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def patience_ended(self) -> bool:
        """Whether the last `patience` validations brought no new best; an equal one is not new."""
        return bool(self.options.patience) and self.since_best() >= self.options.patience

    def since_best(self) -> int:
        """How many validations there have been since the first of the best."""
        values = [value for _, value in self.history.valid]
        return len(values) - 1 - values.index(min(values)) if values else 0

    def finish(self) -> History:
        """Leave the best weights, where they were kept, in the model, and the model in evaluation mode."""
        self.model.eval()
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.copy_(self.best.get(name, p))
        return self.history

    def stopped(self) -> str:
        """What to say of a run that was stopped here."""
        again = "; run it again to go on from there" if self.options.checkpoint else ""
        return f"training stopped at step {self.step} of {self.options.steps}{again}"

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        if not self.options.checkpoint:
            return
        tensors = {}
        for name, p in self.model.named_parameters():
            tensors[f"model.{name}"] = p.detach().contiguous()
            tensors |= {f"optimiser.{key}.{name}": value for key, value in self.optimiser.state[p].items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        metadata = {
            "history": json.dumps(self.history.__dict__),
            "scaler": json.dumps(self.scaler.state_dict()),
        }
        file = Path(self.options.checkpoint)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial_file = file.with_suffix(".partial")
        save_file(tensors, partial_file, metadata)
        partial_file.replace(file)

    def load(self, file: Path) -> None:
        """Take up a run where its checkpoint left it."""
        try:
            stored = safe_open(file, "pt", device=self.device)
        except SafetensorError as error:
            raise ValueError(
                f"checkpoint {file.name} is damaged ({error}): delete it to start anew"
            ) from None
        with stored, torch.no_grad():
            keys = set(stored.keys())
            check_fit(self.model, {key: stored.get_slice(key).get_shape() for key in keys}, file)
            for name, p in self.model.named_parameters():
                p.copy_(stored.get_tensor(f"model.{name}"))
                if f"best.{name}" in keys:
                    self.best[name] = stored.get_tensor(f"best.{name}")
                for part in ("step", "exp_avg", "exp_avg_sq"):  # none before the first step, or where frozen
                    if (key := f"optimiser.{part}.{name}") in keys:
                        self.optimiser.state[p][part] = stored.get_tensor(key)
            history = json.loads(stored.metadata()["history"])
            if scaler := json.loads(stored.metadata().get("scaler", "{}")):  # empty without float16
                self.scaler.load_state_dict(scaler)
        history["valid"] = [(step, value) for step, value in history["valid"]]
        self.history = History(**history)
        self.step = len(self.history.loss)


def check_fit(model: nn.Module, shapes: dict[str, list[int]], file: Path) -> None:
    """Raises ValueError unless a checkpoint's weights have the names and shapes of the model's."""
    stored = {key: shape for key, shape in shapes.items() if key.startswith("model.")}
    own = {f"model.{name}": [*p.shape] for name, p in model.named_parameters()}
    if wrong := sorted(key for key in own.keys() | stored.keys() if own.get(key) != stored.get(key)):
        raise ValueError(
            f"checkpoint {file.name} is another model's: {wrong[0].removeprefix('model.')} does not fit"
        )


def _groups(model: nn.Module, options: Options) -> list[dict]:
    """Weight decay pulls on matrices, not on biases and gains."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    return [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


@contextmanager
def interrupts(message: Callable[[], str]) -> Iterator[Callable[[], bool]]:
    """Turn an interrupt into a question the loop asks between steps; a second one interrupts at once.

    Args:
        message: what to say, asked for at the end.

    Raises:
        KeyboardInterrupt: there was one, at the end of the block; not where the block raises something else.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def note(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
    if asked.is_set():
        raise KeyboardInterrupt(message())
