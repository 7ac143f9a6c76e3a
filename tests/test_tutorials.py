"""The tutorial that follows the report is a notebook: each of its cells runs, and nothing is printed twice."""

import json
from collections import Counter
from pathlib import Path

import pytest

import brainstage

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


@pytest.mark.slow
@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="this copy has no documentation")
def test_the_report_is_reproduced_cell_by_cell(tmp_path, monkeypatch):
    pytest.importorskip("sphinx_gallery")
    import matplotlib.font_manager  # noqa: F401 - the first import on a machine says that it takes long
    import nbformat
    from nbclient import NotebookClient
    from sphinx_gallery.gen_gallery import DEFAULT_GALLERY_CONF
    from sphinx_gallery.notebook import jupyter_notebook
    from sphinx_gallery.py_source_parser import split_code_and_text_blocks

    file = EXAMPLES / "reproduce_the_report.py"
    _, blocks = split_code_and_text_blocks(file)
    content = jupyter_notebook(blocks, dict(DEFAULT_GALLERY_CONF), str(EXAMPLES))
    notebook = nbformat.reads(json.dumps(content), as_version=4)
    monkeypatch.setenv("PYTHONPATH", str(Path(brainstage.__file__).parents[1]))  # the kernel starts elsewhere
    monkeypatch.setenv("BRAINSTAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BRAINSTAGE_DATA", raising=False)
    options = {"timeout": 300, "iopub_timeout": 60, "startup_timeout": 300}
    NotebookClient(notebook, resources={"metadata": {"path": tmp_path}}, **options).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    ours = [output for cell in code if "from transformers" not in cell.source for output in cell.outputs]
    assert [output for output in ours if output.get("name") == "stderr"] == []
    assert any("protocol official" in str(output) for output in ours)
    shown = Counter(str(output.get("data", output.get("text"))) for output in ours)
    assert [output for output, times in shown.items() if times > 1 and output.strip()] == []
