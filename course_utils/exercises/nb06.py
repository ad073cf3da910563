"""Exercises of notebook 06: a word into pieces, words hidden as BERT does, the loss of hidden words alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from course_utils.bert import wordpiece
from course_utils.exercises import Exercise, expect
from course_utils.exercises.properties import array, by_hand, none_of, signed, stops, strings

UNKNOWN = ["[UNK]"]
FIRST = "un", "u", "und", "play", "player", "hap", "happ", "aff", "s", "y", "re"
LATER = "un", "n", "aff", "a", "f", "able", "s", "ers", "happ", "y", "pen", "play", "o", "ing", "doing"
VOCABULARY = frozenset(FIRST) | {"##" + piece for piece in LATER}
WORDS = (
    *("unaffable", "players", "player", "plays", "unhappy", "happen"),
    *("happily", "replayed", "xylophone", "undoing", "rehap", "uns"),
)


def cut(answer: Callable) -> None:
    """Judge 06.1: known mistakes on a dozen words; marks, vocabulary, greed and spelling on random ones."""
    found = {word: _pieces_of(answer, word, VOCABULARY) for word in WORDS}
    for diagnosis, way in _taken_for_pieces():
        same = all(pieces == way(word) for word, pieces in found.items())
        expect(not same, diagnosis)
    for word, pieces in found.items():
        _as_greedy(pieces, word, VOCABULARY)
    for seed in range(300):
        word, vocabulary = random_word(seed)
        case = f"with the vocabulary {sorted(vocabulary)} "
        _as_greedy(_pieces_of(answer, word, vocabulary), word, vocabulary, case)
    by_hand(answer, "wordpiece", "tokenize", "WordPiece")


def random_word(seed: int) -> tuple[str, frozenset[str]]:
    """A word of a, b and c, and some pieces of these letters."""
    draw = np.random.default_rng(seed)
    letters, pieces = list("abc"), set()
    for _ in range(draw.integers(6, 17)):
        piece = "".join(draw.choice(letters, draw.integers(1, 4)))
        pieces.add(draw.choice(["", "##"]) + piece)
    return "".join(draw.choice(letters, draw.integers(1, 8))), frozenset(map(str, pieces))


def _pieces_of(answer: Callable, word: str, vocabulary: frozenset[str]) -> list[str]:
    """The answer's pieces; Wrong where it does not stop, or returns no list of strings."""
    endless = f"{word!r} is never done: where no piece fits, stop and return {UNKNOWN}"
    value = stops(answer, endless, word, set(vocabulary))
    stuck = wordpiece(word, vocabulary) == UNKNOWN
    alone = f"no piece fits {word!r} to its end: return the list {UNKNOWN}"
    expect(not (stuck and (value is None or value == UNKNOWN[0])), f"{alone}, not {value!r}")
    return strings(value)


def _found(word: str, marks: tuple[str, str] = ("", "##"), step: int = -1) -> list[str]:
    """The pieces, unmarked, that a search finds, and as the last one what is left of the word, or ''.

    Args:
        word: to be cut.
        marks: put before the first piece and before later ones when they are looked up.
        step: −1 tries the longest first, 1 the shortest.
    """
    pieces, start = [], 0
    while start < len(word):
        ends = range(start + 1, len(word) + 1)[::step]
        fits = (end for end in ends if marks[start > 0] + word[start:end] in VOCABULARY)
        end = next(fits, None)
        if end is None:
            break
        pieces.append(word[start:end])
        start = end
    return [*pieces, word[start:]]


def _marked(pieces: list[str], first: str = "", later: str = "##") -> list[str]:
    return [(later if i else first) + piece for i, piece in enumerate(pieces)]


def _whole(found: list[str], first: str = "", later: str = "##") -> list[str]:
    """The pieces with their marks, [UNK] where something is left."""
    return list(UNKNOWN) if found[-1] else _marked(found[:-1], first, later)


