"""The temporary folders of a server: their names, by which a worker finds those of killed processes."""

from memoair_documents.reader_process import READ_PREFIX

BUILD_PREFIX = "memoair-build-"
UPLOAD_PREFIX = "memoair-upload-"
PREVIEW_PREFIX = "memoair-preview-"
ALL_PREFIXES = (BUILD_PREFIX, UPLOAD_PREFIX, PREVIEW_PREFIX, READ_PREFIX)
