"""A grammar is listed as its derivations have it, and the judge made of it measures as the formulas say.

Derivations are followed word by word in exact fractions; divergence and entropy are scipy's.
"""

import math
from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon
from test_attention import DEVICES
from torch.testing import assert_close

from course_utils.grammar import END, SHARE, SLIP, STORY, Language, expand, jensen_shannon

FALSE_ALARM = 1e-6  # chance that draws which follow their probabilities would fail a test, were the seed free
TINY = {"S": "A B . | A .", "A": "x | y", "B": "z | A"}
quick = settings(deadline=None, max_examples=80)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def derived(grammar, symbol):
    """Each row of words and its exact probability: the leftmost symbol is replaced until none is left."""
    found, open_ = Counter(), [((), (symbol,), Fraction(1))]
    while open_:
        words, (first, *rest), p = open_.pop()
        if first not in grammar:
            words, choices = (*words, first), [((), Fraction(1))]
        else:
            rights = grammar[first].split("|")
            total = sum(Fraction(1, k) for k in range(1, len(rights) + 1))
            choices = [(right.split(), Fraction(1, k) / total) for k, right in enumerate(rights, 1)]
        for right, share in choices:
            ahead = (*right, *rest)
            if ahead:
                open_.append((words, ahead, p * share))
            else:
                found[words] += p * share
    return found


@st.composite
def grammars(draw):
    """Symbols S0 to S3, each made of words and later symbols: no rule can lead back."""
    grammar = {}
    for i in range(4):
        parts = [f"S{j}" for j in range(i + 1, 4)] + ["x", "y", "z"]
        alternative = st.lists(st.sampled_from(parts), min_size=1, max_size=3).map(" ".join)
        grammar[f"S{i}"] = " | ".join(draw(st.lists(alternative, min_size=1, max_size=3)))
    return grammar


# --- sentences --------------------------------------------------------------------------------------------


@quick
@given(grammars())
def test_expand_lists_every_derivation_with_its_probability(grammar):
    expected, found = derived(grammar, "S0"), expand(grammar, "S0")
    assert found.keys() == expected.keys()
    assert found == pytest.approx({row: float(p) for row, p in expected.items()}, rel=1e-12)
    assert sum(found.values()) == pytest.approx(1, rel=1e-12)


def test_the_kth_alternative_weighs_one_kth():
    found = expand({"S": "a | b | c d"}, "S")
    assert found == pytest.approx({("a",): 6 / 11, ("b",): 3 / 11, ("c", "d"): 2 / 11})


def test_two_ways_to_one_sentence_add_up():
    found = expand({"S": "A b | a B | c", "A": "a", "B": "b"}, "S")
    assert found == pytest.approx({("a", "b"): 9 / 11, ("c",): 2 / 11})


def test_a_word_becomes_itself_and_any_symbol_can_begin():
    assert expand(TINY, "z") == {("z",): 1.0}
    assert expand(TINY, "B") == pytest.approx({("z",): 2 / 3, ("x",): 2 / 9, ("y",): 1 / 9})


@pytest.mark.parametrize("rule", ["", " ", "a |", "| a", "a | | b"])
@pytest.mark.parametrize("symbol", ["S", "A"])
def test_an_alternative_without_words_is_refused(rule, symbol):
    grammar = {"S": "A .", "A": "a"} | {symbol: rule}
    with pytest.raises(ValueError, match=f"grammar has an alternative without words at {symbol}"):
        expand(grammar, "S")


@pytest.mark.parametrize(
    "grammar",
    [
        {"S": "S"},
        {"S": "a S | a"},
        {"S": "a | A b", "A": "c | d S"},
        {"S": "A", "A": "B", "B": "b | C", "C": "c S"},
    ],
)
def test_a_symbol_that_becomes_itself_is_refused(grammar):
    with pytest.raises(ValueError, match="grammar must not let S become itself"):
        expand(grammar, "S")


def test_a_loop_further_down_is_refused_by_the_name_of_a_symbol_on_it():
    with pytest.raises(ValueError, match=r"grammar must not let [AB] become itself"):
        expand({"S": "a | A", "A": "b B", "B": "b | A"}, "S")


def test_a_symbol_used_twice_is_no_loop():
    assert expand({"S": "A B A", "A": "a B", "B": "b"}, "S") == {tuple("abbab"): 1.0}


# --- the stories' grammar ---------------------------------------------------------------------------------

