"""Exports: ONNX equal to PyTorch, int8 equal to its formula, whole folders, clear errors."""

import json
import re
import shutil
import subprocess
import sys
import zlib
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from io import StringIO
from itertools import product
from pathlib import Path
from types import ModuleType
from urllib.request import Request, urlopen

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import llmkit
from llmkit import checkpoint, folders
from llmkit.__main__ import main
from llmkit.deploy import export, int8
from llmkit.deploy.onnx import OnnxModel, write_onnx
from llmkit.finetune import lora
from llmkit.model import GPT, GPTConfig
from llmkit.speed import decoding

TEXT = llmkit.load_text("embedded")
TOKENIZER = llmkit.CharTokenizer.from_text(TEXT)
TRAIN, VAL = llmkit.split(TOKENIZER.encode(TEXT))
V, ROOM = TOKENIZER.vocab_size, 16
SHAPE = {"vocab_size": V, "block_size": ROOM, "n_layer": 2, "n_head": 2, "n_embd": 16}
PLAIN = GPTConfig(**SHAPE)
OTHER = GPTConfig(
    **SHAPE, bias=False, position="rotary", norm_first=False, activation="relu", tie_weights=False
)


def build(config) -> GPT:
    """A model of which no weight is zero, which would hide a difference."""
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model


@pytest.fixture(scope="module")
def trained():
    """A GPT trained for about two seconds: rotary positions, tied."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(V, 32, n_layer=2, n_head=2, n_embd=64, position="rotary"))
    how = llmkit.TrainConfig(steps=150, batch_size=16, optimizer="muon")
    llmkit.train(model, TRAIN, VAL[:1000], how)
    return model.eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory, trained):
    """A run's folder with both exports, made by the command once: exporting takes seconds. What
    was printed is in `printed.txt`."""
    run = tmp_path_factory.mktemp("runs") / "run"
    checkpoint.save(run / "checkpoint", trained, TOKENIZER, {"step": 1})
    (run / "poem.txt").write_text(TEXT[:30_000])
    (run / "report.json").write_text(json.dumps({"corpus": str(run / "poem.txt")}))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.setattr(export, "measure", partial(export.measure, seconds=0.01))
        assert main(["export", str(run), "--onnx", "--int8"]) == 0
    (run / "printed.txt").write_text(printed.getvalue())
    return run


def differences(model, other, room=ROOM) -> float:
    """The largest difference between two models' scores, over several sizes."""
    with torch.no_grad():
        sizes = product((1, 3), {1, min(2, room), min(7, room), room})
        texts = [
            torch.randint(V, size, generator=torch.Generator().manual_seed(1)) for size in sizes
        ]
        return max(float((model(ids) - other(ids)).abs().max()) for ids in texts)


# ONNX


def test_onnx_gives_the_scores_of_pytorch(trained, run):
    loaded, tokenizer = export.load(run / "onnx")
    assert isinstance(loaded, OnnxModel)
    assert loaded.config == trained.config
    assert tokenizer.tokens == TOKENIZER.tokens
    assert differences(trained, loaded, trained.config.block_size) < 1e-4
    assert trained(VAL[None, :1]).detach().abs().max() > 0.1


