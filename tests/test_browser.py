"""Every view of the notebooks in a real browser, moved by the keyboard alone (some minutes):
`python -m pytest -n 0 -m browser tests/test_browser.py`.

Twice: in JupyterLab, and in the classic notebook with ipywidgets 7, which is what Colab has. Each
is installed into an environment of its own, kept in pytest's cache, whose kernels see all else that
is installed here. Screenshots are left in the folder that `--basetemp` names.
"""

import os
import re
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from pathlib import Path

import build
import nbformat
import pytest
from browsing import chromium, contrast

pytestmark = pytest.mark.browser

PACKAGES = {
    "lab": ["jupyterlab==4.6.6", "ipywidgets==8.1.9"],
    "classic": ["notebook==6.5.7", "ipywidgets==7.7.1", "ipython<9", "setuptools<81"],
}
# What is asked of the page's own objects, for no page shows all of it: folded cells have no number.
READY = {
    "lab": """window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status
        == 'idle'""",
    "classic": "window.Jupyter?.notebook?.kernel?.info_reply?.status == 'ok'",
}
RUN_ALL = {
    "lab": "() => { jupyterapp.commands.execute('notebook:run-all-cells') }",
    "classic": "() => { Jupyter.notebook.execute_all_cells() }",
}
EXECUTED = {
    "lab": """jupyterapp.shell.currentWidget.content.widgets
        .every(cell => cell.model.type !== 'code' || cell.model.executionCount)""",
    "classic": """Jupyter.notebook.get_cells()
        .every(cell => cell.cell_type !== 'code' || Number.isInteger(cell.input_prompt_number))""",
}
SHUT_DOWN = {
    "lab": "jupyterapp.serviceManager.sessions.shutdownAll()",
    "classic": "() => { Jupyter.notebook.session.delete() }",
}
FAILED = "[data-mime-type='application/vnd.jupyter.error'], .output_error"
CELLS = ".jp-Notebook .jp-Cell, #notebook .cell"
# What is typed into each control of a notebook's view, from the top down.
KEYS = {
    "02_char_tokenizer": ["x"],
    "03_bigram": ["h"],
    "04_attention": ["ArrowLeft or ArrowRight", "ArrowLeft or ArrowRight"],
    "06_training": [],
    "08_generation": ["x", "ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowUp"],
    "09_subword_tokenizers": ["x", "ArrowLeft"],
    "13_instruction_tuning": ["Space", "Enter", "Space"],
}
CONTROLS = "textarea, .noUi-handle, .ui-slider-handle, input[type=number], button"
TEXTS = "label, textarea, .widget-readout, .widget-html-content, .widget-html-content *, button"
PLACE = "handle => handle.style.left + handle.ariaValueNow"
SHOWN = """view => [...view.querySelectorAll('.widget-html-content, img')]
    .map(e => e.src || e.innerHTML).join('\\n')"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module", params=PACKAGES)
def jupyter(request, tmp_path_factory):
    """A running server: which front end it has, its address, and the folder that it serves."""
    venv = Path(request.config.cache.mkdir(f"browser-{request.param}"))
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [python, "-m", "pip", "install", "-q", *PACKAGES[request.param]]
    if subprocess.run(pip).returncode != 0:
        pytest.skip(f"{PACKAGES[request.param][0]} cannot be installed on this machine")
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", purelib], capture_output=True, text=True).stdout.strip()
    Path(site, "after.pth").write_text(sysconfig.get_path("purelib"))  # found after its own

    folder = tmp_path_factory.mktemp(request.param)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--ip=127.0.0.1", f"--port={port}", "--no-browser", "--allow-root"]
    if request.param == "lab":
        options += ["--IdentityProvider.token=", "--LabApp.extension_manager=readonly"]
        options += ["--expose-app-in-browser"]
    else:
        options += ["--NotebookApp.token="]
    environment = build.kernel_environment()
    path = [environment["PYTHONPATH"], str(build.NOTEBOOKS.parent)]
    settings = {
        "notebook-extension/tracker": '{"windowingMode": "none"}',  # all cells are in the page
        "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    }
    for name, text in settings.items():
        file = folder / f"settings/@jupyterlab/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    environment |= {
        "PYTHONPATH": os.pathsep.join(path),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
    }
    command = [python, "-m", "jupyter", "lab" if request.param == "lab" else "notebook", *options]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            time.sleep(0.5)
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()
        yield request.param, address, folder
    finally:
        server.terminate()
        server.wait(30)


def viewed():
    """The notebooks that store a view, known by the picture beside a view's text form."""
    for path in sorted(build.NOTEBOOKS.glob("*.ipynb")):
        if re.search(r'"text/plain": \[\s*"<[A-Z]\w+>"', path.read_text(encoding="utf-8")):
            yield path.stem


def test_no_notebook_with_a_view_is_left_out():
    assert list(viewed()) == list(KEYS)


@pytest.mark.parametrize("name", KEYS)
def test_each_control_can_be_reached_and_moved_by_keyboard(name, jupyter, browser):
    front_end, address, folder = jupyter
    notebook = nbformat.read(build.NOTEBOOKS / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":  # nothing stored may be taken for something live
            cell.update(outputs=[], execution_count=None)
    nbformat.write(notebook, folder / f"{name}.ipynb")

    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.set_default_timeout(120_000)
    complaints = []
    page.on(
        "console",
        lambda m: m.type == "error" and complaints.append(f"{m.text} {m.location['url']}"),
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{address}/{'lab/tree' if front_end == 'lab' else 'notebooks'}/{name}.ipynb")
    page.wait_for_function(READY[front_end])
    page.wait_for_timeout(3000)  # widgets that come while the page asks for older ones get lost
    page.evaluate(RUN_ALL[front_end])
    page.wait_for_function(
        f"document.querySelector({FAILED!r}) || {EXECUTED[front_end]}", timeout=400_000
    )
    assert page.locator(FAILED).count() == 0
    cells = page.locator(CELLS).count()

    view = page.locator(".widget-vbox:not(.widget-vbox .widget-vbox)").last
    view.scroll_into_view_if_needed()
    controls = view.locator(CONTROLS)
    assert controls.count() == len(KEYS[name])
    view.screenshot(path=folder / f"{name}.png")
    for n, keys in enumerate(KEYS[name]):
        before = view.evaluate(SHOWN)
        if n == 0:
            controls.first.focus()
        control = controls.nth(n).element_handle()
        for _ in range(3):  # a slider's number can be typed into, too: one stop more
            if not control.evaluate("control => control === document.activeElement"):
                page.keyboard.press("Tab")
        assert control.evaluate("control => control === document.activeElement"), n
        view.screenshot(path=folder / f"{name}-{n}.png")
        for key in keys.split(" or "):  # a slider may stand at either end
            place = control.evaluate(PLACE)
            page.keyboard.press(key)
            page.wait_for_timeout(1000)
            if control.evaluate(PLACE) != place:
                break
        page.keyboard.press("Tab")  # some boxes report a change when they are left
        page.keyboard.press("Shift+Tab")
        page.wait_for_function(
            f"([view, before]) => ({SHOWN})(view) !== before",
            arg=[view.element_handle(), before],
        )
    assert page.locator(CELLS).count() == cells  # no key was taken for a shortcut
    for image in view.locator("img:visible").all():
        assert image.evaluate("image => image.naturalWidth") > 0
    for theme in ("JupyterLab Dark", "JupyterLab Light") if front_end == "lab" else ():
        page.evaluate(
            "theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme
        )
        page.wait_for_timeout(1500)
        view.scroll_into_view_if_needed()
        view.screenshot(path=folder / f"{name}-{theme[11:]}.png")
        for text in view.locator(TEXTS).all():
            assert contrast(text) >= 4.5, text
    page.evaluate(SHUT_DOWN[front_end])
    page.close()
    # The badge's picture is the one thing that a notebook fetches from elsewhere; the classic
    # notebook's MathJax asks for a font at about:blank.
    assert [c for c in complaints if not re.search(r"/colab-badge\.svg$|about:blank", c)] == []
