"""Notebook 13b, preferences and rewards."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from llmkit.exercises.examining import Exercise

Messages = list[dict[str, str]]


def _chat_text(opens: str = "after the user", end: str = "<|im_end|>\n", role: bool = True) -> Any:
    def chat_text(messages: Messages) -> str:
        text = ""
        for message in messages:
            name = message["role"] if role else "user"
            text += f"<|im_start|>{name}\n{message['content']}{end}"
        last = messages[-1]["role"] == "user"
        if opens == "always" or (opens == "after the user" and last):
            text += "<|im_start|>assistant\n"
        return text

    return chat_text


def _pull(sign: float = -1.0, beta: bool = True, loss: bool = False) -> Any:
    def pull(gain: float, beta_: float) -> float:
        z = beta_ * gain
        if loss:
            return math.log(1 + math.exp(-z))
        return (beta_ if beta else 1.0) / (1 + math.exp(-sign * z))

    return pull


def _advantages(over: str = "group", divide: bool = True) -> Any:
    def advantages(rewards: Tensor) -> Tensor:
        if over == "batch":
            mean, spread = rewards.mean(), rewards.std()
        else:
            dim = 1 if over == "group" else 0
            mean, spread = rewards.mean(dim, keepdim=True), rewards.std(dim, keepdim=True)
        return (rewards - mean) / (spread + 1e-4 if divide else 1.0)

    return advantages


def _kl_estimate(kind: str = "k3", sign: float = 1.0) -> Any:
    def kl_estimate(new: Tensor, reference: Tensor) -> Tensor:
        d = sign * (reference - new)
        return {
            "k1": -d,
            "k2": d**2 / 2,
            "k3": d.exp() - d - 1,
            "no one": d.exp() - d,
        }[kind].mean()

    return kl_estimate


def _kept(looks: str = "until it stops", last: bool = False, slack: int = 0) -> Any:
    def kept(held_out: list[float], patience: int) -> int:
        best = 0
        for i, value in enumerate(held_out):
            if value > held_out[best]:
                best = i
            if looks == "until it stops" and i - best >= patience + slack:
                return i if last else best
        return len(held_out) - 1 if last else best

    return kept


USER, ANSWER = {"role": "user", "content": "Who rang?"}, {"role": "assistant", "content": "Perrin."}
SYSTEM = {"role": "system", "content": "Be brief."}
REWARDS = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0]])
HELD_OUT = [0.4, 0.5, 0.6, 0.55, 0.5, 0.45, 0.7]
BROKEN_ADVANTAGES = """
def advantages(rewards):
    return (rewards - rewards.mean()) / (rewards.std() + 1e-4)
"""

EXERCISES = [
    Exercise(
        "13b.advantage_of_the_right",
        reference=1.5,
        checked="0.75 above the mean, and the standard deviation is 0.5",
        mistakes={
            "that is how far it is above the mean; divide by the standard deviation": 0.75,
            "of four numbers the standard deviation divides by three, as torch's does": 3**0.5,
            "that is the reward; the group's mean has to be taken off": 1.0,
            "that is the reward in standard deviations; take the mean off first": 2.0,
        },
        hints=(
            "The mean is 1/4. How far are the four rewards from it, squared?",
            "9/16 and three times 1/16 are 12/16 together; divided by 3 that is 1/4, whose root "
            "is the standard deviation.",
        ),
    ),
    Exercise(
        "13b.chat_text",
        reference=_chat_text(),
        cases=[([USER],), ([USER, ANSWER],), ([SYSTEM, USER, ANSWER, USER],)],
        checked="every turn with its marks, and the assistant's opened where the user spoke last",
        mistakes={
            "where the assistant spoke last, nothing is to be opened": _chat_text("always"),
            "after the user's turn the assistant's must be opened": _chat_text("never"),
            "a line end follows <|im_end|>": _chat_text(end="<|im_end|>"),
            "each turn is opened with its own role": _chat_text(role=False),
        },
        hints=(
            "One turn is <|im_start|>, the role, a line end, the words, <|im_end|>, a line end.",
            "After the loop: where messages[-1]['role'] is 'user', add '<|im_start|>assistant\\n'.",
        ),
    ),
    Exercise(
        "13b.pull",
        reference=_pull(),
        cases=[(0.0, 0.1), (4.0, 0.5), (-4.0, 0.5), (2.0, 1.0), (-3.0, 2.0)],
        checked="half of β at the start, nearly β where the pair is wrong, nearly 0 once learned",
        mistakes={
            "turned round: a pair that is learned should pull least": _pull(sign=1.0),
            "β is missing in front: the loss has β · gain inside": _pull(beta=False),
            "that is the loss itself, not its slope": _pull(loss=True),
        },
        hints=(
            "The derivative of -ln σ(z) is -(1 - σ(z)), which is -σ(-z). Here z = β · gain.",
            "The chain rule brings one more β: β σ(-β · gain), with σ(z) = 1 / (1 + e^-z).",
        ),
    ),
    Exercise(
        "13b.advantages",
        reference=_advantages(),
        cases=[(REWARDS,), (torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 3.0]]),)],
        checked="each answer is compared with the other answers to its own prompt",
        mistakes={
            "a column holds answers to different prompts; a group is a row": _advantages("column"),
            "divide by each group's own standard deviation": _advantages(divide=False),
            "that is what it was: hard prompts are punished, easy ones praised": _advantages(
                "batch"
            ),
        },
        hints=(
            "Where one prompt is easy and another hard, what does the mean over both tell of an "
            "answer?",
            "mean and std take dim=1 and keepdim=True, so that each row has its own.",
        ),
        stub=BROKEN_ADVANTAGES,
    ),
    Exercise(
        "13b.kl_estimate",
        reference=_kl_estimate(),
        cases=[
            (torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -2.0])),
            (torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-3.0, -1.0, -0.5])),
            (torch.tensor([-2.0, -2.0]), torch.tensor([-1.0, -1.5])),
        ],
        checked="0 where both agree, above 0 for every token where they do not",
        mistakes={
            "right on average, but a token may give less than 0": _kl_estimate("k1"),
            "that is close where both nearly agree, and biased where not": _kl_estimate("k2"),
            "d is reference - new, for the tokens were drawn by new": _kl_estimate(sign=-1.0),
            "it should be 0 where both agree": _kl_estimate("no one"),
        },
        hints=(
            "d = reference - new, for each token. What is e^d - d - 1 at d = 0, and near it?",
            "Then the mean over the tokens.",
        ),
    ),
    Exercise(
        "13b.kept",
        reference=_kept(),
        cases=[
            ([0.4], 2),
            ([0.4, 0.5, 0.6], 2),
            ([0.5, 0.5], 2),
            (HELD_OUT, 1),
            (HELD_OUT, 3),
            (HELD_OUT, 4),
            ([0.5, 0.5, 0.5, 0.6], 3),
            ([0.5, 0.4, 0.3, 0.6], 2),
        ],
        checked="the best measurement before patience ran out",
        mistakes={
            "it looks at measurements after the run has ended": _kept("at all"),
            "that is where the run stops; the best one before it is kept": _kept(last=True),
            "it waits one measurement too long": _kept(slack=1),
            "it stops one measurement too soon": _kept(slack=-1),
        },
        hints=(
            "Walk through the list and remember where the best so far was (a later equal is not "
            "better).",
            "At place i with the best at b: where i - b reaches patience, the run ends; return b.",
        ),
    ),
]
