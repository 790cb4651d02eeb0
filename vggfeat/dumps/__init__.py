"""Activations of many pictures on disk: sources -> shards -> arrays. Public as `vggfeat.dump` and `vggfeat.open_dump`.

The shard is the unit of work. Picture i belongs to shard i // shard_size. A shard is computed only from its own
pictures, in their order, and is complete when it has a receipt. So a killed run continues where it stopped, and any
number of workers on any engine writes the same bytes.
"""
