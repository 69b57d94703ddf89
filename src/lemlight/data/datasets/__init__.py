"""The data sets: a file each, a function from a folder to an image table."""
