"""How `make docs` makes a site of these pages, all of them plain Markdown and readable as such."""

project = "nxs-backup"
author = "the authors of nxs-backup"
copyright = "the authors of nxs-backup, Apache-2.0"

extensions = ["myst_parser"]
exclude_patterns = ["*.lock"]
myst_heading_anchors = 4

smartquotes = False  # they would turn the dashes of options into one

html_theme = "furo"
html_title = "nxs-backup"
html_copy_source = False
html_show_sphinx = False

# Links to files of the repository lead to copies of them, which the site brings along.
nitpicky = True
