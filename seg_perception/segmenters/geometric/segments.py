# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Segments made of patches, and what is put right after merging: each rule says which real thing it is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.segmenters.geometric.merging import Contacts
from seg_perception.segmenters.geometric.statistics import Statistics, add_rows, fit_planes, residuals

HOLLOW = np.radians(-5.0)  # mean bend over two arms, of the inside of cups and bowls
NARROW = 0.012  # m, mean width of handles
NEAR = 0.1  # m in depth, between a handle and its cup
ALIKE = np.cos(np.radians(20.0))  # normals of two pieces of one surface
CURVED = 3.0  # times the noise: cameras bend planes that much
FLAT = 8.0  # times the noise; rougher patches have no plane
ONE_PLANE = 1.15  # and how much less flat each may be in a common plane than in its own


@dataclass(frozen=True, eq=False)
class Segments:
    """Which segment each patch belongs to, (P + 1,), 0 = none; with what is known of the patches."""

    of_patch: NDArray[np.int32]
    patches: Statistics
    patch_contacts: Contacts

    @classmethod
    def of(cls, of_patch: NDArray[np.int32], patches: Statistics, contacts: Contacts) -> Segments:
        """Segments 1, 2 ... from any numbers other than 0 in `of_patch`."""
        names, numbers = np.unique(of_patch, return_inverse=True)
        numbers = numbers.reshape(-1) + (0 if len(names) and names[0] == 0 else 1)
        return cls(numbers.astype(np.int32), patches, contacts)

    @property
    def count(self) -> int:
        return int(self.of_patch.max(initial=0))

    @cached_property
    def statistics(self) -> Statistics:
        return self.patches.united(self.of_patch, self.count)

    @cached_property
    def contacts(self) -> Contacts:
        tables = []
        for name in ("length", "joined", "bend", "front"):
            rows = add_rows(getattr(self.patch_contacts, name), self.of_patch, self.count + 1)
            table = add_rows(rows.T, self.of_patch, self.count + 1)
            table[0] = 0
            table[:, 0] = 0
            np.fill_diagonal(table, 0)
            tables.append(table.T)
        return Contacts(*tables)

    def joined(self, pairs: Iterable[tuple[int, int]]) -> Segments:
        """The segments with the two of each pair made one."""
        root = np.arange(self.count + 1)
        for a, b in pairs:
            a, b = root[a], root[b]
            root[root == b] = a
        return self.of(root[self.of_patch], self.patches, self.patch_contacts)

    def without(self, dropped: NDArray[np.bool_]) -> Segments:
        """The segments but those `dropped` (count + 1,)."""
        return self.of(np.where(dropped[self.of_patch], 0, self.of_patch), self.patches, self.patch_contacts)


def join_thin(segments: Segments, focal: float) -> Segments:
    """Handles, spouts, rims: a narrow piece joined to a much bigger one is part of it, also when it bends inwards;
    and so is a strip that shows right behind or before it."""
    known, contacts = segments.statistics, segments.contacts
    depth = known.pixels / np.maximum(known.moments[:, 3], 1e-6)
    width = 2 * known.area * focal / np.maximum(known.rim * depth, 1e-6)
    pairs = []
    for i in np.flatnonzero(width < NARROW):
        host = int(np.where(contacts.joined[i] > 0, contacts.joined[i], contacts.length[i] / 1e3).argmax())
        if i == 0 or host == 0 or known.area[i] > 0.2 * known.area[host]:
            continue
        is_joined = contacts.joined[i, host] >= 0.08 * known.rim[i]
        is_strip = width[i] < NARROW / 2 and contacts.length[i, host] >= 0.25 * known.rim[i]
        if is_joined or (is_strip and abs(depth[i] - depth[host]) < NEAR):
            pairs.append((host, int(i)))
    return segments.joined(pairs)


