"""The broker, put together.

In reading order:

* `broker.py`: `Broker`: what one starts, embeds, drains and asks for figures.
"""
