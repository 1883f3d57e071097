"""Evaluate finished students: score them, confirm a search's winner, analyse features, and predict for GLUE."""
