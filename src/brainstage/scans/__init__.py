"""From NIfTI volumes and DICOM series to slices as the training data shows them."""
