"""Attention, of one head and of many, equals torch's; masks let nothing through; a row of nothing gives 0."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from course_utils.attention import (
    KVCache,
    MultiHeadAttention,
    attention,
    causal_mask,
    check_inputs,
    padding_mask,
)

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}  # relative to the largest entry
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))
DEVICES = pytest.mark.parametrize("device", ["cpu", CUDA])


@pytest.fixture(autouse=True)
def precise_and_quick():
    """No TF32, which keeps 10 bits of float32's 23; one thread, since two only wait for each other here."""
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(1)
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.set_num_threads(before[1])


class Case:
    """Random sizes from one word up, tensors, a mask with any share of open cells, an upstream gradient."""

    def __init__(self, seed, dtype, device):
        self.seed = seed
        self.random = random = torch.Generator().manual_seed(seed)
        B, nh, self.T, self.S, hs, out = torch.randint(1, 9, (6,), generator=random).tolist()
        shapes = [(B, nh, self.T, hs), (B, nh, self.S, hs), (B, nh, self.S, out), (B, nh, self.T, out)]
        drawn = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
        *self.qkv, self.upstream = (x.to(device, dtype) for x in drawn)
        share = torch.rand((), generator=random)
        mask_shape = [(B, nh, self.T, self.S), (B, 1, 1, self.S), (self.T, self.S)][seed % 3]
        self.mask = (torch.rand(mask_shape, generator=random) < share).to(device)

    def __repr__(self):
        return f"case of seed {self.seed}"

    def run(self, function, mask):
        """The output, and the gradients of q, k and v."""
        leaves = [x.clone().requires_grad_() for x in self.qkv]
        out = function(*leaves, mask)
        return [out.detach(), *torch.autograd.grad((out * self.upstream).sum(), leaves)]


def cases(dtype=torch.float64, device="cpu", count=300):
    return (Case(seed, dtype, device) for seed in range(count))


def ours(q, k, v, mask):
    return attention(q, k, v, mask)[0]


def theirs(q, k, v, mask):
    return scaled_dot_product_attention(q, k, v, attn_mask=mask)


def assert_close(found, expected, case, largest=None):
    largest = expected.abs().max() if largest is None else largest
    assert (found - expected).abs().max() <= TOLERANCE[expected.dtype] * largest, case


@DEVICES
@DTYPES
def test_equal_to_torch_forward_and_backward(dtype, device):
    """Against its plain implementation: gradients that must be 0 are exactly 0 in both."""
    for case in cases(dtype, device):
        future = causal_mask(max(case.T, case.S))[: case.T, : case.S].to(device)
        for mask in (case.mask, None if case.seed % 2 else future):
            with sdpa_kernel(SDPBackend.MATH):
                expected = case.run(theirs, mask)
            for a, b in zip(case.run(ours, mask), expected, strict=True):
                assert_close(a, b, case)


@DTYPES
def test_equal_to_the_kernel_torch_chooses(dtype):
    """That one rounds differently: where each query has one key, its gradients are 0 but for rounding."""
    for case in cases(dtype):
        for a, b in zip(case.run(ours, case.mask), case.run(theirs, case.mask), strict=True):
            assert_close(a, b, case, largest=None if a.any() else case.upstream.abs().max())


@DEVICES
@DTYPES
def test_a_row_that_may_look_at_nothing_gives_0_and_no_nan(dtype, device):
    for case in cases(dtype, device, 30):
        row = case.seed % case.T
        closed = torch.ones(case.T, case.S, dtype=torch.bool, device=device)
        closed[row] = False
        out, *gradients = case.run(ours, closed)
        nothing = out, gradients[0], attention(*case.qkv, closed)[1]
        assert not any(x[..., row, :].any() for x in nothing), case  # NaN would be true
        assert not any(x.isnan().any() for x in (out, *gradients)), case
        others = torch.arange(case.T, device=device) != row
        assert torch.equal(out[..., others, :], case.run(ours, None)[0][..., others, :]), case


@DEVICES
@DTYPES
def test_all_rows_closed_give_0_everywhere(dtype, device):
    for case in cases(dtype, device, 30):
        closed = torch.zeros(case.T, case.S, dtype=torch.bool, device=device)
        assert not any(x.any() for x in case.run(ours, closed)), case


def test_weights_are_a_distribution_over_the_open_cells():
    for case in cases():
        out, weights = attention(*case.qkv, case.mask)
        allowed = case.mask.expand(weights.shape)
        assert (weights >= 0).all(), case
        assert not weights[~allowed].any(), case
        assert (weights.sum(-1) - allowed.any(-1).double()).abs().max() < 1e-12, case
        assert torch.equal(out, weights @ case.qkv[2]), case


