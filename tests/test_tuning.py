"""Fine-tuning: what is frozen stays, what is cached is the same, LoRA is peft's, what is kept comes back."""

import json
import math
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_attention import (
    assert_close,
    draw_weights,
    precise_and_quick,  # noqa: F401 (a fixture for every test)
)
from test_bert import CLS, CONFIG, PLAIN, SEP, seeded, tiny, tiny_encoder, tiny_pretrained, tiny_tokenizer
from torch import nn
from transformers import AutoModel, AutoTokenizer, BertModel

from course_utils import tuning
from course_utils.bert import all_states, bert_name, from_bert
from course_utils.runtime import device
from course_utils.training import Options, train
from course_utils.transformer import Encoder
from course_utils.tuning import (
    HEAD,
    LIMIT,
    Batch,
    Examples,
    LoRA,
    TextClassifier,
    add_lora,
    chances,
    check_targets,
    encode,
    frozen_states,
    gradient_times_input,
    load,
    mean_pool,
    merge_lora,
    removal,
    save,
    text_loss,
    trained,
)

QUIET = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft's, of the other
LAYERS = CONFIG.layers
STARTS = pytest.mark.parametrize("start", range(LAYERS + 1))
CALM = replace(CONFIG, dropout=0.0)


def rows_of(N, seed=0, longest=20):
    """ids between [CLS] and [SEP], of random lengths."""
    random = seeded(seed)
    sizes = torch.randint(1, longest - 1, (N,), generator=random).tolist()
    inner = [torch.randint(5, 30, (n,), generator=random).tolist() for n in sizes]
    return [torch.tensor([CLS, *row, SEP]) for row in inner]


def classifier(K=2, start=0, seed=0, config=CONFIG, dropout=0.1):
    model = TextClassifier(tiny_encoder(seed, config), K, start, dropout)
    draw_weights(model.head, seeded(seed + 1))
    return model.to(device()).eval()


def alone(model, row):
    """The logits of one text by itself, in plain steps: all layers, a mean, a product. (K,)."""
    states = model.encoder(row[None].to(device()))[0]  # (T, C)
    return model.head.weight @ (sum(states) / len(states)) + model.head.bias


def toy(N, seed=0):
    """Texts of which one word tells whether they are good."""
    draw, texts, labels = np.random.default_rng(seed), [], []
    for _ in range(N):
        filler = list(draw.choice(["the", "film", "is", "a", "story", "of"], draw.integers(1, 8)))
        labels.append(int(draw.integers(2)))
        told = draw.choice([["dull", "flat", "weak"], ["bright", "warm", "deep"]][labels[-1]])
        filler.insert(int(draw.integers(len(filler) + 1)), told)
        texts.append(" ".join(filler))
    return texts, labels


def tensors_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


# --- texts to ids -------------------------------------------------------------------------------------------


def test_texts_become_ids_between_their_marks():
    texts = ["The film is a story.", "dullness", "qwerty, bright!"]
    rows, tokenizer = encode(tiny_tokenizer(), texts), tiny_tokenizer()
    for text, row in zip(texts, rows, strict=True):
        assert row.dtype == torch.int64
        assert row.tolist() == [CLS, *tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)), SEP]


@pytest.mark.parametrize("limit", [3, 7, 12])
def test_long_texts_are_cut_and_a_warning_says_how_many(limit):
    lengths = [1, 5, limit - 2, limit - 1, 40]
    texts, tokenizer = [" ".join((PLAIN * 3)[:n]) for n in lengths], tiny_tokenizer()
    cut = sum(n > limit - 2 for n in lengths)
    with pytest.warns(UserWarning, match="the rest is not read$") as said:
        rows = encode(tokenizer, texts, limit)
    (warning,) = said
    assert str(warning.message) == f"{cut} of 5 texts have more than {limit} tokens: the rest is not read"
    assert warning.filename == __file__  # it points at the caller
    for text, n, row in zip(texts, lengths, rows, strict=True):
        ids = tokenizer.convert_tokens_to_ids(text.split())
        assert row.tolist() == [CLS, *ids[: limit - 2], SEP]
        assert len(row) == min(n + 2, limit)


