"""`llmkit.modern` against transformers: the same logits from the same random weights in five
families, the same with a cache, and folders that go both ways."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import build
import nbformat
import pytest
import torch
import torch.nn.functional as F
from saved_models import rewrite, set_config

import llmkit
from llmkit import modern
from llmkit.attention import attention, causal_attention, rotary, rotary_table, rotate
from llmkit.finetune.quiet import import_transformers
from llmkit.modern.folders import config_from_theirs, config_to_theirs, family_of
from llmkit.modern.model import Experts, FeedForward, WindowCache, new_norm

transformers = import_transformers()

ODD = dict(
    vocab_size=97,
    hidden_size=48,
    intermediate_size=52,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=10,
    max_position_embeddings=64,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
)
BASE = {"rope_theta": 500.0, "rope_type": "default"}
EXPERTS = dict(num_experts_per_tok=3, num_local_experts=5)
FAMILIES = {
    "llama": ("Llama", {"rms_norm_eps": 3e-4}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True, "rope_parameters": BASE}),
    "mistral": ("Mistral", {"sliding_window": 9}),
    "mistral, no window": ("Mistral", {"sliding_window": None}),
    "qwen3": ("Qwen3", {"rope_parameters": BASE}),
    "qwen3, window": (
        "Qwen3",
        {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 0},
    ),
    "mixtral": ("Mixtral", {**EXPERTS, "sliding_window": 9}),
    "qwen3_moe": ("Qwen3Moe", {**EXPERTS, "moe_intermediate_size": 20, "norm_topk_prob": True}),
}


def reference(name: str, std: float = 0.15, **changes):
    """transformers' model of a family with random weights, all of them far from their first values,
    so that none can be forgotten or mixed up unseen."""
    kind, choices = FAMILIES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**ODD, **choices, **changes})
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            weight.normal_(1.0 if "norm" in weight_name else 0.0, std)
    return model


def some_ids(T: int, B: int = 2, vocab_size: int = 97) -> torch.Tensor:
    return torch.randint(vocab_size, (B, T), generator=torch.Generator().manual_seed(1))


def small(**changes) -> modern.Modern:
    """One of ours, with weights far from their first values."""
    torch.manual_seed(0)
    shape = dict(vocab_size=97, block_size=64, n_layer=2, n_head=4, n_embd=24) | changes
    model = modern.Modern(modern.ModernConfig(**shape)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return model


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small Llama as transformers saves it."""
    reference("llama").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


# --------------------------------------------------------------------------------- the same logits


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_transformers(name, tmp_path):
    theirs = reference(name)
    theirs.save_pretrained(tmp_path)
    model, tokenizer = modern.load(tmp_path)
    assert tokenizer is None
    assert not model.training
    assert model.num_parameters() == theirs.num_parameters()
    ids = some_ids(64)
    with torch.no_grad():
        a, b = theirs(ids).logits, model(ids)
    assert a.std() > 0.5  # no two constants
    torch.testing.assert_close(b, a, atol=1e-4, rtol=0)


