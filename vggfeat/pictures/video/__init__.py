"""Clips: reading and writing them, optical flow, warping, and how steady a painted clip is."""