def test_texts_that_fit_are_read_without_a_word():
    texts = [" ".join((PLAIN * 10)[: LIMIT - 2]), "film"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [len(row) for row in encode(tiny_tokenizer(), texts)] == [LIMIT, 3]


@pytest.mark.parametrize(
    ("texts", "limit", "message"),
    [
        ("one text", 9, r"^texts must be a list of one or more texts, got 'one text'$"),
        ([], 9, r"^texts must be a list of one or more texts, got \[\]$"),
        (["film", ""], 9, r"^texts must hold a word or a mark each, got '' at 1$"),
        (["film", " \n"], 9, r"^texts must hold a word or a mark each, got ' \\n' at 1$"),
        (["film", None], 9, r"^texts must hold a word or a mark each, got None at 1$"),
        (["film"], 2, r"^limit must leave room for a token between \[CLS\] and \[SEP\], got 2$"),
        (["film"], -1, r"^limit must leave room .* got -1$"),
    ],
)
def test_texts_that_cannot_be_read_are_named(texts, limit, message):
    with pytest.raises(ValueError, match=message):
        encode(tiny_tokenizer(), texts, limit)


# --- examples -----------------------------------------------------------------------------------------------

BAD_TARGETS = [
    ([0, 1], 2, r"^targets must be \(N = 3,\) classes or \(N, K = 2\), got shape \(2,\)$"),
    ([0, 1, 1, 0], 2, r"^targets must be .* got shape \(4,\)$"),
    (1, 2, r"^targets must be .* got shape \(\)$"),
    ([[0.5, 0.5]] * 2, 2, r"^targets must be .* got shape \(2, 2\)$"),
    ([[0.2, 0.3, 0.5]] * 3, 2, r"^targets must be .* got shape \(3, 3\)$"),
    ([[0], [1], [1]], 2, r"^targets must be .* got shape \(3, 1\)$"),
    (["bad", "good", "bad"], 2, r"^targets must be numbers: .*'bad'$"),
    ([[0.5, 0.5], [1], [0, 1]], 2, r"^targets must be numbers: "),
    ([0, math.nan, math.nan], 2, r"^targets must not be missing, got 2 nan$"),
    ([0, None, 1], 2, r"^targets must not be missing, got 1 nan$"),
    ([[0, 1], [math.nan, 1], [1, 0]], 2, r"^targets must not be missing, got 1 nan$"),
    ([0, 1, 2], 2, r"^targets must be whole numbers in \[0, K = 2\), got \[0.0, 1.0, 2.0\]$"),
    ([0, 1, -1], 3, r"^targets must be whole numbers in \[0, K = 3\)"),
    ([0, 0.5, 1], 2, r"^targets must be whole numbers in \[0, K = 2\)"),
    ([0, math.inf, 1], 2, r"^targets must be whole numbers in \[0, K = 2\)"),
    ([1, 1, 1], 2, r"^targets must hold two classes or more, got only class 1$"),
    (
        [[0.5, 0.5], [0.5, 0.6], [1, 0]],
        2,
        r"^targets must be rows of probabilities: 0 or more, with a sum of 1$",
    ),
    ([[0.5, 0.5], [0.5, 0.4], [1, 0]], 2, r"^targets must be rows of probabilities"),
    ([[0.5, 0.5], [1.5, -0.5], [1, 0]], 2, r"^targets must be rows of probabilities"),
    ([[0.5, 0.5], [math.inf, 0], [1, 0]], 2, r"^targets must be rows of probabilities"),
]


@pytest.mark.parametrize(("targets", "K", "message"), BAD_TARGETS)
def test_targets_that_are_none_are_named(targets, K, message):
    for call in (lambda: check_targets(targets, 3, K), lambda: Examples(rows_of(3), targets, K)):
        with pytest.raises(ValueError, match=message):
            call()


def test_targets_are_classes_or_the_chances_of_each():
    for classes in ([0, 1, 1], [False, True, True], np.array([0.0, 1.0, 1.0]), torch.tensor([0, 1, 1])):
        found = check_targets(classes, 3, 2)
        assert found.dtype == torch.int64
        assert found.tolist() == [0, 1, 1]
    soft = np.array([[0.25, 0.75], [1, 0], [1 / 3, 2 / 3]])
    found = check_targets(soft, 3, 2)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, soft, rtol=1e-6)
    assert check_targets([0, 2, 1], 3, 3).tolist() == [0, 2, 1]  # N = K: a row of classes still
    assert (
        check_targets([[0.5, 0.5]] * 3, 3, 2).tolist() == [[0.5, 0.5]] * 3
    )  # one row of chances is no class


def test_no_rows_are_named():
    with pytest.raises(ValueError, match=r"^rows must hold at least one text's ids or states, got none$"):
        Examples([])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.booleans(), st.randoms(use_true_random=False))
