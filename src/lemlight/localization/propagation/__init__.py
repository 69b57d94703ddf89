"""Top-down importance through a convolutional network: rules of its functions, and where they take hold."""
