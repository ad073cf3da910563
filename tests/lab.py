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

import nbformat

REPO = Path(__file__).resolve().parent.parent
# every cell has its number, or one raised and took the queue with it
MARKS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map((mark) => mark.textContent)"
ALL_RAN = f"""() => {{
    const marks = {MARKS};
    if (marks.some((mark) => mark.includes('*'))) return false;
    const failed = document.querySelector("[data-mime-type='application/vnd.jupyter.error']");
    return Boolean(failed) || marks.every((mark) => /\\d/.test(mark));
}}"""
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
BLANK = '<svg xmlns="http://www.w3.org/2000/svg"/>'
IDLE = "#jp-main-statusbar >> text=/\\| Idle/"
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},  # else a question
    "notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight are not in the page
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
        "--LabApp.expose_app_in_browser=True",  # for `Notebook.theme`
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

    path: Path
    page: Any
    hosts: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    def run_all(self, timeout: float = 60) -> None:
        """Run every cell within `timeout` seconds. Fails with the text of the cell that raised."""
        self.page.wait_for_selector(IDLE, timeout=60_000)  # before that, Run All asks for a kernel
        for menu, item in (("Edit", "Clear Outputs of All Cells"), ("Run", "Run All Cells")):
            self.page.get_by_role("menuitem", name=menu, exact=True).click()
            self.page.get_by_role("menuitem", name=item, exact=True).click()
        self._wait_for_the_end(timeout)
        raised = self.page.locator("[data-mime-type='application/vnd.jupyter.error']")
        expected = sum("raises-exception" in cell.metadata.get("tags", []) for cell in self.cells())
        assert raised.count() <= expected, raised.all_inner_texts()

    def _wait_for_the_end(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self.page.evaluate(ALL_RAN):
            assert time.monotonic() < deadline, (
                f"after {timeout} s the cells stand at {self.page.evaluate(MARKS)}"
            )
            self.page.wait_for_timeout(300)
        self.page.wait_for_selector(IDLE, timeout=60_000)

    def theme(self, name: str) -> None:
        """Change to the theme `name`, "JupyterLab Dark" say."""
        command = "theme => jupyterapp.commands.execute('apputils:change-theme', {theme})"
        self.page.evaluate(command, name)
        self.page.wait_for_selector(f"body[data-jp-theme-name='{name}']", state="attached")
        self.page.wait_for_timeout(500)  # the style sheet comes after the mark

    def cells(self) -> list[Any]:
        """The code cells of the file, as it was opened."""
        return [cell for cell in nbformat.read(self.path, 4).cells if cell.cell_type == "code"]

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
    notebook = Notebook(lab.root / name, page)
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
