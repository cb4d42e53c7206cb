"""How large the batches of uploads are."""

from storage.uploads.batch import IN_FLIGHT, LEAST, Batch, Shares


def test_many_uploads_share_what_one_may_have() -> None:
    memory, largest = 16 * LEAST, 4 * LEAST
    shares = Shares(memory, largest)
    assert shares.batch == largest
    with shares.receiving():
        assert shares.batch == largest
        with shares.receiving(), shares.receiving(), shares.receiving():
            assert shares.batch == 2 * LEAST
            assert 4 * IN_FLIGHT * shares.batch <= memory
            held = [shares.receiving() for _ in range(100)]
            for one in held:
                one.__enter__()
            assert shares.batch == LEAST
            for one in held:
                one.__exit__(None, None, None)
        assert shares.batch == largest


def test_small_chunks_are_joined() -> None:
    batch = Batch(1000)
    for _ in range(999):
        batch.add(b"x")
    batch.add(b"")
    assert (batch.size, len(batch.chunks), batch.full) == (999, 1, False)
    batch.add(b"y" * 20_000)
    assert (len(batch.chunks), batch.full) == (2, True)
