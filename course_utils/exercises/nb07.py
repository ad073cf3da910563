"""Exercises of notebook 07: perplexity, a word cut by learnt joins, one step of attention with a cache."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from course_utils.bpe import Pair, join_pair, merge
from course_utils.exercises import Exercise, expect
from course_utils.exercises.properties import array, by_hand, none_of, ratio_of, signed, stops, strings

ROW = "row t of the logits scores the token after ids[t]"


def perplexity(answer: Callable) -> None:
    """Judge 07.1: e to the mean nats of ids[1:]; shifts, constants, sizes, long and improbable texts."""

    def ask(logits: torch.Tensor, ids: torch.Tensor, infinite: str = "") -> float:
        return _ppl_of(answer, logits, ids, infinite)

    logits, ids = text(1, 11, 23)
    got, wanted = ask(logits, ids), _ppl(logits, ids)
    for diagnosis, values in _taken_for_ppl(logits.double(), ids):
        for value in values if isinstance(values, tuple) else (values,):
            expect(not math.isclose(got, value, rel_tol=1e-4), diagnosis)
    _ppl_properties(ask, logits, ids, got)
    should = f"the perplexity should be {wanted:.4f}, yours is {signed(got, 4)}"
    expect(math.isclose(got, wanted, rel_tol=1e-4), should)
    for T, V in ((1, 2), (1, 30), (9, 9), (40, 3)):
        its, value = ask(*text(T, T, V)), _ppl(*text(T, T, V))
        case = f"right for 11 rows of logits and 23 tokens, but for {T} and {V} it is {value:.4f}, yours"
        expect(math.isclose(its, value, rel_tol=1e-4), f"{case} {signed(its, 4)}")
    _extremes(ask)


def text(seed: int, T: int, V: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits (T, V) and ids (T + 1,)."""
    draw = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(T, V, generator=draw), torch.randint(V, (T + 1,), generator=draw)


def _ppl(logits: torch.Tensor, ids: torch.Tensor) -> float:
    """The right answer."""
    return cross_entropy(logits.double(), ids[1:]).exp().item()


def _ppl_of(answer: Callable, logits: torch.Tensor, ids: torch.Tensor, infinite: str) -> float:
    """The answer's number; Wrong, with the lengths, where logits and ids did not fit together."""
    T, V = logits.shape
    mean = "; the mean of the logarithms, and e to that power, is one number"
    shapes = {(T,): f"one number for each token{mean}", (T, V): f"one number for each score{mean}"}
    shapes |= {(V,): f"one number for each entry of the vocabulary{mean}", (T, T): f"T · T numbers{mean}"}
    try:
        value = answer(logits.clone(), ids.clone())
    except (IndexError, RuntimeError, ValueError) as error:
        sizes = set(map(int, re.findall(r"\d+", str(error)))) & {T - 1, T, T + 1}
        unfit = T > 9 and (len(sizes) > 1 or (T in sizes and "out of bounds" in str(error)))
        here = f"here {T} rows and {T + 1} ids ({type(error).__name__}: {error})"
        expect(not unfit, f"logits and ids do not fit together: {ROW}, ids[t + 1]; {here}")
        raise
    return float(array(value, (), "the perplexity", shapes if T > 1 else {}, infinite, infinite))


def _ppl_properties(ask: Callable[..., float], logits: torch.Tensor, ids: torch.Tensor, got: float) -> None:
    """Raises Wrong unless the first id, constants and the order of pairs leave the answer, and V is V."""
    V = logits.shape[1]
    other = ids.clone()
    other[0] = (ids[0] + 1) % V
    first = f"ids[0] changes your answer; nothing predicts it: {ROW}"
    expect(math.isclose(ask(logits, other), got, rel_tol=1e-4), first)
    constant = "more for all scores of a row changes your answer, but no probability: softmax over dim=-1"
    expect(math.isclose(ask(logits + torch.arange(len(logits))[:, None], ids), got, rel_tol=1e-4), constant)
    even = ask(0 * logits, ids)
    as_likely = f"where all {V} tokens are as likely the perplexity is {V}, yours is {signed(even)}"
    expect(math.isclose(even, V, rel_tol=1e-4), as_likely)
    sure = torch.zeros_like(logits).scatter(1, ids[1:, None], 60.0)
    its = ask(sure, ids)
    certain = f"where every token was certain the perplexity is 1, yours is {signed(its)}"
    expect(math.isclose(its, 1, rel_tol=1e-4), certain)
    again = torch.cat([ids[:1], ids[1:].flip(0)])
    turned = ask(logits.flip(0), again)
    expect(
        math.isclose(turned, got, rel_tol=1e-4),
        "rows and tokens together in another order change your answer; each counts the same",
    )


