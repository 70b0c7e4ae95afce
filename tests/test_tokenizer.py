import json
import re
from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit import tokenizer as tokenizer_module
from llmkit.tokenizer import CharTokenizer, WordTokenizer

# Any str at all: NUL, astral characters and lone surrogates included.
ANY = st.text(st.characters(codec=None, exclude_categories=()), min_size=1)
AWKWARD = "\0a\r\n\x7f\x80é\u0301\u2028\ud83d\ude00\ufffd\uffff😀\U0010ffff"


def reference_ids(tokenizer: CharTokenizer, text: str) -> list[int]:
    stoi = {character: i for i, character in enumerate(tokenizer.characters)}
    return [stoi[character] for character in text]


# --- characters


def test_characters_are_sorted_and_ids_count_from_zero():
    tokenizer = CharTokenizer.from_text("hello world")
    assert tokenizer.characters == " dehlorw"
    assert tokenizer.vocab_size == 8
    ids = tokenizer.encode("hello")
    assert (ids.dtype, ids.shape) == (torch.int64, (5,))
    assert ids.tolist() == [3, 2, 4, 4, 5]
    assert tokenizer.decode(ids) == "hello"


def test_a_chosen_order_is_kept():
    assert CharTokenizer("zya").encode("ayz").tolist() == [2, 1, 0]
    assert CharTokenizer(["z", "y", "a"]).decode([2, 1, 0]) == "ayz"


@settings(deadline=None)
@given(ANY)
def test_any_unicode_makes_the_round_trip(text):
    tokenizer = CharTokenizer.from_text(text)
    ids = tokenizer.encode(text)
    assert ids.tolist() == reference_ids(tokenizer, text)
    assert tokenizer.decode(ids) == text