def test_a_batch_holds_each_row_and_padding_alone(lengths, states, random):
    draw = seeded(len(lengths))
    rows = [
        torch.randn(n, 4, generator=draw) if states else torch.randint(1, 30, (n,), generator=draw)
        for n in lengths
    ]
    targets = [random.randrange(3) for _ in rows[2:]]
    examples = Examples(rows, [0, 1, *targets][: len(rows)] if len(rows) > 1 else None, 3)
    order = torch.tensor(random.sample(range(len(rows)), random.randint(1, len(rows))))
    batch = examples.batch(order)
    assert isinstance(batch, Batch)
    assert {tensor.device.type for tensor in batch} == {device()}
    longest = max(lengths[i] for i in order.tolist())
    assert batch.x.shape[:2] == (len(order), longest)
    assert batch.mask.shape == (len(order), 1, longest)
    for x, mask, target, i in zip(*(tensor.cpu() for tensor in batch), order.tolist(), strict=True):
        assert torch.equal(x[mask[0]], rows[i])
        assert not x[~mask[0]].any()
        assert mask[0, : lengths[i]].all()
        assert target == examples.targets[i]


def test_examples_without_targets_are_of_class_0():
    assert Examples(rows_of(5)).targets.tolist() == [0] * 5


def test_batches_are_a_function_of_the_step():
    rows = rows_of(60)
    examples = Examples(rows, np.stack([np.linspace(0, 1, 60), 1 - np.linspace(0, 1, 60)], 1))
    batches, again, other = (examples.batches(8, seed) for seed in (3, 3, 4))
    for step in (0, 20, 6, 7, 5):
        assert all(map(torch.equal, batches(step), again(step)))
    assert any(not torch.equal(batches(step).targets, other(step).targets) for step in range(7))
    for epoch in (0, 2):
        seen = torch.cat([batches(7 * epoch + step).targets[:, 0] for step in range(7)])
        assert len(seen.unique()) == 56  # of 60, four filling no batch
    waste = [int((~batches(step).mask).sum()) for step in range(7)]
    unsorted = [int((~examples.batch(part).mask).sum()) for part in torch.arange(56).split(8)]
    assert sum(waste) < 0.5 * sum(unsorted)


@pytest.mark.parametrize("B", [1, 7, 128])
def test_in_order_is_each_once_from_short_to_long(B):
    examples = Examples(rows_of(50))
    parts = examples.in_order(B)
    order = torch.cat(parts)
    assert sorted(order.tolist()) == list(range(50))
    assert (examples.lengths[order].diff() >= 0).all()
    assert [len(part) for part in parts[:-1]] == [B] * (len(parts) - 1)
    assert 0 < len(parts[-1]) <= B


@pytest.mark.parametrize("N", [2, 50, 300])
@pytest.mark.parametrize("soft", [False, True])
def test_the_loss_of_all_is_the_mean_of_each(N, soft):
    """By the definition, each text unpadded; 300 fill more than one of its batches."""
    model, rows = classifier(3), rows_of(N)
    chance = torch.rand(N, 3, generator=seeded(2), dtype=torch.float64).softmax(-1)
    targets = chance if soft else torch.arange(N) % 3
    weights = chance if soft else F.one_hot(targets, 3)
    with torch.no_grad():
        each = [
            -float(alone(model, row).cpu().double().log_softmax(-1) @ w.double())
            for row, w in zip(rows, weights, strict=True)
        ]
    found = Examples(rows, targets, 3).loss(model)
    assert found == pytest.approx(sum(each) / N, rel=1e-5)
    assert np.ptp(each) > 0.1


@pytest.mark.parametrize("soft", [False, True])
def test_the_loss_of_a_batch_is_the_librarys(soft):
    model, targets = classifier(3), torch.tensor([2, 0, 1, 1])
    given = torch.rand(4, 3, generator=seeded(0)).softmax(-1) if soft else targets
    batch = Examples(rows_of(4), given, 3).batch(torch.arange(4))
    logits = torch.stack([alone(model, row) for row in rows_of(4)])
    expected = nn.CrossEntropyLoss()(logits, given.to(device()))
    found = text_loss(model, batch)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, model.head.bias)
    weights = given if soft else F.one_hot(targets, 3)
    assert_close(
        gradient.cpu(), (logits.softmax(-1).cpu() - weights).mean(0).detach(), "softmax - target", 1.0
    )


# --- the model ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from([0.0, 1e6, -3.0]))
def test_the_mean_knows_nothing_of_padding(lengths, garbage):
    T, draw = max(lengths), seeded(len(lengths))
    states = torch.randn(len(lengths), T, 5, generator=draw, dtype=torch.float64)
    mask = (torch.arange(T) < torch.tensor(lengths)[:, None])[:, None]  # (B, 1, T)
    filled = states.masked_fill(~mask.mT, garbage).requires_grad_()
    found = mean_pool(filled, mask)
    expected = torch.stack([row[:n].mean(0) for row, n in zip(states, lengths, strict=True)])
    assert_close(found.detach(), expected, "mean", 1.0)
    (gradient,) = torch.autograd.grad(found.sum(), filled)
    assert torch.equal(gradient.ne(0).all(-1), mask[:, 0])
    assert not gradient[~mask[:, 0]].any()


