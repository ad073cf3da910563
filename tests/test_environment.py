"""The set-up: pins that agree, and a Makefile that says what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

REPO = Path(__file__).resolve().parent.parent
MAKE = shutil.which("make") or "make"
FITTING = ("3.11", "3.12", "3.13")
needs_make = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


# --- pins ------------------------------------------------------------------------------------------------


def pins(name: str) -> dict[str, Requirement]:
    """The requirements of a file by package; its comments and its references to other files left out."""
    lines = (
        line.partition("#")[0].strip() for line in (REPO / name).read_text(encoding="utf-8").splitlines()
    )
    found = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def pinned(requirement: Requirement) -> Version:
    (specifier,) = requirement.specifier  # one, and
    assert specifier.operator == "==", f"{requirement} is not an exact pin"
    return Version(specifier.version)


def installed(name: str) -> Version | None:
    try:
        return Version(Version(version(name)).public)  # 2.13.0+cpu is 2.13.0
    except PackageNotFoundError:
        return None


def bounds() -> dict[str, Requirement]:
    """The loose bounds of pyproject.toml, with those of its extras."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    found = {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}
    found.pop(project["name"], None)  # an extra that includes another
    return found


DIRECT = pins("requirements.txt") | pins("tests/requirements.txt")
TRANSITIVE = pins("constraints.txt")


def test_what_is_installed_is_what_is_pinned():
    assert {name: installed(name) for name in DIRECT} == {name: pinned(DIRECT[name]) for name in DIRECT}


def test_what_these_need_in_turn_is_installed_as_constrained():
    here = {name: installed(name) for name in TRANSITIVE if installed(name)}  # some are another system's
    assert here == {name: pinned(TRANSITIVE[name]) for name in here}


def test_no_pin_asks_for_a_later_patch_of_python():
    oldest = {f"{python}.0" for python in FITTING}  # Debian 12 has 3.11.2
    names = filter(installed, DIRECT | TRANSITIVE)
    asked = {name: SpecifierSet(metadata(name)["Requires-Python"] or "") for name in names}
    assert not {name: str(asked[name]) for name in asked if oldest - set(asked[name].filter(oldest))}


def test_no_package_is_pinned_twice():
    files = [pins(name) for name in ("requirements.txt", "tests/requirements.txt", "constraints.txt")]
    assert sum(map(len, files)) == len(set().union(*files))


def test_the_pins_and_the_loose_bounds_name_the_same_packages():
    assert set(DIRECT) == set(bounds())


@pytest.mark.parametrize("name", sorted(DIRECT))
def test_a_pin_lies_within_its_loose_bound(name):
    assert pinned(DIRECT[name]) in bounds()[name].specifier


