"""SmolLM2-135M-Instruct learns a few tasks from a few pairs, by LoRA: exact match before and after.

    python -m llmkit fetch
    python benchmarks/smollm2_lora.py

takes tasks of data/instructions.jsonl, as conversations in the model's own template, and asks for
answers to items that were held out, always the likeliest token. It writes what it finds to
benchmarks/results/smollm2_lora-cpu.json; notebook 12 quotes it.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import parse, parser, write_result
from modern import rehearsal

import llmkit
from llmkit import modern
from llmkit.evaluation import IGNORE_INDEX
from llmkit.finetune import chatml, instructions, lora
from llmkit.modern import smollm2

TASKS = ("first word", "last word", "rewrite", "who says it")
TARGETS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def turns(item: instructions.Item) -> list[dict[str, str]]:
    """The item as a question of the user's."""
    content = "\n".join(part for part in (item.instruction, item.input) if part)
    return [{"role": "user", "content": content}]


def example(item: instructions.Item, tokenizer, system: str | None) -> instructions.Example:
    """Ids and targets (N,) each, of which those of the answer count, its end the last."""
    whole = [*turns(item), {"role": "assistant", "content": item.answer}]
    ids, counts = chatml.encode(whole, tokenizer, system, answer=False)
    ids, counts = ids[:-1], counts[:-1]  # without the line's end after it
    return ids[:-1], ids[1:].where(counts[1:], torch.tensor(IGNORE_INDEX))


def answers(model, tokenizer, items, system: str | None) -> list[str]:
    """What the model says to each, up to 24 tokens."""
    end, said = tokenizer.special_tokens[chatml.END], []
    for item in items:
        ids, _ = chatml.encode(turns(item), tokenizer, system)
        new = llmkit.generate(modern.quick(model), ids, 24, temperature=0, stop=end)[len(ids) :]
        said.append(tokenizer.decode(new[new != end]))
    return said


def teach(model, tokenizer, items, system: str | None, steps: int) -> llmkit.History:
    """Adapters in every layer of the model, trained on the items' answers."""
    lora.apply(model, rank=8, alpha=16, targets=TARGETS)
    examples = [example(item, tokenizer, system) for item in items]
    rows = instructions.pad(examples, max(len(ids) for ids, _ in examples))
    how = llmkit.TrainConfig(steps, batch_size=8, learning_rate=1e-3, weight_decay=0)
    return llmkit.train(model, rows, config=how, callbacks=[llmkit.ProgressBar()])


def report(name: str, result: dict, items, before: list[str], after: list[str], folder) -> None:
    """The result with exact match and all answers, printed in part and written whole."""
    result |= {
        "held_out": len(items),
        "before": instructions.exact_match(items, before),
        "after": instructions.exact_match(items, after),
        "answers": [
            {"question": turns(item)[0]["content"], "right": item.answer, "before": b, "after": a}
            for item, b, a in zip(items, before, after, strict=True)
        ],
    }
    for what, value in result.items():
        print(f"{what:18} {value}" if what != "answers" else "")
    for each in result["answers"][:6]:
        print(each)
    write_result(name, "cpu", result, folder=folder)


def main() -> None:
    options = parser(__doc__, device=False)
    options.add_argument("--pairs", type=int, default=64, help="to learn from (%(default)s)")
    options.add_argument("--steps", type=int, default=40, help="of training (%(default)s)")
    options = parse(options)
    torch.set_num_threads(1)
    if options.quick:
        with tempfile.TemporaryDirectory() as temporary:
            model, tokenizer = modern.load(rehearsal(Path(temporary)))
        system, options.steps, options.pairs, asked = None, 2, 8, 4
    elif folder := modern.fetched():
        model, tokenizer = modern.load(folder)
        system, asked = chatml.default_system(folder), 40
    else:
        raise SystemExit(f"the model was not fetched: {smollm2.COMMAND}")
    items = [item for item in instructions.load() if item.task in TASKS]
    random.Random(0).shuffle(items)
    held, taught = items[:asked], items[asked : asked + options.pairs]
    before = answers(model, tokenizer, held, system)

    cpu_seconds = time.process_time()
    history = teach(model, tokenizer, taught, system, options.steps)
    cpu_seconds = time.process_time() - cpu_seconds
    trained, total = lora.trainable(model)
    with tempfile.TemporaryDirectory() as temporary:
        size = lora.save(Path(temporary) / "adapter.safetensors", model).stat().st_size
    after = answers(lora.remove(lora.merge(model)), tokenizer, held, system)
    result = {
        "pairs": len(taught),
        "steps": options.steps,
        "trained": trained,
        "parameters": total,
        "adapter_megabytes": round(size / 1e6, 1),
        "cpu_minutes": round(cpu_seconds / 60, 1),
        "loss": [round(history.loss[0], 2), round(history.loss[-1], 2)],
    }
    report("smollm2_lora", result, held, before, after, options.out)


if __name__ == "__main__":
    sys.exit(main())
