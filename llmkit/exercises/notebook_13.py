"""Notebook 13, instruction tuning."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from llmkit.evaluation import IGNORE_INDEX
from llmkit.exercises.examining import Exercise

END = 0  # of the ids in the cases


def _targets(first: int = -1, end: bool = True, of: int = 1) -> Any:
    """What is to be predicted, -100 where it is not counted. first: where counting begins, seen
    from the prompt's length; of: 1 for the next ids, 0 for the ids themselves."""

    def targets(prompt: list[int], answer: list[int]) -> list[int]:
        whole = [*prompt, *answer, *([END] if end else [])]
        y = whole[of : len(whole) - 1 + of]
        masked = max(len(prompt) + first, 0)
        return [IGNORE_INDEX] * masked + y[masked:]

    return targets


def _items_apart(causal: bool = True, blocks: bool = True, neighbour: bool = False) -> Any:
    def items_apart(item: Tensor) -> Tensor:
        T = len(item)
        rows = []
        for t in range(T):
            same = [
                int(item[t]) - int(item[s]) in ((0, 1) if neighbour else (0,)) for s in range(T)
            ]
            rows.append([(same[s] or not blocks) and (s <= t or not causal) for s in range(T)])
        return torch.tensor(rows)

    return items_apart


def _dpo(reference: bool = True, sign: float = 1.0, inside: bool = True, log: bool = True) -> Any:
    def dpo_loss(
        chosen: float, rejected: float, ref_chosen: float, ref_rejected: float, beta: float
    ) -> float:
        gap = chosen - rejected - (ref_chosen - ref_rejected if reference else 0.0)
        preferred = 1 / (1 + math.exp(-sign * gap * (beta if inside else 1.0)))
        return (-math.log(preferred) if log else -preferred) * (1.0 if inside else beta)

    return dpo_loss


def _chat(user_end: bool = False, last: bool = False, own_end: bool = True) -> Any:
    def counted(turns: list[tuple[str, str]]) -> str:
        marks, replies = "", [i for i, (role, _) in enumerate(turns) if role == "A"]
        for i, (role, words) in enumerate(turns):
            counts = role == "A" and (not last or i == replies[-1])
            marks += "." * 3 + ("x" if counts else ".") * len(words)
            marks += "x" if (counts and own_end) or (role == "U" and user_end) else "."
        return marks

    return counted


