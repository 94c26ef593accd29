"""Show a result as HTML, for notebooks."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from html import escape

import numpy as np

from partclipseg.formats.segment import Segment


def notebook_html(overlay: bytes, segments: Iterable[Segment], colours: np.ndarray, size: tuple[int, int]) -> str:
    """Return HTML: the overlay (PNG) beside a table of segments with colour, score and share of the photo."""
    rows = "".join(
        f'<tr><td><span style="display:inline-block;width:.8em;height:.8em;border-radius:2px;'
        f'background:#{bytes(colours[segment.index]).hex()}"></span></td>'
        f'<td style="text-align:left">{escape(segment.title)}</td><td>{segment.score:.2f}</td>'
        f"<td>{segment.area / (size[0] * size[1]):.1%}</td></tr>"
        for segment in sorted(segments, key=lambda segment: -segment.area)
    )
    table = (
        '<table><thead><tr><th></th><th style="text-align:left">part</th><th>score</th><th>pixels</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        if rows
        else "<p>nothing found</p>"
    )
    picture = f'<img style="max-width:min(100%,640px)" src="data:image/png;base64,{b64encode(overlay).decode()}">'
    return f'<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">{picture}{table}</div>'
