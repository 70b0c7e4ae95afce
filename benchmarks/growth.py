"""How memory and time of training grow: with the batch, the window, width, depth, and the corpus.

    python benchmarks/growth.py [--device cuda] [--gigabytes 1]

From one base shape each size is varied alone: as it is, with gradient checkpointing, and (batches)
with the same rows in passes of a few, accumulated. Every configuration trains for a few steps in a
process of its own. Memory is its peak above what it took after a step of a tiny model, without the
pages of a token file; on a GPU, what PyTorch allocated. Beside it stands the estimate of
`cost.training_memory`.

The corpus is text of up to --gigabytes, made and turned into token files in a temporary folder
(which takes four times as much), then trained on, and a slice evaluated, without being loaded.

The exponent of a curve is its slope on logarithmic axes over the three largest sizes: 1 where
doubling the size doubles the cost.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np
import torch
from matplotlib import style

import llmkit
from llmkit.picture import COLOURS, PLAIN, STYLE, Picture
from llmkit.scale import cost, token_file
from llmkit.scale.cost import peak_memory
from llmkit.speed.cpu import fuses
from llmkit.training import Trainer

BASE = dict(batch_size=16, block_size=128, n_layer=4, n_embd=192)
SIZES = {
    "batch_size": [4, 8, 16, 32, 64],
    "block_size": [64, 128, 256, 512, 1024],
    "n_embd": [96, 192, 384, 768],
    "n_layer": [1, 2, 4, 8, 16],
}
QUICK_BASE = dict(batch_size=4, block_size=16, n_layer=2, n_embd=32)
QUICK_SIZES = {"batch_size": [4, 8]}
ROWS = 4  # in a pass, where batches are accumulated
HEAD = 32  # features per attention head
WAYS = ("plain", "checkpointing", "accumulation")
LABELS = {
    "batch_size": "batch (sequences)",
    "block_size": "window (tokens)",
    "n_embd": "width (n_embd)",
    "n_layer": "depth (n_layer)",
    "corpus": "corpus (MB of text)",
}
VALIDATED = 20_000  # tokens of the slice that is evaluated


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="the largest corpus; 0: none")
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed, after one")
    parser.add_argument("--one", metavar="JSON", help="measure one configuration (used internally)")
    options = common.parse(parser)
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    base, sizes = (QUICK_BASE, QUICK_SIZES) if options.quick else (BASE, SIZES)
    rows = []
    for name, values in sizes.items():
        ways = WAYS if name == "batch_size" else WAYS[:2]
        for way in ways:
            rows += [row(options, name, value, way, base | {name: value}) for value in values]
    rows += corpus_rows(options, base)
    fits = exponents(rows)
    for fit in fits:
        slopes = "memory ^ {memory:.2f}, time ^ {seconds:.2f}".format(**fit)
        print(f"{fit['varied']:<11} {fit['way']:<14} {slopes}")
    one = {
        r["way"]: r
        for r in rows
        if r["varied"] == "batch_size" and r["size"] == sizes["batch_size"][-1]
    }
    result = {
        "ours": one["checkpointing"]["memory"],
        "peer": one["plain"]["memory"],
        "ratio": one["plain"]["memory"] / one["checkpointing"]["memory"],
        "peer_name": "the same model without gradient checkpointing, largest batch; bytes",
        "base": base,
        "exponents": fits,
        "rows": rows,
    }
    common.write_result("growth", options.device, result, picture(rows), options.out)


def row(options, name: str, size: float, way: str, shape: dict, path: Path | None = None) -> dict:
    """One configuration, measured in a process of its own, and printed."""
    task = shape | {"way": way, "device": options.device, "steps": options.steps}
    if path is not None:
        task["path"] = str(path)
    if options.quick:  # in this process, where the peak is somebody else's
        found = measure(**task)
    else:
        command = [sys.executable, __file__, "--one", json.dumps(task)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{task} failed: {done.stderr.strip().splitlines()[-1]}")
        found = json.loads(done.stdout)
    found = {"varied": name, "size": size, "way": way} | found
    megabytes = f"{found['memory'] / 1e6:8.1f} MB (estimate {found['estimate'] / 1e6:8.1f})"
    print(f"{name:<11} {size:>8g}  {way:<14} {megabytes}  {found['seconds'] * 1e3:8.1f} ms a step")
    return found


def measure(
    batch_size: int,
    block_size: int,
    n_layer: int,
    n_embd: int,
    way: str,
    device: str,
    steps: int,
    path: str | None = None,
) -> dict[str, float]:
    """Train a few steps: peak memory in bytes above the start, its estimate, seconds per step."""
    if path is None:
        ids = torch.randint(65, (200_000,), generator=torch.Generator().manual_seed(0))
    else:
        ids, _ = token_file.load(path)
    rows = ROWS if way == "accumulation" else batch_size
    config = llmkit.TrainConfig(
        steps=10**6,
        batch_size=rows,
        gradient_accumulation_steps=batch_size // rows,
        dtype="float32",
        gradient_checkpointing=way == "checkpointing",
    )
    shape = llmkit.GPTConfig(65, block_size, n_layer, n_embd // HEAD, n_embd)
    tiny = llmkit.GPT(llmkit.GPTConfig(65, 8, 1, 1, HEAD)).to(device)
    Trainer(tiny, ids[:100], llmkit.TrainConfig(steps=1, batch_size=1, dtype="float32")).update()
    before, mapped_before = peak_memory(device), mapped_memory()  # PyTorch has loaded all it needs
    model = llmkit.GPT(shape).to(device)
    model.gradient_checkpointing = config.gradient_checkpointing
    run, seconds = Trainer(model.train(), ids, config), []
    for _ in range(1 + steps):
        common.synchronize(device)
        started = time.perf_counter()
        run.update()
        common.synchronize(device)
        seconds.append(time.perf_counter() - started)
    if path is not None:
        llmkit.evaluate(model, ids[-VALIDATED:])
    estimate = cost.training_memory(
        shape,
        rows,
        fused=fuses(block_size, torch.device(device), torch.float32),
        gradient_checkpointing=config.gradient_checkpointing,
    )
    mapped = mapped_memory() - mapped_before
    return {
        "memory": max(1, peak_memory(device) - before - (mapped if device == "cpu" else 0)),
        "mapped": mapped,
        "estimate": sum(estimate.values()),
        "seconds": statistics.median(seconds[1:]),
    }


def mapped_memory() -> int:
    """Bytes of files that lie in this process's memory as on disk: the system takes such pages back
    whenever it needs room, so they are no cost. 0 where it does not tell (not Linux)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))


