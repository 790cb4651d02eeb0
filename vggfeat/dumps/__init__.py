"""The activations of many pictures on disk: sources -> shards -> arrays. Public as `vggfeat.dump`, `vggfeat.open_dump`.

The shard is the unit of work. Picture i belongs to shard i // shard_size, whatever else happens; a shard is computed
from its own pictures alone, in their order, and exists once its receipt does. All else follows from that: a killed
run goes on where it was, and any number of workers on any engine writes the same bytes.
"""
