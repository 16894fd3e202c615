# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever comes in, out comes a result or one clear error: no crash, no hang, no allocation on a header's word.

1 000 cases here; `python benchmark/fuzz.py --cases 10000` runs as many as you like.
"""

import os
import struct
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from contract_models import Rig, beside, picture
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from seg_perception.config import Config, ConfigError, load_config
from seg_perception.encodings import PACKED, PLANAR, ImageError, to_rgb
from seg_perception.folder import FolderError
from seg_perception.fusion import FusionConfig, fuse
from seg_perception.grasping.alone import plan_grasps
from seg_perception.grasping.gripper import load_gripper
from seg_perception.masks import Masks, from_coco, to_coco
from seg_perception.recordings import open_frames
from seg_perception.scene import Frame, Instances, Intrinsics, Status
from seg_perception.segmenters.instances import InstanceNetwork
from seg_perception.segmenters.query import Query
from seg_perception.segmenters.semantic import Semantic
from seg_perception.segmenters.yolo import Yolo

CASES = int(os.environ.get("SEG_PERCEPTION_FUZZ_CASES", "1000"))
TARGETS = 11  # tests below that share them
MEMORY = 64 << 20  # bytes that no small input may make anybody allocate

fuzz = settings(
    max_examples=max(1, CASES // TARGETS),
    deadline=None,
    derandomize="SEG_PERCEPTION_FUZZ_CASES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
numbers = st.one_of(st.integers(-5, 5), st.integers(0, 200), st.sampled_from([2**31 - 1, 2**32 - 1, 100_000]))
floats = st.floats(width=64, allow_nan=True, allow_infinity=True)


@pytest.fixture(autouse=True)
def bounded():
    """No test ends having held more than it may."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * MEMORY


# -- images ------------------------------------------------------------------------------------------------------------

encodings = st.one_of(st.sampled_from([*PACKED, *PLANAR, "16UC1", "32FC1", "64FC1", "mono16"]), st.text(max_size=8))
buffers = st.binary(max_size=4096)


def image(encoding, width, height, step, data, big):
    return SimpleNamespace(encoding=encoding, width=width, height=height, step=step, data=data, is_bigendian=big)


@fuzz
@example("rgb8\n", 0, 0, 0, b"", 0)  # an error is one line, whatever the camera says
@given(encodings, numbers, numbers, numbers, buffers, st.integers(0, 1))
def test_color_images(encoding, width, height, step, data, big):
    message = image(encoding, width, height, step, data, big)
    tracemalloc.reset_peak()
    try:
        color = to_rgb(message)
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert color.shape == (height, width, 3)
        assert color.dtype == np.uint8
    assert tracemalloc.get_traced_memory()[1] < MEMORY


def test_a_header_that_lies_allocates_nothing():
    for encoding in (*PACKED, *PLANAR):
        tracemalloc.reset_peak()
        with pytest.raises(ImageError):
            to_rgb(image(encoding, 100_000, 100_000, 800_000, bytes(1000), 0))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20


