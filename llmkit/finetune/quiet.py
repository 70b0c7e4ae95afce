"""Libraries imported without what they tell of GPU parts, and without their progress bars."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def quietly() -> Iterator[None]:
    """Inside it no library logs a warning: what one that is being imported has to say about GPU
    parts that are not there helps nobody who is reading a notebook."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def import_transformers() -> ModuleType:
    """The library *transformers*, imported in silence. ImportError where it is not installed."""
    with quietly():
        import transformers
        from transformers import AutoModelForCausalLM, Trainer  # noqa: F401 - loaded on demand
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers
