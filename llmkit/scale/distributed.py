"""Several processes that train one model together, each with its share of every batch.

torchrun starts them and tells each its number through the environment. `join` gives what `train`
and `evaluate` take as ``processes``, `own_device` the GPU that is this process's; a program ends
with `leave`. Without torchrun there is one process, for which everything here does nothing.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from llmkit.runtime import ALONE, Loss, OneProcess, PeerLost

_groups = 0  # how often this process has met the others, see `_meet`


def join() -> OneProcess:
    """The processes that torchrun has started (its WORLD_SIZE), this one among them."""
    return Processes() if int(os.environ.get("WORLD_SIZE", 1)) > 1 else ALONE


def own_device() -> str | None:
    """The GPU of this process, of several on this machine; None where there is no choice."""
    if join().world > 1 and torch.cuda.is_available():
        return f"cuda:{int(os.environ['LOCAL_RANK'])}"
    return None


class Processes(OneProcess):
    """Many processes. Each method is called by all of them, at the same point of their work.

    PeerLost is raised where one of them is gone.
    """

    def __init__(self) -> None:
        self.rank, self.world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    def share(self, model: nn.Module) -> nn.Module:
        """The model's loss, whose gradients are averaged over all; the weights are rank 0's."""
        loss = Loss(model)
        device = next(model.parameters()).device
        if device.type == "cuda":
            torch.cuda.set_device(device)  # or each would take some memory of the first GPU
        with self._together():
            shared = nn.parallel.DistributedDataParallel(loss, gradient_as_bucket_view=True)
        shared.broadcast_buffers = False  # ours are constants
        return shared

    @contextmanager
    def accumulating(self, loss: Any, last: bool) -> Iterator[None]:
        """Gradients are exchanged once an update: on the way back of its last pass."""
        with self._together(), nullcontext() if last else loss.no_sync():
            yield

    def sum(self, *numbers: float) -> list[float]:
        """The sum of each number, the same in all processes to the last bit."""
        sums = torch.tensor(numbers, dtype=torch.float64)
        with self._together():
            dist.all_reduce(sums)
        return sums.tolist()

    def broadcast(self, value: Any) -> Any:
        """What the process of rank 0 gave as value."""
        box = [value]
        with self._together():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def wait_for_all(self) -> None:
        """Return once all processes have come here."""
        with self._together():
            dist.barrier()

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Around what all processes do at the same time."""
        if not dist.is_initialized():
            _meet()
        try:
            yield
        except RuntimeError as error:
            if not re.search("gloo|nccl", str(error), re.IGNORECASE):
                raise
            if torch.cuda.is_available() and dist.group.WORLD is not None:
                dist.group.WORLD.abort()  # the GPU would wait for gradients, and we for the GPU
            raise PeerLost(f"another of the {self.world} processes is gone") from error


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


def leave() -> None:
    """Wait for the others and part from them: the last thing a program does, in all processes.

    Left to the end of Python itself, gloo (in PyTorch 2.13) now and then ends in a crash.
    """
    if dist.is_initialized():
        gc.collect()  # whatever still holds on to the group
        Processes().wait_for_all()
        dist.destroy_process_group()


def first_to_tell() -> bool:
    """Whether no other process has asked before: it is to tell of the error that all meet."""
    try:  # torchrun's own store, which outlives us
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(host, port, wait_for_workers=False, timeout=timedelta(seconds=3))
        return store.add(f"llmkit {os.environ.get('TORCHELASTIC_RESTART_COUNT')}", 1) == 1
    except (KeyError, RuntimeError):  # there is nobody else, or nobody to ask
        return True
