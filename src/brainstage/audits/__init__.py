"""Audits of slices: duplicates, people recovered from the pixels, people on both sides of a split."""
