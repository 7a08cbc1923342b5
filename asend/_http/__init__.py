"""What HTTP asks of who answers with a file, whatever server or framework carries the answer.

Nothing here sends or waits: which file, which status, which parts of it.
"""
