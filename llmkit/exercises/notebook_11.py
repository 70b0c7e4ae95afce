"""Notebook 11, pretrained GPT-2."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmkit.attention import CausalSelfAttention
from llmkit.exercises.examining import Exercise
from llmkit.finetune.gpt2 import TURNED, to_gpt2
from llmkit.model import GPT, MLP, GPTConfig

# ---------------------------------------------------------------------------- translate_back


def _shaken(model: GPT) -> GPT:
    """All weights away from their first values, the biases from 0 and the gains from 1."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=draw))
    return model


def _small(**changes: Any) -> GPT:
    torch.manual_seed(0)
    shape = dict(vocab_size=7, block_size=8, n_layer=1, n_head=2, n_embd=4) | changes
    return GPT(GPTConfig(**shape)).eval()


def _back(
    turned: tuple[str, ...] = TURNED, prefix: str = "transformer.", head: bool = False
) -> Any:
    """The way back, and what is often made of it."""

    def translate_back(ours: GPT) -> dict[str, Tensor]:
        weights = {
            prefix + name: weight.T if name.endswith(turned) else weight
            for name, weight in ours.named_parameters()
        }
        return weights | ({"lm_head.weight": ours.lm_head.weight} if head else {})

    return translate_back


# ------------------------------------------------------------------------------ loss_by_hand


