"""BERT on the course's encoder: pieces, states and head equal the library's; hidden words by definition."""

import json
import math
import signal
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, top_k_accuracy_score
from test_attention import (
    DTYPES,
    assert_close,
    assert_gradients,
    backward,
    draw_weights,
    precise_and_quick,  # noqa: F401 (a fixture for every test)
)
from tokenizers.models import WordPiece
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizer

from course_utils import bert, pretrained
from course_utils.attention import padding_mask
from course_utils.bert import (
    HEAD_NAMES,
    LONGEST_WORD,
    PIECES,
    Guesses,
    MaskedWordHead,
    Passages,
    all_states,
    bert_config,
    bert_name,
    from_bert,
    guess_loss,
    guess_scores,
    hide_words,
    load_head,
    log_shares,
    save_head,
    states_after,
    to_bert,
    wordpiece,
)
from course_utils.pretrained import Pretrained
from course_utils.runtime import device, generator
from course_utils.training import History, Options
from course_utils.transformer import Config, Encoder

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PLAIN = ["the", "film", "is", "a", "story", "of", "dull", "bright", "warm", "weak", "deep", "flat", "not"]
PLAIN += ["and", ".", ",", "!"]  # a token each
WORDS = [*PLAIN, "##s", "##ly", "##er", "##ness"]
VOCABULARY = {word: i for i, word in enumerate(SPECIAL + WORDS)}
PAD, UNK, CLS, SEP, MASK = range(5)
SIZES = {
    "vocab_size": 30, "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 3,
    "intermediate_size": 20, "max_position_embeddings": 80, "type_vocab_size": 2, "pad_token_id": None,
    "layer_norm_eps": 1e-3,  # so large that it matters
}  # fmt: skip
CONFIG = Config(
    V=30, T=80, C=12, nh=3, layers=3, norm="post", positions="learned", activation="gelu", scale=False,
    segments=2, norm_embedding=True, dropout=0.1,
)  # fmt: skip


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def tiny(kind=BertModel, seed=0, **sizes):
    """A small BERT of the library's with random weights, biases and gains too, in evaluation mode."""
    options = {"add_pooling_layer": sizes.pop("pooler", True)} if kind is BertModel else {}
    model = kind(BertConfig(**SIZES | sizes), **options)
    draw_weights(model, seeded(seed))
    return model.to(device()).eval()


def tiny_encoder(seed=0, config=CONFIG):
    encoder = Encoder(config)
    draw_weights(encoder, seeded(seed))
    return encoder.to(device()).eval()


def tiny_tokenizer():
    return BertTokenizer(vocab=VOCABULARY)


def tiny_pretrained(seed=0, source="embedded", **sizes):
    return Pretrained(tiny(seed=seed, **sizes), tiny_tokenizer(), "a tiny one", source)


def drawn(B, T, V=30, seed=0):
    """ids, masks of random lengths of one token or more, and segments."""
    random = seeded(seed)
    ids, segments = torch.randint(V, (B, T), generator=random), torch.randint(2, (B, T), generator=random)
    mask = padding_mask(torch.randint(1, T + 1, (B,), generator=random), T)
    return tuple(tensor.to(device()) for tensor in (ids, mask, segments))


@pytest.fixture(scope="module")
def minilm():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COURSE_MODELS", raising=False)
        yield pretrained.load("bert")


# --- WordPiece ----------------------------------------------------------------------------------------------

ODD = [
    *("a" * n for n in (99, 100, 101, 250)),
    *("ж" * n for n in (3, 100, 101)),  # two bytes each: it is letters that are counted
    "unaffable",
    "filmø",
    "øfilm",
    "qwertyuiop",
    "ⴰ",
    "goodⴰ",  # all but its last letter is known
    "ⴰgood",
    "##ing",
    "[unk]",
    "…",
    "2023",
]


@pytest.mark.parametrize("word", ODD, ids=lambda word: f"{word[:9]}-{len(word)}")
def test_odd_words_are_cut_as_by_the_real_tokenizer(minilm, word):
    """By its model alone, which is given whole words."""
    model = minilm.tokenizer.backend_tokenizer.model
    expected = [token.value for token in model.tokenize(word)]
    assert wordpiece(word, minilm.tokenizer.get_vocab()) == expected


