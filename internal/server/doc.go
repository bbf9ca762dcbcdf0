// Package server gives tests real servers: PostgreSQL, MariaDB, Redis, NATS, Kafka, RabbitMQ, and what
// stands in front of or behind them.
//
//	func TestMain(m *testing.M) { os.Exit(server.Main(m)) }
//
//	func TestPublish(t *testing.T) {
//		url := server.Shared(t, server.NATS) // shared by this binary's tests
//		own := server.Start(t, server.Kafka, server.Options{})
//		own.Kill()
//		own.Restart()
//	}
//
// Each server listens on a free port of 127.0.0.1 and keeps its data in a temporary directory. It is
// stopped with its test or, if shared, with the test binary, and it dies with the binary however that
// ends: by a panic, a timeout or SIGKILL. Tests of a shared server take databases, topics and streams of
// their own.
//
// `make services-setup` installs the servers. One that is missing fails the test and never skips it:
// a guarantee that was not tested is not known to hold. Only -short skips. Where servers run already,
// these variables replace the shared ones:
//
//	SETTLE_TEST_POSTGRES_URL  postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable
//	SETTLE_TEST_MYSQL_URL     mysql://root@127.0.0.1:3306/
//	SETTLE_TEST_REDIS_URL     redis://127.0.0.1:6379/0
//	SETTLE_TEST_NATS_URL      nats://127.0.0.1:4222
//	SETTLE_TEST_KAFKA_URL     kafka://127.0.0.1:9092
//	SETTLE_TEST_RABBIT_URL    amqp://guest:guest@127.0.0.1:5672/
//
// # What this package does not do
//
// It speaks no protocol beyond the sign of life that a start waits for: it creates no database and no
// topic. It starts servers on Linux only. Package launch, which does the work, needs no test.
package server
