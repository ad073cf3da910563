"""Whether memory has room is looked at before anything large is read."""

from types import SimpleNamespace

import psutil
import pytest

from course_utils import runtime


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with 1,000 MB free, and a container's limits in `tmp_path`."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1_000_000_000))
    monkeypatch.setattr(runtime, "_CGROUP", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("limits", "free"),
    [
        ({}, 1_000_000_000),
        ({"max": "max\n", "current": "5\n"}, 1_000_000_000),
        ({"max": "800000000\n", "current": "300000000\n"}, 500_000_000),
        ({"max": "8000000000\n", "current": "300000000\n"}, 1_000_000_000),
        ({"max": "100\n", "current": "300\n"}, 0),
    ],
)
def test_free_is_what_machine_and_container_leave(machine, limits, free):
    for name, text in limits.items():
        (machine / f"memory.{name}").write_text(text)
    assert runtime.free_memory() == free


def test_what_does_not_fit_is_said_in_a_sentence(machine):
    runtime.need_memory("A model", 1_000_000_000)
    with pytest.raises(MemoryError) as caught:
        runtime.need_memory("A model", 2_000_000_000)
    assert str(caught.value) == (
        "A model takes 2,000 MB of memory and 1,000 MB are free: shut down other kernels or programs, "
        "then run this again."
    )