def test_words_are_cut_as_by_the_real_tokenizer(minilm):
    vocabulary = minilm.tokenizer.get_vocab()
    pieces = sorted(piece.removeprefix("##") for piece in vocabulary if piece.removeprefix("##").isalpha())
    letters = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=25)
    joined = st.lists(st.sampled_from([p for p in pieces if p.isascii()]), min_size=1, max_size=4)

    @settings(deadline=None, max_examples=300)
    @given(letters | joined.map("".join))
    def check(word):
        assert wordpiece(word, vocabulary) == minilm.tokenizer.tokenize(word)

    check()


@settings(deadline=None, max_examples=200)
@given(
    st.sets(st.text("ab", min_size=1, max_size=3), max_size=6),
    st.sets(st.text("ab", min_size=1, max_size=3), max_size=6),
    st.text("ab", max_size=9),
)
def test_of_any_vocabulary_the_longest_pieces_from_the_left(begin, go_on, word):
    """Those that begin a word and those that go on are told apart."""
    vocabulary = {"[UNK]": 0} | {p: i for i, p in enumerate([*begin, *(f"##{p}" for p in go_on)], 1)}
    expected = [token.value for token in WordPiece(vocabulary, unk_token="[UNK]").tokenize(word)]
    found = wordpiece(word, vocabulary)
    assert found == expected
    if found != ["[UNK]"]:
        assert "".join(piece.removeprefix("##") for piece in found) == word
        assert [piece.startswith("##") for piece in found] == [i > 0 for i in range(len(found))]
    else:
        assert wordpiece(word, vocabulary, unknown="?") == ["?"]


def test_an_overlong_word_is_unknown_by_any_name():
    assert wordpiece("a" * LONGEST_WORD, {"a", "##a"}) == ["a"] + ["##a"] * (LONGEST_WORD - 1)
    assert wordpiece("a" * (LONGEST_WORD + 1), {"a", "##a"}, "<?>") == ["<?>"]


# --- the real weights ---------------------------------------------------------------------------------------


def as_berts(tensors, name):
    return tensors[bert_name(name)]


def states_of(theirs, ids, mask, segments=None):
    """The library's states, all of them."""
    out = theirs(ids, mask[:, 0].long(), token_type_ids=segments, output_hidden_states=True)
    return out.hidden_states


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pooler", [False, True])
def test_every_state_is_berts(seed, pooler):
    heads, layers = (1, 2, 3)[seed], (3, 1, 4)[seed]
    theirs = tiny(seed=seed, pooler=pooler, num_attention_heads=heads, num_hidden_layers=layers)
    ours = from_bert(theirs)
    ids, mask, segments = drawn(5, 9, seed=seed)
    for kinds in (segments, None):
        found, expected = all_states(ours, ids, mask, kinds), states_of(theirs, ids, mask, kinds)
        assert len(found) == len(expected) == layers + 1
        for depth, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_close(a.detach(), b.detach(), (seed, depth))
    whole = theirs(ids, output_hidden_states=True).hidden_states  # without a mask, all is read
    assert_close(all_states(ours, ids)[-1].detach(), whole[-1].detach(), seed)


@DTYPES
def test_every_gradient_is_berts(dtype):
    """Of each weight, through the states of all layers."""
    theirs = tiny(pooler=False)
    ours, theirs = from_bert(theirs).to(dtype), theirs.to(dtype)
    ids, mask, segments = drawn(4, 9)
    found = torch.stack(all_states(ours, ids, mask, segments))
    expected = torch.stack(states_of(theirs, ids, mask, segments))
    upstream = torch.randn(found.shape, generator=seeded(1), dtype=torch.float64).to(found)
    gradients, theirs_by_name = (
        backward(out, upstream, model)[1] for out, model in ((found, ours), (expected, theirs))
    )
    assert {bert_name(name) for name in gradients} == theirs_by_name.keys()  # none is left over
    assert_gradients(gradients, theirs_by_name, as_berts, dtype)


