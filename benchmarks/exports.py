"""Exports beside their original: bytes, milliseconds for a window, tokens a second, perplexity.

    python benchmarks/exports.py [--quick]

Three GPTs, each trained here on the embedded corpus: the one of `python -m llmkit train`, by its
recipe, and two of nanoGPT's shapes, which get a shorter training that makes their perplexity mean
something. Each as it is (float32), in bfloat16, as ONNX through onnxruntime,
with int8 weights as `python -m llmkit export --int8` writes them, and with int8 activations as
well, which torchao offers and we do not. The file is what `export` writes (float32 and bfloat16: a
checkpoint); times are medians, all contenders in turns; the perplexity is of all held-out text.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import common
import torch
from torch import nn

import llmkit
from llmkit import checkpoint, plots
from llmkit.commands.recipe import recipe
from llmkit.deploy import export, int8
from llmkit.speed.cpu import best_dtype

FLOAT, HALF, ONNX, INT8, BOTH = "float32", "bfloat16", "ONNX", "int8", "int8, activations too"
SHAPES = {"0.8 M": (64, 4, 4, 128), "10.65 M": (256, 6, 6, 384)}  # block, layers, heads, width
STEPS = {"0.8 M": 500, "10.65 M": 120}
MAIN = "python -m llmkit train"
NEW = 60  # tokens: within every window


def train(name: str, train_ids, val_ids, vocab_size: int, quick: bool) -> llmkit.GPT:
    """A model of this name, trained."""
    torch.manual_seed(1337)
    if name == MAIN:
        shape, how = recipe(len(train_ids), vocab_size, steps=3 if quick else None)
        model = llmkit.GPT(shape)
    else:
        block, layers, heads, width = SHAPES[name]
        width = 4 * heads if quick else width
        model = llmkit.GPT(llmkit.GPTConfig(vocab_size, block, layers, heads, width))
        dtype = best_dtype(torch.device("cpu"))
        batch = {"batch_size": 2 if quick else 16, "steps": 2 if quick else STEPS[name]}
        how = llmkit.TrainConfig(optimizer="muon", dtype=dtype, keep_best=True, **batch)
    llmkit.train(model, train_ids, val_ids, how)
    return model.eval()


def contenders(model: llmkit.GPT, folder: Path) -> dict[str, tuple[nn.Module, int, int | None]]:
    """Each way to keep the model: itself, the file's bytes, those of the linear weights."""
    half, both = deepcopy(model).bfloat16(), deepcopy(model)
    export.save_int8(folder / "int8", model)  # imports torchao, without its messages
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantize_(both, Int8DynamicActivationInt8WeightConfig(version=2))
    places = {
        FLOAT: checkpoint.save(folder / "float32", model),
        HALF: checkpoint.save(folder / "bfloat16", half),
        ONNX: export.save_onnx(folder / "onnx", model),
        INT8: folder / "int8",
    }
    linear = int8.linear_bytes
    found = {}
    for name, place in places.items():
        loaded, _ = export.load(place)
        weights = linear(model if name == ONNX else loaded)
        found[name] = (loaded, export.file_bytes(place), weights)
    return found | {BOTH: (both, None, linear(both))}


def read_window(model: nn.Module) -> None:
    window = torch.arange(model.config.block_size)[None] % model.config.vocab_size
    with torch.no_grad():
        model(window)


def make_text(model: nn.Module) -> None:
    llmkit.generate(model, torch.zeros(1, dtype=torch.int64), NEW, seed=0)


def times(run: Callable, models: list[nn.Module], repeats: int) -> list[float]:
    """Median seconds of each."""
    taken = common.alternate(*[partial(run, model) for model in models], repeats=repeats)
    return [statistics.median(each) for each in taken]


def measure(name: str, model: llmkit.GPT, val_ids, quick: bool) -> list[dict[str, Any]]:
    """The rows of one model."""
    with tempfile.TemporaryDirectory() as folder:
        found = contenders(model, Path(folder))
        models = [each for each, _, _ in found.values()]
        windows = times(read_window, models, 2 if quick else 25)
        texts = times(make_text, models, 1 if quick else 9)
    rows = []
    for (way, (each, file, weights)), window, text in zip(
        found.items(), windows, texts, strict=True
    ):
        row = {
            "model": name,
            "parameters": model.num_parameters(),
            "kept_as": way,
            "file_bytes": file,
            "linear_bytes": weights,
            "window": model.config.block_size,
            "window_ms": 1000 * window,
            "tokens_per_second": NEW / text,
            "perplexity": llmkit.evaluate(each, val_ids).perplexity,
        }
        rows.append(row)
        size = "" if file is None else f"{file / 1e6:.2f} MB"
        print(
            f"{name:>22}  {way:<21}  {size:>9}  linear {weights / 1e6:6.2f} MB  "
            f"window {row['window_ms']:7.2f} ms  {row['tokens_per_second']:6,.0f} tokens/s  "
            f"perplexity {row['perplexity']:.4f}",
            flush=True,
        )
    return rows


def main() -> None:
    options = common.parse(common.parser(__doc__, device=False))
    text = llmkit.load_text("embedded")
    tokenizer = llmkit.CharTokenizer.from_text(text)
    train_ids, val_ids = llmkit.split(tokenizer.encode(text))
    val_ids = val_ids[:300] if options.quick else val_ids
    rows = []
    for name in [MAIN, *([] if options.quick else SHAPES)]:
        model = train(name, train_ids, val_ids, tokenizer.vocab_size, options.quick)
        rows += measure(name, model, val_ids, options.quick)
    of = {row["kept_as"]: row for row in rows if row["model"] == MAIN}
    result = {
        "what": f"bytes of the linear weights of the model of `{MAIN}`, int8 against float32",
        "ours": of[INT8]["linear_bytes"],
        "peer": of[FLOAT]["linear_bytes"],
        "peer_name": FLOAT,
        "ratio": of[FLOAT]["linear_bytes"] / of[INT8]["linear_bytes"],
        "perplexity_ratio": {
            row["model"]: row["perplexity"] / full["perplexity"]
            for full in rows
            for row in rows
            if (full["kept_as"], row["kept_as"]) == (FLOAT, INT8) and row["model"] == full["model"]
        },
        "rows": rows,
        "versions": common.versions("onnx", "onnxruntime", "torchao"),
    }
    kept = [way for way in of if of[way]["file_bytes"]]
    picture = plots.bars(
        kept,
        [of[way]["file_bytes"] / 1e6 for way in kept],
        f"int8: a file {of[FLOAT]['file_bytes'] / of[INT8]['file_bytes']:.1f} times smaller",
        xlabel="megabytes on disk, the model of the command line",
        highlight=INT8,
        fmt="{:.1f}",
    )
    path = common.write_result("exports", "cpu", result, picture, options.out)
    print(f"written to {path}" if path else "a rehearsal: nothing written")


if __name__ == "__main__":
    main()
