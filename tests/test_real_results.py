"""What the pages quote of SmolLM2, and the README of the dial, is what the stored results say."""

from __future__ import annotations

import json
import math
import re
import statistics
from decimal import ROUND_HALF_UP, Decimal

import build
import pytest

RESULTS = build.NOTEBOOKS.parent / "benchmarks" / "results"


def stored(name: str) -> dict:
    return json.loads((RESULTS / f"{name}-cpu.json").read_text("utf-8"))


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def lora() -> list[str]:
    found = stored("smollm2_lora")
    before, after = found["before"], found["after"]
    named = {"all": "all four", **{task: task for task in before if task != "all"}}
    rows = [f"| {named[t]} | {percent(before[t])} | {percent(after[t])} |" for t in named]
    trained = f"{found['trained'] / 1e6:.1f} of {found['parameters'] / 1e6:.1f} million"
    first = found["answers"][1]
    pairs = [(each["right"], each["after"]) for each in found["answers"]]
    capitals = sum(right != said and right.lower() == said.lower() for right, said in pairs)
    return [
        *rows,
        f"{found['pairs']} pairs",
        f"{found['steps']} steps",
        f"{found['held_out']} others",
        f"{found['cpu_minutes']:.0f} minutes",
        f"{found['adapter_megabytes']:.0f} MB",
        trained,
        f"({capitals} more are wrong by capital letters alone",
        f"as *{pairs[4][1]}* for *{pairs[4][0]}*",
        first["question"].split("\n")[1],
        first["before"],
        f"*{first['after']}*",
    ]


def preferences() -> list[str]:
    found = stored("smollm2_preferences")
    marks, away = found["exact_match"], found["nats_an_answer"]
    named = {"all": "all three", **{task: task for task in marks["start"] if task != "all"}}
    rows = [[named[t], *(percent(each[t]) for each in marks.values())] for t in named]
    rows.append(["nats an answer from the start", "0", *(f"{away[n]}" for n in ("DPO", "GRPO"))])
    rows.append(["minutes of one core", "", *(f"{m:.0f}" for m in found["cpu_minutes"].values())])
    changed = {}
    for name in ("DPO", "GRPO"):
        both = [[each[n] == each["right"] for n in ("start", name)] for each in found["answers"]]
        changed[name] = both.count([False, True]), both.count([True, False])
    n, k = sum(changed["GRPO"]), min(changed["GRPO"])  # as tosses of a coin, to either side
    assert round(2000 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n) == 3  # "three times"
    return [
        *("| " + " | ".join(row).replace("|  |", "| |") + " |" for row in rows),
        f"{found['taught']} examples",
        f"{found['asked']} others",
        f"{found['pairs']} pairs",
        *(f"in {steps} steps" for steps in found["steps"].values()),
        f"{found['held_out']} items",
        "By GRPO {} items became right and {} wrong".format(*changed["GRPO"]),
        "By DPO it was {} and {}".format(*changed["DPO"]),
    ]


def chat() -> list[str]:
    found = stored("smollm2_chat")
    each = [row["processor_milliseconds_a_token"] for row in found["clients"].values()]
    return [
        f"{each[0]} ms",
        f"{each[1]} ms",
        found["questions"][0],
        found["clients"]["1"]["answers"][0],
    ]


def bias() -> list[str]:
    found = stored("smollm2_bias")

    def told(values: list[float]) -> str:
        mean, low, high = (f"{value:+.1f}".replace("-", "−") for value in values)
        return f"{mean} [{low}, {high}]"

    ranked = sorted(found["leaning"].items(), key=lambda pair: -pair[1][0])
    rows = [f"| {trade} | {told(values)} |" for trade, values in (*ranked[:3], *ranked[-3:])]
    return [*rows, told(found["gap_nurse_smith"])]


QUOTED = {
    "12_lora": ("smollm2_lora", lora),
    "13b_preferences_and_rewards": ("smollm2_preferences", preferences),
    "14_deployment": ("smollm2_chat", chat),
    "16_bias_privacy_filters": ("smollm2_bias", bias),
}


@pytest.mark.parametrize("notebook", QUOTED)
def test_a_notebook_quotes_the_stored_result(notebook):
    name, expected = QUOTED[notebook]
    lines = (build.NOTEBOOKS / "src" / f"{notebook}.py").read_text("utf-8").splitlines()
    text = " ".join(re.sub(r"^# ?", "", line).strip() for line in lines)
    assert [part for part in expected() if part not in text] == []
    about = stored(name)
    assert f"`{about['command']}`" in text
    assert about["date"] in text


def test_the_benchmarks_page_quotes_the_speed_beside_transformers():
    text = (RESULTS.parent / "README.md").read_text("utf-8")
    for found in stored("modern")["results"]:
        threads = "one thread" if found["threads"] == 1 else "two threads"
        ours, theirs = found["ours_tokens_per_second"], found["transformers_tokens_per_second"]
        floor = found["floor_milliseconds"]
        row = (
            f"| {found['dtype']}, {threads} | {ours:.1f} : {theirs:.1f} | {found['ratio']:.2f} × | "
            f"{floor['read']:.0f} | {floor['multiplied']:.0f} | {floor['multiplied_by_ours']:.0f} |"
        )
        assert row in text


def rounded(loss: float) -> Decimal:
    """To three places, as one does by hand: 1.4725 is 1.473."""
    return Decimal(str(loss)).quantize(Decimal("0.001"), ROUND_HALF_UP)


@pytest.mark.parametrize("corpus", ["tiny_shakespeare", "embedded"])
def test_the_readme_quotes_what_time_buys(corpus):
    text = (RESULTS.parent.parent / "README.md").read_text("utf-8")
    found = stored(f"dial-{corpus}")
    runs = [run for run in found["runs"] if run["way"] == "dial"]
    for budget, median in found["ours"].items():
        same = [run["loss"] for run in runs if run["budget"] == float(budget)]
        assert median == pytest.approx(statistics.median(same))
        low, high = min(same), max(same)
        few = {1: ", one seed", 2: ", two seeds"}.get(len(same), "")
        bracket = f" ({rounded(low)} to {rounded(high)})" if len(same) > 1 else ""
        assert f"{rounded(median)}{bracket}{few}" in text.replace("*", "")
    losses = [found["ours"][budget] for budget in sorted(found["ours"], key=float)]
    assert losses == sorted(losses, reverse=True)  # who waits is paid for it
