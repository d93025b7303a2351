"""Event-file formats, one file each: every module here exports a `FORMAT`, and is found because it is here."""
