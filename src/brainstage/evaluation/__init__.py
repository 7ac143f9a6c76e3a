"""The performance of predictions: prediction tables in, figures out, never a model."""
