"""Cells to records: lanes take turns in heats, measured by what stands beside them."""
