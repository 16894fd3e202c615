# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""After warming up, a real frame compiles nothing: every kernel has met its types."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
from numba.core.dispatcher import Dispatcher
from rig import OPTICAL, RED, camera_info, color_picture, depth_picture
from std_msgs.msg import Header

from seg_perception.config import load_config
from seg_perception.pipeline import Pipeline
from seg_perception.ros import outputs
from seg_perception.ros.conversions import encode_image
from seg_perception.ros.feed import Shot
from seg_perception.ros.frames import Frames
from seg_perception.ros.rehearsal import rehearse
from seg_perception.ros.reports import Reports
from seg_perception.ros.results import Result
from seg_perception.ros.sync import Pair, Stamped


def signatures() -> set[tuple[str, str]]:
    """Kernels of this package and the types each was made ready for."""
    modules = [m for name, m in sys.modules.items() if name.startswith("seg_perception")]
    kernels = {k for m in modules for k in vars(m).values() if isinstance(k, Dispatcher)}
    return {(k.py_func.__qualname__, str(types)) for k in kernels for types in k.signatures}


def rehearse_messages(result: Result, config: object) -> None:
    reads = SimpleNamespace(_detections=None, _reads=lambda message: message.reads_alike())
    outputs.Outputs.rehearse(reads, result, config)


def test_the_middleware_is_asked_about_our_bytes_when_there_are_objects_also_without_a_rehearsal() -> None:
    for alike in (True, False):
        asked: list[bool] = []
        said: list[str] = []
        made = object.__new__(outputs.Outputs)
        made._as_bytes = None
        made._node = SimpleNamespace(get_logger=lambda said=said: SimpleNamespace(warning=said.append))
        message = SimpleNamespace(
            objects=SimpleNamespace(count=0), reads_alike=lambda asked=asked, alike=alike: asked.append(alike) or alike
        )
        assert not made._reads(message)  # an empty message would show nothing
        assert not asked
        message.objects.count = 1
        assert [made._reads(message) for _ in range(3)] == [alike] * 3
        assert len(asked) == 1
        assert len(said) == (not alike)


def test_after_the_rehearsal_a_real_frame_compiles_nothing() -> None:
    config = load_config(overrides=[RED.replace(":=", "=")])
    pipeline = Pipeline.from_config(config)
    rehearse(config, pipeline, None, SimpleNamespace(rehearse=rehearse_messages))
    ready = signatures()
    assert {"_pack_points", "_metres_of_units", "_metres_of_floats"} <= {name for name, _ in ready}

    header = Header(frame_id=OPTICAL)
    pictures = (encode_image(color_picture(), "rgb8", header), encode_image(depth_picture(), "16UC1", header))
    color, depth = (Stamped(7, message, 0.0) for message in pictures)
    info = camera_info(header)
    frame = Frames(config, Reports(lambda _: None), None).build(Shot(Pair(color, depth), info, info, None, 0.0), config)
    scene = pipeline.complete(frame, pipeline.segment(frame))
    assert [o.status.has_3d for o in scene.objects] == [True]
    rehearse_messages(Result(scene, OPTICAL, np.eye(4), (True,), (1,), info, 0.0, 1, 0.0), config)
    assert signatures() - ready == set()
