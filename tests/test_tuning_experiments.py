"""Notebook 06b's runs in miniature: who is trained on what, what is kept of it, which texts share a side.

The encoder is a BERT of 12 numbers a token and three layers with random weights; the reviews are made here, a
word in each saying whether it is good.
"""

import inspect
import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score
from test_attention import precise_and_quick  # noqa: F401 (a fixture for every test)
from test_bert import CLS, SEP, seeded, tiny, tiny_pretrained, tiny_tokenizer
from torch import nn

from course_utils import corpora, data, pretrained, sentiment, tuning
from course_utils.bert import from_bert
from course_utils.experiments import nb04b, nb06
from course_utils.experiments.nb06 import FAULTS, GRID, METHODS, Method, Problem
from course_utils.runtime import device

NAMES = pytest.mark.parametrize("name", METHODS)
LAYERS = 3
FULL = {"train": 330, "valid": 42, "test": 53}  # 53 fill no whole number of bytes
ON_CPU = {"mixed": False}


def toy(N, K=2, seed=0, plain=False):
    """Texts of one to nine words of which one tells the class (or all), and the classes."""
    draw, texts, labels = np.random.default_rng(seed), [], draw_labels(N, K, seed)
    for label in labels:
        telling = [["dull", "flat", "weak"], ["bright", "warm", "deep"], ["not", "and", "!"]][label]
        rest = telling if plain else ["the", "film", "is", "a", "story", "of"]
        filler = list(draw.choice(rest, draw.integers(1 if plain else 0, 9)))
        filler.insert(int(draw.integers(len(filler) + 1)), draw.choice(telling))
        texts.append(" ".join(filler))
    return texts, labels


def draw_labels(N, K, seed):
    """Two fifths of class 0, so that one of two is the larger."""
    order = np.random.default_rng(seed + 1).permutation(N)
    return np.where(np.arange(N) < 0.4 * N, 0, 1 + np.arange(N) % (K - 1))[order]


