"""SmolLM2-135M-Instruct learns from its own answers: LoRA on a few tasks first, then DPO and GRPO.

    python -m llmkit fetch
    python benchmarks/smollm2_preferences.py

After the training of smollm2_lora.py the model answers other items, several times each. DPO learns
from pairs of these answers, a right one and a wrong one; GRPO from drawing answers to the same
items anew, with 1 for a right one and 0 for a wrong one. Each trains an adapter of its own beside
the model as it stands. Held-out items are asked before and after, always the likeliest token; the
distance from the start is in nats an answer. It writes what it finds to
benchmarks/results/smollm2_preferences-cpu.json; notebook 13b quotes it.
"""

from __future__ import annotations

import copy
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from common import parse, parser, write_result
from modern import rehearsal
from smollm2_lora import TARGETS, answers, example, teach, turns

from llmkit import modern
from llmkit.finetune import instructions, lora
from llmkit.modern import smollm2
from llmkit.preferences import dpo, grpo
from llmkit.preferences.answers import Form, draw, kl_from, openings, read

TASKS = ("first word", "last word", "who says it")  # those that the adapter learns in part
LONGEST = 12  # tokens of an answer, when it is drawn
STEPS = {"DPO": 30, "GRPO": 60}  # these and the rates were chosen on other items than are held
RATES = {"DPO": 3e-4, "GRPO": 5e-4}  # out here


def right(item: instructions.Item, answer: str) -> float:
    return float(answer == item.answer)


def pairs_of(model, tokenizer, items, count: int, form: Form) -> list[dpo.Pair]:
    """A right answer and a wrong one to each item that got both, of so many draws."""
    torch.manual_seed(0)
    _, end = openings(items[:1], tokenizer, form)
    drawn = draw(modern.quick(model), tokenizer, items, count, LONGEST, form=form)
    pairs = []
    for item, group in zip(items, drawn, strict=True):
        said = [read(tokenizer, ids, end) for ids in group]
        wrong = [answer for answer in said if not right(item, answer)]
        if wrong and len(wrong) < count:
            pairs.append(dpo.Pair(item, item.answer, wrong[0]))
    return pairs


def trained(start, train: Callable) -> tuple[torch.nn.Module, float]:
    """The model with an adapter that `train` has trained, and its minutes of a core."""
    model = lora.apply(copy.deepcopy(start), rank=8, alpha=16, targets=TARGETS)
    began = time.process_time()
    train(model)
    minutes = (time.process_time() - began) / 60
    return lora.remove(lora.merge(model)), round(minutes, 1)


def main() -> None:
    options = parser(__doc__, device=False)
    options.add_argument("--taught", type=int, default=64, help="items to learn from first")
    options.add_argument("--asked", type=int, default=240, help="others, to answer (%(default)s)")
    options = parse(options)
    torch.set_num_threads(1)
    if options.quick:
        with tempfile.TemporaryDirectory() as temporary:
            model, tokenizer = modern.load(rehearsal(Path(temporary)))
        first, options.taught, options.asked, held_out = 2, 8, 8, 4
    elif folder := modern.fetched():
        model, tokenizer = modern.load(folder)
        first, held_out = 40, 200
    else:
        raise SystemExit(f"the model was not fetched: {smollm2.COMMAND}")
    items = [item for item in instructions.load() if item.task in TASKS]
    random.Random(1).shuffle(items)
    held, rest = items[:held_out], items[held_out:]
    taught, asked = rest[: options.taught], rest[options.taught :][: options.asked]
    system = None  # its usual turn would make a prompt nearly twice as long
    form = partial(example, system=system)

    teach(model, tokenizer, taught, system, first)
    start = lora.remove(lora.merge(model))
    pairs = pairs_of(start, tokenizer, asked, 4, form)
    if options.quick:  # a model that was made up says nothing right
        pairs = [dpo.Pair(item, item.answer, "no answer") for item in asked]
    steps = STEPS if not options.quick else dict.fromkeys(STEPS, 2)
    losses: list[float] = []
    history = grpo.History()

    def by_pairs(model) -> None:
        sizes = {"steps": steps["DPO"], "batch_size": 8, "learning_rate": RATES["DPO"]}
        how = sizes | {"optimizer": "adamw", "form": form}
        losses.extend(dpo.train(model, tokenizer, pairs, **how))

    def by_rewards(model) -> None:
        nonlocal history
        sizes = {"steps": steps["GRPO"], "prompts": 4, "answers": 8, "max_new_tokens": LONGEST}
        how = sizes | {"learning_rate": RATES["GRPO"], "optimizer": "adamw", "form": form}
        history = grpo.train(model, tokenizer, asked, right, **how)

    models, minutes = {"start": start}, {}
    for name, method in {"DPO": by_pairs, "GRPO": by_rewards}.items():
        models[name], minutes[name] = trained(start, method)
    said = {name: answers(model, tokenizer, held, system) for name, model in models.items()}
    result = {
        "taught": len(taught),
        "asked": len(asked),
        "pairs": len(pairs),
        "steps": steps,
        "learning_rate": RATES,
        "held_out": len(held),
        "cpu_minutes": minutes,
        "exact_match": {n: instructions.exact_match(held, each) for n, each in said.items()},
        "nats_an_answer": {
            name: round(kl_from(model, start, tokenizer, held, LONGEST, form), 2)
            for name, model in models.items()
        },
        "dpo_loss": [round(loss, 3) for loss in losses],
        "grpo_reward": [round(reward, 3) for reward in history.reward],
        "answers": [
            {"question": turns(item)[0]["content"], "right": item.answer}
            | {name: each[number] for name, each in said.items()}
            for number, item in enumerate(held)
        ],
    }
    for what, value in result.items():
        print(f"{what:18} {value}" if what != "answers" else "")
    for each in result["answers"][:6]:
        print(each)
    write_result("smollm2_preferences", "cpu", result, folder=options.out)


if __name__ == "__main__":
    sys.exit(main())
