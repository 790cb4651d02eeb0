"""Weights and pictures that ship with vggfeat; `SOURCES.md` beside them says where each comes from."""
