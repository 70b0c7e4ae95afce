"""One update of a model's weights by a loss: what `dpo` and `grpo` do in each of their steps."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim import Optimizer

from llmkit.optim import clip_gradient, lr_schedule, set_learning_rate


def update(
    model: nn.Module, optimizers: list[Optimizer], loss: Tensor, step: int, steps: int
) -> None:
    """Step number `step` of `steps`, from 0: the rate rises over a twentieth of them, then falls to
    a tenth; gradients are clipped to a norm of 1.

    Raises FloatingPointError where one of them is no number, before any weight is changed.
    """
    set_learning_rate(optimizers, lr_schedule(step, steps, steps // 20, "cosine", 0.1))
    loss.backward()
    if wrong := clip_gradient(model, 1.0):
        raise FloatingPointError(f"the {wrong} at step {step + 1}: lower learning_rate")
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
