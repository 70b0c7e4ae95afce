"""The server's page in a real browser. Run with `pytest -m browser`."""

import threading

import pytest
from browsing import chromium, contrast
from serving import Gate, expected, gpt, tokenizer

from llmkit.deploy import server as serve

pytestmark = pytest.mark.browser

CHAR, MODEL = tokenizer(), gpt(block_size=64)


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server():
    with serve.background(MODEL, CHAR, name="poem") as running:
        yield running


@pytest.fixture
def open_page(browser):
    """Open a page; at the end of the test, it must not have complained."""
    pages, complaints = [], []

    def open_page(url, **options):
        page = browser.new_page(**options)
        pages.append(page)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    yield open_page
    for page in pages:
        page.close()
    # an answer that is an error is told by the page itself, and by the browser here
    assert [c for c in complaints if not c.startswith("Failed to load resource")] == []


def wait_for(page, pattern, where="#about"):
    page.wait_for_function(
        "([where, pattern]) => new RegExp(pattern).test(document.querySelector(where).textContent)",
        arg=[where, pattern],
        timeout=15_000,
    )


def test_with_the_keyboard_alone(server, open_page):
    page = open_page(server.url)
    wait_for(page, "^poem$", "#model")
    page.keyboard.type("the fox")  # the prompt has the focus
    for name, value in {
        "seed": "5",
        "temperature": "0.7",
        "top_k": "9",
        "stop": "q\\nq\\nq",
    }.items():
        page.fill(f"#{name}", value)
    page.fill("#max_new_tokens", "60")
    page.keyboard.press("Control+Enter")
    wait_for(page, "60 tokens, .* a second; ended at the limit; seed 5")
    want = expected(MODEL, CHAR, "the fox", 60, 5, temperature=0.7, top_k=9)
    assert page.text_content("#output") == "the fox" + want
    command = page.text_content("#curl")
    assert f"curl {server.url}/generate" in command
    assert '"seed":5' in command
    assert r'"stop":"q\nq\nq"' in command


def test_it_streams_and_stops(open_page):
    gate = Gate()
    with serve.background(gate, CHAR) as running:
        page = open_page(running.url)
        page.fill("#prompt", "a")
        page.fill("#max_new_tokens", "900")
        page.click("#go")
        gate.permits.release(5)
        wait_for(page, "^a[^]{4,5}$", "#output")
        assert page.is_disabled("#go")
        page.keyboard.press("Escape")
        wait_for(page, "^stopped$")
        release_until_idle(gate, running)
        assert page.is_enabled("#go")
        assert page.is_disabled("#halt")
        assert gate.calls < 100


def release_until_idle(gate, running):
    for _ in range(200):
        gate.permits.release()
        if running.engine.running == 0:
            return
        threading.Event().wait(0.02)


def test_a_seed_can_be_kept(server, open_page):
    page = open_page(server.url)
    page.fill("#prompt", "the fox")
    page.click("#go")
    wait_for(page, "seed")
    first = page.text_content("#output")
    page.click("#keep")
    assert page.input_value("#seed") in page.text_content("#about")
    page.click("#go")
    wait_for(page, "200 tokens")
    assert page.text_content("#output") == first


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("prompt", "the fôx", "'ô' (U+00F4) at position 5"),
        ("prompt", "", "the prompt is empty"),
        ("max_new_tokens", "5000", "less than or equal to 1024"),
        ("top_k", "33", "less than or equal to 32"),
    ],
)
def test_errors_are_shown(server, open_page, field, value, sentence):
    page = open_page(server.url)
    page.fill("#prompt", "a")
    page.fill(f"#{field}", value)
    page.click("#go")
    page.wait_for_selector("#error:visible")
    assert sentence in page.text_content("#error")
    page.fill("#prompt", "the fox")
    page.fill("#max_new_tokens", "5")
    page.fill("#top_k", "")
    page.click("#go")
    wait_for(page, "5 tokens")
    assert page.is_hidden("#error")


def test_a_server_that_has_gone_is_told(open_page):
    with serve.background(MODEL, CHAR) as running:
        page = open_page(running.url)
        wait_for(page, "llmkit", "#model")
        page.route("**/generate", lambda route: route.abort())
        page.fill("#prompt", "a")
        page.click("#go")
        page.wait_for_selector("#error:visible")
        assert "cannot be reached" in page.text_content("#error")
        page.close()


def test_a_key_is_asked_for(open_page):
    with serve.background(MODEL, CHAR, api_key="abc") as running:
        page = open_page(running.url)
        page.wait_for_selector("#key:visible")
        page.fill("#prompt", "a")
        page.click("#go")
        page.wait_for_selector("#error:visible")
        assert "the API key is missing or wrong" in page.text_content("#error")
        assert "$LLMKIT_API_KEY" in page.text_content("#curl")
        page.fill("#key", "abc")
        page.keyboard.press("Enter")
        wait_for(page, "200 tokens")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1100])
def test_it_fits_and_can_be_read(server, open_page, tmp_path, scheme, width):
    page = open_page(server.url, color_scheme=scheme, viewport={"width": width, "height": 900})
    page.fill("#prompt", "the quick fox " * 9)
    page.click("#go")
    wait_for(page, "200 tokens")
    page.click("summary")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
    for where in ("body", "button.main", "#about", "textarea", "#output b", "summary"):
        assert contrast(page.locator(where).first) >= 4.5, where
