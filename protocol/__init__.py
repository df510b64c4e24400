"""What goes over the wire: bytes in, objects out, no I/O."""
