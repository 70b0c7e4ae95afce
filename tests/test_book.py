"""The book: made whole from the notebooks as they are stored, and read as a browser reads it.

In a real browser, held to axe's rules: `python -m pytest -n 0 -m browser tests/test_book.py`.
"""

import html
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import book
import build
import nbformat
import pytest
from browsing import chromium, files_served

ROOT = build.NOTEBOOKS.parent
STEMS = [script.stem for script in build.scripts()]
NOTEBOOKS = {stem: nbformat.read(build.NOTEBOOKS / f"{stem}.ipynb", 4) for stem in STEMS}
PAGES = ["index", *STEMS, "glossary", "api", "benchmarks", "search"]
LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """What a test asks of a page: its tags with their attributes, and the text in some of them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags, self.folds, self.open = [], [], 0
        self.markup = path.read_text(encoding="utf-8")
        self.feed(self.markup)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open += tag == "details"

    def handle_endtag(self, tag):
        self.open -= tag == "details"

    def handle_data(self, text):
        if self.open:
            self.folds.append(text)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("book") / "site"
    assert book.make(out) == len(PAGES) - 1  # the page of the search is the theme's
    return out


@pytest.fixture(scope="module")
def pages(site):
    return {path.stem: Page(path) for path in site.glob("*.html")}


def test_each_notebook_is_a_page_and_so_is_what_stands_beside_them(pages):
    assert sorted(pages) == sorted(PAGES)
    for stem, page in ((stem, pages[stem]) for stem in STEMS):
        number, name = build.title(build.NOTEBOOKS / f"src/{stem}.py").split(" · ")
        assert f"<h1>{number} · {html.escape(name)}<" in page.markup


def test_every_link_leads_somewhere(site, pages):
    """To a page that is there and, behind a #, to a place on it; or away from the book."""
    ids = {stem: {a["id"] for _, a in page.tags if a.get("id")} for stem, page in pages.items()}
    dead, inside = [], 0
    for stem, page in pages.items():
        for link in [a["href"] for a in page.all("a") if "href" in a]:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            inside += 1
            there = Path(parts.path).stem or stem
            place = unquote(parts.fragment)
            if not (site / parts.path).exists() or (place and place not in ids[there]):
                dead.append(f"{stem}: {link}")
    assert inside > 1000
    assert dead == []


def test_the_way_on_is_told_at_the_end_of_each_page(pages):
    for before, after in pairwise(STEMS):
        onward = [a["href"] for a in pages[before].all("a") if a.get("class") == "right-next"]
        back = [a["href"] for a in pages[after].all("a") if a.get("class") == "left-prev"]
        assert (onward, back) == ([f"{after}.html"], [f"{before}.html"])


def test_each_page_has_its_sections_and_all_pages_at_its_side(pages):
    for stem in STEMS:
        wanted = re.findall(r"^## ", "\n\n".join(c.source for c in NOTEBOOKS[stem].cells), re.M)
        markup = pages[stem].markup
        contents = re.search(r"<nav[^>]*page-toc.*?</nav>", markup, re.DOTALL)[0]
        assert contents.count('href="#') >= len(wanted) > 3, stem
        side = re.search(r'<nav[^>]*aria-label="Pages".*?</nav>', markup, re.DOTALL)[0]
        assert side.count("<li") == len(PAGES) - 2


def test_each_notebook_opens_in_colab_and_is_linked_from_the_first_page(pages):
    links = [a["href"] for a in pages["index"].all("a")]
    for stem in STEMS:
        colab = build.colab(build.NOTEBOOKS / f"src/{stem}.py")
        assert colab in [a["href"] for a in pages[stem].all("a")]
        assert colab in links
        assert f"{stem}.html" in links


def test_what_is_no_page_is_linked_in_the_repository(pages):
    links = [a["href"] for a in pages["index"].all("a")]
    assert f"{build.repository()}/blob/{build.tag()}/CONTRIBUTING.md" in links


