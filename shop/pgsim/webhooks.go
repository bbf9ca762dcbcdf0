package pgsim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/settledev/settle/shop/webhook"
	"github.com/settledev/settle/txn"
)

// Rows that one turn of Run takes.
const (
	webhookBatchMax  = 256
	approvalBatchMax = 256
)

// drainBytesMax is how much of a receiver's answer is read, so that its connection can be used again.
const drainBytesMax = 4 << 10

// told is the body of a webhook.
type told struct {
	Type      string `json:"type"`
	Timestamp string `json:"timestamp"`
	Data      state  `json:"data"`
}

// tell queues a webhook in the transaction of what it tells, when somebody is to be told. Each kind
// happens once to a reference, so the two are its id.
func (s *Server) tell(tx *txn.Tx, kind string, data state) {
	if s.WebhookURL() == "" {
		return
	}
	f := s.faults.Load()
	id := "msg_" + uuid.NewSHA1(uuid.NameSpaceOID, []byte("pgsim:"+kind+":"+data.Reference)).String()
	now := tx.Now()
	payload, err := json.Marshal(told{kind, now.UTC().Format(time.RFC3339Nano), data})
	if err != nil {
		panic(fmt.Sprintf("pgsim: encode a webhook: %v", err)) // Strings and money only: a mistake in the program.
	}
	copies, due := 1, now
	if f.hit(f.WebhookDuplicatePercent, "webhook duplicate", id) {
		copies = 2
	}
	if f.hit(f.WebhookLatePercent, "webhook late", id) {
		due = now.Add(time.Duration(f.WebhookLateDelay))
	}
	tx.Queue("INSERT INTO pg_webhooks (webhook_id, payload, copies, first_at, due_at) VALUES (?, ?, ?, ?, ?)",
		id, string(payload), copies, due.UnixMilli(), due.UnixMilli())
	tx.AfterCommit(s.ring)
}

// queuedWebhook is a row that is due, and what became of sending it.
type queuedWebhook struct {
	position         int64
	id, payload      string
	copies, attempts int64
	firstAt          int64
	err              error
}

// sendWebhooks sends what is due until ctx is done.
func (s *Server) sendWebhooks(ctx context.Context) {
	s.turns(ctx, s.queued, func(ctx context.Context) (more bool) {
		to := s.WebhookURL()
		if to == "" {
			return false
		}
		n, err := s.sendDue(ctx, to)
		if err != nil {
			s.cfg.Logger.Warn("gateway webhooks wait", "err", err)
			return false
		}
		return n == webhookBatchMax
	})
}

// turns calls turn until ctx is done: at once while there is more, else when rung or polled. A turn
// that has begun finishes what it has taken, whatever becomes of ctx.
func (s *Server) turns(ctx context.Context, bell <-chan struct{}, turn func(context.Context) (more bool)) {
	poll := time.NewTicker(s.cfg.PollInterval)
	defer poll.Stop()
	for ctx.Err() == nil {
		if turn(ctx) {
			continue
		}
		select {
		case <-bell:
		case <-poll.C:
		case <-ctx.Done():
		}
	}
}

// sendDue sends one batch and records what became of it. A crash in between sends it again. When ctx
// ends, what has not been begun stays as it is, and the rest is finished and recorded.
func (s *Server) sendDue(ctx context.Context, to string) (int, error) {
	due, err := s.webhooksDue(ctx)
	if err != nil || len(due) == 0 {
		return 0, err
	}
	work := context.WithoutCancel(ctx)
	var wg sync.WaitGroup
	slots := make(chan struct{}, s.cfg.WebhookInFlight)
	begun := 0
	for ; begun < len(due) && ctx.Err() == nil; begun++ {
		slots <- struct{}{}
		q := &due[begun]
		wg.Go(func() {
			defer func() { <-slots }()
			q.err = s.send(work, to, q)
		})
	}
	wg.Wait()
	due = due[:begun]
	return begun, s.run.Run(work, func(ctx context.Context, tx *txn.Tx) error {
		for i := range due {
			if err := s.sent(ctx, tx, &due[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Server) webhooksDue(ctx context.Context) (due []queuedWebhook, err error) {
	err = s.view(ctx, func(ctx context.Context, r reader) error {
		due = due[:0]
		return scan(ctx, r, func(rows txn.Rows) error {
			var q queuedWebhook
			err := rows.Scan(&q.position, &q.id, &q.payload, &q.copies, &q.attempts, &q.firstAt)
			due = append(due, q)
			return err
		}, `SELECT position, webhook_id, payload, copies, attempts, first_at
FROM pg_webhooks WHERE due_at <= ? ORDER BY due_at, position LIMIT ?`, time.Now().UnixMilli(), webhookBatchMax)
	})
	return due, err
}

// send makes one attempt. Anything but a 2xx is a failure.
func (s *Server) send(ctx context.Context, to string, q *queuedWebhook) (err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WebhookTimeout)
	defer cancel()
	body := []byte(q.payload)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if req.Header, err = webhook.Sign(s.cfg.WebhookSecret, q.id, time.Now(), body); err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.cfg.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, drainBytesMax); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("the receiver answered %d", resp.StatusCode)
	}
	return nil
}

// sent records one attempt: the copy is done with, or tried again, or given up.
func (s *Server) sent(ctx context.Context, tx *txn.Tx, q *queuedWebhook) error {
	attempt := int(q.attempts) + 1
	query, args := "DELETE FROM pg_webhooks WHERE position = ?", []any{q.position}
	switch at, again := s.cfg.WebhookRetry.Next(attempt, time.UnixMilli(q.firstAt), tx.Now()); {
	case q.err != nil && again:
		query, args = "UPDATE pg_webhooks SET attempts = ?, due_at = ? WHERE position = ?", []any{attempt, at.UnixMilli(), q.position}
	case q.err != nil:
		s.cfg.Logger.Error("gateway webhook given up", "event_id", q.id, "attempt", attempt, "err", q.err)
	case q.copies > 1:
		query, args = "UPDATE pg_webhooks SET copies = copies - 1, attempts = 0, first_at = ?, due_at = ? WHERE position = ?",
			[]any{tx.Now().UnixMilli(), tx.Now().UnixMilli(), q.position}
	}
	_, err := tx.Exec(ctx, query, args...)
	return err
}

// approveLate approves what is due until ctx is done.
func (s *Server) approveLate(ctx context.Context) {
	s.turns(ctx, nil, func(ctx context.Context) (more bool) {
		n, err := s.approveDue(ctx)
		if err != nil {
			s.cfg.Logger.Warn("gateway approvals wait", "err", err)
			return false
		}
		return n == approvalBatchMax
	})
}

// approveDue approves one batch. It looks before it writes, because there is mostly nothing to do.
func (s *Server) approveDue(ctx context.Context) (int, error) {
	var due []string
	err := s.view(ctx, func(ctx context.Context, r reader) error {
		due = due[:0]
		return scan(ctx, r, func(rows txn.Rows) error {
			var reference string
			err := rows.Scan(&reference)
			due = append(due, reference)
			return err
		}, "SELECT reference FROM pg_ledger WHERE due_at <= ? ORDER BY due_at LIMIT ?", time.Now().UnixMilli(), approvalBatchMax)
	})
	if err != nil || len(due) == 0 {
		return 0, err
	}
	return len(due), s.run.Run(context.WithoutCancel(ctx), func(ctx context.Context, tx *txn.Tx) error {
		for _, reference := range due {
			if err := s.approve(ctx, tx, reference); err != nil {
				return err
			}
		}
		return nil
	})
}
