"""Devices: what llmkit does with a model on one device and ids on another (see pretend.py)."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import api_page
import pretend
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import llmkit
from llmkit import attention as attention_function
from llmkit import checkpoint, modern, runtime, widgets
from llmkit.attention import attention_weights, rotary
from llmkit.data import check_ids, fingerprint
from llmkit.deploy import engine, export
from llmkit.evaluation import token_losses
from llmkit.finetune import gpt2, instructions, lora, pretrained
from llmkit.ngram import NeuralBigram, NGram
from llmkit.preferences import answers as preferences
from llmkit.preferences import dpo, grpo
from llmkit.projects import code_completion, languages
from llmkit.responsible import bias, differential_privacy, memorisation
from llmkit.scale import token_file
from llmkit.speed import cpu
from llmkit.speed.decoding import continue_prompts, quick

# Run alone, for the device stays in the process: pytest -n 0 -m slow tests/test_pretend_device.py
pytestmark = pytest.mark.slow
IDS = torch.arange(400) % 17
SHAPE = {"block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 16, "dropout": 0.1}


@pytest.fixture(scope="module")
def device():
    return pretend.start()


@pytest.fixture(params=["learned", "sinusoidal", "rotary", "fast"])
def model(request, device):
    torch.manual_seed(0)
    if request.param == "fast":
        shape = SHAPE | {"ngram_rows": (64,)}
        return llmkit.FastGPT(llmkit.FastGPTConfig(17, **shape)).to(device)
    return llmkit.GPT(llmkit.GPTConfig(17, position=request.param, **SHAPE)).to(device)


@pytest.fixture(params=["cpu", "pretend"])
def ids(request, device):
    return IDS.to(request.param)


def test_what_cuda_refuses_is_refused(device):
    here, there = torch.arange(4), torch.arange(4).to(device)
    refused = [
        lambda: here + there,
        lambda: there.add_(here),
        lambda: here[there],
        lambda: torch.cat([here, there]),
        lambda: torch.tensor(1).add_(there[0]),
        lambda: torch.nn.functional.embedding(here, torch.ones(4, 2, device=device)),
        lambda: torch.randn(4, device=device, generator=torch.Generator()),
        lambda: there.float().numpy(),
    ]
    for crossing in refused:
        with pytest.raises(RuntimeError):
            crossing()
    assert (there + torch.tensor(1)).device == there[here].device == device
    assert here.copy_(there).device == there.cpu().device == torch.device("cpu")
    assert torch.tensor(1, device=device).device == there.new_tensor([1]).device == device


def test_evaluate(model, ids, device):
    assert llmkit.evaluate(model, ids).tokens == len(ids) - 1
    assert token_losses(model, ids[None, :8], ids[None, 1:9]).device == device


@pytest.mark.parametrize("use_cache", [True, False])
def test_generate(model, ids, use_cache):
    options = {"max_new_tokens": 12, "top_k": 5, "top_p": 0.9, "seed": 1, "use_cache": use_cache}
    one = llmkit.generate(model, ids[:8], **options)
    two = llmkit.generate(model, ids[:16].view(2, 8), **options)
    assert one.device == two.device == ids.device
    assert torch.equal(one.cpu(), two[0].cpu())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_train_and_resume(model, ids, device, dtype, tmp_path):
    config = llmkit.TrainConfig(steps=2, batch_size=2, dtype=dtype, eval_every=1)
    saved = isinstance(model, llmkit.GPT)  # a FastGPT has no checkpoints
    callbacks = [llmkit.Checkpointer(tmp_path / "run", every=1)] if saved else []
    history = llmkit.train(model, ids, ids[:50], config, callbacks=callbacks)
    assert history.step == [1, 2]
    if not saved:
        return
    loaded, _ = llmkit.checkpoint.load(tmp_path / "run", device)
    assert {weight.device for weight in loaded.parameters()} == {device}
    state = llmkit.checkpoint.load_state(tmp_path / "run")
    llmkit.train(loaded, ids, ids[:50], config, resume=state)


def test_data(ids, device):
    for onto in (device, torch.device("cpu")):
        x, y = next(llmkit.Batches(ids, 8, 4, device=onto))
        assert x.device == y.device == onto
    assert fingerprint(ids) == fingerprint(IDS)
    assert check_ids(ids, 17).device == ids.device


def test_attention_and_masks(device):
    q = torch.randn(1, 2, 4, 8).to(device)
    mask = llmkit.causal_mask(4, device)
    assert {out.device for out in (mask, *llmkit.attention(q, q, q, mask))} == {device}


def test_checks(model):
    assert [found.name for found in llmkit.checks.run(model)]


# --- every public name

TAKES = re.compile(r"Tensor|Model\b|Module|\bGPT\b|Linear")
# Public names that take tensors or models, and never do on a device:
NEVER = {
    "deploy.int8": "torchao's tensors have no Python backend; a CPU is what they are for",
    "deploy.onnx": "the export is made on the CPU, and onnxruntime runs there",
    "deploy.export.save_onnx": "likewise",
    "deploy.export.save_int8": "likewise",
    "preferences.answers.as_rows": "what was drawn is on the CPU, and so are rows until training",
    "scale.distributed": "torchrun starts its processes: tests/test_distributed.py",
    "speed.cpu": "for CPUs only: `tuned` does nothing elsewhere",
    "arguments": "annotations, and checks of numbers and names",
    "deploy.web": "likewise: made on the CPU, and run in a browser",
    "modern.folders": "weights are read and written on the CPU",
    "modern.gguf": "likewise",
}


def taking(function: ast.FunctionDef) -> bool:
    """Whether a function's annotations name a tensor or a model."""
    arguments = [*function.args.args, *function.args.kwonlyargs]
    return any(TAKES.search(ast.unparse(a.annotation)) for a in arguments if a.annotation)


