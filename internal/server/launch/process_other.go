//go:build !linux

package launch

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"
)

// Only Linux kills a child when its parent ends, and servers that outlive their tests are worse than none.
var errUnsupported = fmt.Errorf("servers are started on Linux only, not on %s; give their URLs: %w", runtime.GOOS, errors.ErrUnsupported)

type thread struct{}

func newThread() *thread { return nil }

func (*thread) end() {}

type process struct {
	done chan struct{}
	err  error
}

func (*Launcher) spawn(command, string, string) (*process, error) { return nil, errUnsupported }

func (*process) ended() bool                        { return true }
func (*process) stop(syscall.Signal, time.Duration) {}
func (*process) kill() error                        { return nil }
func (*process) memory() (int64, error)             { return 0, errUnsupported }

func pause(*process) error { return errUnsupported }

func resume(*process) error { return errUnsupported }

func own(string, string) error { return nil }

type port struct{ number int }

func hold(int) (*port, error) { return nil, errUnsupported }

func (*port) release() {}

func lock(string) (func(), error) { return func() {}, nil }
