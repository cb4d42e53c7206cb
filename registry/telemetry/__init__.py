"""What a running registry tells of itself: numbers (`families` · `board` · `exposition`), traces (`tracing`), log lines
(`logs`).

Knows no HTTP beyond words like "method" and "status". Start at `observer.Telemetry`, which the composition root makes
and hands to whatever counts.
"""
