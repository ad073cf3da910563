"""Pictures carry their alt text and refuse to go unlabelled; widgets hold the tensor's own numbers."""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import traitlets
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from IPython.core.formatters import DisplayFormatter
from matplotlib.colors import to_rgb
from PIL import Image

from course_utils import plots, widgets
from course_utils.plots import Picture, heatmap, picture, scatter_words, show, text_colours
from course_utils.widgets import AttentionMap, TextBox

PACKAGE = Path(widgets.__file__).parent
VIEW = "application/vnd.jupyter.widget-view+json"
WORDS = ["one", "two", "three"]


@pytest.fixture(autouse=True)
def no_figure_left():
    yield
    plt.close("all")


def labelled():
    figure, ax = plt.subplots()
    ax.plot([1, 2, 3])
    ax.set(title="A title", xlabel="step", ylabel="loss")
    return figure, ax


def softmaxed(*shape: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3)).softmax(-1).to(dtype)


def luminance(colour) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


class Screen:
    """Stands for the page: what was displayed, what its one handle was given since, and a clock to set."""

    def __init__(self, monkeypatch, watched):
        self.displayed, self.updated, self.now = [], [], 1000.0
        monkeypatch.setattr("IPython.display.display", self.display)
        monkeypatch.setattr(plots, "shows_progress", lambda: watched)
        monkeypatch.setattr(plots, "time", SimpleNamespace(monotonic=lambda: self.now))

    def display(self, shown, display_id=None):
        self.displayed.append((shown, display_id))
        return SimpleNamespace(update=self.updated.append) if display_id else None


# ---- pictures


def test_show_displays_png_with_alt_in_html_and_metadata_and_closes(monkeypatch):
    seen = []
    monkeypatch.setattr("IPython.display.display", seen.append)
    figure, _ = labelled()
    show(figure, 'A line,\n "rising" & straight')
    assert not plt.fignum_exists(figure.number)
    data, metadata = seen[0]._repr_mimebundle_()
    assert data["text/plain"] == 'Figure: A line, "rising" & straight'
    assert metadata["image/png"]["alt"] == 'A line, "rising" & straight'
    assert 'alt="A line, &quot;rising&quot; &amp; straight"' in data["text/html"]
    assert data["image/png"] in data["text/html"]
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert image.format == "PNG"
    assert image.width > metadata["image/png"]["width"]  # finer than shown


def test_the_same_figure_is_the_same_bytes():
    assert picture(labelled()[0], "x").png == picture(labelled()[0], "x").png


@pytest.mark.parametrize("alt", ["", "  ", None])
def test_no_alt_no_picture(alt):
    with pytest.raises(ValueError, match="alt must say"):
        picture(labelled()[0], alt)


def test_only_a_figure_is_shown():
    with pytest.raises(ValueError, match="figure must be a matplotlib Figure, got Axes"):
        picture(labelled()[1], "x")


@pytest.mark.parametrize(
    ("missing", "said"), [("title", "no title"), ("xlabel", "no x label"), ("ylabel", "no y label")]
)
def test_no_title_or_label_no_picture(missing, said):
    figure, ax = labelled()
    ax.set(**{missing: ""})
    with pytest.raises(ValueError, match=said):
        picture(figure, "x")


def test_every_axes_with_data_needs_its_title_and_empty_ones_none():
    figure, (left, right) = plt.subplots(1, 2)
    left.plot([1, 2])
    left.set(title="left", xlabel="x", ylabel="y")
    assert picture(figure, "x")
    right.plot([1, 2])
    right.set(xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match="no title"):
        picture(figure, "x")
    figure.suptitle("both")
    assert picture(figure, "x")


def test_an_axis_turned_off_or_shared_or_labelled_for_all_needs_no_label():
    figure, ax = labelled()
    ax.set(xlabel="", ylabel="")
    ax.set_axis_off()
    assert picture(figure, "x")
    figure, grid = plt.subplots(2, 1, sharex=True)
    for ax in grid:
        ax.plot([1, 2])
        ax.set(title="t", ylabel="y")
    with pytest.raises(ValueError, match="no x label"):
        picture(figure, "x")
    grid[1].set_xlabel("x")
    assert picture(figure, "x")
    grid[1].set_xlabel("")
    figure.supxlabel("x for both")
    assert picture(figure, "x")


