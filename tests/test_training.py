"""The training loop: what it computes, that it can be stopped anywhere, and what it refuses."""

import io
import itertools
import json
import math
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from course_utils import training
from course_utils.runtime import generator
from course_utils.training import (
    Options,
    Run,
    descend,
    interrupts,
    next_token_loss,
    shuffled,
    train,
    windows,
)

QUICK = Options(steps=12, lr=0.01, warmup=3, every=4)
X = torch.randn(64, 6, generator=generator(1))
Y = X @ torch.randn(6, 3, generator=generator(2))


@pytest.fixture(autouse=True)
def one_thread():
    """Deterministic means: on a CPU, at a fixed number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(seed=0, width=8, dropout=0.3, dtype=torch.float32):
    """A model with matrices, vectors and dropout."""
    model = nn.Sequential(nn.Linear(6, width), nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator(seed + p.numel())) / 3)
    return model.to(dtype)


ORDER = shuffled(len(X), 10, seed=4)


def squared(model, rows):
    return ((model(X[rows]) - Y[rows]) ** 2).mean()


def held_out(model):
    return float(squared(model, torch.arange(20)))


def trained(options, seed=0, loss=squared, validate=held_out, model=None):
    model = model or small(seed)
    return model, train(model, ORDER, loss, options, validate)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def stored(file):
    """All tensors of a checkpoint, and what is noted beside them."""
    with safe_open(file, "pt") as tensors:
        return {key: tensors.get_tensor(key) for key in list(tensors.keys())}, tensors.metadata()


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


class At:
    """The squared loss, but at its call number `step` (from 0) something happens first."""

    def __init__(self, step, happens):
        self.step, self.happens, self.calls = step, happens, itertools.count()

    def __call__(self, model, rows):
        factor = self.happens() if next(self.calls) == self.step else None
        return squared(model, rows) * (1.0 if factor is None else factor)


def interrupt():
    signal.raise_signal(signal.SIGINT)


def interrupted(options, at, step, seed=0, model=None, validate=held_out):
    """The model of a run interrupted at the loss's call number `at`, which raises once `step` is done."""
    model, again = model or small(seed), "; run it again to go on from there" * bool(options.checkpoint)
    with pytest.raises(KeyboardInterrupt) as raised:
        trained(options, loss=At(at, interrupt), validate=validate, model=model)
    assert str(raised.value) == f"training stopped at step {step} of {options.steps}{again}"
    assert not model.training
    return model


def history_in(file):
    return json.loads(stored(file)[1]["history"])


# --- what it computes ---------------------------------------------------------------------------------------


def by_hand(model, options):
    """The same training as a plain loop, each rule written out."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": options.weight_decay}, {"params": vectors, "weight_decay": 0}],
        betas=options.betas,
    )
    rates, norms, losses = [], [], []
    for s in range(options.steps):
        falling = (s - options.warmup) / (options.steps - options.warmup)
        up = (s + 1) / options.warmup if s < options.warmup else None
        rates.append(options.lr * (up or 0.5 * (1 + math.cos(math.pi * falling))))
        optimiser.param_groups[0]["lr"] = optimiser.param_groups[1]["lr"] = rates[-1]
        loss = squared(model, ORDER(s))
        model.zero_grad()
        loss.backward()
        norms.append(math.sqrt(sum(float((p.grad**2).sum()) for p in model.parameters())))
        for p in model.parameters():
            p.grad *= min(1.0, options.clip / (norms[-1] + 1e-6))
        optimiser.step()
        losses.append(loss.item())
    return rates, norms, losses


def test_thirty_steps_are_those_of_a_plain_loop(monkeypatch):
    """Warm-up and cosine, clipping where it binds and where not, decay, betas: all in float64."""
    monkeypatch.setattr(sys.modules[__name__], "X", X.double())
    monkeypatch.setattr(sys.modules[__name__], "Y", Y.double())
    options = Options(steps=30, lr=0.03, warmup=7, clip=1.5, weight_decay=0.2, betas=(0.8, 0.95), every=50)
    first, second = (small(dropout=0.0, dtype=torch.float64) for _ in range(2))
    history = train(first, ORDER, squared, options)
    rates, norms, losses = by_hand(second, options)
    assert (weights(first) - weights(second)).abs().max() <= 1e-10
    assert history.loss == pytest.approx(losses, rel=1e-10)
    assert history.norm == pytest.approx(norms, rel=1e-10)
    assert min(norms) < options.clip < max(norms)  # both cases are met
    assert max(rates) == rates[6] == pytest.approx(options.lr)
    assert history.valid == []


def test_weight_decay_is_of_matrices_alone():
    """Without a gradient AdamW's step is the decay: 1 - lr · decay."""
    model, before = small(), small()
    options = Options(steps=1, lr=0.1, warmup=0, weight_decay=0.5)
    train(model, ORDER, lambda m, _: sum(p.sum() for p in m.parameters()) * 0, options)
    for p, old in zip(model.parameters(), before.parameters(), strict=True):
        expected = old * (1 - 0.1 * 0.5) if p.dim() > 1 else old
        assert (p - expected).abs().max() <= 1e-7
        assert old.abs().min() > 0


