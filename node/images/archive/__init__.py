"""Images as archives: written (`save`), taken in (`load`, `importing`), and the pieces of tar and compression for both.

Start at `service`. Nothing here unpacks a layer: that is `node.images.layers`' work, as for a pull.
"""
