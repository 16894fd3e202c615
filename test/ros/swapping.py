# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Hot swaps between real networks under a running stream, and the books on every color image. Used by the test of
them and by benchmark/model_swaps.py."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from rig import HEIGHT, WIDTH, Rig
from seg_perception.srv import SetModel
from sensor_msgs.msg import Image

BROKEN = "broken.onnx"
SETTLING = 3.0  # s until the last frames are out and diagnostics have said so


@dataclass
class Swap:
    """One call of set_model."""

    model: str
    status: int
    message: str
    seconds: float  # from the call to the answer
    running: str  # model after it
    results: int  # that came meanwhile


@dataclass
class Tally:
    """What became of the color images."""

    sent: int = 0
    received: int = 0  # by the node
    results: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    swaps: list[Swap] = field(default_factory=list)


def fill(folder: Path, models: list[Path]) -> None:
    """Links to the models, and a truncated one: a folder that the node trusts as that of its model."""
    for model in models:
        (folder / model.name).symlink_to(model)
    whole = models[0].read_bytes()
    (folder / BROKEN).write_bytes(whole[: len(whole) // 2])


def photographed(path: Path):
    """What makes the rig's camera see this photograph."""
    picture = cv2.resize(cv2.imread(str(path)), (WIDTH, HEIGHT))

    def spoil(message: Image) -> None:
        message.data = np.ascontiguousarray(picture[:, :, ::-1]).tobytes()

    return spoil


def swap_models(rig: Rig, names: list[str], rate: float, **camera) -> Tally:
    """Asks for one model after the other while filming at `rate`; the node runs another one already."""
    tally = Tally()
    first = len(rig.sent), len(rig.objects), counts(rig)
    for name in names:
        before, start = len(rig.objects), time.monotonic()
        request = SetModel.Request(model=name, wait=True, timeout=60.0)
        future = rig.call_async(SetModel, "set_model", request)
        rig.film(future.done, rate=rate, timeout=60.0, what=f"set_model {name}", **camera)
        reply, seconds = future.result(), time.monotonic() - start
        tally.swaps.append(Swap(name, reply.status, reply.message, seconds, reply.model, len(rig.objects) - before))
        target = len(rig.objects) + 2
        rig.film(lambda target=target: len(rig.objects) >= target, rate=rate, timeout=60.0, what="more", **camera)
    time.sleep(SETTLING)
    tally.sent, tally.results = len(rig.sent) - first[0], len(rig.objects) - first[1]
    after = counts(rig)
    after.subtract(first[2])
    tally.received = after.pop("received")
    tally.dropped = +after
    return tally


def counts(rig: Rig) -> Counter[str]:
    """Color images that the node has received and dropped, as its diagnostics have it."""
    found: Counter[str] = Counter()
    for value in (*rig.diagnostic("sync").values, *rig.diagnostic("pipeline").values):
        if value.key.startswith("dropped: ") and "depth image" not in value.key:
            found[value.key.removeprefix("dropped: ")] += int(value.value)
    found["received"] = sum(int(v.value) for v in rig.diagnostic("input color").values if v.key == "messages")
    return found
