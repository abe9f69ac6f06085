"""Deliver batches: claim them, render their mails, hand the mails to the relays and record the outcomes."""
