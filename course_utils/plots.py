"""Pictures: a style safe in grey and for colour-blind eyes, alt text that travels, plots, a live view."""

from __future__ import annotations

import base64
import html
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike
from PIL import Image

from course_utils.runtime import shows_progress

COLOUR_MAP = "viridis"  # monotone in luminance: survives a grey printer and every common colour blindness
# Okabe & Ito, "Color Universal Design" (2008), without the yellow, which is lost on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":", (0, (6, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 1)))
_DPI, _SHOWN_DPI = 160, 96  # drawn finer than shown, so that it stays sharp on a dense screen
STYLE = {
    # colour is never the only difference
    "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=_DASHES),
    "image.cmap": COLOUR_MAP,
    "figure.figsize": (7.0, 4.0),
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters on every machine
    "font.size": 10,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.8,
    "patch.edgecolor": "white",
    "legend.frameon": False,
    "svg.hashsalt": "course",
}


def use_style() -> None:
    """Make the course's style matplotlib's default: call it once, in a page's setup cell."""
    mpl.rcParams.update(STYLE)


@dataclass(frozen=True)
class Picture:
    """A PNG with its alt text, shown by any notebook front end.

    JupyterLab and nbconvert drop the `alt` in an output's metadata: there only HTML carries it. Viewers that
    read the metadata, or show no HTML, take the PNG. The plain text is the same on every machine.
    """

    png: bytes
    alt: str
    width: int  # in CSS pixels

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        png, alt = base64.b64encode(self.png).decode(), html.escape(self.alt)
        size = f'width="{self.width}" style="max-width:100%"'
        img = f'<img src="data:image/png;base64,{png}" alt="{alt}" {size}>'
        data = {"text/plain": f"Figure: {self.alt}", "text/html": img, "image/png": png}
        return data, {"image/png": {"alt": self.alt, "width": self.width}, "vscode_altText": self.alt}


def picture(figure: Figure, alt: str) -> Picture:
    """Draw `figure` as a `Picture` and close it.

    Raises:
        ValueError: `alt` is empty, or the figure lacks a title or an axis label.
    """
    if not isinstance(figure, Figure):
        raise ValueError(f"figure must be a matplotlib Figure, got {type(figure).__name__}")
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("alt must say in words what the figure shows")
    _require_labels(figure)
    png, width = _render(figure)
    plt.close(figure)
    return Picture(png, " ".join(alt.split()), width)


def show(figure: Figure, alt: str) -> None:
    """Show `figure` under the cell as a PNG with alt text, and close it; raises as `picture` does."""
    from IPython.display import display

    display(picture(figure, alt))


def _render(figure: Figure) -> tuple[bytes, int]:
    """The figure as a PNG of at most 256 colours (a third of the bytes), and its width in CSS pixels.

    "Maximum coverage" moves no colour by more than a few steps of 255; the median cut blurs a rare one.
    """
    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI, facecolor="white", bbox_inches="tight", pad_inches=0.08)
    image = Image.open(drawn).convert("RGB")
    few = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(packed, format="png", optimize=True)
    return packed.getvalue(), round(image.width * _SHOWN_DPI / _DPI)


def _require_labels(figure: Figure) -> None:
    for ax in filter(Axes.has_data, figure.axes):
        if hasattr(ax, "_colorbar"):
            if not (ax.get_xlabel() or ax.get_ylabel()):
                raise ValueError("figure has a colour bar without a label: colorbar(..., label=...)")
            continue
        if not (figure.get_suptitle() or any(ax.get_title(loc) for loc in ("left", "center", "right"))):
            raise ValueError("figure has no title: ax.set_title(...) or figure.suptitle(...)")
        for name in "xy":
            if ax.axison and not _labelled(figure, ax, name):
                raise ValueError(f"figure has no {name} label: ax.set_{name}label(...), or turn the axis off")


def _labelled(figure: Figure, ax: Axes, name: str) -> bool:
    """True where the axis is off, or it, one it is shared with, or the whole figure has a label."""
    shared = getattr(ax, f"get_shared_{name}_axes")().get_siblings(ax)
    texts = [getattr(other, f"get_{name}label")() for other in {ax, *shared}]
    whole = getattr(figure, f"get_sup{name}label")()
    return bool(whole) or any(texts) or not getattr(ax, f"{name}axis").get_visible()


