"""GPT-2 in and out, against transformers: the same logits from the same random weights, both ways,
through folders and through a hub on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import constants
from safetensors import safe_open
from saved_models import rewrite, set_config
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

import llmkit
from llmkit.bpe import files
from llmkit.finetune import pretrained
from llmkit.finetune.gpt2 import from_gpt2, to_gpt2
from llmkit.model import GPT2_SIZES

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

ODD = dict(vocab_size=97, n_positions=40, n_embd=60, n_layer=3, n_head=5)
# Each published size with its layers and heads; the largest narrower, and of fewer tokens.
SHAPES = {
    "gpt2": dict(vocab_size=50257, n_positions=1024, n_embd=768, n_layer=12, n_head=12),
    "gpt2-medium": dict(vocab_size=1009, n_positions=128, n_embd=256, n_layer=24, n_head=16),
    "gpt2-large": dict(vocab_size=1009, n_positions=128, n_embd=320, n_layer=36, n_head=20),
    "gpt2-xl": dict(vocab_size=1009, n_positions=128, n_embd=200, n_layer=48, n_head=25),
    "odd": ODD,
}


def reference(seed: int = 0, std: float = 0.05, **shape) -> GPT2LMHeadModel:
    """transformers' GPT-2 with random weights, all of them far from their first values, so that
    none can be forgotten or mixed up unseen. With a large std it matters which GELU there is."""
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(**shape)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if re.search(r"ln_.*weight", name) else 0.0, std)
    return model


def ours(seed: int = 0, **changes) -> llmkit.GPT:
    torch.manual_seed(seed)
    shape = dict(vocab_size=97, block_size=40, n_layer=3, n_head=5, n_embd=60) | changes
    return llmkit.GPT(llmkit.GPTConfig(**shape)).eval()


def some_ids(vocab_size: int, T: int, B: int = 2) -> torch.Tensor:
    return torch.randint(vocab_size, (B, T), generator=torch.Generator().manual_seed(1))


def assert_same_logits(theirs, model, T: int = 40) -> None:
    ids = some_ids(model.config.vocab_size, T)
    with torch.no_grad():
        a, b = theirs(ids).logits, model(ids)
    assert a.std() > 0.05  # no two constants
    torch.testing.assert_close(b, a, atol=1e-4, rtol=0)


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small GPT-2 as transformers saves it."""
    reference(**ODD).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


# ------------------------------------------------------------------------------- the same logits


@pytest.mark.parametrize("name", SHAPES)
def test_logits_are_those_of_transformers(name):
    theirs = reference(**SHAPES[name])
    shape = SHAPES[name]
    config = llmkit.GPTConfig(
        vocab_size=shape["vocab_size"],
        block_size=shape["n_positions"],
        **{key: shape[key] for key in ("n_layer", "n_head", "n_embd")},
    )
    if name in GPT2_SIZES:
        assert (config.n_layer, config.n_head) == GPT2_SIZES[name][:2]
    model = from_gpt2(theirs.state_dict(), config)
    assert not model.training
    assert model.lm_head.weight is model.wte.weight
    assert model.num_parameters() == theirs.num_parameters()
    assert_same_logits(theirs, model)


def forget_biases(model: llmkit.GPT) -> None:
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.zero_()


def forget_gains(model: llmkit.GPT) -> None:
    for name, weight in model.named_parameters():
        if re.search(r"ln_.*weight", name):
            weight.fill_(1.0)


def turn_the_square_one(model: llmkit.GPT) -> None:
    for block in model.h:
        block.attn.c_proj.weight.copy_(block.attn.c_proj.weight.T.clone())


def take_the_exact_gelu(model: llmkit.GPT) -> None:
    for block in model.h:
        block.mlp.act = torch.nn.GELU()


@pytest.mark.parametrize(
    "fault", [forget_biases, forget_gains, turn_the_square_one, take_the_exact_gelu]
)
def test_the_comparison_of_logits_finds(fault):
    """With weights as they are drawn at first, biases 0 and gains 1, it would find one of these."""
    theirs = reference(std=0.2, **ODD)
    config = llmkit.GPTConfig(97, 40, n_layer=3, n_head=5, n_embd=60)
    model = from_gpt2(theirs.state_dict(), config)
    assert_same_logits(theirs, model)
    with torch.no_grad():
        fault(model)
    with pytest.raises(AssertionError):
        assert_same_logits(theirs, model)


