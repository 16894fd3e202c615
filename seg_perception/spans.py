# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of masks: between row spans and everything else. One pass to count, one to fill, so that nothing grows.

Spans are (S, 3) int32 rows `y, x_start, x_stop`; mask i of several owns `spans[offsets[i]:offsets[i + 1]]`.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def spans_of_dense(stack):  # type: ignore[no-untyped-def]
    n, height, width = stack.shape
    offsets = np.zeros(n + 1, np.int64)
    for i in range(n):
        total = 0
        for y in range(height):
            before = False
            for x in range(width):
                now = stack[i, y, x]
                if now and not before:
                    total += 1
                before = now
        offsets[i + 1] = offsets[i] + total
    spans = np.empty((offsets[n], 3), np.int32)
    k = 0
    for i in range(n):
        for y in range(height):
            before = False
            for x in range(width):
                now = stack[i, y, x]
                if now and not before:
                    spans[k, 0] = y
                    spans[k, 1] = x
                elif before and not now:
                    spans[k, 2] = x
                    k += 1
                before = now
            if before:
                spans[k, 2] = width
                k += 1
    return spans, offsets


@njit(cache=True, nogil=True)
def spans_of_labels(labels, count):  # type: ignore[no-untyped-def]
    height, width = labels.shape
    offsets = np.zeros(count + 1, np.int64)
    for y in range(height):
        before = 0
        for x in range(width):
            now = labels[y, x]
            if now != before and now > 0:
                offsets[now] += 1
            before = now
    for i in range(count):
        offsets[i + 1] += offsets[i]
    spans = np.empty((offsets[count], 3), np.int32)
    cursor = offsets[:-1].copy()
    for y in range(height):
        before = 0
        for x in range(width):
            now = labels[y, x]
            if now != before:
                if before > 0:
                    spans[cursor[before - 1], 2] = x
                    cursor[before - 1] += 1
                if now > 0:
                    spans[cursor[now - 1], 0] = y
                    spans[cursor[now - 1], 1] = x
            before = now
        if before > 0:
            spans[cursor[before - 1], 2] = width
            cursor[before - 1] += 1
    return spans, offsets


@njit(cache=True, nogil=True)
def spans_of_runs(runs, x0, y0, width):  # type: ignore[no-untyped-def]
    total = 0
    position = 0
    for k in range(len(runs)):
        if k % 2 == 1 and runs[k] > 0:
            total += (position + runs[k] - 1) // width - position // width + 1
        position += runs[k]
    spans = np.empty((total, 3), np.int32)
    n = 0
    position = 0
    for k in range(len(runs)):
        if k % 2 == 1:
            left = runs[k]
            start = position
            while left > 0:
                y, x = start // width, start % width
                step = min(left, width - x)
                if n > 0 and spans[n - 1, 0] == y0 + y and spans[n - 1, 2] == x0 + x:  # after a background run of 0
                    spans[n - 1, 2] = x0 + x + step
                else:
                    spans[n, 0] = y0 + y
                    spans[n, 1] = x0 + x
                    spans[n, 2] = x0 + x + step
                    n += 1
                start += step
                left -= step
        position += runs[k]
    return spans[:n]


@njit(cache=True, nogil=True)
def runs_of_spans(spans, x0, y0, width, height):  # type: ignore[no-untyped-def]
    runs = np.empty(2 * len(spans) + 1, np.uint32)
    n = 0
    position = 0  # end of the last foreground run, in row-major ROI pixels
    for k in range(len(spans)):
        start = (spans[k, 0] - y0) * width + spans[k, 1] - x0
        stop = (spans[k, 0] - y0) * width + spans[k, 2] - x0
        if n > 0 and start == position:  # goes on from the end of the row above
            runs[n - 1] += stop - start
        else:
            runs[n] = start - position
            runs[n + 1] = stop - start
            n += 2
        position = stop
    if n > 0 and position < width * height:
        runs[n] = width * height - position
        n += 1
    return runs[:n]


@njit(cache=True, nogil=True)
def runs_of_all(spans, offsets, rois):  # type: ignore[no-untyped-def]
    """`runs_of_spans` of all masks in one array, and where each mask's begin."""
    runs = np.empty(2 * len(spans) + len(rois), np.uint32)
    starts = np.zeros(len(rois) + 1, np.int64)
    for i in range(len(rois)):
        own = runs_of_spans(spans[offsets[i] : offsets[i + 1]], rois[i, 0], rois[i, 1], rois[i, 2], rois[i, 3])
        starts[i + 1] = starts[i] + len(own)
        runs[starts[i] : starts[i + 1]] = own
    return runs[: starts[-1]], starts


