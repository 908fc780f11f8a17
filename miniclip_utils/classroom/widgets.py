"""What moves in the lessons. Each widget has a static twin, a plot beside it, for readers without a kernel.

All controls are boxes, which the keyboard moves and whose names a screen reader says. A slider of ipywidgets has no such
name, and in a dropdown JupyterLab takes the arrow keys for its own: they leave for the next cell.
"""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import torch
from PIL import Image
from torch import Tensor

from ..checkpoint import Run
from ..data import ImageTextDataset
from ..errors import UserError
from ..evaluate import encode_images
from ..inference import text_query
from ..losses import loss_floor
from .style import MATCH, OTHER, TEXT

CELL = "padding:2px;width:46px;min-width:46px;height:40px;text-align:center;border:1px solid white;color:#1f2328"
HEAD = f"{CELL};font-size:11px;line-height:1.1;font-weight:normal"


def temperature_matrix(cosines: Tensor) -> widgets.Widget:
    """A number box for the scale exp(t), and what the softmax along each row makes of a matrix of cosines.

    Args:
        cosines: (N, N), images as rows, texts as columns, true pairs on the diagonal.
    """
    n = len(cosines)
    scale = widgets.BoundedFloatText(value=round(1 / 0.07, 1), min=1, max=100, step=1, description="exp(t)")
    page = widgets.HTML()

    def show(_: object = None) -> None:
        logits = scale.value * cosines.detach().cpu().double()
        shares = logits.softmax(dim=1)
        pictures, texts = ([f"<i>{letter}</i><sub>{k + 1}</sub>" for k in range(n)] for letter in "IT")
        words = [[f"{share:.0%}" for share in row] for row in shares.tolist()]
        loss = abs((logits.log_softmax(1).diag() + logits.log_softmax(0).diag()).mean().item()) / 2  # never "-0.000"
        page.value = (
            f"{_matrix_table('shares of the texts, a row for each picture', shares, pictures, texts, words)}"
            f"<p>Loss {loss:.3f}. Chance is ln {n} = {math.log(n):.3f}. "
            f"The true text gets {shares.diag().mean().item():.0%} on average.</p>"
        )

    scale.observe(show, "value")
    show()
    return widgets.VBox([scale, page])


def _matrix_table(
    title: str, matrix: Tensor, rows: Sequence[str], columns: Sequence[str], words: Sequence[Sequence[str]]
) -> str:
    """HTML: a matrix with values up to 1, the diagonal in green, the rest in orange, the stronger the larger the value."""
    lines = "<tr><td></td>" + "".join(f'<th scope="col" style="{HEAD}">{name}</th>' for name in columns) + "</tr>"
    for i, values in enumerate(matrix.clamp(min=0).tolist()):
        lines += f'<tr><th scope="row" style="{HEAD}">{rows[i]}</th>'
        for j, value in enumerate(values):
            color = _css_color(MATCH if i == j else TEXT, 0.05 + 0.85 * value)
            lines += f'<td style="{CELL};background:{color}">{words[i][j]}</td>'
        lines += "</tr>"
    return f'<table aria-label="{title}" style="background:white;font-size:13px">{lines}</table>'


def _css_color(color: tuple[float, float, float], opacity: float) -> str:
    """A colour of the palette as a style sheet writes it."""
    red, green, blue = (round(255 * part) for part in color)
    return f"rgba({red}, {green}, {blue}, {opacity:.2f})"


def batch_explorer(dataset: ImageTextDataset) -> widgets.Widget:
    """Batches of pairs as a matrix that shows which cells off the diagonal are true pairs too.

    Args:
        dataset: its class names are taken word by word; the captions may say only the last ones.
    """
    says = widgets.BoundedIntText(value=3, min=1, max=3, description="words")
    size = widgets.BoundedIntText(value=8, min=2, max=12, description="pairs N")
    number = widgets.BoundedIntText(value=0, min=0, max=99, description="batch")
    page = widgets.HTML()

    def show(_: object = None) -> None:
        generator = torch.Generator().manual_seed(number.value)
        chosen = torch.randint(len(dataset), (size.value,), generator=generator)
        names = [dataset.class_names[dataset.labels[k]].split() for k in chosen.tolist()]
        captions = [html.escape(" ".join(words[-says.value :])) for words in names]
        pictures = [_as_data_uri(dataset.images[k]) for k in chosen.tolist()]
        page.value = _batch_table(captions, pictures)

    for control in (says, size, number):
        control.observe(show, "value")
    show()
    return widgets.VBox([says, size, number, page])


