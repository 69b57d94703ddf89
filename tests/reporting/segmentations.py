"""Segmentations written from drawn masks, and read back by two libraries."""

import numpy as np
import pydicom
import pytest

from lemlight.reporting.dicom_seg import write_dicom_seg

highdicom = pytest.importorskip("highdicom")


def draw_masks(shape, count=3):
    masks = np.zeros((count, *shape), dtype=bool)
    for number, mask in enumerate(masks):
        mask[number : shape[0] // 2 + number, number * 2 : shape[1] // 2 + number] = True
    return masks


def write(source, masks, path, **others):
    given = {"labels": [f"Region {number + 1}" for number in range(len(masks))], "scores": [0.5] * len(masks)}
    given |= {"algorithm": "lemlight LEM", "version": "0.1.0"} | others
    return write_dicom_seg(source, masks, given.pop("labels"), path, **given)


def as_pydicom_reads(path):
    """Masks (K, H, W) by segment number."""
    dataset = pydicom.dcmread(path)
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns).astype(bool)
    if len(frames) == 1:
        return frames
    groups = dataset.PerFrameFunctionalGroupsSequence
    numbers = [group.SegmentIdentificationSequence[0].ReferencedSegmentNumber for group in groups]
    assert sorted(numbers) == list(range(1, len(frames) + 1))
    return frames[np.argsort(numbers)]


def as_highdicom_reads(path, source):
    """Masks (K, H, W) over one source image."""
    uid = pydicom.dcmread(source, stop_before_pixels=True).SOPInstanceUID
    pixels = highdicom.seg.segread(path).get_pixels_by_source_instance([uid])
    return np.moveaxis(pixels[0], -1, 0).astype(bool)