def _runs(words: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _bleu(
    mean: str = "geometric",
    clip: bool = True,
    short: bool = True,
    long: bool = False,
    most: int = 4,
) -> Any:
    def bleu_by_hand(answer: str, reference: str) -> float:
        said, wanted = answer.split(), reference.split()
        shares = []
        for n in range(1, most + 1):
            mine, theirs = _runs(said, n), _runs(wanted, n)
            if clip:
                hits = sum(min(count, theirs[run]) for run, count in mine.items())
            else:
                hits = sum(count for run, count in mine.items() if run in theirs)
            shares.append(hits / mine.total())
        geometric = mean == "geometric"
        score = math.prod(shares) ** (1 / most) if geometric else sum(shares) / most
        if (short and len(said) < len(wanted)) or (long and len(said) > len(wanted)):
            score *= math.exp(1 - len(wanted) / len(said))
        return 100 * score

    return bleu_by_hand


ROW = [1, 1, 1, 2, 2, 3]
CHAT = [("U", "Hi"), ("A", "Good day"), ("U", "Who?"), ("A", "Me")]
BROKEN_CHAT = """
def counted(turns):
    marks = ""
    for role, words in turns:
        line = f"{role}: {words}\\n"
        marks += ("x" if role == "A" else ".") * len(line)
    return marks
"""

EXERCISES = [
    Exercise(
        "13.targets_of_eel",
        reference=4,
        checked="three letters and the end of the line",
        mistakes={
            "the end of the answer is learned too, or the model would never stop": 3,
            "that counts the prompt's characters too": 24,
            "the space after A: belongs to the prompt": 5,
        },
        hints=(
            "Only what the model must say counts: the answer, and whatever tells that it is over.",
            "The answer is lee, and an answer ends with a line end.",
        ),
    ),
    Exercise(
        "13.targets",
        reference=_targets(),
        cases=[([5], [7]), ([5, 6, 7], [8, 9]), ([5, 6], []), ([4, 4, 4, 4], [4, 4])],
        checked="the prompt's last id predicts the answer's first, and the answer's last its end",
        mistakes={
            "one too many is masked: the prompt's last id predicts the answer's first": _targets(0),
            "one too few is masked: the prompt is not to be predicted": _targets(-2),
            "the end is missing: a model that never learns it never stops": _targets(end=False),
            "those are the ids themselves; targets are the ids that come next": _targets(of=0),
        },
        hints=(
            "Write down whole = prompt + answer + [END], below each id the one that follows.",
            "y = whole[1:]. Of those, the first len(prompt) - 1 are ids of the prompt.",
        ),
    ),
    Exercise(
        "13.items_apart",
        reference=_items_apart(),
        cases=[(torch.tensor([1, 2]),), (torch.tensor([1, 1, 2]),), (torch.tensor(ROW),)],
        checked="a position sees its own item, up to itself",
        mistakes={
            "a position may look ahead within its item": _items_apart(causal=False),
            "the causal mask alone: items see those before them": _items_apart(blocks=False),
            "the item before is let in too": _items_apart(neighbour=True),
        },
        hints=(
            "Two conditions, both (T, T): the same item, and not later. Combine them with &.",
            "item[:, None] == item compares each position with each; llmkit.causal_mask(T) is the "
            "other one.",
        ),
    ),
    Exercise(
        "13.counted",
        reference=_chat(),
        cases=[([("A", "No")],), ([("U", "Hi"), ("A", "No")],), (CHAT,)],
        checked="every reply counts with its end, and nothing that the user or the template says",
        mistakes={
            "the end of the user's turn is not the model's to say": _chat(user_end=True),
            "only the last reply counts": _chat(last=True),
            "a reply's end does not count": _chat(own_end=False),
        },
        hints=(
            "Who types `A: `? The program that asks, for it wants a reply. So the model need not.",
            'Each turn has three parts: the tag of three characters ("U: "), the words, the end.',
            "The tag never counts; words and end count where the role is A.",
        ),
        stub=BROKEN_CHAT,
    ),
    Exercise(
        "13.dpo_loss",
        reference=_dpo(),
        cases=[
            (-5.0, -5.0, -5.0, -5.0, 0.1),
            (-4.0, -6.0, -5.0, -5.0, 0.5),
            (-9.0, -3.0, -4.0, -4.0, 0.5),
            (-2.0, -6.0, -1.0, -7.0, 1.0),
        ],
        checked="ln 2 at the reference, less where the chosen answer gains on the rejected one",
        mistakes={
            "the reference is left out": _dpo(reference=False),
            "the sign is turned round: this prefers the rejected answer": _dpo(sign=-1.0),
            "β belongs inside the sigmoid": _dpo(inside=False),
            "the logarithm is missing": _dpo(log=False),
        },
        hints=(
            "How much more likely has each answer become than it was for the reference? Each is a "
            "difference of logarithms.",
            "gap = (chosen - ref_chosen) - (rejected - ref_rejected). The loss is -ln σ(β · gap), "
            "with σ(z) = 1 / (1 + e^-z).",
        ),
    ),
    Exercise(
        "13.bleu_by_hand",
        reference=_bleu(),
        cases=[
            ("a b c d", "a b c d"),
            ("a b c d e", "a b c d x"),
            ("a b c d", "a b c d e f"),
            ("a b c d e f", "a b c d"),
            ("the the cat sat on the mat", "the cat sat on the mat at noon"),
        ],
        checked="runs of one to four words, each counted as often as the reference has it, and a "
        "price for being short",
        mistakes={
            "take the geometric mean of the four shares, not the arithmetic": _bleu("arithmetic"),
            "a run counts only as often as the reference has it": _bleu(clip=False),
            "an answer shorter than the reference pays for it": _bleu(short=False),
            "a long answer gains nothing by its length": _bleu(long=True),
            "runs of four words count too": _bleu(most=3),
        },
        hints=(
            "For n = 1 to 4: which share of the answer's runs of n words has the reference too? "
            "A Counter of tuples counts the runs.",
            "Of a run that the answer has 3 times and the reference twice, 2 count. Multiply the "
            "four shares and take the fourth root.",
            "Where the answer has c words and the reference r > c, multiply by e^(1 - r/c).",
        ),
    ),
]  # fmt: skip
