# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The steps of the `tabletop` segmenter, one file each: foreground, local planes, patches, merging, tidying."""
