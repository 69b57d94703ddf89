"""From a file to an array: DICOM and raster formats, what was decoded, and processes that may die of it."""