def _extremes(ask: Callable[..., float]) -> None:
    """Raises Wrong where a long text, large scores or an improbable token end in 0 or ∞."""
    logits, ids = text(2, 2000, 40)
    long = "a product of 2,000 probabilities is smaller than any float: add their logarithms"
    far = "e^1000 overflows: log_softmax takes the largest score away first"
    rare = "e^−200 is 0 as a float32, and log 0 is −∞: log_softmax never takes that logarithm"
    odd = logits[:20].clone()
    odd[7, ids[8]] = odd[7].max() - 200
    cases = (logits, ids, long), (logits[:20] + 1000, ids[:21], far), (odd, ids[:21], rare)
    for scores, tokens, trouble in cases:
        try:
            its = ask(scores, tokens, trouble)
        except (OverflowError, ZeroDivisionError, ValueError) as error:
            expect(False, f"{trouble} ({type(error).__name__}: {error})")
        should = _ppl(scores, tokens)
        expect(
            math.isclose(its, should, rel_tol=1e-3),
            f"it should be {should:.4g}, yours is {its:.4g}: {trouble}",
        )


def _taken_for_ppl(logits: torch.Tensor, ids: torch.Tensor) -> Iterator[tuple[str, object]]:
    """What other numbers say about an answer."""
    (T, V), nats = logits.shape, cross_entropy(logits, ids[1:], reduction="none")  # (T,)
    p, mean, total = (-nats).exp(), nats.mean(), nats.sum()
    two, ten = math.log(2), math.log(10)
    yield "that is the loss, in nats; the perplexity is e to that power", mean
    yield "that is the loss, in bits; the perplexity is 2 to that power", mean / two
    base = "{} to the power of a loss in {}: e goes with nats, 2 with bits"
    yield base.format(2, "nats"), 2**mean
    yield base.format("e", "bits"), (mean / two).exp()
    yield base.format(10, "nats"), 10**mean
    yield "e to the power of a log₁₀: e goes with the natural logarithm", (mean / ten).exp()
    yield "the sign is turned: e to the mean of −log p, 1 or more", ((-mean).exp(), -mean, 2**-mean)
    inside = "a mean of probabilities; take the mean of their logarithms"
    yield inside, (p.mean(), 1 / p.mean(), -p.mean().log(), -p.mean().log2())
    yield "a mean of 1 / p; take the mean of the logarithms, then e to that power", (1 / p).mean()
    yield "the logarithm is missing: e to the mean of −log p", ((-p.mean()).exp(), (1 - p).mean().exp())
    yield f"that is the sum; divide by the {T} tokens before e to that power", (total.exp(), total, 2**total)
    yield "that is the probability of the whole text; the perplexity is per token", ((-total).exp(), -total)
    count = f"{T} tokens are predicted, not {{}}: the first of the {T + 1} ids is given"
    yield count.format(T + 1), ((total / (T + 1)).exp(), total / (T + 1))
    yield count.format(T - 1), ((total / (T - 1)).exp(), total / (T - 1))
    yield f"you divide by V = {V}; divide by the {T} tokens", ((total / V).exp(), (mean / V).exp())
    yield (
        "e is taken before you divide: the mean first, then e to that power",
        (total.exp() / T, mean.exp() / T),
    )
    yield from _taken_for_shifted(logits, ids, nats)
    yield from _taken_for_scores(logits, ids, nats)


