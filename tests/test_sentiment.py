"""Good review or bad: words, batches, classifier, scores, what a word weighs: each against its definition."""

import math
import random
import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from course_utils import corpora, data, sentiment, text
from course_utils.lstm import as_torch
from course_utils.runtime import device, generator
from course_utils.sentiment import (
    PAD,
    POOLS,
    UNKNOWN,
    Batch,
    Classifier,
    Reviews,
    baseline,
    check_labels,
    check_probabilities,
    check_texts,
    classification_loss,
    encode,
    glove_vectors,
    graded,
    gradient_times_input,
    occlusion,
    probabilities,
    random_vectors,
    review_batch,
    scores,
    word_ids,
    words,
)
from course_utils.training import Options, train

TOLERANCE = 1e-10  # float64, relative to numbers of size 1
V, D, C = 40, 6, 5
KINDS = pytest.mark.parametrize("pool", POOLS), pytest.mark.parametrize("both", [False, True])


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def every_kind(test):
    for mark in KINDS:
        test = mark(test)
    return test


def close(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= TOLERANCE * max(1.0, float(expected.abs().max()))


def classifier(pool="max", both=True, seed=0, vectors=None, **options):
    """A small float64 model; its dropout shows where it should not."""
    vectors = random_vectors(V, D, seed) if vectors is None else vectors
    options = {"dropout": 0.5, **options}
    model = Classifier(vectors, C, pool, both, seed=seed, **options)
    return model.to(device()).double().eval()


def drawn_rows(N, seed=0, longest=9):
    draw = random.Random(seed)
    return [[draw.randrange(V) for _ in range(draw.randint(1, longest))] for _ in range(N)]


def toy(N, seed=0):
    """Reviews whose one telling word makes them good or bad."""
    draw, rows, labels = random.Random(seed), [], []
    for _ in range(N):
        filler = draw.choices(["the", "film", "is", "a", "story", "of"], k=draw.randint(1, 8))
        labels.append(draw.randrange(2))
        told = draw.choice([["dull", "flat", "weak"], ["bright", "warm", "deep"]][labels[-1]])
        filler.insert(draw.randint(0, len(filler)), told)
        rows.append(" ".join(filler) + ".")
    return rows, labels


# --- words --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("review", "expected"),
    [
        ("Don't", "do n't"),
        ("DON’T", "do n't"),
        ("can't cannot ca n't", "ca n't cannot ca n't"),
        ("isn't!", "is n't !"),
        (
            "It's we're I've they'll he'd I'm",
            "it 's we 're i 've they 'll he 'd i 'm",
        ),
        ("the film’s end", "the film 's end"),
        ("don'tx o'clock l'amour", "don ' tx o ' clock l ' amour"),
        ("the dogs' tails, 'hello'", "the dogs ' tails , ' hello '"),
        ("he said 'sad' 'loved'", "he said ' sad ' ' loved '"),
        ("Well... yes; no!? (10%)", "well ... yes ; no ! ? ( 10 % )"),
        ("a 10-year-old's well-made film", "a 10 year old 's well made film"),
        ("good--or bad - never both", "good -- or bad never both"),
        ("a ''quoted'' “word”", "a '' quoted '' “ word ”"),
        ("café naïve ﬁlm…", "café naïve film ..."),
        ("Tabs\tand\nlines\u00a0end", "tabs and lines end"),
        ("- \n", ""),
        ("", ""),
    ],
)
def test_words_by_hand(review, expected):
    assert words(review) == expected.split()


@given(st.text(max_size=40) | st.text("abdmnrstv'’-.!é 1", max_size=40))
def test_no_letter_and_no_mark_is_lost(review):
    """Only space and hyphens go; nothing is written anew, nothing changes its place."""
    assert "".join(words(review)).replace("-", "") == re.sub(r"[\s-]", "", text.normalise(review))


@given(st.text("abdlmnrstve'’-.!, ", max_size=40))
def test_cut_words_stay_as_they_are(review):
    once = words(review)
    assert words(" ".join(once)) == once
    assert words(review.upper()) == once


@pytest.mark.skipif(
    not all(data.assets()[name].cached for name in ("reviews", "glove-50d")), reason="not in the cache"
)
def test_gloves_words_are_cut_alike():
    """It has nearly every word of the reviews, and so far more than splitting at spaces finds."""
    reviews, known = corpora.reviews()["text"], set(corpora.glove()[0])

    def share(cut):
        found = [word in known for review in reviews for word in cut(review)]
        return sum(found) / len(found)

    assert share(words) > 0.99
    assert share(str.split) < 0.8
    assert all(map(words, reviews))


# --- ids and batches ----------------------------------------------------------------------------------------


def test_ids_start_behind_those_of_padding_and_the_unknown():
    ids = word_ids(["b a. B!", "b don't a"], ["the", "a", "the", "of", "n't"])
    assert list(ids)[:2] == ["b", "a"]  # three times and twice
    assert set(list(ids)[2:6]) == {".", "!", "do", "n't"}
    assert list(ids)[6:] == ["the", "of"]  # known beforehand, in the order given, none twice
    assert list(ids.values()) == [*range(2, 10)]
    assert {PAD, UNKNOWN}.isdisjoint(ids.values())


def test_the_most_frequent_word_has_the_first_id():
    texts, _ = toy(100)
    ids, counts = word_ids(texts), {}
    for review in texts:
        for word in words(review):
            counts[word] = counts.get(word, 0) + 1
    assert ids.keys() == counts.keys()
    in_order = [counts[word] for word in sorted(ids, key=ids.get)]
    assert in_order == sorted(in_order, reverse=True)


def test_what_lies_behind_the_limit_is_not_read():
    ids = {"good": 2, "bad": 3, ".": 4}
    assert encode("Good, bad. BAD", ids) == [2, UNKNOWN, 3, 4, 3]
    assert encode("Good, bad. BAD", ids, limit=3) == [2, UNKNOWN, 3]
    assert encode("never seen", ids) == [UNKNOWN] * 2
    assert len(encode("bad " * 100, ids)) == sentiment.LIMIT
    assert encode("bad " * 100, ids, 70) == [3] * 70


def test_a_batch_by_hand():
    batch = review_batch([[5, 6, 7], [8]], [1, 0.25])
    assert batch.ids.tolist() == [[5, 6, 7], [8, PAD, PAD]]
    assert batch.lengths.tolist() == [3, 1]
    assert batch.targets.tolist() == [1.0, 0.25]
    assert [tensor.dtype for tensor in batch] == [torch.int64, torch.int64, torch.float32]
    assert {tensor.device.type for tensor in batch} == {device()}
    asked = review_batch([[5, 6, 7], [8]])
    assert torch.equal(asked.ids, batch.ids)
    assert asked.targets.tolist() == [0, 0]


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=6), min_size=1, max_size=6))
def test_a_batch_holds_each_row_and_padding_alone(rows):
    batch = review_batch(rows, torch.linspace(0, 1, len(rows)))
    assert batch.ids.shape == (len(rows), max(map(len, rows)))
    for ids, n, row in zip(batch.ids, batch.lengths, rows, strict=True):
        assert ids[:n].tolist() == row
        assert (ids[n:] == PAD).all()
    assert torch.equal(batch.targets.cpu(), torch.linspace(0, 1, len(rows)))


@pytest.mark.parametrize(
    ("rows", "targets", "message"),
    [
        ([], None, r"^rows must be one or more lists of ids, none of length 0, got \[\]$"),
        ([[]], None, r"^rows must be .* none of length 0, got \[0\]$"),
        ([[2, 3], [], [4]], [0, 1, 0], r"^rows must be .* none of length 0, got \[2, 0, 1\]$"),
        ([[2], [3]], [1], "^targets must be one a row: 2, got 1$"),
        ([[2]], torch.zeros(3), "^targets must be one a row: 1, got 3$"),
    ],
)
def test_rows_that_make_no_batch(rows, targets, message):
    with pytest.raises(ValueError, match=message):
        review_batch(rows, targets)


@pytest.mark.parametrize("length", [0, -1, 4])
def test_a_batch_put_together_by_hand_cannot_hold_an_impossible_length(length):
    """Of no word, whose last state and mean there are none of, or of more words than there are."""
    ids, lengths = torch.tensor([[2, 3, 4], [5, 6, 7]]), torch.tensor([3, length])
    batch = Batch(*(tensor.to(device()) for tensor in (ids, lengths, torch.zeros(2))))
    with pytest.raises(ValueError, match=r"^lengths must lie in 1 … T = 3"):
        classification_loss(classifier(), batch)


# --- the reviews of a side ----------------------------------------------------------------------------------


