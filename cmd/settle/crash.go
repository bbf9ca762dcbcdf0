package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// crashAt returns a failpoint that kills this process, as kill -9 does, when it passes a named point for
// the n-th time, counted from when this process has handled a number of events: POINT:N@HANDLED. It says so
// first, so that a crash test knows that it hit a working process. An empty spec means none.
func crashAt(spec string) (func(name string, handled int64), error) {
	if spec == "" {
		return nil, nil
	}
	point, text, ok := strings.Cut(spec, ":")
	text, from, armed := strings.Cut(text, "@")
	n, err := strconv.ParseInt(text, 10, 64)
	after := int64(0)
	if err == nil && armed {
		after, err = strconv.ParseInt(from, 10, 64)
	}
	if !ok || point == "" || err != nil || n < 1 || after < 0 {
		return nil, usage("--crash %q is not POINT:N or POINT:N@HANDLED", spec)
	}
	var passed atomic.Int64
	return func(name string, handled int64) {
		if name == point && handled >= after && passed.Add(1) == n {
			_, _ = fmt.Fprintf(os.Stderr, "\ncrash at %s, %d events handled\n", name, handled)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // The signal is on its way: nothing after the point must happen.
		}
	}, nil
}
