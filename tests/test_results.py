"""Long experiments: an interrupted run goes on, another version starts anew, no half-written file is read."""

import json
import signal
from collections import Counter
from dataclasses import replace
from datetime import date
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from course_utils import results, splits
from course_utils.data import assets
from course_utils.experiments import nb01, nb03, nb04, nb04b
from course_utils.results import Experiment

PACKAGES = ("one", "two")
VERSION = {"of": "1.0"}


class Toy:
    """An experiment of rows a, b, c … that counts its measurements and breaks where it is told to."""

    def __init__(self, keys="abcd"):
        self.keys, self.breaks_at, self.measured = keys, None, Counter()

    def __call__(self):
        for key in self.keys:
            yield {"key": key, "half": 0.5}, lambda key=key: self.measure(key)

    def measure(self, key):
        if key == self.breaks_at:
            raise KeyboardInterrupt
        self.measured[key] += 1
        return {"value": ord(key)}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    experiment = Toy()
    toys = {"toy": Experiment(experiment, PACKAGES), "other": Experiment(Toy("z"), PACKAGES)}
    monkeypatch.setattr(results, "EXPERIMENTS", toys)
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(results, "version", lambda package: VERSION["of"])
    return experiment


def keys_stored():
    return [row["key"] for row in results.load("toy")["rows"]]


def interrupted(experiment, at):
    experiment.breaks_at = at
    with pytest.raises(KeyboardInterrupt):
        results.run("toy")
    experiment.breaks_at = None


def test_a_result_that_is_not_there_tells_the_command(toy):
    command = "python -m course_utils.results toy"
    with pytest.raises(FileNotFoundError, match=f"no stored result 'toy': {command}"):
        results.load("toy")


def test_a_run_stores_all_that_tells_how_it_was_made(toy, monkeypatch, capsys):
    """On a clock that goes 1.5 seconds a look."""
    monkeypatch.setattr(results, "time", SimpleNamespace(perf_counter=partial(next, count(0, 1.5))))
    results.run("toy")
    stored = results.load("toy")
    assert stored["command"] == "python -m course_utils.results toy"
    assert stored["versions"].keys() == {*PACKAGES, "python"}
    assert stored["seconds"] == 4 * 1.5
    assert date.fromisoformat(stored["date"]) <= date.today()
    assert stored["rows"] == [{"key": key, "half": 0.5, "value": ord(key), "seconds": 1.5} for key in "abcd"]
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == stored["rows"]


@pytest.mark.parametrize("at", "bcd")
def test_an_interrupted_run_goes_on_where_it_stopped(toy, at):
    interrupted(toy, at)
    assert keys_stored() == list("abcd"[: "abcd".index(at)])
    results.run("toy")
    assert keys_stored() == list("abcd")
    assert toy.measured == Counter("abcd")


def test_a_finished_run_measures_nothing_again(toy):
    results.run("toy")
    rows = results.load("toy")["rows"]
    results.run("toy")
    assert toy.measured == Counter("abcd")
    assert results.load("toy")["rows"] == rows


def test_an_interruption_before_known_rows_keeps_them(toy):
    """A new row in front, measured first and broken off, must not cost the rows that are there."""
    results.run("toy")
    toy.keys = "xyabcd"
    interrupted(toy, "y")
    assert keys_stored() == list("xabcd")
    results.run("toy")
    assert keys_stored() == list("xyabcd")
    assert toy.measured == Counter("abcdxy")


def test_rows_nobody_asks_for_any_more_go(toy):
    results.run("toy")
    toy.keys = "cb"
    results.run("toy")
    assert keys_stored() == list("cb")
    assert toy.measured == Counter("abcd")


def test_another_version_measures_all_again(toy, monkeypatch):
    results.run("toy")
    monkeypatch.setitem(VERSION, "of", "1.1")
    results.run("toy")
    assert toy.measured == Counter("abcd" * 2)
    assert set(results.load("toy")["versions"].values()) == {"1.1", results.platform.python_version()}


def test_another_python_measures_all_again(toy, monkeypatch):
    results.run("toy")
    monkeypatch.setattr(results.platform, "python_version", lambda: "0.0.0")
    results.run("toy")
    assert toy.measured == Counter("abcd" * 2)


