"""What a run shows: figures, the table on the terminal, the page."""
