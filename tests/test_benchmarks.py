"""`make bench`: both sides compute the same, and the report has its documented shape. No time is asserted."""

import json
from dataclasses import replace

import pytest
import torch
from benchmarks import bench

TINY = bench.Size(V=50, T=8, B=2, C=16, nh=2, layers=2)
UNITS = {"gpt_train_vs_hf": "tokens/s", "encoder_train_vs_torch": "tokens/s"}


@pytest.mark.parametrize("name", bench.RACES)
def test_both_sides_of_a_race_compute_the_same(name):
    bench.same(bench.RACES[name], TINY)


@pytest.mark.parametrize("name", bench.RACES)
def test_sides_that_differ_are_not_raced(name):
    def copy_and_spoil(ours, theirs):
        bench.RACES[name].copy_weights(ours, theirs)
        with torch.no_grad():
            next(theirs.parameters()).mul_(1.5)

    with pytest.raises(AssertionError, match="not close"):
        bench.same(replace(bench.RACES[name], copy_weights=copy_and_spoil), TINY)


def test_the_report_has_its_documented_shape(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "peak_mb", lambda build, size: 2.0)
    races = {name: replace(bench.RACES[name], size=TINY, tables={"T": [TINY]}) for name in UNITS}
    bench.report(races, tmp_path / "build" / "bench.json", rounds=1, seconds=0.01)
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "build" / "bench.json").read_text(encoding="utf-8"))
    assert set(written) == {*UNITS, "gpt_train_by_length", "encoder_train_by_length"}
    for name, unit in UNITS.items():
        row = written[name]
        assert row["unit"] == unit
        assert row["ours"] > 0
        assert row["ratio"] == pytest.approx(row["ours"] / row["theirs"], rel=0.01)  # more tokens/s is better
        assert f"{torch.get_num_threads()} threads" in row["config"]
        assert row["peak_mb_ours"] == row["peak_mb_theirs"] == 2.0
    for name in ("gpt_train_by_length", "encoder_train_by_length"):
        (row,) = written[name]
        assert row["T"] == TINY.T
        assert row["unit"] == "ms"
        assert row["ratio"] == pytest.approx(row["theirs"] / row["ours"], rel=0.01)  # fewer ms are better
        assert f"{name} T = 8" in printed


def hundred_megabytes(size):
    """A side that holds as much during a call, and nothing after."""
    return lambda: bool(torch.ones(25_000_000).sum())


def test_peak_memory_is_that_of_the_side_alone():
    here = torch.ones(75_000_000)  # 300 MB of this process, which the side's must not inherit
    assert 95 < bench.peak_mb(hundred_megabytes, TINY) < 250
    assert here[0] == 1


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        bench.main(["gpt"])
    assert "gpt_train_vs_hf" in capsys.readouterr().err