ANIMATE = ["girl", "dog", "boy", "cat", "bird"]
THINGS = ["ball", "tree", "flower"]
NOUNS = {noun + ending for noun in ANIMATE + THINGS for ending in ("", "s")}
VERBS = {verb + ending for verb in ("see", "like", "find", "run", "play", "sing") for ending in ("", "s")}


@pytest.fixture(scope="module")
def story():
    return Language()


@pytest.fixture(scope="module")
def sentences(story):
    return [text.split() for text in story.spell(story.ids)]


def test_every_verb_agrees_with_its_subject(sentences):
    """The subject is the first noun: plural with s, its verb without."""
    distances, misled = Counter(), 0
    for row in sentences:
        nouns, verbs = ([i for i, word in enumerate(row) if word in some] for some in (NOUNS, VERBS))
        (verb,), subject = verbs, nouns[0]
        assert row[subject].removesuffix("s") in ANIMATE
        assert row[subject].endswith("s") != row[verb].endswith("s"), row
        distances[verb - subject] += 1
        nearest = max(i for i in nouns if i < verb)
        misled += row[nearest].endswith("s") != row[subject].endswith("s")
    assert set(distances) == {1, 4}
    assert 0 < misled < len(sentences) / 2  # the noun before the verb is of the other number here and there


def test_every_article_agrees_with_its_noun(sentences):
    for row in sentences:
        for i, word in enumerate(row):
            if word in ("a", "two"):
                noun = next(other for other in row[i:] if other in NOUNS)
                assert noun.endswith("s") == (word == "two"), row


def test_the_story_is_the_grammar(story):
    expected = derived(STORY, "S")
    texts = story.spell(story.ids)
    assert len(set(texts)) == len(texts) == len(expected)
    found = dict(zip(texts, story.p.tolist(), strict=True))
    assert found == pytest.approx({" ".join(row): float(p) for row, p in expected.items()}, rel=1e-9)
    assert story.p.sum().item() == pytest.approx(1, abs=1e-12)


# --- Language ---------------------------------------------------------------------------------------------


def test_words_are_numbered_by_the_alphabet_after_the_full_stop(story):
    assert story.words[END] == "."
    assert story.words[1:] == sorted(
        {w for right in STORY.values() for w in right.split()} - {*STORY, ".", "|"}
    )


def test_ids_are_full_to_the_longest_sentence_and_end_alone_fills(story):
    lengths = (story.ids != END).sum(dim=1)
    places = torch.arange(story.ids.shape[1])
    assert ((places < lengths[:, None]) == (story.ids != END)).all()
    assert lengths.max() + 1 == story.ids.shape[1]
    assert lengths.min() >= 1


def test_places_finds_every_sentence_and_no_other(story):
    order = torch.randperm(len(story.ids), generator=seeded(0))
    assert story.places(story.ids[order]).equal(order)
    ids = torch.randint(len(story.words), (2000, story.ids.shape[1]), generator=seeded(1))
    listed = set(story.spell(story.ids))
    for row in (ids, story.ids[:50].flip(1)):
        assert (story.places(row) >= 0).tolist() == [text in listed for text in story.spell(row)]
    assert story.places(story.ids[:0]).tolist() == []


def test_spell_stops_at_the_full_stop_where_there_is_one(story):
    number = {word: i for i, word in enumerate(story.words)}
    row = [number[word] for word in ("the", "dogs", "run", ".", "the", ".", ".", "cat")]
    assert story.spell(torch.tensor([row, row[:3] * 2 + row[:2]])) == [
        "the dogs run .",
        "the dogs run the dogs run the dogs",
    ]


def test_sentences_are_drawn_as_often_as_they_are_probable():
    language = Language(TINY)
    places = language.places(language.draw(20_000, seeded(2)))
    found = places.bincount(minlength=len(language.p))
    assert stats.chisquare(found, language.p * 20_000).pvalue > FALSE_ALARM


def test_a_seed_decides_the_draws(story):
    first, again, other = (story.draw(50, seeded(seed)) for seed in (3, 3, 4))
    assert first.equal(again)
    assert not first.equal(other)
    assert first.shape == (50, story.ids.shape[1])


@pytest.mark.parametrize("right", ["a", "a . b", ". a", "a . .", "a . | b"])
def test_a_full_stop_must_be_the_end_and_only_there(right):
    with pytest.raises(ValueError, match="grammar must end every sentence in its only full stop"):
        Language({"S": right})


def test_another_symbol_may_begin():
    language = Language({"S": "x .", "Q": "S | y y S"}, symbol="Q")
    assert dict(zip(language.spell(language.ids), language.p.tolist(), strict=True)) == pytest.approx(
        {"x .": 2 / 3, "y y x .": 1 / 3}
    )


