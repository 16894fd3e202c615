# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Hot swaps between two real networks under a running stream, over real DDS. benchmark/model_swaps.py does more."""

from __future__ import annotations

import time
from pathlib import Path

from rig import NodeProcess, Rig
from seg_perception.srv import SetModel
from swapping import BROKEN, SETTLING, fill, photographed, swap_models

A, B = "yolo11n-seg.onnx", "yolo26n-seg_480x640.onnx"
ASKED = [B, BROKEN, A]
RATE = 5.0


def test_every_color_image_is_answered_or_counted_through_swaps(
    rig: Rig, namespace: str, models_dir: Path, data_dir: Path, tmp_path: Path
) -> None:
    fill(tmp_path, [models_dir / A, models_dir / B])
    photo = photographed(next((data_dir / "ycbv" / "frames").glob("*_rgb.*")))
    process = NodeProcess(
        "segmenter.plugin:=yolo", f"segmenter.model:={tmp_path / A}", "segmenter.score_threshold:=0.1",
        namespace=namespace,
    )  # fmt: skip
    try:
        rig.film(lambda: len(rig.objects) >= 2, rate=RATE, timeout=60.0, what="results", color=photo)
        time.sleep(SETTLING)
        tally = swap_models(rig, ASKED, RATE, color=photo)
    finally:
        assert process.stop() == 0, process.log
    kind = SetModel.Response
    assert [s.status for s in tally.swaps] == [kind.OK, kind.INVALID, kind.OK]
    refused = tally.swaps[1]
    assert "not a readable ONNX model" in refused.message
    assert BROKEN in refused.message
    stems = [s.running.partition(":")[2].partition("@")[0] for s in tally.swaps]
    assert stems == [Path(B).stem, Path(B).stem, Path(A).stem]  # the broken one changed nothing

    assert tally.sent - tally.received <= len(ASKED)  # of a queue of two, while the exchange itself goes on
    assert tally.received == tally.results + sum(tally.dropped.values()), tally
    assert set(tally.dropped) <= {"pair replaced by a newer one", "color image without depth"}, tally
    sequences = [m.sequence for m in rig.objects]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    changes = [m.model for m, n in zip(rig.objects, rig.objects[1:], strict=False) if m.model != n.model]
    assert len(changes) == 2  # each swap between two frames, and none forth and back
    assert all(m.objects for m in rig.objects)  # both see the objects of the photograph
