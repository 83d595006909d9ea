"""Data in and out: actors from pairs or JSON lines, actors as JSON lines, and whole stores copied and backed up."""

from lazymig.transfer._backup import backup
from lazymig.transfer._comparison import Difference
from lazymig.transfer._contents import Contents
from lazymig.transfer._copy import CopiedType, CopyReport, copy
from lazymig.transfer._lines import (
    MAX_BATCH_ACTORS,
    MAX_BATCH_BYTES,
    MAX_KEPT_REJECTIONS,
    Existing,
    ImportReport,
    Rejection,
    export_states,
    import_json_lines,
    import_states,
    to_json_line,
)

__all__ = [
    "MAX_BATCH_ACTORS",
    "MAX_BATCH_BYTES",
    "MAX_KEPT_REJECTIONS",
    "Contents",
    "CopiedType",
    "CopyReport",
    "Difference",
    "Existing",
    "ImportReport",
    "Rejection",
    "backup",
    "copy",
    "export_states",
    "import_json_lines",
    "import_states",
    "to_json_line",
]