def test_a_write_that_breaks_leaves_the_last_whole_file(toy, monkeypatch):
    interrupted(toy, "c")
    whole = results.load("toy")

    def half(path, text, *rest):
        with path.open("w", encoding="utf-8") as file:
            file.write(text[: len(text) // 2])
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "write_text", half)
        with pytest.raises(OSError, match="the disk is full"):
            results.run("toy")
    assert results.load("toy") == whole
    results.run("toy")
    assert keys_stored() == list("abcd")
    assert [path.name for path in results.FOLDER.iterdir()] == ["toy.json"]


def run_main(monkeypatch, *names):
    monkeypatch.setattr("sys.argv", ["results", *names])
    results.main()
    return sorted(path.stem for path in results.FOLDER.iterdir())


def test_the_command_runs_what_is_named_or_all(toy, monkeypatch):
    assert run_main(monkeypatch, "toy") == ["toy"]
    assert run_main(monkeypatch) == ["other", "toy"]
    assert toy.measured == Counter("abcd")


def test_the_command_refuses_an_unknown_name_before_any_work(toy, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_main(monkeypatch, "toy", "toys")
    assert "no experiment toys; there is toy, other" in capsys.readouterr().err
    assert not toy.measured


def test_another_experiments_packages_cost_no_row(toy, monkeypatch):
    results.run("toy")
    monkeypatch.setattr(results, "version", lambda package: VERSION["of"] if package in PACKAGES else "9.9")
    results.run("toy")
    assert toy.measured == Counter("abcd")


@pytest.mark.parametrize("name", results.EXPERIMENTS)
def test_no_row_of_an_experiment_passes_for_another(name):
    keys = [key for key, _ in results.EXPERIMENTS[name].tasks()]
    assert keys == json.loads(json.dumps(keys))  # as they come back from the file
    for i, key in enumerate(keys):
        assert [j for j, other in enumerate(keys) if key.items() <= other.items()] == [i], key


@pytest.mark.parametrize("name", results.EXPERIMENTS)
def test_what_is_stored_is_the_whole_experiment_in_its_order(name):
    stored = results.load(name)
    keys = [key for key, _ in results.EXPERIMENTS[name].tasks()]
    assert len(stored["rows"]) == len(keys)
    assert all(key.items() <= row.items() for key, row in zip(keys, stored["rows"], strict=True))
    assert stored["seconds"] == pytest.approx(sum(row["seconds"] for row in stored["rows"]), abs=0.5)
    assert stored["command"] == f"python -m course_utils.results {name}"
    assert stored["versions"].keys() == {*results.EXPERIMENTS[name].packages, "python"}
    assert date.fromisoformat(stored["date"]) <= date.today()


def test_notebook_01_finds_its_settings():
    assert (results.CBOW, results.SKIP_GRAM) == (nb01.CBOW, nb01.SKIP_GRAM)


@pytest.fixture
def small(monkeypatch):
    """The ablations on a dozen pairs for a few steps: nothing is fetched."""
    tokenizer = nb03.tr.tokenizer()
    english = ["I'm here.", "I am here.", "Is this it?", "You are here.", "He is here.", "She is here."] * 2
    spanish = ["Estoy aquí.", "Estoy aquí.", "¿Es esto?", "Estás aquí.", "Está aquí.", "Ella está aquí."] * 2
    pairs = nb03.tr.Pairs(pd.DataFrame({"english": english, "spanish": spanish}), tokenizer)
    data = nb03.Corpus(pairs, pairs, english, [[sentence] for sentence in spanish])
    monkeypatch.setattr(nb03, "corpus", lambda: data)
    monkeypatch.setattr(nb03, "CONFIG", replace(nb03.CONFIG, V=nb03.tr.PIECES, C=16))
    monkeypatch.setattr(nb03, "OPTIONS", replace(nb03.OPTIONS, steps=4, every=2, warmup=1))
    monkeypatch.setattr(nb03, "BATCH", 4)
    monkeypatch.setattr(nb03, "LAST", 2)
    return data


def model_of(name, seed=0):
    return nb03.build(nb03.VARIANTS[name], seed).cpu().double().eval()


def state(T=7):
    return torch.randn(2, T, nb03.CONFIG.C, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_every_variant_is_named_in_the_rows_with_enough_seeds():
    seeds = Counter(key["variant"] for key, _ in nb03.ablations())
    assert seeds.keys() == nb03.VARIANTS.keys()
    assert all(n >= (3 if "6 layers" in name else 5) for name, n in seeds.items())


def test_one_thing_differs_from_the_base():
    """Names promise it: a comma for a second thing, "6 layers" for the deeper base."""
    for name, v in nb03.VARIANTS.items():
        differences = (
            len(v.config) + len(v.options) + (v.smoothing != nb03.SMOOTHING) + (v.change is not None)
        )
        assert differences == (0 if name == "base" else 1 + name.count(",")), name


@pytest.mark.parametrize("name", nb03.VARIANTS)
def test_a_miniature_run_measures_what_it_says(small, name):
    threads = torch.get_num_threads()
    row = nb03.ablation(name, 0)
    assert torch.get_num_threads() == threads
    assert [step for step, _ in row["curve"]] == [2, 4]
    assert row["nats"] == row["curve"][-1][1] > 0
    assert 0 <= row["chrF"] <= 100
    assert 0 <= row["BLEU"] <= 100
    assert row["largest_norm"] > 0
    assert row["diverged"] is False
    assert ("settings" in row) == (name == "base")
    assert ("masked_nats" in row) == (name == "no causal mask")
    json.dumps(row, allow_nan=False)


def test_a_run_is_the_same_again_and_another_with_another_seed(small):
    first, again, other = (nb03.ablation("base", seed) for seed in (0, 0, 1))
    assert first == again
    assert first["curve"] != other["curve"]


def test_a_run_that_diverges_is_a_row(small, monkeypatch):
    """The third step's loss is made NaN: the validation before it is kept."""
    losses = count()
    true_loss = nb03.tr.translation_loss
    broken = {"at": 2}

    def loss(model, batch, smoothing):
        value = true_loss(model, batch, smoothing)
        return value * torch.nan if model.training and next(losses) == broken["at"] else value

    monkeypatch.setattr(nb03.tr, "translation_loss", loss)
    row = nb03.ablation("base", 0)
    assert row["diverged"] is True
    assert "step 2" in row["error"]
    assert row["nats"] is row["chrF"] is row["train_loss"] is None
    assert [step for step, _ in row["curve"]] == [2]


def stop_in_step_2(monkeypatch, experiment):
    """From now on the experiment's training gets an interrupt in its second step."""
    train, calls = experiment.train, count()

    def interrupted(model, batch, loss, *rest):
        def stopping(*given):
            if next(calls) == 1:
                signal.raise_signal(signal.SIGINT)
            return loss(*given)

        return train(model, batch, stopping, *rest)

    monkeypatch.setattr(experiment, "train", interrupted)


def test_an_interrupted_run_is_no_row(small, monkeypatch):
    stop_in_step_2(monkeypatch, nb03)
    with pytest.raises(KeyboardInterrupt, match=r"^training stopped at step 2 of 4$"):
        nb03.ablation("base", 0)


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match=r"variant must be one of base, .* got 'bas'"):
        nb03.ablation("bas", 0)


@pytest.mark.parametrize("name", ["no √d_k", "one head, no √d_k"])
def test_without_root_d_k_is_attention_of_scale_one(name):
    """At 4 heads of 16 numbers the root is 4, a power of 2: not a digit may differ."""
    part, x = model_of(name).encoder.stack.layers[0].self_attention, state()
    layers = (part.query, part.key, part.value)
    q, k, v = (part.split(F.linear(x, layer.weight, layer.bias)) for layer in layers)  # past every hook
    y = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    assert torch.equal(part(x), part.out(y.transpose(1, 2).reshape(x.shape)))


@pytest.mark.parametrize(
    ("side", "kind"),
    [("encoder", "self_attention"), ("decoder", "self_attention"), ("decoder", "cross_attention")],
)
def test_root_d_k_is_gone_from_every_attention(side, kind):
    changed, base = (getattr(model_of(name), side).stack.layers for name in ("no √d_k", "base"))
    for a, b in zip(changed, base, strict=True):
        assert torch.equal(getattr(a, kind).query(state()), 4 * getattr(b, kind).query(state()))


def ids():
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(0, nb03.CONFIG.V, (2, T), generator=draw) for T in (5, 6)]


def test_the_outer_relu_leaves_no_negative_output():
    changed, base = (model_of(name).decoder.stack.layers[1].feed_forward for name in ("outer ReLU", "base"))
    assert (base(state()) < 0).any()
    assert (changed(state()) >= 0).all()
    assert torch.equal(changed(state()), base(state()).relu())


@pytest.mark.parametrize(("name", "leaks"), [("base", False), ("no causal mask", True)])
def test_the_switch_shows_the_future(name, leaks):
    """Another last piece moves the scores before it, or does not."""
    model, (source, target) = model_of(name), ids()
    other = target.clone()
    other[:, -1] = (other[:, -1] + 1) % nb03.CONFIG.V
    before = [model(source, seen)[:, :-1] for seen in (target, other)]
    assert torch.equal(*before) != leaks


@pytest.mark.parametrize("side", ["encoder", "decoder", None])
def test_positions_are_taken_from_the_side_named(side):
    """Without positions the same piece has the same vector everywhere; the table stays one."""
    model = model_of(f"no positions in the {side}" if side else "no positions")
    for name in ("encoder", "decoder"):
        embedding = getattr(model, name).embedding
        vectors = embedding(torch.full((1, 3), 5))[0]
        assert torch.equal(vectors[0], vectors[1]) == (side in (name, None))
        assert embedding.tokens.weight is model.embedding.tokens.weight


def test_dropout_reaches_the_side_without_positions(monkeypatch):
    monkeypatch.setattr(nb03, "CONFIG", replace(nb03.CONFIG, dropout=0.5))
    model = model_of("no positions in the encoder").train()
    assert (model.encoder.embedding(torch.full((4, 3), 5)) == 0).any()


def test_a_short_pair_has_few_and_frequent_pieces():
    tokenizer = nb03.tr.tokenizer()
    kept = nb03.short(splits.translation_split()["valid"], tokenizer)
    rows = nb03.tr.Pairs(kept, tokenizer).rows
    assert len(rows) == len(kept) > 0
    assert all(0 < len(ids) <= nb03.LONGEST and max(ids) < nb03.CONFIG.V for row in rows for ids in row)
    assert nb03.CONFIG.T > nb03.LONGEST + 1  # END counted, and room for a translation that is longer


def test_the_stored_ablations_were_made_with_these_settings():
    rows = results.load("ablations")["rows"]
    wanted = {"config": nb03.asdict(nb03.CONFIG), "training": nb03.training()}
    for row in rows:
        if row["variant"] == "base":
            assert row["settings"].items() >= json.loads(json.dumps(wanted)).items()
            assert row["settings"]["threads"] == 1


# Notebook 04: LSTM against Transformer


def rows_of(name, **key):
    return [row for row in results.load(name)["rows"] if key.items() <= row.items()]


def settled(name):
    """The rows that are reported: no tuning, no counts."""
    return [row for row in results.load(name)["rows"] if "tuning" not in row and "training" not in row]


@pytest.fixture
def brief(monkeypatch):
    """Notebook 04's experiments in a few steps, on a stream of random pieces: nothing is fetched."""
    draw = np.random.default_rng(0)
    known, valid = (draw.integers(0, nb04.V, n).astype(np.uint16) for n in (40_000, 1_000))
    held = torch.from_numpy(valid[: 2 * (nb04.T + 1)].reshape(2, -1).astype(np.int64))
    monkeypatch.setattr(nb04, "stories", lambda: nb04.Stories(known, valid, held))
    monkeypatch.setattr(nb04, "OPTIONS", replace(nb04.OPTIONS, steps=3, warmup=1))
    monkeypatch.setattr(nb04, "WRITING", replace(nb04.WRITING, steps=3, warmup=1))
    monkeypatch.setattr(nb04, "RECALL_STEPS", 25)
    monkeypatch.setattr(nb04, "BATCH", 2)
    monkeypatch.setattr(nb04, "TEXTS", 3)
    monkeypatch.setattr(nb04, "TEXT", 256)
    monkeypatch.setattr(nb04, "LENGTHS", (4, 8))


RUNS = {
    "story_models": partial(nb04.story_model, "LSTM"),
    "recall": partial(nb04.recall, "RNN", 16),
    "truncation": partial(nb04.truncated, "16 tokens, memory kept"),
    "bridge": partial(nb04.bridge, "attention"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_notebook_04_is_the_same_again(brief, name):
    """And holds what a stored row holds, in numbers that go into JSON."""
    threads = torch.get_num_threads()
    first, again = RUNS[name](0), RUNS[name](0)
    assert torch.get_num_threads() == threads
    assert first == again
    assert RUNS[name](1) != first
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    key, _ = next(task for task in results.EXPERIMENTS[name].tasks() if "seed" in task[0])
    stored = next(row for row in results.load(name)["rows"] if key.items() <= row.items())
    assert first.keys() == stored.keys() - key.keys() - {"seconds"}


@pytest.mark.parametrize("run", RUNS.values())
def test_a_model_nobody_knows_is_named(run):
    with pytest.raises(ValueError, match=r"name must be one of .*; .*, got 'perceptron'"):
        run.func("perceptron", *run.args[1:], 0)


@pytest.mark.parametrize("name", ["story_models", "truncation", "bridge"])
def test_an_interrupted_run_of_notebook_04_is_no_row(brief, monkeypatch, name):
    stop_in_step_2(monkeypatch, nb04)
    with pytest.raises(KeyboardInterrupt, match=r"^training stopped at step 2 of "):
        RUNS[name](0)


@pytest.mark.parametrize("name", ["story_models", "recall", "truncation", "bridge"])
def test_every_comparison_of_notebook_04_has_its_seeds(name):
    seeds = Counter()
    for row in settled(name):
        assert row["seed"] != nb04.TUNING_SEED
        seeds[tuple(row.get(key) for key in ("match", "model", "L"))] += 1
    assert min(seeds.values()) >= 3


@pytest.mark.parametrize(
    ("name", "score", "known"),
    [
        ("story_models", "nats", nb04.SHAPES),
        ("truncation", "nats", nb04.STRETCHES),
        ("bridge", "train_loss", nb04.WRITERS),
    ],
)
def test_each_model_has_the_best_rate_of_the_same_grid(name, score, known):
    best, grids = {}, {}
    for row in rows_of(name, tuning="rate"):
        grids.setdefault(row["model"], []).append(row["lr"])
        best[row["model"]] = min(best.get(row["model"], (np.inf, 0)), (row[score], row["lr"]))
    assert best
    assert len(set(map(tuple, grids.values()))) == 1
    assert {model: known[model].lr for model in best} == {model: lr for model, (_, lr) in best.items()}
    grid = next(iter(grids.values()))
    assert all(min(grid) < lr < max(grid) for _, lr in best.values())  # no better one lies outside


def test_models_that_are_not_tuned_have_the_rate_of_their_kind():
    assert nb04.WRITERS["one vector, 3 times the steps"].lr == nb04.WRITERS["one vector"].lr


def test_each_memory_has_the_rate_that_the_rule_picks():
    for name, kind in nb04.MEMORIES.items():
        rows = rows_of("recall", tuning="rate", model=name)
        top = max(round(row["accuracy"], 1) for row in rows)
        able = [row for row in rows if round(row["accuracy"], 1) == top]
        limit = min(row["steps"] for row in able) + nb04.RECALL_EVERY
        assert kind.lr == min(row["lr"] for row in able if row["steps"] <= limit), name


def test_what_is_called_matched_is():
    """Parameters within 1 %, and the same tokens; or operations within 1 %."""
    for match in nb04.MATCHES:
        rows = rows_of("story_models", match=match)
        flops = [row["flops"] for row in rows] + [
            row["flops"] for row in rows_of("story_models", match="parameters", model="Transformer")
        ]
        sizes = [row["parameters"] for row in rows]
        assert max(sizes) < 1.01 * min(sizes)
        if match == "parameters":
            assert len({row["tokens"] for row in rows}) == 1
        else:
            assert max(flops) < 1.01 * min(flops)
    writers = rows_of("bridge", seed=0)
    for key in ("parameters", "flops_per_row"):
        assert max(row[key] for row in writers) < 1.02 * min(row[key] for row in writers)
    memories = [row["parameters"] for row in settled("recall")]
    assert max(memories) < 1.03 * min(memories)
    assert len({(row["tokens"], row["parameters"]) for row in settled("truncation")}) == 1


@pytest.mark.parametrize("name", nb04.SHAPES)
def test_the_operations_are_those_of_the_matrices(name):
    """Two a weight and token forward, twice as many backward: the matrices, and attention's T × T products.

    A recurrent cell's first step has no state to send a gradient to: one product in T fewer.
    """
    shape, T = nb04.SHAPES[name], nb04.T
    if shape.recurrent:
        weights = nb04.V * shape.C + shape.layers * 8 * shape.C**2
        missing = shape.layers * 2 * 4 * shape.C**2 / T
        assert nb04.flops_per_token(name) == pytest.approx(6 * weights - missing, abs=1)
    else:
        weights = nb04.V * shape.C + shape.layers * 12 * shape.C**2
        assert nb04.flops_per_token(name) == 6 * weights + shape.layers * 3 * 4 * T * shape.C


def test_counting_stands_beside_the_models_on_the_same_windows():
    rows = {(row["model"], row["training"]): row for row in results.load("story_models")["rows"][:6]}
    assert {model for model, _ in rows} == nb04.COUNTS.keys()
    few, trained = (min(row["tokens"] for row in some) for some in (rows.values(), settled("story_models")))
    assert few == trained
    for row in [*rows.values(), *settled("story_models")]:
        widths = np.diff(nb04.BINS)
        assert np.average(row["by_position"], weights=widths) == pytest.approx(row["nats"], abs=1e-3)


def test_losses_are_those_of_the_counts():
    """A transition matrix read off pair by pair."""
    draw = np.random.default_rng(0)
    known, ids = draw.integers(0, 3, 50), draw.integers(0, 3, (2, 5))
    P = nb04.transition_matrix(known, nb04.V, add=0.01)
    wanted = [[-np.log(P[a, b]) for a, b in pairwise(row)] for row in ids]
    assert np.allclose(nb04.by_matrix(known, ids), wanted)


def test_losses_are_cross_entropies():
    model = nb04.language_model(nb04.SHAPES["LSTM"], 0)
    ids = torch.randint(0, nb04.V, (20, 9), generator=torch.Generator().manual_seed(0))  # two parts of 16
    each = nb04.losses(model, ids)
    assert each.shape == (20, 8)
    assert each.mean() == pytest.approx(nb04.next_token_loss(model, ids).item(), rel=1e-5)


def test_the_compiled_language_model_has_the_weights_that_are_counted():
    shape, ids = nb04.Shape(2, 8, 1e-3), torch.arange(6)[None]
    ours, theirs = (nb04.language_model(shape, 3, compiled=compiled) for compiled in (False, True))
    assert torch.allclose(ours(ids), theirs(ids), atol=1e-6)


@pytest.mark.parametrize("L", [1, 4, 128])
def test_a_sequence_tells_its_value_once_at_the_distance(L):
    ids = nb04.sequences(L, 50, torch.Generator().manual_seed(0))
    assert ids.shape == (50, L + 1)
    assert (ids[:, 0] < nb04.VALUES).all()
    assert (ids[:, -1] == nb04.QUERY).all()
    assert (ids[:, 1:] >= nb04.VALUES).all()
    assert (ids[:, 1:-1] < nb04.QUERY).all()


def test_a_distance_too_far_is_refused():
    for L in (0, nb04.FARTHEST + 1):
        with pytest.raises(ValueError, match=f"L must lie in 1 … 128, got {L}"):
            nb04.recall("GRU", L, 0)


def test_recall_stops_after_two_good_looks(monkeypatch):
    looks = iter([0.99, 0.5, 0.99, 1.0, 1.0])
    monkeypatch.setattr(nb04, "recalled", lambda *rest: next(looks))
    assert nb04.learn(nb04.memory("GRU", 0), 2, 1e-3, 0) == 4 * nb04.RECALL_EVERY


def test_recalled_counts_the_values_told():
    """By a reader that knows, and by one that always says the same."""

    def knows(ids):
        return F.one_hot(ids[:, :1], nb04.SYMBOLS).double().expand(-1, ids.shape[1], -1)

    def says_0(ids):
        return torch.eye(nb04.SYMBOLS)[0].expand(*ids.shape, -1)

    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    assert nb04.recalled(knows, 4, draws[0]) == 1
    zeros = (nb04.sequences(4, 1000, torch.Generator().manual_seed(0))[:, 0] == 0).double().mean().item()
    assert nb04.recalled(says_0, 4, draws[1]) == zeros


def test_memories_start_as_their_names_say():
    C, part = nb04.MEMORIES["LSTM, chrono"].C, {}
    for name in nb04.MEMORIES:
        if "Transformer" not in name:
            part[name] = nb04.memory(name, 0).recurrent
    biases = {name: r.bias_ih_l0 + r.bias_hh_l0 for name, r in part.items() if "LSTM" in name}
    for forget in (1.0, 3.0):
        assert (biases[f"LSTM, forget bias {forget:.0f}"][C : 2 * C] == forget).all()
    assert biases["LSTM, forget bias 0"][C : 2 * C].abs().max() < 2 * C**-0.5
    spans = biases["LSTM, chrono"][C : 2 * C].exp()
    assert ((spans >= 1) & (spans <= nb04.FARTHEST)).all()
    assert torch.equal(biases["LSTM, chrono"][:C], -biases["LSTM, chrono"][C : 2 * C])
    W = part["RNN, orthogonal"].weight_hh_l0
    assert torch.allclose(W @ W.T, torch.eye(len(W)), atol=1e-5)


@pytest.mark.parametrize("T", [16, 128])
def test_rows_side_by_side_go_on_where_they_stopped(brief, T):
    """Each row's stretches joined, and the rows joined, are one piece of the stream."""
    batch, stream = nb04.side_by_side(3, T, 0), nb04.stories().train
    steps = [batch(step) for step in range(nb04.OPTIONS.steps)]
    text = torch.cat([stretch[:, :-1] for stretch in steps], dim=1).flatten().numpy()
    start = np.flatnonzero((np.lib.stride_tricks.sliding_window_view(stream, len(text)) == text).all(axis=1))
    assert len(start) == 1
    for before, after in pairwise(steps):
        assert torch.equal(before[:, -1], after[:, 0])
    assert np.array_equal(steps[-1][:-1, -1], steps[0][1:, 0])


def test_all_stretches_read_the_same_text(brief):
    texts = []
    for kind in nb04.STRETCHES.values():
        batch = nb04.side_by_side(nb04.BATCH * nb04.T // kind.T, kind.T, 0)
        parts = [batch(step)[:, :-1] for step in range(nb04.OPTIONS.steps)]
        texts.append(torch.cat(parts, dim=1).flatten())
    assert all(torch.equal(text, texts[0]) for text in texts[1:])


@pytest.mark.parametrize("every", [0, 16])
def test_a_text_is_read_with_its_memory_kept_or_emptied(brief, every):
    """Against a model that walks the whole text at once, or each piece by itself."""
    model = nb04.language_model(nb04.Shape(1, 8, 1e-3), 0)
    ids = torch.from_numpy(nb04.stories().valid[: nb04.TEXTS * nb04.TEXT + 1].astype(np.int64))
    length = every or nb04.TEXT
    with torch.no_grad():
        wanted = nb04.next_token_loss(model, ids.unfold(0, length + 1, length)).item()
    assert nb04.read_through(model, every) == pytest.approx(wanted, rel=1e-5)


class Knows:
    """Scores the reversed row and END, but for the first `wrong` digits of a row."""

    def __init__(self, wrong=0):
        self.wrong = wrong

    def __call__(self, source, target):
        end = torch.full((len(source), 1), nb04.END)
        right = torch.cat([source.flip(1), end, end], dim=1)[:, : target.shape[1]].clone()
        right[:, : self.wrong] = (right[:, : self.wrong] + 1) % nb04.DIGITS
        return F.one_hot(right, nb04.DIGITS + 1).double(), None


def test_rows_that_are_right_count_as_right():
    exact, digits = nb04.reversed_rows(Knows(), N=10)
    assert exact == digits == [[n, 1.0] for n in nb04.LENGTHS]
    exact, digits = nb04.reversed_rows(Knows(wrong=1), N=10)
    assert exact == [[n, 0.0] for n in nb04.LENGTHS]
    assert digits == [[n, pytest.approx(1 - 1 / n, abs=1e-4)] for n in nb04.LENGTHS]


def test_the_reversing_loss_asks_for_the_reversed_row_and_its_end():
    """Nothing to lose for a model that is sure of the right answers, much for one of another row."""
    digits = nb04.rows_of_digits(4, 6, torch.Generator().manual_seed(0))

    def sure(source, target):
        return 50 * Knows()(source, target)[0], None

    assert nb04.reversing_loss(sure, digits).item() == pytest.approx(0, abs=1e-6)
    assert nb04.reversing_loss(lambda s, t: sure(s.roll(1, 1), t), digits).item() > 1


# Notebook 04b: film reviews


def review_rows(*variants):
    return [row for row in results.load("reviews")["rows"] if not variants or row["variant"] in variants]


def judged(row):
    """The scores of a row by side; the listing's, which has two pairs of them, one after the other."""
    for part in (row, *(row[name] for name in row if name.startswith("after "))):
        yield from ((side, part[side]) for side in ("valid", "test") if side in part)


@pytest.fixture
def few_reviews(monkeypatch):
    """Notebook 04b's runs on 80 reviews for a few steps, without GloVe: nothing is fetched."""
    draw = np.random.default_rng(0)
    sizes, texts, ratings = {"train": 80, "valid": 30, "test": 40}, {}, {}
    for side, n in sizes.items():
        ratings[side] = draw.choice([-3.0, -0.5, 0.4, 2.0], n)
        filler = [" ".join(draw.choice(["a", "film", "so", "it", "is"], k)) for k in draw.integers(1, 7, n)]
        told = ["good" if rating > 0 else "bad" for rating in ratings[side]]
        texts[side] = [f"{words} {word}" for words, word in zip(filler, told, strict=True)]
    labels, targets, clear = (
        {side: part(row) for side, row in ratings.items()}
        for part in (lambda row: (row > 0).astype(int), nb04b.sentiment.graded, lambda row: abs(row) > 1)
    )
    ids = nb04b.sentiment.word_ids(texts["train"])
    given = nb04b.Data(texts, labels, targets, clear, ids)
    monkeypatch.setattr(nb04b, "data", lambda: given)
    monkeypatch.setattr(nb04b.sentiment, "glove_vectors", lambda ids: torch.ones(len(ids) + 2, 50) / 2)
    monkeypatch.setattr(nb04b.sentiment, "OPTIONS", replace(nb04b.sentiment.OPTIONS, steps=4, every=2))
    monkeypatch.setattr(nb04b, "EPOCHS", (2, 1))
    return given


@pytest.mark.parametrize("name", nb04b.VARIANTS)
def test_a_miniature_classifier_measures_what_it_says(few_reviews, name):
    threads = torch.get_num_threads()
    row = nb04b.classifier(name, 0)
    assert torch.get_num_threads() == threads
    assert [step for step, _ in row["curve"]] == [2, 4]
    assert row["steps"] == min(row["curve"], key=lambda pair: pair[1])[0]
    assert {(side, found["n"], found["n clear"]) for side, found in judged(row)} == {
        (side, len(few_reviews.texts[side]), int(few_reviews.clear[side].sum())) for side in ("valid", "test")
    }
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_a_classifier_is_the_same_again_and_another_with_another_seed(few_reviews):
    first, again, other = (nb04b.classifier("base", seed) for seed in (0, 0, 1))
    assert first == again
    assert first["curve"] != other["curve"]


def test_each_variant_is_another_model_of_the_base(few_reviews):
    """Each is measured for itself, reads out as many numbers, and changes no more than its name says."""
    curves = {name: str(nb04b.classifier(name, 0)["curve"]) for name in nb04b.VARIANTS}
    assert len(set(curves.values())) == len(curves)
    assert nb04b.VARIANTS["base"] == nb04b.Variant()
    vectors = torch.zeros(3, 50)
    models = [nb04b.sentiment.Classifier(vectors, **kind.config) for kind in nb04b.VARIANTS.values()]
    assert len({model.score.in_features for model in models}) == 1


def test_an_unknown_classifier_is_named():
    with pytest.raises(ValueError, match=r"variant must be one of base, .* got 'bas'"):
        nb04b.classifier("bas", 0)


def test_what_has_to_be_beaten_is_measured_alike(few_reviews):
    most = nb04b.majority()
    for side, found in judged(most):
        share = few_reviews.labels[side].mean()
        mostly = few_reviews.labels["train"].mean() > 0.5
        assert found["accuracy"] == pytest.approx(share if mostly else 1 - share, abs=1e-4)
    for graded in (False, True):
        row = nb04b.counting(graded)
        assert row["C"] in (3.0, 10.0, 30.0)
        assert min(row["test"]["accuracy"], row["test"]["clear"]) > 0.9  # a word tells


def test_the_listing_runs_on_from_its_first_fit(few_reviews):
    row = nb04b.listing(0)
    assert [epoch for epoch, *_ in row["curve"]] == [1, 2, 3]
    assert {"after 2", "after 3"} < row.keys()
    assert row["curve"][2][3] == row["after 3"]["valid"]["accuracy"]
    assert row["after 2"] != row["after 3"]
    assert row == nb04b.listing(0)


def test_the_listing_on_the_librarys_lstm_is_our_classifier(few_reviews):
    config = {"C": 128, "pool": "last", "bidirectional": False, "dropout": 0.0}
    ours, theirs = nb04b.sentiment.Classifier(nb04b.vectors("random", 3), **config, seed=3), nb04b.listed(3)
    batch = nb04b.reviews("valid", graded=False).batch(torch.arange(30))
    logits = [model.to(batch.ids.device)(batch.ids, batch.lengths) for model in (ours, theirs)]
    torch.testing.assert_close(*logits)


def test_every_variant_of_the_classifier_has_the_same_seeds():
    seeds = {}
    for row in review_rows(*nb04b.VARIANTS):
        seeds.setdefault(row["variant"], []).append(row["seed"])
    assert seeds.keys() == nb04b.VARIANTS.keys()
    assert len(set(map(tuple, seeds.values()))) == 1
    assert len(set(seeds["base"])) >= 5


def test_every_classifier_was_judged_on_the_whole_split():
    sides, n = splits.review_split(), {}
    for side in ("valid", "test"):
        n[side] = {"n": len(sides[side]), "n clear": int((sides[side]["rating"].abs() > 1).sum())}
    assert n["test"] == {"n": 1585, "n clear": 1340}
    for row in review_rows():
        found = list(judged(row))
        assert len(found) == (4 if row["variant"] == "listing" else 2)
        assert all(scores.items() >= n[side].items() for side, scores in found), row["variant"]


def test_stored_scores_are_those_of_their_confusion():
    """And of each side's labels: whatever a classifier says, as many reviews are good."""
    labels = {side: (rows["rating"] > 0).to_numpy() for side, rows in splits.review_split().items()}
    for row in review_rows():
        for side, found in judged(row):
            (tn, fp), (fn, tp) = found["confusion"]
            assert (tn + fp, fn + tp) == ((~labels[side]).sum(), labels[side].sum())
            wanted = {
                "accuracy": (tn + tp) / (tn + fp + fn + tp),
                "precision": tp / max(tp + fp, 1),
                "recall": tp / (fn + tp),
                "F1": 2 * tp / (2 * tp + fp + fn),
            }
            assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-4)
            right = found["clear"] * found["n clear"]
            assert tn + tp - (found["n"] - found["n clear"]) - 0.5 <= right <= tn + tp + 0.5


def test_a_stored_classifier_is_the_best_of_its_validations():
    options = nb04b.sentiment.OPTIONS
    for row in review_rows(*nb04b.VARIANTS):
        steps, losses = zip(*row["curve"], strict=True)
        assert losses[steps.index(row["steps"])] == min(losses)
        assert list(steps) == list(range(options.every, steps[-1] + 1, options.every))
        last = min(row["steps"] + options.patience * options.every, options.steps)
        assert steps[-1] == last


def test_what_learns_is_better_than_what_does_not():
    (most,) = review_rows("majority")
    assert 0 in np.sum(most["test"]["confusion"], axis=0)  # all is called the same
    assert np.mean([row["test"]["accuracy"] for row in review_rows("base")]) > most["test"]["accuracy"]
    for row in review_rows(*nb04b.VARIANTS, "TF-IDF + logistic regression"):
        assert row["test"]["accuracy"] > most["test"]["accuracy"]
        assert row["test"]["log loss"] < most["test"]["log loss"]


def test_the_stored_listing_tells_both_of_its_fits():
    (row,) = review_rows("listing")
    epochs, training, _, accuracy = zip(*row["curve"], strict=True)
    first, last = nb04b.EPOCHS[0], sum(nb04b.EPOCHS)
    assert list(epochs) == [1, 2, 3, 5, *range(10, last + 1, 10)]
    assert training[-1] < training[0]
    for epoch in (first, last):
        assert accuracy[epochs.index(epoch)] == row[f"after {epoch}"]["valid"]["accuracy"]


@pytest.mark.skipif(
    not all(assets()[name].cached for name in ("reviews", "glove-50d")), reason="not in the cache"
)
def test_no_review_of_another_side_gives_a_word_an_id():
    """All words of the training side have one, and of the others GloVe's frequent ones alone."""
    d, sides = nb04b.data(), splits.review_split()
    known = {*nb04b.corpora.glove(nb04b.sentiment.KNOWN)[0]}
    read = {side: {word for text in d.texts[side] for word in nb04b.sentiment.words(text)} for side in sides}
    assert d.ids.keys() == read["train"] | known
    assert read["test"] - d.ids.keys()
    for side, rows in sides.items():
        assert d.texts[side] == rows["text"].tolist()
        assert np.array_equal(d.labels[side] == 1, rows["rating"] > 0)
        assert np.array_equal(d.targets[side] > 0.5, rows["rating"] > 0)
        assert np.array_equal(d.clear[side], (rows["rating"] > 1) | (rows["rating"] < -1))
