"""Text in, batches out: the corpora, any file or address, `split`, `check_ids` and `Batches`.

Turning text into ids comes between the two: it lives in `tokenizer`, and in
`scale.token_file` for a corpus larger than memory.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import string
import threading
import urllib.parse
import urllib.request
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from llmkit.arguments import check_number, check_type, shown
from llmkit.files import decode, read_bytes
from llmkit.runtime import find_device, seeded

Data = TypeVar("Data", Tensor, str, list)
PATIENCE = 4.0  # seconds without a byte, after which we call the network absent
WHOLE = {getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)}
PIECE = 1 << 20  # ids that `check_ids` looks at together


@dataclass(frozen=True)
class Corpus:
    """A text that `load_text` knows by name."""

    about: str
    file: str  # what a copy on disk is called
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
    r"""The text of a corpus, a file or an address, all UTF-8; every line ends in "\n".

    name: one of `corpora()`, else an http(s) URL, else a path. A corpus is looked for in the folder
    that the environment variable LLMKIT_DATA names, then in llmkit's own, then at its URL.

    Raises FileNotFoundError for no such file, ConnectionError for no such page (within 5 seconds if
    nobody answers), ValueError for bytes that are not text in UTF-8 or have not the known SHA-256.
    """
    corpus = CORPORA.get(name) if isinstance(name, str) else None
    check_type("name", name, str, os.PathLike, wanted="a corpus, an address or a path")
    where = _locate(corpus) if corpus else os.fspath(name)
    raw = _download(where) if re.match("https?://", where, re.IGNORECASE) else _read(where)
    # Another text under the same name would give other losses than we quote, and say nothing.
    if corpus and corpus.sha256 and hashlib.sha256(raw).hexdigest() != corpus.sha256:
        raise ValueError(f"{where} is not the right text (SHA-256 differs); get {corpus.url} anew")
    text = decode(raw, where)
    if not text.strip():
        raise ValueError(f"{where} is empty; load_text takes a file with text in it")
    return strip_gutenberg(text) if corpus and corpus.gutenberg else text


def strip_gutenberg(text: str) -> str:
    """What stands between Project Gutenberg's START and END lines: the book without the licence."""
    # The licence, pages of it, would be learned along with the play.
    book = re.search(r"^\*\*\* ?START OF.*?\n(.*)^\*\*\* ?END OF", text, re.MULTILINE | re.DOTALL)
    if not book:
        raise ValueError("the text lacks Project Gutenberg's START or END line; get it anew")
    return book[1].strip() + "\n"


def packaged(name: str) -> Path:
    """The path of a file that comes with llmkit, such as "embedded.txt"."""
    here = Path(__file__).parent  # an installed llmkit has _data in it, a repository data beside it
    inside = here / "_data" / name
    return inside if inside.is_file() else here.parent / "data" / name


def _locate(corpus: Corpus) -> str:
    """The path of a copy on this machine, else the URL."""
    copies = [packaged(corpus.file)]
    if folder := os.environ.get("LLMKIT_DATA"):
        copies.insert(0, Path(folder).expanduser() / corpus.file)
    found = next((copy for copy in copies if copy.is_file()), None)
    return str(found or corpus.url or copies[-1])


def _read(name: str) -> bytes:
    """The bytes of a file, or an error that guesses which name was meant."""
    path = os.path.expanduser(name)
    if os.path.exists(path):
        return read_bytes(path)
    folder = os.path.dirname(path) or "."
    known = [*CORPORA, *(os.listdir(folder) if os.path.isdir(folder) else [])]
    near = difflib.get_close_matches(os.path.basename(path)[:80], known, 1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    raise FileNotFoundError(f"no file {name[:120]!r}; the corpora: {', '.join(CORPORA)}{guess}")


def _download(url: str) -> bytes:
    """The bytes at `url`; ConnectionError, within seconds, where nobody sends them."""
    quoted = urllib.parse.quote(url, safe=string.punctuation)  # a space or an ä may stand in it
    opened: Future[Any] = Future()

    def ask() -> None:
        try:  # a request raises too, for what is no address
            request = urllib.request.Request(quoted, headers={"User-Agent": "llmkit"})  # noqa: S310 - http(s)
            opened.set_result(urllib.request.urlopen(request, timeout=PATIENCE))  # noqa: S310 - same
        except Exception as error:
            opened.set_exception(error)

    # In a thread, because Python sets no time limit to looking up the name of a host.
    threading.Thread(target=ask, daemon=True).start()
    try:
        with opened.result(PATIENCE) as answer:
            return answer.read()
    except Exception as error:  # what can go wrong on the way is a long list
        reason = " ".join(str(error).split()).strip("<>")[:150] or type(error).__name__
        raise ConnectionError(
            f"cannot fetch {url} ({reason}); check address and network, or give the path of a copy"
        ) from None


def split(ids: Data, val_fraction: float = 0.1) -> tuple[Data, Data]:
    """`ids` (N,) cut in two: the first int((1 - val_fraction) * N) to train on, the rest to test.

    One cut, no shuffling: shuffled, a held-out character would have its neighbours in the training
    part. Raises ValueError where a side would be empty.
    """
    check_type("ids", ids, Tensor, Sequence, np.ndarray, wanted="a text, or token ids (N,)")
    check_number("val_fraction", val_fraction)
    n_train = int(round((1 - val_fraction) * len(ids), 6))  # (1 - 0.9) * 10 is 0.99999999
    if not 0 < n_train < len(ids):
        raise ValueError(f"val_fraction {val_fraction} of the {len(ids)} ids leaves one side empty")
    return ids[:n_train], ids[n_train:]


def as_tensor(ids: Any, name: str = "ids") -> Tensor:
    """ids as a tensor: of a list, a NumPy array, or one mapped from a file, which is not copied;
    ValueError for what is no table of numbers."""
    try:
        with warnings.catch_warnings():  # of an array that may not be written to; nobody does
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            tensor = torch.as_tensor(ids)
        if not tensor.numel() or tensor.dtype in WHOLE:  # torch.tensor([]) is float32, and fine
            return tensor
    except (TypeError, ValueError, RuntimeError):
        pass
    advice = ": turn it into ids with tokenizer.encode" if isinstance(ids, str) else ""
    raise ValueError(
        f"{name} must be token ids, whole numbers in a tensor, an array or a list, each row as "
        f"long as the others, not {shown(ids)}{advice}"
    )


def check_ids(ids: Any, vocab_size: float, at_least: int = 0, name: str = "ids") -> Tensor:
    """ids as a tensor (N,), of the integers it came in; or a ValueError that says why they are not
    at_least tokens of a text. Read in pieces, so that a token file need not fit into memory."""
    ids = as_tensor(ids, name)
    if ids.dim() != 1 or len(ids) < at_least:
        shape = tuple(ids.shape)
        raise ValueError(f"{name} must be one sequence of {at_least} or more ids, not {shape}")
    if not len(ids):
        return ids.long()
    # An id outside the vocabulary makes a GPU fail later, in words that do not tell where.
    ends = (end for piece in ids.split(PIECE) for end in piece.long().aminmax())
    for end in ends:  # of pieces in int64, because PyTorch has no aminmax for uint16
        if not 0 <= end < vocab_size:
            raise ValueError(f"id {end} in {name} is outside the vocabulary (size {vocab_size})")
    return ids


def check_rows(ids: Tensor, name: str = "ids", least: int = 1) -> None:
    """ValueError unless these are rows of ids, (B, T) and at least so many, in a tensor."""
    known = isinstance(ids, Tensor) and ids.dim() == 2 and ids.numel() >= least
    if not known or ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name} must be ids (B, T), a tensor that is not empty, not {shown(ids)}")


