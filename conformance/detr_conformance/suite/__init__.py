"""The suite as pytest is asked for it: `pytest --pyargs detr_conformance.suite --detr-target TARGET`.

Its tests lie in `detr_conformance.topics`, which the plugin hands over.
"""