def test_it_trains_in_training_mode_and_measures_in_the_other():
    """Dropout in the loss, none while validating; evaluation mode and no gradient asked for there."""
    modes, gradients = [], []

    def loss(model, rows):
        modes.append(model.training)
        return squared(model, rows)

    def validate(model):
        modes.append(model.training)
        gradients.append(squared(model, torch.arange(9)).requires_grad)
        return 0.0

    model, history = trained(replace(QUICK, steps=6), loss=loss, validate=validate)
    assert modes == [True] * 4 + [False] + [True] * 2 + [False]
    assert gradients == [False, False]
    assert [step for step, _ in history.valid] == [4, 6]
    assert not model.training


def test_the_loss_falls():
    _, history = trained(replace(QUICK, steps=150, lr=0.05), model=small(dropout=0.0))
    assert history.valid[-1][1] < 0.2 * history.valid[0][1]


def test_mixed_precision_computes_products_in_half_and_keeps_the_weights_whole():
    kinds = []

    def loss(model, rows):
        kinds.append(model[0](X[rows]).dtype)
        return squared(model, rows)

    for mixed in (False, True, None):
        model, _ = trained(replace(QUICK, steps=1, mixed=mixed), loss=loss)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert kinds == [torch.float32, torch.bfloat16, torch.float32]  # None: on a GPU alone


# --- alike by seed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed", [False, True])
def test_two_runs_are_equal_bit_by_bit(mixed):
    torch.manual_seed(1)
    first, history = trained(replace(QUICK, mixed=mixed))
    torch.rand(5)  # what happened before does not matter
    second, again = trained(replace(QUICK, mixed=mixed))
    assert torch.equal(weights(first), weights(second))
    assert history == again


def test_the_seed_is_that_of_dropout():
    first, other = (trained(replace(QUICK, seed=seed))[0] for seed in (0, 1))
    assert not torch.equal(weights(first), weights(other))
    plain, alike = (trained(replace(QUICK, seed=s), model=small(dropout=0.0))[0] for s in (0, 1))
    assert torch.equal(weights(plain), weights(alike))


def test_dropout_differs_from_step_to_step():
    drawn = []

    def loss(model, rows):
        drawn.append(nn.functional.dropout(torch.ones(40), 0.5))
        return squared(model, rows)

    trained(QUICK, loss=loss)
    assert len({tuple(row.tolist()) for row in drawn}) == QUICK.steps


# --- stopped and gone on with -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [QUICK, replace(QUICK, mixed=True, steps=7), replace(QUICK, patience=9)])
def test_interrupted_at_any_step_and_resumed_is_as_if_never_stopped(tmp_path, options):
    """Weights, optimiser, best weights, losses and validations, bit by bit."""
    whole, history = trained(replace(options, checkpoint=tmp_path / "whole.safetensors"))
    assert len(history.loss) == options.steps
    for k in range(options.steps):
        resumable = replace(options, checkpoint=tmp_path / f"{k}.safetensors")
        interrupted(resumable, at=k, step=k + 1)  # the step was finished,
        assert history_in(resumable.checkpoint)["loss"] == history.loss[: k + 1]
        resumed, all_of_it = trained(resumable, seed=5)  # and saved: other initial weights play no part
        assert torch.equal(weights(resumed), weights(whole))
        assert all_of_it == history
        (tensors, noted), (expected, beside) = (
            stored(resumable.checkpoint),
            stored(tmp_path / "whole.safetensors"),
        )
        assert same(tensors, expected)
        assert noted == beside


