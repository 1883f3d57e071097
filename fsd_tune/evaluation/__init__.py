"""Evaluate finished students: score them, confirm a search's winner, analyze features, and predict for GLUE."""