def public_names() -> dict[tuple[str, int], str]:
    """Every public function and method that takes tensors or models: where it begins, its name."""
    names = {}
    for path, tree in api_page.TREES.items():
        module = ".".join(path.relative_to(api_page.ROOT / "llmkit").with_suffix("").parts)
        if module.split(".")[0] in ("exercises", "drawings", "commands") or "server" in module:
            continue  # what `check` and the commands call is here; drawings take no tensors
        for node in api_page.public(tree.body):
            inner = node.body if isinstance(node, ast.ClassDef) else [node]
            for function in inner:
                if isinstance(function, ast.FunctionDef) and taking(function):
                    if function.name.startswith("_") and function.name != "__init__":
                        continue
                    whole = node.name if function is node else f"{node.name}.{function.name}"
                    line = min([function.lineno, *(d.lineno for d in function.decorator_list)])
                    names[str(path), line] = f"{module}.{whole}"
    return names


def on_device(value: Any) -> bool:
    if isinstance(value, nn.Module):
        made = "_modules" in vars(value)  # it may be in the making
        numbers = [*value.parameters(), *value.buffers()] if made else []
        return any(isinstance(each, pretend.PretendTensor) for each in numbers)
    return isinstance(value, pretend.PretendTensor)


@contextmanager
def recorded(names: dict[tuple[str, int], str]) -> Iterator[set[str]]:
    """Which of the names are called inside with a tensor or a model on the device."""
    called: set[str] = set()

    def see(frame: FrameType, event: str, _: Any) -> None:
        name = names.get((frame.f_code.co_filename, frame.f_code.co_firstlineno))
        if event == "call" and name and name not in called:
            given = list(frame.f_locals.values())
            if any(on_device(leaf) for leaf in tree_leaves(given)):
                called.add(name)

    sys.setprofile(see)
    try:
        yield called
    finally:
        sys.setprofile(None)


def call_everything(device: torch.device, folder: Path) -> None:
    """Call what is public with models and tensors on the device, as readers do."""
    torch.manual_seed(0)
    text = "the river was wide and the river was cold, said the miller to the carter\n" * 3
    special = [code_completion.FILE, *code_completion.FILLING]
    bpe = llmkit.BPETokenizer.train(text, 280, special)
    chars = llmkit.CharTokenizer.from_text(text + "QA:")

    def gpt(tokenizer=chars, **changes) -> llmkit.GPT:
        return llmkit.GPT(llmkit.GPTConfig(tokenizer.vocab_size, **{**SHAPE, **changes})).to(device)

    model, V = gpt(block_size=64), chars.vocab_size
    ids = chars.encode(text).to(device)
    rows = ids[:32].view(2, 16)
    heads = torch.randn(2, 2, 4, 8).to(device)

    # the course
    attention_function(heads, heads, heads)
    attention_weights(model, rows)
    rotary(heads)
    batches = llmkit.Batches(ids, 8, 2)
    batches.load_state_dict({n: t.to(device) for n, t in batches.state_dict().items()})
    checkpoint.save(folder / "saved", model, chars)
    runtime.read_later(heads.sum())()
    counter = NGram(ids, 3, V, discount=None)
    counter.loss(ids), counter.probabilities(ids[:2]), llmkit.evaluate(counter, ids)
    bigram = NeuralBigram(V).to(device)
    config = llmkit.TrainConfig(steps=2, batch_size=2, eval_every=1, optimizer="muon")
    bigram.loss(rows, rows)
    sampler = llmkit.Sampler(chars, 1, "the", 4)
    keep = llmkit.Checkpointer(folder / "run", chars)
    llmkit.train(gpt(), ids, ids[:50], config, callbacks=[sampler, keep])
    chars.decode(llmkit.generate(model, ids[:4], 4, stop=[1], seed=0))
    list(llmkit.stream(model, rows, 3))
    llmkit.checks.run(gpt(dropout=0.0))
    widgets.SamplingPlayground(model, chars, "the", new_tokens=3).chart(ids[:5])
    widgets.NextTokenExplorer(model, chars, "the")
    widgets.AttentionExplorer(attention_weights(model, rows[:1, :5])[:, 0], text[:5])

    # fine-tuning
    adapted = lora.apply(gpt(), 2)
    lora.trainable(adapted)
    lora.save(folder / "adapter", adapted)
    lora.unmerge(lora.merge(adapted))
    adapted(rows)
    lora.remove(adapted)
    lora.load(folder / "adapter", adapted)
    gpt2.from_gpt2({n: w.to(device) for n, w in gpt2.to_gpt2(gpt()).items()}, gpt().config)
    pretrained.save_gpt2(gpt(bpe), folder / "gpt2", bpe)
    item = instructions.Item(1, "say", "the river", "was", "cold")
    instructions.answer(model, chars, [item, item], 5)
    examples = [instructions.encode(item, chars)] * 4
    dataset = instructions.pack(examples, 64)
    llmkit.train(model, dataset, config=llmkit.TrainConfig(steps=1, batch_size=2))
    instructions.ExampleDataset(rows, rows)

    # deployment
    export.measure(model, ids, 0.001)
    export.load(folder / "saved", device)
    worker = engine.Engine(model, chars)
    answers: list[Any] = []
    worker.submit(engine.Request([[1, 2]], 3), answers.append)
    worker.close()
    assert answers[-1].finish_reason == "length"

    # open models, preferences
    shape: dict[str, Any] = dict(n_layer=1, n_head=4, n_embd=32, n_kv_head=2, qk_norm=True)
    for more in ({}, {"n_expert": 3, "n_active": 2, "window": 8}):
        open_model = modern.Modern(modern.ModernConfig(V, 64, **shape, **more)).to(device)
        open_model.loss(rows, rows)
        llmkit.generate(modern.quick(open_model), ids[:4], 12, seed=0)
    tuned = gpt(block_size=64)
    pairs = [dpo.Pair(item, "cold", "was")]
    dpo.train(tuned, chars, pairs, 1, batch_size=2)
    grpo.train(tuned, chars, [item, item], lambda _, said: len(said), 1, 2, 2, max_new_tokens=3)
    preferences.kl_from(tuned, gpt(block_size=64), chars, [item], 3)
    preferences.read(chars, ids[:3])
    grpo.advantages(heads[0, 0])

    # projects
    coder = gpt(bpe, block_size=128)
    code_completion.complete(coder, bpe, ["the river", "the"], 4)
    code_completion.cost_by_kind(coder, bpe, ["a = 1\n"])
    gaps = code_completion.gaps([text * 3], bpe, 2, 0)
    code_completion.gap_bits(coder, bpe, [(i.to(device), a, b) for i, a, b in gaps])
    languages.sentence_losses(model, chars, ["the river", "was"], prefix="\n")

    # responsibility
    losses = bias.log_odds(model, chars, ["the {} was", "said the {} to"], "river", "miller")
    bias.bootstrap_interval(losses.to(device), resamples=10)
    plain = gpt(dropout=0.0)
    differential_privacy.private_gradient(plain, rows, rows, 1.0, 0.5, 2)
    memorisation.continuations(model, chars, text, 2, 8, 4)
    log_p = memorisation.code_log_probabilities(model, chars, "the ", 2, "riv")
    memorisation.exposure(log_p.to(device), 0)
    memorisation.auc(losses.to(device), losses.to(device))

    # speed and scale
    fast = llmkit.FastGPT(llmkit.FastGPTConfig(V, **SHAPE, ngram_rows=(64, 64))).to(device)
    llmkit.generate(fast, ids[:4], 4)
    llmkit.train(fast, ids, config=llmkit.TrainConfig(steps=1, batch_size=2))
    continue_prompts(quick(model), [ids[:3], ids[:5]], 3)
    with cpu.tuned(model):
        model(rows)
    token_file.write(folder / "t.safetensors", [text], chars)
    stored, _ = token_file.load(folder / "t.safetensors")
    llmkit.train(gpt(), stored, config=llmkit.TrainConfig(steps=1, batch_size=2))


