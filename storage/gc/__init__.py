"""Online garbage collection: nothing stops, nothing is read-only, and nothing that a client was promised disappears.

`mark` is a pure function over one repository; `sweep` turns its verdict into tombstones in one transaction and
removes bytes afterwards; `leases` name content that work in progress needs. The order that makes it safe:

1. A client that was told "it exists" has touched the row (`storage.repository.touches`), and so has every manifest
   push for the blobs and children it names. Rows touched within the grace live.
2. Marking and deleting the rows of a repository happen in one write transaction, so nothing changes in between.
3. Rows go first, leaving a tombstone with the storage key; bytes go after the commit. A crash leaves a tombstone
   (finished by the next run) or bytes without a row (found by listing the store), never a row without bytes.
"""
