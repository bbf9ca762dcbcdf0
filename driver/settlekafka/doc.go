// Package settlekafka carries events on Apache Kafka.
package settlekafka