@pytest.mark.parametrize("name", GPT2_SIZES)
def test_full_sizes_have_the_weights_of_transformers(name):
    """Names, shapes and their number, at full size, without the memory for it."""
    layers, heads, width = GPT2_SIZES[name]
    with torch.device("meta"):
        theirs = GPT2LMHeadModel(GPT2Config(n_layer=layers, n_head=heads, n_embd=width))
        model = llmkit.GPT(llmkit.GPTConfig.gpt2(name))
    expected = {n: tuple(w.shape) for n, w in theirs.named_parameters()}
    turned = {
        f"transformer.{n}": tuple(llmkit.finetune.gpt2.turn(n, w).shape)
        for n, w in model.named_parameters()
    }
    assert turned == expected
    published = {"gpt2": 124, "gpt2-medium": 355, "gpt2-large": 774, "gpt2-xl": 1558}
    assert round(model.num_parameters() / 1e6) == published[name]


def test_weights_are_copied():
    theirs = reference(**ODD)
    config = llmkit.GPTConfig(97, 40, n_layer=3, n_head=5, n_embd=60)
    model = from_gpt2(theirs.state_dict(), config)
    kept = {name: weight.clone() for name, weight in theirs.state_dict().items()}
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    assert all(torch.equal(weight, kept[name]) for name, weight in theirs.state_dict().items())


# --------------------------------------------------------------------------- folders, both ways


def test_a_folder_of_transformers(folder):
    model, tokenizer = llmkit.pretrained.load_gpt2(folder)
    assert tokenizer is None
    assert model.config == llmkit.GPTConfig(97, 40, n_layer=3, n_head=5, n_embd=60, dropout=0.1)
    assert_same_logits(GPT2LMHeadModel.from_pretrained(folder).eval(), model)
    again, _ = llmkit.pretrained.load_gpt2(str(folder))
    assert same_weights(model, again)


def test_a_folder_as_the_hub_has_it(folder):
    """No prefix, masks among the weights, and the output layer beside them."""
    expected, _ = pretrained.load_gpt2(folder)

    def as_published(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["lm_head.weight"] = tensors["wte.weight"].clone()
        for i in range(3):
            tensors[f"h.{i}.attn.bias"] = torch.ones(1, 1, 40, 40).tril()
            tensors[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)

    rewrite(folder, as_published)
    model, _ = pretrained.load_gpt2(folder)
    assert same_weights(model, expected)


def test_a_folder_in_several_files(folder, tmp_path):
    expected, _ = pretrained.load_gpt2(folder)
    GPT2LMHeadModel.from_pretrained(folder).save_pretrained(
        tmp_path / "shards", max_shard_size="100KB"
    )
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    model, _ = pretrained.load_gpt2(tmp_path / "shards")
    assert same_weights(model, expected)
    next((tmp_path / "shards").glob("*.safetensors")).unlink()
    with pytest.raises(FileNotFoundError, match=r"shards has no model-0000\d-of-0000\d\.saf"):
        pretrained.load_gpt2(tmp_path / "shards")
    for path in (tmp_path / "shards").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"model-00001-of-.*, model-00002-of-.*: get it"):
        pretrained.load_gpt2(tmp_path / "shards")


@pytest.mark.parametrize(
    "listed",
    [
        {"wte.weight": "../model/model.safetensors"},
        {"wte.weight": "/model/model.safetensors"},
        {"wte.weight": "pytorch_model.bin"},
        {"wte.weight": 1},
        {"wte.weight": ["a.safetensors"]},
        {},
        ["a.safetensors"],
        None,
    ],
    ids=str,
)
def test_an_index_lists_files_of_its_own_folder_and_no_others(listed, folder):
    """The file outside is whole, and would be read."""
    (folder / "inner").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, folder / "inner")
    (folder / "inner" / "model.safetensors").rename(folder / "inner" / "pytorch_model.bin")
    index = {"weight_map": listed}
    (folder / "inner" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="files of its own folder, not"):
        pretrained.load_gpt2(folder / "inner")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.transformer."])
