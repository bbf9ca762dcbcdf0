package main

// spot is where one suite runs on one store or broker.
type spot struct {
	suite, column string
	folder, test  string
}

// suite is a conformance suite and the tests that run it.
type suite struct {
	name   string // its package
	test   string // on databases
	memory string
	pooler string // "" where it makes no difference how connections are shared
}

func storeSuites() []suite {
	return []suite{
		{"txntest", "TestTxnSuite", "TestTransactions", "TestPooler/Txn"},
		{"relaytest", "TestRelaySuite", "TestOutbox", "TestPooler/Relay"},
		{"inboxtest", "TestInboxSuite", "TestInbox", "TestPooler/Inbox"},
		{"positionstest", "TestPositionsSuite", "TestPositions", ""},
		{"timertest", "TestTimerSuite", "TestTimers", ""},
		{"calltest", "TestCallSuite", "TestCalls", ""},
		{"deadlettertest", "TestLettersSuite", "TestLetters", ""},
		{"idempotencytest", "TestAnswersSuite", "TestAnswers", ""},
		{"pushtest", "TestFeedSuite", "TestFeed", ""},
		{"locktest", "TestLockSuite", "TestLocks", ""},
	}
}

func stores() []string {
	return []string{"memory", "SQLite", "PostgreSQL", "PostgreSQL, PgBouncer", "MariaDB, changed rows", "MariaDB, found rows"}
}

func brokerSpots() []spot {
	const suite = "brokertest"
	return []spot{
		{suite, "memory", "memory", "TestBroker"},
		{suite, "none: outboxes followed", "storebroker", "TestBroker"},
		{suite, "none, between processes", "storebroker", "TestBrokerWithLeases"},
		{suite, "JetStream, embedded", "driver/settlenats", "TestEmbedded"},
		{suite, "JetStream, a server", "driver/settlenats", "TestRemote"},
		{suite, "JetStream, three nodes", "driver/settlenats", "TestCluster"},
		{suite, "Kafka", "driver/settlekafka", "TestBroker"},
		{suite, "Kafka, transactional id", "driver/settlekafka", "TestBrokerWithTransactions"},
		{suite, "Redis Streams", "driver/settleredis", "TestBroker"},
		{suite, "RabbitMQ", "driver/settlerabbit", "TestBroker"},
	}
}

func hintSpots() []spot {
	const suite = "locktest, hints"
	return []spot{
		{suite, "memory", "memory", "TestHints"},
		{suite, "Redis", "driver/settleredis", "TestHints"},
	}
}

func storeSpots() []spot {
	var all []spot
	for _, s := range storeSuites() {
		all = append(all,
			spot{s.name, "memory", "memory", s.memory},
			spot{s.name, "SQLite", "driver/settlesqlite", s.test},
			spot{s.name, "PostgreSQL", "driver/settlepgx", s.test},
			spot{s.name, "MariaDB, changed rows", "driver/settlemysql", s.test + "/clientFoundRows=false"},
			spot{s.name, "MariaDB, found rows", "driver/settlemysql", s.test + "/clientFoundRows=true"},
		)
		if s.pooler != "" {
			all = append(all, spot{s.name, "PostgreSQL, PgBouncer", "driver/settlepgx", s.pooler})
		}
	}
	return all
}

func spots() []spot {
	all := storeSpots()
	all = append(all, brokerSpots()...)
	return append(all, hintSpots()...)
}
