"""SmolLM2-135M-Instruct by `llmkit.modern`, beside transformers with its cache.

    python -m llmkit fetch
    python benchmarks/modern.py

prints how long llmkit takes to load the model and how much memory that needs (in a process of its
own), how far the logits are from transformers' and whether 200 greedy tokens are the same, and
tokens a second of both, in turns; in float32 and in bfloat16, on two threads by the clock, and on
one by processor time, which other programs hardly blur. Beside it the floor: milliseconds in which
this machine reads all weights once (their sum), and multiplies a vector by each matrix, by
PyTorch's usual way and by that of `modern.quick`. It writes all of it to
benchmarks/results/modern-cpu.json.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from common import alternate, compare, parse, parser, versions, write_result
from torch import nn

import llmkit
from llmkit import modern
from llmkit.finetune import chatml
from llmkit.finetune.quiet import import_transformers
from llmkit.modern import smollm2
from llmkit.speed import cpu

LOADING = """
import resource, sys, time
import torch
from llmkit import modern
started = time.perf_counter()
model, _ = modern.load(sys.argv[1])
model = modern.quick(model.to(getattr(torch, sys.argv[2])))
seconds = time.perf_counter() - started
cache = model.new_cache()
with torch.no_grad():
    model(torch.zeros(1, 8, dtype=torch.int64), cache)
    model(torch.zeros(1, 1, dtype=torch.int64), cache)
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)  # Linux counts in kB
"""
PROMPT = 40  # tokens
NEW = 200


def rehearsal(folder: Path) -> Path:
    """A tiny model in the place of the real one, and a tokenizer that knows conversations."""
    special = ["<|endoftext|>", chatml.START, chatml.END]
    tokenizer = llmkit.BPETokenizer.train(llmkit.load_text("embedded")[:9000], 400, special)
    config = modern.ModernConfig(400, 512, n_layer=2, n_head=4, n_embd=32, n_kv_head=2)
    return modern.save(modern.Modern(config), folder, tokenizer)


@torch.inference_mode()
def floor(model: modern.Modern, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Milliseconds for all weights once, read and multiplied; the fastest of the rounds."""
    layers = [part for part in model.modules() if isinstance(part, nn.Linear)]
    rows = [torch.randn(1, layer.in_features).type_as(layer.weight) for layer in layers]
    ways = [cpu.product(layer) for layer in layers]
    pairs = list(zip(layers, rows, strict=True))
    times = alternate(
        lambda: [layer.weight.sum() for layer in layers],
        lambda: [F.linear(row, layer.weight) for layer, row in pairs],
        lambda: [way(row) for way, row in zip(ways, rows, strict=True)],
        repeats=5 * rounds,
        clock=clock,
    )
    names = ("read", "multiplied", "multiplied_by_ours")
    return {name: round(1000 * min(each), 1) for name, each in zip(names, times, strict=True)}


def load(folder: Path, dtype: str) -> dict[str, float]:
    """Seconds and memory, in a process of its own."""
    command = [sys.executable, "-c", LOADING, str(folder), dtype]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, gigabytes = map(float, loaded.stdout.split())
    return {"load_seconds": round(seconds, 2), "load_gigabytes": round(gigabytes, 3)}


def measure(folder: Path, dtype: str, threads: int, rounds: int) -> dict:
    """All figures for one number format."""
    torch.set_num_threads(threads)
    transformers = import_transformers()
    plain = modern.load(folder)[0].to(getattr(torch, dtype))
    ours = modern.quick(plain)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    draw = torch.Generator().manual_seed(0)
    prompt = torch.randint(plain.config.vocab_size, (1, PROMPT), generator=draw)

    def we() -> torch.Tensor:
        return llmkit.generate(ours, prompt, NEW, temperature=0)

    def they() -> torch.Tensor:
        seen = torch.ones_like(prompt)  # or it would hide the tokens that it pads with
        how = dict(max_new_tokens=NEW, do_sample=False, eos_token_id=[-1])
        return theirs.generate(prompt, attention_mask=seen, **how)

    with torch.no_grad():
        difference = (ours(prompt).float() - theirs(prompt).logits.float()).abs().max().item()
    texts: dict[str, torch.Tensor] = {}
    clock = time.process_time if threads == 1 else time.perf_counter
    times = compare(
        *alternate(
            lambda: texts.update(ours=we()),
            lambda: texts.update(theirs=they()),
            repeats=rounds,
            clock=clock,
        )
    )
    same = (texts["ours"] == texts["theirs"]).all(dim=0).long().cumprod(0).sum().item() - PROMPT
    found = {
        "dtype": dtype,
        "threads": threads,
        "largest_difference_of_logits": difference,
        "greedy_tokens_alike": f"{same} of {NEW}",
        "floor_milliseconds": floor(plain, rounds, clock),
        "ours_tokens_per_second": round(NEW / times["ours"], 2),
        "transformers_tokens_per_second": round(NEW / times["peer"], 2),
        "ratio": round(times["ratio"], 2),
        "ratio_spread": [round(ratio, 2) for ratio in times["ratio_spread"]],
    }
    for name, value in found.items():
        print(f"{name:32} {value}")
    print(flush=True)
    return found


def main() -> None:
    options = parse(parser(__doc__, device=False))
    folder, rounds = modern.fetched(), 2
    if not options.quick and not folder:
        raise SystemExit(f"the model was not fetched: {smollm2.COMMAND}")
    with tempfile.TemporaryDirectory() as temporary:
        if options.quick:
            folder, rounds = rehearsal(Path(temporary)), 1
        # First, while this process is small: Linux counts its memory as its children's too.
        loading = {dtype: load(folder, dtype) for dtype in ("float32", "bfloat16")}
        print(loading, flush=True)
        results = [
            loading[dtype] | measure(folder, dtype, threads, rounds)
            for threads in (2, 1)
            for dtype in ("float32", "bfloat16")
        ]
    torch.set_num_threads(2)  # as the hardware is told of
    result = {"results": results, "versions": versions("transformers")}
    write_result("modern", "cpu", result, folder=options.out)


if __name__ == "__main__":
    main()
