"""Confirm a search's winner on further seeds; the entry point is `fsd_tune.evaluation.confirm.api`."""
