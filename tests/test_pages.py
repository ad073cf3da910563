"""The static pages: every equation and picture of the notebooks, without a script and without a network."""

from __future__ import annotations

import errno
import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import lab
import nbformat
import pytest
from bs4 import BeautifulSoup
from pygments.styles import get_style_by_name

from course_utils import pages, sync
from course_utils.pages import README, Renderer, mathml

COURSE = {path.stem: path for path in sync.notebooks()}
# One has the attention map and cards, the other lone controls and wide tables.
FEW = ("02_attention_by_hand", "07b_decoding")
EQUATION = re.compile(r"\$\$.+?\$\$|\$[^$]+\$", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)


def markdown(source: str) -> BeautifulSoup:
    """A cell's text as it stands on a page."""
    return BeautifulSoup(pages.MarkdownWithMath(Renderer(escape=False)).render(source), "html.parser")


def texts(path: Path) -> list[str]:
    """The Markdown of a notebook: its cells, and outputs that are Markdown."""
    cells = nbformat.read(path, as_version=4).cells
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    shown = [data["text/markdown"] for data in outputs if "text/markdown" in data]
    return [cell.source for cell in cells if cell.cell_type == "markdown"] + shown


def build(folder: Path, *names: str) -> dict[str, BeautifulSoup]:
    """The pages that are written for these notebooks of the course, by file name."""
    pages.write([COURSE[name] for name in names], folder)
    return {path.name: BeautifulSoup(path.read_text("utf-8"), "html.parser") for path in folder.iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("html")


@pytest.fixture(scope="module")
def few(folder):
    return build(folder, *FEW)


# --- equations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latex", "tags"),
    [
        (r"\frac{1}{2}", ["mfrac"]),
        (r"\sqrt{d_k}", ["msqrt", "msub"]),
        (r"\begin{aligned}a &= b \\ c &= d\end{aligned}", ["mtable", "mtr", "mtr"]),
        (r"\begin{cases}1 & x > 0 \\ 0\end{cases}", ["mtable", "mtr", "mtr"]),
        (r"\operatorname{softmax}(x)", []),
        (r"\lVert x \rVert, \text{each}", ["mtext"]),
    ],
)
def test_an_equation_becomes_mathml(latex, tags):
    math = BeautifulSoup(mathml(latex), "html.parser").math
    assert [tag.name for tag in math.find_all(["mfrac", "msqrt", "msub", "mtable", "mtr", "mtext"])] == tags


def test_a_function_stands_apart_from_its_argument():
    *_, gap = BeautifulSoup(mathml(r"\log p"), "html.parser").find_all("mo")
    assert (gap.text, float(gap["lspace"].removesuffix("em"))) == ("\u2061", pytest.approx(1 / 6, abs=1e-3))


@pytest.mark.parametrize("latex", [r"\nope{x}", r"\frac{1}{2", r"x^", r"\begin{aligned}a"])
def test_an_equation_that_is_no_latex_is_named(latex):
    with pytest.raises(ValueError, match=re.escape(repr(latex))) as caught:
        mathml(latex)
    assert "\n" not in str(caught.value)


def test_equations_in_a_line_and_on_their_own_differ():
    inline, block, bare = markdown("$a$\n\n$$a$$\n\n\\begin{align*}a &= b\\end{align*}").find_all("math")
    assert [math.get("display") for math in (inline, block, bare)] == [None, "block", "block"]
    assert block.parent["class"] == ["equation"]


@pytest.mark.parametrize("name", COURSE)
def test_every_equation_of_the_course_is_set(name):
    written = shown = 0
    for source in texts(COURSE[name]):
        cell = markdown(source)
        equations = cell.find_all("math")
        written += len(EQUATION.findall(CODE.sub("", source)))
        shown += len(equations)
        assert not [math for math in equations if re.search(r"[\\&$]", math.text) or not math.text.strip()]
        assert not cell.find("merror")
    assert shown == written


# --- links and pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("03_transformer.ipynb", "03_transformer.html"),
        ("03b_transformer_at_work.ipynb#Watch-it-learn", "03b_transformer_at_work.html#Watch-it-learn"),
        ("notebooks/01_word_embeddings.ipynb", "01_word_embeddings.html"),
        ("https://arxiv.org/abs/1706.03762", "https://arxiv.org/abs/1706.03762"),
        ("https://example.org/notebooks/a.ipynb", "https://example.org/notebooks/a.ipynb"),
        ("#Positions", "#Positions"),
    ],
)
def test_links_between_notebooks_lead_to_pages(url, target):
    assert markdown(f"[there]({url})").a["href"] == target