def _taken_for_shifted(
    logits: torch.Tensor, ids: torch.Tensor, nats: torch.Tensor
) -> Iterator[tuple[str, object]]:
    """What another pairing of rows and tokens gives, or a token left out."""

    def ppl(rows: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss = cross_entropy(rows, tokens)
        return loss.exp(), loss

    none = ppl(logits, ids[:-1]) + ppl(logits[1:], ids[1:-1]) + ppl(logits[:-1], ids[:-2])
    yield f"no shift: row t meets ids[t]; {ROW}, ids[t + 1]", none
    behind = ppl(logits[1:], ids[:-2]) + ppl(logits, ids.roll(1)[:-1])
    yield f"shifted the wrong way: row t meets ids[t − 1]; {ROW}, ids[t + 1]", behind
    twice = ppl(logits[:-1], ids[2:]) + ppl(logits, ids.roll(-2)[:-1])
    yield f"shifted twice: row t meets ids[t + 2]; {ROW}, ids[t + 1]", twice
    yield "the first prediction is left out: row 0 scores ids[1]", (nats[1:].mean().exp(), nats[1:].mean())
    last = f"the last prediction is left out: row {len(nats) - 1} scores ids[{len(nats)}]"
    yield last, (nats[:-1].mean().exp(), nats[:-1].mean())


def _taken_for_scores(
    logits: torch.Tensor, ids: torch.Tensor, nats: torch.Tensor
) -> Iterator[tuple[str, object]]:
    """What other uses of the scores give."""
    places = torch.arange(len(logits)), ids[1:]
    over = -logits.log_softmax(0)[places].mean()
    yield "softmax over the wrong axis: it goes over the V scores of a row, dim=-1", (over.exp(), over)
    all_of_them = (logits.logsumexp((0, 1)) - logits[places]).mean()
    yield "one softmax for all rows; each row has its own, dim=-1", (all_of_them.exp(), all_of_them)
    score = logits[places].mean()
    yield "softmax is missing: these are scores, not log p", ((-score).exp(), -score, score.exp(), score)
    twice = cross_entropy(logits.softmax(1), ids[1:])
    yield "softmax is applied twice: cross_entropy takes logits", (twice.exp(), twice)
    log_p = logits.log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1).mean()
    yield "that is how unsure the model is, its entropy; ids are not used", (entropy.exp(), entropy)
    every = -log_p.mean()
    yield "you average over the whole vocabulary; the tokens that came count", (every.exp(), every)
    likely = -log_p.amax(1).mean()
    yield "you take each row's largest probability; take that of the token that came", (likely.exp(), likely)
    right = (logits.argmax(1) == ids[1:]).double().mean()
    yield "that counts right or wrong guesses; the perplexity is made of log p", (right, 1 - right)
    yield "that is the largest or the middle one; take the mean", (nats.max().exp(), nats.median().exp())


# --- pieces -------------------------------------------------------------------------------------------------

# As if learnt: the parts of each pair are letters or were made before, and no piece is made twice.
MERGES = (
    *(("l", "l"), ("n", "a"), ("a", "n"), ("a", "ll"), ("b", "a"), ("e", "r"), ("na", "na"), ("m", "all")),
    *(("t", "all"), ("a", "a"), ("s", "t"), ("o", "o"), ("st", "all"), ("aa", "a"), ("oo", "oo")),
    *(("r", "e"), ("b", "an"), ("er", "s"), ("s", "mall"), ("re", "s"), ("Ġ", "t"), ("Ġt", "er")),
)
WORDS = (
    *("banana", "stall", "smallers", "aaa", "aaaaa", "oooooo", "ooo", "baaan", "bananana"),
    *("restall", "ereres", "Ġtall", "Ġters", "ban", "bann", "nanan", "anna", "calls"),
)


def pieces(answer: Callable) -> None:
    """Judge 07.2: known mistakes on words of MERGES; then spelling, pairs left and order on learnt ones."""
    found = {word: _pieces_of(answer, word, MERGES) for word in WORDS}
    for diagnosis, way in _taken_for_pieces():
        expect(not all(got == way(word) for word, got in found.items()), diagnosis)
    for word, got in found.items():
        _as_learnt(got, word, MERGES)
    for word in ("q", "a", "Ġ"):
        alone = f"a word of one letter is its only piece: ['{word}']"
        expect(_pieces_of(answer, word, MERGES) == [word], alone)
    for word in ("tall", "aaa"):
        letters = f"where nothing was learnt every letter is a piece: {list(word)}"
        expect(_pieces_of(answer, word, ()) == list(word), letters)
    for seed in range(150):
        word, merges = random_word(seed)
        _as_learnt(_pieces_of(answer, word, merges), word, merges, f"with the merges {list(merges)} ")
    by_hand(answer, "merge", "ByteBPE", "Tokenizer", "BPE")


def learn(words: Sequence[str], n: int) -> tuple[Pair, ...]:
    """At most n joins learnt from words: each time the most frequent pair; of equal ones the first."""
    rows, merges = [list(word) for word in words], []
    for _ in range(n):
        counts = Counter(pair for row in rows for pair in pairwise(row))
        if not counts:
            break
        merges.append(max(counts, key=counts.get))
        rows = [join_pair(row, merges[-1]) for row in rows]
    return tuple(merges)


def random_word(seed: int) -> tuple[str, tuple[Pair, ...]]:
    """A word of a few letters, and what was learnt from others like it."""
    draw = np.random.default_rng(seed)
    letters = list("ab" if seed % 3 else "abcd")
    words = ["".join(draw.choice(letters, draw.integers(2, 9))) for _ in range(6)]
    return "".join(draw.choice(letters, draw.integers(1, 12))), learn(words, int(draw.integers(1, 12)))


def _pieces_of(answer: Callable, word: str, merges: Sequence[Pair]) -> list[str]:
    """The answer's pieces; Wrong where it does not stop, changes merges, or returns no list of strings."""
    own = list(merges)
    endless = f"{word!r} is never done: stop where no neighbours are a learnt pair"
    value = stops(answer, endless, word, own)
    expect(own == list(merges), "merges itself has changed: the next word needs it; work on a copy")
    return strings(value)


