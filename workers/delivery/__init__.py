"""Delivers batches: claims, renders, hands mails to the relays and records what became of them."""
