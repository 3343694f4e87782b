"""Reports as web pages: one page of a report, and a static site of several. Templates, style and script lie beside."""
