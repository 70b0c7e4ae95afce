"""preferences: how likely answers are, DPO and GRPO, beside sums written out and beside TRL."""

import copy
import itertools
import math
from dataclasses import replace
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

import llmkit
from llmkit.finetune.instructions import Item, encode
from llmkit.optim import configure_optimizers
from llmkit.preferences import answers, dpo, grpo
from llmkit.preferences.update import update

TOKENIZER = llmkit.CharTokenizer.from_text("Q:A \nabcdefgh?")
V = TOKENIZER.vocab_size
ITEMS = [
    Item(i, "head", "head?", word, word[0]) for i, word in enumerate(("abc", "hab", "de", "fe"))
]


def gpt(seed=0, **changes):
    torch.manual_seed(seed)
    shape = dict(n_layer=2, n_head=2, n_embd=32, position="rotary")
    model = llmkit.GPT(llmkit.GPTConfig(V, 32, **{**shape, **changes}))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def rows(model, count=3, seed=0):
    torch.manual_seed(seed)
    drawn = answers.draw(model, TOKENIZER, ITEMS, count, 6)
    return answers.as_rows(TOKENIZER, ITEMS, drawn), drawn


# ----------------------------------------------------------------------------- answers


def test_log_probs_are_those_of_each_token_after_the_ones_before():
    model = gpt()
    data, drawn = rows(model)
    found = answers.log_probs(model, data.x, data.y).sum(-1)  # (12,)
    flat = [(item, ids) for item, group in zip(ITEMS, drawn, strict=True) for ids in group]
    for total, (item, ids) in zip(found, flat, strict=True):
        prompt = TOKENIZER.encode(item.prompt)
        by_hand = 0.0
        for t in range(len(ids)):
            before = torch.cat([prompt, ids[:t]])[None]
            by_hand += model(before)[0, -1].log_softmax(-1)[ids[t]].item()
        assert total.item() == pytest.approx(by_hand, abs=1e-4)


def test_divergence_is_the_sum_over_every_answer_there_is():
    """Of one token or two, all of which are written out, with their probabilities."""
    model, reference = gpt(1), gpt(2)
    item, end = ITEMS[0], TOKENIZER.encode("\n").item()
    whole = [
        torch.tensor(ids)
        for ids in [(end,), *itertools.product(range(V), range(V))]
        if ids[0] != end or len(ids) == 1
    ]
    data = answers.as_rows(TOKENIZER, [item], [whole])
    with torch.no_grad():
        ours = answers.log_probs(model, data.x, data.y).sum(-1)
        theirs = answers.log_probs(reference, data.x, data.y).sum(-1)
        found = answers.divergence(model, reference, data.x, data.y)
    assert ours.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    wanted = (ours.exp() * (ours - theirs)).sum().item()
    assert (ours.exp() * found).sum().item() == pytest.approx(wanted, abs=1e-5)
    assert wanted > 0.1
    assert torch.allclose(answers.divergence(model, model, data.x, data.y), torch.zeros(1))


def test_answers_are_drawn_with_their_probabilities():
    model = gpt()
    torch.manual_seed(3)
    [drawn] = answers.draw(model, TOKENIZER, ITEMS[:1], 4000, 1)
    seen = torch.bincount(torch.cat(drawn), minlength=V) / 4000
    with torch.no_grad():
        wanted = model(TOKENIZER.encode(ITEMS[0].prompt)[None])[0, -1].softmax(-1)
    assert (seen - wanted).abs().max() < 0.03


def test_an_answer_is_cut_after_its_end():
    _, drawn = rows(gpt(), count=40)
    end = TOKENIZER.encode("\n").item()
    ended = [ids for group in drawn for ids in group if end in ids.tolist()]
    assert ended
    assert all(ids.tolist().index(end) == len(ids) - 1 for ids in ended)
    assert any(len(ids) == 6 and end not in ids.tolist() for group in drawn for ids in group)
    assert answers.read(TOKENIZER, TOKENIZER.encode("ab\n")) == "ab"


def test_the_distance_to_itself_is_zero_and_to_another_is_not():
    model = gpt(1)
    assert answers.kl_from(model, copy.deepcopy(model), TOKENIZER, ITEMS, 6) < 1e-6
    assert answers.kl_from(model, gpt(2), TOKENIZER, ITEMS, 6) > 0.1


