"""Models that only look things up in a table: counted n-grams, and the bigram that is learned.

``NGram`` counts. ``NeuralBigram`` finds, by gradient descent, what counting finds for pairs. Both
are called like any other model here; measuring them on a text lives in ``evaluation``, drawing
text from them in ``generation``. Shapes: B batch, T time, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


def check_ids(ids: Tensor, vocab_size: int | None, at_least: int, name: str = "ids") -> Tensor:
    """ids as int64 (N,), or a ValueError that says why they are not at_least tokens of a text."""
    ids = torch.as_tensor(ids)
    if ids.dim() != 1 or len(ids) < at_least:
        shape = tuple(ids.shape)
        raise ValueError(f"{name} must be one sequence of {at_least} or more ids, not {shape}")
    if len(ids) and (ids.is_floating_point() or ids.dtype == torch.bool):
        raise ValueError(f"{name} must be whole numbers (torch.int64), not {ids.dtype}")
    ids = ids.long()
    low, high = (int(end) for end in ids.aminmax()) if len(ids) else (0, 0)
    if low < 0 or (vocab_size is not None and high >= vocab_size):
        wrong = low if low < 0 else high
        raise ValueError(f"id {wrong} in {name} is outside the vocabulary (size {vocab_size})")
    return ids


@dataclass(frozen=True)
class NGramConfig:
    """What others need to know of a table: ids run from 0 to vocab_size - 1, and it is handed
    block_size tokens at once. It could take any number: it looks at the last few only."""

    vocab_size: int
    block_size: int = 256


class Counts(nn.Module):
    """How often each n-gram of one length was seen, ready to be mixed with the shorter ones.

    An n-gram is known by its number, its place in the sorted list of those seen; -1 is never seen.
    Its first n - 1 tokens, the context, are an n-gram of the table before and have a number there.
    So an n-gram is ``context * V + token``: 64 bits hold that for every length and vocabulary.

    Args:
        context: the number of the context of each token, (N,), from 0 to contexts - 1.
        ids: the tokens, (N,).
    """

    def __init__(self, context: Tensor, ids: Tensor, contexts: int, V: int, discount: float | None):
        super().__init__()
        self.V = V
        keys, count = torch.unique(context * V + ids, return_counts=True)  # (G,) each, sorted
        parent = keys // V  # (G,) the context of each n-gram
        total = torch.bincount(parent, count, contexts)  # (contexts,)
        self.discounts = estimate_discounts(count) if discount is None else (discount,) * 3
        discounts = torch.tensor(self.discounts, dtype=torch.float64, device=ids.device)
        cut = discounts[count.clamp(max=3) - 1]  # (G,)
        share = torch.bincount(parent, cut, contexts) / total  # (contexts,)
        share[total == 0] = 1.0  # nothing ever followed (the end of the text): all to the shorter
        # One entry more at the end of each, which is where -1 leads: never seen.
        self.register_buffer("keys", keys)
        self.register_buffer("seen", F.pad((count - cut) / total[parent], (0, 1), value=0.0))
        self.register_buffer("share", F.pad(share, (0, 1), value=1.0))

    def find(self, context: Tensor, token: Tensor) -> Tensor:
        """The numbers of the n-grams (context, token), which broadcast; -1 where never seen."""
        key = context * self.V + token  # below 0, and so in no list, where the context is -1
        place = torch.searchsorted(self.keys, key).clamp_(max=len(self.keys) - 1)
        return torch.where(self.keys[place] == key, place, -1)


def estimate_discounts(count: Tensor) -> tuple[float, float, float]:
    """What to cut from n-grams seen once, twice, three times or more, read off the counts.

    With n_r n-grams seen r times, D_r = r - (r + 1) n_(r+1) / n_r * n1 / (n1 + 2 n2) (Chen &
    Goodman 1998, "modified" discounts); 0.75 where too few are rare for that to give a use.
    """
    n = torch.bincount(count, minlength=5).tolist()
    if min(n[1:5]) > 0:
        Y = n[1] / (n[1] + 2 * n[2])
        found = tuple(r - (r + 1) * n[r + 1] / n[r] * Y for r in (1, 2, 3))
        if min(found) > 0:
            return found
    return 0.75, 0.75, 0.75


class NGram(nn.Module):
    """Predict a token from the ``order - 1`` before it, by how often it followed them.

    Counts alone give 0 to what was never seen. So each count is cut by a discount D, and what was
    cut is handed out as the context without its first token would have it, down to the empty
    context, which hands it to all tokens alike (absolute discounting, Ney, Essen & Kneser 1994):

        p(w | c) = (count(c, w) - D) / count(c) + share(c) * p(w | shorter c)

    with share(c) = the sum of what was cut / count(c), so that the probabilities sum to 1.

    Args:
        ids: the training text, (N,), N of at least ``order``.
        order: tokens in an n-gram: 1 unigram, 2 bigram, ...
        vocab_size: V.
        discount: D, above 0 and at most 1; 0.75 is customary. None: three discounts an order,
            read off the counts by ``estimate_discounts``: nothing to choose, and a lower loss
            (Tiny Shakespeare, order 5: 1.661 against 1.692 nats per character).
    """

    def __init__(self, ids: Tensor, order: int, vocab_size: int, discount: float | None = 0.75):
        super().__init__()
        if not isinstance(order, int) or order < 1:
            raise ValueError(f"order must be a whole number of at least 1, not {order!r}")
        if discount is not None and not 0 < discount <= 1:
            raise ValueError(f"discount must be above 0 and at most 1, or None, not {discount!r}")
        ids = check_ids(ids, vocab_size, at_least=order)
        # Half a block still holds a whole context: generation, which halves it, loses nothing.
        self.config = NGramConfig(vocab_size, max(NGramConfig.block_size, 2 * order))
        self.order = order
        self.tables = nn.ModuleList()
        context, contexts = torch.zeros_like(ids), 1  # before every token: the empty context
        for _ in range(order):
            known = context >= 0
            table = Counts(context[known], ids[known], contexts, vocab_size, discount)
            self.tables.append(table)
            context = F.pad(table.find(context, ids)[:-1], (1, 0), value=-1)  # ends one earlier
            contexts = len(table.keys)

    def contexts(self, ids: Tensor) -> list[Tensor]:
        """For each order the number of the context that ends before positions 0 to T, the last of
        which is the token still to come: ids (..., T) -> (..., T + 1) each."""
        found = [torch.zeros_like(F.pad(ids, (1, 0)))]
        for table in self.tables[:-1]:
            found.append(F.pad(table.find(found[-1][..., :-1], ids), (1, 0), value=-1))
        return found

    def mix(self, contexts: list[Tensor], token: Tensor) -> Tensor:
        """p(token | context), float64, mixed from short contexts to long; the two broadcast."""
        p = torch.tensor(1 / self.config.vocab_size, dtype=torch.float64, device=token.device)
        for table, context in zip(self.tables, contexts, strict=True):
            p = table.seen[table.find(context, token)] + table.share[context] * p
        return p

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> log-probabilities (B, T, V) of the next token, float64; at position t the
        context is what ids hold of the last ``order - 1`` tokens up to t."""
        check_ids(ids.flatten(), self.config.vocab_size, at_least=1)
        every_token = torch.arange(self.config.vocab_size, device=ids.device)  # (V,)
        return self.mix([c[:, 1:, None] for c in self.contexts(ids)], every_token).log()

    def probabilities(self, context: Tensor) -> Tensor:
        """The distribution (V,), float64, after a context (k,), k from 0 to any length."""
        context = check_ids(context, self.config.vocab_size, at_least=0, name="context")
        every_token = torch.arange(self.config.vocab_size, device=context.device)
        return self.mix([c[-1:] for c in self.contexts(context)], every_token)

    def loss(self, ids: Tensor) -> float:
        """Nats per token over every token of ids (N,) but the first, each with all its context."""
        ids = check_ids(ids, self.config.vocab_size, at_least=2)
        return -self.mix([c[1:-1] for c in self.contexts(ids)], ids[1:]).log().mean().item()


class NeuralBigram(nn.Module):
    """A (V, V) table of scores, trained: row i scores what follows token i.

    All zeros at first, so that the first loss is ln V. Trained to the end it says what counting
    pairs says: the logarithm of count(i, j) / count(i), up to a constant per row.
    """

    def __init__(self, vocab_size: int):
        super().__init__()
        self.config = NGramConfig(vocab_size)
        self.table = nn.Embedding(vocab_size, vocab_size)
        nn.init.zeros_(self.table.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> logits (B, T, V): for each token its row of the table."""
        return self.table(ids)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy, in nats, of the targets y (B, T) given x (B, T)."""
        return F.cross_entropy(self(x).flatten(0, 1), y.flatten())
