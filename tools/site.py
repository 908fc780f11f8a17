"""The lessons as a web site: `python -m tools.site . build/site`.

Made by Sphinx with myst-nb of the README, the guides beside it and the lessons with their stored outputs. Nothing in
it is fetched from elsewhere: formulas are MathML, which browsers show by themselves.
"""

import argparse
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

from miniclip_utils.cli import run_command
from miniclip_utils.errors import UserError

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


def collect(course: Path, source: Path) -> None:
    """Copies what belongs on the site to the folder `source`, and adds a table of contents to the README."""
    for folder, pattern in (("notebooks", "*.ipynb"), ("figure", "*.svg")):
        (source / folder).mkdir(parents=True)
        for path in course.glob(f"{folder}/{pattern}"):
            shutil.copy(path, source / folder)
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
            text += CONTENTS.format(lessons="\n".join(lessons), guides="\n".join(guides))
        (source / f"{name}.md").write_text(text, encoding="utf-8")


def build_site(course: Path, out: Path) -> None:
    """Builds the site from the folder of the course.

    Raises:
        UserError: Sphinx had something to complain about; it says on stderr what.
    """
    if not (course / "notebooks").is_dir():
        raise UserError(f"there are no lessons in {str(course)!r}: start from the folder of the course")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        collect(course, source)
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
