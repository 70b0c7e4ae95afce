import os
import signal
import sys
import time
from types import ModuleType

import pytest

from llmkit.scale import parallel


class Job:
    """Pieces that become files of their own number of digits: 0, 11, 222, ..."""

    def __init__(self, path, fails_at=None):
        self.path, self.fails_at = path, fails_at
        path.touch()

    def make(self, n):
        if n == self.fails_at:
            raise ZeroDivisionError(f"piece {n}")
        time.sleep(0.002 * (n % 3))  # they are not done in the order in which they begin
        return str(n % 10).encode() * (n % 7), (n, os.getpid())

    def store(self, data, place):
        with open(self.path, "r+b") as file:
            file.seek(place)
            file.write(data)


def expected(n: int) -> bytes:
    return b"".join(str(i % 10).encode() * (i % 7) for i in range(n))


@pytest.mark.parametrize("workers", [1, 2, 3, None])
def test_pieces_are_stored_one_behind_the_other(monkeypatch, tmp_path, workers):
    monkeypatch.setattr(parallel, "PATIENCE", 0.02)
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    taken = []
    pieces = ((taken.append(n) or f"piece {n}", n) for n in range(200))
    job = Job(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"head")
    results = parallel.in_order(job, pieces, workers, place=4)
    first = next(results)
    assert len(taken) <= 8  # few are held
    results = [first, *results]
    assert [label for label, *_ in results] == [f"piece {n}" for n in range(200)]
    assert [size for _, size, _ in results] == [n % 7 for n in range(200)]
    assert [n for *_, (n, _) in results] == list(range(200))
    pids = {pid for *_, (_, pid) in results}
    assert (os.getpid() in pids) == (workers in (1, None))
    assert len(pids) >= (1 if workers == 1 else 2)
    assert (tmp_path / "file").read_bytes() == b"head" + expected(200)


def test_work_of_less_than_a_second_is_done_here(tmp_path):
    results = parallel.in_order(Job(tmp_path / "file"), [(n, n) for n in range(50)])
    assert {pid for *_, (_, pid) in results} == {os.getpid()}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_is_raised_here_after_the_pieces_before_it(tmp_path, workers):
    job, done = Job(tmp_path / "file", fails_at=31), []
    with pytest.raises(ZeroDivisionError, match="piece 31"):
        done.extend(  # extend keeps what came before the error
            label for label, *_ in parallel.in_order(job, ((n, n) for n in range(99)), workers)
        )
    assert done == list(range(31))
    assert (tmp_path / "file").read_bytes() == expected(31)


class Environment(Job):
    def make(self, n):
        main = sys.modules["__main__"].__name__
        return b"", (os.getpid(), signal.getsignal(signal.SIGINT), main)


def test_workers_are_others_without_our_script_and_heed_no_interrupt(monkeypatch, tmp_path):
    main = ModuleType("__main__")
    main.__file__ = str(tmp_path / "script.py")
    (tmp_path / "script.py").write_text("")
    monkeypatch.setitem(sys.modules, "__main__", main)
    job = Environment(tmp_path / "file")
    for _, _, reply in parallel.in_order(job, [(0, 0), (1, 1)], workers=2):
        pid, handler, main_module = reply
        assert pid != os.getpid()
        assert handler == signal.SIG_IGN
        assert main_module == "__main__"  # else "__mp_main__", which is our script
    assert sys.modules["__main__"] is main


class Ending(Job):
    def make(self, n):
        if n == 1:
            os._exit(1)
        return b"", n


def test_a_killed_worker_is_told_and_the_others_end(tmp_path):
    message = r"a worker process was killed, perhaps .* workers=1"
    with pytest.raises(RuntimeError, match=message) as caught:
        list(parallel.in_order(Ending(tmp_path / "file"), [(n, n) for n in range(9)], workers=2))
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__
