"""Colab's road, simulated: a Python that has torch and Jupyter but not the course, and an empty folder.

The Python is a fresh virtual environment that sees this one's packages through links, as Colab's image has
its own; the few that Colab lacks are hidden, and come from the package index. The course lies at a local git
address.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
import reader

from course_utils import sync

LACKING = ("course-utils", "gensim", "pypi-simple", "sacrebleu")  # of Colab's image of 2026-08
STAND_IN = '''"""What of google.colab the widgets ask for."""
from types import SimpleNamespace
output = SimpleNamespace(enable_custom_widget_manager=lambda: None)
'''
WHERE = """
import json, course_utils, numpy, torch
print(json.dumps([m.__file__ for m in (course_utils, numpy, torch)]))
"""
each = pytest.mark.parametrize("path", sync.notebooks(), ids=lambda path: path.stem)
pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="needs git")


@dataclass(frozen=True)
class Colab:
    """The machine: its Python, the packages it came with, and the address the course is cloned from."""

    python: Path
    packages: Path
    course: Path

    def environment(self, **more: str) -> dict[str, str]:
        ours = {
            key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "JPY_SESSION_NAME")
        }
        redirect = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.file://{self.course}.insteadOf",
            "GIT_CONFIG_VALUE_0": f"https://github.com/{sync.address()}",
        }
        jupyter = {"JUPYTER_PATH": str(self.packages / "jupyter"), "COLAB_RELEASE_TAG": "release-colab"}
        return ours | redirect | jupyter | more

    def run(self, code: str, folder: Path, **more: str) -> list[str]:
        """The lines that `code` prints in `folder`."""
        command = [self.python, "-c", code]
        options = {"cwd": folder, "env": self.environment(**more), "capture_output": True, "text": True}
        done = subprocess.run(command, **options, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def installed(self) -> set[str]:
        """What pip has put into the environment itself."""
        (site,) = self.python.parents[1].glob("lib/python3*/site-packages")
        return {re.split(r"-\d", path.name)[0].lower() for path in site.glob("*.dist-info")}

    def strict(self, notebook: Path) -> None:
        reader.strict(notebook, "--nbval-kernel-name=colab", environment=self.environment())


@pytest.fixture(scope="module")
def colab(tmp_path_factory: pytest.TempPathFactory) -> Colab:
    root = tmp_path_factory.mktemp("colab")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "venv"], check=True)
    packages = _packages(root / "dist-packages")
    (site,) = root.glob("venv/lib/python3*/site-packages")
    (site / "colab.pth").write_text(f"{packages}\nimport google.colab\n")
    machine = Colab(root / "venv/bin/python", packages, _repository(root / "course.git"))
    kernel = packages / "jupyter/kernels/colab/kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [str(machine.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "Colab", "language": "python"}))
    return machine


def _packages(folder: Path) -> Path:
    """Links to all that is installed here but what Colab lacks, and the stand-in for google.colab."""
    folder.mkdir()
    files = [importlib.metadata.files(name) or [] for name in LACKING]
    hidden = {file.parts[0] for listed in files for file in listed} | {"google"}
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.name not in hidden and not entry.name.endswith(".pth"):
            (folder / entry.name).symlink_to(entry)
    (folder / "google").mkdir()
    (folder / "google/colab.py").write_text(STAND_IN)
    return folder


def _repository(folder: Path) -> Path:
    """The course as it stands here, committed."""
    for name in ("course_utils", "data"):
        shutil.copytree(sync.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(sync.ROOT / "pyproject.toml", folder)
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "The course"]):
        subprocess.run([*git, *command], check=True)
    return folder


@pytest.fixture(scope="module")
def ready(colab: Colab, tmp_path_factory: pytest.TempPathFactory) -> Colab:
    """Colab after some page's first cell: the packages are there."""
    colab.run(sync.setup_cell(), tmp_path_factory.mktemp("content"))
    return colab


def test_the_first_cell_gets_the_course_and_what_is_missing(colab: Colab, tmp_path: Path):
    said, *_, files = colab.run(sync.setup_cell() + WHERE, tmp_path)
    assert re.findall(r"([\w-]+)>=", said) == list(LACKING[1:])
    assert [path.name for path in tmp_path.iterdir()] == ["course"]
    ours, *theirs = map(Path, json.loads(files))
    assert ours.is_relative_to(tmp_path / "course")
    assert all(path.is_relative_to(colab.packages) for path in theirs)
    assert set(LACKING[1:]) <= {name.replace("_", "-") for name in colab.installed()}
    assert not {"torch", "numpy", "scipy", "transformers", "ipywidgets", "ipykernel"} & colab.installed()


def test_a_second_run_does_nothing(ready: Colab, tmp_path: Path):
    """Neither git nor pip is started: in the same kernel, and in a new one beside the clone."""
    watched = f"import subprocess\nsubprocess.run = None\n{sync.setup_cell()}"
    assert ready.run(f"{sync.setup_cell()}\n{watched}", tmp_path) == ["models: embedded · size: small"] * 2
    assert ready.run(watched, tmp_path) == ["models: embedded · size: small"]


@each
def test_every_page_s_first_cell_runs(ready: Colab, tmp_path: Path, path: Path):
    cells = nbformat.read(path, as_version=4).cells
    (setup,) = [cell.source for cell in cells if "setup" in cell.metadata.get("tags", [])]
    assert ready.run(setup, tmp_path) == ["models: embedded · size: small"]


@pytest.mark.parametrize("where", ["a folder of the checkout", "another folder, in JupyterLab"])
def test_a_checkout_that_was_not_installed_is_found(ready: Colab, tmp_path: Path, where: str):
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    shutil.copytree(ready.course, checkout)
    for folder in (elsewhere, checkout / "notebooks"):
        folder.mkdir()
    page = str(checkout / "notebooks" / "02.ipynb")
    folder, more = (
        (checkout / "notebooks", {}) if "checkout" in where else (elsewhere, {"JPY_SESSION_NAME": page})
    )
    *_, files = ready.run(sync.setup_cell() + WHERE, folder, **more)
    assert Path(json.loads(files)[0]).is_relative_to(checkout)
    assert list(elsewhere.iterdir()) == []


def test_pip_that_cannot_install_is_said_in_a_sentence(ready: Colab, tmp_path: Path):
    code = f"{sync.setup_cell()}\nruntime._install(['gensim==0'], [])"
    done = subprocess.run(
        [ready.python, "-c", code], cwd=tmp_path, env=ready.environment(), capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1].startswith("RuntimeError: pip could not install gensim==0: ERROR:")


def test_a_whole_page_runs(ready: Colab, tmp_path: Path):
    ready.strict(Path(shutil.copy(reader.page("02"), tmp_path)))


@pytest.mark.slow
@each
def test_each_page_runs(ready: Colab, tmp_path: Path, path: Path):
    ready.strict(Path(shutil.copy(path, tmp_path)))
