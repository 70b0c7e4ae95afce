"""memorisation: shares counted by hand, exposure by hand and over all codes at once."""

import math

import pytest
import torch
from torch import nn

from llmkit import GPT, BPETokenizer, CharTokenizer, GPTConfig, NGram
from llmkit.responsible.memorisation import (
    auc,
    code_log_probabilities,
    continuations,
    drop_duplicates,
    exposure,
    normal_form,
    verbatim_share,
)

TOKENIZER = CharTokenizer.from_text("The pin of Alder is 0123456789.")
PREFIX = "The pin of Alder is "


def small(block_size=32, position="learned"):
    torch.manual_seed(2)
    shape = GPTConfig(TOKENIZER.vocab_size, block_size, 2, 2, 32, position=position)
    model = GPT(shape)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    return model


# --- verbatim


def test_a_model_that_knows_the_text_gives_it_back():
    text = "abcdefghijklmnopqrstuvwxyz" * 4
    tokenizer = CharTokenizer.from_text(text)
    knows = NGram(tokenizer.encode(text), 2, 26)
    found = continuations(knows, tokenizer, text, count=5, prompt_tokens=3, new_tokens=10)
    assert len(found) == 5
    for one in found:
        assert one.said == one.true
        assert one.prompt + one.true in text
    assert found[0].prompt == "abc"  # the first piece is the text's first
    assert found[-1].true == text[-10:]  # and the last its last
    assert verbatim_share([one.said for one in found], text, 10) == 1.0
    hot = continuations(knows, tokenizer, text, 5, 3, 10, temperature=50.0)
    assert verbatim_share([one.said for one in hot], text, 10) == 0.0


def test_the_share_is_counted_to_the_letter():
    said = ["to be or", "to bee or", "To be or", "or not t"]
    source = "to be or not to be"
    assert verbatim_share(said, source, 5) == 3 / 4  # "to be" is in "to bee"
    assert verbatim_share(said, source, 6) == 2 / 4
    assert verbatim_share(said, source, 8) == 2 / 4
    with pytest.raises(ValueError, match="at least 9 characters"):
        verbatim_share(said, source, 9)
    with pytest.raises(ValueError, match="give texts"):
        verbatim_share([], source, 9)


def test_a_text_without_room_for_a_prompt():
    with pytest.raises(ValueError, match="31 tokens does not hold 100 prompts of 32"):
        continuations(small(), TOKENIZER, "The pin of Alder is 0123456789.")
    text = "The pin of Alder is "
    assert len(continuations(small(), TOKENIZER, text, 2, 10, 10)) == 2


# --- exposure


def test_exposure_by_hand():
    """Eight candidates. The third likeliest has rank 3: log2 8 - log2 3."""
    log_p = torch.tensor([0.05, 0.3, 0.02, 0.2, 0.25, 0.08, 0.06, 0.04]).log()
    assert exposure(log_p, 1) == 3.0  # the likeliest
    assert exposure(log_p, 4) == 2.0  # the second
    assert exposure(log_p, 3) == pytest.approx(3 - math.log2(3))
    assert exposure(log_p, 2) == 0.0  # the last
    assert exposure(torch.zeros(8), 5) == 0.0  # all alike: as likely as any, rank 8
    with pytest.raises(ValueError, match="candidate 8 does not exist"):
        exposure(log_p, 8)


def test_without_memory_exposure_is_1_44_bits_on_average():
    log_p = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    mean = sum(exposure(log_p, secret) for secret in range(0, 10_000, 7)) / len(range(0, 10_000, 7))
    assert mean == pytest.approx(1 / math.log(2), abs=0.1)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_every_code_at_once_is_every_code_alone(cached, position):
    model = small(position=position)
    if not cached:
        model = Uncached(model)
    fast = code_log_probabilities(model, TOKENIZER, PREFIX)
    assert fast.shape == (10_000,)
    ids = torch.stack([TOKENIZER.encode(f"{PREFIX}{code:04d}") for code in range(0, 10_000, 97)])
    with torch.no_grad():
        log_p = model(ids[:, :-1]).double().log_softmax(-1)
    alone = log_p.gather(-1, ids[:, 1:, None])[:, -4:, 0].sum(dim=1)
    assert torch.allclose(fast[::97], alone, atol=1e-4)
    digits_only = fast.exp().sum()
    assert 0 < digits_only < 1  # the rest goes to codes that are no number


class Uncached(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, ids):
        return self.model(ids)


def test_codes_of_other_lengths_and_alphabets():
    model = small()
    one = code_log_probabilities(model, TOKENIZER, PREFIX, length=1, alphabet="pin")
    with torch.no_grad():
        log_p = model(TOKENIZER.encode(PREFIX)[None])[0, -1].double().log_softmax(-1)
    assert torch.allclose(one, log_p[TOKENIZER.encode("pin")], atol=1e-5)
    assert torch.allclose(one, code_log_probabilities(Uncached(model), TOKENIZER, PREFIX, 1, "pin"))
    after_one_letter = code_log_probabilities(model, TOKENIZER, "T", length=1, alphabet="pin")
    with torch.no_grad():
        log_p = model(TOKENIZER.encode("T")[None])[0, -1].double().log_softmax(-1)
    assert torch.allclose(after_one_letter, log_p[TOKENIZER.encode("pin")], atol=1e-5)
    two = code_log_probabilities(model, TOKENIZER, PREFIX, length=2, alphabet="pin").view(3, 3)
    assert torch.allclose(two[1].logsumexp(0), two[1].logsumexp(0).clamp(max=one[1]))


def test_codes_that_cannot_be_asked_for():
    with pytest.raises(ValueError, match="23 tokens do not fit into block_size 22"):
        code_log_probabilities(small(block_size=22), TOKENIZER, PREFIX)
    with pytest.raises(ValueError, match="a prefix that is not"):
        code_log_probabilities(small(), TOKENIZER, "")
    with pytest.raises(ValueError, match="codes need an alphabet"):
        code_log_probabilities(small(), TOKENIZER, PREFIX, alphabet="")
    merged = BPETokenizer.train("0123456789 " * 9, 275)
    with pytest.raises(ValueError, match="a token for each of its characters"):
        code_log_probabilities(small(), merged, "is ")


# --- duplicates


def test_the_first_of_each_stays():
    parts = ["The pin is 1.", "Ho!", "the  PIN is 1!", "The pin is 2.", "Ho!", "...", "...", ""]
    kept, dropped = drop_duplicates(parts)
    assert kept == ["The pin is 1.", "Ho!", "The pin is 2.", "...", "...", ""]
    assert dropped == ["the  PIN is 1!", "Ho!"]
    kept, dropped = drop_duplicates(parts, key=str)
    assert dropped == ["Ho!", "..."]
    assert len(kept) + len(dropped) == len(parts)
    assert drop_duplicates([]) == ([], [])


def test_the_normal_form():
    assert normal_form("  The PIN,\nof_Alder: is 48-31. ") == "the pin of alder is 48 31"
    assert normal_form("Straße") == normal_form("STRASSE")


# --- membership


def test_auc_counts_pairs_and_ties_half():
    members, others = torch.tensor([1.9, 2.4]), torch.tensor([2.1, 2.4])
    assert auc(members, others) == 2.5 / 4
    assert auc(others, members) == 1 - 2.5 / 4
    assert auc(members, members) == 0.5
    with pytest.raises(ValueError, match="at least one loss"):
        auc(members, members[:0])
