"""Notebook 03b, backpropagation and a window of characters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmkit.exercises.examining import Exercise


class Number:
    """What the notebook's ``Value`` is: a number, and (parent, slope) for all it was made of."""

    def __init__(self, data: float, parents: Any = ()):
        self.data, self.grad, self.parents = data, 0.0, parents

    def __add__(self, other: Number) -> Number:
        return Number(self.data + other.data, [(self, 1.0), (other, 1.0)])

    def __mul__(self, other: Number) -> Number:
        return Number(self.data * other.data, [(self, other.data), (other, self.data)])

    def exp(self) -> Number:
        return Number(math.exp(self.data), [(self, math.exp(self.data))])

    def log(self) -> Number:
        return Number(math.log(self.data), [(self, 1 / self.data)])


def _follow_paths(loss: Any) -> None:
    """Slopes by another way than the notebook's: every path from the loss, one by one."""

    def clear(value: Any) -> None:
        value.grad = 0.0
        for parent, _ in value.parents:
            clear(parent)

    def follow(value: Any, slope: float) -> None:
        value.grad += slope
        for parent, local in value.parents:
            follow(parent, slope * local)

    clear(loss)
    follow(loss, 1.0)


def _faulty(*faults: str) -> Callable[[Any], None]:
    """A backward with some of the faults of the broken one."""

    def backward(loss: Any) -> None:
        done: list[Any] = []

        def order(value: Any) -> None:
            for parent, _ in value.parents:
                if parent not in done:
                    order(parent)
            done.append(value)

        order(loss)
        if "old" not in faults:
            for value in done:
                value.grad = 0.0
        loss.grad = 0.0 if "seed" in faults else 1.0
        todo = [loss] if "order" in faults else done[::-1]
        while todo:
            value = todo.pop(0)
            for parent, slope in value.parents:
                new = slope * value.grad
                parent.grad = new if "set" in faults else parent.grad + new
                if "order" in faults:
                    todo.append(parent)

    return backward


def _slopes_by(backward: Callable[[Any], Any]) -> Callable[..., dict[str, float] | None]:
    """What a backward makes of a formula: its slopes, after so many calls."""

    def slopes(formula: str, numbers: dict[str, float], calls: int) -> dict[str, float] | None:
        made: dict[str, Any] = {name: Number(number) for name, number in numbers.items()}
        loss = eval(formula, {}, made)  # noqa: S307 - the cases below
        loss.grad = untouched = float("0")  # an object of its own
        for _ in range(calls):
            returned = backward(loss)
        if returned is None and loss.grad is untouched:
            return None  # nothing was done
        return {name: made[name].grad for name in numbers}

    return slopes


FAULTS = {
    "set": "a slope is overwritten where a number is used twice: use +=",
    "order": "a number hands on its slope before it has all of it, or more than once: use in_order",
    "old": "at a second call the slopes of the first are still there: set all to 0 first",
    "seed": "nothing arrives: the slope of the loss for itself is 1",
}


def _windows(
    shift: int = 0, less: int = 0, apart: bool = False, reverse: bool = False
) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    """Pieces of k and what follows them, with some mistake."""

    def windows(ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
        row = ids.tolist()
        starts = range(0, len(row) - k - less, k + 1 if apart else 1)
        pieces = [row[i : i + k][:: -1 if reverse else 1] for i in starts]
        return torch.tensor(pieces).reshape(-1, k), torch.tensor(
            [row[i + k - shift] for i in starts]
        )

    return windows


def _parameters(
    embedded: int = 1, biases: int = 2, wide: bool = True
) -> Callable[[int, int, int, int], int]:
    """How many numbers the model has, with some mistake."""

    def parameters(k: int, V: int, C: int, H: int) -> int:
        slots = k if wide else 1
        some = {0: 0, 1: H, 2: H + V, 3: 2 * H, 4: V}[biases]
        return (k if embedded == 2 else embedded) * V * C + slots * C * H + H * V + some

    return parameters


def _counted(k: int, V: int, C: int, H: int) -> int:
    """As PyTorch counts them."""
    parts = torch.nn.ModuleList(
        [torch.nn.Embedding(V, C), torch.nn.Linear(k * C, H), torch.nn.Linear(H, V)]
    )
    return sum(p.numel() for p in parts.parameters())


def _tanh_of(slope: Callable[[float, float], float]) -> Callable[[Any], Any]:
    """tanh with this slope, a function of the input and of the output."""
    return lambda a: Number(math.tanh(a.data), [(a, slope(a.data, math.tanh(a.data)))])


def _in_a_formula(tanh_of: Callable[[Any], Any]) -> Callable[[float], list[float] | None]:
    """The value of tanh_of(a), its slope, and that of its square."""

    def tried(x: float) -> list[float] | None:
        a, again = Number(x), Number(x)
        out = tanh_of(a)
        if out is None:
            return None
        if not hasattr(out, "parents"):
            raise TypeError(f"a Value is wanted, not a {type(out).__name__}")
        other = tanh_of(again)
        a.grad = again.grad = 0.0  # an answer may have set it by itself
        _follow_paths(out)
        _follow_paths(other * other)
        return [out.data, a.grad, again.grad]

    return tried


def _by_autograd(x: Tensor, W: Tensor, U: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    W, U = W.clone().requires_grad_(), U.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy((x @ W).tanh() @ U, y), (W, U))


def _by_hand(
    mean: bool = True, tanh: str = "right", target: bool = True
) -> Callable[..., tuple[Tensor, Tensor]]:
    """The slopes of a network of two layers, with some mistake."""

    def by_hand(x: Tensor, W: Tensor, U: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = x @ W
        h = z.tanh()
        slope = (h @ U).softmax(1) - (F.one_hot(y, U.shape[1]) if target else 0)
        slope = slope / len(y) if mean else slope
        bend = {"right": 1 - h * h, "none": torch.ones_like(h), "input": 1 - z * z}[tanh]
        return x.T @ (slope @ U.T * bend), h.T @ slope

    return by_hand


def _network(B: int, D: int, H: int, V: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(B + D + H + V)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    return drawn(B, D), drawn(D, H), drawn(H, V), torch.randint(V, (B,), generator=draw)


BROKEN = """
def repaired(loss):
    loss.grad = 1.0
    todo = [loss]
    while todo:
        value = todo.pop(0)
        for parent, slope in value.parents:
            parent.grad = slope * value.grad
            todo.append(parent)
"""

EXERCISES = [
    Exercise(
        "03b.slopes",
        reference=(-1, 4, 2),
        checked="for a: 1 from the last product, and -2 by way of a · b",
        mistakes={
            "a is used twice, and the path by way of a · b is missing: -2 more": (1, 4, 2),
            "a is used twice, and the path from the last product is missing: 1 more": (-2, 4, 2),
            "on the way from b to the loss a is met twice: the slopes 2 and 2, multiplied": (
                -1,
                2,
                2,
            ),
            "for c: the sum has slope 1, and the product then has the slope a": (-1, 4, 1),
            "those are the values, not the slopes": (2, -1, 3),
        },
        hints=(
            "Let s = a · b + c. Its value is 1, and the loss is s · a.",
            "The slope of the loss for s is a = 2, and what s hands on to b is 2 times a.",
            "For a there are two paths: by the last product, the slope is s; by way of s, it is "
            "2 times the slope of s for a, which is b.",
        ),
    ),
    Exercise(
        "03b.windows",
        reference=_windows(),
        checked="every piece of k characters that has a character after it, and that character",
        cases=[
            (torch.tensor([5, 6, 7, 8]), 2),
            (torch.tensor([0, 1, 2, 3, 4, 5]), 1),
            (torch.tensor([3, 1, 4, 1, 5, 9, 2, 6]), 3),
            (torch.arange(12), 4),
        ],
        mistakes={
            "the answer is the window's own last character: it is the one after": _windows(shift=1),
            "the last window is missing": _windows(less=1),
            "the windows overlap: the next begins one character later": _windows(apart=True),
            "the characters of a window stand in the order of the text": _windows(reverse=True),
        },
        hints=(
            "A text of N characters has N - k windows of k that have a character after them.",
            "ids.unfold(0, size, 1) gives all pieces of that size: here k + 1, answer included.",
            "pieces[:, :k] and pieces[:, k]",
        ),
    ),
    Exercise(
        "03b.parameters",
        reference=_counted,
        checked="V · C in the table, k · C · H + H in the hidden layer, H · V + V in the head",
        cases=[(1, 2, 3, 4), (2, 5, 3, 4), (4, 65, 24, 256), (16, 65, 24, 256)],
        mistakes={
            "a linear layer has a bias, too: H numbers, and V": _parameters(biases=0),
            "the bias of the head is missing: V numbers": _parameters(biases=1),
            "the bias of the hidden layer is missing: H numbers": _parameters(biases=4),
            "the head's bias has a number for each logit: V, not H": _parameters(biases=3),
            "the table is there once: all k characters are looked up in it": _parameters(2),
            "the hidden layer sees k rows side by side: k · C numbers": _parameters(wide=False),
            "the table of the embedding is missing: V · C": _parameters(0),
        },
        hints=(
            "Three parts: a table with a row of C for each character, and two linear layers.",
            "A linear layer from a numbers to b has a · b weights and b biases.",
            "The hidden layer goes from k · C to H, the head from H to V.",
        ),
    ),
    Exercise(
        "03b.tanh_of",
        reference=_tanh_of(lambda x, t: math.cosh(x) ** -2),
        checked="the value, the slope 1 - tanh², and how it is passed on",
        cases=[(0.0,), (0.5,), (-1.2,), (2.0,)],
        prepare=_in_a_formula,
        mistakes={
            "the square is that of the output, tanh(a), not of a": _tanh_of(lambda x, t: 1 - x * x),
            "the slope is the output: it is 1 - output²": _tanh_of(lambda x, t: t),
            "the slope is 1: how steep is tanh far from 0?": _tanh_of(lambda x, t: 1.0),
            "1 - tanh is not the slope: square it": _tanh_of(lambda x, t: 1 - t),
            "a gets no slope: hand (a, slope) on in a list": lambda a: Number(math.tanh(a.data)),
        },
        hints=(
            "exp is the model: a new Value, and in its list the pair (a, slope).",
            "The derivative of tanh is 1 - tanh².",
            "t = math.tanh(a.data), and then Value(t, [(a, 1 - t * t)])",
        ),
    ),
    Exercise(
        "03b.repaired",
        reference=_follow_paths,
        checked="the right slopes where numbers are used more than once, at every call",
        cases=[
            ("a * b", {"a": 2.0, "b": 3.0}, 1),
            ("a * a + a", {"a": 3.0}, 1),
            ("(c := a * b) * c + c", {"a": 2.0, "b": -1.0}, 1),
            ("(c := a + b) + (d := c * c) * d * c", {"a": 0.5, "b": 0.7}, 1),
            ("(c := a * b).exp() * c + c.exp().log()", {"a": 0.5, "b": 0.7}, 2),
        ],
        prepare=_slopes_by,
        mistakes={
            "; and ".join(FAULTS[fault] for fault in left): _faulty(*left)
            for left in [
                ("set",),
                ("order",),
                ("old",),
                ("seed",),
                ("set", "order"),
                ("order", "old"),
            ]
        },
        hints=(
            "Compute a * a + a for a = 3 on paper. What stays of the three slopes that a is sent?",
            "in_order(loss, []) lists each number once; a number stands after all it was made of.",
            "First all grads 0, then that of the loss 1; then backwards through the list, with +=.",
        ),
        stub=BROKEN,
    ),
    Exercise(
        "03b.by_hand",
        reference=_by_autograd,
        checked="the slopes for both matrices, as PyTorch's backward finds them",
        cases=[
            _network(1, 1, 1, 2),
            _network(1, 2, 3, 2),
            _network(3, 2, 4, 3),
            _network(5, 4, 3, 6),
        ],
        mistakes={
            "the loss is a mean over B rows: divide by their number": _by_hand(mean=False),
            "on the way back through tanh, multiply by 1 - h²": _by_hand(tanh="none"),
            "1 - tanh² is to be taken of h, the output of tanh": _by_hand(tanh="input"),
            "predicted minus happened: subtract 1 at the right answer of each row": _by_hand(
                target=False
            ),
            "the other way round: first that for W, then that for U": lambda *given: _by_hand()(
                *given
            )[::-1],
        },
        hints=(
            "The slope for the logits is p - 1 at the right answer, p elsewhere, divided by B.",
            "For out = h @ U: the slope for U is h.T @ slope, the one for h is slope @ U.T. Check "
            "the shapes: they leave no choice.",
            "Then times 1 - h * h, and x.T @ that.",
        ),
        tolerance=1e-6,
    ),
]
