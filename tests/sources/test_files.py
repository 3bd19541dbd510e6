"""The rows of one file of each kind, whole and broken."""

import json
from pathlib import Path

import pytest

from limbeck.errors import DataError
from limbeck.questions import MAX_LINE_BYTES, Unread
from limbeck.sources.files import CHUNK_CHARS, is_data, numbered_rows


def rows(folder: Path, name: str, content: bytes, column: str = "prompt") -> list[object]:
    path = folder / name
    path.write_bytes(content)
    found = list(numbered_rows(path, name, [column, "answer"]))
    assert [number for number, _ in found] == sorted(number for number, _ in found)
    return [value for _, value in found]


CSV = {
    "plain": (b"prompt,answer\na,1\nb,2\n", [("a", "1"), ("b", "2")]),
    "Windows line ends and no last one": (b"prompt,answer\r\na,1\r\nb,2", [("a", "1"), ("b", "2")]),
    "a byte order mark": (b"\xef\xbb\xbfprompt,answer\na,1\n", [("a", "1")]),
    "commas, quotes and line ends in quotes": (
        b'prompt,answer\n"a, ""b""\nc",1\nd,2\n',
        [('a, "b"\nc', "1"), ("d", "2")],
    ),
    "other scripts": ("prompt,answer\n你好,é\n".encode(), [("你好", "é")]),
    "an empty cell": (b"prompt,answer\na,\n,2\n", [("a", None), (None, "2")]),
    "blank lines": (b"prompt,answer\n\na,1\n\n", [("a", "1")]),
    "the header alone": (b"prompt,answer\n", []),
    "nothing": (b"", []),
}


@pytest.mark.parametrize(("content", "expected"), CSV.values(), ids=CSV)
def test_csv_is_read_by_column(content: bytes, expected: list[tuple[str, str]], tmp_path: Path) -> None:
    assert rows(tmp_path, "a.csv", content) == [dict(zip(("prompt", "answer"), row)) for row in expected]  # noqa: B905


def test_broken_rows_of_csv_are_told_and_the_next_ones_come(tmp_path: Path) -> None:
    content = b'prompt,answer\na,1,2\nb\n"c"d,1\n\xff,1\ne,5\n'
    *broken, last = rows(tmp_path, "a.csv", content)
    assert last == {"prompt": "e", "answer": "5"}
    assert [row.reason for row in broken if isinstance(row, Unread)] == [
        "not as many cells as columns",
        "not as many cells as columns",
        "not CSV",
        "not UTF-8",
    ]


REFUSED = {
    "CSV without the column": (
        "a.csv",
        b"question,answer\na,1\n",
        r"no column `prompt` in a\.csv.*got question, answer.*prepare\.fields",
    ),
    "a quote that is never closed": (
        "a.csv",
        b'prompt,answer\na,1\n"b,2\nc,3\n' * 2,
        r"not CSV in a\.csv, line",
    ),
    "a quote that is open at the end": (
        "a.csv",
        b'prompt,answer\na,1\n"b,2\nc,3\n',
        r"not CSV in a\.csv, line 3.*unexpected end of data.*Close its quotes",
    ),
    "a cell without an end": (
        "a.csv",
        b'prompt\n"' + b"x" * (MAX_LINE_BYTES + 9),
        r"not CSV in a\.csv, line 2",
    ),
    "an array that breaks off": (
        "a.json",
        b'[{"prompt": "a"}, {"prompt": "b',
        r"a JSON array breaks off in a\.json, row 2.*one object a line",
    ),
    "an array without its end": ("a.json", b'[{"prompt": "a"}', r"breaks off in a\.json, row 1"),
    "an array without commas": (
        "a.json",
        b'[{"prompt": "a"} {"prompt": "b"}]',
        r"breaks off in a\.json, row 1",
    ),
    "an array that is no UTF-8": ("a.json", b'[{"prompt": "\xff"}]', r"not UTF-8 in a\.json"),
    "no Parquet": ("a.parquet", b"prompt", r"not a Parquet file in a\.parquet"),
}


@pytest.mark.parametrize(("name", "content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_would_lose_rows_without_a_word_is_refused(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        rows(tmp_path, name, content)


ITEMS = [{"prompt": "x" * (n * 7919 % 30_000), "n": n, "of": [n, {"a": "]"}]} for n in range(40)]


@pytest.mark.parametrize("indent", [None, 2], ids=["on one line", "on many lines"])
def test_an_array_is_read_item_by_item_over_the_borders_of_what_is_read_at_once(
    indent: int | None, tmp_path: Path
) -> None:
    text = json.dumps(ITEMS, indent=indent)
    assert len(text) > 5 * CHUNK_CHARS
    found = rows(tmp_path, "a.json", text.encode())
    assert [json.loads(item) for item in found if isinstance(item, bytes)] == ITEMS


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[]", []),
        (b" [ ] ", []),
        (b"[1, 23]", [b"1", b"23"]),
        (b'\xef\xbb\xbf[{"prompt": "a"}]\n', [b'{"prompt": "a"}']),
        ('["é", "\\ud800"]'.encode(), ['"é"'.encode(), b'"\\ud800"']),
    ],
)
def test_arrays_of_anything_come_as_their_text(content: bytes, expected: list[bytes], tmp_path: Path) -> None:
    assert rows(tmp_path, "a.json", content) == expected


def test_lines_in_a_json_file_are_lines(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"prompt": "a"}\n\n{"prompt": "b"}'
    for name in ("a.json", "a.jsonl"):
        assert rows(tmp_path, name, content) == [b'{"prompt": "a"}\n', b'{"prompt": "b"}']


def test_what_other_tools_put_beside_data_is_no_data() -> None:
    names = [
        "a.jsonl",
        "b/c.CSV",
        "_SUCCESS",
        "_metadata.json",
        ".part.parquet",
        "README.md",
        "a.parquet.crc",
    ]
    assert [name for name in names if is_data(name)] == ["a.jsonl", "b/c.CSV"]
