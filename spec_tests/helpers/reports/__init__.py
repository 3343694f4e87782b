"""Reports and wrong kernels that tests of reports show."""
