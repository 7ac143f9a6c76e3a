"""Scores, calibration and ordered stages: arrays in, numbers out."""
