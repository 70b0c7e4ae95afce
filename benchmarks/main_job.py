"""The main job against counting: held-out loss of `python -m llmkit train`, and of every n-gram.

    python benchmarks/main_job.py [--corpus tiny_shakespeare] [--seeds 1 2 3]

Runs the command line once per seed, counts n-grams of orders 1 to 7 on the same split, and writes
benchmarks/results/main_job-CORPUS-DEVICE.json and a picture of the ladder beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

import llmkit
from llmkit import plots

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", default="tiny_shakespeare")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    runtime = llmkit.start()
    text = llmkit.load_text(options.corpus)
    tokenizer = llmkit.CharTokenizer.from_text(text)
    train_ids, val_ids = llmkit.split(tokenizer.encode(text))
    ngrams = {
        order: llmkit.NGram(train_ids, order, tokenizer.vocab_size).loss(val_ids)
        for order in range(1, 8)
    }
    print("n-grams", {order: round(loss, 4) for order, loss in ngrams.items()})
    runs = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            command = ["-m", "llmkit", "train", "--corpus", options.corpus, "--seed", str(seed)]
            started = time.perf_counter()
            subprocess.run([sys.executable, *command, "--out", folder], check=True)
            wall = time.perf_counter() - started
            report = json.loads(Path(folder, "report.json").read_text(encoding="utf-8"))
        runs.append(report | {"wall_seconds": wall})
    losses = [run["val_loss"] for run in runs]
    best = min(ngrams, key=ngrams.get)
    result = {
        "ours": statistics.median(losses),
        "spread": [min(losses), max(losses)],
        "peer": ngrams[best],
        "peer_name": f"n-gram of order {best}, interpolated absolute discounting",
        "ratio": statistics.median(losses) / ngrams[best],
        "ngrams": ngrams,
        "train_seconds": statistics.median(run["train_seconds"] for run in runs),
        "wall_seconds": statistics.median(run["wall_seconds"] for run in runs),
        "runs": runs,
        "date": date.today().isoformat(),
        "hardware": hardware(runtime.device),
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
        "command": f"python benchmarks/main_job.py --corpus {options.corpus}",
    }
    path = RESULTS / f"main_job-{options.corpus}-{runtime.device.type}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    rungs = {"uniform": torch.tensor(float(tokenizer.vocab_size)).log().item()}
    rungs |= {f"counting, order {order}": loss for order, loss in ngrams.items()}
    ours = f"llmkit train ({result['train_seconds']:.0f} s)"
    rungs[ours] = result["ours"]
    picture = plots.ladder(
        rungs,
        f"A minute of training passes everything that counting can do ({options.corpus})",
        highlight=ours,
    )
    picture.savefig(path.with_suffix(".png"), bbox_inches="tight")
    print(f"median {result['ours']:.4f} of {losses}, best n-gram {result['peer']:.4f}: {path}")


def hardware(device: torch.device) -> str:
    """The processor's name and its number of threads, or the GPU's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name", "CPU")
    return f"{name}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
