"""What every test starts from: one thread, the CPU, the embedded corpus, and one short text; and
which files come first."""

import os
import signal
import threading

import pytest
from build import ONE_THREAD

# Before anything imports torch, which reads them once; what a test starts inherits them.
for name, value in (ONE_THREAD | {"LLMKIT_DEVICE": "cpu", "LLMKIT_CORPUS": "embedded"}).items():
    os.environ.setdefault(name, value)

# What a shell starts in its background is told to ignore Ctrl-C, and hands that on to its children:
# the tests of interrupts, and the programs that they start, would wait for it in vain.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

TEXT = """MILLER:
The wheel is turning, and the river sings;
Who hears it, sir, may sleep on any bed.

CARTER:
And who is paid for hearing? Not my horse!

MILLER:
Thy horse had oats; thy horse is well content.
"""


@pytest.fixture
def text() -> str:
    return TEXT


LONG = ("test_gpu_branches.py", "test_token_file.py", "test_training.py", "test_types.py")


def pytest_collection_modifyitems(items):
    """Each file goes whole to one of two processes: long ones that would come late come first, or
    one process would wait at the end for the other."""
    items.sort(key=lambda item: item.path.name not in LONG)