def test_evaluate_and_generate_take_an_onnx_model_for_a_model(trained, run):
    loaded, _ = export.load(run / "onnx")
    losses = [llmkit.evaluate(each, VAL[:500]).loss for each in (trained, loaded)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for choices in ({"temperature": 0}, {"seed": 3, "top_k": 5}):  # and on past block_size
        texts = [llmkit.generate(each, VAL[:5], 70, **choices) for each in (trained, loaded)]
        assert texts[0].tolist() == texts[1].tolist()


def test_the_file_says_nothing_of_where_it_was_made(trained, run):
    content = (run / "onnx" / "model.onnx").read_bytes()
    for word in (b"site-packages", b"forward", str(Path.home()).encode(), b".py"):
        assert word not in content
    assert len(content) < 4 * trained.num_parameters() + 40_000


@pytest.mark.parametrize("ids", [[[V]], [[-1]], [[]], [0], [[0] * 33]])
def test_an_onnx_model_refuses_what_is_not_ids(run, ids):
    loaded, _ = export.load(run / "onnx")
    with pytest.raises(ValueError, match=r"vocab_size|\(B, T\)|block_size"):
        loaded(torch.tensor(ids, dtype=torch.int64))


@pytest.mark.slow
def test_a_model_in_half_precision_becomes_float32(tmp_path):
    model = build(replace(PLAIN, n_layer=1)).bfloat16()
    loaded = OnnxModel(write_onnx(model, tmp_path / "m.onnx"), model.config)
    assert differences(model.float(), loaded) < 1e-4


VARIANTS = [
    GPTConfig(**SHAPE, position=p, norm_first=n, activation=a, tie_weights=t, bias=b)
    for p, n, (a, t, b) in product(
        ("learned", "sinusoidal", "rotary"),
        (True, False),
        (("gelu", True, True), ("relu", False, False)),
    )
]
VARIANTS += [replace(PLAIN, block_size=n) for n in (1, 2, 700)]


@pytest.mark.slow
@pytest.mark.parametrize("config", VARIANTS)
def test_every_variant_as_onnx(tmp_path, config):
    model = build(config)
    loaded = OnnxModel(write_onnx(model, tmp_path / "m.onnx"), config)
    assert differences(model, loaded, config.block_size) < 1e-4
    texts = [llmkit.generate(each, VAL[:5], 2 * ROOM, temperature=0) for each in (model, loaded)]
    assert texts[0].tolist() == texts[1].tolist()


@pytest.mark.slow
def test_a_large_model_takes_a_second_file(tmp_path, monkeypatch):
    monkeypatch.setattr("llmkit.deploy.onnx.LARGE", 1000)
    model = build(PLAIN)
    export.save_onnx(tmp_path / "m", model)
    assert (tmp_path / "m" / "model.onnx.data").exists()
    assert export.file_bytes(tmp_path / "m") > 4 * model.num_parameters()
    loaded, tokenizer = export.load(tmp_path / "m")
    assert tokenizer is None
    assert differences(model, loaded) < 1e-4


# int8


@pytest.mark.parametrize("config", [PLAIN, OTHER], ids=["plain", "other"])
def test_each_row_is_rounded_to_its_scale(config):
    """The definition by hand, in float64: the scale takes the row's largest number to 127.5."""
    model = build(config)
    quantized, seen = int8.to_int8(model), 0
    for name, part in model.named_modules():
        if isinstance(part, (nn.Linear, nn.Embedding)) and name != "wpe":
            weight = part.weight.detach().double()
            scale = weight.abs().amax(dim=1, keepdim=True) / 127.5
            steps = (weight / scale).round().clamp(-128, 127)
            found = quantized.get_submodule(name).weight
            assert torch.allclose(found.scale.double().view(-1, 1), scale, rtol=1e-6)
            off = (found.qdata - steps).abs()  # 127.5 itself may go either way in float32
            assert off.max() <= 1
            assert (off > 0).double().mean() < 0.02
            back = found.qdata * found.scale.view(-1, 1)
            assert ((back - weight).abs() <= 0.51 * scale).all()
            seen += weight.numel()
    assert seen > 0.9 * model.num_parameters()


def test_an_embedding_is_the_row_times_its_scale():
    model = build(PLAIN)
    table = int8.to_int8(model).wte
    ids = torch.tensor([[3, 0], [64, 3]])
    assert table(ids).shape == (2, 2, 16)
    assert torch.equal(table(ids)[0, 0], table.weight.dequantize()[3])
    assert torch.allclose(table(ids), model.wte(ids), atol=0.02)


def test_int8_is_small_and_as_good(trained):
    quantized = int8.to_int8(trained)
    assert int8.linear_bytes(trained) >= 3.5 * int8.linear_bytes(quantized)
    before, after = (llmkit.evaluate(each, VAL).perplexity for each in (trained, quantized))
    assert before < 12  # it has learned something that could be lost
    assert before != after
    assert after == pytest.approx(before, rel=0.01)


def test_the_original_is_left_alone(trained):
    before = [weight.clone() for weight in trained.parameters()]
    int8.to_int8(trained)
    assert not int8.is_int8(trained)
    assert all(map(torch.equal, before, trained.parameters()))


@pytest.mark.parametrize("config", [None, OTHER], ids=["trained", "other"])
def test_int8_comes_back_bit_for_bit(tmp_path, trained, config):
    model = trained if config is None else build(config)
    quantized = int8.to_int8(model)
    for made_of in (model, quantized):
        folder = export.save_int8(tmp_path / "m", made_of, TOKENIZER)
        loaded, tokenizer = export.load(folder)
        assert tokenizer.tokens == TOKENIZER.tokens
        assert (loaded.config, loaded.training) == (quantized.config, False)
        ours, theirs = int8.tensors(quantized), int8.tensors(loaded)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert torch.equal(loaded(VAL[None, :16]), quantized(VAL[None, :16]))
    if config is None:  # in a tiny one, the names are most of the file
        assert export.file_bytes(folder) < 4 * model.num_parameters() / 3


def test_a_tied_head_reads_the_bytes_of_the_embedding(tmp_path):
    loaded, _ = export.load(export.save_int8(tmp_path / "m", build(PLAIN)))
    assert loaded.lm_head.weight.qdata.data_ptr() == loaded.wte.weight.qdata.data_ptr()
    other = int8.to_int8(build(OTHER))
    assert other.lm_head.weight.qdata.data_ptr() != other.wte.weight.qdata.data_ptr()


@pytest.mark.parametrize("amd", [False, True], ids=["intel", "amd"])
@pytest.mark.parametrize("cache", [True, False], ids=["cache", "plain"])
@pytest.mark.parametrize("config", [PLAIN, OTHER], ids=["plain", "other"])
def test_generation_takes_an_int8_model(monkeypatch, config, cache, amd):
    """Its weights stand for floats: the text of the model with those floats in it."""
    monkeypatch.setattr("llmkit.speed.cpu.is_amd", lambda: amd)
    monkeypatch.setattr("llmkit.speed.cpu.LARGE", 1)
    model = build(config)
    quantized = int8.to_int8(model)
    with torch.no_grad():
        for name, weight in dict(quantized.named_parameters()).items():
            floats = weight.dequantize() if hasattr(weight, "qdata") else weight
            model.get_parameter(name).copy_(floats)
    texts = [
        llmkit.generate(decoding.quick(each), VAL[:5], 2 * ROOM, seed=1, use_cache=cache).tolist()
        for each in (model, quantized)
    ]
    assert texts[0] == texts[1]


def test_generation_takes_what_torchao_itself_quantized():
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = build(PLAIN)
    quantize_(model, Int8WeightOnlyConfig(version=2))
    texts = [
        llmkit.generate(model, VAL[:5], ROOM, temperature=0, use_cache=cache).tolist()
        for cache in (True, False)
    ]
    assert texts[0] == texts[1]


# Folders


def one_sentence(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_load_takes_every_kind_of_folder(tmp_path):
    model = build(PLAIN)
    checkpoint.save(tmp_path / "run" / "checkpoint", model, TOKENIZER)
    llmkit.pretrained.save_gpt2(model, tmp_path / "gpt2")
    for name in ("run", "run/checkpoint", "gpt2"):
        loaded, tokenizer = export.load(tmp_path / name)
        assert type(loaded) is GPT
        assert (tokenizer is None) == (name == "gpt2")
        assert torch.equal(loaded(VAL[None, :9]), model(VAL[None, :9]))


def test_folders_that_are_no_model_get_one_sentence(tmp_path, run):
    for name in ("none", "empty", "foreign"):
        (tmp_path / name).mkdir() if name != "none" else None
    (tmp_path / "foreign" / "config.json").write_text("[1]")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint in"):
        export.load(tmp_path / "none")
    for name in ("empty", "foreign"):
        with pytest.raises(ValueError, match="missing, damaged or of another program") as error:
            export.load(tmp_path / name)
        one_sentence(error)
    with pytest.raises(ValueError, match="says onnx, not checkpoint"):
        checkpoint.load(run / "onnx")


def test_damaged_files_get_one_sentence(tmp_path, run):
    for name, file in (("onnx", "model.onnx"), ("int8", "model.safetensors")):
        shutil.copytree(run / name, tmp_path / name)
        path = tmp_path / name / file
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        for damaged in (content, content[:-1], b""):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=f"{file} is missing or damaged") as error:
                export.load(tmp_path / name)
            one_sentence(error)
        path.unlink()
        with pytest.raises(ValueError, match="missing or damaged"):
            export.load(tmp_path / name)
    (tmp_path / "bad.onnx").write_bytes(b"no model at all")
    with pytest.raises(ValueError, match="damaged or no ONNX file"):
        OnnxModel(tmp_path / "bad.onnx", OTHER)
    with pytest.raises(ValueError, match=r"another model than its config\.json"):
        OnnxModel(run / "onnx" / "model.onnx", replace(OTHER, vocab_size=9))


def test_weights_that_do_not_fit_the_configuration(tmp_path):
    folder = export.save_int8(tmp_path / "m", build(PLAIN))
    about = json.loads((folder / "config.json").read_text())
    for change in ({"n_embd": 32}, {"bias": False}, {"n_layer": 3}):
        write_header(folder, about | {"config": about["config"] | change})
        with pytest.raises(ValueError, match=r"model\.safetensors: the") as error:
            export.load(folder)
        one_sentence(error)


def resave(folder: Path, change) -> None:
    """Change the weights of a folder, and the checksums with them."""
    path, about = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    tensors = {name: each.clone() for name, each in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)
    about["files"][path.name] = zlib.crc32(path.read_bytes())
    write_header(folder, about)


def write_header(folder: Path, about) -> None:
    """config.json, with its checksum."""
    about = about | {"checksum": folders._checksum(about)}
    (folder / "config.json").write_text(json.dumps(about))


@pytest.mark.parametrize("name", ["../../secret", "notes.txt"])
def test_a_file_that_its_kind_does_not_have_is_not_read(name, tmp_path):
    folder = export.save_onnx(tmp_path / "m", build(PLAIN))
    about = json.loads((folder / "config.json").read_text())
    write_header(folder, about | {"files": about["files"] | {name: 0}})
    with pytest.raises(ValueError, match="damaged or of another program") as error:
        export.load(folder)
    one_sentence(error)


SCALES = "h.1.mlp.c_fc.weight_scale"


@pytest.mark.parametrize("save", [export.save_int8, checkpoint.save], ids=["int8", "checkpoint"])
def test_a_configuration_of_another_size_is_refused_before_anything_is_built(
    save, tmp_path, monkeypatch
):
    folder = save(tmp_path / "m", build(PLAIN))
    about = json.loads((folder / "config.json").read_text())
    monkeypatch.setattr("llmkit.checkpoint.GPT", None)
    for change, told in (
        ({"n_layer": 10**9}, "wants n_layer 1000000000, but there are 2 layers"),
        ({"n_embd": 10**12}, "the weight wte.weight is (65, 16), but the configuration wants"),
        ({"block_size": 10**6}, "the weight wpe.weight is (16, 16), but the configuration wants"),
    ):
        write_header(folder, about | {"config": about["config"] | change})
        with pytest.raises(ValueError, match=re.escape(told)) as error:
            export.load(folder)
        one_sentence(error)


@pytest.mark.parametrize(
    ("save", "change", "told"),
    [
        (export.save_int8, lambda t: t[SCALES][3].fill_(torch.nan), f"{SCALES} has .* not finite"),
        (export.save_int8, lambda t: t[SCALES][3].fill_(torch.inf), f"{SCALES} has .* not finite"),
        (export.save_int8, lambda t: t["ln_f.bias"][0].fill_(torch.nan), "ln_f.bias has .* not"),
        (export.save_int8, lambda t: t.update({SCALES: t[SCALES][:1]}), f"{SCALES} is .1, 1., but"),
        (export.save_int8, lambda t: t.update({SCALES: t[SCALES].int()}), f"{SCALES} is .*int32"),
        (export.save_int8, lambda t: t.pop(SCALES), f"{SCALES} is missing"),
        (export.save_int8, lambda t: t.update(x=torch.ones(1)), "has no weight x"),
        (checkpoint.save, lambda t: t["ln_f.bias"][0].fill_(torch.nan), "ln_f.bias has .* not"),
        (checkpoint.save, lambda t: t.update({"ln_f.bias": t["ln_f.bias"].int()}), "takes floats"),
        (checkpoint.save, lambda t: t.update(x=torch.ones(1)), "has no weight x"),
    ],
)
def test_weights_that_are_no_models_are_named(save, change, told, tmp_path):
    folder = save(tmp_path / "m", build(PLAIN))
    resave(folder, lambda tensors: None)
    export.load(folder)
    resave(folder, change)
    with pytest.raises(ValueError, match=told) as error:
        export.load(folder)
    assert "m/model.safetensors: the" in one_sentence(error)


def test_an_export_replaces_its_own_kind_only(tmp_path):
    model, place = build(PLAIN), tmp_path / "m"
    checkpoint.save(place, model)
    with pytest.raises(ValueError, match="says checkpoint, not int8 export: choose another"):
        export.save_int8(place, model)
    assert torch.equal(checkpoint.load(place)[0].wte.weight, model.wte.weight)
    export.save_int8(tmp_path / "i", model)
    export.save_int8(tmp_path / "i", model, TOKENIZER)
    assert export.load(tmp_path / "i")[1] is not None
    (tmp_path / "i" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds notes\.txt, no int8 export"):
        export.save_int8(tmp_path / "i", model)
    assert not list(tmp_path.glob(".*"))


def test_what_cannot_be_exported_says_why(tmp_path):
    model = build(PLAIN)
    quantized = int8.to_int8(model)
    with pytest.raises(ValueError, match="quantized already"):
        export.save_onnx(tmp_path / "m", quantized)
    with pytest.raises(ValueError, match="quantized already"):
        int8.to_int8(quantized)
    with pytest.raises(TypeError, match=r"export\.save_int8"):
        checkpoint.save(tmp_path / "m", quantized)
    with pytest.raises(TypeError, match="llmkit's GPT"):
        export.save_int8(tmp_path / "m", nn.Linear(2, 2))
    lora.apply(model, rank=2)
    for save in (export.save_onnx, export.save_int8):
        with pytest.raises(ValueError, match="merge LoRA's adapters first"):
            save(tmp_path / "m", model)
    lora.remove(lora.merge(model))
    export.save_int8(tmp_path / "m", model)


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("torchao.quantization", lambda place: export.save_int8(place, build(PLAIN))),
        ("onnxscript", lambda place: export.save_onnx(place, build(PLAIN))),
        ("onnxruntime", lambda place: OnnxModel(Path(__file__), PLAIN)),  # looked for first
    ],
)
def test_an_absent_package_is_named_with_its_extra(tmp_path, monkeypatch, package, use):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'llmkit\[export\]'") as error:
        use(tmp_path / "m")
    one_sentence(error)
    assert not list(tmp_path.iterdir())


