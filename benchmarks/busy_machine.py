"""What a program that keeps one core busy costs a small model's training, by how threads wait.

    python benchmarks/busy_machine.py

Thirty updates of notebook 04's model, each run in a process of its own: on a quiet machine and
beside a loop that never rests; with PyTorch's own way of waiting (its threads spin), with one that
sleeps at once, with the short spin before sleep that llmkit asks for, and with one thread. `ours`
and `peer` are llmkit's and PyTorch's beside the loop, `busy_to_quiet` what the loop costs each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import common

STEPS = 30
WAYS = {  # what the environment says
    "spinning": {"OMP_WAIT_POLICY": "ACTIVE"},
    "as torch comes": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"},
    "short spin": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def work(steps: int) -> None:
    """Train notebook 04's model; print the seconds that the updates took."""
    import llmkit

    runtime = llmkit.start()
    text = llmkit.load_text("embedded")
    tokenizer = llmkit.CharTokenizer.from_text(text)
    sizes = dict(block_size=32, n_layer=2, n_head=4, n_embd=64)
    model = llmkit.GPT(llmkit.GPTConfig(tokenizer.vocab_size, **sizes)).to(runtime.device)
    config = llmkit.TrainConfig(steps=steps, batch_size=16, optimizer="muon", learning_rate=0.03)
    started = time.perf_counter()
    llmkit.train(model, tokenizer.encode(text), config=config)
    print(time.perf_counter() - started)


@contextmanager
def neighbour(wanted: bool) -> Iterator[None]:
    """Inside the ``with``, if wanted, another program takes all that it can get of one core."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as program:
        try:
            yield
        finally:
            program.kill()


def run(way: str, busy: bool, steps: int) -> float:
    """The seconds of one run."""
    names = {name for settings in WAYS.values() for name in settings}
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", f"import torch, busy_machine; busy_machine.work({steps})"]
    environment |= WAYS[way] | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with neighbour(busy):
        out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(out.stdout.split()[-1])


def main() -> None:
    options = common.parse(common.parser(__doc__, device=False))
    steps, repeats = (2, 1) if options.quick else (STEPS, 5)
    found = {}
    for busy in (False, True):
        runs = [lambda way=way, busy=busy: run(way, busy, steps) for way in WAYS]
        times = common.alternate(*runs, repeats=repeats, warmup=0, clock=None)
        found["busy" if busy else "quiet"] = dict(zip(WAYS, times, strict=True))
    seconds = {state: {way: median(s) for way, s in ways.items()} for state, ways in found.items()}
    costs = {way: seconds["busy"][way] / seconds["quiet"][way] for way in WAYS}
    for way in WAYS:
        quiet, busy = seconds["quiet"][way], seconds["busy"][way]
        print(f"{way:15} quiet {quiet:6.2f} s   beside a loop {busy:6.2f} s   {costs[way]:.1f} x")
    result = common.compare(found["busy"]["short spin"], found["busy"]["as torch comes"])
    result |= {"steps": steps, "seconds": seconds, "busy_to_quiet": costs}
    common.write_result("busy_machine", "cpu", result, folder=options.out)


if __name__ == "__main__":
    main()