@njit(cache=True, nogil=True)
def areas(spans, offsets):  # type: ignore[no-untyped-def]
    out = np.zeros(len(offsets) - 1, np.int64)
    for i in range(len(out)):
        total = 0
        for k in range(offsets[i], offsets[i + 1]):
            total += spans[k, 2] - spans[k, 1]
        out[i] = total
    return out


@njit(cache=True, nogil=True)
def chosen_masks(spans, offsets, chosen):  # type: ignore[no-untyped-def]
    """Spans and offsets of the masks `chosen`, in that order."""
    ends = np.zeros(len(chosen) + 1, np.int64)
    for i in range(len(chosen)):
        ends[i + 1] = ends[i] + offsets[chosen[i] + 1] - offsets[chosen[i]]
    out = np.empty((ends[-1], 3), np.int32)
    for i in range(len(chosen)):
        for k in range(ends[i + 1] - ends[i]):
            for c in range(3):
                out[ends[i] + k, c] = spans[offsets[chosen[i]] + k, c]
    return out, ends


@njit(cache=True, nogil=True)
def tight_rois(spans, offsets):  # type: ignore[no-untyped-def]
    n = len(offsets) - 1
    rois = np.zeros((n, 4), np.int32)
    for i in range(n):
        first, last = offsets[i], offsets[i + 1]
        if first == last:
            continue
        x_min, x_max = spans[first, 1], spans[first, 2]
        for k in range(first, last):
            x_min = min(x_min, spans[k, 1])
            x_max = max(x_max, spans[k, 2])
        rois[i, 0] = x_min
        rois[i, 1] = spans[first, 0]
        rois[i, 2] = x_max - x_min
        rois[i, 3] = spans[last - 1, 0] + 1 - spans[first, 0]
    return rois


@njit(cache=True, nogil=True)
def paint_dense(spans, offsets, height, width):  # type: ignore[no-untyped-def]
    n = len(offsets) - 1
    out = np.zeros((n, height, width), np.bool_)
    for i in range(n):
        for k in range(offsets[i], offsets[i + 1]):
            out[i, spans[k, 0], spans[k, 1] : spans[k, 2]] = True
    return out


@njit(cache=True, nogil=True)
def paint_crop(spans, x0, y0, width, height):  # type: ignore[no-untyped-def]
    out = np.zeros((height, width), np.bool_)
    for k in range(len(spans)):
        y = spans[k, 0] - y0
        if 0 <= y < height:
            out[y, max(0, spans[k, 1] - x0) : max(0, spans[k, 2] - x0)] = True
    return out


@njit(cache=True, nogil=True)
def paint_labels(spans, offsets, order, out):  # type: ignore[no-untyped-def]
    for i in order:
        for k in range(offsets[i], offsets[i + 1]):
            out[spans[k, 0], spans[k, 1] : spans[k, 2]] = i + 1


@njit(cache=True, nogil=True)
def shared_pixels(spans_a, offsets_a, rois_a, spans_b, offsets_b, rois_b):  # type: ignore[no-untyped-def]
    """Pixels that mask i of a and mask j of b share, (A, B)."""
    out = np.zeros((len(offsets_a) - 1, len(offsets_b) - 1), np.int64)
    for i in range(len(offsets_a) - 1):
        for j in range(len(offsets_b) - 1):
            a, b = rois_a[i], rois_b[j]
            if a[0] >= b[0] + b[2] or b[0] >= a[0] + a[2] or a[1] >= b[1] + b[3] or b[1] >= a[1] + a[3]:
                continue
            p, q = offsets_a[i], offsets_b[j]
            while p < offsets_a[i + 1] and q < offsets_b[j + 1]:
                if spans_a[p, 0] == spans_b[q, 0]:
                    out[i, j] += max(0, min(spans_a[p, 2], spans_b[q, 2]) - max(spans_a[p, 1], spans_b[q, 1]))
                a_first = spans_a[p, 0] < spans_b[q, 0] or (
                    spans_a[p, 0] == spans_b[q, 0] and spans_a[p, 2] <= spans_b[q, 2]
                )
                if a_first:
                    p += 1
                else:
                    q += 1
    return out
