"""Text in, batches out: the corpora, any file or address, `split` and `Batches`.

Turning text into ids comes between the two and lives in `tokenizer`.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
import tempfile
import threading
import urllib.parse
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import TypeVar

import torch

Data = TypeVar("Data", torch.Tensor, str, list)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64)
PATIENCE = 4.0  # seconds without a byte, after which we call the network absent


@dataclass(frozen=True)
class Corpus:
    """A text that `load_text` knows by name; in the folder LLMKIT_DATA it is called `file`."""

    about: str
    file: str
    url: str = ""
    sha256: str = ""  # empty where the publisher goes on correcting the text
    gutenberg: bool = False  # the text stands between Project Gutenberg's START and END lines


CORPORA = {
    "embedded": Corpus("a play written for this project; needs no network", "embedded.txt"),
    "tiny_shakespeare": Corpus(
        "scenes from Shakespeare's plays, 1.1 million characters",
        "tiny_shakespeare.txt",
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "julius_caesar": Corpus(
        "one whole play by Shakespeare, from Project Gutenberg",
        "pg1522_julius_caesar.txt",
        "https://www.gutenberg.org/cache/epub/1522/pg1522.txt",
        gutenberg=True,
    ),
}


def corpora() -> dict[str, str]:
    """The names that `load_text` knows, each with a line about its text."""
    return {name: corpus.about for name, corpus in CORPORA.items()}


def load_text(name: str | Path = "embedded") -> str:
    r"""The text of a corpus, a file or an address; every line ends in "\n".

    name: one of `corpora()`, else an http(s) URL, else the path of a file ("./embedded" is a file
    where "embedded" is a corpus); all UTF-8. Where the environment variable LLMKIT_DATA names a
    folder, a corpus is looked for there first. Downloads go through `datasets` into its cache. A
    corpus whose text is fixed is compared with its SHA-256, wherever it came from.

    Raises FileNotFoundError for no such file or page, ConnectionError for no network (within 5
    seconds) or a broken download, ValueError for an unknown name or bytes that are not the text.
    """
    if not isinstance(name, str | Path):
        raise TypeError(f"load_text takes a name, a path or a URL, not {type(name).__name__}")
    if name in CORPORA:
        return _load_corpus(CORPORA[name])
    if re.match("https?://", str(name), re.IGNORECASE):
        return _decode(_download(str(name), "give load_text the path of a copy"), str(name))
    return _decode(_read(name), str(name))


def _load_corpus(corpus: Corpus) -> str:
    here = Path(__file__).parent
    folders = [here / "_data", here.parent / "data"]  # of an installed llmkit, of its repository
    if corpus.url:
        folders = [Path(f).expanduser() for f in [os.environ.get("LLMKIT_DATA")] if f]
    copy = next((f / corpus.file for f in folders if (f / corpus.file).is_file()), None)
    if not (copy or corpus.url):
        raise FileNotFoundError(f"llmkit has lost its {corpus.file}; install llmkit again")
    advice = f"put a copy named {corpus.file} into a folder and name that folder in LLMKIT_DATA"
    raw = copy.read_bytes() if copy else _download(corpus.url, advice)
    where = str(copy or corpus.url)
    if corpus.sha256 and hashlib.sha256(raw).hexdigest() != corpus.sha256:
        advice = f"replace it by {corpus.url}" if copy else f"try again later, or {advice}"
        raise ValueError(f"{where} is not the expected text (its SHA-256 differs); {advice}")
    text = _decode(raw, where)
    return strip_gutenberg(text, where) if corpus.gutenberg else text


def strip_gutenberg(text: str, where: str = "the text") -> str:
    """What stands between Project Gutenberg's START and END lines: the book without the licence."""
    mark = r"^\*\*\* ?{} OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.*$"
    start, end = (re.search(mark.format(word), text, re.MULTILINE) for word in ("START", "END"))
    if not (start and end):
        raise ValueError(f"{where} lacks Project Gutenberg's START or END line; fetch it again")
    return text[start.end() : end.start()].strip() + "\n"


def _read(name: str | Path) -> bytes:
    """The bytes of a file, or an error that guesses which name was meant."""
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder; give the path of a file in it")
    if os.path.isfile(path):
        return Path(path).read_bytes()
    folder, last = os.path.split(path)
    bare = isinstance(name, str) and not folder and "." not in name  # then a corpus was meant
    if not bare and not os.path.isdir(folder or "."):
        raise FileNotFoundError(f"there is no folder {folder}, so no file {path}")
    near = difflib.get_close_matches(last, CORPORA if bare else os.listdir(folder or "."), 1, 0.4)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    if not bare:
        raise FileNotFoundError(f"there is no file {path}{guess}")
    asked = " (from LLMKIT_CORPUS)" if name == os.environ.get("LLMKIT_CORPUS") else ""
    shown = repr(name if len(name) < 80 else name[:80] + "…") + asked
    raise ValueError(f"there is no corpus or file {shown}; known: {', '.join(CORPORA)}{guess}")


def _download(url: str, advice: str) -> bytes:
    r"""The bytes at `url`, line ends as "\n", fetched by `datasets`; a failure leaves nothing."""
    url = urllib.parse.quote(url, safe="%/:?&=#+~@!$,;'()")  # * and [ would ask for several files
    headers = _probe(url, advice)
    import aiohttp  # these two take a second to import: not before there is something to fetch
    import datasets

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE, sock_read=PATIENCE)
    options = {scheme: {"client_kwargs": {"timeout": timeout}} for scheme in ("http", "https")}
    with tempfile.TemporaryDirectory() as folder, _silence(datasets):
        config = datasets.DownloadConfig(folder, max_retries=0, storage_options=options)
        # Without an ETag `datasets` cannot see that a page has changed since it cached the text.
        mode = "reuse_dataset_if_exists" if "ETag" in headers else "reuse_cache_if_exists"
        how = {"split": "train", "download_config": config, "download_mode": mode}
        # As Latin-1 every byte is a character, so that the bytes come back whatever they are.
        how |= {"sample_by": "document", "encoding": "latin-1"}
        try:
            return datasets.load_dataset("text", data_files=url, **how)[0]["text"].encode("latin-1")
        except Exception as error:
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise ConnectionError(
                f"{url} broke off and nothing of it was kept ({reason}); try again, or {advice}"
            ) from None


