"""What a configuration may hold: pydantic models of the Hydra tree in conf/, checked before any work."""
