# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Folders of RGB-D frames: what is read is what was measured, and what is wrong is named."""

import json
import shutil

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from seg_perception.folder import FolderError, RgbdFolder

META = {"width": 8, "height": 6, "fx": 10.0, "fy": 11.0, "cx": 3.5, "cy": 2.5, "depth_scale_to_m": 0.0005}


@pytest.fixture
def folder(tmp_path):
    """Three frames 8x6: red pixel at (x=2, y=1) and depth 2000 units there, in frames 2, 10 and 1."""
    (tmp_path / "frames").mkdir()
    (tmp_path / "meta.json").write_text(json.dumps(META))
    color = np.zeros((6, 8, 3), np.uint8)
    color[1, 2] = (0, 0, 255)  # OpenCV's order: red
    depth = np.zeros((6, 8), np.uint16)
    depth[1, 2] = 2000
    for name in ("f2", "f10", "f1"):
        cv2.imwrite(str(tmp_path / f"frames/{name}_rgb.png"), color)
        cv2.imwrite(str(tmp_path / f"frames/{name}_depth.png"), depth)
    return tmp_path


def write_meta(folder, **changes):
    meta = {**META, **changes}
    (folder / "meta.json").write_text(json.dumps({k: v for k, v in meta.items() if v is not None}))


def test_reads_rgb_and_metres(folder):
    record = RgbdFolder(folder)[0]
    assert_array_equal(record.frame.color[1, 2], [255, 0, 0])
    assert record.frame.depth[1, 2] == pytest.approx(1.0)  # 2000 units of 0.5 mm
    assert np.isnan(record.frame.depth[0, 0])  # 0 = not measured
    assert (record.frame.intrinsics.fx, record.frame.intrinsics.cy) == (10.0, 2.5)
    assert record.instances is None


def test_frames_come_in_natural_order_with_steady_stamps(folder):
    frames = RgbdFolder(folder, period_ns=50_000_000)
    assert [r.name for r in frames] == ["f1", "f2", "f10"]
    assert [r.frame.stamp_ns for r in frames] == [0, 50_000_000, 100_000_000]
    assert frames[-1].frame.stamp_ns == 100_000_000
    assert len(frames) == 3


def test_the_list_in_meta_decides_order_and_choice(folder):
    write_meta(folder, frames=[{"name": "f10"}, "f2"])
    assert RgbdFolder(folder).names == ("f10", "f2")


def test_instances_and_distortion(folder):
    labels = np.zeros((6, 8), np.uint16)
    labels[2:4, 3:5] = 300  # needs 16 bit
    cv2.imwrite(str(folder / "frames/f1_instances.png"), labels)
    write_meta(folder, distortion=[0.1, -0.2, 0.0, 0.0, 0.05], ignore_invalid_depth=True)
    frames = RgbdFolder(folder)
    assert_array_equal(frames[0].instances, labels)
    assert frames.ignore_invalid_depth
    assert not frames.has_truth  # two frames are without
    assert frames.intrinsics.distortion == (0.1, -0.2, 0.0, 0.0, 0.05)


@pytest.mark.parametrize("key", ["width", "fx", "cy", "depth_scale_to_m"])
def test_a_missing_key_is_named(folder, key):
    write_meta(folder, **{key: None})
    with pytest.raises(FolderError, match=rf"meta\.json: missing {key} "):
        RgbdFolder(folder)


def test_what_is_missing_is_named(folder):
    with pytest.raises(FolderError, match=r"nowhere: no such folder; a folder of RGB-D frames has meta\.json"):
        RgbdFolder(folder / "nowhere")
    (folder / "frames/f10_depth.png").unlink()
    with pytest.raises(FolderError, match=r"f10_depth\.png: no such file, but f10 has a color image"):
        RgbdFolder(folder)
    write_meta(folder, frames=["f3"])
    with pytest.raises(FolderError, match=r"f3_rgb\.png: no such file"):
        RgbdFolder(folder)
    shutil.rmtree(folder / "frames")
    write_meta(folder)
    with pytest.raises(FolderError, match="no frames"):
        RgbdFolder(folder)
    (folder / "meta.json").unlink()
    with pytest.raises(FolderError, match=r"meta\.json: no such file; a folder of RGB-D frames has"):
        RgbdFolder(folder)


@pytest.mark.parametrize(
    ("meta", "line"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object"),
        (json.dumps({**META, "fx": 0}), "fx=0.0"),
        (json.dumps({**META, "fx": "wide"}), "wide"),
        (json.dumps({**META, "distortion": [1, 2]}), "0, 4, 5 or 8 distortion coefficients, got 2"),
        (json.dumps({**META, "depth_scale_to_m": 1000}), "metres per unit between 0 and 1, got 1000"),
        (json.dumps({**META, "frames": [{}]}), r"frames\[0\]: expected a name"),
        (json.dumps({**META, "frames": "f1"}), "frames: expected a list, got str"),
    ],
)
def test_a_broken_meta_is_refused(folder, meta, line):
    (folder / "meta.json").write_text(meta)
    with pytest.raises(FolderError, match=rf"meta\.json: .*{line}"):
        RgbdFolder(folder)


def test_wrong_images_are_refused_when_read(folder):
    path = folder / "frames/f1_depth.png"
    cv2.imwrite(str(path), np.zeros((6, 8), np.uint8))
    with pytest.raises(FolderError, match=r"f1_depth\.png: expected one channel of 16 bit, got 1 channels of 8 bit"):
        RgbdFolder(folder)[0]
    cv2.imwrite(str(path), np.zeros((3, 4), np.uint16))
    with pytest.raises(FolderError, match=r"f1_depth\.png: expected 8x6 as in meta\.json, got 4x3"):
        RgbdFolder(folder)[0]
    for data in (b"", b"not a picture"):
        path.write_bytes(data)
        with pytest.raises(FolderError, match=rf"f1_depth\.png: not an image .*{len(data)} bytes"):
            RgbdFolder(folder)[0]


def test_real_kinect_frames(data_dir):
    frames = RgbdFolder(data_dir / "mosd")
    assert len(frames) == 45
    assert frames.has_truth
    record = frames[0]
    assert record.instances.max() == 2
    seen = record.frame.depth[record.instances == 1]
    assert 0.4 < np.nanmedian(seen) < 1.5  # m: a box on a table within reach


def test_real_depth_in_tenths_of_a_millimetre(data_dir):
    depth = RgbdFolder(data_dir / "ycbv")[0].frame.depth
    assert_allclose(np.nanmax(depth), 3.292, atol=1e-3)  # 32920 units in the file
