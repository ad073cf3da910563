"""Long experiments: an interrupted run goes on, another version starts anew, no half-written file is read."""

import json
from collections import Counter
from datetime import date
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from course_utils import results

VERSION = {"of": "1.0"}


class Toy:
    """An experiment of rows a, b, c … that counts its measurements and breaks where it is told to."""

    def __init__(self, keys="abcd"):
        self.keys, self.breaks_at, self.measured = keys, None, Counter()

    def __call__(self):
        for key in self.keys:
            yield {"key": key, "half": 0.5}, lambda key=key: self.measure(key)

    def measure(self, key):
        if key == self.breaks_at:
            raise KeyboardInterrupt
        self.measured[key] += 1
        return {"value": ord(key)}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    experiment = Toy()
    monkeypatch.setattr(results, "EXPERIMENTS", {"toy": experiment, "other": Toy("z")})
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(results, "version", lambda package: VERSION["of"])
    return experiment


def keys_stored():
    return [row["key"] for row in results.load("toy")["rows"]]


def interrupted(experiment, at):
    experiment.breaks_at = at
    with pytest.raises(KeyboardInterrupt):
        results.run("toy")
    experiment.breaks_at = None


def test_a_result_that_is_not_there_tells_the_command(toy):
    command = "python -m course_utils.results toy"
    with pytest.raises(FileNotFoundError, match=f"no stored result 'toy': {command}"):
        results.load("toy")


def test_a_run_stores_all_that_tells_how_it_was_made(toy, monkeypatch, capsys):
    """On a clock that goes 1.5 seconds a look."""
    monkeypatch.setattr(results, "time", SimpleNamespace(perf_counter=partial(next, count(0, 1.5))))
    results.run("toy")
    stored = results.load("toy")
    assert stored["command"] == "python -m course_utils.results toy"
    assert stored["versions"].keys() == {*results.PACKAGES, "python"}
    assert stored["seconds"] == 4 * 1.5
    assert date.fromisoformat(stored["date"]) <= date.today()
    assert stored["rows"] == [{"key": key, "half": 0.5, "value": ord(key), "seconds": 1.5} for key in "abcd"]
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == stored["rows"]


@pytest.mark.parametrize("at", "bcd")
def test_an_interrupted_run_goes_on_where_it_stopped(toy, at):
    interrupted(toy, at)
    assert keys_stored() == list("abcd"[: "abcd".index(at)])
    results.run("toy")
    assert keys_stored() == list("abcd")
    assert toy.measured == Counter("abcd")


def test_a_finished_run_measures_nothing_again(toy):
    results.run("toy")
    rows = results.load("toy")["rows"]
    results.run("toy")
    assert toy.measured == Counter("abcd")
    assert results.load("toy")["rows"] == rows


def test_an_interruption_before_known_rows_keeps_them(toy):
    """A new row in front, measured first and broken off, must not cost the rows that are there."""
    results.run("toy")
    toy.keys = "xyabcd"
    interrupted(toy, "y")
    assert keys_stored() == list("xabcd")
    results.run("toy")
    assert keys_stored() == list("xyabcd")
    assert toy.measured == Counter("abcdxy")


def test_rows_nobody_asks_for_any_more_go(toy):
    results.run("toy")
    toy.keys = "cb"
    results.run("toy")
    assert keys_stored() == list("cb")
    assert toy.measured == Counter("abcd")


def test_another_version_measures_all_again(toy, monkeypatch):
    results.run("toy")
    monkeypatch.setitem(VERSION, "of", "1.1")
    results.run("toy")
    assert toy.measured == Counter("abcd" * 2)
    assert set(results.load("toy")["versions"].values()) == {"1.1", results.platform.python_version()}


def test_another_python_measures_all_again(toy, monkeypatch):
    results.run("toy")
    monkeypatch.setattr(results.platform, "python_version", lambda: "0.0.0")
    results.run("toy")
    assert toy.measured == Counter("abcd" * 2)


def test_a_write_that_breaks_leaves_the_last_whole_file(toy, monkeypatch):
    interrupted(toy, "c")
    whole = results.load("toy")

    def half(path, text, *rest):
        with path.open("w", encoding="utf-8") as file:
            file.write(text[: len(text) // 2])
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "write_text", half)
        with pytest.raises(OSError, match="the disk is full"):
            results.run("toy")
    assert results.load("toy") == whole
    results.run("toy")
    assert keys_stored() == list("abcd")
    assert [path.name for path in results.FOLDER.iterdir()] == ["toy.json"]


def run_main(monkeypatch, *names):
    monkeypatch.setattr("sys.argv", ["results", *names])
    results.main()
    return sorted(path.stem for path in results.FOLDER.iterdir())


def test_the_command_runs_what_is_named_or_all(toy, monkeypatch):
    assert run_main(monkeypatch, "toy") == ["toy"]
    assert run_main(monkeypatch) == ["other", "toy"]
    assert toy.measured == Counter("abcd")


def test_the_command_refuses_an_unknown_name_before_any_work(toy, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_main(monkeypatch, "toy", "toys")
    assert "no experiment toys; there is toy, other" in capsys.readouterr().err
    assert not toy.measured


@pytest.mark.parametrize("name", results.EXPERIMENTS)
def test_no_row_of_an_experiment_passes_for_another(name):
    keys = [key for key, _ in results.EXPERIMENTS[name]()]
    assert keys == json.loads(json.dumps(keys))  # as they come back from the file
    for i, key in enumerate(keys):
        assert [j for j, other in enumerate(keys) if key.items() <= other.items()] == [i], key


@pytest.mark.parametrize("name", results.EXPERIMENTS)
def test_what_is_stored_is_the_whole_experiment_in_its_order(name):
    stored = results.load(name)
    keys = [key for key, _ in results.EXPERIMENTS[name]()]
    assert len(stored["rows"]) == len(keys)
    assert all(key.items() <= row.items() for key, row in zip(keys, stored["rows"], strict=True))
    assert stored["seconds"] == pytest.approx(sum(row["seconds"] for row in stored["rows"]), abs=0.5)
    assert stored["command"] == f"python -m course_utils.results {name}"
