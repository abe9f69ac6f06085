-- The undos of an import are found by their source.
CREATE INDEX import_job_undo ON import_job (source) WHERE mode = 'undo';