def test_a_colour_bar_needs_a_label_and_nothing_else():
    figure, ax = plt.subplots()
    bar = figure.colorbar(heatmap(ax, np.eye(3), WORDS, WORDS), ax=ax)
    ax.set(title="t", xlabel="key", ylabel="query")
    with pytest.raises(ValueError, match="colour bar"):
        picture(figure, "x")
    bar.set_label("weight")
    assert picture(figure, "x")


def test_the_style_survives_grey():
    lines = list(plots.STYLE["axes.prop_cycle"])
    assert len({str(line["linestyle"]) for line in lines}) == len(lines)
    ramp = [luminance(c) for c in mpl.colormaps[plots.COLOUR_MAP](np.linspace(0, 1, 65))]
    assert np.all(np.diff(ramp) > 0)
    with mpl.rc_context():
        plots.use_style()
        assert mpl.rcParams["image.cmap"] == plots.COLOUR_MAP


def test_a_heatmap_writes_its_values_readably():
    matrix = np.linspace(0, 1, 12).reshape(3, 4)
    _, ax = plt.subplots()
    image = heatmap(ax, matrix, WORDS, list("abcd"))
    assert [float(text.get_text()) for text in ax.texts] == [round(v, 2) for v in matrix.flat]
    assert [label.get_text() for label in ax.get_yticklabels()] == WORDS
    for text, value in zip(ax.texts, matrix.flat, strict=True):
        pair = sorted((luminance(text.get_color()), luminance(image.to_rgba(value))))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5  # WCAG 2.2, level AA
    with pytest.raises(ValueError, match=r"weights must have shape \(3, 3\)"):
        heatmap(ax, matrix, WORDS, WORDS)


def test_a_coloured_text_holds_every_token_in_order_and_lines_end_between_tokens():
    tokens = ["Once", " upon", " a", " time", ",", "\n", "she", " saw", " $5_000$"]
    figure = text_colours(tokens, range(9), "Surprise", "bits a piece", columns=14)
    ax, bar = figure.axes
    assert "".join(t.get_text() for t in ax.texts) == "".join(tokens).replace("\n", "⏎")
    lines = {}
    for text in ax.texts:
        x, y = text.get_position()
        lines.setdefault(y, []).append((x, text.get_text()))
    assert len(lines) == 3
    for line in lines.values():
        ends = np.cumsum([len(token) for _, token in line])
        assert [x for x, _ in line] == [0, *ends[:-1]]
        assert ends[-1] <= 14
    assert bar.get_xlabel() == "bits a piece"
    shades = [patch.get_facecolor() for patch in ax.patches]
    assert len(set(shades)) == len(tokens)
    assert {t.get_color() for t in ax.texts} == {"black", "white"}
    picture(figure, "a story")


@pytest.mark.parametrize(("tokens", "values"), [([], []), (["a", "b"], [1.0]), (["a"], [[1.0]])])
def test_a_coloured_text_has_one_value_a_token(tokens, values):
    with pytest.raises(ValueError, match=rf"^values must be one for each of {len(tokens)} tokens"):
        text_colours(tokens, values, "title", "label")


def test_each_model_has_a_line_of_its_own_and_a_cross_where_it_just_ran():
    _, ax = plt.subplots()
    plots.seeds(ax, {"small": [0.1, 0.2], "large": [0.3]}, {"large": 0.31})
    drawn = [(line.get_xdata().tolist(), set(line.get_ydata()), line.get_marker()) for line in ax.lines]
    assert drawn == [([0.1, 0.2], {0}, "o"), ([0.3], {1}, "o"), ([0.31], {1}, "x")]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["small", "large"]
    plt.close("all")


def test_words_on_a_plane_differ_by_marker_as_well_as_colour():
    _, ax = plt.subplots()
    notes = scatter_words(ax, np.arange(6).reshape(3, 2), WORDS, ["a", "b", "a"])
    assert [note.get_text() for note in notes] == WORDS
    assert [len(group.get_offsets()) for group in ax.collections] == [2, 1]
    shapes = [group.get_paths()[0].vertices for group in ax.collections]
    assert shapes[0].shape != shapes[1].shape
    with pytest.raises(ValueError, match="points must have shape"):
        scatter_words(ax, np.zeros((2, 2)), WORDS)


# ---- two networks at play

NUMBERS, TEXTS = [0.5, 1.5, 1.5, 3.0], ["the dog ran .", "a cat sat ."]


@pytest.fixture
def drawn(monkeypatch):
    """The axes of each picture, as they were when it was made."""
    seen, true = [], plots.picture
    monkeypatch.setattr(plots, "_DPI", 30)  # small ones, soon drawn
    monkeypatch.setattr(plots, "picture", lambda figure, alt: seen.append(figure) or true(figure, alt))
    return seen


