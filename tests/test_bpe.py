"""BPETokenizer, beside naive code, Hugging Face's tokenizers and OpenAI's tiktoken."""

import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import tiktoken
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

import llmkit
from llmkit import tokenizer as tokenizer_module
from llmkit.bpe import files, long_words
from llmkit.bpe import tokenizer as bpe
from llmkit.bpe.files import spell
from llmkit.bpe.tokenizer import BPETokenizer
from llmkit.scale import token_file

DATA = Path(os.environ.get("LLMKIT_DATA", "."))
END = "<|endoftext|>"
# Any text: no lone surrogates, and no code points to which the references may give other classes
# than we do, for want of a common version of Unicode.
CHARACTERS = st.characters(codec="utf-8", exclude_categories=["Cs", "Cn", "Co"])
TEXT = st.lists(
    st.one_of(
        st.text(CHARACTERS, max_size=12),
        st.text(" \t\n\r\v\f\0\x1c\x1f\x7f\x85\xa0\u2028\u3000", max_size=6),
        st.sampled_from(
            [" the", "'s", "'LL", "don't", "123", "é", "e\u0301", "😀", "👩‍👩‍👧", "🇫🇷"]
        ),
        st.sampled_from([END, "<|endof", " \n ", "  x", "   ", "\r\n\r\n"]),
    ),
    max_size=8,
).map("".join)
AWKWARD = {
    "emoji": "😀 👩🏽‍🚀👨‍👩‍👧‍👦 🇫🇷🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️ ☃☃ ©®™",
    "control characters": "".join(map(chr, [*range(32), *range(127, 160)])) * 2,
    "runs of spaces": "".join(" " * n + "x" + "\n" * n + "\t" * n for n in range(40)),
    "contractions": "I'm you're it's he'd we'll they've 'tis I'M ''s '' s'",
    "scripts": "Ünïcødé привет שלום नमस्ते こんにちは 好 한국어 مرحبا ١٢٣ Ⅷ ½ 𝟘𝟙 𝔸𝔹",
    "one long word": "ab" * 3000 + "好" * 2000,
}


def need(*names: str) -> list[Path]:
    """Files under LLMKIT_DATA, or a skip that says which is missing."""
    for name in names:
        if not (DATA / name).is_file():
            pytest.skip(f"there is no {name} in the folder that LLMKIT_DATA names")
    return [DATA / name for name in names]


def alike(tokenizer: BPETokenizer, text: str, *references) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    for reference in references:
        assert ids.tolist() == reference(text)


def tiktoken_of(tokenizer: BPETokenizer) -> tiktoken.Encoding:
    special = tokenizer.special_tokens
    ranks = {t: i for i, t in enumerate(tokenizer.tokens) if i not in special.values()}
    # the expression as tiktoken's own file of encodings has it for GPT-2
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
    return tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


def huggingface_trained(text: str, vocab_size: int) -> tokenizers.Tokenizer:
    reference = tokenizers.Tokenizer(models.BPE())
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reference.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False
    )
    reference.train_from_iterator([text], trainer)
    return reference


def spelled_merges(reference: tokenizers.Tokenizer) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(reference.to_str())["model"]["merges"]]


def spelled(tokenizer: BPETokenizer) -> list[tuple[str, str]]:
    return [(spell(left), spell(right)) for left, right in tokenizer.merges]


def naive_merges(text: str, count: int) -> list[tuple[bytes, bytes]]:
    """All counted again for each merge; a tie goes to the lowest ids."""
    words = Counter(bpe.PATTERN.findall(text))
    spelled = {word: [bytes([b]) for b in word.encode()] for word in words}
    ids = {token: i for i, token in enumerate(files.BYTES)}
    merges = []
    while len(ids) < 256 + count:
        pairs = Counter()
        for word, tokens in spelled.items():
            for pair in pairwise(tokens):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], ids[p[0]], ids[p[1]]))
        merges.append(best)
        ids.setdefault(b"".join(best), len(ids))
        for tokens in spelled.values():
            i = 0
            while i < len(tokens) - 1:
                if (tokens[i], tokens[i + 1]) == best:
                    tokens[i : i + 2] = [b"".join(best)]
                i += 1
    return merges


