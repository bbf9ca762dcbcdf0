package main

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// crashAt returns a failpoint that kills this process, as kill -9 does, when it passes a named point for
// the n-th time. An empty spec means none.
func crashAt(spec string) (func(string), error) {
	if spec == "" {
		return nil, nil
	}
	point, text, ok := strings.Cut(spec, ":")
	n, err := strconv.ParseInt(text, 10, 64)
	if !ok || point == "" || err != nil || n < 1 {
		return nil, usage("--crash %q is not POINT:N", spec)
	}
	var passed atomic.Int64
	return func(name string) {
		if name == point && passed.Add(1) == n {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // The signal is on its way: nothing after the point must happen.
		}
	}, nil
}