@STARTS
def test_the_same_from_ids_and_from_frozen_states(start):
    """And as by hand, each text alone."""
    model, rows = classifier(3, start), rows_of(40)
    ids, states = Examples(rows), Examples(frozen_states(model.encoder, rows, start))
    assert states.lengths.tolist() == ids.lengths.tolist()
    batch, cached = (examples.batch(torch.arange(40)) for examples in (ids, states))
    with torch.no_grad():
        found, again = model(batch.x, batch.mask), model(cached.x, cached.mask)
        expected = torch.stack([alone(model, row) for row in rows])
    assert_close(found, expected, start)
    assert_close(again, expected, start)


@STARTS
def test_frozen_states_are_what_enters_that_layer(start):
    """More rows than a batch of them; no trace of dropout, though the encoder was in training."""
    encoder, rows = tiny_encoder().train(), rows_of(140)
    found = frozen_states(encoder, rows, start)
    encoder.eval()
    for row, states in zip(rows, found, strict=True):
        expected = all_states(encoder, row[None].to(device()))[start][0].detach().cpu()
        assert states.shape == expected.shape
        assert_close(states, expected, start)
        assert not states.requires_grad
        assert states.untyped_storage().nbytes() == states.nbytes  # the batch it came from is let go


@STARTS
def test_what_is_trained_begins_at_the_start(start):
    model = TextClassifier(tiny_encoder(), 2, start)
    asked = {name for name, p in model.named_parameters() if p.requires_grad}
    top = tuple(f"encoder.stack.layers.{i}." for i in range(start, LAYERS))
    expected = {name for name, _ in model.named_parameters() if not start or name.startswith(("head.", *top))}
    assert asked == expected
    assert trained(model) == sum(p.numel() for name, p in model.named_parameters() if name in expected)


@STARTS
@pytest.mark.parametrize("cached", [False, True])
def test_training_moves_what_is_trained_and_no_bit_of_the_rest(start, cached):
    model, rows = classifier(2, start), rows_of(24)
    given = frozen_states(model.encoder, rows, start) if cached else rows
    before = tensors_of(model)
    examples = Examples(given, [0, 1] * 12)
    train(model, examples.batches(8), text_loss, Options(steps=4, lr=1e-2, warmup=0))
    for name, p in model.named_parameters():
        frozen = not p.requires_grad
        unused = cached and name.startswith("encoder.embedding")  # read before
        if not name.endswith("key.bias"):  # whose gradient is 0 but for rounding
            assert torch.equal(p, before[name]) == (frozen or unused), name


@pytest.mark.parametrize("start", range(1, LAYERS + 1))
def test_training_from_frozen_states_is_training_from_ids(start):
    """Without dropout below; the layers that are trained have theirs, drawn alike."""
    rows, labels, ends = rows_of(24), [0, 1] * 12, []
    for cached in (False, True):
        model = classifier(2, start, config=CALM, dropout=0.2)
        given = frozen_states(model.encoder, rows, start) if cached else rows
        options = Options(steps=6, lr=1e-3, warmup=0)
        history = train(model, Examples(given, labels).batches(8), text_loss, options)
        ends.append(chances(model, Examples(rows)))
    np.testing.assert_allclose(*ends, atol=1e-5)
    assert len(history.loss) == 6


def test_training_learns_which_words_tell():
    texts, labels = toy(120)
    others = toy(60, seed=1)
    model, tokenizer = TextClassifier(Encoder(CALM)).to(device()), tiny_tokenizer()
    examples = Examples(encode(tokenizer, texts), labels)
    before = examples.loss(model)
    train(model, examples.batches(20), text_loss, Options(steps=120, lr=5e-3, warmup=0))
    assert examples.loss(model) < 0.3 * before
    found = chances(model, Examples(encode(tokenizer, others[0]))).argmax(1)
    assert (found == others[1]).mean() > 0.95


def test_dropout_falls_on_the_pooled_numbers_alone():
    """In training, of an encoder without: of a head that passes them on, each is 0 or scaled by 2."""
    model = TextClassifier(tiny_encoder(config=CALM), 12, dropout=0.5).to(device())
    with torch.no_grad():
        model.head.weight.copy_(torch.eye(12))
    batch = Examples(rows_of(200)).batch(torch.arange(200))
    whole = model.eval()(batch.x, batch.mask).detach()
    torch.manual_seed(0)
    dropped = model.train()(batch.x, batch.mask).detach()
    assert_close(dropped, (2 * whole).where(dropped != 0, 0.0), "dropout")
    assert 0.4 < (dropped == 0).float().mean() < 0.6


