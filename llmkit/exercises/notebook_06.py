"""Notebook 06, training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmkit.data import Batches, split
from llmkit.exercises.examining import Exercise


def _trapezoid(step: int, steps: int, warmup: int) -> float:
    corners = [-1, warmup - 1, steps - 1 - steps // 5, steps - 1]
    return float(np.interp(step, corners, [0, 1, 1, 0]))


def _shape(rise: int = 1, late: int = 0, parts: int = 5, plateau: bool = True) -> Any:
    """Schedules like the trapezoid, each with something else wrong."""

    def share(step: int, steps: int, warmup: int) -> float:
        if step < warmup:
            return (step + rise) / warmup
        fall = steps // parts if plateau else steps - 1 - warmup
        return min(1.0, (steps - 1 + late - step) / fall)

    return share


def _early_stop(losses: Sequence[float], patience: int) -> tuple[int, int]:
    for n in range(1, len(losses) + 1):
        best = int(np.argmin(losses[:n])) + 1
        if n - best >= patience:
            return n, best
    return len(losses), int(np.argmin(losses)) + 1


def _stop(
    first: int = 1, late: int = 0, against: str = "best", reset: bool = True, ties: bool = False
) -> Any:
    """Early stopping by a counter, and the ways in which it is often wrong."""

    def early_stop(losses: Sequence[float], patience: int) -> tuple[int, int]:
        best, waited = 0, 0
        for i, loss in enumerate(losses):
            level = losses[best] if against == "best" else losses[max(0, i - 1)]
            waited += i > 0 and not (loss < level or (ties and loss == level))
            if loss < losses[best] or (ties and loss == losses[best]):
                best = i
            if i > 0 and reset and (loss < level or (ties and loss == level)):
                waited = 0
            if waited >= patience + late:
                return i + first, best + first
        return len(losses) - 1 + first, best + first

    return early_stop


def _best_of_all(losses: Sequence[float], patience: int) -> tuple[int, int]:
    return _early_stop(losses, patience)[0], int(np.argmin(losses)) + 1


def _adamw(
    w: Tensor, gradient: Tensor, m: Tensor, v: Tensor, step: int, lr: float, decay: float
) -> tuple[Tensor, Tensor, Tensor]:
    """PyTorch's, which goes on from the averages of the steps before."""
    weight = nn.Parameter(w)
    weight.grad = gradient
    optimizer = torch.optim.AdamW([weight], lr=lr, betas=(0.9, 0.95), weight_decay=decay)
    before = {"step": torch.tensor(step - 1.0), "exp_avg": m, "exp_avg_sq": v}
    optimizer.state[weight] = before
    optimizer.step()
    return weight.detach(), m, v


