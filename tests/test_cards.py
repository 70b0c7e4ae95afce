"""cards: a card is filled, or refused by name."""

import pytest
from huggingface_hub import ModelCard

from llmkit.responsible.cards import HEADINGS, model_card, places

VALUES = {place: f"about {place}" for place in places()}


def test_a_card_has_each_value_under_its_heading():
    card = model_card(VALUES, license="mit", tags=["teaching"])
    for name, title in HEADINGS.items():
        assert f"## {title}\n\nabout {name}" in card.text
    assert card.data.license == "mit"
    assert "{{" not in card.content


def test_the_hub_reads_the_measured_number_back():
    result = dict(task_type="text-generation", dataset_type="text", dataset_name="a play")
    card = model_card(VALUES, [result | dict(metric_type="loss", metric_value=1.25)])
    [measured] = ModelCard(card.content).data.eval_results
    assert (measured.metric_type, measured.metric_value) == ("loss", 1.25)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({name: text for name, text in VALUES.items() if name != "bias"}, "a blank at: bias"),
        (VALUES | {"limits": " ", "use": ""}, "a blank at: limits, use"),
        (VALUES | {"mood": "good"}, "no place for: mood"),
    ],
)
def test_blanks_and_what_has_no_place_are_refused_by_name(values, told):
    with pytest.raises(ValueError, match=told):
        model_card(values)
