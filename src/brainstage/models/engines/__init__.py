"""The libraries that do a network's arithmetic, each in a module of its own."""
