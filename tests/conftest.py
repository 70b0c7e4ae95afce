"""What every test starts from: one thread, the CPU, the embedded corpus, and one short text."""

import os

import pytest
from build import ONE_THREAD

# Before anything imports torch, which reads them once; what a test starts inherits them.
for name, value in (ONE_THREAD | {"LLMKIT_DEVICE": "cpu", "LLMKIT_CORPUS": "embedded"}).items():
    os.environ.setdefault(name, value)

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