def test_names_with_what_torch_put_before_them(prefix, folder):
    """As a compiled or a distributed model names its weights."""
    expected, _ = pretrained.load_gpt2(folder)

    def rename(tensors):
        for name in list(tensors):
            tensors[prefix + name] = tensors.pop(name)
        tensors[prefix + "lm_head.weight"] = tensors[f"{prefix}transformer.wte.weight"].clone()

    rewrite(folder, rename)
    model, _ = pretrained.load_gpt2(folder)
    assert same_weights(model, expected)
    rewrite(folder, lambda t: t.update({"wte.weight": torch.zeros(97, 60)}))
    with pytest.raises(ValueError, match=r"the weight wte.weight is there twice"):
        pretrained.load_gpt2(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [{}, {"n_layer": 1, "n_head": 1, "n_embd": 1}, {"dropout": 0.3}])
def test_what_we_save_comes_back_exactly(dtype, shape, tmp_path):
    model = ours(**shape).to(dtype)
    assert pretrained.save_gpt2(model, tmp_path / "new" / "model") == tmp_path / "new" / "model"
    again, tokenizer = pretrained.load_gpt2(tmp_path / "new" / "model")
    assert tokenizer is None
    assert again.config == model.config
    assert again.wte.weight.dtype == dtype
    assert same_weights(again, model)
    assert sorted(path.name for path in (tmp_path / "new" / "model").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]


def test_transformers_loads_what_we_save(tmp_path):
    model = ours(dropout=0.2)
    with torch.no_grad():
        for weight in model.parameters():  # biases are not 0 any more, and gains not 1
            weight.add_(0.1 * torch.randn_like(weight))
    pretrained.save_gpt2(model, tmp_path)
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert isinstance(theirs, GPT2LMHeadModel)
    assert theirs.dtype == torch.float32
    config = theirs.config
    assert (config.attn_pdrop, config.embd_pdrop, config.resid_pdrop) == (0.2, 0.2, 0.2)
    assert config.eos_token_id is None
    assert_same_logits(theirs.eval(), model)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    theirs.save_pretrained(tmp_path / "theirs")
    again, _ = pretrained.load_gpt2(tmp_path / "theirs")
    assert same_weights(again, model)