def heatmap(
    ax: Axes,
    weights: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    vmax: float | None = None,
    digits: int = 2,
) -> AxesImage:
    """Draw a matrix of weights ≥ 0 with its names, and up to 12 × 12 each value in its cell.

    Args:
        ax: where to draw; the caller sets title and axis labels.
        weights: (rows, columns).
        vmax: the weight of the lightest colour; the largest weight by default. The darkest is 0.
        digits: digits after the point.

    Raises:
        ValueError: `weights` does not have one row per name in `rows` and one column per name in `columns`.
    """
    matrix = np.asarray(weights, dtype=float)
    if matrix.shape != (len(rows), len(columns)):
        raise ValueError(
            f"weights must have shape ({len(rows)}, {len(columns)}), one per name, got {matrix.shape}"
        )
    image = ax.imshow(matrix, cmap=COLOUR_MAP, vmin=0, vmax=vmax or matrix.max() or 1, aspect="equal")
    _write_names(ax, [_short(name) for name in rows], [_short(name) for name in columns])
    if max(matrix.shape) <= 12:
        _write_values(ax, image, matrix, digits)
    return image


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"


def _write_names(ax: Axes, rows: list[str], columns: list[str]) -> None:
    tilt = 0 if max(map(len, columns)) <= 6 and len(columns) <= 16 else 90
    font = {"fontsize": 9 if max(len(rows), len(columns)) <= 24 else 6, "parse_math": False}
    ax.set_xticks(range(len(columns)), columns, rotation=tilt, **font)
    ax.set_yticks(range(len(rows)), rows, **font)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)


def _write_values(ax: Axes, image: AxesImage, matrix: np.ndarray, digits: int) -> None:
    for (i, j), value in np.ndenumerate(matrix):
        ink = _ink(image.to_rgba(value))
        ax.text(j, i, f"{value:.{digits}f}", ha="center", va="center", color=ink, fontsize=8)


