"""Readers of pages: strict nbval; and a kernel whose cells are run one by one, patiently or not."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

from course_utils import data, sync

TIMEOUT = 1800  # seconds for a cell: the longest takes minutes, and the machine may be slow and shared


class Ran(NamedTuple):
    """What became of a cell: the error, "" where there was none; what it printed; its values as text."""

    error: str
    printed: str
    shown: str


@dataclass(frozen=True)
class Reader:
    """A running kernel and the client that speaks to it."""

    manager: KernelManager
    client: BlockingKernelClient

    def run(self, source: str, patience: float = TIMEOUT) -> Ran:
        """Run a cell; one that is still running after `patience` seconds is interrupted."""
        printed, shown = [], []

        def keep(message: dict) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                printed.append(content["text"])
            elif message["msg_type"] in ("execute_result", "display_data"):
                shown.append(content["data"].get("text/plain", ""))

        timer = threading.Timer(patience, self.manager.interrupt_kernel)
        timer.start()
        try:
            reply = self.client.execute_interactive(source, timeout=TIMEOUT, output_hook=keep)["content"]
        finally:
            timer.cancel()
        error = "" if reply["status"] == "ok" else f"{reply['ename']}: {reply['evalue']}"
        return Ran(error, "".join(printed), "\n".join(shown))

    def must_run(self, cell: nbformat.NotebookNode) -> Ran:
        """Run a page's cell, which may raise only where it is tagged for it."""
        ran = self.run(cell.source)
        assert not ran.error or "raises-exception" in tags(cell), f"{ran.error}\n\nin\n{cell.source}"
        return ran

    def restart(self) -> None:
        self.manager.restart_kernel(now=True)
        self.client.wait_for_ready(timeout=120)


@contextmanager
def reading(folder: Path, **environment: str) -> Iterator[Reader]:
    """A reader whose kernel, of this Python, works in `folder`.

    On one thread: two that wait for each other on a busy machine take minutes for seconds.
    """
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(folder), env=os.environ | {"OMP_NUM_THREADS": "1"} | environment)
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        yield Reader(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def hub_road(address: str, home: Path) -> dict[str, str]:
    """The environment in which the hub at `address` is asked for models, with caches of its own in `home`.

    What comes from the package index is in the course's cache already.
    """
    cache = home / "course"
    cache.mkdir(exist_ok=True)
    for folder in data.fetch("minilm-weights").parents[1].iterdir():
        if folder.is_dir() and not folder.name.endswith("-hub") and not (cache / folder.name).exists():
            (cache / folder.name).symlink_to(folder)
    return {
        "COURSE_MODELS": "hub",
        "COURSE_CACHE": str(cache),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": address,
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
    }


def strict(notebook: Path, *options: str, environment: dict[str, str] | None = None) -> None:
    """Run a notebook where it lies, outside the course's folder too, its outputs held to the stored ones."""
    sanitize = f"--nbval-sanitize-with={sync.ROOT / 'tests' / 'nbval_sanitize.cfg'}"
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-c", os.devnull, "-p", "no:cacheprovider"]
    limits = (f"--nbval-cell-timeout={TIMEOUT}", "--nbval-kernel-startup-timeout=120")
    kernel = () if any("kernel-name" in option for option in options) else ("--nbval-current-env",)
    done = subprocess.run(
        [*command, sanitize, *limits, *kernel, *options, str(notebook)],
        cwd=notebook.parent,
        env=os.environ if environment is None else environment,
        preexec_fn=_obey_permissions,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


def _obey_permissions() -> None:
    """Take from root, as whom containers run, the right to write where nobody may (CAP_DAC_OVERRIDE)."""
    if sys.platform == "linux" and os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, from the next program on


def page(number: str) -> Path:
    """The notebook whose name begins with that number, "03b" say."""
    (path,) = (path for path in sync.notebooks() if path.stem.startswith(f"{number}_"))
    return path


def each_page(quick: str) -> pytest.MarkDecorator:
    """Give a test every page as its `path`; all but the one of that number are slow."""
    slow = {path: () if path == page(quick) else pytest.mark.slow for path in sync.notebooks()}
    return pytest.mark.parametrize(
        "path", [pytest.param(path, marks=marks, id=path.stem) for path, marks in slow.items()]
    )


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])
