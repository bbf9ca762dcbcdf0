package relayd

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const good = `{"sources": [{"name": "shop", "store": "postgres://relay:${PW}@h:5432/shop", "sink": "main"}],
	"sinks": [{"name": "main", "broker": "kafka://h:9092"}]}`

func lookup(name string) (string, bool) {
	v, ok := map[string]string{"PW": "p@ss/w:rd %", "HOSTS": "a:1,b:2", "DATABASE_URL": "postgres://u:x@h/db"}[name]
	return v, ok
}

// TestParse proves that a configuration is read with its defaults, and its variables in their places.
func TestParse(t *testing.T) {
	c, problems := Parse([]byte(good), lookup)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if c.Listen != "127.0.0.1:9464" || c.Sources[0].Mode != "window" || c.Sources[0].Layout != "settle" {
		t.Errorf("defaults: %+v", c)
	}
	if want := "postgres://relay:p%40ss%2Fw%3Ard%20%25@h:5432/shop"; c.Sources[0].Store != want {
		t.Errorf("store %s, want %s", c.Sources[0].Store, want)
	}
	for text, want := range map[string]string{
		"kafka://${HOSTS}": "kafka://a:1,b:2", "${DATABASE_URL}": "postgres://u:x@h/db", "nats://h:1": "nats://h:1",
	} {
		if got, err := expand(text, lookup); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
}

// TestProblems proves that each mistake is told by its name, all of them at once, and that no secret is.
func TestProblems(t *testing.T) {
	for _, tt := range []struct{ name, from, to, want string }{
		{"unknown field", `"sinks"`, `"sonks": [], "sinks"`, `unknown field "sonks"`},
		{"unknown field of a source", `"sink": "main"`, `"sunk": "x", "sink": "main"`, `unknown field "sunk"`},
		{"syntax", `{"sources"`, `{"sources" "x"`, "line 1"},
		{"no sink", `"sink": "main"`, `"sink": "other"`, `sink "other" is none`},
		{"no variable", "${PW}", "${NOPE}", "NOPE is not set"},
		{"bad variable", "${PW}", "${}", "names no variable"},
		{"broker", "kafka://h:9092", "http://h", "none of nats"},
		{"store", "postgres://relay:${PW}@h:5432/shop", "oracle://u:geheim@h/db", "no URL such as"},
		{"no database", "h:5432/shop", "h:5432", "no URL such as"},
		{"file", "postgres://relay:${PW}@h:5432/shop", "sqlite:x.db", "a SQLite file"},
		{"mode", `"sink": "main"`, `"mode": "x", "sink": "main"`, "neither window nor wal"},
		{"layout", `"sink": "main"`, `"layout": "debezium", "sink": "main"`, "use mode wal"},
		{"table", `"sink": "main"`, `"layout": "debezium", "mode": "wal", "sink": "main"`, "needs a table"},
		{"slot", `"sink": "main"`, `"mode": "wal", "slot": "A B", "sink": "main"`, "a-z, 0-9 and _"},
		{"pooler", `"sink": "main"`, `"mode": "wal", "pooler": true, "sink": "main"`, "not to a pooler"},
		{"shard", `"sink": "main"`, `"shard": 2000, "sink": "main"`, "0 to 1023"},
		{"listen", `{"sources"`, `{"listen": "9464", "sources"`, "host:port"},
		{"more", `"kafka://h:9092"}]}`, `"kafka://h:9092"}]} {}`, "more behind"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(good, tt.from, tt.to, 1)
			_, problems := Parse([]byte(text), lookup)
			all := ""
			for _, p := range problems {
				all += p.Error() + "\n"
			}
			if !strings.Contains(all, tt.want) {
				t.Errorf("said %q, want %q in it", all, tt.want)
			}
			if strings.Contains(all, "p@ss") || strings.Contains(all, "p%40ss") || strings.Contains(all, "geheim") {
				t.Errorf("a secret is in %q", all)
			}
		})
	}
	_, problems := Parse([]byte(`{"listen": "x", "sources": [{"name": "a", "store": "mysql://h/d", "mode": "wal", "sink": "no"},
		{"name": "a", "store": "mysql://h/d", "sink": "s"}], "sinks": [{"name": "s", "broker": ""}, {"name": "s", "broker": "nats://h"}]}`), lookup)
	if len(problems) != 7 {
		t.Errorf("%d problems, want 7: %v", len(problems), problems)
	}
}

// object is what these tests ask of a JSON Schema.
type object struct {
	Properties           map[string]json.RawMessage
	Required             []string
	AdditionalProperties *bool
	Defs                 map[string]object `json:"$defs"`
}

func readSchema(t *testing.T) object {
	t.Helper()
	var s object
	if err := json.Unmarshal(Schema(), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSchema proves that the schema has the fields of the structs, no more and no less.
func TestSchema(t *testing.T) {
	s := readSchema(t)
	for _, tt := range []struct {
		schema object
		of     reflect.Type
	}{
		{s, reflect.TypeFor[Config]()},
		{s.Defs["source"], reflect.TypeFor[Source]()},
		{s.Defs["sink"], reflect.TypeFor[Sink]()},
	} {
		var fields, required []string
		for field := range tt.of.Fields() {
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			fields = append(fields, name)
			if options != "omitempty" {
				required = append(required, name)
			}
		}
		slices.Sort(fields)
		if got := slices.Sorted(maps.Keys(tt.schema.Properties)); !slices.Equal(got, fields) {
			t.Errorf("%s: schema has %v, the struct %v", tt.of, got, fields)
		}
		if !slices.Equal(tt.schema.Required, required) {
			t.Errorf("%s: schema requires %v, the struct %v", tt.of, tt.schema.Required, required)
		}
		if tt.schema.AdditionalProperties == nil || *tt.schema.AdditionalProperties {
			t.Errorf("%s: the schema lets unknown fields through", tt.of)
		}
	}
}

var (
	block       = regexp.MustCompile("(?s)```json\n(.*?)```")
	environment = regexp.MustCompile(`\$\{(\w+)\}`)
)

// TestExamples proves that the configurations in the documentation are right.
func TestExamples(t *testing.T) {
	var paths []string
	for _, pattern := range []string{"docs/guides/*.md", "docs/*.md", "deploy/*.json", "deploy/*/*.json"} {
		found, err := filepath.Glob(filepath.Join("../../../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	n := 0
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts := []string{string(b)}
		if strings.HasSuffix(path, ".md") {
			texts = nil
			for _, m := range block.FindAllStringSubmatch(string(b), -1) {
				texts = append(texts, m[1])
			}
		}
		for _, text := range texts {
			switch {
			case strings.Contains(text, `"sources"`):
			case strings.HasPrefix(text, `{"name"`) && strings.Contains(text, `"sink"`): // One source.
				text = `{"sources": [` + text + `], "sinks": [{"name": "main", "broker": "kafka://h:9092"}]}`
			default:
				continue
			}
			n++
			set := map[string]bool{}
			for _, m := range environment.FindAllStringSubmatch(text, -1) {
				set[m[1]] = true
			}
			if _, problems := Parse([]byte(text), func(name string) (string, bool) { return "x", set[name] }); len(problems) > 0 {
				t.Errorf("%s: %v", path, problems)
			}
		}
	}
	if n < 2 {
		t.Errorf("%d examples found, there are at least 2", n)
	}
}

// FuzzParse proves that no file ends the program.
func FuzzParse(f *testing.F) {
	f.Add(good)
	f.Add(`{}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, problems := Parse([]byte(text), lookup)
		if len(problems) == 0 && len(c.Sources) == 0 {
			t.Errorf("%q has no source and no problem", text)
		}
	})
}
