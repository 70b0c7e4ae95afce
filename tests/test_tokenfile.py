"""Token files, and what is behind them: `token_file`, `pieces` and `resumable`."""

import errno
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmkit import Batches, CharTokenizer, WordTokenizer, split
from llmkit.ngram import NGram
from llmkit.scale import pieces, token_file

ALPHABET = "ab .,\n\r\té\u3000。😀"  # of one to four bytes each


def lines(text: str) -> str:
    """The text with the line ends that reading gives it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def one_sentence(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


def hidden(folder: Path) -> list[str]:
    """What a call left in the folder besides files with ordinary names."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 50)
    monkeypatch.setattr(pieces, "WINDOW", 20)


# --- the file


def test_ids_and_tokenizer_come_back(tmp_path, text):
    (tmp_path / "corpus.txt").write_text(text)
    tokenizer = CharTokenizer.from_text(text, unknown="<unk>")
    path = token_file.write(
        tmp_path / "new" / "corpus.safetensors", tmp_path / "corpus.txt", tokenizer
    )
    assert path == tmp_path / "new" / "corpus.safetensors"
    ids, back = token_file.load(path)
    assert type(ids) is torch.Tensor
    assert (ids.dtype, ids.shape) == (torch.uint16, (len(text),))
    assert ids.long().equal(tokenizer.encode(text))
    assert (type(back), back.tokens, back.unknown) == (CharTokenizer, tokenizer.tokens, "<unk>")
    assert back.decode(ids) == text
    assert hidden(path.parent) == []


@pytest.mark.parametrize(("size", "dtype"), [(65_536, torch.uint16), (65_537, torch.uint32)])
def test_a_large_vocabulary_takes_wider_ids(tmp_path, size, dtype):
    tokenizer = WordTokenizer([str(i) for i in range(size - 1)] + [" "], unknown=None)
    path = token_file.write(tmp_path / "t", ["0 65534 17"], tokenizer)
    ids, back = token_file.load(path)
    assert ids.dtype == dtype
    assert ids.tolist() == tokenizer.encode("0 65534 17").tolist()
    assert back.vocab_size == size


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_the_safetensors_library_reads_it(tmp_path, n):
    tokenizer = CharTokenizer("ab\ud800é😀")
    path = token_file.write(tmp_path / "t.safetensors", ["b" * n], tokenizer)
    assert safetensors.numpy.load_file(path)["ids"].tolist() == [1] * n
    with safetensors.safe_open(path, "pt") as file:
        assert file.keys() == ["ids"]
        assert file.get_tensor("ids").equal(torch.ones(n, dtype=torch.uint16))
        kept = json.loads(file.metadata()["tokenizer"])
    assert kept["tokens"] == tokenizer.tokens
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    assert (8 + length) % 64 == 0


def test_changing_loaded_ids_changes_no_file(tmp_path):
    path = token_file.write(tmp_path / "t", ["ab"], CharTokenizer("ab"))
    before = path.read_bytes()
    ids, _ = token_file.load(path)
    ids[0] = 1
    assert ids.tolist() == [1, 1]
    assert path.read_bytes() == before
    assert token_file.load(path)[0].tolist() == [0, 1]


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
    ids, _ = token_file.load(path)
    assert modes[-1] == "r"
    assert ids.tolist() == [0, 1, 1, 0]
    assert not recwarn