def test_the_colab_badge_becomes_words():
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    link = markdown(f"[![Open notebook 01 in Colab]({badge})](https://example.org)").a
    assert (link.text, link["href"], link.img) == ("Open in Colab", "https://example.org", None)


def check_self_contained(page: BeautifulSoup) -> None:
    """Nothing of a page would be fetched, and nothing in it is a program."""
    loaded = [
        tag[name]
        for tag in page.find_all(True)
        for name in ("src", "srcset", "data", "poster")
        if tag.get(name)
    ]
    loaded += [tag["href"] for tag in page.find_all("link")]
    assert {urlsplit(url).scheme for url in loaded} == {"data"}
    assert not page.find_all(["script", "iframe", "object", "embed", "base"])
    assert not re.search(r"url\(|@import", "".join(tag.text for tag in page.find_all("style")))
    assert not re.search(r"url\(", "".join(tag["style"] for tag in page.find_all(style=True)))
    assert not [name for tag in page.find_all(True) for name in tag.attrs if name.startswith("on")]


def check_pictures(name: str, page: BeautifulSoup) -> None:
    """Every picture of a notebook is in its page, in order, with its alt text."""
    cells = nbformat.read(COURSE[name], as_version=4).cells
    outputs = [
        output
        for cell in cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    drawn = [(o.data["image/png"].replace("\n", ""), o.metadata["image/png"]["alt"]) for o in outputs]
    shown = [
        (i["src"].removeprefix("data:image/png;base64,").replace("\n", ""), i["alt"])
        for i in page.main("img")
    ]
    assert shown == drawn


def check_frame(page: BeautifulSoup) -> None:
    """A title, the landmarks, and links that lead to something of the course."""
    assert (page.html["lang"], page.title.text) == ("en", page.main.h1.find(string=True))
    assert [len(page(tag)) for tag in ("h1", "main", "header", "footer")] == [1, 1, 1, 1]
    names = [nav["aria-label"] for nav in page("nav")]
    assert len(names) == len(set(names)) > 1
    ids = [tag["id"] for tag in page(id=True)]
    assert len(ids) == len(set(ids))
    addresses = {pages.address(path) for path in (README, *COURSE.values())}
    for url in (urlsplit(link["href"]) for link in page("a")):
        if url.scheme != "https":
            assert url.path in addresses or (url.path == "" and url.fragment in ids), url


def test_a_page_holds_all_it_shows(few):
    for page in few.values():
        check_self_contained(page)
        check_frame(page)


@pytest.mark.parametrize("name", FEW)
def test_every_picture_is_in_its_page_with_its_alt_text(few, name):
    check_pictures(name, few[f"{name}.html"])


@pytest.mark.slow
def test_the_whole_course_becomes_pages(tmp_path):
    course = build(tmp_path, *COURSE)
    assert set(course) == {"index.html", *(f"{name}.html" for name in COURSE)}
    for page in course.values():
        check_self_contained(page)
        check_frame(page)
        for url in (urlsplit(link["href"]) for link in page.main("a")):
            if url.path in course and url.fragment:
                assert course[url.path].find(id=url.fragment), url
    for name in COURSE:
        check_pictures(name, course[f"{name}.html"])


def test_what_is_written_or_printed_is_on_the_page(few):
    page = few["02_attention_by_hand.html"]
    cells = nbformat.read(COURSE["02_attention_by_hand"], as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [block.text.strip() for block in page.select(".highlight")] == [
        cell.source.strip() for cell in code
    ]
    printed = [output.text.strip() for cell in code for output in cell.outputs if "text" in output]
    assert [block.text.strip() for block in page.select(".output_stdout")] == printed
    cards = [
        o.data["text/html"]
        for c in code
        for o in c.outputs
        if {*o.get("data", {})} == {"text/html", "text/plain"}
    ]
    shown = [block.text.split() for block in page.select(".output_html")]
    assert shown == [BeautifulSoup(card, "html.parser").text.split() for card in cards]


def test_controls_that_need_a_kernel_are_left_out(few):
    cells = nbformat.read(COURSE["07b_decoding"], as_version=4).cells
    stored = [
        output.get("data", {}).get("text/plain", "") for cell in cells for output in cell.get("outputs", [])
    ]
    assert [text for text in stored if text.startswith("BoundedFloatText(")]
    page = few["07b_decoding.html"]
    assert not [output for output in page.select(".output") if "BoundedFloatText(" in output.text]
    assert page.find("img", alt=re.compile("Text box “A beginning”"))


def test_the_setup_is_folded_away(few):
    for name in FEW:
        (folded,) = few[f"{name}.html"].main("details")
        assert folded.pre.text.strip() == sync.setup_cell().strip()


def test_a_pages_own_sections_are_listed(few):
    for name in FEW:
        page = few[f"{name}.html"]
        listed = [(link["href"], link.text) for link in page.find("nav", class_="sections")("a")]
        assert listed == [(f"#{h['id']}", h.text.removesuffix("¶")) for h in page.main(["h2", "h3"])]


def test_the_contents_list_every_notebook_and_show_the_map(few):
    index = few["index.html"]
    linked = [link["href"] for link in index.main("a") if link["href"] in {f"{name}.html" for name in COURSE}]
    assert linked == [f"{name}.html" for name in COURSE]
    (picture,) = index.main("img")
    assert picture["alt"].startswith("The attention map")


def test_the_pages_follow_one_another():
    order, there = [], README
    while there:
        order.append(there)
        following = pages.neighbours(there).get("next")
        there = following and COURSE[following["address"].removesuffix(".html")]
    assert order == [README, *COURSE.values()]
    for before, after in pairwise(order[1:]):
        assert pages.neighbours(after)["prev"] == {
            "address": pages.address(before),
            "title": pages.title(before),
        }
    assert "prev" not in pages.neighbours(order[1])


def test_a_page_leads_to_its_neighbours(few):
    for nav in few["02_attention_by_hand.html"].select("nav.steps"):
        links = [(link["href"], link.text) for link in nav("a")]
        assert links == [
            ("index.html", "Contents"),
            ("01_word_embeddings.html", "1 · Word embeddings"),
            ("03_transformer.html", "3 · A Transformer from scratch"),
        ]


# --- what a reader may do wrong ----------------------------------------------------------------------------


def notebook(path: Path, *cells: str) -> Path:
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(cell) for cell in cells]), path
    )
    return path


