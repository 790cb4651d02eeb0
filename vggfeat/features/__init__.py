"""Images to the named activations of a network: how its layers are run."""
