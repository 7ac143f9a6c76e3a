"""Remake the patient map of the public dataset that is bundled with the package.

    python tools/make_patient_map.py

reads the public dataset (BRAINSTAGE_DATA, or what `brainstage data fetch` downloaded), recovers its people from the
pixels alone and writes src/brainstage/datasets/maps/falah_alzheimer_mri.parquet. It holds no pixels.
"""

from pathlib import Path

import pyarrow.parquet as pq

from brainstage.audits.audit import audit
from brainstage.core.progress import progress_bar
from brainstage.datasets.patient_map import MAP_COLUMNS
from brainstage.datasets.sources import load_slices

TARGET = Path(__file__).parent.parent / "src/brainstage/datasets/maps/falah_alzheimer_mri.parquet"


def main() -> None:
    """Audit the public dataset and write its map, ordered by hash."""
    result = audit(load_slices(progress=progress_bar), progress=progress_bar)
    table = result.table.select(MAP_COLUMNS).sort_by("slice_id").replace_schema_metadata(None)
    TARGET.parent.mkdir(exist_ok=True)
    pq.write_table(table, TARGET, compression="zstd", compression_level=19)
    print(f"{len(result.members)} people, {len(table):,} slices, {TARGET.stat().st_size / 1e3:.0f} kB: {TARGET}")


if __name__ == "__main__":
    main()
