"""Instant styles: one small network that paints a picture in a single pass, trained for several styles."""
