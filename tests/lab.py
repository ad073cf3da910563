"""A real JupyterLab on loopback, driven through headless Chromium: what a reader does, done by a test."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

REPO = Path(__file__).resolve().parent.parent
# Asked of JupyterLab's own model: in the page an error looks like any other line on stderr.
CELLS = """() => jupyterapp.shell.currentWidget.content.widgets
    .filter((cell) => cell.model.type === 'code' && cell.model.sharedModel.source.trim())
    .map((cell) => ({
        number: cell.model.executionCount,
        tags: cell.model.getMetadata('tags') || [],
        errors: cell.model.outputs.toJSON().filter((output) => output.output_type === 'error')
            .map((output) => `${output.ename}: ${output.evalue}`),
    }))"""
TAG = "raises-exception"
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
BLANK = '<svg xmlns="http://www.w3.org/2000/svg"/>'
IDLE = "#jp-main-statusbar >> text=/\\| Idle/"
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},  # else a question
    "notebook-extension/tracker": {"windowingMode": "none"},  # all cells in the page, seen or not
}
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # only loopback has an address
)


def chromium() -> str | None:
    """The browser: CHROMIUM, else the system's own; None where there is none."""
    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    return os.environ.get("CHROMIUM") or next(filter(None, found), None)


def why_not() -> str:
    """Why no browser test can run here, or `""`."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "needs the Python package playwright"
    return "" if chromium() else "needs Chromium on the PATH, or its path in the variable CHROMIUM"


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: notebooks in `root` open at `address`."""

    root: Path
    address: str
    token: str

    def url(self, notebook: str) -> str:
        """Where a notebook opens alone, in a fresh workspace."""
        return f"{self.address}/doc/tree/{notebook}?token={self.token}&reset"


@contextmanager
def server(root: Path, work: Path) -> Iterator[Server]:
    """A JupyterLab on loopback that serves `root` with this interpreter's kernel; settings live in `work`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lab, log = Server(root, f"http://127.0.0.1:{port}", secrets.token_hex(16)), work / "lab.log"
    with log.open("w") as out:
        process = subprocess.Popen(_command(lab, port), env=_environment(work), stdout=out, stderr=out)
        try:
            _wait_until_up(lab, process, log)
            yield lab
        finally:
            process.terminate()  # the server ends its kernels
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _command(lab: Server, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={lab.root}",
        f"--IdentityProvider.token={lab.token}",
        "--LabApp.extension_manager=readonly",
        "--LabApp.expose_app_in_browser=True",  # `jupyterapp`, used below
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]


def _environment(work: Path) -> dict[str, str]:
    settings = work / "settings"
    for name, value in SETTINGS.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    paths = {
        "JUPYTER_CONFIG_DIR": work / "config",
        "JUPYTER_RUNTIME_DIR": work / "runtime",
        "IPYTHONDIR": work / "ipython",
        "JUPYTERLAB_SETTINGS_DIR": settings,
        "JUPYTERLAB_WORKSPACES_DIR": work / "workspaces",
    }
    python_path = os.pathsep.join(filter(None, (str(REPO), os.environ.get("PYTHONPATH"))))
    return {**os.environ, **{name: str(path) for name, path in paths.items()}, "PYTHONPATH": python_path}


def _wait_until_up(lab: Server, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{lab.address}/api/status?token={lab.token}", timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@contextmanager
def browser(profile: Path) -> Iterator[Any]:
    """A headless Chromium with a fresh profile, as a playwright browser context."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=chromium(),
            headless=True,
            args=FLAGS,
            viewport={"width": 1280, "height": 1000},
        )
        try:
            yield context
        finally:
            context.close()


@dataclass
class Notebook:
    """A notebook open in JupyterLab: playwright's `page`, the `hosts` it asked and the `errors` it logged."""

    page: Any
    hosts: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    def run_all(self, timeout: float = 60) -> None:
        """Restart the kernel and run every cell within `timeout` seconds.

        Raises:
            AssertionError: a cell raised that is not tagged for it, or the time is over.
        """
        self.page.wait_for_selector(IDLE, timeout=60_000)  # before that, running asks for a kernel
        self._choose("Edit", "Clear Outputs of All Cells")
        self._choose("Kernel", "Restart Kernel and Run All Cells…")
        self.page.get_by_role("dialog").get_by_role("button", name="Confirm Kernel Restart").click()
        deadline = time.monotonic() + timeout
        while None in (numbers := [cell["number"] for cell in self._unbroken_cells()]):
            assert time.monotonic() < deadline, f"after {timeout} s the cells stand at {numbers}"
            self.page.wait_for_timeout(300)
        self.page.wait_for_selector(IDLE, timeout=60_000)
        self._unbroken_cells()

    def _choose(self, menu: str, item: str) -> None:
        self.page.get_by_role("menuitem", name=menu, exact=True).click()
        self.page.get_by_role("menuitem", name=item, exact=True).click()

    def _unbroken_cells(self) -> list[dict[str, Any]]:
        cells = self.page.evaluate(CELLS)
        raised = [(k, c["errors"]) for k, c in enumerate(cells) if c["errors"] and TAG not in c["tags"]]
        assert not raised, f"code cell {raised[0][0]} (from 0) raised {raised[0][1]}"
        return cells

    def theme(self, name: str) -> None:
        """Change to the theme `name`, "JupyterLab Dark" say."""
        command = "theme => jupyterapp.commands.execute('apputils:change-theme', {theme})"
        self.page.evaluate(command, name)
        self.page.wait_for_selector(f"body[data-jp-theme-name='{name}']", state="attached")
        self.page.wait_for_timeout(500)  # the style sheet comes after the mark

    def check_quiet(self) -> None:
        """Nothing was asked of any other machine, and the page reported no error."""
        assert self.hosts == {"127.0.0.1"}, f"the page asked {self.hosts}"
        assert not self.errors, self.errors


def _host(url: str) -> str:
    return urlsplit(url).hostname or "127.0.0.1"  # data: and blob: have none


@contextmanager
def opened(lab: Server, context: Any, name: str) -> Iterator[Notebook]:
    """The notebook `name` of the server's folder, open in a page of its own."""
    page = context.new_page()
    notebook = Notebook(page)
    # the badge every page opens with is the one thing of the outer world that a page may ask for
    page.route(BADGE, lambda route: route.fulfill(content_type="image/svg+xml", body=BLANK))
    page.on("request", lambda request: request.url != BADGE and notebook.hosts.add(_host(request.url)))
    page.on("pageerror", lambda error: notebook.errors.append(str(error)[:300]))
    page.on("console", lambda said: said.type == "error" and notebook.errors.append(said.text[:300]))
    try:
        page.goto(lab.url(name))
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
        yield notebook
    finally:
        page.close()


@contextmanager
def ran(notebook: Path, lab: Server, context: Any, timeout: float = 300) -> Iterator[Notebook]:
    """A copy of the file `notebook`, run to its end within `timeout` seconds: what Run All gives a reader.

    Raises:
        AssertionError: a cell raised that is not tagged for it; its text is the message.
    """
    shutil.copy(notebook, lab.root)
    with opened(lab, context, notebook.name) as page:
        page.run_all(timeout)
        yield page
        page.page.evaluate(
            "jupyterapp.shell.currentWidget.sessionContext.shutdown()"
        )  # its kernel holds memory
