//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/settledev/settle/internal/server/launch"
)

// TestCompose keeps deploy/compose.yaml and this program in step: whoever changes from one to the other
// changes no URL.
func TestCompose(t *testing.T) {
	text, err := os.ReadFile("../../deploy/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := choose(nil, func(s service) bool { return !s.optional })
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range wanted {
		if published := fmt.Sprintf(`"127.0.0.1:%d:`, s.port); !strings.Contains(string(text), published) {
			t.Errorf("%s: compose.yaml does not publish port %d", s.kind, s.port)
		}
		if name := launch.Variable(s.kind); name == "" || !strings.Contains(string(text), name+"=") {
			t.Errorf("%s: compose.yaml does not name its variable %q", s.kind, name)
		}
	}
}

func TestServices(t *testing.T) {
	all, ports := services(), map[int]launch.Kind{}
	if len(all) != len(launch.Kinds()) {
		t.Errorf("%d services, want all %d kinds", len(all), len(launch.Kinds()))
	}
	for _, s := range all {
		nodes := 1
		if strings.HasSuffix(string(s.kind), "-cluster") {
			nodes = 3
		}
		for port := s.port; port < s.port+nodes; port++ {
			if other, taken := ports[port]; taken {
				t.Errorf("%s and %s both want port %d", s.kind, other, port)
			}
			ports[port] = s.kind
		}
	}
}

func TestChoose(t *testing.T) {
	if _, err := choose([]string{"oracle"}, nil); err == nil {
		t.Error("it chose a server that there is not")
	}
	chosen, err := choose([]string{"kafka", "redis"}, nil)
	if err != nil || len(chosen) != 2 || chosen[0].kind != launch.Kafka {
		t.Errorf("got %v, %v", chosen, err)
	}
}

func TestLine(t *testing.T) {
	tests := []struct {
		state state
		want  string
	}{
		{state{Kind: launch.Redis, URL: "redis://h/0"}, "export SETTLE_TEST_REDIS_URL='redis://h/0'"},
		{state{Kind: launch.Connect, URL: "http://h"}, "# connect http://h"},
	}
	for _, tt := range tests {
		if got := tt.state.line(); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}
