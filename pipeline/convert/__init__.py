"""From the configuration of nixys/nxs-backup v3 to ours, with a report of what it means.

Pure: `convert.convert` takes what `schemas.v3.load` has read and returns a document, its comments,
findings and secrets; `write` and `report` turn them into text.
"""
