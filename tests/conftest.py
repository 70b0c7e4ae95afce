"""What every test starts from: the CPU, the embedded corpus, and one short text."""

import os

import pytest

os.environ.setdefault("LLMKIT_DEVICE", "cpu")
os.environ.setdefault("LLMKIT_CORPUS", "embedded")

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
