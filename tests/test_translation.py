"""Translation: batches, loss, decoding and IBM's first model, each against its definition."""

import json
import random
import signal
import sys
from collections import defaultdict
from dataclasses import replace

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils import bpe, translation
from course_utils.generation import beam_search, greedy
from course_utils.runtime import device, generator
from course_utils.training import History, Options, train
from course_utils.transformer import Config, Transformer
from course_utils.translation import (
    END,
    IGNORED,
    Pairs,
    decoding_step,
    pair_batch,
    translate,
    translate_all,
    translation_loss,
    word_dictionary,
)

ENGLISH = ["the", "dog", "sees", "a", "cat", "reads", "books", "and", "sleeps", "here", "today", "well"]
SPANISH = ["el", "perro", "ve", "un", "gato", "lee", "libros", "y", "duerme", "aquí", "hoy", "bien"]
CONFIG = Config(V=300, T=24, C=32, nh=2, layers=2, dropout=0.0)
TOLERANCE = 1e-10  # float64, relative to numbers of size 1


def toy(N, seed=0, longest=6):
    """Sentence pairs, word by word."""
    draw = random.Random(seed)
    rows = [[draw.randrange(12) for _ in range(draw.randint(1, longest))] for _ in range(N)]
    sides = {"english": ENGLISH, "spanish": SPANISH}
    return pd.DataFrame(
        {name: [" ".join(words[i] for i in row) + "." for row in rows] for name, words in sides.items()}
    )


PAIRS = toy(400)
PIECES = bpe.train([*PAIRS["english"], *PAIRS["spanish"]], CONFIG.V)


@pytest.fixture(scope="module")
def half_trained():
    """A float64 model in the middle of its training: it ends its sentences, and is not sure of them."""
    torch.set_num_threads(1)
    model = Transformer(CONFIG).to(device())
    batches = Pairs(PAIRS, PIECES).batches(32)
    train(model, batches, translation_loss, Options(steps=120, lr=4e-3, warmup=20))
    return model.double()


def ids_of(sentences):
    return [encoding.ids for encoding in PIECES.encode_batch(list(sentences))]


def alone(model, source, target):
    """-log p of each piece of one target and of its END, by the plain equations on unpadded rows."""
    where = device()
    source, inputs = (
        torch.tensor([[*source, END]], device=where),
        torch.tensor([[END, *target]], device=where),
    )
    logs = model(source, inputs)[0].log_softmax(-1)  # (T, V)
    return -torch.stack([logs[t, token] for t, token in enumerate([*target, END])])


# --- batches and loss ---------------------------------------------------------------------------------------


def test_the_tokenizer_ends_with_the_id_the_batches_end_with():
    assert PIECES.token_to_id(bpe.END) == END


def test_a_batch_by_hand():
    batch = pair_batch([[5, 6, 7], [8]], [[9], [11, 12]])
    assert batch.source.tolist() == [[5, 6, 7, END], [8, END, END, END]]
    assert batch.mask.tolist() == [[[True] * 4], [[True, True, False, False]]]
    assert batch.inputs.tolist() == [[END, 9, END], [END, 11, 12]]
    assert batch.targets.tolist() == [[9, END, IGNORED], [11, 12, END]]
    assert {tensor.device.type for tensor in batch} == {device()}


def test_without_targets_there_is_the_beginning_alone():
    batch = pair_batch([[5, 6], [8]])
    assert batch.inputs.tolist() == [[END], [END]]
    assert batch.targets.tolist() == [[END], [END]]


def test_an_empty_side_is_its_end_alone():
    batch = pair_batch([[], [3]], [[4], []])
    assert batch.source.tolist() == [[END, END], [3, END]]
    assert batch.mask.tolist() == [[[True, False]], [[True, True]]]
    assert batch.targets.tolist() == [[4, END], [END, IGNORED]]


ROWS = st.lists(st.lists(st.integers(1, 99), max_size=6), min_size=1, max_size=5)


@settings(deadline=None)
@given(ROWS, st.data())
def test_a_batch_holds_each_pair_and_nothing_else(sources, data):
    targets = data.draw(
        st.lists(st.lists(st.integers(1, 99), max_size=6), min_size=len(sources), max_size=len(sources))
    )
    batch = pair_batch(sources, targets)
    for b, (source, target) in enumerate(zip(sources, targets, strict=True)):
        assert batch.source[b][batch.mask[b, 0]].tolist() == [*source, END]
        counts = batch.targets[b] != IGNORED
        assert batch.targets[b][counts].tolist() == [*target, END]
        assert batch.inputs[b][counts].tolist() == [END, *target]
    assert batch.source.shape[1] == max(map(len, sources)) + 1
    assert batch.inputs.shape == batch.targets.shape == (len(targets), max(map(len, targets)) + 1)


def test_what_stands_in_the_padding_changes_nothing(half_trained):
    batch = pair_batch(ids_of(PAIRS["english"][:20]), ids_of(PAIRS["spanish"][:20]))
    random_ids = torch.randint(0, CONFIG.V, (2, 20, 24), generator=generator(0)).to(device())
    padded, ignored = ~batch.mask[:, 0], batch.targets == IGNORED
    assert padded.any()
    assert ignored.any()
    source = torch.where(padded, random_ids[0, :, : padded.shape[1]], batch.source)
    inputs = torch.where(ignored, random_ids[1, :, : ignored.shape[1]], batch.inputs)
    before = translation_loss(half_trained, batch)
    after = translation_loss(half_trained, batch._replace(source=source, inputs=inputs))
    assert (before - after).abs() <= TOLERANCE
    read = torch.where(ignored, batch.inputs, random_ids[1, :, : ignored.shape[1]])
    assert (translation_loss(half_trained, batch._replace(inputs=read)) - before).abs() > 0.1


def test_a_batchs_loss_is_the_mean_over_its_pieces(half_trained):
    """Each sentence by itself, unpadded, by the definition of cross-entropy; gradients too."""
    rows = list(zip(ids_of(PAIRS["english"][:9]), ids_of(PAIRS["spanish"][:9]), strict=True))
    each = torch.cat([alone(half_trained, *row) for row in rows])
    together = translation_loss(half_trained, pair_batch(*zip(*rows, strict=True)), smoothing=0.0)
    assert (together - each.mean()).abs() <= TOLERANCE
    weights = list(half_trained.parameters())
    gradients = zip(
        torch.autograd.grad(together, weights), torch.autograd.grad(each.mean(), weights), strict=True
    )
    assert max((a - b).abs().max() for a, b in gradients) <= TOLERANCE


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_smoothing_spreads_a_share_over_all_pieces(half_trained, smoothing):
    source, target = (ids_of(PAIRS[name][:1])[0] for name in ("english", "spanish"))
    batch = pair_batch([source], [target])
    logs = half_trained(batch.source, batch.inputs, batch.mask)[0].log_softmax(-1)
    expected = (1 - smoothing) * alone(half_trained, source, target).mean() - smoothing * logs.mean()
    assert (translation_loss(half_trained, batch, smoothing) - expected).abs() <= TOLERANCE
    assert (translation_loss(half_trained, batch) == translation_loss(half_trained, batch, 0.1)).all()


# --- pairs --------------------------------------------------------------------------------------------------


def test_pairs_are_scored_piece_by_piece(half_trained, monkeypatch):
    """Over several batches of unequal lengths: weighted by pieces, not a mean of means."""
    pairs = Pairs(toy(300, seed=9), PIECES)
    with torch.no_grad():
        each = torch.cat([alone(half_trained, *row) for row in pairs.rows])
    assert pairs.nats(half_trained) == pytest.approx(float(each.mean()), abs=TOLERANCE)


def test_longer_pairs_are_left_out():
    pairs = pd.concat([toy(5), toy(1, longest=1).assign(spanish=" ".join(SPANISH * 5))])
    rows = ids_of(pairs["english"]), ids_of(pairs["spanish"])
    lengths = [max(len(e), len(s)) for e, s in zip(*rows, strict=True)]
    kept = Pairs(pairs, PIECES)
    assert max(lengths) >= translation.LONGEST
    assert len(kept.rows) == sum(n < translation.LONGEST for n in lengths) == 5
    at_the_border = max(lengths[:5])
    assert len(Pairs(pairs, PIECES, longest=at_the_border).rows) == sum(n < at_the_border for n in lengths)
    assert kept.lengths.tolist() == [len(e) + len(s) for e, s in kept.rows]


