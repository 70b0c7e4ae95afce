"""Scaling: what sizes and lengths of run lose, and whether the law of the small ones holds.

    python benchmarks/scaling.py [--corpus tiny_shakespeare] [--seeds 1 2 3]
    python benchmarks/scaling.py --rates            # how the recipe's learning rate was chosen
    python benchmarks/scaling.py --table            # data/scaling.csv, of both corpora's results

Small GPTs of two layers, each trained with Muon from the first step to a learning rate of zero at
its last: a grid of widths and lengths; one larger run that no fit has seen; and a slice of the text
that is read again and again. Loss is over the whole validation split, but with `--rates` over the
last ninth of the training split, which is then left out of training: the validation split measures
something the choice has not seen.

All of it takes a while: what has been measured is written after every run, and not measured again.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import time
from pathlib import Path

import torch
from common import RESULTS, parse, parser, write_result

import llmkit
from llmkit import plots
from llmkit.scale import cost, laws

WIDTHS = (16, 24, 32, 48, 64)
LENGTHS = (50_000, 100_000, 200_000)  # tokens read
TIMES = 2  # the held-back run's compute, in those of the grid's largest run
SLICE, EPOCHS = 25_000, (2, 4, 8, 16)  # characters, and how often they are read
RATE = 0.08  # Muon's, by `--rates`
RATES = (0.02, 0.04, 0.08, 0.16)
TABLE = Path(__file__).parent.parent / "data" / "scaling.csv"
COLUMNS = ("corpus", "kind", "width", "N", "D", "text", "seed", "loss")
CORPORA = ("embedded", "tiny_shakespeare")
Jobs = list[tuple[str, int, int, int]]  # kind, width, tokens, seed


def config(width: int, V: int) -> llmkit.GPTConfig:
    """A GPT of so many features, in heads of 16 (the last fewer), or one of 24."""
    shape = dict(block_size=64, n_layer=2, n_head=max(1, width // 16), n_embd=width)
    return llmkit.GPTConfig(V, position="rotary", **shape)


def size(shape: llmkit.GPTConfig) -> int:
    """N, the numbers in the matrices that multiply: a sixth of the FLOPs for a token."""
    return cost.flops_per_token(shape, T=0) // 6


def trained(splits, V: int, width: int, tokens: int, seed: int, rate: float = RATE) -> dict:
    """One run, and what came of it."""
    shape = config(width, V)
    torch.manual_seed(seed)
    model = llmkit.GPT(shape)
    steps = max(1, round(tokens / (8 * shape.block_size)))
    how = dict(steps=steps, batch_size=8, optimizer="muon", learning_rate=rate, seed=seed)
    before = time.process_time()
    history = llmkit.train(model, splits[0], config=llmkit.TrainConfig(**how))
    if history.stopped:  # an interrupt ends a run early, and such a run is no point of a law
        raise SystemExit(f"stopped: {history.stopped}; the runs before are kept")
    seconds = time.process_time() - before
    return {
        "width": width,
        "N": size(shape),
        "D": steps * 8 * shape.block_size,
        "text": len(splits[0]),
        "seed": seed,
        "rate": rate,
        "loss": round(llmkit.evaluate(model, splits[1]).loss, 5),
        "cpu_seconds": round(seconds, 2),
    }


def held_back(runs: list[dict], V: int, seeds: list[int]) -> Jobs:
    """The best size for a larger budget, by the first seed's grid, as near as widths come."""
    grid = cells([run for run in runs if run["seed"] == seeds[0]], "grid")
    flops = TIMES * max(6 * N * D for N, D, _ in grid)
    best, _ = laws.fit(*zip(*grid, strict=True)).law.best_size(flops)
    sizes = {width: size(config(width, V)) for width in range(16, 257, 16)}
    width = min(sizes, key=lambda width: abs(math.log(sizes[width] / best)))
    return [("held back", width, round(flops / 6 / sizes[width]), seed) for seed in seeds]


def kept(options, name: str) -> list[dict]:
    """The runs that have been made before."""
    file = options.out and Path(options.out) / f"{name}-cpu.json"
    return json.loads(file.read_text("utf-8"))["runs"] if file and file.exists() else []


