"""From the events of a run to verdicts, files and words. Takes plain data alone."""
