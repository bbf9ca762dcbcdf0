package settlekafka

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/internal/server"
)

func fake(t *testing.T, options ...kfake.Opt) string {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return strings.Join(c.ListenAddrs(), ",")
}

func TestOpenRefuses(t *testing.T) {
	secret := strings.TrimPrefix(startWithSASL(t), "kafka://")
	var lc net.ListenConfig
	mute, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()
	for name, test := range map[string]struct {
		url  string
		cfg  Config
		is   error
		says string
	}{
		"wrong password":          {"kafka://shop:hush-hush@" + secret, Config{}, ErrCredentials, secret},
		"wrong SCRAM":             {"kafka://shop:hush-hush@" + secret + "?sasl=scram-sha-256", Config{}, ErrCredentials, "shop"},
		"wrong in Config":         {"kafka://" + secret, Config{User: "shop", Password: "hush-hush"}, ErrCredentials, secret},
		"unknown user":            {"kafka://nobody:hush-hush@" + secret + "?sasl=SCRAM-SHA-512", Config{}, ErrCredentials, ""},
		"no credentials":          {"kafka://" + secret, Config{}, broker.ErrUnavailable, "SASL"},
		"nobody there":            {"kafka://user:hush-hush@127.0.0.1:1", Config{}, broker.ErrUnavailable, "127.0.0.1:1"},
		"nobody answers":          {"kafka://user:hush-hush@" + mute.Addr().String(), Config{}, broker.ErrUnavailable, ""},
		"TLS where there is none": {"kafka+tls://" + fake(t), Config{}, broker.ErrUnavailable, ""},
		"unknown mechanism":       {"kafka://shop:hush-hush@" + secret + "?sasl=gssapi", Config{}, nil, "GSSAPI"},
		"mechanism only":          {"kafka://" + secret + "?sasl=plain", Config{}, nil, "user"},
		"a wrong scheme":          {"http://127.0.0.1:9092", Config{}, nil, "http"},
		"no scheme":               {"127.0.0.1:9092", Config{}, nil, "kafka://"},
		"no host":                 {"kafka://:9092", Config{}, nil, "host"},
		"nothing":                 {"", Config{}, nil, "URL"},
		"a bad second":            {"kafka://u:hush-hush@host:1,ho%zzst", Config{}, nil, "host:port"},
		"a bad port":              {"kafka://u:hush-hush@host:port", Config{}, nil, "host:port"},
		"a bad login":             {"kafka://u:hush-hush%zz@host", Config{}, nil, "%25"},
		"a path":                  {"kafka://u:hush-hush@host:9092/topic", Config{}, nil, "host:port"},
		"unknown parameter":       {"kafka://u:hush-hush@host?acks=0", Config{}, nil, "acks"},
		"bad prefix":              {"kafka://host", Config{Prefix: "a b"}, nil, "prefix"},
		"too many partitions":     {"kafka://host", Config{Partitions: partitionsMax + 1}, nil, "10000"},
		"negative wait":           {"kafka://host", Config{Wait: -1}, nil, "wait"},
		"long wait":               {"kafka://host", Config{Wait: time.Minute}, nil, "5s"},
		"short transaction":       {"kafka://host", Config{TransactionalID: "a", TransactionTimeout: time.Second}, nil, "5s"},
		"password, no user":       {"kafka://host", Config{Password: "hush-hush"}, nil, "user"},
	} {
		test.cfg.Logger = quiet()
		if test.cfg.AckWait = 500 * time.Millisecond; test.cfg.TransactionalID != "" {
			test.cfg.AckWait = 0
		}
		b, err := Open(t.Context(), test.url, test.cfg)
		if err == nil {
			_ = b.Close()
			t.Errorf("%s: opened", name)
			continue
		}
		if test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %v saying %q", name, err, test.is, test.says)
		}
		if strings.Contains(err.Error(), "hush-hush") {
			t.Errorf("%s: the error has the password: %v", name, err)
		}
	}
}

