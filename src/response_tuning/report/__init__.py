"""Stage 5: the graded variants of a run become tables, plots and one page."""

from response_tuning.report.comparison import check, check_names
from response_tuning.report.joined import Training, Variant
from response_tuning.report.page import About
from response_tuning.report.power import plan as plan_power
from response_tuning.report.published import (
    FOLDER as PUBLISHED_FOLDER,
)
from response_tuning.report.published import (
    NotCompared,
    Published,
    PublishedBeside,
    asked,
    check_published,
)
from response_tuning.report.tables import summary
from response_tuning.report.writing import report

__all__ = [
    "PUBLISHED_FOLDER",
    "About",
    "NotCompared",
    "Published",
    "PublishedBeside",
    "Training",
    "Variant",
    "asked",
    "check",
    "check_names",
    "check_published",
    "plan_power",
    "report",
    "summary",
]
