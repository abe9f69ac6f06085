"""Private services for the demo, the tests and the benchmarks: PostgreSQL, RabbitMQ and a mail sink."""
