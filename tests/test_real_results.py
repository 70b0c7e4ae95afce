"""What the pages quote of SmolLM2 is what the stored results say."""

from __future__ import annotations

import json
import re

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
