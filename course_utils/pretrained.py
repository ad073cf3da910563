"""Models trained elsewhere, on two roads: embedded (the default, from the package index) or the model hub.

With COURSE_MODELS=hub the originals are loaded at the revisions `data/assets.toml` pins: from the course's
cache or the hub's own if one holds them, else from the hub (HF_ENDPOINT and HF_HUB_OFFLINE are honoured). A
hub that is silent, slow, breaks off or sends other bytes than it announced costs one sentence, then the
embedded model takes over; a model is kept whole or not at all. Weights are safetensors, never pickles.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import filelock
from tqdm.auto import tqdm

from course_utils import data, runtime
from course_utils.runtime import DATA, settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBE = 3.0  # seconds the hub has to answer
PATIENCE = 20.0  # seconds before a download is judged by its speed
LONGEST = 3600.0  # seconds a file may take at that speed
HUB_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
ROWS = {
    (
        "bert",
        "embedded",
    ): "all-MiniLM-L6-v2 (in BERT's place: a distilled BERT-family encoder of 6 layers, tuned on "
    "sentence pairs; its pooler is untrained, so average over the tokens)",
    ("bert", "hub"): "bert-base-uncased (the original BERT base, 12 layers, from the model hub)",
    (
        "gpt2",
        "embedded",
    ): "story-gpt2 (in GPT-2's place: its architecture with 5.9 M parameters, trained here on children's "
    "stories, which a model of 15 M parameters wrote)",
    ("gpt2", "hub"): "gpt2 (the original, 124 M parameters, from the model hub)",
}
NAMES = tuple(dict.fromkeys(name for name, _source in ROWS))


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A model in evaluation mode with its tokenizer; `row` says in a few words what it is, for tables."""

    model: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    row: str
    source: Literal["embedded", "hub"]


def load(name: str, *, attentions: bool = False) -> Pretrained:
    """Load a pretrained model: `"bert"` (an encoder) or `"gpt2"` (a language model).

    Args:
        name: which of the two.
        attentions: compute attention the plain way, so that `output_attentions=True` returns the weights (the
            default, fused way returns none).

    Returns:
        The embedded model, or the hub's where COURSE_MODELS=hub asks for it and the hub or its cache has it.

    Raises:
        ValueError: an unknown name.
        course_utils.data.AssetError: the embedded model cannot be fetched.
        MemoryError: the weights are larger than the free memory.
    """
    if name not in NAMES:
        raise ValueError(f"name must be {' or '.join(map(repr, NAMES))}, got {name!r}")
    folder = _hub_folder(name) if settings().models == "hub" else None
    source = "embedded" if folder is None else "hub"
    folder = folder or _embedded_folder(name)
    runtime.need_memory(_short(name, source), (folder / "model.safetensors").stat().st_size)
    model, tokenizer = _read(name, folder, "eager" if attentions else "sdpa")
    return Pretrained(model, tokenizer, ROWS[name, source], source)


def _short(name: str, source: str = "embedded") -> str:
    """What a model is called, such as all-MiniLM-L6-v2."""
    return ROWS[name, source].partition(" (")[0]


def _embedded_folder(name: str) -> Path:
    if name == "gpt2":
        return DATA / "models" / "story-gpt2"
    parts = [
        asset.name for asset in data.assets().values() if asset.archive and asset.archive.name == "minilm"
    ]
    paths = [data.fetch(part) for part in parts]
    return paths[0].parent


