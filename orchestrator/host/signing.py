"""Ed25519 (RFC 8032) by the OpenSSL that Python itself is linked to, and the key with which this host signs."""

from __future__ import annotations

import ctypes
import functools
import os
import secrets
from pathlib import Path

from orchestrator.errors import HostError

_ED25519 = 1087  # NID_ED25519 of OpenSSL's obj_mac.h
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64


class SigningKey:
    """The private key in the file `path`, which is made at random if it is not there; its owner alone may read it.

    HostError if there can be none, or if OpenSSL is not there.
    """

    def __init__(self, path: Path) -> None:
        self._library = _openssl()
        seed = _read_or_make(path)
        if len(seed) != _KEY_BYTES:
            raise HostError(
                f"{path}: not a key: {len(seed)} bytes, not {_KEY_BYTES}; move it away, and one is made anew"
            )
        self._key = self._library.EVP_PKEY_new_raw_private_key(_ED25519, None, seed, len(seed))
        if not self._key:
            raise HostError(f"{path}: OpenSSL takes this key for none; move it away, and one is made anew")
        public, length = ctypes.create_string_buffer(_KEY_BYTES), ctypes.c_size_t(_KEY_BYTES)
        self._library.EVP_PKEY_get_raw_public_key(self._key, public, ctypes.byref(length))
        self.public = public.raw[: length.value]

    def sign(self, text: bytes) -> bytes:
        """Return the signature of a text."""
        signature, length = ctypes.create_string_buffer(_SIGNATURE_BYTES), ctypes.c_size_t(_SIGNATURE_BYTES)
        context = self._library.EVP_MD_CTX_new()
        try:
            begun = self._library.EVP_DigestSignInit(context, None, None, None, self._key)
            done = begun == 1 and self._library.EVP_DigestSign(
                context, signature, ctypes.byref(length), text, len(text)
            )
        finally:
            self._library.EVP_MD_CTX_free(context)
        if done != 1:
            raise HostError("OpenSSL does not sign with Ed25519 here; is it in a mode that allows other kinds only?")
        return signature.raw[: length.value]


def is_signed(public: bytes, text: bytes, signature: bytes) -> bool:
    """Tell whether whoever has the private key to this public one has signed this text. HostError without OpenSSL."""
    library = _openssl()
    key = library.EVP_PKEY_new_raw_public_key(_ED25519, None, public, len(public))
    if not key:
        return False
    context = library.EVP_MD_CTX_new()
    try:
        begun = library.EVP_DigestVerifyInit(context, None, None, None, key)
        return bool(begun == 1 and library.EVP_DigestVerify(context, signature, len(signature), text, len(text)) == 1)
    finally:
        library.EVP_MD_CTX_free(context)
        library.EVP_PKEY_free(key)


def _read_or_make(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        handle = None
    except OSError as error:
        raise HostError(
            f"{path}: the journal's key cannot be made: {error.strerror}; make room or give access"
        ) from None
    try:
        if handle is not None:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
        return path.read_bytes()
    except OSError as error:
        if handle is not None:
            path.unlink()  # half a key is worse than none
        raise HostError(f"{path}: the journal's key cannot be read: {error.strerror}; give access") from None


@functools.cache
def _openssl() -> ctypes.CDLL:
    import _hashlib  # noqa: F401, PLC0415 (it is what loads the library that is then found by name)

    try:
        library = ctypes.CDLL("libcrypto.so.3")
    except OSError:
        raise HostError("no OpenSSL 3 (libcrypto.so.3), which signs; on Debian: apt-get install libssl3") from None
    pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    sized = ctypes.POINTER(size)
    for name, result, arguments in (
        ("EVP_PKEY_new_raw_private_key", pointer, (ctypes.c_int, pointer, text, size)),
        ("EVP_PKEY_new_raw_public_key", pointer, (ctypes.c_int, pointer, text, size)),
        ("EVP_PKEY_get_raw_public_key", ctypes.c_int, (pointer, text, sized)),
        ("EVP_PKEY_free", None, (pointer,)),
        ("EVP_MD_CTX_new", pointer, ()),
        ("EVP_MD_CTX_free", None, (pointer,)),
        ("EVP_DigestSignInit", ctypes.c_int, (pointer, pointer, pointer, pointer, pointer)),
        ("EVP_DigestSign", ctypes.c_int, (pointer, text, sized, text, size)),
        ("EVP_DigestVerifyInit", ctypes.c_int, (pointer, pointer, pointer, pointer, pointer)),
        ("EVP_DigestVerify", ctypes.c_int, (pointer, text, size, text, size)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
