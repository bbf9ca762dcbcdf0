package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/settledev/settle/shop/replay"
)

// shopAddress is how a command reaches a running shop.
type shopAddress struct {
	URL       string `help:"Address of the shop." default:"http://127.0.0.1:8080" placeholder:"URL"`
	TokenFile string `help:"File with the operator's token." default:"settle-data/operator-token" placeholder:"FILE"`
}

func (s *shopAddress) token() (string, error) {
	b, err := os.ReadFile(s.TokenFile)
	if err != nil {
		return "", usage("--token-file: %v", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// replayCmd is settle replay-data.
type replayCmd struct {
	shopAddress

	Data        string `arg:"" optional:"" help:"Retail file, plain, .gz or .xz. Default: the bundled month." placeholder:"FILE"`
	GatewayURL  string `help:"Address of pgsim, as the shop's start says." required:"" placeholder:"URL"`
	PlatformURL string `help:"Address of platformsim." required:"" placeholder:"URL"`
	Journal     string `help:"Journal of the answers; a replay that was killed goes on from it." default:"replay.journal" placeholder:"FILE"`
	Stock       string `help:"What the shop was stocked with: plenty or tight=P." default:"plenty"`
	Declines    bool   `help:"The gateway was told to decline payments."`
	Report      string `help:"Write the reconciliation as JSON." placeholder:"FILE"`
}

// Run replays the file and ends with the report's verdict.
func (r *replayCmd) Run(ctx context.Context, t *terminal) error {
	percent, err := stockPercent(r.Stock)
	if err != nil {
		return err
	}
	token, err := r.token()
	if err != nil {
		return err
	}
	file, err := readFile(r.Data)
	if err != nil {
		return err
	}
	j, err := replay.OpenJournal(r.Journal)
	if err != nil {
		return err
	}
	target := replay.Target{ShopURL: r.URL, GatewayURL: r.GatewayURL, PlatformURL: r.PlatformURL, Token: token, Client: client()}
	report, err := reconcile(ctx, t, file, j, replay.Plan{StockPercent: percent, Declines: r.Declines}, target)
	if err = errors.Join(err, j.Close()); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	if err := publish(t, report, r.Report); err != nil {
		return err
	}
	return verdict(report)
}
