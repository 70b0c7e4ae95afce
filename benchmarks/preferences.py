"""Notebook 13b's training once a seed: held-out exact match before, after DPO and after GRPO.

    OMP_NUM_THREADS=1 python benchmarks/preferences.py [--seeds 1337 1 2]

It runs the cells of notebooks/src/13b_preferences_and_rewards.py before its exercises, with each
seed in the place of the notebook's, without their asserts; prints exact match and the distance from
the start in nats an answer, and processor time; writes benchmarks/results/preferences-cpu.json.
"""

from __future__ import annotations

import ast
import statistics
import time
from pathlib import Path
from typing import Any

import jupytext
from common import parse, parser, versions, write_result

from llmkit.preferences import dpo, grpo

SCRIPT = Path(__file__).parent.parent / "notebooks/src/13b_preferences_and_rewards.py"


def code(seed: int) -> list[str]:
    """The notebook's cells up to its exercises, seeded so, without asserts."""
    cells = []
    for cell in jupytext.read(SCRIPT, fmt="py:percent").cells:
        if cell.cell_type == "markdown" and "## Exercises" in cell.source:
            break
        if cell.cell_type == "code" and "setup" not in cell.metadata.get("tags", []):
            source = cell.source.replace("llmkit.start(seed=1337)", f"llmkit.start(seed={seed})")
            cells.append(ast.unparse(WithoutAsserts().visit(ast.parse(source))))
    return cells


class WithoutAsserts(ast.NodeTransformer):
    def visit_Assert(self, node: ast.Assert) -> None:
        return None


def measure(seed: int) -> dict[str, Any]:
    """One run of the notebook."""
    space: dict[str, Any] = {"display": lambda picture: None}
    started = time.process_time()
    for source in code(seed):
        exec(compile(source, SCRIPT.name, "exec"), space)  # noqa: S102 - the notebook's own cells
    seconds = time.process_time() - started
    return {
        "seed": seed,
        "exact_match": {name: round(mark["all"], 3) for name, mark in space["marks"].items()},
        "kl": {name: round(value, 2) for name, value in space["kl"].items()},
        "gamed": {name: round(run[-1], 3) for name, run in space["watched"].items()},
        "cpu_seconds": round(seconds, 1),
    }


def main() -> None:
    options = parser(__doc__, device=False)
    options.add_argument("--seeds", type=int, nargs="+", default=[1337, 1, 2])
    options = parse(options)
    if options.quick:
        options.seeds = options.seeds[:1]
        for module in (dpo, grpo):
            module.train.__kwdefaults__ = {"steps": 2}
    runs = []
    for seed in options.seeds:
        runs.append(measure(seed))
        print(runs[-1], flush=True)
    median = {
        name: statistics.median(run["exact_match"][name] for run in runs)
        for name in runs[0]["exact_match"]
    }
    result = {"median": median, "runs": runs, "versions": versions()}
    write_result("preferences", "cpu", result, folder=options.out)


if __name__ == "__main__":
    main()