def _taken_for_pieces() -> Iterator[tuple[str, Callable[[str], list[str]]]]:
    """What other ways of cutting give."""
    shortest = "you take the shortest piece that fits; try the longest first"
    yield shortest, lambda w: _whole(_found(w, step=1))
    goes_on = "a piece that goes on is in the vocabulary with ## before it"
    yield f"you look pieces up without ##: {goes_on}", lambda w: _whole(_found(w, ("", "")), later="")
    yield f"you look pieces up without ##, and add it later: {goes_on}", lambda w: _whole(_found(w, ("", "")))
    yield "the ## is missing in what you return; it belongs to the piece", lambda w: _whole(_found(w), "", "")
    first = "the first piece begins the word: no ## there"
    yield f"{first}, neither looked up nor returned", lambda w: _whole(_found(w, ("##", "##")), "##")
    yield first, lambda w: _whole(_found(w), "##")
    yield "## marks the pieces that go on, not the first", lambda w: _whole(_found(w, ("##", "")), "##", "")
    yield from _taken_where_stuck()
    back = "you turn back where you get stuck; a piece once taken is kept, the longest that fits"
    yield back, lambda w: next(_all_ways(w), UNKNOWN)
    yield "you look for the fewest pieces; each is the longest that fits", _fewest
    yield "you cut from the right; the first piece begins the word", _from_the_right
    yield "that is the whole word or [UNK]; cut it", lambda w: [w] if w in VOCABULARY else UNKNOWN
    yield "those are letters; take the longest piece that fits", lambda w: _marked(list(w))
    yield "those are letters; take the longest piece that fits", list
    yield "that is the word itself; cut it", lambda w: [w]
    last = "is the whole of what is left tried, too? The longest piece ends at len(word)"
    yield f"every word is [UNK]: {last}", lambda w: UNKNOWN


def _taken_where_stuck() -> Iterator[tuple[str, Callable[[str], list[str]]]]:
    """What else is returned where no piece fits."""
    alone = "where no piece fits the whole word is ['[UNK]'] alone"
    yield f"{alone}; you give the pieces found so far", lambda w: _marked(_found(w)[:-1])
    yield (
        f"{alone}; you add it to the pieces found so far",
        lambda w: _marked(_found(w)[:-1]) + UNKNOWN * (_found(w)[-1] != ""),
    )
    yield (
        f"{alone}; you give what is left as a piece",
        lambda w: _marked([piece for piece in _found(w) if piece]),
    )
    yield f"{alone}, with its brackets", lambda w: ["UNK"] if _found(w)[-1] else _whole(_found(w))
    yield f"{alone}; you return an empty list", lambda w: [] if _found(w)[-1] else _whole(_found(w))
    yield f"{alone}; you return the word", lambda w: [w] if _found(w)[-1] else _whole(_found(w))
    yield f"{alone}; you leave out letters and go on", lambda w: _going_on(w, [])
    yield f"{alone}; you put it for a letter and go on", lambda w: _going_on(w, UNKNOWN)


def _going_on(word: str, instead: list[str]) -> list[str]:
    """The pieces where a letter that fits nothing is replaced."""
    pieces, start = [], 0
    while start < len(word):
        mark = "##" if start else ""
        fits = (end for end in range(len(word), start, -1) if mark + word[start:end] in VOCABULARY)
        end = next(fits, None)
        pieces += instead if end is None else [mark + word[start:end]]
        start = end or start + 1
    return pieces


def _all_ways(word: str, mark: str = "") -> Iterator[list[str]]:
    """All ways of cutting a word, those with a long first piece first."""
    if not word:
        yield []
    for end in range(len(word), 0, -1):
        if mark + word[:end] in VOCABULARY:
            yield from ([mark + word[:end], *rest] for rest in _all_ways(word[end:], "##"))


def _fewest(word: str) -> list[str]:
    return min(_all_ways(word), key=len, default=UNKNOWN)