def test_an_older_torchao_is_told_as_an_absent_one(tmp_path, monkeypatch):
    """0.10, which Colab has, knows the name and not the options."""
    older = ModuleType("torchao.quantization")
    older.Int8WeightOnlyConfig = lambda group_size=None, set_inductor_config=True: None
    older.quantize_ = None
    monkeypatch.setitem(sys.modules, "torchao.quantization", older)
    told = r"int8 needs torchao 0\.15 or later: pip install 'llmkit\[export\]'"
    with pytest.raises(ImportError, match=told) as error:
        export.save_int8(tmp_path / "m", build(PLAIN))
    one_sentence(error)
    assert not list(tmp_path.iterdir())
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    assert '"torchao>=0.15"' in pyproject


# The server


@pytest.mark.parametrize("kind", ["onnx", "int8"])
def test_an_export_can_be_served(run, kind):
    from llmkit.commands.serve import load
    from llmkit.deploy import server

    name, loaded, tokenizer = load(run / kind, "cpu")
    assert name == f"run-{kind}"
    with server.background(loaded, tokenizer, name=name) as server:
        body = {"prompt": "MARA:", "max_tokens": 30, "temperature": 0}
        request = Request(f"{server.url}/v1/completions", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        with urlopen(request, timeout=60) as answer:
            [choice] = json.loads(answer.read())["choices"]
    expected = llmkit.generate(loaded, TOKENIZER.encode("MARA:"), 30, temperature=0)
    assert "MARA:" + choice["text"] == TOKENIZER.decode(expected)


# The command line


@pytest.fixture
def quick(monkeypatch):
    """Times that mean nothing."""
    monkeypatch.setattr(export, "measure", partial(export.measure, seconds=0.01))


def table(printed: str) -> dict[str, list[str]]:
    """The rows under the heading."""
    lines = printed.split("\n\n")[1].splitlines()
    assert lines[0].split("  ")[-1].strip() == "perplexity"
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[1:]]
    return {row[0]: row[1:] for row in rows}


