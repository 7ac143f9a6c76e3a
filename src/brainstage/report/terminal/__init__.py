"""What the commands show on a terminal, a module for each thing that is drawn."""