def test_transformers_generates_the_same_tokens(tmp_path):
    model = ours()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    pretrained.save_gpt2(model, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = some_ids(97, 4, B=1)
    expected = theirs.generate(prompt, max_new_tokens=30, do_sample=False)[0]
    assert len(set(expected.tolist())) > 4
    assert torch.equal(llmkit.generate(model, prompt[0], 30, temperature=0), expected)


def test_a_model_of_gpt2s_vocabulary_ends_at_its_token(tmp_path):
    pretrained.save_gpt2(ours(vocab_size=50257, n_embd=5), tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.generation_config.eos_token_id == theirs.config.eos_token_id == 50256


def test_saving_over_what_was_loaded(folder):
    """The weights in memory do not hang on the file that they came from."""
    model, _ = pretrained.load_gpt2(folder)
    with torch.no_grad():
        model.wte.weight.add_(1)
    kept = model.wte.weight.clone()
    pretrained.save_gpt2(model, folder)
    pretrained.save_gpt2(model, folder)
    assert torch.equal(model.wte.weight, kept)
    assert same_weights(pretrained.load_gpt2(folder)[0], model)


def test_a_model_on_its_way_is_left_as_it_was(tmp_path):
    model = ours().train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = torch.get_rng_state()
    pretrained.save_gpt2(model, tmp_path)
    pretrained.load_gpt2(tmp_path)
    assert model.training
    assert all(torch.equal(w, before[n]) for n, w in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_compiled_model_is_saved_as_what_it_is(tmp_path):
    model = ours()
    pretrained.save_gpt2(torch.compile(model), tmp_path)
    assert same_weights(pretrained.load_gpt2(tmp_path)[0], model)


# ------------------------------------------------------------------------------ the tokenizer

TEXT = "The wheel is turning, and the river sings;  who hears it\n\nmay sleep: \u00e9 \U0001f600 "


def tokenizer_of(vocab_size: int, *special: str) -> llmkit.BPETokenizer:
    return llmkit.BPETokenizer.train(TEXT * 9, vocab_size, special)


@pytest.mark.parametrize("special", [(), ("<|endoftext|>",)])
def test_the_tokenizer_travels_with_the_model(special, tmp_path):
    tokenizer = tokenizer_of(290, *special)
    pretrained.save_gpt2(ours(vocab_size=290), tmp_path, tokenizer)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TEXT)["input_ids"] == tokenizer.encode(TEXT).tolist()
    assert theirs.decode(theirs(TEXT)["input_ids"]) == TEXT
    assert len(theirs) == 290
    assert theirs.model_max_length == 40
    assert theirs.eos_token == (special[0] if special else None)
    config = AutoModelForCausalLM.from_pretrained(tmp_path).generation_config
    assert config.eos_token_id == (289 if special else None)
    _, again = pretrained.load_gpt2(tmp_path)
    assert (again.tokens, again.merges) == (tokenizer.tokens, tokenizer.merges)
    assert again.special_tokens == tokenizer.special_tokens


@pytest.mark.parametrize("files", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_gpt2s_own_tokenizer_files(files, tmp_path):
    tokenizer = tokenizer_of(290)
    pretrained.save_gpt2(ours(vocab_size=290), tmp_path, tokenizer)
    model = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / files[0]).write_text(json.dumps(model["vocab"]))
    merges = ["#version: 0.2", *map(" ".join, model["merges"]), ""]
    (tmp_path / files[1]).write_text("\n".join(merges), encoding="utf-8")
    _, again = pretrained.load_gpt2(tmp_path)
    assert torch.equal(again.encode(TEXT), tokenizer.encode(TEXT))
    (tmp_path / files[1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"it takes .*{files[0]} and {files[1]}"):
        pretrained.load_gpt2(tmp_path)


GPT2_FOLDER = Path(os.environ.get("LLMKIT_DATA", "absent")).expanduser() / "gpt2"


@pytest.mark.skipif(
    not (GPT2_FOLDER / "encoder.json").exists(), reason="no gpt2/encoder.json under LLMKIT_DATA"
)
def test_gpt2s_vocabulary_comes_in_and_goes_out(tmp_path):
    model = ours(vocab_size=50257, n_embd=5)
    pretrained.save_gpt2(model, tmp_path / "in")
    for file in ("encoder.json", "vocab.bpe"):
        shutil.copy(GPT2_FOLDER / file, tmp_path / "in")
    again, tokenizer = pretrained.load_gpt2(tmp_path / "in")
    assert tokenizer.encode("Hello world").tolist() == [15496, 995]
    pretrained.save_gpt2(again, tmp_path / "out", tokenizer)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs(TEXT)["input_ids"] == tokenizer.encode(TEXT).tolist()
    assert theirs("<|endoftext|>")["input_ids"] == [theirs.eos_token_id] == [50256]


def test_saving_without_a_tokenizer_leaves_the_one_that_is_there(tmp_path):
    tokenizer = tokenizer_of(290)
    pretrained.save_gpt2(ours(vocab_size=290), tmp_path, tokenizer)
    pretrained.save_gpt2(ours(seed=1, vocab_size=290), tmp_path)
    assert pretrained.load_gpt2(tmp_path)[1].merges == tokenizer.merges


def test_a_padded_vocabulary_ends_where_the_tokenizer_does(tmp_path):
    """What is beyond it is never drawn; the scores of the tokens are the padded model's."""
    tokenizer, padded = tokenizer_of(271), ours(vocab_size=300)
    with torch.no_grad():
        padded.wte.weight[271:].mul_(100)  # these would be drawn
    pretrained.save_gpt2(padded, tmp_path, tokenizer)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.vocab_size == 300
    model, again = pretrained.load_gpt2(tmp_path)
    assert model.config.vocab_size == again.vocab_size == 271
    ids = some_ids(271, 40)
    with torch.no_grad():
        torch.testing.assert_close(model(ids), padded(ids)[..., :271])
    drawn = [llmkit.generate(each, ids[0, :1], 20, seed=1) for each in (padded, model)]
    assert drawn[0].max() >= 271 > drawn[1].max()
    assert len(again.decode(drawn[1])) > 0
    pretrained.save_gpt2(model, tmp_path / "cut", again)
    assert same_weights(pretrained.load_gpt2(tmp_path / "cut")[0], model)


def test_a_tokenizer_of_another_model(tmp_path):
    told = "the tokenizer has 290 tokens and the model {}: use the tokenizer that the model was"
    for size, said in ((289, "289"), (290 + 1024, "1,314")):
        with pytest.raises(ValueError, match=told.format(said)):
            pretrained.save_gpt2(ours(vocab_size=size), tmp_path / "x", tokenizer_of(290))
        assert not (tmp_path / "x").exists()
        pretrained.save_gpt2(ours(vocab_size=290), tmp_path, tokenizer_of(290))
        pretrained.save_gpt2(ours(vocab_size=size), tmp_path)
        with pytest.raises(ValueError, match=told.format(said)):
            pretrained.load_gpt2(tmp_path)


def test_other_tokenizers_are_not_saved(tmp_path):
    with pytest.raises(TypeError, match="a BPETokenizer, not CharTokenizer"):
        pretrained.save_gpt2(ours(vocab_size=2), tmp_path, llmkit.CharTokenizer("ab"))


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "choice",
    [
        {"position": "rotary"},
        {"position": "sinusoidal"},
        {"norm_first": False},
        {"activation": "relu"},
        {"tie_weights": False},
        {"bias": False},
    ],
    ids=str,
)
def test_only_gpt2s_shape_is_saved(choice, tmp_path):
    [(name, value)] = choice.items()
    with pytest.raises(ValueError, match=f"a GPT with {name}={value!r} is no GPT-2, which has"):
        pretrained.save_gpt2(ours(n_embd=20, **choice), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_other_models_are_not_saved(tmp_path):
    fast = llmkit.FastGPT(llmkit.FastGPTConfig(97, block_size=8, n_layer=1, n_head=2, n_embd=16))
    with pytest.raises(
        TypeError, match="only a model of llmkit's GPT can be a GPT-2, not a FastGPT"
    ):
        pretrained.save_gpt2(fast, tmp_path)
    changed = ours()
    changed.h[1].attn.c_attn = torch.nn.Sequential(changed.h[1].attn.c_attn)
    with pytest.raises(ValueError, match=r"changed \(h.1.attn.c_attn.0.bias\): undo that first"):
        to_gpt2(changed)


def test_folders_of_other_models_are_not_overwritten(tmp_path):
    llmkit.checkpoint.save(tmp_path / "ours", ours())
    with pytest.raises(ValueError, match=r"llmkit's own checkpoint: use llmkit\.checkpoint"):
        pretrained.save_gpt2(ours(), tmp_path / "ours")
    llmkit.checkpoint.load(tmp_path / "ours")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="model_type 'llama'"):
        pretrained.save_gpt2(ours(), tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file cannot be written"):
        pretrained.save_gpt2(ours(), tmp_path / "file")


def test_a_weight_that_is_missing_is_named(folder):
    rewrite(folder, lambda tensors: tensors.pop("transformer.h.1.mlp.c_fc.weight"))
    with pytest.raises(
        ValueError, match=r"model: the weight h.1.mlp.c_fc.weight is missing; there are h.0"
    ):
        pretrained.load_gpt2(folder)
    rewrite(folder, lambda tensors: tensors.pop("transformer.wte.weight"))
    with pytest.raises(ValueError, match=r"model: the weight wte.weight is missing; there are"):
        pretrained.load_gpt2(folder)


def test_a_weight_too_many_is_named(folder):
    rewrite(folder, lambda tensors: tensors.update({"h.2.attn.rotary": torch.ones(2)}))
    with pytest.raises(ValueError, match=r"the configuration has no weight h.2.attn.rotary"):
        pretrained.load_gpt2(folder)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"vocab_size": 98}, "wte.weight is (97, 60), but the configuration wants (98, 60)"),
        ({"n_positions": 64}, "wpe.weight is (40, 60), but the configuration wants (64, 60)"),
        ({"n_embd": 120}, "wte.weight is (97, 60), but the configuration wants (97, 120)"),
        ({"n_embd": 10**30, "n_head": 1}, "wte.weight is (97, 60), but the configuration wants"),
        ({"n_layer": 4}, "the configuration wants n_layer 4, but there are 3 layers of weights"),
        ({"n_layer": 2}, "the configuration wants n_layer 2, but there are 3 layers of weights"),
        ({"n_layer": 10**9}, "wants n_layer 1000000000, but there are 3 layers of weights"),
    ],
    ids=str,
)
def test_a_shape_that_is_not_the_configurations_is_named(fields, told, folder, monkeypatch):
    """Before anything is built, which a layer too many would take time and memory for."""
    monkeypatch.setattr("llmkit.checkpoint.GPT", None)
    set_config(folder, **fields)
    with pytest.raises(ValueError, match=re.escape(told)):
        pretrained.load_gpt2(folder)