def test_what_opens_an_answer_and_ends_it_is_the_forms():
    """`opened` writes an item backwards, and "h" after its answer."""
    plain, newline = answers.openings(ITEMS, TOKENIZER)
    assert [TOKENIZER.decode(ids) for ids in plain] == [item.prompt for item in ITEMS]
    assert newline == TOKENIZER.encode("\n")
    prompts, end = answers.openings(ITEMS, TOKENIZER, opened)
    assert [TOKENIZER.decode(ids) for ids in prompts] == [item.input[::-1] for item in ITEMS]
    assert end == TOKENIZER.encode("h")
    torch.manual_seed(0)
    drawn = answers.draw(gpt(), TOKENIZER, ITEMS, 40, 6, form=opened)
    ended = [ids for group in drawn for ids in group if end in ids.tolist()]
    assert ended
    assert all(ids.tolist().index(end) == len(ids) - 1 for ids in ended)
    assert "\n" in "".join(answers.read(TOKENIZER, ids, end) for ids in ended)
    assert answers.read(TOKENIZER, TOKENIZER.encode("ab\nh"), end) == "ab\n"
    data = answers.as_rows(TOKENIZER, ITEMS[:1], [[TOKENIZER.encode("abh")]], opened)
    x, y = opened(replace(ITEMS[0], answer="ab"), TOKENIZER)
    assert torch.equal(data.x, x[None])
    assert torch.equal(data.y, y[None])
    both = gpt(1), gpt(2)
    plain_kl, other_kl = (
        answers.kl_from(*both, TOKENIZER, ITEMS, 6, form) for form in (encode, opened)
    )
    assert abs(plain_kl - other_kl) > 1e-3


def opened(item, tokenizer):
    prompt, answer = tokenizer.encode(item.input[::-1]), tokenizer.encode(item.answer + "h")
    whole = torch.cat([prompt, answer])
    return whole[:-1], whole[1:].where(torch.arange(1, len(whole)) >= len(prompt), -100)


def test_a_form_that_cannot_be_answered_in_is_refused():
    with pytest.raises(TypeError, match="form must be a function of item and tokenizer, not 'x'"):
        answers.draw(gpt(), TOKENIZER, ITEMS, 2, 6, form="x")
    with pytest.raises(ValueError, match="form counts 0 tokens of item 0 with an empty answer"):
        answers.draw(gpt(), TOKENIZER, ITEMS, 2, 6, form=endless)
    with pytest.raises(ValueError, match="items is empty, nothing to answer"):
        grpo.train(gpt(), TOKENIZER, [], starts_with_h, 1)


def endless(item, tokenizer):
    ids = tokenizer.encode(item.prompt + item.answer)
    return ids, torch.full_like(ids, -100)


# ----------------------------------------------------------------------------- DPO


def test_dpo_loss_by_hand():
    chosen, rejected = torch.tensor([-4.0, -9.0]), torch.tensor([-6.0, -3.0])
    was = torch.tensor([-5.0, -4.0]), torch.tensor([-5.0, -4.0])
    gaps = [(-4 + 5) - (-6 + 5), (-9 + 4) - (-3 + 4)]
    wanted = sum(math.log(1 + math.exp(-0.5 * gap)) for gap in gaps) / 2
    assert dpo.dpo_loss(chosen, rejected, *was, beta=0.5).item() == pytest.approx(wanted, abs=1e-6)
    assert dpo.dpo_loss(chosen, rejected, chosen, rejected).item() == pytest.approx(math.log(2))


def test_dpo_makes_the_chosen_answers_likelier_than_the_rejected():
    model = gpt()
    before = copy.deepcopy(model)
    pairs = [dpo.Pair(item, item.answer, "b" + item.answer) for item in ITEMS]
    losses = dpo.train(model, TOKENIZER, pairs, 40, batch_size=4, learning_rate=0.01)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < 0.4

    def margin(model, pair):
        told = [replace(pair.item, answer=answer) for answer in (pair.chosen, pair.rejected)]
        data = answers.as_rows(
            TOKENIZER, told, [[TOKENIZER.encode(item.answer + "\n")] for item in told]
        )
        one, other = answers.log_probs(model, data.x, data.y).sum(-1)
        return (one - other).item()

    assert all(margin(model, pair) > margin(before, pair) + 3 for pair in pairs)
    assert model.training  # left in its own mode


def test_a_pair_of_equal_answers_is_refused():
    with pytest.raises(ValueError, match="item 0: chosen and rejected are both 'a'"):
        dpo.Pair(ITEMS[0], "a", "a")
    dpo.Pair(ITEMS[0], "a", "a ")


