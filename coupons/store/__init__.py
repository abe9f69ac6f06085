"""The database: one module per table or task, next to the `.sql` file that only this module runs.

The modules hold the rules that need the database to decide, such as whether a sendout may be created. Rules that are
functions of values are elsewhere: admission, batching, templates.

Functions take the connection first. One call is one unit of work: it opens its own transaction where it needs one.
Functions that must run in a transaction of the caller say so, and check it.
"""
