package settlekafka

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// clientLog hands on what a client warns of. Its infos are for those who debug the client itself.
type clientLog struct{ to *slog.Logger }

func (l clientLog) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l clientLog) Log(level kgo.LogLevel, text string, pairs ...any) {
	if level > kgo.LogLevelWarn {
		return
	}
	var detail strings.Builder
	detail.WriteString(text)
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Fprintf(&detail, ", %v %v", pairs[i], pairs[i+1])
	}
	l.to.Warn("broker client", "err", detail.String())
}
