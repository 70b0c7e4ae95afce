"""Drawing text from a model, one token at a time, each added to what the model reads next.

Here live the choice of a token from the model's scores (greedy, temperature, top-k, top-p) and the
loop around it. The key-value cache that makes the loop fast lives in ``attention``.
"""

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

    Args:
        model: any module with ``config.block_size`` and forward(ids (B, T)) -> logits (B, T, V);
            with a ``new_cache()`` each step reads one token, else the whole window. It is run in
            eval mode and left in its own.
        prompt_ids: (T,), T from 1 to any length, see below.
        max_new_tokens: how many tokens to add at most.
        temperature, top_k, top_p: see ``next_token_probabilities``; 0 is greedy.
        stop: a token id, or several, after which to end; it is part of the result.
        seed: same seed, same text, and the global random state is left alone. None: draws from it.
        use_cache: False reads the whole window at each step: the same tokens, only slower.

    The model sees a window of up to block_size tokens. Where it is full and a token is to be added,
    its last half (block_size // 2) is kept and read anew. A longer prompt goes through the same
    window token by token: all of it is returned, and the model sees its end, block_size // 2 + 1
    to block_size tokens. So a text made in several calls is the text made in one.

    Raises ValueError where an argument is out of its range, or the model's scores are NaN.
    """
    choices = (temperature, top_k, top_p, stop, seed, use_cache)
    new = list(stream(model, prompt_ids, max_new_tokens, *choices))
    prompt_ids = torch.as_tensor(prompt_ids).long()
    return torch.cat([prompt_ids, prompt_ids.new_tensor(new)])


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
    """``generate``, but each new id is handed out as it is drawn. The model is in eval mode until
    the iterator ends, is closed, or is dropped."""
    vocab_size = getattr(model.config, "vocab_size", None)
    prompt = check_ids(prompt_ids, vocab_size, at_least=1, name="prompt_ids").tolist()
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be 0 or more, not {max_new_tokens}")
    check_sampling(temperature, top_k, top_p, vocab_size)
    stop = () if stop is None else (stop,) if isinstance(stop, int) else tuple(stop)
    stop = frozenset(check_ids(stop, vocab_size, at_least=0, name="stop").tolist())
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    cached = use_cache and hasattr(model, "new_cache")

    def choose(logits: Tensor) -> int:  # (V,)
        p = next_token_probabilities(logits, temperature, top_k, top_p)
        return int(p.argmax()) if temperature == 0 else sample(p, generator)

    return _steps(model, prompt, max_new_tokens, choose, stop, cached)


@torch.no_grad()  # on a generator function: off inside each step, untouched in the code between
def _steps(model, prompt, max_new_tokens, choose, stop, cached) -> Iterator[int]:
    block_size, device = model.config.block_size, device_of(model)
    window: list[int] = []
    for token in prompt:
        _slide(window, token, block_size)
    with eval_mode(model):
        anew, cache = True, {}
        for _ in range(max_new_tokens):
            if anew and cached:
                cache = {"cache": model.new_cache()}
            ids = window if anew or not cached else window[-1:]  # the cache has read the others
            logits = model(torch.tensor([ids], device=device), **cache)  # (1, T, V)
            token = choose(logits[0, -1])
            yield token
            if token in stop:
                return
            anew = _slide(window, token, block_size)


def _slide(window: list[int], token: int, block_size: int) -> bool:
    """Add a token to the window; True where it was full, and only its last half was kept."""
    full = len(window) == block_size
    if full:
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
    check_sampling(temperature, top_k, top_p, len(logits))
    logits = logits.detach().to("cpu", torch.float32)
    highest, likeliest = logits.max(dim=0)
    if not math.isfinite(highest):  # one NaN makes the maximum NaN
        raise ValueError(f"the highest score is {highest}: the model's numbers have run away")
    if temperature == 0:
        return torch.zeros_like(logits).index_fill_(0, likeliest, 1.0)
    p = ((logits - highest) / max(temperature, 1e-30)).softmax(dim=0)  # float32 takes 1e-50 for 0
    if top_k is not None:
        least = p.topk(top_k).values[-1]
        above, level = p > least, p == least
        p = p * (above | level & (level.cumsum(0) <= top_k - above.sum()))
        p = p / p.sum()
    if top_p is not None and top_p < 1:
        # All tokens below (1 - top_p) / V together are not needed to reach top_p: no sorting them.
        able = (p >= (1 - top_p) / len(p)).nonzero()[:, 0]
        ranked, order = p[able].sort(descending=True, stable=True)
        before = ranked.cumsum(0, dtype=torch.float64) - ranked
        nucleus = able[order[before < top_p]]
        p = torch.zeros_like(p).index_copy_(0, nucleus, p[nucleus])
        p = p / p.sum()
    return p


def sample(p: Tensor, generator: torch.Generator | None = None) -> int:
    """Draw an id from p (V,): a dart thrown at the cumulative sum, which never hits a p of 0. At
    V = 50,000 it takes a thirtieth of torch.multinomial's time."""
    heights = p.cumsum(0, dtype=torch.float64)
    dart = torch.rand((), dtype=torch.float64, generator=generator) * heights[-1]
    return int(torch.searchsorted(heights, dart, right=True))


def check_sampling(
    temperature: float, top_k: int | None, top_p: float | None, vocab_size: int | None
) -> None:
    """ValueError where a setting is out of its range."""
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be 0 (greedy) or more, not {temperature}")
    if top_k is not None and not 1 <= top_k <= (vocab_size or math.inf):
        raise ValueError(f"top_k must be from 1 to the vocabulary's {vocab_size}, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")