def test_a_notebook_of_ones_own_becomes_a_page_too(tmp_path, capsys):
    mine = notebook(tmp_path / "mine.ipynb", "Some words, <b>and</b> $x^2$.")
    assert pages.main(["--output", str(tmp_path / "out"), str(mine)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'index.html'}\n"
    page = BeautifulSoup((tmp_path / "out" / "mine.html").read_text("utf-8"), "html.parser")
    assert (page.title.text, [link["href"] for link in page.header("a")]) == ("mine", ["index.html"])
    assert page.main.msup.text == "x2"


def refused(capsys, *arguments: str) -> str:
    """What the command says on what it refuses: one line."""
    assert pages.main([*arguments]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    return said.err


def test_a_notebook_that_is_not_there_is_named(tmp_path, capsys):
    missing = str(tmp_path / "missing.ipynb")
    out = tmp_path / "out"
    assert (
        refused(capsys, "--output", str(out), missing)
        == f"{missing} cannot be read: No such file or directory\n"
    )
    assert not out.exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", "words", '{"nbformat": 4}'])
def test_a_file_that_is_no_notebook_is_named(text, tmp_path, capsys):
    (tmp_path / "odd.ipynb").write_text(text)
    odd = str(tmp_path / "odd.ipynb")
    assert refused(capsys, "--output", str(tmp_path / "out"), odd) == f"{odd} is no Jupyter notebook\n"


def test_an_equation_that_fails_names_its_notebook_and_nothing_is_written(tmp_path, capsys):
    good, bad = notebook(tmp_path / "good.ipynb", "$x$"), notebook(tmp_path / "bad.ipynb", r"Here: $\nope$.")
    said = refused(capsys, "--output", str(tmp_path / "out"), str(good), str(bad))
    assert said.startswith(r"bad.ipynb: the equation '\\nope' is not known LaTeX")
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_folders_place_is_named(tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    said = refused(capsys, "--output", str(tmp_path / "out"), str(notebook(tmp_path / "a.ipynb", "a")))
    assert said == f"--output {tmp_path / 'out'} cannot be written: File exists\n"
    assert (tmp_path / "out").read_text() == "mine"


def test_a_full_disk_leaves_the_old_pages_whole(tmp_path, capsys, monkeypatch):
    out, mine = tmp_path / "out", notebook(tmp_path / "mine.ipynb", "new")
    out.mkdir()
    old = {"index.html": "old", "mine.html": "old"}
    for name, text in old.items():
        (out / name).write_text(text)
    write_text = Path.write_text

    def full_at_the_second(self, text, *arguments):
        write_text(self, text[:100], *arguments)
        if self.name == "mine.html":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_at_the_second)
    said = refused(capsys, "--output", str(out), str(mine))
    assert said == f"--output {out} cannot be written: No space left on device\n"
    assert {path.name: path.read_text() for path in out.iterdir()} == old


# --- what a reader sees ------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast of two colours, each as six hex digits."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("theme", "style"), [(0, pages.LIGHT), (1, pages.DARK)])
def test_every_colour_stands_out_from_its_ground(theme, style):
    css = (pages.PACKAGE / "pages.css").read_text("utf-8")
    colours = {
        name: re.findall(rf"--{name}: #(\w{{6}});", css)[theme]
        for name in ("ground", "ink", "muted", "link", "code")
    }
    for name in ("ink", "muted", "link"):
        assert contrast(colours[name], colours["ground"]) >= 4.5, name
    for token, look in get_style_by_name(style):
        assert contrast(look["color"] or colours["ink"], colours["code"]) >= 4.5, token


@pytest.fixture(scope="module")
def chromium():
    """Headless Chromium; contexts of it may have JavaScript off."""
    if reason := lab.why_not():
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=lab.chromium(), args=list(lab.FLAGS))
        yield found
        found.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", ["index", *FEW])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_without_javascript_a_page_shows_all_and_asks_for_nothing(chromium, folder, few, name, width, scheme):
    context = chromium.new_context(
        java_script_enabled=False, viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    page, asked, errors = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: errors.append(said.text))
    address = (folder / f"{name}.html").as_uri()
    page.goto(address)
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert errors == []
    pictures = page.locator("img").evaluate_all("all => all.map(i => [i.naturalWidth, i.clientWidth])")
    assert len(pictures) == len(few[f"{name}.html"]("img"))
    assert all(min(sizes) > 0 for sizes in pictures)
    boxes = page.locator("math").evaluate_all(
        "all => all.map(m => m.getBoundingClientRect()).map(b => [b.width, b.height])"
    )
    assert len(boxes) == len(few[f"{name}.html"]("math"))
    assert all(min(box) > 3 for box in boxes)  # in pixels: a dot is wider
    assert page.evaluate("document.documentElement.scrollWidth") == width  # wide things scroll in themselves
    context.close()


@pytest.mark.browser
def test_the_accessibility_tree_has_named_landmarks(chromium, folder, few):
    page = chromium.new_context(java_script_enabled=False).new_page()
    page.goto((folder / "02_attention_by_hand.html").as_uri())
    for role in ("banner", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1, role
    for name in ("Course", "On this page", "Course, end of page"):
        assert page.get_by_role("navigation", name=name, exact=True).count() == 1, name
    assert page.get_by_role("math").count() == len(few["02_attention_by_hand.html"]("math"))
    for picture in few["02_attention_by_hand.html"]("img"):
        assert page.get_by_role("img", name=picture["alt"], exact=True).count() == 1
    page.keyboard.press("Tab")
    assert page.get_by_role("link", name="Skip to the text").evaluate("e => e === document.activeElement")
    page.keyboard.press("Enter")
    assert page.url.endswith("#content")
    page.context.close()


@pytest.mark.browser
def test_fractions_and_lines_of_equations_are_drawn_one_above_the_other(chromium, tmp_path):
    mine = notebook(tmp_path / "mine.ipynb", r"$$\begin{aligned}a &= \frac{b}{c} \\ d &= e\end{aligned}$$")
    pages.write([mine], tmp_path)
    page = chromium.new_context(java_script_enabled=False).new_page()
    page.goto((tmp_path / "mine.html").as_uri())
    for pair in ("mfrac > *", "mtr"):
        above, below = (box.bounding_box() for box in page.locator(pair).all())
        assert above["y"] + above["height"] <= below["y"] + 1, pair
        assert abs(above["x"] + above["width"] / 2 - below["x"] - below["width"] / 2) < 1, pair
    page.context.close()
