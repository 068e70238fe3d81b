"""The commands of `spritemesh`, one module each."""
