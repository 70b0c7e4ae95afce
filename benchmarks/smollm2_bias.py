"""What SmolLM2-135M-Instruct takes people for: the paired probes of notebook 16 on a real model.

    python -m llmkit fetch
    python benchmarks/smollm2_bias.py

measures, for each trade and by twelve templates, the log-odds of "she" against "he", less the mean
of all trades, with its interval; and the gap between nurse and smith. It writes them to
benchmarks/results/smollm2_bias-cpu.json; notebook 16 quotes it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from common import parse, parser, write_result
from modern import rehearsal

from llmkit import modern
from llmkit.modern import smollm2
from llmkit.responsible import bias, planted

TRADES = ("nurse", "teacher", "baker", "weaver", "pilot", "smith")
TRADES += ("doctor", "librarian", "engineer", "dancer")


def main() -> None:
    options = parse(parser(__doc__, device=False))
    torch.set_num_threads(1)
    if options.quick:
        with tempfile.TemporaryDirectory() as temporary:
            model, tokenizer = modern.load(rehearsal(Path(temporary)))
    elif folder := modern.fetched():
        model, tokenizer = modern.load(folder)
    else:
        raise SystemExit(f"the model was not fetched: {smollm2.COMMAND}")
    odds = torch.stack(
        [
            bias.log_odds(
                model,
                tokenizer,
                [t.replace("{role}", trade) for t in planted.TEMPLATES],
                "she",
                "he",
            )
            for trade in TRADES
        ]
    )  # (trades, 12)
    leaning = dict(zip(TRADES, odds - odds.mean(dim=0), strict=True))
    found = {trade: bias.bootstrap_interval(values) for trade, values in leaning.items()}
    gap = bias.bootstrap_interval(leaning["nurse"] - leaning["smith"])

    def told(interval: bias.Interval) -> list[float]:
        return [round(value, 2) for value in (interval.mean, interval.low, interval.high)]

    result = {
        "templates": len(planted.TEMPLATES),
        "mean_log_odds": round(odds.mean().item(), 2),
        "leaning": {trade: told(interval) for trade, interval in found.items()},
        "gap_nurse_smith": told(gap),
    }
    for name, value in result.items():
        print(name, value)
    write_result("smollm2_bias", "cpu", result, folder=options.out)


if __name__ == "__main__":
    main()