def naive_word(tokenizer: BPETokenizer, word: str) -> list[int]:
    """GPT-2's own way: the earliest merge that applies, one place at a time, from the left."""
    tokens = [bytes([b]) for b in word.encode()]
    for _ in range(len(tokens)):
        pairs = list(pairwise(tokens))
        found = [(tokenizer.merges.index(p), i) for i, p in enumerate(pairs)
                 if p in tokenizer.merges]  # fmt: skip
        if found:
            i = min(found)[1]
            tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    return [tokenizer.tokens.index(token) for token in tokens]


@pytest.fixture(scope="module")
def play() -> str:
    return llmkit.load_text("embedded")


@pytest.fixture(scope="module")
def small(play) -> BPETokenizer:
    return BPETokenizer.train(play, 512, [END])


@pytest.fixture(scope="module")
def gpt2() -> BPETokenizer:
    need("gpt2/encoder.json", "gpt2/vocab.bpe")
    return BPETokenizer.gpt2(DATA / "gpt2")


@pytest.fixture(scope="module")
def references(gpt2):
    """GPT-2's vocabulary in the hands of tokenizers and of tiktoken."""
    ids = json.loads((DATA / "gpt2/encoder.json").read_bytes())
    lines = (DATA / "gpt2/vocab.bpe").read_text("utf-8").split("\n")[1:-1]
    merges = [tuple(line.split()) for line in lines]
    reference = tokenizers.Tokenizer(models.BPE(ids, merges))
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return lambda text: reference.encode(text).ids, tiktoken_of(gpt2).encode_ordinary


# --- what it does


def test_merges_by_hand():
    tokenizer = BPETokenizer.train("aaabdaaabac", 256 + 3)
    assert tokenizer.merges == [(b"a", b"a"), (b"a", b"b"), (b"aa", b"ab")]
    assert tokenizer.tokens[256:] == [b"aa", b"ab", b"aaab"]
    ids = tokenizer.encode("aaabdaaabac")
    assert (ids.dtype, ids.shape) == (torch.int64, (5,))
    assert [tokenizer.decode(i) for i in ids] == ["aaab", "d", "aaab", "a", "c"]


def test_the_byte_alphabet_is_gpt2s():
    alphabet = files.ALPHABET
    assert sorted(alphabet) == list(range(256))
    assert len(set(alphabet.values())) == 256
    assert set(alphabet.values()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert spell(" été\n".encode()) == "ĠÃ©tÃ©Ċ"
    assert files.unspell(spell(bytes(range(256)))) == bytes(range(256))
    assert files.BYTES[:3] == [b"!", b'"', b"#"]


def test_words_are_cut_as_gpt2_cuts_them():
    assert bpe.PATTERN.findall("He'll pay  12 crowns!\n\n So") == [
        "He", "'ll", " pay", " ", " 12", " crowns", "!", "\n\n", " So",
    ]  # fmt: skip


def test_every_text_has_ids_even_without_a_merge():
    tokenizer = BPETokenizer([])
    assert tokenizer.vocab_size == 256
    for text in AWKWARD.values():
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("é")) == 2
    assert tokenizer.encode("").tolist() == []
    assert tokenizer.encode("").dtype == torch.int64


def test_half_a_character_is_shown_as_one_sign():
    tokenizer = BPETokenizer([])
    assert tokenizer.decode(tokenizer.encode("é")[:1]) == "\ufffd"
    with pytest.raises(ValueError, match="id 256 is not one of the ids 0 to 255"):
        tokenizer.decode([256])


# --- the same ids as others


@pytest.mark.parametrize("name", ["tiny_shakespeare.txt", "pg1522_julius_caesar.txt"])
def test_corpora_have_gpt2s_ids(gpt2, references, name):
    alike(gpt2, need(name)[0].read_bytes().decode(), *references)


@settings(max_examples=1_000, deadline=None)
@given(TEXT)
def test_any_unicode_has_gpt2s_ids(gpt2, references, text):
    alike(gpt2, text, *references)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(TEXT)
def test_much_more_unicode_has_gpt2s_ids(gpt2, references, text):
    alike(gpt2, text, *references)


@pytest.mark.parametrize("kind", AWKWARD)
def test_awkward_text_has_gpt2s_ids(gpt2, references, kind):
    alike(gpt2, AWKWARD[kind], *references)


def test_source_code_has_gpt2s_ids(gpt2, references):
    for folder in (Path(llmkit.__file__).parent, Path(__file__).parent):
        for path in folder.glob("*.py"):
            alike(gpt2, path.read_text("utf-8"), *references)
    for path in (Path(unicodedata.__file__ or json.__file__), Path(json.__file__)):
        alike(gpt2, path.read_bytes()[:100_000].decode("latin-1"), *references)


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_own_merges_give_the_ids_that_others_make_of_them(small, own_references, text):
    alike(small, text, *own_references)


