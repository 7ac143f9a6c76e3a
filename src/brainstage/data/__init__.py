"""From files to slices and splits: reading, the phantom cohort, the audit, the splits, the preprocessing."""
