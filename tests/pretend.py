"""A GPU without a GPU: the device "pretend", whose tensors live on the CPU but will not meet it.

PyTorch keeps one device type for backends from outside (PrivateUse1), and lets Python be that
backend: here each op is done by the CPU, on the tensor inside, once its devices have been checked.
The rules are CUDA's:

1. An op takes tensors of one device. Copies (`to`, `copy_`) are the one way across.
2. A CPU tensor without dimensions is a number, and goes with any tensor; but no op writes what it
   found on the device into one.
3. A tensor on the device may be indexed by a tensor on the CPU, never the other way round.
4. A generator of the CPU cannot draw numbers on the device.
5. `numpy()` is refused: that is for `cpu()` to do first.

What it cannot show: CUDA's own numbers, its speed and its memory, streams and events, whatever asks
`is_cuda`, for the type "cuda" or for the address of a tensor's numbers. `start` is for good: it
cannot be undone within a process.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_flatten, tree_map

NAME = "pretend"
COPIES = {"aten::copy_", "aten::_to_copy", "aten::_copy_from", "aten::_copy_from_and_resize"}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
crossings: list[str] = []  # what was refused, also where the error was caught


class WrongDevice(RuntimeError):
    """As CUDA raises it, a RuntimeError."""


class PretendTensor(torch.Tensor):
    """What the device's tensors are: an outside that says "pretend", a CPU tensor inside."""

    inside: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inside: torch.Tensor, requires_grad: bool = False) -> PretendTensor:
        outside = torch.Tensor._make_wrapper_subclass(
            cls,
            inside.size(),
            strides=inside.stride(),
            storage_offset=inside.storage_offset(),
            dtype=inside.dtype,
            device=torch.device(NAME, 0),
            requires_grad=requires_grad,
        )
        outside.inside = inside
        return outside

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(op, *args, **(kwargs or {}))

    def __repr__(self, **options: Any) -> str:
        return f"{self.inside!r} on {NAME}"

    def __format__(self, spec: str) -> str:
        return format(self.inside, spec)  # of a number, the number: a GPU is waited for


def refuse(op: Any, why: str) -> None:
    crossings.append(f"{op}: {why}")
    raise WrongDevice(f"{op}: {why}")


def check(op: Any, args: tuple, kwargs: dict) -> None:
    """WrongDevice if CUDA would not do this op on these arguments."""
    name = op._schema.name
    if name in COPIES:
        return
    given = [(a.name, args[i] if i < len(args) else kwargs.get(a.name), a.alias_info)
             for i, a in enumerate(op._schema.arguments)]  # fmt: skip
    tensors = [
        (argument, leaf, alias is not None and alias.is_write)
        for argument, value, alias in given
        for leaf in tree_flatten(value)[0]
        if isinstance(leaf, torch.Tensor)
    ]
    here = [tensor for _, tensor, _ in tensors if isinstance(tensor, PretendTensor)]
    for argument, tensor, written in tensors:
        if isinstance(tensor, PretendTensor) or not here:
            continue
        if name in INDEXING and argument == "indices" and isinstance(args[0], PretendTensor):
            continue
        if tensor.dim() > 0 or written:
            refuse(op, f"{argument} {tuple(tensor.shape)} is on the CPU, others are on {NAME}")
    if name in INDEXING and not isinstance(args[0], PretendTensor):
        refuse(op, f"a tensor on the CPU is indexed by one on {NAME}")
    generators = [leaf for leaf in tree_flatten((args, kwargs))[0]
                  if isinstance(leaf, torch.Generator)]  # fmt: skip
    onto = kwargs.get("device")
    if generators and (here or (onto is not None and onto.type == NAME)):
        refuse(op, f"a generator of the CPU cannot draw on {NAME}")