@torch.no_grad()
def test_every_state_is_that_of_the_embedded_bert(minilm):
    """Questions and answers, two segments, padded to one length."""
    theirs = minilm.model.to(device())
    ours = from_bert(theirs)
    pairs = [
        ("Who wrote it?", "A woman from the north, they say."),
        ("Is it unaffordable?", "No."),
        ("a", "b"),
    ]
    batch = minilm.tokenizer(*map(list, zip(*pairs, strict=True)), padding=True, return_tensors="pt")
    ids, mask, segments = (
        batch[key].to(device()) for key in ("input_ids", "attention_mask", "token_type_ids")
    )
    assert set(segments.flatten().tolist()) == set(mask.flatten().tolist()) == {0, 1}
    found = all_states(ours, ids, mask[:, None].bool(), segments)
    expected = states_of(theirs, ids, mask[:, None], segments)
    assert len(found) == len(expected) == theirs.config.num_hidden_layers + 1
    for depth, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert_close(a, b, depth)
    theirs.to("cpu")


def test_states_after_some_layers_are_those_of_all():
    encoder = tiny_encoder()
    ids, mask, _ = drawn(4, 9)
    every = all_states(encoder, ids, mask)
    assert torch.equal(encoder(ids, mask), every[-1])
    for depth, expected in enumerate(every):
        assert torch.equal(states_after(encoder, ids, mask, depth), expected)


def test_states_after_some_layers_run_no_other():
    encoder = tiny_encoder()
    ids, mask, _ = drawn(4, 9)
    expected = states_after(encoder, ids, mask, 2)
    del encoder.stack.layers[2]
    assert torch.equal(states_after(encoder, ids, mask, 2), expected)


def ready_and_apart(theirs, convert, dropout):
    """What `convert` gives can be asked at once, and shares no weight with `theirs`."""
    before = {name: p.clone() for name, p in theirs.state_dict().items()}
    ours = convert()
    assert not ours.training
    assert ours.embedding.dropout.p == dropout
    assert all(p.requires_grad for p in ours.parameters())
    assert {p.device.type for p in ours.parameters()} == {device()}
    with torch.no_grad():
        for p in ours.parameters():
            p.zero_()
    assert all(torch.equal(p, before[name]) for name, p in theirs.state_dict().items())


def test_from_bert_is_ready_to_be_asked_and_leaves_the_original_alone():
    theirs = tiny(hidden_dropout_prob=0.25).train()
    ready_and_apart(theirs, lambda: from_bert(theirs), 0.25)


def test_there_and_back():
    """All of BERT but its pooler is overwritten; what comes back is what went."""
    encoder, theirs = tiny_encoder(seed=3, config=bert_config(BertConfig(**SIZES))), tiny(seed=4)
    pooler = {name: p.clone() for name, p in theirs.pooler.state_dict().items()}
    assert to_bert(encoder, theirs) is theirs
    again = dict(from_bert(theirs).named_parameters())
    assert again.keys() == dict(encoder.named_parameters()).keys()
    for name, p in encoder.named_parameters():
        assert torch.equal(again[name], p), name
    assert all(torch.equal(p, pooler[name]) for name, p in theirs.pooler.state_dict().items())
    ids, mask, segments = drawn(4, 9)
    expected = states_of(theirs, ids, mask, segments)[-1]
    assert_close(encoder(ids, mask, segments).detach(), expected.detach(), "states")


@pytest.mark.parametrize("activation", ["relu", "gelu_new", "silu"])
def test_another_activation_is_refused(activation):
    for call in (bert_config, lambda config: from_bert(BertModel(config))):
        with pytest.raises(
            ValueError, match=f"^theirs must be a BERT with gelu and .*, got {activation} and absolute$"
        ):
            call(BertConfig(**SIZES, hidden_act=activation))


def test_relative_positions_are_refused():
    config = BertConfig(**SIZES)
    config.position_embedding_type = "relative_key"
    with pytest.raises(ValueError, match=r"^theirs must be a BERT .* got gelu and relative_key$"):
        bert_config(config)


