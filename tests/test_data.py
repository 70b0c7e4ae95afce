import dataclasses
import hashlib
import http.server
import io
import lzma
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit import data
from llmkit.data import Batches, check_ids, load_text, split

TINY_SHAKESPEARE = (
    "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # 65 of them
)
BOOK = "*** START OF THE PROJECT GUTENBERG EBOOK JULIUS CAESAR ***"
BOOK_END = "*** END OF THE PROJECT GUTENBERG EBOOK JULIUS CAESAR ***"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- a web server with every bad habit, and a cache of its own


class Pages:
    """What the test server answers: `body` and how, by the first part of the address."""

    def __init__(self, address: str):
        self.address, self.body, self.requests = address, b"Two lines\nof text.\n", Counter()
        self.done = threading.Event()

    def url(self, path: str) -> str:
        return self.address + path


@pytest.fixture
def web(monkeypatch, tmp_path):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, code: int = 200, length: int = 0, **headers: str):
            self.send_response(code)
            self.send_header("Content-Length", str(length))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def do_HEAD(self):
            self.do_GET(body=False)

        def do_GET(self, body=True):
            habit, content = self.path.split("/")[1], pages.body
            pages.requests["GET " + habit if body else "HEAD " + habit] += 1
            if habit in ("404", "500"):
                return self.answer(int(habit))
            if habit == "silent":
                pages.done.wait(20)
                self.close_connection = True
                return None
            if habit == "redirect":
                return self.answer(302, Location="/plain")
            if habit == "headless" and not body:
                return self.answer(501)
            self.answer(200, len(content))
            if body and habit in ("half", "stalled"):
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                if habit == "stalled":
                    pages.done.wait(20)
                self.close_connection = True
            elif body:
                self.wfile.write(content)
            return None

        def log_message(self, *args):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args):  # a client that has heard enough hangs up
            pass

    server = Server(("127.0.0.1", 0), Handler)
    pages = Pages(f"http://127.0.0.1:{server.server_port}/")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    yield pages
    pages.done.set()
    server.shutdown()
    server.server_close()
    thread.join()


def left_behind(tmp_path: Path) -> list[Path]:
    """What a download left in the places for temporary files and for the cache of `datasets`."""
    return [*(tmp_path / "temporary").iterdir(), *(tmp_path / "cache").rglob("*")]


