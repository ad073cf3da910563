"""How fast the course's models are beside a library's of the same size: `make bench` writes build/bench.json.

Both sides of a race run in turn, in one process, at one thread count, and the figure is the median of the
rounds. Before that they are given the same weights and must compute the same. Peak memory is measured in a
process of its own for each side: a high-water mark knows no sides.

A race more: two functions from a Size to a callable that does the work once and returns what must be equal,
one function that copies the first's weights into the second, and an entry in RACES.

Where not the same work is raced but the way to the same end, a Chase says how long each side takes to get
there; it runs once.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import psutil
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from torch.utils.benchmark import Timer
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from course_utils import gpt2, pretrained, splits, tuning
from course_utils.attention import MultiHeadAttention
from course_utils.experiments import nb06
from course_utils.runtime import device, generator
from course_utils.training import train
from course_utils.transformer import Config, Decoder, Stack

if TYPE_CHECKING:
    import pandas as pd

OUT = Path(__file__).parents[2] / "build" / "bench.json"
PROMPT = 16  # tokens before those that are written
ADAMW = {"lr": 1e-4, "betas": (0.9, 0.98), "weight_decay": 0.01, "fused": True}


@dataclass(frozen=True)
class Size:
    """Of the model and of its batch, in the course's letters."""

    V: int = 4096
    T: int = 128
    B: int = 16
    C: int = 256
    nh: int = 4
    layers: int = 4
    dropout: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.layers} layers × {self.C}, {self.nh} heads, V = {self.V:,}, T = {self.T}, B = {self.B}, "
            f"dropout {self.dropout:g}"
        )


@dataclass(frozen=True)
class Race:
    """Two ways to do the same work.

    Attributes:
        ours, theirs: from a Size to a callable with a `model`; a call does the work once, giving a tensor.
        copy_weights: from our model into theirs.
        work: what is raced, for the reader.
        amount: from a Size to how much of `unit` one call does; the rates are its quotient with seconds.
        unit: of the rates.
        size: of the main row.
        tables: for each letter of Size that a table varies, the sizes of its rows.
    """

    ours: Callable[[Size], Callable[[], torch.Tensor]]
    theirs: Callable[[Size], Callable[[], torch.Tensor]]
    copy_weights: Callable[[nn.Module, nn.Module], None]
    work: str
    amount: Callable[[Size], int] = lambda size: size.B * size.T
    unit: str = "tokens/s"
    size: Size = Size()
    tables: dict[str, list[Size]] = field(default_factory=dict)


@dataclass(frozen=True)
class Chase:
    """Two ways to train a classifier of reviews, from the same weights and texts to the same accuracy.

    Attributes:
        ours, theirs: from the reviews and a Watch to a run that starts the watch where the work begins, and
            calls it with the model whenever so many reviews more have been read.
        work: what is compared, for the reader.
        target: share of the held-out reviews to be judged rightly.
        every: reviews read between two looks at the accuracy; a multiple of both batches.
        limit: seconds of a side, looks included, after which it is given up.
        reviews: gives tables with `text` and `rating`: "train", and "valid", which is held out.
    """

    ours: Callable[[pd.DataFrame, Watch], None]
    theirs: Callable[[pd.DataFrame, Watch], None]
    work: str
    target: float = 0.82
    every: int = 512
    limit: float = 300.0
    reviews: Callable[[], dict[str, pd.DataFrame]] = splits.review_split


class Training:
    """A model on one batch: each call is forward, backward and a step of fused AdamW."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module], torch.Tensor]) -> None:
        """loss: from the model to what is minimised."""
        self.model, self.loss = model.to(device()).train(), loss
        self.optimiser = torch.optim.AdamW(model.parameters(), **ADAMW)

    def __call__(self) -> torch.Tensor:
        """One step; returns the loss before it."""
        loss = self.loss(self.model)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return loss.detach()


def our_config(size: Size, **switches: object) -> Config:
    """The course's config of that size; B is the batch's."""
    sizes = asdict(size)
    del sizes["B"]
    return Config(**sizes, **switches)


def side_by_side(heads: MultiHeadAttention, name: str) -> torch.Tensor:
    """Query, key and value's weights, (3C, C), or biases, (3C,), in one, as the libraries keep them."""
    return torch.cat([getattr(part, name) for part in (heads.query, heads.key, heads.value)])


# --- GPT ---------------------------------------------------------------------------------------------------


