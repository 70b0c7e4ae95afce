"""How fast the book's model writes in a browser: onnxruntime-web in Chromium, one thread.

    python benchmarks/web.py

A plain server of files hands out the page of `llmkit.deploy.web`; Chromium opens it and writes
1,000 characters three times, past the model's window of 128 and shown as they come. Beside it, the
same int8 weights in PyTorch with its cache: `llmkit.generate`. Seconds are of processor time, of
all the browser's processes together, which other programs hardly blur; so are PyTorch's. What a
clock on the wall says, which a busy machine does blur, stands beside them.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

from llmkit import generate
from llmkit.deploy import export, web

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

from browsing import chromium, files_served  # noqa: E402
from paging import browser_seconds  # noqa: E402

MODEL = ROOT / "notebooks" / "book" / "model"
BEGINNING = "GRIZEL:\n"


def in_the_page(folder: Path, count: int, repeats: int) -> tuple[dict[str, Any], list[int]]:
    """Seconds of processor time until the page's first bars are there, and the browser's version;
    and characters a second, of processor time and by the clock, the median of the texts."""
    with files_served(folder) as address, chromium() as browser:
        began = browser_seconds()
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#readout:not(:empty)", timeout=120_000)
        ready = browser_seconds() - began
        seconds, by_the_clock = [], []
        for _ in range(repeats):
            began, clock = browser_seconds(), time.perf_counter()
            page.evaluate(
                """async ([beginning, count]) => {
                  const it = document.querySelector("llmkit-model");
                  it.$("text").value = beginning;
                  await it.write(count);
                }""",
                [BEGINNING, count],
            )
            by_the_clock.append(time.perf_counter() - clock)
            seconds.append(browser_seconds() - began)
        rates = [round(count / statistics.median(each)) for each in (seconds, by_the_clock)]
        return {"ready": round(ready, 2), "browser": browser.version}, rates


def main() -> None:
    parser = common.parser(__doc__, device=False)
    options = common.parse(parser)
    count, repeats = (50, 1) if options.quick else (1000, 3)
    model, tokenizer = export.load(MODEL / "int8")
    about = json.loads((MODEL / "about.json").read_text(encoding="utf-8"))
    ids = tokenizer.encode(BEGINNING)
    with tempfile.TemporaryDirectory() as room:
        found = web.runtime.find()
        folder = web.save_web(Path(room) / "page", model, tokenizer, about, found)
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        [python] = common.alternate(
            lambda: generate(model, ids, count, seed=0), repeats=repeats, clock=time.process_time
        )
        page, (rate, clock) = in_the_page(folder, count, repeats)
    peer = count / statistics.median(python)
    print(f"in the page      {rate:7.0f} characters a second, ready after {page['ready']} seconds")
    print(f"by the clock     {clock:7.0f}")
    print(f"int8 in PyTorch  {peer:7.0f}")
    result = {
        "characters": count,
        "characters_per_second": {
            "page": rate,
            "page, by the clock": clock,
            "int8 in PyTorch": round(peer),
        },
        "page": page | {"runtime": web.runtime.PACKAGE, "bytes": sizes},
        "versions": common.versions("onnx", "torchao", "playwright"),
    }
    common.write_result("web", "cpu", result, folder=options.out)


if __name__ == "__main__":
    main()
