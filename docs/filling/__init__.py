"""What `docs/fill.py` puts into the documents: excerpts and tables from the saved runs."""
