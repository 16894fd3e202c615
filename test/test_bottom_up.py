# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Panoptic-DeepLab: centres, grouping, votes and scores equal to the dense way of detectron2's post-processing."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from contract_models import Rig, beside, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter

from seg_perception.options import ConfigError
from seg_perception.plugins import Segmenter
from seg_perception.scene import Frame
from seg_perception.segmenters.bottom_up import BottomUp, find_centers

NAMES = ["table", "wall", "bolt", "nut", "washer"]
THINGS = [2, 3, 4]


def build(models_dir, tmp_path, decoding=None, **sidecar) -> Rig:
    said = {"names": NAMES, "decoding": {"things": THINGS, **(decoding or {})}, **sidecar}
    return Rig(BottomUp, beside(tmp_path, models_dir / "contracts" / "stub_panoptic_deeplab.onnx", said))


def reference_centers(heat, threshold=0.1, kernel=7, most=200):
    """`find_instance_center`: threshold, max pooling, the hottest."""
    likely = np.where(heat > threshold, heat, -1)
    likely[likely != maximum_filter(likely, kernel, mode="constant", cval=-np.inf)] = -1
    kth = np.sort(likely.ravel())[-min(most, likely.size)]
    return np.argwhere(likely > max(kth, 0))


def reference(logits, heat, offset):
    """`get_panoptic_segmentation` and scores: [(mask, class id, score)] at the outputs' size."""
    centers = reference_centers(heat)
    classes = logits.argmax(axis=0)
    if len(centers) == 0:
        return []
    coordinates = np.stack(np.meshgrid(*map(np.arange, classes.shape), indexing="ij")).astype(np.float32) + offset
    distances = [np.hypot(*(coordinates - center[:, None, None])) for center in centers]
    owners = np.where(np.isin(classes, THINGS), np.argmin(distances, axis=0) + 1, 0)
    shares = np.exp(logits) / np.exp(logits).sum(axis=0)
    found = []
    for number in np.unique(owners[owners > 0]):
        mask = owners == number
        class_id = np.bincount(classes[mask]).argmax()
        y, x = np.argwhere(mask).mean(axis=0).astype(int)
        found.append((mask, class_id, shares[class_id][mask].mean() * heat[y, x]))
    return sorted(found, key=lambda row: -row[2])


