"""The broker's half of the command line: `fanwire serve`, and `fanwire demo`, which is a broker, a feed and a watcher.

Only here may the broker's side import the client's.

In reading order:

* `serve.py`: `fanwire serve`: a broker in a process of its own.
* `serve_help.py`: The help of `fanwire serve`: the most common options first, and all of them, in groups, with
  --help-all.
* `options.py`: The options of `fanwire serve`: one for each setting of `Config`, in one table.
* `config_file.py`: Where a broker's settings come from: defaults < a TOML file < environment variables < flags.
* `config_command.py`: `fanwire config`: write a file of settings, check one, and show what a broker would go by.
* `environment.py`: Variables whose name begins with FANWIRE_ and that nobody reads: a misspelt one must not go
  unnoticed.
* `process.py`: How a process that does nothing but broker is set up for it. Not for embedding: it changes the whole
  interpreter.
* `logs.py`: Where the broker's log goes and how it looks: coloured for people, one parsable line an event for programs.
* `log_text.py`: Nothing that a client says can end a line of the log, begin another one, or move the cursor of who
  reads it.
* `log_writer.py`: Writing the log never makes the broker wait.
* `systemd.py`: Telling systemd how the broker is: sd_notify(3) in a few lines. Elsewhere nothing is told and nothing
  happens.
* `tokens.py`: `fanwire token`: make tokens, and see what a broker would say to one.
* `demo.py`: `fanwire demo`: a broker, a feed and a live table in one process, joined by real WebSocket connections.
* `connections.py`: `fanwire connections`: who is connected, now; or who was.
* `kick.py`: `fanwire kick`: send clients away.
* `topics.py`: `fanwire topics`: which topics there are, and what they remember.
* `http_query.py`: One request to a broker's HTTP endpoints, for the commands of operators.
* `operator_table.py`: A table for people and for `awk`: blanks part the columns, and no cell holds one.
"""