def test_interrupted_again_and_again(tmp_path):
    whole, history = trained(QUICK)
    options = replace(QUICK, checkpoint=str(tmp_path / "new" / "run.safetensors"))  # a folder to be made
    for done in range(1, QUICK.steps + 1):
        model = interrupted(options, at=0, step=done, seed=done - 1)
        assert history_in(options.checkpoint)["loss"] == history.loss[:done]
    assert torch.equal(weights(model), weights(whole))
    assert trained(options, loss=At(0, lambda: pytest.fail("no step is left")))[1] == history


def test_interrupted_without_a_checkpoint_the_model_stays_where_it_was():
    """As after the same schedule's first three steps; there is nothing to go on from."""
    seen = []
    trained(replace(QUICK, every=1), validate=lambda model: seen.append(weights(model)) or 0.0)
    assert torch.equal(weights(interrupted(QUICK, at=2, step=3)), seen[2])
    assert not any(torch.equal(seen[2], other) for i, other in enumerate(seen) if i != 2)


def test_an_interrupt_ends_a_loop_over_runs():
    """The stop button stops what comes after the training, too."""
    losses = [squared, At(1, interrupt), lambda *_: pytest.fail("the loop went on")]
    with pytest.raises(KeyboardInterrupt):
        [trained(QUICK, loss=loss) for loss in losses]


def test_a_run_that_is_done_does_nothing_more(tmp_path):
    options = replace(QUICK, checkpoint=tmp_path / "run.safetensors")
    model, history = trained(options)
    again, same_history = trained(options, seed=1, loss=At(0, lambda: pytest.fail("no step is left")))
    assert torch.equal(weights(model), weights(again))
    assert history == same_history


def test_stopped_before_the_first_step(tmp_path, monkeypatch):
    """The interrupt comes before there is anything to save; the run starts all the same later."""
    options = replace(QUICK, checkpoint=tmp_path / "run.safetensors")
    progress = Run.progress
    monkeypatch.setattr(Run, "progress", lambda run: (interrupt(), progress(run))[1])
    with pytest.raises(KeyboardInterrupt, match=r"^training stopped at step 0 of 12; run it again"):
        trained(options)
    assert history_in(options.checkpoint)["loss"] == []
    monkeypatch.undo()
    assert torch.equal(weights(trained(options)[0]), weights(trained(QUICK)[0]))


def test_frozen_weights_are_resumed_too(tmp_path):
    def frozen():
        model = small()
        model[0].requires_grad_(False)
        return model

    whole, _ = trained(QUICK, model=frozen())
    options = replace(QUICK, checkpoint=tmp_path / "run.safetensors")
    interrupted(options, at=5, step=6, model=frozen())
    assert torch.equal(weights(trained(options, model=frozen())[0]), weights(whole))
    assert torch.equal(whole[0].weight, small()[0].weight)


def test_a_second_interrupt_does_not_wait(tmp_path):
    options = replace(QUICK, checkpoint=tmp_path / "run.safetensors")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trained(options, loss=At(6, lambda: (interrupt(), interrupt())[0]))
    assert signal.getsignal(signal.SIGINT) is before
    assert len(trained(replace(options, steps=4))[1].loss) == 4  # the last checkpoint: after step 4


def test_afterwards_an_interrupt_interrupts_again():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may have none
    interrupted(QUICK, at=2, step=3)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        interrupt()


def test_an_interrupt_is_asked_for_within_and_raised_on_leaving():
    answers = []

    def block():
        with interrupts(lambda: f"told at the end: {answers}") as asked:
            answers.append(asked())
            interrupt()
            answers.append(asked())

    with pytest.raises(KeyboardInterrupt, match=r"^told at the end: \[False, True\]$"):
        block()
    with interrupts(lambda: pytest.fail("nobody asked")) as asked:
        assert not asked()