def side(N=50, seed=0, targets=None, **options):
    texts, labels = toy(N, seed)
    return Reviews(texts, labels, word_ids(texts), targets, **options)


def test_reviews_hold_their_texts_as_ids():
    texts, labels = toy(50)
    ids = word_ids(texts[:20])
    reviews = Reviews(texts, labels, ids, limit=5)
    assert reviews.rows == [encode(review, ids, 5) for review in texts]
    assert reviews.lengths.tolist() == [len(row) for row in reviews.rows]
    assert max(reviews.lengths) == 5
    assert reviews.labels.tolist() == reviews.targets.tolist() == labels
    batch = reviews.batch(torch.tensor([7, 3]))
    assert batch.lengths.tolist() == [len(reviews.rows[i]) for i in (7, 3)]
    assert batch.targets.tolist() == [labels[7], labels[3]]


def test_what_is_learnt_may_lie_between_the_labels():
    targets = graded(np.linspace(-4, 4, 50))
    reviews = side(targets=targets)
    assert reviews.labels.tolist() == toy(50)[1]
    np.testing.assert_allclose(reviews.targets, targets, rtol=1e-6)
    assert reviews.batch(torch.tensor([4])).targets.item() == pytest.approx(targets[4])


def test_batches_are_a_function_of_the_step():
    reviews = side(60, targets=np.linspace(0, 1, 60))  # each known by its target
    batches, again, other = (reviews.batches(8, seed) for seed in (3, 3, 4))
    for step in (0, 20, 6, 7, 5):
        assert all(map(torch.equal, batches(step), again(step)))
    assert any(not torch.equal(batches(step).targets, other(step).targets) for step in range(7))
    for epoch in (0, 2):
        seen = torch.cat([batches(7 * epoch + step).targets for step in range(7)])
        assert len(seen.unique()) == 56  # of 60, four filling no batch
    batch = batches(0)
    found = [(reviews.targets == target).nonzero().item() for target in batch.targets.cpu()]
    assert [reviews.rows[i] for i in found] == [
        row[:n] for row, n in zip(batch.ids.tolist(), batch.lengths.tolist(), strict=True)
    ]


def test_batches_are_of_like_length():
    reviews = side(640)
    padded = [int((batch.ids == PAD).sum()) for batch in map(reviews.batches(8), range(80))]
    unsorted = [int((reviews.batch(part).ids == PAD).sum()) for part in torch.arange(640).split(8)]
    assert sum(padded) < 0.3 * sum(unsorted)


@pytest.mark.parametrize("N", [1, 50, 300])
def test_the_loss_of_a_side_is_the_mean_of_its_reviews(N):
    """By the definition, each unpadded; 300 fill more than one of its batches."""
    texts, labels = toy(N)
    reviews = Reviews(texts, labels, word_ids(texts), np.linspace(0, 1, N))
    model = classifier()
    each = []
    for row, y in zip(reviews.rows, reviews.targets.tolist(), strict=True):
        p = float(logits_of(model, [row]).sigmoid())
        each.append(-y * math.log(p) - (1 - y) * math.log(1 - p))
    assert reviews.loss(model) == pytest.approx(sum(each) / N, abs=1e-6)  # targets are float32


@pytest.mark.parametrize("label", [2, -1, 0.5, "1", "good", None, math.nan])
def test_a_label_is_0_or_1(label):
    message = f"^labels must be zeros and ones, got {re.escape(repr(label))}$"
    for call in (
        lambda labels: Reviews(["a film", "a story"], labels, {"film": 2}),
        lambda labels: baseline(["a film", "a story"], labels),
        lambda labels: scores(labels, [0.5, 0.5]),
    ):
        with pytest.raises(ValueError, match=message):
            call([label, label])
    with pytest.raises(ValueError, match=r"^labels must be zeros and ones"):
        check_labels([1, label], 2)


def test_labels_may_be_of_any_kind_that_says_0_and_1():
    for labels in ([True, False], np.array([1.0, 0.0]), np.array([1, 0], np.int8), torch.tensor([1, 0])):
        found = check_labels(labels, 2)
        assert found.tolist() == [1, 0]
        assert found.dtype == int
    many = [7, 9, 7, 8, 1, 6, 5, 4]
    with pytest.raises(ValueError, match=r"^labels must be zeros and ones, got 7, 9, 8, 6, 5$"):
        check_labels(many, 8)


