# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Texts as inputs of a network: tokens of a tokenizer.json, or embeddings computed beforehand."""
