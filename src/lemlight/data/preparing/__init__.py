"""From an array to the prepared store: brightness, the breast, geometry, lesions, what was found, cached features."""