# --- hidden words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [None, 0.15, 0.6])
def test_of_ten_chosen_eight_are_masked_one_random_one_stays(share):
    """All ids are 7: each value seen has its own probability, each count its standard error."""
    V, mine, mask_id, N = 20, 7, 3, 200_000
    ids, words = torch.full((400, 500), mine), torch.ones(400, 500, dtype=torch.bool)
    options = {} if share is None else {"share": share}
    seen, guess = hide_words(ids, words, mask_id, V, generator(1), **options)
    p = share or 0.15
    n = int(guess.sum())
    assert abs(n - N * p) <= 4 * math.sqrt(N * p * (1 - p))
    for value, count in enumerate(torch.bincount(seen[guess], minlength=V).tolist()):
        p = 0.1 / V + {mask_id: 0.8, mine: 0.1}.get(value, 0.0)
        assert abs(count - n * p) <= 4 * math.sqrt(n * p * (1 - p)), value
    assert seen.max() < V
    rows, columns = guess.sum(dim=1), guess.sum(dim=0)  # and places do not matter
    p = share or 0.15
    assert (abs(rows - 500 * p) <= 5 * math.sqrt(500 * p * (1 - p))).all()
    assert (abs(columns - 400 * p) <= 5 * math.sqrt(400 * p * (1 - p))).all()


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 12), st.sampled_from([0.0, 0.15, 0.7, 1.0]))
def test_only_words_are_hidden_and_the_rest_is_unchanged(seed, B, T, share):
    random, V = seeded(seed), 30
    ids, words = torch.randint(V, (B, T), generator=random), torch.rand(B, T, generator=random) < 0.6
    before = ids.clone(), words.clone()
    seen, guess = hide_words(ids, words, MASK, V, generator(seed), share)
    assert torch.equal(ids, before[0])
    assert torch.equal(words, before[1])
    assert seen.shape == guess.shape == (B, T)
    assert (seen.dtype, guess.dtype) == (ids.dtype, torch.bool)
    assert not guess[~words].any()
    assert torch.equal(seen[~guess], ids[~guess])
    assert ((seen >= 0) & (seen < V)).all()
    if share in (0, 1):
        assert torch.equal(guess, words & bool(share))
    again = hide_words(ids, words, MASK, V, generator(seed), share)
    assert torch.equal(seen, again[0])
    assert torch.equal(guess, again[1])


def test_another_seed_hides_other_words():
    ids = torch.full((20, 50), 7)
    (a, chosen), (b, others) = (hide_words(ids, ids > 0, MASK, 30, generator(seed)) for seed in (0, 1))
    assert not torch.equal(chosen, others)
    assert not torch.equal(a, b)


# --- the head -----------------------------------------------------------------------------------------------


def head_like(theirs):
    """Our head with the library's weights."""
    weights = theirs.cls.predictions.state_dict()
    head = MaskedWordHead(30, 12, theirs.config.layer_norm_eps).to(device())
    head.load_state_dict({name: weights[key] for name, key in HEAD_NAMES.items()})
    return head.to(weights["bias"].dtype)


@pytest.mark.parametrize("seed", range(4))
def test_the_head_is_berts(seed):
    """In float64; logits, and gradients of states, token vectors and every weight."""
    theirs = tiny(BertForMaskedLM, seed).double()
    ours, table = head_like(theirs), theirs.bert.embeddings.word_embeddings.weight
    states = torch.randn(3, 5, 12, generator=seeded(seed), dtype=torch.float64).to(device()).requires_grad_()
    tokens = table.detach().clone().requires_grad_()
    found, expected = ours(states, tokens), theirs.cls(states)
    assert_close(found.detach(), expected.detach(), seed)
    upstream = torch.randn(found.shape, generator=seeded(9), dtype=torch.float64).to(device())
    inputs, by_name = backward(found, upstream, ours, [states, tokens])
    others = dict(theirs.cls.predictions.named_parameters())
    expected_by_name = torch.autograd.grad(
        (expected * upstream).sum(), [states, table, *(others[HEAD_NAMES[name]] for name in by_name)]
    )
    assert len(by_name) == len(HEAD_NAMES)
    for a, b in zip([*inputs, *by_name.values()], expected_by_name, strict=True):
        assert_close(a, b, seed)


def test_encoder_and_head_are_the_whole_of_berts_masked_language_model():
    theirs = tiny(BertForMaskedLM)
    encoder, head = from_bert(theirs.bert), head_like(theirs)
    ids, mask, _ = drawn(4, 9)
    found = head(encoder(ids, mask), encoder.embedding.tokens.weight)
    assert_close(found.detach(), theirs(ids, mask[:, 0].long()).logits.detach(), "logits")


