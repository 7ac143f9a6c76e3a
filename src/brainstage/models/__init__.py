"""Networks: from a configuration, from the hub or from a folder; their optimiser; their cached features."""
