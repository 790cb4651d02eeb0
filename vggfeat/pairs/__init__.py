"""Compare pictures in pairs: match -> measure -> result. Public as `vggfeat.compare`.

torch is imported where it is first needed, so that a command can name the metrics without it.
"""
