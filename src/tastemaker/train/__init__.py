"""The engine that runs programs, and the bundle it leaves."""
