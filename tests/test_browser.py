"""The widgets and the notebooks in a real JupyterLab, under a real Chromium, by keyboard and by mouse."""

from __future__ import annotations

import re
from pathlib import Path

import lab
import nbformat
import numpy as np
import pytest
import reader

from course_utils.widgets import AttentionMap

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(lab.why_not()), reason=lab.why_not())]

SHAPE = LAYERS, HEADS, T, S = 3, 2, 5, 6  # (layers, heads, T, S)
ROWS = ["the", "cat", "sat", "on", "an-extraordinarily-long-token-that-must-be-shortened"]
COLUMNS = ["le", "chat", "s'est", "assis", "là", "."]
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
CELLS = (
    "import numpy as np\nfrom course_utils.plots import picture\n"
    "from course_utils.widgets import AttentionMap, TextBox",
    f"weights = np.load('weights.npy')\nshown = AttentionMap(weights, {ROWS!r}, {COLUMNS!r})\nshown",
    "def attend(text):\n"
    "    words = text.split()\n"
    "    if not words:\n"
    "        raise ValueError('type at least one word')\n"
    "    return AttentionMap(np.eye(len(words)), words)\n\n"
    "box = TextBox(attend, value='a b', label='Sentence', button='Attend')\nbox",
    "echo = TextBox(str.upper, label='Echo')\necho",
)


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    scores = np.random.default_rng(7).normal(size=SHAPE)
    return (np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, weights: np.ndarray):
    """A JupyterLab with a small notebook of widgets, and a browser."""
    root, work = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("lab")
    np.save(root / "weights.npy", weights)
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), root / "widgets.ipynb")
    with lab.server(root, work) as server, lab.browser(work / "profile") as context:
        yield server, context


@pytest.fixture(scope="module")
def notebook(session):
    """The notebook of widgets, run to its end."""
    with lab.opened(*session, "widgets.ipynb") as page:
        page.run_all()
        page.page.wait_for_selector(".course-map canvas")
        yield page


@pytest.fixture
def shown(notebook):
    """The first map on the page, at layer 0, head 0, nothing selected."""
    root = notebook.page.locator(".course-map").first
    root.scroll_into_view_if_needed()
    for name in ("layer", "head"):
        root.get_by_role("slider", name=name).press("Home")
    root.locator("canvas").press("Escape")
    notebook.page.mouse.move(1, 1)
    return root


COUNT_LISTENERS = """() => {
    window.heard = 0;
    for (const [name, step] of [["addEventListener", 1], ["removeEventListener", -1]]) {
        const original = window[name];
        window[name] = function (type, ...rest) {
            if (type === "resize") window.heard += step;
            return original.call(this, type, ...rest);
        };
    }
}"""


def picture(root) -> str:
    """The pixels of the map, once its next frame is drawn."""
    frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    return root.locator("canvas").evaluate(
        f"async (canvas) => {{ await {frames}; return canvas.toDataURL(); }}"
    )


def said(root) -> tuple[str, np.float32]:
    """The announcement, and the weight in it at full precision."""
    status = root.get_by_role("status")
    return status.inner_text(), np.float32(re.search(r"exactly (\S+)", status.inner_text())[1])


def test_layer_and_head_move_by_keyboard(shown, weights):
    seen = {picture(shown)}
    for layer, head in ((1, 0), (2, 0), (2, 1)):
        name = "head" if head else "layer"
        shown.get_by_role("slider", name=name).press("ArrowRight")
        seen.add(picture(shown))
        assert shown.get_attribute("data-shown") == f"{layer}/{head}"
    assert len(seen) == 4
    shown.locator("canvas").press("ArrowDown")
    assert said(shown)[1] == weights[2, 1, 0, 0]


def test_layer_and_head_move_by_mouse(shown, weights):
    """Clicks at the sliders' ends, then one in the last row of the map."""
    for name, last in (("layer", LAYERS - 1), ("head", HEADS - 1)):
        slider = shown.get_by_role("slider", name=name)
        box = slider.bounding_box()
        slider.click(position={"x": box["width"] - 2, "y": box["height"] / 2})
        assert slider.input_value() == str(last)
    assert shown.get_attribute("data-shown") == f"{LAYERS - 1}/{HEADS - 1}"
    box = shown.locator("canvas").bounding_box()
    shown.locator("canvas").click(position={"x": box["width"] * 0.8, "y": box["height"] - 20})
    text, value = said(shown)
    query, key = (int(number) for number in re.search(r"query (\d+).*key (\d+)", text).groups())
    assert query == T - 1
    assert value == weights[LAYERS - 1, HEADS - 1, query, key]


