"""The two roads of `pretrained.load`, the hub's against a replica on loopback.

The hub's client reads its settings when it is imported, so its road is walked in processes of their own.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reader import hub_road

from course_utils import data, pretrained

pytest_plugins = ["hub"]

# Loads a model, or only chooses its folder, then prints what it got, what was said and how soon.
WALK = """
import io, json, sys, time
from contextlib import redirect_stdout
class Said(io.StringIO):
    after = None
    def write(self, text):
        self.after = self.after or time.perf_counter() - began
        return super().write(text)
from course_utils import pretrained
name, choose_only = sys.argv[1], sys.argv[2] == "choose"
pretrained.PATIENCE = pretrained.LONGEST = 1.0
if choose_only:
    pretrained._read = lambda name, folder, attention: (str(folder), None)
said, began = Said(), time.perf_counter()
with redirect_stdout(said):
    loaded = pretrained.load(name)
facts = {"source": loaded.source, "row": loaded.row, "said": said.getvalue(), "after": said.after}
if choose_only:
    facts["folder"] = loaded.model
else:
    from test_pretrained import fingerprint
    facts |= {"weights": fingerprint(loaded.model), "kind": type(loaded.model).__name__}
    facts |= {"ids": loaded.tokenizer("the cat sat").input_ids, "training": loaded.model.training}
print(json.dumps(facts))
"""


def fingerprint(model):
    """A digest of every weight, by name."""
    weights = sorted(model.state_dict().items())
    return hashlib.sha256(b"".join(k.encode() + v.numpy().tobytes() for k, v in weights)).hexdigest()


def walk(name, home, endpoint, *, what="choose", **environment):
    """What a process of its own gets from `load(name)` on the hub's road."""
    drop = ("HF_", "TRANSFORMERS_", "HUGGINGFACE_")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(drop)}
    folders = [str(Path(pretrained.__file__).parents[1]), str(Path(__file__).parent)]
    ours = {"PYTHONPATH": os.pathsep.join(folders), "PYTHONUTF8": "1"}
    run = subprocess.run(
        [sys.executable, "-c", WALK, name, what],
        env=clean | hub_road(endpoint, home) | ours | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""  # neither bars nor warnings
    return json.loads(run.stdout)


@pytest.fixture(scope="module", autouse=True)
def embedded_by_default():
    """Whatever the reader's settings: the tests in this process take the default road."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COURSE_MODELS", raising=False)
        yield


@pytest.fixture
def closed_port():
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(scope="module")
def embedded():
    return pretrained.load("bert", attentions=True)


def original(name, hub_root):
    """The replica's model, read straight from its folder by its own class."""
    import transformers

    folder = hub_root / data.assets()[f"{name}-hub"].hub
    kinds = {"bert": transformers.BertModel, "gpt2": transformers.GPT2LMHeadModel}
    return kinds[name].from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_hub_s_model_is_loaded_as_it_is_and_kept(name, hub, tmp_path, closed_port):
    got = walk(name, tmp_path, hub.url, what="load")
    model, tokenizer = original(name, hub.root)
    assert (got["source"], got["said"], got["training"]) == ("hub", "", False)
    assert (got["kind"], got["weights"]) == (type(model).__name__, fingerprint(model))
    assert got["ids"] == tokenizer("the cat sat").input_ids
    assert "from the model hub" in got["row"]
    again = walk(name, tmp_path, closed_port)  # the hub is gone, its cache is there
    assert (again["source"], again["said"]) == ("hub", "")
    assert Path(again["folder"]).is_relative_to(tmp_path)


def test_only_the_pinned_revision_is_asked_for(hub, tmp_path):
    walk("bert", tmp_path, hub.url)
    asset = data.assets()["bert-hub"]
    wanted = {f"/{asset.hub}/resolve/{asset.revision}/{file}" for file in pretrained.HUB_FILES}
    assert {request.path for request in hub.downloads} == wanted
    assert {request.status for request in hub.downloads} == {200}
    assert not [request for request in hub.requests if request.path == "/xet"]  # offered, not taken


def fell_back(got):
    """The embedded model, and one sentence that says so."""
    one_sentence = got["said"].count("\n") == 1 and "google-bert/bert-base-uncased" in got["said"]
    embedded_folder = data.fetch("minilm-weights").parent.resolve()
    assert "going on with all-MiniLM-L6-v2" in got["said"]
    return one_sentence and got["source"] == "embedded" and Path(got["folder"]).resolve() == embedded_folder


def test_nobody_listens(embedded, tmp_path, closed_port):
    assert fell_back(walk("bert", tmp_path, closed_port))
    got = walk("bert", tmp_path, closed_port, what="load")
    assert (got["source"], got["row"]) == ("embedded", embedded.row)
    assert got["weights"] == fingerprint(embedded.model)


def test_a_hub_that_never_answers_costs_seconds(hub, tmp_path):
    """Not a benchmark: without the probe the client tries again for more than half a minute."""
    hub.fault = "silent"
    got = walk("bert", tmp_path, hub.url)
    assert fell_back(got)
    assert got["after"] < 5


def leavings(home):
    """What stands in the caches, the embedded model and empty files (locks) left out."""
    files = (path for path in home.rglob("*") if path.is_file() and path.stat().st_size)
    return [str(path.relative_to(home)) for path in files if "minilm" not in path.parts]


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("slow", "kB/s would take over"),
        ("breaks", "peer closed connection"),
        ("wrong", "arrived with other bytes than the hub announces"),
    ],
)
def test_a_hub_at_fault_leaves_nothing_half_written(hub, tmp_path, fault, why):
    hub.fault = fault
    got = walk("bert", tmp_path, hub.url)
    assert fell_back(got)
    assert why in got["said"]
    assert leavings(tmp_path) == []
    hub.fault = ""
    mended = walk("bert", tmp_path, hub.url)
    assert (mended["source"], mended["said"]) == ("hub", "")
    assert {Path(name).name for name in leavings(tmp_path)} == set(pretrained.HUB_FILES)


