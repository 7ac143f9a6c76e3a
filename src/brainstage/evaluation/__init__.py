"""What predictions are worth: prediction tables in, figures out, never a model."""