def _ink(ground: Sequence[float]) -> str:
    """Black or white, whichever stands out more on `ground` (WCAG 2.2, relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in ground[:3]]
    return "black" if np.dot(linear, (0.2126, 0.7152, 0.0722)) > 0.179 else "white"


def text_colours(
    tokens: Sequence[str], values: ArrayLike, title: str, label: str, columns: int = 84
) -> Figure:
    """A text, each token on the colour of its value, with a colour bar.

    Args:
        tokens: pieces of the text, blanks included.
        values: one ≥ 0 for each.
        title: of the figure.
        label: of the colour bar.
        columns: letters a line; a line ends at a token.

    Raises:
        ValueError: no token, or not one value each.
    """
    values = np.asarray(values, dtype=float)
    if not len(tokens) or values.shape != (len(tokens),):
        raise ValueError(f"values must be one for each of {len(tokens)} tokens, got shape {values.shape}")
    shown = [token.replace("\n", "⏎") for token in tokens]
    places, row, column = [], 0, 0
    for token in shown:
        if column and column + len(token) > columns:
            row, column = row + 1, 0
        places.append((column, row))
        column += len(token)
    figure, ax = plt.subplots(figsize=(7.6, 0.9 + 0.22 * (row + 1)))
    shades = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, values.max() or 1), COLOUR_MAP)
    for token, (x, y), ground in zip(shown, places, shades.to_rgba(values), strict=True):
        ax.add_patch(mpl.patches.Rectangle((x, y), len(token), 0.92, facecolor=ground))
        font = {"family": "DejaVu Sans Mono", "fontsize": 8, "va": "center", "parse_math": False}
        ax.text(x, y + 0.5, token, color=_ink(ground), **font)
    ax.set(title=title, xlim=(0, columns), ylim=(row + 1, 0))
    ax.axis("off")
    figure.colorbar(shades, ax=ax, orientation="horizontal", label=label, fraction=0.08, aspect=50)
    return figure


def scatter_words(
    ax: Axes, points: ArrayLike, words: Sequence[str], groups: Sequence[str] | None = None
) -> list[mpl.text.Annotation]:
    """Draw words as named points of a plane; each group gets its own colour and its own marker.

    Args:
        ax: where to draw; the caller sets title and axis labels.
        points: (words, 2).
        groups: one name per word, shown in a legend.

    Raises:
        ValueError: the numbers of points, words and groups differ.
    """
    xy, groups = np.asarray(points, dtype=float), [""] * len(words) if groups is None else list(groups)
    if xy.shape != (len(words), 2) or len(groups) != len(words):
        raise ValueError(
            f"points must have shape ({len(words)}, 2), and groups one name per word, "
            f"got {xy.shape} and {len(groups)}"
        )
    for k, group in enumerate(dict.fromkeys(groups)):
        members = [i for i, name in enumerate(groups) if name == group]
        ax.scatter(*xy[members].T, s=28, color=COLOURS[k % 7], marker="osD^vPX"[k % 7], label=group or None)
    if any(groups):
        ax.legend()
    place = {"xytext": (4, 3), "textcoords": "offset points", "fontsize": 8.5}
    return [ax.annotate(word, point, **place) for word, point in zip(words, xy, strict=True)]


def seeds(ax: Axes, runs: Mapping[str, Sequence[float]], live: Mapping[str, float] | None = None) -> None:
    """Draw each model's runs as dots on a line of its own, and the run just made as a cross.

    Args:
        ax: where to draw; the caller sets title and x label.
        runs: a model's scores, one a seed.
        live: the score a model has just earned, where there is one.
    """
    for y, (name, values) in enumerate(runs.items()):
        ax.plot(values, [y] * len(values), "o", color=COLOURS[0], alpha=0.6)
        if live and name in live:
            ax.plot(live[name], y, "x", color="black")
    ax.set_yticks(range(len(runs)), runs)
    ax.set_ylabel("model")


class DuelView:
    """Two networks at play, redrawn while they train where somebody looks on: losses, distance, samples."""

    def __init__(self, title: str, distance: str, alt: str, truth: Sequence[float] = ()) -> None:
        """Name the picture.

        Args:
            title: of the whole.
            distance: what is measured, with its unit.
            alt: of the last picture.
            truth: true samples, to be outlined over generated numbers.
        """
        self.title, self.distance, self.alt, self.truth = title, distance, alt, truth
        self.steps, self.values, self.losses, self.samples = [], [], [], ()
        self._handle, self._drawn = None, 0.0

    def update(
        self, step: int, losses: Sequence[tuple[float, float]], value: float, samples: Sequence
    ) -> None:
        """Take a look.

        Args:
            step: of the generator.
            losses: discriminator's and generator's, of every step so far.
            value: the distance now.
            samples: what the generator makes now: texts to read, or numbers to count.
        """
        self.steps.append(step)
        self.values.append(value)
        self.losses, self.samples = list(losses), samples
        if shows_progress() and time.monotonic() - self._drawn > 1:  # not oftener than an eye needs
            self._put(self._picture())
            self._drawn = time.monotonic()

    def show(self) -> None:
        """Leave the last picture under the cell."""
        self._put(self._picture())

    def _put(self, shown: Picture) -> None:
        from IPython.display import display

        if self._handle:
            self._handle.update(shown)
        else:
            self._handle = display(shown, display_id=shows_progress() or None)

    def _picture(self) -> Picture:
        figure, axes = plt.subplots(1, 3, figsize=(10, 3.1), width_ratios=(1, 1, 1.25))
        figure.suptitle(self.title, x=0.01, ha="left")
        for row, name in zip(np.reshape(self.losses, (-1, 2)).T, ("discriminator", "generator"), strict=True):
            axes[0].plot(row, linewidth=0.8, label=name)
        axes[0].set(xlabel="step", ylabel="loss")
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8)
        axes[1].plot(self.steps, self.values)
        axes[1].set(xlabel="step", ylabel=self.distance, ylim=(0, None))
        if len(self.samples) and isinstance(self.samples[0], str):
            axes[2].axis("off")
            axes[2].text(0, 1, "\n".join(self.samples), va="top", fontsize=9, transform=axes[2].transAxes)
        else:
            axes[2].hist(np.asarray(self.samples, float), bins=80, density=True, label="generated")
            if len(self.truth):
                axes[2].hist(
                    np.asarray(self.truth, float),
                    80,
                    density=True,
                    histtype="step",
                    color="black",
                    label="true",
                )
            axes[2].set(xlabel="x", ylabel="density")
            axes[2].locator_params(axis="x", nbins=5)
            axes[2].legend(fontsize=8)
        return picture(figure, self.alt)