def test_a_model_that_another_program_fetched_is_taken_from_the_hub_s_own_cache(hub, tmp_path, closed_port):
    asset = data.assets()["bert-hub"]
    code = (
        "import sys, huggingface_hub as hub; repo, revision, *files = sys.argv[1:];"
        "[hub.hf_hub_download(repo, file, revision=revision) for file in files]"
    )
    environment = os.environ | hub_road(hub.url, tmp_path) | {"HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", code, asset.hub, asset.revision, *pretrained.HUB_FILES]
    subprocess.run(command, env=environment, check=True, timeout=60)
    got = walk("bert", tmp_path, closed_port)
    assert (got["source"], got["said"]) == ("hub", "")
    assert Path(got["folder"]).is_relative_to(tmp_path / "hf" / "hub")


def test_a_cache_that_cannot_be_written_is_said(hub, tmp_path):
    cache = Path(hub_road(hub.url, tmp_path)["COURSE_CACHE"])
    (cache / "bert-hub").write_text("in the way")
    got = walk("bert", tmp_path, hub.url)
    assert fell_back(got)
    assert "bert-hub" in got["said"]


def test_a_model_larger_than_the_free_memory_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr("course_utils.runtime.free_memory", lambda: 10_000_000)
    with pytest.raises(
        MemoryError, match=r"all-MiniLM-L6-v2 takes 91 MB of memory and 10 MB are free: shut down"
    ):
        pretrained.load("bert")


def test_offline_means_offline(hub, tmp_path):
    got = walk("bert", tmp_path, hub.url, HF_HUB_OFFLINE="1")
    assert fell_back(got)
    assert "HF_HUB_OFFLINE" in got["said"]
    assert hub.requests == []


def test_a_hub_without_the_revision(hub, tmp_path):
    hub.revisions[data.assets()["bert-hub"].hub] = "0" * 40
    assert fell_back(walk("bert", tmp_path, hub.url))
    assert {request.status for request in hub.downloads} == {404}