def _batch_table(captions: list[str], pictures: list[str]) -> str:
    """HTML: a row for each picture, a column for each caption, true pairs in green; a cell says what it is."""
    n = len(captions)
    head = "".join(f'<th scope="col" style="{HEAD}">{caption}</th>' for caption in captions)
    rows, off_diagonal = "", 0
    for i in range(n):
        picture = f'<img width="36" height="36" src="{pictures[i]}" alt="{captions[i]}">'
        rows += f'<tr><th scope="row" style="{CELL}">{picture}</th>'
        for j in range(n):
            same = captions[i] == captions[j]
            off_diagonal += same and i != j
            what = "the pair that was drawn" if i == j else "a true pair as well" if same else "no pair"
            color = _css_color(MATCH, 0.75 if i == j else 0.35) if same else OTHER
            rows += f'<td style="{CELL};background:{color}" title="{captions[i]} / {captions[j]}: {what}">'
            rows += "✓</td>" if same else "</td>"
        rows += "</tr>"
    labels = torch.tensor([captions.index(caption) for caption in captions])
    return (
        f'<table aria-label="pictures against captions" style="background:white"><tr><td></td>{head}</tr>{rows}</table>'
        f"<p>{off_diagonal} of {n * n - n} cells off the diagonal are true pairs. "
        f"Floor of the loss: {loss_floor(labels).item():.2f}. "
        f"Best diagonal accuracy: {len(set(captions)) / n:.0%}.</p>"
    )


def _as_data_uri(image: Tensor) -> str:
    """A uint8 image (3, H, W) as the address of a PNG that holds it."""
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy()).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def prompt_box(run: Run, images: Tensor, sentence: str, top: int = 8) -> widgets.Widget:
    """A box for a sentence, and the images that a model finds most similar to it, best first.

    Args:
        images: uint8 (N, 3, H, W); they are encoded once.
        sentence: what stands in the box at first.
    """
    features = encode_images(run.model, images)  # (N, D)
    pictures = [_as_data_uri(image) for image in images]
    box = widgets.Text(value=sentence, description="sentence", layout=widgets.Layout(width="460px"))
    page = widgets.HTML()

    def show(_: object = None) -> None:
        try:
            query = text_query(run, box.value)
        except UserError as error:
            page.value = f"<p>{html.escape(str(error))}</p>"
            return
        best = (features @ query).topk(min(top, len(images)))
        cells = "".join(
            f'<td style="padding:4px;text-align:center;color:#1f2328">{cosine:.2f}<br>'
            f'<img width="64" height="64" src="{pictures[index]}" alt="rank {rank}"></td>'
            for rank, (cosine, index) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True), start=1)
        )
        unknown = ", ".join(map(repr, run.tokenizer.unknown_words([box.value])))
        note = f"<p>It never learned {html.escape(unknown)}: to it, all such words are the same.</p>" if unknown else ""
        page.value = f'<table aria-label="best first" style="background:white"><tr>{cells}</tr></table>{note}'

    box.observe(show, "value")
    show()
    return widgets.VBox([box, page])


def checkpoint_box(matrices: Mapping[int, Tensor], names: Sequence[str]) -> widgets.Widget:
    """A number box for the checkpoints of a run, and the matrix of cosines at the chosen one.

    Args:
        matrices: step → cosines (N, N), images as rows, texts as columns, true pairs on the diagonal.
        names: of the N pairs.
    """
    escaped = [html.escape(name) for name in names]
    steps = list(matrices)
    number = widgets.BoundedIntText(value=0, min=0, max=len(steps) - 1, description="checkpoint")
    page = widgets.HTML()

    def show(_: object = None) -> None:
        step = steps[number.value]
        cosines = matrices[step].cpu()
        words = [[f"{cosine:.2f}" for cosine in row] for row in cosines.tolist()]
        right = (cosines.argmax(dim=1) == torch.arange(len(names))).sum().item()
        page.value = (
            f"{_matrix_table('cosines, a row for each picture', cosines, escaped, escaped, words)}"
            f"<p>Step {step:,}: {right} of {len(names)} pictures are closest to their own text.</p>"
        )

    number.observe(show, "value")
    show()
    return widgets.VBox([number, page])
