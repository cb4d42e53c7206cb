"""Secrets and configs without swarm: small texts that containers read as files. Start at `store`."""
