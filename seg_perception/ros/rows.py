# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Many messages of one type, by columns: as Python objects, or at once as the bytes that travel.

rclpy looks up every field of every object by name, ten microseconds per object of a result; from columns the same bytes
(CDR as in OMG's DDS-XTYPES, 7.4.1: numbers aligned to their size, lengths as uint32, text with its zero) take a tenth.
"""

from __future__ import annotations

import importlib
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.ros.conversions import blank, sequence_of

U8, U16, U32, I32, F32, F64 = range(6)  # codes of numbers
TEXT, WORDS, ROWS = 6, 7, 8  # and of what has no fixed length: string, uint32[], messages
NUMBERS = {"boolean": U8, "uint8": U8, "uint16": U16, "uint32": U32, "int32": I32, "float": F32, "double": F64}
DTYPES = ("u1", "u2", "u4", "i4", "f4", "f8")  # by code
FIELD = re.compile(r"(?P<sequence>sequence<)?(?P<kind>[\w/]+)>?(\[(?P<count>\d+)\])?")


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a message, `path` from the outermost one, in attribute `slot`: `count` numbers of type `code` from
    `column` on, or the `parts` of messages of type `kind`. `single`: one value, not an array of fixed length."""

    path: str
    slot: str
    code: int = -1
    count: int = 1
    column: int = 0
    boolean: bool = False
    kind: Any = None
    parts: tuple[tuple[Part, ...], ...] = ()  # of each message, if this is a message or a fixed number of them
    single: bool = True


@dataclass(frozen=True, slots=True)
class Layout:
    """How messages of a type lie on the wire: `codes` of all values in order, `places` of numbers by path, and the
    paths of texts in order."""

    parts: tuple[Part, ...]
    codes: NDArray[np.uint8]
    places: dict[str, slice]
    texts: tuple[str, ...]
    numbers: int
    inner: Any  # type of the messages in such a message, or None


@cache
def layout_of(kind: Any) -> Layout:
    """The layout of a message type. Raises TypeError for what `Rows` cannot write."""
    codes: list[int] = []
    places: dict[str, slice] = {}
    texts: list[str] = []
    held: list[Any] = []

    def numbers() -> int:
        return sum(code < TEXT for code in codes)

    def parts_of(kind: Any, prefix: str) -> tuple[Part, ...]:
        parts = []
        for name, text in kind.get_fields_and_field_types().items():
            match = FIELD.fullmatch(text)
            path, slot, first = prefix + name, f"_{name}", numbers()
            base, sequence = (match["kind"], bool(match["sequence"])) if match else (text, False)
            count = int(match["count"] or 1) if match else 1
            fixed = not sequence and bool(match and match["count"])
            if "/" in base:
                package, short = base.split("/")
                nested = getattr(importlib.import_module(f"{package}.msg"), short)
                if sequence:
                    codes.append(ROWS)
                    held.append(nested)
                    parts.append(Part(path, slot, ROWS, kind=nested))
                else:
                    inner = tuple(parts_of(nested, f"{path}{i}." if fixed else f"{path}.") for i in range(count))
                    parts.append(Part(path, slot, kind=nested, parts=inner, single=not fixed))
            elif base in NUMBERS and not sequence:
                codes.extend([NUMBERS[base]] * count)
                boolean = base == "boolean"
                parts.append(Part(path, slot, NUMBERS[base], count, first, boolean, single=not fixed))
            elif (base, sequence) in (("string", False), ("uint32", True)):
                codes.append(WORDS if sequence else TEXT)
                texts.extend([] if sequence else [path])
                parts.append(Part(path, slot, codes[-1]))
            else:
                raise TypeError(f"{kind.__name__}.{name}: {text} cannot be written by columns")
            places[path] = slice(first, numbers())
        return tuple(parts)

    parts = parts_of(kind, "")
    if ROWS in codes[:-1] or codes.count(WORDS) > 1:
        raise TypeError(f"{kind.__name__}: messages come last, and there is one uint32[] at most")
    return Layout(parts, np.array(codes, np.uint8), places, tuple(texts), numbers(), held[0] if held else None)


@dataclass(slots=True, eq=False)
class Rows:
    """`count` messages of type `kind`, of which every text is to be set; the rest is 0 or empty at first.

    `numbers` (count, M) holds all numbers (`set` puts them there), `texts` lists by path, `words` the uint32 of all
    messages and (count + 1,) where each one's begin, `rows` the messages in these messages, and where each one's begin.
    """

    kind: Any
    count: int
    numbers: NDArray[np.float64] = field(init=False)
    texts: dict[str, Sequence[str]] = field(default_factory=dict)
    words: tuple[NDArray[np.uint32], NDArray[np.int64]] = field(init=False)
    rows: tuple[Rows, Sequence[int]] | None = field(init=False)

    def __post_init__(self) -> None:
        layout = layout_of(self.kind)
        self.numbers = np.zeros((self.count, layout.numbers))
        self.words = (np.empty(0, np.uint32), np.zeros(self.count + 1, np.int64))
        self.rows = None if layout.inner is None else (Rows(layout.inner, 0), [0] * (self.count + 1))

    def set(self, path: str, values: NDArray | float) -> None:
        """Numbers of a field, or of a field of a field: one for all, (count,) or (count, ...)."""
        place = self.numbers[:, layout_of(self.kind).places[path]]
        place[...] = values.reshape(place.shape) if isinstance(values, np.ndarray) else values

    def set_each(self, paths: Sequence[str], values: Sequence[Sequence[float]]) -> None:
        """Several fields of one number each, message by message."""
        places = layout_of(self.kind).places
        columns = [places[path].start for path in paths]
        self.numbers[:, columns] = np.array(values, np.float64).reshape(self.count, len(paths))

    # -- as Python objects -------------------------------------------------------------------------------------------

    def messages(self) -> list[Any]:
        """The messages."""
        floats = self.numbers.T.tolist()
        made = [blank(self.kind) for _ in range(self.count)]
        self._fill(made, self.kind, layout_of(self.kind).parts, floats)
        return made

    def _fill(self, made: list[Any], kind: Any, parts: tuple[Part, ...], floats: list[list[float]]) -> None:
        for part in parts:
            deque(map(kind.__dict__[part.slot].__set__, made, self._values(part, floats)), maxlen=0)

    def _values(self, part: Part, floats: list[list[float]]) -> Any:
        if part.parts:
            each = []
            for parts in part.parts:
                nested = [blank(part.kind) for _ in range(self.count)]
                self._fill(nested, part.kind, parts, floats)
                each.append(nested)
            return each[0] if part.single else map(list, zip(*each, strict=True))
        if part.code == TEXT:
            return self.texts[part.path] if self.count else ()
        if part.code == WORDS:
            values, starts = sequence_of(self.words[0], "I"), self.words[1].tolist()
            return [values[a:b] for a, b in pairwise(starts)]
        if part.code == ROWS:
            assert self.rows is not None
            inner, bounds = self.rows[0].messages(), self.rows[1]
            return [inner[a:b] for a, b in pairwise(bounds)]
        if not part.single:
            return self.numbers[:, part.column : part.column + part.count].astype(DTYPES[part.code])
        values = floats[part.column]
        return values if part.code >= F32 else map(bool if part.boolean else int, values)

    # -- as bytes ----------------------------------------------------------------------------------------------------

    def write(self, out: NDArray[np.uint8], position: int) -> int:
        """Writes a sequence of these messages to `out` (the body, a multiple of 8 bytes) from `position` on, and
        returns its end."""
        codes, values, texts = layout_of(self.kind).codes, self.numbers.reshape(-1), self._encoded()
        counts = np.empty(0, np.int64)
        first_inner = (len(codes), len(values), len(texts))  # of codes, values and texts
        if self.rows is not None:
            inner = self.rows[0]
            codes = np.concatenate([codes, layout_of(inner.kind).codes])
            values = np.concatenate([values, inner.numbers.reshape(-1)])
            texts = texts + inner._encoded()
            counts = np.diff(self.rows[1])
        lengths = np.array([len(text) for text in texts], np.int64)
        text = np.frombuffer(bytearray(b"".join(texts) + b"\0"), np.uint8)
        first = np.array([*first_inner, int(lengths[: first_inner[2]].sum())], np.int64)
        return int(_write(out, position, self.count, codes, values, text, lengths, *self.words, counts, first))

    @property
    def size(self) -> int:
        """Bytes that are enough for `write`."""
        inner = 0 if self.rows is None else self.rows[0].size
        texts = sum(4 * len(text) + 16 for column in self.texts.values() for text in column)
        return 16 + inner + texts + self.words[0].nbytes + self.count * (8 * self.numbers.shape[1] + 32)

    def _encoded(self) -> list[bytes]:
        """All texts, message by message."""
        columns = [self.texts[path] for path in layout_of(self.kind).texts] if self.count else []
        return [text.encode() for row in zip(*columns, strict=True) for text in row]


@njit(cache=True, nogil=True)
def _write(out, position, count, codes, values, text, lengths, words, starts, counts, first):  # type: ignore[no-untyped-def]
    """`counts` are those of the inner messages of each; `first` says where their codes, values, lengths and text begin.

    One loop for both kinds: what is handed to a function counts references, ten times the rest.
    """
    as_u16, as_u32, as_i32 = out.view(np.uint16), out.view(np.uint32), out.view(np.int32)
    as_f32, as_f64 = out.view(np.float32), out.view(np.float64)
    position = (position + 3) & ~3
    as_u32[position >> 2] = count
    position += 4
    value, length, character = np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64)  # next ones
    value[1], length[1], character[1] = first[1], first[2], first[3]
    for i in range(count):
        for k in range(1 + (counts[i] if len(counts) else 0)):
            level = 0 if k == 0 else 1
            for code in codes[first[0] :] if level else codes[: first[0]]:
                if code < TEXT:
                    number = values[value[level]]
                    value[level] += 1
                if code == U8:
                    out[position] = np.uint8(number)
                    position += 1
                elif code == U16:
                    position = (position + 1) & ~1
                    as_u16[position >> 1] = np.uint16(number)
                    position += 2
                elif code == F64:
                    position = (position + 7) & ~7
                    as_f64[position >> 3] = number
                    position += 8
                else:
                    position = (position + 3) & ~3
                    at = position >> 2
                    position += 4
                    if code == U32:
                        as_u32[at] = np.uint32(np.int64(number))
                    elif code == I32:
                        as_i32[at] = np.int32(number)
                    elif code == F32:
                        as_f32[at] = np.float32(number)
                    elif code == TEXT:
                        size = lengths[length[level]]
                        as_u32[at] = size + 1
                        for x in range(size):
                            out[position + x] = text[character[level] + x]
                        out[position + size] = 0
                        position += size + 1
                        length[level] += 1
                        character[level] += size
                    elif code == WORDS:
                        size = starts[i + 1] - starts[i]
                        as_u32[at] = size
                        for x in range(size):
                            as_u32[at + 1 + x] = words[starts[i] + x]
                        position += 4 * size
                    else:
                        as_u32[at] = counts[i]
    return position
