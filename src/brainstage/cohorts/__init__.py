"""A researcher's scans to a cohort folder."""