def test_a_matrix_that_was_not_turned_is_named(folder):
    def turn(tensors):
        name = "transformer.h.0.mlp.c_proj.weight"
        tensors[name] = tensors[name].T.contiguous()

    rewrite(folder, turn)
    with pytest.raises(ValueError, match=r"c_proj.weight is \(60, 240\), but .* \(240, 60\)"):
        pretrained.load_gpt2(folder)


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_weights_that_are_not_finite(number, folder):
    rewrite(folder, lambda t: t["transformer.h.0.mlp.c_proj.weight"][0, 0].fill_(number))
    with pytest.raises(ValueError, match=r"h.0.mlp.c_proj.weight has numbers that are not finite"):
        pretrained.load_gpt2(folder)


def test_weights_that_are_no_plain_numbers(folder):
    def quantize(tensors):
        name = "transformer.h.0.mlp.c_proj.weight"
        tensors[name] = tensors[name].to(torch.int8)

    rewrite(folder, quantize)
    with pytest.raises(ValueError, match=r"0.mlp.c_proj.weight is torch.int8: llmkit takes floats"):
        pretrained.load_gpt2(folder)


def test_mixed_number_formats_become_the_widest(folder):
    expected, _ = pretrained.load_gpt2(folder)

    def narrow(tensors):
        tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"].half()

    rewrite(folder, narrow)
    model, _ = pretrained.load_gpt2(folder)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert torch.equal(model.wte.weight, expected.wte.weight.half().float())
    assert torch.equal(model.wpe.weight, expected.wpe.weight)