func TestOpenWithCredentials(t *testing.T) {
	secret := strings.TrimPrefix(startWithSASL(t), "kafka://")
	root := open(t, "kafka://root:root@"+secret, Config{})
	for _, mechanism := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		answers, err := root.admin.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{
			{User: "shop", Mechanism: mechanism, Iterations: 4096, Password: "p@ss:wörd%"},
		})
		if err == nil {
			err = answers.Error()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, url := range []string{
		"kafka://root:root@" + secret,
		"kafka://shop:p%40ss%3Aw%C3%B6rd%25@" + secret + "?sasl=scram-sha-512",
		"kafka://shop:p@ss:wörd%25@" + secret + "?sasl=scram-sha-256",
	} {
		b := open(t, url, Config{Partitions: 1, Prefix: prefix()})
		m := oneMessage("a", "1")
		publish(t, b, m)
		expect(t, next(t, subscribe(t, b, "g", orders)), m)
	}
	open(t, "kafka://"+secret, Config{User: "shop", Password: "p@ss:wörd%", Mechanism: "SCRAM-SHA-256"})
}

// startWithSASL starts a broker that takes nobody without a password.
func startWithSASL(t *testing.T) (url string) {
	t.Helper()
	const module = `org.apache.kafka.common.security.%s required username="root" password="root" user_root="root" user_shop="right";`
	return server.Start(t, server.Kafka, server.Options{Settings: map[string]string{
		"listener.security.protocol.map":                         "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
		"sasl.enabled.mechanisms":                                "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		"sasl.mechanism.inter.broker.protocol":                   "PLAIN",
		"listener.name.plaintext.plain.sasl.jaas.config":         fmt.Sprintf(module, "plain.PlainLoginModule"),
		"listener.name.plaintext.scram-sha-256.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
		"listener.name.plaintext.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
	}}).URL()
}

func TestParseURL(t *testing.T) {
	for text, want := range map[string][]string{
		"kafka://host":                       {"host:9092"},
		"kafka://a:1,b:2,c/":                 {"a:1", "b:2", "c:9092"},
		"kafka+tls://u:p@[::1]:9093,b?sasl=": {"[::1]:9093", "b:9092"},
	} {
		a, err := parseURL(text)
		if err != nil || !slices.Equal(a.seeds, want) || a.tls != strings.HasPrefix(text, "kafka+tls") {
			t.Errorf("%s: %+v %v", text, a, err)
		}
	}
}

// TestForbiddenTopicIsRejected has a user who may write to one topic and not to the other.
func TestForbiddenTopicIsRejected(t *testing.T) {
	addresses := fake(
		t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.SeedTopics(1, orders, "secret-events"), kfake.Superuser("PLAIN", "root", "root"),
		kfake.User("PLAIN", "shop", "shop",
			kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: orders, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationAll, Allow: true},
			kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: "secret-events", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationDescribe, Allow: true},
			kfake.ACL{Resource: kmsg.ACLResourceTypeCluster, Name: "kafka-cluster", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationAll, Allow: true},
		),
	)
	b := open(t, "kafka://shop:shop@"+addresses, Config{})
	readable, hidden, good := oneMessage("a", "1"), oneMessage("a", "1"), oneMessage("a", "1")
	readable.Event.Topic, hidden.Event.Topic = "secret-events", "hidden-events"
	errs := b.Publish(t.Context(), []broker.Message{readable, hidden, good})
	if !isRejected(errs[0]) || !isRejected(errs[1]) || errs[2] != nil || !strings.Contains(errs[0].Error(), "TOPIC_AUTHORIZATION_FAILED") {
		t.Errorf("results %v, want the first two rejected", errs)
	}
	bad := oneMessage("a", "1")
	bad.Event.Topic = "no such topic"
	if err := b.Publish(t.Context(), []broker.Message{bad})[0]; !isRejected(err) {
		t.Errorf("publish to %q: %v, want a RejectedError", bad.Event.Topic, err)
	}
	m := subscribe(t, b, "group", orders)
	if _, err := m.Next(t.Context()); !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "GROUP_AUTHORIZATION_FAILED") {
		t.Errorf("next without the right to the group: %v", err)
	}
}

// TestTopicKeepsItsPartitions has two brokers want different numbers of one topic.
func TestTopicKeepsItsPartitions(t *testing.T) {
	url := "kafka://" + fake(t)
	publish(t, open(t, url, Config{Partitions: 3}), oneMessage("a", "1"))
	b := open(t, url, Config{Partitions: 7})
	publish(t, b, oneMessage("a", "2"))
	topics, err := b.admin.ListTopics(t.Context(), orders)
	if err != nil || len(topics[orders].Partitions) != 3 {
		t.Errorf("%d partitions (%v), want the 3 that the topic was created with", len(topics[orders].Partitions), err)
	}
}
