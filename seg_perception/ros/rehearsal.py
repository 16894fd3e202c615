# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A made-up frame, all the way from message to message, so that the first real one does not wait for compilation."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from seg_perception.config import Config
from seg_perception.masks import Masks
from seg_perception.pipeline import Pipeline
from seg_perception.ros.conversions import encode_image
from seg_perception.ros.feed import Shot
from seg_perception.ros.frames import Frames
from seg_perception.ros.outputs import Outputs
from seg_perception.ros.reports import Reports
from seg_perception.ros.results import Result
from seg_perception.ros.sync import Pair, Stamped
from seg_perception.ros.transforms import Transforms
from seg_perception.scene import Instances

WIDTH, HEIGHT, FOCAL = 320, 240, 300.0
TABLE, TOP = 0.8, 0.7  # m, depth of a table and of the box on it
BOX = (slice(100, 140), slice(130, 190))  # px


def rehearse(config: Config, pipeline: Pipeline, transforms: Transforms, outputs: Outputs) -> None:
    """Two frames of a box, in the usual encodings, through a tracker of their own; nothing is published."""
    frames = Frames(config, Reports(lambda _: None), transforms)
    own_tracks = Pipeline(pipeline.segmenter, config.tracker.create(), pipeline.planners, config)
    mask = np.zeros((1, HEIGHT, WIDTH), bool)
    mask[0][BOX] = True
    instances = Instances.of(Masks.from_dense(mask))
    for sequence, encodings in enumerate((("rgb8", "16UC1"), ("bgr8", "32FC1"))):
        shot = _shot(sequence, *encodings)
        frame = frames.build(shot, config)
        scene = own_tracks.complete(frame, instances)
        result = Result(
            scene=scene,
            frame_id=frame.frame_id,
            T_header_image=np.eye(4),
            in_workspace=(True,),
            ages=(1,),
            camera_info=shot.color_info,
            depth_delay=0.0,
            sequence=sequence,
            waited=0.0,
        )
        outputs.rehearse(result, config)


def _shot(sequence: int, color_encoding: str, depth_encoding: str) -> Shot:
    header = Header(frame_id="rehearsal")
    depth = np.full((HEIGHT, WIDTH), TABLE, np.float32)
    depth[BOX] = TOP
    if depth_encoding == "16UC1":
        depth = np.rint(depth * 1000).astype(np.uint16)
    color = encode_image(np.zeros((HEIGHT, WIDTH, 3), np.uint8), color_encoding, header)
    k = [FOCAL, 0.0, WIDTH / 2, 0.0, FOCAL, HEIGHT / 2, 0.0, 0.0, 1.0]
    p = [FOCAL, 0.0, WIDTH / 2, 0.0, 0.0, FOCAL, HEIGHT / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
    info = CameraInfo(header=header, width=WIDTH, height=HEIGHT, distortion_model="plumb_bob", d=[0.0] * 5, k=k, p=p)
    stamp = sequence * 33_000_000
    pair = Pair(Stamped(stamp, color, 0.0), Stamped(stamp, encode_image(depth, depth_encoding, header), 0.0))
    return Shot(pair, info, info, None, 0.0)