def test_no_word_hears_of_the_future():
    """All keys and values from word t on changed: not a bit moves before it, every row from it on does."""
    for case in cases(count=60):
        q, T = case.qkv[0], case.T
        k, v = (torch.randn(q.shape, generator=case.random, dtype=q.dtype) for _ in "kv")
        before = attention(q, k, v, causal_mask(T))[0]
        for t in range(T):
            later = (torch.arange(T) >= t)[:, None] * 10.0  # (T, 1)
            after = attention(q, k + later, v + later, causal_mask(T))[0]
            assert torch.equal(before[..., :t, :], after[..., :t, :]), case
            assert (before[..., t:, :] != after[..., t:, :]).any(-1).all(), case


def test_padding_is_as_if_it_were_not_there():
    """Garbage in it moves nothing, no gradient reaches it, and a short sequence equals itself alone."""
    for case in cases():
        q, k, v = (x[:, 0] for x in case.qkv)  # (B, T or S, hs)
        lengths = torch.randint(1, case.S + 1, (len(q),), generator=case.random)
        mask = padding_mask(lengths, case.S)
        pad = ~mask.transpose(1, 2)  # (B, S, 1)
        k, v = (x.masked_fill(pad, 1e6).requires_grad_() for x in (k, v))
        together = attention(q, k, v, mask)[0]
        other = attention(q, k.masked_fill(pad, -7.0), v.masked_fill(pad, 3.0), mask)[0]
        assert torch.equal(together, other), case
        for gradient in torch.autograd.grad(together.sum(), (k, v)):
            assert not gradient[pad.expand(gradient.shape)].any(), case
        for i, n in enumerate(lengths.tolist()):
            assert_close(together[i], attention(q[i], k[i, :n], v[i, :n])[0], case)


def test_shuffled_keys_change_nothing_and_shuffled_queries_shuffle_the_rows():
    for case in cases():
        q, k, v = case.qkv
        mask = case.mask.expand(*q.shape[:-2], case.T, case.S)
        keys, queries = (torch.randperm(n, generator=case.random) for n in (case.S, case.T))
        out = attention(q, k, v, mask)[0]
        by_key = attention(q, k[..., keys, :], v[..., keys, :], mask[..., keys])[0]
        by_query = attention(q[..., queries, :], k, v, mask[..., queries, :])[0]
        assert_close(by_key, out, case)
        assert_close(by_query, out[..., queries, :], case)


@pytest.mark.parametrize("T", [0, 1, 2, 7])
def test_causal_mask_by_its_definition(T):
    mask = causal_mask(T)
    assert mask.shape == (T, T)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[s <= t for s in range(T)] for t in range(T)]


@DEVICES
def test_padding_mask_by_its_definition(device):
    lengths = [3, 0, 5, 1]
    mask = padding_mask(torch.tensor(lengths, device=device), 5)
    assert mask.shape == (4, 1, 5)
    assert mask.dtype == torch.bool
    assert mask.device.type == device
    assert mask[:, 0].tolist() == [[s < n for s in range(5)] for n in lengths]


def test_padding_mask_lies_where_the_lengths_do():
    """On the device without memory, which every machine has."""
    assert padding_mask(torch.tensor([3, 1], device="meta"), 4).device.type == "meta"


@DTYPES
@pytest.mark.parametrize("size", [-1e30, -1e3, 1e3, 1e30])
def test_scores_of_any_size_meet_a_mask(dtype, size):
    """Equal scores, however low: equal weights on the open cells, none on the closed ones."""
    q, k = torch.full((5, 1), size, dtype=dtype), torch.ones(5, 1, dtype=dtype)
    weights = attention(q, k, k, causal_mask(5))[1]
    expected = torch.ones(5, 5, dtype=dtype).tril() / torch.arange(1, 6)[:, None]
    assert (weights - expected).abs().max() <= TOLERANCE[dtype]


def test_nothing_to_look_at_and_nobody_to_look():
    """No key at all: an output of 0. No query: no row."""
    assert not attention(torch.ones(2, 3), torch.ones(0, 3), torch.ones(0, 4))[0].any()
    assert attention(torch.ones(0, 3), torch.ones(2, 3), torch.ones(2, 4))[0].shape == (0, 4)


Q, K, V = (2, 5, 3), (2, 4, 3), (2, 4, 6)  # (B, T, hs), (B, S, hs), (B, S, hs')


@pytest.mark.parametrize(
    ("shapes", "mask", "message"),
    [
        (((2, 5, 2), K, V), None, "q and k must have vectors of one length, got 2 and 3"),
        ((Q, K, (2, 3, 6)), None, "k and v must have one row a word each, got 4 and 3 rows"),
        (((3, 5, 3), K, V), None, "must be equal or 1, got shapes (3, 5, 3), (2, 4, 3), (2, 4, 6)"),
        ((Q, K, (3, 4, 6)), None, "batch axes of q, k and v must be equal or 1"),
        ((Q, K, V), torch.ones(5, 4), "True where attending is allowed, got torch.float32"),
        ((Q, K, V), torch.ones(5, 4, dtype=torch.long), "mask must be bool"),
        ((Q, K, V), causal_mask(5), "mask must spread to (..., T = 5, S = 4), got shape (5, 5)"),
        ((Q, K, V), causal_mask(4), "mask must spread to (..., T = 5, S = 4), got shape (4, 4)"),
        ((Q, K, V), torch.ones(3, 5, 4, dtype=torch.bool), "got shape (3, 5, 4)"),
        (((2, 1, 3), K, V), causal_mask(4), "mask must spread to (..., T = 1, S = 4), got shape (4, 4)"),
    ],
)
def test_what_does_not_fit_is_named(shapes, mask, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        attention(*map(torch.ones, shapes), mask)


@pytest.mark.parametrize("mask_shape", [(4,), (1, 4), (5, 1), (5, 4), (1, 5, 4), (2, 1, 4), (3, 2, 5, 4), ()])
def test_every_mask_that_spreads_is_taken(mask_shape):
    """One with more batch axes than q and k too: the same tensors under several masks."""
    tensors = [torch.ones(shape) for shape in (Q, K, V)]
    mask = torch.ones(mask_shape, dtype=torch.bool)
    check_inputs(*tensors, mask)
    out, weights = attention(*tensors, mask)
    assert weights.shape[-3:] == (2, 5, 4)
    assert torch.equal(out, attention(*tensors)[0].expand(out.shape))


# ---------------------------------------------------------------------------------------- many heads


def draw_weights(module, random):
    """Random numbers everywhere: gains near 1, biases off 0, so that none can be forgotten unseen."""
    with torch.no_grad():
        for p in module.parameters():
            noise = torch.randn(p.shape, generator=random, dtype=torch.float64)
            p.copy_(noise * (p.shape[-1] ** -0.5 if p.dim() > 1 else 0.3))
        for norm in (part for part in module.modules() if isinstance(part, nn.LayerNorm)):
            norm.weight += 1.0


def named_as_torchs(tensors, name):
    """Of torch's tensors, or gradients, the one that corresponds to our name."""
    renamed = re.sub(r"\bout\.", "out_proj.", name)
    if part := re.search(r"(query|key|value)\.", name):
        whole = tensors[renamed.replace(part[0], "in_proj_")]  # the three projections in one
        return whole.chunk(3)[("query", "key", "value").index(part[1])]
    return tensors[renamed]


def copy_weights(ours, theirs, lookup):
    """Theirs into ours, all of them."""
    with torch.no_grad():
        for name, p in ours.named_parameters():
            p.copy_(lookup(dict(theirs.named_parameters()), name))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def backward(out, upstream, module, inputs=()):
    """The gradients of the inputs, and of the parameters by name."""
    parameters = dict(module.named_parameters())
    found = torch.autograd.grad((out * upstream).sum(), [*inputs, *parameters.values()])
    return found[: len(inputs)], dict(zip(parameters, found[len(inputs) :], strict=True))


def assert_gradients(found, expected, lookup, case):
    """Relative to the largest entry of the library's tensor: query, key and value are one there.

    By itself the gradient of a key's bias is 0 but for rounding, since softmax ignores what all scores share.
    """
    for name, gradient in found.items():
        parts = {re.sub(r"(query|key|value)\.", f"{part}.", name) for part in ("query", "key", "value")}
        largest = max(lookup(expected, part).abs().max() for part in parts)
        assert_close(gradient, lookup(expected, name), (case, name), largest)


class Heads:
    """Our module and torch's with the same weights, inputs of random sizes, an upstream gradient."""

    def __init__(self, seed, dtype=torch.float64, device="cpu", cross=False):
        self.seed, self.random = seed, torch.Generator().manual_seed(seed)
        self.B, self.T, self.S, self.nh, hs = torch.randint(1, 7, (5,), generator=self.random).tolist()
        self.C, self.bias, self.device = self.nh * hs, bool(seed % 2), device
        self.S = self.S if cross else self.T
        self.ours = MultiHeadAttention(self.C, self.nh, self.bias).to(device, dtype)
        self.theirs = nn.MultiheadAttention(self.C, self.nh, bias=self.bias, batch_first=True)
        self.theirs.to(device, dtype)
        draw_weights(self.theirs, self.random)
        copy_weights(self.ours, self.theirs, named_as_torchs)
        rows = (self.T, self.S) if cross else (self.T,)
        self.inputs = [self.normal(n).to(device, dtype).requires_grad_() for n in rows]
        self.upstream = self.normal(self.T).to(device, dtype)

    def __repr__(self):
        return f"heads of seed {self.seed}"

    def normal(self, rows):
        return torch.randn(self.B, rows, self.C, generator=self.random, dtype=torch.float64)

    def padding(self):
        """(B, 1, S), one word at least."""
        lengths = torch.randint(1, self.S + 1, (self.B,), generator=self.random)
        return padding_mask(lengths.to(self.device), self.S)

    def some(self):
        """(B, T, S), any share of open cells, whole rows closed among them."""
        share = torch.rand((), generator=self.random)
        return (torch.rand(self.B, self.T, self.S, generator=self.random) < share).to(self.device)

    def run(self, keep, **options):
        """Our outputs, weights or None, and gradients: of the inputs, of the parameters."""
        self.ours.keep_weights, self.ours.weights = keep, None
        out = self.ours(*self.inputs, **options)
        return out.detach(), self.ours.weights, *backward(out, self.upstream, self.ours, self.inputs)

    def expect(self, pad=None, mask=None, closed=None):
        """Torch's; rows where `closed` (B, T, 1) is true listened to nothing, and only the bias comes out."""
        x, memory = self.inputs[0], self.inputs[-1]
        out, weights = self.theirs(
            x,
            memory,
            memory,
            key_padding_mask=None if pad is None else ~pad[:, 0],
            attn_mask=None if mask is None else ~mask,
            average_attn_weights=False,
        )
        if closed is not None:
            bias = self.theirs.out_proj.bias if self.bias else torch.zeros_like(out[0, 0])
            out, weights = torch.where(closed, bias, out), weights.masked_fill(closed[:, None], 0.0)
        return out.detach(), weights, *backward(out, self.upstream, self.theirs, self.inputs)

    def compare(self, found, expected):
        assert_close(found[0], expected[0], self)
        if found[1] is not None:
            assert_close(found[1], expected[1], self, largest=1.0)
        inputs = (torch.cat([x.flatten() for x in gradients]) for gradients in (found[2], expected[2]))
        assert_close(*inputs, self)
        assert_gradients(found[3], expected[3], named_as_torchs, self)


def heads(dtype=torch.float64, device="cpu", cross=False, count=25):
    return (Heads(seed, dtype, device, cross) for seed in range(count))


KEEP = pytest.mark.parametrize("keep", [True, False], ids=["plain", "fused"])


@DEVICES
@DTYPES
@KEEP
@pytest.mark.parametrize("kind", ["self", "padded", "causal", "causal padded", "cross", "cross padded"])
def test_many_heads_equal_torchs_forward_and_backward(kind, keep, dtype, device):
    for case in heads(dtype, device, "cross" in kind):
        pad = case.padding() if "padded" in kind else None
        causal = causal_mask(case.T).to(device) if "causal" in kind else None
        found = case.run(keep, mask=pad, causal=causal is not None)
        assert (found[1] is not None) == keep, case
        case.compare(found, case.expect(pad, causal))


@DEVICES
@DTYPES
@KEEP
@pytest.mark.parametrize("cross", [False, True], ids=["self", "cross"])
def test_many_heads_under_any_mask_even_one_that_closes_whole_rows(cross, keep, dtype, device):
    """Torch's module gives NaN there; so closed rows are opened for it, and their outputs replaced."""
    any_closed = 0
    for case in heads(dtype, device, cross):
        mask = case.some()
        causal = not cross and case.seed % 3 == 0
        allowed = mask & causal_mask(case.T).to(device) if causal else mask
        closed = ~allowed.any(-1, keepdim=True)
        any_closed += int(closed.sum())
        found = case.run(keep, mask=mask, causal=causal)
        case.compare(found, case.expect(mask=(allowed | closed).repeat_interleave(case.nh, 0), closed=closed))
    assert any_closed > 50


@DEVICES
@KEEP
def test_nothing_open_at_all_gives_the_bias_and_no_nan(keep, device):
    for case in heads(device=device, cross=True, count=15):
        out, _, inputs, parameters = case.run(
            keep, mask=torch.zeros(1, 1, case.S, dtype=torch.bool, device=device)
        )
        bias = case.ours.out.bias if case.bias else torch.zeros_like(out)
        assert torch.equal(out, bias.expand(out.shape)), case
        for name, gradient in parameters.items():
            assert name == "out.bias" or not gradient.any(), (case, name)  # NaN would be true
        assert not any(gradient.any() for gradient in inputs), case


def test_one_reshape_is_a_loop_over_heads():
    """Head i sees columns i · hs to (i + 1) · hs of the three projections."""
    for case in heads():
        x, ours, hs = case.inputs[0], case.ours, case.C // case.nh
        slices = [slice(i * hs, (i + 1) * hs) for i in range(case.nh)]
        each = [attention(*(part(x)[..., s] for part in (ours.query, ours.key, ours.value))) for s in slices]
        out, weights, *_ = case.run(keep=True)
        assert_close(out, ours.out(torch.cat([y for y, _ in each], dim=-1)), case)
        assert_close(weights, torch.stack([w for _, w in each], dim=1), case)


def chunks(case, size):
    """The input in chunks of `size` rows, or of random sizes where it is 0, with where each ends."""
    end, x = 0, case.inputs[0]
    while end < case.T:
        step = size or int(torch.randint(1, case.T - end + 1, (), generator=case.random))
        start, end = end, min(case.T, end + step)
        yield x[:, start:end], end


@DTYPES
@KEEP
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("size", [1, 2, 0], ids=["one by one", "in twos", "in any chunks"])
def test_with_a_cache_it_is_the_whole_pass_forward_and_backward(size, padded, keep, dtype):
    for case in heads(dtype):
        mask = case.some() if padded else None
        whole = case.run(keep, causal=True, mask=mask)
        cache, outs, start = KVCache(), [], 0
        for x, end in chunks(case, size):
            rows = None if mask is None else mask[:, start:end, :end]
            outs.append(case.ours(x, causal=True, cache=cache, mask=rows))
            assert len(cache) == end, case
            start = end
        out = torch.cat(outs, dim=1)
        inputs, parameters = backward(out, case.upstream, case.ours, case.inputs)
        assert_close(out, whole[0], case)
        assert_close(inputs[0], whole[2][0], case)
        assert_gradients(parameters, whole[3], lambda tensors, name: tensors[name], case)


@KEEP
def test_a_memory_is_projected_once(keep):
    """From the second call on only the cache is asked: a spoilt memory changes nothing."""
    for case in heads(cross=True):
        x, memory = case.inputs
        case.ours.keep_weights, cache = keep, KVCache()
        whole = case.ours(x, memory)
        for t in range(case.T):
            out = case.ours(x[:, t : t + 1], memory if t == 0 else memory * torch.nan, cache=cache)
            assert len(cache) == case.S, case
            assert_close(out, whole[:, t : t + 1], case)


def test_selected_rows_of_a_cache_are_those_of_the_batch():
    for case in heads():
        cache, x = KVCache(), case.inputs[0]
        rows = torch.randint(case.B, (4,), generator=case.random)  # repeated, left out, in any order
        cache.select(rows)
        assert len(cache) == 0, case
        case.ours(x, causal=True, cache=cache)
        cache.select(rows)
        new = torch.randn(4, 1, case.C, generator=case.random, dtype=x.dtype)
        found = case.ours(new, causal=True, cache=cache)
        whole = case.ours(torch.cat([x[rows], new], dim=1), causal=True)
        assert_close(found, whole[:, -1:], case)


@KEEP
def test_one_changed_word_moves_no_bit_before_it(keep):
    """In one pass, and in a chunk that follows a cache."""
    for case in heads(count=30):
        case.ours.keep_weights, x = keep, case.inputs[0].detach()
        for t in range(case.T):
            other = x.clone()
            other[:, t] += 1.0
            for begin in range(min(t + 1, 3)):
                caches = KVCache(), KVCache()
                outs = []
                for cache, words in zip(caches, (x, other), strict=True):
                    if begin:
                        case.ours(words[:, :begin], causal=True, cache=cache)
                    outs.append(case.ours(words[:, begin:], causal=True, cache=cache))
                a, b = outs
                assert torch.equal(a[:, : t - begin], b[:, : t - begin]), case
                assert (a[:, t - begin :] != b[:, t - begin :]).any(-1).all(), case


def test_weights_are_kept_only_when_asked_for():
    module, x = MultiHeadAttention(4, 2), torch.ones(1, 3, 4)
    module(x)
    assert module.weights is None
    module.keep_weights = True
    module(x)
    assert module.weights.shape == (1, 2, 3, 3)


def filled(B=2, S=3, nh=2, hs=2):
    cache = KVCache()
    cache.append(torch.ones(B, nh, S, hs), torch.ones(B, nh, S, hs))
    return cache


X = torch.ones(2, 5, 4)  # (B, T, C)


@KEEP
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.ones(2, 5, 3)}, "x must be (B, T, C = 4) and not empty, got shape (2, 5, 3)"),
        ({"x": torch.ones(5, 4)}, "x must be (B, T, C = 4) and not empty, got shape (5, 4)"),
        ({"x": torch.ones(0, 5, 4)}, "x must be (B, T, C = 4) and not empty, got shape (0, 5, 4)"),
        ({"x": torch.ones(2, 0, 4)}, "x must be (B, T, C = 4) and not empty, got shape (2, 0, 4)"),
        ({"memory": torch.ones(2, 3, 6)}, "memory must be (B, T, C = 4) and not empty, got shape (2, 3, 6)"),
        ({"memory": torch.ones(2, 0, 4)}, "memory must be (B, T, C = 4) and not empty, got shape (2, 0, 4)"),
        ({"memory": torch.ones(3, 3, 4)}, "memory must have one row a row of x: 2, got 3"),
        ({"memory": torch.ones(1, 3, 4)}, "memory must have one row a row of x: 2, got 1"),
        ({"cache": filled(B=3)}, "cache must have one row a row of x: 2, got 3"),
        ({"memory": X, "cache": filled(B=1)}, "cache must have one row a row of x: 2, got 1"),
        ({"mask": torch.ones(5, 5)}, "mask must be bool, True where attending is allowed, got torch.float32"),
        ({"mask": torch.ones(5, 5), "causal": True}, "mask must be bool"),
        ({"mask": torch.ones(5, 5, dtype=torch.long), "causal": True}, "mask must be bool"),
        ({"mask": causal_mask(4)}, "mask must spread to (B = 2, T = 5, S = 5), got shape (4, 4)"),
        ({"mask": causal_mask(4), "causal": True}, "mask must spread to (B = 2, T = 5, S = 5), got"),
        ({"mask": causal_mask(5)[None, None]}, "(B = 2, T = 5, S = 5), got shape (1, 1, 5, 5)"),
        ({"mask": causal_mask(5).expand(3, 5, 5)}, "(B = 2, T = 5, S = 5), got shape (3, 5, 5)"),
        ({"mask": causal_mask(5), "cache": filled(S=2)}, "(B = 2, T = 5, S = 7), got shape (5, 5)"),
        ({"memory": torch.ones(2, 1, 4), "causal": True}, "causal needs x to be the last T of S positions"),
    ],
)
def test_what_many_heads_cannot_take_is_named(arguments, message, keep):
    module = MultiHeadAttention(4, 2)
    module.keep_weights = keep
    with pytest.raises(ValueError, match=re.escape(message)):
        module(**{"x": X} | copy.deepcopy(arguments))  # a refused cache may have grown


@pytest.mark.parametrize("nh", [0, -2, 3, 5, 8])
def test_a_width_that_does_not_split_is_named(nh):
    with pytest.raises(ValueError, match=f"nh must divide the width C: C = 4 does not split into nh = {nh}"):
        MultiHeadAttention(4, nh)


@KEEP
@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (5, 1), (5, 3), (1, 5, 3), (2, 1, 3), (2, 5, 1)])
def test_every_mask_that_spreads_is_as_if_written_out(shape, keep):
    module, random = MultiHeadAttention(4, 2), torch.Generator().manual_seed(1)
    draw_weights(module, random)
    module.keep_weights = keep
    x, memory = torch.randn(2, 5, 4, generator=random), torch.randn(2, 3, 4, generator=random)
    for _ in range(10):
        mask = torch.rand(shape, generator=random) < 0.6
        written = module(x, memory, mask=mask.expand(2, 5, 3).contiguous())
        assert_close(module(x, memory, mask=mask), written, mask)
