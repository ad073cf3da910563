"""GPT-2 on the course's decoder: weights, logits, gradients and what it writes are the library's."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_attention import (
    DTYPES,
    assert_close,
    assert_gradients,
    backward,
    draw_weights,
    precise_and_quick,  # noqa: F401 (a fixture for every test)
)
from test_bert import ready_and_apart
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    BertConfig,
    BertModel,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from course_utils import bpe
from course_utils.generation import Decoding
from course_utils.gpt2 import (
    SHAPE,
    Continuation,
    from_gpt2,
    generate,
    gpt2_config,
    gpt2_weight,
    load,
    parameters,
    stops_at,
    to_gpt2,
)
from course_utils.runtime import device, generator
from course_utils.transformer import Config, Decoder

END, PAD = 0, 1
SIZES = {
    "vocab_size": 40, "n_positions": 32, "n_embd": 24, "n_layer": 2, "n_head": 3,
    "bos_token_id": None, "eos_token_id": None, "layer_norm_epsilon": 1e-3,  # so large that it matters
}  # fmt: skip
CONFIG = Config(V=11, T=24, C=12, nh=3, layers=2, eps=1e-3, **SHAPE)
NO_ENDS = {"bos_token_id": None, "eos_token_id": None}
few = settings(deadline=None, max_examples=25)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def tiny(seed=0, **sizes):
    """A small GPT-2 of the library's with random weights, biases and gains too, in evaluation mode."""
    theirs = GPT2LMHeadModel(GPT2Config(**SIZES | sizes))
    draw_weights(theirs, seeded(seed))
    return theirs.eval()


def twin(theirs):
    """Ours with the same weights; on the CPU, where both draw the same."""
    return from_gpt2(theirs.state_dict(), gpt2_config(theirs.config)).cpu()


def tiny_decoder(seed=0, config=CONFIG):
    """Ours in float64, where no rounding decides what is written."""
    ours = Decoder(config)
    draw_weights(ours, seeded(seed))
    return ours.double().eval()


MODEL = tiny_decoder()


def drawn_prompts(B, V, seed=0, longest=8, first=()):
    """B prompts of different lengths, END in none."""
    random = seeded(seed)
    lengths = torch.randint(1, longest + 1, (B,), generator=random).tolist()
    return [[*first, *torch.randint(2, V, (n,), generator=random).tolist()] for n in lengths]


def padded(prompts, value=PAD):
    """(B, T) ids with shorter prompts padded on the left, and how far, (B,)."""
    ids = pad_sequence([torch.tensor(p[::-1]) for p in prompts], True, value).flip(1)
    return ids, torch.tensor([ids.shape[1] - len(prompt) for prompt in prompts])


# --- the weights --------------------------------------------------------------------------------------------


def test_the_config_is_the_decoders():
    theirs = GPT2Config(
        vocab_size=31, n_positions=17, n_embd=12, n_layer=5, n_head=4, n_inner=20, resid_pdrop=0.25,
        layer_norm_epsilon=1e-4, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    expected = Config(V=31, T=17, C=12, nh=4, layers=5, hidden=20, dropout=0.25, eps=1e-4, **SHAPE)
    assert gpt2_config(theirs) == expected
    assert expected.norm == "pre"
    assert gpt2_config(GPT2Config()).hidden == 0  # 4 C


OTHER_SWITCHES = {
    "activation_function": ("gelu_new", ["relu", "gelu", "silu"]),
    "scale_attn_weights": (True, [False]),
    "scale_attn_by_inverse_layer_idx": (False, [True]),
    "tie_word_embeddings": (True, [False]),
    "add_cross_attention": (False, [True]),
}
SWITCHES = pytest.mark.parametrize(
    ("name", "expected", "value"),
    [(name, expected, value) for name, (expected, values) in OTHER_SWITCHES.items() for value in values],
)


@SWITCHES
def test_another_switch_is_refused(name, expected, value):
    message = f"^theirs must be a GPT-2 with {name} = {expected!r}, got {value!r}$"
    with pytest.raises(ValueError, match=message):
        gpt2_config(GPT2Config(**SIZES | {name: value}))


@pytest.mark.parametrize("theirs", [BertConfig(), LlamaConfig()], ids=lambda config: config.model_type)
def test_another_family_is_refused(theirs):
    message = f"^theirs must be a GPT-2 with model_type = 'gpt2', got '{theirs.model_type}'$"
    with pytest.raises(ValueError, match=message):
        gpt2_config(theirs)


def test_each_of_our_weights_is_a_view_of_its_own_place():
    """Between them they cover every number that GPT-2 learns, each once; what is written there stays."""
    theirs = tiny()
    tensors = {name: torch.zeros_like(p) for name, p in theirs.transformer.named_parameters()}
    for name, p in Decoder(gpt2_config(theirs.config)).named_parameters():
        view = gpt2_weight(tensors, name)
        assert view.shape == p.shape
        view += 1
    assert all((tensor == 1).all() for tensor in tensors.values())


def test_there_and_back_bit_for_bit():
    ours, theirs = tiny_decoder(3, gpt2_config(GPT2Config(**SIZES))).float(), tiny(4)
    assert to_gpt2(ours, theirs) is theirs
    again = dict(twin(theirs).named_parameters())
    assert again.keys() == dict(ours.named_parameters()).keys()
    for name, p in ours.named_parameters():
        assert torch.equal(again[name], p), name
    ids = torch.randint(40, (3, 9), generator=seeded(0))
    assert_close(theirs(ids).logits.detach(), ours(ids).detach(), "logits")  # the scores' matrix went along


def test_back_and_there_bit_for_bit():
    theirs, other = tiny(5), tiny(6)
    to_gpt2(twin(theirs), other)
    found = other.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in theirs.state_dict().items())