@pytest.mark.parametrize("grammar", [STORY, TINY, {"S": "a ."}], ids=["story", "tiny", "one sentence"])
def test_entropy_is_scipys(grammar):
    language = Language(grammar)
    assert language.entropy == pytest.approx(stats.entropy(language.p), rel=1e-12, abs=1e-15)


# --- surprise ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grammar", [STORY, TINY], ids=["story", "tiny"])
def test_a_true_sentence_surprises_by_its_probability_or_a_slip(grammar):
    language = Language(grammar)
    for text, p, found in zip(
        language.spell(language.ids), language.p.tolist(), language.surprise(language.ids), strict=True
    ):
        slip = SLIP / len(language.words) ** len(text.split())
        assert found.item() == pytest.approx(-math.log((1 - SLIP) * p + slip), rel=1e-12)


def test_any_other_costs_a_slip_and_a_word_drawn_blindly_for_each_of_its_words(story):
    number = {word: i for i, word in enumerate(story.words)}
    for text in ("the dog see the ball .", "ball .", "dog dog dog dog dog dog dog dog ."):
        row = [number[word] for word in text.split()]
        ids = torch.tensor([row + [END] * (story.ids.shape[1] - len(row))])
        expected = -math.log(SLIP) + len(row) * math.log(len(story.words))
        assert story.surprise(ids).item() == pytest.approx(expected, rel=1e-12)
        assert story.surprise(ids).dtype == torch.float64


def test_the_judges_probabilities_are_a_distribution():
    """All sentences with their end in T words: what is missing are slips that go on for longer."""
    language = Language(TINY)
    V, T = len(language.words), language.ids.shape[1]
    ids = torch.cartesian_prod(*[torch.arange(V)] * T)
    filled = (ids[:, :-1] != END) | (ids[:, 1:] == END)
    complete = ids[filled.all(dim=1) & (ids[:, -1] == END)]
    missing = SLIP * ((V - 1) / V) ** T
    total = (-language.surprise(complete)).exp().sum().item()
    assert total == pytest.approx(1 - missing, rel=1e-12)
    assert (language.places(complete) >= 0).sum() == len(language.p)


# --- distances --------------------------------------------------------------------------------------------


@DEVICES
def test_the_truth_itself_is_at_no_distance(story, device):
    found = story.distances(story.p.log().to(device))
    perfect = {"grammatical": 1, "js": 0, "nll_test": story.entropy, "covered": 1}
    assert found == pytest.approx(perfect, rel=1e-12, abs=1e-12)
    assert all(type(value) is float for value in found.values())


def test_a_model_that_forgot_half_and_one_that_slips(story):
    """One sentence in two, doubled up: m = (p + g) / 2 is known, so is everything else."""
    kept = torch.arange(len(story.p)) % 2 == 0
    half = story.p[kept].sum().item()
    dropped = story.distances(torch.where(kept, story.p.log() - math.log(half), -math.inf))
    assert dropped["grammatical"] == pytest.approx(1, rel=1e-12)
    assert dropped["covered"] == pytest.approx(half, rel=1e-12)
    assert dropped["nll_test"] == math.inf
    g = torch.where(kept, story.p / half, 0)
    assert dropped["js"] == pytest.approx(jensenshannon(story.p, g) ** 2, rel=1e-9)
    slips = story.distances(story.p.log() + math.log(0.7))  # three in ten are nonsense
    impossible = math.log(2) * 0.3 / 2  # g's own, where the truth is 0
    rest = (math.log(2 / 1.7) + 0.7 * math.log(1.4 / 1.7)) / 2
    assert slips == pytest.approx(
        {
            "grammatical": 0.7,
            "js": rest + impossible,
            "nll_test": story.entropy - math.log(0.7),
            "covered": 1,
        },
        rel=1e-9,
    )


def test_distances_are_added_up_in_double_precision(story):
    log_g = story.p.log().float() - 1
    assert story.distances(log_g) == pytest.approx(story.distances(log_g.double()), rel=1e-12)


def test_two_sentences_by_hand():
    """p = 2/3, 1/3 against g = 1/3, 1/3: a third is spent on what is none of them."""
    language = Language({"S": "a . | b ."})
    found = language.distances(torch.tensor([1 / 3, 1 / 3]).log())
    m = [1 / 2, 1 / 3, 1 / 6]
    js = 2 / 3 * math.log(2 / 3 / m[0]) + 1 / 3 * math.log(1 / 3 / m[0]) + 1 / 3 * math.log(1 / 3 / m[2])
    expected = {"grammatical": 2 / 3, "js": js / 2, "nll_test": math.log(3), "covered": 1}
    assert found == pytest.approx(expected, rel=1e-6)  # its logarithms were float32


