"""From a checked configuration to objects and files: the steps that the commands share."""
