package launch

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const howToInstall = "install what the tests need with: make services-setup"

// plan decides the ports, processes and URL of a server, and looks for its programs. It starts nothing.
func (s *Server) plan() error {
	switch s.kind {
	case Postgres, Postgres17:
		return s.planPostgres()
	case MariaDB:
		return s.planMariaDB()
	case PgBouncer:
		return s.planPgBouncer()
	case Redis:
		return s.planRedis()
	case NATS:
		return s.planNATS(1)
	case NATSCluster:
		return s.planNATS(3)
	case Kafka:
		return s.planKafka(1)
	case KafkaCluster:
		return s.planKafka(3)
	case Connect:
		return s.planConnect()
	case Rabbit:
		return s.planRabbit()
	}
	return fmt.Errorf("no such kind of server; there are %v", Kinds())
}

// reserve holds ports: those that the options ask for if asked is set, else free ones.
func (s *Server) reserve(count int, asked bool) ([]int, error) {
	var numbers []int
	for i := range count {
		number := 0
		if asked && s.options.Port != 0 {
			number = s.options.Port + i
		}
		p, err := hold(number)
		if err != nil {
			return nil, err
		}
		s.ports = append(s.ports, p)
		numbers = append(numbers, p.number)
	}
	return numbers, nil
}

// settings joins the defaults and the options' settings, which win, into sorted lines of a
// configuration or arguments of a command.
func (s *Server) settings(defaults map[string]string, format string) []string {
	all := maps.Clone(defaults)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, s.options.Settings)
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		lines = append(lines, fmt.Sprintf(format, name, all[name]))
	}
	return lines
}

// user returns the part of a URL that names the first of the options' users, in the order of names.
func (s *Server) user() string {
	if len(s.options.Users) == 0 {
		return ""
	}
	name := slices.Min(slices.Collect(maps.Keys(s.options.Users)))
	return url.UserPassword(name, s.options.Users[name]).String() + "@"
}

// joined returns two sets of settings as one; those of the first win.
func joined(a, b map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, b)
	maps.Copy(all, a)
	return all
}

// upstream returns the host and port, or several, of Options.Upstream.
func (s *Server) upstream(scheme string) (*url.URL, error) {
	u, err := url.Parse(s.options.Upstream)
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	if u.Scheme != scheme || u.Host == "" {
		return nil, fmt.Errorf("upstream %q is no %s:// URL", s.options.Upstream, scheme)
	}
	return u, nil
}

// addresses joins ports to the host part of a URL.
func addresses(ports []int) string {
	var hosts []string
	for _, p := range ports {
		hosts = append(hosts, address(p))
	}
	return strings.Join(hosts, ",")
}

// FreeAddress returns an address that nobody listens at, and that nobody gets who wants any free one until release is
// called: see port.
func FreeAddress() (free string, release func(), err error) {
	p, err := hold(0)
	if err != nil {
		return "", nil, err
	}
	return address(p.number), p.release, nil
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// program looks for a server on PATH and in the folders that PATH may lack.
func program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed; %s", name, howToInstall)
}

// cached looks for what scripts/test-setup.sh puts into its cache.
func cached(name string) (string, error) {
	dir := os.Getenv("SETTLE_CACHE")
	switch {
	case dir != "":
	case os.Getuid() == 0:
		// Root's home is closed to the users that some servers run as.
		dir = "/var/cache/settle"
	default:
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(home, ".cache", "settle")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w; %s", err, howToInstall)
	}
	return path, nil
}

// write writes a configuration file.
func write(path string, lines ...string) error {
	return os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// exists tells whether data were made already. Its parts are the last that their making writes.
func exists(path ...string) bool {
	_, err := os.Stat(filepath.Join(path...))
	return err == nil
}
