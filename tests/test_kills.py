"""A training killed at any moment, again and again, ends bit for bit as one that never was.

Slow: `pytest -m slow tests/test_kills.py`. Each run is a process of its own, forked from this one
(which has imported all and computed nothing), and killed at a random moment by SIGKILL, which no
program can hear; then the same command with --resume, until the run is over.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from llmkit.__main__ import main
from llmkit.commands import recipe

pytestmark = pytest.mark.slow

KILLS, KILLS_OF_TWO = 200, 20
TEXT = "MARA:\nThe river keeps no ledger of the rain,\nAnd so must I.\n\nTOM:\nThen who pays?\n\n"
STEPS = 40


def train(folder, words, log):
    """The command, with a small model that is saved every four steps; the exit status."""
    for model in recipe.MODELS.values():
        model |= dict(block_size=16, n_layer=1, n_head=2, n_embd=16, dropout=0.1)
    for run in recipe.RUNS.values():
        run["batch_size"] = 8
    # Of several processes whichever is first tells of an error, so each has a log of its own.
    log = log.with_name(f"log{os.environ.get('RANK', 0)}")
    sys.stdout = sys.stderr = open(log, "w", buffering=1)  # noqa: SIM115 - until the process ends
    text = folder.parent / "poem.txt"
    return main(["train", "--text", str(text), "--steps", str(STEPS), "--out", str(folder), *words])


def fork(folder, words, log):
    if pid := os.fork():
        return pid
    try:
        os._exit(train(folder, words, log))
    finally:
        os._exit(99)


def torchrun(folder, words, log):
    """Two processes that share the work."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    job = subprocess.Popen(
        [*command, __file__, str(folder), str(log), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return job.pid


def kill(pid):
    """A process and all that it has started, at once."""
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        process.kill()
    os.waitpid(pid, 0)


def status_of(pid, deadline):
    """The exit status, or None once the deadline has passed."""
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None


def left_by(folder):
    """What a finished run is known by, but for the seconds that it took."""
    report = json.loads((folder / "report.json").read_text())
    del report["train_seconds"]
    return report, (folder / "checkpoint/model.safetensors").read_bytes()


def kill_until_over(start, folder, log, seconds, draw):
    """Start, kill at a random moment, resume, ... until the run is over. Returns the kills."""
    words, kills = [], 0
    while True:
        pid = start(folder, words, log)
        status = status_of(pid, time.monotonic() + draw.uniform(0, 1.5 * seconds))
        if status is None:
            kill(pid)
            kills, words = kills + 1, ["--resume"]
            continue
        said = "".join(path.read_text() for path in folder.parent.glob("log?"))
        if status == 0 or "is finished: there is nothing to resume" in said:
            return kills
        # Killed before the first checkpoint, which is the only other thing that it may say.
        assert "start without --resume" in said, said
        words = []


@pytest.mark.parametrize(("start", "wanted"), [(fork, KILLS), (torchrun, KILLS_OF_TWO)])
def test_every_killed_run_ends_as_one_that_was_not(tmp_path, start, wanted):
    (tmp_path / "poem.txt").write_text(TEXT * 40)
    log, draw = tmp_path / "log", random.Random(0)
    started = time.monotonic()
    assert status_of(start(tmp_path / "whole", [], log), started + 120) == 0
    seconds, expected = time.monotonic() - started, left_by(tmp_path / "whole")
    kills = runs = 0
    while kills < wanted:
        folder = tmp_path / f"run{runs}"
        kills += kill_until_over(start, folder, log, seconds, draw)
        runs += 1
        assert left_by(folder) == expected
        leftovers = {path.name for path in folder.iterdir()}
        assert leftovers == {".lock", "checkpoint", "loss.png", "report.json"}
    print(f"{kills} kills, {runs} runs, all alike")


if __name__ == "__main__":
    sys.exit(train(Path(sys.argv[1]), sys.argv[3:], Path(sys.argv[2])))