def _from_the_right(word: str) -> list[str]:
    pieces, end = [], len(word)
    while end:
        fits = (i for i in range(end) if ("##" if i else "") + word[i:end] in VOCABULARY)
        start = next(fits, None)
        if start is None:
            return UNKNOWN
        pieces.insert(0, ("##" if start else "") + word[start:end])
        end = start
    return pieces


def _as_greedy(got: list[str], word: str, vocabulary: frozenset[str], case: str = "") -> None:
    """Raises Wrong at the first piece that greed would not have taken, with what is wrong about it."""
    wanted = wordpiece(word, vocabulary)
    if got == wanted:
        return
    yours = f"{case}{word!r} should become {wanted}, yours is {got}"
    expect(wanted != UNKNOWN, f"{yours}: some of it fits no piece, and [UNK] stands alone")
    expect(got != UNKNOWN, f"{yours}: it can be cut to its end")
    k = next((k for k, pair in enumerate(zip(got, wanted, strict=False)) if pair[0] != pair[1]), None)
    if k is None:
        expect(
            False, f"{yours}: {'pieces are missing' if len(got) < len(wanted) else 'the word is done before'}"
        )
    its, should = got[k], wanted[k]
    expect(k or not its.startswith("##"), f"{yours}: the first piece has no ##")
    expect(not k or its.startswith("##"), f"{yours}: a piece that goes on begins with ##")
    expect(its in vocabulary, f"{yours}: {its!r} is not in the vocabulary")
    expect(not should.startswith(its), f"{yours}: {its!r} fits, but {should!r} is longer")
    expect(False, f"{yours}: {should!r} comes before {its!r}")


# --- hidden words -------------------------------------------------------------------------------------------


class Texts(NamedTuple):
    """A batch to hide words in."""

    ids: torch.Tensor  # (B, T): 1 … 2, padded with 0, in between 100 to 299
    words: torch.Tensor  # (B, T) bool
    mask_id: int = 3
    V: int = 1000


Hidden = tuple[np.ndarray, np.ndarray]  # seen and guess, (B, T) each


