"""Fetching under every fault a reader can meet (from a package index on loopback), and the list of assets."""

from __future__ import annotations

import errno
import hashlib
import io
import multiprocessing
import os
import re
import socket
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from course_utils import data, runtime

ALPHA = b"alpha " * 100_000  # larger than a network buffer, so that half of it can arrive
INSIDE = {
    "tiny/a.txt": ALPHA,
    "tiny/b.txt": b"beta",
    "tiny/texts/2.txt": "zwei ü".encode(),
    "tiny/texts/1.txt": b"one",
}
BUNDLE = b'{"name": "1.txt", "text": "one"}\n{"name": "2.txt", "text": "zwei \\u00fc"}\n'
WHEEL, SDIST = "tiny-1.0-py3-none-any.whl", "tarry-1.0.tar.gz"
HALF = 0.5


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        for name, content in INSIDE.items():
            wheel.writestr(name, content)
    return buffer.getvalue()


def make_sdist(trap: Path) -> bytes:
    """An sdist whose set-up code would leave a trace if anybody ran it."""
    files = {
        "tarry-1.0/setup.py": f"open({str(trap)!r}, 'w')".encode(),
        "tarry-1.0/data/c.bin": bytes(range(256)),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as sdist:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            sdist.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Index(ThreadingHTTPServer):
    """A package index: `files` are offered, `requests` is what was asked for, `faults` what goes wrong."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.credentials: list[str | None] = []
        self.faults: list[str] = []  # one for each download to come; the last one stays
        self.hashes = True
        self.file_host = ""  # the files' own server, as on the real index
        self.half_sent, self.go_on = threading.Event(), threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/simple"

    def downloads(self) -> int:
        return sum(path.startswith("/files/") for path in self.requests)

    def next_fault(self) -> str:
        return self.faults.pop(0) if len(self.faults) > 1 else "".join(self.faults)


class Answer(BaseHTTPRequestHandler):
    server: Index

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests.append(self.path)
        self.server.credentials.append(self.headers.get("Authorization"))
        kind, _, name = self.path.strip("/").partition("/")
        if kind == "simple":
            self.page(name)
        else:
            self.file(self.server.files[name], self.server.next_fault())

    def page(self, project: str):
        offered = {name: body for name, body in self.server.files.items() if name.startswith(project + "-")}
        link = '<a href="{}/files/{}{}">{}</a>'
        links = [
            link.format(
                self.server.file_host, name, f"#sha256={sha256(body)}" if self.server.hashes else "", name
            )
            for name, body in offered.items()
        ]
        body = "<!DOCTYPE html><html><body>" + "".join(links) + "</body></html>"
        self.answer(200 if offered else 404, body.encode(), "text/html")

    def file(self, body: bytes, fault: str):
        if fault == "refused":
            self.answer(403, b"no")
        elif fault == "changed":
            self.answer(200, body[:-1] + bytes([body[-1] ^ 1]))
        elif fault == "cut":
            self.answer(200, body, send=int(len(body) * HALF))
        elif fault == "cut, length unsaid":
            self.answer(200, body[: int(len(body) * HALF)], length=False)
        elif fault == "stalls":
            self.answer(200, body, send=int(len(body) * HALF))
            self.server.half_sent.set()
            self.server.go_on.wait(60)
        elif fault == "slow":
            self.server.go_on.wait(60)
            self.answer(200, body)
        else:
            self.answer(200, body)

    def answer(self, code: int, body: bytes, kind="application/octet-stream", send=None, length=True):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        if length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:send])
        self.wfile.flush()


ASSETS_TOML = """
[archives.tiny]
package = "tiny"
version = "1.0"
kind = "wheel"
filename = "{wheel}"
sha256 = "{wheel_sha}"
size = {wheel_size}

[archives.tarry]
package = "tarry"
version = "1.0"
kind = "sdist"
filename = "{sdist}"
sha256 = "{sdist_sha}"
size = {sdist_size}
"""
ASSET_TOML = """
[assets.{name}]
what = "a test"
archive = "{archive}"
file = "{file}"
sha256 = "{sha}"
size = {size}
licence = "MIT"
citation = "Nobody (2026)"
notebooks = ["{notebook}"]
"""
HUB_TOML = """
[assets.model-hub]
what = "a model"
hub = "someone/model"
revision = "abc"
licence = "MIT"
citation = "Nobody (2026)"
notebooks = ["01"]
"""


def write_assets(path: Path, files: dict[str, bytes], **changed: str) -> None:
    """An assets.toml for the two archives; `changed` replaces an asset's checksum."""
    wheel, sdist = files[WHEEL], files[SDIST]
    text = ASSETS_TOML.format(
        wheel=WHEEL,
        wheel_sha=sha256(wheel),
        wheel_size=len(wheel),
        sdist=SDIST,
        sdist_sha=sha256(sdist),
        sdist_size=len(sdist),
    )
    alpha, beta = ALPHA, INSIDE["tiny/b.txt"]
    for name, archive, file, body, notebook in [
        ("alpha", "tiny", "tiny/a.txt", alpha, "01"),
        ("beta", "tiny", "tiny/b.txt", beta, "02"),
        ("texts", "tiny", "tiny/texts/*.txt", BUNDLE, "01"),
        ("gamma", "tarry", "tarry-1.0/data/c.bin", bytes(range(256)), "03"),
    ]:
        digest = changed.get(name, sha256(body))
        text += ASSET_TOML.format(
            name=name, archive=archive, file=file, sha=digest, size=len(body), notebook=notebook
        )
    path.write_text(text + HUB_TOML)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index that offers the two archives, reached the way a reader's own would be, and an empty cache."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    server = Index()
    server.files = {WHEEL: make_wheel(), SDIST: make_sdist(tmp_path / "trap")}
    write_assets(tmp_path / "assets.toml", server.files)
    monkeypatch.setattr(data, "ASSETS", tmp_path / "assets.toml")
    monkeypatch.setattr(data, "PAUSE", 0.0)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", server.url)
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()


def cached_files() -> set[str]:
    """Everything in the cache but the locks, which are empty."""
    cache = runtime.cache_dir()
    return {
        str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"
    }


def failure(name: str) -> data.AssetError:
    """The one-sentence error that fetching raises; nothing of the file may lie in the cache after it."""
    with pytest.raises(data.AssetError) as caught:
        data.fetch(name)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert ". " not in message.replace("...", "")
    return caught.value


# --- what should happen -------------------------------------------------------------------------------------


def test_fetch_takes_every_asset_out_of_one_download(index):
    path = data.fetch("alpha")
    assert path.read_bytes() == ALPHA
    assert data.fetch("beta").read_bytes() == INSIDE["tiny/b.txt"]
    assert data.fetch("texts").read_bytes() == BUNDLE
    assert index.downloads() == 1
    assert cached_files() == {
        "tiny/a.txt",
        "tiny/b.txt",
        "tiny/texts.jsonl",
    }  # and neither archive nor scraps


def test_sdist_is_read_and_never_run(index, tmp_path):
    assert data.fetch("gamma").read_bytes() == bytes(range(256))
    assert not (tmp_path / "trap").exists()


def test_cached_asset_needs_no_network(index, monkeypatch):
    data.fetch("alpha")
    data._checked.clear()  # as a new process would begin

    def refuse(*_, **__):
        raise AssertionError("the network was touched")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert data.fetch("alpha").read_bytes() == ALPHA
    with pytest.raises(AssertionError, match="network was touched"):
        data.fetch("gamma")


@pytest.mark.parametrize("new_process", [True, False])
@pytest.mark.parametrize("damage", [ALPHA.upper(), b"short", b""])
def test_corrupt_cached_file_is_fetched_again(index, damage, new_process):
    path = data.fetch("alpha")
    assert data.fetch("alpha") == path  # digested now, and remembered as good
    path.write_bytes(damage)
    if new_process:
        data._checked.clear()
    assert data.fetch("alpha").read_bytes() == ALPHA
    assert index.downloads() == 2


def test_a_missing_neighbour_is_brought_back_and_a_good_one_left_alone(index):
    kept = data.fetch("alpha").stat().st_ino
    data.fetch("beta").unlink()
    assert data.fetch("beta").read_bytes() == b"beta"
    assert data.fetch("alpha").stat().st_ino == kept


# --- faults -------------------------------------------------------------------------------------------------


def test_no_network(index, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    error = failure("alpha")
    assert WHEEL in str(error)
    assert "network" in str(error)
    assert f"127.0.0.1:{port}" in str(error)
    assert isinstance(error.__cause__, OSError)
    assert cached_files() == set()


def test_index_without_the_package(index):
    del index.files[WHEEL]
    assert "no package index asked" in str(failure("alpha"))


def test_index_with_another_version_only(index):
    index.files["tiny-2.0-py3-none-any.whl"] = index.files.pop(WHEEL)
    assert "no package index asked" in str(failure("alpha"))
    assert index.downloads() == 0


def test_index_with_other_bytes_under_the_name(index):
    index.files[WHEEL] += b"!"
    assert "recorded checksum" in str(failure("alpha"))
    assert index.downloads() == 0


def test_pip_told_to_use_no_index(index, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert "none is set" in str(failure("alpha"))
    assert index.requests == []


@pytest.mark.parametrize("hashes", [True, False])
def test_changed_on_the_way(index, hashes):
    index.hashes, index.faults = hashes, ["changed"]
    error = failure("alpha")
    assert "checksum" in str(error)
    assert "thrown away" in str(error)
    assert error.__cause__ is not None
    assert cached_files() == set()
    assert index.downloads() == 1  # the same bytes would come again
    index.faults = []
    assert data.fetch("alpha").read_bytes() == ALPHA


@pytest.mark.parametrize("fault", ["cut", "cut, length unsaid"])
def test_cut_off(index, fault):
    index.faults = [fault]
    error = failure("alpha")
    size = len(index.files[WHEEL])
    got = re.search(rf"broke off after ([\d,]+) of {size:,} bytes", str(error))
    assert 0 < int(got[1].replace(",", "")) <= size * HALF
    assert error.__cause__ is not None
    assert cached_files() == set()
    assert index.downloads() == data.ATTEMPTS


@pytest.mark.parametrize("fault", ["cut", "cut, length unsaid"])
def test_cut_off_once_is_mended_silently(index, fault, capfd):
    index.faults = [fault, ""]
    assert data.fetch("alpha").read_bytes() == ALPHA
    assert index.downloads() == 2
    assert capfd.readouterr() == ("", "")


def test_refused(index):
    index.faults = ["refused"]
    assert "HTTP 403" in str(failure("alpha"))
    assert index.downloads() == 1


@pytest.mark.parametrize("name", ["beta", "texts", "gamma"])
def test_wrong_file_inside_the_archive(index, name):
    write_assets(data.ASSETS, index.files, **{name: "0" * 64})
    error = failure(name)
    assert "checksum" in str(error)
    assert repr(name) in str(error)
    assert not data.assets()[name].path.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("step", ["open", "replace", "fsync", "mkdir"])
def test_full_or_read_only_disk(index, monkeypatch, step, code):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    whole_open = Path.open
    with monkeypatch.context() as broken:
        if step == "open":

            def only_writing(path, mode="r", *rest, **more):
                return (fail if "w" in mode else whole_open)(path, mode, *rest, **more)

            broken.setattr(Path, "open", only_writing)
        else:
            broken.setattr(Path if step == "mkdir" else os, step, fail)
        error = failure("alpha")
    assert str(runtime.cache_dir()) in str(error)
    assert "COURSE_CACHE" in str(error)
    assert os.strerror(code) in str(error)
    assert error.__cause__.errno == code
    assert not data.assets()["alpha"].path.exists()
    assert data.fetch("alpha").read_bytes() == ALPHA


def test_cache_that_cannot_be_a_folder(index, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))
    assert "COURSE_CACHE" in str(failure("alpha"))


def test_cached_asset_is_read_from_a_read_only_disk(index, monkeypatch):
    data.fetch("alpha")
    data._checked.clear()

    def fail(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for owner, name in ((os, "replace"), (os, "fsync"), (Path, "mkdir"), (data.filelock.FileLock, "acquire")):
        monkeypatch.setattr(owner, name, fail)
    assert data.fetch("alpha").read_bytes() == ALPHA


def test_unknown_name_gets_close_matches(index):
    message = str(failure("alpa"))
    assert "'alpa'" in message
    assert "'alpha'" in message
    assert "gamma" in str(failure("zzz"))  # nothing is close: all are named


def test_hub_model_is_not_fetched_here(index):
    message = str(failure("model-hub"))
    assert "someone/model" in message
    assert "COURSE_MODELS=hub" in message
    assert not data.assets()["model-hub"].cached
    assert index.requests == []


# --- processes ----------------------------------------------------------------------------------------------


def fetch_in_child(assets: Path, name: str, answers) -> None:
    data.ASSETS = assets
    answers.put(data.fetch(name).read_bytes())


@pytest.mark.parametrize("names", [("alpha", "alpha", "alpha"), ("alpha", "beta", "texts")])
def test_processes_fetch_once(index, names):
    index.faults = ["slow"]
    context = multiprocessing.get_context("spawn")
    answers, children = context.Queue(), []
    for name in names:
        children.append(context.Process(target=fetch_in_child, args=(data.ASSETS, name, answers)))
        children[-1].start()
    wait_for(lambda: index.downloads() > 0)
    index.go_on.set()
    got = [answers.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
    inside = {"alpha": ALPHA, "beta": b"beta", "texts": BUNDLE}
    assert sorted(got) == sorted(inside[name] for name in names)
    assert index.downloads() == 1


def test_killed_process_leaves_nothing_that_is_used(index):
    index.faults = ["stalls", ""]
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=fetch_in_child, args=(data.ASSETS, "alpha", answers))
    child.start()
    assert index.half_sent.wait(60)
    part = runtime.cache_dir() / ".tiny.part" / WHEEL
    wait_for(lambda: part.is_file() and part.stat().st_size > 0)
    child.kill()
    child.join(60)
    index.go_on.set()
    assert part.stat().st_size < len(index.files[WHEEL])  # half a file is left behind
    assert not any(asset.cached for asset in data.assets().values())
    assert data.fetch("alpha").read_bytes() == ALPHA
    assert cached_files() == {"tiny/a.txt", "tiny/b.txt", "tiny/texts.jsonl"}


def wait_for(condition, seconds: float = 60) -> None:
    tick = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        tick.wait(0.05)
    raise TimeoutError("waited in vain")


def test_interrupt_cleans_up(index, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(data, "_unpack", interrupt)
        with pytest.raises(KeyboardInterrupt):
            data.fetch("alpha")
    assert cached_files() == set()
    assert data.fetch("alpha").read_bytes() == ALPHA


# --- whose index --------------------------------------------------------------------------------------------


def test_pip_configuration_file_is_honoured(index, tmp_path, monkeypatch):
    pytest.importorskip("pip")
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {index.url}\n")
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert data.fetch("beta").read_bytes() == b"beta"


@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_uv_variables_are_honoured(index, monkeypatch, variable):
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv(variable, index.url)
    assert data.fetch("beta").read_bytes() == b"beta"


@pytest.mark.parametrize(
    ("variable", "form"), [("PIP_EXTRA_INDEX_URL", "file:///nowhere {}"), ("UV_INDEX", "name={}")]
)
def test_extra_index_is_asked_when_the_first_has_not_the_file(index, monkeypatch, variable, form):
    first = Index()
    monkeypatch.setenv("PIP_INDEX_URL", first.url)
    monkeypatch.setenv(variable, form.format(index.url))
    assert data.fetch("beta").read_bytes() == b"beta"
    assert first.requests == ["/simple/tiny/"]
    first.shutdown()
    first.server_close()


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_archive_in_a_local_folder_is_taken(index, tmp_path, monkeypatch, form):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / WHEEL).write_bytes(index.files[WHEEL])
    (tmp_path / "wheels" / SDIST).write_bytes(b"something else of that name")
    monkeypatch.setenv("PIP_FIND_LINKS", form.format(tmp_path / "wheels"))
    assert data.fetch("beta").read_bytes() == b"beta"
    assert index.requests == []
    assert data.fetch("gamma").read_bytes() == bytes(range(256))
    assert index.downloads() == 1


def test_credentials_reach_their_host_only_and_no_message(index, monkeypatch):
    files = Index()
    files.files = index.files
    index.file_host = f"http://127.0.0.1:{files.server_port}"
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//reader:s3cret%21@"))
    data.fetch("beta")
    assert index.credentials == ["Basic cmVhZGVyOnMzY3JldCE="]
    assert files.credentials == [None]
    del index.files[SDIST]
    assert "s3cret" not in str(failure("gamma"))
    files.shutdown()
    files.server_close()


# --- progress, listing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terminal", "quiet", "progress"),
    [(True, "", True), (True, "1", True), (True, "", False), (False, "", True)],
)
def test_bar_is_drawn_on_a_terminal_unless_told_otherwise(index, monkeypatch, terminal, quiet, progress):
    class Screen(io.StringIO):
        def isatty(self):
            return terminal

    monkeypatch.setenv("COURSE_QUIET", quiet)
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    data.fetch("alpha", progress=progress)
    assert bool(screen.getvalue()) == (terminal and not quiet and progress)


def test_fetch_all_fetches_what_the_notebooks_use(index, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "NOTEBOOKS", tmp_path / "notebooks")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_words.ipynb").write_text("{}")
    data.fetch_all()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["alpha", "texts", "model-hub"]
    assert index.downloads() == 1
    data.fetch_all("03")
    assert data.assets()["gamma"].cached
    with pytest.raises(data.AssetError, match="'3'"):
        data.fetch_all("3")


def test_command_lists_and_fetches(index, capsys):
    assert data.main([]) == 0
    before = capsys.readouterr().out
    assert data.main(["--fetch", "--notebook", "02"]) == 0
    capsys.readouterr()
    assert data.main([]) == 0
    after = capsys.readouterr().out
    for asset in data.assets().values():
        assert re.search(rf"(?m)^{asset.name} .*MIT$", after)
        assert asset.citation in after
    assert re.search(r"(?m)^beta .*\bno\b", before)
    assert re.search(r"(?m)^beta .*\byes\b", after)


def test_command_says_what_went_wrong_in_one_line(index, capsys):
    del index.files[SDIST]
    assert data.main(["--fetch", "--notebook", "03"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


# --- the course's own list ----------------------------------------------------------------------------------


def test_assets_toml_is_complete():
    known = data.assets()
    places = [asset.path for asset in known.values() if asset.archive]
    assert len(set(places)) == len(places)
    for asset in known.values():
        assert all((asset.what, asset.licence, asset.citation)), asset.name
        assert all(re.fullmatch(r"\d\d[a-z]?", page) for page in asset.notebooks), asset.name
        assert is_pinned(asset), asset.name


def is_pinned(asset: data.Asset) -> bool:
    if asset.hub:
        return bool(re.fullmatch(r"[\w-]+/[\w-]+ [0-9a-f]{40}", f"{asset.hub} {asset.revision}"))
    archive = asset.archive
    ending = {"wheel": r"-py[\w.]+-none-any\.whl", "sdist": r"\.tar\.gz"}[archive.kind]
    digests = all(re.fullmatch(r"[0-9a-f]{64}", part.sha256) and part.size > 0 for part in (asset, archive))
    named = re.fullmatch(rf"[\w-]+-{re.escape(archive.version)}{ending}", archive.filename)
    runnable = asset.path.suffix in {".py", ".pkl", ".pickle", ".pt", ".pth", ".bin", ".so"}
    return bool(digests and named and not runnable)
