# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Semantic networks: class images equal to the dense way, and objects told apart by components and by depth."""

import cv2
import numpy as np
import pytest
from contract_models import Rig, beside, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from seg_perception.options import ConfigError, parse, to_mapping
from seg_perception.plugins import Segmenter
from seg_perception.scene import Frame
from seg_perception.segmenters.decoding.components import components
from seg_perception.segmenters.semantic import Semantic

NAMES = ["background", "bolt", "nut", "washer"]
SIZES = [(480, 640), (333, 500), (641, 479)]
TOKENS = {"input_ids": [[1] * 77, [2] * 77], "attention_mask": [[1] * 77] * 2}


def build(models_dir, tmp_path, export="unet_smp_tiny", sidecar=None, **options) -> Rig:
    said = {"names": NAMES, **(sidecar or {})}
    return Rig(Semantic, beside(tmp_path, models_dir / "contracts" / f"{export}.onnx", said), **options)


def smooth_maps(classes, cells, seed=0):
    rng = np.random.default_rng(seed)
    return np.array([cv2.resize(m, (cells, cells)) for m in rng.normal(scale=4, size=(classes, 7, 9))], np.float32)


def enlarged(maps, size):
    return np.array([cv2.resize(m, size[::-1], interpolation=cv2.INTER_LINEAR) for m in maps])


def pieces(mask, min_area=1):
    """The 8-connected components of a mask, (n, H, W)."""
    labels, n = label(mask, np.ones((3, 3)))
    return [labels == i for i in range(1, n + 1) if (labels == i).sum() >= min_area]


def same_masks(found, expected):
    """Each expected mask is found once, but for a thousandth of its pixels."""
    masks = list(found.masks.dense())
    assert len(masks) == len(expected)
    for mask in expected:
        different = [(m != mask).sum() for m in masks]
        assert min(different) <= 2 + mask.sum() // 1000
        masks.pop(int(np.argmin(different)))


@pytest.mark.parametrize("export", ["unet_smp_tiny", "deeplabv3plus_smp_tiny"])
@pytest.mark.parametrize("size", SIZES)
def test_components_of_the_argmax(models_dir, tmp_path, export, size):
    rig = build(models_dir, tmp_path, export)
    assert rig.segmenter.family == "semantic"
    maps = smooth_maps(4, 128)
    rig.given = {"logits": maps[None]}
    found = rig.segmenter.segment(Frame(picture(*size)))
    classes = enlarged(maps, size).argmax(axis=0)
    expected = {c: pieces(classes == c, 200) for c in (1, 2, 3)}
    for c, masks in expected.items():
        same_masks(found[found.class_ids == c], masks)
    assert len(found) == sum(map(len, expected.values())) >= 5
    powers = np.exp(maps - maps.max(axis=0))
    shares = enlarged(powers / powers.sum(axis=0), size)
    means = [shares[c][m].mean() for c, m in zip(found.class_ids, found.masks.dense(), strict=True)]
    np.testing.assert_allclose(found.scores, means, rtol=1e-4)
    assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize("count", [0, 1, 100, 300])
