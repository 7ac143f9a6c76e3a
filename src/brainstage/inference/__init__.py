"""Trained models at work: probabilities, refusals, explanations."""
