"""Several processes that train one model together, each with its share of every batch.

torchrun starts them and tells each its number through the environment; without it there is one
process, for which everything here does nothing. With several, whatever adds up, broadcasts or
averages must be called by all of them. Nothing here knows what is trained: that is ``training``.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_alone = False  # whether this process works for itself just now, see `alone`
_groups = 0  # how often this process has met the others, see `_meet`


class PeerLost(ConnectionError):
    """Another process has died, so that what all must do together cannot be done any more."""


def world() -> int:
    """How many processes work together (torchrun's WORLD_SIZE)."""
    return 1 if _alone else int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Which of them this one is, from 0; 0 is the one that writes and prints."""
    return 0 if world() == 1 else int(os.environ["RANK"])


def local_rank() -> int:
    """Which of those on this machine this one is, from 0; it takes the GPU of that number."""
    return 0 if world() == 1 else int(os.environ["LOCAL_RANK"])


@contextmanager
def alone() -> Iterator[None]:
    """Inside the ``with`` this process asks nothing of the others, as if it were the only one."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


@contextmanager
def together() -> Iterator[None]:
    """Around what all processes do at the same time; raises PeerLost where one of them is gone."""
    if world() > 1 and not dist.is_initialized():
        _meet()
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not re.search("gloo|nccl", str(error), re.IGNORECASE):
            raise
        if torch.cuda.is_available():
            dist.group.WORLD.abort()  # the GPU would wait for gradients, and we for the GPU
        raise PeerLost(f"another of the {world()} processes is gone") from error


def _meet() -> None:
    """Connect with the others. Each time under another name, or after `leave` some would find the
    addresses that others had before, and wait there forever."""
    global _groups
    _groups += 1
    store, number, size = next(dist.rendezvous("env://"))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=dist.PrefixStore(f"llmkit {_groups}", store),
        rank=number,
        world_size=size,
    )


def total(*numbers: float) -> list[float]:
    """The sum of each number over all processes, the same in all of them to the last bit."""
    sums = torch.tensor(numbers, dtype=torch.float64)
    if world() > 1:
        with together():
            dist.all_reduce(sums)
    return sums.tolist()


def broadcast(value: Any) -> Any:
    """What the process of rank 0 gave as value."""
    box = [value]
    if world() > 1:
        with together():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def leave() -> None:
    """Wait for the others and part from them: the last thing a program does, in all processes.

    Left to the end of Python itself, gloo (in PyTorch 2.13) now and then ends in a crash.
    """
    if world() > 1 and dist.is_initialized():
        gc.collect()  # whatever still holds on to the group
        with together():
            dist.barrier()
        dist.destroy_process_group()


class Loss(nn.Module):
    """``model.loss`` as a module's forward, which DistributedDataParallel can wrap."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.model.loss(x, y)


def shared_loss(model: nn.Module) -> nn.Module:
    """The model's loss (x, y) as a module. With several processes it averages gradients over them,
    but not those of its ``no_sync()``; all start with the weights of rank 0."""
    loss = Loss(model)
    if world() > 1:
        device = next(model.parameters()).device
        if device.type == "cuda":
            torch.cuda.set_device(device)  # or each would take some memory of the first GPU
        with together():
            loss = nn.parallel.DistributedDataParallel(loss, gradient_as_bucket_view=True)
        loss.broadcast_buffers = False  # ours are constants
    return loss


def first() -> bool:
    """Whether no other process has asked before: it is to tell of the error that all meet."""
    try:  # torchrun's own store, which outlives us
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(host, port, wait_for_workers=False, timeout=timedelta(seconds=3))
        return store.add(f"llmkit {os.environ.get('TORCHELASTIC_RESTART_COUNT')}", 1) == 1
    except (KeyError, RuntimeError):  # there is nobody else, or nobody to ask
        return True
