"""Who somebody is and what they may do. Start at `policy.Access`: every read, write, delete, mount, list, search and
referrer query asks it. Knows nothing of HTTP beyond the text of an `Authorization` header.
"""