def test_neither_writing_nor_loading_nor_training_holds_the_corpus(tmp_path):
    """20 MB of text and 40 MB of ids, in a new process."""
    code = """
import resource, torch
from llmkit import Batches, CharTokenizer, load_text, split
from llmkit.scale import token_file

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000

def memory(kind):
    return int(open("/proc/self/status").read().split(kind + ":")[1].split()[0]) / 1000

text = load_text()
with open("corpus.txt", "w") as file:
    for _ in range(20_000_000 // len(text)):
        file.write(text)
tokenizer = CharTokenizer.from_text(text)
token_file.write("warm", [text] * 9, tokenizer, workers=1)
before = peak()
token_file.write("corpus", "corpus.txt", tokenizer, workers=1)
print(peak() - before)
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
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    written, loaded, used, own = map(float, done.stdout.split())
    assert written < 16
    assert loaded < 4
    assert used < 20  # of 40 rows each brings its neighbourhood of 64 KB, which the system maps
    assert own < 4


# --- where a text may be cut


@settings(deadline=None)
@given(
    text=st.text(ALPHABET, min_size=1, max_size=80),
    size=st.integers(1, 9),
    window=st.integers(1, 9),
    words=st.booleans(),
    mark=st.booleans(),
)
@example(text="a\r\nb", size=1, window=1, words=False, mark=False)
@example(text="ab \r\n\r\n  ab", size=1, window=2, words=True, mark=True)
def test_the_tokens_of_the_pieces_are_those_of_the_whole_file(
    tmp_path_factory, text, size, window, words, mark
):
    path = tmp_path_factory.getbasetemp() / "whole.txt"
    path.write_bytes(b"\xef\xbb\xbf" * mark + text.encode())
    tokenizer = (WordTokenizer if words else CharTokenizer).from_text(lines(text), unknown=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE", size)
        patch.setattr(pieces, "WINDOW", window)
        made = token_file.write(path.with_name("whole.ids"), path, tokenizer)
    ids, _ = token_file.load(made)
    assert ids.tolist() == tokenizer.encode(lines(text)).tolist()


def test_a_file_is_cut_small(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 10_000)
    text = "Wörter, Wörter,\r\n" * 20_000
    (tmp_path / "t.txt").write_bytes(text.encode())
    for tokenizer in (CharTokenizer.from_text(lines(text)), WordTokenizer.from_text(lines(text))):
        file = pieces.TextFile(tmp_path / "t.txt", tokenizer, np.dtype("<u2"))
        cuts = [piece for _, piece in file.pieces({"done": 0})]
        sizes = [end - start for start, end in cuts]
        assert min(sizes[:-1]) >= 10_000
        assert max(sizes) < 10_000 + 4_200
        assert [0, *(end for _, end in cuts)] == [*(start for start, _ in cuts), file.total]


def test_a_text_without_a_place_to_cut_is_one_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 10)
    (tmp_path / "t.txt").write_text("a" * 50_000)
    tokenizer = WordTokenizer(["a" * 50_000], unknown=None)
    assert token_file.load(token_file.write(tmp_path / "t", tmp_path / "t.txt", tokenizer))[
        0
    ].tolist() == [0]


# --- documents


@settings(deadline=None)
@given(
    documents=st.lists(st.text("ab .\n\ud800\ud83d\ude00", max_size=12), min_size=1, max_size=12),
    separator=st.sampled_from(["\n\n", "", " ", "ab", "<|>"]),
    size=st.integers(1, 9),
    words=st.booleans(),
)
@example(documents=["a"] * 3, separator="", size=100, words=True)
def test_documents_are_tokenized_each_by_itself(
    tmp_path_factory, documents, separator, size, words
):
    kind = WordTokenizer if words else CharTokenizer
    tokenizer = kind.from_text("\n".join(["ab .<|> aa bb ba", separator, *documents]), None)
    expected = tokenizer.encode(documents[0]).tolist()
    for document in documents[1:]:
        expected += tokenizer.encode(separator).tolist() + tokenizer.encode(document).tolist()
    path = tmp_path_factory.getbasetemp() / "documents.ids"
    if expected:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pieces, "PIECE", size)
            token_file.write(path, iter(documents), tokenizer, separator=separator)
        assert token_file.load(path)[0].tolist() == expected


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
def test_datasets_in_memory_and_streaming(tmp_path, small_pieces, source, column):
    source = source()
    documents = [row[column] for row in source]
    tokenizer = CharTokenizer.from_text("".join(documents) + "\n")
    done = steps(tmp_path / "t", source, tokenizer, column=column)
    ids, back = token_file.load(tmp_path / "t")
    assert back.decode(ids) == "\n\n".join(documents)
    assert len(documents) == 250
    total = 250 if isinstance(source, datasets.Dataset) else None
    assert done[-1] == (250, total)
    assert len(done) > 50
    assert [n for n, _ in done] == sorted(n for n, _ in done)


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


# --- what cannot be tokenized


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", r"t\.txt is empty"),
        (b"\xef\xbb\xbf", r"t\.txt is empty"),
        (
            b"good line\n" * 30 + b"b\xffd\n",
            r"t\.txt is not UTF-8 but perhaps .*, as byte 301 .* 0xff",
        ),
        (
            b"good line\n" * 30 + b"b\0d\n",
            r"t\.txt is not UTF-8 but perhaps binary, as byte 301 .* 0x00",
        ),
        ("good line\n".encode("utf-16"), r"perhaps utf-16, as byte 0 .* 0xff"),
        (
            "\ufeff".encode() + b"good line\r\n" * 30 + b"\nb?d\n" * 30,
            r"character '\?' \(U\+003F\) at position 302 \(line 32\) is not",
        ),
    ],
)
def test_a_file_that_is_not_the_tokenizers_text(tmp_path, small_pieces, raw, message, workers):
    (tmp_path / "t.txt").write_bytes(raw)
    (tmp_path / "t").write_bytes(b"an older file")
    with pytest.raises(ValueError, match=message) as caught:
        token_file.write(
            tmp_path / "t", tmp_path / "t.txt", CharTokenizer("\n bdegilno"), workers=workers
        )
    one_sentence(caught)
    assert (tmp_path / "t").read_bytes() == b"an older file"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    "tokenizer", [CharTokenizer("ab \n"), WordTokenizer(["ab", " ", "\n"], None)]
)
def test_a_document_that_is_not_the_tokenizers_text(tmp_path, small_pieces, tokenizer):
    documents = ["ab ab"] * 29 + ["ab " * 100 + "\nab ?"]
    expected = r"document 29 \(from 0\): .*'\?'.* at position 304 \(line 2\) is not"
    with pytest.raises(ValueError, match=expected) as caught:
        token_file.write(tmp_path / "t", documents, tokenizer)
    one_sentence(caught)
    with pytest.raises(ValueError, match=r"separator 'x': .*, or choose another"):
        token_file.write(tmp_path / "t", documents, tokenizer, separator="x")
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
    assert list(tmp_path.iterdir()) == []


def test_workers_and_targets_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match=r"workers must be 1 or more, or None .* not 0"):
        token_file.write(tmp_path / "t", ["a"], CharTokenizer("ab"), workers=0)
    with pytest.raises(IsADirectoryError, match="is a folder; name a file in it"):
        token_file.write(tmp_path, ["a"], CharTokenizer("ab"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be written \(.*\); free some space or choose"):
        token_file.write(tmp_path / "file" / "t", ["a"], CharTokenizer("ab"))


# --- files that are no token files


def whole_file(tmp_path: Path) -> Path:
    return token_file.write(tmp_path / "whole", ["ab" * 50], CharTokenizer("ab"))


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, -1])
def test_a_file_cut_short_is_refused(tmp_path, keep):
    path = whole_file(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        ValueError, match=r"whole (is not a token file|is not as long as)"
    ) as caught:
        token_file.load(path)
    one_sentence(caught)


def test_a_file_grown_longer_is_refused(tmp_path):
    path = whole_file(tmp_path)
    path.write_bytes(path.read_bytes() + b"a")
    with pytest.raises(ValueError, match="is not as long as it was when written"):
        token_file.load(path)


@pytest.mark.parametrize(
    "content", [b"Some text. " * 99, b"{}", bytes(999), b"\xff" * 999, b"PK\3\4" * 99]
)
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(ValueError, match="is not a token file") as caught:
        token_file.load(tmp_path / "t")
    one_sentence(caught)


def test_other_safetensors_and_newer_formats_are_refused(tmp_path):
    other = {"ids": np.zeros(3, np.uint16)}
    for metadata in (None, {"format": "pt"}):
        safetensors.numpy.save_file(other, tmp_path / "t", metadata)
        with pytest.raises(ValueError, match="is not a token file"):
            token_file.load(tmp_path / "t")
    safetensors.numpy.save_file(other, tmp_path / "t", {"format": "llmkit tokens 2"})
    with pytest.raises(ValueError, match="is from a newer llmkit: upgrade llmkit"):
        token_file.load(tmp_path / "t")


def test_a_missing_file_is_told_and_an_unfinished_one_too(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no token file .*/t; write makes one"):
        token_file.load(tmp_path / "t")
    (tmp_path / ".t.unfinished").touch()
    with pytest.raises(FileNotFoundError, match="the call of write that makes it was interrupted"):
        token_file.load(tmp_path / "t")


# --- interrupted, killed, and going on


def steps(target: Path, source, tokenizer, **options) -> list[tuple[int, int | None]]:
    """Call write; what it tells of its progress."""
    told = []
    token_file.write(target, source, tokenizer, progress=lambda *step: told.append(step), **options)
    return told


class Stopped(Exception):
    pass


def interrupt(target: Path, source, tokenizer, after: int, **options) -> None:
    """Call write, and stop it after so many pieces."""
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) == after:
            raise Stopped

    with pytest.raises(Stopped):
        token_file.write(target, source, tokenizer, progress=stop, **options)
    assert not target.exists()
    assert hidden(target.parent) == [f".{target.name}.journal", f".{target.name}.unfinished"]


@pytest.fixture
def corpus(tmp_path, text) -> Path:
    """A file of many pieces, with characters of several bytes, and lines that end in CRLF."""
    path = tmp_path / "corpus.txt"
    path.write_bytes("".join(f"{i} é {text}" for i in range(400)).replace("\n", "\r\n").encode())
    return path


def tokenizer_of(path: Path) -> CharTokenizer:
    return CharTokenizer.from_text(lines(path.read_bytes().decode()))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", ["file", "documents"])
def test_an_interrupted_call_goes_on_and_makes_the_same_file(
    tmp_path, small_pieces, corpus, kind, workers
):
    tokenizer, documents = tokenizer_of(corpus), lines(corpus.read_bytes().decode()).split("\n")

    def source():
        return corpus if kind == "file" else iter(documents)

    whole = token_file.write(tmp_path / "whole", source(), tokenizer)
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "t"
    interrupt(target, source(), tokenizer, after=30, workers=workers)
    interrupt(target, source(), tokenizer, after=50, workers=workers)
    left = steps(target, source(), tokenizer, workers=workers)
    assert target.read_bytes() == whole.read_bytes()
    assert hidden(target.parent) == []
    assert len(steps(target, source(), tokenizer)) == 30 + 50 + len(left)  # nothing done twice


def test_what_the_journal_does_not_know_is_made_again(tmp_path, small_pieces, corpus):
    tokenizer = tokenizer_of(corpus)
    whole = token_file.write(tmp_path / "whole", corpus, tokenizer).read_bytes()
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "t"
    interrupt(target, corpus, tokenizer, after=30)
    with open(target.with_name(".t.unfinished"), "ab") as file:  # written, but not yet journaled
        file.write(b"half a piece")
    token_file.write(target, corpus, tokenizer)
    assert target.read_bytes() == whole


@pytest.mark.parametrize("lost", [".t.journal", ".t.unfinished"])
def test_without_one_of_the_two_it_starts_anew(tmp_path, small_pieces, corpus, lost):
    tokenizer = tokenizer_of(corpus)
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "t"
    interrupt(target, corpus, tokenizer, after=30)
    target.with_name(lost).unlink()
    token_file.write(target, ["abc"], CharTokenizer("abc"))
    assert token_file.load(target)[0].tolist() == [0, 1, 2]
    assert hidden(target.parent) == []


def test_another_source_or_tokenizer_is_refused_and_nothing_lost(tmp_path, small_pieces, corpus):
    tokenizer = tokenizer_of(corpus)
    documents = lines(corpus.read_bytes().decode()).split("\n")
    changed = tmp_path / "changed.txt"
    changed.write_bytes(corpus.read_bytes())
    for source, others in (
        (corpus, [(changed, tokenizer), (corpus, CharTokenizer(tokenizer.characters[::-1]))]),
        (
            documents,
            [
                (documents[:5], tokenizer),
                (["x", *documents], tokenizer),
                (documents, CharTokenizer(tokenizer.characters[::-1])),
                (corpus, tokenizer),
            ],
        ),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        interrupt(folder / "t", source, tokenizer, after=30)
        for other, its_tokenizer in others:
            expected = r"\.t\.unfinished is unfinished and of other input;"
            with pytest.raises(ValueError, match=expected) as caught:
                token_file.write(folder / "t", other, its_tokenizer)
            one_sentence(caught)
        left = len(steps(folder / "t", source, tokenizer))
        assert len(steps(folder / "t", source, tokenizer)) == left + 30
    interrupt(folder / "u", documents, tokenizer, after=3, separator=" ")
    with pytest.raises(ValueError, match="of other input"):
        token_file.write(folder / "u", documents, tokenizer)


KILLED = """
import os, signal, sys, time
from llmkit import CharTokenizer
from llmkit.scale import pieces, resumable, token_file
pieces.PIECE, resumable.JOURNAL_EVERY = 2000, 0.0
tokenizer = CharTokenizer.from_text(open("corpus.txt").read())

