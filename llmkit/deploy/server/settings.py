"""The limits of a server, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Settings:
    """The limits of a server, and what it is called.

    Args:
        name: of the model, as clients say it.
        queue: how many requests may wait; one more is told 429.
        max_prompt, max_tokens: tokens of a prompt, and to draw for it.
        max_choices: texts that one request may ask for, prompts times n.
        max_body: bytes of a request.
        timeout: seconds from a request's coming to its last token.
        grace: seconds that running requests have when the server is told to stop.
        api_key: what clients must send, None: nothing.
        hosts: the names under which the server may be addressed, None: any.
    """

    name: str = "llmkit"
    queue: int = 32
    max_prompt: int = 4096
    max_tokens: int = 1024
    max_choices: int = 16
    max_body: int = 2**18
    timeout: float = 60.0
    grace: float = 10.0
    api_key: str | None = None
    hosts: tuple[str, ...] | None = LOOPBACK

    def __post_init__(self):
        for name in ("queue", "max_prompt", "max_tokens", "max_choices", "max_body", "timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.grace < 0:
            raise ValueError(f"grace must be 0 seconds or more, not {self.grace}")
        if not self.name or "/" in self.name:
            raise ValueError(f"a model's name is one character or more, no '/': {self.name!r}")
        if self.api_key is not None and (not self.api_key or not self.api_key.isascii()):
            raise ValueError("an API key is one ASCII character or more; None for no key")
