"""Encrypts and decrypts archives with a passphrase, as age files (age-encryption.org/v1, scrypt recipient).

The work is done by the `pyrage` library in a process of its own: it is slow on purpose (about a second) and holds the
interpreter meanwhile, which the daemon's clients must not feel. Passphrase and data go through pipes, never through
arguments. This file is also that process's program, so it imports nothing of ours at the top.
"""

from __future__ import annotations

import sys

OK, NOT_OURS, NO_LIBRARY = 0, 3, 4
TIMEOUT_S = 120.0


async def seal(data: bytes, passphrase: str) -> bytes:
    """`data` as an age file. Raises PoolError."""
    return await _run("seal", data, passphrase)


async def unseal(data: bytes, passphrase: str) -> bytes:
    """What an age file holds. Raises PoolError "bad_request" for another passphrase or a damaged file."""
    return await _run("unseal", data, passphrase)


async def _run(what: str, data: bytes, passphrase: str) -> bytes:
    import asyncio
    import contextlib

    from ..errors import PoolError

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", __file__, what,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    secret = passphrase.encode()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await process.communicate(len(secret).to_bytes(4, "big") + secret + data)
    except TimeoutError:
        raise PoolError("internal", f"the archive took longer than {TIMEOUT_S:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    match process.returncode:
        case 0:
            return output
        case 3:
            raise PoolError("bad_request", "the passphrase is another one, or the archive is damaged")
        case 4:
            raise PoolError("internal", "the pyrage library is missing", hint="pip install pyrage")
    raise PoolError("internal", f"the archive's process ended with {process.returncode}")


def main(what: str) -> int:
    """The process: length and passphrase and data on stdin, the result on stdout."""
    try:
        import pyrage
    except ImportError:
        return NO_LIBRARY
    size = int.from_bytes(sys.stdin.buffer.read(4), "big")
    passphrase = sys.stdin.buffer.read(size).decode()
    data = sys.stdin.buffer.read()
    work = pyrage.passphrase.encrypt if what == "seal" else pyrage.passphrase.decrypt
    try:
        result = work(data, passphrase)
    except (pyrage.DecryptError, pyrage.EncryptError):
        return NOT_OURS
    sys.stdout.buffer.write(result)
    return OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