def _probe(url: str, advice: str) -> Message:
    """The headers of the page at `url`, or an error that says why not, within PATIENCE seconds.

    `datasets` calls every failure "Unable to find" and may take minutes over it. The thread is for
    looking up the host's name, on which Python sets no time limit.
    """
    outcome = [TimeoutError(f"no answer for {PATIENCE:g} seconds")]

    def ask() -> None:
        request = urllib.request.Request(url, headers={"User-Agent": "llmkit"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as page:
                outcome.append(page.headers)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if isinstance(outcome[-1], Message):
        return outcome[-1]
    code = getattr(outcome[-1], "code", None)
    if code in (404, 410):
        raise FileNotFoundError(f"there is no page {url} (HTTP {code}); check the address")
    reason = str(outcome[-1]).strip("<>").removeprefix("urlopen error ")
    raise ConnectionError(f"cannot fetch {url} ({reason}); check the network, or {advice}")


@contextlib.contextmanager
def _silence(datasets):
    """No progress bars and log lines from `datasets`, which a notebook would store as text."""
    bars, level = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()


def _decode(raw: bytes, where: str) -> str:
    """UTF-8 `raw` as text, without a byte-order mark; ValueError says what else it may be."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = None
    if text is None or "\0" in text:
        encoding = _guess_encoding(raw)
        if encoding == "binary":
            raise ValueError(f"{where} is a binary file; load_text takes text in UTF-8")
        raise ValueError(
            f"{where} is not UTF-8 but probably {encoding}; make a copy that is, with Path(copy)"
            f".write_text(Path(file).read_text('{encoding}'), 'utf-8')"
        )
    if not text.strip():
        raise ValueError(f"{where} is empty; load_text takes a file with text in it")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _guess_encoding(raw: bytes) -> str:
    """The likely encoding of bytes that are not UTF-8, or "binary"."""
    if raw.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    even, odd = raw[::2].count(0), raw[1::2].count(0)  # UTF-16 has a 0 beside each ASCII character
    if max(even, odd) > max(len(raw) // 8, 20 * min(even, odd)):
        return "utf-16-le" if odd > even else "utf-16-be"
    if re.search(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]", raw):  # control characters that no text has
        return "binary"
    return "cp1252" if re.search(rb"[\x80-\x9f]", raw) else "latin-1"


def split(ids: Data, val_fraction: float = 0.1) -> tuple[Data, Data]:
    """`ids` (N,) cut in two: the first int((1 - val_fraction) * N) to train on, the rest to test.

    ids: a tensor, a str or a list. One cut, no shuffling: shuffled, a held-out character would have
    its neighbours in the training part. Raises ValueError where a side would be empty.
    """
    n_train = int((1 - val_fraction) * len(ids)) if 0 < val_fraction < 1 else 0
    if not 0 < n_train < len(ids):
        raise ValueError(
            f"val_fraction {val_fraction} of {len(ids)} tokens leaves one side empty; take a "
            "fraction between 0 and 1, and enough text"
        )
    return ids[:n_train], ids[n_train:]


class Batches:
    """Training batches without end: random windows x of the data, and y, one token further on.

    ids: integers (N,), N > block_size. Each batch is x, y, both (batch_size, block_size) int64,
    contiguous, on `device` (None: where ids is). Every window is equally likely; which ones come is
    drawn on the CPU from a generator of its own, so that a seed gives the same batches everywhere.
    """

    def __init__(
        self,
        ids: torch.Tensor,
        block_size: int,
        batch_size: int,
        seed: int = 0,
        device: str | torch.device | None = None,
    ):
        if not isinstance(ids, torch.Tensor):
            raise TypeError(f"Batches takes a tensor of ids, not {type(ids).__name__}")
        if ids.ndim != 1 or ids.dtype not in INTEGERS:
            raise ValueError(f"Batches takes integers (N,), not {ids.dtype} {tuple(ids.shape)}")
        if block_size < 1 or batch_size < 1:
            raise ValueError(
                f"block_size {block_size} and batch_size {batch_size} must be 1 or more"
            )
        if len(ids) <= block_size:
            raise ValueError(
                f"{len(ids)} tokens are too few for block_size {block_size}, which takes at least "
                f"{block_size + 1}; use more text or a smaller block_size"
            )
        self.ids = ids.to(device, torch.int64)
        self.block_size, self.batch_size = block_size, batch_size
        self._generator = torch.Generator().manual_seed(seed)
        steps = torch.arange(block_size, device=self.ids.device)
        self._steps = torch.stack([steps, steps + 1])[:, None]  # (2, 1, T): x's places, and y's

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        last = len(self.ids) - self.block_size  # the first start that would leave y a token short
        starts = torch.randint(last, (self.batch_size, 1), generator=self._generator)  # (B, 1)
        x, y = self.ids[self._steps + starts.to(self.ids.device)]  # (2, B, T)
        return x, y

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Where the generator stands, for `load_state_dict` to go on with the very next batch."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue where `state_dict` was taken (with the same ids, block_size and batch_size)."""
        self._generator.set_state(state["generator"].cpu())
