"""What all tests and notebooks run under: default settings, cached assets, no network. A budget report."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
OFFLINE = ROOT / "tests" / "offline"
_seconds: defaultdict[str, float] = defaultdict(float)
_megabytes: defaultdict[str, float] = defaultdict(float)
_budgets: dict[str, dict[str, int]] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Stored outputs describe the default settings, so every run uses them."""
    os.environ.update({"COURSE_MODELS": "embedded", "COURSE_SIZE": "small", "COURSE_QUIET": "1"})
    os.environ.update({"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"})
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Where notebooks will run: fetch what they need, then cut their kernels off the network."""
    pages = {_notebook(item).partition("_")[0] for item in session.items} - {""}
    if pages and not session.config.option.collectonly:
        from course_utils import data

        for asset in data.assets().values():
            if asset.archive and pages.intersection(asset.notebooks):
                data.fetch(asset.name)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")]))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """A notebook's cell reports the most memory its kernel has held so far, and the budget."""
    yield
    if _notebook(item):
        item.user_properties.append(("megabytes", _kernel_megabytes(item.parent.kernel)))
        item.user_properties.append(("budget", dict(item.parent.nb.metadata.get("course", {}))))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up a notebook's seconds, its kernel's start included; the report may come from another process."""
    path = report.nodeid.split("::")[0]
    if path.endswith(".ipynb"):
        told = dict(report.user_properties)
        _seconds[path] += report.duration
        _megabytes[path] = max(_megabytes[path], told.get("megabytes", 0.0))
        _budgets[path] = told.get("budget", _budgets.get(path, {}))


def pytest_terminal_summary(terminalreporter) -> None:
    """Seconds and megabytes of each notebook beside its budget: a report, not a test."""
    if _seconds:
        terminalreporter.section("budget of each notebook")
    for path, seconds in _seconds.items():
        budget, mb = _budgets[path], _megabytes[path]
        over = seconds > budget.get("seconds", seconds) or mb > budget.get("megabytes", mb)
        terminalreporter.write_line(
            f"{Path(path).name}: {seconds:.0f} s of {budget.get('seconds', '?')}, "
            f"{mb:,.0f} MB of {budget.get('megabytes', '?')}{'  OVER BUDGET' if over else ''}"
        )


def _notebook(item: pytest.Item) -> str:
    return item.path.name if item.path.suffix == ".ipynb" else ""


def _kernel_megabytes(kernel) -> float:
    """Peak resident memory of a running kernel; on Linux the kernel's own high-water mark."""
    pid = kernel.km.provisioner.pid
    status = Path(f"/proc/{pid}/status")
    if status.is_file():
        marks = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(marks[0].split()[1]) / 1024
    import psutil

    return psutil.Process(pid).memory_info().rss / 2**20