def megabytes(cell: str) -> float:
    return float(cell.removesuffix(" MB"))


def test_the_command_exports_and_compares(trained, run):
    printed = (run / "printed.txt").read_text()
    rows = table(printed)
    assert list(rows) == ["original", "onnx", "int8"]
    held_out = llmkit.split(TOKENIZER.encode(TEXT[:30_000]))[1]
    perplexity = llmkit.evaluate(trained, held_out).perplexity
    assert "all 2,999 held-out tokens" in printed
    for name, row in rows.items():
        assert len(row) == 5
        assert float(row[2].removesuffix(" ms")) > 0
        assert float(row[3].replace(",", "")) > 0
        assert float(row[4]) == pytest.approx(perplexity, rel=0.01 if name == "int8" else 1e-4)
        folder = run / ("checkpoint" if name == "original" else name)
        assert megabytes(row[0]) == pytest.approx(export.file_bytes(folder) / 1e6, abs=0.005)
        assert export.load(folder)[1].tokens == TOKENIZER.tokens
    weights = int8.linear_bytes(trained) / 1e6
    assert megabytes(rows["original"][1]) == pytest.approx(weights, abs=0.005)
    assert rows["onnx"][1] == rows["original"][1]
    assert megabytes(rows["int8"][1]) <= weights / 3.5
    assert str(run / "int8") in printed.splitlines()[-1]