def test_a_seed_decides_the_heads_weights():
    torch.manual_seed(1)
    first, same, other = (MaskedWordHead(30, 12, seed=seed).state_dict() for seed in (3, 3, 4))
    for name, p in first.items():
        assert torch.equal(p, same[name]), name
        assert torch.equal(p, other[name]) == (name != "dense.weight"), name
    bound = math.sqrt(6 / 24)  # Glorot's
    assert 0.9 * bound < first["dense.weight"].abs().max() <= bound
    assert not first["bias"].any()
    assert not first["dense.bias"].any()


def test_the_hubs_bert_brings_its_own_head(tmp_path):
    whole = tiny(BertForMaskedLM)
    whole.save_pretrained(tmp_path)
    model = BertModel.from_pretrained(tmp_path).to(device()).eval()
    head, depth, mask_id = load_head(Pretrained(model, tiny_tokenizer(), "from the hub", "hub"))
    assert (depth, mask_id) == (SIZES["num_hidden_layers"], tiny_tokenizer().mask_token_id)
    assert not head.training
    encoder, (ids, mask, _) = from_bert(model), drawn(4, 9)
    found = head(states_after(encoder, ids, mask, depth), encoder.embedding.tokens.weight)
    assert_close(found.detach(), whole(ids, mask[:, 0].long()).logits.detach(), "logits")


def test_a_stored_head_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(bert, "FOLDER", tmp_path / "new" / "masked_words")
    head = MaskedWordHead(30, 12, SIZES["layer_norm_eps"]).to(device())
    draw_weights(head, seeded(5))
    options = Options(steps=7, checkpoint=tmp_path / "run.safetensors")
    save_head(head, options, History(valid=[(7, 1.5)]), {"test": {"nats": 2.5}})
    assert {path.name for path in bert.FOLDER.iterdir()} == {"head.safetensors", "card.json"}
    card = json.loads((bert.FOLDER / "card.json").read_text("utf-8"))
    assert card == bert.card()
    assert card["options"]["steps"] == 7
    assert card["valid"] == [[7, 1.5]]
    assert card["test"] == {"nats": 2.5}
    assert str(tmp_path) not in json.dumps(card)  # nobody's folders
    found, depth, mask_id = load_head(tiny_pretrained())
    assert mask_id == tiny_tokenizer().unk_token_id != tiny_tokenizer().mask_token_id
    assert depth == card["depth"] == bert.DEPTH
    assert not found.training
    states = torch.randn(6, 12, generator=seeded(0)).to(device())
    tokens = torch.randn(30, 12, generator=seeded(1)).to(device())
    assert torch.equal(found(states, tokens), head(states, tokens))  # eps too


# --- texts with hidden words --------------------------------------------------------------------------------


def plain_texts(lengths, seed=0):
    """Texts of so many tokens, drawn from words that are one each."""
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(PLAIN, n)) for n in lengths]


def passages(lengths, seed=0, depth=2):
    return Passages(tiny_encoder(), tiny_tokenizer(), plain_texts(lengths, seed), depth)


@pytest.fixture
def hidden(monkeypatch):
    """Each call of hide_words: (ids, words, seen, guess)."""
    calls = []

    def spy(ids, words, *arguments):
        found = hide_words(ids, words, *arguments)
        calls.append((ids, words, *found))
        return found

    monkeypatch.setattr(bert, "hide_words", spy)
    return calls


ROOM = PIECES - 2  # tokens of a stretch beside [CLS] and [SEP]


def test_stretches_hold_all_tokens_of_the_texts_in_order():
    lengths = [8, 20, ROOM, ROOM + 8, 3 * ROOM, 2 * ROOM + 30, 0]
    texts = plain_texts(lengths)
    found = passages(lengths)
    expected = [VOCABULARY[word] for text in texts for word in text.split()]
    assert [i for row in found.rows for i in row[1:-1].tolist()] == expected
    assert len(found.rows) == sum(math.ceil(n / ROOM) for n in lengths)
    for row, n in zip(found.rows, found.lengths.tolist(), strict=True):
        assert len(row) == n <= PIECES
        assert (row[0], row[-1]) == (CLS, SEP)
        assert (row[1:-1] > MASK).all()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 3 * ROOM), min_size=1, max_size=6).filter(lambda n: max(n) > 7))