def test_conda_users_get_the_same():
    conda = yaml.safe_load((REPO / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (python,) = (line for line in conda if str(line).startswith("python"))
    allowed = SpecifierSet(python.removeprefix("python"))
    assert tuple(f"3.{minor}" for minor in range(20) if f"3.{minor}" in allowed) == FITTING
    (pip,) = (line["pip"] for line in conda if isinstance(line, dict))
    assert pip == ["-r requirements.txt", "-e ."]


def test_ci_runs_the_command_a_reader_runs():
    workflow = yaml.safe_load((REPO / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    assert "make test" in [step.get("run") for step in workflow["jobs"]["test"]["steps"]]
    assert re.search(r"\bmake test VENV=", (REPO / ".ci/run").read_text(encoding="utf-8"))
    assert os.access(REPO / ".ci/run", os.X_OK)


def test_the_hooks_run_the_pinned_ruff():
    hooks = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0][
        "hooks"
    ]
    brought = {
        line for hook in hooks if hook["entry"].startswith("ruff") for line in hook["additional_dependencies"]
    }
    assert brought == {str(DIRECT["ruff"])}


# --- the Makefile, on a machine where each Python is a script ----------------------------------------------

FAKE = """#!/bin/sh
# {name}: logs what it is asked to run, with the index it is told to ask; fails where the argument matches.
case "$1" in -m) echo "${{PIP_INDEX_URL:+[$PIP_INDEX_URL] }}${{0##*/}} $*" >>"{log}" ;; esac
case "$*" in {fails}) exit 1 ;; *version_info*) echo {version} ;; esac
case "$1 $2" in "-m venv")
    for folder; do :; done
    mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python" ;;
esac
"""


@dataclass(frozen=True)
class Machine:
    """A PATH of fakes beside the few tools a recipe uses, and the log of what the fakes were asked."""

    root: Path

    def add(self, name: str, version: str = "3.11", fails: str = "'nothing at all'") -> None:
        """A Python of that version, which exits 1 where its arguments match the shell pattern `fails`."""
        self._script(name, FAKE.format(name=name, log=self.log, version=version, fails=fails))

    def _script(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    @property
    def log(self) -> Path:
        return self.root / "log"

    def asked(self) -> list[str]:
        """What the fakes were asked to run as a module, in order."""
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.root / "bin"), "HOME": str(self.root)}
        command = [MAKE, f"VENV={self.root / 'venv'}", "TORCH_INDEX=cpu-index", *arguments]
        return subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=60)

    def sentence(self, *arguments: str) -> str:
        """The one sentence a failed `make setup` says."""
        run = self.make("setup", *arguments)
        assert run.returncode, run.stdout
        (said,) = (line for line in run.stderr.splitlines() if not line.startswith(f"{Path(MAKE).name}: ***"))
        assert not (self.root / "venv/.lab").exists()
        return said


@pytest.fixture
def machine(tmp_path) -> Machine:
    if not shutil.which("make"):
        pytest.skip("needs make")
    (tmp_path / "bin").mkdir()
    for tool in ("cp", "id", "mkdir", "sed", "touch"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or tool)
    made = Machine(tmp_path)
    made._script("uname", "#!/bin/sh\necho Linux\n")
    return made


@needs_make
def test_help_lists_every_target():
    text = (REPO / "Makefile").read_text(encoding="utf-8")
    told = dict(re.findall(r"^([a-z0-9-]+):.*?## (.+)$", text, re.MULTILINE))
    (phony,) = re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert set(phony.split()) - {"FORCE"} == set(told)
    environment = {"PATH": os.environ["PATH"]}  # and no flags of a make that runs this
    run = subprocess.run(
        [MAKE, "help"], cwd=REPO, env=environment, capture_output=True, text=True, check=True
    )
    listed = dict(line.split(maxsplit=1) for line in run.stdout.splitlines() if line.startswith("  "))
    assert listed == told


def test_no_python(machine):
    assert "no Python was found" in machine.sentence()


def test_a_named_python_that_does_not_run(machine):
    machine.add("python3.11")  # not a way out: the reader asked for another
    assert "PYTHON=mine does not run" in machine.sentence("PYTHON=mine")


@pytest.mark.parametrize(
    ("found", "why"), [("2.7", "old"), ("3.9", "old"), ("3.10", "old"), ("3.14", "new"), ("4.0", "new")]
)
def test_an_unfit_python_is_named(machine, found, why):
    machine.add("python3", found)
    said = machine.sentence()
    assert f"python3 is {found} (too {why})" in said
    assert all(fitting in said for fitting in FITTING)


def test_each_unfit_python_is_named(machine):
    machine.add("python3", "3.14")
    machine.add("python", "2.7")
    said = machine.sentence()
    assert "python3 is 3.14 (too new)" in said
    assert "python is 2.7 (too old)" in said


@pytest.mark.parametrize("found", FITTING)
def test_a_missing_venv_module_is_named_with_its_package(machine, found):
    machine.add("python3", found, fails="*ensurepip*")
    assert f"apt install python{found}-venv" in machine.sentence()


def test_too_little_disk_is_said_before_anything_is_made(machine):
    assert "needs 999999999 GB of disk" in machine.sentence(f"PYTHON={sys.executable}", "NEED_GB=999999999")
    assert not list((machine.root / "venv").iterdir())


@pytest.mark.parametrize("found", FITTING)
def test_a_fitting_python_makes_the_environment_past_broken_ones(machine, found):
    machine.add("python3.11", fails="*")  # a shim of no installed version
    machine.add("python3.12", "3.12", fails="*ensurepip*")
    machine.add("python3.13", "3.14")
    machine.add("python3", found)
    run = machine.make("setup")
    assert run.returncode == 0, run.stderr
    assert machine.asked()[0] == f"python3 -m venv {machine.root / 'venv'}"


# --- where torch comes from ------------------------------------------------------------------------------


def torch_sources(machine: Machine) -> list[str]:
    """Of a set-up, the pip calls that may bring torch, each by what tells it from the others."""
    calls = [call for call in machine.asked() if re.search("--no-index|index versions|--only-binary", call)]
    names = {"--no-index": "local", "index versions": "asked", "-r requirements.txt": "package index"}
    return [next((name for mark, name in names.items() if mark in call), "CPU index") for call in calls]


CALLED = "--disable-pip-version-check install --only-binary"
NOT_INSTALLED, NOT_LOCAL, SILENT, EMPTY = (
    "*metadata*",
    "*--no-index*",
    "*'index versions'*",
    f"*'{CALLED}'*torch*",
)


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="an NVIDIA driver is here")
@pytest.mark.parametrize(
    ("fails", "sources"),
    [
        ((), ["package index"]),
        ((NOT_INSTALLED,), ["local", "package index"]),
        ((NOT_INSTALLED, NOT_LOCAL), ["local", "asked", "CPU index", "package index"]),
        ((NOT_INSTALLED, NOT_LOCAL, SILENT), ["local", "asked", "package index"]),
        ((NOT_INSTALLED, EMPTY), ["local", "asked", "CPU index", "package index"]),
    ],
)
def test_torch_comes_from_the_nearest_source(machine, fails, sources):
    machine.add("python3.11", fails="|".join(fails) or "''")
    run = machine.make("setup")
    assert run.returncode == 0, run.stderr
    assert torch_sources(machine) == sources
    told = [call for call in machine.asked() if call.startswith("[cpu-index]")]
    assert len(told) == sources.count("asked") + sources.count("CPU index")
    assert ("with CUDA" in run.stdout) == (len(sources) > 2 and (SILENT in fails or EMPTY in fails))


