"""What every page is made of: sections, pictures, and the whole around them, one self-contained HTML file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from trilemma.evaluations.record import Evaluation
from trilemma.report import figures
from trilemma.report.style import STYLE

WIDTH = 1100
"""CSS pixels of a page's content, at most."""


def text_html(text: str) -> str:
    """Escaped text in which a name such as FD-500 is not broken at its hyphen."""
    return re.sub(r"\b(FI?D)-(?=\d)", r"\1&#8209;", escape(text))


def section(title: str, body: str, *, name: str, lead: str = "") -> str:
    """A titled section; empty where it has no body."""
    if not body:
        return ""
    intro = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{intro}{body}</section>'


def enlarged(image: np.ndarray, alt: str, width: int) -> str:
    """A picture enlarged by whole pixels to at most `width` CSS pixels; the page shrinks one that is wider."""
    scale = max(1, min(4, width // image.shape[1]))
    return (
        f'<img class="pixels" alt="{escape(alt)}" width="{scale * image.shape[1]}" height="{scale * image.shape[0]}" '
        f'src="{figures.png_uri(image)}">'
    )


def drawn(svg: str, alt: str, caption: str = "", *, narrow: str | None = None) -> str:
    """A figure; `narrow`: the same for a page as narrow as a telephone's."""
    image = f'<img alt="{escape(alt)}" src="{figures.svg_uri(svg)}">'
    if narrow is not None:
        image = f'<picture><source media="(max-width: 760px)" srcset="{figures.svg_uri(narrow)}">{image}</picture>'
    return f"<figure>{caption}{image}</figure>"


def whole(kind: str, title: str, subtitle: str, sections: Iterable[str], evaluations: Sequence[Evaluation]) -> str:
    """The page as text: what kind it is of, title and subtitle, and those sections that are not empty."""
    versions = sorted({one.environment.trilemma or "" for one in evaluations} - {""})
    made_by = f"Made by trilemma {' and '.join(versions)}".strip()
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: quality, coverage, speed</title><style>{STYLE}</style></head>\n<body><main>"
        f'<header><p class="eyebrow">{escape(kind)}</p><h1>{escape(title)}</h1>'
        f'<p class="sub">{escape(subtitle)}</p></header>\n'
        + "\n".join(one for one in sections if one)
        + f"\n<footer>{escape(made_by)}. This file needs no network.</footer></main></body></html>\n"
    )
