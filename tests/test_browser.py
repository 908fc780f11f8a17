"""Every lesson in a real JupyterLab: headless Chromium opens it, runs all cells, looks at figures and moves widgets.

Widgets are reached and moved by the keyboard alone, and each control has a name.

The lessons lie in a folder of their own, as if downloaded alone, whose path has spaces and letters of other scripts.
Their kernels may write neither there nor into the repository. Screenshots go to `build/screenshots`.
"""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from tools.course import read_lesson

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: lessons are not tried in a browser"
)

ROOT = Path(__file__).parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SCREENSHOTS = ROOT / "build/screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0

pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium is installed: lessons are not tried in a browser")

# Python runs a `sitecustomize.py` that it finds when it starts. Kernels that run this one can read, but not write,
# below some folders, even if root, whom file permissions do not stop, starts them.
READ_ONLY = """
import os, sys

PLACES = tuple(os.environ["READ_ONLY"].split(os.pathsep))
CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.copyfile"}

def refuse(event, arguments):
    writes = event in CHANGES or event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    paths = arguments[:1] if event == "open" else arguments[:2]
    for path in paths if writes else ():
        if isinstance(path, str) and os.path.abspath(path).startswith(PLACES):
            raise PermissionError(13, "this place is read-only", path)

if any("ipykernel" in argument for argument in sys.orig_argv):
    sys.addaudithook(refuse)
"""

