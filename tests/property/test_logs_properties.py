"""Tails and parses of arbitrary logs agree with the plain reading of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent import logs
from node_agent.logs import Parser, lines_backward, tail_start

STREAMS = st.sampled_from([b"stdout", b"stderr"])
TEXT = st.binary(max_size=12).map(lambda data: data.replace(b"\n", b" "))
ENTRY = st.tuples(STREAMS, st.sampled_from([b"F", b"F", b"P"]), TEXT)


def line(number: int, entry: tuple[bytes, bytes, bytes]) -> bytes:
    return b"2026-01-02T03:04:05.%09d+00:00 %s %s %s" % (number, *entry)


def opened(content: bytes) -> int:
    with tempfile.TemporaryFile() as file:
        descriptor = os.dup(file.fileno())
    os.write(descriptor, content)
    return descriptor


def forward(files: Sequence[int], index: int, offset: int) -> list[bytes]:
    data = b""
    for number in range(index, len(files)):
        data += os.pread(files[number], 1 << 20, offset if number == index else 0)
    return data.split(b"\n")[:-1]


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT, max_size=12), TEXT, st.integers(1, 40))
def test_backward_is_forward_reversed(lines: list[bytes], torn: bytes, chunk: int) -> None:
    content = b"".join(text + b"\n" for text in lines)
    descriptor = opened(content + torn)
    former, logs._CHUNK = logs._CHUNK, chunk  # type: ignore[reportPrivateUsage]
    try:
        found = list(lines_backward(descriptor, len(content + torn)))
    finally:
        logs._CHUNK = former  # type: ignore[reportPrivateUsage]
        os.close(descriptor)
    assert [text for _, text in reversed(found)] == lines
    assert all((content + torn)[offset:].startswith(text + b"\n") for offset, text in found)


@settings(max_examples=60, deadline=None)
@given(st.lists(ENTRY, max_size=16), st.integers(0, 16), st.integers(0, 18))
def test_tail_is_the_end_of_all(entries: list[tuple[bytes, bytes, bytes]], cut: int, count: int) -> None:
    """With one stream: the last `count` logical lines, whole, wherever the files are cut."""
    whole = [line(number, (b"stdout", tag, text)) for number, (_, tag, text) in enumerate(entries)]
    files = [opened(b"".join(text + b"\n" for text in part)) for part in (whole[:cut], whole[cut:])]
    try:
        index, offset = tail_start(files, count, frozenset((b"stdout", b"stderr")))
        found = forward(files, index, offset)
    finally:
        for descriptor in files:
            os.close(descriptor)
    logical: list[list[bytes]] = [[]]
    for text, (_, tag, _) in zip(whole, entries, strict=True):
        logical[-1].append(text)
        if tag == b"F":
            logical.append([])
    lines = [pieces for pieces in logical if pieces]
    expected = [text for pieces in lines[len(lines) - min(count, len(lines)) :] for text in pieces]
    assert found == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(ENTRY, max_size=16), st.integers(0, 18), STREAMS)
def test_tail_counts_wanted_streams(
    entries: list[tuple[bytes, bytes, bytes]], count: int, stream: bytes
) -> None:
    whole = [line(number, (name, b"F", text)) for number, (name, _, text) in enumerate(entries)]
    descriptor = opened(b"".join(text + b"\n" for text in whole))
    try:
        index, offset = tail_start([descriptor], count, frozenset((stream,)))
        found = [text for text in forward([descriptor], index, offset) if text.split(b" ")[1] == stream]
    finally:
        os.close(descriptor)
    wanted = [text for text in whole if text.split(b" ")[1] == stream]
    assert found == wanted[len(wanted) - min(count, len(wanted)) :]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80))
def test_parser_survives_anything(data: bytes) -> None:
    Parser("t").parse(data)


@settings(max_examples=60, deadline=None)
@given(ENTRY, st.integers(0, 999_999_999))
def test_parser_keeps_everything(entry: tuple[bytes, bytes, bytes], nanos: int) -> None:
    found = Parser("t").parse(line(nanos, entry))
    assert found is not None
    assert found.nanos % 1_000_000_000 == nanos
    assert found.stream.encode() == entry[0]
    assert found.data == entry[2] + (b"\n" if entry[1] == b"F" else b"")
