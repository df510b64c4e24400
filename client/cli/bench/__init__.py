"""`fanwire bench`: how fast a broker is, measured honestly.

`command.py` is the command line, `run.py` starts the workers and reads what they tell, `worker.py` is what runs in
each process of its own (`publishing.py` or `receiving.py`), and the rest is arithmetic.
"""
