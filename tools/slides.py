"""The lessons as slides: `python -m tools.slides notebooks build/slides`.

Made by nbconvert for reveal.js, which lies beside the slides: they need no internet. A chapter of a lesson is a column
of slides: → goes to the next chapter, ↓ through this one. Hints and solutions are left out.
"""

import argparse
import base64
import copy
import importlib.util
import re
import shutil
import struct
from pathlib import Path

from latex2mathml.converter import convert
from nbconvert import SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from miniclip_utils.cli import run_command
from miniclip_utils.errors import UserError

from .course import LESSON_LINK, lessons_in, read_lesson

WIDTH, HEIGHT = 1280, 800  # of a slide, in pixels
LINE = 36  # height of a line of text in pixels
CHARACTERS = 95  # in a line of text
FIGURE_HEIGHT = 440  # at which a diagram is shown, in pixels
FOLDED = re.compile(r"<details>.*?</details>", re.S)
MATH = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.S)

# nbconvert's page for reveal.js without what it fetches: require.js, jQuery, mermaid, MathJax.
TEMPLATE = """\
{% extends 'index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_css %}
<style>
:root { --jp-cell-prompt-width: 0px; }
.reveal .jp-Prompt, .reveal .jp-InputPrompt, .reveal .jp-OutputPrompt { display: none; }
.reveal .slides section { text-align: left; }
.reveal .slides section > section, .reveal .slides section:not(.stack) { max-height: HEIGHTpx; overflow-y: auto; }
.reveal { --r-heading-text-transform: none; }
.reveal .jp-RenderedHTMLCommon { font-size: 24px; }
.reveal .jp-RenderedMarkdown img { display: block; margin: 0 auto; max-height: FIGUREpx; background: white; }
.reveal .jp-RenderedHTMLCommon table { font-size: 20px; margin: 0; }
.reveal .jp-RenderedImage img { margin: 0; max-height: 560px; }
.reveal pre { width: 100%; margin: 0; box-shadow: none; font-size: inherit; }
</style>
{% endblock %}
{% block footer_js %}
<script src="{{ resources.reveal.url_prefix }}/dist/reveal.js"></script>
<script src="{{ resources.reveal.url_prefix }}/plugin/notes/notes.js"></script>
<script>
Reveal.initialize({ width: WIDTH, height: HEIGHT, margin: 0.04, center: false, hash: true,
                    transition: 'none', plugins: [RevealNotes] });
</script>
{% endblock %}
"""


def blocks_of(markdown: str) -> list[str]:
    """Paragraphs, lists, tables, headings; what is folded or fenced stays in one piece."""
    blocks: list[str] = []
    for part in re.split(r"\n\n+", markdown.strip()):
        if blocks and (blocks[-1].count("<details>") > blocks[-1].count("</details>") or blocks[-1].count("```") % 2):
            blocks[-1] += f"\n\n{part}"
        elif blocks and re.fullmatch(r"#+ .*", blocks[-1]) and not re.match(r"#+ ", part):
            blocks[-1] += f"\n\n{part}"  # a heading never stands alone at the end of a slide
        else:
            blocks.append(part)
    return blocks


def height_of(cell: NotebookNode) -> int:
    """About how tall a cell will be on a slide, in pixels."""
    if cell.cell_type == "markdown":
        figures = cell.source.count("![")
        text = FOLDED.sub("▸", re.sub(r"!\[.*?\]\(.*?\)", "", cell.source))
        lines = sum(1.8 if line.startswith("|") else 1 for line in text.splitlines())
        wrapped = sum(len(line) // CHARACTERS for line in text.splitlines())
        return round(LINE * (lines + wrapped + 0.5)) + FIGURE_HEIGHT * figures
    height = 0.8 * LINE * (cell.source.count("\n") + 2)
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            height += min(struct.unpack(">I", base64.b64decode(data["image/png"])[20:24])[0], 560)
        else:
            height += 0.8 * LINE * ("".join(output.get("text") or data.get("text/plain", "")).count("\n") + 1)
    return round(height)


def arrange(lesson: NotebookNode) -> NotebookNode:
    """A lesson cut into slides that nbconvert understands by the cells' `slideshow` metadata.

    Each chapter (`##`) starts a column, each section (`###`) and each result that the lesson asks to predict a slide of
    its own. Else a slide takes what fits.
    """
    slides = copy.deepcopy(lesson)
    slides.cells, filled, predicted = [], 0, False
    for cell in lesson.cells:
        pieces = [cell]
        if cell.cell_type == "markdown":
            text = re.sub(r"<details><summary>(Hint|Solution).*?</details>", "", cell.source, flags=re.S)
            text = re.sub(r"\[([^]]*)\]\(#[^)]*\)", r"\1", text)  # slides have no places to lead to
            text = LESSON_LINK.sub(r"](\1.slides.html", text).replace("](../figure/", "](figure/")
            pieces = [new_markdown_cell(block) for block in blocks_of(text) if block]
        for piece in pieces:
            heading = re.match(r"#+ ", piece.source) if piece.cell_type == "markdown" else None
            height = height_of(piece)
            kind = "-"
            if (heading and len(heading[0]) <= 3) or piece.source.startswith("**Recap"):
                kind = "slide"
            elif heading or filled + height > 0.95 * HEIGHT or (predicted and piece.cell_type == "code"):
                kind = "subslide"
            filled = height if kind != "-" else filled + height
            predicted = "**Predict" in piece.source
            piece.metadata["slideshow"] = {"slide_type": kind}
            if piece.cell_type == "markdown":
                piece.source = MATH.sub(_mathml, piece.source)
            slides.cells.append(piece)
    return slides


def _mathml(formula: re.Match) -> str:
    """A formula as browsers show it by themselves."""
    block, inline = formula.groups()
    return convert(block or inline, display="block" if block else "inline")


def copy_reveal(out: Path) -> None:
    """Copies reveal.js, as the package sphinx-revealjs brings it, to a folder."""
    spec = importlib.util.find_spec("sphinx_revealjs")
    if spec is None or spec.origin is None:
        raise UserError("reveal.js is not installed: install the extra `teach` (pip install -e '.[teach]')")
    source = Path(spec.origin).parent / "_static" / "revealjs"
    for part in ("dist", "plugin/notes"):
        shutil.copytree(source / part, out / part, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.map"))


def make_slides(notebook: Path, out: Path) -> Path:
    """Writes one lesson as slides, and returns the file. reveal.js and the folder `figure` must lie beside it."""
    page = TEMPLATE.replace("FIGUREpx", f"{FIGURE_HEIGHT}px").replace("WIDTH", str(WIDTH)).replace("HEIGHT", str(HEIGHT))
    exporter = SlidesExporter(
        raw_template=page, reveal_url_prefix="reveal.js", reveal_theme="white", exclude_anchor_links=True
    )
    lesson = arrange(read_lesson(notebook))
    html, _ = exporter.from_notebook_node(lesson, {"metadata": {"name": notebook.stem}})
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{notebook.stem}.slides.html"
    path.write_text(html, encoding="utf-8")
    return path


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.slides", description="Make slides of every lesson.")
    parser.add_argument("notebooks", type=Path, help="folder of the lessons")
    parser.add_argument("out", type=Path, help="folder for the slides")
    options = parser.parse_args(arguments)
    lessons = lessons_in(options.notebooks)
    copy_reveal(options.out / "reveal.js")
    shutil.copytree(options.notebooks.parent / "figure", options.out / "figure", dirs_exist_ok=True)
    for lesson in lessons:
        print(make_slides(lesson, options.out))


if __name__ == "__main__":
    run_command(main)