@pytest.mark.parametrize("labels", [[1], [1, 0, 1], [[1, 0]], 1, [1.0, 0.0, 1.0]])
def test_there_is_a_label_for_each_review(labels):
    with pytest.raises(ValueError, match=r"^labels must be \(N = 2,\) zeros and ones, got shape \("):
        Reviews(["a film", "a story"], labels, {"film": 2})


@pytest.mark.parametrize(
    "values",
    [[0.5, 1.01], [-0.01, 0.5], [math.nan, 0.5], [math.inf, 0], [None, 0], [0.5], [0.5] * 3, [[0.5, 0.5]]],
)
def test_a_probability_lies_between_0_and_1(values):
    with pytest.raises(ValueError, match=r"^anything must be \(N = 2,\) numbers in \[0, 1\], got shape \("):
        check_probabilities("anything", values, 2)
    for name, call in (
        ("targets", lambda: Reviews(["a film", "a story"], [0, 1], {"film": 2}, values)),
        ("targets", lambda: baseline(["a film", "a story"], [0, 1], targets=values)),
        ("chances", lambda: scores([0, 1], values)),
    ):
        with pytest.raises(ValueError, match=rf"^{name} must be \(N = 2,\) numbers in \[0, 1\]"):
            call()
    assert check_probabilities("anything", torch.tensor([0, 1]), 2).tolist() == [0.0, 1.0]


NO_TEXTS = [
    ("one text", r"^texts must be a list of one or more texts, got 'one text'$"),
    ([], r"^texts must be a list of one or more texts, got \[\]$"),
    ([""], r"^texts must hold a word or a mark each, got '' at 0$"),
    (["a film", " \n"], r"^texts must hold a word or a mark each, got ' \\n' at 1$"),
    (["a film", "-"], r"^texts must hold a word or a mark each, got '-' at 1$"),
    (["a film", None], r"^texts must hold a word or a mark each, got None at 1$"),
    ([3.5], r"^texts must hold a word or a mark each, got 3.5 at 0$"),
]


@pytest.mark.parametrize(("texts", "message"), NO_TEXTS)
def test_texts_that_are_none_are_named(texts, message):
    model = classifier()
    for call in (
        check_texts,
        word_ids,
        lambda texts: probabilities(model, texts, {"film": 2}),
        lambda texts: Reviews(texts, [0] * len(texts), {"film": 2}),
        lambda texts: baseline(texts, [0] * len(texts)),
    ):
        with pytest.raises(ValueError, match=message):
            call(texts)


def test_texts_may_come_one_by_one():
    assert check_texts(iter(["a", "?"])) == ["a", "?"]


def test_ratings_become_probabilities():
    ratings = [-4, -0.1, 0, 0.1, 2.5, 4]
    expected = [math.exp(x) / (1 + math.exp(x)) for x in ratings]
    np.testing.assert_allclose(graded(ratings), expected, rtol=1e-12)
    np.testing.assert_allclose(graded(np.negative(ratings)) + graded(ratings), 1, rtol=1e-12)
    assert ((graded(ratings) > 0.5) == (np.array(ratings) > 0)).all()


# --- word vectors -------------------------------------------------------------------------------------------


@pytest.fixture
def glove(monkeypatch):
    """Thirty words of GloVe's kind: read-only, of another spread than 1."""
    known = [f"w{i}" for i in range(30)]
    table = (0.3 * random_vectors(30, 50, 9)).numpy()
    table.setflags(write=False)
    monkeypatch.setattr(sentiment.corpora, "glove", lambda limit=None: (known[:limit], table[:limit]))
    return dict(zip(known, torch.tensor(table), strict=True))


def test_each_known_word_has_its_own_vector(glove):
    ids = word_ids(["w7 w3 strange, w3", "odd"], ["w29", "w0"])
    vectors = glove_vectors(ids)
    assert vectors.shape == (len(ids) + 2, 50)
    assert vectors.dtype == torch.float32
    for word, i in ids.items():
        assert torch.equal(vectors[i], glove[word]) if word in glove else vectors[i].any(), word
    assert not vectors[[PAD, UNKNOWN]].any()
    before = glove["w3"].clone()
    vectors.zero_()
    assert torch.equal(glove_vectors(ids)[ids["w3"]], before)


