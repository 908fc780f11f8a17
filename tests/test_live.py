"""The live page in a real browser that has no network, opened from the disk: every control by mouse and by keyboard.

The page's policy forbids to evaluate strings, so the tests look at what it shows, as a reader does. Screenshots go to
`build/screenshots`.
"""

import base64
import io
import re
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from miniclip_utils.checkpoint import load_run
from miniclip_utils.classroom.photos import load_photos
from miniclip_utils.errors import UserError
from miniclip_utils.evaluate import class_features, encode_images
from miniclip_utils.inference import text_query
from miniclip_utils.losses import clip_loss, loss_floor
from miniclip_utils.shapes import CLASS_NAMES, COLORS, SHAPES

from .test_browser import BROWSER, IS_ROOT, SCREENSHOTS, playwright

pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
live = pytest.importorskip("tools.live")

LIMIT = 20_000_000  # bytes of the page and its models


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of the page, whose path has spaces and letters of other scripts."""
    out = tmp_path_factory.mktemp("live") / "Мой сайт · 网页" / "live"
    try:
        live.build_live(out)
    except live.NoRuntime as error:
        pytest.skip(f"the live page is not tried: {error}")
    return out


@pytest.fixture(scope="module")
def browser():
    if not BROWSER:
        pytest.skip("no Chromium is installed: the live page is not tried in a browser")
    with playwright.sync_playwright() as engine:
        options = ["--disable-dev-shm-usage", *(["--no-sandbox"] if IS_ROOT else [])]
        browser = engine.chromium.launch(executable_path=BROWSER, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def open_page(browser, built):
    """Opens the page without a network, in a window of some width; at the end no console has said anything."""
    said, contexts = [], []

    def open_page(width=1000, colors="light", touch=False):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=colors, has_touch=touch, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto((built / "index.html").as_uri(), timeout=120_000)
        page.wait_for_selector("html[data-first-answer]", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture(scope="module")
def page(open_page):
    return open_page()


@pytest.fixture(scope="module")
def shapes():
    return load_run("shapes")


@pytest.fixture(scope="module")
def drawings():
    return live.gallery()


def eventually(check) -> None:
    """Repeats a check until it holds; what it needs is under way."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def compare(found, wanted) -> None:
    assert found == wanted


def found(page, box: str) -> list[tuple[float, str]]:
    """Cosine and name of what a prompt box shows, best first."""
    items = page.locator(f"#{box} .found li")
    shown = [items.nth(k) for k in range(items.count())]
    return [(float(x.locator(".cosine").inner_text()), x.get_by_role("img").get_attribute("aria-label")) for x in shown]


def names(page) -> list[tuple[str, float]]:
    """What the model says to the drawing on the sheet, and the cosines, best first."""
    spans = [text.strip() for text in page.locator("#names span").all_inner_texts()]
    return list(zip(spans[::2], map(float, spans[1::2]), strict=True))


def number_in(text: str, pattern: str) -> float:
    return float(re.search(pattern, text)[1])


def test_the_page_is_light(built):
    sizes = {path.name: path.stat().st_size for path in built.iterdir()}
    assert sizes.keys() == {"index.html", "live.css", "live.js", "data.js"}
    assert sum(sizes.values()) <= LIMIT, sizes


