"""The lessons as a web site: `python -m tools.site . build/site`.

Made by Sphinx with myst-nb of the README, the guides beside it and the lessons with their stored outputs. Nothing in
it is fetched from elsewhere: formulas are MathML, which browsers show by themselves. With npm it has a live page too, see
`tools/live`.
"""

import argparse
import re
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

from miniclip_utils.cli import run_command
from miniclip_utils.errors import UserError

from .course import read_lesson
from .live import NoRuntime, build_live

GUIDES = ("TEACHING", "CONTRIBUTING")
# Every page has a search box, a switch for dark mode, its source to download, and a table of its chapters.
SETTINGS: dict[str, Any] = {
    "project": "mini-CLIP",
    "author": "the mini-CLIP authors",
    "root_doc": "README",
    "extensions": ["myst_nb", "tools.site"],
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},  # no kernel, no widgets; each has a picture beside it
    "myst_enable_extensions": ["dollarmath"],
    "myst_heading_anchors": 3,
    "myst_heading_slug_func": "tools.site.anchor",
    "html_theme": "sphinx_book_theme",
    "html_title": "mini-CLIP",
    "html_math_renderer": "mathml",
    "html_show_copyright": False,
    "html_theme_options": {"home_page_in_toc": True, "navbar_persistent": []},
    "html_context": {"default_mode": "auto"},
}
CONTENTS = """
```{{toctree}}
:caption: Lessons
:hidden:

{lessons}
```

```{{toctree}}
:caption: Guides
:hidden:

{guides}
```
"""

# Widgets of the lessons, and where on the live page each has its twin.
TWINS = {"prompt_box": "drawings", "temperature_matrix": "temperature", "batch_explorer": "batch"}


def anchor(heading: str) -> str:
    """The anchor of a heading, as JupyterLab makes it, so that the lessons' links work in both."""
    return heading.replace(" ", "-")


def _visit_math(visitor: Any, node: nodes.Element) -> None:
    visitor.body.append(convert(node.astext(), display="inline"))
    raise nodes.SkipNode


def _visit_math_block(visitor: Any, node: nodes.Element) -> None:
    visitor.body.append(convert(node.astext(), display="block"))
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls when it loads this module as an extension."""
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def collect(course: Path, source: Path, has_live: bool) -> None:
    """Copies what belongs on the site to the folder `source`, and adds a table of contents to the README.

    Args:
        has_live: there is a live page, to which the README and the lessons then lead.
    """
    for folder in ("notebooks", "figure"):
        (source / folder).mkdir(parents=True)
    for path in course.glob("figure/*.svg"):
        shutil.copy(path, source / "figure")
    for path in course.glob("notebooks/*.ipynb"):
        nbformat.write(read_lesson(path), source / "notebooks" / path.name)
    for path in source.glob("notebooks/*.ipynb") if has_live else ():
        lead_to_twins(path)
    guides = [name for name in GUIDES if (course / f"{name}.md").exists()]
    lessons = sorted(f"notebooks/{path.stem}" for path in course.glob("notebooks/*.ipynb"))
    for name in ("README", *guides):
        text = (course / f"{name}.md").read_text(encoding="utf-8")
        # What a link leads to in the folder of the course is not always on the site: then only its words stay.
        text = re.sub(
            r"(?<!!)\[([^]]*)\]\((?!http|#)([^)#]*)[^)]*\)",
            lambda link: link[0] if link[2].endswith((".ipynb", *(f"{guide}.md" for guide in guides))) else link[1],
            text,
        )
        if name == "README":
            if has_live:
                claim = "Try it now, in your browser: type a sentence, draw a shape"
                text = text.replace("\n## ", f'\n<p><a href="live/index.html">{claim}</a></p>\n\n## ', 1)
            text += CONTENTS.format(lessons="\n".join(lessons), guides="\n".join(guides))
        (source / f"{name}.md").write_text(text, encoding="utf-8")


def lead_to_twins(lesson: Path) -> None:
    """Puts a link below each widget of a lesson that the live page has too."""
    notebook = read_lesson(lesson)
    for index, cell in reversed(list(enumerate(notebook.cells))):
        twin = next((place for name, place in TWINS.items() if f"widgets.{name}(" in cell.source), None)
        if twin and cell.cell_type == "code":
            link = f'<p><a href="../live/index.html#{twin}">Move it here, in your browser</a></p>'
            notebook.cells.insert(index + 1, nbformat.v4.new_markdown_cell(link))
    nbformat.write(notebook, lesson)


def add_live(out: Path) -> bool:
    """Builds the live page, and returns whether it is there; if not, a warning says why."""
    try:
        build_live(out)
    except NoRuntime as error:
        warnings.warn(f"the site is built without its live page: {error}", stacklevel=1)
    return out.exists()


def build_site(course: Path, out: Path) -> None:
    """Builds the site from the folder of the course.

    Raises:
        UserError: Sphinx had something to complain about; it says on stderr what.
    """
    if not (course / "notebooks").is_dir():
        raise UserError(f"there are no lessons in {str(course)!r}: start from the folder of the course")
    has_live = add_live(out / "live")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        collect(course, source, has_live)
        app = Sphinx(source, None, out, Path(folder) / "doctrees", "html", SETTINGS, status=None, freshenv=True)
        app.build()
    if app._warncount:
        raise UserError(f"the site in {str(out)!r} has the {app._warncount} faults that stand above: mend them")
    shutil.copy(out / "README.html", out / "index.html")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.site", description="Make a web site of the lessons.")
    parser.add_argument("course", type=Path, help="folder of the course")
    parser.add_argument("out", type=Path, help="folder for the site")
    options = parser.parse_args()
    build_site(options.course, options.out)
    print(f"Open {options.out / 'index.html'} in a browser.")


if __name__ == "__main__":
    run_command(main)
