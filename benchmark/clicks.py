# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How good is one click? In the middle of each labelled thing of an RGB-D folder, with the detector's help and without.

python benchmark/clicks.py FOLDER --encoder mobile_sam_encoder.onnx --decoder mobile_sam_decoder.onnx --every 5
"""

from __future__ import annotations

import argparse

import numpy as np

from seg_perception.folder import RgbdFolder
from seg_perception.options import parse
from seg_perception.scene import Instances
from seg_perception.segmenters.promptable import Promptable
from seg_perception.segmenters.prompting import Prompts
from seg_perception.segmenters.sam.prompts import Prompt, inner_points

SMALLEST = 100  # px, labelled things below this are no things


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--decoder", required=True)
    parser.add_argument("--every", type=int, default=1, help="take every n-th frame")
    options = parser.parse_args()
    folder = RgbdFolder(options.folder)
    for finds in ("object", "mask"):
        values = {"encoder": options.encoder, "decoder": options.decoder, "prompts": "live", "click_finds": finds}
        segmenter = Promptable(parse(Promptable.Config, values))
        overlaps = np.array([o for k in range(0, len(folder), options.every) for o in clicked(segmenter, folder[k])])
        good = (overlaps > 0.75).sum()
        print(f"click_finds: {finds:<6} mean IoU {overlaps.mean():.2f}, {good} of {len(overlaps)} things above 0.75")


def clicked(segmenter: Promptable, record) -> list[float]:
    """The IoU of each thing's labelled outline with what a click in its middle gives."""
    found = []
    for label in range(1, int(record.instances.max()) + 1):
        truth = record.instances == label
        if truth.sum() < SMALLEST:
            continue
        click = inner_points(Instances.from_masks(truth[None]), 0, 1)
        segmenter.look_for(Prompts(objects=(Prompt(points=click),)))
        masks = segmenter.segment(record.frame).masks.dense()
        mask = masks[0] if len(masks) else np.zeros_like(truth)
        found.append(float((mask & truth).sum() / (mask | truth).sum()))
    return found


if __name__ == "__main__":
    main()
