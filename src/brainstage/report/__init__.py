"""Pages: what was found, as HTML files that need nothing else."""
