"""Drawing text from a model, one token at a time: the choice of a token from the model's scores
(greedy, temperature, top-k, top-p), and the loop around it, in which each token is added to what
the model reads next. The key-value cache that makes the loop fast lives in ``attention``.

Shapes: B rows, each a text of its own; T tokens so far; V vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from llmkit.arguments import LanguageModel, check_number, check_type
from llmkit.data import as_tensor, check_ids
from llmkit.evaluation import device_of, eval_mode, vocab_size_of
from llmkit.runtime import seeded


def generate(
    model: LanguageModel,
    prompt_ids: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | Iterable[int] | None = None,
    seed: int | None = None,
    use_cache: bool = True,
) -> Tensor:
    """The prompt and what the model makes of it: ids (T,) -> (T + n,), or (B, T) -> (B, T + n), n
    up to max_new_tokens.

    Args, or a ValueError where they are not so:
        model: any module with ``config.block_size`` and forward(ids (B, T)) -> logits (B, T, V);
            it is run in eval mode and left in its own. ``speed.decoding.quick(model)`` in its place
            gives the same tokens sooner.
        prompt_ids: (T,), T from 1 to any length; or (B, T), several at once, which is faster than
            one after the other. Row b is the text that it would be alone, with ``seed + b``.
        temperature, top_k, top_p: see ``next_token_probabilities``; temperature 0 is greedy.
        stop: a token id, or several, after which to end; it is part of the result. A row that has
            ended repeats it until all have.
        seed: same seed, same text. None: draws from the global random state.
        use_cache: False (or a model without ``new_cache``) gives the same tokens, only slower. A
            model with one takes ``cache``; one with ``can_score_last`` takes ``last_only`` and
            then scores the last position alone, as `GPT` and `NGram` do.

    The model sees a window of up to block_size tokens. Where it is full and a token is to be added,
    its last half (block_size // 2) is kept and read anew. A longer prompt goes through it likewise,
    so that a text made in several calls is the text made in one.
    """
    choices: tuple[Any, ...] = (temperature, top_k, top_p, stop, seed, use_cache)
    new: list[Any] = list(stream(model, prompt_ids, max_new_tokens, *choices))
    prompt_ids = as_tensor(prompt_ids).long()
    if prompt_ids.dim() == 1:
        return torch.cat([prompt_ids, prompt_ids.new_tensor(new)])
    return torch.cat([prompt_ids, *(tokens[:, None] for tokens in new)], dim=1)


@torch.no_grad()  # on a generator function: off inside each step, untouched in the code between
def stream(
    model: LanguageModel,
    prompt_ids: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | Iterable[int] | None = None,
    seed: int | None = None,
    use_cache: bool = True,
) -> Iterator[int] | Iterator[Tensor]:
    """``generate``, but each new id is handed out as it is drawn, the first when asked for: an int,
    or for a prompt (B, T) a tensor (B,). Until the iterator ends, is closed, or is dropped, the
    model is in eval mode."""
    V, block_size = vocab_size_of(model), model.config.block_size
    prompt, device = as_tensor(prompt_ids, "prompt_ids"), device_of(model)
    batched = prompt.dim() == 2
    ids = check_ids(prompt.flatten() if batched else prompt, V, at_least=1, name="prompt_ids")
    ids = ids.long().view(-1, prompt.size(-1))  # (B, T)
    if isinstance(stop, Iterable) and not isinstance(stop, (str, Tensor)):
        stop = list(stop)
    stops = as_tensor([] if stop is None else stop, "stop")
    stop_ids = check_ids(stops if stops.dim() else stops[None], V, name="stop").to(ids)
    check_number("max_new_tokens", max_new_tokens, int, least=0)
    check_type("use_cache", use_cache, bool)
    check_number("seed", seed, int, optional=True, least=0, below=2**62)
    generators = [None if seed is None else seeded(seed + b) for b in range(len(ids))]
    new_cache = getattr(model, "new_cache", None) if use_cache else None
    score: Any = model  # which may take more than ids
    options = {"last_only": True} if getattr(model, "can_score_last", False) else {}
    window = ids[:, -fitting(ids.size(1), block_size) :]  # (B, up to block_size)
    stopped = torch.zeros_like(ids[:, 0], dtype=torch.bool)  # (B,)
    cache: Any = None  # what it holds is all of the window but the last token
    with eval_mode(model):
        for _ in range(max_new_tokens):
            if new_cache is None:
                logits = score(window.to(device), **options)[:, -1]  # (B, V)
            else:
                unread = window if cache is None else window[:, -1:]
                cache = new_cache(len(ids)) if cache is None else cache
                logits = score(unread.to(device), cache=cache, **options)[:, -1]
            p = next_token_probabilities(logits, temperature, top_k, top_p)
            new = p.argmax(dim=-1) if temperature == 0 else sample(p, generators)
            new = new.to(ids.device)  # (B,)
            if len(stop_ids):
                new = window[:, -1].where(stopped, new)  # a row that has ended repeats its stop
                stopped = torch.isin(new, stop_ids)
            if window.size(1) == block_size:  # full: keep the last half, and read it again
                window, cache = window[:, block_size - block_size // 2 :], None
            window = torch.cat([window, new[:, None]], dim=1)
            yield new if batched else int(new)
            if len(stop_ids) and stopped.all():
                return


def fitting(T: int, block_size: int) -> int:
    """How many tokens of a text of T the window holds: all that fit, but once it was full, one more
    than its half, and again up to block_size."""
    half, over = block_size // 2, T - block_size
    return T if over <= 0 else half + 1 + (over - 1) % (block_size - half)


def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The distribution to draw from: scores (V,) or (B, V) -> probabilities of that shape, float32.

    First softmax(logits / temperature), at temperature 0 all on the likeliest token. Then the
    ``top_k`` likeliest are kept, and of what these have, the fewest whose share reaches ``top_p``
    (nucleus sampling, Holtzman et al. 2020, arXiv:1904.09751). Among equals the lower id is first.
    """
    check_type("logits", logits, Tensor)
    V = logits.size(-1)
    check_number("temperature", temperature, least=0)
    check_number("top_k", top_k, int, optional=True, least=1, most=V)
    check_number("top_p", top_p, optional=True, above=0, most=1)
    device = "cpu" if logits.device.type == "mps" else logits.device  # an Apple GPU has no float64,
    logits = logits.detach().to(device, torch.float64)  # where no temperature is too low
    highest, likeliest = logits.max(dim=-1, keepdim=True)
    if not highest.isfinite().all():  # one NaN makes the maximum NaN
        bad = highest[~highest.isfinite()][0]
        raise ValueError(f"the highest score is {bad}: the model's numbers have run away")
    if temperature == 0:  # the limit, which no division by 0 gives
        return torch.zeros_like(logits, dtype=torch.float32).scatter_(-1, likeliest, 1.0)
    # Less the highest, which changes no share: a low temperature then makes -inf of the others, and
    # not +inf of several, between which softmax could not choose.
    p = ((logits - highest) / temperature).softmax(dim=-1).float()
    if top_k is None and top_p is None:
        return p
    # Sorting 50,000 takes long: leave out those that are not needed to reach top_k or top_p.
    likely = top_k or int((p >= (1 - (top_p or 1)) / V).sum(dim=-1).max())
    ranked = p.topk(likely).values  # (B, K), falling
    kept = torch.full_like(likeliest, likely)  # (B, 1): how many
    if top_p is not None and top_p < 1:
        sums = ranked.cumsum(-1, dtype=torch.float64)
        enough = top_p * (sums[..., -1:] if top_k else 1)
        kept = (sums - ranked < enough).sum(-1, keepdim=True).clamp(min=1)  # 1e-323 may become 0
    least = ranked.gather(-1, kept - 1)  # the last one kept, which may have equals
    above, equal = p > least, p == least
    keep = above | (equal & (equal.cumsum(-1) <= kept - above.sum(-1, keepdim=True)))
    ranked = ranked[..., : int(kept.max())]
    total = ranked.where(torch.arange(ranked.size(-1), device=p.device) < kept, 0.0)
    return p.where(keep, 0.0) / total.sum(-1, keepdim=True)


def sample(p: Tensor, generators: Sequence[torch.Generator | None]) -> Tensor:
    """Draw an id for each row of p: (B, V) -> (B,). Row b has a dart of its own, from generators[b]
    (on the CPU; None: the global one), thrown at its cumulative sum, which never hits a p of 0."""
    # In float32, the small probabilities would be lost when added to a sum near 1.
    heights = p.cumsum(-1, dtype=torch.float64)  # (B, V)
    darts = torch.stack([torch.rand((), dtype=torch.float64, generator=g) for g in generators])
    darts = darts[:, None].to(p.device) * heights[:, -1:]  # (B, 1)
    return torch.searchsorted(heights, darts, right=True)[:, 0]