@pytest.fixture(scope="module")
def own_references(play, small):
    reference = huggingface_trained(play, 511)
    assert spelled(small) == spelled_merges(reference)
    return lambda text: reference.encode(text).ids, tiktoken_of(small).encode_ordinary


@settings(max_examples=300, deadline=None)
@given(st.text("abc", max_size=60), st.text("abc", max_size=40), st.integers(0, 30))
def test_a_word_is_merged_as_the_naive_way_does(text, word, count):
    tokenizer = BPETokenizer.train(text, 256 + count)
    expected = naive_word(tokenizer, word)
    assert tokenizer.encode(word).tolist() == expected
    blocks, long_words.BLOCK = long_words.BLOCK, 7
    try:
        assert tokenizer._long_words.in_order  # so a long word would take this way
        assert (
            tokenizer._long_words.merge([tokenizer._byte_ids[b] for b in word.encode()]) == expected
        )
    finally:
        long_words.BLOCK = blocks


@pytest.mark.parametrize("kind", ["a", "ab", "play", "宇"])
def test_long_words_have_gpt2s_ids(gpt2, references, play, kind, monkeypatch):
    """A text without spaces: as tiktoken and tokenizers encode it, and not place by place."""
    letters = "".join(filter(str.isalpha, play[:9000])) if kind == "play" else kind * 3000
    monkeypatch.setattr(bpe, "LONG", 1000)
    monkeypatch.setattr(bpe, "heappop", None)
    ids = gpt2.encode(letters).tolist()
    assert all(ids == reference(letters) for reference in references)


def test_merges_out_of_order_are_applied_place_by_place(monkeypatch):
    """Where a merge makes what an earlier one takes, one place is finished before the next."""
    monkeypatch.setattr(bpe, "LONG", 1)
    tokenizer = BPETokenizer([(b"ab", b"c"), (b"a", b"b")])
    assert not tokenizer._long_words.in_order
    assert tokenizer.decode(tokenizer.encode("abcab")) == "abcab"
    assert [tokenizer.tokens[i] for i in tokenizer.encode("abcab")] == [b"abc", b"ab"]


@settings(deadline=None)
@given(st.text("ab \n'é1", max_size=60), st.integers(1, 5))
def test_blocks_do_not_show(small, text, block):
    whole, before = small.encode(text), bpe.BLOCK
    try:
        bpe.BLOCK = block
        assert small.encode(text).equal(whole)
    finally:
        bpe.BLOCK = before


def test_forgetting_words_does_not_show(small, monkeypatch):
    monkeypatch.setattr(bpe, "REMEMBERED", 0)
    assert small.encode("the wheel").equal(small.encode("the wheel"))


# --- training


@pytest.mark.parametrize("vocab_size", [256, 300, 1256])
def test_merges_are_those_of_hugging_faces_trainer(play, vocab_size):
    assert spelled(BPETokenizer.train(play, vocab_size)) == spelled_merges(
        huggingface_trained(play, vocab_size)
    )


def test_a_thousand_merges_of_a_megabyte_take_seconds_and_are_the_same():
    text = need("tiny_shakespeare.txt")[0].read_text("utf-8")[:1_000_000]
    started = time.process_time()
    tokenizer = BPETokenizer.train(text, 1256)
    assert time.process_time() - started < 10
    assert len(tokenizer.merges) == 1000
    assert spelled(tokenizer) == spelled_merges(huggingface_trained(text, 1256))


@settings(max_examples=300, deadline=None)
@given(st.text("ab é", max_size=80), st.integers(0, 40))
def test_merges_are_those_of_counting_all_again(text, count):
    assert BPETokenizer.train(text, 256 + count).merges == naive_merges(text, count)


def test_the_first_merges_are_a_smaller_training(play, small):
    first = small.first(44)
    assert first.merges == BPETokenizer.train(play, 300).merges
    assert first.special_tokens == {END: 300}
    assert small.first(0).vocab_size == 257
    for count in (-1, 256):
        with pytest.raises(ValueError, match=f"count must be from 0 to 255, not {count}"):
            small.first(count)


