"""The commands, one file each: ``add`` says its arguments, the function that it names does it."""
