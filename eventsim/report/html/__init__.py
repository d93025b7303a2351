"""The report: one page that opens offline, made of a sample's document and of what was watched while it ran."""
