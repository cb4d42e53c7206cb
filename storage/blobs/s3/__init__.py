"""Blobs in an S3 bucket: written once, straight to their final names, and read by ranges.

Start at `store`, then `writing` (what is where while an upload grows) and `bucket` (the only module that knows boto3).
The room imports boto3, which takes a while and room: only whoever uses a bucket should import it.
"""
