"""Notebook 10, speed."""

from __future__ import annotations

import math
import statistics
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from llmkit.exercises.examining import Exercise


class PretendDevice:
    """A device with a clock of its own, which works on after a call has returned, as a GPU does.

    seconds: what each call of `work` takes, in order; from the last on, all the same.
    """

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = seconds
        self.calls = 0
        self.now = 0.0  # what the clock shows
        self.done = 0.0  # when all that was started will be done

    def work(self) -> None:
        """Start a piece of work, and return after a thousandth of a second."""
        takes = self.seconds[min(self.calls, len(self.seconds) - 1)]
        self.calls += 1
        self.done = max(self.now, self.done) + takes
        self.now += 0.001

    def wait(self) -> None:
        """Return when all work is done."""
        self.now = max(self.now, self.done)

    def clock(self) -> float:
        """The time in seconds."""
        return self.now

    def __repr__(self) -> str:
        return f"PretendDevice({self.seconds})"


def _timer(waits: bool = True, warms_up: bool = True, middle: Any = statistics.median) -> Any:
    """A clock, and what is often made of it."""

    def median_seconds(device: PretendDevice, repeats: int) -> float:
        times = []
        for _ in range(repeats + warms_up):
            before = device.clock()
            device.work()
            if waits:
                device.wait()
            times.append(device.clock() - before)
            device.wait()
        return middle(times[warms_up:])

    return median_seconds


class _Products(TorchDispatchMode):
    """Counts the matrix products that are computed inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        name = function.overloadpacket.__name__
        self.count += name in ("mm", "bmm", "addmm", "baddbmm", "mv", "dot")
        return function(*args, **(kwargs or {}))


def _counted(answer: Any) -> Any:
    """What an answer gives, and by how many products."""

    def counted(*arguments: Any) -> Any:
        with _Products() as products:
            result = answer(*arguments)
        if not isinstance(result, (list, tuple)):
            return result
        return {"q, k, v": tuple(result), "products": products.count}

    return counted


def _all_heads(order: str = "part, head", dim: int = 1) -> Any:
    """Queries, keys and values by one product, read in the right order or in another."""

    def all_heads(x: Tensor, queries: list, keys: list, values: list) -> tuple[Tensor, ...]:
        H = len(queries)
        y = F.linear(x, torch.cat([*queries, *keys, *values]))  # (B, T, 3 H D)
        if order == "part, head":
            parts = y.chunk(3, dim=-1)
        else:  # as if the matrices lay head by head
            parts = tuple(torch.cat(y.chunk(3 * H, dim=-1)[i::3], dim=-1) for i in range(3))
        return tuple(torch.stack(part.chunk(H, dim=-1), dim=dim) for part in parts)

    return all_heads


def _head_by_head(x: Tensor, queries: list, keys: list, values: list) -> tuple[Tensor, ...]:
    parts = (queries, keys, values)
    return tuple(torch.stack([x @ matrix.T for matrix in part], dim=1) for part in parts)


def _part_by_part(x: Tensor, queries: list, keys: list, values: list) -> tuple[Tensor, ...]:
    parts = (queries, keys, values)
    return tuple((x @ torch.cat(p).T).unflatten(-1, (len(p), -1)).transpose(1, 2) for p in parts)


def _heads(B: int, T: int, C: int, H: int, D: int) -> tuple[Any, ...]:
    draw = torch.Generator().manual_seed(B + T)
    matrices = [[torch.randn(D, C, generator=draw) for _ in range(H)] for _ in "qkv"]
    return torch.randn(B, T, C, generator=draw), *matrices


def _as_soon(first: list, second: list) -> float:
    seconds, goal = first[-1]
    return next((seconds / when for when, loss in second if loss <= goal), 0.0)


def _polar(gradient: Tensor) -> Tensor:
    U, _, Vh = torch.linalg.svd(gradient, full_matrices=False)
    return U @ Vh


def _products(steps: int = 40, divided: bool = True) -> Any:
    """Muon's idea, with the cubic polynomial."""

    def equal_stretches(gradient: Tensor) -> Tensor:
        X = gradient / gradient.norm() if divided else gradient
        for _ in range(steps):
            X = 1.5 * X - 0.5 * X @ X.T @ X
        return X

    return equal_stretches