def test_a_seed_decides_the_heads_weights_and_the_encoder_is_not_copied():
    encoder = tiny_encoder()
    torch.manual_seed(1)
    first, same, other = (TextClassifier(encoder, 40, seed=seed).head for seed in (3, 3, 4))
    assert torch.equal(first.weight, same.weight)
    assert not torch.equal(first.weight, other.weight)
    assert not first.bias.any()
    assert abs(first.weight.std().item() / 0.02 - 1) < 0.15
    assert TextClassifier(encoder).encoder is encoder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"K": 1}, "^K must be at least 2 classes, got 1$"),
        ({"K": 0}, "^K must be at least 2 classes, got 0$"),
        ({"start": -1}, r"^start must lie in \[0, 3\], the encoder's layers, got -1$"),
        ({"start": LAYERS + 1}, r"^start must lie in \[0, 3\], the encoder's layers, got 4$"),
    ],
)
def test_what_cannot_be_built_is_named_and_freezes_nothing(options, message):
    encoder = tiny_encoder()
    with pytest.raises(ValueError, match=message):
        TextClassifier(encoder, **options)
    assert all(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize("start", [0, 2, LAYERS])
def test_chances_do_not_depend_on_the_batch_the_padding_or_the_order(start):
    model, rows = classifier(3, start).train(), rows_of(150)
    given = frozen_states(model.encoder, rows, start) if start else rows
    found = chances(model.train(), Examples(given))
    assert not model.training
    assert (found.shape, found.dtype) == ((150, 3), np.float64)
    with torch.no_grad():
        expected = torch.stack([alone(model, row) for row in rows]).cpu().double().softmax(-1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    order = torch.randperm(150, generator=seeded(0)).tolist()
    again = chances(model, Examples([given[i] for i in order]))
    np.testing.assert_allclose(again, found[order], atol=1e-6)
    assert len(np.unique(expected.round(4), axis=0)) > 75


# --- LoRA ---------------------------------------------------------------------------------------------------


def adapters(model):
    return {name: p for name, p in model.named_parameters() if name.endswith((".A", ".B"))}


def peft_name(name):
    """What peft calls one of our A and B, in a BERT."""
    name = name.replace("stack.layers.", "base_model.model.encoder.layer.")
    name = name.replace("self_attention.", "attention.self.")
    return name[:-1] + {"A": "lora_A", "B": "lora_B"}[name[-1]] + ".default.weight"


def drawn_adapters(encoder, rank, alpha, seed=7):
    """The encoder with LoRA that changes much: B is random too."""
    add_lora(encoder, rank, alpha)
    draw = seeded(seed)
    with torch.no_grad():
        for p in adapters(encoder).values():
            p.copy_(torch.randn(p.shape, generator=draw))
    return encoder


class Twins:
    """Our encoder and the library's BERT, float64, each with its LoRA, the same numbers in both."""

    def __init__(self, rank, alpha):
        plain = tiny(pooler=False)
        self.ours = drawn_adapters(from_bert(plain), rank, alpha).double()
        options = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["query", "value"], lora_dropout=0.0)
        self.theirs = get_peft_model(plain.double(), options)
        self.twins = {name: p for name, p in self.theirs.named_parameters() if p.requires_grad}
        assert {peft_name(name) for name in adapters(self.ours)} == self.twins.keys()
        with torch.no_grad():
            for name, p in adapters(self.ours).items():
                self.twins[peft_name(name)].copy_(p)


RANKS = pytest.mark.parametrize(("rank", "alpha"), [(1, 1.0), (2, 6.0), (5, 2.5)])


@RANKS
@QUIET
def test_lora_is_pefts(rank, alpha):
    """All states, and the gradients of every A and B; nothing else has one."""
    pair, rows = Twins(rank, alpha), Examples(rows_of(6)).batch(torch.arange(6))
    found = pair.ours(rows.x, rows.mask)
    expected = pair.theirs(input_ids=rows.x, attention_mask=rows.mask[:, 0].long()).last_hidden_state
    assert_close(found.detach(), expected.detach(), "states")
    upstream = torch.randn(found.shape, generator=seeded(1), dtype=found.dtype).to(found)
    (found * upstream).sum().backward()
    (expected * upstream).sum().backward()
    for name, p in adapters(pair.ours).items():
        assert_close(p.grad, pair.twins[peft_name(name)].grad, name)
    assert {name for name, p in pair.ours.named_parameters() if p.grad is not None} == adapters(
        pair.ours
    ).keys()


@RANKS
@QUIET
def test_folded_in_lora_is_pefts(rank, alpha):
    pair = Twins(rank, alpha)
    expected = dict(pair.theirs.merge_and_unload().named_parameters())
    found = dict(merge_lora(pair.ours).named_parameters())
    assert {bert_name(name) for name in found} == expected.keys()
    for name, p in found.items():
        assert_close(p.detach(), expected[bert_name(name)].detach(), name)


def test_lora_starts_unchanged():
    encoder = tiny_encoder()
    batch = Examples(rows_of(9)).batch(torch.arange(9))
    before = encoder(batch.x, batch.mask)
    assert add_lora(encoder) is encoder
    assert torch.equal(encoder(batch.x, batch.mask), before)
    for name, p in adapters(encoder).items():
        assert p.any() == name.endswith("A"), name


def test_a_is_drawn_by_its_seed_within_its_bound_and_each_anew():
    torch.manual_seed(1)
    first, same, other = (adapters(add_lora(tiny_encoder(), 4, seed=seed)) for seed in (0, 0, 100))
    As = [p for name, p in first.items() if name.endswith("A")]
    assert len(As) == 2 * LAYERS
    assert all(torch.equal(p, same[name]) for name, p in first.items())
    assert not any(torch.equal(p, other[name]) for name, p in first.items() if name.endswith("A"))
    assert len({tuple(p.flatten().tolist()) for p in As}) == len(As)
    bound = CONFIG.C**-0.5
    for p in As:
        assert -bound <= p.min() < -0.8 * bound
        assert 0.8 * bound < p.max() <= bound


@pytest.mark.parametrize("rank", [1, 3])
def test_only_a_and_b_are_trained(rank):
    model = TextClassifier(add_lora(tiny_encoder(), rank), 3).to(device())
    asked = {name for name, p in model.named_parameters() if p.requires_grad}
    assert asked == {*(f"encoder.{name}" for name in adapters(model.encoder)), "head.weight", "head.bias"}
    C = CONFIG.C
    assert trained(model.encoder) == LAYERS * 2 * rank * (C + C)
    assert trained(model) == trained(model.encoder) + 3 * C + 3
    before = tensors_of(model)
    examples = Examples(rows_of(24), [0, 1, 2] * 8, 3)
    train(model, examples.batches(8), text_loss, Options(steps=3, lr=1e-2, warmup=0))
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) == (name not in asked), name