def test_dpo_reads_a_pair_in_the_form_that_it_is_given():
    """The form is asked for both answers of each pair, and what it says is what is trained."""
    asked, pairs = [], [dpo.Pair(item, item.answer, "b" + item.answer) for item in ITEMS]

    def form(item, tokenizer):
        asked.append(item.answer)
        return encode(replace(item, answer=item.answer[::-1]), tokenizer)

    model, turned = gpt(), gpt()
    dpo.train(model, TOKENIZER, pairs, 3, form=form)
    assert sorted(asked) == sorted(text for pair in pairs for text in (pair.chosen, pair.rejected))
    pairs = [dpo.Pair(pair.item, pair.chosen[::-1], pair.rejected[::-1]) for pair in pairs]
    dpo.train(turned, TOKENIZER, pairs, 3)
    for weight, same in zip(model.parameters(), turned.parameters(), strict=True):
        assert torch.equal(weight, same)
    with pytest.raises(TypeError, match="form must be a function of item and tokenizer, not 'x'"):
        dpo.train(gpt(), TOKENIZER, pairs, 1, form="x")


def test_dpo_compares_with_the_model_as_it_was_whatever_the_batch(monkeypatch):
    """The reference is asked no more at once than a step holds, and says the same."""
    rows, plain = [], dpo.log_probs
    monkeypatch.setattr(dpo, "log_probs", lambda m, x, y: rows.append(len(x)) or plain(m, x, y))
    pairs = [dpo.Pair(item, item.answer, "b" + item.answer) for item in ITEMS]
    losses = dpo.train(gpt(), TOKENIZER, pairs, 1, batch_size=3)
    assert max(rows) == 3
    assert sum(rows) == 2 * len(pairs) + 2 * 3
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)


def test_the_reference_drops_nothing_out():
    """Neither method's: both models are alike before the first step, with dropout in training."""
    pairs = [dpo.Pair(item, item.answer, "b" + item.answer) for item in ITEMS]
    losses = dpo.train(gpt(dropout=0.5).train(), TOKENIZER, pairs, 1)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    history = grpo.train(gpt(dropout=0.5).train(), TOKENIZER, ITEMS, lambda item, said: 1.0, 1)
    assert history.kl[0] == pytest.approx(0, abs=1e-5)


def test_dpo_without_pairs_or_room_is_refused():
    with pytest.raises(ValueError, match="pairs is empty"):
        dpo.train(gpt(), TOKENIZER, [], 1)
    with pytest.raises(ValueError, match=r"a pair is \d+ tokens long, more than block_size 32"):
        dpo.train(gpt(), TOKENIZER, [dpo.Pair(ITEMS[0], "a", "a" * 30)], 1)


# ----------------------------------------------------------------------------- GRPO


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    spread = math.sqrt(4 * 0.25 / 3) + 1e-4
    wanted = torch.tensor([[0.5, -0.5, -0.5, 0.5], [0.0] * 4]) / torch.tensor([[spread], [1.0]])
    assert torch.allclose(grpo.advantages(rewards), wanted)


def grpo_numbers(seed=0):
    draws = torch.Generator().manual_seed(seed)
    new, old, was = (torch.randn(6, 5, generator=draws) * 0.3 - 2 for _ in range(3))
    counted = torch.arange(5) < torch.tensor([5, 3, 1, 4, 2, 5])[:, None]
    return new, old, was, torch.randn(6, generator=draws), counted


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_grpo_loss_by_hand(beta):
    new, old, was, better, counted = grpo_numbers()
    by_hand = []
    for b in range(6):
        tokens = []
        for t in range(5):
            if counted[b, t]:
                r, A = math.exp(new[b, t] - old[b, t]), better[b].item()
                d = (was[b, t] - new[b, t]).item()
                gain = min(r * A, min(max(r, 0.8), 1.2) * A)
                tokens.append(-gain + beta * (math.exp(d) - d - 1))
        by_hand.append(sum(tokens) / len(tokens))
    found = grpo.grpo_loss(new, old, was, better, counted, beta)
    assert found.item() == pytest.approx(sum(by_hand) / 6, abs=1e-5)


def test_at_the_start_the_gradient_is_that_of_the_weighted_log_probabilities():
    """Policy gradient: where new == old, the ratio's gradient is that of new."""
    new, _, was, better, counted = grpo_numbers()
    new.requires_grad_(True)
    grpo.grpo_loss(new, new.detach(), was, better, counted).backward()
    wanted = -(better[:, None] / counted.sum(1, keepdim=True) / 6) * counted
    assert torch.allclose(new.grad, wanted)


