"""Train and evaluate a VGG: recipe -> data -> a loop that yields progress; checkpoints, reports, several processes."""
