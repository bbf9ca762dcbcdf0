// Package debezium has Debezium's outbox router drain the outbox into Kafka, with the configuration of
// docs/guides/debezium.md as it stands there, and a consumer of ours handle what comes. It has no code of
// its own.
package debezium
