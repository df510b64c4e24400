"""The client's half of the command line: `fanwire pub`, `sub`, `watch`, `feed` and `bench`.

Each command has a file of its name; what it does lies beside it in files without click, so that it can be tested and
used (`fanwire demo` does) without a command line. The packages of the extra `fanwire[cli]` may be imported only here.

In reading order:

* `command.py`: How every command reads its arguments: one class of command and one of group, for the whole command
  line.
* `running.py`: Runs a command's async function, and makes of whatever comes out of it an exit status or one line of
  text.
* `options.py`: Options that several commands share, so that they are called and explained alike.
* `output.py`: What commands write: data on standard output, and notes for people on standard error.
* `pub.py`: `fanwire pub`: publish messages, and know that the broker has them.
* `sub.py`: `fanwire sub`: print the messages of topics.
* `watch.py`: `fanwire watch`: a live table of prices.
* `request.py`: `fanwire request`: ask whoever serves a topic, and print what they reply.
* `history.py`: `fanwire history`: print what the broker keeps of a topic's messages.
* `presence.py`: `fanwire presence`: print who is subscribed, and who comes and goes.
* `feed.py`: `fanwire feed`: a ticker of real stock prices, or of a random walk.
* `ticker.py`: Publishes bars when they are due: what `fanwire feed` and `fanwire demo` have in common.
* `top.py`: `fanwire top`: which subscribers are behind, now.
* `explain.py`: Errors in the words of the command line: what happened, and what to do next.
* `board.py`: What `fanwire watch` knows: one row a topic. Pure: messages in, rows out, time told by the caller.
* `cells.py`: The words and numbers of a board's row, the same for a terminal and for a pipe.
* `columns.py`: Which columns of a table a terminal has room for, and how wide each is.
* `connection_news.py`: Tells people on standard error when the connection goes and comes back.
* `json_view.py`: Payloads as JSON, as the protocol's JSON subprotocol has them (protocol reference, Transport).
* `live_table.py`: The board as a live table on a terminal, with rich; imported only when there is a terminal.
* `message_line.py`: A message as one line of text: for people, or as JSON.
* `on_demand.py`: Which topics of a feed anybody wants at the moment.
* `payload.py`: What `fanwire pub` was given, as what the SDK publishes.
* `plain_table.py`: The board as plain text: for pipes, logs and tests. Blanks part the columns; no cell holds one.
* `prices.py`: The real daily bars that come with Fanwire, in the order in which they happened.
* `quote.py`: What a message says of a price, whatever its shape.
* `random_walk.py`: Prices that never were, for as long as one likes: a geometric random walk, the same for the same
  seed.
* `recent_rate.py`: How many a second, of late: in constant memory, whatever the rate.
* `schedule.py`: When each thing is due: pure arithmetic, so that a replay can be tested without waiting for it.
* `sparkline.py`: A row of small bars that shows where numbers went.
* `stdin_lines.py`: Lines of standard input, read so that Ctrl-C needs no line to end the program.
* `terminal_text.py`: Text from others, made harmless for a terminal.
* `text.py`: Text from files and pipes: UTF-8, with or without a byte order mark.
* `top_table.py`: `fanwire top` on a terminal, with rich; imported only when there is one.
* `top_view.py`: What `fanwire top` shows, as text in cells: from the broker's `$sys.stats` and `$sys.connections`.
* `watching.py`: Keeps a board up to date and shows it: what `fanwire watch` and `fanwire demo` have in common.
"""
