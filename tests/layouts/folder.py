"""A hospital's folder of PNG images with its CSV."""

import cv2
import numpy as np
import pandas as pd


def breast(seed, malignant):
    """A half disc on the left, brighter towards the chest wall, with a bright spot where malignant; uint16 (H, W)."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:130, :90]
    distance = np.hypot((y - 65) / 58, x / 75)
    pixels = np.where(distance < 1, 22000 + 9000 * (1 - distance) + generator.normal(0, 900, distance.shape), 0)
    if malignant:
        pixels += 25000 * (np.hypot(y - generator.integers(40, 90), x - generator.integers(15, 45)) < 6)
    return pixels.clip(0, 65535).astype(np.uint16)


def write_folder(root, patients=16, name="p{patient:02}/{side}.png", patient_id="patient {patient}"):
    """Write a data set for dataset=folder: two PNG images of each patient, every second patient malignant."""
    rows = []
    for patient in range(patients):
        for side in "LR":
            path = name.format(patient=patient, side=side)
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            pixels = breast(100 * patient + ord(side), patient % 2)
            assert cv2.imwrite(str(root / path), pixels[:, ::-1] if side == "R" else pixels)
            rows.append((path, patient % 2, patient_id.format(patient=patient), side))
    table = pd.DataFrame(rows, columns=["path", "label", "patient", "laterality"])
    table.to_csv(root / "images.csv", index=False)
    return table