def test_an_error_goes_before_an_interrupt(tmp_path):
    """A loss that is no number in the very step that was interrupted."""
    options = replace(QUICK, checkpoint=tmp_path / "run.safetensors")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(FloatingPointError, match=r"^step 6: the loss is nan"):
        trained(options, loss=At(6, lambda: interrupt() or math.nan))
    assert signal.getsignal(signal.SIGINT) is before


def test_it_works_outside_the_main_thread():
    """Where Python allows no signal handler."""
    found = []
    thread = threading.Thread(target=lambda: found.append(trained(QUICK)))
    thread.start()
    thread.join()
    ((model, history),) = found
    assert torch.equal(weights(model), weights(trained(QUICK)[0]))
    assert len(history.loss) == QUICK.steps


KILLED = """
import sys, torch
from torch import nn
from pathlib import Path
from course_utils.training import Options, train

torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 60_000), nn.Linear(60_000, 1))  # 13 MB a checkpoint: a while to write

def loss(model, step):
    print(step, flush=True)
    return model(torch.full((1, 16), 0.01 * step)).mean() ** 2

options = Options(steps=int(sys.argv[2]), warmup=2, every=2, checkpoint=Path(sys.argv[1]))
train(model, lambda step: step, loss, options)
"""


def test_a_kill_loses_at_most_one_interval_and_leaves_a_whole_file(tmp_path):
    """Killed at two moments at random, most likely while it writes."""
    file, kept, draw = tmp_path / "run.safetensors", 0, random.Random(0)
    for more in (6, 5):
        command = [sys.executable, "-c", KILLED, str(file), "1000000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            begun = [process.stdout.readline() for _ in range(more)]
            time.sleep(draw.random() / 20)
            process.kill()
            begun += process.stdout.read().splitlines()
        assert int(begun[0]) == kept  # where the last one was killed, less what was not saved
        tensors, noted = stored(file)
        kept, last = len(json.loads(noted["history"])["loss"]), int(begun[-1])
        assert last - last % 2 <= kept <= last + 1
        assert {int(t) for key, t in tensors.items() if key.startswith("optimiser.step")} == {kept}


def test_a_write_that_breaks_off_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    options = replace(QUICK, checkpoint=tmp_path / "run.safetensors")
    write = training.save_file
    times = itertools.count()

    def full_disk(tensors, path, metadata):
        write(tensors, path, metadata)
        if next(times) == 1:
            path.write_bytes(path.read_bytes()[:500])
            raise OSError("no space left")

    monkeypatch.setattr(training, "save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        trained(options)
    resumed, history = trained(options)
    whole, expected = trained(QUICK)
    assert torch.equal(weights(resumed), weights(whole))
    assert history == expected
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_the_scaler_of_float16_is_resumed(tmp_path):
    run = Run(small(), replace(QUICK, checkpoint=tmp_path / "run.safetensors"))
    run.scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3)
    for step in range(4):
        run.update(squared(run.model, ORDER(step)))
    run.save()
    resumed = Run(small(), run.options)  # float32 here: no use for a scaler, and no error
    resumed.scaler = torch.amp.GradScaler("cpu")
    resumed.load(run.options.checkpoint)
    assert resumed.scaler.state_dict() == run.scaler.state_dict()
    assert run.scaler.get_scale() == 128.0  # grown once, one step on the way to the next


# --- early stopping -----------------------------------------------------------------------------------------


def planned(*values):
    """A validation that gives these values and keeps the weights it saw."""
    seen, left = [], iter(values)

    def validate(model):
        seen.append(weights(model))
        return next(left)

    return validate, seen


@pytest.mark.parametrize(
    ("patience", "values", "stops", "best"),
    [
        (1, [3, 2, 1, 1.5, 0], 4, 2),
        (2, [3, 1, 2, 2.5, 0], 4, 1),
        (2, [3, 2, 2.5, 1, 4, 5], 6, 3),
        (2, [3, 3, 3, 3, 3], 3, 0),  # an equal value is no new best
        (3, [math.inf, math.inf, 7, 9, 8, 7], 6, 2),
        (1, [5, 4, 3, 2, 1], 5, 4),  # never: the steps are over
    ],
)
def test_patience_ends_the_run_and_restores_the_best(patience, values, stops, best):
    validate, seen = planned(*values)
    options = replace(QUICK, steps=2 * len(values), every=2, patience=patience)
    model, history = trained(options, validate=validate)
    assert [value for _, value in history.valid] == values[:stops]
    assert len(history.loss) == 2 * stops
    assert torch.equal(weights(model), seen[best])
    assert not any(torch.equal(seen[best], other) for i, other in enumerate(seen) if i != best)


def test_without_patience_the_last_weights_stay():
    validate, seen = planned(1, 2, 3)
    model, history = trained(QUICK, validate=validate)
    assert len(history.loss) == QUICK.steps
    assert torch.equal(weights(model), seen[-1])


def test_the_best_weights_survive_an_interrupt(tmp_path):
    """Best at the first validation, interrupted later, resumed to the end of patience."""
    options = replace(QUICK, steps=40, every=2, patience=3, checkpoint=tmp_path / "run.safetensors")
    validate, seen = planned(1, 2, 3, 4, 5)
    stopped = interrupted(options, at=5, step=6, validate=validate)
    assert torch.equal(weights(stopped), seen[0])
    assert not torch.equal(seen[0], seen[2])
    model, history = trained(options, seed=1, validate=validate)
    assert len(history.valid) == 4
    assert torch.equal(weights(model), seen[0])
    finished, _ = trained(options, seed=2, validate=lambda _: pytest.fail("patience is over"))
    assert torch.equal(weights(finished), seen[0])


# --- what goes wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path, factor):
    options = replace(QUICK, checkpoint=tmp_path / "run.safetensors")
    with pytest.raises(FloatingPointError, match=f"^step 6: the loss is {factor}"):
        trained(options, loss=At(6, lambda: factor))
    resumed, history = trained(options)
    assert torch.equal(weights(resumed), weights(trained(QUICK)[0]))
    assert len(history.loss) == QUICK.steps


def test_a_gradient_that_is_no_number_stops_the_run(tmp_path):
    """√x at 0: the loss is a fine 0, its slope infinite. Nothing of it reaches the checkpoint."""
    options = replace(QUICK, checkpoint=tmp_path / "run.safetensors")

    def loss(model, rows):
        extra = torch.sqrt(model[0].weight[0, 0] * 0.0) if torch.equal(rows, ORDER(7)) else 0.0
        return squared(model, rows) + extra

    with pytest.raises(FloatingPointError, match=r"^step 7: the gradient's norm is nan"):
        trained(options, loss=loss)
    assert torch.equal(weights(trained(options)[0]), weights(trained(QUICK)[0]))


def test_a_validation_that_is_no_number_stops_the_run():
    with pytest.raises(FloatingPointError, match=r"^step 4: validate gave nan"):
        trained(QUICK, validate=lambda model: math.nan)


def test_an_update_that_is_refused_changes_nothing():
    model = small()
    optimiser = torch.optim.AdamW(model.parameters())
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    with pytest.raises(FloatingPointError):
        descend(squared(model, ORDER(0)) * math.nan, model, optimiser, scaler, 0.1, 1.0)
    assert torch.equal(weights(model), weights(small()))


def test_it_warns_of_nothing(recwarn):
    trained(replace(QUICK, patience=2))
    assert [str(warning.message) for warning in recwarn] == []


OTHERS = {
    "wider": lambda: small(width=9),
    "with a layer more": lambda: nn.Sequential(*small(), nn.Linear(3, 3)),
    "with a layer less": lambda: nn.Sequential(*list(small())[:2]),
    "by other names": lambda: nn.Sequential(nn.Identity(), *small()),
}


@pytest.mark.parametrize("other", OTHERS)
def test_the_checkpoint_of_another_model_is_refused(tmp_path, other):
    options = replace(QUICK, checkpoint=tmp_path / "run.safetensors")
    trained(options)
    model = OTHERS[other]()
    before, content = weights(model), options.checkpoint.read_bytes()
    with pytest.raises(
        ValueError, match=r"^checkpoint run\.safetensors is another model's: .* does not fit$"
    ):
        train(model, ORDER, squared, options)
    assert torch.equal(weights(model), before)
    assert options.checkpoint.read_bytes() == content


@pytest.mark.parametrize("damage", [b"", b"no tensors at all", None], ids=["empty", "text", "cut off"])
def test_a_damaged_checkpoint_is_said_in_a_sentence(tmp_path, damage):
    options = replace(QUICK, checkpoint=tmp_path / "run.safetensors")
    trained(options)
    whole = options.checkpoint.read_bytes()
    options.checkpoint.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(ValueError, match=r"^checkpoint run\.safetensors is damaged .* delete it") as raised:
        trained(options)
    assert "\n" not in str(raised.value)


BAD = {
    "steps": [0, -1, 2.5, math.inf, math.nan],
    "lr": [0, -1e-3, math.nan],
    "warmup": [-1, 0.5],
    "clip": [0, -1, math.nan],
    "weight_decay": [-0.1, math.nan],
    "betas": [(0.9,), (0.9, 1.0), (-0.1, 0.9), (0.9, math.nan), (0.9, 0.99, 0.999)],
    "seed": [0.5],
    "every": [0, -5, 1.5],
    "patience": [-1, 0.5],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_options_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
        Options(**({"steps": 10} | {name: value}))


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"^checkpoint must be a file, got the folder"):
        Options(steps=1, checkpoint=tmp_path)


@pytest.mark.parametrize(
    "edge", [{"warmup": 0}, {"weight_decay": 0}, {"betas": (0.0, 0.0)}, {"clip": math.inf}]
)
def test_options_at_their_edge_train(edge):
    model, history = trained(replace(QUICK, **edge))
    assert len(history.loss) == QUICK.steps
    assert weights(model).isfinite().all()


# --- the bar ------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("quiet", ["1", ""])
def test_a_bar_is_shown_to_somebody_who_did_not_ask_for_quiet(monkeypatch, capfd, quiet):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COURSE_QUIET", quiet)
    trained(QUICK)
    assert ("12" in screen.getvalue()) == (not quiet)
    assert not quiet or not screen.getvalue()
    assert capfd.readouterr() == ("", "")


# --- batches ------------------------------------------------------------------------------------------------

SIZES = st.integers(1, 300).flatmap(lambda N: st.tuples(st.just(N), st.integers(1, N)))
SEEDS = st.integers(0, 5)


def epoch_of(batches, N, B, number):
    per_epoch = N // B
    return [batches(number * per_epoch + i) for i in range(per_epoch)]


@settings(deadline=None)
@given(SIZES, SEEDS, st.booleans())
def test_each_epoch_holds_each_example_at_most_once_in_whole_batches(size, seed, by_length):
    N, B = size
    lengths = torch.randint(1, 30, (N,), generator=generator(seed)) if by_length else None
    batches = shuffled(N, B, seed, lengths)
    for number in range(3):
        epoch = epoch_of(batches, N, B, number)
        assert all(len(rows) == B for rows in epoch)
        ids = torch.cat(epoch).tolist()
        assert len(set(ids)) == len(ids) == N - N % B  # the tail left out
        assert set(ids) <= set(range(N))


@settings(deadline=None, max_examples=40)
@given(SIZES, SEEDS, st.booleans(), st.randoms(use_true_random=False))
def test_a_batch_is_a_function_of_its_step_alone(size, seed, by_length, order):
    N, B = size
    lengths = torch.randint(1, 30, (N,), generator=generator(seed)) if by_length else None
    batches, alike = shuffled(N, B, seed, lengths), shuffled(N, B, seed, lengths)
    steps = [order.randrange(4 * (N // B)) for _ in range(20)]
    in_turn = {step: alike(step).tolist() for step in sorted(set(steps))}
    torch.manual_seed(order.randrange(99))
    assert [batches(step).tolist() for step in steps] == [in_turn[step] for step in steps]


@pytest.mark.parametrize("lengths", [None, torch.arange(1000) % 17], ids=["any length", "by length"])
def test_epochs_and_seeds_differ(lengths):
    orders = {
        tuple(torch.cat(epoch_of(shuffled(1000, 20, seed, lengths), 1000, 20, number)).tolist())
        for seed in range(3)
        for number in range(3)
    }
    assert len(orders) == 9


def test_every_example_has_its_turn():
    """97 examples in batches of 10: seven are left out each epoch, not always the same."""
    batches = shuffled(97, 10)
    turns = Counter(torch.cat([torch.cat(epoch_of(batches, 97, 10, e)) for e in range(40)]).tolist())
    assert len(turns) == 97


def padding(epoch, lengths):
    return sum(int((lengths[rows].max() - lengths[rows]).sum()) for rows in epoch)


def test_by_length_little_is_padding_and_the_batches_are_in_no_order_of_length():
    lengths = torch.randint(1, 40, (10_000,), generator=generator(0))
    plain, bucketed = (epoch_of(shuffled(10_000, 32, 0, by), 10_000, 32, 0) for by in (None, lengths))
    assert padding(bucketed, lengths) < 0.1 * padding(plain, lengths)
    means = torch.tensor([float(lengths[rows].float().mean()) for rows in bucketed])
    assert abs(torch.corrcoef(torch.stack([means, torch.arange(len(means))]))[0, 1]) < 0.3
    assert abs(torch.corrcoef(torch.stack([means[1:], means[:-1]]))[0, 1]) < 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 6), r"B must lie in \[1, N = 5\], got 6"),
        ((5, 0), r"B must lie in \[1, N = 5\], got 0"),
        ((0, 1), r"B must lie in \[1, N = 0\], got 1"),
        ((5, 2, 0, torch.ones(4)), r"lengths must be \(N = 5,\), got shape \(4,\)"),
        ((5, 2, 0, torch.ones(5, 1)), r"lengths must be \(N = 5,\), got shape \(5, 1\)"),
    ],
)
def test_batches_that_cannot_be_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        shuffled(*arguments)


