"""The pages on the hub's road: with the originals' tiny stand-ins, and when the hub fails them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from reader import Reader, code_cells, hub_road, page, reading

from course_utils import data, pretrained, sync

if TYPE_CHECKING:
    from hub import Hub

pytest_plugins = ["hub"]
PAGES = ("06", "06b", "07", "07b")
IMPATIENT = "from course_utils import pretrained; pretrained.PATIENCE = pretrained.LONGEST = 1.0"
each = pytest.mark.parametrize(
    "number", [pytest.param(number, marks=[] if number == "07" else pytest.mark.slow) for number in PAGES]
)


def up_to_its_model(reader: Reader, number: str) -> list[str]:
    """Run a page's cells until one has loaded the model; what is said of the hub."""
    printed = ""
    for cell in code_cells(page(number)):
        printed += reader.must_run(cell).printed
        if "pretrained.load(" in cell.source:
            lines = printed.splitlines()
            assert lines[0] == "models: hub · size: small"
            return [line for line in lines if "the model hub" in line and "to be had" in line]
    raise AssertionError(f"page {number} loads no model")


def test_these_are_the_pages_that_load_a_model():
    loading = [path for path in sync.notebooks() if "pretrained.load(" in path.read_text("utf-8")]
    assert loading == list(map(page, PAGES))


@each
def test_a_page_runs_with_a_model_of_the_hub(hub: Hub, tmp_path: Path, number: str):
    """Its verdicts are the record's or say what differs; no cell raises."""
    with reading(tmp_path, **hub_road(hub.url, tmp_path)) as reader:
        assert up_to_its_model(reader, number) == []
        for cell in code_cells(page(number)):
            reader.must_run(cell)
    assert hub.downloads


@pytest.mark.parametrize("number", ["06", pytest.param("07", marks=pytest.mark.slow)])
def test_the_page_says_which_model_it_uses_now(hub: Hub, tmp_path: Path, number: str):
    """One sentence a fault, nothing half-written; asked again when the hub is well, the original."""
    name = {"06": "bert", "07": "gpt2"}[number]
    original = data.assets()[f"{name}-hub"].hub
    with reading(tmp_path, **hub_road(hub.url, tmp_path)) as reader:
        reader.run(IMPATIENT)
        for fault in ("silent", "slow", "breaks", "wrong"):
            hub.fault = fault
            (said,) = up_to_its_model(reader, number)
            assert said.startswith(f"{original} is not to be had from the model hub (")
            assert said.endswith(f": going on with {pretrained.ROWS[name, 'embedded'].partition(' (')[0]}.")
            assert list(tmp_path.rglob("*.safetensors")) == list(tmp_path.rglob("*.incomplete")) == []
            hub.fault = ""
            assert up_to_its_model(reader, number) == []
            hub.fault = "silent"  # and then gone: what was kept is enough
            assert up_to_its_model(reader, number) == []
            shutil.rmtree(tmp_path / "course" / f"{name}-hub")  # forgotten, for the next fault
    # MiniLM comes from the package index.
    assert hub.requests
    assert not [request for request in hub.requests if hub.MINILM in request.path]


def test_the_replica_has_minilm_for_any_client(hub: Hub, tmp_path: Path):
    code = f"import transformers; transformers.AutoModel.from_pretrained({hub.MINILM!r}).config.hidden_size"
    with reading(tmp_path, **hub_road(hub.url, tmp_path), HF_HUB_DISABLE_XET="1") as reader:
        ran = reader.run(code)
    assert (ran.error, ran.shown) == ("", "16")
    assert [request for request in hub.downloads if hub.MINILM in request.path]