def test_nothing_is_loaded_from_another_host(site, pages):
    """Links may lead away; pictures, scripts, styles and fonts may not come from elsewhere."""
    for stem, page in pages.items():
        for tag, name in LOADS.items():
            for attributes in page.all(tag):
                assert not urlsplit(attributes.get(name, "")).netloc, (stem, attributes)
                assert "srcset" not in attributes
        assert not re.search(r"url\(|@import|fetch\(|import\(", page.markup.split("<main")[0])
    address = re.compile(r"(?:url\(|@import(?!\s*url))\s*['\"]?([^'\")\s]+)")
    for style in site.rglob("*.css"):
        loaded = address.findall(style.read_text(encoding="utf-8"))
        assert [each for each in loaded if re.match(r"(\w+:)?//", each)] == [], style


def test_each_picture_has_its_sentence(pages):
    for stem, page in pages.items():
        for image in page.all("img"):
            assert len(image.get("alt", "")) > 9, (stem, image)
            assert not re.search(r"[<>]|\.(png|svg)$", image["alt"]), (stem, image)
    for stem, notebook in NOTEBOOKS.items():
        drawn = str(notebook).count("'text/plain': '<picture: ")
        drawn += str(notebook).count("'text/plain': '<drawing: ")
        assert len(pages[stem].all("img")) >= drawn > 0


def test_each_column_of_a_table_has_a_name(pages):
    """Or a screen reader has none to say before the cells; axe finds it too, but rarely runs."""
    empty = re.compile(r"<th[^>]*>(\s|</?p>)*</th>")
    assert {
        name: found for name, page in pages.items() if (found := empty.findall(page.markup))
    } == {}


def test_what_a_picture_says():
    assert book.sentence("<picture: e is > t, but < a>") == "e is > t, but < a"
    assert book.sentence("<AttentionExplorer>").startswith("Attention explorer: a view with")


def test_solutions_are_folded(pages):
    folded = 0
    for stem, notebook in NOTEBOOKS.items():
        page = pages[stem]
        text = "".join(page.folds)
        assert all("open" not in details for details in page.all("details"))
        for cell in notebook.cells:
            if "solution" in build.tags(cell):
                title, _, code = cell.source.partition("\n")
                title = title.removeprefix("# @title ")
                assert f"<summary>{html.escape(title)}</summary>" in page.markup
                assert code.strip() in text
                folded += 1
    assert folded > 100
    assert "# @title" not in "".join(page.markup for page in pages.values())


def test_formulas_are_drawn_by_the_browser_itself(pages):
    for stem, notebook in NOTEBOOKS.items():
        texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        prose = re.sub(r"`[^`]*`", "", "\n\n".join(texts))
        assert len(pages[stem].all("math")) == len(re.findall(r"(\$\$?)[^$]+\1", prose)), stem
        assert "$" not in re.sub(r"<(pre|code).*?</\1>", "", pages[stem].markup, flags=re.DOTALL)


def test_the_index_of_the_search_has_the_words_of_the_notebooks(site):
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(re.fullmatch(r"Search\.setIndex\((.*)\)", text, re.DOTALL)[1])

    def pages_with(stemmed):
        found = index["terms"].get(stemmed, [])
        return [index["docnames"][n] for n in (found if isinstance(found, list) else [found])]

    assert pages_with("xyzzy") == []
    assert "04_attention" in pages_with("softmax")
    assert pages_with("seventeen") == ["04_attention"]
    assert set(STEMS) <= set(pages_with("llmkit"))


def test_the_model_is_on_its_pages_or_they_say_that_it_is_left_out(site, pages):
    live = (site / "model" / "model.onnx").exists()
    shown = {Path(name).stem for name in book.LIVE}
    for stem, page in pages.items():
        assert bool(page.all("llmkit-model")) is (live and stem in shown)
        assert (book.LEFT_OUT in page.markup) is (not live and stem in shown)
        if live and stem in shown:
            sources = [script.get("src") for script in page.all("script")]
            assert "model/page.js" in sources
            assert "wait" in page.all("llmkit-model")[0]  # nothing large comes unasked


