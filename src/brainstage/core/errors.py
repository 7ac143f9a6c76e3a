"""The exceptions that brainstage raises on purpose: one sentence each, naming what is wrong and what to do."""


class BrainstageError(Exception):
    """Base of every error that a user can fix; the command line prints it without a traceback."""


class DataError(BrainstageError):
    """A file, table or row is missing, unreadable or not of the expected form."""


class MissingInputError(DataError):
    """A dataset is missing, or holds no scan of the kind that is needed."""


class InvalidDatasetError(DataError):
    """A folder is no BIDS dataset, or a table of it cannot be used."""


class NothingSelectedError(DataError):
    """The participants or sessions that were asked for are not in the dataset."""


class RefusalError(DataError):
    """A scan is readable but not one that a model may stage."""


class LeakageError(BrainstageError):
    """A split or a figure would mix the slices of one patient across its sides."""


class ConfigError(BrainstageError):
    """A recipe, an option or a configuration file holds a value that cannot be used."""


class RunError(BrainstageError):
    """A run folder is missing, incomplete, changed, in use or not writable."""


class OutputError(RunError):
    """A file or folder cannot be written: the place is not writable, or the disk is full."""


class InUseError(RunError):
    """Another process works on the folder; later it will be free."""


class OtherProcessError(RunError):
    """The first process of a training failed, and says why; this one has nothing to add."""