def tokens(size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens and their successors, (B, T) each."""
    ids = torch.randint(size.V, (size.B, size.T + 1), generator=generator(0)).to(device())
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def our_gpt(size: Size) -> Training:
    """The course's decoder in GPT-2's shape."""
    config = our_config(size, **gpt2.SHAPE)
    x, y = tokens(size)
    return Training(Decoder(config), lambda model: F.cross_entropy(model(x).flatten(0, 1), y.flatten()))


def hf_gpt(size: Size) -> Training:
    """Hugging Face's GPT-2 as it comes, but for the cache that training has no use for."""
    transformers.logging.set_verbosity_error()  # the ids of GPT-2's end token lie outside a small vocabulary
    drops = dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), size.dropout)
    sizes = {"n_embd": size.C, "n_layer": size.layers, "n_head": size.nh, "n_positions": size.T}
    config = GPT2Config(vocab_size=size.V, use_cache=False, **sizes, **drops)
    x, y = tokens(size)
    return Training(GPT2LMHeadModel(config), lambda model: model(input_ids=x, labels=y, shift_labels=y).loss)


class Writing:
    """A model that goes on writing prompts: each call takes the likeliest token so many times."""

    def __init__(self, model: nn.Module, write: Callable[[nn.Module], torch.Tensor]) -> None:
        """write: from the model to the new tokens, (B, T)."""
        self.model, self.write = model.to(device()).eval(), write

    def __call__(self) -> torch.Tensor:
        """The new tokens."""
        return self.write(self.model)


def begun(size: Size) -> torch.Tensor:
    """Prompts of random tokens, (B, PROMPT); size.T new ones shall follow each."""
    return torch.randint(size.V, (size.B, PROMPT), generator=generator(0))


def our_writer(size: Size) -> Writing:
    """The course's decoder in GPT-2's shape, and its `generate`."""
    prompts = begun(size).tolist()
    model = our_gpt(replace(size, T=size.T + PROMPT)).model
    return Writing(model, lambda model: torch.tensor(gpt2.generate(model, prompts, size.T)))


def hf_writer(size: Size) -> Writing:
    """Hugging Face's GPT-2 and its `generate`, with its cache; no token ends a text."""
    prompts = begun(size).to(device())
    model = hf_gpt(replace(size, T=size.T + PROMPT)).model
    greedy = {"do_sample": False, "max_new_tokens": size.T, "eos_token_id": None, "pad_token_id": 0}
    model.generation_config = GenerationConfig(**greedy, use_cache=True)
    mask = torch.ones_like(prompts)
    return Writing(model, lambda model: model.generate(prompts, attention_mask=mask)[:, PROMPT:].cpu())


# --- the encoder -------------------------------------------------------------------------------------------