# --- a stream of tokens -------------------------------------------------------------------------------------


def test_stretches_are_runs_of_the_stream_and_reach_its_ends():
    stream = np.arange(500, 520, dtype=np.uint16)
    drawn = [windows(stream, 8, 6)(step) for step in range(60)]
    assert all(rows.shape == (8, 7) and rows.dtype == torch.int64 for rows in drawn)
    assert all((rows == rows[:, :1] + torch.arange(7)).all() for rows in drawn)
    starts = Counter(torch.cat(drawn)[:, 0].tolist())
    assert set(starts) == set(range(500, 514))  # the last stretch ends with the stream


def test_stretches_are_a_function_of_step_and_seed():
    stream = np.arange(1000)
    first, again, other = windows(stream, 4, 9), windows(stream, 4, 9), windows(stream, 4, 9, seed=1)
    assert all(torch.equal(first(step), again(step)) for step in (3, 0, 3))
    assert len({tuple(draw(step)[:, 0].tolist()) for draw in (first, other) for step in range(5)}) == 10


def test_a_stretch_may_be_the_whole_stream_and_no_more():
    assert windows(np.arange(5), 1, 4)(0).tolist() == [[0, 1, 2, 3, 4]]
    for stream, T in ((np.arange(5), 5), (np.arange(5), 0), (np.ones((5, 5)), 3)):
        with pytest.raises(ValueError, match=f"^stream must be one row of more than T = {T} ids"):
            windows(stream, 1, T)


def test_the_next_tokens_loss_by_hand():
    """A bigram table as the model: each token's -log p given the one before, averaged."""
    table = nn.Embedding(11, 11)
    ids = torch.randint(0, 11, (3, 8), generator=generator(0))
    logs = table.weight.log_softmax(-1)
    expected = [-float(logs[row[t], row[t + 1]].detach()) for row in ids for t in range(7)]
    assert next_token_loss(table, ids).item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)
