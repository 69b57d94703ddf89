from functools import partial

import numpy as np

from lemlight.data.datasets.victre import victre
from tests.layouts.drawing import failure_of, save_mammogram, written_by
from tests.layouts.victre import write_victre

failure = partial(failure_of, victre)
written = written_by(write_victre)


def test_the_label_is_in_the_description_and_tomosynthesis_is_passed_over(written, truth, caplog):
    table = victre(written[0]).set_index("image_id").loc[truth.index]
    assert table["label"].tolist() == truth["label"].tolist()
    assert table["lesions_known"].tolist() == truth["lesions_known"].tolist()
    assert "files of tomosynthesis: passed over (12)" in caplog.text
    assert "images with unknown lesions (6)" in caplog.text


def test_images_of_something_else_and_two_of_a_patient_are_named(download):
    description = "mcgpu_image_pcl_1215936303_crop.raw.gz-scattered_0000"
    save_mammogram(download / "a.dcm", np.zeros((8, 8)), "1", SeriesDescription="full mammogram images")
    save_mammogram(download / "b.dcm", np.zeros((8, 8)), "", SeriesDescription=description)
    save_mammogram(download / "c.dcm", np.zeros((8, 8)), "1215936303", SeriesDescription=description)
    message = failure(download)
    assert "whose description is none of VICTRE's (2): a.dcm ('full mammogram images'), b.dcm" in message
    assert "patients with several mammograms (1): 1215936303" in message
