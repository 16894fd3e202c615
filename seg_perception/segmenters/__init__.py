# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Segmenters: one file per family of network outputs, plus `tabletop`, which needs no network.

What they are made of is in `networks` (files and inputs), `decoding` (outputs), `sam` and `geometric`.
"""
