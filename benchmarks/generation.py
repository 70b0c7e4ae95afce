"""Tokens per second of `generate`, beside nanoGPT's and transformers', for the same weights' shape.

    python benchmarks/generation.py --nanogpt PATH [--device cuda] [--quick]

Two shapes, contexts of 64, 256 and 1024 tokens, one text and sixteen at once. All start from a full
context and go beyond it, each in its own way: llmkit keeps the last half of a full window and reads
it anew; nanoGPT drops the oldest token and reads all others anew, for each token; transformers
cannot go beyond its positions with a cache, so it gets more positions and reads ever further back.
With a cache 256 tokens are made; without one, where a token takes as long as a whole context, as
many as a second or so allows. All draw at temperature 1, and the weights are new: speed asks for no
better ones. transformers' GPT-2 has biases, the others have none.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import common
import torch

import llmkit
from llmkit import plots
from llmkit.speed.decoding import quick

VOCAB = 65
SHAPES = {  # nanoGPT's recipes for a CPU and for a GPU: layers, heads, width
    "0.8 M": {"n_layer": 4, "n_head": 4, "n_embd": 128},
    "10.65 M": {"n_layer": 6, "n_head": 6, "n_embd": 384},
}
CONTEXTS, BATCHES, NEW = (64, 256, 1024), (1, 16), 256
HEADLINE = {"shape": "10.65 M", "context": 256, "batch": 1}
OURS, PLAIN, NANO, GPT2 = "llmkit", "llmkit, no cache", "nanoGPT", "transformers, its cache"
Run = Callable[[int], Any]  # makes so many tokens


def ours(shape: dict[str, int], prompt: torch.Tensor, use_cache: bool) -> Run:
    config = llmkit.GPTConfig(VOCAB, prompt.size(1), **shape, bias=False)
    model = llmkit.GPT(config).to(prompt.device)
    prompt = prompt[0] if len(prompt) == 1 else prompt
    model = quick(model)
    return lambda n: llmkit.generate(model, prompt, n, seed=0, use_cache=use_cache)


def nanogpt(shape: dict[str, int], prompt: torch.Tensor, checkout: str) -> Run:
    peer = common.import_from(checkout, "model")
    config = peer.GPTConfig(prompt.size(1), VOCAB, **shape, dropout=0.0, bias=False)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its number of parameters
        model = peer.GPT(config).eval().to(prompt.device)
    return lambda n: model.generate(prompt, n)


def transformers(shape: dict[str, int], prompt: torch.Tensor, new: int) -> Run:
    from transformers import GPT2Config, GPT2LMHeadModel, logging

    logging.set_verbosity_error()
    ends = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
    config = GPT2Config(vocab_size=VOCAB, n_positions=prompt.size(1) + new, **shape, **ends)
    model = GPT2LMHeadModel(config).eval().to(prompt.device)
    draw = {"do_sample": True, "top_k": 0, "use_cache": True}
    mask = torch.ones_like(prompt)
    return lambda n: model.generate(prompt, attention_mask=mask, max_new_tokens=n, **draw)


def affordable(run: Run, seconds: float, device: str) -> int:
    """How many tokens without a cache fit into so many seconds, 1 to 64."""
    started = time.perf_counter()
    run(1)
    common.synchronize(device)
    return min(64, max(1, int(seconds / (time.perf_counter() - started))))


def measure(shape: str, context: int, batch: int, options, new: int) -> dict[str, Any]:
    """One row of the results: tokens per second, of all texts together, and how many were made."""
    prompt = torch.randint(VOCAB, (batch, context), device=options.device)
    runs = {
        OURS: ours(SHAPES[shape], prompt, use_cache=True),
        PLAIN: ours(SHAPES[shape], prompt, use_cache=False),
        GPT2: transformers(SHAPES[shape], prompt, new),
    }
    if options.nanogpt:
        runs[NANO] = nanogpt(SHAPES[shape], prompt, options.nanogpt)
    seconds = 0.02 if options.quick else 1.0
    tokens = dict.fromkeys(runs, new)
    for name in {PLAIN, NANO} & runs.keys():
        tokens[name] = affordable(runs[name], seconds, options.device)
    calls = [partial(run, tokens[name]) for name, run in runs.items()]
    times = common.alternate(*calls, repeats=1 if options.quick else 3, device=options.device)
    rates = {
        name: [batch * tokens[name] / taken for taken in each]
        for name, each in zip(runs, times, strict=True)
    }
    row: dict[str, Any] = {"shape": shape, "context": context, "batch": batch}
    row["tokens_per_second"] = {name: statistics.median(each) for name, each in rates.items()}
    row["new_tokens_per_text"] = tokens
    row["times_faster"], row["times_faster_spread"] = {}, {}
    for own, peer in ((OURS, GPT2), (OURS, NANO), (PLAIN, NANO)):
        if peer in rates:
            name = f"{own} : {peer}"
            rounds = [a / b for a, b in zip(rates[own], rates[peer], strict=True)]
            medians = row["tokens_per_second"]
            row["times_faster"][name] = medians[own] / medians[peer]
            row["times_faster_spread"][name] = [min(rounds), max(rounds)]
    speeds = " · ".join(f"{name} {rate:,.0f}" for name, rate in row["tokens_per_second"].items())
    print(f"{shape:>7}, context {context:>4}, batch {batch:>2}, tokens/s: {speeds}", flush=True)
    return row


def main() -> None:
    options = common.parse(common.parser(__doc__, "nanogpt"))
    torch.manual_seed(0)
    new = 8 if options.quick else NEW
    rows = [
        measure(shape, context, batch, options, new)
        for shape in SHAPES
        for context in (CONTEXTS[:1] if options.quick else CONTEXTS)
        for batch in BATCHES
    ]
    kept = {**HEADLINE, "context": CONTEXTS[0]} if options.quick else HEADLINE
    [chosen] = [row for row in rows if kept.items() <= row.items()]
    speeds, faster = chosen["tokens_per_second"], chosen["times_faster"]
    peer = NANO if NANO in speeds else GPT2
    result = {
        "what": "tokens per second" + "".join(f", {name} {at}" for name, at in kept.items()),
        "ours": speeds[OURS],
        "peer": speeds[peer],
        "peer_name": peer,
        "ratio": faster[f"{OURS} : {peer}"],
        "ratio_to_transformers": faster[f"{OURS} : {GPT2}"],
        "rows": rows,
        "versions": common.versions("transformers", nanogpt=options.nanogpt),
    }
    ordered = sorted(speeds, key=speeds.get)
    picture = plots.bars(
        ordered,
        [speeds[name] for name in ordered],
        f"With a cache, {result['ratio']:.0f} times as fast as {peer}",
        xlabel="tokens per second ({shape} parameters, context {context})".format(**kept),
        highlight=OURS,
        fmt="{:,.0f}",
    )
    device = torch.device(options.device).type
    path = common.write_result("generation", device, result, picture, options.out)
    print(f"{result['ratio']:.1f} × {peer}, {result['ratio_to_transformers']:.1f} × transformers")
    print(f"written to {path}" if path else "a rehearsal: nothing written")


if __name__ == "__main__":
    main()
