"""A drawing in SVG: boxes with what is written in them, lines, arrows, circles, text. Self-contained; light ground."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape

INK, MUTED = "#1b2430", "#5c6773"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, 'DejaVu Sans', sans-serif"

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle by its upper left corner, y downwards, with its sides' middles as places for arrows."""

    x: float
    y: float
    width: float
    height: float

    @property
    def top(self) -> Point:
        return self.x + self.width / 2, self.y

    @property
    def bottom(self) -> Point:
        return self.x + self.width / 2, self.y + self.height

    @property
    def left(self) -> Point:
        return self.x, self.y + self.height / 2

    @property
    def right(self) -> Point:
        return self.x + self.width, self.y + self.height / 2

    def overlap(self, other: Box) -> float:
        """Shared area, in square pixels."""
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(0.0, width) * max(0.0, height)


@dataclass
class Drawing:
    """Collects the parts of a picture; what is added later lies above."""

    width: float
    parts: list[str] = field(default_factory=list)

    def text(
        self, at: Point, text: str, *, size: float = 13, colour: str = INK, anchor: str = "start", bold: bool = False
    ) -> None:
        """A line of text on the baseline `at`."""
        x, y = at
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{colour}" text-anchor="{anchor}"{weight}>'
            f"{escape(text)}</text>"
        )

    def rectangle(self, box: Box, fill: str, stroke: str = "none", radius: float = 4) -> None:
        """A filled rectangle."""
        self.parts.append(
            f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="{radius:g}" '
            f'fill="{fill}" stroke="{stroke}"/>'
        )

    def line(self, start: Point, end: Point, colour: str, *, width: float = 1, dash: str = "") -> None:
        """A straight line."""
        (x1, y1), (x2, y2) = start, end
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" '
            f'stroke-width="{width:g}"{dashes}/>'
        )

    def curve(
        self, points: Sequence[Point], colour: str, *, width: float = 1.7, dash: str = "", opacity: float = 1
    ) -> None:
        """A line through the points."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        faint = f' opacity="{opacity:g}"' if opacity < 1 else ""
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashes}{faint}/>'
        )

    def circle(
        self, centre: Point, radius: float, fill: str, stroke: str, *, width: float = 1, opacity: float = 1
    ) -> None:
        """A circle with its rim."""
        x, y = centre
        faint = f' opacity="{opacity:g}"' if opacity < 1 else ""
        self.parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}" stroke="{stroke}" '
            f'stroke-width="{width:g}"{faint}/>'
        )

    @contextmanager
    def group(self, hint: str, **data: object) -> Iterator[None]:
        """What is drawn inside belongs together: `hint` is what a pointer over it shows, `data` its data attributes."""
        attributes = "".join(f' data-{name}="{escape(str(value))}"' for name, value in data.items())
        self.parts.append(f"<g{attributes}><title>{escape(hint)}</title>")
        yield
        self.parts.append("</g>")

    def arrow(self, points: Sequence[Point], colour: str = MUTED, *, kind: str = "flow") -> None:
        """A line through the points with a head at its end. `kind` is its class in the file."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(
            f'<polyline class="{kind}" points="{path}" fill="none" stroke="{colour}" stroke-width="1.5" '
            f'marker-end="url(#{kind}-head)"/>'
        )

    def labelled(
        self, box: Box, name: str, left: str, right: str, look: tuple[str, str], hint: str, badge: str = ""
    ) -> None:
        """A box of the network: what it is at the left, its channels at the right, a badge between. `name` is the
        module's, `look` fill and edge, `hint` what a pointer over it shows."""
        with self.group(hint, module=name):
            self.rectangle(box, *look)
            base = box.y + box.height / 2 + 4.5
            self.text((box.x + 10, base), left)
            self.text((box.x + box.width - 10, base), right, anchor="end", bold=True)
            if badge:
                wide = 13 + 6.5 * len(badge)
                spot = Box(box.x + box.width - 52 - wide, box.y + 4, wide, box.height - 8)
                self.badge(spot, badge)

    def badge(self, box: Box, text: str) -> None:
        """A small dark label."""
        self.rectangle(box, "#6a3d9a", radius=box.height / 2)
        x, y = box.bottom
        self.text((x, y - box.height / 2 + 4), text, size=11.5, colour="#fff", anchor="middle", bold=True)

    def finish(self, height: float, title: str, description: str, colours: dict[str, str]) -> str:
        """The file's text; `colours`: of the arrow heads, by the arrows' kinds."""
        heads = "".join(
            f'<marker id="{kind}-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0,0.5 L8,4 L0,7.5 z" fill="{colour}"/></marker>'
            for kind, colour in colours.items()
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:g}" height="{height:g}" '
            f'viewBox="0 0 {self.width:g} {height:g}" role="img" font-family="{FONT}">\n'
            f"<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>\n<defs>{heads}</defs>\n"
            f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(self.parts) + "\n</svg>\n"
        )