def test_other_words_are_drawn_as_widely_and_alike_every_time(glove):
    ids = {f"w{i}": i + 2 for i in range(30)} | {f"new{i}": i + 32 for i in range(400)}
    vectors, again, other = (glove_vectors(ids, seed) for seed in (0, 0, 1))
    assert torch.equal(vectors, again)
    assert torch.equal(vectors[:32], other[:32])
    assert not (vectors[32:] == other[32:]).any()
    assert vectors[32:].std() == pytest.approx(float(vectors[2:32].std()), rel=0.03)
    assert len(vectors[32:].unique(dim=0)) == 400


def test_words_glove_has_none_of(glove):
    with pytest.raises(ValueError, match=r"^ids must hold a word that GloVe has, got 1 others$"):
        glove_vectors({"unheard": 2})


def test_random_vectors_are_standard_normal_by_seed():
    vectors = random_vectors(2_000, 20, seed=3)
    assert vectors.shape == (2_000, 20)
    assert float(vectors.mean()) == pytest.approx(0, abs=0.02)
    assert float(vectors.std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(vectors, random_vectors(2_000, 20, seed=3))
    assert not torch.equal(vectors, random_vectors(2_000, 20, seed=4))


# --- the classifier -----------------------------------------------------------------------------------------


def logits_of(model, rows):
    batch = review_batch(rows)
    return model(batch.ids, batch.lengths).detach()


def by_the_library(model, x, lengths):
    """Logits by `nn.LSTM` on packed sequences and slices of the real words; its weights."""
    theirs = as_torch(model.recurrent)
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    y, (h, _) = theirs(packed)
    y = pad_packed_sequence(y, batch_first=True)[0]
    if model.pool == "last":
        pooled = torch.cat(list(h), dim=-1)
    else:
        reduce = {"max": lambda part: part.max(dim=0).values, "mean": lambda part: part.mean(dim=0)}
        pooled = torch.stack([reduce[model.pool](part[:n]) for part, n in zip(y, lengths, strict=True)])
    return (pooled @ model.score.weight.T + model.score.bias)[:, 0], list(theirs.parameters())


@every_kind
def test_equal_to_torchs_lstm_forward_and_backward(pool, both):
    """Gradients of the word vectors, of every weight of the LSTM, and of the last layer."""
    for seed in range(12):
        model = classifier(pool, both, seed)
        batch = review_batch(drawn_rows(1 + seed % 5, seed))
        upstream = torch.randn(len(batch.ids), generator=generator(seed), dtype=torch.float64).to(device())
        x = model.tokens(batch.ids).detach().requires_grad_()
        score = list(model.score.parameters())
        ours = [p for c in model.recurrent.cells for p in (c.x.weight, c.h.weight, c.x.bias, c.h.bias)]
        expected, theirs = by_the_library(model, x, batch.lengths)
        found = model(batch.ids, batch.lengths)
        close(found.detach(), expected.detach())
        again = model.read(x, batch.lengths)
        assert torch.equal(found, again)
        for a, b in zip(
            torch.autograd.grad((again * upstream).sum(), [x, *ours, *score]),
            torch.autograd.grad((expected * upstream).sum(), [x, *theirs, *score]),
            strict=True,
        ):
            close(a, b)


@every_kind
def test_each_review_is_read_as_if_alone(pool, both):
    """Whatever stands beside it, behind it, or where in the batch."""
    model, rows = classifier(pool, both), drawn_rows(9, seed=1)
    together = logits_of(model, rows)
    assert len(together.unique()) == 9
    close(torch.cat([logits_of(model, [row]) for row in rows]), together)
    order = torch.randperm(9, generator=generator(0))
    close(logits_of(model, [rows[i] for i in order.tolist()]), together[order.to(device())])
    batch = review_batch(rows)
    behind = torch.randint(0, V, (9, 15), generator=generator(1)).to(device())
    wider = behind.index_copy(1, torch.arange(batch.ids.shape[1], device=device()), batch.ids)
    padded = torch.arange(15, device=device()) >= batch.lengths[:, None]
    wider = torch.where(padded, behind, wider)
    close(model(wider, batch.lengths).detach(), together)


@every_kind
def test_no_gradient_reaches_padding(pool, both):
    model, batch = classifier(pool, both), review_batch(drawn_rows(9, seed=1))
    x = model.tokens(batch.ids).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.read(x, batch.lengths).sum(), x)
    alive = torch.arange(x.shape[1], device=device()) < batch.lengths[:, None]
    assert not gradient[~alive].any()
    assert gradient[alive].any(dim=-1).any()