def test_as_many_objects_as_there_are(models_dir, tmp_path, count):
    """Squares of 3 cells, 4 cells apart, in an image of odd size."""
    rig = build(models_dir, tmp_path, min_area=20)
    maps = np.zeros((4, 128, 128), np.float32)
    maps[0] = 1
    for i in range(count):
        maps[1 + i % 3, 7 * (i // 18) : 7 * (i // 18) + 3, 7 * (i % 18) : 7 * (i % 18) + 3] = 2
    rig.given = {"logits": maps[None]}
    found = rig.segmenter.segment(Frame(picture(333, 501)))
    classes = enlarged(maps, (333, 501)).argmax(axis=0)
    expected = [mask for c in (1, 2, 3) for mask in pieces(classes == c)]
    assert len(expected) == count
    if count <= 100:
        same_masks(found, expected)
    assert len(found) == min(count, rig.segmenter._config.max_detections)


def test_what_the_network_itself_puts_out(models_dir, tmp_path):
    rig = build(models_dir, tmp_path)
    size = (150, 200)
    found = rig.segmenter.segment(Frame(picture(*size)))
    classes = enlarged(rig.outputs["logits"][0], size).argmax(axis=0)
    same_masks(found, [m for c in (1, 2, 3) for m in pieces(classes == c, 200)])
    assert isinstance(rig.segmenter, Segmenter)
    rig.segmenter.warm_up()


@pytest.mark.parametrize("resize", ["longest_side", "letterbox"])
def test_padding_is_cut_off(models_dir, tmp_path, resize):
    rig = build(models_dir, tmp_path, sidecar={"preprocessing": {"resize": resize}})
    maps = np.zeros((4, 128, 128), np.float32)
    top = 0 if resize == "longest_side" else 32
    maps[1, top : top + 64, :64] = 9  # the left half of the image
    maps[2, top + 64 :] = 9  # below the image
    rig.given = {"logits": maps[None]}
    found = rig.segmenter.segment(Frame(picture(200, 400)))
    assert found.class_names == ("bolt",)
    np.testing.assert_allclose(found.boxes, [[0, 0, 200, 200]], atol=2)


def test_clipseg_gives_each_prompt_its_own_objects(models_dir, tmp_path):
    rig = build(
        models_dir, tmp_path, "clipseg_tiny",
        {"names": ["a mug", "a handle"], "inputs": TOKENS, "thresholds": {"mask": 0.4}},
    )  # fmt: skip
    assert rig.segmenter.family == "clipseg"
    maps = smooth_maps(2, 112, 5)
    rig.given = {"logits": maps}
    found = rig.segmenter.segment(Frame(picture(240, 320)))
    assert rig.inputs["pixel_values"].shape == (2, 3, 112, 112)
    np.testing.assert_array_equal(rig.inputs["pixel_values"][0], rig.inputs["pixel_values"][1])
    np.testing.assert_array_equal(rig.inputs["input_ids"], TOKENS["input_ids"])
    heat = 1 / (1 + np.exp(-enlarged(maps, (240, 320))))
    for c in (0, 1):
        same_masks(found[found.class_ids == c], pieces(heat[c] > 0.4, 200))
    assert (found.masks.dense().sum(axis=0) > 1).any()  # prompts may overlap


def test_clipseg_with_precomputed_text(models_dir, tmp_path):
    np.save(tmp_path / "text.npy", np.random.default_rng(0).normal(size=(2, 32)).astype(np.float32))
    said = {"names": ["a", "b"], "inputs": {"conditional_embeddings": "text.npy"}, "thresholds": {"mask": 0.0}}
    rig = build(models_dir, tmp_path, "clipseg_tiny_cond", said)
    found = rig.segmenter.segment(Frame(picture(60, 80)))
    assert rig.segmenter.family == "clipseg"
    np.testing.assert_array_equal(found.masks.areas, [60 * 80] * 2)


def test_groupvit_is_an_argmax_over_its_prompts(models_dir, tmp_path):
    tokens = {key: [rows[0]] * 3 for key, rows in TOKENS.items()}
    said = {"names": ["background", "a mug", "a box"], "inputs": tokens}
    rig = build(models_dir, tmp_path, "groupvit_tiny", said)
    assert rig.segmenter.family == "groupvit"
    maps = smooth_maps(3, 112, 2)
    rig.given = {"segmentation_logits": maps[None]}
    found = rig.segmenter.segment(Frame(picture(333, 500)))
    classes = enlarged(maps, (333, 500)).argmax(axis=0)
    same_masks(found, [m for c in (1, 2) for m in pieces(classes == c, 200)])


# -- splitting ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), min_area=st.sampled_from([1, 5, 30]))
def test_components_without_depth_are_the_8_connected_ones(seed, min_area):
    rng = np.random.default_rng(seed)
    classes = (cv2.resize(rng.integers(0, 3, (9, 11)).astype(np.uint8), (37, 29), interpolation=0)).astype(int) - 1
    labels, kinds = components(classes, None, 0.02, min_area)
    expected = [(c, m) for c in (0, 1) for m in pieces(classes == c, min_area)]
    assert len(kinds) == len(expected)
    for c, mask in expected:
        (number,) = np.unique(labels[mask])
        assert kinds[number - 1] == c
        assert (labels == number).sum() == mask.sum()


def two_boxes():
    """Two boxes of a class, side by side in the image: columns 20..60 at 0.60 m, 60..100 at 0.75 m; table at 1 m."""
    classes = np.full((80, 120), -1, np.int32)
    classes[20:60, 20:100] = 3
    depth = np.ones((80, 120), np.float32)
    depth[20:60, 20:60], depth[20:60, 60:100] = 0.6, 0.75
    return classes, depth


def test_touching_objects_at_different_depths_are_two():
    classes, depth = two_boxes()
    labels, kinds = components(classes, depth, 0.02, 50)
    np.testing.assert_array_equal(kinds, [3, 3])
    assert (labels[20:60, 20:60] == 1).all()
    assert (labels[20:60, 60:100] == 2).all()
    assert components(classes, None, 0.02, 50)[1].tolist() == [3]
    assert components(classes, depth, 0.0, 50)[1].tolist() == [3]
    assert components(classes, depth, 0.2, 50)[1].tolist() == [3]


def test_a_slanted_surface_stays_whole_and_farther_steps_may_be_larger():
    classes, depth = two_boxes()
    depth[20:60, 20:100] = np.linspace(0.5, 1.0, 80)  # 6 mm per pixel
    assert len(components(classes, depth, 0.02, 50)[1]) == 1
    far = np.where(np.arange(120) < 60, 3.0, 3.1).astype(np.float32) * np.ones((80, 1), np.float32)
    assert len(components(classes, far, 0.02, 50)[1]) == 1  # 10 cm at 3 m: 18 cm are allowed
    assert len(components(classes, far / 3, 0.02, 50)[1]) == 2  # 3.3 cm at 1 m


@pytest.mark.parametrize("hole", [np.nan, 0.0, np.inf, -np.inf])
def test_pixels_without_depth_go_to_the_object_beside_them(hole):
    classes, depth = two_boxes()
    depth[20:60, 55:65] = hole  # the shadow between them
    depth[30:34, 30:40] = hole
    depth[45, 45] = 2.0  # a flying pixel
    labels, kinds = components(classes, depth, 0.02, 50)
    assert len(kinds) == 2
    assert (labels[20:60, 20:60] == 1).all()
    assert (labels[20:60, 60:100] == 2).all()


def test_an_object_without_any_depth_is_kept_and_specks_go():
    classes, depth = two_boxes()
    depth[20:60, 20:100] = np.nan
    classes[2:5, 2:5] = 1
    labels, kinds = components(classes, depth, 0.02, 50)
    assert kinds.tolist() == [3]
    assert (labels > 0).sum() == 40 * 80


def test_depth_splits_in_the_segmenter_and_the_step_is_live(models_dir, tmp_path):
    rig = build(models_dir, tmp_path)
    classes, depth = two_boxes()
    maps = np.zeros((4, 80, 120), np.float32)
    maps[0] = 1
    maps[2][classes == 3] = 9
    rig.given = {"logits": np.array([cv2.resize(m, (128, 128)) for m in maps])[None]}
    frame = Frame(picture(80, 120), depth)
    found = rig.segmenter.segment(frame)
    assert found.class_names == ("nut", "nut")
    np.testing.assert_allclose(np.sort(found.boxes[:, 0]), [20, 60], atol=1)
    changed = parse(Semantic.Config, {**to_mapping(rig.segmenter._config), "depth_step": 0.5})
    assert len(rig.segmenter.with_config(changed).segment(frame)) == 1
    changed = parse(Semantic.Config, {**to_mapping(rig.segmenter._config), "min_area": 2000})
    assert len(rig.segmenter.with_config(changed).segment(frame)) == 0
    assert len(rig.segmenter.segment(Frame(frame.color))) == 1


def test_nan_maps_give_nothing(models_dir, tmp_path):
    rig = build(models_dir, tmp_path)
    rig.given = {"logits": np.full((1, 4, 128, 128), np.nan, np.float32)}
    assert len(rig.segmenter.segment(Frame(picture(60, 80)))) == 0
    rig.given = {"logits": np.zeros((1, 5, 128, 128), np.float32)}
    with pytest.raises(ValueError, match=r"logits: expected 4 maps, got \(1, 5, 128, 128\)"):
        rig.segmenter.segment(Frame(picture(60, 80)))


# -- what is not certain is refused ------------------------------------------------------------------------------------


def test_the_background_class_is_not_guessed(models_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"no class of a, b, c, d is named background(.|\n)*background: 0"):
        build(models_dir, tmp_path, sidecar={"names": list("abcd")})
    rig = build(models_dir, tmp_path, sidecar={"names": list("abcd"), "decoding": {"background": 2}})
    assert rig.segmenter._contract.background == 2
    rig = build(models_dir, tmp_path, sidecar={"names": list("abcd"), "decoding": {"background": -1}})
    rig.given = {"logits": np.zeros((1, 4, 128, 128), np.float32)}
    assert rig.segmenter.segment(Frame(picture(60, 80))).class_names == ("a",)
    with pytest.raises(ConfigError, match="background: 7, but there are 4 classes"):
        build(models_dir, tmp_path, sidecar={"decoding": {"background": 7}})
    with pytest.raises(ConfigError, match=r"does not name its classes(.|\n)*names: \[...\]   # 4"):
        build(models_dir, tmp_path, sidecar={"names": []})


def test_missing_prompts_and_other_networks_are_refused(models_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"further inputs(.|\n)*input_ids: tokens.npy   # \(2, 77\) int64"):
        build(models_dir, tmp_path, "clipseg_tiny")
    with pytest.raises(ConfigError, match=r"inputs.attention_mask: expected \(2, 77\), got \(1, 77\)"):
        build(models_dir, tmp_path, "clipseg_tiny", {"inputs": {k: v[:1] for k, v in TOKENS.items()}})
    with pytest.raises(ConfigError, match=r"inputs.text: the model has no such input"):
        build(models_dir, tmp_path, "unet_smp_tiny", {"inputs": {"text": [[1]]}})
    for export in ("mask2former_tiny", "yolov8-seg_tiny_raw", "stub_panoptic_deeplab", "stub_solov2_dense"):
        with pytest.raises(ConfigError, match=r"is not certainly a network that puts out maps(.|\n)*seen\n"):
            build(models_dir, tmp_path, export)
