# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Click in RViz, get an object with grasps: MobileSAM's real weights, a real recorded table, over real DDS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from geometry_msgs.msg import PointStamped
from rig import OPTICAL, NodeProcess, Rig
from seg_perception.msg import SegmentedObject
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from seg_perception.folder import RgbdFolder
from seg_perception.geometry import unproject
from seg_perception.ros.conversions import encode_image, stamp_from_ns, stamp_ns
from seg_perception.scene import Instances
from seg_perception.segmenters.sam.prompts import inner_points

FRAME = 33  # of the recorded tables: five things


@pytest.fixture(scope="module")
def record(data_dir: Path):
    return RgbdFolder(data_dir / "mosd")[FRAME]


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig, models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    one_thread = {"plugin": "onnxruntime", "threads": 1}
    segmenter = {
        "plugin": "promptable",
        "encoder": str(models_dir / "mobile_sam_encoder.onnx"),
        "decoder": str(models_dir / "mobile_sam_decoder.onnx"),
        "prompts": "live",
        "backend": one_thread,
        "decoder_backend": one_thread,
    }
    path = tmp_path_factory.mktemp("config") / "click.yaml"
    path.write_text(yaml.safe_dump({"segmenter": segmenter, "grasping": {"budget": 0.0}, "fusion": {"max_depth": 3.0}}))
    process = NodeProcess(f"config:={path}", namespace=namespace)
    try:
        rig.wait(lambda: rig.diagnostic("model").message.startswith("READY"), 300.0, "ready")
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


def send(rig: Rig, record) -> int:
    """Publishes the recorded frame, stamped now."""
    stamp, frame, k = rig.now(), record.frame, record.frame.intrinsics
    header = Header(stamp=stamp_from_ns(stamp), frame_id=OPTICAL)
    info = CameraInfo(
        header=header, width=k.width, height=k.height, distortion_model="plumb_bob", d=[0.0] * 5,
        k=k.matrix.ravel().tolist(), p=np.hstack([k.matrix, np.zeros((3, 1))]).ravel().tolist(),
    )  # fmt: skip
    depth = np.nan_to_num(frame.depth * 1000, nan=0, posinf=0, neginf=0).astype(np.uint16)
    rig.color_info.publish(info)
    rig.depth_info.publish(info)
    rig.depth.publish(encode_image(depth, "16UC1", header))
    rig.color.publish(encode_image(frame.color, "rgb8", header))
    return stamp


def click_on(record, label: int, stamp: int) -> PointStamped:
    """In the middle of a labelled thing, as RViz has it: in metres, on the cloud."""
    ((u, v),) = inner_points(Instances.from_masks((record.instances == label)[None]), 0, 1)
    z = float(np.nanmedian(record.frame.depth[int(v) - 2 : int(v) + 3, int(u) - 2 : int(u) + 3]))
    x, y, z = unproject(record.frame.intrinsics, [u, v], z)
    message = PointStamped(header=Header(stamp=stamp_from_ns(stamp), frame_id=OPTICAL))
    message.point.x, message.point.y, message.point.z = float(x), float(y), float(z)
    return message


def box_overlap(record, label: int, box) -> float:
    a, b = Instances.from_masks((record.instances == label)[None]).boxes[0], np.array(box)
    shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def test_a_click_gives_one_object_with_grasps(node: NodeProcess, rig: Rig, record) -> None:
    clicks = rig.node.create_publisher(PointStamped, "clicked_point", 5)

    def filmed(condition, what: str):
        def step():
            send(rig, record)
            time.sleep(0.3)
            return condition()

        return rig.wait(step, 60.0, what)

    filmed(lambda: rig.objects, "a result without a click")
    assert not any(m.objects for m in rig.objects)  # nobody asked for anything
    rig.wait(lambda: clicks.get_subscription_count() == 1, what="the node listens to clicks")
    clicks.publish(click_on(record, 4, rig.now()))
    message = filmed(lambda: next((m for m in rig.objects if m.objects), None), "an object")
    (thing,) = message.objects
    assert box_overlap(record, 4, thing.box) > 0.7
    assert thing.status < SegmentedObject.NO_DEPTH_IMAGE, thing.status_text
    assert thing.grasp_status == SegmentedObject.GRASPS_FOUND, thing.grasp_text
    assert len(thing.grasps) >= 1

    # The camera stops. A second click, on that very image, is answered all the same: the network has seen it.
    stamp = send(rig, record)
    rig.wait(lambda: stamp_ns(rig.objects[-1].header.stamp) == stamp, 30.0, "the last frame's answer")
    time.sleep(1.5)  # it is not fresh any more, but it is the one that is meant
    rig.objects.clear()
    clicks.publish(click_on(record, 3, stamp))
    message = rig.wait(lambda: next(iter(rig.objects), None), 30.0, "the second click's answer")
    assert stamp_ns(message.header.stamp) == stamp
    (thing,) = message.objects
    assert box_overlap(record, 3, thing.box) > 0.7
