"""From a hub, a folder or a file to a slice table, its preprocessing and its splits."""