def duel_view(**options):
    return plots.DuelView("Two networks", "distance (nats)", "What   it shows", **options)


def looks(view, screen, seconds, samples=NUMBERS):
    """A look after each of some pauses."""
    for i, pause in enumerate(seconds):
        screen.now += pause
        view.update(10 * i, [(1.0, 2.0)] * 10 * i, 1 / (i + 1), samples)


def test_a_duel_nobody_looks_at_is_shown_once_at_its_end(monkeypatch, drawn):
    screen, view = Screen(monkeypatch, watched=False), duel_view()
    looks(view, screen, [0, 5, 5])
    assert not drawn  # no time is lost on pictures
    view.show()
    ((shown, display_id),) = screen.displayed
    assert display_id is None
    assert not screen.updated
    data, metadata = shown._repr_mimebundle_()
    assert 'alt="What it shows"' in data["text/html"]
    assert metadata["image/png"]["alt"] == "What it shows"
    assert Image.open(io.BytesIO(shown.png)).format == "PNG"


def test_course_quiet_stands_for_nobody(monkeypatch):
    """By the package's own question, in a kernel."""
    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=True))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=kernel.get_ipython))
    for quiet, ids in (("1", [None]), ("", [True])):
        monkeypatch.setenv("COURSE_QUIET", quiet)
        shown = []
        with monkeypatch.context() as patch:
            display = SimpleNamespace(display=lambda *args, shown=shown, **kwargs: shown.append(kwargs))
            patch.setitem(sys.modules, "IPython.display", display)
            view = duel_view()
            view.update(0, [], 1.0, NUMBERS)
            if quiet:
                view.show()
        assert [kwargs["display_id"] for kwargs in shown] == ids


def test_a_duel_that_is_watched_is_redrawn_in_its_place_once_a_second_at_most(monkeypatch, drawn):
    screen, view = Screen(monkeypatch, watched=True), duel_view()
    looks(view, screen, [0, 0.4, 0.5, 0.2, 0.9, 0.2, 3, 0])  # drawn at 0, 1.1, 2.2 and 5.2
    assert len(drawn) == 4
    ((_, display_id),) = screen.displayed
    assert display_id
    assert len(screen.updated) == 3
    view.show()  # whenever that is
    assert len(screen.displayed) == 1
    assert len(screen.updated) == 4
    assert all(isinstance(shown, Picture) for shown in screen.updated)


@pytest.mark.parametrize("watched", [True, False])
def test_every_look_of_a_duel_is_in_its_picture(monkeypatch, drawn, watched):
    screen, view = Screen(monkeypatch, watched), duel_view()
    looks(view, screen, [0, 0.1, 0.1])
    view.show()
    figure = drawn[-1]
    losses, distance, samples = figure.axes
    assert figure.get_suptitle() == "Two networks"
    assert [(line.get_label(), set(line.get_ydata())) for line in losses.lines] == [
        ("discriminator", {1.0}),
        ("generator", {2.0}),
    ]
    assert [len(line.get_ydata()) for line in losses.lines] == [20, 20]
    assert losses.get_legend()
    (line,) = distance.lines
    assert line.get_xydata().tolist() == [[0, 1], [10, 1 / 2], [20, 1 / 3]]
    assert distance.get_ylabel() == "distance (nats)"
    assert distance.get_ylim()[0] == 0
    assert samples.axison
    assert not plt.get_fignums()


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda row: torch.tensor(row)[:, None]])
def test_numbers_are_counted(monkeypatch, drawn, kind):
    """A density: the bars' areas are the numbers' shares."""
    screen, view = Screen(monkeypatch, watched=False), duel_view()
    looks(view, screen, [0], kind(NUMBERS))
    view.show()
    bars = drawn[-1].axes[2].patches
    areas = [(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_width() * bar.get_height()) for bar in bars]
    found = [(low, high, area) for low, high, area in areas if area > 1e-9]
    assert [area for *_, area in found] == pytest.approx([1 / 4, 1 / 2, 1 / 4])
    for (low, high, _), x in zip(found, (0.5, 1.5, 3.0), strict=True):
        assert low - 1e-6 <= x <= high + 1e-6


def test_true_numbers_stand_beside_generated_ones(monkeypatch, drawn):
    screen, view = Screen(monkeypatch, watched=False), duel_view(truth=torch.linspace(-9, -8, 50))
    looks(view, screen, [0])
    view.show()
    axes = drawn[-1].axes[2]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["generated", "true"]
    assert axes.get_xlim()[0] <= -9
    assert axes.get_xlim()[1] >= 3


