"""A model card made from measurements (Mitchell et al. 2019, arXiv:1810.03993).

The text is a template, the numbers are values, and neither goes without the other: a placeholder
without a value is an error, and so is a value that the template has no place for. The form is the
one of Hugging Face's hub, whose own template would leave a blank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

TEMPLATE = """\
---
{{ card_data }}
---

# {{ name }}

{{ what }}

**Use it** {{ use }}

**Do not use it** {{ misuse }}

## What it read

{{ data }}

## How well it predicts

{{ quality }}

## What it remembers

{{ memorisation }}

## Whom it takes for whom

{{ bias }}

## Personal data and output

{{ privacy }}

## What was not measured

{{ limits }}
"""


def model_card(
    values: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]] = (),
    template: str = TEMPLATE,
    **metadata: Any,
) -> ModelCard:
    """The card: ``.content`` is the file (README.md), ``.text`` what is read, ``.save(path)``.

    values: a text for each placeholder; ``name`` is also the model's name in the metadata.
    results: for the card's machine-readable part, a mapping for each number with the fields of
        huggingface_hub's EvalResult: task_type, dataset_type, dataset_name, metric_type,
        metric_value and so on. metadata: more of it, as license="mit", language="en", tags=[...].

    Raises ValueError, by name, for a placeholder without a value, an empty value, and a value
    without a placeholder.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData  # comes with datasets
    from jinja2 import Environment, meta  # comes with torch

    wanted = meta.find_undeclared_variables(Environment().parse(template)) - {"card_data"}
    empty = {name for name, value in values.items() if value is None or not str(value).strip()}
    for what, names in {
        "the card's template has a placeholder without a value": wanted - set(values),
        "the card's template has no placeholder for the value": set(values) - wanted,
        "the card has an empty value": empty,
    }.items():
        if names:
            raise ValueError(f"{what}: {', '.join(sorted(names))}")
    if results and "name" not in values:
        raise ValueError("results belong to a model: give its name among the values")
    if results:
        metadata |= {
            "model_name": str(values["name"]),
            "eval_results": [EvalResult(**result) for result in results],
        }
    data = ModelCardData(**metadata)
    return ModelCard.from_template(data, template_str=template, **dict(values))