def test_no_token_is_lost_but_those_of_stretches_too_short_to_tell(lengths):
    """Of a stretch of up to seven tokens."""
    kept = [n - (n % ROOM if n % ROOM <= 7 else 0) for n in lengths]
    found = passages(lengths)
    assert int((found.lengths - 2).sum()) == sum(kept)
    assert found.lengths.min() > 9


def test_padding_and_marks_are_never_hidden(hidden):
    found = passages([40, 9, 25, 12, 61, 300])
    for seed in range(30):
        batch = found.guesses(torch.randperm(len(found.rows), generator=seeded(seed)), seed)
        ids, words, seen, guess = hidden[-1]
        assert torch.equal(words, ids > MASK)  # texts hold none of the special ones
        assert torch.equal(seen[ids <= MASK], ids[ids <= MASK])
        assert (batch.targets > MASK).all()
        assert torch.equal(batch.targets.cpu(), ids[guess])
    assert {PAD, CLS, SEP} <= set(ids.flatten().tolist())


@pytest.mark.parametrize("depth", [0, 2, 3])
def test_the_states_are_those_of_the_seen_stretch_alone(hidden, depth):
    """As if there were no others in the batch and no padding, with the words hidden, not as they were."""
    found = passages([40, 9, 25, 12, 61], depth=depth)
    order = torch.tensor([3, 0, 4, 1, 2])
    batch = found.guesses(order, seed=5)
    ids, _, seen, guess = hidden[-1]
    states = []
    for row, chosen, i in zip(seen.to(device()), guess, order.tolist(), strict=True):
        n = len(found.rows[i])
        states.append(all_states(found.encoder, row[None, :n])[depth][0, chosen[:n].to(device())])
    assert_close(batch.states, torch.cat(states).detach(), depth)
    assert not batch.states.requires_grad
    assert (seen != ids).any()


def test_batches_are_a_function_of_the_step():
    found = passages([30] * 12)
    batches, again, other = (found.batches(12, seed) for seed in (3, 3, 4))
    for step in (0, 2, 1):
        assert all(map(torch.equal, batches(step), again(step)))
    assert batches(0).targets.sort().values.tolist() != other(0).targets.sort().values.tolist()


def test_batches_are_of_like_length(hidden):
    found = passages([*range(8, ROOM), *range(8, ROOM)])
    batches, n = found.batches(9), len(found.rows) // 9
    for step in range(n):
        batches(step)
    for part in torch.arange(9 * n).split(9):
        found.guesses(torch.randperm(len(found.rows), generator=seeded(int(part[0])))[:9], 0)
    padded = [int((ids == PAD).sum()) for ids, *_ in hidden]
    assert sum(padded[:n]) < 0.5 * sum(padded[n:])


def test_each_epoch_hides_other_words(hidden):
    """One stretch, so that nothing but the draw can differ."""
    batches = passages([30]).batches(1)
    for step in range(3):
        batches(step)
    first, second, third = (guess for *_, guess in hidden)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_held_out_stretches_are_read_once_each(hidden):
    found = passages([*range(8, 60), *range(8, 60)])
    held = found.held()
    sizes = [(ids > PAD).sum(dim=1).tolist() for ids, *_ in hidden]
    read = [
        tuple(row[:n].tolist())
        for (ids, *_), lengths in zip(hidden, sizes, strict=True)
        for row, n in zip(ids, lengths, strict=True)
    ]
    assert Counter(read) == Counter(tuple(row.tolist()) for row in found.rows)
    assert len(held) == len(hidden) == math.ceil(len(found.rows) / 64) > 1
    for batch, (ids, _, _, guess) in zip(held, hidden, strict=True):
        assert torch.equal(batch.targets.cpu(), ids[guess])


