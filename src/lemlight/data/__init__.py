"""From files to batches: image tables, reading, breast geometry, the prepared store, splits, augmentation."""
