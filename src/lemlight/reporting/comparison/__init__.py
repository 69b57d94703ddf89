"""What several runs say together: reading them, methods side by side, other hospitals, the page, tables and W&B."""
