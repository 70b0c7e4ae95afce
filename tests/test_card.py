"""card: nothing unfilled, nothing left over, and a file that Hugging Face's own reader reads."""

import re

import pytest

from llmkit.responsible.card import TEMPLATE, model_card

NAMES = set(re.findall(r"\{\{ (\w+) \}\}", TEMPLATE)) - {"card_data"}
VALUES = {name: f"measured {name}" for name in NAMES}
RESULT = dict(
    task_type="text-generation",
    dataset_type="text",
    dataset_name="a play",
    metric_type="loss",
    metric_value=1.5,
)


def test_every_value_is_in_the_card():
    card = model_card(VALUES, [RESULT], license="mit", language="en")
    for value in VALUES.values():
        assert value in card.text
    assert "{{" not in card.content
    assert card.content.startswith("---\n")


def test_hugging_face_reads_the_metadata_back(tmp_path):
    from huggingface_hub import ModelCard

    card = model_card(VALUES, [RESULT, RESULT | {"metric_type": "bits", "metric_value": 2}])
    card.save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.model_name == "measured name"
    found = {(r.metric_type, r.metric_value) for r in data.eval_results}
    assert found == {("loss", 1.5), ("bits", 2)}
    licensed = model_card(VALUES, license="mit").data
    assert (licensed.license, licensed.eval_results) == ("mit", None)


def test_a_placeholder_left_unfilled_is_an_error():
    for name in NAMES:
        rest = {key: value for key, value in VALUES.items() if key != name}
        with pytest.raises(ValueError, match=f"placeholder without a value: {name}$"):
            model_card(rest)
    with pytest.raises(ValueError, match="without a value: one, two"):
        model_card({}, template="{{ card_data }} {{ two }} {{ one }}")


@pytest.mark.parametrize("empty", ["", "  ", None])
def test_an_empty_value_is_an_error(empty):
    with pytest.raises(ValueError, match="empty value: bias"):
        model_card(VALUES | {"bias": empty})
    text = model_card({"n": 0}, template="---\n{{ card_data }}\n---\nn = {{ n }}").text
    assert "n = 0" in text  # a measured zero is no blank


def test_a_value_without_a_place_is_an_error():
    with pytest.raises(ValueError, match="no placeholder for the value: typo"):
        model_card(VALUES | {"typo": 1})


def test_results_need_a_name():
    with pytest.raises(ValueError, match="give its name"):
        model_card({"n": 1}, [RESULT], template="---\n{{ card_data }}\n---\n{{ n }}")
