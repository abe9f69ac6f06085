-- The outbox shows the sendouts of one state without reading all others.
CREATE INDEX sendout_state ON sendout (state, created_at);
