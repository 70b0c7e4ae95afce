"""The model in the page, in a real browser, from a plain server of files. Run with `pytest -m
browser`."""

import math

import pytest
import torch
from browsing import chromium, files_served
from paging import browser_seconds, runtime
from test_book import violations

import llmkit
from llmkit import checkpoint
from llmkit.__main__ import main
from llmkit.attention import attention_weights
from llmkit.deploy import int8, web
from llmkit.generation import fitting

pytestmark = pytest.mark.browser

TEXT = llmkit.load_text("embedded")
CHAR = llmkit.CharTokenizer.from_text(TEXT)
BEGINNING = "GRIZEL:\nThe water is"
SCREENS = [("light", 1100), ("dark", 1100), ("light", 360), ("dark", 360)]


def trained(tokenizer, steps=150, **shape):
    torch.manual_seed(0)
    shape = dict(block_size=64, n_layer=2, n_head=2, n_embd=64, position="rotary") | shape
    model = llmkit.GPT(llmkit.GPTConfig(tokenizer.vocab_size, **shape))
    ids = tokenizer.encode(TEXT[:100_000])
    llmkit.train(
        model, ids, config=llmkit.TrainConfig(steps=steps, batch_size=16, optimizer="muon")
    )
    return model.eval()


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def char_model():
    return trained(CHAR)


@pytest.fixture(scope="module")
def site(tmp_path_factory, char_model):
    """A folder that the command wrote, and one with a BPE model."""
    runtime()
    folder = tmp_path_factory.mktemp("site")
    checkpoint.save(folder / "run" / "checkpoint", char_model, CHAR)
    assert main(["export", str(folder / "run"), "--web", "--out", str(folder / "char")]) == 0
    return folder


@pytest.fixture(scope="module")
def address(site):
    with files_served(site) as address:
        yield address


@pytest.fixture
def visit(browser, address):
    """Open a model's page; in the end it must have asked no other host, nor have complained."""
    opened, faults = [], []

    def visit(name="char", ready=True, before=None, **options):
        page = browser.new_page(**options)
        page.set_default_timeout(60_000)
        opened.append(page)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda m: m.type in ("error", "warning") and faults.append(m.text))
        page.on("request", lambda r: r.url.startswith((address, "data:")) or faults.append(r.url))
        if before:
            before(page)
        page.goto(f"{address}/{name}/")
        if ready:
            page.wait_for_selector("#readout:not(:empty)")
        return page

    yield visit
    for page in opened:
        page.close()
    assert faults == []


def settle(page):
    """Wait until the page has read the text of its box."""
    page.evaluate(
        """async () => {
          const model = document.querySelector("llmkit-model");
          clearTimeout(model.timer);
          await model.look();
        }"""
    )


def write(page, count, **settings):
    """Have it write, and give the text that it wrote."""
    for name, value in {"length": count, **settings}.items():
        page.evaluate(
            """([name, value]) => {
              const input = document.querySelector("llmkit-model").$(name);
              input.value = value;
              input.dispatchEvent(new Event("input", {bubbles: true}));
            }""",
            [name, str(value)],
        )
    before = page.input_value("#text")
    page.fill("#text", before)
    page.click("#write")
    page.wait_for_function(
        """([before, some]) => {
          const model = document.querySelector("llmkit-model");
          return !model.writing && model.$("text").value.length >= before + some;
        }""",
        arg=[len(before), 1],
    )
    settle(page)
    return page.input_value("#text")[len(before) :]


def inside(page, expression):
    """The value of an expression in which `it` is the element."""
    return page.evaluate(
        f"""async () => {{
          const it = document.querySelector("llmkit-model");
          return await ({expression});
        }}"""
    )


