"""One module per row: `cases(work)` yields what is to be run, and holds what it needs meanwhile."""