def test_batches_are_of_like_length_and_a_function_of_the_step():
    pairs = Pairs(PAIRS, PIECES)
    batches, again, other = pairs.batches(20), pairs.batches(20), pairs.batches(20, seed=1)
    steps = [0, 33, 7, 19, 20]
    assert all(torch.equal(a, b) for step in steps for a, b in zip(batches(step), again(step), strict=True))
    assert any(batches(step).source.shape != other(step).source.shape for step in steps)
    padded = sum(int((~batches(step).mask).sum()) for step in range(20))
    unsorted = [pairs.batch(rows) for rows in torch.arange(400).split(20)]
    assert padded < 0.3 * sum(int((~batch.mask).sum()) for batch in unsorted)


# --- decoding -----------------------------------------------------------------------------------------------


def uncached_step(model, batch, beams=1):
    """The same question answered by running the whole model on the whole beginning each time."""
    rows_of = batch._replace(
        **{name: getattr(batch, name).repeat_interleave(beams, 0) for name in ("source", "mask")}
    )
    held = torch.empty(len(rows_of.source), 0, dtype=torch.long)

    def step(last, rows):
        nonlocal held
        held = torch.cat([held if rows is None else held[rows], last[:, None]], dim=1)
        return model(rows_of.source, held.to(device()), rows_of.mask)[:, -1]

    return step


HELD_OUT = toy(12, seed=5)["english"].tolist()


@torch.no_grad()
def test_decoding_with_a_cache_is_decoding_without(half_trained):
    """The same logits at every step, whatever rows the search goes on with."""
    batch, beams, draw = pair_batch(ids_of(HELD_OUT)), 3, generator(3)
    ours, plain = (make(half_trained, batch, beams) for make in (decoding_step, uncached_step))
    last, rows = torch.full((36,), END), None
    for _ in range(10):
        a, b = ours(last, rows), plain(last, rows)
        assert (a - b).abs().max() <= TOLERANCE * max(1.0, float(b.abs().max()))
        last = torch.randint(0, CONFIG.V, (36,), generator=draw)
        rows = (torch.arange(12)[:, None] * 3 + torch.randint(0, 3, (12, 3), generator=draw)).flatten()


@torch.no_grad()
@pytest.mark.parametrize(("beams", "alpha"), [(1, 0.6), (2, 0.0), (4, 0.6), (4, 2.0)])
def test_translations_are_those_found_without_a_cache(half_trained, beams, alpha):
    batch, limit = pair_batch(ids_of(HELD_OUT)), CONFIG.T - 1
    step = uncached_step(half_trained, batch, beams)
    if beams == 1:
        found = greedy(step, 12, END, END, limit)
    else:
        found = beam_search(step, 12, END, END, limit, beams, alpha)
    assert translate(half_trained, PIECES, HELD_OUT, beams, alpha) == PIECES.decode_batch(found)
    assert len({len(ids) for ids in found}) > 2  # they end where they want to


@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_is_translated_as_each_by_itself(half_trained, beams):
    together = translate(half_trained, PIECES, HELD_OUT, beams)
    assert together == [translate(half_trained, PIECES, [text], beams)[0] for text in HELD_OUT]
    assert len(set(together)) > 6


@pytest.mark.parametrize("batch", [1, 5, 128])
def test_many_are_translated_in_the_order_given(half_trained, monkeypatch, batch):
    monkeypatch.setattr(translation, "BATCH", batch)
    expected = [translate(half_trained, PIECES, [text], beams=2)[0] for text in HELD_OUT]
    assert translate_all(half_trained, PIECES, HELD_OUT, beams=2) == expected


def test_search_finds_likelier_translations(half_trained):
    def likelihood(beams):
        found = [ids_of([text])[0] for text in translate(half_trained, PIECES, HELD_OUT, beams, alpha=0.0)]
        return sum(
            -float(alone(half_trained, source, ids).sum())
            for source, ids in zip(ids_of(HELD_OUT), found, strict=True)
        )

    with torch.no_grad():
        assert likelihood(8) > likelihood(1)


def test_it_learns_to_translate(half_trained):
    """Half-trained, it has most words right, and more so than a model that has learnt nothing."""

    def right(model):
        found = translate(model, PIECES, PAIRS["english"][:60].tolist())
        wanted = PAIRS["spanish"][:60]
        return sum(len({*a.split()} & {*b.split()}) for a, b in zip(found, wanted, strict=True))

    assert right(half_trained) > 3 * right(Transformer(CONFIG, seed=1).to(device()))


@pytest.mark.parametrize("beams", [1, 2])
def test_an_untrained_model_translates_up_to_its_limit(beams):
    model = Transformer(CONFIG).to(device()).train()
    texts = translate(model, PIECES, HELD_OUT[:3], beams)
    assert [type(text) for text in texts] == [str] * 3
    assert not model.training
    assert bpe.END not in "".join(texts)


def test_a_sentence_may_be_as_long_as_the_model_reads():
    text = " ".join(ENGLISH)
    pieces = len(ids_of([text])[0])
    fits, falls_short = (Transformer(replace(CONFIG, T=T)).to(device()) for T in (pieces + 1, pieces))
    assert len(translate(fits, PIECES, ["a dog", text])) == 2
    message = f"sentences must have at most T = {pieces} pieces, the end counted, got one of {pieces + 1}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        translate(falls_short, PIECES, ["a dog", text])


@pytest.mark.parametrize(
    ("sentences", "options", "message"),
    [
        ("one text", {}, "^sentences must be a list of texts"),
        ([], {}, "^sentences must be a list of texts"),
        ([""], {}, "^sentences must be a list of texts"),
        (["a dog", " \n"], {}, "^sentences must be a list of texts"),
        (["a dog", None], {}, "^sentences must be a list of texts"),
        (["a dog"], {"beams": 0}, "^beams must be at least 1, got 0"),
        (["a dog"], {"beams": -1}, "^beams must be at least 1, got -1"),
        (["a dog"], {"beams": 2, "alpha": -1}, "^alpha must be at least 0, got -1"),
    ],
)
def test_bad_input_is_named(sentences, options, message):
    with pytest.raises(ValueError, match=message):
        translate(Transformer(CONFIG).to(device()), PIECES, sentences, **options)


# --- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """The command's settings, small, and its folders under a temporary one."""
    tiny = Config(V=300, T=64, C=8, nh=1, layers=1)
    folder = tmp_path / "models" / "translator"
    for name, value in (("FOLDER", folder), ("CONFIG", tiny), ("PIECES", 300), ("BATCH", 16)):
        monkeypatch.setattr(translation, name, value)
    monkeypatch.setattr(translation, "OPTIONS", Options(steps=4, warmup=1, every=2))
    monkeypatch.setattr(translation, "translation_split", lambda: {"train": PAIRS, "valid": toy(20, seed=1)})
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    return folder


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["translation", *arguments])
    translation.main()


def test_the_command_trains_stores_and_is_done(workshop, monkeypatch, capsys):
    command(monkeypatch)
    assert "4 steps, validation " in capsys.readouterr().out
    assert translation.tokenizer().to_str() == PIECES.to_str()
    model, pieces = translation.load()
    assert not model.training
    assert next(model.parameters()).device.type == device()
    assert len(translate(model, pieces, HELD_OUT[:2])) == 2
    stored = (workshop / "model.safetensors").read_bytes()
    with monkeypatch.context() as patched:  # the run is over: not a step more, and the same is stored again
        patched.setattr(translation, "translation_loss", lambda *_: pytest.fail("no step is left"))
        command(patched)
    assert (workshop / "model.safetensors").read_bytes() == stored
    command(monkeypatch, "--steps", "6")
    assert "6 steps" in capsys.readouterr().out
    assert (workshop / "model.safetensors").read_bytes() != stored


