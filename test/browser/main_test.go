package browser_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// chromium is Debian's. A run without -short fails where it is missing: pages that nobody has looked at
// are not tested.
const chromium = "/usr/bin/chromium"

// fixture is the program under test and the browser, shared by the package's tests.
var fixture struct {
	binary  string
	url     string
	browser context.Context //nolint:containedctx // To chromedp a browser is a context.
}

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run()) // Every test skips itself.
	}
	code, err := withShop(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, "browser:", err)
		code = 1
	}
	os.Exit(code)
}

// withShop builds the program, starts it and a browser, and runs the tests.
func withShop(run func() int) (code int, err error) {
	if _, err := os.Stat(chromium); err != nil {
		return 1, fmt.Errorf("chromium is needed (apt-get install chromium), or -short: %w", err)
	}
	dir, err := os.MkdirTemp("", "settle-browser")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(context.Background(), 9*time.Minute)
	defer cancel()
	binary := filepath.Join(dir, "settle")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/settledev/settle/cmd/settle")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build: %w\n%s", err, out)
	}
	// A shipment takes two seconds, so that a person, or a test, can cancel before it.
	stop, url, err := serve(ctx, binary, filepath.Join(dir, "data"), "--ship-delay", "2s")
	if err != nil {
		return 1, err
	}
	defer stop()
	allocated, stopAllocator := chromedp.NewExecAllocator(
		ctx, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.ExecPath(chromium), chromedp.UserDataDir(filepath.Join(dir, "profile")),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.WindowSize(1280, 900),
	)
	defer stopAllocator()
	browser, stopBrowser := chromedp.NewContext(allocated)
	defer stopBrowser()
	if err := chromedp.Do(browser); err != nil {
		return 1, fmt.Errorf("start chromium: %w", err)
	}
	fixture.binary, fixture.url, fixture.browser = binary, url, browser
	return run(), nil
}

// serve starts a shop and waits until it takes work.
func serve(ctx context.Context, binary, dir string, flags ...string) (stop func(), url string, err error) {
	cmd := exec.CommandContext(ctx, binary, append([]string{"serve", "--dir", dir, "--addr", "127.0.0.1:0"}, flags...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	cmd.WaitDelay = 20 * time.Second
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "shop "); ok {
			url = strings.TrimSpace(rest)
			break
		}
		fmt.Fprintln(os.Stderr, "settle:", lines.Text())
	}
	if url == "" {
		stop()
		return nil, "", fmt.Errorf("settle serve ended without an address: %w", lines.Err())
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	if err := ready(ctx, url); err != nil {
		stop()
		return nil, "", err
	}
	return stop, url, nil
}

func ready(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if n, err := items(ctx, url); err == nil && n > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the shop was not ready within a minute: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// items returns 1 when the shop is ready and has products.
func items(ctx context.Context, url string) (int, error) {
	for _, path := range []string{"/readyz", "/products/85123A"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+path, http.NoBody)
		if err != nil {
			return 0, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return 0, nil
		}
	}
	return 1, nil
}
