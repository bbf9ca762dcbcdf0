// Command capabilities runs the conformance suites on every store and every broker, and writes what came of
// them to docs/capabilities.md:
//
//	make gen
//
// It needs what `make test` needs. A suite that fails is written as it is, and ends the command with 1.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	in := flag.String("in", "", "read this output of go test -json instead of running the suites")
	out := flag.String("out", "docs/capabilities.md", "the page")
	flag.Parse()
	if err := generate(*in, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func generate(in, out string) error {
	var events io.Reader
	if in == "" {
		output, err := runSuites()
		if err != nil {
			return err
		}
		events = bytes.NewReader(output)
	} else {
		f, err := os.Open(in)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		events = f
	}
	results, err := parse(events)
	if err != nil {
		return err
	}
	var page bytes.Buffer
	failed := write(&page, results)
	if err := os.WriteFile(out, page.Bytes(), 0o644); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed or not run: %s", strings.Join(failed, ", "))
	}
	return nil
}

// runSuites returns the events of the suites' tests, also when some of them fail.
func runSuites() ([]byte, error) {
	tests, packages := map[string]bool{}, map[string]bool{}
	args := []string{"test", "-count=1", "-json", "-timeout", "20m", "-p", "2", "-run", ""}
	var names []string
	for _, s := range spots() {
		name, _, _ := strings.Cut(s.test, "/")
		if !tests[name] {
			tests[name] = true
			names = append(names, name)
		}
		if !packages[s.folder] {
			packages[s.folder] = true
			args = append(args, "./"+s.folder)
		}
	}
	args[8] = "^(" + strings.Join(names, "|") + ")$"
	cmd := exec.CommandContext(context.Background(), "go", args...)
	cmd.Stderr = os.Stderr
	output, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	return output, nil
}
