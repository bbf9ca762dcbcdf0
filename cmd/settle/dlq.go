package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/settledev/settle/shop/gateway"
)

// dlqCmd is settle dlq.
type dlqCmd struct {
	List    dlqListCmd    `cmd:"" help:"List dead letters."`
	Show    dlqShowCmd    `cmd:"" help:"Show one dead letter with its stack."`
	Causes  dlqCausesCmd  `cmd:"" help:"Count dead letters by topic and cause."`
	Replay  dlqReplayCmd  `cmd:"" help:"Handle one letter again, or a batch of a topic."`
	Discard dlqDiscardCmd `cmd:"" help:"Give a letter up for good; its followers go on."`
	Audit   dlqAuditCmd   `cmd:"" help:"Show what operators did."`
}

type dlqListCmd struct {
	shopAddress
	listing

	Service string `help:"Only of this service."`
	Topic   string `help:"Only of this topic."`
	State   string `help:"Only in this state." enum:",RETRYING,WAITING,DEAD" default:""`
	Limit   int    `help:"At most this many." default:"100"`
}

// Run lists letters.
func (c *dlqListCmd) Run(ctx context.Context, t *terminal) error {
	q := url.Values{"service": {c.Service}, "originalTopic": {c.Topic}, "state": {c.State}}
	letters, away, err := list[gateway.Letter](ctx, &c.shopAddress, "/api/dlq", q, c.Limit)
	if err != nil {
		return err
	}
	return errors.Join(printItems(t, c.JSON, letters, "MESSAGE\tSTATE\tTYPE\tKEY\tATTEMPTS\tLAST\tCAUSE", func(l gateway.Letter) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%d\t%s\t%.60s", l.MessageID, l.State, l.Type, l.Key, l.Attempts, l.LastAt.Format(time.DateTime), l.Cause)
	}), incomplete(away))
}

type dlqShowCmd struct {
	shopAddress
	listing

	Message string `arg:"" help:"The letter's message id."`
}

// Run shows a letter.
func (c *dlqShowCmd) Run(ctx context.Context, t *terminal) error {
	var l gateway.Letter
	if err := c.call(ctx, http.MethodGet, "/api/dlq/"+url.PathEscape(c.Message), nil, &l); err != nil {
		return err
	}
	if c.JSON {
		return printItems(t, true, []gateway.Letter{l}, "", nil)
	}
	_, err := fmt.Fprintf(t.out, "message    %s\nservice    %s\nstate      %s\ntype       %s\ntopic      %s\nkey        %s\npartition  %s at %s\nattempts   %d, first %s, last %s\ncause      %s\n%s",
		l.MessageID, l.Service, l.State, l.Type, l.Topic, l.Key, l.Partition, l.Position, l.Attempts,
		l.FirstAt.Format(time.DateTime), l.LastAt.Format(time.DateTime), l.Cause, l.Stack)
	return err
}

type dlqCausesCmd struct {
	shopAddress
	listing
}

// Run counts letters by cause.
func (c *dlqCausesCmd) Run(ctx context.Context, t *terminal) error {
	var page parts[gateway.CauseCount]
	if err := c.call(ctx, http.MethodGet, "/api/dlq/causes", nil, &page); err != nil {
		return err
	}
	return errors.Join(printItems(t, c.JSON, page.Items, "SERVICE\tTOPIC\tSTATE\tCOUNT\tCAUSE", func(g gateway.CauseCount) string {
		return fmt.Sprintf("%s\t%s\t%s\t%d\t%.80s", g.Service, g.Topic, g.State, g.Count, g.Cause)
	}), incomplete(page.Unreachable))
}

type dlqReplayCmd struct {
	shopAddress

	Message string `arg:"" optional:"" help:"The letter's message id; or --topic or --all for a batch."`
	Topic   string `help:"Replay a batch of this topic."`
	All     bool   `help:"Replay a batch of every topic."`
	Batch   int    `help:"At most this many of a batch." default:"100"`
}

// Run replays.
func (c *dlqReplayCmd) Run(ctx context.Context, t *terminal) error {
	var answer struct {
		Replayed    int
		Unreachable []gateway.Unreachable
	}
	switch {
	case c.Message != "" && (c.Topic != "" || c.All):
		return usage("dlq replay: one message, --topic or --all, not several")
	case c.Message != "":
		if err := c.call(ctx, http.MethodPost, "/api/dlq/reprocess/single", url.Values{"messageId": {c.Message}}, &answer); err != nil {
			return err
		}
	case c.Topic != "" || c.All:
		q := url.Values{"originalTopic": {c.Topic}, "batchSize": {strconv.Itoa(c.Batch)}}
		if err := c.call(ctx, http.MethodPost, "/api/dlq/reprocess/batch", q, &answer); err != nil {
			return err
		}
	default:
		return usage("dlq replay: name a message, --topic or --all")
	}
	_, err := fmt.Fprintf(t.out, "%d replayed\n", answer.Replayed)
	return errors.Join(err, incomplete(answer.Unreachable))
}

type dlqDiscardCmd struct {
	shopAddress

	Message string `arg:"" help:"The letter's message id."`
}

// Run discards a letter.
func (c *dlqDiscardCmd) Run(ctx context.Context, t *terminal) error {
	if err := c.call(ctx, http.MethodPost, "/api/dlq/"+url.PathEscape(c.Message)+"/discard", nil, nil); err != nil {
		return err
	}
	_, err := fmt.Fprintln(t.out, "1 discarded")
	return err
}

type dlqAuditCmd struct {
	shopAddress
	listing

	Limit int `help:"At most this many, newest first." default:"100"`
}

// Run lists the audit.
func (c *dlqAuditCmd) Run(ctx context.Context, t *terminal) error {
	var page parts[gateway.AuditEntry]
	if err := c.call(ctx, http.MethodGet, "/api/dlq/audit", url.Values{"limit": {strconv.Itoa(c.Limit)}}, &page); err != nil {
		return err
	}
	return errors.Join(printItems(t, c.JSON, page.Items, "AT\tOPERATOR\tACTION\tLETTER\tNOTE", func(e gateway.AuditEntry) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s", e.At.Format(time.DateTime), e.Operator, e.Action, e.Letter, e.Note)
	}), incomplete(page.Unreachable))
}
