"""The Transformer's parts and assemblies equal torch's, BERT's and GPT-2's, forward and backward.

Then what must hold of any: nobody sees the future, padding is as if it were not there, order comes from the
positions and the causal mask alone, a cache changes nothing, a seed decides every weight.
"""

import math
import re
from contextlib import contextmanager
from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from test_attention import (
    DEVICES,
    DTYPES,
    assert_close,
    assert_gradients,
    backward,
    copy_weights,
    draw_weights,
    named_as_torchs,
    precise_and_quick,  # noqa: F401 (a fixture for every test)
)
from torch import nn

from course_utils.attention import MultiHeadAttention, causal_mask, padding_mask
from course_utils.bert import bert_name
from course_utils.transformer import (
    Config,
    Decoder,
    Embedding,
    Encoder,
    FeedForward,
    Layer,
    Residual,
    Transformer,
    layer_norm,
    recorded,
    sinusoids,
)

SMALL = Config(V=11, T=12, C=8, nh=2, layers=2, hidden=12, dropout=0.0)
NORMS, POSITIONS = ("pre", "post", "none"), ("sinusoidal", "learned", "none")
KINDS = [replace(SMALL, norm=norm, positions=places) for norm, places in product(NORMS, POSITIONS)]
ALL_KINDS = pytest.mark.parametrize("config", KINDS, ids=[f"{c.norm}-{c.positions}" for c in KINDS])
PLACES = pytest.mark.parametrize("norm", ["pre", "post"])


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def between(low, high, random):
    return int(torch.randint(low, high + 1, (), generator=random))


def words(random, B, T, V=SMALL.V):
    return torch.randint(V, (B, T), generator=random)


def lengths_to(S, B, random):
    """(B, 1, S) masks of random lengths, one word at least."""
    return padding_mask(torch.randint(1, S + 1, (B,), generator=random), S)


def built(kind, config, *arguments, dtype=torch.float64, seed=0, **options):
    """A model whose every number is random, biases and gains too."""
    model = kind(config, *arguments, **options)
    draw_weights(model, seeded(seed))
    return model.to(dtype)


# ---------------------------------------------------------------------------------------- parts


