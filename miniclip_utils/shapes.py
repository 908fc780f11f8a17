"""The embedded data: 32×32 scenes of one coloured shape, drawn from signed distance functions.

A signed distance function (SDF) gives for each point the distance to an outline, negative inside. Thresholding
it softly over one pixel draws the shape with a smooth edge. All scenes are drawn in float64 from uniform random
numbers, so a seed gives the same uint8 pixels on every machine.

Of the 64 colour–shape pairs, 16 never appear in training: a model that names them has learned what the words
"red" and "star" mean apart, not which pictures go with "red star".
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

IMAGE_SIZE = 32

# The Okabe–Ito palette (https://jfly.uni-koeln.de/color/), whose colours colour-blind readers can tell apart.
COLORS = {
    "black": (0, 0, 0),
    "orange": (230, 159, 0),
    "cyan": (86, 180, 233),
    "green": (0, 158, 115),
    "yellow": (240, 228, 66),
    "blue": (0, 114, 178),
    "red": (213, 94, 0),
    "pink": (204, 121, 167),
}
SIZES = {"small": (4.5, 6.5), "large": (9.0, 11.5)}  # radius in pixels, from and to


def circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.9


def ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.75).abs() - 0.22


def square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.8


def triangle(x: Tensor, y: Tensor) -> Tensor:
    slanted = x.abs() * math.cos(math.pi / 6) - y * math.sin(math.pi / 6)
    return torch.maximum(slanted, y) - 0.5


def cross(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    return torch.maximum(torch.maximum(x, y) - 0.95, torch.minimum(x, y) - 0.3)


def star(x: Tensor, y: Tensor) -> Tensor:
    # Fold the plane into one tenth of a turn, where the outline is the line from an outer tip to an inner notch.
    radius, turn = torch.hypot(x, y), torch.atan2(x, -y)
    tenth = math.pi / 5
    angle = (torch.remainder(turn + tenth, 2 * tenth) - tenth).abs()
    edge_x, edge_y = 0.45 * math.cos(tenth) - 1.0, 0.45 * math.sin(tenth)
    along = radius * torch.cos(angle) - 1.0, radius * torch.sin(angle)
    return (edge_x * along[1] - edge_y * along[0]) / -math.hypot(edge_x, edge_y)


def heart(x: Tensor, y: Tensor) -> Tensor:
    x = x.abs()
    lobe = torch.hypot(x - 0.42, y + 0.3) - 0.5
    point = torch.maximum((x + y - 0.62) * math.sqrt(0.5), -(y + 0.3))
    return torch.minimum(lobe, point) + 0.02


def moon(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(torch.hypot(x, y) - 0.95, 0.78 - torch.hypot(x - 0.5, y))


# Each takes points in units of the shape's radius, x to the right and y downwards.
SHAPES = {shape.__name__: shape for shape in (circle, ring, square, triangle, cross, star, heart, moon)}


@dataclass(frozen=True)
class Style:
    """What can be drawn: a class for each size, colour and shape, the last of them counted fastest.

    Attributes:
        sizes, colors, shapes: as `SIZES`, `COLORS` and `SHAPES`.
        line: draw only the outline, this wide, in units of the shape's radius; None: fill it.
    """

    sizes: Mapping[str, tuple[float, float]]
    colors: Mapping[str, tuple[int, int, int]]
    shapes: Mapping[str, Callable[[Tensor, Tensor], Tensor]]
    line: float | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(f"{size} {color} {shape}" for size in self.sizes for color in self.colors for shape in self.shapes)


STYLE = Style(SIZES, COLORS, SHAPES)
CLASS_NAMES = STYLE.class_names


def is_held_out(label: Tensor) -> Tensor:
    """Whether a class is never trained: two shapes of each colour, and so two colours of each shape."""
    _, color, shape = torch.unravel_index(label, (len(SIZES), len(COLORS), len(SHAPES)))
    return torch.isin((shape - color) % len(SHAPES), torch.tensor([0, 3]))


SPLITS = {"train": 20_000, "validation": 2_000, "test": 2_000, "held_out": 2_000}


def make_shapes(split: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draws one split: "train", "validation" or "test", of the 96 trained classes; "held_out", of the 32 others.

    Returns images, uint8 (N, 3, 32, 32), and labels, int64 (N,), indices into `CLASS_NAMES`.
    """
    generator = torch.Generator().manual_seed(seed * len(SPLITS) + list(SPLITS).index(split))
    classes = torch.arange(len(CLASS_NAMES))
    classes = classes[is_held_out(classes) == (split == "held_out")]
    labels = classes[torch.randint(len(classes), (SPLITS[split],), generator=generator)]
    return torch.cat([draw(part, generator) for part in labels.split(100)]), labels