NAMED = ("slider", "spinbutton", "combobox", "textbox", "button", "application", "img", "group")
NAMELESS = re.compile(rf"- ({'|'.join(NAMED)})(?! \")")


def test_the_accessibility_tree_has_names(notebook, shown):
    tree = notebook.page.locator(".jp-Notebook").aria_snapshot()
    for node in (
        'group "Attention map"',
        'slider "layer"',
        'slider "head"',
        'application "Attention, layer 0, head 0: 5 queries in rows, 6 keys in columns',
        'textbox "Sentence"',
        'button "Attend"',
    ):
        assert node in tree
    for output in notebook.page.locator(".jp-OutputArea-output").all():
        assert not NAMELESS.search(output.aria_snapshot())


def test_arrow_keys_announce_the_exact_weight(shown, weights):
    canvas, place = shown.locator("canvas"), [0, 0]
    canvas.press("ArrowRight")  # enters at the corner
    for key, step in (
        ("ArrowRight", (0, 1)),
        ("ArrowDown", (1, 0)),
        ("ArrowDown", (1, 0)),
        ("ArrowLeft", (0, -1)),
    ):
        canvas.press(key)
        place = [place[0] + step[0], place[1] + step[1]]
        text, value = said(shown)
        assert value == weights[0, 0, *place]
        assert f"“{ROWS[place[0]]}”" in text
        assert f"“{COLUMNS[place[1]]}”" in text
    canvas.press("End")
    canvas.press("ArrowRight")  # the edge holds
    assert said(shown)[1] == weights[0, 0, place[0], S - 1]


def test_every_weight_on_the_way_through_the_map(shown, weights):
    canvas, seen = shown.locator("canvas"), []
    canvas.press("ArrowRight")
    for row in range(T):
        canvas.press("Home")
        for _ in range(S):
            seen.append(said(shown)[1])
            canvas.press("ArrowRight")
        if row < T - 1:
            canvas.press("ArrowDown")
    np.testing.assert_array_equal(np.reshape(seen, (T, S)), weights[0, 0])


def test_hover_tells_the_cell_and_leaving_goes_back(shown, weights):
    canvas = shown.locator("canvas")
    canvas.press("ArrowRight")
    before = said(shown)
    box = canvas.bounding_box()
    heard = set()
    for x in np.linspace(0, box["width"], 40):
        shown.page.mouse.move(box["x"] + x, box["y"] + box["height"] - 20)
        heard.add(said(shown)[1])
    assert set(weights[0, 0, T - 1]) <= heard  # the last row, from its first key to its last
    shown.page.mouse.move(1, 1)
    assert said(shown) == before


def test_row_sums_stand_beside_the_rows(shown, weights):
    picture(shown)
    sums = [float(text) for text in shown.get_attribute("data-sums").split()]
    np.testing.assert_allclose(sums, weights[0, 0].astype(float).sum(-1), atol=0.5e-3)


def test_focus_goes_layer_head_map(shown):
    names = []
    shown.get_by_role("slider", name="layer").focus()
    for _ in range(3):
        names.append(shown.page.evaluate("() => document.activeElement.getAttribute('aria-label')"))
        suppressed = shown.page.evaluate("() => document.activeElement.dataset.lmSuppressShortcuts")
        assert suppressed == "true"
        shown.page.keyboard.press("Tab")
    assert names[:2] == ["layer", "head"]
    assert names[2].startswith("Attention, layer 0, head 0: 5 queries in rows, 6 keys in columns")


def test_the_kernel_hears_the_selection(notebook, shown):
    shown.get_by_role("slider", name="layer").press("ArrowRight")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        shown.locator("canvas").press(key)
    assert evaluate(notebook, "shown.layer, shown.head, shown.selected") == "(1, 0, [1, 1])"


def evaluate(notebook, expression: str) -> str:
    """What the kernel answers, asked through a new last cell of the page."""
    page = notebook.page
    before = page.locator(".jp-CodeCell").count()
    page.locator(".jp-CodeCell .cm-content").last.click()
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    cell = page.locator(".jp-CodeCell").nth(before)
    cell.locator(".cm-content").click()
    page.keyboard.insert_text(expression)
    page.keyboard.press("Control+Enter")
    return cell.locator(".jp-OutputArea-output pre").inner_text(timeout=15_000)


def test_the_text_box_answers_enter_and_button(notebook):
    page = notebook.page
    box = page.get_by_role("textbox", name="Sentence")
    box.fill("one two three")
    box.press("Enter")
    page.get_by_role("application", name=re.compile("3 queries in rows")).wait_for()
    box.fill("four words this time")
    page.get_by_role("button", name="Attend").click()
    fresh = page.get_by_role("application", name=re.compile("4 queries in rows"))
    fresh.wait_for()
    assert page.locator(".course-map").count() == 2  # the old map is gone
    fresh.press("ArrowRight")
    assert "query 0 “four” → key 0 “four”" in page.locator(".course-map").nth(1).inner_text()