@contextmanager
def made_in(dtype):
    """New tensors are of this type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


@DTYPES
@pytest.mark.parametrize(("T", "C"), [(1, 2), (7, 6), (300, 64), (5000, 32)])
def test_sinusoids_entry_by_entry(T, C, dtype):
    with made_in(dtype):
        found = sinusoids(T, C)
    wave = [math.sin, math.cos]
    entries = [[wave[j % 2](t / 10_000 ** ((j - j % 2) / C)) for j in range(C)] for t in range(T)]
    assert found.dtype == dtype
    assert_close(found, torch.tensor(entries, dtype=torch.float64).to(dtype), (T, C), largest=1.0)


def test_sinusoids_k_further_are_turned_by_angles_that_depend_on_k_alone():
    """PE(t + k) = R(k) PE(t), R(k) a rotation of each pair (sin, cos): linear in PE(t), as section 3.5 says.

    The linear map is fitted, not computed from the formula, and then seen to be that rotation.
    """
    C = 16
    with made_in(torch.float64):
        table = sinusoids(20_000, C)[::7]  # long enough to tell the slowest waves apart
    for k in (1, 2, 10):
        before, after = table[:-k], table[k:]
        angles = [7 * k / 10_000 ** (2 * i / C) for i in range(C // 2)]
        turns = [[[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]] for a in angles]
        rotation = torch.block_diag(*torch.tensor(turns, dtype=torch.float64))
        assert_close(before @ rotation.T, after, k)
        assert_close(torch.linalg.lstsq(before, after).solution.T, rotation, k)


@DEVICES
@DTYPES
def test_layer_norm_equals_torchs_twice_over(dtype, device):
    for seed in range(30):
        random = seeded(seed)
        C, eps = between(3, 20, random), 10.0 ** -between(1, 12, random)
        shape = [*torch.randint(1, 5, (between(0, 3, random),), generator=random).tolist(), C]
        drawn = [torch.randn(s, generator=random, dtype=torch.float64) for s in (shape, [C], [C], shape)]
        drawn[0] = drawn[0] * (1 + 99 * (seed % 2)) + seed % 3  # small or large numbers, around 0 or not
        x, gain, bias, upstream = (value.to(device, dtype).requires_grad_() for value in drawn)
        theirs = nn.LayerNorm(C, eps, device=device, dtype=dtype)
        theirs.load_state_dict({"weight": gain.detach(), "bias": bias.detach()})
        found, expected = layer_norm(x, gain, bias, eps), F.layer_norm(x, (C,), gain, bias, eps)
        assert torch.equal(expected, theirs(x)), seed
        assert_close(found.detach(), expected.detach(), seed)
        gradients = (torch.autograd.grad((y * upstream).sum(), (x, gain, bias)) for y in (found, expected))
        for a, b in zip(*gradients, strict=True):
            assert_close(a, b, seed)


def test_the_model_normalises_by_that_equation():
    """nn.LayerNorm runs inside, for speed; it is the taught function."""
    residual, x = built(Residual, SMALL), torch.randn(2, 3, 8, generator=seeded(0), dtype=torch.float64)
    expected = layer_norm(x, residual.norm.weight, residual.norm.bias, SMALL.eps)
    assert_close(residual.norm(x).detach(), expected.detach(), "residual")


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh"])
def test_feed_forward_by_its_equation(activation):
    twins = {"relu": nn.ReLU(), "gelu": nn.GELU(), "gelu_tanh": nn.GELU(approximate="tanh")}
    ours = built(FeedForward, replace(SMALL, activation=activation))
    theirs = nn.Sequential(nn.Linear(8, 12), twins[activation], nn.Linear(12, 8)).double()
    names = {"0.": "inner.", "2.": "outer."}
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            p.copy_(dict(ours.named_parameters())[names[name[:2]] + name[2:]])
    x = torch.randn(3, 4, 8, generator=seeded(0), dtype=torch.float64)
    assert_close(ours(x).detach(), theirs(x).detach(), activation)


@pytest.mark.parametrize("hidden", [0, 5])
def test_feed_forward_is_four_times_as_wide_unless_told(hidden):
    assert FeedForward(replace(SMALL, hidden=hidden)).inner.out_features == (hidden or 4 * SMALL.C)


@pytest.mark.parametrize("norm", NORMS)
def test_a_residual_drops_from_the_sublayer_alone(norm):
    """In training each number of the sublayer is 0 or scaled by 1 / (1 - p); what it is added to stays."""
    residual = Residual(replace(SMALL, dropout=0.25, norm=norm))
    x = torch.randn(4, 100, 8, generator=seeded(0))
    if norm == "post":
        residual.norm = nn.Identity()  # what enters it
    torch.manual_seed(0)
    share = (residual(x, lambda y: torch.full_like(y, 3.0)) - x) / 4.0
    dropped = share.abs() < 1e-5
    assert ((share - 1).abs() < 1e-5).logical_or(dropped).all()
    assert 0.2 < dropped.float().mean() < 0.3
    assert torch.equal(residual.eval()(x, lambda y: 3 * torch.ones_like(y)), x + 3)


@pytest.mark.parametrize("kind", [Encoder, Decoder, Transformer])
def test_dropout_follows_the_embedding_and_each_sublayer(kind):
    """And nothing is dropped in evaluation."""
    model, ids = kind(replace(SMALL, dropout=0.5)), words(seeded(0), 2, 5)
    inputs = (ids, ids) if kind is Transformer else (ids,)
    sublayers = {Encoder: 4, Decoder: 4, Transformer: 10}[kind]  # of 2 layers
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5] * (1 + sublayers)
    assert not torch.equal(model(*inputs), model(*inputs))
    assert torch.equal(model.eval()(*inputs), model(*inputs))
    assert torch.equal(model(*inputs), kind(SMALL)(*inputs))


def test_an_embedding_drops_last():
    """After its norm: what is dropped is 0, the rest is scaled by 1 / (1 - p)."""
    embedding, ids = Embedding(replace(SMALL, dropout=0.5, norm_embedding=True)), words(seeded(0), 4, 12)
    nn.init.normal_(embedding.tokens.weight, generator=seeded(1))
    torch.manual_seed(0)
    dropped, whole = embedding(ids).detach(), embedding.eval()(ids).detach()
    assert 0.4 < (dropped == 0).float().mean() < 0.6
    assert_close(dropped, (2 * whole).where(dropped != 0, 0.0), "dropout")


@pytest.mark.parametrize("norm_embedding", [False, True])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("segments", [0, 3])
@pytest.mark.parametrize("positions", POSITIONS)
def test_an_embedding_is_the_sum_of_its_parts(positions, segments, scale, norm_embedding):
    config = replace(
        SMALL, positions=positions, segments=segments, scale=scale, norm_embedding=norm_embedding
    )
    ours, random = built(Embedding, config, dtype=torch.float32), seeded(1)
    with torch.no_grad():
        for p in ours.parameters():
            p.normal_(generator=random)
    ids, start = words(random, 3, 5), 4
    kinds = torch.randint(segments, (3, 5), generator=random) if segments else None
    for given in (kinds, None):
        x = F.embedding(ids, ours.tokens.weight) * (math.sqrt(8) if scale else 1)
        if positions != "none":
            table = ours.positions if positions == "learned" else sinusoids(12, 8)
            x = x + table[start : start + 5]
        if segments:
            x = x + F.embedding(torch.zeros_like(ids) if given is None else given, ours.segments.weight)
        if norm_embedding:
            x = layer_norm(x, ours.norm.weight, ours.norm.bias, config.eps)
        assert_close(ours(ids, start, given).detach(), x.detach(), config)


def test_scores_are_dot_products_with_the_tokens_own_vectors():
    embedding, x = built(Embedding, SMALL), torch.randn(2, 3, 8, generator=seeded(1), dtype=torch.float64)
    expected = F.linear(x, embedding.tokens.weight)
    assert_close(embedding.scores(x).detach(), expected.detach(), "scores")


# ------------------------------------------------------------------------------- torch's layers, stacks

TORCHS = {
    "stack.": "",
    "self_attention.": "self_attn.",
    "cross_attention.": "multihead_attn.",
    "around_self.norm": "norm1",
    "around_cross.norm": "norm2",
    "feed_forward.inner": "linear1",
    "feed_forward.outer": "linear2",
}


def renamed(name, table):
    """Our name of a tensor in a library's words."""
    for ours, theirs in table.items():
        name = name.replace(ours, theirs)
    return name