def test_logits_attention_and_surprise_are_those_of_pytorch(visit, char_model):
    """Of the same int8 weights; the text is longer than two windows."""
    page, text = visit(), TEXT[5000:5150]
    page.fill("#text", text)
    settle(page)
    model, ids = int8.to_int8(char_model), CHAR.encode(text)
    window = ids[-fitting(len(ids), 64) :]
    with torch.no_grad():
        logits = model(window[None])[0, -1]
        weights = attention_weights(model, window[None])[1, 0]
    found = torch.tensor(inside(page, "[...it.writer.logits]"))
    torch.testing.assert_close(found, logits, atol=1e-3, rtol=0)
    row = torch.tensor(inside(page, "[...it.maps[1].at(-1)]"))
    torch.testing.assert_close(row, weights[1, -1], atol=1e-4, rtol=0)
    bits = llmkit.evaluate(model, ids, characters=len(ids) - 1).bits_per_char
    mean = page.text_content("#mean")
    assert float(mean.split()[0]) == pytest.approx(bits, abs=1e-3)
    assert "over 149 predicted" in mean
    shares = logits.div(0.8).softmax(0).topk(10)
    bars = page.locator("#bars button").all()
    for bar, share, id_ in zip(bars, shares.values.tolist(), shares.indices.tolist(), strict=True):
        letter, _, number = bar.locator(":scope > span").all_text_contents()
        assert letter == CHAR.tokens[id_].replace(" ", "␣").replace("\n", "↵")
        assert float(number.removesuffix(" %")) == pytest.approx(100 * share, abs=0.11)


def test_greedy_text_is_that_of_python_past_the_window(visit, char_model):
    page = visit()
    page.fill("#text", BEGINNING)
    settle(page)
    wrote = write(page, 300, temperature=0)
    ids = CHAR.encode(BEGINNING)
    expected = llmkit.generate(int8.to_int8(char_model), ids, 300, temperature=0)
    assert BEGINNING + wrote == CHAR.decode(expected)


def test_a_seed_says_what_is_written(visit):
    page = visit()
    texts = []
    for seed in (5, 5, 6):
        page.fill("#text", BEGINNING)
        settle(page)
        texts.append(write(page, 80, seed=seed, topp=0.9))
        assert "80 characters, " in page.text_content("#done")
        assert f"seed {seed}." in page.text_content("#done")
    assert texts[0] == texts[1] != texts[2]


def test_with_the_keyboard_alone(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert inside(page, "it.shadowRoot.activeElement.id") == "text"
    page.keyboard.press("Control+a")
    page.keyboard.type("The water ")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("document.querySelector('llmkit-model').$('done').textContent != ''")
    settle(page)
    assert len(page.input_value("#text")) == 10 + 200
    for name in ("write", "one", "back", "temperature"):  # Stop has nothing to do
        page.keyboard.press("Tab")
        assert inside(page, "it.shadowRoot.activeElement.id") == name
    before = page.text_content("#bars")
    page.keyboard.press("Home")
    assert page.text_content("#bars") != before
    assert "100.0 %" in page.text_content("#bars")
    page.locator("#place").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.text_content("#readout").startswith("“h”, character 2 of 210: it cost ")
    assert page.get_attribute("#place", "aria-valuetext").startswith("h, 2 of 210, ")
    assert page.text_content("#spans .chosen") == "h"
    page.locator("#back").focus()
    page.keyboard.press("Enter")
    settle(page)
    assert page.input_value("#text") == "The water "
    likely = page.locator("#bars button").first
    letter = inside(page, "it.tokenizer.decode([it.likely[0]])")
    likely.focus()
    page.keyboard.press("Enter")
    settle(page)
    assert page.input_value("#text") == "The water " + letter


def test_it_stops(visit):
    page = visit()
    page.fill("#length", "4000")
    page.click("#write")
    page.wait_for_selector("#stop:enabled")
    page.keyboard.press("Escape")
    page.wait_for_selector("#stop:disabled")
    assert page.text_content("#done").endswith("; stopped.")
    assert inside(page, "it.shadowRoot.activeElement.id") == "write"
    assert page.locator("#text").is_editable()


def test_a_head_and_a_layer_can_be_chosen(visit):
    page = visit()
    pictures = set()
    for layer, head in ((0, 0), (0, 1), (1, 0), (1, 1)):
        page.select_option("#layer", index=layer)
        page.select_option("#head", index=head)
        settle(page)
        label = page.get_attribute("#map svg", "aria-label")
        assert f"head {head + 1} in layer {layer + 1} over characters " in label
        pictures.add(page.inner_html("#map"))
    assert len(pictures) == 4


def test_what_it_does_not_know_is_said_beside_the_box(visit):
    page = visit()
    page.fill("#text", "The é")
    page.wait_for_selector("#wrong:visible")
    assert "does not know “é” (U+00E9), character 5" in page.text_content("#wrong")
    assert page.get_attribute("#text", "aria-invalid") == "true"
    assert page.is_disabled("#write")
    page.fill("#text", "")
    settle(page)
    assert page.text_content("#wrong") == "Type something: the model needs a beginning."
    page.fill("#text", "The")
    page.wait_for_selector("#wrong", state="hidden")
    assert page.is_enabled("#write")


def test_byte_pairs_are_shown_in_colours(visit, site):
    tokenizer = llmkit.BPETokenizer.train(TEXT, 400)
    model = trained(tokenizer)
    about = {"name": "Pairs", "note": "", "text": "The water is wide, 🦊!"}
    web.save_web(site / "pairs", model, tokenizer, about, web.runtime.find())
    page = visit("pairs")
    ids = tokenizer.encode(about["text"])
    assert page.locator("#list small").all_text_contents() == [str(i) for i in ids.tolist()]
    pieces = page.locator("#list .letter").all_text_contents()
    assert "".join(pieces).replace("·", "").replace("␣", " ") == about["text"]
    assert inside(page, "getComputedStyle(it.$('list').children[0]).backgroundColor") != inside(
        page, "getComputedStyle(it.$('list').children[1]).backgroundColor"
    )
    wrote = write(page, 120, temperature=0)
    expected = llmkit.generate(int8.to_int8(model), ids, 120, temperature=0)
    assert about["text"] + wrote == tokenizer.decode(expected)
    assert "tokens, " in page.text_content("#done")
    assert violations(page) == []


@pytest.mark.parametrize(("scheme", "width"), SCREENS)
def test_axe_finds_nothing_and_nothing_sticks_out(visit, scheme, width, tmp_path):
    page = visit(color_scheme=scheme, viewport={"width": width, "height": 900})
    write(page, 60)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    out = inside(
        page,
        f"[...it.shadowRoot.querySelectorAll('*')].filter(e => e.checkVisibility())"
        f".filter(e => e.getBoundingClientRect().right > {width} + .5).map(e => e.outerHTML)",
    )
    assert out == []
    page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)


