"""Where the work runs: the device, the number format, the seed; one process, which may be stopped.

`start` is every notebook's second cell. Nothing here reads a text: `corpus` is a name only, which
`data.load_text` looks up. Many processes are `scale.distributed`'s.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from llmkit.arguments import check_number, shown

Value = TypeVar("Value")


@dataclass(frozen=True, repr=False)
class Runtime:
    """What `start` found and chose.

    device: where tensors go. dtype: what training computes in (see `default_dtype`). corpus: the
    text that this machine can manage, for `load_text`. seed: of every random generator.
    """

    device: torch.device
    dtype: torch.dtype
    corpus: str
    seed: int

    def pick(self, *, cpu: Value, gpu: Value) -> Value:
        """The value for this machine: a budget of seconds (cpu), or the real thing (gpu)."""
        return cpu if self.device.type == "cpu" else gpu

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"llmkit on {self.device} · {dtype} · corpus {self.corpus} · seed {self.seed}"


def start(seed: int = 1337, device: str | torch.device | None = None) -> Runtime:
    """Seed Python's, NumPy's and PyTorch's generators; choose the device and the corpus.

    device: "cpu", "cuda", "cuda:1", "mps"; None takes the environment variable LLMKIT_DEVICE, else
    a CUDA GPU where there is one, else the CPU. The corpus is LLMKIT_CORPUS (a name, path or URL,
    judged when `load_text` reads it), else "embedded" on a CPU, "tiny_shakespeare" elsewhere.

    Raises ValueError for a device this machine lacks, and for a seed outside 0 ... 2**32 - 1.
    """
    check_number("seed", seed, int, least=0, most=2**32 - 1)  # NumPy's range, the narrowest
    named = os.environ.get("LLMKIT_DEVICE") or None if device is None else device
    best = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(best) if named is None else find_device(named)
    if chosen.type == "meta":
        raise ValueError("llmkit cannot use the device 'meta': it has no numbers, choose 'cpu'")
    # Three libraries, each with a generator of its own.
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for code that draws from NumPy's global generator
    torch.manual_seed(seed)  # on every device
    # A CPU learns the short play in seconds; the longer text is for a GPU.
    corpus = "embedded" if chosen.type == "cpu" else "tiny_shakespeare"
    return Runtime(chosen, default_dtype(chosen), os.environ.get("LLMKIT_CORPUS") or corpus, seed)


def find_device(wanted: str | torch.device) -> torch.device:
    """The device asked for; ValueError for one this machine lacks."""
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device)  # the one test that holds for every kind of device
    except Exception:  # what PyTorch raises depends on the kind
        raise ValueError(
            f"PyTorch cannot use the device {shown(wanted)} here; choose 'cpu', or in Colab take "
            "a machine with a GPU (Runtime > Change runtime type) and then 'cuda'"
        ) from None
    return device


def seeded(seed: int) -> torch.Generator:
    """A generator of its own, on the CPU."""
    check_number("seed", seed, int, least=0, below=2**63)
    # A GPU's would draw other numbers from the same seed, and a run could not be compared.
    return torch.Generator().manual_seed(int(seed))


def default_dtype(device: str | torch.device) -> torch.dtype:
    """What training computes in: float32 on a CPU, half as many bits on a CUDA GPU.

    There bfloat16 where the hardware has it; a T4 (Colab's free GPU) gets float16, which needs a
    gradient scaler.
    """
    if torch.device(device).type != "cuda":
        return torch.float32
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float16


def multiplies_bfloat16(device: str | torch.device) -> bool:
    """Whether this processor or GPU has units that multiply in bfloat16.

    Others emulate it: a T4, which claims it all the same, hence `including_emulation=False`; most
    laptops, where a product then takes up to 25 times as long as in float32.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and bool(capabilities().get("avx512_bf16"))


def capabilities() -> dict[str, Any]:
    """What PyTorch knows of this machine's processor; nothing, where it is too old to be asked."""
    return getattr(torch.cpu, "get_capabilities", dict)()


class Loss(nn.Module):
    """``model.loss`` as a module's forward, which DistributedDataParallel can wrap."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.model.loss(x, y)


class PeerLost(ConnectionError):
    """Another process has died, so what all of them must do together cannot be done any more."""


class OneProcess:
    """The work of one process alone: what `train` and `evaluate` share out, and how.

    `scale.distributed.Processes` does the same for many, which torchrun starts.
    """

    rank, world = 0, 1  # which one this is, of how many

    def check(self) -> None:
        """ValueError where torchrun has started several processes that do not know each other."""
        # torchrun tells each of the processes that it starts how many there are.
        if self.world == 1 and int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ValueError(
                "torchrun has started several processes, and each would train by itself: pass "
                "processes=llmkit.scale.distributed.join()"
            )

    def share(self, model: nn.Module) -> nn.Module:
        """The model's loss (x, y), as a module; many processes average its gradients."""
        return Loss(model)

    def accumulating(self, loss: Any, last: bool) -> AbstractContextManager[Any]:
        """Around a forward and backward pass: only after the last are gradients exchanged."""
        return nullcontext()

    def sum(self, *numbers: float) -> list[float]:
        """The sum of each number over all processes."""
        return list(numbers)

    def broadcast(self, value: Any) -> Any:
        """What the process of rank 0 gave as value."""
        return value


ALONE = OneProcess()


def seed_dropout(device: torch.device, name: str) -> None:
    """Make what dropout draws on the device depend on the name of a step alone, not on what was
    drawn before: so a run can be resumed without a state of the random generators."""
    seed = zlib.crc32(name.encode())  # hash() gives another number in each process
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)  # a hundredth of the time of torch's own
    else:
        torch.manual_seed(seed)


def read_later(number: Tensor) -> Callable[[], float]:
    """Start copying a number to the CPU; calling the result waits until it is there. Meanwhile a
    GPU gets its next orders: asked for the number at once, it would run out of them."""
    copied = number.detach().to("cpu", non_blocking=number.is_cuda)
    if not number.is_cuda:
        return copied.item
    # A mark in the GPU's queue: to wait for it is not to wait for what was ordered later.
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(number.device))

    def read() -> float:
        event.synchronize()
        return copied.item()

    return read


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Turn the first interrupt into an event, which the loop heeds at the end of its step.

    Ctrl-C sends SIGINT; torchrun, and what manages machines, end processes by SIGTERM. Those may
    still save, and say what happened.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread receives interrupts
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}

    def handle(number: int, frame: Any) -> None:
        event.set()
        signal.signal(number, before[number])  # a second one ends the run at once

    for number in before:
        signal.signal(number, handle)
    try:
        yield event
    except PeerLost:
        before[signal.SIGTERM] = signal.SIG_IGN  # torchrun's, which must not cut the sentence short
        raise
    finally:  # or the reader's next cell could not be stopped
        for number, handler in before.items():
            signal.signal(number, handler)
