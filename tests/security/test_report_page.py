"""The report in a real browser: whatever texts it holds, nothing runs, nothing is asked for, all is shown."""

import html
import itertools
import threading
import typing
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import pytest
from markdown_it import MarkdownIt
from matplotlib.image import imread
from pydantic import BaseModel

from limbeck.report.model import Example, ExampleAnswer, RunReport
from limbeck.report.page import html_page, markdown_page
from tests.report.conftest import made_report
from tests.security.browser import Chromium, Visit, chromium
from tests.security.hostile import ACTIVE, texts

ROTATIONS = 4
"""Reports in which each text stands in other places."""
HARMFUL = {
    "a", "audio", "base", "button", "embed", "form", "frame", "iframe", "img", "image", "input", "link",
    "object", "script", "source", "template", "textarea", "video",
}  # fmt: skip


class Canary(typing.NamedTuple):
    """A server that writes down what it is asked for."""

    address: str
    asked: list[str]


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield Canary(f"http://127.0.0.1:{server.server_port}", asked)
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as running:
        yield running


@pytest.fixture
def show(browser: Chromium, canary: Canary, tmp_path: Path) -> Callable[[str], Visit]:
    """Open a page; the canary forgets what it was asked before."""

    def visit(page: str) -> Visit:
        canary.asked.clear()
        path = tmp_path / "page.html"
        path.write_text(page, encoding="utf-8")
        return browser.visit(path)

    return visit


def filled(value: Any, text: Iterator[str]) -> Any:
    """A value in which every text is another one, but for the words that the code itself chooses from."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return value.model_copy(
            update={
                name: filled(inner, text) for name, inner in value if not _is_literal(fields[name].annotation)
            }
        )
    if isinstance(value, tuple | list):
        return type(value)(filled(inner, text) for inner in value)
    if isinstance(value, dict):
        return {filled(key, text): filled(inner, text) for key, inner in value.items()}
    return next(text) if isinstance(value, str) else value


def _is_literal(annotation: Any) -> bool:
    return typing.get_origin(annotation) is Literal or any(map(_is_literal, typing.get_args(annotation)))


@pytest.fixture(scope="module")
def made() -> RunReport:
    """A whole report."""
    return made_report(num_prompts=40)


@pytest.fixture(scope="module")
def reports(canary: Canary, made: RunReport) -> list[RunReport]:
    """Reports whose every text is hostile; each text is also one of the examples."""
    hostile = list(texts(canary.address).values())
    examples = tuple(
        Example(
            prompt=text,
            gold=text,
            answers=(ExampleAnswer(name=text, text=text, answer=text, correct=False),),
        )
        for text in hostile
    )
    step = len(hostile) // ROTATIONS
    return [
        filled(made, itertools.islice(itertools.cycle(hostile), start, None)).model_copy(
            update={"examples": examples}
        )
        for start in range(0, step * ROTATIONS, step)
    ]


def words(text: str) -> str:
    return " ".join(text.split())


def is_quiet(visit: Visit, canary: Canary) -> bool:
    """Nothing ran, and nothing was asked for, by the browser's word and the server's."""
    assert visit.requests == []
    assert visit.scripts == []
    assert visit.dialogs == []
    assert canary.asked == []
    return True


def shows_all(visit: Visit, canary: Canary) -> bool:
    """Every hostile text stands there to be read, letter by letter; what cannot be seen as a sign for it."""
    shown = words(visit.text)
    seen = {
        name: "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)
        for name, text in texts(canary.address).items()
    }
    assert [name for name, text in seen.items() if words(text) not in shown] == []
    return True


def test_each_text_would_do_harm_if_it_were_not_escaped(show: Callable[[str], Visit], canary: Canary) -> None:
    """Else the tests below would pass with texts that no browser minds."""
    idle = []
    for name, text in texts(canary.address).items():
        if name not in ACTIVE:
            continue
        visit = show(f"<!DOCTYPE html><html><head></head><body>{text}</body></html>")
        if not (visit.scripts or visit.requests):
            idle.append(name)
    assert idle == []


def test_a_report_of_hostile_texts_is_read_and_nothing_else(
    show: Callable[[str], Visit], canary: Canary, reports: list[RunReport]
) -> None:
    for report in reports:
        visit = show(html_page(report))
        assert is_quiet(visit, canary)
        assert visit.blocked == []  # the policy had nothing to stop: no text became more than text
        assert shows_all(visit, canary)
        assert words(visit.title) == words(f"Limbeck: {report.decision.headline}".replace("\0", "\ufffd"))
        assert not HARMFUL & {name for name, _ in visit.elements}
        assert not [key for _, attributes in visit.elements for key in attributes if key.startswith("on")]


def test_it_is_the_same_in_the_viewer_of_kubeflow(
    show: Callable[[str], Visit], canary: Canary, reports: list[RunReport]
) -> None:
    """Kubeflow puts the page into a frame that may run scripts.

    Source: kubeflow/pipelines 2.17.0, frontend/src/components/viewers/HTMLViewer.tsx.
    """
    page = html.escape(html_page(reports[0]))
    visit = show(f'<!DOCTYPE html><iframe sandbox="allow-scripts" srcdoc="{page}"></iframe>')
    assert is_quiet(visit, canary)
    assert visit.blocked == []
    assert shows_all(visit, canary)


def test_the_policy_of_the_page_stops_what_escaping_might_forget(
    show: Callable[[str], Visit], canary: Canary, reports: list[RunReport]
) -> None:
    """A second line: texts put into the page raw. No policy of a page can keep it from moving elsewhere."""
    raw = "".join(text for name, text in texts(canary.address).items() if name != "refresh")
    page = html_page(reports[0])
    visit = show(page.replace("<main>", f"<main>{raw}", 1))
    assert canary.asked == []
    assert visit.dialogs == []
    assert len(visit.blocked) > len(ACTIVE) // 2
    assert all("ran" not in key for _, attributes in visit.elements for key in attributes)


def test_the_markdown_page_is_only_read_as_well(
    show: Callable[[str], Visit], canary: Canary, made: RunReport
) -> None:
    """Each text in every place of a page of its own, rendered as freely as can be: with HTML and links."""
    renderer = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    pages = [
        renderer.render(markdown_page(filled(made, itertools.repeat(text))))
        for text in texts(canary.address).values()
    ]
    visit = show(f"<!DOCTYPE html><body>{'<hr>'.join(pages)}</body>")
    names = [name for name, _ in visit.elements]
    assert is_quiet(visit, canary)
    assert not HARMFUL & {*names}
    assert names.count("h1") == len(pages)
    assert not [key for _, attributes in visit.elements for key in attributes if key.startswith("on")]


def test_a_picture_shows_the_whole_page_down_to_its_end(browser: Chromium, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<style>body, p {margin: 0}</style>"
        '<p style="height: 2300px"></p><p style="height: 9px; background: red"></p>'
    )
    picture = imread(BytesIO(browser.picture(page, 700)), format="png")
    assert picture.shape[:2] == (2309, 700)
    assert picture[-1, 350, :3].tolist() == [1, 0, 0]
    assert picture[0, 350, :3].tolist() == [1, 1, 1]
