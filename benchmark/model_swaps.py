# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Hot swaps between two networks while color and depth stream over DDS, every fifth to a broken file.

    source scripts/env && python benchmark/model_swaps.py ../shared/models/yolo11n-seg.onnx \\
        ../shared/models/yolo26n-seg_480x640.onnx --photo IMAGE --swaps 10

Prints each swap, and what became of every color image: it ends with 1 if one is missing in the books.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test" / "ros"))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

from rig import NodeProcess, Rig
from seg_perception.srv import SetModel
from swapping import BROKEN, SETTLING, fill, photographed, swap_models

NAMESPACE = "/model_swaps"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs=2, type=Path)
    parser.add_argument("--photo", type=Path, required=True, help="what the camera sees")
    parser.add_argument("--swaps", type=int, default=10)
    parser.add_argument("--rate", type=float, default=10.0, help="images per second")
    options = parser.parse_args()
    a, b = (path.absolute() for path in options.models)
    names = [BROKEN if k % 5 == 3 else (b, a)[k % 2].name for k in range(options.swaps)]
    rig = Rig(NAMESPACE)
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), [a, b])
        node = NodeProcess("segmenter.plugin:=yolo", f"segmenter.model:={folder}/{a.name}", namespace=NAMESPACE)
        photo = photographed(options.photo)
        try:
            rig.film(lambda: len(rig.objects) >= 5, rate=options.rate, timeout=120.0, what="results", color=photo)
            time.sleep(SETTLING)
            tally = swap_models(rig, names, options.rate, color=photo)
        finally:
            node.stop()
            rig.close()
    for swap in tally.swaps:
        word = "ok" if swap.status == SetModel.Response.OK else "refused"
        print(
            f"{swap.model:28} {word:8} {swap.seconds:5.1f} s, {swap.results:3} results meanwhile; {swap.message[:90]}"
        )
    sequences = [m.sequence for m in rig.objects]
    whole = sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    dropped = ", ".join(f"{reason}: {count}" for reason, count in tally.dropped.items()) or "none"
    print(f"color images: {tally.sent} sent, {tally.received} received, {tally.results} results; dropped: {dropped}")
    print(f"result numbers without a gap: {'yes' if whole else 'NO'}")
    return 0 if whole and tally.received == tally.results + sum(tally.dropped.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
