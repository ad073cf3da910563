"""Widgets: the attention map, and a text box beside it; drawn in the browser, nothing from any network."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import matplotlib as mpl
import numpy as np
import traitlets
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from . import plots

_HERE = Path(__file__).parent
_VIEW = "application/vnd.jupyter.widget-view+json"


class _View(anywidget.AnyWidget):
    # read here, not handed over as a path: anywidget would watch the files and warn where it cannot
    _esm = (_HERE / "widgets.js").read_text(encoding="utf-8")
    _css = (_HERE / "widgets.css").read_text(encoding="utf-8")
    kind = traitlets.Unicode().tag(sync=True)


class AttentionMap(_View):
    """Attention weights as a map: step through layers and heads, point at a cell or walk with the arrow keys.

    The browser gets float32 and shows exactly these values, with each row's sum beside it.

    Args:
        attention: weights ≥ 0 of one sentence, (layers, heads, T, S), (heads, T, S) or (T, S): a
            torch tensor, an array or nested lists. Row t holds what query t gives to each of the S keys.
        tokens: the T queries.
        columns: the S keys; the queries again by default.
        layer: the layer shown first; the attribute `layer` follows the reader.
        head: the head shown first; the attribute `head` follows the reader.

    Raises:
        ValueError: a shape, a number of tokens, a weight or an index is not as described.
    """

    buffer = traitlets.Bytes().tag(sync=True)
    shape = traitlets.List(traitlets.Int()).tag(sync=True)
    tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    columns = traitlets.List(traitlets.Unicode()).tag(sync=True)
    colours = traitlets.List(traitlets.Unicode()).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(0).tag(sync=True)
    selected = traitlets.List(traitlets.Int(), default_value=None, allow_none=True).tag(sync=True)

    _ipython_display_ = None  # ipywidgets 7 (Colab) would show the widget alone, without picture and alt text

    def __init__(
        self,
        attention: ArrayLike,
        tokens: Sequence[str],
        columns: Sequence[str] | None = None,
        *,
        layer: int = 0,
        head: int = 0,
    ) -> None:
        weights = _weights(attention)
        layers, heads, queries, keys = weights.shape
        columns = tokens if columns is None else columns
        super().__init__(
            kind="map",
            buffer=weights.tobytes(),
            shape=list(weights.shape),
            tokens=_names("tokens", tokens, queries),
            columns=_names("columns", columns, keys),
            colours=[to_hex(c) for c in mpl.colormaps[plots.COLOUR_MAP](np.linspace(0, 1, 65))],
            layer=_index("layer", layer, layers),
            head=_index("head", head, heads),
        )

    @property
    def weights(self) -> np.ndarray:
        """What the browser holds: (layers, heads, T, S) float32, read-only."""
        return np.frombuffer(self.buffer, dtype="<f4").reshape(self.shape)

    def picture(self) -> plots.Picture:
        """The map of the current layer and head as a still picture with alt text."""
        shown, largest = self.weights[self.layer, self.head], float(self.weights.max())
        with mpl.rc_context(plots.STYLE):
            figure = Figure(figsize=_figure_size(*shown.shape))
            ax = figure.subplots()
            image = plots.heatmap(ax, shown, self.tokens, self.columns, vmax=largest)
            ax.set(title=f"Attention: layer {self.layer}, head {self.head}", xlabel="key", ylabel="query")
            figure.colorbar(image, ax=ax, label="weight", shrink=0.8).outline.set_visible(False)
            return plots.picture(figure, self._alt())

    def _alt(self) -> str:
        layers, heads, queries, keys = self.shape
        shown = self.weights[self.layer, self.head]
        i, j = np.unravel_index(shown.argmax(), shown.shape)
        return (
            f"Attention map, layer {self.layer} (of {layers}), head {self.head} (of {heads}): "
            f"{queries} queries in rows, {keys} keys in columns. Largest weight: {shown[i, j]:.3f}, "
            f"from query {i} “{self.tokens[i]}” to key {j} “{self.columns[j]}”."
        )

    @traitlets.validate("layer", "head")
    def _in_range(self, proposal: Any) -> int:
        name = proposal.trait.name
        try:
            return _index(name, proposal.value, self.shape[name == "head"])
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None

    @traitlets.validate("selected")
    def _in_map(self, proposal: Any) -> list[int] | None:
        place, (queries, keys) = proposal.value, self.shape[2:]
        if place is None or (len(place) == 2 and 0 <= place[0] < queries and 0 <= place[1] < keys):
            return place
        raise traitlets.TraitError(f"selected must be [query < {queries}, key < {keys}] or None, got {place}")

    def __repr__(self) -> str:
        layers, heads, queries, keys = self.shape
        return f"AttentionMap(layers={layers}, heads={heads}, queries={queries}, keys={keys})"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        return _bundle(self, self, self.picture())


class _TextEntry(_View):
    label = traitlets.Unicode().tag(sync=True)
    button = traitlets.Unicode().tag(sync=True)
    placeholder = traitlets.Unicode().tag(sync=True)
    value = traitlets.Unicode().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)
    html = traitlets.Unicode().tag(sync=True)
    runs = traitlets.Int(0).tag(sync=True)  # counts answers: the browser redraws when it moves


class TextBox(ipywidgets.VBox):
    """A text box: the reader types, presses Enter or the button, and sees below what `on_text` makes of it.

    Args:
        on_text: called with the text; returns a widget (an `AttentionMap`), a `plots.picture(figure, alt)`,
            anything with `_repr_html_`, or a text. What it raises is shown under the box in one line.
        value: the text at first. Where it is not empty, `on_text` runs at once, and an error there is raised.
        label: the name of the box.
        button: what stands on the button.
        placeholder: shown while the box is empty.

    Raises:
        ValueError: `on_text` cannot be called, or the box has no label.
    """

    _ipython_display_ = None  # as above

    def __init__(
        self,
        on_text: Callable[[str], Any],
        *,
        value: str = "",
        label: str = "Text",
        button: str = "Run",
        placeholder: str = "",
    ) -> None:
        if not callable(on_text):
            raise ValueError(f"on_text must be a function of one text, got {type(on_text).__name__}")
        if not label.strip():
            raise ValueError("label must name the box: a screen reader says it")
        self._on_text = on_text
        self.result: Any = None
        self._entry = _TextEntry(
            kind="text", label=label, button=button, placeholder=placeholder, value=value
        )
        self._entry.on_msg(lambda _, content, __: self.submit(content["text"]))
        super().__init__(children=[self._entry])
        if value:
            self._show(value)

    @property
    def value(self) -> str:
        """The text last submitted."""
        return self._entry.value

    @property
    def error(self) -> str:
        """The one line shown in place of a result, or `""`."""
        return self._entry.error

    def submit(self, text: str) -> None:
        """Do what Enter does: run `on_text` on `text`, and show the result or, in one line, the error."""
        self._entry.value = text
        try:
            self._show(text)
        except Exception as error:  # whatever the callback raises belongs in the page, not in a server log
            first = (str(error).strip().splitlines() or [""])[0]
            self._answer(None, error=f"{type(error).__name__}: {first}".rstrip(": "))

    def _show(self, text: str) -> None:
        result = self._on_text(text)
        if isinstance(result, Figure):
            raise TypeError("on_text returned a bare figure: return plots.picture(figure, alt)")
        self._answer(result)

    def _answer(self, result: Any, error: str = "") -> None:
        self.result = result
        is_widget = isinstance(result, ipywidgets.Widget)
        self.children = [self._entry, result] if is_widget else [self._entry]
        with self._entry.hold_sync():
            self._entry.html = "" if is_widget or result is None else _as_html(result)
            self._entry.error = error
            self._entry.runs += 1

    def picture(self) -> plots.Picture:
        """The box and its result as a still picture with alt text."""
        said = f"Text box “{self._entry.label}” holding “{self.value}”."
        if hasattr(self.result, "picture"):
            self_made = self.result.picture()
        elif isinstance(self.result, plots.Picture):
            self_made = self.result
        else:
            return _text_picture(said, "" if self.result is None else str(self.result))
        return plots.Picture(self_made.png, f"{said} Below it: {self_made.alt}", self_made.width)

    def __repr__(self) -> str:
        return f"TextBox(label={self._entry.label!r}, value={self.value!r})"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        return _bundle(self, self._entry, self.picture())


def _weights(attention: ArrayLike) -> np.ndarray:
    """`attention` as (layers, heads, T, S) float32, checked."""
    if hasattr(attention, "detach"):  # a torch tensor, without importing torch
        attention = attention.detach().cpu().float().numpy()
    try:
        with np.errstate(over="ignore"):  # a weight beyond float32 is reported below
            weights = np.asarray(attention, dtype="<f4")
    except (TypeError, ValueError):
        raise ValueError(
            "attention must be one rectangular array of numbers, (layers, heads, T, S)"
        ) from None
    if not 2 <= weights.ndim <= 4 or not weights.size:
        hint = "; take one sentence of the batch" if weights.ndim == 5 else ""
        raise ValueError(f"attention must have shape (layers, heads, T, S), got {weights.shape}{hint}")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("attention must hold finite weights ≥ 0: scores go through a softmax first")
    return weights.reshape((1,) * (4 - weights.ndim) + weights.shape)


def _names(argument: str, names: Sequence[str], count: int) -> list[str]:
    names, what = [str(name) for name in names], "rows" if argument == "tokens" else "columns"
    if len(names) != count:
        raise ValueError(f"{argument} must name the {count} {what} of attention, got {len(names)} names")
    return names


def _index(name: str, value: int, count: int) -> int:
    if not 0 <= value < count:
        raise ValueError(f"{name} must be between 0 and {count - 1}, got {value}")
    return int(value)


def _figure_size(queries: int, keys: int) -> tuple[float, float]:
    inches = max(0.17, min(0.5, 7.5 / max(queries, keys)))
    return 2.6 + inches * keys, 1.5 + inches * queries


def _as_html(result: Any) -> str:
    if isinstance(result, plots.Picture):
        return result._repr_mimebundle_()[0]["text/html"]
    if hasattr(result, "_repr_html_"):
        return result._repr_html_()
    return f'<div style="white-space:pre-wrap">{html.escape(str(result))}</div>'


def _text_picture(said: str, text: str) -> plots.Picture:
    """A text as a picture: strict comparisons skip pictures, and what a model writes differs by machine."""
    lines = [part for line in [said, *text.splitlines()] for part in textwrap.wrap(line, 96) or [""]]
    figure = Figure(figsize=(7, 0.2 * len(lines)))
    figure.text(0, 1, "\n".join(lines), va="top", size=9.5, linespacing=1.35, parse_math=False)
    return plots.picture(figure, f"{said} Below it: {text}" if text else said)


def _bundle(widget: ipywidgets.Widget, view: _View, picture: plots.Picture) -> tuple[dict, dict]:
    """The live widget for a front end with a kernel; picture, alt text and a fixed text for every other.

    `view` is the anywidget whose metadata (what Colab needs to load it) go along with `widget`.
    """
    data, metadata = anywidget.AnyWidget._repr_mimebundle_(view)
    still, alt = picture._repr_mimebundle_()
    live = {**data[_VIEW], "model_id": widget.model_id}
    return {**still, "text/plain": repr(widget), _VIEW: live}, {**metadata, **alt}