def test_held_out_words_are_hidden_by_the_seed_and_each_batch_draws_for_itself(hidden):
    found = passages([30] * 128)
    held, again, other = found.held(), found.held(), found.held(seed=1)
    for a, b in zip(held, again, strict=True):
        assert all(map(torch.equal, a, b))
    guesses = [guess for *_, guess in hidden]
    assert len(held) == 2
    assert not torch.equal(guesses[0], guesses[1])  # of one shape
    assert not torch.equal(guesses[0], guesses[4])
    assert len(other) == 2


# --- how well they are guessed ------------------------------------------------------------------------------


def guesses_of(sizes, seed=0):
    """A head, token vectors, and batches of random states and targets."""
    random = seeded(seed)
    head, tokens = MaskedWordHead(30, 12), torch.randn(30, 12, generator=random)
    draw_weights(head, random)
    held = [
        Guesses(torch.randn(n, 12, generator=random), torch.randint(30, (n,), generator=random))
        for n in sizes
    ]
    return head.to(device()), tokens.to(device()), [Guesses(*(t.to(device()) for t in pair)) for pair in held]


@pytest.mark.parametrize("sizes", [[1], [40, 3, 90]])
def test_scores_of_guesses_are_sklearns(sizes):
    """Over all batches together, a word counting one, however they are batched."""
    head, tokens, held = guesses_of(sizes)
    logits = torch.cat([head(batch.states, tokens) for batch in held]).detach().cpu().double()
    targets, labels = torch.cat([batch.targets for batch in held]).cpu(), range(30)
    found = guess_scores(head, tokens, held)
    assert found.keys() == {"n", "nats", "first", "five"}
    assert found["n"] == sum(sizes)
    assert found["nats"] == pytest.approx(log_loss(targets, logits.softmax(-1), labels=labels), rel=1e-5)
    for name, k in (("first", 1), ("five", 5)):
        expected = top_k_accuracy_score(targets, logits, k=k, labels=labels)
        assert found[name] == pytest.approx(expected, abs=1e-12)
    assert sizes == [1] or 0 < found["first"] < found["five"] < 1
    assert guess_scores(head, tokens, [Guesses(*map(torch.cat, zip(*held, strict=True)))]) == pytest.approx(
        found
    )


def test_the_loss_of_guesses_is_their_mean_surprise():
    head, tokens, (batch,) = guesses_of([50])
    loss = guess_loss(tokens)(head, batch)
    chances = head(batch.states, tokens).softmax(-1).tolist()
    expected = [-math.log(row[i]) for row, i in zip(chances, batch.targets.tolist(), strict=True)]
    assert loss.item() == pytest.approx(sum(expected) / 50, rel=1e-5)
    loss.backward()
    assert all(p.grad.any() for p in head.parameters())


def test_log_shares_by_counting():
    found = passages([30, 61, 100])
    counts = Counter(i for row in found.rows for i in row.tolist())
    n = sum(counts.values()) + 30 * 0.1
    expected = [math.log((counts[i] + 0.1) / n) for i in range(30)]
    shares = log_shares(found, 30)
    assert shares.tolist() == pytest.approx(expected, rel=1e-5)
    assert float(shares.exp().sum()) == pytest.approx(1, rel=1e-5)
    assert UNK not in counts  # so the unseen are among them


def test_paragraphs_are_lines_long_enough_to_be_no_heading(monkeypatch):
    line = "Here is a line of prose that goes on for a while."
    articles = {"valid": [f" = Heading = \n{line}\n\n{line[:40]}\n{line[:41]}", line], "test": []}
    monkeypatch.setattr(bert.corpora, "wikitext2", articles.__getitem__)
    assert bert.paragraphs("valid") == [line, line[:41], line]
    assert bert.paragraphs("test") == []


# --- training a head ----------------------------------------------------------------------------------------


@pytest.fixture
def little(monkeypatch):
    """A tiny BERT, and texts of one word each, said over and over: what is hidden can be read beside it."""
    found = tiny_pretrained()

    def paragraphs(split):
        which = {"train": range(34), "valid": range(3), "test": range(3, 6)}[split]
        return [" ".join([PLAIN[i % 17]] * 40) for i in which]

    monkeypatch.setattr(bert.pretrained, "load", lambda name: found)
    monkeypatch.setattr(bert, "paragraphs", paragraphs)
    return found