FAULTS = {
    "the base of the rotary positions": ("llama, tied", {"rope_base": 10_000.0}),
    "the norms' eps": ("llama", {"norm_eps": 1e-6}),
    "a window one wider": ("mistral", {"window": 10}),
    "no window": ("qwen3, window", {"window": 0}),
    "fewer experts": ("mixtral", {"n_active": 2}),
    "no norm of queries and keys": ("qwen3", {"qk_norm": False}),
    "GELU": ("llama", {"activation": "gelu", "n_inner": 2 * ODD["intermediate_size"]}),
    "layer norm": ("llama", {"norm": "layer"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_finds_a_wrong_choice(fault, tmp_path):
    """What the test above is worth: each choice, made wrongly, is far outside its tolerance."""
    name, change = FAULTS[fault]
    theirs = reference(name)
    theirs.save_pretrained(tmp_path)
    model, _ = modern.load(tmp_path)
    wrong = modern.Modern(replace(model.config, **change)).eval()
    weights = model.state_dict()
    if fault == "GELU":  # its middle is as wide as the gate and what passes it together
        for key in list(weights):
            if key.endswith("mlp.c_proj.weight"):
                weights[key] = torch.cat([weights[key], weights[key]], dim=1)
    wrong.load_state_dict(weights, strict=False)
    ids = some_ids(64)
    with torch.no_grad():
        assert (wrong(ids) - theirs(ids).logits).abs().max() > 1e-3


def test_the_classic_choice_is_llmkits_gpt():
    """One change at a time has to begin at the model before: the same weights, the same logits."""
    shape = dict(vocab_size=97, block_size=64, n_layer=2, n_head=4, n_embd=24)
    model = small(norm="layer", activation="gelu")
    gpt = llmkit.GPT(llmkit.GPTConfig(**shape, position="rotary", bias=False)).eval()
    gpt.load_state_dict(model.state_dict())
    ids = some_ids(64)
    with torch.no_grad():
        torch.testing.assert_close(model(ids), gpt(ids), atol=1e-5, rtol=0)
    x, y = ids[:, :-1], ids[:, 1:]
    torch.testing.assert_close(model.loss(x, y), gpt.loss(x, y))
    torch.manual_seed(3)
    fresh = modern.Modern(model.config)
    torch.manual_seed(3)
    same = llmkit.GPT(gpt.config)
    assert fresh.state_dict().keys() == same.state_dict().keys()
    for name, weight in fresh.named_parameters():
        assert torch.equal(weight, same.get_parameter(name)), name


def test_the_model_is_no_more_than_250_lines():
    lines = Path(modern.model.__file__).read_text("utf-8").splitlines()
    assert sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines) <= 250


# ------------------------------------------------------------------------------------------- parts


def test_rms_norm_written_out():
    x = torch.randn(3, 24) * 5 + 1
    norm = new_norm(modern.ModernConfig(9, 8, n_embd=24), 24)
    with torch.no_grad():
        norm.weight.normal_(1, 0.3)
        expected = norm.weight * x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize("T", [1, 5, 12])
@pytest.mark.parametrize("window", [0, 1, 4, 12, 20])
def test_causal_attention_in_groups_and_a_window_by_loops(T, window):
    S, H, G, D = 12, 6, 2, 4
    torch.manual_seed(0)
    q, k, v = torch.randn(2, H, T, D), torch.randn(2, G, S, D), torch.randn(2, G, S, D)
    out = causal_attention(q, k, v, window=window)
    for head in range(H):
        group = head // (H // G)
        for t in range(T):
            place = S - T + t
            first = max(0, place - window + 1) if window else 0
            seen = slice(first, place + 1)
            one, _ = attention(q[:, head, t : t + 1], k[:, group, seen], v[:, group, seen])
            torch.testing.assert_close(out[:, head, t : t + 1], one, atol=1e-5, rtol=0)


def test_the_base_sets_the_slowest_turn():
    x = torch.randn(2, 3, 7, 8)
    torch.testing.assert_close(rotate(x, *rotary_table(0, 7, 8, x, 10_000)), rotary(x))
    cos, sin = rotary_table(0, 2, 8, x, 16.0)
    torch.testing.assert_close(
        torch.atan2(sin[1], cos[1]), 16.0 ** -torch.tensor([0, 1, 2, 3]).div(4)
    )


def test_experts_by_loops():
    layer = small(n_expert=5, n_active=3).h[0].mlp
    assert isinstance(layer, Experts)
    x = torch.randn(2, 7, 24)
    with torch.no_grad():
        out = layer(x)
        for b in range(2):
            for t in range(7):
                p = layer.router(x[b, t]).softmax(-1)
                best = p.argsort(descending=True)[:3]
                expected = sum(p[e] / p[best].sum() * layer.experts[e](x[b, t]) for e in best)
                torch.testing.assert_close(out[b, t], expected, atol=1e-5, rtol=1e-5)


def test_swiglu_has_the_weights_of_a_gpts_feed_forward_part():
    for width in (24, 128, 576):
        plain = modern.ModernConfig(9, 8, n_embd=width, activation="gelu")
        gated = modern.ModernConfig(9, 8, n_embd=width)
        many, few = (
            sum(weight.numel() for weight in FeedForward(config).parameters())
            for config in (plain, gated)
        )
        assert many == 8 * width**2
        assert many - few < 3 * width


# ------------------------------------------------------------------------------- llmkit's contract

SHAPES = {
    "plain": {},
    "groups": {"n_kv_head": 2},
    "qk-norm": {"qk_norm": True},
    "window": {"window": 7},
    "narrow window": {"window": 1},
    "experts": {"n_expert": 4, "window": 7, "n_kv_head": 1, "qk_norm": True},
    "classic": {"norm": "layer", "activation": "gelu", "tie_weights": False},
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_cache_gives_the_same_logits(name):
    """In one piece, token by token, and in pieces; past the sliding window, which is 7."""
    model = small(**SHAPES[name])
    ids = some_ids(40)
    with torch.no_grad():
        whole = model(ids)
        for pieces in ([1] * 40, [13, 1, 1, 20, 5], [40], [3, 37]):
            cache, start = model.new_cache(2), 0
            for size in pieces:
                logits = model(ids[:, start : start + size], cache=cache)
                start += size
                torch.testing.assert_close(
                    logits, whole[:, start - size : start], atol=2e-5, rtol=0
                )
                assert cache[0].length == start
            last = model(ids[:, :1], cache=cache, last_only=True)
            assert last.shape == (2, 1, 97)


@pytest.mark.parametrize("name", SHAPES)
def test_generating_is_the_same_with_a_cache_past_every_window(name):
    """60 tokens: past the sliding window of 7, and past block_size, 24, thrice."""
    model = small(**SHAPES[name], block_size=24)
    for prompt in (some_ids(5, 1)[0], some_ids(5, 3)):
        for temperature in (0, 1.0):
            a, b = (
                llmkit.generate(model, prompt, 60, temperature, seed=3, use_cache=cached)
                for cached in (True, False)
            )
            assert torch.equal(a, b)
            assert a.size(-1) == 65


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3", "mixtral", "qwen3_moe"])
def test_greedy_text_is_that_of_transformers_past_the_window(name, tmp_path):
    theirs = reference(name)
    theirs.save_pretrained(tmp_path)
    model, _ = modern.load(tmp_path)
    prompt = some_ids(20, 1)
    expected = theirs.generate(prompt, max_new_tokens=40, do_sample=False)
    assert torch.equal(llmkit.generate(model, prompt, 40, temperature=0), expected)


def test_a_window_bounds_the_cache():
    model = small(window=7, n_kv_head=2)
    cache = model.new_cache()
    with torch.no_grad():
        model(some_ids(40, 1), cache=cache)
    for part in cache:
        assert isinstance(part, WindowCache)
        assert part.keys.shape == part.values.shape == (1, 2, 6, 6)
        assert part.length == 40


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("name", ["groups", "experts"])
def test_it_learns_by_llmkits_loop(name, optimizer, text):
    ids = llmkit.CharTokenizer.from_text(text).encode(text)
    torch.manual_seed(0)
    config = modern.ModernConfig(97, 16, n_layer=1, n_head=4, n_embd=24, **SHAPES[name])
    model = modern.Modern(config)
    before = llmkit.evaluate(model, ids).loss
    assert before == pytest.approx(torch.tensor(97.0).log().item(), abs=0.1)
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    llmkit.train(model, ids, config=llmkit.TrainConfig(80, 8, optimizer=optimizer))
    assert llmkit.evaluate(model, ids).loss < before - 0.9
    for name, weight in model.named_parameters():
        assert not torch.equal(weight, weights[name]), name


@pytest.mark.parametrize("name", SHAPES)
def test_the_checks_of_a_language_model_pass(name):
    torch.manual_seed(0)
    model = modern.Modern(modern.ModernConfig(97, 32, 2, 4, 24, **SHAPES[name]))
    assert [str(result) for result in llmkit.checks.run(model) if not result.passed] == []


def test_loss_leaves_out_what_has_no_target():
    model, ids = small(), some_ids(9)
    targets = ids.clone()
    targets[:, :4] = -100
    expected = F.cross_entropy(model(ids)[:, 4:].flatten(0, 1), ids[:, 4:].flatten())
    torch.testing.assert_close(model.loss(ids, targets), expected)


# ----------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("file_bytes", [10**9, 20_000, 1])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_round_trip_changes_no_bit(name, file_bytes, tmp_path):
    """From transformers to us, from us to a folder, and from there to both."""
    theirs = reference(name)
    theirs.save_pretrained(tmp_path / "theirs")
    model, _ = modern.load(tmp_path / "theirs")
    assert modern.save(model, tmp_path / "ours", file_bytes=file_bytes) == tmp_path / "ours"
    again, _ = modern.load(tmp_path / "ours")
    assert again.config == model.config
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], weight)
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    if name != "mistral, no window":  # which is a Llama by another name
        assert type(back) is type(theirs)
    for key, weight in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[key], weight)
    ids = some_ids(40)
    with torch.no_grad():
        assert torch.equal(back(ids).logits, theirs(ids).logits)  # their configuration came along
    many = len(list((tmp_path / "ours").glob("*.safetensors")))
    if file_bytes == 1:
        assert many > 28
    assert (many > 1) == (tmp_path / "ours" / "model.safetensors.index.json").exists()


