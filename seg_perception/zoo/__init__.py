# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Model files: what they are, which runtimes run them and how alike, how fast, and where they come from."""
