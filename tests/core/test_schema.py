"""The order of stages: recognised by name, or not known and then not used."""

import pyarrow as pa
import pytest

from brainstage.core.errors import DataError
from brainstage.core.schema import (
    STAGES,
    clinical_order,
    is_ordered,
    recognised_order,
    short_names,
    table_classes,
    with_metadata,
)

IN_ORDER = [
    STAGES,
    ("NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented"),  # Kaggle's folders
    ("Non Demented", "Very mild Dementia", "Mild Dementia", "Moderate Dementia"),  # the larger OASIS copy
    ("No Impairment", "Very Mild Impairment", "Mild Impairment", "Moderate Impairment"),
    ("non-demented", "MILD DEMENTED", "Severe_Dementia"),
    ("NonDemented", "MildDemented"),
    ("Nondemented", "Demented"),
    ("CN", "MCI", "AD"),
    ("CN", "SMC", "EMCI", "MCI", "LMCI", "AD"),
    ("cn", "emci", "lmci", "ad"),
    ("HC", "SCD", "MCI", "Dementia"),
    ("NC", "AD"),
    ("NL", "MCI", "AD"),
    ("Cognitively Normal", "Mild Cognitive Impairment", "Alzheimer's Disease"),
    ("healthy control", "late-MCI", "Alzheimer\u2019s disease"),
    ("0", "0.5", "1", "2", "3"),
    ("0.0", "0.5", "1.0"),
    ("CDR 0", "CDR 0.5", "CDR 1"),
    ("cdr_0", "cdr_1", "cdr_2"),
]
UNKNOWN = [
    ("0", "1", "2", "3"),  # may number anything: the public dataset numbers its classes by the alphabet
    ("mild", "moderate", "none"),
    ("CN", "FTD", "AD"),
    ("CN", "MildDemented"),
    ("CN", "HC", "AD"),
    ("MCI", "early MCI", "E-MCI"),
    ("Non_Demented", "NonDemented"),
    ("0.5", "0.7", "1"),
    (),
]


@pytest.mark.parametrize("names", IN_ORDER, ids=", ".join)
def test_usual_names_are_put_in_clinical_order_and_keep_their_spelling(names):
    assert recognised_order(sorted(names)) == names
    assert clinical_order(reversed(names)) == names
    assert is_ordered(names)
    assert not is_ordered(tuple(reversed(names)))


@pytest.mark.parametrize("names", UNKNOWN, ids=", ".join)
def test_names_that_are_not_known_keep_their_order_and_have_no_clinical_one(names):
    assert recognised_order(names) is None
    assert clinical_order(names) == names
    assert not is_ordered(names)


def test_numbers_of_a_column_of_ratings_are_ratings():
    assert recognised_order(["2", "0", "1"], "CDR") == ("0", "1", "2")
    assert recognised_order(["4", "0", "1"], "cdr") is None


def test_a_given_order_names_each_class_once():
    assert clinical_order(["b", "a"], ["b", "a"]) == ("b", "a")
    with pytest.raises(DataError, match="names a, a, but the data holds b, a; name each class once"):
        clinical_order(["b", "a"], ["a", "a"])


def columns(*names, **metadata):
    return with_metadata(pa.table({f"prob_{name}": [0.5] for name in names}), metadata)


@pytest.mark.parametrize(
    ("table", "order", "expected"),
    [
        (columns("AD", "CN", "MCI"), None, (("CN", "MCI", "AD"), True)),
        (columns("z", "b", "a"), None, (("z", "b", "a"), False)),
        (columns("z", "b", "a", ordered=False), None, (("z", "b", "a"), False)),
        (columns("z", "b", "a", ordered=True), None, (("z", "b", "a"), True)),
        (columns("AD", "CN", ordered=True), None, (("AD", "CN"), True)),  # the user's own --class-order
        (columns("z", "b", "a"), ["a", "z", "b"], (("a", "z", "b"), True)),
    ],
)
def test_a_table_says_its_order_or_its_names_do(table, order, expected):
    assert table_classes(table, order) == expected


def test_short_names_leave_out_what_all_have_in_common():
    assert short_names(STAGES) == ["Non", "Very Mild", "Mild", "Moderate"]
    assert short_names(["CN", "AD"]) == ["CN", "AD"]
    assert short_names(["Mild_Demented"]) == ["Mild Demented"]