@pytest.mark.parametrize("name", ["qwen3", "qwen3_moe"])
def test_their_own_shards(name, tmp_path):
    theirs = reference(name)
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    model, _ = modern.load(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(
            model(some_ids(20)), theirs(some_ids(20)).logits, atol=1e-4, rtol=0
        )


def test_saving_again_leaves_no_old_files(tmp_path):
    one, other = small(tie_weights=False), small(tie_weights=False, n_layer=1)
    modern.save(one, tmp_path, file_bytes=5_000)
    modern.save(other, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors"}
    modern.save(one, tmp_path, file_bytes=5_000)
    assert not (tmp_path / "model.safetensors").exists()
    assert torch.equal(modern.load(tmp_path)[0].wte.weight, one.wte.weight)


def test_half_precision_stays(tmp_path):
    model = small().to(torch.bfloat16)
    modern.save(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    again, _ = modern.load(tmp_path)
    assert again.wte.weight.dtype == torch.bfloat16
    with torch.no_grad():
        assert torch.equal(again(some_ids(9)), model(some_ids(9)))


def test_a_tokenizer_goes_along(tmp_path, text):
    tokenizer = llmkit.BPETokenizer.train(text, 280, ["<|endoftext|>"])
    modern.save(small(vocab_size=281), tmp_path, tokenizer)
    _, again = modern.load(tmp_path)
    assert again.tokens == tokenizer.tokens
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 279
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(text)["input_ids"] == tokenizer.encode(text).tolist()


def test_a_head_that_was_saved_though_it_is_tied(tmp_path):
    reference("llama, tied").save_pretrained(tmp_path)
    rewrite(
        tmp_path, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()})
    )
    model, _ = modern.load(tmp_path)
    assert model.lm_head.weight is model.wte.weight
    rewrite(tmp_path, lambda w: w["lm_head.weight"].add_(1))
    with pytest.raises(ValueError, match="differs from the embedding"):
        modern.load(tmp_path)


OLD = {  # config.json as earlier versions of transformers wrote it: of Llama 2, of Mistral 7B
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 24,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "rope_scaling": None,
    "torch_dtype": "float16",
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"n_kv_head": 4, "head_size": 6, "rope_base": 10_000.0, "norm_eps": 1e-6}),
        ({"rope_theta": 5e5}, {"rope_base": 5e5}),
        ({"model_type": "mistral"}, {"window": 4096, "n_kv_head": 8, "n_head": 8}),
        ({"model_type": "mistral", "sliding_window": None}, {"window": 0}),
        ({"model_type": "qwen3"}, {"n_kv_head": 32, "head_size": 128, "qk_norm": True}),
        ({"model_type": "mixtral", **EXPERTS}, {"rope_base": 1e6, "n_active": 3, "window": 0}),
        ({"tie_word_embeddings": True}, {"tie_weights": True}),
        ({"rope_parameters": {"rope_theta": 7.0}, "rope_theta": 9.0}, {"rope_base": 7.0}),
    ],
)
def test_fields_that_are_left_out_are_what_transformers_takes(fields, expected):
    heads = max(expected.get("n_kv_head", 4), 8 if "model_type" in fields else 4)
    given = {**OLD, "num_attention_heads": heads, "hidden_size": 6 * heads, **fields}
    _, config = config_from_theirs(given)
    theirs = transformers.AutoConfig.for_model(**given)
    assert asdict(config).items() >= expected.items()
    assert config.n_kv_head == theirs.num_key_value_heads
    assert config.norm_eps == theirs.rms_norm_eps
    assert config.window == (getattr(theirs, "sliding_window", None) or 0)
    assert config.rope_base == theirs.rope_parameters["rope_theta"]


