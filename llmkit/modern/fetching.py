"""What is fetched once and kept in the user's cache folder: where it is, a bar while a package
manager brings it, its checksum, and that it is there as a whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm.auto import tqdm


def place(name: str) -> Path:
    """Where something of this name is kept, or would be: a folder in the user's cache directory."""
    base = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return Path(base or Path.home() / ".cache") / "llmkit" / name


def bring(
    command: Sequence[str], folder: Path, name: str, total: int, environment: Mapping[str, str]
) -> list[str] | None:
    """Run a package manager that downloads into the folder, beside a bar of how much has arrived.

    name, total: what the bar says, and the bytes that it waits for. environment: in addition to
    this process's own. Returns None if it went well, or else the lines that it complained with.
    """
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(folder, name, total, ended))
    watch.start()
    try:
        environment = os.environ | dict(environment)
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    finally:
        ended.set()
        watch.join()
    if done.returncode == 0:
        return None
    return [line.strip() for line in done.stderr.splitlines() if line.strip()]


def check_sum(content: bytes, name: str, sha256: str) -> None:
    """ValueError unless the content is the one that is known."""
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(
            f"{name} has the checksum {found}, not {sha256}: it was damaged or replaced on its "
            "way, so fetch it again"
        )


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder to fill in the ``with``, which becomes `folder` at its end: what is there can be
    read."""
    fresh = folder.with_name(f".{folder.name}.saving-{os.getpid()}")
    try:
        yield fresh
        fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _watch(folder: Path, name: str, total: int, ended: threading.Event) -> None:
    """The bar: it shows the largest file in the folder."""
    with tqdm(total=total, unit="B", unit_scale=True, desc=f"fetching {name}") as bar:
        while not ended.wait(0.2):
            bar.update(min(total, max(_sizes(folder), default=0)) - bar.n)


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        try:
            yield path.stat().st_size
        except FileNotFoundError:  # moved to where it belongs
            continue
