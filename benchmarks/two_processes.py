"""What it costs to train in two processes: one process with two threads against two with one each.

    python benchmarks/two_processes.py

Both make the same updates, of the same rows; the seconds of an update are medians, the runs taken
in turns. Also compared: the first gradient, and the loss curve. `ours` is two processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import common
import torch

import llmkit
from llmkit.scale import distributed
from llmkit.training import Trainer

SHAPES = {  # n_layer, n_head, n_embd, block_size, rows of an update, updates of a run
    "0.8 M": (4, 4, 128, 64, 24, 60),
    "10.65 M": (6, 6, 384, 256, 8, 8),
}
QUICK = {"tiny": (1, 2, 16, 8, 4, 6)}
WARMUP = 3  # updates that are not timed


def work(shape: str, folder: Path) -> None:
    """Train; leave the gradient of the first update, the losses, and the seconds of each update."""
    L, H, C, T, rows, steps = (SHAPES | QUICK)[shape]
    text = llmkit.load_text("embedded")
    tokenizer = llmkit.CharTokenizer.from_text(text)
    ids, V = tokenizer.encode(text), tokenizer.vocab_size
    sizes = dict(vocab_size=V, block_size=T, n_layer=L, n_head=H, n_embd=C, bias=False)
    processes = distributed.join()
    config = llmkit.TrainConfig(
        steps=steps, batch_size=rows // processes.world, dtype="float32", warmup=5
    )
    torch.manual_seed(0)
    model = llmkit.GPT(llmkit.GPTConfig(**sizes))
    Trainer(model, ids, config, processes).gradients()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    model.zero_grad()
    clock: list[float] = [0.0]
    callbacks = [lambda run: clock.append(run.history.seconds)]
    history = llmkit.train(model, ids, None, config, callbacks=callbacks, processes=processes)
    if processes.rank == 0:
        seconds = torch.tensor(clock, dtype=torch.float64).diff()[WARMUP:]
        found = {"gradient": gradient, "seconds": seconds.tolist(), "losses": history.loss}
        torch.save(found, folder / "found.pt")
    distributed.leave()


def run(shape: str, processes: int) -> dict[str, Any]:
    """What `work` found, in so many processes that share two threads."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(["-m", *launcher] if processes > 1 else []), __file__]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"OMP_NUM_THREADS": str(2 // processes)}
        subprocess.run([*command, "--work", shape, folder], check=True, env=environment)
        return torch.load(Path(folder) / "found.pt", weights_only=True)


def measure(shape: str, repeats: int) -> dict[str, Any]:
    """Both ways of one shape, in turns."""
    *_, T, rows, _ = (SHAPES | QUICK)[shape]
    found: dict[int, list[dict[str, Any]]] = {1: [], 2: []}

    def contender(processes: int) -> float:
        found[processes].append(run(shape, processes))
        return median(found[processes][-1]["seconds"])

    times = common.alternate(
        lambda: contender(2), lambda: contender(1), repeats=repeats, warmup=0, clock=None
    )
    one, two = found[1][0], found[2][0]
    losses = zip(one["losses"], two["losses"], strict=True)
    difference = (one["gradient"] - two["gradient"]).abs().max() / one["gradient"].abs().max()
    result = common.compare(*times)
    return result | {
        "tokens_per_second": {"ours": rows * T / result["ours"], "peer": rows * T / result["peer"]},
        "overhead": result["ours"] / result["peer"] - 1,
        "largest_gradient_difference": difference.item(),  # as a share of the largest gradient
        "largest_loss_difference": max(abs(a - b) for a, b in losses),
        "gradient_bytes": one["gradient"].nbytes,
    }


def main() -> None:
    options = common.parse(common.parser(__doc__, device=False))
    results = {}
    for shape in QUICK if options.quick else SHAPES:
        results[shape] = result = measure(shape, repeats=1 if options.quick else 3)
        ours, peer = result["tokens_per_second"].values()
        print(
            f"{shape}: two processes {ours:,.0f} tokens/s, one with two threads {peer:,.0f}; "
            f"overhead {result['overhead']:.1%}, gradients differ by up to "
            f"{result['largest_gradient_difference']:.1e} of the largest, losses by "
            f"{result['largest_loss_difference']:.1e}"
        )
    last = results[shape]
    result = {key: last[key] for key in ("ours", "peer", "ratio")} | {"shapes": results}
    common.write_result("two_processes", "cpu", result, folder=options.out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