def test_texts_are_written_out(monkeypatch, drawn):
    screen, view = Screen(monkeypatch, watched=False), duel_view()
    looks(view, screen, [0, 2], TEXTS)
    view.show()
    axes = drawn[-1].axes[2]
    assert [text.get_text() for text in axes.texts] == ["\n".join(TEXTS)]
    assert not axes.axison
    assert not axes.patches


@pytest.mark.parametrize("samples", [NUMBERS, TEXTS])
@pytest.mark.parametrize("watched", [True, False])
def test_before_the_first_step_a_duel_has_no_losses(monkeypatch, drawn, watched, samples):
    Screen(monkeypatch, watched)
    view = duel_view()
    view.update(0, [], 0.7, samples)
    view.show()
    assert [len(line.get_ydata()) for line in drawn[-1].axes[0].lines] == [0, 0]
    assert drawn[-1].axes[1].lines[0].get_xydata().tolist() == [[0, 0.7]]


def test_what_was_shown_of_a_duel_does_not_grow_with_its_list(monkeypatch, drawn):
    """`gan.duel` appends to one and the same list."""
    Screen(monkeypatch, watched=False)
    view, losses = duel_view(), [(1.0, 2.0)]
    view.update(1, losses, 0.7, NUMBERS)
    losses.append((3.0, 4.0))
    view.show()
    assert len(drawn[-1].axes[0].lines[0].get_ydata()) == 1


# ---- the attention map


@settings(max_examples=25, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=4, max_side=4),
        elements=st.floats(0, np.finfo(np.float32).max, width=32),
    )
)
def test_the_browser_gets_the_tensor_bit_for_bit(array):
    *_, queries, keys = array.shape
    shown = AttentionMap(array, ["q"] * queries, ["k"] * keys)
    assert shown.buffer == array.tobytes()
    assert shown.shape == [1] * (4 - array.ndim) + list(array.shape)
    np.testing.assert_array_equal(shown.weights, array.reshape(shown.shape))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_torch_numpy_and_lists_are_one(dtype):
    tensor = softmaxed(2, 2, 3, 3, dtype=dtype).requires_grad_()
    expected = tensor.detach().float().numpy()
    for given_as in (tensor, tensor.detach().double().numpy(), tensor.tolist()):
        np.testing.assert_array_equal(AttentionMap(given_as, WORDS).weights, expected)


def test_columns_are_the_tokens_unless_told():
    assert AttentionMap(softmaxed(3, 3), WORDS).columns == WORDS
    assert AttentionMap(softmaxed(3, 2), WORDS, ["a", "b"]).columns == ["a", "b"]
    with pytest.raises(ValueError, match="columns must name the 2 columns"):
        AttentionMap(softmaxed(3, 2), WORDS)


