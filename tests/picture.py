"""A picture of a page for the docs: `python -m tests.picture out/demo/report.html picture.png`."""

import io
import sys
from pathlib import Path

from PIL import Image

from tests.security.browser import chromium

WIDTH = 1100
"""As wide as the page's tables, in CSS pixels."""
COLOURS = 32
"""Enough for text and a few curves, in a quarter of the bytes; chosen so that rare ones stay."""

if __name__ == "__main__":
    page, target = map(Path, sys.argv[1:])
    with chromium() as browser:
        drawn = Image.open(io.BytesIO(browser.picture(page, WIDTH)))
    drawn.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE).save(target, optimize=True)
