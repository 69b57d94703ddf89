"""VICTRE as the Imaging Data Commons leave it, drawn small: mammograms and tomosynthesis, and the truth."""

import uuid

import numpy as np
import pandas as pd
from pydicom.uid import DigitalMammographyXRayImageStorageForProcessing

from tests.layouts.drawing import SHAPES, draw_image, save_mammogram


def write_victre(root, patients=12, seed=0):
    """Write a mammogram of each patient, every second one with a lesion, and a projection; the truth by image."""
    rng = np.random.default_rng(seed)
    truth = []
    for patient in range(patients):
        label, number = patient % 2, 1215936303 + patient
        description = (
            f"mcgpu_image_{('pc', 'pcl')[label]}_{'-' * (patient % 3 == 0)}{number}_crop.raw.gz-scattered_0000"
        )
        for name in (description, "Projection images"):
            series = f"1.3.6.1.4.1.{number}.{len(name)}"
            place = root / "victre" / f"{number}" / f"1.3.6.{number}" / f"MG_{series}"
            path = place / f"{uuid.uuid5(uuid.NAMESPACE_OID, series)}.dcm"
            tags = {"SeriesDescription": name, "SOPClassUID": DigitalMammographyXRayImageStorageForProcessing}
            pixels = draw_image(rng, SHAPES[patient % 2], "L", label)
            save_mammogram(path, pixels, str(number), Manufacturer="VICTRE", **tags)
        image = {"image_id": str(number), "patient_id": str(number), "label": label}
        truth.append(image | {"lesions_known": not label, "types": [], "masks": []})
    return pd.DataFrame(truth)
