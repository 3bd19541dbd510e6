"""A picture of a page for the docs: `python -m tests.picture out/demo/report.html picture.png`."""

import sys
from pathlib import Path

from tests.security.browser import chromium

WIDTH = 1100
"""As wide as the page's tables, in CSS pixels."""

if __name__ == "__main__":
    page, target = map(Path, sys.argv[1:])
    with chromium() as browser:
        target.write_bytes(browser.picture(page, WIDTH))
