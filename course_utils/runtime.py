"""Where the course runs: its folders, its two settings, its device, its random numbers."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = PACKAGE.parent / "data"
DATA = (
    _CHECKOUT if (_CHECKOUT / "assets.toml").is_file() else PACKAGE / "_data"
)  # checkout, or installed wheel

_CGROUP = Path("/sys/fs/cgroup")
CHOICES = {"COURSE_MODELS": ("embedded", "hub"), "COURSE_SIZE": ("small", "large")}


@dataclass(frozen=True)
class Settings:
    """The two settings every page shows: which pretrained models, and which size of training."""

    models: str = "embedded"
    size: str = "small"

    @property
    def is_default(self) -> bool:
        """True where stored outputs, verdicts and budgets apply as printed."""
        return self == Settings()

    def __str__(self) -> str:
        return f"models: {self.models} · size: {self.size}"


def settings() -> Settings:
    """The settings in force, read from the environment variables COURSE_MODELS and COURSE_SIZE.

    Raises:
        ValueError: a variable holds something other than its choices.
    """
    return Settings(_choice("COURSE_MODELS"), _choice("COURSE_SIZE"))


def _choice(name: str) -> str:
    value = os.environ.get(name) or CHOICES[name][0]
    if value not in CHOICES[name]:
        raise ValueError(f"{name} must be {' or '.join(map(repr, CHOICES[name]))}, got {value!r}")
    return value


def install_missing() -> None:
    """Adds the packages a checkout needs and this Python lacks; what is there keeps its version.

    Raises:
        RuntimeError: pip could not install them.
    """
    project = PACKAGE.parent / "pyproject.toml"
    if not project.is_file():  # an installed wheel brought its packages along
        return
    lines = tomllib.loads(project.read_text("utf-8"))["project"]["dependencies"]
    needed = {re.match(r"[\w.-]+", line)[0]: line for line in lines}
    found = {package: _version(package) for package in needed}
    if missing := [line for package, line in needed.items() if not found[package]]:
        print(f"Installing {', '.join(missing)}")
        _install(missing, [f"{package}=={held}" for package, held in found.items() if held])
        importlib.invalidate_caches()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _install(packages: list[str], constraints: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder, "held.txt")
        held.write_text("\n".join(constraints), "utf-8")
        pip = [sys.executable, "-m", "pip", "install", "-q", "-c", str(held), *packages]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(
            f"pip could not install {', '.join(packages)}: {said[-1] if said else 'no reason'}"
        )


def cache_dir() -> Path:
    """The folder downloads are kept in: COURSE_CACHE, else the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("COURSE_CACHE") or platformdirs.user_cache_path("language-models-course"))


def need_memory(what: str, size: int) -> None:
    """Checks, before something large is read, that it fits; a kernel that runs out is killed without a word.

    Args:
        what: what is about to be read, for the message.
        size: the bytes it will take.

    Raises:
        MemoryError: less is free.
    """
    if size > (free := free_memory()):
        raise MemoryError(
            f"{what} takes {size / 1e6:,.0f} MB of memory and {free / 1e6:,.0f} MB are free: shut down other "
            "kernels or programs, then run this again."
        )


def free_memory() -> int:
    """Bytes of memory that are free: on the machine, or in this container (cgroup 2) where that is less."""
    import psutil

    free = psutil.virtual_memory().available
    try:
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # no such group, or "max": no limit
        return free
    return min(free, max(0, limit - used))


def device() -> str:
    """`"cuda"` where a GPU is there, else `"cpu"`; COURSE_DEVICE asks for another (`mps`, say)."""
    import torch

    return os.environ.get("COURSE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")


def generator(seed: int):
    """A seeded `torch.Generator` on the CPU: its stream is the same on every machine, CUDA's is not."""
    import torch

    return torch.Generator("cpu").manual_seed(seed)


def shows_progress() -> bool:
    """Whether a progress bar has somebody to look at it: a terminal or notebook, and COURSE_QUIET not set."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return not os.environ.get("COURSE_QUIET") and (sys.stderr.isatty() or hasattr(get_ipython(), "kernel"))