def fingerprint(ids: Tensor) -> int:
    """A checksum of a text (N,): of all its ids up to a million, else of parts here and there."""
    # Another text differs nearly everywhere, and a token file of gigabytes would take long to read.
    length, size, parts = len(ids), 2**14, 2**6
    if length > size * parts:
        starts = torch.linspace(0, length - size, parts, dtype=torch.float64).long()
        ids = torch.cat([ids[start : start + size] for start in starts])
    return zlib.crc32(ids.cpu().to(torch.int64).numpy().tobytes(), length)


class Draws:
    """Which of so many rows come next, without end: each as likely, whatever came before.

    Drawn on the CPU from a generator of its own, so that a seed gives the same rows everywhere. Of
    `world` processes with the same seed, each has its own `rank`, 0 to world - 1, and its share of
    the rows that one process alone would draw with world * batch_size.
    """

    def __init__(self, rows: int, batch_size: int, seed: int, rank: int, world: int):
        check_number("batch_size", batch_size, int, least=1)
        check_number("world", world, int, least=1)
        check_number("rank", rank, int, least=0, below=world)
        self.rows, self.batch_size, self.rank, self.world = rows, batch_size, rank, world
        self._generator = seeded(seed)

    def draw(self) -> Tensor:
        """The numbers of the next rows: (B,), on the CPU."""
        # With replacement: windows overlap, so that to see each of them once would mean little.
        drawn = torch.randint(self.rows, (self.world * self.batch_size,), generator=self._generator)
        return drawn[self.rank * self.batch_size :][: self.batch_size]

    def state_dict(self) -> dict[str, Tensor]:
        """Where the generator stands, for `load_state_dict` to go on with the very next batch."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue where `state_dict` was taken (with the same ids, block_size and batch_size)."""
        self._generator.set_state(state["generator"].cpu())


class Batches(Draws):
    """Training batches without end: random windows x of the data, and y, one token further on.

    ids: integers (N,), N > block_size. Each batch is x, y, both (batch_size, block_size) int64,
    contiguous, on `device` (None: where ids is). The data moves there once; uint16 and uint32, in
    which a token file comes, stay where they are, and of them each batch is moved.

    Every window is equally likely; which ones come, `Draws` says.
    """

    def __init__(
        self,
        ids: Tensor,
        block_size: int,
        batch_size: int,
        seed: int = 0,
        device: str | torch.device | None = None,
        rank: int = 0,
        world: int = 1,
    ):
        ids = as_tensor(ids)
        if ids.ndim != 1:
            raise ValueError(f"ids must be one sequence (N,), not {tuple(ids.shape)}")
        check_number("block_size", block_size, int)
        if not 1 <= block_size < len(ids):
            raise ValueError(
                f"block_size {block_size}: {len(ids)} ids allow 1 to {len(ids) - 1}; use more text"
            )
        place = ids.device if device is None else device
        self.device = place if isinstance(place, torch.device) else find_device(place)
        if ids.dtype not in (torch.uint16, torch.uint32):
            ids = ids.to(self.device, torch.int64)
        self.windows = ids.unfold(0, block_size, 1)  # (N - T + 1, T): a view of every window
        # The last window is a y, but no x: no token follows it.
        super().__init__(len(self.windows) - 1, batch_size, seed, rank, world)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        starts = self.draw()  # (B,)
        places = torch.cat([starts, starts + 1]).to(self.windows.device)
        rows = self.windows.index_select(0, places)  # (2B, T); several times as fast as [places]
        if rows.device != self.device and self.device.type == "cuda":
            rows = rows.pin_memory()  # from where the GPU fetches it while the CPU goes on
        # Moved as they are stored, which may take two bytes a token, and only there made eight.
        x, y = rows.to(self.device, non_blocking=True).long().chunk(2)  # (B, T) each
        return x, y
