"""Instruction tuning: tasks with answers, the one form in which a model reads them, and the marks.

An item is written as `PROMPT_TEMPLATE` says, then its answer, then `ANSWER_END`. The model learns
to predict the answer and its end; the targets before them are -100, which every loss here leaves
out. An `ExampleDataset` is what `train` takes in place of a text. How a token is chosen is told in
``generation``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from llmkit import files
from llmkit.arguments import LanguageModel, Tokenizer, check_each, check_number, check_type, shown
from llmkit.data import Draws, check_rows, packaged
from llmkit.evaluation import IGNORE_INDEX, vocab_size_of
from llmkit.runtime import seeded
from llmkit.speed.decoding import continue_prompts

PROMPT_TEMPLATE = "Q: {instruction}\n{input}\nA: "
ANSWER_END = "\n"  # an answer is one line
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
        return PROMPT_TEMPLATE.format(instruction=self.instruction, input=self.input)


def load(path: str | Path | None = None) -> list[Item]:
    """The items of a JSON Lines file, one object a line; None: the project's own.

    Raises FileNotFoundError for no such file; ValueError, with the number of the line, for one that
    is no JSON object, lacks a field, has an answer that is empty or longer than a line, or asks
    what an earlier line asks.
    """
    path = packaged("instructions.jsonl") if path is None else files.as_path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {str(path)!r}; give the path of a JSON Lines file of items"
        )
    items: list[Item] = []
    asked: dict[str, int] = {}  # in which line a prompt came first
    for number, line in enumerate(files.read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            item = _item(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        if item.prompt in asked:
            first = asked[item.prompt]
            raise ValueError(f"{path}, line {number}: asks the same as line {first}; drop one")
        asked[item.prompt] = number
        items.append(item)
    return items


def _item(line: str) -> Item:
    """The item of a line; ValueError for what is wrong with it."""
    try:
        values = files.parse_json(line)
    except ValueError:
        raise ValueError("not a JSON object; write one item a line, as in {...}") from None
    names = [field.name for field in fields(Item)]
    for name in names:
        if name not in values:
            raise ValueError(f"the field {name!r} is missing; an item has {', '.join(names)}")
        if name != "id" and not isinstance(values[name], str):
            raise ValueError(f"the field {name!r} must be a string, not {shown(values[name])}")
    if not values["answer"].strip() or ANSWER_END in values["answer"]:
        raise ValueError(
            f"the answer must be one line that is not empty, not {shown(values['answer'])}"
        )
    return Item(**{name: values[name] for name in names})


def encode(item: Item, tokenizer: Tokenizer, answer_only: bool = True) -> Example:
    """Ids and targets, (N,) each: targets[i] is the id that follows ids[i], or -100.

    -100 stand before the answer; what is left are its tokens and its end. With answer_only=False
    all targets stay, as in a text. ValueError, with the item's id, for what the tokenizer lacks.
    """
    check_type("item", item, Item)
    check_type("tokenizer", tokenizer, Tokenizer)
    check_type("answer_only", answer_only, bool)
    try:
        prompt = tokenizer.encode(item.prompt)
        answer = tokenizer.encode(item.answer + ANSWER_END)
    except ValueError as error:
        raise ValueError(f"item {item.id}: {error}") from None
    whole = torch.cat([prompt, answer])
    ids, targets = whole[:-1], whole[1:].clone()
    if answer_only:  # the prompt's last token predicts the answer's first
        targets[: len(prompt) - 1] = IGNORE_INDEX
    return ids, targets


class ExampleDataset:
    """Examples in rows of equal width: x, y (M, T) int64. `train` takes it in place of a text.

    The loss of an update is the mean over its counted targets, in however many parts (gradient
    accumulation, processes) it is made.
    """

    def __init__(self, x: Tensor, y: Tensor):
        check_rows(x, "x")
        check_rows(y, "y")
        self.x, self.y = x, y

    @property
    def counted(self) -> float:
        """The share of positions whose target counts in the loss."""
        return (self.y != IGNORE_INDEX).float().mean().item()

    def flat(self) -> Tensor:
        """All ids and targets in one sequence (2MT,), by which a resumed run knows its data."""
        return torch.cat([self.x.flatten(), self.y.flatten()])

    def batches(
        self,
        block_size: int,
        batch_size: int,
        seed: int = 0,
        device: str | torch.device | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> ExampleBatches:
        """An endless source of batches, drawn as `Batches` draws its windows."""
        if self.x.size(1) > block_size:
            raise ValueError(
                f"rows of {self.x.size(1)} tokens do not fit into block_size {block_size}; make "
                "them with the model's own block_size"
            )
        return ExampleBatches(self, batch_size, seed, device, rank, world)


class ExampleBatches(Draws):
    """Rows drawn at random, x and y (B, T) each; a seed, and a rank of a world, as in `Batches`."""

    def __init__(
        self,
        dataset: ExampleDataset,
        batch_size: int,
        seed: int,
        device: str | torch.device | None,
        rank: int,
        world: int,
    ):
        super().__init__(len(dataset.x), batch_size, seed, rank, world)
        self.x, self.y = dataset.x.to(device), dataset.y.to(device)

    def __iter__(self) -> ExampleBatches:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        mine = self.draw().to(self.x.device)  # (B,)
        return self.x[mine], self.y[mine]


def pad(examples: Iterable[Example], block_size: int) -> ExampleDataset:
    """Every example in a row of its own, filled up at its end with id 0, which no target counts.

    Attention looks back only, so no counted position sees the filling.
    """
    return _in_rows([[example] for example in _fitting(examples, block_size)], block_size)


def pack(examples: Iterable[Example], block_size: int, seed: int = 0) -> ExampleDataset:
    """Examples one after the other, in rows that are filled as far as the next one fits.

    They come in random order, each in the first row that has room for it. **An example does see
    those before it in its row**: our models have no mask for it. It is acceptable because
    neighbours are drawn at random, so that looking at them does not help, and a text is read in
    training in just this way; but the model meets a prompt at every position, and must learn to
    start afresh there. `pad` is free of it.
    """
    examples = _fitting(examples, block_size)
    order = torch.randperm(len(examples), generator=seeded(seed))
    rows: list[list[Example]] = []
    room: list[int] = []  # what is left in each row
    for i in order.tolist():
        size = len(examples[i][0]) + 1  # and the end of its answer, which is a target only
        row = next((r for r, left in enumerate(room) if size <= left), None)
        if row is None:
            row = len(rows)
            rows.append([])
            room.append(block_size + 1)  # the last example's end needs no place in x
        rows[row].append(examples[i])
        room[row] -= size
    return _in_rows(rows, block_size)


def _fitting(examples: Iterable[Example], block_size: int) -> list[Example]:
    """The examples, each of which must fit into a row."""
    examples = check_each("examples", examples, tuple, wanted="pairs of ids and targets")
    check_number("block_size", block_size, int, least=1)
    if not examples:
        raise ValueError("there are no examples: give at least one")
    for number, (ids, _) in enumerate(examples):
        if len(ids) > block_size:
            raise ValueError(
                f"example {number} has {len(ids)} tokens, which do not fit into block_size "
                f"{block_size}; shorten the item or enlarge the context"
            )
    return examples


def _in_rows(rows: list[list[Example]], block_size: int) -> ExampleDataset:
    x = torch.zeros(len(rows), block_size, dtype=torch.int64)
    y = torch.full_like(x, IGNORE_INDEX)
    for r, examples in enumerate(rows):
        start = 0
        for ids, targets in examples:
            stop = start + len(ids)
            x[r, start:stop], y[r, start:stop] = ids, targets
            if stop < block_size:
                x[r, stop] = targets[-1]  # the answer's end, then the next example
            start = stop + 1
    return ExampleDataset(x, y)


def answer(
    model: LanguageModel, tokenizer: Tokenizer, items: Sequence[Item], max_new_tokens: int = 40
) -> list[str]:
    """The model's answer to each item, greedy, up to `ANSWER_END` or max_new_tokens.

    Prompts of one length are answered together. ValueError, with the item's id, for a prompt that
    leaves no room for an answer in block_size, or has characters that the tokenizer lacks.
    """
    vocab_size_of(model)  # or it is no model
    check_number("max_new_tokens", max_new_tokens, int, least=0)
    block_size = model.config.block_size
    prompts = []
    for item in check_each("items", items, Item):
        ids, _ = encode(item, tokenizer)
        prompt = ids[: len(tokenizer.encode(item.prompt))]
        if len(prompt) >= block_size:
            raise ValueError(
                f"item {item.id}: its prompt of {len(prompt)} tokens leaves no room in block_size "
                f"{block_size}; shorten it or enlarge the context"
            )
        prompts.append(prompt)
    end = tokenizer.encode(ANSWER_END)
    most = min(max_new_tokens, block_size)
    added = continue_prompts(model, prompts, most, stop=end)
    # What came once the window was full, its first half gone, is no answer to the whole prompt.
    rows = [ids[: block_size - len(prompt)] for ids, prompt in zip(added, prompts, strict=True)]
    return [tokenizer.decode(row).split(ANSWER_END)[0] for row in rows]


def exact_match(items: Sequence[Item], answers: Sequence[str]) -> dict[str, float]:
    """The share of answers that are right to the letter: {"all": ..., then each task in order}."""
    items, answers = check_each("items", items, Item), check_each("answers", answers, str)
    if not items or len(items) != len(answers):
        raise ValueError(f"{len(items)} items and {len(answers)} answers: give one for each item")
    right: dict[str, list[bool]] = defaultdict(list)
    for item, given in zip(items, answers, strict=True):
        right[item.task].append(given.strip() == item.answer.strip())
    shares = {"all": sum(sum(marks) for marks in right.values()) / len(items)}
    for task, marks in sorted(right.items()):
        shares[task] = sum(marks) / len(marks)
    return shares