def test_a_replaced_map_takes_its_listeners_along(notebook):
    page = notebook.page
    page.evaluate(COUNT_LISTENERS)
    box = page.get_by_role("textbox", name="Sentence")
    for count in (6, 7, 8):
        box.fill("word " * count)
        box.press("Enter")
        page.get_by_role("application", name=re.compile(f"{count} queries in rows")).wait_for()
    page.wait_for_function("() => window.heard === 0", timeout=5000)  # one came for each that went


def test_the_text_box_shows_an_error_in_one_line_and_recovers(notebook):
    page = notebook.page
    box = page.get_by_role("textbox", name="Sentence")
    box.fill(" ")
    box.press("Enter")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text() == "ValueError: type at least one word"
    assert box.get_attribute("aria-invalid") == "true"
    box.fill("fine again")
    box.press("Enter")
    page.get_by_role("application", name=re.compile("2 queries in rows")).wait_for()
    assert alert.count() == 0


def test_the_text_box_shows_text_as_text(notebook):
    page = notebook.page
    box = page.get_by_role("textbox", name="Echo")
    box.fill("<b>bold</b>")
    box.press("Enter")
    page.get_by_text("<B>BOLD</B>").wait_for()


def test_the_map_follows_the_theme(notebook, shown):
    light = picture(shown)
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.theme(theme)
        assert (picture(shown) == light) is theme.endswith("Light")


def test_a_stored_page_shows_the_still_picture_with_its_alt(session, weights):
    server, context = session
    shown = AttentionMap(weights, ROWS, COLUMNS, layer=2)
    data, metadata = shown._repr_mimebundle_()
    output = nbformat.v4.new_output("execute_result", data, metadata=metadata, execution_count=1)
    cell = nbformat.v4.new_code_cell("shown", outputs=[output], execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), server.root / "stored.ipynb")
    with lab.opened(server, context, "stored.ipynb") as stored:
        image = stored.page.get_by_role("img", name=shown.picture().alt, exact=True)
        image.wait_for()
        assert image.evaluate("image => image.naturalWidth") > 300


def test_a_cell_that_raises_is_found_out(session):
    cells = [nbformat.v4.new_code_cell(source) for source in ("1 / 0", "1 / 0", "'after'")]
    cells[0].metadata.tags = [lab.TAG]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), session[0].root / "raises.ipynb")
    with (
        lab.opened(*session, "raises.ipynb") as notebook,
        pytest.raises(AssertionError, match=r"code cell 1 \(from 0\) raised \['ZeroDivisionError"),
    ):
        notebook.run_all()


def test_nothing_left_loopback_and_no_error_was_logged(notebook):
    notebook.check_quiet()


@reader.each_page(quick="02")
def test_a_page_runs_in_lab_and_its_widgets_answer(session, path: Path):
    with lab.ran(path, *session, timeout=3600) as notebook:
        assert notebook.page.locator(".jp-OutputArea img:not([alt])").count() == 0
        for box in notebook.page.locator(".course-text").all():
            ask_more(box)
        for shown in notebook.page.locator(".course-map").all():
            walk_through(shown)
        for output in notebook.page.locator(".jp-OutputArea-output").all():
            assert not NAMELESS.search(output.aria_snapshot())
        notebook.check_quiet()


def ask_more(box) -> None:
    """A text a little longer than the one in the box gets an answer, and no error."""
    output = "box => box.closest('.jp-OutputArea-output').innerHTML"
    entry, before = box.get_by_role("textbox"), box.evaluate(output)
    entry.fill(f"{entry.input_value()} It is.")
    entry.press("Enter")
    box.page.wait_for_function("box => box.getAttribute('aria-busy') === 'false'", arg=box.element_handle())
    assert not box.get_by_role("alert").is_visible()
    assert box.evaluate(output) != before


def walk_through(shown) -> None:
    """Layer and head move by keyboard where there are several, and a cell tells a weight."""
    shown.scroll_into_view_if_needed()
    for slider in shown.get_by_role("slider").all():
        before = slider.input_value()
        slider.press("Home" if before != "0" else "End")
        assert slider.input_value() != before
    canvas = shown.locator("canvas")
    for key in ("Escape", "ArrowRight", "ArrowDown", "End"):
        canvas.press(key)
    assert 0 <= said(shown)[1] <= 1