def states(size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Random inputs and targets of a stack of layers, (B, T, C) each."""
    x, y = torch.randn(2, size.B, size.T, size.C, generator=generator(0)).to(device())
    return x, y


def our_encoder(size: Size) -> Training:
    """The course's layers without switches: the paper's encoder."""
    x, y = states(size)
    return Training(Stack(our_config(size, norm="post")), lambda model: F.mse_loss(model(x), y))


def torch_encoder(size: Size) -> Training:
    """PyTorch's own."""
    layer = nn.TransformerEncoderLayer(size.C, size.nh, 4 * size.C, size.dropout, batch_first=True)
    x, y = states(size)
    model = nn.TransformerEncoder(layer, size.layers, enable_nested_tensor=False)
    return Training(model, lambda model: F.mse_loss(model(x), y))


@torch.no_grad()
def copy_encoder(ours: Stack, theirs: nn.TransformerEncoder) -> None:
    """PyTorch keeps query, key and value in one matrix."""
    for mine, layer in zip(ours.layers, theirs.layers, strict=True):
        heads = mine.self_attention
        layer.self_attn.in_proj_weight.copy_(side_by_side(heads, "weight"))
        layer.self_attn.in_proj_bias.copy_(side_by_side(heads, "bias"))
        layer.self_attn.out_proj.load_state_dict(heads.out.state_dict())
        layer.linear1.load_state_dict(mine.feed_forward.inner.state_dict())
        layer.linear2.load_state_dict(mine.feed_forward.outer.state_dict())
        layer.norm1.load_state_dict(mine.around_self.norm.state_dict())
        layer.norm2.load_state_dict(mine.around_feed_forward.norm.state_dict())


# --- fine-tuning on film reviews ----------------------------------------------------------------------------

METHOD = nb06.METHODS[nb06.ONE_PASS]  # as the page trains


class Reached(Exception):  # noqa: N818 (no error)
    """The accuracy is there: training may end."""


class Watch:
    """A stopwatch for training; it stands still while it looks at how well the model does.

    Attributes:
        seconds: of training so far.
        curve: reviews read, seconds and accuracy, at each look.
    """

    def __init__(self, chase: Chase, side: str, held: pd.DataFrame) -> None:
        """side: whose it is; held: the reviews to be judged."""
        self.side, self.target, self.every, self.limit = side, chase.target, chase.every, chase.limit
        self.right = (held["rating"] > 0).to_numpy()
        self.held = tuning.Examples(tuning.encode(nb06.tokenizer(), held["text"].tolist()))
        self.seconds, self.curve = 0.0, []

    def start(self) -> None:
        """Begin."""
        self.begun = self.since = perf_counter()

    def __call__(self, model: nn.Module) -> float:
        """Look at a model that turns ids and mask into logits: the share it judges wrongly.

        Raises:
            Reached: the target is.
            RuntimeError: the limit is, and the target is not.
        """
        if device() == "cuda":
            torch.cuda.synchronize()
        self.seconds += perf_counter() - self.since
        said = tuning.chances(model, self.held).argmax(axis=1) == 1
        accuracy = float((said == self.right).mean())
        self.curve.append((self.every * (len(self.curve) + 1), round(self.seconds, 2), round(accuracy, 4)))
        print(
            "{:>8s} {:6,d} reviews {:7.1f} s  accuracy {:.3f}".format(self.side, *self.curve[-1]), flush=True
        )
        if accuracy >= self.target:
            raise Reached
        self.since = perf_counter()
        if self.since - self.begun > self.limit:
            raise RuntimeError(self.missed())
        return 1 - accuracy

    def missed(self) -> str:
        """What is to be said of a side that did not get there."""
        best = max((accuracy for *_, accuracy in self.curve), default=0.0)
        spent = f"in {self.seconds:.0f} s of training"
        return f"{self.side} did not reach accuracy {self.target:g} {spent}: the best was {best:.3f}"


def our_tuning(reviews: pd.DataFrame, watch: Watch) -> None:
    """As notebook 06b trains, in float32."""
    model = nb06.classifier(METHOD, seed=0)
    watch.start()
    targets = (reviews["rating"] > 0).to_numpy().astype(int)
    known = nb06.examples(model, reviews["text"].tolist(), targets)
    B = nb06.BATCH
    options = nb06.options(METHOD, len(reviews), B, seed=0, mixed=False)
    train(model, known.batches(B), tuning.text_loss, replace(options, every=watch.every // B), watch)


def trainer_tuning(reviews: pd.DataFrame, watch: Watch) -> None:
    """Hugging Face's Trainer as it comes, but for what it writes and prints."""
    bert = pretrained.load("bert")
    torch.manual_seed(0)  # of the head
    with pretrained.without_bars():
        model = AutoModelForSequenceClassification.from_pretrained(
            bert.model.name_or_path, num_labels=2, local_files_only=True
        )
    watch.start()
    ids = bert.tokenizer(reviews["text"].tolist(), truncation=True, max_length=tuning.LIMIT).input_ids
    labels = (reviews["rating"] > 0).astype(int)
    rows = [{"input_ids": row, "label": label} for row, label in zip(ids, labels, strict=True)]
    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(folder, use_cpu=device() == "cpu", **quiet)
        collator = DataCollatorWithPadding(bert.tokenizer)
        Trainer(model, arguments, collator, rows, callbacks=[Looks(watch)]).train()


class Looks(TrainerCallback):
    """Lets a watch look at Trainer's model."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_step_end(self, args, state, control, model, **_):
        """After each step."""
        if state.global_step * args.train_batch_size % self.watch.every == 0:
            self.watch(Logits(model))


class Logits(nn.Module):
    """A classifier of the library's, called as ours is."""

    def __init__(self, theirs: nn.Module) -> None:
        super().__init__()
        self.theirs = theirs

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """ids (B, T), mask (B, 1, T), True at tokens → logits (B, K)."""
        return self.theirs(input_ids=x, attention_mask=mask[:, 0].long()).logits


# --- the races ---------------------------------------------------------------------------------------------

STEP = "forward, backward, fused AdamW"
GROWING = {
    "T": [Size(T=T, B=2) for T in (64, 128, 256, 512, 1024)],
    "layers": [Size(layers=layers, B=4) for layers in (1, 2, 4, 8)],
}
STORY = Size(T=100, B=1, nh=8, layers=6)
WRITE = "greedy decoding after 16 tokens, cached; gpt2.generate against GPT2LMHeadModel.generate;"
RACES = {
    "gpt_train_vs_hf": Race(
        our_gpt,
        hf_gpt,
        gpt2.to_gpt2,
        f"{STEP}; Decoder against GPT2LMHeadModel (sdpa, no cache)",
        tables={
            **GROWING,
            "C": [Size(C=C, B=4) for C in (64, 128, 256, 512)],
        },
    ),
    "generate_vs_hf_b1": Race(
        our_writer,
        hf_writer,
        gpt2.to_gpt2,
        f"{WRITE} story-gpt2's shape, one text",
        size=STORY,
        tables={
            "T": [replace(STORY, T=T) for T in (25, 50, 100, 200)],
            "C": [replace(STORY, C=C) for C in (64, 128, 256, 512)],
        },
    ),
    "generate_vs_hf_b16": Race(
        our_writer,
        hf_writer,
        gpt2.to_gpt2,
        f"{WRITE} story-gpt2's shape, sixteen texts",
        size=replace(STORY, B=16),
        tables={"B": [replace(STORY, B=B) for B in (1, 4, 16, 64)]},
    ),
    "encoder_train_vs_torch": Race(
        our_encoder,
        torch_encoder,
        copy_encoder,
        f"{STEP}; Stack against nn.TransformerEncoder, post-LN, relu, no embedding",
        tables=GROWING,
    ),
    "encoder_train_vs_torch_dropout": Race(
        our_encoder,
        torch_encoder,
        copy_encoder,
        f"{STEP}; Stack against nn.TransformerEncoder, which drops attention weights and hidden numbers too",
        size=Size(dropout=0.1),
    ),
}
CHASES = {
    "finetune_vs_trainer": Chase(
        our_tuning,
        trainer_tuning,
        "fine-tuning all of notebook 06b's encoder on film reviews; "
        f"ours: batches of {nb06.BATCH} of like length, warm-up to {METHOD.lr:g} and cosine over one "
        "pass, mean of the states, no dropout of attention weights; "
        "theirs: AutoModelForSequenceClassification with Trainer's defaults (batches of 8 as they come, 5e-5 "
        "down to 0 over 3 passes), DataCollatorWithPadding, targets 0 and 1",
    ),
}
LETTERS = {"B": "batch", "T": "length", "layers": "layers", "C": "width"}


# --- measuring ---------------------------------------------------------------------------------------------


def same(race: Race, size: Size) -> None:
    """Raises AssertionError unless, from equal weights and without dropout, both sides give equal results.

    Two calls each: in training, the second also compares what the first step did to the weights.
    """
    size = replace(size, dropout=0.0)
    ours, theirs = race.ours(size), race.theirs(size)
    race.copy_weights(ours.model, theirs.model)
    for _ in range(2):
        torch.testing.assert_close(ours(), theirs(), rtol=1e-5, atol=0)


def seconds_of_each(sides: list[Callable], rounds: int, seconds: float) -> list[float]:
    """Median seconds a call of each side; in each round every side runs for at least `seconds`."""
    timers = [Timer("side()", globals={"side": s}, num_threads=torch.get_num_threads()) for s in sides]
    for timer in timers:
        timer.timeit(2)  # memory and kernels are ready
    runs = [[timer.blocked_autorange(min_run_time=seconds).median for timer in timers] for _ in range(rounds)]
    return [median(times) for times in zip(*runs, strict=True)]


def compare(race: Race, size: Size, rounds: int, seconds: float) -> tuple[float, float]:
    """Seconds a call of ours and of theirs, after a look that both compute the same."""
    same(race, size)
    ours, theirs = seconds_of_each([race.ours(size), race.theirs(size)], rounds, seconds)
    return ours, theirs


def peak_mb(build: Callable[[Size], Callable], size: Size) -> float:
    """Megabytes that building a side and three calls of it added at their peak, in a process of their own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_here, build, size, torch.get_num_threads()).result()


def _peak_here(build: Callable[[Size], Callable], size: Size, threads: int) -> float:
    torch.set_num_threads(threads)
    before = psutil.Process().memory_info().rss
    side = build(size)
    for _ in range(3):
        side()
    if device() == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return (_high_water() - before) / 1e6


def _high_water() -> int:
    """The most bytes this process has held; on Linux ru_maxrss would count the parent's from before exec."""
    status = Path("/proc/self/status")
    if status.is_file():
        mark = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(mark.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def seconds_to_target(chase: Chase, side: str) -> Watch:
    """The watch of a side, "ours" or "theirs", that has reached the target.

    Raises:
        RuntimeError: it has not.
    """
    reviews = chase.reviews()
    watch = Watch(chase, side, reviews["valid"])
    try:
        getattr(chase, side)(reviews["train"], watch)
    except Reached:
        return watch
    raise RuntimeError(watch.missed())


# --- reporting ---------------------------------------------------------------------------------------------


def where() -> str:
    """Threads, processor and versions, for the config of each row."""
    name = torch.cuda.get_device_name() if device() == "cuda" else f"{device()} {platform.machine()}"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"float32, {torch.get_num_threads()} threads, {name}, {versions}"


def main_row(race: Race, rounds: int, seconds: float) -> dict[str, object]:
    """Rates and peak memory of both sides; ratio > 1 where ours is faster."""
    ours, theirs = compare(race, race.size, rounds, seconds)
    amount = race.amount(race.size)
    return {
        "ours": round(amount / ours, 1),
        "theirs": round(amount / theirs, 1),
        "unit": race.unit,
        "ratio": round(theirs / ours, 3),
        "config": f"{race.work}; {race.size}; {where()}",
        "peak_mb_ours": round(peak_mb(race.ours, race.size), 1),
        "peak_mb_theirs": round(peak_mb(race.theirs, race.size), 1),
    }


def chase_row(chase: Chase) -> dict[str, object]:
    """Seconds of both sides to the target; ratio > 1 where ours is sooner there."""
    ours, theirs = seconds_to_target(chase, "ours"), seconds_to_target(chase, "theirs")
    looks = f"a look each {chase.every} reviews, not timed, at all {len(ours.right)} held out; one run each"
    return {
        "ours": round(ours.seconds, 2),
        "theirs": round(theirs.seconds, 2),
        "unit": f"s to accuracy {chase.target:g}",
        "ratio": round(theirs.seconds / ours.seconds, 3),
        "config": f"{chase.work}; from texts to accuracy {chase.target:g}; {looks}; {where()}",
        "curve_ours": ours.curve,
        "curve_theirs": theirs.curve,
    }


def table_row(race: Race, size: Size, letter: str, rounds: int, seconds: float) -> dict[str, object]:
    """Milliseconds a call of both sides at one size; ratio > 1 where ours is faster."""
    ours, theirs = compare(race, size, rounds, seconds)
    return {
        letter: getattr(size, letter),
        "ours": round(1e3 * ours, 3),
        "theirs": round(1e3 * theirs, 3),
        "unit": "ms",
        "ratio": round(theirs / ours, 3),
        "config": f"{race.work}; {size}; {where()}",
    }


def show(label: str, row: dict[str, object]) -> None:
    """Print a row in one line."""
    line = f"{label:40s} ours {row['ours']:9,.1f}  theirs {row['theirs']:9,.1f} {row['unit']:8s}"
    memory = (
        f"  peak {row['peak_mb_ours']:,.0f}, {row['peak_mb_theirs']:,.0f} MB" if "peak_mb_ours" in row else ""
    )
    print(f"{line}  ratio {row['ratio']:.2f}{memory}", flush=True)


def race_rows(name: str, race: Race, rounds: int, seconds: float) -> dict[str, object]:
    """Run a race and its tables, printing each row."""
    rows: dict[str, object] = {name: main_row(race, rounds, seconds)}
    show(name, rows[name])
    for letter in race.tables:
        key = f"{name.partition('_vs_')[0]}_by_{LETTERS[letter]}"
        rows[key] = []
        for size in race.tables[letter]:
            row = table_row(race, size, letter, rounds, seconds)
            rows[key].append(row)
            show(f"{key} {letter} = {row[letter]}", row)
    return rows


def report(races: dict[str, Race | Chase], out: Path, rounds: int, seconds: float) -> dict[str, object]:
    """Run the races, print them and write them as JSON, all so far after each."""
    print(where())
    results: dict[str, object] = {}
    out.parent.mkdir(parents=True, exist_ok=True)
    for name, race in races.items():
        if isinstance(race, Chase):
            results[name] = chase_row(race)
            show(name, results[name])
        else:
            results |= race_rows(name, race, rounds, seconds)
        out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return results


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    known = {**RACES, **CHASES}
    parser = argparse.ArgumentParser(description="Time the course's models beside a library's.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(known)}; all if none")
    parser.add_argument("--rounds", type=int, default=5, help="how often the sides take turns")
    parser.add_argument("--seconds", type=float, default=1.0, help="at least so long a turn")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(known):
        parser.error(f"NAME must be one of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    races = {name: known[name] for name in options.names or known}
    report(races, options.out, options.rounds, options.seconds)


if __name__ == "__main__":
    sys.exit(main())