def test_where_exports_go(tmp_path, capsys, quick):
    model = build(PLAIN)
    checkpoint.save(tmp_path / "m", model, TOKENIZER)
    llmkit.pretrained.save_gpt2(model, tmp_path / "gpt2")
    assert main(["export", str(tmp_path / "m"), "--int8", "--corpus", "embedded"]) == 0
    assert main(["export", str(tmp_path / "m"), "--int8", "--out", str(tmp_path / "out")]) == 0
    assert main(["export", str(tmp_path / "gpt2"), "--int8"]) == 0
    places = {path.parent.name for path in tmp_path.glob("*/config.json")}
    assert places == {"m", "m-int8", "out", "gpt2", "gpt2-int8"}
    assert "no tokenizer" in capsys.readouterr().out


def test_the_commands_errors_are_one_sentence(tmp_path, capsys, monkeypatch):
    checkpoint.save(tmp_path / "run" / "checkpoint", build(PLAIN), TOKENIZER)
    export.save_int8(tmp_path / "int8", build(PLAIN), TOKENIZER)
    (tmp_path / "odd.txt").write_text("ï" * 100)
    run = str(tmp_path / "run")
    cases = [
        ([run], "--onnx, --int8, --web or several of them"),
        ([str(tmp_path / "none"), "--int8"], "there is no checkpoint"),
        ([str(tmp_path / "int8"), "--int8"], "is an export already"),
        ([run, "--int8", "--text", str(tmp_path / "odd.txt")], "not in the vocabulary"),
        ([run, "--int8", "--text", str(tmp_path / "no.txt")], "no.txt"),
        ([run, "--int8", "--corpus", "embeded"], "embedded"),
        ([run, "--int8", "--out", f"{run}/checkpoint"], "says checkpoint"),
    ]
    for arguments, message in cases:
        assert main(["export", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
    (tmp_path / "run" / "report.json").write_text("{}")
    assert main(["export", run, "--int8"]) == 2
    assert "report.json is damaged" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    assert main(["export", run, "--int8", "--corpus", "embedded"]) == 2
    assert "llmkit[export]" in capsys.readouterr().err


@pytest.mark.slow
def test_nothing_but_the_table_is_printed(tmp_path):
    """In a process of its own, where torchao and the exporter are imported anew."""
    checkpoint.save(tmp_path / "run" / "checkpoint", build(OTHER), TOKENIZER)
    command = [sys.executable, "-m", "llmkit", "export", str(tmp_path / "run"), "--onnx", "--int8"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 9