def join_hollow(segments: Segments, level: float = 0.015) -> Segments:
    """Cups and bowls: the inside, which curves inwards, joins the outside that it touches and that is as high."""
    known, contacts = segments.statistics, segments.contacts
    top = known.height(0.98)
    pairs = []
    for inside in np.flatnonzero(known.bulge < HOLLOW):
        fitting = (np.abs(top - top[inside]) < np.maximum(level, 0.1 * top[inside])) & (contacts.length[inside] >= 8)
        fitting[[0, inside]] = False
        if inside and fitting.any():
            pairs.append((int(np.where(fitting, contacts.length[inside], 0).argmax()), int(inside)))
    return segments.joined(pairs)


def join_behind(segments: Segments, labels: NDArray[np.int32], w: NDArray[np.float32], noise: float) -> Segments:
    """Two pieces of one object that shows on both sides of a nearer one: patches of one plane, hidden in between."""
    of_patch, known = segments.of_patch, segments.patches
    planes, rms = fit_planes(known.moments)
    big = np.flatnonzero((known.pixels >= 60) & (of_patch > 0) & (rms < FLAT * noise))
    shape = known.moments / np.maximum(known.moments[:, :1], 1) * 100.0  # the smaller counts as much as the larger
    pairs = [np.empty((0, 2), np.int64)]
    for i, a in enumerate(big):
        others = big[:i][of_patch[big[:i]] != of_patch[a]]
        cosine = planes[others] @ planes[a] / np.linalg.norm(planes[others], axis=1) / np.linalg.norm(planes[a])
        together, _ = fit_planes(shape[others] + shape[a])
        flat = residuals(shape[others], together) < ONE_PLANE * np.maximum(rms[others], CURVED * noise)
        flat &= residuals(shape[a], together) < ONE_PLANE * max(rms[a], CURVED * noise)
        fitting = others[(cosine > ALIKE) & flat]
        pairs.append(np.stack([np.full_like(fitting, a), fitting], axis=1))
    candidates = np.concatenate(pairs)
    hidden = _hidden_between(labels, w, of_patch, known.centres, candidates, 6 * noise)
    return segments.joined((int(s), int(t)) for s, t in of_patch[candidates[hidden]])


@njit(cache=True, nogil=True)
def is_hidden_between(labels, w, of_patch, start, stop, a, b, step):  # type: ignore[no-untyped-def]
    """Whether the line between two patches is covered by something nearer; its shadow may be part of it."""
    steps = int(max(abs(stop[0] - start[0]), abs(stop[1] - start[1])))
    w1, w2 = 0.0, 0.0
    covered = shadow = seen = 0
    first, last = 0, steps
    for k in range(steps + 1):
        v = int(start[0] + (stop[0] - start[0]) * k / max(1, steps) + 0.5)
        u = int(start[1] + (stop[1] - start[1]) * k / max(1, steps) + 0.5)
        if labels[v, u] == a:
            w1, first = w[v, u], k
        elif labels[v, u] == b and w2 == 0.0:
            w2, last = w[v, u], k
    if w1 == 0.0 or w2 == 0.0:
        return False
    for k in range(first + 1, last):
        v = int(start[0] + (stop[0] - start[0]) * k / max(1, steps) + 0.5)
        u = int(start[1] + (stop[1] - start[1]) * k / max(1, steps) + 0.5)
        here = of_patch[labels[v, u]]
        expected = w1 + (w2 - w1) * (k - first) / (last - first)
        if here == of_patch[a] or here == of_patch[b]:
            continue
        if w[v, u] == 0:
            shadow += 1
        elif w[v, u] > expected + step:
            covered += 1
        else:
            seen += 1
    return covered >= 4 and covered >= 0.4 * (shadow + covered) and seen <= 0.1 * covered


@njit(cache=True, nogil=True)
def _hidden_between(labels, w, of_patch, centres, pairs, step):  # type: ignore[no-untyped-def]
    out = np.zeros(len(pairs), np.bool_)
    for k in range(len(pairs)):
        a, b = pairs[k]
        out[k] = is_hidden_between(labels, w, of_patch, centres[a], centres[b], a, b, step)
    return out