def _joins(word: str, merges: Sequence[Pair]) -> Iterator[tuple[Pair, int, int]]:
    """The right joins in their order: the pair, and the letters from start to end that it joins."""
    row = list(word)
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    while found := set(pairwise(row)) & ranks.keys():
        pair, start = min(found, key=ranks.get), 0
        row = join_pair(row, pair)
        for piece in row:
            if piece == "".join(pair):
                yield pair, start, start + len(piece)
            start += len(piece)


def _as_learnt(got: list[str], word: str, merges: Sequence[Pair], case: str = "") -> None:
    """Raises Wrong unless the pieces spell the word, were learnt, leave no pair, and none came too early."""
    yours = f"{case}{word!r} gives {got}"
    expect("".join(got) == word, f"{yours}, which spells {''.join(got)!r}")
    expect(all(got), f"{yours}; an empty piece is none")
    made = {a + b for a, b in merges}
    odd = next((piece for piece in got if len(piece) > 1 and piece not in made), "")
    expect(not odd, f"{yours}, but no merge makes {odd!r}")
    left = next((pair for pair in pairwise(got) if pair in merges), None)
    expect(left is None, f"{yours}: the neighbours {left} are a learnt pair, join them")
    cuts = set(np.cumsum([len(piece) for piece in got]).tolist())
    for pair, start, end in _joins(word, merges):
        crossed = cuts & set(range(start + 1, end))
        here = f"letters {start} to {end - 1}" if word.count("".join(pair)) > 1 else "there"
        early = f"{yours}: {pair}, number {merges.index(pair)}, is learnt before what you joined instead"
        expect(not crossed, f"{early}, {here}")
    right = merge(word, {pair: rank for rank, pair in enumerate(merges)})
    expect(got == right, f"{yours}, it should give {right}")


def _again(
    word: str, choose: Callable[[list[Pair]], Pair], join: Callable[[list[str], Pair], list[str]] = join_pair
) -> list[str]:
    """Join a learnt pair of those present, chosen somehow, until none is left."""
    row = list(word)
    while present := [pair for pair in pairwise(row) if pair in MERGES]:
        row = join(row, choose(present))
    return row


def _in_turn(word: str, join: Callable[[list[str], Pair], list[str]], merges: Sequence[Pair]) -> list[str]:
    """One pass over the merges: with learnt ones, `join_pair` here gives what the right answer does."""
    row = list(word)
    for pair in merges:
        row = join(row, pair)
    return row


def _first_only(row: list[str], pair: Pair) -> list[str]:
    """The first place of the pair alone is joined."""
    at = next((i for i, here in enumerate(pairwise(row)) if here == pair), None)
    return row if at is None else [*row[:at], "".join(pair), *row[at + 2 :]]


def _from_right(row: list[str], pair: Pair) -> list[str]:
    return [piece[::-1] for piece in join_pair([p[::-1] for p in row[::-1]], (pair[1][::-1], pair[0][::-1]))][
        ::-1
    ]


def _not_the_last(row: list[str], pair: Pair) -> list[str]:
    """The last two pieces are never joined."""
    joined = join_pair(row[:-1], pair)
    return [*joined, row[-1]]


def _skipping(row: list[str], pair: Pair) -> list[str]:
    """After a join the next piece is passed over."""
    joined, i = [], 0
    while i < len(row):
        if tuple(row[i : i + 2]) == pair:
            joined += ["".join(pair), *row[i + 2 : i + 3]]
            i += 3
        else:
            joined.append(row[i])
            i += 1
    return joined


def _twice(row: list[str], pair: Pair) -> list[str]:
    """Overlapping pairs are both joined, so that a letter stands in two pieces."""
    joined, used = [], False
    for i, piece in enumerate(row):
        fits = tuple(row[i : i + 2]) == pair
        joined += ["".join(pair)] if fits else [] if used else [piece]
        used = fits
    return joined


def _by_replace(row: list[str], pair: Pair) -> list[str]:
    """Text replaced in the pieces with blanks between: it also meets ends and beginnings of longer ones."""
    return " ".join(row).replace(" ".join(pair), "".join(pair)).split(" ")


def _longest(word: str, backwards: bool = False) -> list[str]:
    """The longest piece there is, again and again, from the left or the right."""
    made, row = {a + b for a, b in MERGES}, []
    while word:
        sizes = [n for n in range(1, len(word) + 1) if (word[-n:] if backwards else word[:n]) in made]
        n = max(sizes, default=1)
        row = [word[-n:], *row] if backwards else [*row, word[:n]]
        word = word[:-n] if backwards else word[n:]
    return row


