"""The phantom on scanned film: digital images as they were, true masks, and the breast found whatever film adds."""

import json

import numpy as np
import pandas as pd
import pydicom
import pytest

from lemlight.data.datasets.folder import folder as read_folder
from lemlight.data.phantom.patients import PhantomSettings, draw_patient
from lemlight.data.phantom.render import BLOCK, DEFECTS, on_film, render
from lemlight.data.phantom.writer import write_phantom
from lemlight.data.preparing.breast import breast_mask, chest_wall_on_right

FILM = PhantomSettings(patients=8, scale=0.5, film=1.0)
DIGITAL = PhantomSettings(patients=8, scale=0.5)
BREASTS = [(side, view) for side in "LR" for view in ("CC", "MLO")]


@pytest.fixture(scope="module")
def films():
    return {(number, *breast): render(FILM, number, *breast) for number in range(8) for breast in BREASTS}


@pytest.fixture(scope="module")
def found(films):
    return {key: breast_mask(film.pixels) for key, film in films.items()}


def test_without_film_the_phantom_is_the_same_as_before_there_was_any(tmp_path):
    settings = PhantomSettings(patients=2, seed=3, scale=0.25, film=0.0)
    folder = write_phantom(tmp_path, settings, workers=1)
    assert folder.name == "phantom-ad905918749e"  # of the settings, on which every UID depends, too
    assert "film" not in json.loads((folder / "phantom.json").read_text())
    assert "film" not in pd.read_csv(folder / "findings.csv")
    assert PhantomSettings(film=0.5).folder_name() != PhantomSettings(film=0.6).folder_name()


@pytest.mark.parametrize("film", [0.0, 0.3, 0.5, 1.0])
def test_any_ten_patients_in_a_row_have_their_fraction_on_film_whatever_their_label(film):
    settings = PhantomSettings(film=film)
    chosen = np.array([on_film(settings, number) for number in range(40 * BLOCK)])
    np.testing.assert_array_equal(chosen.reshape(-1, BLOCK).sum(axis=1), round(film * BLOCK))
    malignant = np.array([draw_patient(settings, number).malignant_side != "" for number in range(40 * BLOCK)])
    assert chosen[malignant].mean() == pytest.approx(film, abs=0.1)


def test_only_the_files_of_the_chosen_patients_change(tmp_path):
    settings = PhantomSettings(patients=6, seed=3, scale=0.25, film=0.5)
    folder = write_phantom(tmp_path, settings, workers=1)
    findings = pd.read_csv(folder / "findings.csv", keep_default_na=False).set_index("image_id")["film"]
    digital = PhantomSettings(patients=6, seed=3, scale=0.25)
    for number in range(6):
        first, again = (render(settings, number, "R", "CC") for _ in range(2))
        assert np.array_equal(first.pixels, again.pixels)
        assert findings[f"{first.patient.patient_id}_R_CC"] == first.film
        assert bool(first.film) == on_film(settings, number)
        same = np.array_equal(first.pixels, render(digital, number, "R", "CC").pixels)
        assert same == (not first.film)
    assert 0 < (findings != "").sum() < 24
    assert len(read_folder(folder)) == 24


def test_a_film_shows_a_grey_base_and_each_thing_that_film_adds(films):
    assert {name for film in films.values() for name in film.film.split()} == {"base", *DEFECTS}
    assert all(film.pixels.dtype == np.float32 for film in films.values())
    assert all(film.pixels.min() >= 0 and film.pixels.max() <= 1 for film in films.values())
    for film in films.values():
        outside = film.pixels[~film.breast]
        assert 0.01 < np.median(outside[(outside > 0.008) & (outside < 0.4)]) < 0.25
        assert film.film.count("padding") == ((outside == 0).mean() > 0.002 or (outside == 1).mean() > 0.002)


def test_the_lesion_of_a_film_lies_on_its_breast_and_is_as_large_as_without_film(films):
    for key, film in films.items():
        digital = render(DIGITAL, *key)
        assert (film.lesion, film.patient, film.spacing) == (digital.lesion, digital.patient, digital.spacing)
        assert not (film.mask & ~film.breast).any()
        assert film.mask.sum() == pytest.approx(digital.mask.sum(), rel=0.05)
        assert film.breast.sum() == pytest.approx(digital.breast.sum(), rel=0.15)


def test_the_breast_is_found_on_every_film_and_every_lesion_in_it(films, found):
    overlaps = [(found[key] & film.breast).sum() / (found[key] | film.breast).sum() for key, film in films.items()]
    assert min(overlaps) > 0.9
    assert np.median(overlaps) > 0.97
    for key, film in films.items():
        assert chest_wall_on_right(found[key]) == (key[1] == "R"), key
        assert not (film.mask & ~found[key]).any(), key


def test_labels_bars_and_padding_stay_out_of_the_mask(films, found):
    for key, film in films.items():
        size, beyond = film.breast.sum(), found[key] & ~film.breast
        assert beyond.sum() < (0.12 if "leak" in film.film else 0.05) * size, key  # light that touches the breast stays
        assert "leak" in film.film or (beyond & (film.pixels > 0.6)).sum() < 0.002 * size, key


@pytest.mark.parametrize("vendor", ["soft", "hard"])
def test_a_vendor_changes_the_look_of_the_breast_and_nothing_else(vendor, tmp_path):
    plain, shown = (
        render(PhantomSettings(patients=4, scale=0.25, vendor=name), 1, "R", "CC") for name in ("plain", vendor)
    )
    np.testing.assert_array_equal(plain.mask, shown.mask)
    np.testing.assert_array_equal(plain.pixels[~plain.breast], shown.pixels[~plain.breast])
    inside = np.corrcoef(plain.pixels[plain.breast], shown.pixels[plain.breast])[0, 1]
    assert 0.5 < inside < 0.999
    rough = [np.abs(np.diff(one.pixels, axis=1))[:, 1:][one.breast[:, 2:]].mean() for one in (plain, shown)]
    assert (rough[1] > rough[0]) == (vendor == "hard")
    settings = PhantomSettings(patients=1, scale=0.25, vendor=vendor)
    folder = write_phantom(tmp_path, settings, workers=1)
    file = next((folder / "images").rglob("*.dcm"))
    assert pydicom.dcmread(file, stop_before_pixels=True).Manufacturer == f"lemlight phantom, {vendor}"
    assert json.loads((folder / "phantom.json").read_text())["vendor"] == vendor
