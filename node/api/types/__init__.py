"""Docker's JSON: readers that turn it into values of the rooms below, and renderers that do the reverse.

Pure: no await, no file, no clock. Reading raises InvalidArgument (400) naming the field, or Unimplemented (501) for
what Seawall does not do yet and was asked to do. Start reading at `fields.py`.
"""