def test_a_prefix_before_the_names_is_of_no_account():
    """GPT2LMHeadModel has it, GPT2Model and the hub's `gpt2` have not."""
    theirs = tiny()
    config = gpt2_config(theirs.config)
    with_prefix, without = theirs.state_dict(), theirs.transformer.state_dict()
    assert "transformer.wte.weight" in with_prefix
    assert "wte.weight" in without
    a, b = (from_gpt2(tensors, config).state_dict() for tensors in (with_prefix, without))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_from_gpt2_is_ready_to_be_asked_and_leaves_the_original_alone():
    theirs = tiny(resid_pdrop=0.25).train()
    ready_and_apart(theirs, lambda: from_gpt2(theirs.state_dict(), gpt2_config(theirs.config)), 0.25)


PARTS = ["wte.weight", "wpe.weight", "h.1.attn.c_attn.weight", "h.0.mlp.c_proj.bias", "ln_f.weight"]


@pytest.mark.parametrize("name", PARTS)
def test_a_missing_tensor_is_named(name):
    theirs = tiny()
    tensors = theirs.transformer.state_dict()
    del tensors[name]
    with pytest.raises(ValueError, match=f"^tensors must be a GPT-2's, and lack {name}$"):
        from_gpt2(tensors, gpt2_config(theirs.config))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"vocab_size": 41}, r"embedding\.tokens\.weight has shape \(40, 24\), expected \(41, 24\)$"),
        ({"n_positions": 31}, r"embedding\.positions has shape \(32, 24\), expected \(31, 24\)$"),
        ({"n_inner": 50}, r"stack\.layers\.0\.feed_forward\.inner\.weight has shape \(96, 24\), expected"),
        ({"n_embd": 12}, r"embedding\.positions has shape \(32, 24\), expected \(32, 12\)$"),
    ],
    ids=str,
)
def test_a_tensor_of_another_shape_is_named(sizes, message):
    config = gpt2_config(GPT2Config(**SIZES | sizes))
    with pytest.raises(ValueError, match="^tensors must fit the config: " + message):
        from_gpt2(tiny().state_dict(), config)


# --- logits and gradients -----------------------------------------------------------------------------------


def assert_same(theirs, ids, seed, dtype):
    """Logits and the gradient of each weight, relative to the largest entry."""
    ours, theirs = twin(theirs).to(dtype), theirs.to(dtype)
    found, expected = ours(ids), theirs(ids).logits
    assert_close(found.detach(), expected.detach(), seed)
    upstream = torch.randn(found.shape, generator=seeded(seed), dtype=dtype)
    _, gradients = backward(found, upstream, ours)
    _, by_name = backward(expected, upstream, theirs)
    by_name = {name.removeprefix("transformer."): gradient for name, gradient in by_name.items()}
    assert sum(g.numel() for g in gradients.values()) == sum(g.numel() for g in by_name.values())
    assert_gradients(gradients, by_name, gpt2_weight, dtype)