def test_an_output_layer_of_its_own(folder):
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(97, 60)}))
    with pytest.raises(ValueError, match=r"lm_head.weight differs from wte.weight"):
        pretrained.load_gpt2(folder)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model_type": "llama"}, "model_type 'llama': llmkit loads 'gpt2' alone"),
        ({"model_type": None}, "model_type None"),
        ({"activation_function": "relu"}, "activation_function 'relu', where"),
        ({"activation_function": "gelu"}, "activation_function 'gelu', where"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon 1e-06, where"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings False, where"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
        ({"n_inner": 99}, "n_inner 99, where llmkit's GPT has 240"),
        ({"n_head": 7}, "n_embd 60 must be a multiple of n_head 7"),
        ({"n_layer": "3"}, "n_layer must be a whole number"),
        ({"n_embd": [60]}, "n_embd must be a whole number"),
        ({"resid_pdrop": "0.1"}, "dropout must be a number, not '0.1'"),
        ({"resid_pdrop": None}, "dropout must be a number, not None"),
        ({"layer_norm_epsilon": {}}, "layer_norm_epsilon {}, where"),
        ({"format": "llmkit checkpoint 1"}, "llmkit's own checkpoint"),
    ],
    ids=str,
)
def test_other_kinds_of_models_are_refused(fields, told, folder):
    set_config(folder, **fields)
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        pretrained.load_gpt2(folder)
    assert "model" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inner", [None, 240])
@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh"])
def test_other_words_for_the_same_are_not(inner, activation, folder):
    set_config(folder, n_inner=inner, activation_function=activation)
    pretrained.load_gpt2(folder)


def test_a_config_without_a_number(folder):
    fields = json.loads((folder / "config.json").read_text())
    del fields["n_head"]
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="it lacks n_head"):
        pretrained.load_gpt2(folder)


def test_what_is_not_there(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*; by name there are gpt2, gpt2-m"):
        pretrained.load_gpt2(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="there is no folder gpt-2"):
        pretrained.load_gpt2("gpt-2")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"no model.safetensors: save .* save_pretrained"):
        pretrained.load_gpt2(folder)
    shard = folder / "pytorch_model-00001-of-00002.bin"
    (folder / "pytorch_model.bin").rename(shard)
    with pytest.raises(FileNotFoundError, match=r"no model.safetensors: save .* save_pretrained"):
        pretrained.load_gpt2(folder)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"model has no model.safetensors: get it"):
        pretrained.load_gpt2(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"model has no config.json: choose the folder"):
        pretrained.load_gpt2(folder)