def as_torchs(tensors, name):
    """Of torch's tensors, the one of our name; a layer's last norm is its second there or its third."""
    name = renamed(name, TORCHS)
    third = name.replace("around_feed_forward.norm", "norm3")
    name = third if third in tensors else name.replace("around_feed_forward.norm", "norm2")
    return named_as_torchs(tensors, name)


class Sizes:
    """Random sizes, in a config and as torch's arguments; masks and tensors to go with them."""

    def __init__(self, seed, norm, activation="relu", dtype=torch.float64, device="cpu"):
        self.seed, self.random, self.dtype, self.device = seed, seeded(seed), dtype, device
        self.B, self.T, self.S = (between(1, 4, self.random), *(between(3, 7, self.random) for _ in "TS"))
        nh, half, hidden = (between(low, 4, self.random) for low in (1, 2, 3))
        self.config = Config(
            V=13, T=7, C=nh * 2 * half, nh=nh, layers=2, hidden=hidden, dropout=0.0, norm=norm,
            activation=activation, eps=10.0 ** -between(3, 8, self.random),
        )  # fmt: skip
        self.torchs = {
            "dropout": 0.0,
            "activation": activation,
            "layer_norm_eps": self.config.eps,
            "batch_first": True,
            "norm_first": norm == "pre",
        }

    def __repr__(self):
        return f"sizes of seed {self.seed}: {self.config}"

    def to(self, *modules):
        return [module.to(self.device, self.dtype) for module in modules]

    def tensor(self, rows):
        x = torch.randn(self.B, rows, self.config.C, generator=self.random, dtype=torch.float64)
        return x.to(self.device, self.dtype).requires_grad_()

    def mask(self, T, S, opened):
        """(B, T, S), random but for those opened, so that no row is closed whole (torch's gives NaN)."""
        drawn = torch.rand(self.B, T, S, generator=self.random) < 0.6
        return (drawn | opened).to(self.device)

    def for_torch(self, mask):
        """(B, T, S) of ours, True where open → (B nh, T, S), True where closed."""
        return ~mask.repeat_interleave(self.config.nh, 0)


def sizes(*arguments, count=12):
    return (Sizes(seed, *arguments) for seed in range(count))


def assert_twins(ours, theirs, found, expected, inputs, lookup, case):
    """Outputs, gradients of the inputs and of every parameter."""
    assert_close(found.detach(), expected.detach(), case)
    upstream = torch.randn(found.shape, generator=seeded(0), dtype=torch.float64).to(found)
    ours_in, ours_by_name = backward(found, upstream, ours, inputs)
    theirs_in, theirs_by_name = backward(expected, upstream, theirs, inputs)
    for a, b in zip(ours_in, theirs_in, strict=True):
        assert_close(a, b, case)
    assert_gradients(ours_by_name, theirs_by_name, lookup, case)


@DEVICES
@DTYPES
@PLACES
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_layer_is_torchs_encoder_layer(activation, norm, dtype, device):
    for case in sizes(norm, activation, dtype, device):
        config = case.config
        ours = Layer(config)
        theirs = nn.TransformerEncoderLayer(config.C, config.nh, config.hidden, **case.torchs)
        case.to(ours, theirs)
        draw_weights(theirs, case.random)
        copy_weights(ours, theirs, as_torchs)
        x, mask = case.tensor(case.T), case.mask(case.T, case.T, torch.eye(case.T, dtype=torch.bool))
        found, expected = ours(x, mask=mask), theirs(x, src_mask=case.for_torch(mask))
        assert_twins(ours, theirs, found, expected, [x], as_torchs, case)


@DEVICES
@DTYPES
@PLACES
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_layer_with_both_switches_is_torchs_decoder_layer(activation, norm, dtype, device):
    for case in sizes(norm, activation, dtype, device):
        config, T, S = case.config, case.T, case.S
        ours = Layer(config, causal=True, cross=True)
        theirs = nn.TransformerDecoderLayer(config.C, config.nh, config.hidden, **case.torchs)
        case.to(ours, theirs)
        draw_weights(theirs, case.random)
        copy_weights(ours, theirs, as_torchs)
        x, memory = case.tensor(T), case.tensor(S)
        mask, first = case.mask(T, T, torch.eye(T, dtype=torch.bool)), torch.arange(S) < 2
        memory_mask = case.mask(T, S, first)
        found = ours(x, memory, mask, memory_mask)
        expected = theirs(
            x,
            memory,
            tgt_mask=case.for_torch(mask & causal_mask(T).to(device)),
            memory_mask=case.for_torch(memory_mask),
        )
        assert_twins(ours, theirs, found, expected, [x, memory], as_torchs, case)


def torchs_transformer(config, options):
    """With post-LN nn.Transformer ends both stacks in a norm the paper has not: they are built without."""
    sizes = (config.C, config.nh, config.layers, config.layers, config.hidden)
    if config.norm == "pre":
        return nn.Transformer(*sizes, **options)
    arguments = (config.C, config.nh, config.hidden)
    encoder = nn.TransformerEncoderLayer(*arguments, **options)
    decoder = nn.TransformerDecoderLayer(*arguments, **options)
    return nn.Transformer(
        *sizes,
        **options,
        custom_encoder=nn.TransformerEncoder(encoder, config.layers, enable_nested_tensor=False),
        custom_decoder=nn.TransformerDecoder(decoder, config.layers),
    )