@pytest.mark.parametrize("system", ["with a driver", "Darwin"])
def test_the_cpu_index_is_for_linux_without_a_driver(machine, system):
    machine.add("python3.11", fails=f"{NOT_INSTALLED}|{NOT_LOCAL}")
    if system == "Darwin":
        machine._script("uname", "#!/bin/sh\necho Darwin\n")
    else:
        machine._script("nvidia-smi", "#!/bin/sh\necho GPU 0\n")
    assert machine.make("setup").returncode == 0
    assert torch_sources(machine) == ["local", "package index"]


def test_a_failed_install_is_said_in_a_sentence_and_tried_again(machine):
    machine.add("python3.11", fails="*'-r requirements.txt'*")
    assert "pip could not install the packages" in machine.sentence()
    machine.add("python3.11")
    shutil.copy(machine.root / "bin/python3.11", machine.root / "venv/bin/python")
    assert machine.make("setup").returncode == 0


# --- the second call -------------------------------------------------------------------------------------


@pytest.fixture
def ready(machine) -> Machine:
    machine.add("python3.11")
    run = machine.make("setup")
    assert run.returncode == 0, run.stderr
    machine.log.unlink()
    return machine


def test_a_second_call_does_nothing(ready):
    assert ready.make("setup").returncode == 0
    assert ready.asked() == []


@pytest.mark.parametrize("changed", ["requirements.txt", "constraints.txt", "pyproject.toml"])
def test_a_changed_pin_is_installed(ready, changed):
    assert "-r requirements.txt" in ready.make("-n", "-W", changed, "setup").stdout


def test_the_tests_install_theirs_on_top(ready):
    assert ready.make("test").returncode == 0
    assert [call for call in ready.asked() if " pip " in call] == [
        f"python -m pip {CALLED} :all: -r tests/requirements.txt"
    ]
    assert ready.asked()[-1].startswith("python -m pytest -n 2 ")
    assert " --nbval " in ready.asked()[-1]


def test_an_environment_that_was_moved_is_made_anew(ready):
    (ready.root / "venv/.lab").write_text("/some/other/clone\n", encoding="utf-8")
    (ready.root / "venv/pyvenv.cfg").touch()
    assert ready.make("setup").returncode == 0
    assert ready.asked()[0] == f"python3.11 -m venv --clear {ready.root / 'venv'}"