@DTYPES
@pytest.mark.parametrize("seed", range(6))
def test_logits_and_all_gradients_are_gpt2s(seed, dtype):
    B, T, nh, hs, layers, V = torch.randint(1, 8, (6,), generator=seeded(seed)).tolist()
    sizes = {"n_embd": nh * hs, "n_head": nh, "n_layer": layers, "n_inner": [None, 20, 3][seed % 3]}
    theirs = tiny(seed, vocab_size=V + 5, n_positions=T + seed % 2, **sizes)
    assert_same(theirs, torch.randint(V + 5, (B, T), generator=seeded(seed)), seed, dtype)


def test_two_layers_of_full_width_are_gpt2s():
    """768 wide, 12 heads; of the vocabulary a tenth, which keeps it to a second."""
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=5_025, n_layer=2, n_positions=64, **NO_ENDS)).eval()
    draw_weights(theirs, seeded(0))
    assert_same(theirs, torch.randint(5_025, (2, 40), generator=seeded(1)), 0, torch.float64)


MODELS = {
    "gpt2": ({}, 124_439_808),
    "gpt2-medium": ({"n_embd": 1024, "n_layer": 24, "n_head": 16}, 354_823_168),
    "gpt2-large": ({"n_embd": 1280, "n_layer": 36, "n_head": 20}, 774_030_080),
    "gpt2-xl": ({"n_embd": 1600, "n_layer": 48, "n_head": 25}, 1_557_611_200),
}


@torch.no_grad()
def test_gpt2_of_full_size():
    """A random initialisation of all 124 million weights: the library's logits, and the same likeliest."""
    theirs = GPT2LMHeadModel(GPT2Config()).eval()
    ours = twin(theirs)
    assert sum(p.numel() for p in ours.parameters()) == theirs.num_parameters() == MODELS["gpt2"][1]
    ids = torch.randint(50_257, (2, 20), generator=seeded(0))
    found, expected = ours(ids), theirs(ids).logits
    assert (found - expected).abs().max() <= 1e-4
    assert torch.equal(found.argmax(dim=-1), expected.argmax(dim=-1))
    assert expected.std() > 0.1  # so that 1e-4 is little
    with torch.inference_mode():  # as it is read for writing
        read = Continuation(ours, ids, torch.zeros(2, dtype=torch.long), 1).logits
    assert (read - expected[:, -1]).abs().max() <= 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_the_formula_counts_every_model_of_the_family(name):
    """Against the library's, built without memory for its weights."""
    sizes, expected = MODELS[name]
    with torch.device("meta"):
        theirs = GPT2LMHeadModel(GPT2Config(**sizes))
    assert parameters(gpt2_config(theirs.config)) == theirs.num_parameters() == expected


@few
@given(*[st.integers(1, n) for n in (50, 20, 4, 3, 3)], st.sampled_from([0, 1, 7]))
def test_the_formula_counts_what_the_code_builds(V, T, nh, hs, layers, hidden):
    config = Config(V=V, T=T, C=nh * hs, nh=nh, layers=layers, hidden=hidden, **SHAPE)
    assert parameters(config) == sum(p.numel() for p in Decoder(config).parameters())


# --- from a folder ------------------------------------------------------------------------------------------


def assert_weights(ours, theirs):
    """Those of a state dict, bit for bit."""
    for name, p in ours.named_parameters():
        assert torch.equal(p.cpu(), gpt2_weight(theirs, name)), name


@pytest.mark.parametrize("kind", [GPT2LMHeadModel, GPT2Model])
def test_a_saved_model_is_loaded(kind, tmp_path):
    theirs = kind(GPT2Config(**SIZES))
    draw_weights(theirs, seeded(1))
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert not ours.training
    assert {p.device.type for p in ours.parameters()} == {device()}
    assert_weights(ours, getattr(theirs, "transformer", theirs).state_dict())
    assert ours.stack.norm.eps == SIZES["layer_norm_epsilon"]


def test_half_precision_on_disk_is_single_in_memory(tmp_path):
    theirs = tiny().half()
    theirs.save_pretrained(tmp_path)
    assert {t.dtype for t in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    ours = load(tmp_path)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    assert_weights(ours, theirs.float().transformer.state_dict())


@pytest.mark.parametrize("left", [0, 4, 100, 0.5, -1])
def test_a_truncated_file_is_refused(left, tmp_path):
    """Nothing, half a length, half a header, half of the weights, all but a byte."""
    tiny().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(left * len(whole)) if left == 0.5 else left])
    with pytest.raises(ValueError, match=f"^model.safetensors in {tmp_path.name} is damaged: "):
        load(tmp_path)


