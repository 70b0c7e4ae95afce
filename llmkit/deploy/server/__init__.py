"""The HTTP server: one model for many, over our own `/generate` and OpenAI's `/v1/completions`.

`create_app` makes the application, `run` serves it until it is told to stop, `background` serves it
beside a notebook or a test. Its rooms:

settings · guard (who and what is let in) · schema (what requests and answers hold) · errors ·
answer (a request on its way) · routes (the endpoints) · docs (their description) · app · server

How requests are queued and run, without a web, is in `llmkit.deploy.engine`.
"""

try:
    from llmkit.deploy.server.app import create_app
    from llmkit.deploy.server.server import Running, background, is_loopback, run
    from llmkit.deploy.server.settings import LOOPBACK, Settings
except ModuleNotFoundError as error:
    if error.name not in ("fastapi", "starlette", "pydantic", "uvicorn"):
        raise
    raise ModuleNotFoundError(
        f"serving needs {error.name}: pip install 'llmkit[serve]'", name=error.name
    ) from None

__all__ = ["LOOPBACK", "Running", "Settings", "background", "create_app", "is_loopback", "run"]
