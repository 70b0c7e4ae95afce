"""instructions: the items, what counts in the loss, rows, answers and marks."""

import json
import re
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmkit import GPT, CharTokenizer, GPTConfig, TrainConfig, load_text, split, train
from llmkit.finetune import instructions
from llmkit.finetune.instructions import (
    ANSWER_END,
    IGNORE_INDEX,
    Item,
    encode,
    exact_match,
    load,
    pack,
    pad,
)

TOKENIZER = CharTokenizer.from_text(load_text("embedded"))
CAT = Item(1, "reverse", "Backwards?", "cat", "tac")
DOG = Item(2, "reverse", "Backwards?", "dog", "god")
WHO = Item(3, "the play", "Who?", "", "me")


# --- the data


def test_the_file_has_many_items_of_several_tasks_in_the_play_s_characters():
    items = load()
    assert len(items) >= 500
    tasks = Counter(item.task for item in items)
    assert len(tasks) >= 6
    assert min(tasks.values()) >= 50
    known = set(load_text("embedded"))
    assert len(known) == 65
    for item in items:
        assert set(item.prompt + item.answer + ANSWER_END) <= known
    assert len({item.id for item in items}) == len(items)


def test_no_item_is_there_twice_and_what_is_held_out_was_not_trained_on():
    items = load()
    asked = {(item.instruction, item.input) for item in items}
    assert len(asked) == len(items)
    train_items, val_items = split(items, 0.1)
    known = {(item.instruction, item.input) for item in train_items}
    assert not any((item.instruction, item.input) in known for item in val_items)
    # Nor in other words: the same task on the same input. (Questions on the play have no input.)
    known = {(item.task, item.input) for item in train_items if item.input}
    assert not any((item.task, item.input) in known for item in val_items)
    assert {item.task for item in val_items} == {item.task for item in train_items}


def right_answer(item: Item) -> str:
    """What the answer should be, worked out from the question by other means."""
    line, words, ask = item.input, item.input.split(" "), item.instruction
    if item.task == "reverse":
        return "".join(reversed(line))
    if item.task in ("count words", "count letters"):
        letter = " " if item.task == "count words" else ask.rstrip("?.").split(" ")[-1]
        number = sum(c == letter for c in line) + (letter == " ")
        return ["none", "one", "two", "three", "four", "five", "six", "seven"][number]
    if item.task in ("first word", "last word"):
        return words[0 if item.task == "first word" else -1]
    if item.task == "word after":
        return words[words.index(ask.rstrip("?").split(" ")[-1]) + 1]
    if item.task == "who says it":
        says = dict(row.split(": ") for row in line.split("\n"))  # NAME: word
        asked = ask.rstrip("?").split(" ")
        if asked[0] == "What":
            return says[asked[2].upper()]
        return next(name.title() for name, word in says.items() if word == asked[-1])
    assert item.task == "rewrite"
    if ask == "As in a play.":
        name, said = line.split(" says: ")
        return f"{name.upper()}: {said}"
    name, said = line.split(": ")
    if ask == "As a story.":
        return f"{name.title()} says: {said}"
    return f"{ask.split(' ')[1].upper()}: {said}"


def test_every_answer_but_those_on_the_play_is_what_a_program_finds():
    checked = [item for item in load() if item.task != "the play"]
    assert len(checked) > 500
    for item in checked:
        assert item.answer == right_answer(item), item


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z$3]+", text.lower()))


def test_the_play_is_asked_about_often_and_every_answer_is_in_its_own_words():
    play = words(load_text("embedded"))
    asked, held_out = (
        [item for item in items if item.task == "the play"]
        for items in (load(), split(load(), 0.1)[1])
    )
    assert len(asked) >= 400
    assert len(held_out) >= 30
    for item in asked:
        assert item.instruction.endswith("?")
        assert words(item.answer) <= play, item


# --- reading a file


def written(path, *lines):
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )
    return path


GOOD = {"id": 1, "task": "t", "instruction": "Go", "input": "", "answer": "yes"}


