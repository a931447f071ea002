"""One sheet for a report: curves with bands, score distributions, and the worst cases as pictures. Drawn without a display."""

from facepipe.evaluate.sheet.canvas import check_sheet
from facepipe.evaluate.sheet.identification import identification_sheet
from facepipe.evaluate.sheet.verification import verification_sheet

__all__ = ["check_sheet", "identification_sheet", "verification_sheet"]
