"""Checks of appendix A1: a moon from two discs, the ink of a ring, and a rotation."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import shapes
from . import exercise, solved


def draw_points() -> tuple[Tensor, Tensor]:
    points = torch.linspace(-1.3, 1.3, 27) + 0.02 * torch.rand(())
    x, y = torch.meshgrid(points, points, indexing="xy")
    return x.contiguous(), y.contiguous()  # which an answer may change in place


def disc(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.95


def bite(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x - 0.5, y) - 0.78


@exercise(
    inputs=draw_points,
    package=shapes.moon,
    mistakes={
        "this is the union, both discs together: what is in the first AND not in the second is wanted": (
            lambda x, y: torch.minimum(disc(x, y), bite(x, y))
        ),
        "this is the intersection, what both discs share: the second one must be turned inside out": (
            lambda x, y: torch.maximum(disc(x, y), bite(x, y))
        ),
        "the second disc is turned inside out, and then joined: nearly all of the plane is ink. AND is the maximum": (
            lambda x, y: torch.minimum(disc(x, y), -bite(x, y))
        ),
        "this is the second disc without the first: the wrong one is turned inside out": (
            lambda x, y: torch.maximum(-disc(x, y), bite(x, y))
        ),
        "inside and outside are swapped: a signed distance is negative where there is ink": (
            lambda x, y: -torch.maximum(disc(x, y), -bite(x, y))
        ),
        "one distance minus the other is no distance to an outline: combine them with torch.maximum or torch.minimum": (
            lambda x, y: disc(x, y) - bite(x, y)
        ),
        "this is the full disc: the second one is not cut out": disc,
        "the second disc lies on the left: its middle is at x = +0.5, so its points are measured from x - 0.5": (
            lambda x, y: torch.maximum(disc(x, y), 0.78 - torch.hypot(x + 0.5, y))
        ),
        "the second disc lies below the centre: its middle is at (0.5, 0)": (
            lambda x, y: torch.maximum(disc(x, y), 0.78 - torch.hypot(x, y - 0.5))
        ),
        "both discs have the same middle: the second one's is at (0.5, 0)": (
            lambda x, y: torch.maximum(disc(x, y), 0.78 - torch.hypot(x, y))
        ),
        "the radii are exchanged: the first disc has 0.95, the one that is cut out 0.78": (
            lambda x, y: torch.maximum(torch.hypot(x, y) - 0.78, 0.95 - torch.hypot(x - 0.5, y))
        ),
    },
)
def moon(x: Tensor, y: Tensor) -> Tensor:
    from_center = (x**2 + y**2).sqrt() - 0.95
    from_bite = ((x - 0.5) ** 2 + y**2).sqrt() - 0.78
    return torch.where(from_center > -from_bite, from_center, -from_bite)


def ring_of(outer: float, inner: float) -> Callable[[float], float]:
    return lambda radius: math.pi * (outer**2 - inner**2) * radius**2


@exercise(
    inputs=lambda: [(5.0,), (10.5,)],
    mistakes={
        "this is the area in units of the radius: one radius is `radius` pixels, so an area grows with its square": (
            lambda radius: ring_of(0.97, 0.53)(1)
        ),
        "this grows with the radius, and not with its square: twice the radius takes four times the ink": (
            lambda radius: ring_of(0.97, 0.53)(1) * radius
        ),
        "this is the whole disc: the hole, of radius 0.75 - 0.22, takes no ink": ring_of(0.97, 0),
        "this is the hole: the ink is what lies between it and the outer radius": ring_of(0.53, 0),
        "the ring is half as thick: `- 0.22` gives it 0.22 on EACH side of the line": ring_of(0.86, 0.64),
        "the ring lies on one side of the line only: it reaches from 0.75 - 0.22 to 0.75 + 0.22": ring_of(0.97, 0.75),
        "π is missing": lambda radius: ring_of(0.97, 0.53)(radius) / math.pi,
        "π is there twice over: a disc of radius r has the area π · r², without a 2": (
            lambda radius: 2 * ring_of(0.97, 0.53)(radius)
        ),
        "square each radius, then subtract: the square of the difference is something else": (
            lambda radius: math.pi * (0.97 - 0.53) ** 2 * radius**2
        ),
        "this is the fraction of the picture: the number of pixels is wanted": (
            lambda radius: ring_of(0.97, 0.53)(radius) / 1024
        ),
    },
)
def ring_pixels(radius: float) -> float:
    return 2 * math.pi * 0.75 * 0.44 * radius**2  # the length of the middle line times the thickness


def turned(turn: Callable[[Tensor, Tensor, Tensor, Tensor], Any]) -> Callable[[Tensor, Tensor, Tensor], Any]:
    """x, y and an angle → what a function of x, y, cosine and sine gives."""
    return lambda x, y, angle: turn(x, y, angle.cos(), angle.sin())


def one_by_one(x: Tensor, y: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    x = cos * x + sin * y
    return x, cos * y - sin * x


def other_way_round(x: Tensor, y: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    y = cos * y - sin * x
    return cos * x + sin * y, y


@exercise(
    inputs=lambda: (*draw_points(), torch.tensor(0.3) + 0.4 * torch.rand(())),
    outcome=lambda function, *arguments: list(solved(function(*arguments))),
    mistakes={
        "the second line still uses the new x: both lines need the old x and y": turned(one_by_one),
        "now x is computed from the new y: both lines need the old x and y": turned(other_way_round),
        "this turns the other way: the signs of the two sines are exchanged": turned(
            lambda x, y, cos, sin: (cos * x - sin * y, cos * y + sin * x)
        ),
        "this mirrors as well: the new y is cos · y - sin · x": turned(
            lambda x, y, cos, sin: (cos * x + sin * y, sin * x - cos * y)
        ),
        "x and y are returned in the wrong order": turned(lambda x, y, cos, sin: (cos * y - sin * x, cos * x + sin * y)),
        "the angle is in radians already: do not convert it": lambda x, y, angle: turned(
            lambda x, y, cos, sin: (cos * x + sin * y, cos * y - sin * x)
        )(x, y, angle.deg2rad()),
        "nothing is turned": lambda x, y, angle: (x, y),
    },
)
def rotate(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    points = torch.complex(x.double(), y.double()) * torch.polar(torch.ones(()).double(), -angle.double())
    return points.real, points.imag