def run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """The op, done by the CPU on what is inside the tensors; what comes out is on the device."""
    check(op, args, kwargs)
    outside: dict[int, PretendTensor] = {}

    def enter(value: Any) -> Any:
        if isinstance(value, PretendTensor):
            outside[id(value.inside)] = value
            return value.inside
        if isinstance(value, torch.device) and value.type == NAME:
            return torch.device("cpu")
        return value

    to_cpu = op._schema.name == "aten::_to_copy" and "device" in kwargs
    to_cpu = to_cpu and kwargs["device"] is not None and kwargs["device"].type == "cpu"
    into_cpu = op._schema.name == "aten::copy_" and not isinstance(args[0], PretendTensor)
    inner_args, inner_kwargs = tree_map(enter, (args, kwargs))
    inner_kwargs.pop("pin_memory", None)
    result = op(*inner_args, **inner_kwargs)
    for tensor in outside.values():
        if tensor.inside.shape != tensor.shape:
            raise NotImplementedError(f"{op} resizes a tensor, which the outside cannot follow")
    if to_cpu:
        return result
    if into_cpu:
        return args[0]

    def leave(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        known = outside.get(id(value))
        return PretendTensor(value) if known is None else known

    return tree_map(leave, result)


class Module(backend_registration._DummyBackendModule):
    """What `torch.pretend` is: PyTorch asks it what the device can do."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()  # what is drawn here, the CPU's generator draws

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)


# What would otherwise begin with an empty tensor and resize it.
FACTORIES = ("arange", "arange.start", "arange.start_step", "linspace", "randperm", "eye", "eye.m",
             "randperm.generator", "tril_indices", "triu_indices")  # fmt: skip
# What autocast does in half precision, and what in float32: of CUDA's lists those that llmkit uses.
# https://docs.pytorch.org/docs/stable/amp.html#autocast-op-reference
HALVED = ("linear", "matmul", "mm", "bmm", "addmm", "scaled_dot_product_attention")
WIDENED = ("cross_entropy_loss", "nll_loss", "log_softmax.int", "softmax.int", "layer_norm", "sum")

_libraries: list[Any] = []


def casting(name: str, wanted: Any) -> Any:
    """The op as autocast does it, its floating-point tensors first cast to what is wanted."""
    packet, _, overload = name.partition(".")
    op = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def cast(value: Any) -> Any:
        floating = isinstance(value, PretendTensor) and value.is_floating_point()
        return value.to(wanted()) if floating and value.dtype != torch.float64 else value

    def run_cast(*args: Any, **kwargs: Any) -> Any:
        key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
        with torch._C._ExcludeDispatchKeyGuard(key):
            args, kwargs = tree_map(cast, (args, kwargs))
            return op(*args, **kwargs)

    return run_cast


def tensor(data: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
    """`torch.tensor`, which PyTorch does in C++ in a way that no backend in Python can follow."""
    made = _tensor(data, device="cpu" if is_here(device) else device, **options)
    return to_device(made, device)


def new_tensor(like: torch.Tensor, data: Any, *, device: Any = None, **options: Any) -> Any:
    """`Tensor.new_tensor`: as `tensor`, of the same number format where none is said."""
    device = like.device if device is None else device
    return tensor(data, **{"dtype": like.dtype, "device": device} | options)


def is_here(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def to_device(made: torch.Tensor, device: Any) -> torch.Tensor:
    if not is_here(device):
        return made
    return made.detach().to(device).requires_grad_(made.requires_grad)


def without_gradients(mode: Any) -> None:
    """`torch.inference_mode`, in which no tensor can be wrapped, as `torch.no_grad`."""
    mode._inference_mode_context = torch.no_grad()
    mode._inference_mode_context.__enter__()


_tensor = torch.tensor


def start() -> torch.device:
    """Let this process have the device."""
    if not _libraries:
        backend_registration._setup_privateuseone_for_python_backend(NAME, Module())
        every, aten = (torch.library.Library(name, "IMPL") for name in ("_", "aten"))
        _libraries.extend([every, aten])
        every.fallback(run, "PrivateUse1")
        every.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
        for name in FACTORIES:
            packet, _, overload = name.partition(".")
            op = getattr(getattr(torch.ops.aten, packet), overload or "default")
            aten.impl(name, partial(run, op), "PrivateUse1")
        for name in HALVED:
            half = partial(torch.get_autocast_dtype, NAME)
            aten.impl(name, casting(name, half), "AutocastPrivateUse1")
        for name in WIDENED:
            aten.impl(name, casting(name, lambda: torch.float32), "AutocastPrivateUse1")
        torch.tensor, PretendTensor.new_tensor = tensor, new_tensor
        torch.inference_mode.__enter__ = without_gradients
        # As on a GPU, a module that is moved keeps its parameters, so that tied weights stay tied.
        torch.__future__.set_swap_module_params_on_conversion(True)
    return torch.device(NAME, 0)
