"""Attention equals torch's, forward and backward; masks let nothing through; a row of nothing gives 0."""

import re

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from course_utils.attention import attention, causal_mask, check_inputs, padding_mask

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
