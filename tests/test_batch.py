"""`deploy.batch`: a text drawn in company is the text drawn alone, whoever joins and leaves."""

import pytest
import torch
from serving import SIZE, Gate, gpt

import llmkit
from llmkit.deploy import batch as module
from llmkit.deploy.batch import Batch
from llmkit.deploy.int8 import to_int8
from llmkit.speed.decoding import Slots

WAYS = [
    {},
    {"temperature": 0},
    {"temperature": 0.7, "top_k": 9},
    {"top_p": 0.9},
    {"temperature": 1.3, "top_k": 20, "top_p": 0.8},
]


def prompt(seed, length):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(SIZE, (length,), generator=generator).tolist()


def alone(model, ids, new, **way):
    return llmkit.generate(model, torch.tensor(ids), new, **way)[len(ids) :].tolist()


def drawn(batch, rows, steps):
    """The tokens of each row, step by step."""
    found = {row: [] for row in rows}
    for _ in range(steps):
        for row, token in batch.step():
            assert isinstance(token, int), token
            found[row].append(token)
    return found


def fast_gpt():
    torch.manual_seed(0)
    config = llmkit.FastGPTConfig(SIZE, 16, n_layer=1, n_head=2, n_embd=16)
    model = llmkit.FastGPT(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_()
    return model


def gate():
    model = Gate()
    model.open()
    return model


MODELS = {
    "learned": gpt,
    "rotary": lambda: gpt(position="rotary", n_layer=2),
    "sinusoidal, post-norm": lambda: gpt(position="sinusoidal", norm_first=False),
    "a window of 100": lambda: gpt(block_size=100),
    "int8": lambda: to_int8(gpt()),
    "FastGPT": fast_gpt,
    "a stranger's": gate,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_each_text_is_the_one_drawn_alone(make):
    """All ways of drawing, prompts of 1 to 40 tokens, windows that overflow while others go on, one
    joining at each step, and leaving after 40 tokens."""
    model, batch = make(), Batch(make(), 16)
    asked, found, number = {}, {}, 0
    while len(found) < 20:
        if number < 20 and len(batch.rows) < 16:
            ids, way = prompt(number, 1 + 7 * number % 40), WAYS[number % 5] | {"seed": number}
            asked[batch.join(ids, **way)] = (ids, way, [])
            number += 1
        for row, token in batch.step():
            ids, way, tokens = asked[row]
            tokens.append(token)
            if len(tokens) == 40:
                found[row] = tokens
                batch.leave(row)
    assert batch.rows == []
    for ids, way, tokens in asked.values():
        assert tokens == alone(model, ids, 40, **way)


def test_the_same_whatever_the_company():
    """3,000 tokens in company of 2, and of 16 that changes; some of them alone."""
    model, texts = gpt(n_layer=2, n_head=4, n_embd=64, block_size=64), []
    for size in (1, 2, 16):
        batch, asked = Batch(model, size), {}
        for number in range(30 if size > 1 else 6):
            while len(batch.rows) == size:
                for row, token in batch.step():
                    asked[row].append(token)
                    if len(asked[row]) == 100:
                        batch.leave(row)
            asked[batch.join(prompt(number, 1 + number % 9), seed=number)] = []
        while batch.rows:
            for row, token in batch.step():
                asked[row].append(token)
                if len(asked[row]) == 100:
                    batch.leave(row)
        texts.append(list(asked.values()))
    assert texts[0] == texts[1][:6]
    assert texts[1] == texts[2]


def test_probabilities_are_those_of_the_row_alone_to_the_last_bit(monkeypatch):
    """Not only the products: how `top_p` rounds its sums depends on the rows beside it."""
    seen, plain = [], module._draw

    def draw(rows, scores):
        for b, row in enumerate(rows):
            together = module.next_token_probabilities(scores, *row.settings)[b]
            mine = module.next_token_probabilities(scores[b : b + 1], *row.settings)[0]
            seen.append(torch.equal(together, mine))
        return plain(rows, scores)

    monkeypatch.setattr(module, "_draw", draw)
    batch = Batch(gpt(block_size=64), 15)
    for seed in range(15):
        batch.join(prompt(seed, 4), seed=seed, **WAYS[seed % 5])
    drawn(batch, list(batch.rows), 20)
    assert len(seen) == 15 * 20
    assert all(seen)


def test_who_leaves_does_not_disturb():
    model = gpt(block_size=64)
    batch = Batch(model, 4)
    rows = [batch.join(prompt(seed, 4), seed=seed) for seed in range(4)]
    found = drawn(batch, rows, 3)
    batch.leave(rows[1])  # the last one moves into its slot
    batch.leave(rows[3])
    late = batch.join(prompt(9, 4), seed=9)
    for row, tokens in drawn(batch, [*rows, late], 20).items():
        found.setdefault(row, []).extend(tokens)
    assert [len(found[row]) for row in (*rows, late)] == [23, 3, 23, 3, 20]
    for seed, row in enumerate(rows):
        assert found[row] == alone(model, prompt(seed, 4), len(found[row]), seed=seed)
    assert found[late] == alone(model, prompt(9, 4), 20, seed=9)


def test_reading_holds_nobody_up_for_more_than_a_window(monkeypatch):
    """Sixteen long prompts come at once: those that are drawn get a token at each step, the others
    their turn in order."""
    reads, plain = [], Slots.read
    monkeypatch.setattr(
        Slots, "read", lambda self, slot, ids: reads.append(len(ids)) or plain(self, slot, ids)
    )
    model = gpt(block_size=64)
    batch = Batch(model, 17)
    first = batch.join(prompt(0, 3), seed=0)
    drawn(batch, [first], 1)
    others = [batch.join(prompt(n, 20 + n), seed=n) for n in range(16)]
    begun = []
    while len(begun) < 16:
        reads.clear()
        rows = [row for row, _ in batch.step()]
        assert first in rows
        assert rows.count(first) == 1
        assert 0 < sum(reads) <= 64
        begun += [row for row in rows if row in others and row not in begun]
    assert begun == others


def test_one_rows_scores_are_its_own_trouble(monkeypatch):
    plain = Slots.step

    def poisoned(self, newest):
        scores = plain(self, newest).clone()
        scores[1] = torch.nan
        return scores

    model, batch = gpt(), Batch(gpt(), 3)
    rows = [batch.join(prompt(seed, 4), seed=seed) for seed in range(3)]
    drawn(batch, rows, 1)
    monkeypatch.setattr(Slots, "step", poisoned)
    found = dict(batch.step())
    with pytest.raises(ValueError, match="have run away"):
        raise found[rows[1]]
    monkeypatch.undo()
    batch.leave(rows[1])
    tokens = drawn(batch, rows, 5)
    for seed in (0, 2):
        want = alone(model, prompt(seed, 4), 7, seed=seed)
        assert [found[rows[seed]], *tokens[rows[seed]]] == want[1:]


def test_a_model_that_fails_is_told_to_each_row_and_can_go_on():
    model = gpt()
    batch = Batch(model, 3)
    rows = [batch.join(prompt(seed, 4), seed=seed) for seed in range(2)]
    drawn(batch, rows, 1)
    weight, model.lm_head.weight.data = model.lm_head.weight.data, torch.ones(SIZE, 3)
    broken = Batch(model, 3)  # which has the matrix of another size
    mine = [broken.join(prompt(seed, 4)) for seed in range(2)]
    assert [(row, type(error)) for row, error in broken.step()] == [(r, RuntimeError) for r in mine]
    model.lm_head.weight.data = weight
    assert drawn(batch, rows, 3)[rows[0]] == alone(model, prompt(0, 4), 4, seed=0)[1:]


@pytest.mark.parametrize("ids", [[], [SIZE], [-1], [[1, 2]]])
def test_what_are_no_tokens_does_not_join(ids):
    batch = Batch(gpt(), 2)
    with pytest.raises(ValueError, match=r"ids|id "):
        batch.join(ids)
    assert batch.rows == []


def test_a_model_in_training_is_left_so_and_read_without_dropout():
    model = gpt(dropout=0.5).train()
    batch = Batch(model, 1)
    tokens = drawn(batch, [row := batch.join(prompt(1, 5), seed=1)], 40)[row]
    assert model.training
    assert tokens == alone(model.eval(), prompt(1, 5), 40, seed=1)