def one_sentence(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


# --- the named corpora


def test_every_corpus_has_a_line_about_it():
    assert list(data.corpora()) == ["embedded", "tiny_shakespeare", "julius_caesar"]
    assert all(about and "\n" not in about for about in data.corpora().values())


def test_the_embedded_play_has_the_characters_and_the_form_of_tiny_shakespeare():
    text = load_text()
    assert text == load_text("embedded")
    assert "".join(sorted(set(text))) == TINY_SHAKESPEARE
    assert len(text) >= 120_000
    speeches = text.strip().split("\n\n")
    assert len(speeches) > 500
    for speech in speeches:
        name, *lines = speech.split("\n")
        assert name.endswith(":"), speech
        assert lines, speech
        assert all(lines), speech


def test_the_embedded_play_is_prose_not_filler():
    raw = load_text().encode()
    packed = lzma.compress(raw, preset=9)
    assert 0.33 < len(packed) / len(raw) < 0.45


def test_the_embedded_play_needs_neither_folder_nor_network(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMKIT_DATA", str(tmp_path))
    monkeypatch.setattr(data, "_download", None)
    play = Path(data.__file__).parents[1] / "data" / "embedded.txt"
    assert load_text() == play.read_text(encoding="utf-8")


def test_an_installed_llmkit_finds_the_play_in_its_own_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("LLMKIT_DATA", raising=False)
    monkeypatch.setattr(data, "__file__", str(tmp_path / "llmkit" / "data.py"))
    with pytest.raises(FileNotFoundError, match=r"embedded\.txt"):
        load_text()
    (tmp_path / "llmkit" / "_data").mkdir(parents=True)
    (tmp_path / "llmkit" / "_data" / "embedded.txt").write_text("A wheel's own copy.\n")
    assert load_text() == "A wheel's own copy.\n"


@pytest.fixture
def downloads() -> Path:
    folder = Path(os.environ.get("LLMKIT_DATA", ""))
    if not (os.environ.get("LLMKIT_DATA") and (folder / "tiny_shakespeare.txt").is_file()):
        pytest.skip("LLMKIT_DATA does not name a folder with the downloaded corpora")
    return folder


def test_tiny_shakespeare_itself(downloads):
    text = load_text("tiny_shakespeare")
    assert len(text) == 1_115_394
    assert "".join(sorted(set(text))) == TINY_SHAKESPEARE
    assert text.startswith("First Citizen:\nBefore we proceed")
    train, validation = split(text)
    assert (len(train), len(validation)) == (1_003_854, 111_540)


def test_julius_caesar_itself(downloads):
    text = load_text("julius_caesar")
    assert text.startswith("THE TRAGEDY OF\nJULIUS CAESAR\n")
    assert text.endswith("To part the glories of this happy day.\n\n[_Exeunt._]\n")
    assert 110_000 < len(text) < 125_000
    assert not {"\r", "\ufeff"} & set(text)
    assert "Gutenberg" not in text
    assert "***" not in text


def test_the_embedded_play_is_not_shakespeares(downloads):
    names = ("tiny_shakespeare", "julius_caesar")
    theirs = {text[i : i + 40] for text in map(load_text, names) for i in range(len(text) - 39)}
    ours = load_text()
    assert [ours[i : i + 40] for i in range(len(ours) - 39) if ours[i : i + 40] in theirs] == []


@pytest.fixture
def corpus(monkeypatch, web):
    """Give a corpus that is fetched our test server as its home, and what that has as its text."""
    monkeypatch.delenv("LLMKIT_DATA", raising=False)

    def make(text: str = "Speak, speak.\n", path: str = "plain", name: str = "tiny_shakespeare"):
        web.body = text.encode()
        known = dataclasses.replace(data.CORPORA[name], url=web.url(path))
        if known.sha256:
            known = dataclasses.replace(known, sha256=sha256(text))
        monkeypatch.setitem(data.CORPORA, name, known)
        return text

    return make


def test_a_corpus_is_downloaded_and_checked(corpus, web, tmp_path):
    text = corpus()
    assert load_text("tiny_shakespeare") == text
    assert left_behind(tmp_path) == []
    web.body = b"Speak, speek.\n"
    with pytest.raises(ValueError, match=r"not the right text \(SHA-256 differs\)") as caught:
        load_text("tiny_shakespeare")
    assert web.url("plain") in one_sentence(caught)


def test_a_book_is_downloaded_without_its_licence(corpus):
    corpus(f"Licence\r\n{BOOK}\r\n\r\nACT I\r\n{BOOK_END}\r\n", name="julius_caesar")
    assert load_text("julius_caesar") == "ACT I\n"


def test_a_local_copy_is_taken_first_and_checked_too(corpus, web, monkeypatch, tmp_path):
    text = corpus()
    copy = tmp_path / "tiny_shakespeare.txt"
    copy.write_text(text)
    monkeypatch.setenv("LLMKIT_DATA", str(tmp_path))
    assert load_text("tiny_shakespeare") == text
    assert not web.requests
    copy.write_text(text[:-3])
    with pytest.raises(ValueError, match=r"not the right text \(SHA-256 differs\)") as caught:
        load_text("tiny_shakespeare")
    assert str(copy) in one_sentence(caught)
    assert web.url("plain") in str(caught.value)
    assert not web.requests


def test_a_folder_without_the_copy_is_passed_over(corpus, monkeypatch, tmp_path):
    text = corpus()
    monkeypatch.setenv("LLMKIT_DATA", str(tmp_path / "nothing here"))
    assert load_text("tiny_shakespeare") == text


@pytest.fixture
def book(monkeypatch, tmp_path):
    def make(raw: bytes) -> str:
        (tmp_path / "pg1522_julius_caesar.txt").write_bytes(raw)
        monkeypatch.setenv("LLMKIT_DATA", str(tmp_path))
        return load_text("julius_caesar")

    return make


def test_julius_caesar_loses_everything_around_the_play(book):
    raw = f"\ufeffLicence\n{BOOK}\n\n\nACT I\n\n  Enter all.\n\n\n{BOOK_END}\nMore licence\n"
    assert book(raw.replace("\n", "\r\n").encode()) == "ACT I\n\n  Enter all.\n"


@pytest.mark.parametrize("raw", [f"{BOOK}\nACT I\n", f"ACT I\n{BOOK_END}\n", "Please log in.\n"])
def test_julius_caesar_without_its_marks_is_refused(book, raw):
    with pytest.raises(ValueError, match=r"lacks .* START or END line") as caught:
        book(raw.encode())
    one_sentence(caught)


# --- any address


def test_a_page_is_read_like_a_file_with_bom_and_line_ends_mended(web, tmp_path):
    web.body = "\ufeffÀ la fin\r\nréussi 😀\rtrois\n".encode()
    (tmp_path / "page.txt").write_bytes(web.body)
    assert load_text(web.url("plain")) == "À la fin\nréussi 😀\ntrois\n"
    assert load_text(tmp_path / "page.txt") == load_text(web.url("plain"))


@pytest.mark.parametrize("path", ["headless", "redirect", "a b/é*[1].txt?x=1&y=[2]"])
def test_pages_of_awkward_servers_and_names(web, path):
    assert load_text(web.url(path)) == "Two lines\nof text.\n"


def test_a_changed_page_is_fetched_anew(web):
    first = load_text(web.url("plain"))
    web.body = b"Something new.\n"
    assert load_text(web.url("plain")) == "Something new.\n" != first


@pytest.mark.parametrize("code", [404, 500])
def test_a_page_that_is_not_there_is_one_sentence(web, code, tmp_path):
    with pytest.raises(ConnectionError, match=rf"fetch .*/{code} \(HTTP Error {code}.*address"):
        load_text(web.url(str(code)))
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("path", ["half", "stalled"])
def test_an_interrupted_download_leaves_nothing_and_a_later_one_succeeds(
    corpus, web, monkeypatch, tmp_path, path, capfd
):
    monkeypatch.setattr(data, "PATIENCE", 0.4)
    text = corpus("A long text. " * 10_000, path=path)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"cannot fetch .*the path of a copy") as caught:
        load_text("tiny_shakespeare")
    one_sentence(caught)
    assert time.monotonic() - start < 5
    assert left_behind(tmp_path) == []
    assert capfd.readouterr() == ("", "")
    corpus(text)
    assert load_text("tiny_shakespeare") == text


def test_a_reader_may_interrupt_a_download(web, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "PATIENCE", 10)

    def interrupt():
        while not web.requests["GET stalled"]:
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C and a notebook's stop button do

    thread = threading.Thread(target=interrupt)
    thread.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        load_text(web.url("stalled"))
    thread.join()
    assert time.monotonic() - start < 5
    assert left_behind(tmp_path) == []


# --- no network


def test_the_patience_leaves_room_within_five_seconds():
    assert data.PATIENCE <= 4.5


def test_a_server_that_never_answers_is_given_up(web, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "PATIENCE", 0.4)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"\((TimeoutError|.*timed out)\)") as caught:
        load_text(web.url("silent"))
    assert time.monotonic() - start < 1.5
    one_sentence(caught)
    assert left_behind(tmp_path) == []


