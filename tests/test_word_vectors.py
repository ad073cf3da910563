"""Word vectors against autograd, brute force, dense formulas and gensim."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from gensim.models import KeyedVectors
from gensim.test.utils import datapath
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from course_utils import runtime
from course_utils import word_vectors as wv

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}  # relative to the largest entry
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))
V = 6
IDS = st.lists(st.integers(0, V - 1), max_size=9)
CORPORA = st.lists(IDS, min_size=1, max_size=6)
WINDOWS = st.integers(1, 5) | st.integers(6, 15)  # up to past the end of every sentence
quick = settings(deadline=None)


def assert_close(found, expected, tolerance=1e-10):
    assert np.abs(np.asarray(found) - expected).max() <= tolerance * np.abs(expected).max()


# --- skip-gram ---------------------------------------------------------------------------------------------


@quick
@given(IDS, WINDOWS)
def test_pairs_are_all_pairs_of_places_near_each_other(ids, window):
    n = range(len(ids))
    expected = [(ids[i], ids[j]) for i in n for j in n if i != j and abs(i - j) <= window]
    assert wv.skip_gram_pairs(ids, window) == expected


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_that_reaches_nothing_is_refused(window):
    for call in (lambda: wv.skip_gram_pairs([1, 2], window), lambda: wv.cooccurrences([[1, 2]], V, window)):
        with pytest.raises(ValueError, match=f"window must be at least 1 word, got {window}"):
            call()


def sgns_case(seed, scale=1.0):
    random = np.random.default_rng(seed)
    C, K = random.integers(1, 20), random.integers(0, 12)
    return [scale * random.normal(size=shape) for shape in (C, C, (K, C))]


def by_autograd(v, u, negatives):
    """The definition, in torch: the loss and the three gradients."""
    leaves = [torch.tensor(x, requires_grad=True) for x in (v, u, negatives)]
    v, u, negatives = leaves
    loss = -torch.sigmoid(u @ v).log() - torch.sigmoid(-(negatives @ v)).log().sum()
    return loss.item(), [g.numpy() for g in torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize("seed", range(200))
def test_loss_and_gradients_of_a_pair_are_autograds(seed):
    case = sgns_case(seed)
    loss, gradients = by_autograd(*case)
    assert wv.sgns_loss(*case) == pytest.approx(loss, rel=1e-10)
    for found, expected in zip(wv.sgns_gradients(*case), gradients, strict=True):
        assert found.shape == expected.shape
        if expected.size:
            assert_close(found, expected)


def test_a_pair_far_out_on_the_sigmoid_keeps_its_digits():
    """log σ(−800) is −800, where a sigmoid taken first gives −∞."""
    v, u, negatives = np.array([1.0]), np.array([-800.0]), np.array([[800.0], [-800.0]])
    assert wv.sgns_loss(v, u, negatives) == pytest.approx(1600.0, rel=1e-12)
    with np.errstate(over="ignore"):  # e^800, on the way to σ = 0
        to_v, to_u, to_negatives = wv.sgns_gradients(v, u, negatives)
    assert (to_v.item(), to_u.item(), to_negatives.ravel().tolist()) == (1600.0, -1.0, [1.0, 0.0])


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_batch_is_the_mean_of_its_pairs_forward_and_backward(dtype, device):
    """Words that come twice, also as centre, context and negative at once, gather their gradients."""
    for seed in range(100):
        random = np.random.default_rng(seed)
        V, C, B, K = (int(n) for n in random.integers(1, 9, 4))
        model = wv.SkipGram(V, C, runtime.generator(seed)).to(device, dtype)
        model.output.data = torch.tensor(random.normal(size=(V, C)), dtype=dtype, device=device)
        centres, contexts, negatives = (random.integers(0, V, shape) for shape in (B, B, (B, K)))
        loss = model(*(torch.tensor(x, device=device) for x in (centres, contexts, negatives)))
        loss.backward()
        v, u = (x.detach().cpu().double().numpy() for x in (model.input, model.output))
        to_v, to_u, losses = np.zeros_like(v), np.zeros_like(u), []
        for i, o, k in zip(centres, contexts, negatives, strict=True):
            case = v[i], u[o], u[k]
            losses.append(wv.sgns_loss(*case))
            gradients = wv.sgns_gradients(*case)
            np.add.at(to_v, i, gradients[0] / B)
            np.add.at(to_u, o, gradients[1] / B)
            np.add.at(to_u, k, gradients[2] / B)
        assert loss.item() == pytest.approx(np.mean(losses), rel=TOLERANCE[dtype])
        assert_close(model.input.grad.cpu(), to_v, TOLERANCE[dtype])
        assert_close(model.output.grad.cpu(), to_u, TOLERANCE[dtype])


@pytest.mark.parametrize("K", [0, 1, 5])
def test_skip_gram_starts_at_a_coin_toss_a_word(K):
    """Output vectors of 0, input vectors within ½/C, the same from the same seed."""
    model = wv.SkipGram(50, 8, runtime.generator(0))
    loss = model(torch.arange(4), torch.arange(4), torch.zeros(4, K, dtype=torch.long))
    assert loss.item() == pytest.approx((1 + K) * np.log(2), rel=1e-6)
    assert 0.4 / 8 < model.input.abs().max() <= 0.5 / 8
    assert torch.equal(model.input, wv.SkipGram(50, 8, runtime.generator(0)).input)
    assert not torch.equal(model.input, wv.SkipGram(50, 8, runtime.generator(1)).input)


def test_the_pull_of_pairs_and_noise_is_even_at_shifted_pmi():
    """Levy & Goldberg 2014: with vectors that are free, training ends where u · v = PMI − log K."""
    n, K = np.array([[8.0, 4, 1], [4, 6, 3], [1, 3, 9]]), 5
    by_chance = n.sum(1, keepdims=True) * n.sum(0) / n.sum()
    for w, c in np.ndindex(n.shape):
        x = np.array([np.log(n[w, c] / by_chance[w, c]) - np.log(K)])
        _, to_u, to_negative = wv.sgns_gradients(np.ones(1), x, x[None])
        assert n[w, c] * to_u.item() == pytest.approx(-K * by_chance[w, c] * to_negative.item(), rel=1e-12)


@quick
@given(st.lists(st.integers(0, 10**6), min_size=1), st.floats(0.1, 2))
def test_noise_is_a_distribution_with_the_counts_ratios(counts, power):
    assume(any(counts))
    counts = np.array(counts)
    p = wv.noise_distribution(counts, power)
    assert p.sum() == pytest.approx(1)
    top = counts.argmax()
    np.testing.assert_allclose(p / p[top], (counts / counts[top]) ** power, rtol=1e-12)


def test_the_power_is_three_quarters_unless_told():
    assert wv.noise_distribution(np.array([16, 1, 0])).tolist() == [8 / 9, 1 / 9, 0]


@pytest.mark.parametrize("counts", [[], [0, 0], [3, -1], [1.0, np.nan]], ids=str)
def test_counts_that_make_no_probabilities_are_refused(counts):
    with pytest.raises(ValueError, match="counts must be 0 or more, and one of them positive"):
        wv.noise_distribution(np.array(counts))


# --- counting ----------------------------------------------------------------------------------------------


def by_brute_force(corpus, window):
    """What each window from 1 up to `window` counts, averaged: word2vec draws one of them for each word."""
    counts = np.zeros((V, V))
    for reach in range(1, window + 1):
        for ids in corpus:
            for centre, context in wv.skip_gram_pairs(ids, reach):
                counts[centre, context] += 1 / window
    return counts


@quick
@given(CORPORA, WINDOWS)
def test_counts_are_the_mean_over_word2vecs_shrinking_window(corpus, window):
    counts = wv.cooccurrences(corpus, V, window)
    assert isinstance(counts, sp.csr_matrix)
    assert counts.shape == (V, V)
    np.testing.assert_allclose(counts.toarray(), by_brute_force(corpus, window), rtol=0, atol=1e-10)
    assert (counts != counts.T).nnz == 0
    assert (counts.data > 0).all()


@quick
@given(CORPORA, WINDOWS)
def test_sentences_do_not_touch(corpus, window):
    apart = sum(wv.cooccurrences([ids], V, window).toarray() for ids in corpus)
    np.testing.assert_allclose(wv.cooccurrences(corpus, V, window).toarray(), apart, rtol=0, atol=1e-10)


def test_arrays_of_ids_count_as_lists_do():
    """Adding the gap to an array would shift its ids where their number is the window's."""
    counts = [wv.cooccurrences([form([0, 1, 5])], V, 3).toarray() for form in (list, np.array)]
    assert np.array_equal(*counts)


