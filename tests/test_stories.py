"""Stories as GPT-2's training data: what is read, what is asked, and how the model is stored."""

import json
import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from course_utils import bpe, stories
from course_utils.gpt2 import load, parameters
from course_utils.ngram import KneserNey
from course_utils.runtime import generator
from course_utils.splits import story_split
from course_utils.training import History, Options
from course_utils.transformer import Decoder

TEXTS = [
    "Once upon a time, there was a cat.",
    "The cat sat.",
    "Lily saw a big dog in the park. It ran.",
    "Tom laughed.",
]
SMALL = replace(stories.CONFIG, T=16, C=16, nh=2, layers=1)


@pytest.fixture
def held():
    return stories.Stories(TEXTS, T=16)


def model():
    return Decoder(SMALL, seed=0).eval()


def test_a_story_stands_between_two_ends_and_is_cut_at_the_last_position(held):
    ids = [text.ids for text in bpe.tokenizer().encode_batch(TEXTS)]
    assert [row.tolist() for row in held.rows[:2]] == [[0, *ids[0], 0], [0, *ids[1], 0]]
    short = stories.Stories(TEXTS, T=4)
    assert [row.tolist() for row in short.rows] == [[0, *row, 0][:5] for row in ids]
    assert held.lengths.tolist() == [len(row) for row in held.rows]
    assert bpe.tokenizer().token_to_id(bpe.END) == stories.END


def test_what_stands_at_padding_is_neither_asked_nor_seen(held):
    rows, net = held.batch(torch.arange(4)), model()
    assert (rows == stories.IGNORED).any()
    alone = [F.cross_entropy(net(row[None, :-1])[0], row[1:], reduction="sum") for row in held.rows]
    asked = sum(len(row) - 1 for row in held.rows)
    torch.testing.assert_close(stories.story_loss(net, rows), sum(alone) / asked)


def test_the_mean_over_all_is_a_piece_not_a_story(held):
    net = model()
    with torch.no_grad():
        total = sum(F.cross_entropy(net(r[None, :-1])[0], r[1:], reduction="sum") for r in held.rows)
    expected = float(total) / sum(len(row) - 1 for row in held.rows)
    for B in (1, 3, 64):
        assert held.nats(net, B) == pytest.approx(expected, rel=1e-5)


def test_batches_are_a_function_of_the_step_and_hold_every_story(held):
    batches, again = held.batches(2, seed=3), held.batches(2, seed=3)
    epoch = [batches(step) for step in range(2)]
    assert all(torch.equal(batches(step), again(step)) for step in (5, 0, 1))
    found = sorted(row[row >= 0].tolist() for batch in epoch for row in batch)
    assert found == sorted(row.tolist() for row in held.rows)


def test_the_trigram_reads_each_held_out_story_from_its_end_token(held):
    known = stories.Stories(TEXTS * 3, T=16)
    stream = np.array([0] + [i for row in known.rows for i in row.tolist()[1:]])[1:]
    counts = KneserNey(stream, 3, stories.CONFIG.V)
    logs = [counts.log_probabilities(row.numpy())[1:] for row in held.rows]
    assert stories.trigram_nats(known, held) == pytest.approx(-np.concatenate(logs).mean())
    assert stories.trigram_nats(known, held) < stories.trigram_nats(known, stories.Stories(["zebra quiz"]))


def test_the_stored_model_is_the_librarys_and_ours_again(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(stories, "CONFIG", SMALL)
    monkeypatch.setattr(stories, "FOLDER", tmp_path / "small")
    net = model()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(p.half())  # stored in half precision
    history = History([3.0], [1.0], [(1, 2.5)])
    stories.save(net, Options(steps=1, seed=7), history, {"story-gpt2": 2.25})
    ids = torch.randint(SMALL.V, (2, 9), generator=generator(0))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "small", dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "small")
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, net(ids), rtol=1e-5, atol=1e-5)
        assert torch.equal(load(tmp_path / "small")(ids), net(ids))
    assert [tokenizer(text).input_ids for text in TEXTS] == [
        text.ids for text in bpe.tokenizer().encode_batch(TEXTS)
    ]
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == theirs.config.eos_token_id == stories.END
    card = stories.card()
    assert card["test"] == {"story-gpt2": 2.25}
    assert card["options"]["seed"] == 7
    assert "checkpoint" not in json.dumps(card)
    assert capfd.readouterr().err == ""