def test_ties_go_to_the_lowest_ids():
    # ab, bc and cd once each: a has the lowest id
    assert BPETokenizer.train("cd bc ab", 257).merges == [(b"a", b"b")]
    assert BPETokenizer.train("ac ab", 257).merges == [(b"a", b"b")]


def test_training_ends_where_no_pair_is_left():
    tokenizer = BPETokenizer.train("abc abc", 1000, [END])
    assert tokenizer.vocab_size < 270
    assert BPETokenizer.train("", 300).merges == []


def test_nothing_is_learned_of_special_tokens():
    text = f"a{END}" * 50
    tokenizer = BPETokenizer.train(text, 300, [END])
    assert tokenizer.merges == []
    assert tokenizer.vocab_size == 257


def test_a_vocabulary_too_small_is_refused():
    with pytest.raises(ValueError, match=r"vocab_size 256 has no room .* take 257 or more"):
        BPETokenizer.train("abc", 256, [END])


def test_encoding_reaches_a_megabyte_a_second(play):
    tokenizer = BPETokenizer.train(play, 1256)
    text = play * (1_000_000 // len(play))
    started = time.process_time()
    tokenizer.encode(text)
    assert time.process_time() - started < len(text) / 1e6


def test_a_word_of_any_length_takes_no_quadratic_time(small):
    draw = random.Random(0)
    word = "".join(draw.choices("abcdefgh", k=200_000))
    started = time.process_time()
    assert small.decode(small.encode(word)) == word
    assert time.process_time() - started < 5


# --- special tokens


def test_special_tokens_are_found_where_allowed_only(small):
    text = f"so{END}and"
    plain, special = small.encode(text), small.encode(text, allowed_special=[END])
    assert small.special_tokens == {END: 511}
    assert 511 not in plain
    assert special.tolist() == [*small.encode("so"), 511, *small.encode("and")]
    assert small.encode(text, allowed_special="all").equal(special)
    assert small.decode(plain) == small.decode(special) == text
    reference = tiktoken_of(small)
    assert special.tolist() == reference.encode(text, allowed_special="all")


def test_the_longer_special_token_wins():
    tokenizer = BPETokenizer([], ["<a>", "<a><b>"])
    assert tokenizer.encode("<a><b><a>", "all").tolist() == [257, 256]


def test_a_special_token_that_is_not_there_is_told(small):
    with pytest.raises(ValueError, match=r"'<pad>' is not one of the special tokens \['<\|endof"):
        small.encode("x", allowed_special=["<pad>"])


@pytest.mark.parametrize("text", ["", "a", "ab"])
def test_a_special_token_has_a_text_of_its_own(text):
    with pytest.raises(ValueError, match="cannot be a special token"):
        BPETokenizer([(b"a", b"b")], [text])


# --- files


def same(a: BPETokenizer, b: BPETokenizer) -> None:
    assert type(a) is type(b) is BPETokenizer
    for name in ("tokens", "merges", "special_tokens"):
        assert getattr(a, name) == getattr(b, name)
    text = f"The wheel, 😀{END}\n"
    assert a.encode(text, "all").equal(b.encode(text, "all"))


@pytest.mark.parametrize("order", ["own", "another"])
def test_a_saved_tokenizer_comes_back_the_same(small, tmp_path, order):
    if order == "another":
        small = BPETokenizer(small.merges, [END], small.tokens[::-1])
        assert small.special_tokens == {END: 0}
    small.save(tmp_path / "t.json")
    same(small, BPETokenizer.load(tmp_path / "t.json"))
    same(small, tokenizer_module.load(tmp_path / "t.json"))
    same(small, tokenizer_module.from_json(small.to_json()))
    same(small, pickle.loads(pickle.dumps(small)))
    (tmp_path / "t.json").read_text("ascii")
    with pytest.raises(ValueError, match="holds a BPETokenizer, not a CharTokenizer"):
        llmkit.CharTokenizer.load(tmp_path / "t.json")


def test_a_file_cut_short_anywhere_gives_one_sentence(tmp_path):
    path = tmp_path / "t.json"
    BPETokenizer([(b"a", b"b"), (b" ", b"ab")], [END]).save(path)
    whole = path.read_bytes().rstrip()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"t\.json is not a whole tokenizer file;"):
            BPETokenizer.load(path)