class TorchsModel(nn.Module):
    """What torch leaves to its user: one embedding, scaled, with positions, tied to the output."""

    def __init__(self, case):
        super().__init__()
        self.config = case.config
        self.inner = torchs_transformer(case.config, case.torchs)
        self.embedding = nn.Embedding(case.config.V, case.config.C)

    def forward(self, source, target, pad):
        positions = sinusoids(self.config.T, self.config.C).to(self.embedding.weight)
        x, y = (
            self.embedding(ids) * self.config.C**0.5 + positions[: ids.shape[1]] for ids in (source, target)
        )
        future = ~causal_mask(target.shape[1]).to(target.device)
        closed = ~pad[:, 0]
        h = self.inner(x, y, tgt_mask=future, src_key_padding_mask=closed, memory_key_padding_mask=closed)
        return h @ self.embedding.weight.T


def as_whole(tensors, name):
    if name == "embedding.tokens.weight":
        return tensors["embedding.weight"]
    return as_torchs(tensors, "inner." + name)


@DEVICES
@DTYPES
@PLACES
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")  # torch's own choice, without effect here
def test_the_transformer_is_torchs_from_ids_to_logits(norm, dtype, device):
    for case in sizes(norm, "relu", dtype, device):
        ours, theirs = Transformer(case.config), TorchsModel(case)
        case.to(ours, theirs)
        draw_weights(theirs, case.random)
        copy_weights(ours, theirs, as_whole)
        source, target = (words(case.random, case.B, n, 13).to(device) for n in (case.S, case.T))
        pad = lengths_to(case.S, case.B, case.random).to(device)
        found, expected = ours(source, target, pad), theirs(source, target, pad)
        assert_twins(ours, theirs, found, expected, [], as_whole, case)


# ------------------------------------------------------------------------------- BERT, GPT-2

GPT2S = {
    "embedding.tokens.": "transformer.wte.",
    "embedding.positions": "transformer.wpe.weight",
    "stack.layers.": "transformer.h.",
    "stack.norm.": "transformer.ln_f.",
    "self_attention.out.": "attn.c_proj.",
    "self_attention.": "attn.",
    "around_self.norm.": "ln_1.",
    "around_feed_forward.norm.": "ln_2.",
    "feed_forward.inner.": "mlp.c_fc.",
    "feed_forward.outer.": "mlp.c_proj.",
}


def as_berts(tensors, name):
    return tensors[bert_name(name)]


def as_gpt2s(tensors, name):
    """Query, key and value are one there; and its matrices are stored transposed."""
    name = renamed(name, GPT2S)
    if part := re.search(r"(query|key|value)\.", name):
        whole = tensors[name.replace(part[0], "c_attn.")]
        tensor = whole.chunk(3, dim=-1)[("query", "key", "value").index(part[1])]
    else:
        tensor = tensors[name]
    return tensor.T if ".h." in name and tensor.dim() == 2 else tensor


@DTYPES
@pytest.mark.parametrize("seed", range(4))
def test_the_encoder_is_bert(seed, dtype):
    from transformers import BertConfig, BertModel

    random = seeded(seed)
    theirs = BertModel(
        BertConfig(
            vocab_size=19, hidden_size=12, num_hidden_layers=3, num_attention_heads=3, intermediate_size=20,
            max_position_embeddings=9, type_vocab_size=2, pad_token_id=None,
        ),
        add_pooling_layer=False,
    ).to(dtype).eval()  # fmt: skip
    draw_weights(theirs, random)
    config = Config(
        V=19, T=9, C=12, nh=3, layers=3, hidden=20, norm="post", positions="learned", activation="gelu",
        scale=False, segments=2, norm_embedding=True, eps=1e-12,
    )  # fmt: skip
    ours = Encoder(config).to(dtype).eval()
    copy_weights(ours, theirs, as_berts)
    ids, kinds, pad = words(random, 4, 7, 19), words(random, 4, 7, 2), lengths_to(7, 4, random)
    found = ours(ids, pad, kinds)
    expected = theirs(ids, attention_mask=pad[:, 0].long(), token_type_ids=kinds).last_hidden_state
    assert_twins(ours, theirs, found, expected, [], as_berts, seed)
    assert_close(ours(ids, pad), theirs(ids, attention_mask=pad[:, 0].long())[0], seed)  # one segment


@DTYPES
@pytest.mark.parametrize("seed", range(4))
def test_the_decoder_is_gpt2(seed, dtype):
    from transformers import GPT2Config, GPT2LMHeadModel

    random = seeded(seed)
    theirs = GPT2LMHeadModel(
        GPT2Config(vocab_size=19, n_positions=9, n_embd=12, n_layer=3, n_head=3, n_inner=20)
    ).to(dtype).eval()  # fmt: skip
    draw_weights(theirs, random)
    config = Config(
        V=19, T=9, C=12, nh=3, layers=3, hidden=20, norm="pre", positions="learned", activation="gelu_tanh",
        scale=False,
    )  # fmt: skip
    ours = Decoder(config).to(dtype).eval()
    copy_weights(ours, theirs, as_gpt2s)
    ids = words(random, 4, 8, 19)
    assert_twins(ours, theirs, ours(ids), theirs(ids).logits, [], as_gpt2s, seed)
    cache, past = ours.new_cache(), None
    for t in range(8):  # with the caches of both
        step = theirs(ids[:, t : t + 1], past_key_values=past, use_cache=True)
        past = step.past_key_values
        assert_close(ours(ids[:, t : t + 1], cache=cache).detach(), step.logits.detach(), (seed, t))


# ------------------------------------------------------------------------------- what must hold of any


def keep_weights(model, keep):
    for part in model.modules():
        if isinstance(part, MultiHeadAttention):
            part.keep_weights = keep


@ALL_KINDS
@pytest.mark.parametrize("cross", [False, True], ids=["alone", "cross"])
def test_no_token_hears_of_the_future(config, cross):
    """One token changed: not a bit moves before it, and every row from it on does. Cached chunks too."""
    model, random = built(Decoder, config, cross, dtype=torch.float32), seeded(1)
    ids = words(random, 2, 6)
    memory = torch.randn(2, 4, 8, generator=random) if cross else None
    for keep, t, begin in product((True, False), range(6), (0, 1, 3)):
        if begin > t:
            continue
        keep_weights(model, keep)
        other = ids.clone()
        other[:, t] = (ids[:, t] + between(1, config.V - 1, random)) % config.V
        outs = []
        for tokens in (ids, other):
            cache = model.new_cache() if begin else None
            if begin:
                model(tokens[:, :begin], memory, cache=cache)
            outs.append(model(tokens[:, begin:], memory, cache=cache))
        before, after = outs
        assert torch.equal(before[:, : t - begin], after[:, : t - begin]), (keep, t, begin)
        assert (before[:, t - begin :] != after[:, t - begin :]).any(-1).all(), (keep, t, begin)


def test_the_whole_model_hears_all_of_the_source_and_the_past_of_the_target():
    for norm in NORMS:
        model, random = built(Transformer, replace(SMALL, norm=norm), dtype=torch.float32), seeded(1)
        source, target = words(random, 2, 5), words(random, 2, 6)
        logits = model(source, target)
        for t in range(6):
            other = target.clone()
            other[:, t] = (target[:, t] + 1) % SMALL.V
            after = model(source, other)
            assert torch.equal(logits[:, :t], after[:, :t]), (norm, t)
            assert (logits[:, t:] != after[:, t:]).any(-1).all(), (norm, t)
        for s in range(5):
            other = source.clone()
            other[:, s] = (source[:, s] + 1) % SMALL.V
            assert (logits != model(other, target)).any(-1).all(), (norm, s)


def spoilt(ids, pad, random):
    """Other tokens in the padding, (B, S), that is where pad (B, 1, S) is False."""
    return ids.where(pad[:, 0], (ids + between(1, SMALL.V - 1, random)) % SMALL.V)


@ALL_KINDS
def test_an_encoders_padding_is_as_if_it_were_not_there(config):
    """Other tokens in it move no bit at a word; and a short sequence has the states it has alone."""
    model, random = built(Encoder, config), seeded(1)
    for _ in range(5):
        ids, pad = words(random, 3, 7), lengths_to(7, 3, random)
        for keep in (True, False):
            keep_weights(model, keep)
            states, other = model(ids, pad), model(spoilt(ids, pad, random), pad)
            assert torch.equal(states[pad[:, 0]], other[pad[:, 0]])
            for row, n in enumerate(pad.sum(-1).flatten().tolist()):
                assert_close(states[row, :n], model(ids[row : row + 1, :n])[0], config)


@ALL_KINDS
@pytest.mark.parametrize("cross", [False, True], ids=["alone", "cross"])
def test_a_decoders_padding_is_as_if_it_were_not_there(config, cross):
    """On the left, where causality does not hide it by itself; and the memory's. No NaN in closed rows."""
    model, random = built(Decoder, config, cross), seeded(1)
    for _ in range(5):
        ids, pad = words(random, 3, 6), lengths_to(6, 3, random).flip(-1)
        memory = memory_mask = None
        if cross:
            memory = torch.randn(3, 5, 8, generator=random, dtype=torch.float64)
            memory_mask = lengths_to(5, 3, random)
        for keep in (True, False):
            keep_weights(model, keep)
            logits = model(ids, memory, pad, memory_mask)
            garbage = memory.masked_fill(~memory_mask.transpose(1, 2), 1e3) if cross else None
            other = model(spoilt(ids, pad, random), garbage, pad, memory_mask)
            assert torch.equal(logits[pad[:, 0]], other[pad[:, 0]])
            gradients = torch.autograd.grad(logits.sum(), list(model.parameters()))
            assert not any(x.isnan().any() for x in (logits, *gradients))
            if config.positions == "none":  # a word's place is then its place among words
                for row, n in enumerate(pad.sum(-1).flatten().tolist()):
                    alone = (memory[row : row + 1, : memory_mask[row].sum()],) if cross else ()
                    assert_close(logits[row, -n:], model(ids[row : row + 1, -n:], *alone)[0], config)


