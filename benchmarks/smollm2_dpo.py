"""SmolLM2-135M-Instruct chooses by pairs: LoRA on a few tasks first, then DPO, also by LoRA.

    python -m llmkit fetch
    python benchmarks/smollm2_dpo.py

After the training of smollm2_lora.py the model answers other items that it was not taught. Where it
errs, the right answer is preferred to its own: pairs made by a rule. `preferences.dpo` trains a new
adapter on them, beside the model as it stands. Held-out items are asked before and after, always
the likeliest token; the distance between the two is in nats an answer. It writes what it finds to
benchmarks/results/smollm2_dpo-cpu.json; notebook 13b quotes it. Rate and steps are the second that
were tried: at three times the rate and twice the steps the model unlearned what it could.
"""

from __future__ import annotations

import copy
import random
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from common import parse, parser
from modern import rehearsal
from smollm2_lora import TARGETS, answers, example, report, teach, turns

import llmkit
from llmkit import modern
from llmkit.finetune import chatml, instructions, lora
from llmkit.modern import smollm2
from llmkit.preferences import dpo
from llmkit.preferences.answers import divergence

TASKS = ("first word", "last word", "who says it")  # those that the adapter learns in part


@torch.no_grad()
def distance(model, reference, tokenizer, items, system: str | None) -> float:
    """KL(model || reference) in nats, the mean over an answer to each item that the model draws."""
    end, found = tokenizer.special_tokens[chatml.END], []
    for number, item in enumerate(items):
        ids, _ = chatml.encode(turns(item), tokenizer, system)
        new = llmkit.generate(modern.quick(model), ids, 24, stop=end, seed=number)[len(ids) :]
        said = tokenizer.decode(new[new != end])
        x, y = (part[None] for part in example(replace(item, answer=said), tokenizer, system))
        found.append(divergence(model, reference, x, y))
    return torch.cat(found).mean().item()


def main() -> None:
    options = parser(__doc__, device=False)
    options.add_argument("--taught", type=int, default=64, help="items to learn from first")
    options.add_argument("--asked", type=int, default=160, help="others, for pairs (%(default)s)")
    options.add_argument("--steps", type=int, default=20, help="of DPO (%(default)s)")
    options.add_argument("--learning-rate", type=float, default=1e-4, help="of DPO (%(default)s)")
    options = parse(options)
    torch.set_num_threads(1)
    if options.quick:
        with tempfile.TemporaryDirectory() as temporary:
            model, tokenizer = modern.load(rehearsal(Path(temporary)))
        system, first, options.steps, options.taught, options.asked, held_out = None, 2, 2, 8, 8, 4
    elif folder := modern.fetched():
        model, tokenizer = modern.load(folder)
        system, first, held_out = chatml.default_system(folder), 40, 100
    else:
        raise SystemExit(f"the model was not fetched: {smollm2.COMMAND}")
    items = [item for item in instructions.load() if item.task in TASKS]
    random.Random(0).shuffle(items)
    held, rest = items[:held_out], items[held_out:]
    taught, asked = rest[: options.taught], rest[options.taught :][: options.asked]

    teach(model, tokenizer, taught, system, first)
    start = lora.remove(lora.merge(model))
    before = answers(start, tokenizer, held, system)

    said = answers(start, tokenizer, asked, system)
    wrong = [(item, answer) for item, answer in zip(asked, said, strict=True) if answer]
    pairs = [dpo.Pair(item, item.answer, a) for item, a in wrong if a != item.answer]
    model = lora.apply(copy.deepcopy(start), rank=8, alpha=16, targets=TARGETS)
    seconds = time.process_time()
    losses = dpo.train(
        model,
        tokenizer,
        pairs,
        options.steps,
        batch_size=8,
        learning_rate=options.learning_rate,
        optimizer="adamw",
        form=partial(example, system=system),
    )
    seconds = time.process_time() - seconds
    model = lora.remove(lora.merge(model))
    after = answers(model, tokenizer, held, system)
    result = {
        "taught": len(taught),
        "asked": len(asked),
        "pairs": len(pairs),
        "steps": options.steps,
        "learning_rate": options.learning_rate,
        "cpu_minutes": round(seconds / 60, 1),
        "loss": [round(losses[0], 3), round(sum(losses[-5:]) / len(losses[-5:]), 3)],
        "nats_an_answer": round(distance(model, start, tokenizer, held, system), 2),
    }
    report("smollm2_dpo", result, held, before, after, options.out)


if __name__ == "__main__":
    sys.exit(main())
