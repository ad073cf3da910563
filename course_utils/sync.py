"""Keep the notebooks true to the package: shown definitions, the setup cell, the public address.

`python -m course_utils.sync` rewrites what has drifted; `--check` only names it.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import nbformat

from course_utils.runtime import PACKAGE

ROOT = PACKAGE.parent
MARK = re.compile(r"\A# course_utils/(\w+)\.py\n")
COLAB = re.compile(r"https://colab\.research\.google\.com/github/[^/\s]+/[^/\s]+/blob/main/notebooks/")
SETUP = """\
# Setup, the same on every page. Two settings: "hub" loads the original BERT and GPT-2, "large" wants a GPU.
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("COURSE_MODELS", "embedded")  # or "hub"
os.environ.setdefault("COURSE_SIZE", "small")  # or "large"
if not importlib.util.find_spec("course_utils"):  # on Colab, or in a checkout that was not installed
    page = Path(os.environ.get("JPY_SESSION_NAME", "."))  # where JupyterLab says this page lies
    homes = [Path.cwd(), *Path.cwd().parents, *page.parents, Path("course").resolve()]
    home = next((home for home in homes if (home / "course_utils").is_dir()), homes[-1])
    if not home.exists():
        url = "https://github.com/{address}"
        subprocess.run(["git", "clone", "-q", "--depth=1", url, "course"], check=True)
    sys.path.insert(0, str(home))

from course_utils import runtime

runtime.install_missing()  # gensim on Colab, say; nothing that is there is replaced

from course_utils import plots

plots.use_style()
print(runtime.settings())"""


def notebooks() -> list[Path]:
    """The course's notebooks, in order."""
    return sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def address() -> str:
    """The public OWNER/REPO, set once, under [tool.course] in pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["course"]["address"]


def setup_cell() -> str:
    """The setup cell every notebook holds."""
    return SETUP.format(address=address())


def shown(source: str) -> tuple[str, list[str]] | None:
    """(module, names of its definitions) a cell shows, or None where it is no shown cell."""
    if not (mark := MARK.match(source)):
        return None
    return mark[1], [node.name for node in ast.parse(source).body if hasattr(node, "name")]


def definition(module: str, name: str) -> str:
    """A definition's source in the package, without docstrings, as a page shows it.

    Raises:
        ValueError: the module defines no such name at its top level.
    """
    lines, nodes = _parsed(module)
    if name not in nodes:
        raise ValueError(f"course_utils/{module}.py defines no {name!r}")
    node = nodes[name]
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    kept = dict(enumerate(lines[first - 1 : node.end_lineno], start=first))
    for part in ast.walk(node):
        if doc := _docstring(part):
            blank_after = not kept.get(doc.end_lineno + 1, "x").strip()
            for number in range(doc.lineno, doc.end_lineno + 1 + blank_after):
                del kept[number]
    return "\n".join(kept.values())


def fresh(source: str) -> str:
    """A shown cell with its definitions taken anew from the package; any other cell as it is."""
    if not (found := shown(source)):
        return source
    module, names = found
    return f"# course_utils/{module}.py\n" + "\n\n\n".join(definition(module, name) for name in names)


def tree(source: str) -> str:
    """The syntax tree of code without docstrings, as text: equal where two codes do the same."""
    root = ast.parse(source)
    for node in ast.walk(root):
        if doc := _docstring(node):
            node.body.remove(doc)
    return ast.dump(root)


def stamped(text: str) -> str:
    """Text with every Colab link pointing at the public address."""
    return COLAB.sub(f"https://colab.research.google.com/github/{address()}/blob/main/notebooks/", text)


def refresh(notebook: nbformat.NotebookNode) -> list[int]:
    """Bring a notebook's cells up to date in place; returns the indices of those that had drifted."""
    drifted = []
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            new = stamped(cell.source)
        else:
            new = setup_cell() if "setup" in cell.metadata.get("tags", []) else fresh(cell.source)
        if new != cell.source:
            cell.source = new
            drifted.append(index)
    return drifted


@cache
def _parsed(module: str) -> tuple[list[str], dict[str, ast.stmt]]:
    path = PACKAGE / f"{module}.py"
    if not path.is_file():
        raise ValueError(f"a cell is marked course_utils/{module}.py, and there is no such file")
    source = path.read_text("utf-8")
    return source.splitlines(), {n.name: n for n in ast.parse(source).body if hasattr(n, "name")}


def _docstring(node: ast.AST) -> ast.Expr | None:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    first = node.body[0] if node.body else None
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return first if is_text and isinstance(first.value.value, str) else None


def main() -> int:
    """Refresh every notebook and the README, or with --check only say what has drifted."""
    parser = argparse.ArgumentParser(prog="python -m course_utils.sync", description=__doc__)
    parser.add_argument("--check", action="store_true", help="name what has drifted and change nothing")
    check = parser.parse_args().check
    drift = []
    for path in notebooks():
        notebook = nbformat.read(path, as_version=4)
        if cells := refresh(notebook):
            drift.append(f"{path.name}: cells {', '.join(map(str, cells))}")
            if not check:
                nbformat.write(notebook, path)
    readme = ROOT / "README.md"
    if (text := readme.read_text("utf-8")) != stamped(text):
        drift.append("README.md: public address")
        if not check:
            readme.write_text(stamped(text), "utf-8")
    print("\n".join(drift) or "nothing has drifted")
    return int(bool(drift) and check)


if __name__ == "__main__":
    sys.exit(main())
