"""The tests of the clauses: `pytest --pyargs detr_conformance.suite --detr-target TARGET`."""
