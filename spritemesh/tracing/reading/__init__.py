"""The reading side: trace files, the lines of one tree, what is chosen of them, and how it is told."""
