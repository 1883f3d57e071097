"""What all trials of a task share: teacher outputs, the teacher memory (centroids), and the teacher targets."""
