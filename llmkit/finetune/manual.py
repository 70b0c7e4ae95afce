"""Python's own manual as a text to learn from: English prose that every Python carries with it."""

from __future__ import annotations

from pydoc_data.topics import topics


def python_manual() -> tuple[str, str]:
    """What `help()` knows of the language, about 79 topics and 460,000 characters (they differ from
    one version of Python to the next): the text to train on, and every tenth topic, held out."""
    titles = sorted(topics)
    train = [topics[title] for i, title in enumerate(titles) if i % 10 != 4]
    return "\n\n".join(train), "\n\n".join(topics[title] for title in titles[4::10])