# ------------------------------------------------------------------------------ what goes wrong


@pytest.fixture
def small(tmp_path):
    """notebooks/ of a project with one notebook."""
    folder = tmp_path / "notebooks"
    for place in [*book.BESIDE, "notebooks/src/01_data.py"]:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(f"# {place}\n", encoding="utf-8")
    (tmp_path / "llmkit").mkdir()
    for place in ("pyproject.toml", "llmkit/__init__.py"):
        shutil.copy(ROOT / place, tmp_path / place)
    cell = nbformat.v4.new_markdown_cell("# 01 · Data\n\n$x$")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "01_data.ipynb")
    return folder


def refused(out, folder):
    with pytest.raises(SystemExit) as stopped:
        book.main([str(out)], folder)
    return str(stopped.value)


def test_it_is_made_again_in_place_of_an_earlier_one(small, tmp_path, capsys):
    out = tmp_path / "out"
    assert book.main([str(out)], small) == 0
    assert capsys.readouterr().out == f"5 pages: open {out / 'index.html'}\n"
    (out / "old.html").write_text("left over")
    assert book.main([str(out)], small) == 0
    assert not (out / "old.html").exists()
    assert "<math><mi>x</mi></math>" in (out / "01_data.html").read_text(encoding="utf-8")


def test_a_folder_with_something_else_in_it_is_left_alone(small, tmp_path):
    assert "is no book; name a new or an empty folder" in refused(tmp_path, small)
    assert (tmp_path / "README.md").exists()


def test_without_its_runtime_the_model_is_left_out(small, tmp_path, monkeypatch, capsys):
    from llmkit.deploy.web import runtime

    def none(folder):
        raise ConnectionError("npm cannot get it: check the network")

    monkeypatch.setattr(runtime, "find", none)
    monkeypatch.setattr(book, "runtime_files", book.runtime_files.__wrapped__)
    assert book.main([str(tmp_path / "out")], small) == 0
    told = "The live model is left out: npm cannot get it: check the network\n"
    assert capsys.readouterr().err == told
    assert book.LEFT_OUT in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert not (tmp_path / "out" / "model").exists()


def test_a_link_to_nothing_is_told(small, tmp_path):
    (tmp_path / "API.md").write_text("# API\n\n[x](notebooks/02_none.ipynb)\n", encoding="utf-8")
    assert "API.md has a link to notebooks/02_none.ipynb, which does not" in refused(
        tmp_path / "out", small
    )


def test_a_link_to_no_place_on_a_page_is_told(small, tmp_path):
    (tmp_path / "API.md").write_text("# API\n\n[x](README.md#nowhere)\n", encoding="utf-8")
    told = refused(tmp_path / "out", small)
    assert told.startswith("api.md:3")
    assert "nowhere" in told
    assert not (tmp_path / "out").exists()


def test_a_formula_that_cannot_be_read_is_told(small, tmp_path):
    (tmp_path / "API.md").write_text("# API\n\n$\\nosuch{x}$\n", encoding="utf-8")
    told = refused(tmp_path / "out", small)
    assert re.search(r"api\.md:3: .*nosuch", told)


# --------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(site):
    """The site as a server on this machine hands it out."""
    with files_served(site) as address:
        yield address


@pytest.fixture
def visit(browser, address):
    """Open a page with all its folds; at the end it must have asked no other host for anything."""
    opened, faults = [], []

    def visit(name, **options):
        page = browser.new_page(**options)
        page.set_default_timeout(120_000)
        opened.append(page)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda m: m.type in ("error", "warning") and faults.append(m.text))
        page.on(
            "request",
            lambda r: r.url.startswith((address, "data:")) or faults.append(r.url),
        )
        page.on("response", lambda r: r.status < 400 or faults.append(f"{r.status} {r.url}"))
        page.goto(f"{address}/{name}.html")
        page.wait_for_load_state("networkidle")
        page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true })")
        return page

    yield visit
    for page in opened:
        page.close()
    assert faults == []


