"""Loss against time: what `python -m llmkit train --minutes` makes of more of it.

    python benchmarks/dial.py [--corpus tiny_shakespeare] [--budgets 0.5 1 2 5 15] [--seeds 1 2 3]

T is how long the minute's recipe trains on this machine. For each budget, a multiple of T, the dial
chooses a model and a number of steps, which are trained with each seed. Beside it the minute's own
model, trained for as many times as many steps (`--steps`). Time is training time: measurements are
left out. Loss is over the whole validation split, which no choice has seen.

All of it takes hours: what has been measured is written after every run.
"""

from __future__ import annotations

import statistics

import torch
from common import parse, parser, write_result

import llmkit
from llmkit import plots
from llmkit.commands.recipe import recipe
from llmkit.speed import cpu

# What others reach, by budget: nanoGPT's GPU recipe on an A100, at its best; and what the command
# line trained before, FastGPT with its tables (7.9 million parameters), on two cores, 2026-11-26.
OTHERS = {
    "tiny_shakespeare": {
        "nanoGPT, A100": {0.5: 1.4697, 15.0: 1.4697},
        "FastGPT": {1.0: 1.547, 5.0: 1.685},
    }
}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--corpus", default="tiny_shakespeare")
    arguments.add_argument("--budgets", type=float, nargs="+", default=[0.5, 1, 2, 5, 15])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parse(arguments)
    runtime = llmkit.start(device=options.device)
    text = llmkit.load_text(options.corpus)
    tokenizer = llmkit.CharTokenizer.from_text(text)
    splits = llmkit.split(tokenizer.encode(text))
    about = (len(splits[0]), tokenizer.vocab_size, runtime.device)
    minute = recipe(*about, steps=2 if options.quick else None)
    runs = [trained(*minute, splits, runtime.device) | {"way": "stretched", "budget": 1.0}]
    T = runs[0]["seconds"]
    for budget in options.budgets:
        steps = max(1, round(budget * minute[1].steps))
        if steps != minute[1].steps:
            stretched = recipe(*about, steps=steps)
            runs.append(trained(*stretched, splits, runtime.device))
            runs[-1] |= {"way": "stretched", "budget": budget}
        for seed in options.seeds:
            shape, config = recipe(*about, seed=seed, seconds=budget * T)
            runs.append(trained(shape, config, splits, runtime.device))
            runs[-1] |= {"way": "dial", "budget": budget}
            result = {"T": T, "runs": runs, **summary(runs)}
            write_result(
                f"dial-{options.corpus}",
                runtime.device.type,
                result,
                picture(runs, options.corpus),
                folder=options.out,
            )
            print(runs[-1], flush=True)


def trained(shape, config, splits, device: torch.device) -> dict:
    """Train such a model, and what came of it."""
    torch.manual_seed(config.seed)
    model = llmkit.GPT(shape).to(device)
    with cpu.tuned(model):
        history = llmkit.train(model, *splits, config)
        loss = llmkit.evaluate(model, splits[1]).loss
    return {
        "loss": loss,
        "best": history.best_val_loss,
        "seed": config.seed,
        "seconds": history.seconds,
        "steps": config.steps,
        "parameters": model.num_parameters(),
        "n_layer": shape.n_layer,
        "n_embd": shape.n_embd,
        "dropout": shape.dropout,
    }


def summary(runs: list[dict]) -> dict:
    """``ours``, the dial's losses by budget, beside ``peer``, those of the minute's model."""
    found: dict[str, dict[float, list[float]]] = {"dial": {}, "stretched": {}}
    for run in runs:
        found[run["way"]].setdefault(run["budget"], []).append(run["loss"])
    ours, peer = (
        {budget: statistics.median(losses) for budget, losses in sorted(found[way].items())}
        for way in ("dial", "stretched")
    )
    spread = {budget: [min(ls), max(ls)] for budget, ls in sorted(found["dial"].items())}
    return {"ours": ours, "spread": spread, "peer": peer, "peer_name": "the minute's model"}


def picture(runs: list[dict], corpus: str) -> plots.Picture:
    """Both ways' losses over the budget, beside what others reach."""
    found = summary(runs)
    series = {"the dial": found["ours"], "the minute's model": found["peer"]}
    series |= OTHERS.get(corpus, {})
    budgets = sorted({*found["ours"], *found["peer"]})
    return plots.lines(
        {name: list(losses) for name, losses in series.items()},
        {name: list(losses.values()) for name, losses in series.items()},
        f"Who waits is paid for it ({corpus})",
        xlabel="training time, in minute's recipes",
        ylabel="held-out loss (nats per character)",
        log="x",
        ticks=budgets,
        points=True,
    )


if __name__ == "__main__":
    main()
