"""Long experiments: an interrupted run goes on, another version starts anew, no half-written file is read."""

import json
from collections import Counter
from dataclasses import replace
from datetime import date
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from course_utils import results, splits
from course_utils.data import assets
from course_utils.experiments import nb01, nb03, nb04b
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


def test_an_interrupted_run_is_no_row(small, monkeypatch):
    monkeypatch.setattr(nb03, "train", lambda *rest: SimpleNamespace(loss=[1.0]))
    with pytest.raises(KeyboardInterrupt):
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