def tiny_bert():
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return BertModel(BertConfig(vocab_size=9, max_position_embeddings=8, **sizes))


def tiny_llama():
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return LlamaForCausalLM(LlamaConfig(vocab_size=9, max_position_embeddings=8, **sizes))


@pytest.mark.parametrize(("build", "found"), [(tiny_bert, "bert"), (tiny_llama, "llama")])
def test_a_folder_of_another_family_is_refused(build, found, tmp_path):
    theirs = build()
    theirs.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"^theirs must be a GPT-2 with model_type = 'gpt2', got '{found}'$"):
        load(tmp_path)
    GPT2Config(**SIZES).save_pretrained(tmp_path)  # their weights under a GPT-2's config
    with pytest.raises(ValueError, match=r"^tensors must be a GPT-2's, and lack wpe\.weight$"):
        load(tmp_path)


@SWITCHES
def test_a_folder_with_another_switch_is_refused(name, expected, value, tmp_path):
    GPT2LMHeadModel(GPT2Config(**SIZES | {name: value})).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=f"^theirs must be a GPT-2 with {name} = {expected!r}, got {value!r}$"
    ):
        load(tmp_path)


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path):
    tiny().save_pretrained(tmp_path)
    file, path = tmp_path / "model.safetensors", tmp_path / "config.json"
    config = json.loads(path.read_text())
    for sizes, message in (
        ({"n_layer": 3}, r"^tensors must be a GPT-2's, and lack h\.2\."),
        ({"n_positions": 33}, r"^tensors must fit the config: embedding\.positions has shape \(32, 24\)"),
    ):
        path.write_text(json.dumps(config | sizes))
        with pytest.raises(ValueError, match=message):
            load(tmp_path)
    path.write_text(json.dumps(config))
    tensors = load_file(file)
    del tensors["transformer.h.1.mlp.c_fc.bias"]
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"^tensors must be a GPT-2's, and lack h\.1\.mlp\.c_fc\.bias$"):
        load(tmp_path)


# --- a continuation's scores --------------------------------------------------------------------------------


def alone(model, ids):
    """The decoder's logits after a text, no padding and no cache, (V,)."""
    return model(torch.tensor([ids]))[0, -1]


def assert_scores(logits, model, rows):
    for b, ids in enumerate(rows):
        assert_close(logits[b], alone(model, ids), b)


CHUNKS = st.lists(st.integers(1, 4), max_size=4)


@few
@given(st.integers(0, 2**32), st.integers(1, 4), st.booleans(), st.integers(0, 9))
@torch.no_grad()
def test_each_token_is_read_as_by_the_decoder(seed, B, together, more):
    """From prompts of one length or of several: padding is as if it were not there."""
    model = tiny_decoder(seed % 7)
    rows = drawn_prompts(B, 11, seed)
    rows = [row * 8 for row in rows] if together else rows
    rows = [row[:8] for row in rows]
    texts = Continuation(model, *padded(rows), room=more)
    assert_scores(texts.logits, model, rows)
    for tokens in torch.randint(11, (more, B, 1), generator=seeded(seed)):
        rows = [[*row, int(token)] for row, token in zip(rows, tokens, strict=True)]
        assert_scores(texts.read(tokens), model, rows)


@few
@given(st.integers(0, 2**32), CHUNKS, st.booleans())
@torch.no_grad()
def test_several_tokens_at_once_are_read_as_by_the_decoder(seed, chunks, together):
    model = tiny_decoder(seed % 7)
    rows = [[3], *drawn_prompts(2, 11, seed), [5] * 6]  # the first is padded
    rows = [(row * 6)[:6] for row in rows] if together else rows
    texts = Continuation(model, *padded(rows), room=sum(chunks))
    for n in chunks:
        tokens = torch.randint(11, (len(rows), n), generator=seeded(seed + n))
        rows = [row + more for row, more in zip(rows, tokens.tolist(), strict=True)]
        assert_scores(texts.read(tokens), model, rows)


