"""`make bench`: both sides compute the same, and the report has its documented shape. No time is asserted.

Of the way to an accuracy: who looks when, what the clock counts, and what is Trainer's default.
"""

import json
from dataclasses import replace
from functools import wraps
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks import bench
from test_bert import PLAIN, tiny, tiny_tokenizer
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    TrainingArguments,
)

from course_utils import tuning
from course_utils.experiments import fixed_threads
from course_utils.pretrained import Pretrained
from course_utils.runtime import device

TINY = bench.Size(V=50, T=8, B=2, C=16, nh=2, layers=2)
UNITS = {"gpt_train_vs_hf": "tokens/s", "encoder_train_vs_torch": "tokens/s"}


@pytest.mark.parametrize("name", bench.RACES)
def test_both_sides_of_a_race_compute_the_same(name):
    bench.same(bench.RACES[name], TINY)


@pytest.mark.parametrize("name", bench.RACES)
def test_sides_that_differ_are_not_raced(name):
    def copy_and_spoil(ours, theirs):
        bench.RACES[name].copy_weights(ours, theirs)
        with torch.no_grad():
            next(theirs.parameters()).mul_(1.5)

    with pytest.raises(AssertionError, match="not close"):
        bench.same(replace(bench.RACES[name], copy_weights=copy_and_spoil), TINY)


def test_the_report_has_its_documented_shape(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "peak_mb", lambda build, size: 2.0)
    races = {name: replace(bench.RACES[name], size=TINY, tables={"T": [TINY]}) for name in UNITS}
    bench.report(races, tmp_path / "build" / "bench.json", rounds=1, seconds=0.01)
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "build" / "bench.json").read_text(encoding="utf-8"))
    assert set(written) == {*UNITS, "gpt_train_by_length", "encoder_train_by_length"}
    for name, unit in UNITS.items():
        row = written[name]
        assert row["unit"] == unit
        assert row["ours"] > 0
        assert row["ratio"] == pytest.approx(row["ours"] / row["theirs"], rel=0.01)  # more tokens/s is better
        assert f"{torch.get_num_threads()} threads" in row["config"]
        assert row["peak_mb_ours"] == row["peak_mb_theirs"] == 2.0
    for name in ("gpt_train_by_length", "encoder_train_by_length"):
        (row,) = written[name]
        assert row["T"] == TINY.T
        assert row["unit"] == "ms"
        assert row["ratio"] == pytest.approx(row["theirs"] / row["ours"], rel=0.01)  # fewer ms are better
        assert f"{name} T = 8" in printed


def hundred_megabytes(size):
    """A side that holds as much during a call, and nothing after."""
    return lambda: bool(torch.ones(25_000_000).sum())


def test_peak_memory_is_that_of_the_side_alone():
    here = torch.ones(75_000_000)  # 300 MB of this process, which the side's must not inherit
    assert 95 < bench.peak_mb(hundred_megabytes, TINY) < 250
    assert here[0] == 1


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        bench.main(["gpt"])
    assert "gpt_train_vs_hf" in capsys.readouterr().err


# --- to the same accuracy -----------------------------------------------------------------------------------

EVERY = 32  # reviews between two looks: one batch of ours, four of theirs
SIDES = pytest.mark.parametrize("side", ["ours", "theirs"])


def toy_reviews(N, seed):
    """Short reviews of both kinds, the word that says which somewhere in the middle."""
    random = np.random.default_rng(seed)
    ratings = np.where(np.arange(N) % 2, 2.0, -2.0)
    opinions = {2.0: ["bright", "warm", "deep"], -2.0: ["dull", "weak", "flat"]}
    texts = [
        " ".join([*random.choice(PLAIN[:5], random.integers(1, 9)), random.choice(opinions[rating]), "."])
        for rating in ratings
    ]
    return pd.DataFrame({"text": texts, "rating": ratings})


@pytest.fixture
def chase(tmp_path, monkeypatch):
    """The race of `make bench`, with a tiny BERT in the encoder's place and a handful of reviews."""
    tiny(seed=3).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    monkeypatch.setattr(bench.pretrained, "load", lambda name: loaded(tmp_path))
    monkeypatch.setattr(bench.nb06, "tokenizer", lambda: AutoTokenizer.from_pretrained(tmp_path))
    sides = {"train": toy_reviews(70, 1), "valid": toy_reviews(22, 2)}
    with fixed_threads(1):
        yield replace(bench.CHASES["finetune_vs_trainer"], every=EVERY, reviews=lambda: sides)


def loaded(folder):
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    return Pretrained(model.to(device()).eval(), tokenizer, "a tiny one", "embedded")


def judge(monkeypatch, chase, accuracies):
    """Let the looks find these accuracies, one after another; returns the models looked at."""
    right, script, seen = chase.reviews()["valid"]["rating"].to_numpy() > 0, iter(accuracies), []

    def chances(model, held):
        seen.append(model.eval())
        good = right ^ (np.arange(len(right)) >= round(next(script) * len(right)))  # the last ones are wrong
        return np.stack([~good, good], axis=1).astype(float)

    monkeypatch.setattr(tuning, "chances", chances)
    return seen


def test_the_report_of_a_chase_has_its_documented_shape(chase, tmp_path, capsys):
    races = {"finetune_vs_trainer": replace(chase, target=0.0), "encoder_train_vs_torch": None}
    with pytest.raises(AttributeError):  # the second race is none: what is finished by then is kept
        bench.report(races, tmp_path / "bench.json", rounds=1, seconds=0.01)
    row = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["finetune_vs_trainer"]
    assert row["unit"] == "s to accuracy 0"
    assert row["ratio"] > 0
    for part in (f"{torch.get_num_threads()} threads", "accuracy 0", f"each {EVERY} reviews", "all 22"):
        assert part in row["config"]
    for side in ("ours", "theirs"):
        ((reviews, seconds, accuracy),) = row[f"curve_{side}"]
        assert (reviews, seconds) == (EVERY, row[side])
        assert 0 <= accuracy <= 1
    assert "finetune_vs_trainer" in capsys.readouterr().out


def test_a_sides_ratio_is_above_1_where_ours_is_sooner(chase, monkeypatch):
    seconds = {"ours": 2.0, "theirs": 5.0}
    monkeypatch.setattr(
        bench,
        "seconds_to_target",
        lambda chase, side: SimpleNamespace(seconds=seconds[side], curve=[], right=[]),
    )
    assert bench.chase_row(chase)["ratio"] == 2.5


@SIDES
def test_a_side_ends_at_the_first_look_that_finds_the_target(side, chase, monkeypatch):
    seen = judge(monkeypatch, chase, [0.5, 0.75, 0.9, 1.0])
    watch = bench.seconds_to_target(replace(chase, target=0.85), side)
    assert [reviews for reviews, *_ in watch.curve] == [EVERY, 2 * EVERY, 3 * EVERY]
    assert len(seen) == 3
    assert watch.seconds == pytest.approx(watch.curve[-1][1], abs=0.01)


@SIDES
def test_between_two_looks_as_many_reviews_are_read_with_dropout_on(side, chase, monkeypatch):
    judge(monkeypatch, chase, [0.0, 0.0, 1.0])
    kind = tuning.TextClassifier if side == "ours" else BertForSequenceClassification
    read, forward = [], kind.forward

    @wraps(forward)  # Trainer reads the names of its arguments
    def counted(self, *args, **inputs):
        assert self.training
        read.append(len(args[0] if args else inputs["input_ids"]))
        return forward(self, *args, **inputs)

    monkeypatch.setattr(kind, "forward", counted)
    bench.seconds_to_target(chase, side)
    read_by_then = 3 * EVERY - (2 if side == "theirs" else 0)  # 70 reviews leave Trainer a last batch of 6
    assert sum(read) == read_by_then
    assert set(read) <= {32} if side == "ours" else set(read) <= {8, 6}