def test_a_look_up_that_never_ends_is_given_up(web, monkeypatch):
    monkeypatch.setattr(data, "PATIENCE", 0.4)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: web.done.wait(20))
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"\(TimeoutError\)"):
        load_text("http://example.invalid/text.txt")
    assert time.monotonic() - start < 1.5


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/text.txt", "http://", "https://exa mple/é"])
def test_nobody_there_is_one_sentence(url, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ConnectionError, match=r"cannot fetch http.*give the path") as caught:
        load_text(url)
    one_sentence(caught)


def test_without_network_a_corpus_is_one_sentence(monkeypatch):
    def no_network(*args, **kwargs):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.delenv("LLMKIT_DATA", raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    expected = r"cannot fetch https://raw.*name resolution\); check .* network, or give the path"
    with pytest.raises(ConnectionError, match=expected) as caught:
        load_text("tiny_shakespeare")
    one_sentence(caught)


def test_in_a_fresh_process_downloads_print_nothing(web, tmp_path):
    """Imports, progress bars, log lines and what happens at exit, all as a notebook has them."""
    code = f"""
from llmkit.data import load_text
assert load_text({web.url("plain")!r}) == "Two lines\\nof text.\\n"
for path in ("404", "half"):
    try:
        load_text({web.url("")!r} + path)
    except OSError:
        pass
import datasets
assert not datasets.are_progress_bars_disabled()
assert datasets.logging.get_verbosity() == datasets.logging.WARNING
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- files


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Path:
    (tmp_path / "notes.txt").write_text("One note.\n")
    (tmp_path / "novel.txt").write_text("One novel.\n")
    (tmp_path / "embedded").write_text("A file of that name.\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names_paths_and_what_is_both(folder, monkeypatch):
    assert load_text("notes.txt") == load_text(folder / "notes.txt") == "One note.\n"
    assert load_text("./embedded") == load_text(Path("embedded")) == "A file of that name.\n"
    assert load_text("embedded") != "A file of that name.\n"
    monkeypatch.setenv("HOME", str(folder))
    assert load_text("~/novel.txt") == "One novel.\n"


def test_a_missing_file_names_the_closest_match_in_its_folder(folder):
    for name in ("nots.txt", folder / "nots.txt", "./nots.txt"):
        expected = r"no file '.*nots\.txt'; the corpora: .*; did you mean 'notes\.txt'\?"
        with pytest.raises(FileNotFoundError, match=expected) as caught:
            load_text(name)
        one_sentence(caught)
    for name in ("qqqq.zz", "elsewhere/qqqq.zz"):
        with pytest.raises(FileNotFoundError, match=rf"no file '{name}'.*julius_caesar$"):
            load_text(name)


@pytest.mark.parametrize(
    ("name", "guess"),
    [("shakespeare", "tiny_shakespeare"), ("julius", "julius_caesar"), ("zz", "")],
)
def test_an_unknown_name_lists_the_known_and_suggests_the_closest(name, guess):
    expected = f"no file '{name}'; the corpora: embedded, tiny_shakespeare, julius_caesar"
    with pytest.raises(FileNotFoundError, match=expected) as caught:
        load_text(name)
    assert one_sentence(caught).endswith(f"; did you mean {guess!r}?" if guess else "caesar")


def test_a_name_that_is_itself_the_text_is_not_repeated_in_full():
    for text in ("To be or not to be " * 500, "To be/or not\n" * 500):
        with pytest.raises(FileNotFoundError, match="no file 'To be") as caught:
            load_text(text)
        assert len(one_sentence(caught)) < 200


def test_a_folder_and_other_things_are_refused(folder):
    os.mkfifo(folder / "pipe")
    for path in (folder, folder / "pipe", "/dev/zero"):  # the last two without an end
        with pytest.raises(ValueError, match=f"{path}: this is a") as caught:
            load_text(path)
        one_sentence(caught)
    with pytest.raises(TypeError, match="name must be a corpus, an address or a path, not None"):
        load_text(None)


@pytest.mark.parametrize("raw", [b"", b"\xef\xbb\xbf", b" \r\n\t\n"])
def test_an_empty_file_is_told(tmp_path, raw):
    (tmp_path / "a.txt").write_bytes(raw)
    with pytest.raises(ValueError, match=r"a\.txt is empty") as caught:
        load_text(tmp_path / "a.txt")
    one_sentence(caught)


GERMAN = "Der Käufer über die Straße: schön, daß es grün ist."


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        (GERMAN.encode("utf-16"), "utf-16"),
        (b"\xfe\xff" + GERMAN.encode("utf-16-be"), "utf-16"),
        (GERMAN.encode("utf-32"), "utf-32"),
        (GERMAN.encode("utf-16-le"), "utf-16-le"),
        (GERMAN.encode("utf-16-be"), "utf-16-be"),
        (GERMAN.encode("latin-1"), "latin-1"),
        ("“Schön”, sagte er – für 3 €.".encode("cp1252"), "cp1252"),
    ],
)
def test_other_encodings_are_named_with_the_line_that_converts_them(tmp_path, raw, encoding):
    file, copy = tmp_path / "file.txt", tmp_path / "copy.txt"
    file.write_bytes(raw)
    with pytest.raises(ValueError, match=f"not UTF-8 but probably {encoding};") as caught:
        load_text(file)
    advice = one_sentence(caught).split("with ")[1]
    exec(advice, {"Path": Path, "file": file, "copy": copy})  # the advice works as it stands
    assert load_text(copy) == raw.decode(encoding).replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Дом стоит у реки.", "cp1251"),
        ("Дом стоит у реки.", "koi8-r"),
        ("Το σπίτι είναι κοντά.", "cp1253"),
        ("家は川のそばにあります。", "shift-jis"),
        ("房子在河边很漂亮。", "gb18030"),
    ],
)
def test_no_guess_is_made_of_the_encoding_of_another_alphabet(tmp_path, text, encoding):
    """Read as cp1252, as the advice would have it, it would be nonsense without any error."""
    (tmp_path / "a.txt").write_text(text, encoding)
    with pytest.raises(ValueError, match="not UTF-8 nor a Western encoding; find out") as caught:
        load_text(tmp_path / "a.txt")
    one_sentence(caught)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0\0\0\1\0\x08\6\0\0\0\\r\xa8f",
        lzma.compress(b"some text " * 100),
        bytes(range(256)) * 4,
        torch.arange(300, dtype=torch.float32).numpy().tobytes(),
        b"plain\0text",
    ],
)
def test_a_binary_file_is_told(tmp_path, raw):
    (tmp_path / "a.bin").write_bytes(raw)
    with pytest.raises(ValueError, match=r"a\.bin is a binary file") as caught:
        load_text(tmp_path / "a.bin")
    one_sentence(caught)


def test_a_page_in_another_encoding_is_told_like_a_file(web):
    web.body = GERMAN.encode("utf-16")
    with pytest.raises(ValueError, match="/plain is not UTF-8 but probably utf-16;"):
        load_text(web.url("plain"))


# --- split


def test_split_cuts_once_and_loses_nothing():
    ids = torch.arange(1005)
    train, validation = split(ids)
    assert (len(train), len(validation)) == (904, 101)
    assert torch.cat([train, validation]).equal(ids)
    assert split("abcdefghij", 0.3) == ("abcdefg", "hij")
    assert split(list(range(4)), val_fraction=0.5) == ([0, 1], [2, 3])


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, 1e-17, 0.999])
def test_split_refuses_an_empty_side(fraction):
    with pytest.raises(ValueError, match=f"{fraction} of the 10 ids leaves one side empty"):
        split(torch.arange(10), fraction)


def test_split_refuses_what_cannot_be_cut():
    for ids in (torch.arange(0), torch.arange(1), "a"):
        with pytest.raises(ValueError, match="leaves one side empty"):
            split(ids, 0.5)


# --- ids


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.uint32])
def test_checked_ids_are_not_copied(dtype):
    ids = torch.arange(50).to(dtype)
    assert check_ids(ids, 50, at_least=50) is ids
    with pytest.raises(ValueError, match=r"id 49 in ids is outside the vocabulary \(size 49\)"):
        check_ids(ids, 49)


@pytest.mark.parametrize("place", [0, 6, 7, 8, 49])
@pytest.mark.parametrize("wrong", [-1, 100])
def test_a_wrong_id_is_found_in_every_piece(monkeypatch, place, wrong):
    monkeypatch.setattr(data, "PIECE", 7)
    ids = torch.arange(50)
    ids[place] = wrong
    with pytest.raises(ValueError, match=f"id {wrong} in prompt is outside the vocabulary"):
        check_ids(ids, 100, name="prompt")


def test_ids_are_checked_in_little_memory(monkeypatch):
    monkeypatch.setattr(data, "PIECE", 1000)
    sizes = []

    class Watching(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function is torch.Tensor.long:
                sizes.append(len(result))
            return result

    with Watching():
        check_ids(torch.zeros(4500, dtype=torch.uint16), 3)
    assert sum(sizes) == 4500
    assert max(sizes) == 1000


def test_what_is_no_row_of_ids_is_told():
    with pytest.raises(ValueError, match=r"ids must be one sequence of 2 or more ids, not \(1,\)"):
        check_ids(torch.tensor([0]), 3, at_least=2)
    with pytest.raises(ValueError, match=r"x must be one sequence of 0 .* not \(1, 1\)"):
        check_ids(torch.tensor([[0]]), 3, name="x")
    with pytest.raises(
        ValueError, match=r"whole numbers in .* not a tensor \(\d+,\) of torch\.float32"
    ):
        check_ids(torch.tensor([0.0]), 3)
    assert check_ids([2, 0], 3).tolist() == [2, 0]
    assert check_ids([], 3).dtype == torch.int64
    with pytest.raises(ValueError, match="id -1"):
        check_ids(torch.tensor([-1]), math.inf)


# --- batches


@settings(deadline=None)
@given(
    block_size=st.integers(1, 9),
    extra=st.integers(1, 30),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 2**40),
)
def test_every_row_is_a_window_of_the_data_and_y_is_one_further(
    block_size, extra, batch_size, seed
):
    ids = torch.randperm(block_size + extra)  # distinct, so that a window tells where it is from
    x, y = next(Batches(ids, block_size, batch_size, seed))
    assert x.shape == y.shape == (batch_size, block_size)
    assert x.dtype == y.dtype == torch.int64
    assert x.is_contiguous()
    assert y.is_contiguous()
    windows = {tuple(window) for window in ids.unfold(0, block_size + 1, 1).tolist()}
    for row, shifted in zip(x.tolist(), y.tolist(), strict=True):
        assert (*row, shifted[-1]) in windows
        assert row[1:] == shifted[:-1]


@settings(deadline=None, max_examples=25)
@given(block_size=st.integers(1, 6), starts=st.integers(1, 12))
def test_every_window_comes_first_and_last_included_and_about_as_often(block_size, starts):
    ids = torch.arange(block_size + starts)
    x, _ = next(Batches(ids, block_size, batch_size=400 * starts, seed=starts))
    counts = torch.bincount(x[:, 0], minlength=starts)
    assert len(counts) == starts
    assert counts.min() > 300  # 400 expected, standard deviation 20
    assert counts.max() < 500


def test_batches_come_from_their_own_seed():
    ids = torch.arange(500)

    def take(seed, n=3):
        batches = Batches(ids, 8, 4, seed=seed)
        torch.rand(seed + 1)  # what others draw makes no difference
        return torch.stack([torch.stack(next(batches)) for _ in range(n)])

    state = torch.get_rng_state()
    Batches(ids, 8, 4).__next__()
    assert torch.get_rng_state().equal(state)
    assert take(5).equal(take(5))
    assert not take(5).equal(take(6))
    assert len(take(5)[:, 0, :, 0].unique()) > 6  # not one batch over and over


def test_batches_are_an_endless_iterator():
    batches = Batches(torch.arange(9), 4, 2)
    assert iter(batches) is batches
    assert len([x for (x, _), _ in zip(batches, range(50), strict=False)]) == 50


@settings(deadline=None)
@given(before=st.integers(0, 5), after=st.integers(1, 5))
def test_a_restored_state_continues_with_the_very_next_batch(before, after):
    ids = torch.arange(300)
    batches = Batches(ids, 7, 3, seed=1)
    for _ in range(before):
        next(batches)
    buffer = io.BytesIO()
    torch.save(batches.state_dict(), buffer)
    expected = [torch.stack(next(batches)) for _ in range(after)]
    other = Batches(ids, 7, 3, seed=99)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert all(torch.stack(next(other)).equal(batch) for batch in expected)


def test_the_state_is_tensors_only_and_does_not_move_on():
    batches = Batches(torch.arange(30), 4, 2)
    state = batches.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    copies = {name: value.clone() for name, value in state.items()}
    next(batches)
    assert all(state[name].equal(copies[name]) for name in state)


def test_one_gather_and_no_loop_over_rows():
    class Counting(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            calls[getattr(function, "__name__", str(function))] += 1
            return function(*args, **(kwargs or {}))

    calls, batches = Counter(), Batches(torch.arange(1000), 16, 64)
    with Counting():
        next(batches)
    assert calls["index_select"] == 1
    assert calls.total() < 15


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32])
def test_smaller_integers_become_int64(dtype):
    x, y = next(Batches(torch.arange(20).to(dtype), 4, 2))
    assert x.dtype == y.dtype == torch.int64
    assert (y - x).unique().tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32])
def test_ids_of_a_token_file_stay_as_they_are_and_batches_are_the_same(dtype):
    ids = torch.randperm(1000)
    narrow = ids.to(dtype)
    batches, expected = Batches(narrow, 7, 5, seed=2), Batches(ids, 7, 5, seed=2)
    assert batches.windows.data_ptr() == narrow.data_ptr()
    for _ in range(3):
        (x, y), (x_wide, y_wide) = next(batches), next(expected)
        assert x.dtype == y.dtype == torch.int64
        assert x.is_contiguous()
        assert y.is_contiguous()
        assert x.equal(x_wide)
        assert y.equal(y_wide)
    x, _ = next(Batches(narrow, 7, 5, device=torch.device("meta")))
    assert x.device.type == "meta"


def test_batches_are_today_what_they_were():
    """Drawn as in version 0.1.0: saved runs go on with the same batches."""
    x, y = next(Batches(torch.arange(100), 3, 4, seed=1337))
    starts = torch.randint(97, (4,), generator=torch.Generator().manual_seed(1337))
    assert x.equal(starts[:, None] + torch.arange(3))
    assert y.equal(x + 1)


@settings(deadline=None, max_examples=30)
@given(world=st.integers(1, 4), batch_size=st.integers(1, 4), n=st.integers(1, 3))
def test_several_processes_share_the_batch_of_one(world, batch_size, n):
    ids = torch.arange(200)
    alone = Batches(ids, 5, world * batch_size, seed=4)
    several = [Batches(ids, 5, batch_size, seed=4, rank=r, world=world) for r in range(world)]
    for _ in range(n):
        x, y = next(alone)
        parts = [next(batches) for batches in several]
        assert torch.cat([part for part, _ in parts]).equal(x)
        assert torch.cat([part for _, part in parts]).equal(y)
    for batches in several:
        batches.load_state_dict(alone.state_dict())
    assert torch.cat([next(batches)[0] for batches in several]).equal(next(alone)[0])


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 1), (0, 0)])
def test_a_rank_outside_its_world_is_refused(rank, world):
    with pytest.raises(ValueError, match=r"rank must be|world must be"):
        Batches(torch.arange(9), 2, 2, rank=rank, world=world)


def test_batches_go_to_the_device_asked_for():
    assert (
        Batches(torch.arange(20), 4, 2, device=torch.device("meta")).windows.device.type == "meta"
    )  # once
    x, y = next(Batches(torch.arange(20), 4, 2, device="cpu"))
    assert x.device == y.device == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gets_the_same_batches():
    here, there = (Batches(torch.arange(90), 4, 2, seed=3, device=d) for d in ("cpu", "cuda"))
    for _ in range(3):
        (x, y), (x_gpu, y_gpu) = next(here), next(there)
        assert x_gpu.device.type == y_gpu.device.type == "cuda"
        assert x_gpu.cpu().equal(x)
        assert y_gpu.cpu().equal(y)


def test_data_of_just_one_window_is_enough():
    x, y = next(Batches(torch.arange(5), 4, 3))
    assert x.tolist() == [[0, 1, 2, 3]] * 3
    assert y.tolist() == [[1, 2, 3, 4]] * 3


@pytest.mark.parametrize("n", [0, 1, 8])
def test_data_shorter_than_a_window_is_refused_with_the_numbers(n):
    with pytest.raises(ValueError, match=f"block_size 8: {n} ids allow 1 to {n - 1};"):
        Batches(torch.arange(n), block_size=8, batch_size=2)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.rand(50), r"not a tensor \(50,\) of torch\.float32"),
        (torch.zeros(5, 10, dtype=torch.int64), r"not \(5, 10\)"),
        (torch.tensor(3), r"not \(\)"),
    ],
)
def test_batches_refuse_what_is_not_a_row_of_ids(ids, message):
    with pytest.raises(ValueError, match=message):
        Batches(ids, 4, 2)


@pytest.mark.parametrize("block_size", [0, -1])
def test_a_block_size_below_one_is_refused(block_size):
    with pytest.raises(ValueError, match=f"block_size {block_size}: 9 ids allow 1 to 8"):
        Batches(torch.arange(9), block_size, 1)


def test_a_tenth_of_ten_is_one():
    """In floating point, (1 - 0.9) * 10 is a little less."""
    assert split(range(10), 0.9) == (range(1), range(1, 10))
    assert [len(part) for part in split(range(1_115_394))] == [1_003_854, 111_540]


def test_batches_take_lists_and_arrays():
    expected = next(Batches(torch.arange(50), 4, 2))
    for ids in (list(range(50)), np.arange(50, dtype=np.uint16)):
        torch.testing.assert_close(next(Batches(ids, 4, 2)), expected, check_dtype=False)
    with pytest.raises(ValueError, match=r"ids must be token ids.*tokenizer\.encode"):
        Batches("some text", 4, 2)


def test_an_address_that_is_none_is_told_in_a_sentence():
    with pytest.raises(ConnectionError, match=r"cannot fetch http://\[ .*check address"):
        load_text("http://[")