@few
@given(st.integers(0, 2**32), st.lists(st.integers(0, 3), min_size=4, max_size=4))
@torch.no_grad()
def test_selected_rows_go_on_from_where_they_were(seed, chosen):
    """Each text's rows change places among themselves, as in a search: two texts of different lengths."""
    model = tiny_decoder(seed % 7)
    rows = [row for row in drawn_prompts(2, 11, seed) for _ in range(2)]
    texts = Continuation(model, *padded(rows), room=2)
    tokens = torch.randint(11, (2, 4, 1), generator=seeded(seed))
    rows = [[*row, int(token)] for row, token in zip(rows, tokens[0], strict=True)]
    texts.read(tokens[0])
    chosen = [i // 2 * 2 + k % 2 for i, k in enumerate(chosen)]
    texts.select(torch.tensor(chosen))
    rows = [[*rows[k], int(token)] for k, token in zip(chosen, tokens[1], strict=True)]
    assert_scores(texts.read(tokens[1]), model, rows)


@torch.no_grad()
def test_all_rows_may_become_any_one():
    model = tiny_decoder()
    rows = [[3, 4, 5], [6, 7, 8], [9, 9, 2]]
    for k in range(3):
        texts = Continuation(model, *padded(rows), room=1)
        texts.select(torch.tensor([k] * 3))
        assert_scores(texts.read(torch.tensor([[2], [3], [4]])), model, [[*rows[k], t] for t in (2, 3, 4)])


# --- what it writes is what the library writes --------------------------------------------------------------


def writer(seed=0, lean=0.85, **sizes):
    """A small GPT-2 of strong opinions that ends its texts often: END's vector leans where all states do."""
    theirs = tiny(seed, **sizes)
    with torch.no_grad():
        for p in theirs.transformer.h.parameters():
            p *= 3 if p.dim() > 1 else 1
        theirs.transformer.wte.weight *= 1.5
        theirs.transformer.wte.weight[END] = lean * theirs.transformer.ln_f.bias
    return theirs


def cut(row, end=END):
    """A row as far as its end."""
    return row[: row.index(end) + 1] if end in row else row


def library_rows(theirs, prompts, limit, seed=0, **options):
    """What the library's `generate` writes after left-padded prompts, padded to one length.

    To its repetition penalty, padding is a token that has occurred: here each prompt begins with it.
    """
    theirs.generation_config = GenerationConfig(eos_token_id=END, pad_token_id=PAD)
    ids, padding = padded(prompts)
    mask = (torch.arange(ids.shape[1]) >= padding[:, None]).long()
    options = {"do_sample": False, "top_k": 0} | options
    if options.get("num_beams", 1) > 1:
        options["early_stopping"] = "never"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        out = theirs.generate(ids, attention_mask=mask, max_new_tokens=limit, **options)
    return out[:, ids.shape[1] :].tolist()


def library(*arguments, **options):
    """The same, each as far as its end."""
    return [cut(row) for row in library_rows(*arguments, **options)]


METHODS = {
    "greedy": {},
    "repetition penalty": {"repetition_penalty": 1.3},
    "draw": {"do_sample": True},
    "temperature": {"do_sample": True, "temperature": 0.7},
    "top-k": {"do_sample": True, "top_k": 5},
    "top-p": {"do_sample": True, "top_p": 0.8},
    "min-p": {"do_sample": True, "min_p": 0.2},
    "several": {"do_sample": True, "num_return_sequences": 3},
    "all": {
        "do_sample": True, "temperature": 1.3, "top_k": 20, "top_p": 0.9, "min_p": 0.03,
        "repetition_penalty": 1.3, "num_return_sequences": 2,
    },
}  # fmt: skip
LIMIT = 12


def assert_ends(texts):
    """So that the tests above have something to find: some have ended, and some not."""
    ended = sum(text[-1] == END and len(text) < LIMIT for text in texts)
    assert ended >= 3
    assert sum(len(text) == LIMIT for text in texts) >= 3
    assert all(END not in text[:-1] for text in texts)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_writes_what_the_library_writes(method):
    options, texts = METHODS[method], []
    for seed in range(5):
        theirs, prompts = writer(seed), drawn_prompts(1 + seed, 40, seed, first=[PAD])
        expected = library(theirs, prompts, LIMIT, seed, **options)
        found = generate(twin(theirs), prompts, LIMIT, Decoding(**options), seed, END)
        assert found == expected, seed
        texts += found
    assert len(texts) == 15 * options.get("num_return_sequences", 1)
    assert_ends(texts)


LEANS = {0.0: 0.7, 0.3: 0.7, 1.0: 0.9, 2.0: 2.3}  # the more the penalty favours long ones, the likelier END


@pytest.mark.parametrize("penalty", LEANS)
def test_every_search_finds_what_the_library_finds(penalty):
    """With 1 to `beams` returned; with a repetition penalty too."""
    texts = []
    for seed, (beams, returns) in enumerate([(2, 1), (2, 2), (3, 1), (4, 2), (4, 3), (4, 4), (5, 1)]):
        options = {"num_beams": beams, "num_return_sequences": returns, "length_penalty": penalty}
        options["repetition_penalty"] = [1.0, 1.2][seed % 2]
        theirs = writer(seed, LEANS[penalty])
        prompts = drawn_prompts(1 + seed % 4, 40, seed, first=[PAD])
        found = generate(twin(theirs), prompts, LIMIT, Decoding(**options), end=END)
        assert found == library(theirs, prompts, LIMIT, **options), seed
        texts += found
    assert_ends(texts)


def test_length_penalties_change_what_is_found():
    """So that the test above has something to find: the stronger, the longer."""
    theirs, prompts = [writer(seed) for seed in range(6)], drawn_prompts(4, 40)
    lengths = []
    for penalty in (0.0, 1.0, 2.0):
        how = Decoding(num_beams=4, length_penalty=penalty)
        texts = [text for model in theirs for text in generate(twin(model), prompts, LIMIT, how, end=END)]
        lengths.append(sum(map(len, texts)))
    assert lengths[0] < lengths[1] < lengths[2]


@st.composite
def drawings(draw):
    """Any options of sampling together."""
    return {
        "do_sample": True,
        "temperature": draw(st.sampled_from([0.3, 1.0, 1.0, 2.5])),
        "top_k": draw(st.sampled_from([0, 0, 1, 3, 39, 40, 99])),
        "top_p": draw(st.sampled_from([0.01, 0.5, 0.95, 1.0, 1.0])),
        "min_p": draw(st.sampled_from([0.0, 0.0, 0.05, 0.5, 1.0])),
        "repetition_penalty": draw(st.sampled_from([0.8, 1.0, 1.0, 1.5])),
        "num_return_sequences": draw(st.integers(1, 3)),
    }


@settings(deadline=None, max_examples=30, derandomize=True)  # in float32 the last bit could decide, once
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 8), drawings())
def test_any_options_together_write_what_the_library_writes(seed, B, limit, options):
    theirs, prompts = writer(seed % 5), drawn_prompts(B, 40, seed, first=[PAD])
    expected = library(theirs, prompts, limit, seed, **options)
    assert generate(twin(theirs), prompts, limit, Decoding(**options), seed, END) == expected


