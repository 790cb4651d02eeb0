"""Networks: their plans and layer tables, their weights, and the trainable module."""
