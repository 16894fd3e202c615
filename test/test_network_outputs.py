# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""NaN that a network puts out is named: it passes no threshold and would be an empty scene."""

import numpy as np
import pytest
from contract_models import Rig, beside, picture

from seg_perception.scene import Frame
from seg_perception.segmenters.networks.outputs import not_a_number
from seg_perception.segmenters.query import Query
from seg_perception.segmenters.yolo import Yolo


def test_what_is_nan_and_how_much_of_it():
    big = np.zeros((1, 116, 8400), np.float32)
    assert not_a_number({"boxes": big, "labels": np.arange(4), "none": np.empty((0, 4), np.float32)}) == ""
    assert not_a_number({"boxes": np.full((2, 3), np.inf, np.float32)}) == ""  # some logits are
    big[:, :, :4200] = np.nan
    for width in (320, 384, 640):  # of large outputs some values are looked at, in every column
        large = np.zeros((32, 320, width), np.float32)
        large[..., 1:] = np.nan
        assert "to 100 %" in not_a_number({"prototypes": large})
    said = not_a_number({"boxes": big, "scores": np.array([0.5, np.nan, 0.1, 0.2], np.float16)})
    assert said.startswith("the network's boxes is NaN to 50 %, scores is NaN to 25 %: a float16 overflow?")


@pytest.mark.parametrize(
    ("kind", "export", "sidecar"),
    [(Yolo, "yolov8-seg_tiny_raw", None), (Query, "detr_seg_tiny", {})],
)
def test_a_segmenter_says_it_until_it_is_over(models_dir, tmp_path, kind, export, sidecar):
    rig = Rig(kind, beside(tmp_path, models_dir / "contracts" / f"{export}.onnx", sidecar))
    frame = Frame(picture(96, 128))
    rig.segmenter.segment(frame)
    assert rig.segmenter.problem == ""
    floats = {name: values for name, values in rig.outputs.items() if values.dtype.kind == "f" and values.size}
    rig.given = {name: np.full_like(values, np.nan) for name, values in floats.items()}
    assert len(rig.segmenter.segment(frame)) == 0
    assert all(name in rig.segmenter.problem for name in floats)
    rig.given = {}
    rig.segmenter.segment(frame)
    assert rig.segmenter.problem == ""
