"""A small replica of the model hub on loopback, so that the hub's road is tested without the hub.

It serves the files below `root/ORG/NAME/` at one revision each, as the hub does: HEAD and GET of
`/ORG/NAME/resolve/REVISION/FILE` with entity tag and commit, byte ranges, error codes, and a redirect from
the old short names (`gpt2`) to the full ones. Clients find it by HF_ENDPOINT. It keeps every request, and has
a `fault` at will.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar, Literal, NamedTuple

import pytest

from course_utils import data

SHORT_NAMES = {"gpt2": "openai-community/gpt2", "bert-base-uncased": "google-bert/bert-base-uncased"}
FILE_URL = re.compile(
    r"/(?:(?P<org>[\w.-]+)/)?(?P<name>[\w.-]+)/resolve/(?P<revision>[^/?]+)/(?P<file>[^?]+)"
)


class Request(NamedTuple):
    method: str
    path: str
    status: int
    authorization: str | None


@dataclass
class Hub:
    """Repositories below `root`, each served at its one revision and as `main`."""

    MINILM: ClassVar[str] = "sentence-transformers/all-MiniLM-L6-v2"  # which the course never asks for

    root: Path
    revisions: dict[str, str]
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    fault: Literal["", "silent", "slow", "breaks", "wrong"] = ""

    @property
    def downloads(self) -> list[Request]:
        """The requests for files (the client asks other things of its own accord)."""
        return [request for request in self.requests if "/resolve/" in request.path]

    def find(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        asked = FILE_URL.fullmatch(path.partition("?")[0])
        if not asked:
            return 404, {}, b""
        repo = "/".join(filter(None, (asked["org"], asked["name"])))
        if repo in SHORT_NAMES:
            return 307, {"Location": path.replace(f"/{repo}/", f"/{SHORT_NAMES[repo]}/", 1)}, b""
        if repo not in self.revisions:
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        commit = self.revisions[repo]
        if asked["revision"] not in (commit, "main"):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        file = self.root / repo / asked["file"]
        if not file.is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        body = file.read_bytes()
        headers = {"ETag": f'"{entity_tag(file.name, body)}"', "X-Repo-Commit": commit}
        if file.suffix == ".safetensors":  # which the hub offers over its own protocol too
            headers |= {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": f"{self.url}/xet"}
        return 200, headers, body


def entity_tag(name: str, body: bytes) -> str:
    """As the hub's: SHA-256 of large files, git's SHA-1 of small ones."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(body).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if hub.fault == "silent":
                time.sleep(20)  # longer than any client here has patience
            status, headers, body = hub.find(self.path)
            start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if status == 200 and start:
                status, whole, body = 206, len(body), body[int(start[1]) :]
                headers["Content-Range"] = f"bytes {start[1]}-{whole - 1}/{whole}"
            hub.requests.append(Request(self.command, self.path, status, self.headers.get("Authorization")))
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET" and body:
                self.send(body)

        def send(self, body: bytes) -> None:
            if hub.fault == "wrong":
                body = body[:-1] + b"?"
            elif hub.fault == "breaks":  # half of the file, and nothing when asked for the rest
                body = b"" if "Range" in self.headers else body[: len(body) // 2]
                self.close_connection = True
            pace = 2048 if hub.fault == "slow" else max(1, len(body))
            try:
                for at in range(0, len(body), pace):
                    self.wfile.write(body[at : at + pace])
                    time.sleep(0.05 * (hub.fault == "slow"))
            except OSError:  # the client has had enough
                self.close_connection = True

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_ignored: object) -> None:
            """Requests are kept in the hub's list, not printed."""

    return Handler


@contextmanager
def serving(root: Path, revisions: dict[str, str]) -> Iterator[Hub]:
    """A replica that serves `root/ORG/NAME/` at the revision `revisions["ORG/NAME"]` while it lasts."""
    hub = Hub(root, revisions)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    server.block_on_close = False
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_tiny_bert(folder: Path) -> None:
    """A BERT of 16 numbers a piece, random weights, the original's pieces (which MiniLM has) and heads."""
    import torch
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertForPreTraining

    tokenizer = Tokenizer.from_file(str(data.fetch("minilm-tokenizer")))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertForPreTraining(BertConfig(vocab_size=tokenizer.get_vocab_size(), **shape)).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 512}')


def make_tiny_gpt2(folder: Path) -> None:
    """A GPT-2 of 16 numbers a piece with random weights, and the stories' pieces."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from course_utils import bpe

    tokenizer = bpe.tokenizer()
    end = tokenizer.token_to_id(bpe.END)
    torch.manual_seed(0)
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2}
    config = GPT2Config(vocab_size=tokenizer.get_vocab_size(), bos_token_id=end, eos_token_id=end, **shape)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1024}')


@pytest.fixture(scope="session")
def hub_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny random stand-ins for the hub's models, under the names of `data/assets.toml`; and a MiniLM."""
    root = tmp_path_factory.mktemp("hub")
    for name, make in (("bert-hub", make_tiny_bert), ("gpt2-hub", make_tiny_gpt2)):
        make(root / data.assets()[name].hub)
    make_tiny_bert(root / Hub.MINILM)
    return root


@pytest.fixture
def hub(hub_root: Path) -> Iterator[Hub]:
    """The replica, serving the stand-ins, those of the course's assets at the pinned revisions."""
    revisions = {asset.hub: asset.revision for asset in data.assets().values() if asset.hub}
    revisions[Hub.MINILM] = "1" * 40
    with serving(hub_root, revisions) as replica:
        yield replica
