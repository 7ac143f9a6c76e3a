"""What every other room stands on: errors, names, settings, files, the run folder, the hub, progress."""
