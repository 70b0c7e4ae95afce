"""Everything that is worth measuring on a GPU, one script after the other, with one command.

    python benchmarks/gpu.py --nanogpt PATH --mingpt PATH

Every notebook with its GPU budgets; the race against nanoGPT's GPU recipe, and once more in
float16, which is what Colab's T4 computes in; training throughput and share of the GPU's peak,
GPT-2's own size included, in both formats; generation; memory as models grow. A script that fails
does not keep the others from running. --quick rehearses all of it within minutes, without a GPU on
the CPU.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import common
import torch

HALF = ["--dtype", "float16"]
SCRIPTS: list[tuple[str, tuple[str, ...], list[str]]] = [  # name, peers that it takes, more words
    ("notebooks", (), []),
    ("time_to_loss", ("nanogpt",), []),
    ("time_to_loss", ("nanogpt",), HALF),
    ("tokens_per_second", ("nanogpt", "mingpt"), ["--compile"]),
    ("tokens_per_second", ("nanogpt", "mingpt"), HALF),
    ("generation", ("nanogpt",), []),
    ("growth", (), ["--gigabytes", "0"]),
]


def main() -> None:
    parser = common.parser(__doc__, "nanogpt", "mingpt", device=False)
    options = common.parse(parser)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.quick:
        parser.error("there is no CUDA GPU here; --quick rehearses everything on the CPU")
    failed = []
    for name, peers, words in SCRIPTS:
        if device == "cpu" and words == HALF:
            continue  # of a rehearsal no part: a CPU has no float16 to speak of
        paths = {peer: getattr(options, peer) for peer in peers}
        if name == "time_to_loss" and paths["nanogpt"] is None:
            print(f"{name} is left out: it needs --nanogpt PATH")
            continue
        command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *words]
        command += ["--device", device] + ["--quick"] * options.quick
        for peer, path in paths.items():
            command += [f"--{peer}", path] if path else []
        command += ["--out", str(options.out)] if options.out else []
        print(f"== {name} {' '.join(words)}", flush=True)
        started = time.perf_counter()
        if subprocess.run(command).returncode:
            failed.append(f"{name} {' '.join(words)}".strip())
        print(f"== {time.perf_counter() - started:.0f} s", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