def test_it_travels_with_a_model(small, tmp_path):
    model = llmkit.GPT(llmkit.GPTConfig(512, block_size=8, n_layer=1, n_head=1, n_embd=8))
    llmkit.checkpoint.save(tmp_path / "c", model, small)
    same(small, llmkit.checkpoint.load(tmp_path / "c")[1])


def test_a_program_that_names_no_bpe_loads_it_with_its_model(small, tmp_path):
    model = llmkit.GPT(llmkit.GPTConfig(512, block_size=8, n_layer=1, n_head=1, n_embd=8))
    llmkit.checkpoint.save(tmp_path / "c", model, small)
    code = (
        "import sys, llmkit\n"
        "assert 'llmkit.bpe' not in sys.modules\n"
        "model, tokenizer = llmkit.checkpoint.load(sys.argv[1])\n"
        "print(type(tokenizer).__name__, tokenizer.encode('the wheel').tolist())\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "c"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"BPETokenizer {small.encode('the wheel').tolist()}\n"


@pytest.mark.parametrize("num_proc", [None, 2])
def test_token_files_have_its_ids(small, play, tmp_path, monkeypatch, num_proc):
    monkeypatch.setattr(token_file, "PIECE", 1 << 12)
    (tmp_path / "play.txt").write_text(play, "utf-8")
    token_file.write(tmp_path / "ids", tmp_path / "play.txt", small, num_proc=num_proc)
    ids, back = token_file.load(tmp_path / "ids")
    same(small, back)
    assert ids.long().equal(small.encode(play))


def test_hugging_face_reads_what_we_write(small, tmp_path):
    small.save_huggingface(tmp_path / "tokenizer.json")
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert reference.get_vocab_size() == small.vocab_size
    for text in [*AWKWARD.values(), f"so{END}and"]:
        assert reference.encode(text).ids == small.encode(text, "all").tolist()
        assert reference.decode(reference.encode(text).ids, skip_special_tokens=False) == text
    assert reference.decode([511]) == ""
    same(small, BPETokenizer.from_huggingface(tmp_path / "tokenizer.json"))


def test_we_read_what_hugging_face_writes(play, tmp_path):
    reference = huggingface_trained(play, 400)
    reference.add_special_tokens([END, "<pad>"])
    reference.save(str(tmp_path / "tokenizer.json"))
    tokenizer = BPETokenizer.from_huggingface(tmp_path / "tokenizer.json")
    assert tokenizer.special_tokens == {END: 400, "<pad>": 401}
    for text in [*AWKWARD.values(), f"so{END}and<pad>"]:
        assert reference.encode(text).ids == tokenizer.encode(text, "all").tolist()
    # merges as older versions wrote them
    fields = json.loads((tmp_path / "tokenizer.json").read_bytes())
    fields["model"]["merges"] = [" ".join(pair) for pair in fields["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(fields))
    same(tokenizer, BPETokenizer.from_huggingface(tmp_path / "tokenizer.json"))


@pytest.fixture
def folder(small, tmp_path) -> Path:
    """A small tokenizer in GPT-2's two files."""
    ids = {spell(token): i for i, token in enumerate(small.tokens[:-1])} | {END: 511}
    (tmp_path / "encoder.json").write_text(json.dumps(ids))
    lines = ["#version: 0.2", *map(" ".join, spelled(small)), ""]
    (tmp_path / "vocab.bpe").write_text("\n".join(lines), "utf-8")
    return tmp_path


def test_gpt2s_two_files_under_both_pairs_of_names(small, folder):
    same(small, BPETokenizer.gpt2(folder))
    (folder / "encoder.json").rename(folder / "vocab.json")
    shutil.move(folder / "vocab.bpe", folder / "merges.txt")
    same(small, BPETokenizer.gpt2(str(folder)))


def test_no_folder_and_no_file_are_told(folder):
    (folder / "vocab.bpe").unlink()
    with pytest.raises(FileNotFoundError, match=r"vocab\.bpe, or vocab\.json and merges\.txt"):
        BPETokenizer.gpt2(folder)
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        BPETokenizer.from_huggingface(folder / "none.json")


def test_a_merges_file_cut_short_anywhere_is_told(folder):
    path = folder / "vocab.bpe"
    whole = path.read_bytes().rstrip()
    told = "cut short|do not belong together"
    for end in [*range(0, len(whole), 29), *range(len(whole) - 12, len(whole))]:
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=told) as caught:
            BPETokenizer.gpt2(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe"])
def test_a_file_in_another_encoding_is_told(folder, name):
    text = json.dumps(json.loads((folder / "encoder.json").read_bytes()), ensure_ascii=False)
    (folder / "encoder.json").write_text(text, "utf-8")
    whole = (folder / name).read_text("utf-8")
    # As Windows writes it: a letter that it has not becomes a question mark.
    (folder / name).write_bytes(("\xe9" + whole).encode("cp1252", "replace"))
    with pytest.raises(ValueError, match=rf"{name} is not UTF-8 but probably (cp1252|latin-1);"):
        BPETokenizer.gpt2(folder)
    # Read so: each byte of UTF-8 a letter of its own.
    (folder / name).write_text(whole.encode().decode("latin-1"), "utf-8")
    with pytest.raises(ValueError, match="read in another encoding than UTF-8 and saved"):
        BPETokenizer.gpt2(folder)


def test_a_line_of_merges_that_is_none_is_named(folder):
    path = folder / "vocab.bpe"
    path.write_text(path.read_text("utf-8").replace("\nh e\n", "\nh e x\n"), "utf-8")
    with pytest.raises(ValueError, match=r"line \d+ of vocab\.bpe is not two tokens .*'h e x'"):
        BPETokenizer.gpt2(folder)
    path.write_text("#version: 0.2\n好 e\n", "utf-8")
    with pytest.raises(ValueError, match="'好', which is not in GPT-2's byte alphabet"):
        BPETokenizer.gpt2(folder)


def test_files_that_do_not_belong_together_are_told(folder, text):
    other = BPETokenizer.train(text, 300)
    lines = ["#version: 0.2", *map(" ".join, spelled(other)), ""]
    (folder / "vocab.bpe").write_text("\n".join(lines), "utf-8")
    with pytest.raises(ValueError, match="merges and tokens do not belong together: the merges"):
        BPETokenizer.gpt2(folder)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"!": 0, "a"', r"encoder\.json: this is no JSON object, or not a whole"),
        ("[1]", r"encoder\.json: this is no JSON object, or not a whole"),
        ('{"!": 0, "a": 2}', "are not 0 to 1, each once"),
        ('{"!": 0, "a": "1"}', "are not 0 to 1, each once"),
        ('{"!": 0, "a": 1}', "do not belong together"),
    ],
)
def test_a_wrong_encoder_is_told(folder, content, told):
    (folder / "encoder.json").write_text(content)
    with pytest.raises(ValueError, match=told):
        BPETokenizer.gpt2(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: f["model"].update(type="WordPiece"), "lacks a BPE model"),
        (lambda f: f["pre_tokenizer"].update(add_prefix_space=True), "GPT-2's regular expression"),
        (lambda f: f.update(pre_tokenizer={"type": "Metaspace"}), "GPT-2's regular expression"),
        (lambda f: f.update(normalizer={"type": "NFC"}), "no normalizer"),
        (lambda f: f["model"].update(byte_fallback=True), "plain merges"),
        (lambda f: f["added_tokens"][0].update(lstrip=True), "plain special tokens"),
        (lambda f: f.pop("model"), "is not a tokenizer.json"),
        (lambda f: f.update(pre_tokenizer=None), "is not a tokenizer.json"),
        (lambda f: f["model"]["merges"].pop(), "cut short"),
    ],
)
def test_a_tokenizer_json_of_another_kind_is_refused(small, tmp_path, change, told):
    path = tmp_path / "tokenizer.json"
    small.save_huggingface(path)
    fields = json.loads(path.read_bytes())
    change(fields)
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=told):
        BPETokenizer.from_huggingface(path)


