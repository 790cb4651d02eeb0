"""Style transfer: recipe -> stages -> optimisation loop. Public as `vggfeat.stylize`."""
