"""Files that are written as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A file to write in the ``with``, which at its end takes the place of the one at `path`.

    Yields a temporary path in the same folder, which must exist. A program that is killed at any
    moment leaves the old file or the new one, each of them whole; so does an error, which also
    removes the temporary file. A link stays a link: the file that it leads to is replaced.
    """
    target = Path(path).expanduser().resolve()
    fresh = target.with_name(f".{target.name}.saving-{os.getpid()}")
    try:
        yield fresh
        with open(fresh, "rb+") as file:  # after a power cut the name must not lead to no content
            os.fsync(file.fileno())
        os.replace(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)
