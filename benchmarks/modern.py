"""SmolLM2-135M-Instruct by `llmkit.modern`, beside transformers, with its cache, on one thread.

    python -m llmkit fetch
    python benchmarks/modern.py

prints how long llmkit takes to load the model and how much memory that needs (in a process of its
own), how far the logits are from transformers' and whether 200 greedy tokens are the same, and
tokens a second of both, in turns; in float32 and in bfloat16. It writes all of it to
benchmarks/results/modern-cpu.json.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from common import alternate, compare, parse, parser, versions, write_result

import llmkit
from llmkit import modern
from llmkit.finetune.quiet import import_transformers
from llmkit.modern import smollm2

LOADING = """
import resource, sys, time
import torch
from llmkit import modern
started = time.perf_counter()
model, _ = modern.load(sys.argv[1])
model.to(getattr(torch, sys.argv[2]))
seconds = time.perf_counter() - started
with torch.no_grad():
    model(torch.zeros(1, 8, dtype=torch.int64))
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)  # Linux counts in kB
"""
PROMPT = 40  # tokens
NEW = 200


def rehearsal(folder: Path) -> Path:
    """A tiny model in the place of the real one."""
    config = modern.ModernConfig(97, 256, n_layer=2, n_head=4, n_embd=32, n_kv_head=2)
    return modern.save(modern.Modern(config), folder)


def measure(folder: Path, dtype: str, rounds: int) -> dict:
    """All figures for one number format."""
    transformers = import_transformers()
    command = [sys.executable, "-c", LOADING, str(folder), dtype]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, gigabytes = map(float, loaded.stdout.split())
    ours = modern.load(folder)[0].to(getattr(torch, dtype))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    draw = torch.Generator().manual_seed(0)
    prompt = torch.randint(ours.config.vocab_size, (1, PROMPT), generator=draw)

    def we() -> torch.Tensor:
        return llmkit.generate(ours, prompt, NEW, temperature=0)

    def they() -> torch.Tensor:
        seen = torch.ones_like(prompt)  # or it would hide the tokens that it pads with
        how = dict(max_new_tokens=NEW, do_sample=False, eos_token_id=[-1])
        return theirs.generate(prompt, attention_mask=seen, **how)

    with torch.no_grad():
        difference = (ours(prompt).float() - theirs(prompt).logits.float()).abs().max().item()
    same = (we() == they()).all(dim=0).long().cumprod(0).sum().item() - PROMPT
    times = compare(*alternate(we, they, repeats=rounds))
    found = {
        "dtype": dtype,
        "load_seconds": round(seconds, 2),
        "load_gigabytes": round(gigabytes, 3),
        "largest_difference_of_logits": difference,
        "greedy_tokens_alike": f"{same} of {NEW}",
        "ours_tokens_per_second": round(NEW / times["ours"], 2),
        "transformers_tokens_per_second": round(NEW / times["peer"], 2),
        "ratio": round(times["ratio"], 2),
        "ratio_spread": [round(ratio, 2) for ratio in times["ratio_spread"]],
    }
    for name, value in found.items():
        print(f"{name:32} {value}")
    print()
    return found


def main() -> None:
    options = parse(parser(__doc__, device=False))
    torch.set_num_threads(1)
    folder, rounds = modern.fetched(), 3
    if not options.quick and not folder:
        raise SystemExit(f"the model was not fetched: {smollm2.COMMAND}")
    with tempfile.TemporaryDirectory() as temporary:
        if options.quick:
            folder, rounds = rehearsal(Path(temporary)), 1
        results = [measure(folder, dtype, rounds) for dtype in ("float32", "bfloat16")]
    result = {"results": results, "versions": versions("transformers")}
    write_result("modern", "cpu", result, folder=options.out)


if __name__ == "__main__":
    main()
