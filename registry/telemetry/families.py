"""Every number that is counted while serving: its name, meaning, labels, and the values that the labels may have.

All values of a label are known before the first request, so no client can make the numbers grow, and there is no
label for a repository, a user or an address. `docs/metrics.md` shows the table, and a test keeps the two equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

OTHER = "other"
METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", OTHER)
CLIENT_GONE = "499"
STATUSES = (*(str(status.value) for status in HTTPStatus), CLIENT_GONE, OTHER)

FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SLOW = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

STORE_CALLS = ("create", "resume", "write", "flush", "seal", "read", "size", "delete", "settle", "url")
DATABASE_CALLS = ("read", "write", "wait")
CACHES = ("manifests", "blobs", "upstream")
RESULTS = ("ok", "failed")
COLLECTED = ("manifest", "membership", "blob", "bytes", OTHER)


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Label:
    """A value that is not among `values` counts as the last of them."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """`bounds`: the upper bounds of a histogram's buckets, in the family's unit."""

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    bounds: tuple[float, ...] = ()


REQUESTS = "seawall_http_requests_total"
SECONDS = "seawall_http_request_seconds"
RECEIVED = "seawall_http_received_bytes_total"
SENT = "seawall_http_sent_bytes_total"
RUNNING = "seawall_http_requests_in_flight"
CONNECTIONS = "seawall_http_connections"
CACHE_HITS = "seawall_cache_hits_total"
CACHE_MISSES = "seawall_cache_misses_total"
DATABASE = "seawall_database_seconds"
DATABASE_ERRORS = "seawall_database_errors_total"
STORE = "seawall_store_seconds"
STORE_ERRORS = "seawall_store_errors_total"
STORE_RECEIVED = "seawall_store_written_bytes_total"
STORE_SENT = "seawall_store_read_bytes_total"
UPSTREAM = "seawall_upstream_seconds"
UPSTREAM_RECEIVED = "seawall_upstream_received_bytes_total"
UPSTREAM_STALE = "seawall_upstream_stale_answers_total"
DELIVERIES = "seawall_webhook_deliveries_total"
DELIVERY = "seawall_webhook_delivery_seconds"
DENIED = "seawall_denied_total"
AUDIT_DROPPED = "seawall_audit_dropped_total"
LOGINS_FAILED = "seawall_logins_failed_total"
THROTTLED = "seawall_throttled_total"
GC_RUNS = "seawall_gc_runs_total"
GC_REMOVED = "seawall_gc_removed_total"
GC_FREED = "seawall_gc_freed_bytes_total"
GC_HOLD = "seawall_gc_longest_hold_seconds"
GC_SECONDS = "seawall_gc_last_seconds"
GC_TIME = "seawall_gc_last_time_seconds"
RELOADS = "seawall_tls_reloads_total"


def families(endpoints: Sequence[str]) -> tuple[Family, ...]:
    """`endpoints`: every name that the API's paths have; `other` is added."""
    endpoint = Label("endpoint", (*endpoints, OTHER))
    method = Label("method", METHODS)
    result = Label("result", RESULTS)
    return (
        Family(REQUESTS, Kind.COUNTER, "requests that were answered; status 499: the client went before",
               (endpoint, method, Label("status", STATUSES))),
        Family(SECONDS, Kind.HISTOGRAM, "seconds from a request's head to the last byte of its answer",
               (endpoint, method), FAST),
        Family(RECEIVED, Kind.COUNTER, "bytes of request bodies", (endpoint,)),
        Family(SENT, Kind.COUNTER, "bytes of answers", (endpoint,)),
        Family(RUNNING, Kind.GAUGE, "requests that run now, without those answered from memory at once"),
        Family(CONNECTIONS, Kind.GAUGE, "open connections"),
        *_storage(),
        Family(UPSTREAM, Kind.HISTOGRAM, "seconds of one request to an upstream registry", (result,), SLOW),
        Family(UPSTREAM_RECEIVED, Kind.COUNTER, "bytes fetched from upstream registries"),
        Family(UPSTREAM_STALE, Kind.COUNTER, "answers given from what is kept because the upstream did not answer"),
        Family(DELIVERIES, Kind.COUNTER, "attempts to deliver to a webhook", (result,)),
        Family(DELIVERY, Kind.HISTOGRAM, "seconds of one attempt to deliver to a webhook", (), SLOW),
        Family(DENIED, Kind.COUNTER, "requests refused for lack of permission"),
        Family(LOGINS_FAILED, Kind.COUNTER, "credentials that proved nothing"),
        Family(THROTTLED, Kind.COUNTER, "requests answered 429"),
        Family(AUDIT_DROPPED, Kind.COUNTER, "refused requests beyond the rate that the audit log takes"),
        *_collection(),
        Family(RELOADS, Kind.COUNTER, "reloads of the TLS certificate", (result,)),
    )


def _storage() -> tuple[Family, ...]:
    cache = Label("cache", CACHES)
    store = Label("call", STORE_CALLS)
    return (
        Family(CACHE_HITS, Kind.COUNTER, "answers found in memory", (cache,)),
        Family(CACHE_MISSES, Kind.COUNTER, "answers that the database was asked for", (cache,)),
        Family(DATABASE, Kind.HISTOGRAM, "seconds of a transaction (`read`, `write`), or of waiting to begin one that "
               "writes (`wait`)", (Label("call", DATABASE_CALLS),), FAST),
        Family(DATABASE_ERRORS, Kind.COUNTER, "transactions that failed for a reason of the database"),
        Family(STORE, Kind.HISTOGRAM, "seconds of one call to the blob store; a `read` is until its first bytes",
               (store,), FAST),
        Family(STORE_ERRORS, Kind.COUNTER, "calls that the blob store failed, other than for absent content", (store,)),
        Family(STORE_RECEIVED, Kind.COUNTER, "bytes written to the blob store"),
        Family(STORE_SENT, Kind.COUNTER, "bytes read from the blob store, without those that the kernel sends"),
    )


def _collection() -> tuple[Family, ...]:
    return (
        Family(GC_RUNS, Kind.COUNTER, "garbage collections", (Label("result", RESULTS),)),
        Family(GC_REMOVED, Kind.COUNTER, "what garbage collections removed", (Label("kind", COLLECTED),)),
        Family(GC_FREED, Kind.COUNTER, "bytes freed by garbage collections"),
        Family(GC_SECONDS, Kind.GAUGE, "how long the last garbage collection took"),
        Family(GC_HOLD, Kind.GAUGE, "the longest that the last garbage collection kept others from writing"),
        Family(GC_TIME, Kind.GAUGE, "when the last garbage collection ended, as seconds since 1970"),
    )
