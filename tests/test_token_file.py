"""Token files: the ids of the whole text, whatever is cut, killed or resumed on the way."""

import errno
import json
import struct
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmkit import (
    GPT,
    Batches,
    BPETokenizer,
    CharTokenizer,
    GPTConfig,
    TrainConfig,
    WordTokenizer,
    evaluate,
    split,
    train,
)
from llmkit.ngram import NGram
from llmkit.scale import token_file

ALPHABET = "ab .,\n\r\té\u3000。😀"  # of one to four bytes each


def lines(text: str) -> str:
    """The text with the line ends that reading gives it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def one_sentence(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


def ids_of(path: Path) -> list[int]:
    return token_file.load(path)[0].tolist()


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(token_file, "PIECE", 50)
    monkeypatch.setattr(token_file, "PART", 20_000)


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """The texts that character tokenizers are given, in this process."""
    texts, encode = [], CharTokenizer.encode
    monkeypatch.setattr(
        CharTokenizer, "encode", lambda self, text: texts.append(text) or encode(self, text)
    )
    return texts


def run(code: str, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60
    )


# --- the file


def test_ids_and_tokenizer_come_back(tmp_path, text):
    (tmp_path / "corpus.txt").write_text(text)
    tokenizer = CharTokenizer.from_text(text, unknown="<unk>")
    target = tmp_path / "new" / "corpus.safetensors"
    assert token_file.write(target, tmp_path / "corpus.txt", tokenizer) == target
    ids, back = token_file.load(target)
    assert type(ids) is torch.Tensor
    assert (ids.dtype, ids.shape) == (torch.uint16, (len(text),))
    assert ids.long().equal(tokenizer.encode(text))
    assert (type(back), back.tokens, back.unknown) == (CharTokenizer, tokenizer.tokens, "<unk>")
    assert back.decode(ids) == text
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(("size", "dtype"), [(65_536, torch.uint16), (65_537, torch.uint32)])
def test_a_large_vocabulary_takes_wider_ids(tmp_path, size, dtype):
    tokenizer = WordTokenizer([str(i) for i in range(size - 1)] + [" "], unknown=None)
    path = token_file.write(tmp_path / "t", [f"0 {size - 2} 17"], tokenizer)
    ids, back = token_file.load(path)
    assert ids.dtype == dtype
    assert ids.tolist() == [0, size - 1, size - 2, size - 1, 17]
    assert back.vocab_size == size


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_the_safetensors_library_reads_it(tmp_path, n):
    tokenizer = CharTokenizer("abé😀")
    path = token_file.write(tmp_path / "t.safetensors", ["b" * n], tokenizer)
    assert safetensors.numpy.load_file(path)["ids"].tolist() == [1] * n
    with safetensors.safe_open(path, "pt") as file:
        assert file.keys() == ["ids"]
        assert file.get_tensor("ids").equal(torch.ones(n, dtype=torch.uint16))
        kept = json.loads(file.metadata()["tokenizer"])
    assert kept["tokens"] == tokenizer.tokens
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    assert (8 + length) % 64 == 0


def test_a_header_is_as_long_whatever_the_number_of_ids():
    for tokenizer in ("", "é" * 63, "[" * 1000):
        for kind in token_file.DTYPES:
            lengths = {len(token_file._header(kind, n, tokenizer, 0)) for n in (0, 1, 10**18)}
            assert len(lengths) == 1


def test_changing_loaded_ids_changes_no_file(tmp_path):
    path = token_file.write(tmp_path / "t", ["ab"], CharTokenizer("ab"))
    before = path.read_bytes()
    ids, _ = token_file.load(path)
    ids[0] = 1
    assert ids.tolist() == [1, 1]
    assert path.read_bytes() == before
    assert ids_of(path) == [0, 1]


def test_where_the_system_maps_no_more_than_memory_the_ids_are_mapped_read_only(
    tmp_path, monkeypatch, recwarn
):
    path = token_file.write(tmp_path / "t", ["abba"], CharTokenizer("ab"))
    memmap, modes = np.memmap, []

    def small_system(name, dtype, mode, offset, shape):
        modes.append(mode)
        if mode != "r":
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return memmap(name, dtype, mode, offset, shape)

    monkeypatch.setattr(np, "memmap", small_system)
    assert ids_of(path) == [0, 1, 1, 0]
    assert modes[-1] == "r"
    assert not recwarn


def test_neither_writing_nor_loading_nor_training_holds_the_corpus(tmp_path):
    """20 MB of text and 40 MB of ids, in a new process."""
    code = """
