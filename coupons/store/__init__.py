"""All SQL: a module a thing, beside it the `.sql` file that it runs.

Functions take the connection first and open no transaction unless they say so; what must hold together is one call.
"""