def test_covered_begins_at_a_tenth():
    language = Language({"S": "a . | b ."})
    for share, covered in ((1.01 * SHARE, 1), (0.99 * SHARE, 2 / 3)):
        log_g = language.p.log() + torch.tensor([0, math.log(share)], dtype=torch.double)
        assert language.distances(log_g)["covered"] == pytest.approx(covered)
    assert SHARE == 0.1  # a tenth, as its documentation says


# --- the divergence ---------------------------------------------------------------------------------------

WEIGHTS = st.lists(st.sampled_from([0, 0, 1]) | st.floats(1e-6, 1e3), min_size=6, max_size=6).filter(any)


def normal(weights):
    row = torch.tensor(weights, dtype=torch.double)
    return row / row.sum()


@quick
@given(WEIGHTS, WEIGHTS)
def test_divergence_is_scipys_squared_zeros_included(p, q):
    p, q = normal(p), normal(q)
    found = jensen_shannon(p, q).item()
    assert found == pytest.approx(jensenshannon(p, q) ** 2, abs=1e-12)
    assert -1e-12 <= found <= math.log(2) + 1e-12
    assert jensen_shannon(q, p).item() == pytest.approx(found, abs=1e-12)
    assert jensen_shannon(p.view(2, 3), q.view(2, 3)).item() == pytest.approx(found, abs=1e-12)
    assert jensen_shannon(p, p).item() == pytest.approx(0, abs=1e-12)


@quick
@given(WEIGHTS, WEIGHTS, st.floats(0, 1), st.floats(0, 1))
def test_mass_that_is_missing_is_impossible_in_the_other(p, q, a, b):
    """The same as two more outcomes, one for what each leaves out."""
    p, q = a * normal(p), b * normal(q)
    rest_p, rest_q = (torch.tensor(row, dtype=torch.double) for row in ([1 - a, 0], [0, 1 - b]))
    whole = jensenshannon(torch.cat([p, rest_p]), torch.cat([q, rest_q])) ** 2
    assert jensen_shannon(p, q).item() == pytest.approx(whole, abs=1e-12)


@DEVICES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_nothing_in_common_is_log_2_wherever_it_lies(dtype, device):
    p, q = (torch.tensor(row, dtype=dtype, device=device) for row in ([1, 0, 0], [0, 0.25, 0.75]))
    found = jensen_shannon(p, q)
    assert found.dtype == dtype
    assert found.device == p.device
    assert_close(found, torch.tensor(2, dtype=dtype, device=device).log())
    assert_close(jensen_shannon(0 * p, q), found)  # a model that writes none of the sentences


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        ([0.5, 0.5], [1.0], r"q must have the shape of p, \(2,\), got \(1,\)"),
        ([[0.5, 0.5]], [0.5, 0.5], r"q must have the shape of p, \(1, 2\), got \(2,\)"),
        ([1.5, -0.5], [0.5, 0.5], "^p must hold probabilities"),
        ([0.5, 0.5], [1.5, -0.5], "^q must hold probabilities"),
        ([math.nan, 0.5], [0.5, 0.5], "^p must hold probabilities"),
        ([0.5, 0.5], [0.5, math.nan], "^q must hold probabilities"),
        ([0.6, 0.5], [0.5, 0.5], "^p must hold probabilities"),
        ([0.5, 0.5], [0.5, math.inf], "^q must hold probabilities"),
    ],
)
def test_what_is_no_probability_is_refused(p, q, message):
    with pytest.raises(ValueError, match=message):
        jensen_shannon(torch.tensor(p), torch.tensor(q))


def test_a_sentence_that_is_its_full_stop_alone_is_spelt_so():
    language = Language()
    ids = torch.zeros(2, language.ids.shape[1], dtype=torch.long)
    ids[1, 1] = 5  # after the end: not to be read
    assert language.spell(ids) == [".", "."]


def test_rows_that_cannot_be_of_the_list_are_refused():
    language = Language()
    with pytest.raises(ValueError, match=r"ids must be \(n, 9\), got shape \(3, 8\)"):
        language.places(language.ids[:3, :8])
    with pytest.raises(ValueError, match=r"log_g must be \(21840,\), got shape \(5,\)"):
        language.distances(torch.zeros(5))
