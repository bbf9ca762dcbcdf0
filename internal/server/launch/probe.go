package launch

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// probeTimeout bounds one attempt: a server that accepts and never answers is not ready.
const probeTimeout = 2 * time.Second

// talk connects, says something and reads the first bytes of the answer.
func talk(ctx context.Context, port int, say []byte, answerBytes int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address(port))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	if _, err := conn.Write(say); err != nil {
		return nil, err
	}
	answer := make([]byte, answerBytes)
	_, err = io.ReadFull(conn, answer)
	return answer, err
}

func probeTCP(ctx context.Context, port int) error {
	_, err := talk(ctx, port, nil, 0)
	return err
}

// probePostgres asks for a session. A server that still recovers refuses it with an error message, 'E'.
func probePostgres(ctx context.Context, port int) error {
	parameters := []byte("user\x00postgres\x00database\x00postgres\x00\x00")
	startup := binary.BigEndian.AppendUint32(nil, uint32(8+len(parameters)))
	startup = binary.BigEndian.AppendUint32(startup, 3<<16) // protocol 3.0
	answer, err := talk(ctx, port, append(startup, parameters...), 1)
	if err == nil && answer[0] != 'R' {
		err = fmt.Errorf("answered %q, want an authentication message", answer)
	}
	return err
}

// probeMariaDB waits for the greeting. A server that is full or refuses us sends an error, 0xff.
func probeMariaDB(ctx context.Context, port int) error {
	answer, err := talk(ctx, port, nil, 5)
	if err == nil && answer[4] != 10 {
		err = fmt.Errorf("greeted with %q, want protocol 10", answer)
	}
	return err
}

// probeRedis gets -LOADING as long as the file is being read.
func probeRedis(ctx context.Context, port int) error {
	answer, err := talk(ctx, port, []byte("PING\r\n"), 5)
	if err == nil && string(answer) != "+PONG" {
		err = fmt.Errorf("answered %q, want +PONG", answer)
	}
	return err
}

// probeRabbit sends the header of AMQP 0-9-1. The answer is a method frame, 1, if the broker serves it.
func probeRabbit(ctx context.Context, port int) error {
	answer, err := talk(ctx, port, []byte("AMQP\x00\x00\x09\x01"), 1)
	if err == nil && answer[0] != 1 {
		err = fmt.Errorf("answered %q, want a method frame", answer)
	}
	return err
}

// probeNATS asks the monitor. In a cluster JetStream is of use when a node knows who leads.
func probeNATS(ctx context.Context, monitor int, cluster bool) error {
	if err := probeHTTP(ctx, "http://"+address(monitor)+"/healthz", http.StatusOK); err != nil || !cluster {
		return err
	}
	body, err := get(ctx, "http://"+address(monitor)+"/jsz", http.StatusOK)
	if err == nil && !bytes.Contains(body, []byte(`"leader": "n`)) {
		err = fmt.Errorf("no leader in %.200s", body)
	}
	return err
}

func probeHTTP(ctx context.Context, url string, status int) error {
	_, err := get(ctx, url, status)
	return err
}

func get(ctx context.Context, url string, status int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Close = true // a test that looks for leaked connections shall find none of ours
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err == nil && response.StatusCode != status {
		err = fmt.Errorf("%s: %s, want %d: %.200s", url, response.Status, status, body)
	}
	return body, err
}