def _fewest(word: str) -> list[str]:
    """A way with the fewest pieces."""
    made = {a + b for a, b in MERGES}
    best = {0: []}
    for end in range(1, len(word) + 1):
        ways = ([*best[i], word[i:end]] for i in range(end) if end - i == 1 or word[i:end] in made)
        best[end] = min(ways, key=len)
    return best[len(word)]


def _taken_for_pieces() -> Iterator[tuple[str, Callable[[str], list[str]]]]:
    """What other ways of cutting give."""
    rank = MERGES.index
    order = "of the pairs present the one learnt first is joined"
    yield f"those are letters; {order}, again and again", list
    yield "that is the word itself; only what was learnt is joined", lambda w: [w]
    longest = "you take the longest piece that fits, as page 6 did; here {}"
    yield longest.format(order), _longest
    yield longest.format(order) + ", and not from the right", lambda w: _longest(w, True)
    yield f"you look for the fewest pieces; {order}", _fewest
    place = f"you join the pair that stands {{}} in the word; {order}"
    yield place.format("first"), lambda w: _again(w, lambda present: present[0])
    yield place.format("first"), lambda w: _again(w, lambda present: present[0], _first_only)
    yield place.format("last"), lambda w: _again(w, lambda present: present[-1])
    often = f"you join the pair that is most frequent in the word; {order}"
    yield often, lambda w: _again(w, lambda present: max(present, key=present.count))
    yield f"you join the pair learnt last; {order}", lambda w: _again(w, lambda p: max(p, key=rank))
    yield f"you go through merges from the end; {order}", lambda w: _in_turn(w, join_pair, MERGES[::-1])
    yield from _taken_for_joins()


def _taken_for_joins() -> Iterator[tuple[str, Callable[[str], list[str]]]]:
    """What joining too few, too many or the wrong places gives."""
    rank = MERGES.index

    def once(word: str, join: Callable[[list[str], Pair], list[str]] = join_pair) -> list[str]:
        present = [pair for pair in pairwise(word) if pair in MERGES]
        return join(list(word), min(present, key=rank)) if present else list(word)

    yield "you join one pair and stop; go on until no learnt pair is left", once
    yield "you join one pair in one place and stop; go on until none is left", lambda w: once(w, _first_only)
    everywhere = "only the first place of each pair is joined; join it everywhere"
    yield everywhere, lambda w: _in_turn(w, _first_only, MERGES)
    letters = [pair for pair in MERGES if len("".join(pair)) == 2]
    yield "only letters are joined; pieces join with pieces", lambda w: _in_turn(w, join_pair, letters)
    right = "equal letters in a row are joined from the right; join from the left: aaa is aa, a"
    yield right, lambda w: _in_turn(w, _from_right, MERGES)
    end = "the last two pieces of a word are never joined: the loop ends too early"
    yield end, lambda w: _in_turn(w, _not_the_last, MERGES)
    start = "the first two pieces of a word are never joined: the loop begins too late"
    yield start, lambda w: _in_turn(w, lambda row, pair: [row[0], *join_pair(row[1:], pair)], MERGES)
    passed = "after a join the next piece is passed over: na, na stand side by side in banana"
    yield passed, lambda w: _in_turn(w, _skipping, MERGES)
    overlap = "in aaa the middle letter is used twice; a letter belongs to one piece"
    yield overlap, lambda w: _in_turn(w, _twice, MERGES)
    inside = "the pair is found inside longer pieces: replace in a text also meets the end of one"
    yield inside, lambda w: _in_turn(w, _by_replace, MERGES)
    mark = "nothing marks a piece here: no ## and no </w>"
    yield mark, lambda w: [("##" if i else "") + p for i, p in enumerate(_in_turn(w, join_pair, MERGES))]


# --- one step -----------------------------------------------------------------------------------------------


class Token(NamedTuple):
    """A new token's q, k, v (nh, 1, hs), and the keys and values (nh, S, hs) of those before."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor


def token(seed: int, nh: int, S: int, hs: int) -> Token:
    """A random one."""
    draw = torch.Generator().manual_seed(seed)
    return Token(*(torch.randn(nh, T, hs, generator=draw) for T in (1, 1, 1, S, S)))


def step(answer: Callable) -> None:
    """Judge 07.3: the longer cache, attention over all of it; heads, order, scale, an empty cache, sizes."""

    def ask(inputs: Token, case: str = "", infinite: str = "") -> list[np.ndarray]:
        return _step_of(answer, inputs, case, infinite)

    inputs = token(3, 3, 5, 4)
    output, keys, values = ask(inputs)
    _as_appended(keys, values, inputs)
    none_of(output, dict(_taken_for_output(Token(*(part.double() for part in inputs)))))
    _step_properties(ask, inputs, output)
    _as_attended(output, inputs, "")
    for seed, (nh, S, hs) in enumerate(((3, 0, 4), (1, 1, 1), (4, 3, 4), (2, 30, 8), (5, 4, 5))):
        other = token(seed, nh, S, hs)
        case = f"right for nh = 3, S = 5, hs = 4, but for nh = {nh}, S = {S}, hs = {hs} "
        output, keys, values = ask(other, case)
        _as_appended(keys, values, other, case)
        _as_attended(output, other, case)
    far = "e to a score in the hundreds overflows: softmax takes the largest away first"
    large = inputs._replace(q=300 * inputs.q)
    _as_attended(ask(large, infinite=far)[0], large, f"for scores in the hundreds, where {far}, ")
    by_hand(answer, "attention", "scaled_dot_product_attention", "MultiHeadAttention")


def _step_of(answer: Callable, inputs: Token, case: str, infinite: str) -> list[np.ndarray]:
    """The answer's output, keys and values; Wrong where they have other shapes, or an input was changed."""
    nh, S, hs = inputs.keys.shape
    own = Token(*(part.clone() for part in inputs))
    try:
        value = answer(*own)
    except RuntimeError as error:
        axis = re.search(r"must match except in dimension (\d)", str(error))
        wrong = axis and axis[1] != "1"
        expect(
            not wrong,
            f"{case}positions are axis 1: torch.cat([…, …], dim=1); yours joins axis {axis and axis[1]}",
        )
        expect(S, f"{case}your function raised {type(error).__name__}: {error}")
        raise
    except (IndexError, ZeroDivisionError, ValueError) as error:
        expect(S, f"{case}your function raised {type(error).__name__}: {error}")
        raise
    expect(value is not None, "your function returned None: is a return missing?")
    three = isinstance(value, list | tuple) and len(value) == 3
    expect(three, "return three things: the output, the keys and the values, the new ones included")
    for name, part, before in zip(Token._fields, own, inputs, strict=True):
        kept = f"{name} itself has changed; another text may go on from it: make new tensors"
        expect(part.shape == before.shape and torch.equal(part, before), kept)
    wanted = (nh, 1, hs), (nh, S + 1, hs), (nh, S + 1, hs)
    names = "the output", "the keys", "the values"
    parts = zip(value, wanted, names, strict=True)
    return [
        array(part, shape, case + name, _shapes(nh, S, hs, name), infinite, infinite)
        for part, shape, name in parts
    ]


def _shapes(nh: int, S: int, hs: int, name: str) -> dict[tuple[int, ...], str]:
    """What another shape of the output, or of keys and values, tells."""
    if len({1, nh, S, S + 1, hs}) < 5:
        return {}
    if name != "the output":
        alike = f"{name} are"
        return {
            (nh, S, hs): f"{alike} as many as before; those of the new token are appended",
            (
                nh,
                1,
                hs,
            ): f"{alike} those of the new token alone; append them, or is the order of the three wrong?",
            (nh, hs, S + 1): f"{alike} transposed: (nh, S + 1, hs)",
            (nh, S + 2, hs): f"{alike} two more than before; one token is new",
        }
    return {
        (
            nh,
            S + 1,
            hs,
        ): "the output is a row for each token; only the new one asks. It comes first of the three",
        (nh, S, hs): "the output is a row for each token before; only the new one asks",
        (nh, hs): "the output has lost an axis: (nh, 1, hs)",
        (nh, 1, S + 1): "these are weights or scores, one for each token: multiply by the values",
        (nh, 1, S): "these are weights or scores, one for each token before: multiply by the values",
        (1, 1, nh * hs): "the heads are side by side: (nh, 1, hs)",
        (1, nh * hs): "the heads are side by side: (nh, 1, hs)",
        (1, nh, hs): "axes 0 and 1 are exchanged: (nh, 1, hs)",
    }


def _as_appended(keys: np.ndarray, values: np.ndarray, inputs: Token, case: str = "") -> None:
    """Raises Wrong unless the new key and value stand behind the old ones."""
    own = {"keys": (inputs.keys, inputs.k, keys), "values": (inputs.values, inputs.v, values)}
    whole = {name: np.concatenate([old, new], 1) for name, (old, new, _) in own.items()}
    swapped = "keys and values are exchanged: output, keys, values"
    expect(not (np.allclose(keys, whole["values"]) and np.allclose(values, whole["keys"])), case + swapped)
    others = [("v", inputs.v), ("q", inputs.q), ("k", inputs.k)]
    for name, (old, new, got) in own.items():
        front = f"{case}the new token is put in front of the {name}; it comes after them"
        mistakes = {front: np.concatenate([new, old], 1)} if old.shape[1] else {}
        for letter, part in others:
            took = f"{case}{letter} is appended to the {name}; it should be {name[0]}"
            mistakes |= {took: np.concatenate([old, part], 1)} if part is not new else {}
        none_of(got, mistakes)
        expect(
            np.allclose(got[:, :-1], old, 1e-4, 1e-4),
            f"{case}the {name} before have changed; they stay as they are",
        )
        last = f"{case}the last of the {name} should be the new token's {name[0]}"
        expect(np.allclose(got[:, -1:], new, 1e-4, 1e-4), last)


