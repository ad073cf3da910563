"""Shown cells follow the package: docstrings go, all else stays, a changed line is found and mended."""

import ast
import importlib
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell

from course_utils import sync

MODULE = '''\
"""A module's own docstring."""

import functools

LIMIT = 3


def plain(x):
    """One line."""
    return x  # a comment


@functools.cache
# between decorator and function
def decorated(x: int = 1) -> str:
    """Many.

    Lines.
    """

    # above the code
    text = """not a docstring"""

    return text + f"{x}"


class Thing(dict):
    """A class."""

    size: int = 0

    def method(self):
        """A method."""

        def inner():
            """An inner function."""
            return 'a string'

        return inner

    @property
    async def waiting(self):
        "Other quotes."
        "a string that is no docstring"


def bare(x): return x


def last():
    \'\'\'Ends the file.\'\'\'
    pass
'''
SHOWN = {
    "plain": """\
def plain(x):
    return x  # a comment""",
    "decorated": '''\
@functools.cache
# between decorator and function
def decorated(x: int = 1) -> str:
    # above the code
    text = """not a docstring"""

    return text + f"{x}"''',
    "Thing": """\
class Thing(dict):
    size: int = 0

    def method(self):
        def inner():
            return 'a string'

        return inner

    @property
    async def waiting(self):
        "a string that is no docstring\"""",
    "bare": "def bare(x): return x",
    "last": "def last():\n    pass",
}
BADGE = "[Open](https://colab.research.google.com/github/{}/blob/main/notebooks/01_word_embeddings.ipynb)"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A course of one module, one notebook folder and a README."""
    for folder in ("course_utils", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "course_utils" / "toy.py").write_text(MODULE, "utf-8")
    (tmp_path / "pyproject.toml").write_text('[tool.course]\naddress = "some-one/a.course"\n', "utf-8")
    (tmp_path / "README.md").write_text(f"# Course\n{BADGE.format('some-one/a.course')}\n", "utf-8")
    monkeypatch.setattr(sync, "ROOT", tmp_path)
    monkeypatch.setattr(sync, "PACKAGE", tmp_path / "course_utils")
    sync._parsed.cache_clear()
    yield tmp_path
    sync._parsed.cache_clear()


def marked(*names):
    return "# course_utils/toy.py\n" + "\n\n\n".join(SHOWN[name] for name in names)


def a_page():
    """Every kind of cell, none of them drifted."""
    return new_notebook(
        cells=[
            new_markdown_cell(f"# Title\n{BADGE.format('some-one/a.course')}"),
            new_code_cell(sync.setup_cell(), metadata={"tags": ["setup"]}),
            new_code_cell("x = 1\nx"),
            new_code_cell(marked("plain", "Thing")),
            new_raw_cell("raw"),
            new_code_cell("def plain(x):\n    return 'my own, not marked'"),
            new_code_cell(marked("decorated")),
        ]
    )


# --- definitions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHOWN)
def test_a_definition_loses_its_docstrings_and_nothing_else(checkout, name):
    assert sync.definition("toy", name) == SHOWN[name]


def real_definitions():
    for path in sorted(sync.PACKAGE.glob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield path.stem, node


@pytest.mark.parametrize(("module", "node"), list(real_definitions()), ids=lambda x: getattr(x, "name", x))
def test_what_the_package_defines_is_shown_as_the_same_tree(module, node):
    """A class that is its docstring and no more is the one thing that could not be shown."""
    taught = getattr(importlib.import_module(f"course_utils.{module}"), "__taught__", [])
    if isinstance(node, ast.ClassDef) and len(node.body) == 1 and sync._docstring(node):
        assert node.name not in taught
        return
    code = sync.definition(module, node.name)
    assert sync.tree(code) == sync.tree(ast.unparse(node))
    assert not any(sync._docstring(part) for part in ast.walk(ast.parse(code)))


def test_each_taught_name_is_a_definition():
    modules = {path.stem for path in sync.PACKAGE.glob("*.py")} - {"__init__"}
    taught = {m: getattr(importlib.import_module(f"course_utils.{m}"), "__taught__", []) for m in modules}
    assert any(taught.values())
    for module, names in taught.items():
        for name in names:
            compile(sync.definition(module, name), name, "exec", dont_inherit=True)


@pytest.mark.parametrize("name", ["nowhere", "LIMIT", "method", "inner", ""])
def test_a_name_not_defined_at_the_top_is_refused(checkout, name):
    with pytest.raises(ValueError, match=re.escape(f"course_utils/toy.py defines no {name!r}")):
        sync.definition("toy", name)


def test_a_module_that_is_not_there_is_refused(checkout):
    with pytest.raises(ValueError, match=r"course_utils/missing\.py, and there is no such file"):
        sync.definition("missing", "plain")
    with pytest.raises(ValueError, match=r"course_utils/missing\.py, and there is no such file"):
        sync.fresh("# course_utils/missing.py\ndef plain(): ...")


# --- cells -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    ["x = 1", "", "# course_utils/toy\ndef plain(x): ...", "\n# course_utils/toy.py\ndef plain(x): ...",
     "# see course_utils/toy.py\ndef plain(x): ...", "# course_utils/toy.py def plain(x): ..."],
)  # fmt: skip
def test_a_cell_without_the_mark_is_nobodys_copy(checkout, source):
    assert sync.shown(source) is None
    assert sync.fresh(source) == source


def test_a_marked_cell_tells_module_and_names(checkout):
    assert sync.shown(marked("Thing", "plain")) == ("toy", ["Thing", "plain"])


@pytest.mark.parametrize("names", [["plain"], ["Thing", "plain"], ["decorated", "last", "bare"]])
def test_a_fresh_cell_is_left_as_it_is(checkout, names):
    assert sync.fresh(marked(*names)) == marked(*names)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("return x", "return -x"),
        ("  # a comment", ""),
        ("def plain(x):", "def plain(x, y=1):"),
        ("    return x", "    print(x)\n    return x"),
    ],
)
def test_a_changed_line_drifts_and_is_mended(checkout, before, after):
    changed = marked("plain", "bare").replace(before, after, 1)
    assert changed != marked("plain", "bare")
    assert sync.fresh(changed) == marked("plain", "bare")


def test_a_change_in_the_package_reaches_the_cell(checkout):
    path = checkout / "course_utils" / "toy.py"
    path.write_text(MODULE.replace("return x  #", "return 2 * x  #"), "utf-8")
    sync._parsed.cache_clear()
    assert sync.fresh(marked("plain")) == marked("plain").replace("return x", "return 2 * x")


def test_a_renamed_definition_is_refused(checkout):
    with pytest.raises(ValueError, match=r"toy\.py defines no 'plan'"):
        sync.fresh(marked("plain").replace("def plain", "def plan"))


def test_trees_differ_where_code_does_and_only_there():
    code = 'def f(x):\n    """Doc."""\n    return x + 1\n'
    same = ["def f(x):\n    return x + 1", "def f(x):  # why\n\n    'Other.'\n    return (x+1)"]
    other = ["def f(x):\n    return x + 2", "def f(y):\n    return y + 1", "def f(x=0):\n    return x + 1"]
    assert {sync.tree(source) for source in same} == {sync.tree(code)}
    assert sync.tree(code) not in {sync.tree(source) for source in other}


# --- the setup cell and the address ------------------------------------------------------------------------


def test_the_setup_cell_compiles_and_is_short(checkout):
    source = sync.setup_cell()
    compile(source, "setup", "exec", dont_inherit=True)
    code = [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(code) <= 20
    assert "https://github.com/some-one/a.course" in source
    assert "{" not in source


def test_the_setup_cell_leaves_the_readers_settings_alone(checkout, monkeypatch):
    """It runs where the package is installed, keeps what is set, and gives defaults to the rest."""
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    monkeypatch.setenv("COURSE_SIZE", "large")
    monkeypatch.setenv("COURSE_MODELS", "to be undone")  # so that the test leaves nothing behind
    monkeypatch.delenv("COURSE_MODELS")
    monkeypatch.setattr("subprocess.run", lambda *a, **k: pytest.fail("nothing is to be installed"))
    monkeypatch.setattr("course_utils.plots.use_style", lambda: None)
    names = {}
    exec(sync.setup_cell(), names)
    assert str(names["runtime"].settings()) == "models: embedded · size: large"


def test_the_address_is_that_of_pyproject(checkout):
    assert sync.address() == "some-one/a.course"


@pytest.mark.parametrize("old", ["OWNER/REPO", "a/b", "some-one/a.course", "x_y/z-1.2"])
def test_colab_links_are_stamped(checkout, old):
    text = f"{BADGE.format(old)} and {BADGE.format('c/d')}"
    assert sync.stamped(text) == " and ".join([BADGE.format("some-one/a.course")] * 2)
    assert sync.stamped(sync.stamped(text)) == sync.stamped(text)


@pytest.mark.parametrize(
    "text",
    ["https://github.com/a/b", "https://colab.research.google.com/", "https://colab.research.google.com/github/a/b",
     "https://colab.research.google.com/github/a/b/blob/main/other/01.ipynb", "no link"],
)  # fmt: skip
def test_other_links_stay(checkout, text):
    assert sync.stamped(text) == text


# --- whole notebooks ---------------------------------------------------------------------------------------


def test_a_page_that_is_true_does_not_change(checkout):
    page = a_page()
    assert sync.refresh(page) == []
    assert page.cells == a_page().cells or [c.source for c in page.cells] == [
        c.source for c in a_page().cells
    ]


@pytest.mark.parametrize(
    ("index", "before", "after"),
    [
        (0, "some-one/a.course", "old/home"),
        (1, "plots.use_style()", "plots.use_style(); x = 1"),
        (3, "return x", "return 2 * x"),
        (3, "size: int = 0", "size: int = 1"),
        (6, "x: int = 1", "x: int = 2"),
    ],
)
def test_a_drifted_cell_is_told_and_mended_once(checkout, index, before, after):
    page = a_page()
    page.cells[index].source = page.cells[index].source.replace(before, after)
    assert sync.refresh(page) == [index]
    assert [cell.source for cell in page.cells] == [cell.source for cell in a_page().cells]
    assert sync.refresh(page) == []


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["sync", *arguments])
    return sync.main()


def test_check_names_what_drifted_and_changes_nothing(checkout, monkeypatch, capsys):
    page = a_page()
    page.cells[3].source += "\n# a line too many"
    path = checkout / "notebooks" / "01_a.ipynb"
    nbformat.write(page, path)
    nbformat.write(a_page(), checkout / "notebooks" / "02_b.ipynb")
    readme = checkout / "README.md"
    readme.write_text(BADGE.format("old/home"), "utf-8")
    before = path.read_bytes(), readme.read_bytes()
    assert run_main(monkeypatch, "--check") == 1
    assert capsys.readouterr().out == "01_a.ipynb: cells 3\nREADME.md: public address\n"
    assert (path.read_bytes(), readme.read_bytes()) == before


def test_sync_mends_and_then_has_nothing_to_do(checkout, monkeypatch, capsys):
    page = a_page()
    page.cells[3].source += "\n# a line too many"
    mended, untouched = checkout / "notebooks" / "01_a.ipynb", checkout / "notebooks" / "draft.ipynb"
    for path in (mended, untouched):
        nbformat.write(page, path)
    draft = untouched.read_bytes()
    (checkout / "README.md").write_text(BADGE.format("old/home"), "utf-8")
    assert run_main(monkeypatch) == 0
    assert [c.source for c in nbformat.read(mended, 4).cells] == [c.source for c in a_page().cells]
    assert (checkout / "README.md").read_text("utf-8") == BADGE.format("some-one/a.course")
    capsys.readouterr()
    written = mended.read_bytes()
    assert run_main(monkeypatch) == run_main(monkeypatch, "--check") == 0
    assert capsys.readouterr().out == "nothing has drifted\n" * 2
    assert mended.read_bytes() == written
    assert untouched.read_bytes() == draft  # a notebook without a number is none of the course's
