"""Stage 5: the graded variants of a run become tables, plots and one page."""

from response_tuning.report.comparison import check
from response_tuning.report.run import report
from response_tuning.report.scores import Variant
from response_tuning.report.tables import summary

__all__ = ["Variant", "check", "report", "summary"]
