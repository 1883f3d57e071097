"""Confirm a search's winner on further seeds; `fsd_tune.evaluation.confirm.api` starts it."""
