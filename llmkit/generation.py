"""Drawing text from a model, one token at a time: the choice of a token from the model's scores
(greedy, temperature, top-k, top-p), and the loop around it, in which each token is added to what
the model reads next. The key-value cache that makes the loop fast lives in ``attention``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from llmkit.evaluation import device_of, eval_mode
from llmkit.ngram import check_ids


def generate(
    model: nn.Module,
    prompt_ids: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | Iterable[int] | None = None,
    seed: int | None = None,
    use_cache: bool = True,
) -> Tensor:
    """The prompt and what the model makes of it: ids (T,) -> (T + n,), n up to max_new_tokens.

    Args, or a ValueError where they are not so:
        model: any module with ``config.block_size`` and forward(ids (B, T)) -> logits (B, T, V);
            it is run in eval mode and left in its own.
        prompt_ids: (T,), T from 1 to any length.
        temperature, top_k, top_p: see ``next_token_probabilities``; temperature 0 is greedy.
        stop: a token id, or several, after which to end; it is part of the result.
        seed: same seed, same text. None: draws from the global random state.
        use_cache: False (or a model without ``new_cache``) gives the same tokens, only slower.

    The model sees a window of up to block_size tokens. Where it is full and a token is to be added,
    its last half (block_size // 2) is kept and read anew. A longer prompt goes through it likewise,
    so that a text made in several calls is the text made in one.
    """
    choices = (temperature, top_k, top_p, stop, seed, use_cache)
    new = list(stream(model, prompt_ids, max_new_tokens, *choices))
    prompt_ids = torch.as_tensor(prompt_ids).long()
    return torch.cat([prompt_ids, prompt_ids.new_tensor(new)])


@torch.no_grad()  # on a generator function: off inside each step, untouched in the code between
def stream(
    model: nn.Module,
    prompt_ids: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | Iterable[int] | None = None,
    seed: int | None = None,
    use_cache: bool = True,
) -> Iterator[int]:
    """``generate``, but each new id is handed out as it is drawn, the first when asked for. Until
    the iterator ends, is closed, or is dropped, the model is in eval mode."""
    V, block_size = getattr(model.config, "vocab_size", math.inf), model.config.block_size
    prompt = check_ids(prompt_ids, V, at_least=1, name="prompt_ids").tolist()
    stop = [] if stop is None else [stop] if isinstance(stop, int) else list(stop)
    stop = check_ids(stop, V, name="stop").tolist()
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be 0 or more, not {max_new_tokens}")
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    use_cache = use_cache and hasattr(model, "new_cache")
    window: list[int] = []
    for token in prompt:
        slide(window, token, block_size)
    anew, cache = True, {}
    with eval_mode(model):
        for _ in range(max_new_tokens):
            if anew and use_cache:
                cache = {"cache": model.new_cache()}
            ids = window[-1:] if use_cache and not anew else window  # the cache holds the others
            logits = model(torch.tensor([ids], device=device_of(model)), **cache)  # (1, T, V)
            p = next_token_probabilities(logits[0, -1], temperature, top_k, top_p)
            token = int(p.argmax()) if temperature == 0 else sample(p, generator)
            yield token
            if token in stop:
                return
            anew = slide(window, token, block_size)


def slide(window: list[int], token: int, block_size: int) -> bool:
    """Add a token to the window; True where it was full, and only its last half was kept."""
    if full := len(window) == block_size:
        del window[: block_size - block_size // 2]
    window.append(token)
    return full


def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The distribution to draw from, on the CPU: scores (V,) -> probabilities (V,), float32.

    First softmax(logits / temperature), at temperature 0 all on the likeliest token. Then the
    ``top_k`` likeliest are kept, and of what these have, the fewest whose share reaches ``top_p``
    (nucleus sampling, Holtzman et al. 2020, arXiv:1904.09751). Among equals the lower id is first.
    """
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be 0 (greedy) or more, not {temperature}")
    if top_k is not None and not 1 <= top_k <= len(logits):
        raise ValueError(f"top_k must be from 1 to the vocabulary's {len(logits)}, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")
    logits = logits.detach().to(
        "cpu", torch.float64
    )  # where no temperature is too low to divide by
    highest, likeliest = logits.max(dim=0)
    if not math.isfinite(highest):  # one NaN makes the maximum NaN
        raise ValueError(f"the highest score is {highest}: the model's numbers have run away")
    if temperature == 0:
        return torch.zeros(len(logits)).index_fill_(0, likeliest, 1.0)
    p = (logits / temperature).softmax(dim=0).float()
    if top_k is None and top_p is None:
        return p
    # Sorting 50,000 takes long: leave out those that are not needed to reach top_k or top_p.
    least = p.topk(top_k).values[-1] if top_k else (1 - top_p) / len(p)
    able = (p >= least).nonzero()[:, 0]
    ranked, order = p[able].sort(descending=True, stable=True)
    kept = ranked[:top_k]
    if top_p is not None and top_p < 1:
        sums = kept.cumsum(0, dtype=torch.float64)
        kept = kept[sums - kept < top_p * (sums[-1] if top_k else 1)]
    return torch.zeros_like(p).index_copy_(0, able[order[: len(kept)]], kept / kept.sum())


def sample(p: Tensor, generator: torch.Generator | None = None) -> int:
    """Draw an id from p (V,): a dart thrown at the cumulative sum, which never hits a p of 0."""
    heights = p.cumsum(0, dtype=torch.float64)
    dart = torch.rand((), dtype=torch.float64, generator=generator) * heights[-1]
    return int(torch.searchsorted(heights, dart, right=True))
