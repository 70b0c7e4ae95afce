"""The HTTP server: one model for many, over our own `/generate`, and OpenAI's `/v1/completions` and
`/v1/chat/completions`.

`create_app` makes the application, `run` serves it until it is stopped, `start` serves it beside a
notebook, `background` inside a ``with``. Its rooms:

connection (how many, and how long) · guard (who and what is let in) · schema (what requests and
answers hold) · errors (what is told where something is wrong) · answer (a request on its way) ·
settings · chat (conversations) · app (the other endpoints) · listen

How requests are queued and drawn together, without a web, is in `llmkit.deploy.engine`. Its thread
and the event loop's share Python's lock: what the one says in a step is told to the other by one
wake-up (`answer.Mail`), and a small model keeps to one core (`commands.serve`).
"""

try:
    from llmkit.deploy.server.app import create_app
    from llmkit.deploy.server.listen import Running, background, is_loopback, run, start
    from llmkit.deploy.server.settings import LOOPBACK, Settings
except ModuleNotFoundError as error:
    if error.name not in ("fastapi", "starlette", "pydantic", "uvicorn"):
        raise
    raise ModuleNotFoundError(
        f"serving needs {error.name}: pip install 'llmkit[serve]'", name=error.name
    ) from None

__all__ = [
    "LOOPBACK",
    "Running",
    "Settings",
    "background",
    "create_app",
    "is_loopback",
    "run",
    "start",
]