@ALL_KINDS
def test_a_transformers_padding_is_as_if_it_were_not_there(config):
    model, random = built(Transformer, config), seeded(1)
    for _ in range(5):
        source, target, pad = words(random, 3, 7), words(random, 3, 5), lengths_to(7, 3, random)
        for keep in (True, False):
            keep_weights(model, keep)
            logits = model(source, target, pad)
            assert torch.equal(logits, model(spoilt(source, pad, random), target, pad))
            for row, n in enumerate(pad.sum(-1).flatten().tolist()):
                alone = model(source[row : row + 1, :n], target[row : row + 1])
                assert_close(logits[row], alone[0], config)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("keep", [True, False], ids=["plain", "fused"])
def test_a_sequence_of_padding_only_gives_no_nan(norm, keep):
    """Nor do its gradients, and the other sequences of the batch do not notice."""
    model, random = built(Transformer, replace(SMALL, norm=norm)), seeded(1)
    keep_weights(model, keep)
    source, target = words(random, 2, 4), words(random, 2, 3)
    logits = model(source, target, padding_mask(torch.tensor([4, 0]), 4))
    gradients = torch.autograd.grad(logits.sum(), list(model.parameters()))
    assert not any(x.isnan().any() for x in (logits, *gradients))
    assert_close(logits[:1], model(source[:1], target[:1]), norm)


def shuffled_difference(model, random, readout=slice(None)):
    """The largest difference between states of shuffled tokens and shuffled states, relative."""
    ids, order = words(random, 2, 8), torch.tensor([3, 1, 7, 0, 6, 2, 5, 4])
    states, after = model(ids).detach()[:, order], model(ids[:, order]).detach()
    return float((states - after)[:, readout].abs().max() / states.abs().max())


@pytest.mark.parametrize("norm", NORMS)
def test_without_positions_an_encoder_cannot_tell_order_and_a_decoder_can(norm):
    """Shuffled tokens, shuffled states: of the encoder only, and only without positions."""
    for positions in POSITIONS:
        config = replace(SMALL, norm=norm, positions=positions)
        encoder, decoder = (
            shuffled_difference(built(kind, config), seeded(2)) for kind in (Encoder, Decoder)
        )
        assert decoder > 1e-2, positions
        assert encoder < 1e-12 if positions == "none" else encoder > 1e-2, positions


@DTYPES
@ALL_KINDS
@pytest.mark.parametrize("cross", [False, True], ids=["alone", "cross"])
def test_with_a_cache_a_decoder_is_the_whole_pass(config, cross, dtype):
    """Token by token and in uneven chunks; logits, and gradients of all weights."""
    model, random = built(Decoder, config, cross, dtype=dtype), seeded(1)
    ids = words(random, 2, 9)
    memory = torch.randn(2, 4, 8, generator=random).to(dtype) if cross else None
    memory_mask = padding_mask(torch.tensor([4, 2]), 4) if cross else None
    whole = model(ids, memory, memory_mask=memory_mask)
    upstream = torch.randn(whole.shape, generator=random).to(dtype)
    _, expected = backward(whole, upstream, model)
    for sizes in ([1] * 9, [4, 3, 2], [1, 8], [9]):
        cache = model.new_cache()
        parts = [model(part, memory, None, memory_mask, cache) for part in ids.split(sizes, dim=1)]
        assert {len(own) for own, _ in cache} == {9}
        assert {len(other) for _, other in cache} == {4 if cross else 0}
        found = torch.cat(parts, dim=1)
        assert_close(found, whole, sizes)
        _, gradients = backward(found, upstream, model)
        assert_gradients(gradients, expected, lambda tensors, name: tensors[name], sizes)


def test_a_beam_goes_on_from_the_rows_it_selects():
    """The cache's rows reordered are the caches of the sequences reordered."""
    model, random = built(Decoder, SMALL, True), seeded(1)
    ids, memory = words(random, 3, 5), torch.randn(1, 4, 8, generator=random).double().expand(3, 4, 8)
    cache, rows = model.new_cache(), torch.tensor([2, 0, 2])
    model(ids[:, :4], memory, cache=cache)
    for own, _ in cache:
        own.select(rows)
    found = model(ids[:, 4:], memory, cache=cache)
    whole = model(torch.cat([ids[rows, :4], ids[:, 4:]], dim=1), memory)
    assert_close(found, whole[:, -1:], "beam")


# ------------------------------------------------------------------------------- weights


def expected_count(config, kind):
    """By the formulas: four projections, two matrices, a gain and a bias a norm, one table for all."""
    V, T, C, h = config.V, config.T, config.C, config.hidden or 4 * config.C
    table = (
        V * C + T * C * (config.positions == "learned") + config.segments * C + 2 * C * config.norm_embedding
    )
    heads, norm = 4 * (C * C + C), 2 * C * (config.norm != "none")
    plain = heads + (C * h + h) + (h * C + C) + 2 * norm
    last = 2 * C * (config.norm == "pre")
    stack = {"plain": config.layers * plain + last, "cross": config.layers * (plain + heads + norm) + last}
    parts = {"encoder": ["plain"], "decoder": ["plain"], "cross": ["cross"], "both": ["plain", "cross"]}
    return table + sum(stack[part] for part in parts[kind])


MODELS = {
    "encoder": Encoder,
    "decoder": Decoder,
    "cross": lambda config, seed=0: Decoder(config, True, seed=seed),
    "both": Transformer,
}


