"""Losses and metrics: pure functions, losses over features, criteria of two images."""