def test_without_an_end_all_write_on():
    theirs, prompts = writer(), drawn_prompts(5, 40)
    ours, how = twin(theirs), Decoding(do_sample=True)
    free, bound = (generate(ours, prompts, LIMIT, how, 3, end) for end in (None, END))
    assert {len(text) for text in free} == {LIMIT}
    assert any(END in text for text in free)
    assert [cut(text) for text in free] == bound  # a text that has ended takes no draw from the others


@pytest.mark.parametrize("how", [Decoding(), Decoding(num_beams=3)])
def test_to_the_last_position(how):
    theirs = writer()
    prompt = drawn_prompts(1, 40, longest=1)[0] * 20  # 20 of 32 positions
    (found,) = generate(twin(theirs), [prompt], 12, how)
    assert len(found) == 12
    with pytest.raises(ValueError, match=r"^limit must be at most T = 32 .*, got 13$"):
        generate(twin(theirs), [prompt], 13, how)


# --- stop strings -------------------------------------------------------------------------------------------

STRINGS = ["ing", "ea", "d s", "e t", "s b", "ly."]


def test_it_stops_at_strings_where_the_library_does():
    """Strings inside one piece, at its end, and over several."""
    lib = bpe.tokenizer()
    V = lib.get_vocab_size()
    fast = PreTrainedTokenizerFast(tokenizer_object=lib, eos_token=bpe.END)
    theirs = writer(vocab_size=V, n_positions=64)
    ours, inside, across, stopped = twin(theirs), 0, 0, 0
    assert lib.token_to_id(bpe.END) == END
    for seed in range(20):
        prompts = drawn_prompts(2, V, seed, first=[PAD])
        options = {"do_sample": True, "top_k": 2000}
        expected = library_rows(theirs, prompts, 15, seed, stop_strings=STRINGS, tokenizer=fast, **options)
        stop = stops_at(lib.decode, STRINGS)
        found = generate(ours, prompts, 15, Decoding(**options), seed, END, stop)
        width = len(expected[0])
        assert [row + [PAD] * (width - len(row)) for row in found] == expected, seed
        for row in found:
            text, last = lib.decode(row), lib.decode(row[-1:])
            if any(string in text for string in STRINGS):
                stopped += 1
                inside += any(s in last and not last.endswith(s) for s in STRINGS)
                across += not any(s in last for s in STRINGS)
    assert min(inside, across) >= 2
    assert 5 <= stopped < 40


