"""Parts that a module writes out as tensor operations, and that are one layer here.

Each file finds one kind of part in a recorded program and puts one operation in the place of many: `contexts` a global
context, `neurons` charge, fire and reset. They know operations, no classes.
"""
