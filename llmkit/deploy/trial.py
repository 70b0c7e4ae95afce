"""A server tried out from outside, as notebook 14 and a first test of one's own server do it: raw
HTTP requests, a stream's pieces with their times, a condition waited for.

OpenAI's client speaks to the server as well; here is what it hides. What the server does with it
all: `llmkit.deploy.server`.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from llmkit.arguments import check_number, check_type, shown


def send(url: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
    """One plain HTTP request to "http://host:port/path": the status and the JSON of the answer.

    body: None asks by GET; a string is sent by POST as it is, anything else as JSON. headers: more
    of them, or others in place of the usual ones. OSError where nobody answers within a minute.
    """
    check_type("url", url, str)
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.netloc:
        raise ValueError(f"url must be an address such as http://127.0.0.1:80/health, not {url!r}")
    text = body if body is None or isinstance(body, str) else json.dumps(body)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        connection.request(
            "GET" if text is None else "POST",
            parts.path or "/",
            None if text is None else text.encode(),
            {"Content-Type": "application/json"} | headers,
        )
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def arrivals(make: Callable[[], Iterable[Any]]) -> tuple[list[float], list[Any]]:
    """The pieces of a stream, and the seconds from the question to each piece.

    make: asks the question and returns the stream, so that the time before the first piece counts.
    """
    began = time.perf_counter()
    seconds, pieces = [], []
    for piece in make():
        seconds.append(time.perf_counter() - began)
        pieces.append(piece)
    return seconds, pieces


def wait_until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Return as soon as the condition holds; TimeoutError if it does not within the seconds."""
    if not callable(condition):
        raise TypeError(f"condition must be a function, not {shown(condition)}")
    check_number("seconds", seconds, least=0)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not come true within {seconds:g} seconds")
        time.sleep(0.001)