@SIDES
def test_a_side_that_does_not_get_there_gives_no_figure(side, chase, monkeypatch):
    with pytest.raises(RuntimeError, match=rf"{side} did not reach accuracy 1\.5 .* best was 0\.\d"):
        bench.seconds_to_target(replace(chase, target=1.5), side)  # at the end of its schedule
    seen = judge(monkeypatch, chase, [0.25, 0.5, 1.0])
    with pytest.raises(RuntimeError, match=rf"{side} did not reach accuracy 0\.9 .* 0\.\d+"):
        bench.seconds_to_target(replace(chase, target=0.9, limit=0.0), side)
    assert len(seen) == 1


def test_the_clock_stands_still_while_the_watch_looks(chase, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(bench, "perf_counter", lambda: now[0])
    accuracies = iter([0.0, 0.0, 1.0])

    def slow_look(model, held):
        now[0] += 50.0
        good = chase.reviews()["valid"]["rating"].to_numpy() > 0
        good = good == (next(accuracies) > 0.5)
        return np.stack([~good, good], axis=1)

    monkeypatch.setattr(tuning, "chances", slow_look)
    watch = bench.Watch(replace(chase, limit=140.0), "ours", chase.reviews()["valid"])
    now[0] += 7.0  # before the start
    watch.start()
    for seconds, wrong in ((3.0, 1.0), (4.0, 1.0)):
        now[0] += seconds
        assert watch(None) == wrong
    now[0] += 5.0
    with pytest.raises(bench.Reached):
        watch(None)
    assert watch.curve == [(EVERY, 3.0, 0.0), (2 * EVERY, 7.0, 0.0), (3 * EVERY, 12.0, 1.0)]


def test_both_sides_are_judged_by_the_same_count(chase):
    """Trainer's model, padded in a batch, says what it says of each review alone."""
    held, tokenizer = chase.reviews()["valid"], bench.nb06.tokenizer()
    theirs = tiny(BertForSequenceClassification, seed=5)
    alone = [theirs(**tokenizer(text, return_tensors="pt").to(device())).logits[0] for text in held.text]
    alone = torch.stack(alone).detach().cpu().double().softmax(dim=-1).numpy()
    watch = bench.Watch(replace(chase, target=2.0), "theirs", held)
    np.testing.assert_allclose(tuning.chances(bench.Logits(theirs), watch.held), alone, atol=1e-5)
    watch.start()
    wrong = watch(bench.Logits(theirs))
    assert wrong == pytest.approx(np.mean((alone[:, 1] > 0.5) != (held.rating > 0)))
    assert 0 < wrong < 1


def test_trainer_runs_with_its_defaults(chase, monkeypatch):
    """All that is set is where it runs, what it writes and what it prints."""
    judge(monkeypatch, chase, [1.0])
    given = {}

    class Noted(bench.Trainer):
        def __init__(self, model, arguments, collator, rows, callbacks):
            given.update(arguments=arguments, collator=collator, rows=rows, model=model)
            super().__init__(model, arguments, collator, rows, callbacks=callbacks)

    monkeypatch.setattr(bench, "Trainer", Noted)
    bench.seconds_to_target(chase, "theirs")
    arguments = given["arguments"]
    default = TrainingArguments(arguments.output_dir, use_cpu=device() == "cpu").to_dict()
    changed = {name for name, value in arguments.to_dict().items() if value != default[name]}
    assert changed <= {"save_strategy", "logging_strategy", "report_to", "disable_tqdm"}
    assert type(given["collator"]) is DataCollatorWithPadding
    assert given["model"].config.num_labels == 2
    train = chase.reviews()["train"]
    assert [row["label"] for row in given["rows"]] == (train.rating > 0).tolist()
    ids = tuning.encode(bench.nb06.tokenizer(), train.text.tolist())
    assert [row["input_ids"] for row in given["rows"]] == [row.tolist() for row in ids]
