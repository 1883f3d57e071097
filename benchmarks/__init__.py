"""What a trial costs beside plain fine-tuning: `make bench`. Timings are printed, never asserted."""
