"""Figures for papers, drawn with matplotlib from the JSON of results and documents; one style for all of them."""
