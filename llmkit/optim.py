"""Optimizers and learning-rate schedules: who gets weight decay, AdamW and Muon, warmup and decay.

The loop that uses them is in `training`. A model is optimised by a *list* of optimizers, each with
its own parameters: one for AdamW, two for Muon, which is for matrices only.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from llmkit.arguments import check_choice, check_number, check_type
from llmkit.runtime import multiplies_bfloat16

# What each optimizer takes where a setting is left open: the peak of the learning rate; with Muon,
# AdamW's beside it, as a share; how it falls, and to which share of the peak. Muon's peak is the
# higher one: before it is multiplied by the rate, a number in AdamW's step is of the size of 1,
# one in an orthogonal matrix n wide of 1/√n.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": dict(learning_rate=1e-3, adamw_share=1.0, schedule="cosine", min_lr_ratio=0.1),
    "muon": dict(learning_rate=0.02, adamw_share=0.5, schedule="linear", min_lr_ratio=0.0),
}
NEWTON_SCHULZ = ("ns_coefficients", "ns_steps", "eps")  # torch.optim.Muon's names for its settings


def configure_optimizers(
    model: nn.Module,
    name: str = "adamw",
    learning_rate: float | None = None,
    weight_decay: float = 0.1,
    adamw_share: float | None = None,
) -> list[Optimizer]:
    """The optimizers that together update every trainable parameter of the model once.

    Args:
        name: "adamw" (Loshchilov & Hutter 2019) for all parameters, or "muon" (Jordan et al. 2024)
            for the matrices inside the model and AdamW for the rest: embeddings, output layer,
            biases, norms. Muon replaces a matrix's gradient by the nearest orthogonal matrix, so
            every direction is learned at the same pace; that makes sense for a linear map, and not
            for a table whose rows are looked up one by one.
        learning_rate: the peak, before any schedule; None: 0.001 for AdamW, 0.02 for Muon.
        weight_decay: pulls weights with two dimensions or more towards zero; never biases or norms,
            which have one.
        adamw_share: with Muon, the learning rate of AdamW beside it, as a share of Muon's; None: a
            half.

    ValueError where nothing can be trained, and where all of Muon's matrices are frozen.
    """
    check_type("model", model, nn.Module)
    check_choice("name", name, OPTIMIZERS)
    lr = OPTIMIZERS[name]["learning_rate"] if learning_rate is None else learning_rate
    share = OPTIMIZERS[name]["adamw_share"] if adamw_share is None else adamw_share
    if name != "muon" and adamw_share is not None:
        raise ValueError("adamw_share is Muon's: leave it out, or take optimizer='muon'")
    check_number("learning_rate", lr, least=0)
    check_number("weight_decay", weight_decay, least=0)
    check_number("adamw_share", share, least=0)
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ValueError(
            "the model has no weights to train: all are frozen (model.requires_grad_(True) frees "
            "them), or it is a quantized copy, of which the original can be trained"
        )
    inner = hidden_matrices(model) if name == "muon" else []
    matrices = [weight for weight in inner if weight.requires_grad]
    if inner and not matrices:
        raise ValueError(
            "muon trains the linear layers inside a model, and here all of them are frozen (LoRA's "
            "adapters stand beside such layers): use optimizer='adamw'"
        )
    taken = {id(weight) for weight in matrices}
    rest = [p for p in trained if id(p) not in taken]
    # Decay holds a matrix small where the data do not ask for more. The gain of a norm belongs near
    # 1, and pulled towards 0 it would take along all that passes through it.
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizers: list[Optimizer] = []
    if groups:
        # The second beta is below the usual 0.999: our runs have hundreds of steps, not millions.
        beside = lr * share if name == "muon" else lr
        # fused: one call for all weights, in place of several for each.
        optimizers.append(torch.optim.AdamW(groups, lr=beside, betas=(0.9, 0.95), fused=True))
    if matrices:
        optimizers.append(Muon(matrices, lr=lr, weight_decay=weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]  # the peak, which `set_learning_rate` scales
    return optimizers


class Muon(torch.optim.Muon):
    """PyTorch's, but matrices of one shape (or its transpose) in one product, and in bfloat16 only
    where the hardware multiplies in it (there, to the bit on a CPU).

    A small model has many small matrices, and calling takes longer than multiplying: a step of
    training, forward and backward passes included, takes an eighth less time. On a processor that
    must emulate bfloat16, float32 takes a third of the time, or (AVX2) a twentieth.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override] # nobody needs one
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state, momentum = self.state[weight], group["momentum"]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(weight.grad)
                average = state["momentum_buffer"].lerp_(weight.grad, 1 - momentum)
                update = weight.grad.lerp(average, momentum)  # Nesterov's: one step ahead
                # The short side as rows: the products of rows with rows, below, are then small.
                wide = update if update.size(0) <= update.size(1) else update.mT
                alike.setdefault(wide.shape, []).append((weight, wide))
            for pairs in alike.values():
                stacked = torch.stack([wide for _, wide in pairs])  # (N, rows, columns)
                updates = orthogonalised(stacked, **{name: group[name] for name in NEWTON_SCHULZ})
                for (weight, _), update in zip(pairs, updates, strict=True):
                    tall = weight.size(0) > weight.size(1)
                    # A tall matrix spreads what comes in over more features: this makes up for it.
                    scale = math.sqrt(max(1, weight.size(0) / weight.size(1)))
                    # Decay apart from the gradient: as a part of it, it would be orthogonalised
                    # too, and not be as strong as it was set (Loshchilov & Hutter 2019).
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update.mT if tall else update, alpha=-group["lr"] * scale)


