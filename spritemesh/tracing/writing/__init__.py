"""The way of lines out of the traced program: to a file, whatever the disk does, and to those who watch."""