def test_our_fields_come_back():
    for shape in ({}, {"window": 5}, {"qk_norm": True, "window": 5}, {"n_expert": 4}):
        for more in ({}, {"n_kv_head": 1}, {"head_size": 10, "n_inner": 7, "rope_base": 3e4}):
            config = small(**shape, **more).config
            assert config_from_theirs(config_to_theirs(config)) == (family_of(config), config)


# --------------------------------------------------------------------------------------- bad input


WRONG_CONFIGS = [
    ({"vocab_size": 0}, "vocab_size must be at least 1, not 0"),
    ({"n_kv_head": 3}, "n_head 4 must be a multiple of n_kv_head 3"),
    ({"n_embd": 25}, "n_embd 25 must be a multiple of n_head 4"),
    ({"head_size": 7}, "rotary positions need head_size to be even, not 7"),
    ({"norm": "batch"}, "norm must be one of 'rms', 'layer', not 'batch'"),
    ({"activation": "relu"}, "activation must be one of 'swiglu', 'gelu', not 'relu'"),
    ({"n_expert": 1}, "n_active 2 is more than n_expert 1"),
    ({"window": -1}, "window must be at least 0, not -1"),
    ({"rope_base": 0.5}, "rope_base must be at least 1, not 0.5"),
]


@pytest.mark.parametrize(("changes", "told"), WRONG_CONFIGS)
def test_an_impossible_configuration(changes, told):
    shape = dict(vocab_size=97, block_size=64, n_head=4, n_embd=24) | changes
    with pytest.raises(ValueError, match=re.escape(told)):
        modern.ModernConfig(**shape)


def forget(name):
    return lambda weights: weights.pop(name)


GATE = "model.layers.1.mlp.gate_proj.weight"
DAMAGE = {
    "missing": (forget(GATE), f"the weight {GATE} is missing"),
    "another shape": (
        lambda w: w.update({GATE: torch.zeros(48, 52)}),
        f"the weight {GATE} is (48, 52), but the configuration wants (52, 48)",
    ),
    "not finite": (
        lambda w: w[GATE].view(-1)[3:4].fill_(float("nan")),
        f"the weight {GATE} has numbers that are not finite",
    ),
    "unknown": (
        lambda w: w.update({"model.layers.1.extra": torch.zeros(1)}),
        "the configuration has no weight model.layers.1.extra",
    ),
    "whole numbers": (
        lambda w: w.update({GATE: torch.zeros(52, 48, dtype=torch.int8)}),
        f"the weight {GATE} is torch.int8: llmkit takes floats there",
    ),
    "fewer layers": (
        lambda w: [w.pop(name) for name in list(w) if ".layers.2." in name],
        "the configuration wants num_hidden_layers 3, but there are 2",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_weights(what, folder):
    change, told = DAMAGE[what]
    rewrite(folder, change)
    with pytest.raises(ValueError, match=re.escape(told)) as error:
        modern.load(folder)
    assert str(error.value).count("\n") == 0
    assert str(folder) in str(error.value)


OTHER = [
    ({"model_type": "gemma3"}, "its model_type is 'gemma3', and not one of llama, mistral, qwen3"),
    ({"model_type": "gpt2"}, "use llmkit.pretrained.load_gpt2"),
    ({"model_type": None}, "its model_type is None"),
    ({"format": "llmkit checkpoint 3"}, "is llmkit's own checkpoint: use llmkit.checkpoint"),
    ({"attention_bias": True}, "it has attention_bias True, where llmkit's has False"),
    ({"hidden_act": "gelu"}, "it has hidden_act 'gelu', where llmkit's has 'silu'"),
    ({"quantization_config": {"bits": 4}}, "it has quantization_config"),
    ({"rope_parameters": {"rope_type": "llama3", "factor": 8}}, "positions are of type 'llama3'"),
    (
        {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2}},
        "positions are of type 'linear'",
    ),
    ({"hidden_size": "wide"}, "the field 'hidden_size' must be int, not 'wide'"),
    ({"hidden_size": 45, "head_dim": None}, "n_embd 45 must be a multiple of n_head 6"),
    ({"num_hidden_layers": 10**9}, "wants num_hidden_layers 1000000000, but there are 3"),
    ({"model_type": "mixtral", **EXPERTS}, "wants num_local_experts 5, but there are 0"),
    ({"model_type": "mixtral"}, "the field 'num_local_experts' is missing"),
    ({"model_type": "qwen3_moe"}, "it has norm_topk_prob False, where llmkit's has True"),
    (
        {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 9},
        "only some of its layers have a sliding window",
    ),
]


@pytest.mark.parametrize(("fields", "told"), OTHER)
def test_another_kind_of_model_is_named(fields, told, folder):
    set_config(folder, **fields)
    with pytest.raises(ValueError, match=re.escape(told)) as error:
        modern.load(folder)
    assert str(error.value).count("\n") == 0
    assert str(folder) in str(error.value)


def test_files_that_are_missing(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        modern.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        modern.load(tmp_path)
    reference("llama").save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    lost = sorted((tmp_path / "shards").glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {lost.name}: get it"):
        modern.load(tmp_path / "shards")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged or cut short"):
        modern.load(folder)


def test_a_tokenizer_that_does_not_fit(folder, text, tmp_path):
    tokenizer = llmkit.BPETokenizer.train(text, 280)
    tokenizer.save_huggingface(folder / "tokenizer.json")
    with pytest.raises(ValueError, match="the tokenizer has 280 tokens and the model 97"):
        modern.load(folder)
    with pytest.raises(ValueError, match="the tokenizer has 280 tokens and the model 97"):
        modern.save(small(), tmp_path / "new", tokenizer)
    with pytest.raises(TypeError, match="the tokenizer must be a BPETokenizer"):
        modern.save(small(), tmp_path / "new", llmkit.CharTokenizer.from_text(text))
    assert not (tmp_path / "new").exists()


def test_what_is_not_saved(tmp_path, folder):
    with pytest.raises(TypeError, match=r"model must be a Modern of llmkit\.modern"):
        modern.save(llmkit.GPT(llmkit.GPTConfig(9, 8)), tmp_path / "new")
    for choice in ({"norm": "layer"}, {"activation": "gelu"}):
        [(name, value)] = choice.items()
        with pytest.raises(ValueError, match=f"no open model has {name}='{value}'"):
            modern.save(small(**choice), tmp_path / "new")
    broken = small()
    with torch.no_grad():
        broken.h[1].attn.c_attn.weight[3, 4] = float("inf")
    with pytest.raises(ValueError, match=r"would not load again: the weight h\.1\.attn"):
        modern.save(broken, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    set_config(folder, model_type="gemma3")
    before = (folder / "config.json").read_text()
    with pytest.raises(ValueError, match="gemma3"):
        modern.save(small(), folder)
    assert (folder / "config.json").read_text() == before


def test_too_many_tokens():
    with pytest.raises(ValueError, match="65 tokens do not fit into block_size 64"):
        small()(some_ids(65))


# ------------------------------------------------------------------------------------ notebook 11b

NOTEBOOK = build.NOTEBOOKS / "11b_modern_model.ipynb"
RESULTS = build.NOTEBOOKS.parent / "benchmarks/results"


def cell_of_the_notebook(begin: str) -> nbformat.NotebookNode:
    [cell] = [cell for cell in nbformat.read(NOTEBOOK, 4).cells if begin in cell.source]
    return cell


def literal(name: str) -> dict[str, list[float]]:
    """A table of losses in the notebook."""
    [found] = [
        node.value
        for node in ast.parse(cell_of_the_notebook(f"{name} = {{").source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return ast.literal_eval(found)


def measured(steps: str = "") -> dict[str, list[float]]:
    found = json.loads((RESULTS / f"ladder{steps}-cpu.json").read_text("utf-8"))["results"]
    return {name: result["losses"] for name, result in found.items()}


def test_the_stored_losses_are_those_that_were_measured():
    rungs, at_higher_rate = literal("STORED"), literal("FASTER")
    expected = rungs | {f"{name}, rate 0.08": losses for name, losses in at_higher_rate.items()}
    assert measured() == expected
    sources = [cell.source for cell in nbformat.read(NOTEBOOK, 4).cells]
    assert list(rungs) == re.findall(r'climb\("([^"]+)"', "\n".join(sources))


def test_what_is_said_of_longer_runs_was_measured():
    told = " ".join(cell_of_the_notebook("After 600 steps").source.split())
    names = ("grouped queries", "QK-norm", "window of 16")
    for losses, wanted in ((measured("-600"), (0.04, 0.02)), (measured(), (0.26, 0.10))):
        without, qk_norm, window = (torch.tensor(losses[name]).mean().item() for name in names)
        assert (round(without - qk_norm, 2), round(qk_norm - window, 2)) == wanted
        assert all(f"{lead:.2f}" in told for lead in wanted)


def test_the_stored_text_is_not_of_the_real_model():
    """Whoever has fetched it builds the notebook with another XDG_CACHE_HOME."""
    [output] = cell_of_the_notebook("modern.fetched()").outputs
    assert output.text.startswith("SmolLM2 is not here: `python -m llmkit fetch` brings it.")