@pytest.mark.parametrize(
    ("strings", "expected"), [(["cd"], 3), (["e", "zz"], 3), (["bc"], 2), (["abcde"], 3), (["zz"], 4)]
)
def test_a_string_counts_where_the_last_token_completes_it(strings, expected):
    """Begun in the prompt or not; one that the prompt holds already does not count."""
    pieces = ["ab", "c", "de", "f", "ab"]
    stop = stops_at(lambda ids: "".join(pieces[i] for i in ids), strings)
    steps = [n for n in range(1, 6) if stop([0, 1, 2, 3][:n])]
    assert min(steps, default=4) == expected
    assert not stop([0, 1, 2, 3, 4])  # it came earlier


@pytest.mark.parametrize("string", ["é", "née", "。", "😀", "a😀", "👩\u200d👧"])
def test_a_string_of_several_bytes_counts_when_its_last_byte_has_come(string):
    """Piece by piece or byte by byte: until then the last letter is a �."""
    ours = bpe.from_json(bpe.FILE.read_text(encoding="utf-8"))
    stop = stops_at(ours.decode, [string])
    letters = [ours.ids[ours.letters[byte]] for byte in f"Ona {string}".encode()]
    for ids in (ours.encode(f"Ona {string}"), letters):
        assert [stop(ids[:n]) for n in range(1, len(ids) + 1)] == [False] * (len(ids) - 1) + [True]
        assert not stop([*ids, ours.ids["a"]])


def test_what_stops_is_told_the_prompt_and_what_follows():
    model, asked = tiny_decoder(), []

    def stop(ids):
        asked.append(list(ids))
        return len(ids) == 5 or ids[-1] == END

    prompts = [[3, 4], [5]]
    found = generate(model, prompts, 9, stop=stop)
    assert [len(text) for text in found] == [3, 4]
    for prompt, text in zip(prompts, found, strict=True):
        told = [ids for ids in asked if ids[: len(prompt)] == prompt]
        assert told == [prompt + text[: n + 1] for n in range(len(text))]  # once a token, no more at its end


# --- the same by the definition -----------------------------------------------------------------------------

HOWS = st.sampled_from(
    [
        Decoding(),
        Decoding(repetition_penalty=1.4),
        Decoding(do_sample=True, temperature=1.5),
        Decoding(do_sample=True, top_k=4, top_p=0.9, min_p=0.05, repetition_penalty=1.2),
    ]
)


def slowly(model, prompt, limit, how, seed, end):
    """One token after another, everything read anew each time: no cache, no padding, no batch."""
    row, draw = list(prompt), generator(seed)
    for _ in range(limit):
        logits = alone(model, row)[None]
        seen = torch.zeros(logits.shape, dtype=torch.bool)
        seen[0, row] = True
        row.append(int(how.choose(logits, seen, draw)))
        if row[-1] == end:
            break
    return row[len(prompt) :]


@few
@given(st.integers(0, 2**32), st.integers(1, 12), HOWS)
@torch.no_grad()
def test_a_cache_changes_no_token(seed, limit, how):
    model = tiny_decoder(seed % 7)
    (prompt,) = drawn_prompts(1, 11, seed)
    assert generate(model, [prompt], limit, how, seed, END) == [slowly(model, prompt, limit, how, seed, END)]