def test_every_public_name_runs_on_the_device(device, tmp_path):
    """A new public name that takes a tensor or a model must be called above, or be in NEVER."""
    names = public_names()
    with recorded(names) as called:
        call_everything(device, tmp_path)
    never = tuple(f"{name}." for name in NEVER)
    missing = {name for name in names.values() if not f"{name}.".startswith(never)} - called
    assert sorted(missing) == []


# --- the faults that all this is for

FAULTS = {  # file: what stands in it, and how people write it who have no GPU at hand
    "a mask on the CPU": ("attention.py", "dtype=torch.bool, device=device)", "dtype=torch.bool)"),
    "a cache on the CPU": ("attention.py", "empty(shape, device=device,", "empty(shape,"),
    "numpy without cpu": ("data.py", "ids.cpu().to(torch.int64).numpy()", "ids.long().numpy()"),
    "an index on the CPU": ("data.py", "starts + 1]).to(self.windows.device)", "starts + 1])"),
    "a table made without device": ("attention.py", "stop, device=like.device,", "stop,"),
    "a buffer that is none": ("model.py", 'self.register_buffer("waves", waves, persistent=False)',
                              "self.waves = waves"),
    "a generator of the CPU": ("generation.py", "dtype=torch.float64, generator=g)",
                               "dtype=torch.float64, generator=g, device=p.device)"),
    "a number drawn on the CPU": ("generation.py", "darts[:, None].to(p.device)", "darts[:, None]"),
    "ids not moved to the model": ("generation.py", "score(unread.to(device)", "score(unread"),
    "ids to compare on the CPU": ("generation.py", 'name="stop").to(ids)', 'name="stop")'),
    "a sum kept on the CPU": ("evaluation.py", "total = total.to(losses.device) + losses.sum()",
                              "total += losses.sum()"),
    "targets on the CPU": ("evaluation.py", "y.to(device, torch.int64)", "y.to(torch.int64)"),
    "a range on the CPU": ("ngram.py", "torch.arange(V, device=ids.device)", "torch.arange(V)"),
    "a model left on the CPU": ("checkpoint.py", "model.to(device).eval()", "model.eval()"),
    "an adapter on the CPU": ("finetune/lora.py", "A.to(base.weight)", "A"),
    "quantiles on the CPU": ("responsible/bias.py", "flatten().cpu()", "flatten()"),
}  # fmt: skip


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_each_typical_fault_is_caught(fault, tmp_path):
    """These tests, run on a copy of llmkit with the fault in it, fail; without one they pass."""
    for part in ("llmkit", "tests", "data", "notebooks/build.py", "pyproject.toml"):
        here, there = api_page.ROOT / part, tmp_path / part
        there.parent.mkdir(exist_ok=True)
        copy = shutil.copytree if here.is_dir() else shutil.copy
        copy(here, there)
    if fault:
        name, right, wrong = FAULTS[fault]
        path = tmp_path / "llmkit" / name
        assert right in path.read_text("utf-8")
        path.write_text(path.read_text("utf-8").replace(right, wrong), "utf-8")
    command = [sys.executable, "-m", "pytest", "-n", "0", "-m", "slow", "-xq", "-k", "not fault"]
    done = subprocess.run(
        [*command, "tests/test_pretend_device.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == (1 if fault else 0), done.stdout
