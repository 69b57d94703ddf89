"""Lightning around the plain networks: the module, its optimizer and schedules, the lambda ramp, loggers, resuming."""
