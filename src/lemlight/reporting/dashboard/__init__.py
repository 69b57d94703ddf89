"""Trainings compared on W&B: a workspace and a report, saved there or left as a specification."""

from lemlight.reporting.dashboard.sending import send_dashboard, write_dashboard

__all__ = ["send_dashboard", "write_dashboard"]