@pytest.mark.parametrize("kind", MODELS)
def test_parameters_counted_by_formula(kind):
    for config, hidden, segments, normed in product(KINDS, (0, 5), (0, 2), (False, True)):
        config = replace(config, hidden=hidden, segments=segments, norm_embedding=normed)
        assert sum(p.numel() for p in MODELS[kind](config).parameters()) == expected_count(config, kind), (
            config
        )


@pytest.mark.parametrize("kind", MODELS)
def test_a_seed_decides_every_weight_whatever_was_drawn_before(kind):
    config = replace(SMALL, positions="learned", segments=2, norm_embedding=True)
    torch.manual_seed(1)
    first, same = MODELS[kind](config, seed=3).state_dict(), MODELS[kind](config, seed=3).state_dict()
    other = MODELS[kind](config, seed=4).state_dict()
    for name, tensor in first.items():
        assert torch.equal(tensor, same[name]), name
        gain_or_bias = tensor.dim() == 1
        assert torch.equal(tensor, other[name]) == gain_or_bias, name
        if gain_or_bias:
            assert (tensor == float("norm.weight" in name)).all(), name


def test_encoder_and_decoder_of_one_model_begin_unlike():
    model = Transformer(SMALL)
    first = [part.stack.layers[0].self_attention.query.weight for part in (model.encoder, model.decoder)]
    assert not torch.equal(*first)


def test_first_weights_are_glorots_and_what_enters_has_variance_1():
    model = Encoder(Config(V=2000, T=64, C=64, nh=2, layers=1, positions="learned", segments=2))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            bound = math.sqrt(6 / (module.in_features + module.out_features))
            assert 0.98 * bound < module.weight.abs().max() <= bound
            assert abs(module.weight.std() / bound * math.sqrt(3) - 1) < 0.05  # uniform
    table = model.embedding.tokens.weight
    assert abs((table * model.embedding.factor).std() - 1) < 0.02
    assert abs(model.embedding.positions.std() * 8 - 1) < 0.05


def test_one_table_serves_source_target_and_output():
    """Before and after a change of type; and it hears of all three."""
    model = Transformer(SMALL)
    for tied in (model, model.double()):
        table = tied.embedding.tokens.weight
        assert tied.encoder.embedding is tied.embedding is tied.decoder.embedding
        assert sum(p.shape == table.shape for p in tied.parameters()) == 1
        assert len({t.data_ptr() for name, t in tied.state_dict().items() if "tokens" in name}) == 1
    model = built(Transformer, SMALL)
    logits = model(torch.tensor([[1, 2]]), torch.tensor([[3, 4]]))
    (gradient,) = torch.autograd.grad(logits[..., 9].sum(), model.embedding.tokens.weight)
    assert gradient.any(-1).nonzero().flatten().tolist() == [1, 2, 3, 4, 9]  # source, target, output


# ------------------------------------------------------------------------------- recorded weights


@pytest.mark.parametrize("norm", NORMS)
def test_recorded_weights_are_each_layers_own_rows_of_1(norm):
    random, config = seeded(1), replace(SMALL, norm=norm, layers=3)
    source, target, pad = words(random, 2, 7), words(random, 2, 5), padding_mask(torch.tensor([7, 3]), 7)
    model = built(Transformer, config)
    before = model(source, target, pad)
    crossed = recorded(model, source, target, pad, kind="cross_attention")
    assert crossed.shape == (3, 2, 2, 5, 7)  # (layers, B, nh, T, S)
    assert not crossed[:, 1, :, :, 3:].any()
    inner = recorded(model.encoder, source, mask=pad)
    assert inner.shape == (3, 2, 2, 7, 7)
    assert not inner[:, 1, :, :, 3:].any()
    decoder = built(Decoder, config)
    own = recorded(decoder, target)
    assert own.shape == (3, 2, 2, 5, 5)
    assert not own[..., ~causal_mask(5)].any()
    for weights in (crossed, inner, own):
        assert (weights.sum(-1) - 1).abs().max() < 1e-12
        assert not weights.requires_grad
        assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert torch.equal(before, model(source, target, pad))


def state(model):
    parts = [part for part in model.modules() if isinstance(part, MultiHeadAttention)]
    return [(part.keep_weights, part.weights) for part in parts]


@pytest.mark.parametrize("keep", [True, False])
def test_recording_leaves_the_model_as_it_was_even_after_an_error(keep):
    model, ids = Encoder(SMALL), words(seeded(1), 2, 5)
    keep_weights(model, keep)
    model(ids)
    before = state(model)
    recorded(model, ids)
    assert all(a is b for x, y in zip(before, state(model), strict=True) for a, b in zip(x, y, strict=True))
    with pytest.raises(ValueError, match="mask must"):
        recorded(model, ids, mask=causal_mask(4))
    assert all(a is b for x, y in zip(before, state(model), strict=True) for a, b in zip(x, y, strict=True))
    assert model.training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("kind", ["cross_attention", "attentions", "feed_forward", "inner"])
def test_weights_that_do_not_exist_are_named(kind):
    with pytest.raises(
        ValueError, match=f"kind must end the name of an attention of the model, got '{kind}'"
    ):
        recorded(Encoder(SMALL), words(seeded(1), 2, 5), kind=kind)


