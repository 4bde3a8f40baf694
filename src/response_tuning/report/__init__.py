"""Stage 5: the graded variants of a run become tables, plots and one page."""

from response_tuning.report.comparison import check, check_names
from response_tuning.report.joined import Training, Variant
from response_tuning.report.tables import summary
from response_tuning.report.writing import report

__all__ = ["Training", "Variant", "check", "check_names", "report", "summary"]