def corpus_rows(options, base: dict) -> list[dict]:
    """The base shape on token files of growing corpora."""
    largest = 0.2 if options.quick else options.gigabytes * 1000
    sizes = [size for size in (0.2, 1, 10, 100, 1000, 10_000) if size < largest]
    rows, text = [], llmkit.load_text("embedded")
    tokenizer = llmkit.CharTokenizer.from_text(text)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "corpus.txt"), Path(folder, "corpus.safetensors")
        for megabytes in [*sizes, largest] if largest else []:
            with source.open("w", encoding="utf-8") as file:
                for _ in range(max(1, round(megabytes * 1e6 / len(text)))):
                    file.write(text)
            started = time.perf_counter()
            token_file.write(target, source, tokenizer)
            tokenized = time.perf_counter() - started
            rows.append(row(options, "corpus", megabytes, "plain", base, target))
            rows[-1]["tokenize_seconds"] = tokenized
            print(f"{'':<11} {'':>8}  {megabytes / tokenized:.0f} MB/s into a token file")
    return rows


def exponents(rows: list[dict]) -> list[dict]:
    """For each curve, the slopes of memory and time on logarithmic axes at its upper end."""
    fits = []
    for name, way in dict.fromkeys((r["varied"], r["way"]) for r in rows):
        curve = [r for r in rows if (r["varied"], r["way"]) == (name, way)][-3:]
        if len(curve) > 1:
            size = np.log([r["size"] for r in curve])
            fit = {
                cost: np.polyfit(size, np.log([r[cost] for r in curve]), 1)[0]
                for cost in ("memory", "seconds")
            }
            fits.append({"varied": name, "way": way} | fit)
    return fits


def picture(rows: list[dict]) -> Picture:
    """Memory above, time below; a column for each size that was varied."""
    names = list(dict.fromkeys(r["varied"] for r in rows))
    with style.context(["default", STYLE, {"font.size": 9, "axes.labelsize": 9}]):
        figure = Picture(figsize=(2.1 * len(names) + 1.2, 5), dpi=100, layout="constrained")
        figure.suptitle("What training costs as one size grows", x=0.01, ha="left")
        panels = figure.subplots(2, len(names), squeeze=False, sharey="row")
        for column, name in enumerate(names):
            for line, (cost, unit) in enumerate({"memory": 1e6, "seconds": 1e-3}.items()):
                panel = panels[line, column]
                for way, colour in zip(WAYS, COLOURS, strict=False):
                    curve = [r for r in rows if (r["varied"], r["way"]) == (name, way)]
                    if curve:
                        x, y = zip(*((r["size"], r[cost] / unit) for r in curve), strict=True)
                        panel.plot(x, y, color=colour, marker="o", ms=3, label=way)
                if cost == "memory":
                    curve = [r for r in rows if (r["varied"], r["way"]) == (name, "plain")]
                    x, y = zip(*((r["size"], r["estimate"] / unit) for r in curve), strict=True)
                    panel.plot(x, y, color="0.5", ls="--", lw=1, label="estimate, plain")
                panel.set(xscale="log", yscale="log")
                panel.xaxis.set(**PLAIN)
                panel.yaxis.set(**PLAIN)
                sizes = [r["size"] for r in rows if (r["varied"], r["way"]) == (name, "plain")]
                panel.set_xticks(sizes if name != "corpus" else sizes[::2], minor=False)
                panel.tick_params(axis="x", which="minor", length=0)
                if line:
                    panel.set_xlabel(LABELS[name])
        panels[0, 0].set_ylabel("peak memory (MB)")
        panels[1, 0].set_ylabel("time per step (ms)")
        handles, labels = panels[0, names.index("batch_size")].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


if __name__ == "__main__":
    main()
