"""The labels of a segmentation: 0 background, 1 liver, 2 tumor."""

FIRST_LABEL = {"liver": 1, "tumor": 2}  # a structure is every label from here on