def toy_data():
    """As `nb04b.data`: few reviews, their ratings of like sign as their labels."""
    sides = {side: toy(n, seed=i) for i, (side, n) in enumerate(FULL.items())}
    labels = {side: found[1] for side, found in sides.items()}
    sizes = {side: np.random.default_rng(9).uniform(0.2, 3, n) for side, n in FULL.items()}
    ratings = {side: np.where(labels[side], 1, -1) * size for side, size in sizes.items()}
    return nb04b.Data(
        {side: found[0] for side, found in sides.items()},
        labels,
        {side: sentiment.graded(row) for side, row in ratings.items()},
        {side: abs(row) > 1 for side, row in ratings.items()},
        sentiment.word_ids(sides["train"][0]),
    )


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A tiny encoder in BERT's place and toy reviews in the films'; nothing of them stays."""
    held = toy_data()
    monkeypatch.setattr(pretrained, "load", lambda name: {"bert": tiny_pretrained()}[name])
    monkeypatch.setattr(nb04b, "data", lambda: held)
    nb06.tokenizer.cache_clear()
    yield held
    nb06.tokenizer.cache_clear()


@pytest.fixture
def have():
    """Skips the test where an asset is not in the cache: no test downloads."""

    def check(name):
        if not data.assets()[name].cached:
            pytest.skip(f"not in the cache: {name} (make assets)")

    return check


@contextmanager
def threads_kept():
    """Checks that what runs within leaves the number of threads as it was: one that no run sets by itself."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        yield
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def spied(monkeypatch, where, name, result=None):
    """Calls of a function from now on: their arguments by name, what they gave, the threads they had."""
    seen, true = [], getattr(where, name)
    signature = inspect.signature(true)

    def spy(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = true(*args, **kwargs) if result is None else result
        seen.append((bound.arguments, given, torch.get_num_threads()))
        return given

    monkeypatch.setattr(where, name, spy)
    return seen


def as_json(row):
    return json.loads(json.dumps(row, allow_nan=False))


def tensors_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(first, second):
    """The names of the weights that two models have alike."""
    first, second = tensors_of(first), tensors_of(second)
    assert first.keys() == second.keys()
    return {name for name, p in first.items() if torch.equal(p, second[name])}


def asked(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def short(method):
    """The method, one pass long."""
    return replace(method, epochs=1)


# ---- which labels, how many steps


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("n", [2, 10, 60, 160])
def test_few_are_drawn_half_of_each_class(n, seed):
    labels = draw_labels(200, 2, seed)
    found = nb06.few(labels, n, seed)
    assert len(set(found.tolist())) == len(found) == n
    assert Counter(labels[found].tolist()) == {0: n // 2, 1: n // 2}
    np.testing.assert_array_equal(nb06.few(labels, n, seed), found)
    assert set(found) != set(nb06.few(labels, n, seed + 1))


def test_more_labels_hold_the_fewer():
    labels = draw_labels(200, 2, 0)
    parts = [set(nb06.few(labels, n, 3)) for n in (2, 10, 60, 160)]
    assert all(less < more for less, more in pairwise(parts))


def test_each_example_is_drawn_as_often_as_the_others_of_its_class():
    """Within 5 standard errors, over 2,000 seeds."""
    labels = draw_labels(50, 2, 0)
    drawn = np.bincount(np.concatenate([nb06.few(labels, 10, seed) for seed in range(2000)]), minlength=50)
    for k in (0, 1):
        share = 5 / (labels == k).sum()
        error = np.sqrt(2000 * share * (1 - share))
        assert abs(drawn[labels == k] - 2000 * share).max() < 5 * error


@pytest.mark.parametrize("seed", [0, 5])
def test_of_no_number_all_are_taken_in_their_order(seed):
    assert nb06.few(draw_labels(30, 2, 0), None, seed).tolist() == list(range(30))


def test_two_sided_targets_are_the_chances_of_bad_and_of_good():
    p = np.array([0.0, 0.25, 1.0, 0.9])
    found = nb06.two_sided(p)
    assert found.tolist() == [[1.0, 0.0], [0.75, 0.25], [0.0, 1.0], [1 - 0.9, 0.9]]
    assert tuning.check_targets(found, 4, 2).shape == (4, 2)


@pytest.mark.parametrize(
    ("N", "B", "epochs", "steps"),
    [
        (7395, 32, 3, 693),  # 231 batches fill, and 3 texts are left
        (2000, 32, 4, 248),
        (64, 8, 4, 32),
        (80, 8, 3, 30),
        (79, 8, 3, 30),  # 27 would do
        (50, 8, 1, 30),
        (9, 8, 20, 30),
    ],
)
def test_steps_are_whole_passes_and_at_least_thirty(N, B, epochs, steps):
    found = nb06.options(Method(3e-4, epochs), N, B, 7, None)
    assert found.steps == steps
    assert (found.lr, found.seed, found.mixed, found.betas) == (3e-4, 7, None, (0.9, 0.999))
    assert steps / 10 - 1 < found.warmup <= steps / 10
    assert found.patience == 0
    assert nb06.options(Method(3e-4, epochs), N, B, 8, True) == replace(found, seed=8, mixed=True)


def test_the_step_sizes_were_chosen_among_those_tried():
    assert GRID.keys() == METHODS.keys() - {nb06.ONE_PASS}
    for name, rates in GRID.items():
        assert METHODS[name].lr in rates
        assert list(rates) == sorted(set(rates))
    assert replace(METHODS[nb06.ONE_PASS], epochs=METHODS["all layers"].epochs) == (METHODS["all layers"])


# ---- who is trained


def lora_names(layers):
    return {
        f"encoder.stack.layers.{i}.self_attention.{part}.{matrix}"
        for i in layers
        for part in ("query", "value")
        for matrix in "AB"
    }


def expected_to_move(name, model):
    """By the method's name, of a model of three layers."""
    every, head = set(tensors_of(model)), {"head.weight", "head.bias"}
    return {
        "head only": head,
        "top two layers": head
        | {n for n in every if n.startswith(("encoder.stack.layers.1.", "encoder.stack.layers.2."))},
        "LoRA": head | lora_names(range(LAYERS)),
    }.get(name, every)


@NAMES
def test_a_method_trains_what_its_name_says(name):
    model = nb06.classifier(METHODS[name], 0)
    assert len(model.encoder.stack.layers) == LAYERS
    assert asked(model) == expected_to_move(name, model)
    assert {p.device.type for p in model.parameters()} == {device()}
    assert model.start == {"head only": 3, "top two layers": 1}.get(name, 0)
    if name == "LoRA":
        assert {len(part.A) for part in model.modules() if isinstance(part, tuning.LoRA)} == {
            METHODS[name].rank
        }


@NAMES
@pytest.mark.parametrize("K", [2, 6])
def test_a_classifier_has_berts_weights_or_none_of_them_and_k_classes(name, K):
    model, theirs = nb06.classifier(METHODS[name], 0, K), from_bert(tiny())
    assert model.head.out_features == K
    if name == "LoRA":
        tuning.merge_lora(model.encoder)  # which starts unchanged
    alike = same(model.encoder, theirs)
    if name == "random weights":
        assert not {n for n, p in theirs.named_parameters() if p.dim() > 1} & alike
        assert model.encoder.stack.layers[0].around_self.dropout.p == pytest.approx(0.1)  # the config's
    else:
        assert alike == set(tensors_of(theirs))


@NAMES
def test_a_seed_draws_all_that_is_new_and_nothing_else_does(name):
    first = nb06.classifier(METHODS[name], 0)
    torch.manual_seed(torch.initial_seed() + 1)
    again, other = nb06.classifier(METHODS[name], 0), nb06.classifier(METHODS[name], 1)
    every = set(tensors_of(first))
    assert same(first, again) == every
    drawn = every - same(first, other)
    matrices = {n for n, p in first.named_parameters() if p.dim() > 1}
    expected = {"head.weight"} | {n for n in lora_names(range(LAYERS)) if n.endswith("A") and n in every}
    assert drawn == (matrices if name == "random weights" else expected)


@NAMES
def test_texts_are_read_as_ids_or_as_what_enters_the_first_trained_layer(name):
    texts, labels = toy(40, 3)
    model = nb06.classifier(METHODS[name], 0, 3).eval()
    found, ids = nb06.examples(model, texts, labels), tuning.encode(tiny_tokenizer(), texts)
    assert found.targets.tolist() == labels.tolist()
    kept = tuning.frozen_states(model.encoder, ids, model.start) if model.start else ids
    assert all(map(torch.equal, found.rows, kept))
    assert {row.is_floating_point() for row in found.rows} == {name in ("head only", "top two layers")}
    np.testing.assert_allclose(
        tuning.chances(model, found), tuning.chances(model, tuning.Examples(ids)), atol=1e-5
    )
    assert not nb06.examples(model, texts, None).targets.any()
    with pytest.raises(ValueError, match=r"^targets must be whole numbers in \[0, K = 3\)"):
        nb06.examples(model, texts, labels + 1)


# ---- training


@NAMES
def test_fit_moves_what_is_trained_and_nothing_else(name):
    method, (texts, labels) = short(METHODS[name]), toy(40)
    first, seconds = nb06.fit(method, texts, labels, 2, 3, False)
    assert seconds > 0
    assert not first.training
    start = nb06.classifier(method, 3)
    moved = set(tensors_of(start)) - same(first, start)
    # nothing has a second segment or so many places, and attention forgets what all keys share
    still = {n for n in asked(first) if n.endswith(("key.bias", "tokens.weight"))}
    assert asked(first) - still <= moved <= asked(first)


def test_fit_is_the_same_again_and_another_with_another_seed():
    method, (texts, labels) = short(METHODS["top two layers"]), toy(40)
    first, again, other = (nb06.fit(method, texts, labels, 2, seed, False)[0] for seed in (3, 3, 4))
    assert same(first, again) == set(tensors_of(first))
    assert not same(first, other) & (asked(first) - {n for n in asked(first) if n.endswith("key.bias")})


@NAMES
def test_fit_learns(name):
    """Every word tells the class; the step is as large as a tiny encoder, or a head alone, asks for.

    Of random frozen states a head makes less, but one guess in a million is as good.
    """
    texts, labels = toy(96, plain=True)
    setting = {"lr": 0.1, "epochs": 15} if name == "head only" else {"lr": 1e-2, "epochs": 8}
    model, _ = nb06.fit(replace(METHODS[name], **setting), texts, labels, 2, 0, False)
    others, truth = toy(400, seed=5, plain=True)
    said = tuning.chances(model, nb06.examples(model, others, None)).argmax(axis=1)
    assert (said == truth).sum() > (stats.binom.isf(1e-6, 400, 0.6) if name == "head only" else 360)


@pytest.mark.parametrize(("N", "B"), [(20, 8), (64, 8), (120, 15), (256, 32), (300, 32)])
def test_few_labels_come_in_small_batches(monkeypatch, N, B):
    calls = spied(monkeypatch, nb06, "train", result=())
    texts, labels = toy(N)
    method = METHODS["all layers"]
    nb06.fit(method, texts, labels, 2, 5, None)
    ((call, _, _),) = calls
    batches = [call["batch"](step) for step in range(N // B)]
    assert {len(batch.x) for batch in batches} == {B}
    assert call["options"] == nb06.options(method, N, B, 5, None)
    assert call["loss"] is tuning.text_loss
    expected = nb06.examples(nb06.classifier(method, 5), texts, labels).batches(B, 5)
    for step, batch in enumerate(batches):
        assert all(map(torch.equal, batch, expected(step)))


# ---- reviews


def toy_row(model, side):
    """The scores of a model on a side, from its chances of each text."""
    found = tuning.chances(model, nb06.examples(model, nb04b.data().texts[side], None))[:, 1]
    return nb04b.side_scores(found, side)


@pytest.mark.parametrize(
    ("name", "n", "side"),
    [("head only", None, "valid"), ("head only", 24, "test"), ("LoRA", 24, "valid"), ("LoRA", 24, "test")],
)
def test_a_run_is_trained_on_graded_labels_and_measured_on_its_side(monkeypatch, small, name, n, side):
    method, calls = short(METHODS[name]), spied(monkeypatch, nb06, "fit")
    with threads_kept():
        row = nb06.tune(method, 3, n, side, 1, False)
    ((call, (model, seconds), threads),) = calls
    assert threads == 1
    chosen = nb06.few(small.labels["train"], n, 3)
    assert call["texts"] == [small.texts["train"][i] for i in chosen]
    np.testing.assert_array_equal(call["targets"][:, 1], small.targets["train"][chosen])
    np.testing.assert_allclose(call["targets"].sum(axis=1), 1)
    assert (call["method"], call["K"], call["seed"], call["mixed"]) == (method, 2, 3, False)
    assert row.keys() == {"trained", "train seconds", side, "said good"}
    assert row["trained"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert row["train seconds"] == pytest.approx(seconds, abs=0.051)
    assert row[side] == toy_row(model, side)
    assert as_json(row) == row


def test_a_run_takes_its_threads_and_all_labels_of_the_test_side_unless_told(monkeypatch, small):
    calls = spied(monkeypatch, nb06, "fit", result=(nb06.classifier(METHODS["head only"], 0), 1.0))
    row = nb06.tune(METHODS["head only"], 0, threads=2)
    ((call, _, threads),) = calls
    assert threads == 2
    assert call["texts"] == small.texts["train"]
    assert call["mixed"] is True
    assert row["test"]["n"] == FULL["test"]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_kept_of_each_review_adds_up_to_the_accuracy(small, seed):
    """One chance is exactly a half: not said to be good."""
    p = np.random.default_rng(seed).uniform(size=FULL["test"])
    p[seed * 10] = 0.5
    given = []
    row = as_json(nb06.judged(lambda texts: given.append(texts) or p))
    assert given == [small.texts["test"]]
    found = nb06.right(row)
    assert found.shape == (FULL["test"],)
    np.testing.assert_array_equal(found, (p > 0.5) == small.labels["test"])
    assert round(found.mean(), 4) == row["test"]["accuracy"]
    assert row["test"] == nb04b.side_scores(p, "test")


@pytest.mark.parametrize(("chance", "share"), [(1.0, 0.6), (0.0, 0.4)])
def test_all_good_or_all_bad_is_right_as_often_as_that_is_so(small, chance, share):
    found = nb06.right(nb06.judged(lambda texts: np.full(len(texts), chance)))
    np.testing.assert_array_equal(found, small.labels["test"] == chance)
    assert found.mean() == pytest.approx(share, abs=0.02)


def test_another_side_is_judged_where_it_is_asked_for(small):
    given = []
    row = nb06.judged(lambda texts: given.append(texts) or np.linspace(0, 1, len(texts)), "valid")
    assert given == [small.texts["valid"]]
    assert row.keys() == {"valid", "said good"}
    assert row["valid"]["n"] == FULL["valid"]


def test_the_majority_is_that_of_the_training_side(small):
    row = as_json(nb06.majority())
    assert row["trained"] == 0
    assert row["test"]["accuracy"] == round(small.labels["test"].mean(), 4)
    np.testing.assert_array_equal(nb06.right(row), small.labels["test"])
    assert row["said good"] == nb06.judged(lambda texts: np.ones(len(texts)))["said good"]


@pytest.mark.parametrize("n", [24, None])
def test_counting_words_is_the_baseline_on_these_labels(small, n):
    row = as_json(nb06.counting(n, 3))
    chosen = nb06.few(small.labels["train"], n, 3)
    model = sentiment.baseline([small.texts["train"][i] for i in chosen], small.labels["train"][chosen])
    expected = model.predict_proba(small.texts["test"])[:, 1]
    assert row["test"] == nb04b.side_scores(expected, "test")
    assert row["trained"] == len(model[0].vocabulary_) + 1
    np.testing.assert_array_equal(nb06.right(row), (expected > 0.5) == small.labels["test"])
    if n:
        assert nb06.counting(n, 4)["test"] != row["test"]


def test_the_lstm_is_notebook_04bs(monkeypatch, small):
    words = sentiment.random_vectors(max(small.ids.values()) + 1, 6, seed=1)
    model = sentiment.Classifier(words, 4).to(device()).eval()
    calls = spied(monkeypatch, nb04b, "trained", result=(model, None))
    with threads_kept():
        row = as_json(nb06.lstm(7))
    ((call, _, threads),) = calls
    assert call == {"variant": "base", "seed": 7}
    assert threads == 1
    assert row["trained"] == sum(p.numel() for p in model.parameters())
    expected = sentiment.probabilities(model, small.texts["test"], small.ids)
    assert row["test"] == nb04b.side_scores(expected, "test")
    np.testing.assert_array_equal(nb06.right(row), (expected > 0.5) == small.labels["test"])


# ---- the listing's faults


def some_ids(lengths):
    draw = seeded(1)
    return [
        torch.tensor([CLS, *torch.randint(5, 26, (n - 2,), generator=draw).tolist(), SEP]) for n in lengths
    ]


@pytest.mark.parametrize("lengths", [[3], [5, 9, 4], [64, 10]])
def test_blind_shows_padding_as_if_it_were_tokens(lengths):
    rows = some_ids(lengths)
    batch = tuning.Examples(rows, [0, 1, 1][: len(rows)] if len(rows) > 1 else None).batch(
        torch.arange(len(rows))
    )
    before = [tensor.clone() for tensor in batch]
    found = nb06.blind(batch)
    assert isinstance(found, tuning.Batch)
    assert found.x.shape == (len(rows), 64)
    assert found.mask.shape == (len(rows), 1, 64)
    assert found.mask.dtype == torch.bool
    assert found.mask.all()
    for row, x in zip(rows, found.x.cpu(), strict=True):
        assert torch.equal(x[: len(row)], row)
        assert not x[len(row) :].any()
    assert torch.equal(found.targets, batch.targets)
    assert {tensor.device.type for tensor in found} == {device()}
    assert all(map(torch.equal, batch, before))
    assert nb06.blind(batch, 70).x.shape == nb06.blind(batch, 70).mask[:, 0].shape == (len(rows), 70)


def test_reading_is_in_order_and_changes_each_batch(small):
    """Against each text by itself; more of them than a batch holds."""
    texts = small.texts["train"]
    model = nb06.classifier(METHODS["all layers"], 0)
    nn.init.normal_(model.head.weight, generator=seeded(2))
    ids = tuning.encode(tiny_tokenizer(), texts)
    model.eval()
    for kind, width in ((tuning.Examples, None), (nb06.Blind, 64)):
        found = nb06.good(model, texts, kind)
        assert found.shape == (len(texts),)
        with torch.no_grad():
            for i in (0, 1, 150, 329):
                x = nn.functional.pad(ids[i], (0, (width or len(ids[i])) - len(ids[i])))[None].to(device())
                mask = torch.ones(1, 1, x.shape[1], dtype=torch.bool, device=x.device)
                expected = model(x, mask)[0].double().softmax(-1)[1].item()
                assert found[i] == pytest.approx(expected, abs=1e-5)
    np.testing.assert_allclose(
        nb06.good(model, texts),
        tuning.chances(model, nb06.examples(model, texts, None))[:, 1],
    )


class Faulty:
    """A run with a fault: its row, the model at the start and at the end, what it was trained on."""

    def __init__(self, monkeypatch, kind, n=64, seed=3):
        true, self.calls = nb06.train, []

        def train(model, batch, loss, options):
            self.begun, self.rates = (
                tensors_of(model),
                {p.p for p in model.modules() if type(p) is nn.Dropout},
            )
            self.model, self.batch, self.loss, self.options = model, batch, loss, options
            self.calls.append(torch.get_num_threads())
            true(model, batch, loss, replace(options, steps=4, warmup=0))

        with monkeypatch.context() as patch:
            patch.setattr(nb06, "train", train)
            self.row = nb06.fault(kind, seed, n, False)
        assert len(self.calls) == 1


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_measured_as_trained_and_put_right(monkeypatch, small, kind):
    with threads_kept():
        run = Faulty(monkeypatch, kind)
    assert run.calls == [1]
    texts = small.texts["test"]
    plain = tuning.chances(run.model, nb06.examples(run.model, texts, None))[:, 1]
    blind = nb06.good(run.model, texts, nb06.Blind)
    assert abs(plain - blind).max() > 1e-3
    expected = {
        "none": {"as trained": plain, "mask left out": blind},
        "padding read": {"as trained": blind, "mask put back": plain},
        "no dropout": {"as trained": plain},
    }[kind]
    assert run.row == {name: nb06.judged(lambda texts, p=p: p) for name, p in expected.items()}
    assert as_json(run.row) == run.row


def test_faults_differ_in_one_thing_alone(monkeypatch, small):
    runs = {kind: Faulty(monkeypatch, kind) for kind in FAULTS}
    none, read, calm = (runs[kind] for kind in FAULTS)
    for run in runs.values():
        assert run.begun.keys() == none.begun.keys()
        assert all(torch.equal(p, none.begun[name]) for name, p in run.begun.items())
        assert asked(run.model) == set(run.begun)
        assert run.loss is tuning.text_loss
        assert run.options == none.options
    assert none.rates == read.rates == {0.1}
    assert calm.rates == {0.0}
    for step in range(9):
        batches = [run.batch(step) for run in (none, calm, read)]
        assert all(map(torch.equal, batches[0], batches[1]))
        assert all(map(torch.equal, nb06.blind(batches[0]), batches[2]))
    assert not all(none.batch(step).mask.all() for step in range(9))


def test_without_dropout_training_is_without_chance(monkeypatch, small):
    for kind, chance in (("none", True), ("no dropout", False)):
        model = Faulty(monkeypatch, kind).model.train()
        batch = nb06.examples(model, small.texts["test"], None).batch(torch.arange(20))
        with torch.no_grad():
            torch.manual_seed(0)
            first = model(batch.x, batch.mask)
            torch.manual_seed(1)
            assert torch.equal(model(batch.x, batch.mask), first) != chance


def test_no_fault_is_the_whole_encoder_as_it_is_tuned():
    row = nb06.tune(METHODS["all layers"], 3, 256, **ON_CPU)
    assert nb06.fault("none", 3, 256, **ON_CPU)["as trained"] == {
        key: row[key] for key in ("test", "said good")
    }


def test_a_fault_nobody_made_is_named():
    with pytest.raises(
        ValueError, match=r"^kind must be one of none; padding read; no dropout, got 'no mask'$"
    ):
        nb06.fault("no mask", 0)


# ---- other tasks


def of_other_tasks(K=3):
    """A problem whose test side has another commonest class than its training side."""
    (texts, labels), (others, truth) = toy(120, K), toy(47, K, seed=1)
    few = np.flatnonzero(truth > 0)
    return Problem(
        {"train": texts, "valid": texts[:9], "test": [others[i] for i in few]},
        {"train": labels, "valid": labels[:9], "test": truth[few]},
        ("bad", "good", "other")[:K],
    )


@pytest.fixture
def toy_problem(monkeypatch):
    held = of_other_tasks()
    monkeypatch.setattr(nb06, "problem", lambda name: {"questions": held}[name])
    return held


def check_transfer(row, said, held):
    truth = held.labels["test"]
    assert row == {
        "n labels": 120,
        "n": len(truth),
        "accuracy": round(accuracy_score(truth, said), 4),
        "macro F1": round(f1_score(truth, said, average="macro"), 4),
    }
    assert as_json(row) == row


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_on_another_task_the_majority_is_that_of_the_training_side(toy_problem):
    row = nb06.transfer("questions", "majority", 0)
    check_transfer(row, np.zeros(len(toy_problem.labels["test"]), int), toy_problem)
    assert row["accuracy"] == 0  # there is none of it


def test_on_another_task_words_are_counted(toy_problem):
    model = sentiment.word_counts().fit(toy_problem.texts["train"], toy_problem.labels["train"])
    row = nb06.transfer("questions", "TF-IDF + logistic regression", 0)
    check_transfer(row, model.predict(toy_problem.texts["test"]), toy_problem)
    assert row["accuracy"] > 0.8


@pytest.mark.parametrize("K", [2, 3])
def test_words_are_counted_as_by_the_baseline(K):
    """Which knows two classes alone."""
    texts, labels = toy(80, K)
    model, others = sentiment.word_counts().fit(texts, labels), toy(30, K, seed=1)[0]
    found = model.predict_proba(others)
    assert found.shape == (30, K)
    if K == 2:
        np.testing.assert_allclose(found, sentiment.baseline(texts, labels).predict_proba(others))


@NAMES
def test_on_another_task_a_method_is_trained_and_measured(monkeypatch, toy_problem, name):
    monkeypatch.setattr(nb06, "METHODS", {name: short(m) for name, m in METHODS.items()})
    calls = spied(monkeypatch, nb06, "fit")
    with threads_kept():
        row = nb06.transfer("questions", name, 3, 1, False)
    ((call, (model, _), threads),) = calls
    assert threads == 1
    assert call["texts"] is toy_problem.texts["train"]
    assert call["targets"] is toy_problem.labels["train"]
    assert (call["method"], call["K"], call["seed"]) == (short(METHODS[name]), 3, 3)
    assert call["mixed"] is False
    held = nb06.examples(model, toy_problem.texts["test"], None)
    check_transfer(row, tuning.chances(model, held).argmax(axis=1), toy_problem)


@pytest.mark.parametrize(
    ("name", "method", "message"),
    [
        ("tweets", "majority", r"^name must be one of questions; products, got 'tweets'$"),
        ("questions", "LSTM", r"^method must be one of majority; TF-IDF .*; head only; .*'LSTM'$"),
        ("tweets", "none", r"^method must be one of"),  # before any reading
    ],
)  # fmt: skip
def test_a_task_or_a_method_that_is_none_is_named(name, method, message):
    with pytest.raises(ValueError, match=message):
        nb06.transfer(name, method, 0)
    with pytest.raises(ValueError, match=r"^name must be one of"):
        nb06.problem("films")


def test_questions_keep_their_own_test_side(have):
    have("trec")
    table, found = corpora.trec(), nb06.problem("questions")
    assert found.names == corpora.TREC_LABELS
    official = table[table["split"] == "test"]
    assert found.texts["test"] == official["text"].tolist()
    assert found.labels["test"].tolist() == official["label"].tolist()
    rest = table[table["split"] == "train"]
    known = [*zip(rest["text"], rest["label"], strict=True)]
    dealt = [
        pair
        for part in ("train", "valid")
        for pair in zip(found.texts[part], found.labels[part], strict=True)
    ]
    assert Counter(dealt) == Counter(known)
    assert len(found.texts["valid"]) == pytest.approx(0.1 * len(rest), abs=1)
    for labels in found.labels.values():
        assert set(labels) == set(range(6))


def test_no_review_is_on_two_sides(have):
    have("reviews")
    table = corpora.rated("products")
    source = table["id"].str.replace(r"_\d+$", "", regex=True)
    labels = table["rating"] > 0
    side = pd.Series(nb06.rated_split(table.assign(label=labels.astype(int))))
    mostly_good = labels.groupby(source).transform("mean") > 0.5
    assert 100 < source.nunique() < len(table) / 5
    assert (side.groupby(source).nunique() == 1).all()
    for part, share in nb06.FRACTIONS.items():
        assert (side == part).mean() == pytest.approx(share, abs=0.02)
        for k in (False, True):
            here = mostly_good == k
            missed = (here & (side == part)).sum() - share * here.sum()
            assert abs(missed) < source.value_counts().max()
    found = nb06.problem("products")
    assert found.names == ("bad", "good")
    assert found.texts.keys() == found.labels.keys() == nb06.FRACTIONS.keys()
    for part in nb06.FRACTIONS:
        assert found.texts[part] == table["text"][side == part].tolist()
        assert found.labels[part].tolist() == labels[side == part].astype(int).tolist()


def rated_table(ids, texts, labels):
    return pd.DataFrame({"id": ids, "text": texts, "label": labels})


def test_sentences_of_one_review_stay_together_wherever_they_stand():
    draw = np.random.default_rng(0)
    source = draw.integers(0, 60, 400)
    ids = [f"{group}_{i}" for i, group in enumerate(source)]
    side = nb06.rated_split(rated_table(ids, ["the same text"] * 400, draw.integers(0, 2, 400)))
    assert (pd.Series(side).groupby(source).nunique() == 1).all()
    assert set(side) == nb06.FRACTIONS.keys()  # and what they say binds them not


# ---- what is run


def calls_of(monkeypatch, experiment):
    """The keys of an experiment's rows, and what each would have called: a function's name and arguments."""
    seen = []

    def recorder(name, signature):
        def record(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            seen.append((name, dict(bound.arguments)))

        return record

    for name in ("tune", "counting", "lstm", "majority", "transfer", "fault", "guesses"):
        monkeypatch.setattr(nb06, name, recorder(name, inspect.signature(getattr(nb06, name))))
    tasks = list(experiment())
    keys = [key for key, _ in tasks]
    assert len({json.dumps(key, sort_keys=True) for key in keys}) == len(keys)
    for _, run in tasks:
        run()
    assert len(seen) == len(keys)
    return list(zip(keys, seen, strict=True))


def seeds_of(calls, **chosen):
    """The seeds of the rows with these keys, in their order."""
    return [key["seed"] for key, _ in calls if key.items() >= chosen.items() and "seed" in key]


USUAL = {"n": None, "side": "test", "threads": 1, "mixed": True}


def test_the_search_takes_few_labels_and_the_validation_side(monkeypatch):
    calls = calls_of(monkeypatch, nb06.search)
    tried = {name: set() for name in GRID}
    for key, (function, found) in calls:
        assert function == "tune"
        assert found["method"] == replace(METHODS[key["method"]], lr=key["lr"])
        assert (found["n"], found["side"], found["threads"]) == (2000, "valid", 1)
        assert {name: key[name] for name in ("n", "side", "seed")} == {
            name: found[name] for name in ("n", "side", "seed")
        }
        assert found["seed"] not in nb06.SEEDS
        tried[key["method"]].add(key["lr"])
    assert tried == {name: set(rates) for name, rates in GRID.items()}


def test_each_way_is_run_with_five_seeds_and_slow_ones_with_three(monkeypatch):
    calls = calls_of(monkeypatch, nb06.tunings)
    for name in METHODS.keys() - {nb06.ONE_PASS}:
        assert seeds_of(calls, method=name) == list(range(3 if name in nb06.SLOW else 5))
    assert {"all layers", "random weights"} <= set(nb06.SLOW) < set(METHODS)
    assert seeds_of(calls, method="LSTM") == list(range(5))
    for key, (function, found) in calls:
        name = key["method"]
        if name in METHODS:
            assert function == "tune"
            assert found == {"method": METHODS[name], "seed": key["seed"]} | USUAL
        else:
            expected = {"majority": "majority", "LSTM": "lstm"}.get(name, "counting")
            assert function == expected
            assert found.get("seed", 0) == key.get("seed", 0)
            assert found.get("n") is None
    assert {key["method"] for key, _ in calls} == {
        *METHODS.keys() - {nb06.ONE_PASS}, "LSTM", "majority", "TF-IDF + logistic regression",
    }  # fmt: skip


def test_the_curve_has_three_seeds_of_each_size(monkeypatch):
    calls = calls_of(monkeypatch, nb06.curve)
    names = ("all layers", "random weights", "TF-IDF + logistic regression")
    for name in names:
        for n in nb06.SIZES:
            assert seeds_of(calls, method=name, n=n) == [0, 1, 2]
    assert len(calls) == len(names) * 3 * len(nb06.SIZES)
    for key, (function, found) in calls:
        common = {"n": key["n"], "seed": key["seed"]}
        if key["method"] in METHODS:
            assert function == "tune"
            assert found == USUAL | {"method": METHODS[key["method"]]} | common
        else:
            assert (function, found) == ("counting", common)


def test_other_tasks_have_three_seeds_where_there_is_chance(monkeypatch):
    calls = calls_of(monkeypatch, nb06.transfers)
    (chosen,) = {key["method"] for key, _ in calls} & set(METHODS)
    for task in nb06.TASKS:
        assert seeds_of(calls, task=task, method=chosen) == [0, 1, 2]
        for name in ("majority", "TF-IDF + logistic regression"):
            assert sum(key == {"task": task, "method": name} for key, _ in calls) == 1
    assert len(calls) == 5 * len(nb06.TASKS)
    for key, (function, found) in calls:
        assert function == "transfer"
        assert (found["name"], found["method"]) == (key["task"], key["method"])
        assert found["seed"] == key.get("seed", 0)


def test_each_fault_is_run_with_three_seeds(monkeypatch):
    calls = calls_of(monkeypatch, nb06.faults)
    for kind in FAULTS:
        assert seeds_of(calls, fault=kind) == [0, 1, 2]
    assert len(calls) == 3 * len(FAULTS)
    for key, (function, found) in calls:
        assert (function, found) == (
            "fault",
            {"kind": key["fault"], "seed": key["seed"], "n": 500, "mixed": True},
        )


def test_each_way_to_hide_a_word_is_read_at_two_depths(monkeypatch):
    calls = calls_of(monkeypatch, nb06.hidings)
    assert len(calls) == 4
    for key, (function, found) in calls:
        assert (function, found) == ("guesses", key)