@fuzz
@given(encodings, numbers, numbers, numbers, buffers, st.floats(0, 1), st.data())
def test_depth_images_of_ros(encoding, width, height, step, data, scale, more):
    messages = pytest.importorskip("sensor_msgs.msg")
    from seg_perception.ros.conversions import decode_compressed_depth, decode_depth, intrinsics_from_info

    def shaped(depth):
        assert depth.dtype == np.float32
        assert not (depth[np.isfinite(depth)] <= 0).any()

    tracemalloc.reset_peak()
    try:
        shaped(decode_depth(image(encoding, width, height, step, data, 0), scale))
    except ImageError as error:
        assert "\n" not in str(error)
    transport = more.draw(st.sampled_from(["16UC1; compressedDepth png", "16UC1; compressedDepth rvl", "png", ""]))
    header = struct.pack("<iff", 0, *more.draw(st.tuples(st.floats(width=32), st.floats(width=32))))
    payload = more.draw(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", struct.pack("<ii", 100_000, 100_000)])) + data
    message = messages.CompressedImage(format=transport, data=header + payload)
    try:
        shaped(decode_compressed_depth(message, scale))
    except ImageError as error:
        assert "\n" not in str(error)
    assert tracemalloc.get_traced_memory()[1] < MEMORY

    info = messages.CameraInfo(width=abs(width) % 2**32, height=abs(height) % 2**32)
    info.k = more.draw(st.lists(floats, min_size=9, max_size=9))
    info.d = more.draw(st.lists(floats, max_size=15))
    info.distortion_model = more.draw(st.sampled_from(["plumb_bob", "rational_polynomial", "equidistant", "", "x"]))
    info.binning_x = more.draw(st.integers(0, 9))
    try:
        intrinsics = intrinsics_from_info(info)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert intrinsics.fx > 0


# -- masks -------------------------------------------------------------------------------------------------------------


@fuzz
@given(st.lists(st.integers(0, 2**32 - 1), max_size=30), st.lists(numbers, min_size=4, max_size=4), numbers, numbers)
def test_run_lengths(counts, roi, height, width):
    tracemalloc.reset_peak()
    try:
        masks = Masks.from_counts(height, width, [roi], [np.array(counts, np.uint32)])
    except (ValueError, OverflowError) as error:
        assert "\n" not in str(error)
    else:
        assert 0 <= int(masks.areas[0]) <= width * height
    assert tracemalloc.get_traced_memory()[1] < MEMORY


@fuzz
@given(st.one_of(st.text(max_size=60), st.binary(max_size=60), st.lists(numbers, max_size=20)), numbers, numbers)
def test_coco_masks(counts, height, width):
    tracemalloc.reset_peak()
    try:
        masks = from_coco([{"size": [height, width], "counts": counts}])
    except (ValueError, OverflowError, TypeError) as error:
        assert "\n" not in str(error)
    else:
        assert to_coco(masks)[0]["size"] == [height, width]
    assert tracemalloc.get_traced_memory()[1] < MEMORY


# -- configurations ----------------------------------------------------------------------------------------------------

leaves = st.one_of(st.none(), st.booleans(), st.integers(), floats, st.text(max_size=12), st.lists(floats, max_size=4))
sections = ["segmenter", "fusion", "plugin", "grasping", "planners", "min_depth", "workspace", "topics", "min", "drift"]
keys = st.one_of(st.text(max_size=8), st.sampled_from(sections))
trees = st.dictionaries(
    keys, st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=6)
)


@fuzz
@given(trees, st.lists(st.text(max_size=20), max_size=2))
def test_configurations(tree, overrides):
    try:
        assert isinstance(load_config(tree, overrides=overrides), Config)
    except ConfigError as error:
        assert str(error)