@pytest.mark.parametrize("corpus", [[[]], [[3]], [[], [0], [5]]], ids=str)
def test_words_alone_meet_nobody(corpus):
    assert wv.cooccurrences(corpus, V, 4).nnz == 0


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([], "sentences must hold at least one sentence"),
        ([[0, 6]], "sentences must hold ids from 0 to V − 1 = 5, got 6"),
        ([[0, 1], [2, -1, 0]], "sentences must hold ids from 0 to V − 1 = 5, got -1"),
    ],
)
def test_a_corpus_that_cannot_be_counted_is_refused(corpus, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        wv.cooccurrences(corpus, V, 2)


@quick
@given(CORPORA, WINDOWS, st.sampled_from([0.75, 1.0, 0.5]))
def test_ppmi_is_its_dense_formula(corpus, window, power):
    counts = wv.cooccurrences(corpus, V, window)
    assume(counts.nnz)
    n = counts.toarray()
    word, context = n.sum(1) / n.sum(), n.sum(0) ** power / (n.sum(0) ** power).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.maximum(0, np.log(n / n.sum() / np.outer(word, context)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = wv.ppmi(counts, power)
    np.testing.assert_allclose(found.toarray(), np.nan_to_num(expected), rtol=1e-10, atol=1e-12)
    assert (found.data > 0).all()  # sparse: no zero is stored


def test_ppmi_smooths_its_contexts_by_three_quarters():
    counts = wv.cooccurrences([[0, 1, 2, 0], [3, 4, 5, 0, 0]], V, 2)
    assert (wv.ppmi(counts) != wv.ppmi(counts, 0.75)).nnz == 0
    assert (wv.ppmi(counts) != wv.ppmi(counts, 1.0)).nnz > 0


def test_ppmi_of_nothing_is_refused():
    with pytest.raises(ValueError, match="counts must be 0 or more"):
        wv.ppmi(sp.csr_matrix((V, V)))


@pytest.mark.parametrize("C", [1, 3, 11])
@pytest.mark.parametrize("seed", range(5))
def test_svd_vectors_span_what_numpys_do(seed, C):
    """Singular vectors are free to flip (and equal ones to turn), so compare U √S (U √S)ᵀ.

    Of 11 rows the method's ten spare directions leave none out, so that it is exact.
    """
    dense = np.random.default_rng(seed).random((11, 11)) ** 3
    matrix = sp.csr_matrix((dense + dense.T) * (dense + dense.T > 0.4))
    U, s, _ = np.linalg.svd(matrix.toarray())
    found = wv.svd_vectors(matrix, C, seed)
    assert found.shape == (11, C)
    assert_close(found @ found.T, U[:, :C] * s[:C] @ U[:, :C].T)
    assert_close(np.linalg.norm(found, axis=0), np.sqrt(s[:C]))  # the largest first
    assert np.array_equal(found, wv.svd_vectors(matrix, C, seed))


def test_svd_vectors_of_a_larger_matrix_are_close_to_the_best():
    """It is a randomised method: the error of its C directions is within 1 % of the smallest there is."""
    matrix = sp.random(300, 300, 0.05, random_state=0, format="csr")
    found = wv.svd_vectors(matrix, 20, 0)
    directions = found / np.linalg.norm(found, axis=0)
    dense = matrix.toarray()
    s = np.linalg.svd(dense, compute_uv=False)
    left = np.linalg.norm(dense - directions @ (directions.T @ dense))
    assert np.linalg.norm(s[20:]) <= left <= 1.01 * np.linalg.norm(s[20:])


@pytest.mark.parametrize("C", [0, -1, V + 1])
def test_vectors_wider_than_the_matrix_are_refused(C):
    with pytest.raises(ValueError, match=f"C must be from 1 to {V}, the matrix's size, got {C}"):
        wv.svd_vectors(sp.identity(V, format="csr"), C)


# --- scores ------------------------------------------------------------------------------------------------


def read(test):
    return Path(datapath(test)).read_text("utf-8").splitlines()


@pytest.fixture(scope="module")
def embedding():
    """Every second word of the tests, and random vectors for them."""
    tests = [read(test) for test in ("wordsim353.tsv", "simlex999.txt", "questions-words.txt")]
    lines = [line.lower() for lines in tests for line in lines if line[0] not in "#:"]
    words = sorted({word for line in lines for word in re.findall("[a-z]+", line)})[::2]
    return words, np.random.default_rng(0).normal(size=(len(words), 10)).astype(np.float32)


@pytest.fixture(scope="module")
def keyed(embedding):
    vectors = KeyedVectors(10)
    vectors.add_vectors(*embedding)
    return vectors


@pytest.mark.parametrize("test", ["wordsim353.tsv", "simlex999.txt"])
def test_similarities_are_gensims(test, embedding, keyed):
    judged, cosine = wv.similarities(*embedding, test)
    _, rho, unknown = keyed.evaluate_word_pairs(datapath(test))
    total = len(judged) / (1 - unknown / 100)  # gensim tells the share it left out
    assert total == pytest.approx({"wordsim353.tsv": 353, "simlex999.txt": 999}[test])
    assert spearmanr(judged, cosine)[0] == pytest.approx(rho[0], abs=1e-4)  # float32: two cosines may swap
    lines = [line.lower().split("\t") for line in read(test) if line[0] != "#"]
    known = [(a, b, float(value)) for a, b, value in lines if a in keyed and b in keyed]
    assert judged.tolist() == [value for *_, value in known]
    np.testing.assert_allclose(cosine, [keyed.similarity(a, b) for a, b, _ in known], rtol=0, atol=1e-6)


def test_similarities_do_not_depend_on_the_vectors_length(embedding):
    words, vectors = embedding
    scaled = vectors.astype(float) * np.random.default_rng(1).uniform(0.1, 9, (len(words), 1))
    np.testing.assert_allclose(wv.similarities(words, scaled), wv.similarities(words, vectors), atol=1e-6)


def test_no_known_pair_is_no_column():
    assert wv.similarities(["qwerty"], np.ones((1, 3))).shape == (2, 0)


def test_score_is_gensims_own(embedding, keyed):
    row = wv.score(*embedding)
    files = {"wordsim": "wordsim353.tsv", "simlex": "simlex999.txt"}
    assert {k: row[k] for k in files} == {
        k: keyed.evaluate_word_pairs(datapath(file))[1][0] for k, file in files.items()
    }
    assert row["analogies"] == keyed.evaluate_word_analogies(datapath("questions-words.txt"))[0]
    assert set(wv.score(*embedding, analogies=0)) == set(files)


def test_analogies_are_answered_by_the_most_frequent_words_only():
    """Each country lies one step from its capital: all right, and none where only two words may answer."""
    questions = read("questions-words.txt")[1:507]  # athens greece baghdad iraq
    couples = sorted({tuple(line.lower().split()[:2]) for line in questions})
    words = [word for couple in couples for word in couple]
    vectors = np.random.default_rng(0).normal(size=(len(words), 200))
    vectors[1::2] = vectors[::2] + np.random.default_rng(1).normal(size=200)
    words += ["tiger", "cat", "love", "sex", "old", "new", "smart", "intelligent"]  # for the other tests
    vectors = np.vstack([vectors, np.random.default_rng(2).normal(size=(8, 200))])
    assert wv.score(words, vectors)["analogies"] > 0.95
    assert wv.score(words, vectors, analogies=2)["analogies"] == 0


def test_vectors_that_are_not_the_words_own_are_refused():
    for call in (wv.similarities, wv.score):
        with pytest.raises(ValueError, match="one row a word, got 3 rows and 2 words"):
            call(["a", "b"], np.ones((3, 4)))
        with pytest.raises(ValueError, match="words must differ"):
            call(["a", "b", "a"], np.ones((3, 4)))
    with pytest.raises(ValueError, match="No valid similarity judgements"):
        wv.score(["qwerty"], np.ones((1, 4)))