def _stretched(rows: int, columns: int, least: float) -> tuple[Tensor]:
    """A matrix whose stretches go from 2 down to `least`."""
    draw = torch.Generator().manual_seed(rows)
    U, _, Vh = torch.linalg.svd(torch.randn(rows, columns, generator=draw), full_matrices=False)
    return (U * torch.linspace(2, least, len(Vh)) @ Vh,)


PART = """
def times_as_fast(share: float, factor: float) -> float:
    return None  # your answer
"""
BROKEN = """
def median_seconds(device: PretendDevice, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        before = device.clock()
        device.work()
        times.append(device.clock() - before)
        device.wait()
    return sum(times) / len(times)
"""
HEADS = '''
def all_heads(x: torch.Tensor, queries: list, keys: list, values: list) -> tuple:
    """x (B, T, C); of each head a matrix (D, C) -> q, k, v, each (B, H, T, D)"""
    return tuple(
        torch.stack([x @ matrix.T for matrix in matrices], dim=1)
        for matrices in (queries, keys, values)
    )
'''
STRETCHES = """
def equal_stretches(gradient: torch.Tensor) -> torch.Tensor:
    return gradient / gradient.norm()
"""

EXERCISES = [
    Exercise(
        "10.rounded_numbers",
        reference=tuple(
            torch.tensor(number, dtype=dtype).item()
            for number, dtype in (
                (1.01, torch.bfloat16),
                (1.001, torch.bfloat16),
                (100_000, torch.float16),
                (1e-9, torch.float16),
            )
        ),
        checked="1 + 1/128 and 1; infinity and 0: bfloat16 lacks digits, float16 range",
        mistakes={
            "nothing is rounded: 16 bits cannot hold these": (1.01, 1.001, 100_000.0, 1e-9),
            "those are float16's steps above 1: bfloat16's are 1/128": (
                *torch.tensor([1.01, 1.001], dtype=torch.float16).tolist(),
                math.inf,
                0.0,
            ),
            "too large a number becomes infinity, not the largest one": (
                1.0078125,
                1.0,
                65504.0,
                0.0,
            ),
            "1.01 is nearer to 1 + 1/128 = 1.0078 than to 1": (1.0, 1.0, math.inf, 0.0),
        },
        hints=(
            "The last column of the table is the distance between neighbours just above 1.",
            "bfloat16 has 1, 1 + 1/128, 1 + 2/128, ...: take the nearest.",
            "float16 ends at 65,504; what is larger becomes infinity, what is tiny becomes 0.",
        ),
    ),
    Exercise(
        "10.times_as_fast",
        reference=lambda share, factor: 100 / (100 - 100 * share * (factor - 1) / factor),
        checked="what is left is 1 - share, and share / factor of the part",
        cases=[(1.0, 2.0), (0.0, 5.0), (0.5, 2.0), (0.01, 10.0), (0.9, 1.5), (0.25, 1e9)],
        mistakes={
            "the rest of the step does not become faster": lambda share, factor: factor,
            "times add up, speeds do not: work with the time that is left": lambda s, f: (
                1 - s + s * f
            ),
            "that is the time that is left: the speed is one over it": lambda s, f: 1 - s + s / f,
            "the part still takes share / factor": lambda s, f: 1 / (1 - s) if s < 1 else math.inf,
        },
        hints=(
            "Let the step take 1. What does the part take afterwards, and what does the rest?",
            "It takes 1 - share + share / factor.",
            "As many times as fast as the old time divided by the new one.",
        ),
        stub=PART,
    ),
    Exercise(
        "10.median_seconds",
        reference=lambda device, repeats: statistics.median(device.seconds[1 : repeats + 1]),
        checked="the clock waits for the device, the first call is left out, odd ones do not count",
        cases=[
            (PretendDevice([2.0, 2.0]), 1),
            (PretendDevice([9.0, 2.0, 2.0, 30.0]), 3),
            (PretendDevice([9.0, 3.0, 1.0]), 2),
            (PretendDevice([9.0, 1.0, 2.0, 7.0, 3.0, 30.0, 2.5, 99.0]), 6),
        ],
        mistakes={
            "the clock is read before the device is done: wait() first": _timer(waits=False),
            "the first call, which warms up, is counted": _timer(warms_up=False),
            "a mean follows every odd call: take the median": _timer(middle=statistics.mean),
            "the least is a lucky call: take the median": _timer(middle=min),
            "it waits now; the call that warms up and the mean are left": _timer(
                warms_up=False, middle=statistics.mean
            ),
        },
        hints=(
            "What does the clock show right after work()? Ask the pretend device.",
            "Wait before the second reading of the clock, and call work() once before the loop.",
            "One disturbed call moves the mean as far as it likes: statistics.median.",
        ),
        stub=BROKEN,
    ),
    Exercise(
        "10.all_heads",
        reference=_all_heads(),
        checked="the queries, keys and values of all heads, by one product",
        cases=[_heads(1, 1, 2, 1, 2), _heads(1, 3, 4, 2, 2), _heads(2, 5, 12, 3, 4)],
        mistakes={
            "the right numbers, by a product for each head and part": _head_by_head,
            "the right numbers, by three products: one matrix can hold all three": _part_by_part,
            "the shape is (B, T, H, D): the heads come before the positions": _all_heads(dim=2),
            "parts and heads are mixed up: all queries lie first, then all keys": _all_heads(
                "head, part"
            ),
        },
        hints=(
            "torch.cat puts the matrices of all heads one below the other: (3 H D, C).",
            "One product then gives (B, T, 3 H D). In which order do the 3 H D numbers lie?",
            "unflatten(-1, (3, H, -1)), then permute to (3, B, H, T, D).",
        ),
        stub=HEADS,
        prepare=_counted,
    ),
    Exercise(
        "10.times_as_soon",
        reference=_as_soon,
        checked="the first time that the loss is reached, also where it is lost again, or never",
        cases=[
            ([(10.0, 2.0)], [(5.0, 2.0)]),
            ([(10.0, 2.0)], [(5.0, 3.0)]),
            ([(1.0, 3.0), (12.0, 2.5)], [(1.0, 2.8), (3.0, 2.4), (6.0, 2.0)]),
            ([(2.0, 2.0), (8.0, 2.5)], [(1.0, 2.6), (4.0, 2.3), (5.0, 1.9)]),
            ([(9.0, 2.0)], [(1.0, 2.2), (3.0, 1.9), (6.0, 2.1), (9.0, 1.8)]),
        ],
        mistakes={
            "that compares when both end, whatever their losses": lambda a, b: a[-1][0] / b[-1][0],
            "the first run's last loss is the goal, not its best": lambda a, b: next(
                (a[-1][0] / when for when, loss in b if loss <= min(x for _, x in a)), 0.0
            ),
            "it is upside down: the first run's seconds by the second's": lambda a, b: (
                1 / _as_soon(a, b) if _as_soon(a, b) else 0.0
            ),
            "an equal loss has reached the goal too": lambda a, b: next(
                (a[-1][0] / when for when, loss in b if loss < a[-1][1]), 0.0
            ),
            "that is when the loss is reached for the last time": lambda a, b: next(
                (a[-1][0] / when for when, loss in b[::-1] if loss <= a[-1][1]), 0.0
            ),
        },
        hints=(
            "seconds, goal = first[-1]",
            "Go through the second run and keep the times at which loss <= goal.",
            "The first of those divides `seconds`; without any, the answer is 0.",
        ),
    ),
    Exercise(
        "10.equal_stretches",
        reference=_polar,
        checked="the same directions with all stretches 1, for wide, tall and square matrices",
        cases=[
            (torch.tensor([[0.5]]),),
            (torch.tensor([[3.0, 0.0], [0.0, -1.0]]),),
            _stretched(3, 5, 0.5),
            _stretched(6, 2, 0.1),
            _stretched(8, 8, 0.05),
        ],
        mistakes={
            "divided, but the weak directions are as weak as before": lambda g: g / g.norm(),
            "five repetitions are too few for the weakest directions": _products(5),
            "without the division by the norm it does not settle": _products(divided=False),
            "each number has size 1 now, not each stretch": lambda g: g.sign(),
            "each row has length 1 now, not each stretch": lambda g: F.normalize(g, dim=1),
        },
        hints=(
            "X = gradient / gradient.norm(), then a loop.",
            "X = 1.5 * X - 0.5 * X @ X.T @ X; print torch.linalg.svdvals(X) as you go.",
            "A stretch of 0.01 grows by half each time: 40 repetitions are enough.",
        ),
        stub=STRETCHES,
        tolerance=1e-3,
    ),
]
