# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Flat surfaces in depth images, in inverse depth w = 1/z: planes are linear there, and stereo noise is uniform."""
