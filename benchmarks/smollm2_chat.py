"""SmolLM2-135M-Instruct served by `python -m llmkit serve smollm2` and asked by OpenAI's client.

    python -m llmkit fetch
    python benchmarks/smollm2_chat.py

asks over /v1/chat/completions, streamed, always the likeliest token: one client, then four at once,
whose answers are drawn together. It notes seconds to the first token, tokens a second of all, and
the processor time that a token takes the server, reading the question included, which other
programs hardly blur. It writes them, with the answers, to benchmarks/results/smollm2_chat-cpu.json;
notebook 14 quotes it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import psutil
import torch
from common import parse, parser, versions, write_result
from modern import rehearsal

from llmkit import modern
from llmkit.deploy import trial
from llmkit.modern import smollm2

QUESTIONS = (
    "What is the capital of France? Answer in one sentence.",
    "Explain to a child in two sentences why the sky is blue.",
    "Write two lines about a river at night.",
    "What is a language model? Answer in two sentences.",
)


def ask(client: openai.OpenAI, question: str, most: int) -> tuple[float, float, int, str]:
    """Seconds to the first token and to the last, how many tokens, and the answer."""
    wish = dict(messages=[{"role": "user", "content": question}], max_tokens=most, temperature=0)
    wish |= dict(model=client.models.list().data[0].id, stream=True)
    usage = {"include_usage": True}
    create = client.chat.completions.create
    arrived, chunks = trial.arrivals(lambda: create(**wish, stream_options=usage))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    first = next(t for t, c in zip(arrived, chunks, strict=True) if c.choices)
    return first, arrived[-1], chunks[-1].usage.completion_tokens, text


def main() -> None:
    options = parse(parser(__doc__, device=False))
    with tempfile.TemporaryDirectory() as temporary:
        name, most = smollm2.SHORT, 80
        if options.quick:
            name, most = str(rehearsal(Path(temporary))), 5
        elif not modern.fetched():
            raise SystemExit(f"the model was not fetched: {smollm2.COMMAND}")
        command = [sys.executable, "-m", "llmkit", "serve", name, "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            url = server.stdout.readline().split()[3]
            busy = psutil.Process(server.pid).cpu_times
            client = openai.OpenAI(base_url=url + "/v1", api_key="none", timeout=300)
            ask(client, QUESTIONS[0], 2)  # a first one, which does not count
            found = {}
            for clients in (1, 4):
                with ThreadPoolExecutor(clients) as pool:
                    began, worked = time.perf_counter(), sum(busy()[:2])
                    each = list(pool.map(lambda q: ask(client, q, most), QUESTIONS))
                    seconds, worked = time.perf_counter() - began, sum(busy()[:2]) - worked
                    tokens = sum(row[2] for row in each)
                found[clients] = {
                    "first_token_seconds": round(statistics.median(row[0] for row in each), 2),
                    "tokens": tokens,
                    "tokens_per_second": round(tokens / seconds, 1),
                    "processor_milliseconds_a_token": round(1000 * worked / tokens),
                    "answers": [row[3] for row in each],
                }
            client.close()
            server.terminate()
    result = {
        "clients": found,
        "same_answers_in_company": found[1]["answers"] == found[4]["answers"],
        "questions": QUESTIONS,
        "threads": torch.get_num_threads(),
        "versions": versions("openai", "fastapi"),
    }
    for key, value in result.items():
        print(key, value)
    write_result("smollm2_chat", "cpu", result, folder=options.out)


if __name__ == "__main__":
    main()