def _read(name: str, folder: Path, attention: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer from local files alone, without a word."""
    import transformers

    kind = transformers.AutoModel if name == "bert" else transformers.AutoModelForCausalLM
    with without_bars():
        model = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation=attention,
            dtype="float32",
        )
        return model.eval(), transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


@contextmanager
def without_bars() -> Iterator[None]:
    """Let transformers read and write files with neither bars nor warnings."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with _quiet(logging):
            yield
    finally:
        if bars:
            logging.enable_progress_bar()


def _hub_folder(name: str) -> Path | None:
    """The model's folder in a cache, downloaded if need be; None, after a sentence why, if it cannot be."""
    asset = data.assets()[f"{name}-hub"]
    kept = runtime.cache_dir() / asset.name / asset.revision
    if cached := kept if kept.is_dir() else _hub_cache(asset):
        return cached
    reason = _unreachable(asset)
    if not reason:
        try:
            _download(asset, kept)
            return kept
        except Exception as error:  # the client's, the network's or the disk's: no model from there
            reason = _in_short(error)
    print(f"{asset.hub} is not to be had from the model hub ({reason}): going on with {_short(name)}.")
    return None


def _hub_cache(asset: data.Asset) -> Path | None:
    """Where the hub's own cache holds all of the model at the pinned revision; asks no network."""
    from huggingface_hub import try_to_load_from_cache

    paths = [try_to_load_from_cache(asset.hub, file, revision=asset.revision) for file in HUB_FILES]
    return Path(paths[0]).parent if all(isinstance(path, str) for path in paths) else None


def _download(asset: data.Asset, target: Path) -> None:
    """Fetch the model into the folder `target`, which appears whole, its bytes verified, or not at all.

    Without a token: the models are public, and who a reader is logged in as is no business of the course.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import logging

    home = target.parent
    home.mkdir(parents=True, exist_ok=True)
    with (
        filelock.FileLock(home / ".lock"),
        data.workspace(home / ".part") as part,
        _quiet(logging),
        _watchable(),
    ):
        if target.is_dir():  # another process fetched it while this one waited
            return
        where = {"revision": asset.revision, "local_dir": part / "files", "token": False}
        (part / "whole").mkdir()
        for file in HUB_FILES:
            path = Path(hf_hub_download(asset.hub, file, tqdm_class=_Watch, **where))
            _verify(path, asset)
            data.place(path, part / "whole" / file)
        data.place(part / "whole", target)


@contextmanager
def _watchable() -> Iterator[None]:
    """Let the watch hear of every 64 kB: small chunks over plain HTTP, since Xet fetches on its own."""
    from huggingface_hub import constants

    ours = {"DOWNLOAD_CHUNK_SIZE": 2**16, "HF_HUB_DISABLE_XET": True}
    theirs = {name: getattr(constants, name) for name in ours}
    vars(constants).update(ours)
    try:
        yield
    finally:
        vars(constants).update(theirs)


class _Watch(tqdm):
    """The bar of a download, which gives up where the speed would make it take longer than LONGEST."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options | {"disable": not runtime.shows_progress(), "leave": False})
        self._began, self._size, self._got = time.monotonic(), options.get("total") or 0, 0

    def update(self, n: float = 1) -> None:
        super().update(n)
        self._got += n
        seconds = time.monotonic() - self._began
        if seconds > PATIENCE and self._size * seconds > LONGEST * self._got:
            rate = f"{self._got / seconds / 1e3:,.1f} kB/s"
            raise TimeoutError(
                f"{self._size / 1e6:,.1f} MB at {rate} would take over {LONGEST / 60:g} minutes"
            )


def _verify(path: Path, asset: data.Asset) -> None:
    """Hold a file to what the hub announces at this revision: a SHA-256, or git's SHA-1 of a small file.

    A mirror that announces something else is taken at its word.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(asset.hub, path.name, revision=asset.revision)
    announced = get_hf_file_metadata(url, token=False).etag or ""
    git = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    digest = {64: hashlib.sha256(), 40: git}.get(len(announced))
    if digest is None:
        return
    with path.open("rb") as file:
        hashlib.file_digest(file, lambda: digest)
    if digest.hexdigest() != announced:
        raise data.AssetError(f"its {path.name} arrived with other bytes than the hub announces")


def _unreachable(asset: data.Asset) -> str:
    """Why the hub does not hand the model out; empty if it does.

    Asked once, since its client would go on trying; in a thread, since looking up a name knows no timeout.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and its cache has no copy"
    answer = [f"no answer within {PROBE:g} seconds"]

    def ask() -> None:
        try:
            url = hf_hub_url(asset.hub, HUB_FILES[0], revision=asset.revision)
            get_hf_file_metadata(url, token=False, timeout=PROBE)
            answer[0] = ""
        except Exception as error:  # as above
            answer[0] = _in_short(error)

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE)
    return answer[0]


def _in_short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet(logging: ModuleType) -> Iterator[None]:
    """No warnings, neither Python's nor those of a library's `logging`; afterwards all as it was."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
