"""Whose token it is, and what that allows.

In reading order:

* `identity.py`: Who somebody is, and the refusal to believe it.
* `permissions.py`: What a user may publish on and subscribe to: patterns, allowed and denied, given by roles.
* `authenticator.py`: Who brings a token: one that the settings have the hash of, or a JWT.
* `jwt_tokens.py`: Verifying JWTs (RFC 7519, with the advice of RFC 8725).
* `jwt_keys.py`: Keys that JWTs are verified with: read from files, each fit for one algorithm and bound to it.
* `client_certificate.py`: What a client's certificate says of who it is. That an authority of ours signed it, TLS has
  made sure of.
* `failure.py`: The refusal to believe who somebody says that he is.
"""
