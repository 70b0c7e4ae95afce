"""Models that only look things up in a table: ``NGram`` counts, and ``NeuralBigram`` finds by
gradient descent what counting finds for pairs. Both are called like any other model, and measured
in ``evaluation`` like any other. B batch, T time, V vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from llmkit.arguments import check_number
from llmkit.data import check_ids, check_rows


@dataclass(frozen=True)
class NGramConfig:
    """What others hand a table: ids below vocab_size, block_size at once (any number would do)."""

    vocab_size: int
    block_size: int = 256


class Counts(nn.Module):
    """How often each n-gram of one length was seen, ready to be mixed with the shorter ones.

    An n-gram is known by its number, its place in the sorted list of those seen; -1 is never seen.
    Its first n - 1 tokens, the context, have a number in the table before, 0 to contexts - 1. So it
    is kept as ``context * V + token``, which fits in 64 bits for every n.
    """

    keys: Tensor  # (G,) the n-grams seen, in order
    seen: Tensor  # (G + 1,) what its count gives to each, less the discount
    share: Tensor  # (contexts + 1,) what the discounts took from each context, for shorter ones

    def __init__(self, context: Tensor, ids: Tensor, contexts: int, V: int, discount: float | None):
        """Count each of the ids (N,) after its context (N,), one of so many contexts."""
        super().__init__()
        self.V = V
        keys, count = torch.unique(context * V + ids, return_counts=True)  # (G,) each, sorted
        discounts = estimate_discounts(count) if discount is None else [discount] * 3
        cut = count.new_tensor(discounts, dtype=torch.float64)[count.clamp(max=3) - 1]  # (G,)
        parent = keys // V  # (G,) the context of each n-gram
        total = torch.bincount(parent, count, contexts)  # (contexts,)
        share = (torch.bincount(parent, cut, contexts) / total).nan_to_num(1.0)  # 0 / 0: text ends
        # One entry more at the end of each, which is where -1 leads: never seen.
        self.register_buffer("keys", keys)
        self.register_buffer("seen", F.pad((count - cut) / total[parent], (0, 1), value=0.0))
        self.register_buffer("share", F.pad(share, (0, 1), value=1.0))

    def find(self, context: Tensor, token: Tensor) -> Tensor:
        """The numbers of the n-grams (context, token), which broadcast; -1 where never seen."""
        key = context * self.V + token  # below 0, and so in no list, where the context is -1
        place = torch.searchsorted(self.keys, key).clamp_(max=len(self.keys) - 1)
        return torch.where(self.keys[place] == key, place, -1)

    def forward(self, context: Tensor, token: Tensor, shorter: Tensor) -> Tensor:
        """p(token | context), where ``shorter`` is p(token | the context without its first)."""
        return self.seen[self.find(context, token)] + self.share[context] * shorter


def estimate_discounts(count: Tensor) -> list[float]:
    """What to cut from n-grams seen once, twice, three times or more, read off the counts (G,).

    With n_r n-grams seen r times, D_r = r - (r + 1) n_(r+1) / n_r * n_1 / (n_1 + 2 n_2) (Chen &
    Goodman 1998, "modified" discounts); 0.75 each where too few n-grams are rare for that.
    """
    n = torch.bincount(count, minlength=5).double()
    r = torch.tensor([1, 2, 3], device=n.device)
    D = r - (r + 1) * n[r + 1] / n[r] * n[1] / (n[1] + 2 * n[2])
    return D.tolist() if n[1:5].min() > 0 and D.min() > 0 else [0.75] * 3


class NGram(nn.Module):
    """Predict a token from the ``order - 1`` before it, by how often it followed them.

    Counts alone give 0 to what was never seen. So each count is cut by a discount D, and what was
    cut is handed out as the context without its first token would have it, down to the empty
    context, which hands it to all tokens alike (absolute discounting, Ney, Essen & Kneser 1994):

        p(w | c) = (count(c, w) - D) / count(c) + share(c) * p(w | shorter c)

    with share(c) = the sum of what was cut / count(c), so that the probabilities sum to 1.

    Args:
        ids: the training text, (N,), N of at least ``order``, all below ``vocab_size``.
        order: tokens in an n-gram: 1 unigram, 2 bigram, ...
        discount: D, 0 < D <= 1. None: three an order, read off the counts, for a lower loss.
    """

    can_score_last = True  # see ``generate``

    def __init__(self, ids: Tensor, order: int, vocab_size: int, discount: float | None = 0.75):
        super().__init__()
        check_number("order", order, int, least=1)
        check_number("vocab_size", vocab_size, int, least=1)
        check_number("discount", discount, optional=True, above=0, most=1)
        ids = check_ids(ids, vocab_size, at_least=order).long()
        self.order, self.config, self.tables = order, NGramConfig(vocab_size), nn.ModuleList()
        context, contexts = torch.zeros_like(ids), 1  # before every token: the empty context
        for _ in range(order):
            table = Counts(context, ids, contexts, vocab_size, discount)
            self.tables.append(table)
            # Each n-gram is the context of the token after it; the first token left has none.
            context, ids, contexts = table.find(context, ids)[:-1], ids[1:], len(table.keys)

    def contexts(self, ids: Tensor) -> Iterator[tuple[Counts, Tensor]]:
        """The tables, shortest contexts first, each with the numbers (B, T + 1) of the contexts
        that end before the positions 0 to T of ids (B, T)."""
        context = F.pad(torch.zeros_like(ids), (1, 0))  # the empty context, number 0
        for table in cast(Iterator[Counts], self.tables):
            yield table, context
            # One token longer. Before position 0 there is none: such a context was never seen.
            context = F.pad(table.find(context[:, :-1], ids), (1, 0), value=-1)

    def forward(self, ids: Tensor, last_only: bool = False) -> Tensor:
        """ids (B, T) -> log-probabilities (B, T, V) of the next token, float64; or, with last_only,
        (B, 1, V). The context is what ids hold of the last ``order - 1`` tokens."""
        V = self.config.vocab_size
        check_rows(ids, least=0)
        check_ids(ids.flatten(), V)
        tokens = torch.arange(V, device=ids.device)
        p = torch.tensor(1 / V, dtype=torch.float64)  # without any context, all tokens are alike
        for table, context in self.contexts(ids.long()):
            context = context[:, -1:] if last_only else context[:, 1:]  # (B, T): with the token
            p = table(context[..., None], tokens, p)  # (B, T, V)
        return p.log()

    def probabilities(self, context: Tensor) -> Tensor:
        """The distribution (V,), float64, after a context (k,), k from 0 to any length."""
        context = check_ids(context, self.config.vocab_size, name="context")
        return self(context[None], last_only=True)[0, 0].exp()

    def loss(self, ids: Tensor) -> float:
        """Nats per token over every token of ids (N,) but the first, each with all its context."""
        ids = check_ids(ids, self.config.vocab_size, at_least=2).long()
        p = torch.tensor(1 / self.config.vocab_size, dtype=torch.float64)
        for table, context in self.contexts(ids[None]):
            p = table(context[0, 1:-1], ids[1:], p)  # (N - 1,)
        return -p.log().mean().item()


class NeuralBigram(nn.Module):
    """A (V, V) table of scores: row i scores what follows token i. All zeros at first, so that the
    first loss is ln V; trained to the end, log(count(i, j) / count(i)), up to a constant per row.
    """

    def __init__(self, vocab_size: int):
        super().__init__()
        check_number("vocab_size", vocab_size, int, least=1)
        self.config = NGramConfig(vocab_size)
        self.table = nn.Embedding(vocab_size, vocab_size)
        nn.init.zeros_(self.table.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> logits (B, T, V): for each token its row of the table."""
        check_rows(ids)
        return self.table(ids)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy, in nats, of the targets y (B, T) given x (B, T)."""
        return F.cross_entropy(self(x).flatten(0, 1), y.flatten())
