"""Instruction tuning: tasks with answers, the one form in which a model reads them, and the marks.

An item is written as PROMPT says, its answer behind it, and `END` behind that. The model learns to
predict the answer and `END`; the targets before them are -100, which every loss here leaves out.
`Rows` is what `train` takes in place of a text. How answers are drawn: `generation`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.types import Device

from llmkit.data import packaged
from llmkit.generation import generate

PROMPT = "Q: {instruction}\n{input}\nA: "
END = "\n"  # an answer is one line
IGNORE = -100  # the target that a loss leaves out
Example = tuple[Tensor, Tensor]  # ids and targets, (N,) each


@dataclass(frozen=True)
class Item:
    """A task: what to do (instruction), with what (input, may be empty), and the right answer."""

    id: int | str
    task: str
    instruction: str
    input: str
    answer: str

    @property
    def prompt(self) -> str:
        """All that a model reads before it answers."""
        return PROMPT.format(instruction=self.instruction, input=self.input)


def load(path: str | Path | None = None) -> list[Item]:
    """The items of a JSON Lines file, one object a line; None: the project's own.

    Raises FileNotFoundError for no such file; ValueError, with the number of the line, for one that
    is no JSON object, lacks a field, has an answer that is empty or longer than a line, or asks
    what an earlier line asks.
    """
    path = packaged("instructions.jsonl") if path is None else path
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no file {str(path)!r}; give the path of a JSON Lines file of items"
        )
    items, asked = [], {}
    for number, line in enumerate(Path(path).read_text("utf-8").split("\n"), 1):
        if line.strip():
            try:
                item = _item(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            first = asked.setdefault(item.prompt, number)
            if first != number:
                raise ValueError(f"{path}, line {number}: asks the same as line {first}; drop one")
            items.append(item)
    return items


def _item(line: str) -> Item:
    """The item of a line; ValueError for what is wrong with it."""
    try:
        values = json.loads(line)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ValueError("not a JSON object; write one item a line, as in {...}")
    names = [field.name for field in fields(Item)]
    if missing := [name for name in names if name not in values]:
        raise ValueError(f"the field {missing[0]!r} is missing; an item has {', '.join(names)}")
    for name in names[1:]:
        if not isinstance(values[name], str):
            raise ValueError(f"the field {name!r} must be a string, not {values[name]!r}")
    if not values["answer"].strip() or END in values["answer"]:
        raise ValueError(f"the answer must be one line that is not empty, not {values['answer']!r}")
    return Item(**{name: values[name] for name in names})


def encode(item: Item, tokenizer: Any, answer_only: bool = True) -> Example:
    """Ids and targets, (N,) each: targets[i] is the id that follows ids[i], or -100 (`IGNORE`).

    -100 stand before the answer; what is left are its tokens and `END`. With answer_only=False all
    targets stay, as in a text. ValueError, with the item's id, for what the tokenizer lacks.
    """
    try:
        prompt, answer = tokenizer.encode(item.prompt), tokenizer.encode(item.answer + END)
    except ValueError as error:
        raise ValueError(f"item {item.id}: {error}") from None
    whole = torch.cat([prompt, answer])
    ids, targets = whole[:-1], whole[1:].clone()
    if answer_only:
        targets[: len(prompt) - 1] = IGNORE  # the prompt's last token predicts the answer's first
    return ids, targets


class Rows:
    """Examples as rows of equal width: x, y (M, T) int64. `train` takes it in place of a text.

    The loss of a batch is the mean over its counted targets. Where an update has several parts
    (accumulation, processes), these weigh the same, however many of their targets count.
    """

    def __init__(self, x: Tensor, y: Tensor):
        self.x, self.y = x, y

    @property
    def counted(self) -> float:
        """The share of positions whose target counts in the loss."""
        return (self.y != IGNORE).float().mean().item()

    def flat(self) -> Tensor:
        """All ids and targets in one sequence (2MT,), to know the data by."""
        return torch.cat([self.x.flatten(), self.y.flatten()])

    def batches(
        self,
        block_size: int,
        batch_size: int,
        seed: int = 0,
        device: Device = None,
        rank: int = 0,
        world: int = 1,
    ) -> RowBatches:
        """An endless source of batches, drawn as `Batches` draws its windows."""
        if self.x.size(1) > block_size:
            raise ValueError(
                f"rows of {self.x.size(1)} tokens do not fit into block_size {block_size}; make "
                "them with the model's own block_size"
            )
        return RowBatches(self, batch_size, seed, device, rank, world)


class RowBatches:
    """Rows drawn at random, x and y (B, T) each; a seed, and a rank of a world, as in `Batches`."""

    def __init__(
        self, rows: Rows, batch_size: int, seed: int, device: Device, rank: int, world: int
    ):
        self.x, self.y = (part.to(device or part.device) for part in (rows.x, rows.y))
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self._generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> RowBatches:
        return self

    def __next__(self) -> Example:
        drawn = torch.randint(
            len(self.x), (self.world * self.batch_size,), generator=self._generator
        )
        drawn = drawn[self.rank * self.batch_size :][: self.batch_size].to(self.x.device)  # (B,)
        return self.x[drawn], self.y[drawn]

    def state_dict(self) -> dict[str, Tensor]:
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._generator.set_state(state["generator"].cpu())


def pad(examples: Iterable[Example], block_size: int) -> Rows:
    """Every example in a row of its own, filled up at its end with id 0, which no target counts.

    Attention looks back only, so no counted position sees the filling.
    """
    return _rows([[example] for example in _fitting(examples, block_size)], block_size)


def pack(examples: Iterable[Example], block_size: int, seed: int = 0) -> Rows:
    """Examples one behind the other, in rows that are filled as far as the next one fits.

    They come in random order, each in the first row that has room for it. **An example does see
    those before it in its row**: our models have no mask for it. It is acceptable because
    neighbours are drawn at random, so that looking at them does not help, and a text is read in
    training in just this way; but the model meets a prompt at every position, and must learn to
    begin anew. `pad` is free of it.
    """
    examples = _fitting(examples, block_size)
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist()
    rows, room = [], []  # first fit
    for example in (examples[i] for i in order):
        size = len(example[0]) + 1  # and the end of its answer, which is a target only
        row = next((r for r, left in enumerate(room) if size <= left), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(block_size + 1)  # the last example's end needs no place in x
        rows[row].append(example)
        room[row] -= size
    return _rows(rows, block_size)


def _fitting(examples: Iterable[Example], block_size: int) -> list[Example]:
    examples = list(examples)
    if not examples:
        raise ValueError("there are no examples: give at least one")
    for number, (ids, _) in enumerate(examples):
        if len(ids) > block_size:
            raise ValueError(
                f"example {number} has {len(ids)} tokens, which do not fit into block_size "
                f"{block_size}; shorten the item or enlarge the context"
            )
    return examples


def _rows(rows: Sequence[Sequence[Example]], block_size: int) -> Rows:
    x = torch.zeros(len(rows), block_size, dtype=torch.int64)
    y = torch.full_like(x, IGNORE)
    for r, examples in enumerate(rows):
        start = 0
        for ids, targets in examples:
            stop = start + len(ids)
            x[r, start:stop], y[r, start:stop] = ids, targets
            if stop < block_size:
                x[r, stop] = targets[-1]  # the answer's end, then the next example
            start = stop + 1
    return Rows(x, y)


def answer(
    model: nn.Module, tokenizer: Any, items: Sequence[Item], max_new_tokens: int = 40
) -> list[str]:
    """The model's answer to each item, greedy, up to `END` or max_new_tokens.

    Prompts of one length are answered together. ValueError, with the item's id, for a prompt that
    leaves no room for an answer in block_size, or has characters that the tokenizer lacks.
    """
    groups: dict[int, list[tuple[int, Tensor]]] = defaultdict(list)
    for place, item in enumerate(items):
        ids, targets = encode(item, tokenizer)
        prompt = ids[: int((targets == IGNORE).sum()) + 1]
        if len(prompt) >= model.config.block_size:
            raise ValueError(
                f"item {item.id}: its prompt of {len(prompt)} tokens leaves no room in block_size "
                f"{model.config.block_size}; shorten it or enlarge the context"
            )
        groups[len(prompt)].append((place, prompt))
    [stop] = tokenizer.encode(END).tolist()
    answers = [""] * len(items)
    for length, group in groups.items():
        new = min(max_new_tokens, model.config.block_size - length)
        prompts = torch.stack([prompt for _, prompt in group])  # (B, T)
        rows = generate(model, prompts, new, temperature=0, stop=stop)[:, length:]
        for (place, _), row in zip(group, rows, strict=True):
            answers[place] = tokenizer.decode(row).split(END)[0]
    return answers


def exact_match(items: Sequence[Item], answers: Sequence[str]) -> dict[str, float]:
    """The share of answers that are right to the letter: {"all": ..., then each task in order}."""
    right: dict[str, list[bool]] = {"all": []}
    for item, given in zip(items, answers, strict=True):
        for name in ("all", item.task):
            right.setdefault(name, []).append(given.strip() == item.answer.strip())
    if not right["all"]:
        raise ValueError("there is nothing to mark: give at least one item")
    return {name: sum(marks) / len(marks) for name, marks in sorted(right.items(), key=_order)}


def _order(pair: tuple[str, list[bool]]) -> tuple[bool, str]:
    return pair[0] != "all", pair[0]


def bleu(answers: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of a whole set of answers, 0 to 100 (Papineni et al. 2002), by `sacrebleu`.

    How many runs of 1 to 4 words the answers share with the references, short answers punished.
    """
    _same_number(answers, references)
    try:
        import sacrebleu
    except ImportError:
        raise ImportError("BLEU needs sacrebleu: pip install 'llmkit[metrics]'") from None
    return sacrebleu.corpus_bleu(list(answers), [list(references)]).score


def rouge(answers: Sequence[str], references: Sequence[str], kind: str = "rougeL") -> float:
    """The mean ROUGE F1, 0 to 1 (Lin 2004), by `rouge-score`, which reads lower case, no marks.

    kind: "rouge1" or "rouge2", shared words or pairs; "rougeL", the longest common subsequence.
    """
    _same_number(answers, references)
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise ImportError("ROUGE needs rouge-score: pip install 'llmkit[metrics]'") from None
    scorer = RougeScorer([kind])
    pairs = zip(references, answers, strict=True)
    return sum(scorer.score(*pair)[kind].fmeasure for pair in pairs) / len(answers)


def _same_number(answers: Sequence[str], references: Sequence[str]) -> None:
    if not answers or len(answers) != len(references):
        raise ValueError(
            f"each answer needs one reference, and there must be one at least: "
            f"{len(answers)} answers, {len(references)} references"
        )
