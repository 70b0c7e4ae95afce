"""From GPT-2's choices to those of today's open models, one at a time: small models' held-out loss.

    python benchmarks/ladder.py [--corpus embedded] [--steps 150] [--seeds 1 2 3 4 5]
    python benchmarks/ladder.py --steps 600 --seeds 1 --rungs rotary QK-norm

Each rung of the ladder (notebook 11b) adds one choice to those of the rung before it. All models
are trained on one text, for as many steps, with the same seeds, on one thread; the loss is over the
whole validation split. Beside the ladder stands a higher learning rate with QK-norm and without it.
The milliseconds of a step are processor time. What has been measured is written after every seed;
with --rungs, some of them alone, to ladder-STEPS-cpu.json.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from common import parse, parser, write_result
from torch import Tensor

import llmkit
from llmkit import modern, plots
from llmkit.responsible.plots import intervals

SHAPE: dict[str, Any] = dict(block_size=64, n_layer=2, n_head=4, n_embd=64)
CLASSIC: dict[str, Any] = dict(norm="layer", activation="gelu")
TODAY: dict[str, Any] = dict(n_kv_head=2, qk_norm=True)
GPT2 = "GPT-2's choices"  # llmkit's GPT, with learned positions and biases
RUNGS: dict[str, dict[str, Any]] = {
    GPT2: {},
    "rotary": CLASSIC,
    "RMSNorm": dict(activation="gelu"),
    "SwiGLU": {},
    "grouped queries": dict(n_kv_head=2),
    "QK-norm": TODAY,
    "window of 16": TODAY | dict(window=16),
    "experts": TODAY | dict(window=16, n_expert=4, n_inner=4 * (SHAPE["n_embd"] // 3)),
}
RATE, HIGHER = 0.02, 0.08  # Muon's own, and one that is rather high


def trained(
    name: str, choices: dict[str, Any], V: int, config: llmkit.TrainConfig, *splits: Tensor
):
    """A small model's held-out loss, the milliseconds of a step, and how many parameters it has."""
    torch.manual_seed(config.seed)
    model: Any = llmkit.GPT(llmkit.GPTConfig(V, **SHAPE))
    if name != GPT2:
        model = modern.Modern(modern.ModernConfig(V, **SHAPE, **choices))
    started = time.process_time()
    llmkit.train(model, splits[0], config=config)
    milliseconds = 1000 * (time.process_time() - started) / config.steps
    return llmkit.evaluate(model, splits[1]).loss, milliseconds, model.num_parameters()


def picture(results: dict[str, dict[str, Any]], steps: int) -> plots.Picture:
    """Mean loss of each rung, and the least and most of its seeds."""
    losses = {name: results[name]["losses"] for name in RUNGS if name in results}
    spreads = [(statistics.fmean(seeds), min(seeds), max(seeds)) for seeds in losses.values()]
    return intervals(
        list(losses),
        {"mean, least and most": spreads},
        "From GPT-2's choices to today's, each on top of the one above",
        xlabel=f"held-out loss after {steps} steps (nats per character)",
    )


def main() -> None:
    arguments = parser(__doc__, device=False)
    arguments.add_argument("--corpus", default="embedded")
    arguments.add_argument("--steps", type=int, default=150)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    arguments.add_argument("--rungs", nargs="+", choices=RUNGS, metavar="NAME")
    options = parse(arguments)
    torch.set_num_threads(1)
    text = llmkit.load_text(options.corpus)
    if options.quick:
        options.steps, options.seeds, text = 2, options.seeds[:1], text[:3_000]
    tokenizer = llmkit.CharTokenizer.from_text(text)
    V, splits = tokenizer.vocab_size, llmkit.split(tokenizer.encode(text))
    cases = {(name, RATE): RUNGS[name] for name in options.rungs or RUNGS}
    if options.rungs is None:
        cases |= {(name, HIGHER): RUNGS[name] for name in ("grouped queries", "QK-norm")}
    results: dict[str, dict[str, Any]] = {}
    for seed in options.seeds:  # the cases in turns, so that all meet what the machine does besides
        for (name, rate), choices in cases.items():
            config = llmkit.TrainConfig(
                options.steps, 16, optimizer="muon", learning_rate=rate, seed=seed
            )
            loss, milliseconds, size = trained(name, choices, V, config, *splits)
            title = name if rate == RATE else f"{name}, rate {rate}"
            found = results.setdefault(title, {"parameters": size, "losses": [], "times": []})
            found["losses"].append(round(loss, 4))
            found["times"].append(round(milliseconds, 2))
            print(f"{title:28} seed {seed}: {loss:.4f}, {milliseconds:.1f} ms a step", flush=True)
        for found in results.values():
            found["milliseconds"] = round(statistics.median(found["times"]), 1)
        about = {"corpus": options.corpus, "shape": SHAPE, "batch_size": 16}
        about |= {"steps": options.steps, "seeds": options.seeds, "results": results}
        file = "ladder" if options.rungs is None else f"ladder-{options.steps}"
        write_result(file, "cpu", about, picture(results, options.steps), folder=options.out)


if __name__ == "__main__":
    main()