def test_items_are_read_and_empty_lines_passed_over(tmp_path):
    path = written(tmp_path / "i.jsonl", GOOD, "", GOOD | {"input": "on", "more": 3}, "")
    assert load(path) == [Item(1, "t", "Go", "", "yes"), Item(1, "t", "Go", "on", "yes")]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({k: v for k, v in GOOD.items() if k != "answer"}, "line 3: the field 'answer' is missing"),
        ({k: v for k, v in GOOD.items() if k != "input"}, "line 3: the field 'input' is missing"),
        (GOOD | {"instruction": 7}, "line 3: the field 'instruction' must be a string, not 7"),
        ("{nothing", "line 3: not a JSON object"),
        ("[1]", "line 3: not a JSON object"),
        (GOOD | {"input": "x", "answer": " "}, "line 3: the answer must be one line"),
        (GOOD | {"input": "x", "answer": "a\nb"}, "line 3: the answer must be one line"),
        (GOOD | {"answer": "no"}, "line 3: asks the same as line 1"),
    ],
)
def test_what_is_wrong_with_a_line_is_told_with_its_number(line, told, tmp_path):
    path = written(tmp_path / "i.jsonl", GOOD, "", line)
    with pytest.raises(ValueError, match=told) as caught:
        load(path)
    assert "\n" not in str(caught.value).replace("\\n", "")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        load(tmp_path / "none.jsonl")


# --- what counts


def test_the_loss_counts_the_answer_and_its_end_and_nothing_else():
    ids, targets = encode(CAT, TOKENIZER)
    whole = "Q: Backwards?\ncat\nA: tac\n"
    assert TOKENIZER.decode(ids) == whole[:-1]
    # Counted by hand: 21 characters of prompt, of which the first has nothing before it.
    assert targets[:20].tolist() == [-100] * 20
    assert TOKENIZER.decode(targets[20:]) == "tac\n"
    assert len(ids) == len(targets) == 24
    _, everything = encode(CAT, TOKENIZER, answer_only=False)
    assert TOKENIZER.decode(everything) == whole[1:]


def test_the_loss_of_a_model_is_the_mean_over_the_answers_alone():
    torch.manual_seed(0)
    model = GPT(GPTConfig(65, 32, n_layer=1, n_head=2, n_embd=16))
    rows = pad([encode(item, TOKENIZER) for item in (CAT, WHO)], 32)
    p = model(rows.x).log_softmax(-1)
    places = [(0, 20, "t"), (0, 21, "a"), (0, 22, "c"), (0, 23, "\n")]  # by hand
    places += [(1, 11, "m"), (1, 12, "e"), (1, 13, "\n")]  # "Q: Who?\n\nA: " has 12
    by_hand = -sum(p[b, t, TOKENIZER.encode(c).item()] for b, t, c in places) / 7
    assert torch.isclose(model.loss(rows.x, rows.y), by_hand, atol=1e-6)


def test_a_character_that_the_tokenizer_lacks_is_told_with_the_item():
    with pytest.raises(ValueError, match=r"item 9: character '7' .*position \d+"):
        encode(Item(9, "t", "Add", "7", "x"), TOKENIZER)
    with pytest.raises(ValueError, match=r"item 9: character 'é'"):
        encode(Item(9, "t", "Add", "x", "é"), TOKENIZER)


# --- rows


def test_padding_fills_the_end_and_counts_nothing_there():
    rows = pad([encode(item, TOKENIZER) for item in (CAT, WHO)], 30)
    assert rows.x.shape == rows.y.shape == (2, 30)
    assert TOKENIZER.decode(rows.x[1, :14]) == "Q: Who?\n\nA: me"
    assert rows.x[1, 14:].tolist() == [0] * 16
    assert rows.y[1].tolist() == [-100] * 11 + TOKENIZER.encode("me\n").tolist() + [-100] * 16
    assert rows.counted == pytest.approx(7 / 60)


def test_what_stands_in_the_padding_changes_no_loss():
    torch.manual_seed(0)
    model = GPT(GPTConfig(65, 32, n_layer=2, n_head=2, n_embd=16))
    rows = pad([encode(WHO, TOKENIZER)], 30)
    other = rows.x.clone()
    other[0, 14:] = 7
    assert torch.equal(model.loss(rows.x, rows.y), model.loss(other, rows.y))


def test_packing_puts_whole_examples_one_after_the_other():
    # 25, 25 and 15 characters with their ends: the first two fill 50, so do not fit into 40 + 1;
    # a row of 40 holds one of them and the short one.
    rows = pack([encode(item, TOKENIZER) for item in (CAT, DOG, WHO)], 40)
    texts = [TOKENIZER.decode(row) for row in rows.x]
    assert len(texts) == 2
    parts = [sorted(part.rstrip("\n") for part in text.split("Q: ")[1:]) for text in texts]
    cat, dog, who = "Backwards?\ncat\nA: tac", "Backwards?\ndog\nA: god", "Who?\n\nA: me"
    assert sorted(parts, key=len) in ([[cat], [dog, who]], [[dog], [cat, who]])
    counted = [TOKENIZER.decode(row[row != IGNORE_INDEX]) for row in rows.y]
    assert sorted("".join(counted).split("\n")) == ["", "god", "me", "tac"]
    for x, y in zip(rows.x, rows.y, strict=True):  # what counts is what really comes next
        for t in range(39):
            assert y[t] in (IGNORE_INDEX, x[t + 1])