def _attended(inputs: Token) -> np.ndarray:
    """The right output, (nh, 1, hs)."""
    q, k, v, keys, values = (part.double() for part in inputs)
    weights = (q @ torch.cat([keys, k], 1).mT / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights @ torch.cat([values, v], 1)).numpy()


def _as_attended(got: np.ndarray, inputs: Token, case: str) -> None:
    """Raises Wrong at the number farthest from the right output."""
    wanted = _attended(inputs)
    h, _, i = np.unravel_index(abs(got - wanted).argmax(), got.shape)
    number = (
        f"{case}number {i} of head {h} should be {signed(wanted[h, 0, i])}, yours is {signed(got[h, 0, i])}"
    )
    expect(np.allclose(got, wanted, 1e-3, 1e-3), number)


def _step_properties(ask: Callable, inputs: Token, got: np.ndarray) -> None:
    """Raises Wrong where weights do not add up to 1, heads or the order of tokens matter, or at a scale."""
    flat = inputs._replace(v=torch.full_like(inputs.v, 2), values=torch.full_like(inputs.values, 2))
    same = ask(flat)[0]
    equal = "where all values are 2 the output is 2, since weights add up to 1"
    expect(np.allclose(same, 2, 1e-4), f"{equal}; yours is {signed(same.flat[abs(same - 2).argmax()])}")
    others = Token(*(torch.cat([part[:1], 3 * part[1:].flip(-1)]) for part in inputs))
    expect(
        np.allclose(ask(others)[0][0], got[0], 1e-4, 1e-4),
        "another head changes head 0; each stands for itself",
    )
    turned = inputs._replace(keys=inputs.keys.flip(1), values=inputs.values.flip(1))
    expect(
        np.allclose(ask(turned)[0], got, 1e-4, 1e-4),
        "the order of the tokens before changes your output; attention has none",
    )
    lone = token(8, 3, 1, 4)  # one before: its weight and the new one's give the scale of the scores
    lone = lone._replace(v=torch.ones_like(lone.v), values=torch.zeros_like(lone.values))
    weight = ask(lone)[0][:, 0, 0]  # (nh,) of the new token
    inner = (lone.q * (lone.k - lone.keys)).sum((1, 2)).double().numpy()
    expect(
        ((weight > 0) & (weight < 1)).all(),
        f"a token before and a new one have a weight each; yours is {weight} for the new one",
    )
    ratio = ratio_of(np.log(weight / (1 - weight)), inner)
    scale = f"your scores are q · k times {signed(ratio or 0)}; with hs = 4 it is 1 / √hs = 0.500"
    expect(ratio is None or abs(ratio - 0.5) < 1e-3, scale)


def _taken_for_output(inputs: Token) -> Iterator[tuple[str, object]]:
    """What other ways of looking back give."""
    q, k, v, keys, values = inputs
    (nh, _, hs), K, V = keys.shape, torch.cat([keys, k], 1), torch.cat([values, v], 1)
    inner, root = q @ K.mT, math.sqrt(hs)  # (nh, 1, S + 1)
    weights = (inner / root).softmax(-1)
    before = (q @ keys.mT / root).softmax(-1)
    yield "the new token does not see itself: append k and v first, then attend", before @ values
    yield "the output is v: the new token sees itself alone; it sees all before, too", v
    hides = "a causal mask for one row hides all but the first token; the newest sees all: no mask"
    yield f"the output is the first value: {hides}", values[:, :1]
    every = "every token gets weight 1: softmax goes over the tokens, dim=-1, not over an axis of length 1"
    yield every, V.sum(1, keepdim=True)
    yield "softmax goes over the heads; it goes over the tokens, dim=-1", (inner / root).softmax(0) @ V
    yield (
        "one softmax for all heads; each has its own, dim=-1",
        ((inner / root).flatten().softmax(0).view_as(inner) @ V),
    )
    yield from _taken_for_scaled(inner, V, len(k), hs)
    yield "softmax is missing: these are scores, not weights", (inner / root @ V, inner @ V)
    yield "the weights do not add up to 1: divide by their sum", (inner / root).exp() @ V
    yield "that is the mean of all values; the scores decide", V.mean(1, keepdim=True)
    best = V[torch.arange(nh), inner[:, 0].argmax(-1)][:, None]
    yield "that is the value of the best key alone; softmax weighs them all", best
    yield from _taken_for_parts(inputs, K, V, weights)


