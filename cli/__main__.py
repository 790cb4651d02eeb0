"""`python -m vggfeat_cli`, for starters such as torchrun that run a module."""

from . import main

main()