def measure(options, corpus: str) -> None:
    """All runs on one corpus, after those that are already in its results."""
    text = llmkit.load_text(corpus)
    tokenizer = llmkit.CharTokenizer.from_text(text)
    train_ids, val_ids = llmkit.split(tokenizer.encode(text))
    name, V = f"scaling-{corpus}", tokenizer.vocab_size
    runs = kept(options, name)

    def make(wanted: Jobs) -> None:
        for kind, width, tokens, seed in wanted:
            key = {"kind": kind, "width": width, "asked": tokens, "seed": seed}
            if any(key.items() <= run.items() for run in runs):
                continue
            ids = train_ids[:SLICE] if kind == "repeated" else train_ids
            runs.append(key | trained((ids, val_ids), V, width, tokens, seed))
            print(runs[-1], flush=True)
            write_result(name, "cpu", summary(runs) | {"runs": runs}, folder=options.out)

    seeds = options.seeds
    make([("grid", width, tokens, s) for s in seeds for width in WIDTHS for tokens in LENGTHS])
    make(held_back(runs, V, seeds))
    if corpus == CORPORA[0]:
        make([("repeated", 48, SLICE * times, seeds[0]) for times in EPOCHS])
    write_result(
        name, "cpu", summary(runs) | {"runs": runs}, picture(runs, corpus), folder=options.out
    )


def cells(runs: list[dict], kind: str) -> list[tuple[int, int, float]]:
    """(N, D, mean loss of the seeds) for each size and length."""
    found: dict[tuple[int, int], list[float]] = {}
    for run in runs:
        if run["kind"] == kind:
            found.setdefault((run["N"], run["D"]), []).append(run["loss"])
    return [(N, D, statistics.mean(losses)) for (N, D), losses in sorted(found.items())]


def summary(runs: list[dict]) -> dict:
    """``ours``, the held-back run's losses, beside ``peer``, what the law of the grid says."""
    held, grid = cells(runs, "held back"), cells(runs, "grid")
    if not held or len(grid) < laws.FEWEST:
        return {}
    found = laws.fit(*zip(*grid, strict=True))
    [(N, D, _)] = held
    return {
        "ours": [run["loss"] for run in runs if run["kind"] == "held back"],
        "peer": found.law(N, D),
        "peer_name": "the law of the grid",
        "predicted": found.predict(N, D),
        "law": vars(found.law),
        "scatter": found.scatter,
        "exponents": found.exponents(),
        "best_size": found.best_size(6 * N * D),
    }


def picture(runs: list[dict], corpus: str) -> plots.Picture:
    """Loss over compute, a curve for each width, and the held-back run."""
    x: dict[str, list[float]] = {}
    y: dict[str, list[float]] = {}
    for kind in ("grid", "held back"):
        for N, D, loss in cells(runs, kind):
            name = f"N = {N:,}" if kind == "grid" else f"held back: N = {N:,}"
            x.setdefault(name, []).append(6 * N * D)
            y.setdefault(name, []).append(loss)
    return plots.lines(
        x,
        y,
        f"More compute, less loss: each size has its turn ({corpus})",
        xlabel="training compute, 6ND (FLOPs)",
        ylabel="held-out loss (nats per character)",
        log="x",
        points=True,
    )


def rates(options) -> None:
    """The smallest and the largest size, short and long, at several learning rates."""
    text = llmkit.load_text(options.corpus)
    tokenizer = llmkit.CharTokenizer.from_text(text)
    ids, _ = llmkit.split(tokenizer.encode(text))
    splits, name = llmkit.split(ids, 1 / 9), f"scaling_rates-{options.corpus}"
    runs = kept(options, name)
    ends = itertools.product(WIDTHS[::4], LENGTHS[::2], RATES)
    for width, tokens, rate in ends:
        key = {"width": width, "asked": tokens, "rate": rate}
        if not any(key.items() <= run.items() for run in runs):
            runs.append(key | trained(splits, tokenizer.vocab_size, width, tokens, 0, rate))
            print(runs[-1], flush=True)
            write_result(name, "cpu", {"runs": runs}, folder=options.out)


def table() -> str:
    """The runs of both corpora's results as lines of a table."""
    rows = []
    for corpus in CORPORA:
        result = json.loads((RESULTS / f"scaling-{corpus}-cpu.json").read_text("utf-8"))
        rows += [{"corpus": corpus, **run} for run in result["runs"]]
    lines = [",".join(COLUMNS)]
    lines += [",".join(str(row[column]) for column in COLUMNS) for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    arguments = parser(__doc__, device=False)
    arguments.add_argument("--corpus", default="embedded")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments.add_argument("--rates", action="store_true", help="try learning rates, no more")
    arguments.add_argument("--table", action="store_true", help=f"write data/{TABLE.name}, no more")
    options = parse(arguments)
    if options.quick:
        global WIDTHS, LENGTHS, SLICE, EPOCHS
        WIDTHS, LENGTHS, SLICE, EPOCHS = (16, 24, 32, 40, 48), (1_024, 2_048, 4_096), 1_024, (1, 2)
    if options.table:
        TABLE.write_text(table(), encoding="utf-8")
    elif options.rates:
        rates(options)
    else:
        measure(options, options.corpus)


if __name__ == "__main__":
    main()
