"""A file that takes long to write: it grows under another name, a crash costs it seconds, and when
it is whole it takes its place at once. What is in it, and what a state means, is for others to say.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

JOURNAL_EVERY = 5.0  # seconds of work that a crash may cost


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of which file it is that the system cannot write, and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error.strerror or error}); free some space or choose "
            "another folder, then call again to go on"
        ) from error


class ResumableFile:
    """A file that an interrupted program, when it is run again, goes on with.

        with ResumableFile(target, job) as file:
            for state, data in work_behind(file.state):
                file.store(target, data, file.size)
                file.advance(len(data), state)
            file.finish()

    target: the file's path. job: what, in JSON, must be as it was for going on to make sense.
    size: the bytes so far. state: how far the work is with them, in JSON; None at the start.

    Beside the file lies a journal of the last size and state of which it is certain that the disk
    has them; what comes behind in the file is cut off and made again.

    Raises ValueError for another job, RuntimeError where another process writes the same file,
    OSError where the system cannot write.
    """

    def __init__(self, target: Path, job: Any):
        self.target, self.job = target, job
        self.path = self.unfinished(target)
        self.journal = target.with_name(f".{target.name}.journal")
        self.size, self.state = 0, None

    @staticmethod
    def unfinished(target: Path) -> Path:
        """The other name."""
        return target.with_name(f".{target.name}.unfinished")

    @staticmethod
    def store(target: Path, data: bytes, place: int) -> None:
        """Write bytes from byte `place` on. This may be done in another process."""
        with writing(target), open(ResumableFile.unfinished(target), "r+b") as file:
            file.seek(place)
            file.write(data)

    def __enter__(self) -> ResumableFile:
        if self.target.is_dir():
            raise IsADirectoryError(f"{self.target} is a folder; name a file in it")
        with writing(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)  # without emptying it
            self._file = os.fdopen(os.open(self.path, flags, 0o666), "r+b")
        try:
            self._lock()
            self._take_up()
        except BaseException:
            self._file.close()
            raise
        self._due = time.monotonic() + JOURNAL_EVERY
        return self

    def advance(self, size: int, state: Any) -> None:
        """Note that as many more bytes are stored, and how far the work is with them."""
        self.size, self.state = self.size + size, state
        if time.monotonic() >= self._due:
            self._save()
            self._due = time.monotonic() + JOURNAL_EVERY

    def finish(self, head: bytes = b"") -> None:
        """Put the file in its place, with other first bytes if these were not known before."""
        self.store(self.target, head, 0)
        with writing(self.target):
            os.fsync(self._file)
            self._file.close()
            os.replace(self.path, self.target)
            self.journal.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leave nothing for a later call."""
        self._file.close()
        self.path.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)

    def other(self) -> ValueError:
        """The error that refuses to go on with another job."""
        return ValueError(
            f"{self.path} is unfinished and of other input; give the same as before, or delete it "
            "to start anew"
        )

    def __exit__(self, *exception: Any) -> None:
        if not self._file.closed:
            with suppress(OSError):  # a full disk has been told of
                self._save()
            with suppress(OSError):
                self._file.close()

    def _take_up(self) -> None:
        """Go back to where the journal says that an interrupted program stood, or to nothing."""
        journal: dict[str, Any] = {"job": self.job, "size": 0, "state": None}
        with suppress(FileNotFoundError, ValueError):
            found = json.loads(self.journal.read_bytes())
            if found["size"] <= self.path.stat().st_size:  # else somebody deleted the file
                journal = found
        if journal["job"] != self.job:
            raise self.other()
        self.size, self.state = journal["size"], journal["state"]
        with writing(self.target):
            self._file.truncate(self.size)

    def _save(self) -> None:
        """Make certain that the disk has all so far, and write so in the journal."""
        fresh = self.journal.with_name(f"{self.journal.name}.new")
        with writing(self.target):
            os.fsync(self._file)
            with open(fresh, "w") as file:
                json.dump({"job": self.job, "size": self.size, "state": self.state}, file)
                file.flush()
                os.fsync(file)
            os.replace(fresh, self.journal)

    def _lock(self) -> None:
        """Keep other processes from the same file, where the system can do so."""
        try:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"another process is writing {self.target}; wait for it") from None
        except (ImportError, OSError):  # Windows, or a file system without locks
            pass
