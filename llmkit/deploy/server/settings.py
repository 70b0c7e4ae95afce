"""What a server is told when it starts: its limits, who may call it, its model's name."""

from __future__ import annotations

from dataclasses import dataclass

from llmkit.arguments import check_number, check_type

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Settings:
    """The limits of a server, and what it is called."""

    name: str = "llmkit"  # of the model, as clients say it
    queue: int = 32  # how many requests may wait; one more gets 429
    batch: int = 16  # texts that are drawn together; each takes memory for the longest
    max_prompt: int = 4096  # tokens
    max_tokens: int = 1024  # to draw for each prompt
    max_choices: int = 16  # texts that one request may ask for, prompts times n
    max_body: int = 2**18  # bytes of a request
    timeout: float = 60.0  # seconds from a request's coming to its last token
    grace: float = 10.0  # seconds that running requests have when the server is stopped
    system: str | None = (
        None  # the system's turn of a conversation that has none, None: no such turn
    )
    api_key: str | None = None  # what clients must send, None: nothing
    hosts: tuple[str, ...] | None = LOOPBACK  # names by which clients may call it, None: any

    def __post_init__(self) -> None:
        for name in ("queue", "batch", "max_prompt", "max_tokens", "max_choices", "max_body"):
            check_number(name, getattr(self, name), int, least=1)
        check_number("timeout", self.timeout, above=0)
        check_number("grace", self.grace, least=0)
        check_type("name", self.name, str)
        check_type("system", self.system, str, optional=True)
        check_type("api_key", self.api_key, str, optional=True)
        if not self.name or "/" in self.name:
            raise ValueError(f"a model's name is one character or more, no '/': {self.name!r}")
        if self.api_key is not None and (not self.api_key or not self.api_key.isascii()):
            raise ValueError("an API key is one ASCII character or more; None for no key")
