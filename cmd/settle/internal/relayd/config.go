package relayd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/event"
)

// ErrConfig says that a configuration cannot be right: mend the file.
var ErrConfig = errors.New("configuration is wrong")

// Config is a relay's file. In the URLs of stores and brokers, ${NAME} stands for an environment variable.
type Config struct {
	// Schema is for editors.
	Schema string `json:"$schema,omitempty"`
	// Listen is where /metrics, /healthz and /readyz are. Default 127.0.0.1:9464.
	Listen string `json:"listen,omitempty"`
	// Sources are the outboxes to carry.
	Sources []Source `json:"sources"`
	// Sinks are the brokers to carry them to.
	Sinks []Sink `json:"sinks"`
}

// Source is one shard of one outbox.
type Source struct {
	// Name is for metrics and logs.
	Name string `json:"name"`
	// Store is the URL of its database.
	Store string `json:"store"`
	// Pooler says that the URL leads to a pooler in transaction mode, such as PgBouncer. Default false.
	Pooler bool `json:"pooler,omitempty"`
	// Shard is the part of the outbox, from 0. Default 0.
	Shard int `json:"shard,omitempty"`
	// Mode is window or wal. Default window.
	Mode string `json:"mode,omitempty"`
	// Layout is settle or debezium. Default settle.
	Layout string `json:"layout,omitempty"`
	// Table is the table of layout debezium.
	Table string `json:"table,omitempty"`
	// TopicSuffix stands behind the aggregate's type in the topics of layout debezium.
	TopicSuffix string `json:"topicSuffix,omitempty"`
	// Producer is who writes the table of layout debezium. Default the source's name.
	Producer string `json:"producer,omitempty"`
	// Slot and Publication are those of mode wal. Default settle_<database>_<shard> and settle_outbox, and for layout
	// debezium both settle_<database>_<table>, cut to what a name may have.
	Slot        string `json:"slot,omitempty"`
	Publication string `json:"publication,omitempty"`
	// Sink is the name of the broker.
	Sink string `json:"sink"`
}

// Sink is one broker.
type Sink struct {
	Name string `json:"name"`
	// Broker is its URL.
	Broker string `json:"broker"`
	// TopicPrefix begins the names of its topics. Default: the driver's.
	TopicPrefix string `json:"topicPrefix,omitempty"`
	// Partitions and Replicas of topics that are new. Default: the driver's.
	Partitions int `json:"partitions,omitempty"`
	Replicas   int `json:"replicas,omitempty"`
}

// Read reads a file and expands its variables. The error is [ErrConfig] and names everything that is wrong.
func Read(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	c, problems := Parse(b, os.LookupEnv)
	if len(problems) > 0 {
		return c, fmt.Errorf("%w: %s: %w", ErrConfig, path, errors.Join(problems...))
	}
	return c, nil
}

// Parse reads a configuration strictly. It returns every problem that there is, as far as it can be read at all.
func Parse(b []byte, lookup func(string) (string, bool)) (Config, []error) {
	c, err := decode(b)
	if err != nil {
		return c, []error{err}
	}
	problems := c.defaults(lookup)
	return c, append(problems, c.check()...)
}

func decode(b []byte) (c Config, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		if e, ok := errors.AsType[*json.SyntaxError](err); ok {
			return c, fmt.Errorf("line %d: %w", 1+bytes.Count(b[:min(int(e.Offset), len(b))], []byte("\n")), e)
		}
		return c, errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return c, errors.New("there is more behind the configuration")
	}
	return c, nil
}

// defaults fills in what is not said, and expands variables.
func (c *Config) defaults(lookup func(string) (string, bool)) (problems []error) {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:9464"
	}
	for i := range c.Sources {
		s := &c.Sources[i]
		for _, d := range []struct {
			field *string
			value string
		}{{&s.Mode, "window"}, {&s.Layout, "settle"}} {
			if *d.field == "" {
				*d.field = d.value
			}
		}
		var err error
		if s.Store, err = expand(s.Store, lookup); err != nil {
			problems = append(problems, fmt.Errorf("source %s: store: %w", s.Name, err))
		}
		if s.Layout == "debezium" && s.Producer == "" {
			s.Producer = s.Name
		}
		s.Slot = s.slot()
		if s.Layout == "debezium" && s.Publication == "" {
			s.Publication = s.Slot
		}
	}
	for i := range c.Sinks {
		var err error
		if c.Sinks[i].Broker, err = expand(c.Sinks[i].Broker, lookup); err != nil {
			problems = append(problems, fmt.Errorf("sink %s: broker: %w", c.Sinks[i].Name, err))
		}
	}
	return problems
}

// slot is the name of a slot, which is of the whole cluster.
func (s *Source) slot() string {
	if s.Slot != "" || s.Mode != "wal" {
		return s.Slot
	}
	database := ""
	if u, err := url.Parse(s.Store); err == nil {
		database = strings.Trim(u.Path, "/")
	}
	clean := func(text string) string { return otherChar.ReplaceAllString(text, "_") }
	if s.Layout == "debezium" {
		return fmt.Sprintf("settle_%.26s_%.26s", clean(database), clean(s.Table))
	}
	return fmt.Sprintf("settle_%.40s_%d", clean(database), s.Shard)
}

var (
	otherChar   = regexp.MustCompile(`[^a-z0-9_]`)
	placeholder = regexp.MustCompile(`\$\{[^}]*\}`)
	variable    = regexp.MustCompile(`^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$`)
)

// expand puts environment variables in their places. In the user and password of a URL they are escaped, so that a
// password may have any character; elsewhere they stand as they are. Errors never repeat a value.
func expand(text string, lookup func(string) (string, bool)) (string, error) {
	from, to := strings.Index(text, "://"), strings.LastIndexByte(text, '@')
	var problems []error
	var out strings.Builder
	end := 0
	for _, at := range placeholder.FindAllStringIndex(text, -1) {
		out.WriteString(text[end:at[0]])
		end = at[1]
		m := variable.FindStringSubmatch(text[at[0]:at[1]])
		if m == nil {
			problems = append(problems, fmt.Errorf("%q names no variable", text[at[0]:at[1]]))
			continue
		}
		value, ok := lookup(m[1])
		if !ok {
			problems = append(problems, fmt.Errorf("environment variable %s is not set", m[1]))
			continue
		}
		if from >= 0 && at[0] > from && at[1] <= to {
			value = strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
		}
		out.WriteString(value)
	}
	out.WriteString(text[end:])
	return out.String(), errors.Join(problems...)
}

// check returns everything that contradicts itself.
func (c *Config) check() (problems []error) {
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		add("listen %q is not host:port", c.Listen)
	}
	if len(c.Sources) == 0 {
		add("sources: none")
	}
	if len(c.Sinks) == 0 {
		add("sinks: none")
	}
	sinks := map[string]bool{}
	for i, s := range c.Sinks {
		if err := event.CheckName(s.Name); err != nil {
			add("sink %d: name: %w", i+1, err)
		}
		if sinks[s.Name] {
			add("sink %s: two sinks have this name", s.Name)
		}
		sinks[s.Name] = true
		problems = append(problems, s.check()...)
	}
	names, shards, slots := map[string]bool{}, map[string]string{}, map[string]string{}
	for i, s := range c.Sources {
		if err := event.CheckName(s.Name); err != nil {
			add("source %d: name: %w", i+1, err)
		}
		if names[s.Name] {
			add("source %s: two sources have this name", s.Name)
		}
		names[s.Name] = true
		if !sinks[s.Sink] {
			add("source %s: sink %q is none of the sinks", s.Name, s.Sink)
		}
		problems = append(problems, s.check()...)
		place := fmt.Sprintf("%s shard %d", s.Store, s.Shard)
		if other, ok := shards[place]; ok {
			add("source %s: %s carries shard %d of this store already: a shard has one position", s.Name, other, s.Shard)
		}
		shards[place] = s.Name
		if other, ok := slots[s.Slot]; ok && s.Slot != "" {
			add("source %s: %s has slot %s already", s.Name, other, s.Slot)
		}
		slots[s.Slot] = s.Name
	}
	return problems
}

func (s *Sink) check() (problems []error) {
	add := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("sink "+s.Name+": "+format, args...))
	}
	scheme, rest, ok := strings.Cut(s.Broker, "://")
	switch {
	case s.Broker == "":
		add("broker: missing")
	case !ok || rest == "":
		add("broker is no URL such as kafka://host:9092")
	case !strings.Contains(" nats tls kafka kafka+tls redis rediss amqp amqps ", " "+scheme+" "):
		add("broker %.20q is none of nats://, kafka://, redis://, amqp://", scheme)
	}
	if s.TopicPrefix != "" {
		if err := event.CheckName(s.TopicPrefix); err != nil {
			add("topicPrefix: %w", err)
		}
	}
	if s.Partitions < 0 || s.Replicas < 0 {
		add("%d partitions, %d replicas: neither can be negative", s.Partitions, s.Replicas)
	}
	return problems
}

// shardsMax is how many parts an outbox may have; see sqlstore.Config.
const shardsMax = 1024

func (s *Source) check() (problems []error) {
	add := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("source "+s.Name+": "+format, args...))
	}
	dialect := s.checkStore(add)
	wal := s.Mode == "wal"
	switch {
	case s.Mode != "window" && !wal:
		add("mode %q is neither window nor wal", s.Mode)
	case wal && dialect != "postgres" && dialect != "":
		add("mode wal reads the log of postgres, and the store is %s", dialect)
	case s.Pooler && wal:
		add("mode wal needs a connection to the server itself, not to a pooler")
	case s.Pooler && dialect != "postgres" && dialect != "":
		add("pooler is for postgres, and the store is %s", dialect)
	case !wal && s.Slot+s.Publication != "":
		add("slot and publication are of mode wal")
	}
	if s.Shard < 0 || s.Shard >= shardsMax {
		add("shard %d: 0 to %d allowed", s.Shard, shardsMax-1)
	}
	for _, n := range []struct{ field, value string }{{"slot", s.Slot}, {"publication", s.Publication}} {
		if len(n.value) > 63 || otherChar.MatchString(n.value) {
			add("%s %.80q: 1 to 63 of a-z, 0-9 and _ allowed", n.field, n.value)
		}
	}
	switch s.Layout {
	case "settle":
		if s.Table+s.TopicSuffix+s.Producer != "" {
			add("table, topicSuffix and producer are of layout debezium")
		}
	case "debezium":
		if !wal {
			add("layout debezium has no windows: use mode wal")
		}
		if s.Table == "" {
			add("layout debezium needs a table")
		}
		if err := event.CheckName(s.Producer); err != nil {
			add("producer: %w", err)
		}
	default:
		add("layout %q is neither settle nor debezium", s.Layout)
	}
	return problems
}

// checkStore returns the store's dialect, "" when it is none.
func (s *Source) checkStore(add func(string, ...any)) string {
	d, err := s.database()
	switch {
	case s.Store == "":
		add("store: missing")
	case err != nil:
		add("store is no URL such as postgres://user@host:5432/database or mysql://user@host:3306/database")
	case d.Dialect == "sqlite":
		add("store: a SQLite file has one process, whose relay is its own")
	default:
		return d.Dialect
	}
	return ""
}

// database is the store's.
func (s *Source) database() (app.Database, error) {
	all, err := app.Databases(s.Store, "", nil)
	if err != nil {
		return app.Database{}, err
	}
	d := all[0]
	d.Name = s.Name
	return d, nil
}

// carrier is how the sink's broker is opened.
func (s *Sink) carrier() app.Carrier {
	return app.Carrier{Prefix: s.TopicPrefix, Partitions: s.Partitions, Replicas: s.Replicas}
}
