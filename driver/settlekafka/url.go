package settlekafka

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/settledev/settle/driver/internal/secure"
)

// address is what a URL says.
type address struct {
	seeds     []string
	tls       bool
	user      string
	password  string
	mechanism string
	files     secure.Files
}

// String is for people: without the password.
func (a *address) String() string {
	scheme := "kafka://"
	if a.tls {
		scheme = "kafka+tls://"
	}
	if a.user != "" {
		scheme += url.User(a.user).String() + "@"
	}
	return scheme + strings.Join(a.seeds, ",")
}

// parseURL reads kafka://user:password@host:9092,host:9092?sasl=scram-sha-256, and kafka+tls:// likewise, which
// also takes ca=file.pem, cert=file.pem and key=file.pem.
// Its errors never repeat what may have a password in it.
func parseURL(text string) (*address, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return nil, errors.New("not a URL such as kafka://host:9092")
	}
	a := &address{}
	switch scheme {
	case "kafka":
	case "kafka+tls":
		a.tls = true
	default:
		return nil, fmt.Errorf("scheme %.20q is not kafka or kafka+tls", scheme)
	}
	rest, query, _ := strings.Cut(rest, "?")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		if err := a.login(rest[:at]); err != nil {
			return nil, err
		}
		rest = rest[at+1:]
	}
	for host := range strings.SplitSeq(strings.TrimSuffix(rest, "/"), ",") {
		seed, err := seedOf(host)
		if err != nil {
			return nil, err
		}
		a.seeds = append(a.seeds, seed)
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("the part after ? is not readable")
	}
	if a.files, err = secure.Take(values); err != nil {
		return nil, err
	}
	a.mechanism = strings.ToUpper(values.Get("sasl"))
	values.Del("sasl")
	for name := range values {
		return nil, fmt.Errorf("parameter %.40q is not known, only sasl, ca, cert and key are", name)
	}
	if a.files.Any() && !a.tls {
		return nil, errors.New("ca, cert and key are for kafka+tls")
	}
	return a, nil
}

func (a *address) login(info string) error {
	user, password, _ := strings.Cut(info, ":")
	var err error
	if a.user, err = url.PathUnescape(user); err == nil {
		a.password, err = url.PathUnescape(password)
	}
	if err != nil {
		return errors.New("user and password are not readable: write % as %25")
	}
	return nil
}

// seedOf returns host:port of one address; 9092 is the port where none is given.
func seedOf(text string) (string, error) {
	u, err := url.Parse("kafka://" + strings.TrimSpace(text))
	if err != nil || u.Path != "" {
		return "", fmt.Errorf("address %.60q is not host:port", text)
	}
	if u.Hostname() == "" {
		return "", errors.New("no host")
	}
	port := u.Port()
	if port == "" {
		port = "9092"
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}