def test_between_packed_examples_stands_the_end_whatever_its_id():
    tokenizer = CharTokenizer(TOKENIZER.characters[::-1])  # here id 0, the filling, is "z"
    [row] = pack([encode(item, tokenizer) for item in (CAT, WHO)], 42).x
    text = tokenizer.decode(row)
    assert ("tac\nQ: Who?" in text) or ("me\nQ: Backwards?" in text)
    assert text.count("\n") == 6  # two in each prompt, one after each answer
    assert text[-2:] == "zz"


def test_packing_keeps_every_example_and_fills_rows_better():
    examples = [encode(item, TOKENIZER) for item in load()[:200]]
    longest = max(len(ids) for ids, _ in examples)
    padded, packed = pad(examples, longest), pack(examples, longest)
    assert (padded.y != IGNORE_INDEX).sum() == (packed.y != IGNORE_INDEX).sum()
    assert len(packed.x) < len(padded.x)
    assert packed.counted > padded.counted
    assert torch.equal(packed.x, pack(examples, longest).x)
    assert not torch.equal(packed.x, pack(examples, longest, seed=1).x)


def test_in_a_packed_row_an_example_sees_those_before_it_and_never_those_after():
    """What `pack` says of itself, shown."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(65, 64, n_layer=2, n_head=2, n_embd=16))
    rows = pack([encode(item, TOKENIZER) for item in (CAT, DOG)], 64)
    assert len(rows.x) == 1
    logits, changed = model(rows.x), rows.x.clone()
    changed[0, 30] = 5  # inside the second
    assert torch.allclose(model(changed)[0, :25], logits[0, :25], atol=1e-6)
    changed = rows.x.clone()
    changed[0, 15] = 5  # inside the first
    assert not torch.allclose(model(changed)[0, 30:49], logits[0, 30:49], atol=1e-6)


@pytest.mark.parametrize("arrange", [pad, pack])
def test_rows_must_hold_an_example(arrange):
    with pytest.raises(ValueError, match=r"example 0 has 24 tokens.*block_size 23"):
        arrange([encode(CAT, TOKENIZER)], 23)
    assert arrange([encode(CAT, TOKENIZER)], 24).x.shape == (1, 24)
    with pytest.raises(ValueError, match="no examples"):
        arrange([], 24)


# --- training


def rows_of(items, width=32):
    return pad([encode(item, TOKENIZER) for item in items], width)


def test_batches_are_rows_drawn_alike_everywhere_and_shared_by_rank():
    rows = rows_of([Item(n, "t", "Go", word, "x") for n, word in enumerate("abcdefgh")])
    whole = rows.batches(32, 6, seed=3)
    parts = [rows.batches(32, 3, seed=3, rank=rank, world=2) for rank in (0, 1)]
    for _ in range(3):
        x, y = next(whole)
        assert x.shape == y.shape == (6, 32)
        both = [next(part) for part in parts]
        assert torch.equal(x, torch.cat([part for part, _ in both]))
        assert torch.equal(y, torch.cat([part for _, part in both]))
    state = whole.state_dict()
    expected = next(iter(whole))
    again = rows.batches(32, 6, seed=99)
    again.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(next(again), expected, strict=True))
    with pytest.raises(ValueError, match="rows of 32 tokens do not fit into block_size 31"):
        rows.batches(31, 6)


def small_model():
    torch.manual_seed(0)
    return GPT(GPTConfig(65, 32, n_layer=1, n_head=2, n_embd=32, position="rotary"))


def test_a_model_learns_to_answer_and_stops_where_the_answer_ends():
    items, model = [CAT, DOG, WHO], small_model()
    before = exact_match(items, instructions.answer(model, TOKENIZER, items))
    assert before["all"] == 0
    config = TrainConfig(steps=60, batch_size=6, optimizer="muon")
    history = train(model, rows_of(items), config=config)
    assert history.loss[-1] < 0.1 < history.loss[0]
    assert instructions.answer(model, TOKENIZER, items) == ["tac", "god", "me"]


def test_a_run_on_rows_is_resumed_bit_for_bit_and_knows_its_data():
    rows, config = rows_of([CAT, DOG, WHO]), TrainConfig(steps=8, batch_size=2)
    whole, halved, states = small_model(), small_model(), []

    def leave(run):
        if run.step == 4:
            states.append(run.state_dict())
            run.stop = "for a while"

    expected = train(whole, rows, config=config)
    train(halved, rows, config=config, callbacks=[leave])
    assert train(halved, rows, config=config, resume=states[0]).loss == expected.loss
    with pytest.raises(ValueError, match="same text"):
        train(halved, rows_of([CAT, DOG, DOG]), config=config, resume=states[0])
    everything = pad([encode(item, TOKENIZER, False) for item in (CAT, DOG, WHO)], 32)
    with pytest.raises(ValueError, match="same text"):  # same ids, other targets
        train(halved, everything, config=config, resume=states[0])


# --- answers and marks


class Parrot(nn.Module):
    """Says "ab", then ends; or, where it never ends, "ababab"."""

    def __init__(self, block_size, ends=True):
        super().__init__()
        self.config, self.ends = SimpleNamespace(block_size=block_size, vocab_size=65), ends

    def forward(self, ids):
        a, b, end, space = TOKENIZER.encode("ab\n ").tolist()
        follows = {space: a, a: b, b: end if self.ends else a}
        following = ids.clone().apply_(lambda i: follows.get(i, end))
        return F.one_hot(following, 65).float()


def test_answers_come_in_the_order_of_the_items_and_end_in_time():
    assert instructions.answer(Parrot(64), TOKENIZER, [CAT, WHO, DOG]) == ["ab"] * 3
    assert instructions.answer(Parrot(64, ends=False), TOKENIZER, [WHO, CAT], 5) == ["ababa"] * 2
    assert instructions.answer(Parrot(24, ends=False), TOKENIZER, [CAT]) == ["aba"]  # 21 and 3 more


def test_a_prompt_over_the_context_is_told_with_the_item():
    with pytest.raises(ValueError, match=r"item 1: its prompt of 21 tokens .*block_size 21"):
        instructions.answer(Parrot(21), TOKENIZER, [WHO, CAT])


def test_exact_match_by_task():
    answers = ["tac", "God", "me "]  # right, wrong by a capital, right but for white space
    assert exact_match([CAT, DOG, WHO], answers) == {
        "all": pytest.approx(2 / 3),
        "reverse": 0.5,
        "the play": 1.0,
    }
    assert list(exact_match([WHO, CAT], ["me", "x"])) == ["all", "reverse", "the play"]
    with pytest.raises(ValueError, match="one for each item"):
        exact_match([], [])
    with pytest.raises(ValueError, match="1 items and 0 answers"):
        exact_match([CAT], [])


def test_an_update_is_the_same_in_however_many_parts_it_is_made():
    """Eight rows at once, or one by one: some have three counted targets, some one or two."""
    rows = rows_of([CAT, DOG, WHO])
    assert len({int(n) for n in (rows.y != -100).sum(dim=1)}) > 1
    models, histories = [], []
    for batch_size, parts in ((8, 1), (4, 2), (1, 8)):
        models.append(small_model())
        config = TrainConfig(
            steps=5, batch_size=batch_size, gradient_accumulation_steps=parts, learning_rate=0.01
        )
        histories.append(train(models[-1], rows, config=config))
    for model, history in zip(models[1:], histories[1:], strict=True):
        assert history.loss == pytest.approx(histories[0].loss, abs=1e-5)
        for ours, theirs in zip(model.parameters(), models[0].parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


ITEM = '{"id": "1", "task": "t", "instruction": "Say é", "input": "", "answer": "é"}'


def test_files_of_other_programs(tmp_path):
    """A byte-order mark, line ends of Windows and empty lines at the end are read; another encoding
    is told."""
    path = tmp_path / "items.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + f"{ITEM}\r\n\r\n\r\n".encode())
    [item] = instructions.load(path)
    assert item.answer == "é"
    for encoding in ("cp1252", "utf-16"):
        path.write_bytes(f"{ITEM}\n".replace("é", "é–").encode(encoding))
        with pytest.raises(ValueError, match=rf"items.jsonl is not UTF-8 but probably {encoding}"):
            instructions.load(path)