def _taken_for_scaled(inner: torch.Tensor, V: torch.Tensor, nh: int, hs: int) -> Iterator[tuple[str, object]]:
    """What other scales of the products, (nh, 1, S + 1), give."""
    tokens = inner.shape[-1]
    scales = {
        "not scaled: divide q · k by √hs": 1,
        "divided by hs; by its root": hs,
        "multiplied by √hs; divide": 1 / math.sqrt(hs),
        "divided by √C = √(nh · hs); each head by √hs": math.sqrt(nh * hs),
        "divided by C = nh · hs; by √hs": nh * hs,
        "divided by √nh; by √hs": math.sqrt(nh),
        "divided by the root of the number of tokens; by √hs": math.sqrt(tokens),
        "divided by the root of the number of tokens before; by √hs": math.sqrt(tokens - 1),
    }
    for name, by in scales.items():
        yield f"the scores are {name}", (inner / by).softmax(-1) @ V


def _taken_for_parts(
    inputs: Token, K: torch.Tensor, V: torch.Tensor, weights: torch.Tensor
) -> Iterator[tuple[str, object]]:
    """What other queries, keys, values or heads give."""
    q, k, v, keys, values = inputs
    nh, root = len(q), math.sqrt(q.shape[-1])

    def attend(query: torch.Tensor, ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        return (query @ ours.mT / root).softmax(-1) @ theirs

    yield "the keys are averaged; the values are to be", weights @ K
    yield "q meets the values; it meets the keys", (attend(q, V, V), attend(q, V, K))
    yield "the new key asks; q does", attend(k, K, V)
    yield "the new value asks; q does", attend(v, K, V)
    yield "q stands in the new key's place: append k", attend(q, torch.cat([keys, q], 1), V)
    apart = "weights and values are one place apart: the new key and the new value both stand last"
    yield apart, (weights @ torch.cat([v, values], 1), attend(q, torch.cat([k, keys], 1), V))
    reshaped = (q @ K.reshape(nh, K.shape[2], -1) / root).softmax(-1) @ V
    yield "the keys are reshaped; transpose(1, 2) exchanges axes, and reshape does not", reshaped
    scores = (q @ K.mT).sum(0, keepdim=True)
    mixed = "the heads' scores are mixed: each head has weights of its own"
    found = tuple((scores / s).softmax(-1) @ V for s in (1, root, nh, nh * root, math.sqrt(nh) * root))
    yield mixed, (*found, weights.mean(0, keepdim=True) @ V)
    other = tuple(attend(q.roll(i, 0), K, V) for i in range(1, nh))
    yield "each head meets the keys of another one", (*other, *(weights.roll(i, 0) @ V for i in range(1, nh)))
    yield "the heads stand in another order; keep it", (weights @ V).flip(0)
    yield "q is added; only what attention finds is asked for", weights @ V + q
    yield "v is added once more; it is among the values", weights @ V + v


EXERCISES = (
    Exercise(
        "07.1",
        "Perplexity",
        perplexity,
        "ids[1:] are the tokens that came, (T,): cross_entropy(logits, ids[1:]) is their mean −log p.",
        "def perplexity(logits, ids):\n"
        "    nats = torch.nn.functional.cross_entropy(logits, ids[1:])\n"
        "    return nats.exp().item()",
    ),
    Exercise(
        "07.2",
        "A word by learnt joins",
        pieces,
        "zip(row, row[1:]) are the neighbours; of those in merges take the one with the smallest "
        "merges.index, join it, look again. One pass over merges, each joined everywhere in its turn, gives "
        "the same: what a learnt pair joins was made before it, by one merge alone, so that no pair comes "
        "back after its turn.",
        "def pieces(word, merges):\n"
        "    row = list(word)\n"
        "    while found := [pair for pair in zip(row, row[1:]) if pair in merges]:\n"
        "        i = list(zip(row, row[1:])).index(min(found, key=merges.index))\n"
        "        row[i : i + 2] = [row[i] + row[i + 1]]\n"
        "    return row",
    ),
    Exercise(
        "07.3",
        "One step with a cache",
        step,
        "torch.cat([keys, k], dim=1) first: the new token looks at itself too. Its scores are "
        "(nh, 1, S + 1), and there is no mask, since nothing comes after it.",
        "def step(q, k, v, keys, values):\n"
        "    keys, values = torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1)\n"
        "    scores = q @ keys.transpose(1, 2) / q.shape[-1] ** 0.5\n"
        "    return scores.softmax(dim=-1) @ values, keys, values",
    ),
)
