# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Segment Anything and its kin: encoder, decoder, prompts and the dialects they are exported in."""
