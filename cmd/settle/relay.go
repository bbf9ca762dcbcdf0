package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/settledev/settle/cmd/settle/internal/doctor"
	"github.com/settledev/settle/cmd/settle/internal/relayd"
)

// relayCmd is settle relay.
type relayCmd struct {
	Run    relayRunCmd    `cmd:"" help:"Carry outboxes to brokers until SIGTERM."`
	Check  relayCheckCmd  `cmd:"" help:"Look at everything that the file names, and say what is wrong."`
	Schema relaySchemaCmd `cmd:"" help:"Print the JSON Schema of the file."`
}

// relayFile names the relay's configuration.
type relayFile struct {
	File string `help:"The relay's configuration; in its URLs $${NAME} is an environment variable." required:"" placeholder:"FILE" env:"SETTLE_RELAY_FILE"`
}

type relayRunCmd struct {
	relayFile
}

// Run carries until SIGTERM.
func (c *relayRunCmd) Run(ctx context.Context, t *terminal) error {
	cfg, err := relayd.Read(c.File)
	if err != nil {
		return oneLine(err)
	}
	collectAt(50) // It is a guest on the machine of a database or of a service.
	d, err := relayd.Open(ctx, cfg, t.log)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(t.err, "relay of %d sources; %s/readyz says how they are\n", len(cfg.Sources), d.URL())
	return d.Run(ctx)
}

// oneLine joins the lines of several errors.
func oneLine(err error) error {
	var text []byte
	for _, r := range err.Error() {
		if r == '\n' {
			text = append(text, "; "...)
			continue
		}
		text = append(text, string(r)...)
	}
	return errors.New(string(text))
}

type relayCheckCmd struct {
	relayFile
	listing
}

// Run looks, and fails when something has to be mended.
func (c *relayCheckCmd) Run(ctx context.Context, t *terminal) error {
	return printFindings(t, c.JSON, relayd.Check(ctx, c.File))
}

// errFindings says that something has to be mended; what, has been printed.
var errFindings = errors.New("something has to be mended")

// printFindings prints a line for each.
func printFindings(t *terminal, asJSON bool, all []doctor.Finding) error {
	fails := 0
	for _, f := range all {
		if f.Level == doctor.Fail {
			fails++
		}
	}
	if asJSON {
		if err := printItems(t, true, all, "", doctor.Finding.String); err != nil {
			return err
		}
	} else {
		for _, f := range all {
			if _, err := fmt.Fprintln(t.out, oneLine(errors.New(f.String()))); err != nil {
				return err
			}
		}
	}
	if fails > 0 {
		return fmt.Errorf("%w: %d of %d findings", errFindings, fails, len(all))
	}
	return nil
}

type relaySchemaCmd struct{}

// Run prints the schema.
func (c *relaySchemaCmd) Run(t *terminal) error {
	_, err := t.out.Write(relayd.Schema())
	return err
}
