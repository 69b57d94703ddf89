import pandas as pd
import pytest

from lemlight.reporting.localization_results import draw_examples


def table(patients=10, malignant=3, views=4):
    rows = [(f"i{p}_{v}", f"p{p}", int(p < malignant)) for p in range(patients) for v in range(views)]
    return pd.DataFrame(rows, columns=["image_id", "patient_id", "label"])


def test_the_draw_depends_on_the_images_alone():
    rows = table()
    first = draw_examples(rows)["image_id"].tolist()
    assert first == draw_examples(rows.sample(frac=1, random_state=7))["image_id"].tolist()
    assert len(first) == len(set(first)) == 6


def test_classes_and_patients_are_spread():
    drawn = draw_examples(table())
    assert drawn["label"].tolist() == [1, 1, 1, 1, 0, 0]
    assert drawn["patient_id"][:3].nunique() == 3  # of three malignant patients each is there before any comes again
    assert drawn["patient_id"][4:].nunique() == 2


@pytest.mark.parametrize(
    ("patients", "malignant", "views", "count"), [(0, 0, 1, 0), (1, 1, 2, 2), (3, 0, 1, 2), (2, 1, 1, 2)]
)
def test_few_images_give_few_examples(patients, malignant, views, count):
    assert len(draw_examples(table(patients, malignant, views))) == count
