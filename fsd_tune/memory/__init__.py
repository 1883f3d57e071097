"""Teacher outputs, the teacher memory (centroids) and the teacher targets, which all trials of a task share."""
