"""A model or a layer beside the reference, stage by stage, at sizes of the user's."""
