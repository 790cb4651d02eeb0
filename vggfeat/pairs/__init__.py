"""Compare pictures in pairs: find the pairs, measure them, collect the result. Public as `vggfeat.compare`.

torch is imported on first use, so that a command can list the metrics without it.
"""
