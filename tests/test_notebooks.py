"""The notebooks as a reader meets them: shown code, outputs, prose, claims, exercises, pictures."""

from __future__ import annotations

import ast
import importlib
import re
import socket
import statistics
import subprocess
import symtable
import sys
from collections import Counter
from itertools import pairwise

import nbformat
import pytest
from reader import code_cells, tags

from course_utils import sync
from course_utils.claims import record
from course_utils.exercises import exercises

NOTEBOOKS = sync.notebooks()
LONG = ("03", "06", "07")  # may hold 4,500 words
NOISY = ("01", "05", "07")  # may ignore 25 % of their outputs
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|Users|mnt|content|opt|usr|var|work)/|[A-Z]:\\\\")
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def page(path):
    """What its file name begins with, 03b say."""
    return path.stem.partition("_")[0]


def read(path):
    return nbformat.read(path, as_version=4)


def lines(cell):
    """Lines that do something: neither blank nor comment."""
    return [line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")]


def shown_definitions():
    return [
        (path, name, cell.source)
        for path in NOTEBOOKS
        for cell in code_cells(path)
        if (found := sync.shown(cell.source))
        for name in [f"{found[0]}.{name}" for name in found[1]]
    ]


def taught(module):
    return getattr(importlib.import_module(f"course_utils.{module}"), "__taught__", [])


@each
def test_valid_and_executed_in_order(path):
    notebook = read(path)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    widgets = notebook.metadata.get("widgets")
    assert widgets is None or "state" in widgets["application/vnd.jupyter.widget-state+json"]


@each
def test_no_control_without_a_name(path):
    """The handles of ipywidgets' sliders have none that a screen reader could say."""
    assert not [cell.source for cell in code_cells(path) if re.search(r"ipywidgets\.\w*Slider", cell.source)]


@each
def test_no_errors_warnings_or_trailing_semicolons(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            assert output.output_type != "error" or "raises-exception" in tags(cell), cell.source
            assert output.get("name") != "stderr", f"a warning or a progress bar is stored:\n{cell.source}"
        assert not cell.source.rstrip().endswith(";"), cell.source


@each
def test_no_path_of_a_machine(path):
    for cell in read(path).cells:
        text = cell.source + "".join(str(output) for output in cell.get("outputs", []))
        assert not MACHINE_PATH.search(re.sub(r"base64,[^\"']*|'image/png': '[^']*'", "", text)), cell.source


@each
def test_every_picture_has_alt_text(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            assert "![](" not in cell.source
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                assert output.metadata["image/png"]["alt"].strip(), cell.source
            for image in re.findall(r"<img[^>]*>", output.get("data", {}).get("text/html", "")):
                assert re.search(r'alt="[^"]+"', image), cell.source


@each
def test_cells_are_short(path):
    sizes = [len(lines(cell)) for cell in code_cells(path)]
    for cell, size in zip(code_cells(path), sizes, strict=True):
        limit = 40 if sync.shown(cell.source) and "class " in cell.source else 20
        assert size <= limit, f"{size} lines:\n{cell.source}"
    assert 4 <= statistics.median(sizes) <= 8


@each
def test_prose_carries_the_code(path):
    cells = read(path).cells
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    code = sum(len(lines(cell)) for cell in code_cells(path))
    introduced = [a.cell_type == "markdown" for a, b in pairwise(cells) if b.cell_type == "code"]
    assert 1500 <= words <= (4500 if path.stem[:2] in LONG else 3000)
    assert 6 <= words / code <= 12, f"{words} words, {code} lines"
    assert sum(introduced) >= 0.85 * len(introduced), f"{sum(introduced)} of {len(introduced)}"


@each
def test_ignored_outputs_are_few_and_followed_by_an_assertion(path):
    cells = code_cells(path)
    ignored = [i for i, cell in enumerate(cells) if "nbval-ignore-output" in tags(cell)]
    assert len(ignored) <= (0.25 if path.stem[:2] in NOISY else 0.15) * len(cells)
    for i in ignored:
        assert cells[i].metadata.get("reason", "").strip(), f"no reason given:\n{cells[i].source}"
        assert re.search(r"\bassert\b|\bverdict\(", cells[i + 1].source), cells[i + 1].source
    assert "NBVAL_IGNORE_OUTPUT" not in path.read_text("utf-8"), "use the tag, which carries a reason"


@each
def test_opens_and_ends_like_its_siblings(path):
    cells = read(path).cells
    opening, number = cells[0].source, page(path)
    assert opening.startswith(f"# {number.lstrip('0')} · ")
    for part in ("colab-badge.svg", f"notebooks/{path.name})", "you can", "**Needs**", "**Time**"):
        assert part in opening, part
    ending = "\n".join(cell.source for cell in cells[len(cells) // 2 :])
    heads = ["## What we proved", "## Exercises", "## Further reading"]
    assert sorted(heads, key=ending.index) == heads
    assert "Next: " in cells[-1].source
    assert f'verdicts("{number}")' in ending
    assert read(path).metadata["course"].keys() == {"seconds", "megabytes"}


@each
def test_setup_cell_and_address_are_the_common_ones(path):
    (setup,) = [cell for cell in code_cells(path) if "setup" in tags(cell)]
    assert setup.source == sync.setup_cell()
    for cell in read(path).cells:
        assert cell.source == sync.stamped(cell.source)


@each
def test_shown_code_equals_the_package(path):
    for cell in code_cells(path):
        if found := sync.shown(cell.source):
            module, names = found
            assert set(names) <= set(taught(module)), f"not in {module}.__taught__: {names}"
            assert sync.tree(cell.source) == sync.tree(sync.fresh(cell.source)), cell.source


def test_each_taught_definition_has_one_home():
    homes = Counter(name for _, name, _ in shown_definitions())
    assert {name: n for name, n in homes.items() if n != 1} == {}
    modules = {path.stem for path in sync.PACKAGE.glob("*.py")} - {"__init__"}
    wanted = {f"{module}.{name}" for module in modules for name in taught(module)}
    assert wanted == set(homes)


@each
def test_each_claim_has_its_one_cell(path):
    here = [claim.id for claim in record().values() if claim.notebook == page(path)]
    marks = [
        (tag.removeprefix("claim-"), cell)
        for cell in code_cells(path)
        for tag in tags(cell)
        if "claim-" in tag
    ]
    given = Counter(re.findall(r'verdict\(\s*"(\w+)"', "\n".join(cell.source for cell in code_cells(path))))
    assert sorted(mark for mark, _ in marks) == sorted(here)
    for mark, cell in marks:
        assert f'"{mark}"' in cell.source
        assert given[mark] == 1
        assert record()[mark].verdict


def scopes(table):
    yield table
    for child in table.get_children():
        yield from scopes(child)


def binds(source):
    """The names a cell gives a value, imports and definitions of the package left out."""
    symbols = symtable.symtable(source, "cell", "exec").get_symbols()
    shown = set(sync.shown(source)[1]) if sync.shown(source) else set()
    return {s.get_name() for s in symbols if s.is_assigned() and not s.is_imported()} - shown


def rests_on(source):
    """The names a cell takes from those above it."""
    top = symtable.symtable(source, "cell", "exec")
    used = {s.get_name() for t in scopes(top) for s in t.get_symbols() if s.is_global() or t is top}
    return used - {s.get_name() for s in top.get_symbols() if s.is_assigned()}


@each
def test_no_later_cell_rebinds_what_a_claim_rests_on(path):
    """So that a claim's cell gives its verdict whenever it is run again."""
    cells = code_cells(path)
    for i, cell in enumerate(cells):
        if any("claim-" in tag for tag in tags(cell)):
            for later in cells[i + 1 :]:
                assert not rests_on(cell.source) & binds(later.source), later.source


@each
def test_at_least_three_exercises_left_blank(path):
    ids = re.findall(
        r'^check\("([\d.a-z]+)", \w+\)', "\n".join(c.source for c in code_cells(path)), re.MULTILINE
    )
    assert len(ids) >= 3
    assert ids == [name for name in exercises() if name.startswith(page(path) + ".")]
    for cell in code_cells(path):
        if "exercise" in tags(cell):
            assert "not attempted yet" in cell.outputs[0].data["text/plain"]


@each
def test_cells_parse_and_prose_is_our_own_language(path):
    for cell in read(path).cells:
        if cell.cell_type == "code":  # where Chinese is a tokenizer's input
            ast.parse(cell.source)
        else:
            assert not re.search(r"[\u4e00-\u9fff]", cell.source), "the source articles are not quoted"


def test_the_readme_lists_each_notebook():
    text = (sync.ROOT / "README.md").read_text("utf-8")
    assert text == sync.stamped(text)
    for path in NOTEBOOKS:
        assert f"notebooks/{path.name}" in text
    given = sum(bool(claim.verdict) for claim in record().values())
    assert f"{given} of {len(record())} so far" in text


def test_kernels_are_cut_off_the_network():
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cut this process off" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket; socket.create_connection(('localhost', {server.getsockname()[1]}))"
        subprocess.run([sys.executable, "-c", code], check=True)


def strict(tmp_path, change):
    """Exit code of strict nbval on a two-cell notebook, after a change to its stored outputs."""
    cells = [
        nbformat.v4.new_code_cell("6 * 7", execution_count=1),
        nbformat.v4.new_code_cell(PICTURE, execution_count=2),
    ]
    cells[0].outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "42"}, execution_count=1)]
    data = {
        "text/plain": "Figure: dots",
        "text/html": '<img src="data:image/png;base64,AA==" alt="dots" width="9">',
    }
    cells[1].outputs = [nbformat.v4.new_output("display_data", data)]
    change(cells)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "small.ipynb")
    sanitize = sync.ROOT / "tests" / "nbval_sanitize.cfg"
    options = [
        "-c",
        "/dev/null",
        "--nbval-current-env",
        f"--nbval-sanitize-with={sanitize}",
        "-p",
        "no:cacheprovider",
    ]
    command = [sys.executable, "-m", "pytest", "--nbval", *options, str(tmp_path / "small.ipynb")]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path).returncode


PICTURE = """class Dots:
    def _repr_mimebundle_(self, **_):
        html = '<img src="data:image/png;base64,BBBB" alt="dots" width="10">'
        return {"text/plain": "Figure: dots", "text/html": html}
display(Dots())"""


def flip_a_digit(cells):
    cells[0].outputs[0].data["text/plain"] = "43"


def change_the_alt_text(cells):
    html = cells[1].outputs[0].data["text/html"]
    cells[1].outputs[0].data["text/html"] = html.replace("dots", "lines")


@pytest.mark.parametrize(
    ("change", "code"), [(lambda cells: None, 0), (flip_a_digit, 1), (change_the_alt_text, 1)]
)
def test_strict_outputs_catch_a_digit_and_forgive_a_pixel(tmp_path, change, code):
    assert strict(tmp_path, change) == code