def test_a_low_rank_and_a_scale():
    """The change of the weights has that rank, and alpha over rank scales it."""
    linear = nn.Linear(7, 5).double()
    x, before = torch.randn(4, 7, generator=seeded(0), dtype=torch.float64), linear.weight.detach().clone()
    changes = []
    for alpha in (2.0, 6.0):
        part = LoRA(nn.Linear(7, 5), 2, alpha).double()
        part.linear.load_state_dict(linear.state_dict())
        nn.init.normal_(part.B, generator=seeded(2))
        expected = part(x).detach()
        merged = part.merged()
        assert type(merged) is nn.Linear
        assert_close(merged(x).detach(), expected, alpha)
        changes.append(merged.weight.detach() - before)
    assert torch.linalg.matrix_rank(changes[0]) == 2
    assert_close(changes[1], 3 * changes[0], "alpha")


def test_folded_in_nothing_of_lora_is_left():
    encoder, plain = tiny_encoder(), tiny_encoder()
    batch = Examples(rows_of(9)).batch(torch.arange(9))
    drawn_adapters(encoder, 2, 1.0)
    before = encoder(batch.x, batch.mask)
    assert merge_lora(encoder) is encoder
    assert_close(encoder(batch.x, batch.mask).detach(), before.detach(), "merged")
    assert [name for name, _ in encoder.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert {type(part) for part in encoder.modules()} == {type(part) for part in plain.modules()}
    once = tensors_of(encoder)
    assert all(torch.equal(p, once[name]) for name, p in merge_lora(encoder).named_parameters())  # not twice


@pytest.mark.parametrize(("rank", "alpha"), [(0, 1.0), (-2, 1.0), (2, 0.0), (2, -1.0)])
def test_a_rank_or_a_scale_that_changes_nothing_is_named(rank, alpha):
    encoder, (name, value) = tiny_encoder(), ("rank", rank) if rank <= 0 else ("alpha", alpha)
    with pytest.raises(ValueError, match=f"^{name} must be positive, got {value}$"):
        add_lora(encoder, rank, alpha)
    assert all(p.requires_grad for p in encoder.parameters())
    assert not adapters(encoder)


# --- what each token weighs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("inside", [0, 1, 9, 70])
def test_removal_is_reading_again_without_the_token(inside, start):
    model = classifier(3, start).train()
    ids = torch.cat([torch.tensor([CLS]), torch.arange(inside) % 25 + 5, torch.tensor([SEP])])
    for k in range(3):
        found = removal(model, ids, k)
        assert not model.training
        assert found.shape == ids.shape
        with torch.no_grad():
            whole = alone(model, ids)[k].item()
            for t in range(1, len(ids) - 1):
                other = alone(model, torch.tensor([*ids[:t].tolist(), *ids[t + 1 :].tolist()]))[k].item()
                assert found[t].item() == pytest.approx(whole - other, abs=1e-5)
        assert found[0] == found[-1] == 0
        assert inside == 0 or found.abs().max() > 1e-3


@pytest.mark.parametrize("start", [0, 1, LAYERS])
def test_gradient_times_input_by_small_differences(start):
    """How the logit moves, for each token, where its vector is made longer and shorter."""
    model, ids = classifier(3, start).double().train(), rows_of(1, seed=4)[0]
    for k in (0, 2):
        found = gradient_times_input(model, ids, k)
        assert not model.training
        assert not found.requires_grad
        assert all(p.grad is None for p in model.parameters())
        x = model.encoder.embedding(ids[None].to(device())).detach()  # (1, T, C)
        expected = []
        for t in range(len(ids)):
            ends = []
            for step in (1e-5, -1e-5):
                factor = torch.ones(len(ids), 1, dtype=x.dtype, device=x.device)
                factor[t] += step
                ends.append(model.head(model.encoder.stack(x * factor).mean(dim=1))[0, k].item())
            expected.append((ends[0] - ends[1]) / 2e-5)
        assert found.tolist() == pytest.approx(expected, abs=1e-7)
        assert found.abs().max() > 1e-3


def test_of_a_linear_model_the_parts_and_the_bias_are_the_logit():
    model, ids = classifier(3).double(), rows_of(1, seed=4)[0]
    model.encoder.stack.layers = nn.ModuleList()
    x = model.encoder.embedding(ids[None].to(device()))[0].detach()
    for k in range(3):
        found = gradient_times_input(model, ids, k)
        assert_close(found, (x @ model.head.weight[k] / len(ids)).detach().cpu(), k)
        whole = model(ids[None].to(device()), torch.ones(1, 1, len(ids), dtype=torch.bool, device=device()))
        assert (found.sum() + model.head.bias[k].cpu()).item() == pytest.approx(whole[0, k].item(), abs=1e-10)


# --- storing ------------------------------------------------------------------------------------------------

NAMES = ["bad", "so-so", "good"]


def stored(folder, names=NAMES, **options):
    """A classifier on another encoder than its BERT's, kept in a folder."""
    original = tiny_pretrained(seed=5)
    encoder = from_bert(tiny(seed=6))
    model = TextClassifier(encoder, len(names), **options).to(device()).eval()
    draw_weights(model.head, seeded(7))
    save(model, original, names, folder)
    return model


def test_what_is_stored_comes_back_bit_for_bit(tmp_path):
    texts, _ = toy(40)
    rows = encode(tiny_tokenizer(), texts)
    model = stored(tmp_path / "new" / "reviews", start=2)
    again, tokenizer, names = load(tmp_path / "new" / "reviews")
    assert names == NAMES
    assert not again.training
    assert {p.device.type for p in again.parameters()} == {device()}
    found = encode(tokenizer, texts)
    assert all(map(torch.equal, found, rows))
    np.testing.assert_array_equal(chances(again, Examples(found)), chances(model, Examples(rows)))
    save(again, tiny_pretrained(), names, tmp_path / "copy")  # and can be stored and loaded once more
    third, _, _ = load(tmp_path / "copy")
    np.testing.assert_array_equal(chances(third, Examples(found)), chances(model, Examples(rows)))


def test_folded_lora_is_stored(tmp_path):
    model = TextClassifier(drawn_adapters(from_bert(tiny(seed=6)), 2, 1.0), 2).to(device()).eval()
    before = chances(model, Examples(rows_of(20)))
    merge_lora(model.encoder)
    save(model, tiny_pretrained(), ["bad", "good"], tmp_path / "reviews")
    found = chances(load(tmp_path / "reviews")[0], Examples(rows_of(20)))
    np.testing.assert_allclose(found, before, atol=1e-5)


@torch.no_grad()
def test_lora_that_is_not_folded_in_is_named(tmp_path):
    original = tiny_pretrained()
    before = tensors_of(original.model)
    model = TextClassifier(add_lora(from_bert(tiny(seed=6)), 2), 2)
    with pytest.raises(
        ValueError, match=r"^model must hold no LoRA: merge_lora\(model.encoder\) folds it in$"
    ):
        save(model, original, ["bad", "good"], tmp_path / "reviews")
    assert not contents(tmp_path)
    assert all(torch.equal(p, before[name]) for name, p in original.model.named_parameters())


def test_many_classes_keep_their_order(tmp_path):
    """Written as text, 10 would come before 2."""
    names = [f"class {i}" for i in range(13)]
    stored(tmp_path / "many", names)
    assert load(tmp_path / "many")[2] == names


def test_only_safetensors_and_text_are_written(tmp_path):
    model = stored(tmp_path / "reviews")
    found = {path.name for path in (tmp_path / "reviews").iterdir()}
    weights = {name for name in found if name.endswith(".safetensors")}
    assert weights == {"model.safetensors", HEAD}
    for name in weights:
        with safe_open(tmp_path / "reviews" / name, "pt") as file:
            assert list(file.keys())
    for name in found - weights:
        text = (tmp_path / "reviews" / name).read_text("utf-8")
        assert name.endswith(".txt") or json.loads(text)
    assert [path.name for path in tmp_path.iterdir()] == ["reviews"]  # nothing beside it
    head = load_file(tmp_path / "reviews" / HEAD)
    assert all(torch.equal(p.cpu(), head[name]) for name, p in model.head.named_parameters())


def test_transformers_reads_the_folder(tmp_path):
    model = stored(tmp_path / "reviews")
    theirs = AutoModel.from_pretrained(tmp_path / "reviews", local_files_only=True).to(device()).eval()
    assert type(theirs) is BertModel
    assert list(theirs.config.id2label.values()) == NAMES
    batch = Examples(rows_of(7)).batch(torch.arange(7))
    expected = theirs(batch.x, batch.mask[:, 0].long()).last_hidden_state
    assert_close(model.encoder(batch.x, batch.mask).detach(), expected.detach(), "states")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "reviews", local_files_only=True)
    assert tokenizer("a dull film").input_ids == tiny_tokenizer()("a dull film").input_ids


