"""Tests of vggfeat and its command. A package, because another one that is called `tests` may be installed."""