# ------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"norm": "rms"}, "norm must be one of pre, post, none, got 'rms'"),
        ({"positions": "rotary"}, "positions must be one of sinusoidal, learned, none, got 'rotary'"),
        ({"activation": "tanh"}, "activation must be one of relu, gelu, gelu_tanh, got 'tanh'"),
        *(({name: 0}, f"{name} must be at least 1, got 0") for name in ("V", "T", "C", "nh", "layers")),
        *(({name: -1}, f"{name} must be 0 or more, got -1") for name in ("hidden", "segments")),
        *(({"dropout": p}, f"dropout must lie in [0, 1), got {p}") for p in (-0.1, 1.0, math.nan)),
    ],
)
def test_what_cannot_be_configured_is_named(sizes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Config(**{"V": 5} | sizes)


@pytest.mark.parametrize("kind", MODELS.values(), ids=list(MODELS))
def test_what_cannot_be_built_is_named(kind):
    with pytest.raises(ValueError, match="nh must divide the width C: C = 8 does not split into nh = 3"):
        kind(replace(SMALL, nh=3))
    with pytest.raises(ValueError, match="C must be even for pairs of sine and cosine, got 9"):
        kind(replace(SMALL, C=9, nh=3))
    kind(replace(SMALL, C=9, nh=3, positions="learned"))


IDS, MEMORY = torch.ones(2, 5, dtype=torch.long), torch.ones(2, 3, 8)
BAD_IDS = [
    (torch.ones(2, 5), "ids must be (B, T) integers and not empty, got torch.float32 of shape (2, 5)"),
    (IDS[0], "ids must be (B, T) integers and not empty, got torch.int64 of shape (5,)"),
    (IDS[:0], "ids must be (B, T) integers and not empty, got torch.int64 of shape (0, 5)"),
    (IDS[:, :0], "ids must be (B, T) integers and not empty, got torch.int64 of shape (2, 0)"),
    (IDS.repeat(1, 3), "ids must end within T = 12 positions, got 15 from position 0"),
    (IDS * 11, "ids must lie in [0, V = 11), got 11 to 11"),
    (IDS * -1, "ids must lie in [0, V = 11), got -1 to -1"),
]


@pytest.mark.parametrize(("ids", "message"), BAD_IDS)
@pytest.mark.parametrize("config", [SMALL, replace(SMALL, positions="none")], ids=["", "without positions"])
def test_ids_that_do_not_fit_are_named_by_every_model(config, ids, message):
    transformer = Transformer(config)
    calls = [
        lambda: Encoder(config)(ids),
        lambda: Decoder(config)(ids),
        lambda: Decoder(config, True)(ids, MEMORY),
        lambda: transformer(ids, IDS),
        lambda: transformer(IDS, ids),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=re.escape(message)):
            call()


def test_a_cache_and_new_tokens_must_end_within_the_longest_sequence():
    model = Decoder(SMALL)
    cache = model.new_cache()
    model(IDS, cache=cache)
    model(IDS, cache=cache)
    with pytest.raises(ValueError, match="ids must end within T = 12 positions, got 5 from position 10"):
        model(IDS, cache=cache)
    assert model(IDS[:, :2], cache=cache).shape == (2, 2, 11)


OTHER = torch.ones(4, 4, dtype=torch.bool)
SEGMENTED = replace(SMALL, segments=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Encoder(SMALL)(IDS, OTHER), "mask must spread to (B = 2, T = 5, S = 5), got shape (4, 4)"),
        (
            lambda: Encoder(SMALL)(IDS, IDS),
            "mask must be bool, True where attending is allowed, got torch.int64",
        ),
        (lambda: Decoder(SMALL)(IDS, mask=OTHER), "mask must spread to (B = 2, T = 5, S = 5), got"),
        (lambda: Decoder(SMALL)(IDS, mask=IDS), "mask must be bool"),
        (
            lambda: Decoder(SMALL)(IDS, MEMORY),
            "memory must be None: cross is False, got one of shape (2, 3, 8)",
        ),
        (lambda: Decoder(SMALL, True)(IDS), "memory must be (B, S, C), got none"),
        (lambda: Decoder(SMALL, True)(IDS, MEMORY[:1]), "memory must have one row a row of x: 2, got 1"),
        (lambda: Decoder(SMALL, True)(IDS, MEMORY[..., :7]), "memory must be (B, T, C = 8)"),
        (
            lambda: Decoder(SMALL, True)(IDS, MEMORY, memory_mask=OTHER),
            "mask must spread to (B = 2, T = 5, S = 3), got shape (4, 4)",
        ),
        (lambda: Transformer(SMALL)(IDS, IDS[:, :3], OTHER), "mask must spread to (B = 2, T = 5, S = 5)"),
        (lambda: Transformer(SMALL)(IDS, IDS[:1]), "memory must have one row a row of x: 1, got 2"),
        (lambda: Encoder(SMALL)(IDS, segments=IDS), "segments must be None: the config has no segments"),
        (
            lambda: Encoder(SEGMENTED)(IDS, segments=IDS * 2),
            "segments must be of shape (2, 5) with values in [0, 2)",
        ),
        (lambda: Encoder(SEGMENTED)(IDS, segments=-IDS), "got shape (2, 5), -1 to -1"),
        (lambda: Encoder(SEGMENTED)(IDS, segments=IDS[:, :4]), "got shape (2, 4), 1 to 1"),
    ],
)
def test_what_a_model_cannot_take_is_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