def test_who_wants_no_motion_gets_none(visit):
    page = visit(reduced_motion="reduce")
    moving = inside(
        page,
        "[...it.shadowRoot.querySelectorAll('*')].filter(e => { const s = getComputedStyle(e);"
        " return s.animationName !== 'none' || s.transitionDuration !== '0s'; }).length",
    )
    assert moving == 0


def test_it_writes_a_hundred_characters_a_second(visit, site):
    """Of processor time, all that the browser takes together, and of a model twice as deep as the
    others here: the command's own shape, in the window that it has."""
    model = trained(CHAR, block_size=128, n_layer=3, n_head=4, n_embd=128, steps=1)
    web.save_web(site / "whole", model, CHAR, {"name": "", "note": "", "text": "The "}, runtime())
    page = visit("whole")
    before = browser_seconds()
    wrote = write(page, 500)
    assert len(wrote) / (browser_seconds() - before) >= 100


# ---------------------------------------------------------------------------------- what goes wrong


def test_from_the_disk_it_says_how_to_serve_it(site, browser):
    page = browser.new_page()
    page.goto((site / "char" / "index.html").as_uri())
    page.wait_for_timeout(1500)
    element = page.locator("llmkit-model")
    assert element.is_visible()
    assert "run python -m http.server, then open http://localhost:8000" in element.inner_text()
    page.close()


def test_without_webassembly_it_says_so(visit):
    page = visit(ready=False, before=lambda p: p.add_init_script("delete globalThis.WebAssembly"))
    page.wait_for_selector("#error:visible")
    assert page.text_content("#error").startswith("This browser has no WebAssembly")
    assert page.is_hidden("#live")


def test_a_folder_that_is_not_whole_is_told(browser, address):
    page = browser.new_page()
    page.route("**/model.onnx", lambda route: route.fulfill(status=404, body=""))
    page.goto(f"{address}/char/")
    page.wait_for_selector("#error:visible")
    told = "model.onnx could not be read (the server answers 404): is the whole folder there?"
    assert page.text_content("#error") == told
    page.close()


def test_the_mean_is_of_the_shares(visit):
    """The bits of each character, as the text's spans say them, are those of the mean."""
    page = visit()
    page.fill("#text", BEGINNING)
    settle(page)
    titles = page.locator("#spans span").evaluate_all("spans => spans.map(s => s.title)")
    bits = [float(title.removesuffix(" bits")) for title in titles[1:]]
    mean = float(page.text_content("#mean").split()[0])
    assert math.isclose(sum(bits) / len(bits), mean, abs_tol=0.006)
