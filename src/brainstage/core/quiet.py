"""Warnings of the libraries that read foreign files."""

from __future__ import annotations

import logging
import warnings


def silence(package: str) -> None:
    """Keep a package's warnings and log messages off the terminal, in this process.

    What is wrong with a file stands in the error that names the file. A library's warning stands anywhere, and may
    quote a header, which names the patient. The filter is one for the whole process, since files are read in
    threads and ``warnings.catch_warnings`` is not safe in them.
    """
    warnings.filterwarnings("ignore", module=rf"{package}(\.|$)")
    logging.getLogger(package).setLevel(logging.CRITICAL)