@settings(deadline=None)
@given(st.text("ab\ud83d\ude00é😀", max_size=30), st.integers(1, 5))
def test_blocks_do_not_show(text, block):
    before, tokenizer_module.BLOCK = tokenizer_module.BLOCK, block
    try:
        tokenizer = CharTokenizer("ab\ud83d\ude00é😀")
        assert tokenizer.encode(text).tolist() == reference_ids(tokenizer, text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    finally:
        tokenizer_module.BLOCK = before


def test_surrogates_stay_apart_and_awkward_characters_survive():
    tokenizer = CharTokenizer.from_text(AWKWARD)
    assert tokenizer.vocab_size == len(set(AWKWARD))
    assert tokenizer.decode(tokenizer.encode(AWKWARD)) == AWKWARD
    assert tokenizer.decode(tokenizer.encode("\ud83d\ude00")) != "😀"


def test_text_longer_than_a_block_of_both_kinds():
    text = "plain text. " * 20_000 + "Ünïcødé 😀 " * 10_000
    tokenizer = CharTokenizer.from_text(text)
    assert tokenizer.encode(text).tolist() == reference_ids(tokenizer, text)


def test_the_ids_may_be_changed_without_harm():
    tokenizer = CharTokenizer("ab")
    tokenizer.encode("ab").add_(1)
    assert tokenizer.encode("ab").tolist() == [0, 1]


def test_empty_text_encodes_to_no_ids_and_back():
    tokenizer = CharTokenizer("ab")
    ids = tokenizer.encode("")
    assert (ids.dtype, ids.shape) == (torch.int64, (0,))
    assert tokenizer.decode(ids) == tokenizer.decode([]) == ""


@pytest.mark.parametrize("character", ["z", "A", "\0", "é", "\uffff", "😀", "\ud800", "\U0010ffff"])
def test_an_unknown_character_is_named_with_code_point_and_place(character):
    tokenizer = CharTokenizer.from_text("ab\ncé"[: 4 + (character != "é")])
    text = "ab\nc\nb" + character + character
    place = re.escape(f"character {character!r} (U+{ord(character):04X}) at position 6 (line 3)")
    with pytest.raises(ValueError, match=place) as caught:
        tokenizer.encode(text)
    assert "\n" not in str(caught.value)


def test_the_place_is_right_beyond_the_first_block():
    text = "a" * 100_000 + "\n" + "a" * 100_000 + "q" + "a" * 100_000
    with pytest.raises(ValueError, match=r"'q' \(U\+0071\) at position 200001 \(line 2\)"):
        CharTokenizer("a\n").encode(text)


@settings(deadline=None)
@given(ANY, ANY)
def test_unknown_characters_map_to_the_chosen_token_and_only_they(known, text):
    tokenizer = CharTokenizer.from_text(known, unknown="<unk>")
    assert tokenizer.vocab_size == len(set(known)) + 1
    ids = tokenizer.encode(text).tolist()
    unknown = tokenizer.vocab_size - 1
    assert [i == unknown for i in ids] == [character not in known for character in text]
    assert tokenizer.decode(ids) == "".join(c if c in known else "<unk>" for c in text)


def test_the_unknown_token_may_be_a_character_old_or_new():
    old, new = CharTokenizer("ab?", unknown="?"), CharTokenizer("ab", unknown="\ufffd")
    assert (old.vocab_size, new.vocab_size) == (3, 3)
    assert old.encode("axé?").tolist() == [0, 2, 2, 2]
    assert old.decode([0, 2]) == "a?"
    assert new.decode(new.encode("axé")) == "a\ufffd\ufffd"
    assert (old.unknown, new.unknown, CharTokenizer("a").unknown) == ("?", "\ufffd", None)


def test_decode_takes_tensors_of_any_integer_type_lists_and_single_ids():
    tokenizer = CharTokenizer("abc")
    for ids in (torch.tensor([2, 0]), torch.tensor([2, 0], dtype=torch.uint8), [2, 0], (2, 0)):
        assert tokenizer.decode(ids) == "ca"
    assert tokenizer.decode(torch.tensor(1)) == tokenizer.decode(1) == "b"
    assert tokenizer.decode(torch.tensor([0, 1, 2, 0])[::2]) == "ac"


@pytest.mark.parametrize(("ids", "wrong"), [([0, 3], 3), ([-1], -1), ([0, 2**40, -5], 2**40)])
def test_ids_outside_the_vocabulary_are_named(ids, wrong):
    for tokenizer in (CharTokenizer("abc"), WordTokenizer(["a", "b"], unknown="<unk>")):
        with pytest.raises(ValueError, match=f"id {wrong} is not one of the ids 0 to"):
            tokenizer.decode(ids)


@pytest.mark.parametrize("ids", [[0.5], torch.rand(3), torch.zeros(2, 3, dtype=torch.int64)])
def test_what_is_not_a_row_of_ids_is_refused(ids):
    with pytest.raises(ValueError, match=r"ids must be (token ids|a single id or \(N,\))"):
        CharTokenizer("ab").decode(ids)


@pytest.mark.parametrize(
    ("characters", "unknown"),
    [
        ("", None),
        ("", "?"),
        ("aba", None),
        (["a", ""], None),
        (["a", 1], None),
        ("a", ""),
        ("a", 7),
    ],
)
def test_a_vocabulary_that_cannot_work_is_refused(characters, unknown):
    with pytest.raises(
        ValueError, match=r"one or more str, distinct and none empty|unknown must be"
    ):
        CharTokenizer(characters, unknown)


def test_words_are_not_characters():
    with pytest.raises(ValueError, match="'bc' is not one character; WordTokenizer"):
        CharTokenizer(["a", "bc"])
    assert CharTokenizer("ab", unknown="ab").encode("abc").tolist() == [0, 1, 2]


def test_no_vocabulary_comes_from_no_text():
    for cls in (CharTokenizer, WordTokenizer):
        with pytest.raises(ValueError, match="one or more str"):
            cls.from_text("")


def test_repr_is_short(text):
    tokenizer = CharTokenizer.from_text(text)
    assert repr(tokenizer) == f"CharTokenizer(vocab_size={len(set(text))}, unknown=None)"


# --- words


def test_words_spaces_and_marks_are_tokens():
    tokenizer = WordTokenizer.from_text("To be, or not  to be?\nTo be!")
    ids = tokenizer.encode("To be,\nor  not")
    assert ids.dtype == torch.int64
    assert [tokenizer.decode(i) for i in ids] == ["To", " ", "be", ",", "\n", "or", " ", " ", "not"]


@settings(deadline=None)
@given(ANY)
def test_known_words_make_the_round_trip(text):
    tokenizer = WordTokenizer.from_text(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_most_frequent_tokens_come_first_ties_as_they_first_occur():
    tokenizer = WordTokenizer.from_text("d b a c b a b")
    assert tokenizer.tokens == [" ", "b", "a", "d", "c", "<unk>"]


@pytest.mark.parametrize(
    ("unknown", "kept"), [("<unk>", [" ", "b", "<unk>"]), (None, [" ", "b", "a"])]
)
def test_max_vocab_counts_every_id(unknown, kept):
    tokenizer = WordTokenizer.from_text("b a c b a d b", max_vocab=3, unknown=unknown)
    assert tokenizer.tokens == kept
    assert tokenizer.vocab_size == 3
    assert WordTokenizer.from_text("b a", max_vocab=99).vocab_size == 4


@pytest.mark.parametrize("max_vocab", [1, 0, -3])
def test_max_vocab_must_leave_room_for_a_token(max_vocab):
    with pytest.raises(ValueError, match="max_vocab must be at least 2"):
        WordTokenizer.from_text("a b", max_vocab=max_vocab)


def test_unknown_words_become_the_unknown_token_or_an_error():
    tokenizer = WordTokenizer.from_text("the horse sings")
    ids = tokenizer.encode("the cat sings")
    assert tokenizer.decode(ids) == "the <unk> sings"
    assert ids.tolist().count(tokenizer.vocab_size - 1) == 1
    strict = WordTokenizer.from_text("the horse\nsings", unknown=None)
    with pytest.raises(ValueError, match=r"token 'cat' at position 4 \(line 1\) is not in"):
        strict.encode("the cat sings")


# --- files


@pytest.mark.parametrize("kind", tokenizer_module.CLASSES)
def test_each_kind_of_file_has_the_class_that_writes_it(kind):
    module, name = tokenizer_module.CLASSES[kind]
    assert getattr(import_module(module), name).kind == kind


@settings(deadline=None)
@given(ANY, st.sampled_from([None, "<unk>", "?", "\ud800"]), st.booleans())
def test_a_saved_tokenizer_comes_back_the_same(tmp_path_factory, text, unknown, words):
    cls = WordTokenizer if words else CharTokenizer
    path = tmp_path_factory.getbasetemp() / "tokenizer.json"
    tokenizer = cls.from_text(text, unknown=unknown)
    tokenizer.save(path)
    for back in (cls.load(path), tokenizer_module.load(str(path))):
        assert type(back) is cls
        assert (back.tokens, back.unknown) == (tokenizer.tokens, tokenizer.unknown)
        assert back.encode(text).equal(tokenizer.encode(text))
        assert back.decode(back.encode(text)) == text


def test_a_surrogate_pair_of_two_characters_is_not_joined_by_the_file(tmp_path):
    tokenizer = CharTokenizer("\ud83d\ude00")
    tokenizer.save(tmp_path / "t.json")
    assert CharTokenizer.load(tmp_path / "t.json").characters == "\ud83d\ude00"


def test_the_file_is_plain_json(tmp_path):
    CharTokenizer("aé", unknown="?").save(tmp_path / "t.json")
    content = json.loads((tmp_path / "t.json").read_text("ascii"))
    assert content == {"kind": "character", "unknown": "?", "tokens": ["a", "é", "?"]}


def test_a_file_cut_short_anywhere_gives_one_sentence(tmp_path):
    path = tmp_path / "t.json"
    CharTokenizer("aé😀", unknown="<unk>").save(path)
    whole = path.read_bytes()
    for end in range(len(whole.rstrip())):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"t\.json is not a whole tokenizer file;") as caught:
            CharTokenizer.load(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"3",
        b"{}",
        b'{"kind": "bpe", "tokens": [], "unknown": null}',
        b'{"kind": ["character"], "tokens": ["a"], "unknown": null}',
        b'{"kind": "character", "tokens": [], "unknown": null}',
        b'{"kind": "character", "tokens": ["a", "a"], "unknown": null}',
        b'{"kind": "character", "tokens": [1], "unknown": null}',
        b'{"kind": "character", "tokens": 5, "unknown": null}',
        b'{"kind": "word", "tokens": ["a"], "unknown": 5}',
        b"\x89PNG\r\n\x1a\n\0\0",
        b"\xff\xfe",
    ],
)
def test_a_foreign_file_gives_one_sentence(tmp_path, content):
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(ValueError, match="is not a whole tokenizer file; save it again"):
        tokenizer_module.load(tmp_path / "t.json")


def test_the_wrong_class_and_a_missing_file_are_told(tmp_path):
    WordTokenizer(["a"]).save(tmp_path / "t.json")
    with pytest.raises(ValueError, match="holds a WordTokenizer, not a CharTokenizer"):
        CharTokenizer.load(tmp_path / "t.json")
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        WordTokenizer.load(tmp_path / "none.json")


@pytest.mark.parametrize("ids", [None, "abc", [[0], [1, 2]], object()])
def test_what_cannot_be_ids_is_told(ids):
    with pytest.raises(ValueError, match="ids must be token ids"):
        CharTokenizer("abc").decode(ids)


@pytest.mark.parametrize(
    "content",
    ["[" * 200_000, '{"kind": ["character"]}', '{"kind": "bpe", "merges": {}}',
     '{"kind": "character", "tokens": 3, "unknown": null}',
     '{"kind": "character", "tokens": "abc", "unknown": null}',
     '{"kind": "character", "tokens": ["a"], "unknown": 1}',
     '{"kind": "character", "tokens": NaN, "unknown": null}'],
)  # fmt: skip
def test_a_file_of_another_shape_is_told(tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(ValueError, match=r"t\.json is not a whole tokenizer file"):
        tokenizer_module.load(tmp_path / "t.json")
