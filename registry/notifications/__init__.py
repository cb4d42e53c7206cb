"""What happened, told: to webhooks (`endpoints` · `envelopes` · `signing` · `sending` · `courier` · `dispatch`) and to
whoever asks the audit log (`audit`).

Everything here stands on the log of events (`storage.metadata.events`), which the changes themselves write. Start at
`dispatch.Dispatcher`. Knows no HTTP server.
"""
