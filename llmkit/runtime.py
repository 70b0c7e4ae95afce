"""Where the work runs: device, number format, corpus, seed, and how much memory it took.

`start` is every notebook's second cell. Nothing here knows a model or reads a text: `corpus` is a
name only, which `data.load_text` looks up.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
import torch

from llmkit import distributed

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
    if not 0 <= seed < 2**32:  # NumPy's range, the narrowest of the three
        raise ValueError(f"seed is {seed}; choose one from 0 to {2**32 - 1}")
    chosen = _device(device or os.environ.get("LLMKIT_DEVICE"))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for code that draws from NumPy's global generator
    torch.manual_seed(seed)  # on every device
    corpus = "embedded" if chosen.type == "cpu" else "tiny_shakespeare"
    return Runtime(chosen, default_dtype(chosen), os.environ.get("LLMKIT_CORPUS") or corpus, seed)


def _device(wanted: str | torch.device | None) -> torch.device:
    """The device asked for, or the best there is; ValueError for one this machine lacks."""
    found = "cuda" if torch.cuda.is_available() else "cpu"
    if str(wanted or found) == "cuda" and distributed.world() > 1:
        wanted = f"cuda:{distributed.local_rank()}"  # to each process its own
    if not wanted:
        return torch.device(found)
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device).item()  # the one test that holds for every kind of device
    except Exception:  # what PyTorch raises depends on the kind
        raise ValueError(
            f"PyTorch cannot use the device {str(wanted)!r} here; choose 'cpu', or in Colab take "
            "a machine with a GPU (Runtime > Change runtime type) and then 'cuda'"
        ) from None
    return device


def default_dtype(device: str | torch.device) -> torch.dtype:
    """What training computes in: float32 on a CPU, half as many bits on a CUDA GPU.

    There bfloat16 where the hardware has it. A T4 (Colab's free GPU) claims it too but emulates it
    slowly, hence `including_emulation=False`; it gets float16, which needs a gradient scaler.
    """
    if torch.device(device).type != "cuda":
        return torch.float32
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


@contextmanager
def fast_matmul(device: str | torch.device = "cpu") -> Iterator[None]:
    """Inside the ``with``, float32 products on a CPU may go through oneDNN, and not MKL alone.

    MKL leaves half of a processor idle that is not Intel's: on an AMD EPYC (Zen 5), 110 GFLOP/s a
    core against oneDNN's 255. PyTorch hands over only where it may lower the precision to bfloat16
    ("medium"); on a processor without the units for that, oneDNN computes in float32 all the same.
    So we allow it only where a trial shows that nothing is lost.
    """
    if torch.device(device).type != "cpu" or not _medium_is_exact():
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def is_amd() -> bool:
    """Whether this is a processor of AMD's, on which PyTorch's other library, MKL, is slow."""
    about = getattr(torch.cpu, "get_capabilities", dict)()  # newer than our oldest torch
    return "AMD" in about.get("cpu_name", "")


@cache
def _medium_is_exact() -> bool:
    """Whether "medium" precision is as precise as "highest" on this CPU."""
    before = torch.get_float32_matmul_precision()
    a, b = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    exact, error = a.double() @ b.double(), {}
    try:
        for precision in ("highest", "medium"):
            torch.set_float32_matmul_precision(precision)
            error[precision] = (a @ b - exact).abs().max()
    finally:
        torch.set_float32_matmul_precision(before)
    return bool(error["medium"] < 4 * error["highest"])


def peak_memory(device: str | torch.device = "cpu") -> int:
    """The most memory used so far, in bytes: by this process, or by PyTorch's tensors on a GPU.

    0 on Windows, where Python does not tell.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes
