"""mini-MIAS as it comes: the layout, its table and its traps, and the truth of every image."""

import numpy as np
import pandas as pd

SIDE = 1024
README = """MAMMOGRAPHIC IMAGE ANALYSIS SOCIETY
MiniMammographic Database

INFORMATION:
1st column: MIAS database reference number.

{table}

NOTES
1) The list is arranged in pairs of films, mdb001 and so on.
"""


def write_mias(root, patients=12, seed=0):
    """Write two images of each patient, every second one with a malignant mass on the left, and return the truth.

    The truth has a row per image: image_id, label, patient (a number), laterality, lesions_known, normal, types and
    masks, a (1024, 1024) bool for each lesion. mdb001 has two lines, mdb005 one with a circle and one without, mdb007
    none but a note; even images are normal, except mdb002, whose circle reaches over the edge.
    """
    rng = np.random.default_rng(seed)
    (root / "all-mias").mkdir(parents=True)
    lines, truth = [], []
    for number in range(1, 2 * patients + 1):
        image = f"mdb{number:03d}"
        malignant = number % 4 == 3
        circles = _circles(rng, number, malignant)
        pixels = draw_breast(rng, left=number % 2 == 1)
        for _, _, circle in circles:
            if circle:
                pixels[_disc(circle)] += 0.5 if malignant else 0.15
        save_pgm(root / "all-mias" / f"{image}.pgm", pixels)
        severity = "M" if malignant else "B"
        lines += [
            " ".join([image, "FGD"[number % 3], kind, *([severity] if kind != "NORM" else []), text]).strip()
            for kind, text, _ in circles
        ]
        known = all(kind == "NORM" or circle for kind, _, circle in circles)
        drawn = [(kind, circle) for kind, _, circle in circles if circle and known]
        truth.append(
            {
                "image_id": image,
                "label": int(malignant),
                "patient": (number - 1) // 2,
                "laterality": "L" if number % 2 else "R",
                "normal": circles[0][0] == "NORM",
                "lesions_known": known,
                "types": ["calcification" if kind == "CALC" else "mass" for kind, _ in drawn],
                "masks": [_disc(circle) for _, circle in drawn],
            }
        )
    (root / "Info.txt").write_text("\n".join(["REFNUM BG CLASS SEVERITY X Y RADIUS ", *lines]) + "\n")
    (root / "all-mias" / "README").write_text(README.format(table="\n".join(f"{line}  " for line in lines)))
    return pd.DataFrame(truth)


def draw_breast(rng, left):
    """A half ellipse of tissue (1024, 1024) in [0, 1] against the left or the right border of the film."""
    y, x = np.mgrid[:128, :128]
    breast = ((y - 60) / 50) ** 2 + (x / 75) ** 2 < 1
    small = np.where(breast, 0.3 + 0.05 * rng.standard_normal((128, 128)), 0).clip(0, 1)
    return np.kron(small if left else small[:, ::-1], np.ones((8, 8)))


def save_pgm(path, pixels):
    """Write pixels (H, W) in [0, 1] as 8 bits."""
    height, width = pixels.shape
    path.write_bytes(f"P5\n{width} {height}\n255\n".encode() + np.rint(pixels.clip(0, 1) * 255).astype("u1").tobytes())


def _circles(rng, number, malignant):
    """Lines of an image as (class, text after the severity, (x, y from the top, radius) or None)."""
    if number == 2:
        return [("MISC", "1004 523 40", (1004, 500, 40))]
    if number % 2 == 0:
        return [("NORM", "", None)]
    if number == 7:
        return [("CALC", "*NOTE 3*", None)]
    x, y, radius = (int(rng.integers(*span)) for span in ((100, 300), (350, 600), (25, 60)))
    found = [("SPIC" if malignant else "CIRC", f"{x} {1023 - y} {radius}", (x, y, radius))]
    if number == 1:
        found.append(("CALC", f"{x + 100} {1023 - y - 130} 20", (x + 100, y + 130, 20)))
    if number == 5:
        found.append(("CALC", "", None))
    return found


def _disc(circle):
    x, y, radius = circle
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2  # a pixel centre on the line itself is outside
