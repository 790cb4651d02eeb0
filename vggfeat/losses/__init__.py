"""Losses and metrics: pure functions, losses over features, criteria that compare images, and a running mean."""
