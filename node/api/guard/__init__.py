"""Requests against rights: decided on the parsed request, before its handler sees it."""
