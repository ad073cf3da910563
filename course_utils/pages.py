"""The course as static pages: equations as MathML, pictures inside, no script, nothing asked of a network.

`python -m course_utils.pages` writes them all; with notebooks named, only these and the contents.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from jinja2 import pass_context
from jinja2.runtime import Context
from math_core import LatexError, LatexToMathML
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat.v4 import new_markdown_cell, new_notebook
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from course_utils import sync
from course_utils.runtime import PACKAGE

README = sync.ROOT / "README.md"
# A picture before HTML: it brings its alt text. No widget: it wants a kernel, and has a picture beside it.
STILL = ["image/svg+xml", "image/png", "image/jpeg", "text/html", "text/markdown", "text/latex", "text/plain"]
LIGHT, DARK = "xcode", "lightbulb"  # Pygments' styles of which every colour stands out
HEADING = re.compile(r'<h([1-3]) id="([^"]+)">(.*?)<a class="anchor-link"', re.DOTALL)
NOTEBOOK = re.compile(r"\A(?:notebooks/)?(\w+)\.ipynb(#.*)?\Z")
_latex = LatexToMathML(fancy_error=False)


def mathml(latex: str, display: bool = False) -> str:
    """An equation as MathML, which a browser draws without a script.

    Raises:
        ValueError: it holds an unknown command, or is not LaTeX.
    """
    try:
        return _latex.convert_with_local_state(latex.strip(), displaystyle=display)
    except LatexError as error:
        raise ValueError(f"the equation {latex.strip()!r} is not known LaTeX: {error}") from None


class Renderer(IPythonRenderer):
    """nbconvert's Markdown with MathML, links between pages, and words where Colab's badge would load."""

    def inline_math(self, body: str) -> str:
        return mathml(body)

    def block_math(self, body: str) -> str:
        return f'<span class="equation">{mathml(body, display=True)}</span>'

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def link(self, text: str, url: str, title: str | None = None) -> str:
        return super().link(text, NOTEBOOK.sub(r"\1.html\2", url), title)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return "Open in Colab" if url.endswith("/colab-badge.svg") else super().image(text, url, title)

    def table(self, text: str) -> str:
        return f'<div class="wide"><table>{text}</table></div>'


class Exporter(HTMLExporter):
    """Notebooks to pages that need no other file."""

    def __init__(self) -> None:
        super().__init__(
            config=Config({"NbConvertBase": {"display_data_priority": STILL}}),
            template_name="basic",
            template_file=str(PACKAGE / "pages.html.j2"),
            exclude_input_prompt=True,
            exclude_output_prompt=True,
        )

    @pass_context
    def markdown2html(self, context: Context, source: str) -> str:
        """Markdown to HTML; pictures are looked for beside the notebook."""
        renderer = Renderer(
            escape=False,
            embed_images=True,
            path=context["resources"]["metadata"]["path"],
            attachments=context.get("cell", {}).get("attachments"),
        )
        return MarkdownWithMath(renderer=renderer).render(source)

    def default_filters(self) -> Iterator[tuple[str, Any]]:
        """nbconvert's, and `headings`: level, id and text of each on a page."""
        yield from super().default_filters()
        yield "headings", HEADING.findall


@cache
def read(path: Path) -> nbformat.NotebookNode:
    """The notebook at `path`; for the README its opening and its table of the notebooks, as one cell.

    Raises:
        ValueError: no notebook is there.
    """
    try:
        if path != README:
            return nbformat.read(path, as_version=4)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except Exception:  # nbformat raises what it happens on
        raise ValueError(f"{path} is no Jupyter notebook") from None
    text = path.read_text("utf-8")
    table = re.search(r"^## The notebooks\n\n(?:\|.*\n)+", text, re.MULTILINE)
    return new_notebook(cells=[new_markdown_cell(f"{text.partition('## ')[0]}{table[0]}")])


def address(path: Path) -> str:
    """The file name of a notebook's page, or of the README's."""
    return "index.html" if path == README else f"{path.stem}.html"


def title(path: Path) -> str:
    """A notebook's first heading, else its name."""
    sources = (cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    return next((source[2:].partition("\n")[0] for source in sources if source.startswith("# ")), path.stem)


def neighbours(path: Path) -> dict[str, dict[str, str]]:
    """Address and title of the pages before and after one of the course; none around another notebook."""
    course = [README, *sync.notebooks()]
    if path not in course:
        return {}
    at = course.index(path)
    near = {"prev": course[1:at][-1:], "next": course[at + 1 : at + 2]}
    return {rel: {"address": address(p), "title": title(p)} for rel, found in near.items() for p in found}


def page(path: Path, exporter: Exporter) -> str:
    """The page of a notebook, or of the README.

    Raises:
        ValueError: no notebook is there, or an equation of it is not known LaTeX.
    """
    colours = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in (LIGHT, DARK))
    resources = {
        "metadata": {"path": str(path.parent), "name": path.stem},
        "title": title(path),
        "near": neighbours(path),
        "colours": "{}\n@media (prefers-color-scheme: dark) {{\n{}\n}}".format(*colours),
    }
    try:
        return exporter.from_notebook_node(read(path), resources)[0]
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def write(notebooks: list[Path], folder: Path) -> None:
    """Write the pages of `notebooks` and the contents into `folder`; nothing where one cannot be made.

    Raises:
        ValueError: a notebook cannot be made a page, or `folder` cannot be written.
    """
    exporter = Exporter()
    pages = {address(path): page(path, exporter) for path in (README, *notebooks)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as partial:  # on the same disk, so that moving a page is atomic
            for name, text in pages.items():
                Path(partial, name).write_text(text, "utf-8")
            for name in pages:
                Path(partial, name).replace(folder / name)
    except OSError as error:
        raise ValueError(f"--output {folder} cannot be written: {error.strerror}") from None


def main(arguments: list[str] | None = None) -> int:
    """Write the named notebooks' pages, or all, and say where."""
    parser = argparse.ArgumentParser(prog="python -m course_utils.pages", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/html"), help="the folder (build/html)")
    parser.add_argument("notebooks", type=Path, nargs="*", help="all of the course where none is named")
    options = parser.parse_args(arguments)
    try:
        write([path.resolve() for path in options.notebooks] or sync.notebooks(), options.output)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(options.output / address(README))
    return 0


if __name__ == "__main__":
    sys.exit(main())
