"""Why a file cannot be read into documents."""


class UnreadableFileError(ValueError):
    """A file as a whole has no documents: it is binary, empty, encrypted or damaged. The message says why."""


class DocumentFileError(ValueError):
    """A file is invalid. The message begins with the line where there is one, and does not name the file."""
