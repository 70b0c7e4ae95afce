"""What llmkit asks of what it is given: methods of a model and a tokenizer; checks of all the rest.

A model or a tokenizer need not inherit from anything here: whatever has these methods will do. A
check that many share tells of an argument that cannot work, in one sentence that names it. Token
ids are checked by `data.check_ids`, which knows the vocabulary; files by `files`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

BOUNDS = {
    "least": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "most": ("at most", operator.le),
    "below": ("below", operator.lt),
}


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids, (N,) int64, and back."""

    @property
    def vocab_size(self) -> int: ...
    def encode(self, text: str) -> Tensor: ...
    def decode(self, ids: Tensor | Sequence[int] | int) -> str: ...
    def save(self, path: str | Path) -> None: ...


class ModelConfig(Protocol):
    """What of a model's configuration others read."""

    # Properties, because a frozen dataclass has these fields, but does not let them be set.
    @property
    def vocab_size(self) -> int: ...
    @property
    def block_size(self) -> int: ...


class LanguageModel(Protocol):
    """A ``torch.nn.Module`` with a ``config``, and forward(ids (B, T)) -> logits (B, T, V)."""

    training: bool

    @property
    def config(self) -> Any: ...
    def __call__(self, ids: Tensor, /) -> Tensor: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def buffers(self) -> Iterator[Tensor]: ...
    def named_buffers(self) -> Iterator[tuple[str, Tensor]]: ...
    def state_dict(self) -> dict[str, Any]: ...


def check_number(
    name: str, value: Any, kind: type = float, optional: bool = False, **bounds: float
) -> None:
    """ValueError unless the value is a finite number within the bounds (least, above, most, below),
    with kind int a whole one. True is no number here; None is fine where optional."""
    # The abstract kinds of number, because NumPy's are neither int nor all of them float.
    number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    within = number and all(BOUNDS[bound][1](value, limit) for bound, limit in bounds.items())
    if (within and -math.inf < value < math.inf) or (optional and value is None):
        return
    told = " and ".join(f"{BOUNDS[bound][0]} {limit}" for bound, limit in bounds.items())
    if bounds.keys() == {"least", "most"}:
        told = f"from {bounds['least']} to {bounds['most']}"
    noun = "a whole number" if kind is int else "a number"
    raise ValueError(f"{name} must be {(told or 'finite') if number else noun}, not {shown(value)}")


def check_type(
    name: str, value: Any, *kinds: Any, wanted: str = "", optional: bool = False
) -> None:
    """TypeError unless the value is of one of these types, or None where optional. wanted: what to
    call them."""
    if optional and value is None:
        return
    flag = isinstance(value, bool) and bool not in kinds  # which Python takes for a number
    # A class has its methods as well, and would pass for an instance of a protocol.
    if not isinstance(value, kinds) or isinstance(value, type) or flag:
        wanted = wanted or " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name} must be {wanted}, not {shown(value)}")


def check_each(name: str, values: Any, *kinds: Any, wanted: str = "") -> list[Any]:
    """The values as a list; TypeError unless there are several, or none, each of these types."""
    found = list(values) if isinstance(values, Iterable) else [None]
    if not all(isinstance(value, kinds) for value in found):
        wanted = wanted or " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name} must be a list of {wanted}, not {shown(values)}")
    return found


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """ValueError unless the value is one of the choices."""
    if value not in list(choices):
        listed = ", ".join(map(repr, choices))
        raise ValueError(f"{name} must be one of {listed}, not {shown(value)}")


def shown(value: Any) -> str:
    """A value, as an error shows it: of a tensor the shape and the number format."""
    if isinstance(value, Tensor):  # whose numbers would fill a page
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    return short(repr(value))


def short(text: str, most: int = 80) -> str:
    """One line of so many characters."""
    text = " ".join(text[: 4 * most].split())
    return text if len(text) <= most else text[: most - 3] + "..."
