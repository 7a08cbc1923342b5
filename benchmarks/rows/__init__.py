"""One module per row: `cases(work)` yields what is to be run, and holds what it needs meanwhile."""

# In the order in which they run, and are shown.
ROWS = (
    "calls",
    "wakeups",
    "files",
    "streams",
    "handlers",
    "file_server",
    "pauses",
    "cold",
    "residency",
    "many",
    "imports",
    "steps",
)