def texts(seed: int, B: int, T: int, **sizes: int) -> Texts:
    """Random sentences of T / 2 to T tokens between their two ends."""
    draw = torch.Generator().manual_seed(seed)
    ids, place = torch.randint(100, 300, (B, T), generator=draw), torch.arange(T)
    ends = torch.randint(T // 2, T, (B, 1), generator=draw)  # where [SEP] stands
    ids = ids.masked_fill(place == 0, 1).masked_fill(place == ends, 2).masked_fill(place > ends, 0)
    return Texts(ids, (place > 0) & (place < ends), **sizes)


def hide(answer: Callable) -> None:
    """Judge 06.2: places, shares, fates and random tokens of many words, each drawn by itself."""
    many = texts(0, 1000, 64)
    seen, guess = _hidden(answer, many, 0)
    _drawn(answer)
    ids, words = many.ids.numpy(), many.words.numpy() > 0
    _places(seen, guess, ids, words, many.mask_id)
    _chosen_by_itself(guess, words)
    _share(seen, guess, ids, words)
    _fate_of_its_own(seen, guess, many)
    _fates(seen[guess], ids[guess], many.mask_id)
    _random_tokens(seen, guess, many)
    _not_counted_out(answer)
    _other_texts(answer)
    by_hand(answer, "hide_words", "DataCollatorForLanguageModeling")


def _hidden(answer: Callable, batch: Texts, seed: int) -> Hidden:
    """The answer's seen and guess; Wrong where they are not that."""
    ids, words, mask_id, V = batch
    B, T = ids.shape
    value = answer(ids.clone(), words.clone(), mask_id, V, torch.Generator().manual_seed(seed))
    both = "return two things, (seen, guess), (B, T) each"
    if isinstance(value, tuple | list):
        expect(len(value) == 2, f"{both}; you return {len(value)}")
    shapes = {(B, T): f"{both}; you return one", (T,): f"{both}; the batch is lost"}
    seen, guess = array(value, (2, B, T), "the pair of seen and guess", shapes)
    yes_no = "guess is True or False for each token"
    ints = np.isin(guess, (0, 1)).all()
    expect(ints or not np.isin(seen, (0, 1)).all(), "seen comes first, then guess")
    expect(ints, f"{yes_no}, not the token that is to be guessed")
    expect((seen == np.floor(seen)).all(), "seen holds tokens, whole numbers; one of yours is none")
    return seen.astype(int), guess > 0


def _drawn(answer: Callable) -> None:
    """Raises Wrong unless all chance comes from `draw`."""
    some = texts(5, 20, 40)
    found, again, other = (_hidden(answer, some, seed) for seed in (0, 0, 1))
    own = "asked twice with the same draw you hide other words: generator=draw in each rand and randint"
    expect((np.array(again) == np.array(found)).all(), own)
    fixed = "asked with another draw you hide the same words: use draw, and seed nothing yourself"
    expect((other[1] != found[1]).any() or not found[1].any(), fixed)


def _places(seen: np.ndarray, guess: np.ndarray, ids: np.ndarray, words: np.ndarray, mask_id: int) -> None:
    """Raises Wrong where anything but a word is to be guessed, or what is not to be guessed has changed."""
    expect(guess.any(), "no word is to be guessed; 15 % are")
    only = "only where words is True may a token be chosen"
    for token, name in {1: "[CLS]", 2: "[SEP]", 0: "padding"}.items():
        expect(not guess[(ids == token) & ~words].any(), f"{name} is to be guessed: {only}")
    changed = (seen != ids) & ~guess
    rest = "the random tenth and the tenth that stays are to be guessed too"
    only_mask = (seen[guess] == mask_id).all() and not (changed & ~words).any()
    expect(not (changed.any() and only_mask), f"guess is True only where [MASK] stands; {rest}")
    expect(not (changed & ~words).any(), f"padding, [CLS] or [SEP] is changed in seen: {only}")
    share = changed.sum() / words.sum()
    kept = f"{share:.3f} of the words are changed in seen, but not to be guessed"
    expect(not changed.any(), f"{kept}: what is not chosen stays as it is")


def _share(seen: np.ndarray, guess: np.ndarray, ids: np.ndarray, words: np.ndarray) -> None:
    """Raises Wrong unless 15 % of the words are to be guessed."""
    share = guess.sum() / words.sum()
    stays = (seen[guess] == ids[guess]).mean()
    lost = "guess is True only where seen differs from ids: the tenth that stays is to be guessed too"
    expect(not (stays < 0.01 and abs(share - 0.135) < 0.007), lost)
    turned = f"{share:.3f} of the words are to be guessed: that is the other 85 %"
    expect(abs(share - 0.85) > 0.01, turned)
    expect(abs(share - 0.15) < 0.007, f"{share:.3f} of the words are to be guessed; it should be 0.15")


def _fates(seen: np.ndarray, ids: np.ndarray, mask_id: int) -> None:
    """Raises Wrong unless of the chosen, (N,), eight tenths are masked, one is another, one stays."""
    masked, stays = (seen == mask_id).mean(), (seen == ids).mean()
    other = 1 - masked - stays
    tokens, counts = np.unique(seen[seen != ids], return_counts=True)
    if len(tokens) and counts.max() > 0.7 * len(ids):
        most = tokens[counts.argmax()]
        expect(most == mask_id, f"most chosen words become token {most}; [MASK] is mask_id, here {mask_id}")
    tenths = "of ten, eight become [MASK], one a random token, one stays"
    expect(masked < 0.98, f"each chosen word becomes [MASK]: {tenths}")
    expect(stays < 0.98, f"each chosen word stays as it is in seen: {tenths}")
    fifth = abs(masked - 0.8) < 0.02
    expect(not (fifth and stays < 0.01), f"none stays as it is: {tenths}")
    expect(not (fifth and other < 0.01), f"none becomes a random token: {tenths}")
    half = "the last fifth is shared by halves: of what is not masked 0.5 becomes random, not 0.1"
    expect(not (fifth and (abs(other - 0.02) < 0.01 or abs(stays - 0.02) < 0.01)), half)
    shares = f"{masked:.3f} become [MASK], {other:.3f} another token, and {stays:.3f} stay"
    right = fifth and abs(other - 0.1) < 0.02
    expect(right, f"of the chosen words {shares}; it should be 0.8, 0.1 and 0.1")


OWN = "draw a number for each word, of the shape of ids"


def _chosen_by_itself(guess: np.ndarray, words: np.ndarray) -> None:
    """Raises Wrong where words of a sentence, or of a place in all sentences, are chosen together."""
    places, sentences = _spread(guess, words, 0), _spread(guess, words, 1)
    expect(places < 3, f"the same places are chosen in each sentence: {OWN}")
    expect(sentences < 3, f"some sentences have far more to guess than others: {OWN}")
    even = "as many are to be guessed in each {}; each word by itself has a chance of 0.15"
    expect(sentences > 0.5, even.format("sentence"))
    expect(places > 0.3, even.format("place"))


def _fate_of_its_own(seen: np.ndarray, guess: np.ndarray, batch: Texts) -> None:
    """Raises Wrong where chosen words of a sentence, or of a place in all sentences, share their fate."""
    for fate, name in ((seen == batch.mask_id, "become [MASK]"), (seen == batch.ids.numpy(), "stay")):
        shared = f"whether they {name} is one draw for all chosen words of a"
        expect(_spread(fate & guess, guess, 0) < 3, f"{shared} place in all sentences: {OWN}")
        expect(_spread(fate & guess, guess, 1) < 2, f"{shared} sentence: {OWN}")


def _spread(chosen: np.ndarray, among: np.ndarray, axis: int) -> float:
    """The variance of counts along an axis over what independent draws give: about 1."""
    n, share = among.sum(axis), chosen.sum() / among.sum()
    if share in (0, 1):
        return 1.0
    groups = n > 0
    off = (chosen.sum(axis) - share * n)[groups]
    return float((off**2 / (n[groups] * share * (1 - share))).mean())


def _random_tokens(seen: np.ndarray, guess: np.ndarray, batch: Texts) -> None:
    """Raises Wrong unless each random token is drawn by itself, from all V."""
    ids, V = batch.ids.numpy(), batch.V
    random = guess & (seen != ids) & (seen != batch.mask_id)
    tokens = seen[random]  # (N,), about 1,000
    distinct, N = len(np.unique(tokens)), len(tokens)
    expect(distinct > 1, f"all {N} random tokens are token {tokens[0]}: draw one for each place")
    within = f"the V = {V} tokens count from 0 to {V - 1}"
    low, high = tokens.min(), tokens.max()
    expect(low >= 0 and high < V, f"{within}; your random tokens go from {low} to {high}")
    own = f"the random tokens all stand in the batch; draw them from all V = {V}"
    expect(not np.isin(tokens, ids).all(), own)
    several = [row[places] for row, places in zip(seen, random, strict=True) if places.sum() > 1]
    same = np.mean([len(np.unique(row)) == 1 for row in several])
    expect(same < 0.5, "the random tokens of a sentence are all the same: draw one for each place")
    few = f"only {distinct} different tokens among {N} random ones: draw one for each place"
    expect(distinct > 0.7 * V * (1 - math.exp(-N / V)), few)
    expect(low < 0.05 * V and high > 0.95 * V, f"{within}; your random tokens go from {low} to {high} only")


def _not_counted_out(answer: Callable) -> None:
    """Raises Wrong where each batch has as many words to guess."""
    small = texts(5, 8, 40)
    totals = {int(_hidden(answer, small, seed)[1].sum()) for seed in range(7)}
    always = f"in each of seven draws {max(totals)} words are to be guessed"
    expect(len(totals) > 1, f"{always}; each word by itself has a chance of 0.15")


def _other_texts(answer: Callable) -> None:
    """Raises Wrong where other sizes, or a batch without words, go wrong."""
    batch = texts(1, 600, 30, mask_id=7, V=40)
    seen, guess = _hidden(answer, batch, 2)
    expect((guess <= batch.words.numpy()).all(), "right for T = 64, but for T = 30 other tokens are chosen")
    expect(seen[guess].size and (seen[guess] == 7).mean() > 0.75, "mask_id and V change: read them")
    strange = (seen != batch.ids.numpy()) & (seen >= 40)
    expect(not strange.any(), "for V = 40 a random token is above 39: draw below V")
    for B, T in ((1, 1), (2, 3)):
        ids = torch.arange(B * T).view(B, T) + 50
        seen, guess = _hidden(answer, Texts(ids, torch.zeros(B, T).bool()), 0)
        expect(not guess.any(), f"where words is False throughout, {(B, T)}, nothing is to be guessed")
        expect((seen == ids.numpy()).all(), f"where words is False throughout, {(B, T)}, seen is ids")


# --- their loss ---------------------------------------------------------------------------------------------


class Guessed(NamedTuple):
    """Logits (B, T, V), the tokens (B, T) that stood there, and which of them are to be guessed, bool."""

    logits: torch.Tensor
    ids: torch.Tensor
    guess: torch.Tensor


def guessed(seed: int, B: int, T: int, V: int) -> Guessed:
    """A random batch; a sentence has 1 to T words to guess."""
    draw = torch.Generator().manual_seed(seed)
    logits, ids = 2 * torch.randn(B, T, V, generator=draw), torch.randint(V, (B, T), generator=draw)
    ranks = torch.rand(B, T, generator=draw).argsort(1).argsort(1)
    return Guessed(logits, ids, ranks < 1 + torch.randint(T, (B, 1), generator=draw))


def hidden_loss(answer: Callable) -> None:
    """Judge 06.3: mean nats of the guessed alone; others, added constants, sizes, large logits."""

    def ask(logits: torch.Tensor, ids: torch.Tensor, guess: torch.Tensor, infinite: str = "") -> float:
        n, (B, T, V) = int(guess.sum()), logits.shape
        each = "one loss for each hidden word; their mean is asked for"
        shapes = {(n,): each, (B, T): "a loss for each token; the mean over hidden ones is asked for"}
        shapes |= {(B,): "one loss for each sentence; the mean over all hidden words is asked for"}
        shapes |= {(n, V): f"{each}; gather each word's own token first"}
        value = answer(logits.clone(), ids.clone(), guess.clone())
        return float(array(value, (), "the loss", shapes if n > 1 else {}, infinite, infinite))

    first = logits, ids, guess = guessed(5, 3, 5, 7)
    guess[:] = torch.tensor([[0, 1, 0, 0, 0], [1, 0, 1, 1, 0], [0, 0, 1, 0, 1]]).bool()
    got, wanted = ask(*first), _mean_nats(first)
    none_of(np.array(got), dict(_taken_for_loss(logits.double(), ids, guess)), 1e-5)
    others = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    _hidden_alone(ask, first, others)
    expect(abs(got - wanted) < 1e-4 * wanted, f"the loss should be {wanted:.4f}, yours is {signed(got, 4)}")
    for shape in ((1, 1, 2), (2, 9, 4), (6, 3, 50)):
        batch = guessed(3, *shape)
        its, should = ask(*batch), _mean_nats(batch)
        case = f"right for logits {tuple(logits.shape)}, but for {shape}"
        expect(abs(its - should) < 1e-4 * (1 + should), f"{case} it is {should:.4f}, yours {signed(its, 4)}")
    far = "e^1000 overflows: use cross_entropy or log_softmax, or take the largest logit away first"
    large = Guessed(500 * logits, ids, guess)
    its, should = ask(*large, far), _mean_nats(large)
    expect(abs(its - should) < 1e-3 * should, f"for logits in the thousands it is {should:.1f}: {far}")


def _mean_nats(batch: Guessed) -> float:
    """The right answer."""
    logits, ids, guess = batch
    return cross_entropy(logits[guess].double(), ids[guess]).item()


def _hidden_alone(ask: Callable[..., float], batch: Guessed, others: torch.Tensor) -> None:
    """Raises Wrong where what must not count does: other places, and a constant in a token's logits."""
    logits, ids, guess = batch
    got, shown = ask(*batch), ~guess
    moved = ask(torch.where(shown[..., None], others, logits), ids, guess)
    expect(abs(moved - got) < 1e-4, "the logits of words that are not to be guessed change your loss")
    moved = ask(logits, torch.where(shown, (ids + 1) % logits.shape[-1], ids), guess)
    expect(abs(moved - got) < 1e-4, "tokens that are not to be guessed change your loss")
    moved = ask(logits + others[..., :1], ids, guess)
    constant = "more for all V logits of a place changes your loss: log_softmax goes over V, dim=-1"
    expect(abs(moved - got) < 1e-4, constant)
    V = logits.shape[-1]
    even = ask(0 * logits, ids, guess)
    expect(
        abs(even - math.log(V)) < 1e-4,
        f"where all {V} tokens are as likely the loss is ln {V} = {math.log(V):.4f}, yours {signed(even, 4)}",
    )


def _taken_for_loss(
    logits: torch.Tensor, ids: torch.Tensor, guess: torch.Tensor
) -> Iterator[tuple[str, object]]:
    """What other numbers say about an answer."""
    nats = cross_entropy(logits.mT, ids, reduction="none")  # (B, T)
    (B, T), n, hidden = ids.shape, guess.sum(), nats[guess]
    only = "only the hidden words count"
    yield f"that is the mean over all tokens; {only}", nats.mean()
    yield "that is the sum; take the mean over the hidden words", hidden.sum()
    yield f"you divide by B · T = {B * T}; divide by the {n} hidden words", hidden.sum() / (B * T)
    yield f"you divide by B = {B}; divide by the {n} hidden words", hidden.sum() / B
    yield f"you divide by T = {T}; divide by the {n} hidden words", hidden.sum() / T
    sentences = (nats * guess).sum(1) / guess.sum(1)
    yield "each sentence counts the same for you; each hidden word should", sentences.mean()
    yield "that is the loss of the words that are not hidden", nats[~guess].mean()
    yield f"that is the sum over all tokens; {only}, and their mean", nats.sum()
    uniform = (guess[..., None] * logits).mT, ids
    zeros = "logits set to 0 still cost ln V each: leave the other places out"
    yield zeros, (cross_entropy(*uniform), cross_entropy(*uniform, reduction="sum") / n)
    first = cross_entropy(logits.mT, ids * guess)
    yield "with ids set to 0 token 0 is to be guessed there: leave the other places out", first
    yield from _taken_for_shifted(nats, logits, ids, guess)
    yield from _taken_for_nats(logits, ids, guess, hidden)


def _taken_for_shifted(
    nats: torch.Tensor, logits: torch.Tensor, ids: torch.Tensor, guess: torch.Tensor
) -> Iterator[tuple[str, object]]:
    """What a shift of logits, ids or guess by one place gives."""
    after = cross_entropy(logits[:, :-1].mT, ids[:, 1:], reduction="none")  # (B, T − 1)
    before = cross_entropy(logits[:, 1:].mT, ids[:, :-1], reduction="none")
    round_trip = cross_entropy(logits.mT, ids.roll(-1, 1), reduction="none")
    here = "BERT guesses the word of the place itself"
    yield (
        f"the logits are compared with the next token, as in a causal model; {here}",
        (after[guess[:, 1:]].mean(), after[guess[:, :-1]].mean(), after.mean(), round_trip[guess].mean()),
    )
    yield (
        f"the logits are compared with the token before; {here}",
        (before[guess[:, 1:]].mean(), before[guess[:, :-1]].mean(), before.mean()),
    )
    wrong = nats[:, 1:][guess[:, :-1]].mean(), nats[:, :-1][guess[:, 1:]].mean()
    yield "guess is shifted by one place; it belongs to its own", wrong


def _taken_for_nats(
    logits: torch.Tensor, ids: torch.Tensor, guess: torch.Tensor, hidden: torch.Tensor
) -> Iterator[tuple[str, object]]:
    """What other measures of the same hidden words give."""
    chosen, targets = logits[guess], ids[guess]  # (n, V), (n,)
    p, score = (-hidden).exp(), chosen.gather(1, targets[:, None])
    no_log = "that is made of probabilities without the logarithm; the loss is −log of each"
    yield no_log, (p.mean(), -p.mean(), 1 - p.mean(), p.sum(), -p.sum(), (1 - p).sum())
    yield (
        "the logarithm goes inside the mean: −log of each, then their mean",
        (-p.mean().log(), p.mean().log()),
    )
    yield "the sign is turned: −log p, which is 0 or more", -hidden.mean()
    bits = "nats are asked for, the natural logarithm, not log₂ or log₁₀"
    yield bits, (hidden.mean() / math.log(2), hidden.mean() / math.log(10))
    yield "that is the logit, not the log probability: log_softmax first", (-score.mean(), score.mean())
    twice = "softmax is applied twice: cross_entropy takes logits"
    yield twice, cross_entropy(chosen.softmax(1), targets)
    axis = "the softmax goes over V, dim=-1; yours goes over {}"
    for dim, name in enumerate(("the batch", "the places")):
        yield axis.format(name), -logits.log_softmax(dim)[guess].gather(1, targets[:, None]).mean()
    yield axis.format("the hidden words"), -chosen.log_softmax(0).gather(1, targets[:, None]).mean()
    yield "that is the perplexity, e to the loss", hidden.mean().exp()
    entropy = -(chosen.softmax(1) * chosen.log_softmax(1)).sum(1).mean()
    yield "that is how unsure the model is, its entropy; ids are not used", entropy
    right = (chosen.argmax(1) == targets).double().mean()
    yield "that counts right or wrong guesses; the loss is −log p", (right, 1 - right)
    yield "that is the largest or the middle loss; take the mean", (hidden.max(), hidden.median())


EXERCISES = (
    Exercise(
        "06.1",
        "Cut a word into pieces",
        cut,
        "Two loops: the outer one runs while start < len(word), the inner one lets end go from len(word) "
        "down to start + 1. A for loop's else runs where no break did: that is where a word gets stuck.",
        "def cut(word, vocabulary):\n"
        "    pieces, start = [], 0\n"
        "    while start < len(word):\n"
        "        for end in range(len(word), start, -1):\n"
        '            piece = ("##" if start else "") + word[start:end]\n'
        "            if piece in vocabulary:\n"
        "                break\n"
        "        else:\n"
        '            return ["[UNK]"]\n'
        "        pieces.append(piece)\n"
        "        start = end\n"
        "    return pieces",
    ),
    Exercise(
        "06.2",
        "Hide words as BERT does",
        hide,
        "Three draws of the shape of ids: one chooses, torch.rand(...) < 0.15; a second decides, below 0.8, "
        "up to 0.9, or above; torch.randint(V, ...) is the third. torch.where(condition, a, b) picks.",
        "def hide(ids, words, mask_id, V, draw):\n"
        "    guess = (torch.rand(ids.shape, generator=draw) < 0.15) & words\n"
        "    fate = torch.rand(ids.shape, generator=draw)\n"
        "    random = torch.randint(V, ids.shape, generator=draw)\n"
        "    seen = torch.where(guess & (fate < 0.8), mask_id, ids)\n"
        "    return torch.where(guess & (fate >= 0.9), random, seen), guess",
    ),
    Exercise(
        "06.3",
        "The loss of hidden words only",
        hidden_loss,
        "logits[guess] is (n, V) and ids[guess] (n,): what is left is an ordinary cross-entropy.",
        "def hidden_loss(logits, ids, guess):\n"
        "    return torch.nn.functional.cross_entropy(logits[guess], ids[guess])",
    ),
)
