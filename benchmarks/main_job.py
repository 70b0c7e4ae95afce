"""The main job against counting: held-out loss of `python -m llmkit train`, and of every n-gram.

    python benchmarks/main_job.py [--corpus tiny_shakespeare] [--seeds 1 2 3]

Runs the command line once per seed, counts n-grams of orders 1 to 7 on the same split (with one
discount of 0.75, and with three estimated from the counts), and writes
benchmarks/results/main_job-CORPUS-DEVICE.json and a picture of the ladder beside it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import parse, parser, write_result

import llmkit
from llmkit import plots

# nanoGPT's recipe for a CPU (4 layers, 128 wide, block 64, batch 12, 2000 steps), trained by its
# own script, measured by our evaluator on the same split: 105 s on two cores of an AMD EPYC.
NANOGPT = {"tiny_shakespeare": 1.898}


def main() -> None:
    arguments = parser(__doc__, device=False)
    arguments.add_argument("--corpus", default="tiny_shakespeare")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parse(arguments)
    quick = ["--steps", "2"] if options.quick else []
    runtime = llmkit.start()
    text = llmkit.load_text(options.corpus)
    tokenizer = llmkit.CharTokenizer.from_text(text)
    train_ids, val_ids = llmkit.split(tokenizer.encode(text))
    ngrams = {}
    for name, discount in {"one discount": 0.75, "three discounts": None}.items():
        for order in range(1, 8):
            counted = llmkit.NGram(train_ids, order, tokenizer.vocab_size, discount)
            ngrams[f"order {order}, {name}"] = counted.loss(val_ids)
    best = min(ngrams, key=ngrams.get)
    print(f"the best n-gram: {best}, {ngrams[best]:.4f}")
    runs = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            command = ["-m", "llmkit", "train", "--corpus", options.corpus, "--seed", str(seed)]
            command += quick
            started = time.perf_counter()
            subprocess.run([sys.executable, *command, "--out", folder], check=True)
            wall = time.perf_counter() - started
            report = json.loads(Path(folder, "report.json").read_text(encoding="utf-8"))
        runs.append(report | {"wall_seconds": wall})
    losses = [run["val_loss"] for run in runs]
    result = {
        "ours": statistics.median(losses),
        "spread": [min(losses), max(losses)],
        "peer": ngrams[best],
        "peer_name": f"the best n-gram ({best}; interpolated absolute discounting)",
        "ratio": statistics.median(losses) / ngrams[best],
        "ngrams": ngrams,
        "train_seconds": statistics.median(run["train_seconds"] for run in runs),
        "wall_seconds": statistics.median(run["wall_seconds"] for run in runs),
        "runs": runs,
    }
    rungs = {"uniform": torch.tensor(float(tokenizer.vocab_size)).log().item()}
    rungs |= {f"counting, order {k}": ngrams[f"order {k}, one discount"] for k in range(1, 8)}
    rungs[f"counting, {best}"] = ngrams[best]
    if options.corpus in NANOGPT:
        rungs["nanoGPT's CPU recipe"] = NANOGPT[options.corpus]
    ours = f"llmkit train ({result['train_seconds']:.0f} s)"
    rungs[ours] = result["ours"]
    title = f"A minute of training passes everything that counting can do ({options.corpus})"
    picture = plots.bars(
        list(rungs),
        list(rungs.values()),
        title,
        xlabel="held-out loss (nats per character)",
        highlight=ours,
        fmt="{:.3f}",
    )
    name = f"main_job-{options.corpus}"
    path = write_result(name, runtime.device.type, result, picture, folder=options.out)
    print(f"median {result['ours']:.4f} of {losses}, best n-gram {result['peer']:.4f}: {path}")


if __name__ == "__main__":
    main()