import torch
from llmkit import Batches, CharTokenizer, load_text, split
from llmkit.scale import token_file

def memory(kind):
    return int(open("/proc/self/status").read().split(kind + ":")[1].split()[0]) / 1000

text = load_text()
with open("corpus.txt", "w") as file:
    for _ in range(20_000_000 // len(text)):
        file.write(text)
tokenizer = CharTokenizer.from_text(text)
token_file.PART = 1 << 20
token_file.write("warm", [text] * 9, tokenizer)
before = memory("VmHWM")
token_file.write("corpus", "corpus.txt", tokenizer)
print(memory("VmHWM") - before)
next(Batches(torch.arange(65).repeat(9), 32, 4))
before, own = memory("VmRSS"), memory("RssAnon")
ids, tokenizer = token_file.load("corpus")
train_ids, val_ids = split(ids)
print(memory("VmRSS") - before)
batches = Batches(train_ids, 32, 4)
for _ in range(10):
    next(batches)
print(memory("VmRSS") - before, memory("RssAnon") - own)
"""
    done = run("import datasets; datasets.disable_progress_bars()\n" + code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    written, loaded, used, own = map(float, done.stdout.split())
    assert written < 16
    assert loaded < 4
    assert used < 20  # of 40 rows each brings its neighbourhood of 64 KB, which the system maps
    assert own < 4


# --- where a text is cut


@settings(deadline=None)
@given(
    texts=st.lists(st.text(ALPHABET, max_size=80), min_size=1, max_size=3),
    size=st.integers(1, 9),
    words=st.booleans(),
)
@example(texts=["ab \r\n\r\n  ab"], size=2, words=True)
def test_the_tokens_of_the_pieces_are_those_of_the_whole(texts, size, words):
    tokenizer = (WordTokenizer if words else CharTokenizer).from_text("".join(texts) + "a", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_file, "PIECE", size)
        rows = list(token_file._rows(texts, None, token_file.re.compile(tokenizer.cut)))
    for number, text in enumerate(texts):
        pieces = [row for row in rows if row.document == number]
        assert "".join(row.text for row in pieces) == text
        ids = [tokenizer.encode(row.text) for row in pieces]
        assert torch.cat(ids).equal(tokenizer.encode(text))
        for row in pieces:
            assert text.startswith(row.text, row.position)
            assert row.line == text.count("\n", 0, row.position)


@pytest.mark.parametrize("num_proc", [None, 2])
def test_a_file_of_many_parts_has_the_ids_of_the_whole(tmp_path, small_parts, num_proc):
    text = "".join(f"Wörter, {i}\r\n\r\n 😀 \rund so fort." for i in range(150))
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    text = lines(text)
    for tokenizer in (WordTokenizer.from_text(text), BPETokenizer.train(text, 300)):
        path = token_file.write(tmp_path / "t", tmp_path / "t.txt", tokenizer, num_proc=num_proc)
        assert ids_of(path) == tokenizer.encode(text).tolist()


def test_pieces_are_small_except_where_no_cut_is_allowed(monkeypatch, tmp_path):
    monkeypatch.setattr(token_file, "PIECE", 100)
    tokenizer = WordTokenizer(["a" * 5000, "b", " "], unknown=None)
    (tmp_path / "t.txt").write_text("b " * 5000 + "a" * 5000)
    cut = token_file.re.compile(tokenizer.cut)
    sizes = [len(row.text) for row in token_file._rows(None, str(tmp_path / "t.txt"), cut)]
    assert sum(sizes) == 15_000
    assert sizes[-1] <= 5200
    assert max(sizes[:-1]) <= 200
    assert ids_of(token_file.write(tmp_path / "t", tmp_path / "t.txt", tokenizer))[-2:] == [2, 0]


# --- documents


@pytest.mark.parametrize("separator", ["\n\n", "", "ab"])
@pytest.mark.parametrize("kind", [CharTokenizer, WordTokenizer])
def test_documents_are_tokenized_each_by_itself(tmp_path, small_parts, kind, separator):
    documents = ["ab", "", "ba. " * 40, "\n", "", *["b", ". a"] * 40, ""]
    tokenizer = kind.from_text("\n".join([*documents, "abab aba bab"]), None)
    expected = tokenizer.encode(documents[0]).tolist()
    for document in documents[1:]:
        expected += tokenizer.encode(separator).tolist() + tokenizer.encode(document).tolist()
    token_file.write(tmp_path / "t", iter(documents), tokenizer, separator=separator)
    assert ids_of(tmp_path / "t") == expected


def table(n: int = 250, **columns) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": [f"Document {i}." for i in range(n)], **columns})


def stream(rows: int) -> datasets.IterableDataset:
    """A streaming dataset, which need not know its columns."""

    def generate():
        for i in range(rows):
            yield {"id": i, "text": f"Document {i}."}

    return datasets.IterableDataset.from_generator(generate)


@pytest.mark.parametrize(
    ("source", "column"),
    [
        (lambda: table(), "text"),
        (lambda: table(id=list(range(250))).rename_column("text", "content"), "content"),
        (lambda: table().with_format("torch"), "text"),
        (lambda: table().to_iterable_dataset(num_shards=3), "text"),
        (lambda: stream(250), "text"),
        (lambda: stream(250).map(lambda row: {"more": row["text"] + "!"}), "more"),
    ],
)
def test_datasets_in_memory_and_streaming(tmp_path, small_parts, source, column):
    source = source()
    documents = [row[column] for row in source]
    assert len(documents) == 250
    tokenizer = CharTokenizer.from_text("".join(documents) + "\n")
    token_file.write(tmp_path / "t", source, tokenizer, column=column)
    ids, back = token_file.load(tmp_path / "t")
    assert back.decode(ids) == "\n\n".join(documents)


def test_one_progress_bar_where_datasets_shows_its_own(tmp_path, small_parts, capsys):
    tokenizer = CharTokenizer.from_text("Document 0123456789.\n")
    token_file.write(tmp_path / "t", table(), tokenizer)
    shown = capsys.readouterr().err
    assert "250/250" in shown
    assert "documents/s" in shown
    assert "Map" not in shown
    assert not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        token_file.write(tmp_path / "t", table(), tokenizer)
        assert datasets.are_progress_bars_disabled()
    finally:
        datasets.enable_progress_bars()
    assert capsys.readouterr().err == ""


# --- what cannot be tokenized


def test_a_missing_column_names_those_there_are(tmp_path):
    for source in (table(id=range(250)), stream(3)):
        with pytest.raises(
            ValueError, match=r"no column 'content' in \['\w+', '\w+'\]; name"
        ) as caught:
            token_file.write(tmp_path / "t", source, CharTokenizer("ab"), column="content")
        one_sentence(caught)
    splits = datasets.DatasetDict(train=table(), test=table())
    with pytest.raises(ValueError, match=r"one of the parts \['train', 'test'\], as in") as caught:
        token_file.write(tmp_path / "t", splits, CharTokenizer("ab"))
    one_sentence(caught)
    assert list(tmp_path.iterdir()) == []


BAD_BYTE = b"good line\n" * 30 + b"b\xffd\n"
BAD_CHARACTER = b"\xef\xbb\xbf" + b"good line\r\n" * 30 + b"\nb?d\n" * 30
NOT_KNOWN = r"t\.txt: character '\?' \(U\+003F\) at position 302 \(line 32\) is not in the"


@pytest.mark.parametrize(
    ("raw", "message", "num_proc"),
    [
        (b"", r"t\.txt is empty", None),
        (b"\xef\xbb\xbf", r"t\.txt is empty", None),
        (BAD_BYTE, r"t\.txt: byte 0xff at position 301 \(line 31\) is not UTF-8", None),
        ("good line\n".encode("utf-16"), r"byte 0xff at position 0 \(line 1\) is not", None),
        (BAD_CHARACTER, NOT_KNOWN, None),
        (BAD_CHARACTER, NOT_KNOWN, 2),
    ],
)
def test_a_file_that_is_not_the_tokenizers_text(tmp_path, small_parts, raw, message, num_proc):
    (tmp_path / "t.txt").write_bytes(raw)
    (tmp_path / "t").write_bytes(b"an older file")
    tokenizer = CharTokenizer("\n bdegilno")
    with pytest.raises(ValueError, match=message) as caught:
        token_file.write(tmp_path / "t", tmp_path / "t.txt", tokenizer, num_proc=num_proc)
    one_sentence(caught)
    assert (tmp_path / "t").read_bytes() == b"an older file"


@pytest.mark.parametrize(
    "tokenizer", [CharTokenizer("ab \n"), WordTokenizer(["ab", " ", "\n"], None)]
)
def test_a_document_that_is_not_the_tokenizers_text(tmp_path, small_parts, tokenizer):
    documents = ["ab ab"] * 9 + ["ab " * 100 + "\nab ?"]
    expected = r"document 9 \(from 0\): .*'\?'.* at position 304 \(line 2\) is not"
    with pytest.raises(ValueError, match=expected) as caught:
        token_file.write(tmp_path / "t", documents, tokenizer)
    one_sentence(caught)
    with pytest.raises(ValueError, match=r"separator 'x': .*, or choose another") as caught:
        token_file.write(tmp_path / "t", documents, tokenizer, separator="x")
    one_sentence(caught)
    expected = r"document 1 \(from 0\): character '\\ud800' at position 4 \(line 2\) is not UTF-8"
    with pytest.raises(ValueError, match=expected) as caught:
        token_file.write(tmp_path / "t", ["ab", "ab \n\ud800"], tokenizer)
    one_sentence(caught)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("none.txt", FileNotFoundError, r"no file 'none\.txt'; write takes the path of"),
        ("To be/or not to be " * 99, FileNotFoundError, r"no file .To be.{,80}; write takes"),
        (".", FileNotFoundError, r"no file '\.'"),
        (7, TypeError, r"an iterable of str, not int"),
        (b"bytes", TypeError, r"an iterable of str, not bytes"),
        ([], ValueError, "the source is empty"),
        (["", ""], ValueError, "the source is empty"),
        (["a", None], ValueError, r"document 1 \(from 0\) is a NoneType, not a str"),
    ],
)
def test_a_source_that_is_none(tmp_path, source, error, message):
    with pytest.raises(error, match=message) as caught:
        token_file.write(tmp_path / "t", source, CharTokenizer("ab"), separator="")
    assert len(one_sentence(caught)) < 200
    assert not (tmp_path / "t").exists()


def test_targets_that_cannot_be(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder; name a file in it"):
        token_file.write(tmp_path, ["a"], CharTokenizer("ab"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be written \(.*\); free some space or") as caught:
        token_file.write(tmp_path / "file" / "t", ["a"], CharTokenizer("ab"))
    one_sentence(caught)


# --- files that are no token files


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, -1])
def test_a_file_of_another_length_is_refused(tmp_path, keep):
    path = token_file.write(tmp_path / "whole", ["ab" * 50], CharTokenizer("ab"))
    whole = path.read_bytes()
    for content in (whole[:keep], whole + b"a"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"whole is not a whole token file") as caught:
            token_file.load(path)
        one_sentence(caught)


def test_a_bit_changed_anywhere_is_noticed(tmp_path):
    text = "To be, or not to be, that is the question.\n" * 9
    path = token_file.write(tmp_path / "ids", [text], CharTokenizer.from_text(text))
    whole = path.read_bytes()
    before = token_file.load(path)[0].clone()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="write it again"):
            token_file.load(path)
    # and where a corpus is too large to be read twice, the one that opens it says so
    assert token_file.load(path, verify=False)[0].ne(before).sum() == 1


def test_another_file_is_refused(tmp_path):
    path, other = tmp_path / "t", {"ids": np.zeros(3, np.uint16)}
    contents = [
        *(b"Some text. " * 99, b"{}", bytes(999), b"\xff" * 999, b"PK\3\4" * 99),
        safetensors.numpy.save(other),
        safetensors.numpy.save(other, {"format": "pt"}),
        safetensors.numpy.save(other, {"format": "llmkit tokens 1"}),
        safetensors.numpy.save({"ids": np.zeros(3)}, {"format": token_file.FORMAT}),
        safetensors.numpy.save({"other": np.zeros(3)}, {"format": token_file.FORMAT}),
        safetensors.numpy.save({"ids": np.zeros((), np.uint16)}, {"format": token_file.FORMAT}),
        safetensors.numpy.save({"ids": np.zeros((2, 2), np.uint16)}, {"format": token_file.FORMAT}),
    ]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a whole token file of this llmkit") as caught:
            token_file.load(path)
        one_sentence(caught)
    with pytest.raises(FileNotFoundError, match=r"no token file .*/none; write makes one"):
        token_file.load(tmp_path / "none")


# --- interrupted, killed, and going on


@pytest.fixture
def corpus(tmp_path, text) -> Path:
    """86 KB, with characters of several bytes, and lines that end in CRLF."""
    path = tmp_path / "corpus.txt"
    path.write_bytes("".join(f"{i} é {text}" for i in range(400)).replace("\n", "\r\n").encode())
    return path


def tokenizer_of(path: Path) -> CharTokenizer:
    return CharTokenizer.from_text(lines(path.read_bytes().decode()))


def interrupt(monkeypatch, target: Path, source, tokenizer, after: int) -> None:
    """Call write, and stop it after so many parts."""
    tokenize, parts = token_file._tokenize, []

    def stop(*arguments):
        if len(parts) == after:
            raise KeyboardInterrupt
        parts.append(arguments)
        return tokenize(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(token_file, "_tokenize", stop)
        with pytest.raises(KeyboardInterrupt):
            token_file.write(target, source, tokenizer)
    assert not target.exists()
    parts = [path.suffix for path in target.with_name(f".{target.name}.parts").iterdir()]
    assert parts == [".arrow"] * len(parts)


@pytest.mark.parametrize("kind", ["file", "documents"])
def test_an_interrupted_call_goes_on_and_makes_the_same_file(
    tmp_path, small_parts, monkeypatch, encoded, corpus, kind
):
    tokenizer, text = tokenizer_of(corpus), lines(corpus.read_bytes().decode())

    def source():
        return corpus if kind == "file" else (line for line in text.split("\n"))

    whole = token_file.write(tmp_path / "whole", source(), tokenizer).read_bytes()
    once = "".join(encoded).replace("\n\n", "")
    encoded.clear()
    target = tmp_path / "there" / "t"
    interrupt(monkeypatch, target, source(), tokenizer, after=3)
    begun = len("".join(encoded))
    assert begun > 10_000
    interrupt(monkeypatch, target, source(), tokenizer, after=5)
    assert len("".join(encoded)) > begun
    token_file.write(target, source(), tokenizer)
    assert "".join(encoded).replace("\n\n", "") == once  # nothing twice
    assert target.read_bytes() == whole
    assert list(target.parent.iterdir()) == [target]


def test_what_has_changed_since_is_tokenized_and_nothing_else(
    tmp_path, small_parts, monkeypatch, encoded, corpus
):
    tokenizer, target = tokenizer_of(corpus), tmp_path / "t"
    interrupt(monkeypatch, target, corpus, tokenizer, after=5)
    raw = corpus.read_bytes()
    corpus.write_bytes(raw[:20_000] + b"a" + raw[20_001:])
    encoded.clear()
    token_file.write(target, corpus, tokenizer)
    again, changed = len("".join(encoded)), lines(corpus.read_bytes().decode())
    assert ids_of(target) == tokenizer.encode(changed).tolist()
    assert len(changed) - 27_500 < again < len(changed) - 26_000  # four parts of five were kept

    interrupt(monkeypatch, tmp_path / "u", corpus, tokenizer, after=5)
    other = CharTokenizer(tokenizer.characters[::-1])
    token_file.write(tmp_path / "u", corpus, other)
    assert ids_of(tmp_path / "u") == other.encode(changed).tolist()


WORK = """
import os, signal
from llmkit import CharTokenizer
from llmkit.scale import token_file

token_file.PIECE, token_file.PART = 50, 20_000
text = open("corpus.txt", encoding="utf-8").read()
encode, log = CharTokenizer.encode, os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def logging(self, text):
    os.write(log, b"." * len(text))
    if os.path.getsize("log") > 50_000 and not os.path.exists("killed"):
        open("killed", "w")
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(self, text)

CharTokenizer.encode = logging
LIMIT
token_file.write("t", "corpus.txt", CharTokenizer.from_text(text), num_proc=NUM_PROC)
"""  # without an `if __name__ == "__main__"`: on Linux a script may do without


@pytest.mark.parametrize("num_proc", [None, 2])
def test_a_killed_process_loses_the_part_that_it_was_at(tmp_path, corpus, num_proc):
    code = WORK.replace("LIMIT", "").replace("NUM_PROC", str(num_proc))
    assert run(code, tmp_path).returncode != 0
    assert not (tmp_path / "t").exists()
    begun = (tmp_path / "log").stat().st_size
    assert begun > 50_000
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    tokenizer, text = tokenizer_of(corpus), lines(corpus.read_bytes().decode())
    assert ids_of(tmp_path / "t") == tokenizer.encode(text).tolist()
    twice = (tmp_path / "log").stat().st_size - len(text)
    assert 0 < twice < 7_000 * (num_proc or 1)  # of the 82,290 characters; a part has 6,700


def test_a_full_disk_loses_nothing(tmp_path, small_parts, encoded, corpus):
    """The system refuses a process files of more than 60,000 bytes, then no more."""
    (tmp_path / "t").write_bytes(b"an older file")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))"
    (tmp_path / "killed").touch()
    done = run(WORK.replace("LIMIT", limit).replace("NUM_PROC", "None"), tmp_path)
    assert "OSError: t cannot be written (File too large); free some space" in done.stderr
    assert (tmp_path / "t").read_bytes() == b"an older file"
    tokenizer, text = tokenizer_of(corpus), lines(corpus.read_bytes().decode())
    token_file.write(tmp_path / "t", corpus, tokenizer)
    assert 0 < len("".join(encoded)) < len(text) - 20_000  # two bytes for each of the others
    assert ids_of(tmp_path / "t") == tokenizer.encode(text).tolist()


def test_two_that_write_the_same_file_leave_a_whole_one(tmp_path):
    tokenizer = CharTokenizer("ab")

    def documents():
        yield "ab"
        token_file.write(tmp_path / "t", ["b"], tokenizer)

    with pytest.raises(OSError, match="cannot be written") as caught:
        token_file.write(tmp_path / "t", documents(), tokenizer)
    one_sentence(caught)
    assert ids_of(tmp_path / "t") == [1]
    assert list(tmp_path.iterdir()) == [tmp_path / "t"]


# --- what is done with the ids


def test_mapped_ids_do_what_ids_do(tmp_path, text):
    tokenizer = CharTokenizer.from_text(text)
    ids, _ = token_file.load(token_file.write(tmp_path / "t", [text * 3], tokenizer))
    plain = tokenizer.encode(text * 3)
    train_ids, val_ids = split(ids)
    plain_train, plain_val = split(plain)
    assert train_ids.tolist() == plain_train.tolist()
    V = tokenizer.vocab_size
    model = NGram(train_ids, 3, V)
    assert model.loss(val_ids) == NGram(plain_train, 3, V).loss(plain_val)
    pairs = zip(Batches(train_ids, 8, 4, seed=1), Batches(plain_train, 8, 4, seed=1), strict=False)
    for (mapped, expected), _ in zip(pairs, range(3), strict=False):
        assert torch.stack(mapped).equal(torch.stack(expected))
    losses = []
    for ours, theirs in ((train_ids, val_ids), (plain_train, plain_val)):
        torch.manual_seed(0)
        model = GPT(GPTConfig(V, block_size=8, n_layer=1, n_head=1, n_embd=8))
        train(model, ours, theirs, TrainConfig(steps=2, batch_size=2))
        losses.append(evaluate(model, theirs).loss)
    assert losses[0] == losses[1]
