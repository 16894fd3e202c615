# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Segmenters that remember: objects are shown once, or named, and followed from image to image under their own ids."""
