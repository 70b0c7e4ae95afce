"""A run's folder: one training at a time writes to it, and none replaces an earlier one unasked.

checkpoint/    the model, its tokenizer; while the run is not over, the state to go on from
loss.png, report.json    what a finished run leaves
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from llmkit import checkpoint
from llmkit.folders import previous, read_header
from llmkit.model import GPT
from llmkit.train_config import TrainConfig


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Inside the ``with`` the folder, made where there is none, is this process's alone; ValueError
    where it is another's. A process that is killed leaves it free."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(
            f"another training writes to {out}: wait for its end, or choose another --out"
        ) from None
    for leftover in out.glob(".*.json.saving-*"):  # of a run that was killed while it reported
        leftover.unlink()
    try:
        yield
    finally:
        lock.release()


def make_room(out: Path, overwrite: bool) -> None:
    """Let a new run begin in the folder; ValueError where one is there that is not to be lost."""
    report, curve, saved = out / "report.json", out / "loss.png", out / "checkpoint"
    has_one = _has_checkpoint(out)  # ValueError for a folder of that name which is somebody else's
    if not (report.exists() or has_one):
        return
    if not overwrite:
        was = "a finished run" if report.exists() else "a run that --resume goes on with"
        raise ValueError(f"{out} holds {was}: give --overwrite to lose it, or choose another --out")
    report.unlink(missing_ok=True)
    curve.unlink(missing_ok=True)
    shutil.rmtree(saved, ignore_errors=True)
    shutil.rmtree(previous(saved), ignore_errors=True)  # killed between two renames


def go_on(
    out: Path, device: torch.device, steps: int | None = None, seed: int | None = None
) -> tuple[GPT, Any, TrainConfig, dict[str, Any]]:
    """Model, tokenizer, settings and state of the run in the folder, which goes on as it began.

    steps, seed: what is asked for, if anything. ValueError where the run has others, where nothing
    is to be done or nothing to go on from.
    """
    if not _has_checkpoint(out):
        raise ValueError(f"there is no checkpoint in {out} yet: start without --resume")
    model, tokenizer = checkpoint.load(out / "checkpoint", device=device)
    state = checkpoint.load_state(out / "checkpoint")
    if state is None:
        raise ValueError(f"the run in {out} is finished: there is nothing to resume")
    try:
        config = TrainConfig(**state["config"])
    except (KeyError, TypeError):
        raise ValueError(
            f"the run in {out} is another version's: begin anew, in another --out"
        ) from None
    for name, wanted in (("steps", steps), ("seed", seed)):
        if wanted not in (None, had := getattr(config, name)):
            raise ValueError(f"the run in {out} has {name} {had}, not {wanted}: leave --{name} out")
    return model, tokenizer, config, state


def _has_checkpoint(out: Path) -> bool:
    try:
        read_header(out / "checkpoint", checkpoint.CHECKPOINT)
    except FileNotFoundError:
        return False
    return True