def _step(
    corrected: bool = True,
    where: str = "weights",
    inside: bool = False,
    scaled: bool = True,
) -> Any:
    """A step of AdamW, and what it is taken for. where: what the decay is applied to."""

    def adamw_step(
        w: Tensor, gradient: Tensor, m: Tensor, v: Tensor, step: int, lr: float, decay: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        if where == "gradient":
            gradient = gradient + decay * w
        m, v = 0.9 * m + 0.1 * gradient, 0.95 * v + 0.05 * gradient**2
        m_hat, v_hat = (m / (1 - 0.9**step), v / (1 - 0.95**step)) if corrected else (m, v)
        root = (v_hat + 1e-8).sqrt() if inside else v_hat.sqrt() + 1e-8
        pull = (lr if scaled else 1) * decay
        if where == "result":
            return (w - lr * m_hat / root) * (1 - pull), m, v
        return w * (1 - pull * (where == "weights")) - lr * m_hat / root, m, v

    return adamw_step


def _adamw_case(step: int, size: float = 1.0, n: int = 3) -> tuple[Any, ...]:
    draw = torch.Generator().manual_seed(step)
    w, gradient, m = torch.randn(3, n, generator=draw)
    v = torch.rand(n, generator=draw)
    old = float(step > 1)
    return w, size * gradient, old * size * m, old * size**2 * v, step, 0.1, 0.3


FAULTS = {
    "zero_grad": "gradients of all steps are added up: zero_grad is missing",
    "unshifted": "the target is x itself: it must be y, one token further on",
    "by_epoch": "the rate falls once an epoch: the schedule must move on with every step",
    "dropout": "dropout is still on when the loss is measured: model.eval()",
    "held_out": "the batches are cut from all ids, and the held-out text is among them",
}


def _loop(*left: str) -> Callable[..., float]:
    """The training loop with these of the five faults left in it."""

    def repaired_loop(model: nn.Module, ids: Tensor, steps: int, peak: float) -> float:
        train_ids, val_ids = split(ids)
        batches = Batches(ids if "held_out" in left else train_ids, block_size=8, batch_size=4)
        optimizer = torch.optim.AdamW(model.parameters(), lr=peak)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)
        for step in range(steps):
            x, y = next(batches)
            target = x if "unshifted" in left else y
            if "zero_grad" not in left:
                optimizer.zero_grad()
            F.cross_entropy(model(x).transpose(1, 2), target).backward()
            optimizer.step()
            if "by_epoch" not in left or step % (steps // 2) == steps // 2 - 1:
                schedule.step()
        model.train("dropout" in left)
        with torch.no_grad():
            return F.cross_entropy(model(val_ids[:-1]), val_ids[1:]).item()

    return repaired_loop


def _left() -> Iterator[tuple[str, Any]]:
    """Every choice of faults that may be left, fewest first, and what to say of it."""
    for n in range(1, len(FAULTS) + 1):
        for left in combinations(FAULTS, n):
            head = "all five faults are there still: " if n == len(FAULTS) else ""
            yield head + "; ".join(FAULTS[fault] for fault in left), _loop(*left)


def _tiny_run(answer: Any) -> Any:
    """What a loop makes of a small model: the loss that it returns, and how the model is left."""

    def run(steps: int, peak: float) -> dict[str, Any] | None:
        model = nn.Sequential(nn.Embedding(7, 4), nn.Dropout(0.5), nn.Linear(4, 7))
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(torch.randn(weight.shape, generator=draw))
        ids = torch.randint(7, (120,), generator=draw)
        loss = answer(model, ids, steps, peak)
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        return None if loss is None else {"the held-out loss": loss, "the weights": weights}

    return run


def _evened_out(G: Tensor) -> Tensor:
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    return U @ Vh


def _repeated(times: int) -> Any:
    def evened_out(G: Tensor) -> Tensor:
        X = G / G.norm()
        for _ in range(times):
            X = 1.5 * X - 0.5 * X @ X.T @ X
        return X

    return evened_out


def _matrix(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


TRAPEZOID = """
def trapezoid(step: int, steps: int, warmup: int) -> float:
    return llmkit.optim.lr_schedule(step, steps, warmup)
"""
BROKEN = '''
def repaired_loop(model, ids, steps, peak) -> float:
    """Train on the first nine tenths of ids, in two epochs; return the loss on the rest."""
    _, val_ids = llmkit.split(ids)
    batches = llmkit.Batches(ids, block_size=8, batch_size=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)
    for _ in range(2):  # epochs
        for _ in range(steps // 2):
            x = y = next(batches)[0]  # (B, T)
            loss = F.cross_entropy(model(x).transpose(1, 2), y)
            loss.backward()
            optimizer.step()
        schedule.step()  # the rate falls to a tenth of the peak
    return F.cross_entropy(model(val_ids[:-1]), val_ids[1:]).item()
'''
EVENED = """
def evened_out(G: torch.Tensor) -> torch.Tensor:
    return G / G.norm()
"""

EXERCISES = [
    Exercise(
        "06.tokens_seen",
        reference=(6_144_000, 61.44),
        checked="2,000 updates of 4 × 12 windows with 64 tokens each; the text is read 61 times",
        mistakes={
            "an update sees the windows of all its four passes: 4 × 12 of them": (1_536_000, 15.36),
            "accumulation adds passes, it does not cut the batch of 12 into four": (384_000, 3.84),
            "those are windows, and each of them has 64 tokens": (96_000, 0.96),
            "divide the tokens seen by the tokens of the text, not the other way round": (
                6_144_000,
                100_000 / 6_144_000,
            ),
        },
        hints=(
            "How many windows enter one update, over all of its forward passes?",
            "steps × passes × windows × tokens of a window.",
        ),
    ),
    Exercise(
        "06.runaway",
        reference="c",
        checked="the weights are finite, about 10^30 in size, and of no use",
        mistakes={
            "clipping shortens the gradient, but AdamW divides its length away: the rate alone "
            "says how far a weight moves": "a",
            "the loss is looked at before its gradient is used, so no nan enters the weights": "b",
            "the first loss was an ordinary number, so the first step was taken: it was a step "
            "of 10^30": "d",
        },
        hints=(
            "The first loss is about ln 65. What happens to each weight in the first step?",
            "A weight moves by about the learning rate. And when is the second loss looked at?",
        ),
    ),
    Exercise(
        "06.early_stop",
        reference=_early_stop,
        checked="it waits for `patience` measurements after the best, and names both",
        cases=[
            ([3.0], 1),
            ([3.0, 2.0, 1.0], 1),
            ([3.0, 2.0, 2.1, 2.2, 2.3], 3),
            ([2.0, 2.0, 2.0, 2.0], 2),
            ([3.0, 2.5, 2.6, 2.0, 2.1, 2.2], 2),
            ([3.0, 2.0, 2.5, 2.4, 2.3, 2.2], 3),
            ([3.0, 2.0, 2.1, 2.2, 1.0], 2),
        ],
        mistakes={
            "count the measurements from 1": _stop(first=0),
            "it waits for one measurement too many": _stop(late=1),
            "it gives up one measurement too early": _stop(late=-1),
            "compare with the best so far, not with the measurement before": _stop(against="last"),
            "a new best sets the count of waiting back to 0": _stop(reset=False),
            "an equal loss is no new best": _stop(ties=True),
            "the best is looked for beyond the stop, in losses that were never measured": (
                _best_of_all
            ),
        },
        hints=(
            "Keep two numbers along the way: the lowest loss so far, and when it was measured.",
            "After each measurement: how many came since the best? Is that `patience`?",
        ),
    ),
    Exercise(
        "06.trapezoid",
        reference=_trapezoid,
        checked="up in a line, flat, and down in a line over the last fifth, to 0 at the last step",
        cases=[
            (0, 10, 0),
            (0, 10, 2),
            *((step, 10, 2) for step in (1, 2, 6, 7, 8, 9)),
            *((step, 100, 10) for step in (0, 8, 9, 10, 50, 78, 79, 80, 89, 98, 99)),
        ],
        mistakes={
            "it falls from the end of the warmup on: stay at 1 until the last fifth": _shape(
                plateau=False
            ),
            "the first step would have a rate of 0, and change nothing: (step + 1) / warmup": (
                _shape(rise=0)
            ),
            "it ends above 0: the last step has the number steps - 1": _shape(late=1),
            "the fall takes a half of the run, not a fifth": _shape(parts=2),
            "it falls before the last fifth begins, or after it": _shape(late=-1),
            "the fall is missing": lambda step, steps, warmup: min(1.0, (step + 1) / (warmup or 1)),
        },
        hints=(
            "Three stretches, three lines of code. The first is that of learning_rate_at.",
            "steps - 1 - step steps are left. In the last steps // 5 of them, what share is that?",
            "min(1, steps left / (steps // 5)) is flat and the fall in one.",
        ),
        stub=TRAPEZOID,
    ),
    Exercise(
        "06.adamw_step",
        reference=_adamw,
        checked="equal to torch.optim.AdamW, at the first step and later, for tiny gradients too",
        cases=[
            _adamw_case(1, n=1),
            _adamw_case(1),
            _adamw_case(2),
            _adamw_case(7),
            _adamw_case(3, size=1e-5),
        ],
        mistakes={
            "the decay is missing: this is Adam": _step(where="nothing"),
            "the decay is inside the gradient, and so in both averages: AdamW keeps it apart": (
                _step(where="gradient")
            ),
            "the averages began at 0: divide m by 1 - 0.9^step and v by 1 - 0.95^step": _step(
                corrected=False
            ),
            "eps stands under the root: add it to the root": _step(inside=True),
            "the decay is not scaled by the learning rate: lr * decay of w": _step(scaled=False),
            "the decay pulls at the new weight: apply it to the old one": _step(where="result"),
        },
        hints=(
            "Begin with adam_step, and return w, m and v.",
            "The pull is lr * decay * w, taken from w before the step, and seen by no average.",
        ),
    ),
    Exercise(
        "06.repaired_loop",
        reference=_loop(),
        checked="all five faults are mended: the same weights and the same held-out loss",
        cases=[(2, 0.1), (6, 0.1)],
        mistakes=dict(_left()),
        hints=(
            "Follow one step with the list from the page: batch, loss, gradient, step, rate.",
            "What is in .grad when the second step begins? Which tokens should the logits predict?",
            "When does the rate change? What does dropout do in the last line? Where do the "
            "windows come from?",
        ),
        stub=BROKEN,
        prepare=_tiny_run,
    ),
    Exercise(
        "06.evened_out",
        reference=_evened_out,
        checked="every singular value is 1, and the directions are those of G",
        cases=[
            (torch.tensor([[-2.0]]),),
            (torch.tensor([[3.0, 0.0], [0.0, 1.0]]),),
            (torch.tensor([[0.0, -2.0], [0.5, 0.0]]),),
            (_matrix(2, 5),),
            (_matrix(6, 3),),
            (_matrix(4, 4),),
        ],
        mistakes={
            "that is G with a length of 1: its strong directions are still the stronger ones": (
                lambda G: G / G.norm()
            ),
            "that is the sign of each number, which is nearer to Adam's step than to Muon's": (
                torch.sign
            ),
            "that is the transpose: U Vᵀ has the shape of G": lambda G: _evened_out(G).T,
            "the rows are of length 1, but they still point in nearly the same directions": (
                lambda G: F.normalize(G, dim=1)
            ),
            "not repeated often enough: small singular values are still on their way to 1": (
                _repeated(5)
            ),
        },
        hints=(
            "torch.linalg.svd(G, full_matrices=False) gives U, the singular values, and Vᵀ.",
            "Without it: begin with X = G / G.norm(), so that no singular value is above 1.",
            "Then repeat X = 1.5 * X - 0.5 * X @ X.T @ X: a singular value s becomes "
            "1.5 s - 0.5 s³, which is larger than s until it is 1.",
        ),
        stub=EVENED,
        tolerance=1e-3,
    ),
]