def processor_seconds() -> float:
    """What the processes that this one has started, the browser's among them, have computed so far."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(time.user + time.system for time in times)


def test_the_first_answer_comes_within_three_seconds(open_page):
    """By the clock of the page, or on a machine with other work by the processor time of the whole browser, in which a
    page that has two cores to itself does not take longer. The best of some cold loads, each with nothing in its cache."""
    seconds = []
    for _ in range(5):
        before = processor_seconds()
        page = open_page()
        computed = processor_seconds() - before
        clock = float(page.locator("html").get_attribute("data-first-answer")) / 1000
        page.close()
        print(f"first answer after {clock:.2f} s; the whole page took {computed:.2f} s of processor time")
        seconds.append(min(clock, computed))
        if seconds[-1] <= 3:
            break
    assert min(seconds) <= 3, seconds


SECONDS_TO_RANK = """box => new Promise(resolve => {
    const list = document.querySelector('#drawings .found'), start = performance.now();
    new MutationObserver(() => requestAnimationFrame(() => resolve((performance.now() - start) / 1000)))
        .observe(list, { childList: true });
    box.value = box.value.includes('blue') ? 'a photo of a small red star.' : 'a photo of a small blue star.';
    box.dispatchEvent(new Event('input'));
})"""


def test_from_typing_to_the_ranking_takes_less_than_a_tenth_of_a_second(page):
    """From the event of the keyboard to the next frame; the best of ten."""
    seconds = [page.locator("#drawings-sentence").evaluate(SECONDS_TO_RANK) for _ in range(10)]
    print(f"ranking after {1000 * min(seconds):.0f} ms")
    assert min(seconds) < 0.1, seconds


BOXES = {"drawings": ("shapes", "600 drawings"), "photos": ("cifar10", "200 photographs")}


@pytest.mark.parametrize("box", BOXES)
def test_a_prompt_box_ranks_as_pytorch_does(page, drawings, box):
    name, label = BOXES[box]
    run, pictures = load_run(name), drawings if box == "drawings" else load_photos()
    features = encode_images(run.model, pictures.images)
    for sentence in ("a photo of a ship", "The PHOTO, a red frog", "this is a moon.", "a"):
        page.get_by_label(label).fill(sentence)
        best = (features @ text_query(run, sentence)).topk(8)

        def as_in_pytorch(best=best):
            shown = found(page, box)
            assert [cosine for cosine, _ in shown] == pytest.approx(best.values.tolist(), abs=0.0051)
            wanted = [pictures.class_names[pictures.labels[index]] for index in best.indices.tolist()]
            assert sorted(name for _, name in shown) == sorted(wanted)

        eventually(as_in_pytorch)


def test_never_seen_pairs_are_marked(page):
    page.get_by_label("600 drawings").fill("a photo of a large red heart.")
    eventually(lambda: compare(page.locator("#drawings .found li:has(em) .picture").count(), 6))
    assert {name for _, name in found(page, "drawings")} == {"large red heart", "large red circle"}


@pytest.mark.parametrize("box", BOXES)
def test_a_sentence_that_cannot_be_read_is_answered_calmly(page, box):
    name, label = BOXES[box]
    run, field, note = load_run(name), page.get_by_label(label), page.locator(f"#{box} .note")
    sentence = "A Žluťoučký_kůň — ½!"
    field.fill(sentence)
    unknown = ", ".join(f"“{word}”" for word in run.tokenizer.unknown_words([sentence]))
    eventually(lambda: compare(note.inner_text(), f"It never learned {unknown}: to it, all such words are the same."))
    assert len(found(page, box)) == 8
    for sentence, answer in {
        "": "The box is empty",
        "   ": "The box is empty",
        "<giraffe>": "knows none of the words in “<giraffe>”",
        "a " * 50: "has 50 words and punctuation marks, and this model reads at most",
    }.items():
        field.fill(sentence)
        eventually(lambda: compare(answer in note.inner_text() and found(page, box), []))  # noqa: B023
    field.fill("a photo")
    eventually(lambda: compare((note.inner_text(), len(found(page, box))), ("", 8)))


def test_the_boxes_are_worked_by_mouse_and_by_keyboard(page):
    field = page.get_by_label("600 drawings")
    field.click()
    field.press("ControlOrMeta+a")
    page.keyboard.type("a green moon")
    eventually(lambda: compare(found(page, "drawings")[0][1], "large green moon"))
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    eventually(lambda: compare(field.input_value(), "a photo of a small blue ring."))
    eventually(lambda: compare(found(page, "drawings")[0][1], "small blue ring"))
    page.locator("#photos .examples button").nth(1).click()
    eventually(lambda: compare(found(page, "photos")[0][1], "frog"))
    page.locator("#photos summary").press("Enter")
    assert page.locator("#photos .words").inner_text() == " ".join(load_run("cifar10").tokenizer.vocabulary)


def said_by_pytorch(shapes, image: torch.Tensor) -> list[tuple[str, float]]:
    texts = class_features(shapes.model, shapes.tokenizer, CLASS_NAMES, ["a photo of a {}."])
    best = (encode_images(shapes.model, image[None]) @ texts.T)[0].topk(5)
    return [(CLASS_NAMES[label], cosine) for label, cosine in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def assert_named_as_by_pytorch(page, shapes, image) -> None:
    wanted = said_by_pytorch(shapes, image)
    assert [name for name, _ in names(page)] == [name for name, _ in wanted]
    assert [cosine for _, cosine in names(page)] == pytest.approx([cosine for _, cosine in wanted], abs=0.0051)
    assert page.locator("#named").inner_text().startswith(f"It says: {wanted[0][0]}")


def seen(page) -> torch.Tensor:
    """The pixels that the page says the model sees, uint8 (3, 32, 32)."""
    address = page.locator("#seen").evaluate("canvas => canvas.toDataURL()")
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.mark.parametrize("color, shape", [("red", "heart"), ("cyan", "star")])
def test_an_example_reaches_the_model_pixel_by_pixel(page, shapes, drawings, color, shape):
    page.get_by_role("radio", name=color).check()
    page.get_by_label("Example").select_option(shape)
    page.get_by_role("button", name="Draw it").click()
    like = [index for index, label in enumerate(drawings.labels) if CLASS_NAMES[label].endswith(f"{color} {shape}")]
    eventually(lambda: compare(any(torch.equal(seen(page), drawings.images[index]) for index in like), True))
    eventually(lambda: assert_named_as_by_pytorch(page, shapes, seen(page)))


SQUARE = [((80, y), (240, y)) for y in range(80, 241, 30)]
CROSS = [((160, 80), (160, 240)), ((80, 160), (240, 160))]


def draw(page, strokes) -> None:
    """Strokes of the mouse, each from one place on the sheet to another."""
    page.locator("#sheet").scroll_into_view_if_needed()
    box = page.locator("#sheet").bounding_box()
    for start, end in strokes:
        page.mouse.move(box["x"] + start[0], box["y"] + start[1])
        page.mouse.down()
        page.mouse.move(box["x"] + end[0], box["y"] + end[1])
        page.mouse.up()


def test_what_a_mouse_draws_is_named_while_it_draws(page, shapes):
    page.get_by_role("button", name="Clear").click()
    eventually(lambda: compare(page.locator("#named").inner_text(), "Nothing is drawn yet."))
    assert names(page) == [] and (seen(page) == seen(page)[:, :1, :1]).all()  # an empty sheet
    for color in COLORS:  # each over the one before
        page.get_by_role("radio", name=color).check()
        draw(page, SQUARE)
        eventually(lambda: compare(names(page)[0][0], f"large {color} square"))  # noqa: B023
    eventually(lambda: assert_named_as_by_pytorch(page, shapes, seen(page)))
    page.get_by_role("button", name="Clear").click()
    draw(page, CROSS)  # as the page proposes
    eventually(lambda: compare(names(page)[0][0], "large pink cross"))
    page.get_by_role("button", name="Clear").press("Enter")
    eventually(lambda: compare(page.locator("#named").inner_text(), "Nothing is drawn yet."))


def test_what_keys_draw_is_named(page, shapes):
    sheet, pen = page.locator("#sheet"), page.locator("#pen")
    page.get_by_role("button", name="Clear").press("Enter")
    page.get_by_role("radio", name="yellow").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    assert page.get_by_role("radio", name="yellow").is_checked()
    page.get_by_label("Pen").press("End")
    for key in ("Shift+Tab", "Shift+Tab"):
        page.keyboard.press(key)
    assert sheet.evaluate("sheet => sheet === document.activeElement") and pen.is_visible()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    eventually(lambda: compare(page.locator("#named").inner_text(), "Nothing is drawn yet."))  # the pen is up
    page.keyboard.press("Space")
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowDown", "ArrowRight"):
        for _ in range(12 if key in ("ArrowRight", "ArrowLeft") else 6):
            page.keyboard.press(key)
    page.keyboard.press("Space")
    eventually(lambda: assert_named_as_by_pytorch(page, shapes, seen(page)))
    assert "yellow" in names(page)[0][0]
    before = seen(page)
    page.keyboard.press("ArrowUp")
    assert torch.equal(seen(page), before)
    page.get_by_label("Pen").press("ArrowLeft")
    assert not pen.is_visible()


def test_a_finger_draws(open_page, shapes):
    page = open_page(width=375, touch=True)
    empty = seen(page)
    page.locator("#sheet").tap()
    eventually(lambda: compare(torch.equal(seen(page), empty), False))
    eventually(lambda: assert_named_as_by_pytorch(page, shapes, seen(page)))


def test_the_temperature_is_that_of_the_notebook(page):
    run, photos = load_run("cifar10"), load_photos()
    pictures = encode_images(run.model, photos.images[20 * torch.arange(10) + 9])
    texts = class_features(run.model, run.tokenizer, photos.class_names, ["a photo of a {}."])
    slider, part = page.locator("#scale"), page.locator("#temperature")

    def as_in_pytorch():
        scale = 10 ** float(slider.input_value())
        assert part.locator("output").inner_text() == f"{scale:.1f}"
        said = part.locator(".answer").inner_text()
        loss = clip_loss(pictures, texts, torch.tensor(scale)).item()
        assert number_in(said, r"Loss ([\d.]+)\.") == pytest.approx(loss, abs=0.002)
        shares = (scale * pictures @ texts.T).softmax(dim=1)
        assert number_in(said, r"gets (\d+)%") == pytest.approx(100 * shares.diag().mean().item(), abs=0.51)
        cells = [int(text.rstrip("%")) for text in part.locator("td").all_inner_texts() if text]
        assert cells == pytest.approx((100 * shares).flatten().tolist(), abs=0.51)

    as_in_pytorch()
    for key in ("Home", "End", "ArrowLeft", "PageDown"):
        before = slider.input_value()
        slider.press(key)
        assert slider.input_value() != before
        as_in_pytorch()
    slider.click()  # in its middle
    assert 0.9 < float(slider.input_value()) < 1.1
    as_in_pytorch()


def test_the_batch_explorer_counts_as_the_notebook_does(page):
    part = page.locator("#batch")

    def captions():
        shown = part.locator("thead th").all_inner_texts()
        floor = loss_floor(torch.tensor([shown.index(caption) for caption in shown])).item()
        pairs = sum(a == b for a in shown for b in shown)
        said = part.locator(".answer").inner_text()
        n = len(shown)
        assert said.startswith(f"{pairs - n} of {n * n - n} cells off the diagonal are true pairs.")
        assert number_in(said, r"Floor of the loss: (\d\.\d\d)") == pytest.approx(floor, abs=0.0051)
        assert number_in(said, r"accuracy: (\d+)%") == pytest.approx(100 * len(set(shown)) / n, abs=0.51)
        assert part.locator("td.match").count() == pairs
        pictures = part.locator("tbody th").get_by_role("img").evaluate_all("all => all.map(x => x.ariaLabel)")
        assert all(name.endswith(caption) for name, caption in zip(pictures, shown, strict=True))
        return shown

    first = captions()
    assert len(first) == 8
    page.locator("#pairs").press("End")
    assert len(captions()) == 12
    page.locator("#says").select_option("shape")
    assert set(captions()) <= set(SHAPES)
    page.locator("#says").focus()
    page.keyboard.press("ArrowUp")
    assert all(len(caption.split()) == 2 for caption in captions())
    before = captions()
    page.locator("#number").press("ArrowRight")
    assert captions() != before
    page.locator("#number").click()
    assert number_in(page.locator("#number-value").inner_text(), r"(\d+)") == pytest.approx(50, abs=2)
    captions()


CONTROLS = "input, select, button, a, summary, [tabindex]"
WITHOUT_A_NAME = """controls => controls.filter(control => {
    const labels = [...(control.labels ?? [])].map(label => label.textContent).join();
    return !(labels || control.ariaLabel || control.textContent).trim();
}).map(control => control.outerHTML)"""
CONTRASTS = """() => {
    const light = color => {
        const [r, g, b] = color.match(/[\\d.]+/g).map(part => {
            const c = part / 255;
            return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = node => {
        const color = getComputedStyle(node).backgroundColor;
        return color.endsWith(', 0)') ? ground(node.parentElement) : color;
    };
    const words = 'p, a, h1, h2, label, button, input[type="text"], select, summary, legend, em, td, th';
    return [...document.querySelectorAll(words)]
        .map(node => [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => b - a))
        .map(([lighter, darker]) => (lighter + 0.05) / (darker + 0.05));
}"""


@pytest.mark.parametrize("width, colors", [(1000, "light"), (1000, "dark"), (375, "light"), (375, "dark")])
def test_it_fits_the_screen_and_can_be_read(open_page, width, colors):
    page = open_page(width, colors)
    page.get_by_role("button", name="Draw it").click()
    eventually(lambda: compare(len(names(page)), 5))
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    for part in page.locator("section, canvas, input, select, button, table").all():
        box = part.bounding_box()
        assert not box or box["x"] >= 0 and box["x"] + box["width"] <= width
    assert min(page.evaluate(CONTRASTS)) >= 4.5  # as WCAG 2.2 wants of text, 1.4.3
    background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 200) == (colors == "dark")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"live-{width}-{colors}.png", full_page=True)


def test_every_control_has_a_name_and_is_reached_by_the_tab_key(page):
    assert page.locator(CONTROLS).evaluate_all(WITHOUT_A_NAME) == []
    page.evaluate("() => { document.activeElement.blur(); window.scrollTo(0, 0); }")
    page.locator("a").first.focus()
    reached = set()
    for _ in range(60):
        reached.add(page.evaluate("() => document.activeElement.id || document.activeElement.outerHTML"))
        page.keyboard.press("Tab")
    wanted = {"drawings-sentence", "photos-sentence", "sheet", "pen-size", "example-shape", "example", "clear", "scale"}
    assert wanted | {"says", "pairs", "number"} <= reached
    elements = [html for html in reached if not html.startswith("<body")]
    assert sum("giraffe" in html for html in elements) == 1  # two buttons of the same words
    assert sum("../notebooks/" in html for html in elements) == 5


def test_without_npm_or_with_another_package_there_is_no_page(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(live.NoRuntime, match="npm is not installed"):
        live.build_live(tmp_path / "live")
    npm = tmp_path / "npm"
    for script, error, message in (
        ("exit 1", live.NoRuntime, "npm cannot get onnxruntime-web@"),
        ('echo other > "$4/other.tgz"', UserError, "is not the package that was chosen: its hash is sha512-"),
    ):
        npm.write_text(f"#!/bin/sh\n{script}\n")
        npm.chmod(0o755)
        with pytest.raises(error, match=message):
            live.build_live(tmp_path / "live")
        assert not (tmp_path / "live").exists()