@pytest.mark.parametrize(
    ("attention", "said"),
    [
        (softmaxed(3), "shape"),
        (softmaxed(1, 1, 1, 3, 3), "one sentence of the batch"),
        (np.zeros((0, 3)), "shape"),
        ([[1.0, 2.0], [1.0]], "rectangular array of numbers"),
        ("weights", "rectangular array of numbers"),
        (np.full((3, 3), np.nan), "finite weights"),
        (np.full((3, 3), 1e39), "finite weights"),
        (-np.eye(3), "finite weights"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_wrong_tensor_is_one_clear_error(attention, said):
    with pytest.raises(ValueError, match=f"^attention must .*{said}"):
        AttentionMap(attention, WORDS)


@pytest.mark.parametrize(("name", "value"), [("layer", 2), ("layer", -1), ("head", 3)])
def test_layer_and_head_stay_in_range(name, value):
    tensor = softmaxed(2, 3, 3, 3)
    with pytest.raises(ValueError, match=f"^{name} must be between 0 and"):
        AttentionMap(tensor, WORDS, **{name: value})
    shown = AttentionMap(tensor, WORDS, layer=1, head=2)
    with pytest.raises(traitlets.TraitError, match=f"^{name} must be between 0 and"):
        setattr(shown, name, value)
    assert (shown.layer, shown.head) == (1, 2)


def test_the_selection_stays_in_the_map():
    shown = AttentionMap(softmaxed(3, 2), WORDS, ["a", "b"])
    assert shown.selected is None
    shown.selected = [2, 1]
    for wrong in ([3, 0], [0, 2], [-1, 0], [1]):
        with pytest.raises(traitlets.TraitError, match="selected must be"):
            shown.selected = wrong
    assert shown.selected == [2, 1]


def test_tokens_are_counted():
    with pytest.raises(ValueError, match="tokens must name the 3 rows of attention, got 2"):
        AttentionMap(softmaxed(3, 3), WORDS[:2])


def test_the_bundle_holds_the_live_map_the_still_picture_and_a_fixed_text():
    shown = AttentionMap(softmaxed(2, 1, 3, 3), WORDS, layer=1)
    data, metadata = DisplayFormatter().format(shown)  # as IPython asks, of whatever version
    assert data["text/plain"] == repr(shown) == "AttentionMap(layers=2, heads=1, queries=3, keys=3)"
    assert data[VIEW]["model_id"] == shown.model_id
    alt = metadata["image/png"]["alt"]
    assert f'alt="{alt}"' in data["text/html"]
    i, j = np.unravel_index(shown.weights[1, 0].argmax(), (3, 3))
    assert "layer 1 (of 2)" in alt
    assert f"from query {i} “{WORDS[i]}” to key {j} “{WORDS[j]}”" in alt
    before = data["image/png"]
    shown.layer = 0
    assert DisplayFormatter().format(shown)[0]["image/png"] != before


@pytest.mark.parametrize("name", ["widgets.js", "widgets.css"])
def test_nothing_comes_from_a_network(name):
    text = (PACKAGE / name).read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[\w-]+\.\w|\bimport\b|\bfetch\b|@import|url\(|XMLHttp|WebSocket", text)


# ---- the text box


def test_the_text_box_shows_a_widget_below_and_swaps_it():
    box = TextBox(lambda text: AttentionMap(np.eye(len(text.split())), text.split()), value="a b")
    first = box.result
    assert box.children[1] is first
    box.submit("a b c")
    assert box.result.shape == [1, 1, 3, 3]
    assert box.children[1:] == (box.result,)
    assert box.value == "a b c"


def test_a_message_from_the_browser_submits():
    heard = []
    box = TextBox(heard.append)
    box.children[0]._handle_custom_msg({"text": "typed"}, [])
    assert heard == ["typed"]


def test_an_error_is_one_line_and_the_next_text_recovers():
    def careful(text: str) -> str:
        if not text:
            raise ValueError("empty\nwith a second line")
        return text.upper()

    box = TextBox(careful, value="fine")
    runs = box.children[0].runs
    box.submit("")
    assert box.error == "ValueError: empty"
    assert box.result is None
    assert box.children[0].html == ""
    box.submit("again")
    assert (box.error, box.result) == ("", "AGAIN")
    assert box.children[0].runs == runs + 2  # the browser hears of every answer, a repeated one too


def test_a_first_value_that_fails_is_raised_where_it_was_written():
    with pytest.raises(ZeroDivisionError):
        TextBox(lambda text: 1 / 0, value="x")


def test_what_comes_back_is_shown_by_its_kind():
    answers = {
        "text": "<i>plain</i>",
        "picture": Picture(b"png", "a dot", 10),
        "html": type("Card", (), {"_repr_html_": lambda self: "<i>card</i>"})(),
        "none": None,
        "figure": plt.figure(),
    }
    box, html = TextBox(answers.__getitem__), {}
    for kind in answers:
        box.submit(kind)
        html[kind] = box.children[0].html
    assert "&lt;i&gt;plain&lt;/i&gt;" in html["text"]
    assert 'alt="a dot"' in html["picture"]
    assert html["html"] == "<i>card</i>"
    assert html["none"] == html["figure"] == ""
    assert "plots.picture(figure, alt)" in box.error


def test_the_text_box_stands_still_without_a_kernel():
    box = TextBox(str.upper, value="hello", label="Sentence")
    data, metadata = DisplayFormatter().format(box)
    assert data["text/plain"] == "TextBox(label='Sentence', value='hello')"
    assert data[VIEW]["model_id"] == box.model_id
    assert metadata["image/png"]["alt"] == "Text box “Sentence” holding “hello”. Below it: HELLO"
    shown = TextBox(lambda text: AttentionMap(np.eye(2), ["a", "b"]), value="a b")
    assert shown.picture().alt.endswith(shown.result.picture().alt)
    assert shown.picture().png == shown.result.picture().png


def test_a_text_box_needs_a_function_and_a_name():
    with pytest.raises(ValueError, match="on_text must be a function"):
        TextBox("upper")
    with pytest.raises(ValueError, match="label must name"):
        TextBox(str.upper, label=" ")