KERNEL_IS_READY = """() => {
    const panel = window.jupyterapp?.shell?.currentWidget, kernel = panel?.sessionContext?.session?.kernel;
    return panel?.context?.isReady && kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
RUN_HAS_ENDED = """() => {
    const panel = jupyterapp.shell.currentWidget;
    const cells = panel.content.widgets.filter(cell => cell.model.type === 'code');
    if (panel.sessionContext.session.kernel.status !== 'idle') return false;
    const waits = cell => cell.model.executionState === 'running' || cell.promptNode?.textContent.includes('*');
    if (cells.some(waits)) return false;
    const failed = cells.some(cell => cell.model.outputs.toJSON().some(output => output.output_type === 'error'));
    return failed || cells.every(cell => cell.model.executionCount !== null);
}"""
NOTEBOOK = "() => jupyterapp.shell.currentWidget.content.model.toJSON()"
CELL = "index => jupyterapp.shell.currentWidget.content.widgets[index].node"
SCROLL = "index => jupyterapp.shell.currentWidget.content.scrollToItem(index)"
IMAGES_SHOW = """([cell, least]) => {
    const images = [...cell.querySelectorAll('.jp-OutputArea-output img, .jp-RenderedMarkdown img')];
    return images.length >= least && images.every(image => image.complete && image.naturalWidth > 0);
}"""
NAME = "control => [...(control.labels ?? [])].map(label => label.textContent.trim()).join('')"
CONTROLS = ".jupyter-widgets :is(input, select, textarea, button, [tabindex='0'])"
SELECT_CELL = """index => {
    const notebook = jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = index;
    notebook.mode = 'command';
    notebook.activate();
}"""
SHOWN = """cell => [...cell.querySelectorAll('.widget-html-content, .widget-output, .widget-image, canvas')]
    .map(part => part.innerHTML + (part.src ?? '')).join()"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    """A JupyterLab with a token, over a copy of the lessons. Gives the address of a lesson, `{}` in place of its name."""
    folder = tmp_path_factory.mktemp("lab")
    course = folder / "Мой курс · 课程 mini-CLIP"
    shutil.copytree(ROOT / "figure", course / "figure")
    (course / "notebooks").mkdir()
    for path in LESSONS:
        nbformat.write(read_lesson(path), course / "notebooks" / path.name)
    (folder / "kernels").mkdir()
    (folder / "kernels/sitecustomize.py").write_text(READ_ONLY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    places = {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "RUNTIME")}
    places |= {f"JUPYTERLAB_{name}_DIR": str(folder / name) for name in ("SETTINGS", "WORKSPACES")}
    kernels = {"PYTHONPATH": str(folder / "kernels"), "READ_ONLY": os.pathsep.join([str(ROOT), str(course)])}
    options = [
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={course}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.expose_app_in_browser=True",  # as `window.jupyterapp`, which knows when a kernel is ready
        *(["--allow-root"] if IS_ROOT else []),
    ]
    base = f"http://127.0.0.1:{port}"
    with open(folder / "lab.log", "w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | places | kernels)
    try:
        for _ in range(240):
            assert server.poll() is None, (folder / "lab.log").read_text()
            try:
                urllib.request.urlopen(f"{base}/api/status?token={token}", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{base}/api/contents", timeout=60)
        yield f"{base}/lab/tree/notebooks/{{}}?token={token}&reset"
    finally:
        server.terminate()  # and with it all kernels
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as engine:
        options = ["--disable-dev-shm-usage", *(["--no-sandbox"] if IS_ROOT else [])]
        browser = engine.chromium.launch(executable_path=BROWSER, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1400, "height": 1200})
    page.set_default_timeout(120_000)
    yield page
    page.evaluate("() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.shutdown()")
    page.close()


def reach(page, control) -> None:
    """Presses the Tab key until a control has the focus."""
    for _ in range(30):
        if control.evaluate("control => control === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the keyboard does not reach {control.evaluate('control => control.outerHTML')}")


def move(page, control) -> None:
    """Steps a number, or takes the last word off a sentence, by the keyboard."""
    if control.get_attribute("type") == "number":
        is_highest = control.input_value() == control.get_attribute("max")
        page.keyboard.press("ArrowDown" if is_highest else "ArrowUp")
    else:
        page.keyboard.press("End")
        page.keyboard.press("Control+Backspace")
        page.keyboard.press("Control+Backspace")  # the last word behind its full stop


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_a_lesson_runs_shows_its_figures_and_answers(lab, page, lesson):
    base = lab.partition("/lab/")[0]
    outside: set[str] = set()
    page.on("request", lambda request: outside.add(request.url) if request.url.startswith("http") else None)
    page.goto(lab.format(lesson.name), wait_until="domcontentloaded")
    page.locator(".jp-NotebookPanel:visible .jp-Cell").first.wait_for()
    page.wait_for_function(KERNEL_IS_READY, polling=200)

    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells') }")
    page.wait_for_function(RUN_HAS_ENDED, polling=500, timeout=900_000)
    cells = [nbformat.from_dict(cell) for cell in page.evaluate(NOTEBOOK)["cells"]]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]

    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    figures = moved = 0
    for index, cell in enumerate(cells):
        kinds = [kind for output in cell.get("outputs", []) for kind in output.get("data", {})]
        pictures, widgets = kinds.count("image/png"), kinds.count("application/vnd.jupyter.widget-view+json")
        drawings = cell.source.count("](../figure/") if cell.cell_type == "markdown" else 0
        if not pictures + drawings + widgets:
            continue
        page.evaluate(SCROLL, index)
        node = page.evaluate_handle(CELL, index).as_element()
        page.wait_for_function(IMAGES_SHOW, arg=[node, pictures + drawings])
        figures += pictures
        if widgets:
            page.evaluate(SELECT_CELL, index)
        for control in node.query_selector_all(CONTROLS):
            before = node.evaluate(SHOWN)
            assert before
            assert control.evaluate(NAME), f"a control without a name: {control.evaluate('control => control.outerHTML')}"
            reach(page, control)
            move(page, control)
            page.wait_for_function(f"([cell, before]) => ({SHOWN})(cell) !== before", arg=[node, before])
            moved += 1
        if widgets:
            node.screenshot(path=SCREENSHOTS / f"{lesson.stem}-{index}.png")
    page.screenshot(path=SCREENSHOTS / f"{lesson.stem}.png")

    stored = [output for cell in nbformat.read(lesson, as_version=4).cells for output in cell.get("outputs", [])]
    assert figures == sum("image/png" in output.get("data", {}) for output in stored)
    shown = sum(len(re.findall(r"\bwidgets\.\w+\(", cell.source)) for cell in cells if cell.cell_type == "code")
    assert moved >= shown
    assert {url for url in outside if not url.startswith(base)} == set()
