"""`llmkit.finetune.manual` and `quiet`: the texts and the library behind notebook 11."""

import logging
import subprocess
import sys
from pydoc_data.topics import topics

from llmkit.finetune.manual import python_manual


def test_each_topic_is_in_one_part():
    train, held_out = python_manual()
    for text in topics.values():
        assert (text in train) != (text in held_out)
    assert 0.02 < len(held_out) / len(train) < 0.3


def test_transformers_is_imported_in_silence():
    """In a process of its own, where nothing has imported it yet."""
    code = (
        "import logging\n"
        "from llmkit.finetune.quiet import import_transformers\n"
        "transformers = import_transformers()\n"
        "transformers.Trainer, transformers.AutoModelForCausalLM\n"
        "logging.getLogger('mine').warning('is heard')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "is heard\n")
    assert logging.root.manager.disable == 0