def test_an_answer_beyond_the_clip_teaches_no_more():
    _, old, was, better, counted = grpo_numbers()
    new = (old + 1.0).requires_grad_(True)  # r = e
    grpo.grpo_loss(new, old, was, better, counted).backward()
    assert (new.grad[better > 0] == 0).all()
    assert (new.grad[better < 0][counted[better < 0]] != 0).all()


def starts_with_h(item, answer):
    return answer.startswith("h")


def test_grpo_finds_what_is_rewarded():
    model = gpt()
    history = grpo.train(
        model, TOKENIZER, ITEMS, starts_with_h, 40, prompts=4, max_new_tokens=4, learning_rate=0.01
    )
    assert history.reward[0] < 0.5 < 0.9 < sum(history.reward[-5:]) / 5
    assert abs(history.kl[0]) < 1e-5 < 0.5 < history.kl[-1]
    assert all(1 <= length <= 4 for length in history.length)
    assert model.training


def test_grpo_asks_and_reads_in_the_form_that_it_is_given():
    """As if the items had been written so, and what is rewarded has no end in it."""
    said = []

    def reward(item, answer):
        said.append(answer)
        return starts_with_h(item, answer[1:])

    model, same = gpt(), gpt()
    with_form = grpo.train(model, TOKENIZER, ITEMS, reward, 3, max_new_tokens=4, form=turned_round)
    items = [replace(item, input=item.input[::-1]) for item in ITEMS]
    assert with_form == grpo.train(same, TOKENIZER, items, reward, 3, max_new_tokens=4)
    for weight, other in zip(model.parameters(), same.parameters(), strict=True):
        assert torch.equal(weight, other)
    grpo.train(gpt(), TOKENIZER, ITEMS, reward, 3, max_new_tokens=4, form=opened)
    assert not any("h" in answer for answer in said[-3 * 4 * 8 :])


def turned_round(item, tokenizer):
    return encode(replace(item, input=item.input[::-1]), tokenizer)


def test_the_penalty_keeps_the_model_near():
    far, near = gpt(), gpt()
    options = dict(steps=30, prompts=4, max_new_tokens=4)
    free = grpo.train(far, TOKENIZER, ITEMS, starts_with_h, **options)
    held = grpo.train(near, TOKENIZER, ITEMS, starts_with_h, beta=3.0, **options)
    assert sum(held.kl[-5:]) < 0.3 * sum(free.kl[-5:])


def test_a_seed_gives_the_same_run_and_leaves_the_random_state():
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        history = grpo.train(gpt(), TOKENIZER, ITEMS, starts_with_h, 3, max_new_tokens=4, seed=1)
        runs.append((history, torch.rand(1).item()))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "1", 1j])
def test_a_reward_that_is_no_number_is_told_with_its_function_and_sample(value):
    def shortness(item, answer):
        return value if (item.id, answer) == (1, "bb") else 1.0

    told = "the reward 'shortness' of answer 1, 'bb', to item 1 must be"
    with pytest.raises(ValueError, match=told):
        grpo.score(shortness, ITEMS[:2], [["b", "bb"], ["a", "bb"]])
    scored = grpo.score(starts_with_h, ITEMS[:2], [["h", "bb"], ["a", "hh"]])
    assert scored.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_a_reward_that_is_no_number_ends_training_before_a_weight_has_changed():
    model = gpt()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"the reward 'nothing' of answer 0, .* to item"):
        grpo.train(model, TOKENIZER, ITEMS, nothing, 1, max_new_tokens=4)
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


def nothing(item, answer):
    return math.nan


# ----------------------------------------------------------------------------- beside TRL


@pytest.fixture(scope="module")
def trl():
    """Its trainers' own losses, called on a stand-in for a trainer that has our numbers."""
    return pytest.importorskip("trl", reason="trl is not installed: requirements-dev.txt has it")


@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_dpo_loss_is_trls(trl, beta):
    draws = torch.Generator().manual_seed(1)
    ours, was = (-4 * torch.rand(8, 6, generator=draws) for _ in range(2))  # (2 B, T)
    ours.requires_grad_(True)
    counted = torch.arange(7) >= torch.tensor([1, 2, 4, 3, 2, 1, 5, 3])[:, None]  # (2 B, 1 + T)
    totals = [(each * counted[:, 1:]).sum(-1).chunk(2) for each in (ours, was)]
    trainer = MagicMock(loss_types=["sigmoid"], loss_weights=[1.0], beta=beta, ld_alpha=None)
    trainer.configure_mock(
        f_divergence_type="reverse_kl", precompute_ref_logps=True, use_weighting=False,
        aux_loss_enabled=False,
    )  # fmt: skip
    for gather in (trainer.accelerator.gather_for_metrics, trainer.accelerator.gather):
        gather.side_effect = lambda values: values
    trainer.accelerator.device = "cpu"
    inputs = {
        "input_ids": torch.zeros(8, 7, dtype=torch.int64),
        "attention_mask": torch.ones(8, 7),
        "completion_mask": counted.long(),
        "ref_chosen_logps": totals[1][0],
        "ref_rejected_logps": totals[1][1],
    }
    model = MagicMock()
    told = {"mean_logits": torch.zeros(8, 6), "is_top1": counted[:, 1:]}  # which it logs
    model.return_value.configure_mock(log_probs=ours * counted[:, 1:], **told)
    theirs = trl.DPOTrainer._compute_loss(trainer, model, inputs, False)
    found = dpo.dpo_loss(*totals[0], *totals[1], beta=beta)
    assert found.item() == pytest.approx(theirs.item(), abs=1e-5)
    one, other = (torch.autograd.grad(loss, ours, retain_graph=True) for loss in (found, theirs))
    assert torch.allclose(one[0], other[0], atol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_grpo_loss_is_trls(trl, beta, seed):
    new, old, was, better, counted = grpo_numbers(seed)
    new.requires_grad_(True)
    trainer = MagicMock(loss_type="grpo", beta=beta, epsilon_low=0.2, epsilon_high=0.2)
    trainer.configure_mock(
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        importance_sampling_level="token", use_vllm=False, _entropy_bonus_enabled=False,
        current_gradient_accumulation_steps=1.0,
    )  # fmt: skip
    trainer.args.configure_mock(use_bias_correction_kl=False, delta=None)
    trainer.accelerator.gather.side_effect = lambda values: values
    trainer._get_per_token_logps_and_entropies.return_value = (new, torch.zeros(6, 5), None)
    ids = torch.zeros(6, 5, dtype=torch.int64)
    inputs = {
        "prompt_ids": ids, "prompt_mask": ids + 1, "completion_ids": ids,
        "completion_mask": counted.long(), "advantages": better,
        "old_per_token_logps": old, "ref_per_token_logps": was,
    }  # fmt: skip
    theirs = trl.GRPOTrainer._compute_loss(trainer, MagicMock(), inputs)
    found = grpo.grpo_loss(new, old, was, better, counted, beta)
    assert found.item() == pytest.approx(theirs.item(), abs=1e-5)
    one, other = (torch.autograd.grad(loss, new, retain_graph=True) for loss in (found, theirs))
    assert torch.allclose(one[0], other[0], atol=1e-6)


def test_an_update_is_that_of_pytorch_with_gradients_clipped_and_then_gone():
    weights = torch.tensor([0.3, -2.0])
    ours, theirs = (nn.Linear(2, 1, bias=False) for _ in range(2))
    for model in (ours, theirs):
        model.weight.data = weights[None].clone()
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.05)
    optimizer.param_groups[0]["initial_lr"] = 0.05
    steps = 40
    for step in range(steps):
        x = torch.tensor([[3.0, 4.0]] if step % 2 else [[0.1, -0.2]])  # one clipped, one not
        update(ours, [optimizer], ours(x).square().sum(), step, steps)
        theirs(x).square().sum().backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        rising, after = (step + 1) / 2, (step - 2) / (steps - 3)
        share = rising if step < 2 else 0.1 + 0.9 * (1 + math.cos(math.pi * after)) / 2
        with torch.no_grad():
            theirs.weight -= 0.05 * share * theirs.weight.grad
        theirs.weight.grad = None
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_an_update_without_a_number_changes_nothing():
    model = nn.Linear(2, 1)
    before = copy.deepcopy(model.state_dict())
    optimizers = configure_optimizers(model, "adamw", 0.1, weight_decay=0.0)
    with pytest.raises(FloatingPointError, match="at step 4: lower learning_rate"):
        update(model, optimizers, model(torch.full((1, 2), math.nan)).sum(), 3, 10)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