@fuzz
@given(st.text(max_size=200))
def test_config_files(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    try:
        load_config(path)
    except ConfigError as error:
        assert "config" in str(error)


members = ["stroke", "finger_width", "finger_length", "tip_beyond_tcp", "palm_size", "friction", "cup_radius", "x"]


@fuzz
@given(st.dictionaries(st.sampled_from(members), leaves))
def test_gripper_files(tmp_path, tree):
    path = tmp_path / "gripper.yaml"
    path.write_text(yaml.safe_dump(tree))
    for source in (path, tree):
        try:
            load_gripper(source)
        except ValueError as error:
            assert str(error)


@fuzz
@given(st.binary(max_size=300), st.booleans())
def test_recordings(tmp_path, data, magic):
    path = tmp_path / "bag.mcap"
    path.write_bytes((b"\x89MCAP0\r\n" if magic else b"") + data)
    with pytest.raises(FolderError) as error:
        open_frames(path)
    assert str(path) in str(error.value)


# -- networks ----------------------------------------------------------------------------------------------------------

HOSTILE = np.array([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e30, -1e30, 0.5, 1e-30, 700.0], np.float32)


@pytest.fixture(scope="module")
def rigs(models_dir, tmp_path_factory):
    """One segmenter of each kind on whichever of its contract files there is."""
    names = {"names": ["bolt", "nut", "washer", "screw", "pin"]}
    made = []
    for segmenter, export, sidecar in (
        (Yolo, "yolov8-seg_tiny_raw", None),
        (Yolo, "yolo26-seg_tiny_e2e", None),
        (Query, "mask2former_tiny", {**names, "family": "mask2former"}),
        (Query, "rfdetr_hf_tiny", {**names, "decoding": {"no_object": "none"}}),
        (InstanceNetwork, "maskrcnn_roi28_tiny", {"names": ["bolt", "nut", "washer", "screw"]}),
        (Semantic, "unet_smp_tiny", {"names": ["background", "bolt", "nut", "washer"]}),
    ):
        model = models_dir / "contracts" / f"{export}.onnx"
        made.append(Rig(segmenter, beside(tmp_path_factory.mktemp("fuzz"), model, sidecar)))
    for rig in made:
        rig.segmenter.segment(Frame(picture(97, 131), None))  # to know the outputs
    return made


@fuzz
@given(st.data())
def test_network_outputs(rigs, data):
    rig = data.draw(st.sampled_from(rigs))
    honest = rig.backend(rig.inputs)
    name = data.draw(st.sampled_from(sorted(honest)))
    spoilt = np.array(honest[name])
    how = data.draw(st.sampled_from(["values", "all", "shape", "huge", "empty"]))
    if how in ("values", "all") and spoilt.size:
        seed = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        where = seed.uniform(size=spoilt.shape) < (1.0 if how == "all" else 0.05)
        with np.errstate(invalid="ignore"):
            spoilt[where] = seed.choice(HOSTILE, int(where.sum())).astype(spoilt.dtype)
    elif how == "shape":
        spoilt = spoilt[..., : data.draw(st.integers(0, 3))] if spoilt.ndim else spoilt
    elif how == "huge" and spoilt.dtype.kind == "f":
        spoilt = spoilt * np.float32(1e20)
    else:
        spoilt = spoilt[:0] if spoilt.ndim else spoilt
    rig.given = {name: spoilt}
    frame = Frame(picture(97, 131), np.ones((97, 131), np.float32), Intrinsics(131, 97, 100.0, 100.0, 65.0, 48.0))
    try:
        with np.errstate(all="ignore"):
            found = rig.segmenter.segment(frame)
    except (ValueError, IndexError, KeyError) as error:
        assert str(error)
    else:
        assert np.isfinite(found.boxes).all()
        assert np.isfinite(found.scores).all()
        assert len(fuse(frame, found)) == len(found)
    finally:
        rig.given = {}


# -- 3D ----------------------------------------------------------------------------------------------------------------


@fuzz
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([(), (0.1, -0.2, 0.0, 0.0, 0.05), (0.1, 0.1, 0.1, 0.1)]),
    st.integers(1, 200),
)
def test_fusion_and_grasps(seed, hostile, covered, distortion, least):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.3, 2.0, (24, 32)).astype(np.float32)
    spoilt = rng.uniform(size=depth.shape) < hostile
    depth[spoilt] = rng.choice(HOSTILE, int(spoilt.sum()))
    dense = rng.uniform(size=(2, 24, 32)) < covered
    frame = Frame(np.zeros((24, 32, 3), np.uint8), depth, Intrinsics(32, 24, 30.0, 30.0, 16.0, 12.0, distortion))
    objects = fuse(frame, Instances.from_masks(dense), FusionConfig(min_points=least))
    assert len(objects) == 2
    for obj in objects:
        assert isinstance(obj.status, Status)
        assert np.isfinite(obj.points).all()
        assert not obj.status.has_3d or (np.isfinite(obj.centroid).all() and np.isfinite(obj.box.size).all())
    if dense[0].any():
        plan = plan_grasps(depth, dense[0], frame.intrinsics, [0.0, 0.0, 1.0])
        assert all(np.isfinite(g.T_camera_grasp).all() for g in plan)
        assert plan or plan.reason
