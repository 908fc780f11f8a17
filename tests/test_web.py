"""Slides and web site, built of every lesson: all links lead somewhere, and nothing is fetched from elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from .test_lessons import LESSONS, ROOT

slides = pytest.importorskip("tools.slides", reason="the extra `teach` is not installed")
site = pytest.importorskip("tools.site", reason="the extra `teach` is not installed")
live = pytest.importorskip("tools.live")


class Page(HTMLParser):
    """What an HTML file links to, fetches by itself, and can be linked to by."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.fetched, self.ids, self.tags = [], [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.ids |= {values[key] for key in ("id", "name") if key in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif address := values.get("src") or (values.get("href") if tag == "link" else None):
            self.fetched.append(address)


def faults(folder: Path) -> list[str]:
    """Links to nowhere, and what is fetched from elsewhere, in the pages and style sheets of a folder."""
    pages = {
        path: Page(path) for path in folder.rglob("*.html") if "reveal.js" not in path.parts and "_static" not in path.parts
    }
    found = []
    for path, page in pages.items():
        for address in page.links + page.fetched:
            parts = urlsplit(address)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                found += [f"{path.name} fetches {address}"] if address in page.fetched else []
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                found.append(f"{path.name} leads to {address}, which is not there")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                found.append(f"{path.name} leads to {address}: there is no such place")
        found += [
            f"{path.name} fetches {link}"
            for link in re.findall(r"(?:from|import\()\s*['\"](https?:[^'\"]+)", path.read_text())
        ]
    for sheet in folder.rglob("*.css"):
        imports = re.findall(r"(?:@import\s+|url\()['\"]?(https?:[^'\")]+)", sheet.read_text(encoding="utf-8"))
        unused = "theme" in sheet.parts and sheet.name != "white.css"  # of reveal.js
        found += [] if unused else [f"{sheet.name} fetches {address}" for address in imports]
    return found


def test_faults_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<script src="https://x.org/x.js"></script><a href="b.html">b</a><a href="#gone">c</a><a href="https://fine.org">d</a>'
    )
    (tmp_path / "a.css").write_text("@import url(https://x.org/f.css);")
    assert len(faults(tmp_path)) == 4


@pytest.fixture(scope="module")
def built_site(tmp_path_factory):
    """The live page is there without its models, which tests/test_live.py tries."""
    out = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "fetch_runtime", dict)
        patch.setattr(live, "live_data", dict)
        site.build_site(ROOT, out)  # complains about any warning of Sphinx
    return out


def test_site_is_whole_and_fetches_nothing(built_site):
    assert faults(built_site) == []
    for name in ("index.html", "search.html", "searchindex.js", "live/index.html", "live/live.js"):
        assert (built_site / name).is_file()


def test_site_leads_to_the_live_page_and_back(built_site):
    assert "live/index.html" in Page(built_site / "index.html").links
    page = Page(built_site / "live/index.html")
    for lesson, place in (("00_start_here", "drawings"), ("05_similarity_and_loss", "temperature")):
        assert f"../live/index.html#{place}" in Page(built_site / f"notebooks/{lesson}.html").links
        assert any(link.startswith(f"../notebooks/{lesson}.html#") for link in page.links)


def test_without_npm_the_site_has_no_live_page_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "live").mkdir()  # of an earlier time
    with pytest.warns(UserWarning, match="without its live page: npm is not installed"):
        assert not site.add_live(tmp_path / "live")
    site.collect(ROOT, tmp_path / "source", has_live=False)
    texts = [path.read_text(encoding="utf-8") for path in (tmp_path / "source").rglob("*.*") if path.suffix != ".svg"]
    assert texts and not [text for text in texts if "live/index.html" in text]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_site_shows_figures_formulas_and_folds_of_a_lesson(built_site, lesson):
    page = Page(built_site / f"notebooks/{lesson.stem}.html")
    cells = nbformat.read(lesson, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    plots = sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))
    assert page.tags.count("img") >= text.count("![") + plots
    assert page.tags.count("details") >= text.count("<details>")
    assert page.tags.count("math") == len(slides.MATH.findall(text))


@pytest.fixture(scope="module")
def built_slides(tmp_path_factory):
    out = tmp_path_factory.mktemp("slides")
    slides.main([str(ROOT / "notebooks"), str(out)])
    return out


def test_slides_are_whole_and_fetch_nothing(built_slides):
    assert faults(built_slides) == []


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_slides_of_a_lesson(built_slides, lesson):
    arranged = slides.arrange(nbformat.read(lesson, as_version=4)).cells
    kinds = [cell.metadata.slideshow.slide_type for cell in arranged]
    assert kinds[0] == "slide" and kinds.count("slide") >= 4
    for before, after, kind in zip(arranged, arranged[1:], kinds[1:], strict=False):
        if "**Predict" in before.source and after.cell_type == "code":
            assert kind == "subslide", "the result stands beside the question"
    page = Page(built_slides / f"{lesson.stem}.slides.html")
    text = "\n".join(cell.source for cell in arranged)
    assert "<summary>Solution" not in text and "<summary>Hint" not in text
    assert page.tags.count("section") > 1.5 * kinds.count("slide")
    code = [cell.source for cell in nbformat.read(lesson, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.source for cell in arranged if cell.cell_type == "code"] == code


def test_a_heading_starts_a_slide_and_what_is_folded_stays_whole():
    text = "One.\n\n## Two\n\nThree.\n\n<details><summary>Answer</summary>\n\nFour.\n\n</details>\n\n```python\na\n\nb\n```"
    one, two, answer, code = slides.blocks_of(text)
    assert (one, two) == ("One.", "## Two\n\nThree.")
    assert answer.endswith("Four.\n\n</details>") and code.endswith("b\n```")