def draw(labels: Tensor, generator: torch.Generator, style: Style = STYLE) -> Tensor:
    """Draws a scene, uint8 (3, 32, 32), for each label (N,): random place, size, rotation, colours and noise.

    Args:
        style: gives the labels their meaning, by default that of `CLASS_NAMES`.
    """
    corner = torch.zeros(len(labels), 1, 1, 1, dtype=torch.float64)
    return _paint(labels[:, None], corner, corner, IMAGE_SIZE, IMAGE_SIZE, generator, style)[0]


def draw_scenes(
    labels: Tensor, generator: torch.Generator, image_size: int = 64, quadrants: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draws scenes of several objects, each in a quadrant of its own, and says which pixels are whose.

    The objects have one paper; all else is random as in `draw`, and as large: 64 pixels give each the room of a drawing.

    Args:
        labels: int64 (N, K), the classes of each scene's K objects, at most 4.
        image_size: height and width in pixels, even.
        quadrants: int64 (N, K), where each object lies: 0 top left, 1 top right, 2 bottom left, 3 bottom right.
            Without, they are drawn at random. No two objects of a scene may share one.

    Returns:
        images, uint8 (N, 3, H, W), and masks, bool (N, K, H, W): the pixels that an object covers by more than half.

    Raises:
        ValueError: more than 4 objects, two of them in one quadrant, or an object that is larger than a quadrant.
    """
    cell = image_size // 2
    if cell < 2 * max(SIZES["large" if (labels >= len(CLASS_NAMES) // 2).any() else "small"]):
        raise ValueError(f"a quadrant of {cell} pixels is too small for these objects: choose a larger image_size")
    if quadrants is None:
        quadrants = torch.rand(len(labels), 4, generator=generator, dtype=torch.float64).argsort(dim=1)[:, : labels.shape[1]]
    if quadrants.shape != labels.shape or (quadrants.sort(dim=1).values.diff(dim=1) == 0).any():
        raise ValueError("each object of a scene needs a quadrant of its own, and a scene has four")
    left, top = (cell * (quadrants % 2)).double(), (cell * (quadrants // 2)).double()
    return _paint(labels, left[:, :, None, None], top[:, :, None, None], cell, image_size, generator)


def _paint(
    labels: Tensor,
    left: Tensor,
    top: Tensor,
    cell: int,
    image_size: int,
    generator: torch.Generator,
    style: Style = STYLE,
) -> tuple[Tensor, Tensor]:
    """Objects (N, K), each somewhere in its cell, whose corner is at left, top (N, K, 1, 1) → images and masks."""

    def uniform(low: float | Tensor, high: float | Tensor, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

    n, k = labels.shape
    size, color, shape = torch.unravel_index(labels, (len(style.sizes), len(style.colors), len(style.shapes)))  # (N, K) each

    smallest, largest = torch.tensor(list(style.sizes.values()), dtype=torch.float64)[size, :, None, None].unbind(2)
    radius = uniform(smallest, largest, n, k, 1, 1)
    room = cell / 2 - radius  # so that the shape stays within its cell
    center_x, center_y = (corner + cell / 2 + uniform(-room, room, n, k, 1, 1) for corner in (left, top))
    turn = uniform(-0.35, 0.35, n, k, 1, 1)  # radians: about 20 degrees either way

    pixel = torch.arange(image_size, dtype=torch.float64) + 0.5
    across = (pixel - center_x) / radius  # (N, K, 1, W)
    down = (pixel[:, None] - center_y) / radius  # (N, K, H, 1)
    x, y = turn.cos() * across + turn.sin() * down, turn.cos() * down - turn.sin() * across  # (N, K, H, W)

    distance = torch.empty_like(x)
    for index, sdf in enumerate(style.shapes.values()):
        of_shape = shape == index
        distance[of_shape] = sdf(x[of_shape], y[of_shape])
    if style.line is not None:
        distance = distance.abs() - style.line / 2
    coverage = (0.5 - distance * radius).clamp(0, 1)

    palette = torch.tensor(list(style.colors.values()), dtype=torch.float64)[:, :, None, None] / 255
    inks = palette[color] + uniform(-0.06, 0.06, n, k, 3, 1, 1)
    scene = uniform(0.72, 0.95, n, 1, 1, 1) + uniform(-0.05, 0.05, n, 3, 1, 1)  # the paper
    noise = uniform(-0.05, 0.05, n, 3, image_size, image_size)
    for ink, covered in zip(inks.unbind(1), coverage.unbind(1), strict=True):
        scene = torch.lerp(scene, ink, covered[:, None])
    return ((scene + noise).clamp(0, 1) * 255).round().to(torch.uint8), coverage > 0.5
