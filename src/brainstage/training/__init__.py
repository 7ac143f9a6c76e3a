"""From a slice table and settings to run folders."""