def orthogonalised(
    matrices: Tensor, ns_coefficients: tuple[float, float, float], ns_steps: int, eps: float
) -> Tensor:
    """Nearly the nearest orthogonal matrix of each: (N, rows, columns), no more rows than columns.

    Each step of Newton-Schulz puts all singular values through one polynomial, which brings them
    near 1. In bfloat16, where that is sooner: how near is not important.
    """
    a, b, c = ns_coefficients
    X = matrices.bfloat16() if multiplies_bfloat16(matrices.device) else matrices.float()
    # No singular value above 1, because the polynomial sends what is far above it to infinity.
    X = X / X.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(ns_steps):
        gram = X @ X.mT  # (N, rows, rows)
        X = torch.baddbmm(X, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), X, beta=a)
    return X


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """The weights of linear layers inside the model, which map its width to itself or a multiple.

    Not the output layer (``lm_head``, or else the last layer with vocab_size rows), whose rows
    belong to tokens like those of an embedding; nor any layer that shares an embedding's memory.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    vocab_size = getattr(getattr(model, "config", None), "vocab_size", None)
    heads = [layer for layer in layers if layer.out_features == vocab_size][-1:]
    head = getattr(model, "lm_head", None)
    outside = {id(part.weight) for part in (*tables, *([head] if head else heads))}
    return [layer.weight for layer in layers if id(layer.weight) not in outside]


def lr_schedule(
    step: int, steps: int, warmup: int = 0, kind: str = "cosine", final: float = 0.1
) -> float:
    """The share of the peak learning rate to use at ``step`` (counted from 0): up, then down.

    It rises in a line over ``warmup`` steps and falls to ``final`` at the last step, along half a
    cosine wave (Loshchilov & Hutter 2017) or a line. ``final`` is a share of the peak, so the end
    cannot lie above it.
    """
    # AdamW measures each step by averages over earlier gradients, of which there are few at first:
    # begun at the peak, it would make its largest steps where it knows least.
    if step < warmup:
        return (step + 1) / warmup  # + 1: a first step of 0 would teach nothing
    progress = (step - warmup) / max(1, steps - 1 - warmup)  # 0 at the peak, 1 at the last step
    # At a high rate the weights jump about a valley of the loss; as it falls, they sink into it.
    fall = 1 - progress if kind == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return final + (1 - final) * fall


def set_learning_rate(optimizers: list[Optimizer], share: float) -> float:
    """Set every group's learning rate to ``share`` of its peak; return the last one's (Muon's)."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share
    return optimizers[-1].param_groups[-1]["lr"]


def clip_gradient(model: nn.Module, longest: float) -> str | None:
    """Shorten the gradient (all parameters' together, as one vector) to a length of ``longest``.

    Returns None; or where the length is no finite number, what is wrong, and clips nothing.
    """
    # Now and then a batch has a gradient many times as long as others. Shortened it still points
    # where it did, and one bad batch cannot throw the weights far off.
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    length = nn.utils.get_total_norm(grads.values())
    if length.isfinite():
        weights = [p for p in model.parameters() if p.grad is not None]
        nn.utils.clip_grads_with_norm_(weights, longest, length)
        return None
    worst = [name for name, grad in grads.items() if not grad.isfinite().all()]
    kind = "nan" if length.isnan() else "infinite"
    return f"gradient of {worst[0]} became {kind}" if worst else "gradient became infinitely long"
