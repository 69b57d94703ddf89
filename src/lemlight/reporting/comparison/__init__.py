"""Many trainings on one page: what was found, what differs, tables, figures, and the page itself."""