def violations(page):
    """What axe finds, a line each."""
    from axe_playwright_python.sync_playwright import Axe

    # Its preloading would look for what a style imports beside the page, not beside the style.
    found = Axe().run(page, options={"preload": False}).response["violations"]
    return [f"{rule['id']}: {node['html'][:200]}" for rule in found for node in rule["nodes"]]


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 1400), ("light", 360)])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(name, scheme, width, visit):
    page = visit(name, color_scheme=scheme, viewport={"width": width, "height": 900})
    assert page.get_attribute("html", "data-theme") == scheme
    assert violations(page) == []


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 1400), ("light", 360)])
@pytest.mark.parametrize("name", [Path(name).stem for name in book.LIVE])
def test_the_model_runs_on_its_pages(name, scheme, width, site, visit):
    if not (site / "model").exists():
        pytest.skip("the runtime of the model was not to be had")
    page = visit(name, color_scheme=scheme, viewport={"width": width, "height": 900})
    page.click("#start")
    page.wait_for_selector("#readout:not(:empty)")
    page.fill("#length", "40")
    page.click("#write")
    page.wait_for_selector("#done:has-text('40 characters, ')")
    panels, _, _ = next(value for path, value in book.LIVE.items() if Path(path).stem == name)
    assert page.locator(f"details#{panels}[open]").count() == 1
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_a_narrow_screen_is_wide_enough(name, visit):
    """Nothing sticks out sideways but in boxes that scroll by themselves."""
    page = visit(name, viewport={"width": 360, "height": 800})
    out = page.evaluate(
        """() => {
          const inside = (e) => e && (/auto|scroll|hidden/.test(getComputedStyle(e).overflowX)
              ? e !== document.body && e !== document.documentElement : inside(e.parentElement));
          return [...document.querySelectorAll("header *, main *")]
              .filter(e => e.checkVisibility() && !inside(e.parentElement))
              .filter(e => e.getBoundingClientRect().right > 360.5
                  && e.getBoundingClientRect().width > 1)
              .map(e => e.outerHTML.slice(0, 120));
        }"""
    )
    assert out == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    buttons = page.locator("header .sidebar-toggle:visible").all()
    assert len(buttons) == 2 if name in STEMS else buttons  # all pages; the sections of this one
    for button in buttons:
        button.click()
        assert page.locator("dialog[open]").bounding_box()["width"] <= 360
        assert violations(page) == []
        page.keyboard.press("Escape")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_word_is_found_as_it_is_typed(scheme, visit):
    page = visit("index", color_scheme=scheme, viewport={"width": 1400, "height": 900})
    page.keyboard.press("Control+k")
    page.keyboard.type("causal mask", delay=30)
    page.wait_for_selector("dialog[open] ul.search a:has-text('04 · Attention')")
    page.wait_for_selector("dialog[open] ul.search .context")
    assert violations(page) == []
    page.click("dialog[open] ul.search a:has-text('04 · Attention')")
    page.wait_for_url("**/04_attention.html*")


@pytest.mark.browser
def test_a_reader_can_ask_for_the_dark(visit):
    page = visit("glossary", color_scheme="light", viewport={"width": 1400, "height": 900})
    page.click("header .theme-switch-button")
    page.click("header [data-mode=dark].theme-change-button")
    assert page.get_attribute("html", "data-theme") == "dark"
    page.reload()
    assert page.get_attribute("html", "data-theme") == "dark"


@pytest.mark.browser
def test_it_can_be_read_from_the_disk(site, browser):
    """A book that somebody was sent: no server, and the search works all the same."""
    page = browser.new_page()
    page.goto(f"{site.as_uri()}/search.html?q=overfitting")
    page.wait_for_selector("#search-results a:has-text('06 · Training')")
    page.close()
