"""RMSNorm, rotary positions, SwiGLU and grouped queries: equal to Llama's, and at home in the decoder."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

from course_utils.attention import MultiHeadAttention
from course_utils.gpt2 import SHAPE
from course_utils.modern import PARTS, GroupedQueryAttention, RMSNorm, SwiGLU, modernise, rotate
from course_utils.runtime import generator
from course_utils.training import next_token_loss
from course_utils.transformer import Config, Decoder, recorded

quick = settings(deadline=None, max_examples=25)
CONFIG = Config(V=40, T=24, C=16, nh=4, layers=2, dropout=0.0, **SHAPE)


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def same(ours, theirs):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


def pull(module, x, *more, **named):
    """The output, and the gradients of its sum of squares by the input and each weight, by name."""
    x = x.clone().requires_grad_()
    out = module(x, *more, **named)
    out = out[0] if isinstance(out, tuple) else out
    out.square().sum().backward()
    return out.detach(), x.grad, {name: p.grad for name, p in module.named_parameters()}


def llama(C=16, nh=4, groups=2, hidden=24, bias=False):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=C,
        num_attention_heads=nh,
        num_key_value_heads=groups,
        intermediate_size=hidden,
        attention_bias=bias,
    )
    config._attn_implementation = "eager"
    return config


# --- RMSNorm ------------------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 5), st.integers(1, 33), st.sampled_from([1e-5, 1e-2]), st.integers(0, 2**31))
def test_rmsnorm_is_torchs_and_llamas(T, C, eps, seed):
    ours, theirs, hers = RMSNorm(C, eps), nn.RMSNorm(C, eps), LlamaRMSNorm(C, eps)
    with torch.no_grad():
        for gain in (ours.gain, theirs.weight, hers.weight):
            gain.copy_(torch.randn(C, generator=generator(seed)))
    x = 3 * torch.randn(2, T, C, generator=generator(seed + 1)) + 1
    found, expected = pull(ours, x), pull(theirs, x)
    same(found[0], expected[0])
    same(found[1], expected[1])
    same(found[2]["gain"], expected[2]["weight"])
    assert (found[0] - hers(x)).abs().max() <= 1e-5 * found[0].abs().max()  # Llama's goes through float32


# --- rotary positions ---------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 9), st.integers(1, 8), st.integers(0, 90), st.integers(0, 2**31))
def test_rotate_is_llamas(T, half, start, seed):
    config = llama(C=2 * half * 2, nh=2, groups=2)
    x = torch.randn(2, 2, T, 2 * half, generator=generator(seed))
    cos, sin = LlamaRotaryEmbedding(config)(x, torch.arange(start, start + T)[None])
    theirs, _ = apply_rotary_pos_emb(x, x, cos, sin)
    assert (rotate(x, start) - theirs).abs().max() <= 1e-5 * x.abs().max()  # both take angles in float32


@quick
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 400), st.integers(0, 2**31))
def test_products_depend_on_the_distance_alone(i, j, shift, seed):
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator(seed))
    here = rotate(q, i) @ rotate(k, j).mT
    there = rotate(q, i + shift) @ rotate(k, j + shift).mT
    assert (here - there).abs() < 1e-3 * q.norm() * k.norm()  # float32 angles up to 460
    torch.testing.assert_close(rotate(q, i).norm(), q.norm())


def test_turning_starts_at_0_and_goes_with_the_position():
    x = torch.randn(1, 1, 5, 6, generator=generator(0))
    torch.testing.assert_close(rotate(x)[..., 0, :], x[..., 0, :])
    torch.testing.assert_close(rotate(x)[..., 3:, :], rotate(x[..., 3:, :], start=3))
    turned = rotate(torch.tensor([[[[1.0, 0.0]]]]), start=2)  # one pair, angle 2
    assert turned.flatten().tolist() == pytest.approx([math.cos(2), math.sin(2)], abs=1e-6)


def test_odd_heads_are_refused():
    with pytest.raises(ValueError, match=r"^x must have an even head size to be turned in pairs, got 5"):
        rotate(torch.zeros(1, 1, 2, 5))


# --- SwiGLU -------------------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 12), st.integers(1, 20), st.integers(0, 2**31))
def test_swiglu_is_llamas(half, hidden, seed):
    C = 2 * half
    ours, theirs = SwiGLU(C, hidden), LlamaMLP(llama(C, 1, 1, hidden))
    names = {"gate": "gate_proj", "inner": "up_proj", "outer": "down_proj"}
    with torch.no_grad():
        for mine, hers in names.items():
            getattr(theirs, hers).weight.copy_(getattr(ours, mine).weight)
    x = torch.randn(2, 3, C, generator=generator(seed))
    found, expected = pull(ours, x), pull(theirs, x)
    same(found[0], expected[0])
    same(found[1], expected[1])
    for mine, hers in names.items():
        same(found[2][f"{mine}.weight"], expected[2][f"{hers}.weight"])


# --- grouped queries ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_grouped_queries_with_rotary_positions_are_llamas(groups, bias):
    config = llama(groups=groups, bias=bias)
    theirs = LlamaAttention(config, 0)
    ours = GroupedQueryAttention(16, 4, groups, rotary=True, bias=bias)
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
    for mine, hers in names.items():
        getattr(ours, mine).load_state_dict(getattr(theirs, hers).state_dict())
    x = torch.randn(2, 7, 16, generator=generator(1))
    angles = LlamaRotaryEmbedding(config)(x, torch.arange(7)[None])
    ahead = torch.full((7, 7), -torch.inf).triu(1)[None, None]
    found = pull(ours, x, causal=True)
    expected = pull(theirs, x, position_embeddings=angles, attention_mask=ahead)
    for a, b in zip(found[:2], expected[:2], strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()  # angles in float32
    for mine, hers in names.items():
        gap = found[2][f"{mine}.weight"] - expected[2][f"{hers}.weight"]
        assert gap.abs().max() <= 1e-5 * expected[2][f"{hers}.weight"].abs().max()
    ours.keep_weights = True
    assert (ours(x, causal=True) - found[0]).abs().max() <= 1e-12
    weights = theirs(x, position_embeddings=angles, attention_mask=ahead)[1]  # (B, nh, T, T)
    assert (ours.weights - weights).abs().max() <= 1e-6


def test_one_group_a_head_is_multi_head_attention():
    ours, plain = GroupedQueryAttention(16, 4, 4), MultiHeadAttention(16, 4)
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(3, 6, 16, generator=generator(0))
    keep = torch.rand(3, 1, 6, generator=generator(1)) < 0.7
    keep[..., 0] = True
    for options in ({}, {"causal": True}, {"mask": keep}, {"mask": keep, "causal": True}):
        same(ours(x, **options), plain(x, **options))
        ours.keep_weights = plain.keep_weights = True
        same(ours(x, **options), plain(x, **options))
        same(ours.weights, plain.weights)
        ours.keep_weights = plain.keep_weights = False


@pytest.mark.parametrize(("nh", "groups"), [(4, 3), (4, 0), (4, 8)])
def test_groups_must_divide_the_heads(nh, groups):
    with pytest.raises(ValueError, match=rf"^groups must divide the heads: nh = {nh} .* groups = {groups}"):
        GroupedQueryAttention(16, nh, groups)
    with pytest.raises(ValueError, match=r"^nh must divide the width"):
        GroupedQueryAttention(15, 4, 2)


# --- in the decoder -----------------------------------------------------------------------------------------

CHOICES = [(), *[(part,) for part in PARTS], PARTS]


@pytest.mark.parametrize("parts", CHOICES)
def test_each_choice_learns_sees_no_future_and_writes_with_its_cache(parts):
    model = modernise(CONFIG, parts, seed=1).eval()
    ids = torch.randint(40, (2, 13), generator=generator(0))
    next_token_loss(model, ids).backward()
    learning = {name: p.grad for name, p in model.named_parameters() if not name.endswith("key.bias")}
    assert all(g is not None and g.abs().max() > 1e-9 for g in learning.values())  # which moves no weight
    with torch.no_grad():
        whole, changed = model(ids), ids.clone()
        changed[:, 8:] = (changed[:, 8:] + 1) % 40
        same(model(changed)[:, :8], whole[:, :8])
        assert not torch.equal(model(changed)[:, 8:], whole[:, 8:])
        cache = model.new_cache()
        steps = [model(ids[:, :5], cache=cache)] + [
            model(ids[:, t : t + 1], cache=cache) for t in range(5, 13)
        ]
    weights = recorded(model, ids)
    assert weights.shape == (2, 2, 4, 13, 13)
    same(weights.sum(dim=-1), torch.ones(2, 2, 4, 13))
    assert weights.triu(1).abs().max() == 0
    # one by one and at once, angles are the same numbers of float32
    assert (torch.cat(steps, dim=1) - whole).abs().max() <= 1e-6 * whole.abs().max()


def test_no_part_is_gpt2s_decoder_and_each_part_is_where_it_belongs():
    plain, decoder = modernise(CONFIG, (), seed=3), Decoder(CONFIG, seed=3)
    for (name, ours), (other, theirs) in zip(
        plain.named_parameters(), decoder.named_parameters(), strict=True
    ):
        assert name == other
        assert torch.equal(ours, theirs)
    kinds = {part: {type(m).__name__ for m in modernise(CONFIG, (part,)).modules()} for part in PARTS}
    assert "LayerNorm" not in kinds["RMSNorm"]
    assert "FeedForward" not in kinds["SwiGLU"]
    assert "MultiHeadAttention" not in kinds["rotary positions"] | kinds["grouped queries"]
    assert modernise(CONFIG, ("rotary positions",)).embedding.positions is None
    keys = modernise(CONFIG, ("grouped queries",), groups=1).stack.layers[0].self_attention.key
    assert keys.out_features == CONFIG.C // CONFIG.nh


def test_rotary_positions_have_no_table_that_ends_but_embedding_checks_its_length():
    """What is out of the table's range is refused by the embedding: T is a promise, not a table, here."""
    model = modernise(CONFIG, ("rotary positions",))
    with pytest.raises(ValueError, match="ids must end within T = 24"):
        model(torch.zeros(1, 25, dtype=torch.long))


def test_unknown_parts_are_named():
    with pytest.raises(ValueError, match=r"^parts must be of RMSNorm, .*, got GELU, ReLU$"):
        modernise(CONFIG, ("SwiGLU", "ReLU", "GELU"))