def test_an_interrupted_command_stores_nothing_and_goes_on(workshop, monkeypatch, capsys):
    def stopping(model, batch, *rest):
        if model.training:
            signal.raise_signal(signal.SIGINT)
        return translation_loss(model, batch, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(translation, "translation_loss", stopping)
        for step in (1, 2):
            with pytest.raises(SystemExit) as ended:
                command(patched)
            assert (
                ended.value.code == f"training stopped at step {step} of 4; run it again to go on from there"
            )
            assert capsys.readouterr().out == ""
            assert [file.name for file in workshop.iterdir()] == ["tokenizer.json"]
    command(monkeypatch)
    assert "4 steps" in capsys.readouterr().out
    assert (workshop / "model.safetensors").exists()


def test_a_command_of_fewer_steps_than_are_done_stores_nothing(workshop, monkeypatch, capsys):
    command(monkeypatch)
    before = {file.name: file.read_bytes() for file in workshop.iterdir()}
    capsys.readouterr()
    command(monkeypatch, "--steps", "2")
    assert "4 steps" in capsys.readouterr().out
    assert {file.name: file.read_bytes() for file in workshop.iterdir()} == before


def test_weights_come_back_in_half_precision(workshop):
    workshop.mkdir(parents=True)
    (workshop / "tokenizer.json").write_text(PIECES.to_str(), "utf-8")
    config = replace(CONFIG, norm="post", hidden=48)
    model = Transformer(config, seed=3)
    translation.save(model, config, Options(steps=7), History(valid=[(7, 1.5)]))
    loaded, pieces = translation.load()
    assert (workshop / "model.safetensors").stat().st_size < 2.2 * sum(p.numel() for p in model.parameters())
    assert json.loads((workshop / "config.json").read_text("utf-8"))["hidden"] == 48
    assert translation.card()["options"]["steps"] == 7
    assert translation.card()["valid"] == [[7, 1.5]]
    for (name, ours), (other, theirs) in zip(
        loaded.named_parameters(), model.named_parameters(), strict=True
    ):
        assert name == other
        assert torch.equal(ours.cpu(), theirs.half().float())
    assert pieces.to_str() == PIECES.to_str()


# --- the word dictionary ------------------------------------------------------------------------------------


def by_definition(english, spanish, rounds):
    """IBM's first model with dictionaries: chance of each Spanish word given an English one."""
    pairs = list(zip(*([text.split() for text in side] for side in (english, spanish)), strict=True))
    chance = {(s, e): 1.0 for es, ss in pairs for s in ss for e in es}
    for _ in range(rounds):
        counts, totals = defaultdict(float), defaultdict(float)
        for es, ss in pairs:
            for s in ss:
                together = sum(chance[s, e] for e in es)
                for e in es:
                    counts[s, e] += chance[s, e] / together
                    totals[e] += chance[s, e] / together
        chance = {(s, e): n / totals[e] for (s, e), n in counts.items()}
    return chance


SENTENCES = st.lists(
    st.tuples(
        st.lists(st.sampled_from("abcde"), max_size=5).map(" ".join),
        st.lists(st.sampled_from("uvwxyz"), max_size=5).map(" ".join),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=150)
@given(SENTENCES, st.integers(1, 6))
def test_the_dictionary_is_that_of_the_definition(pairs, rounds):
    """Words repeated in a sentence and sentences without words included."""
    english, spanish = map(list, zip(("a", "u"), *pairs, strict=True))
    chance = by_definition(english, spanish, rounds)
    found = word_dictionary(english, spanish, rounds)
    assert found.keys() == {e for _, e in chance}
    for e, s in found.items():
        best = max(p for (_, other), p in chance.items() if other == e)
        assert chance[s, e] == pytest.approx(best, rel=1e-9)


def test_a_planted_dictionary_is_found():
    """Sentences in shuffled order: no word stands where its translation does."""
    draw, english, spanish = random.Random(0), [], []
    for _ in range(400):
        words = draw.sample(range(12), draw.randint(2, 5))
        english.append(" ".join(ENGLISH[i] for i in words).capitalize() + "!")
        spanish.append("¡" + " ".join(SPANISH[i] for i in draw.sample(words, len(words))) + "!")
    assert word_dictionary(english, spanish) == dict(zip(ENGLISH, SPANISH, strict=True))


def test_rounds_tell_what_counting_cannot():
    """ "la" stands beside every noun; only sharing out again and again leaves each noun its own."""
    english = ["the house", "the house", "the flower", "the"]
    spanish = ["la casa", "la casa", "la flor", "la"]
    assert word_dictionary(english, spanish, rounds=5) == {"the": "la", "house": "casa", "flower": "flor"}


def test_sentences_of_no_words_teach_nothing():
    some = (["the dog", "123", "?", "dog"], ["el perro", "hola", "¿?", "perro"])
    assert word_dictionary(*some) == word_dictionary(["the dog", "dog"], ["el perro", "perro"])


def test_a_dictionary_of_other_numbers_is_refused():
    with pytest.raises(ValueError, match=r"^english and spanish must be lists of one length, got 2, 1"):
        word_dictionary(["a dog", "a cat"], ["un perro"])
    with pytest.raises(ValueError, match=r"^english and spanish must be lists of one length"):
        word_dictionary("a dog", "un perro")
    with pytest.raises(ValueError, match=r"^corpus must hold a word"):
        word_dictionary(["?"], ["un perro"])
