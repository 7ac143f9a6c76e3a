"""From a configuration to a network, its optimiser and its image processor."""
