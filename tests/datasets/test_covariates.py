"""What a source says of people beside their slices, from parquet and from CSV."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from brainstage.datasets.covariates import in_words, typed_columns
from brainstage.datasets.sources import load_slices
from helpers import encode, picture


def test_columns_of_a_csv_file_come_along_as_numbers_or_text(tmp_path):
    lines = ["path,label,patient_id,age,sex,site"]
    rows = [("a", "71", "F", "1"), ("b", "n/a", "M", "2"), ("c", "66.5", "", "B")]
    for number, (person, *cells) in enumerate(rows):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
        lines.append(",".join([f"{number}.png", "CN", person, *cells]))
    (tmp_path / "slices.csv").write_text("\n".join(lines))
    covariates = load_slices(tmp_path / "slices.csv").covariates
    assert covariates == {"age": [71.0, None, 66.5], "sex": ["F", "M", None], "site": ["1", "2", "B"]}


def test_numbers_and_text_of_parquet_files_come_along_and_nothing_else(tmp_path):
    (tmp_path / "data").mkdir()
    for name, site in (("train", [1, 2]), ("test", [2, None])):
        columns = {
            "image": [encode(picture(number + len(name))) for number in range(2)],
            "label": ["CN", "AD"],
            "patient_id": ["a", "b"],
            "age": [float("nan"), 80.0],
            "site": pa.array(site, pa.int64()),
            "scanned": pa.array([0, 0], pa.timestamp("s")),
            "source": ["secret.nii", "secret.nii"],
        }
        pq.write_table(pa.table(columns), tmp_path / "data" / f"{name}-0.parquet")
    slices = load_slices(tmp_path)
    assert slices.covariates == {"age": [None, 80.0, None, 80.0], "site": [1.0, 2.0, 2.0, None]}
    assert not any("secret" in source for source in slices.rows["source"].to_pylist())
    again = slices.with_inferred(["x"] * 4, [0] * 4)
    assert again.covariates == slices.covariates


def test_a_column_is_of_numbers_where_all_that_is_known_is():
    table = typed_columns([{"a": "1", "b": "2"}, {"a": " None ", "b": "89+"}, {"b": None}])
    assert table.to_pydict() == {"a": [1.0, None, None], "b": ["2", "89+", None]}
    assert [in_words(value) for value in ("A", 1.0, np.float64(2.5))] == ["A", "1", "2.5"]