def test_a_head_is_trained_on_a_frozen_encoder_and_beats_unigrams(little):
    before = {name: p.clone() for name, p in little.model.state_dict().items()}
    head, history, known = bert.train_head(Options(steps=120, lr=2e-2, warmup=0, every=60))
    assert all(torch.equal(p, before[name]) for name, p in little.model.state_dict().items())
    assert [step for step, _ in history.valid] == [60, 120]
    assert history.valid[-1][1] < math.log(17) - 1  # all words are equally frequent
    encoder = from_bert(little.model)
    test = Passages(encoder, little.tokenizer, bert.paragraphs("test")).held()
    assert known["test"] == guess_scores(head, encoder.embedding.tokens.weight, test)


def test_untrained_a_head_knows_the_shares_of_words(little):
    """One step so small that it moves nothing: the bias is what is known before reading."""
    head, _, _ = bert.train_head(Options(steps=1, lr=1e-12, warmup=0))
    side = Passages(from_bert(little.model), little.tokenizer, bert.paragraphs("train"))
    assert_close(head.bias.detach().cpu(), log_shares(side, 30), "bias")


@pytest.mark.parametrize("done", [3, 4])
def test_a_head_is_stored_where_the_steps_done_are_those_asked_for(done, tmp_path, monkeypatch, capsys):
    asked = []

    def train_head(options):
        asked.append(options)
        return MaskedWordHead(30, 12), History(loss=[1.0] * done, valid=[(done, 1.0)]), {}

    monkeypatch.setattr(bert, "train_head", train_head)
    monkeypatch.setattr(bert, "FOLDER", tmp_path / "head")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["bert", "--steps", "3"])
    bert.main()
    assert capsys.readouterr().out.startswith(f"{done} steps")
    assert asked[0].steps == 3
    assert asked[0].checkpoint.parent == tmp_path / "cache"  # an interrupted run is gone on with
    assert (tmp_path / "head").exists() == (done == 3)


def test_an_interrupted_command_stores_no_head_and_goes_on(little, tmp_path, monkeypatch, capsys):
    def stopping(tokens):
        return lambda *given: signal.raise_signal(signal.SIGINT) or guess_loss(tokens)(*given)

    monkeypatch.setattr(bert, "FOLDER", tmp_path / "head")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["bert", "--steps", "3"])
    with monkeypatch.context() as patched:
        patched.setattr(bert, "guess_loss", stopping)
        for step in (1, 2):
            with pytest.raises(SystemExit) as ended:
                bert.main()
            assert (
                ended.value.code == f"training stopped at step {step} of 3; run it again to go on from there"
            )
            assert capsys.readouterr().out == ""
            assert not (tmp_path / "head").exists()
    bert.main()
    assert capsys.readouterr().out.startswith("3 steps")
    assert (tmp_path / "head" / "head.safetensors").exists()


HELD_OUT = [
    "The old lighthouse stood at the end of a narrow road, and every winter the sea "
    "took a little more of it.",
    "She opened the letter, read it twice, and put it back into the drawer without saying a word to anyone.",
    "In the second half of the season the team won nine of their ten games and "
    "finished at the top of the league.",
    "The river rises in the mountains to the north and flows through three countries "
    "before it reaches the sea.",
    "After the war he returned to the city, where he taught music at a small school until his death in 1962.",
    "The album was released in the spring and received good reviews, but it did not "
    "sell as well as the first.",
]


def test_the_stored_head_beats_guessing_by_frequency(minilm):
    encoder = from_bert(minilm.model)
    head, depth, mask_id = load_head(minilm)
    tokens = encoder.embedding.tokens.weight.detach()
    assert head.bias.shape == tokens.shape[:1]
    assert depth <= len(encoder.stack.layers)
    side = Passages(encoder, minilm.tokenizer, HELD_OUT, depth, mask_id)
    held, shares = side.held(), F.log_softmax(head.bias.detach(), dim=-1)
    found = guess_scores(head, tokens, held)
    targets = torch.cat([batch.targets for batch in held])
    assert found["nats"] < F.nll_loss(shares.expand(len(targets), -1), targets).item() - 1
    assert found["first"] > 2 * (targets == shares.argmax()).double().mean().item()