@every_kind
def test_a_seed_decides_every_weight(pool, both):
    a, again, other = (classifier(pool, both, seed) for seed in (3, 3, 4))
    for (name, p), q, r in zip(a.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name
        assert not torch.equal(p, r), name
    assert a.score.in_features == C * (1 + both)
    assert len(a.recurrent.cells) == 1 + both


@pytest.mark.parametrize("variational", [True, False])
def test_dropout_is_for_training(variational):
    """Of the LSTM and, by itself, of what is pooled; with a rate of 0 of neither."""
    rows = drawn_rows(6)
    model, plain = (classifier(variational=variational, dropout=rate) for rate in (0.5, 0.0))
    assert (model.recurrent.dropout, model.recurrent.variational) == (0.5, variational)
    assert torch.equal(logits_of(model, rows), logits_of(model, rows))
    assert torch.equal(logits_of(model, rows), logits_of(plain, rows))
    assert torch.equal(logits_of(plain.train(), rows), logits_of(plain.eval(), rows))
    model.train()
    assert not torch.equal(logits_of(model, rows), logits_of(model, rows))
    model.recurrent.dropout = 0.0
    assert not torch.equal(logits_of(model, rows), logits_of(model, rows))


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_vectors_stay(frozen):
    given = random_vectors(V, D)
    first = given.clone()
    model = Classifier(given, C, frozen=frozen).to(device())  # of one precision: no copy by a conversion
    batch = review_batch(drawn_rows(4), [1, 0, 1, 0.3])
    classification_loss(model, batch).backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.0 if p.grad is None else p.grad
    assert (model.tokens.weight.grad is None) == frozen
    assert torch.equal(model.tokens.weight.cpu(), first) == frozen
    assert torch.equal(given, first)  # the vectors given belong to the caller
    assert all(p.grad is not None for p in (*model.recurrent.parameters(), *model.score.parameters()))


@pytest.mark.parametrize("pool", ["sum", "", None, "Max"])
def test_an_unknown_pool_is_named(pool):
    message = f"^pool must be one of last, max, mean, got {pool!r}$"
    with pytest.raises(ValueError, match=message):
        Classifier(random_vectors(V, D), pool=pool)


def test_sizes_no_classifier_has():
    with pytest.raises(ValueError, match=r"^C must be at least 1, got 0"):
        Classifier(random_vectors(V, D), C=0)
    with pytest.raises(ValueError, match=r"^dropout must lie in \[0, 1\), got 1"):
        Classifier(random_vectors(V, D), dropout=1.0)


class Says(nn.Module):
    """The logits it was made with, whatever it is asked."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float64, device=device()))

    def forward(self, ids, lengths):
        return self.logits


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(-12, 12), st.floats(0, 1, width=32)), min_size=1, max_size=6))
def test_the_loss_by_its_equation(cases):
    logits, targets = zip(*cases, strict=True)
    chances = [1 / (1 + math.exp(-x)) for x in logits]
    each = [-y * math.log(p) - (1 - y) * math.log(1 - p) for p, y in zip(chances, targets, strict=True)]
    model = Says(*logits)
    batch = review_batch([[2]] * len(cases), targets)
    loss = classification_loss(model, batch._replace(targets=batch.targets.double()))
    assert loss.item() == pytest.approx(sum(each) / len(each), abs=TOLERANCE)
    loss.backward()
    expected = [(p - y) / len(cases) for p, y in zip(chances, targets, strict=True)]
    assert model.logits.grad.tolist() == pytest.approx(expected, abs=TOLERANCE)


def test_a_sure_model_has_a_finite_loss():
    """Where σ(1000) is 1 and log 0 would be asked for."""
    model = Says(1000.0, -1000.0, 1000.0, -1000.0)
    loss = classification_loss(model, review_batch([[2]] * 4, [1, 0, 0, 1]))
    assert loss.item() == pytest.approx(500)
    (gradient,) = torch.autograd.grad(loss, model.logits)
    assert gradient.tolist() == [0, 0, 0.25, -0.25]


def test_it_learns_which_words_tell():
    """And finds them in sentences it has not seen."""
    texts, labels = toy(200)
    ids = word_ids(texts)
    model = Classifier(random_vectors(len(ids) + 2, 8), C=8).to(device())
    reviews, others = Reviews(texts, labels, ids), toy(80, seed=1)
    before = reviews.loss(model.eval())
    options = Options(steps=150, lr=2e-2, warmup=0, weight_decay=0.0)
    train(model, reviews.batches(20), classification_loss, options)
    assert reviews.loss(model) < 0.2 * before
    assert scores(others[1], probabilities(model, others[0], ids))["accuracy"] > 0.95


# --- its answers --------------------------------------------------------------------------------------------

IDS = {word: i for i, word in enumerate(["the", "film", "is", "a", "story", "of", "dull", "bright", "."], 2)}


@pytest.mark.parametrize("N", [1, 40, 300])
def test_probabilities_come_in_the_order_given(N):
    texts, _ = toy(N)
    model = classifier().train()
    found = probabilities(model, texts, IDS)
    assert not model.training
    assert found.shape == (N,)
    expected = [float(logits_of(model, [encode(review, IDS)]).sigmoid()) for review in texts]
    np.testing.assert_allclose(found, expected, atol=1e-6)  # stored in float32
    assert len(set(expected)) > N // 2


def test_a_long_text_is_read_up_to_the_limit():
    model, start = classifier(), "the film is a story"
    same = probabilities(model, [start, start + " of dull bright . film"], IDS, limit=5)
    assert same[0] == pytest.approx(same[1], abs=1e-6)
    other = probabilities(model, [start, start + " of dull bright . film"], IDS)
    assert abs(other[0] - other[1]) > 1e-4


def test_a_text_of_unknown_words_has_a_probability():
    model = classifier()
    found = probabilities(model, ["qwerty uiop", "never heard", "film qwerty"], IDS)
    assert ((found > 0) & (found < 1)).all()
    assert found[0] == found[1] != found[2]
    assert found[0] == pytest.approx(float(logits_of(model, [[UNKNOWN] * 2]).sigmoid()), abs=1e-6)


def test_scores_by_hand():
    labels, chances = [1, 1, 1, 0, 0, 0, 0, 1], [0.9, 0.6, 0.4, 0.2, 0.7, 0.1, 0.5, 0.51]
    found = scores(labels, chances)  # 3 of 4 good ones found, 1 of 4 bad ones called good; 0.5 says bad
    right = [p if y else 1 - p for y, p in zip(labels, chances, strict=True)]
    expected = {"n": 8, "accuracy": 6 / 8, "precision": 3 / 4, "recall": 3 / 4, "F1": 3 / 4}
    expected["log loss"] = -sum(map(math.log, right)) / 8
    assert found.pop("confusion") == [[3, 1], [1, 3]]
    assert found == pytest.approx(expected)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0.01, 0.99)), min_size=1, max_size=30))
def test_scores_by_counting(cases):
    labels, chances = zip(*cases, strict=True)
    counts = np.zeros((2, 2), int)
    for y, p in cases:
        counts[y, int(p > 0.5)] += 1
    (tn, fp), (fn, tp) = counts.tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores(labels, np.array(chances))
    assert found["confusion"] == counts.tolist()
    assert found["accuracy"] == pytest.approx((tp + tn) / len(cases))
    assert found["precision"] == pytest.approx(tp / (tp + fp) if tp + fp else 0)
    assert found["recall"] == pytest.approx(tp / (tp + fn) if tp + fn else 0)
    assert found["F1"] == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp else 0)


def test_where_nothing_is_called_good_precision_is_0_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores([1, 0, 0], [0.1, 0.2, 0.5])
    assert (found["precision"], found["recall"], found["F1"]) == (0, 0, 0)
    assert found["confusion"] == [[2, 0], [1, 0]]


@pytest.mark.parametrize("chances", [[1.0, 0.0], [0.0, 1.0]])
def test_a_sure_answer_has_a_finite_log_loss(chances):
    found = scores([1, 0], chances)
    assert math.isfinite(found["log loss"])
    assert (found["log loss"] < 1e-9) == (chances[0] == 1)


# --- what each word weighs ----------------------------------------------------------------------------------


class Linear(nn.Module):
    """The sum of the word vectors, weighed: what each word adds is known."""

    def __init__(self):
        super().__init__()
        self.tokens, self.score = nn.Embedding.from_pretrained(random_vectors(V, D)), nn.Linear(D, 1)

    def read(self, x, lengths):
        return self.score(x.sum(dim=1)).squeeze(-1)

    def forward(self, ids, lengths):
        return self.read(self.tokens(ids), lengths)


def test_of_a_linear_model_each_words_part_is_exact():
    """The parts and the bias are the logit; and occlusion takes away what UNKNOWN does not add back."""
    model, row = Linear().double().to(device()), drawn_rows(1, longest=9, seed=2)[0] + [4, 4]
    parts = gradient_times_input(model, row)
    own = (model.tokens.weight @ model.score.weight[0]).detach().cpu()
    close(parts, own[row])
    close(parts.sum() + model.score.bias[0].detach().cpu(), logits_of(model, [row])[0].cpu())
    close(occlusion(model, row), own[row] - own[UNKNOWN])


@every_kind
def test_gradient_times_input_by_small_differences(pool, both):
    """How the logit moves, for each word, where its vector is made longer and shorter."""
    for frozen in (False, True):
        model, row = classifier(pool, both, frozen=frozen).train(), drawn_rows(1, seed=7)[0] + [3, 3]
        found = gradient_times_input(model, row)
        assert not model.training
        assert not found.requires_grad
        assert all(p.grad is None for p in model.parameters())
        x, n, expected = (
            model.tokens(torch.tensor([row], device=device())).detach(),
            torch.tensor([len(row)]),
            [],
        )
        for t in range(len(row)):
            factor = torch.ones(len(row), 1, dtype=x.dtype, device=device())
            ends = []
            for step in (1e-5, -1e-5):
                factor[t] = 1 + step
                ends.append(model.read(x * factor, n.to(device())).item())
            expected.append((ends[0] - ends[1]) / 2e-5)
        assert found.tolist() == pytest.approx(expected, abs=1e-7)
        assert found.abs().max() > 1e-3


@every_kind
def test_occlusion_is_reading_again_without_the_word(pool, both):
    model, row = classifier(pool, both).train(), drawn_rows(1, seed=7)[0] + [UNKNOWN, 3]
    found = occlusion(model, row)
    assert not model.training
    whole = logits_of(model, [row])
    for t, fall in enumerate(found):
        other = [UNKNOWN if s == t else word for s, word in enumerate(row)]
        close(fall, (whole - logits_of(model, [other]))[0].cpu())
    assert found.shape == (len(row),)
    assert abs(found[-2]) <= TOLERANCE < found.abs().max()


def test_one_word_has_a_weight_and_none_has_not():
    model = classifier()
    assert occlusion(model, [5]).shape == gradient_times_input(model, [5]).shape == (1,)
    for weigh in (occlusion, gradient_times_input):
        with pytest.raises(ValueError, match=r"^rows must be one or more lists of ids, none of length 0"):
            weigh(model, [])


# --- what it has to beat ------------------------------------------------------------------------------------


def test_the_baseline_learns_which_words_tell():
    texts, labels = toy(120)
    others = toy(80, seed=1)
    model = baseline(texts, labels)
    chances = model.predict_proba(others[0])[:, 1]
    assert scores(others[1], chances)["accuracy"] == 1
    assert model.predict_proba(["bright"])[0, 1] > 0.5 > model.predict_proba(["dull"])[0, 1]


def test_the_baseline_reads_pairs_of_words():
    """Each word stands as often in good reviews as in bad ones; "not" before "bad" tells."""
    good, bad = ["not bad but good", "good not bad"], ["not good but bad", "bad not good"]
    model = baseline(good + bad, [1, 1, 0, 0])
    assert model.predict(good + bad).tolist() == [1, 1, 0, 0]


def test_the_baseline_learns_from_its_targets_instead():
    texts, labels = toy(120)
    sure = baseline(texts, labels, targets=np.array(labels))
    assert sure.predict(texts).tolist() == labels
    reversed_ = baseline(texts, labels, targets=1 - np.array(labels))
    assert reversed_.predict(texts).tolist() == [1 - y for y in labels]
    unsure = baseline(texts, labels, targets=np.full(120, 0.5))
    np.testing.assert_allclose(unsure.predict_proba(texts), 0.5, atol=1e-3)
    half = baseline(texts, labels, targets=0.25 + 0.5 * np.array(labels)).predict_proba(texts)[:, 1]
    assert (abs(half - 0.5) < abs(sure.predict_proba(texts)[:, 1] - 0.5)).all()


def test_a_weaker_pull_lets_the_baseline_be_surer():
    texts, labels = toy(120)
    spread = [np.ptp(baseline(texts, labels, size).predict_proba(texts)[:, 1]) for size in (0.1, 1.0, 30.0)]
    assert spread == sorted(spread)
    assert spread[0] < spread[-1]