def test_a_tokenizer_json_cut_short_is_told(small, tmp_path):
    path = tmp_path / "tokenizer.json"
    small.save_huggingface(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        ValueError, match=r"tokenizer\.json: this is no JSON object, or not a whole"
    ):
        BPETokenizer.from_huggingface(path)


# --- bad input


@pytest.mark.parametrize("code", [0xD83D, 0xDE00])
def test_half_a_surrogate_pair_is_named_with_its_place(small, code):
    text = "ab\nc" + chr(code) + "d"
    place = re.escape(f"character {chr(code)!r} (U+{code:04X}) at position 4 (line 2) is half a")
    with pytest.raises(ValueError, match=place) as caught:
        small.encode(text)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=place):
        BPETokenizer.train(text, 300)


def test_tokens_and_merges_must_fit():
    with pytest.raises(ValueError, match="must be distinct"):
        BPETokenizer([], tokens=[*files.BYTES, b"a"])
    with pytest.raises(ValueError, match=r"the merges need b'a', which"):
        BPETokenizer([], tokens=[token for token in files.BYTES if token != b"a"])
    with pytest.raises(ValueError, match=r"the merges need b'xy', which"):
        BPETokenizer([(b"xy", b"z")])
    with pytest.raises(ValueError, match=r"no merge makes 1 of the tokens, b'ab' for one"):
        BPETokenizer([], tokens=[*files.BYTES, b"ab"])


