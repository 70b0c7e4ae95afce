"""What the tests of the model in the page share: run by Node, its runtime, its seconds."""

import json
import shutil
import subprocess
from contextlib import suppress

import psutil
import pytest

from llmkit.deploy import web

EMPTY = {"ort.js": b"", "ort.wasm": b""}  # in the runtime's place, where nothing is run
# fetch, for files; then what a test wants, of what it was given.
HEAD = """
import {readFile} from "node:fs/promises";
globalThis.fetch = async (url) => new Response(await readFile(url));
const given = JSON.parse(await new Promise((done) => {
  let all = ""; process.stdin.on("data", (part) => { all += part; }).on("end", () => done(all));
}));
const answer = async () => { BODY };
process.stdout.write(JSON.stringify(await answer()));
"""


def run_node(folder, imports, body, given):
    """The value that a function's body returns in Node, with these imports and `given`; the folder
    gets copies of the page's modules. Skips where there is no Node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no Node.js on this machine")
    for name in web.PARTS:
        shutil.copy(web.PAGE / name, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "test.js").write_text(f"{imports}\n{HEAD.replace('BODY', body)}", encoding="utf-8")
    done = subprocess.run(
        [node, str(folder / "test.js")],
        input=json.dumps(given),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def runtime():
    """The files of onnxruntime-web; skips where they were not fetched and cannot be."""
    try:
        return web.runtime.find()
    except OSError as error:
        pytest.skip(str(error))


def browser_seconds():
    """Processor time that this process's children, a browser's, have taken so far: other programs
    on the machine hardly blur it."""
    times = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times.append(process.cpu_times())
    return sum(each.user + each.system for each in times)
