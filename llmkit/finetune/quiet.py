"""transformers, without what it tells of GPU libraries and without its progress bars."""

from __future__ import annotations

import logging
from types import ModuleType


def import_transformers() -> ModuleType:
    """The library *transformers*, imported in silence: what it and the libraries that it loads have
    to say about GPU parts that are not there helps nobody who is reading a notebook.

    ImportError where it is not installed.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import transformers
        from transformers import AutoModelForCausalLM, Trainer  # noqa: F401 - loaded on demand
    finally:
        logging.disable(before)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers
