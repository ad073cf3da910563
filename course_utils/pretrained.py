"""Models trained elsewhere, on two roads: embedded (the default, from the package index) or the model hub.

With COURSE_MODELS=hub the originals are loaded at the revisions `data/assets.toml` pins: from the hub's cache
if it holds them, else from the hub (HF_ENDPOINT and HF_HUB_OFFLINE are honoured). A hub that does not answer
costs one sentence and a few seconds, then the embedded model takes over. Weights are safetensors, never
pickles.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from course_utils import data
from course_utils.runtime import DATA, settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBE = 3.0  # seconds the hub has to answer
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
    """
    if name not in NAMES:
        raise ValueError(f"name must be {' or '.join(map(repr, NAMES))}, got {name!r}")
    folder = _hub_folder(data.assets()[f"{name}-hub"]) if settings().models == "hub" else None
    source = "embedded" if folder is None else "hub"
    model, tokenizer = _read(name, folder or _embedded_folder(name), "eager" if attentions else "sdpa")
    return Pretrained(model, tokenizer, ROWS[name, source], source)


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

    bars = logging.is_progress_bar_enabled, logging.disable_progress_bar, logging.enable_progress_bar
    with _quiet(logging, *bars):
        yield


def _hub_folder(asset: data.Asset) -> Path | None:
    """The model in the hub's cache, downloaded if need be; None, after a sentence why, if it cannot be."""
    if cached := _cached_folder(asset):
        return cached
    reason = _unreachable(asset)
    if not reason:
        try:
            return _download(asset)
        except (
            Exception
        ) as error:  # the client's, the network's or the disk's: each means no model from there
            reason = _in_short(error)
    print(f"{asset.hub} is not to be had from the model hub ({reason}): going on with the embedded model.")
    return None


def _cached_folder(asset: data.Asset) -> Path | None:
    """Where the hub's cache holds all of the model at the pinned revision; asks no network."""
    from huggingface_hub import try_to_load_from_cache

    paths = [try_to_load_from_cache(asset.hub, file, revision=asset.revision) for file in HUB_FILES]
    return Path(paths[0]).parent if all(isinstance(path, str) for path in paths) else None


def _download(asset: data.Asset) -> Path:
    """Fetch the model into the hub's cache.

    Without a token: the models are public, and who a reader is logged in as is no business of the course.
    """
    from huggingface_hub import hf_hub_download, utils

    hidden, hide, show = (
        utils.are_progress_bars_disabled,
        utils.disable_progress_bars,
        utils.enable_progress_bars,
    )
    with _quiet(utils.logging, lambda: not hidden(), hide, show):
        paths = [hf_hub_download(asset.hub, file, revision=asset.revision, token=False) for file in HUB_FILES]
    return Path(paths[0]).parent


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
def _quiet(library: ModuleType, shown: Callable, hide: Callable, show: Callable) -> Iterator[None]:
    """Neither bars nor warnings from a library, and afterwards all as it was."""
    bars, verbosity = shown(), library.get_verbosity()
    hide()
    library.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(verbosity)
        if bars:
            show()