def test_both_models_are_as_large_and_read_as_much():
    sizes, options = zip(
        *((sum(p.numel() for p in draw().parameters()), how) for draw, how in stories.MODELS.values()),
        strict=True,
    )
    assert sizes[0] == parameters(stories.CONFIG)
    assert abs(sizes[1] / sizes[0] - 1) < 0.001
    assert options[0].steps == options[1].steps


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """The command of three steps, its models small, its folders under a temporary one."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(stories, "CONFIG", SMALL)
    monkeypatch.setattr(stories, "WIDTH", 8)
    monkeypatch.setattr(stories, "FOLDER", tmp_path / "stored")
    monkeypatch.setattr(stories, "BATCH", 2)
    monkeypatch.setattr(stories, "story_split", lambda: dict.fromkeys(("train", "valid", "test"), TEXTS * 4))
    monkeypatch.setattr("sys.argv", ["stories", "--steps", "3"])
    return tmp_path / "stored"


def test_the_command_goes_on_where_it_was_and_stores_when_both_are_done(workshop, capsys):
    stories.main()
    first = capsys.readouterr().out
    assert "story-gpt2: 3 of 3 steps" in first
    assert "LSTM of equal size: 3 of 3 steps" in first
    weights = (workshop / "model.safetensors").read_bytes()
    stories.main()  # all steps are in the checkpoints
    assert capsys.readouterr().out == first
    assert (workshop / "model.safetensors").read_bytes() == weights
    assert set(stories.card()["test"]) == {*stories.MODELS, "Kneser–Ney trigram"}


def test_a_checkpoint_of_a_longer_run_stores_nothing(workshop, monkeypatch, capsys):
    stories.main()
    weights = (workshop / "model.safetensors").read_bytes()
    monkeypatch.setattr("sys.argv", ["stories", "--steps", "2"])
    stories.main()
    assert "story-gpt2: 3 of 2 steps" in capsys.readouterr().out
    assert (workshop / "model.safetensors").read_bytes() == weights
    assert stories.card()["options"]["steps"] == 3


@pytest.mark.parametrize("name", stories.MODELS)
def test_an_interrupted_command_stores_nothing_and_goes_on(workshop, monkeypatch, capsys, name):
    """Stopped in the first model's training it does not begin with the second."""
    true_loss, begun = stories.story_loss, []

    def stopping(model, rows):
        if model.training:
            begun.append(type(model))
            if type(model) is type(stories.MODELS[name][0](0)):
                signal.raise_signal(signal.SIGINT)
        return true_loss(model, rows)

    with monkeypatch.context() as patched:
        patched.setattr(stories, "story_loss", stopping)
        with pytest.raises(SystemExit) as ended:
            stories.main()
    again = "run it again to go on from there"
    assert ended.value.code == f"{name}: training stopped at step 1 of 3; {again}"
    assert len(set(begun)) == [*stories.MODELS].index(name) + 1
    assert not workshop.exists()
    stories.main()
    assert f"{name}: 3 of 3 steps" in capsys.readouterr().out
    assert workshop.exists()


# --- the stored model ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_stored_model_scores_what_its_card_says():
    held = stories.Stories(story_split()["test"][::4])
    nats = stories.card()["test"]
    assert held.nats(load(stories.FOLDER)) == pytest.approx(nats["story-gpt2"], abs=0.05)
    assert next(iter(nats)) == "story-gpt2"
    assert list(nats.values()) == sorted(nats.values())  # the best first


def test_the_stored_card_reads_as_its_figures():
    text, card = (stories.FOLDER / "README.md").read_text("utf-8"), stories.card()
    for name, nats in card["test"].items():
        assert f"| {name} | {nats:.3f} | {math.exp(nats):.2f} |" in text
    for number in (parameters(stories.CONFIG), card["options"]["steps"], stories.CONFIG.V):
        assert f"{number:,}" in text
    assert f"{card['stories a batch']} stories" in text
    assert sum(file.stat().st_size for file in stories.FOLDER.iterdir()) < 20e6