def test_half_a_model_is_no_model(hub, tmp_path, monkeypatch):
    """The weights are missing at the hub: what was fetched before them must not be taken for the model."""
    whole = hub.find
    missing = 404, {"X-Error-Code": "EntryNotFound"}, b""
    with monkeypatch.context() as patch:
        patch.setattr(hub, "find", lambda path: missing if "safetensors" in path else whole(path))
        assert fell_back(walk("bert", tmp_path, hub.url))
        assert fell_back(walk("bert", tmp_path, hub.url))
    assert any(request.path.endswith("config.json") and request.status == 200 for request in hub.downloads)
    folder = Path(walk("bert", tmp_path, hub.url)["folder"])
    assert folder.is_relative_to(tmp_path)
    assert {path.name for path in folder.iterdir()} == set(pretrained.HUB_FILES)


def test_no_token_is_sent(hub, tmp_path):
    walk("bert", tmp_path, hub.url, HF_TOKEN="hf_" + "x" * 34)
    assert hub.downloads
    assert {request.authorization for request in hub.requests} == {None}


@torch.no_grad()
def test_the_embedded_gpt2_is_what_its_row_says_and_writes_a_story():
    found = pretrained.load("gpt2")
    assert found.source == "embedded"
    assert not found.model.training
    assert f"{found.model.num_parameters() / 1e6:.1f} M parameters" in found.row
    assert "in GPT-2's place" in found.row
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}
    ids = torch.tensor([[found.tokenizer.eos_token_id, *found.tokenizer("Once upon a").input_ids]])
    assert found.tokenizer.decode(found.model(ids).logits[0, -1].argmax()) == " time"


def test_the_embedded_encoder_is_what_its_row_says(embedded):
    config = embedded.model.config
    assert embedded.source == "embedded"
    assert not embedded.model.training
    assert f"{config.num_hidden_layers} layers" in embedded.row
    assert {p.dtype for p in embedded.model.parameters()} == {torch.float32}
    assert "in BERT's place" in embedded.row
    assert len(repr(embedded)) < 300


@torch.no_grad()
def test_the_embedded_encoder_knows_what_is_alike(embedded):
    """Mean-pooled sentence vectors, as the model was tuned."""
    sentences = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "Shares fell sharply on Monday."]
    batch = embedded.tokenizer(sentences, padding=True, return_tensors="pt")
    hidden = embedded.model(**batch).last_hidden_state  # (B, T, C)
    mask = batch["attention_mask"][..., None]
    mean = (hidden * mask).sum(1) / mask.sum(1)  # (B, C)
    near, far = torch.cosine_similarity(mean[:1], mean[1:])
    assert near > far + 0.3


@torch.no_grad()
def test_attentions_come_only_when_asked_for_and_change_nothing(embedded):
    batch = embedded.tokenizer("the cat sat", return_tensors="pt")
    maps = embedded.model(**batch, output_attentions=True)
    config = embedded.model.config
    length = batch["input_ids"].shape[1]
    assert len(maps.attentions) == config.num_hidden_layers
    assert maps.attentions[0].shape == (1, config.num_attention_heads, length, length)
    torch.testing.assert_close(maps.attentions[0].sum(-1), torch.ones(1, config.num_attention_heads, length))
    plain = pretrained.load("bert").model(**batch)
    torch.testing.assert_close(plain.last_hidden_state, maps.last_hidden_state, rtol=1e-5, atol=1e-5)


def test_an_unknown_name_hears_the_names():
    with pytest.raises(ValueError, match="'bert' or 'gpt2', got 'BERT'"):
        pretrained.load("BERT")


def test_loading_leaves_the_libraries_as_they_were(capfd):
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    pretrained.load("bert")
    assert (
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        are_progress_bars_disabled(),
    ) == before
    assert tuple(capfd.readouterr()) == ("", "")


def test_the_replica_sends_short_names_on(hub, tmp_path):
    code = (
        "from huggingface_hub import hf_hub_download as get;"
        f"print(open(get('gpt2', 'config.json', cache_dir={str(tmp_path)!r}, token=False)).read())"
    )
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout) == json.loads((hub.root / "openai-community/gpt2/config.json").read_text())
    assert [request.status for request in hub.downloads][:2] == [307, 200]