def contents(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", ["folder", "full folder", "file"])
def test_what_is_there_is_not_overwritten(kind, tmp_path):
    folder = tmp_path / "mine"
    if kind == "file":
        folder.write_text("mine")
    else:
        folder.mkdir()
        if kind == "full folder":
            (folder / "config.json").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(
        FileExistsError, match=r"^folder mine is there already: choose another, or remove it$"
    ):
        stored(folder)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("names", [["bad", "good"], [*NAMES, "great"], []])
def test_there_is_a_name_for_each_class(names, tmp_path):
    original = tiny_pretrained()
    before = tensors_of(original.model)
    with pytest.raises(ValueError, match=f"^names must be one a class: 3, got {len(names)}$"):
        save(classifier(3), original, names, tmp_path / "reviews")
    assert not contents(tmp_path)
    assert all(torch.equal(p, before[name]) for name, p in original.model.named_parameters())


@pytest.mark.parametrize("part", ["model", "tokenizer", "head", "rename"])
def test_where_writing_fails_nothing_half_written_is_left(part, tmp_path, monkeypatch):
    """The disk is full, say, in the middle of any file."""

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    target = {
        "model": (BertModel, "save_pretrained"),
        "tokenizer": (type(tiny_tokenizer()), "save_pretrained"),
        "head": (tuning, "save_file"),
        "rename": (type(tmp_path), "rename"),
    }[part]
    monkeypatch.setattr(*target, full)
    with pytest.raises(OSError, match="No space left"):
        stored(tmp_path / "reviews")
    assert not contents(tmp_path)
    monkeypatch.undo()
    stored(tmp_path / "reviews")
    assert load(tmp_path / "reviews")[2] == NAMES  # and it can be tried again


def test_a_folder_without_a_head_is_named(tmp_path):
    tiny().save_pretrained(tmp_path / "plain")
    for name in ("plain", "nowhere"):
        with pytest.raises(
            FileNotFoundError, match=f"^folder {name} holds no {HEAD}: was it stored by `save`"
        ):
            load(tmp_path / name)


@pytest.mark.parametrize("shape", [(2, 12), (3, 11), (4, 12), (12, 3)])
def test_a_head_that_does_not_fit_is_named(shape, tmp_path):
    stored(tmp_path / "reviews")
    save_file({"weight": torch.zeros(shape), "bias": torch.zeros(shape[0])}, tmp_path / "reviews" / HEAD)
    message = f"head must be (3, 12) for this encoder, got {shape}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load(tmp_path / "reviews")
