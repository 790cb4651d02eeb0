"""Train a VGG: recipe -> data -> loop that yields progress; checkpoints, evaluation, several processes."""