def test_repr_is_short(small):
    assert repr(small) == "BPETokenizer(vocab_size=512, special_tokens=['<|endoftext|>'])"


def test_vocabulary_files_of_other_programs(folder):
    """With a byte-order mark, line ends of Windows, and empty lines at the end."""
    expected = BPETokenizer.gpt2(folder).encode("some words of a text")
    for name in ("vocab.bpe", "encoder.json"):
        text = (folder / name).read_text("utf-8").rstrip("\n").replace("\n", "\r\n")
        (folder / name).write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n\r\n\r\n")
    assert torch.equal(BPETokenizer.gpt2(folder).encode("some words of a text"), expected)


# ------------------------------------------------------------------------- digits that stand alone

NUMBERS = [
    "1999",
    "in 1999 it",
    "  12 345\t6\n\n7",
    "a  1",
    "1  a",
    "x² ½ ٣٤",
    "it's 5's",
    " 1 ",
    "\n1",
]


def single_digits(play: str) -> BPETokenizer:
    learned = BPETokenizer.train(play, 400, [END])
    return BPETokenizer(learned.merges, [END], learned.tokens, digits=True)


@pytest.mark.parametrize("sample", NUMBERS)
def test_digits_alone_are_as_in_tokenizers(sample, play, tmp_path):
    tokenizer = single_digits(play)
    tokenizer.save_huggingface(tmp_path / "tokenizer.json")
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    digits = pre_tokenizers.Digits(individual_digits=True)
    steps = [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    assert str(reference.pre_tokenizer) == str(pre_tokenizers.Sequence(steps))
    assert tokenizer.encode(sample).tolist() == reference.encode(sample).ids
    assert tokenizer.decode(tokenizer.encode(sample)) == sample


def test_digits_alone_by_chance(play, tmp_path):
    tokenizer = single_digits(play)
    tokenizer.save_huggingface(tmp_path / "tokenizer.json")
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    draw = random.Random(0)
    for _ in range(300):
        sample = "".join(draw.choices("ab1 2\n\t'.é½s", k=draw.randint(1, 20)))
        assert tokenizer.encode(sample).tolist() == reference.encode(sample).ids, repr(sample)


def test_digits_alone_travel(play, tmp_path):
    tokenizer = single_digits(play)
    tokenizer.save_huggingface(tmp_path / "tokenizer.json")
    tokenizer.save(tmp_path / "own.json")
    others = [
        BPETokenizer.from_huggingface(tmp_path / "tokenizer.json"),
        BPETokenizer.load(tmp_path / "own.json"),
        pickle.loads(pickle.dumps(tokenizer)),
    ]
    for other in others:
        assert other.digits
        assert other.encode("1999").tolist() == tokenizer.encode("1999").tolist()
    assert len(tokenizer.first(0).encode("19")) == 2
    long = "12 ab 3\n" * 5000  # longer than what is encoded at a time
    assert torch.equal(tokenizer.encode(long), tokenizer.encode("12 ab 3\n").repeat(5000))


def test_bytes_that_are_left_out_are_ends_of_text(play, tmp_path):
    """As in SmolLM2's vocabulary: tokenizers' token for what is unknown is <|endoftext|>."""
    learned = BPETokenizer.train(play, 300, [END])
    tokens = [token for token in learned.tokens if token not in (b"\x04", b"\xf1")]
    tokenizer = BPETokenizer(learned.merges, [END], tokens)
    tokenizer.save_huggingface(tmp_path / "tokenizer.json")
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for sample in ("a\x04b", "\x04\x04", "the \U00050000 river"):
        assert tokenizer.encode(sample).tolist() == reference.encode(sample).ids
    end = tokenizer.special_tokens[END]
    assert tokenizer.encode("\x04").tolist() == [end]
    assert BPETokenizer.from_huggingface(tmp_path / "tokenizer.json").tokens == tokens