@few
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 9), st.sampled_from([1, 2, 4]))
def test_a_batch_is_each_by_itself(seed, B, limit, beams):
    """Where nothing is drawn; padding neither counts as seen nor moves a score."""
    model = tiny_decoder(seed % 7)
    prompts = drawn_prompts(B, 11, seed)
    how = Decoding(num_beams=beams, repetition_penalty=1.5, num_return_sequences=(beams + 1) // 2)
    together = generate(model, prompts, limit, how, end=END)
    assert together == [row for prompt in prompts for row in generate(model, [prompt], limit, how, end=END)]
    assert len(together) == B * how.num_return_sequences


def test_seeds_decide_what_is_drawn():
    model, how = tiny_decoder(), Decoding(do_sample=True, num_return_sequences=4)
    first = generate(model, [[3, 4]], 10, how, seed=1)
    assert generate(model, [[3, 4]], 10, how, seed=1) == first
    assert generate(model, [[3, 4]], 10, how, seed=2) != first
    assert len(set(map(tuple, first))) == 4  # one seed, four continuations


def test_reading_needs_no_gradients():
    texts = Continuation(MODEL, torch.tensor([[3, 4]]), torch.tensor([0]), room=1)
    assert not texts.logits.requires_grad
    assert_scores(texts.read(torch.tensor([[5]])), MODEL, [[3, 4, 5]])


def test_writing_leaves_model_and_prompts_alone():
    model, prompts = tiny_decoder(), [[3, 4], [5]]
    before = {name: p.clone() for name, p in model.state_dict().items()}
    generate(model, prompts, 5, Decoding(num_beams=2), end=END)
    generate(model, prompts, 5)
    assert prompts == [[3, 4], [5]]
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


# --- bad input ----------------------------------------------------------------------------------------------

SHORT = r"^prompts must be lists of ids, none empty \(the end of a text begins one\), got "


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: generate(MODEL, [[3]], 0), "^limit must be at least 1, got 0$"),
        (lambda: generate(MODEL, [[3]], -2), "^limit must be at least 1, got -2$"),
        (lambda: generate(MODEL, [], 3), SHORT + r"\[\]$"),
        (lambda: generate(MODEL, [[3], []], 3), SHORT + r"\[\[3\], \[\]\]$"),
        (lambda: generate(MODEL, "Once", 3), SHORT + "'Once'$"),
        (lambda: generate(MODEL, ["Once"], 3), SHORT + r"\['Once'\]$"),
        (lambda: generate(MODEL, [3, 4], 3), SHORT + r"\[3, 4\]$"),
        (lambda: generate(MODEL, torch.tensor([[3, 4]]), 3), SHORT + r"tensor\(\[\[3, 4\]\]\)$"),
        (
            lambda: generate(MODEL, [[3], [2, 11]], 3),
            r"^prompts must hold ids in \[0, V = 11\), got 2 to 11$",
        ),
        (lambda: generate(MODEL, [[3, -1]], 3), r"^prompts must hold ids in \[0, V = 11\), got -1 to 3$"),
        (
            lambda: generate(MODEL, [[3], [2] * 24], 1),
            "^limit must be at most T = 24 less the longest prompt's 24 tokens, got 1$",
        ),
        (
            lambda: generate(MODEL, [[3] * 20, [2]], 5, Decoding(num_beams=2)),
            "^limit must be at most T = 24 less the longest prompt's 20 tokens, got 5$",
        ),
        (
            lambda: generate(MODEL, [[3]], 3, Decoding(num_beams=2), stop=lambda ids: False),
            "^stop must be None with num_beams > 1$",
        ),
        (lambda: stops_at(str, []), r"^strings must be a list of texts, none of them empty, got \[\]$"),
        (lambda: stops_at(str, ["a", ""]), r"^strings must be a list .* got \['a', ''\]$"),
        (lambda: stops_at(str, "the end"), "^strings must be a list .* got 'the end'$"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("options", "cross"),
    [
        ({}, True),
        ({"norm": "post"}, False),
        ({"norm": "none"}, False),
        ({"positions": "none"}, False),
        ({"scale": True}, False),
        ({"segments": 2}, False),
        ({"norm_embedding": True}, False),
    ],
    ids=str,
)
def test_a_model_of_another_shape_is_refused(options, cross):
    sizes = {"V": 11, "T": 24, "C": 12, "nh": 3, "layers": 1}
    model = Decoder(Config(**sizes | SHAPE | options), cross=cross)
    message = "^model must be of GPT-2's shape: no memory, the norm before each part, positions, no scale, "
    message += "no segments, no norm of the embedding$"
    with pytest.raises(ValueError, match=message):
        generate(model, [[3]], 2)


@pytest.mark.parametrize(
    "options", [{"positions": "sinusoidal"}, {"activation": "relu"}, {"hidden": 5}], ids=str
)
@torch.no_grad()
def test_what_differs_from_gpt2_without_harm_is_taken(options):
    sizes = {"V": 11, "T": 24, "C": 12, "nh": 3, "layers": 2}
    model = tiny_decoder(config=Config(**sizes | SHAPE | options))
    prompts = drawn_prompts(3, 11)
    assert_scores(Continuation(model, *padded(prompts), room=1).logits, model, prompts)
