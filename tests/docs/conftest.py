"""The sources of the documentation, with the pages that the code writes."""

import shutil

import pytest

from documentation import DOCS
from reference_pages import write_reference


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Return a copy of ``docs`` with every page that Sphinx will read, but for the tutorials that it runs."""
    copy = tmp_path_factory.mktemp("site") / "docs"
    shutil.copytree(DOCS, copy, ignore=shutil.ignore_patterns("_build", "tutorials", "commands", "model-cards"))
    shutil.copy(DOCS.parent / "CHANGELOG.md", copy.parent)
    write_reference(copy)
    return copy
