"""Notebook 07b's runs, made small: what is counted of continuations, and who spends how many operations."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_utils import bpe, modern
from course_utils.experiments import nb04, nb07
from course_utils.metrics import distinct, repetition, self_bleu
from course_utils.stories import CONFIG, FOLDER
from course_utils.transformer import Decoder

END = bpe.tokenizer().token_to_id(bpe.END)


@pytest.fixture
def small(monkeypatch):
    """A model that knows nothing, and ten short prompts."""
    net = Decoder(replace(CONFIG, C=16, nh=2, layers=1), seed=0).eval()
    monkeypatch.setattr(nb07, "model", lambda: net)
    monkeypatch.setattr(nb07, "PROMPTS", 10)
    monkeypatch.setattr(nb07, "PROMPT", 4)
    monkeypatch.setattr(nb07, "LENGTH", 9)
    nb07.prompts.cache_clear()
    yield net
    nb07.prompts.cache_clear()


def test_a_prompt_and_what_follows_are_the_story(small):
    begun, rest = nb07.prompts()
    assert len(begun) == len(rest) == 10
    assert all(row[0] == END and len(row) == 5 and END not in row[1:] for row in begun)
    assert all(len(row) <= 9 for row in rest)
    texts = bpe.tokenizer().decode_batch([a + b for a, b in zip(begun, rest, strict=True)])
    stories = nb07.story_split()["test"]
    assert all(any(story.startswith(text) for story in stories) for text in texts)
    assert len(set(texts)) > 3


def test_continuations_are_counted(small, monkeypatch):
    begun, rest = nb07.prompts()
    rest = [[5, 6, 5, 6, 5, 6, 5, 6, END], [7, 8, 9], *rest[2:]]
    monkeypatch.setattr(nb07, "WORDS", 3)
    row = nb07.described(begun, rest)
    repeated = [repetition(r) if len(r) > 3 else 0.0 for r in rest]
    texts = [" ".join(text.split()[:3]) for text in bpe.tokenizer().decode_batch(rest)]
    assert row["repetition"] == pytest.approx(np.mean(repeated), abs=1e-4)
    assert [int(n) / 100 for n in row["percent"].split()] == pytest.approx(repeated, abs=0.005)
    assert row["loops"] == pytest.approx(np.mean([r > 0.5 for r in repeated]))
    assert row["distinct_2"] == pytest.approx(distinct(texts), abs=1e-4)
    assert row["self_bleu"] == pytest.approx(self_bleu(texts), abs=1e-2)
    assert row["ended"] == pytest.approx(np.mean([r[-1] == END for r in rest]))
    assert row["length"] == pytest.approx(np.mean([len(r) for r in rest]), abs=0.05)
    assert row["first"].startswith(bpe.tokenizer().decode(begun[0][1:]))


def test_perplexity_is_of_the_continuations_pieces_alone(small):
    begun, rest = nb07.prompts()
    total = 0.0
    for start, row in zip(begun, rest, strict=True):
        ids = torch.tensor(start + row)
        each = F.cross_entropy(small(ids[None, :-1])[0], ids[1:], reduction="none")
        total += each[len(start) - 1 :].sum().item()
    assert nb07.nats(begun, rest) == pytest.approx(total / sum(map(len, rest)), rel=1e-5)


def test_each_way_is_a_row_and_a_seed_decides_what_is_drawn(small):
    rows = {name: nb07.way(name, 0) for name in [*nb07.WAYS, nb07.HELD]}
    assert rows["top-k 40"] == nb07.way("top-k 40", 0) != nb07.way("top-k 40", 1)
    assert rows["greedy"] == nb07.way("greedy", 1)
    assert len({row["first"] for row in rows.values()}) > 4
    assert all(0 <= row["repetition"] <= 1 for row in rows.values())
    with pytest.raises(ValueError, match=r"^name must be one of .*held-out stories, got 'best'$"):
        nb07.way("best", 0)


def test_what_is_drawn_has_seeds_and_what_is_not_has_one():
    keys = [key for key, _ in nb07.decodings()]
    assert (keys[0]["way"], keys[0]["seed"]) == (nb07.HELD, 0)
    (weights,) = {key["weights"] for key in keys}  # other weights, other rows
    assert hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest().startswith(weights)
    for name, how in nb07.WAYS.items():
        seeds = [key["seed"] for key in keys if key["way"] == name]
        assert seeds == (list(nb07.SEEDS) if how.do_sample else [0])


@pytest.mark.parametrize("name", nb07.SWAPS)
def test_each_swap_gets_as_many_operations(name):
    spent = nb07.operations(name) * round(
        nb04.OPTIONS.steps * nb07.operations("GPT-2") / nb07.operations(name)
    )
    assert spent == pytest.approx(nb07.operations("GPT-2") * nb04.OPTIONS.steps, rel=1e-3)
    assert set(nb07.SWAPS[name].parts) <= set(modern.PARTS)


def test_a_swap_is_trained_and_measured(monkeypatch):
    monkeypatch.setattr(nb04, "OPTIONS", replace(nb04.OPTIONS, steps=3, warmup=0))
    rows = {name: nb07.swapped(name, 0) for name in ("GPT-2", "grouped queries")}
    assert nb07.swapped("GPT-2", 0, lr=1e-3)["nats"] != rows["GPT-2"]["nats"]
    assert nb07.swapped("GPT-2", 0) == rows["GPT-2"]
    assert rows["GPT-2"]["cache"] == 2 * 2 * 4 * 128
    assert rows["grouped queries"]["cache"] == rows["GPT-2"]["cache"] / 2
    assert rows["grouped queries"]["parameters"] < rows["GPT-2"]["parameters"]
    assert all(5 < row["nats"] < 10 for row in rows.values())
    with pytest.raises(ValueError, match=r"^name must be one of GPT-2; .*, got 'ALiBi'$"):
        nb07.swapped("ALiBi", 0)


def test_rates_are_chosen_at_a_seed_that_is_not_reported():
    keys = [key for key, _ in nb07.swaps()]
    tuned = [key for key in keys if key["tuning"]]
    assert {(key["parts"], key["lr"]) for key in tuned} == {(n, lr) for n in nb07.SWAPS for lr in nb07.RATES}
    reported = [key for key in keys if not key["tuning"]]
    assert {key["seed"] for key in tuned}.isdisjoint(key["seed"] for key in reported)
    assert all(key["lr"] == nb07.SWAPS[key["parts"]].lr for key in reported)
