"""Tables of names, one a format, and the rows that formats share."""