def scene(objects, cells=(160, 160), seed=0):
    """Outputs of a good network: round objects with heat at their centres and offsets to them, noise on all."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=0.3, size=(5, *cells)).astype(np.float32)
    heat = np.zeros(cells, np.float32)
    offset = np.zeros((2, *cells), np.float32)
    logits[0] += 3
    y, x = np.mgrid[: cells[0], : cells[1]]
    for _ in range(objects):
        cy, cx, radius = rng.uniform(10, cells[0] - 10), rng.uniform(10, cells[1] - 10), rng.uniform(6, 15)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        logits[:, inside] = rng.normal(scale=0.3, size=(5, int(inside.sum())))
        logits[rng.integers(2, 5)][inside] += 4
        heat = np.maximum(heat, np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 50).astype(np.float32) * rng.uniform(0.5, 1))
        offset[:, inside] = np.stack([cy - y, cx - x])[:, inside]
    offset += rng.normal(scale=0.5, size=offset.shape)
    return logits, heat.astype(np.float32), offset.astype(np.float32)


def give(rig, logits, heat, offset):
    rig.given = {"sem_seg": logits[None], "center": heat[None, None], "offset": offset[None]}


@pytest.mark.parametrize("objects", [0, 1, 5, 40])
@pytest.mark.parametrize("size", [(160, 160), (320, 320)])
def test_instances_equal_the_reference(models_dir, tmp_path, objects, size):
    rig = build(models_dir, tmp_path)
    outputs = scene(objects, seed=objects)
    give(rig, *outputs)
    found = rig.segmenter.segment(Frame(picture(*size)))
    expected = reference(*outputs)
    assert len(found) == len(expected) >= min(objects, 15)
    for mask, class_id, score, (wanted, wanted_id, wanted_score) in zip(
        found.masks.dense(), found.class_ids, found.scores, expected, strict=True
    ):
        wanted = cv2.resize(wanted.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
        assert (mask != wanted).sum() <= 2
        assert class_id == wanted_id
        assert score == pytest.approx(wanted_score, rel=1e-4)


@pytest.mark.parametrize("count", [100, 190])
def test_many_objects_in_an_image_of_odd_size(models_dir, tmp_path, count):
    """Squares of 5 cells, 9 apart; the reference takes at most 200 centres, less those as cold as the coldest."""
    rig = build(models_dir, tmp_path)
    logits, heat, offset = scene(0, seed=1)
    offset[:] = 0
    for i in range(count):
        y, x = 11 * (i // 14) + 4, 11 * (i % 14) + 4
        heat[y, x] = 0.5 + i / 1000
        logits[2 + i % 3, y - 2 : y + 3, x - 2 : x + 3] += 9
        dy, dx = np.mgrid[2:-3:-1, 2:-3:-1]
        offset[:, y - 2 : y + 3, x - 2 : x + 3] = dy, dx
    give(rig, logits, heat, offset)
    rig.segmenter = rig.segmenter.with_config(replace(rig.segmenter._config, max_detections=300))
    found = rig.segmenter.segment(Frame(picture(333, 333)))
    expected = reference(logits, heat, offset)
    assert len(found) == len(expected) == count
    np.testing.assert_allclose(found.scores, [row[2] for row in expected], rtol=1e-4)
    np.testing.assert_array_equal(found.class_ids, [row[1] for row in expected])
    assert (np.abs(found.masks.areas / (333 / 160) ** 2 - 25) < 3).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), kernel=st.sampled_from([3, 7]), most=st.integers(1, 30))
def test_centers_equal_the_reference(seed, kernel, most):
    rng = np.random.default_rng(seed)
    heat = cv2.resize(rng.uniform(size=(8, 9)).astype(np.float32), (40, 50)) * np.float32(rng.uniform(0.05, 1.2))
    np.testing.assert_array_equal(find_centers(heat, 0.1, kernel, most), reference_centers(heat, 0.1, kernel, most))


def test_the_stub_is_recognised_and_runs(models_dir, tmp_path):
    rig = build(models_dir, tmp_path)
    assert rig.segmenter.family == "panoptic_deeplab"
    assert isinstance(rig.segmenter, Segmenter)
    rig.segmenter.warm_up()
    found = rig.segmenter.segment(Frame(picture(160, 160)))
    expected = reference(rig.outputs["sem_seg"][0], rig.outputs["center"][0, 0], rig.outputs["offset"][0])
    assert len(found) == min(len([row for row in expected if row[2] > 0]), 100)


def test_offsets_in_the_other_order_and_unit(models_dir, tmp_path):
    logits, heat, offset = scene(8, seed=3)
    plain = build(models_dir, tmp_path)
    give(plain, logits, heat, offset)
    other = build(models_dir, tmp_path, {"offset_order": "xy", "offset_scale": 4.0})
    give(other, logits, heat, offset[::-1] / 4)
    frame = Frame(picture(160, 160))
    a, b = plain.segmenter.segment(frame), other.segmenter.segment(frame)
    np.testing.assert_array_equal(a.masks.dense(), b.masks.dense())


def test_padding_is_cut_off(models_dir, tmp_path):
    rig = build(models_dir, tmp_path)
    outputs = scene(12, seed=5)
    give(rig, *outputs)
    found = rig.segmenter.segment(Frame(picture(200, 400)))  # 160x80, top left
    expected = reference(*(maps[..., :80, :] for maps in outputs))
    assert len(found) == len(expected) > 3
    np.testing.assert_array_equal(found.class_ids, [row[1] for row in expected])
    assert abs(found.masks.areas / 6.25 - [row[0].sum() for row in expected]).max() <= 5


def test_nonsense_gives_no_instance(models_dir, tmp_path):
    rig = build(models_dir, tmp_path)
    for value in (np.nan, np.inf, -np.inf):
        give(rig, *(np.full_like(maps, value) for maps in scene(3)))
        found = rig.segmenter.segment(Frame(picture(60, 80)))
        assert len(found) == 0
    give(rig, scene(3)[0][:4], *scene(3)[1:])
    with pytest.raises(ValueError, match="expected 5 classes and outputs of one size"):
        rig.segmenter.segment(Frame(picture(60, 80)))


def test_what_is_not_certain_is_refused(models_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"which classes are objects(.|\n)*things: \[...\]}   # of 0..4"):
        build(models_dir, tmp_path, {"things": []})
    with pytest.raises(ConfigError, match="which classes are objects"):
        build(models_dir, tmp_path, {"things": [5]})
    with pytest.raises(ConfigError, match=r"center: no output 'heat' of shape \(1, 1, height, width\)"):
        build(models_dir, tmp_path, {"center": "heat"})
    model = beside(tmp_path, models_dir / "contracts" / "unet_smp_tiny.onnx", None)
    with pytest.raises(ConfigError, match=r"not certainly a network that votes(.|\n)*family: panoptic_deeplab"):
        Rig(BottomUp, model)