def _loss(logits: Tensor, ids: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def _scores(B: int, T: int, V: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(T)
    return 2 * torch.randn(B, T, V, generator=draw), torch.randint(V, (B, T), generator=draw)


# ----------------------------------------------------------------------------------- repaired


def _collate(shift: bool = False, hidden: bool = False, padded: bool = False) -> Any:
    """Rows of one length, and what is often made of their labels."""

    def collate(rows: list[Tensor], end: int) -> tuple[Tensor, Tensor]:
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
        beyond = nn.utils.rnn.pad_sequence(
            [torch.zeros_like(row) for row in rows], batch_first=True, padding_value=1
        )
        labels = ids if padded else ids.masked_fill(beyond == 1, -100)
        labels = labels.masked_fill(ids == end, -100) if hidden else labels
        if shift:
            labels = F.pad(labels[:, 1:], (0, 1), value=-100)
        return ids, labels

    return collate


# ---------------------------------------------------------------------------------------- mix


def _mix(count: Callable[[int, float], float], last: bool = False, all_new: bool = True) -> Any:
    """The new text and so many tokens of the old."""

    def mix(new: Tensor, old: Tensor, share: float) -> Tensor:
        n = min(round(count(len(new), share)), len(old))
        new = new if all_new else new[: len(new) - n]
        return torch.cat([new, old[len(old) - n :] if last else old[:n]])

    return mix


# --------------------------------------------------------------------------------- same_model


class _Mutant(GPT):
    """A GPT with a fault in how it computes; its weights have the names and shapes of a GPT's."""

    def __init__(self, config: GPTConfig, fault: str = ""):
        super().__init__(config)
        self.fault = fault
        # The second is the same function as ours by another formula.
        others: dict[str, type[nn.Module]] = {"exact GELU": nn.GELU, "other GELU": _TanhGELU}
        for module in self.modules():
            if isinstance(module, MLP) and fault in others:
                module.act = others[fault]()  # type: ignore[assignment]
            if isinstance(module, CausalSelfAttention) and fault == "looks ahead":
                module.attend = _looking_ahead  # type: ignore[method-assign]

    def forward(self, ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        found = {name: self._changed(name, weight) for name, weight in self.named_parameters()}
        changed = {name: weight for name, weight in found.items() if weight is not None}
        if not changed:
            return super().forward(ids, *args, **kwargs)
        plain = deepcopy(self)
        plain.fault = ""
        with torch.no_grad():
            for name, weight in changed.items():
                plain.get_parameter(name).copy_(weight)
        return plain(ids)

    def _changed(self, name: str, weight: Tensor) -> Tensor | None:
        """What a weight is taken for, where the fault is about it."""
        if self.fault == "no biases" and name.endswith("bias"):
            return torch.zeros_like(weight)
        if self.fault == "no gains" and "ln_" in name and name.endswith("weight"):
            return torch.ones_like(weight)
        if self.fault == "square one turned" and name.endswith("attn.c_proj.weight"):
            return weight.T
        if self.fault == "first block twice" and name.startswith("h.1."):
            return self.get_parameter(name.replace("h.1.", "h.0."))
        return None

    def __repr__(self) -> str:
        return f"another GPT ({self.fault or 'as it should be'})"


def _looking_ahead(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)  # no causal mask


class _TanhGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.5957691216 * (x + 0.044715 * x**3))


class _Plain(GPT):
    def __repr__(self) -> str:
        return "a GPT"


def _pair(fault: str = "") -> tuple[GPT, GPT]:
    """A GPT and another one, each with first weights of its own."""
    config = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=12)
    torch.manual_seed(0)
    return _Plain(config).eval(), _Mutant(config, fault).eval()


def _same(
    copied: bool = True,
    shaken: bool = True,
    tolerance: float = 1e-4,
    by: str = "logits",
    T: int | None = None,
) -> Any:
    """The comparison, and how it is often weakened."""

    @torch.no_grad()
    def same_model(a: GPT, b: GPT) -> bool:
        ids = torch.randint(a.config.vocab_size, (4, T or a.config.block_size))
        if shaken:
            for weight in a.parameters():
                weight.add_(0.2 * torch.randn_like(weight))
        if copied:
            b.load_state_dict(a.state_dict())
        if by == "weights":
            mine, other = a.state_dict(), b.state_dict()
            return all(torch.equal(mine[name], other[name]) for name in mine)
        one, two = a(ids), b(ids)
        return bool((one - two).abs().max() <= tolerance)

    return same_model


BROKEN = """
def repaired(rows: list[torch.Tensor], end: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.full((len(rows), max(map(len, rows))), end)  # (B, T), padded with <|endoftext|>
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    labels = torch.full_like(ids, -100)
    labels[:, :-1] = ids[:, 1:]
    labels[labels == end] = -100
    return ids, labels
"""

_ROWS = [torch.tensor(row) for row in ([5, 1, 9], [4, 9], [2, 3, 1, 7, 9], [6, 9, 8, 9], [1])]

EXERCISES = [
    Exercise(
        "11.hidden",
        reference=(True, True, False, False),
        checked="fresh weights hide what only biases and gains would show",
        mistakes={
            "a fresh bias is 0: adding it or forgetting it gives the same number": (
                False,
                True,
                False,
                False,
            ),
            "a fresh gain is 1: multiplying by it or forgetting it gives the same number": (
                True,
                False,
                False,
                False,
            ),
            "the square matrix is random from the start, and not its own mirror image: turned, it "
            "gives other logits": (True, True, True, False),
            "the positions are random from the start, in theirs and in ours, and not the "
            "same: without theirs the logits are others": (True, True, False, True),
            "True is for what stays hidden, not for what is seen": (False, False, True, True),
            "biases start at 0 and gains at 1: look at `initialise` of llmkit.GPT": (
                False,
                False,
                False,
                False,
            ),
        },
        hints=(
            "Which numbers are random in a new model, and which are all alike?",
            "Biases are 0 and gains are 1. What does a layer give if these are left out?",
        ),
    ),
    Exercise(
        "11.translate_back",
        reference=to_gpt2,
        checked="every weight under transformers' name, the four matrices of a block turned",
        cases=[(_shaken(_small()),), (_shaken(_small(n_layer=2, n_embd=6)),)],
        mistakes={
            "nothing is turned: Conv1D keeps (in, out)": _back(()),
            "attn.c_proj.weight is square, so its shape does not tell, but it is a Conv1D "
            "too": _back(tuple(name for name in TURNED if name != "attn.c_proj.weight")),
            "their names begin with transformer.": _back(prefix=""),
            "lm_head.weight is the embedding wte.weight, and not stored a second time": _back(
                head=True
            ),
            "every matrix is turned; the embeddings are none of the Conv1D": _back(
                (*TURNED, "wte.weight", "wpe.weight")
            ),
        },
        hints=(
            "Take the dict that `ours.named_parameters()` gives, with other names.",
            "A matrix that is turned twice is as it was: CONV1D tells which ones.",
        ),
    ),
    Exercise(
        "11.loss_by_hand",
        reference=_loss,
        checked="T - 1 predictions a row, each of the token after it, as in transformers",
        cases=[_scores(1, 2, 3), _scores(1, 3, 4), _scores(2, 6, 5), _scores(3, 9, 11)],
        mistakes={
            "each position is asked for its own token: the target is the next one": lambda s, ids: (
                F.cross_entropy(s.flatten(0, 1), ids.flatten())
            ),
            "this runs backwards: position t is asked for the token before it": lambda s, ids: (
                F.cross_entropy(s[:, 1:].flatten(0, 1), ids[:, :-1].flatten())
            ),
            "the sum is divided by B · T, but only T - 1 tokens of a row are "
            "predicted": lambda s, ids: _loss(s, ids) * (1 - 1 / ids.size(1)),
            "that is the sum over all predictions: take their mean": lambda s, ids: (
                _loss(s, ids) * ids[:, 1:].numel()
            ),
            "the targets' logits were not turned into probabilities: log_softmax "
            "first": lambda s, ids: -s[:, :-1].gather(2, ids[:, 1:, None]).mean(),
            "the sign is wrong: a loss is -log p": lambda s, ids: -_loss(s, ids),
        },
        hints=(
            "The logits at position t are scores for the token at t + 1. So which positions have "
            "a target, and which tokens are one?",
            "logits[:, :-1].log_softmax(-1) and ids[:, 1:] belong together.",
            "gather(2, targets[..., None]) takes each target's entry. Then the mean, with a minus.",
        ),
    ),
    Exercise(
        "11.repaired",
        reference=_collate(),
        checked="what is padded does not count, the end of a text does, and nothing is shifted",
        cases=[
            ([_ROWS[0]], 9),
            (_ROWS[:2], 9),
            (_ROWS[2:], 9),
            ([_ROWS[4], _ROWS[2], _ROWS[3]], 9),
        ],
        mistakes={
            "the labels are still shifted: the model shifts them itself, so now it would learn "
            "the token after the next": _collate(shift=True),
            "a text's own end has no label still: only what was padded should have none, or the "
            "model never learns to stop": _collate(hidden=True),
            "both faults are there: labels shifted, and the text's own end left out": _collate(
                True, True
            ),
            "the padding counts now: the model would learn to write <|endoftext|> after "
            "<|endoftext|>": _collate(padded=True),
        },
        hints=(
            "What should the labels of a single row, with nothing padded, be?",
            "The last token of a text is <|endoftext|> too. How can padding be told from it? By "
            "its place.",
            "Start with labels of -100, and copy each row into both tensors.",
        ),
        stub=BROKEN,
    ),
    Exercise(
        "11.mix",
        reference=_mix(lambda n, share: share * n / (1 - share)),
        checked="all of the new text, and of the old as much as makes its share",
        cases=[
            (torch.arange(6), torch.arange(100, 120), 0.0),
            (torch.arange(6), torch.arange(100, 120), 0.25),
            (torch.arange(6), torch.arange(100, 120), 0.3),  # 2.57 tokens: rounded up
            (torch.arange(10), torch.arange(100, 140), 0.3),  # 4.29: rounded down
            (torch.arange(10), torch.arange(100, 140), 0.75),
        ],
        mistakes={
            "that is a share of the new text's length; the share is of the whole mixture": _mix(
                lambda n, share: share * n
            ),
            "the new text was cut to make room: all of it should stay": _mix(
                lambda n, share: share * n, all_new=False
            ),
            "that is the end of the old text: take its beginning": _mix(
                lambda n, share: share * n / (1 - share), last=True
            ),
            "all of the old text is there, whatever the share": _mix(lambda n, share: float("1e9")),
        },
        hints=(
            "If the share of the old is a quarter, the new text is three quarters of the whole.",
            "So n tokens of the old: n / (n + len(new)) = share. Solve for n.",
            "n = round(share / (1 - share) * len(new))",
        ),
    ),
    Exercise(
        "11.same_model",
        reference=_same(),
        checked="it accepts another way to compute the same, and finds all six faults",
        cases=[
            _pair(),
            _pair("other GELU"),
            _pair("no biases"),
            _pair("no gains"),
            _pair("square one turned"),
            _pair("exact GELU"),
            _pair("first block twice"),
            _pair("looks ahead"),
        ],
        mistakes={
            "b has other weights at first: give it a's before you compare": _same(copied=False),
            "fresh biases are 0 and fresh gains 1: move all of a's weights first, or a model "
            "without them passes": _same(shaken=False),
            "models that compute in another order differ in the last digits: allow for "
            "rounding": _same(tolerance=0.0),
            "another GELU passes for the same: compare all logits, not the best tokens only, and "
            "allow for rounding but no more": _same(tolerance=0.1),
            "one token has nothing ahead of it to look at: compare longer texts": _same(T=1),
            "weights that are the same do not say what is computed with them: compare logits": (
                _same(by="weights")
            ),
        },
        hints=(
            "What must b have before its logits mean anything? load_state_dict gives it.",
            "Print (a(ids) - b(ids)).abs().max() for the pairs: with fresh weights, some faulty "
            "ones give almost nothing. Shake all of a's weights by 0.2 · randn first.",
            "Rounding gives less than 1e-6 here, the smallest fault 4e-4: a line lies between.",
        ),
    ),
]