def test_damaged_files(folder):
    content = (folder / "model.safetensors").read_bytes()
    for damaged in (content[:-100], content[:4], b"", b"{}" * 100):
        (folder / "model.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model.safetensors is damaged or cut short"):
            pretrained.load_gpt2(folder)
    for damaged in ("{", "[]", ""):
        (folder / "config.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"config.json: this is no JSON object"):
            pretrained.load_gpt2(folder)


# --------------------------------------------------------------------------------------- the hub


def use_hub(monkeypatch, port: int, cache: Path) -> None:
    """Let huggingface_hub talk to this machine: what HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE=0 and
    HF_HUB_ETAG_TIMEOUT=1 would do, had they been set before it was imported."""
    address = f"http://127.0.0.1:{port}"
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)


class Hub(SimpleHTTPRequestHandler):
    """A hub with one repository: what huggingface_hub asks for, and no more."""

    def translate_path(self, path: str) -> str:
        found = re.fullmatch(r"/openai-community/gpt2/resolve/\w+/([\w.]+)", path)
        return str(Path(self.directory) / (found[1] if found else "absent"))

    def end_headers(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.exists():
            self.send_header("ETag", f'"{path.stat().st_size:x}"')
            self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
        super().end_headers()

    def log_message(self, *arguments) -> None:
        self.server.asked.append(self.requestline)


@pytest.fixture
def hub(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=folder))
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_by_name_from_the_hub_and_then_from_its_cache(folder, hub, tmp_path, monkeypatch):
    reference(**ODD | {"vocab_size": 256}).save_pretrained(folder)
    bytes_alone = {files.spell(byte): i for i, byte in enumerate(files.BYTES)}
    (folder / "vocab.json").write_text(json.dumps(bytes_alone))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    expected, _ = pretrained.load_gpt2(folder)
    use_hub(monkeypatch, hub.server_port, tmp_path / "cache")
    model, tokenizer = pretrained.load_gpt2("gpt2")
    assert tokenizer.vocab_size == 256
    assert same_weights(model, expected)
    assert any("/openai-community/gpt2/resolve/main/model.safetensors" in x for x in hub.asked)
    hub.asked.clear()
    again, tokenizer = pretrained.load_gpt2("gpt2")
    assert tokenizer.vocab_size == 256
    assert same_weights(again, expected)
    assert hub.asked == []  # all of it is here already
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    pretrained.load_gpt2("gpt2")


def assert_one_sentence_in_seconds(reason: str) -> None:
    before = time.perf_counter()
    with pytest.raises(ConnectionError) as caught:
        pretrained.load_gpt2("gpt2")
    assert time.perf_counter() - before < 8  # of which patience takes one
    said = str(caught.value)
    assert re.match(rf"cannot fetch gpt2 from Hugging Face's hub \(.*{reason}.*\); check the", said)
    assert said.endswith("give the path of a folder with its config.json and model.safetensors")
    assert "\n" not in said
    assert len(said) < 400


def test_a_hub_without_the_model(folder, hub, tmp_path, monkeypatch):
    use_hub(monkeypatch, hub.server_port, tmp_path / "cache")
    for file in ("model.safetensors", "config.json"):
        (folder / file).unlink()
        assert_one_sentence_in_seconds("404")


def test_no_network(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening: refuses
        use_hub(monkeypatch, taken.getsockname()[1], tmp_path / "cache")
        assert_one_sentence_in_seconds("refused")
        taken.listen()  # accepts, and says nothing
        assert_one_sentence_in_seconds("timed out")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert_one_sentence_in_seconds("offline mode is enabled")


def test_a_sentence_on_a_foreign_value_stays_short(tmp_path):
    """A file may say anything at any length: what it said is told, and cut."""
    pretrained.save_gpt2(llmkit.GPT(llmkit.GPTConfig(11, 8, 1, 2, 8)), tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    nest: list = []
    for _ in range(900):
        nest = [nest]
    for name in ("add_cross_attention", "model_type", "n_inner"):
        (tmp_path / "config.json").write_text(json.dumps(fields | {name: nest}))
        with pytest.raises(ValueError, match=name) as caught:
            pretrained.load_gpt2(tmp_path)
        assert len(str(caught.value)) < 500