def slowly(done, total):
    print(done, flush=True)
    time.sleep(0.01)

token_file.write("t", "corpus.txt", tokenizer, workers={workers}, progress=slowly)
"""  # without an `if __name__ == "__main__"`: a script may do without


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_process_loses_next_to_nothing_and_leaves_no_others(
    tmp_path, corpus, workers, small_pieces
):
    (tmp_path / "script.py").write_text(KILLED.format(workers=workers))
    for reported in (5, 6)[: 3 - workers]:
        with subprocess.Popen(
            [sys.executable, "script.py"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            done = [int(process.stdout.readline()) for _ in range(reported)]
            process.kill()
        assert json.loads((tmp_path / ".t.journal").read_text())["state"]["done"] >= done[-1]
        for _ in range(200):  # its workers end of themselves
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.05)
        else:
            pytest.fail("a worker outlived its parent")
    tokenizer = tokenizer_of(corpus)
    assert steps(tmp_path / "t", corpus, tokenizer)[0][0] > done[-1]  # of pieces of 50 bytes
    whole = token_file.write(tmp_path / "whole", corpus, tokenizer)
    assert (tmp_path / "t").read_bytes() == whole.read_bytes()
    assert hidden(tmp_path) == []


def test_a_full_disk_loses_nothing(tmp_path, corpus):
    """The system refuses a process files of more than 60,000 bytes, then no more."""
    (tmp_path / "t").write_bytes(b"an older file")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
    code = KILLED.format(workers=1).replace("token_file.write", limit + "token_file.write")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "OSError: t cannot be written (File too large); free some space" in done.stderr
    assert (tmp_path / "t").read_bytes() == b"an older file"
    tokenizer = tokenizer_of(corpus)
    assert steps(tmp_path / "t", corpus, tokenizer)[0][0] > 20_000
    whole = token_file.write(tmp_path / "whole", corpus, tokenizer)
    assert (tmp_path / "t").read_bytes() == whole.read_bytes()


def test_two_processes_do_not_write_the_same_file(tmp_path):
    tokenizer = CharTokenizer("ab")

    def documents():
        yield "ab"
        with pytest.raises(RuntimeError, match=r"another process is writing .*/t; wait for it"):
            token_file.write(tmp_path / "t", ["b"], tokenizer)

    token_file.write(tmp_path / "t", documents(), tokenizer)
    assert token_file.load(tmp_path / "t")[0].tolist() == [0, 1]


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
