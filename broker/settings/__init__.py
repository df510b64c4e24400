"""What the operator says: frozen, checked; nothing is opened here.

In reading order:

* `config.py`: Every limit and setting of a broker, in one frozen object that is passed whole.
* `auth.py`: Settings of authentication: who may come in, as the operator says it. `authenticator` does it.
* `auth_file.py`: The file that says who may come in: TOML, with one table, ``auth``.
* `rules.py`: What the operator says about topics: which policy a subscriber gets, how long a publisher may wait, what
  is kept.
* `rule_text.py`: A rule as one line of text: ``stocks.> user=legacy-* on_slow=conflate max_rate=10``.
* `tls.py`: TLS: its settings, and what is made of them. The files are read when the broker is made and with each
  reload.
* `origins.py`: Which web pages may speak to the broker. A browser says in `Origin` from where the page comes that it
  acts for.
* `networks.py`: Proxies whose word counts, and what they say of whom they speak for.
* `roles.py`: Roles: named sets of permissions, as the settings have them.
"""
