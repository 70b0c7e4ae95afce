"""A model card that cannot be written with a blank (Mitchell et al. 2019, arXiv:1810.03993).

Its file has a part for machines, which Hugging Face's hub reads, and a page for people. What the
page says is the caller's; that nothing is left out is seen to here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

HEADINGS: dict[str, str] = {
    "data": "What it read",
    "quality": "How well it predicts",
    "memorisation": "What it remembers",
    "bias": "Whom it takes for whom",
    "privacy": "Personal data and output",
    "limits": "What was not measured",
}
TEMPLATE = (
    "---\n{{ card_data }}\n---\n\n# {{ name }}\n\n{{ what }}\n\n"
    "**Use it** {{ use }}\n\n**Do not use it** {{ misuse }}\n\n"
) + "\n\n".join(f"## {title}\n\n{{{{ {name} }}}}" for name, title in HEADINGS.items())


def places() -> set[str]:
    """The names of what a card must say: "name", "what", "use", "misuse", and `HEADINGS`."""
    return set(re.findall(r"\{\{ (\w+) \}\}", TEMPLATE)) - {"card_data"}


def model_card(
    values: Mapping[str, str], results: Sequence[Mapping[str, Any]] = (), **metadata: Any
) -> ModelCard:
    """The filled card: ``.text`` is the page for people, ``.content`` the whole file.

    Args:
        values: what stands at each of the `places`.
        results: measured numbers for the hub's tables, each as ``huggingface_hub.EvalResult`` takes
            them: task_type, dataset_type, dataset_name, metric_type, metric_value.
        metadata: license, language, tags and so on, as ``huggingface_hub.ModelCardData`` has them.

    Raises ValueError, by name, for a blank, and for a value that has no place.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    if blank := {name for name in places() if not values.get(name, "").strip()}:
        raise ValueError(f"the card has a blank at: {', '.join(sorted(blank))}")
    if extra := set(values) - places():
        raise ValueError(f"the card has no place for: {', '.join(sorted(extra))}")
    measured = [EvalResult(**result) for result in results]
    data = ModelCardData(model_name=values["name"], eval_results=measured or None, **metadata)
    return ModelCard.from_template(data, template_str=TEMPLATE, **values)
