package settleredis

import (
	_ "embed" // For the scripts.

	"github.com/redis/go-redis/v9"
)

// The scripts. Each is one step that nothing comes between; Redis stores its writes together or not at all.
// Those that consume may exceed the server's memory by the little that they write: otherwise nothing could
// be acknowledged and trimmed once it is full.
var (
	//go:embed lua/look.lua
	lookSource string
	//go:embed lua/incarnate.lua
	incarnateSource string
	//go:embed lua/topic.lua
	topicSource string
	//go:embed lua/publish.lua
	publishSource string
	//go:embed lua/own.lua
	ownSource string
	//go:embed lua/ack.lua
	ackSource string
	//go:embed lua/beat.lua
	beatSource string
	//go:embed lua/take.lua
	takeSource string
	//go:embed lua/release.lua
	releaseSource string
	//go:embed lua/trim.lua
	trimSource string
	//go:embed lua/drop.lua
	dropSource string
	//go:embed lua/extend.lua
	extendSource string
	//go:embed lua/put.lua
	putSource string
)

// scripts are the broker's, with their hashes.
type scripts struct {
	look, incarnate, topic, publish, own, ack, beat, take, release, trim *redis.Script
}

func newScripts() scripts {
	return scripts{
		look: redis.NewScript(lookSource), incarnate: redis.NewScript(incarnateSource),
		topic: redis.NewScript(topicSource), publish: redis.NewScript(publishSource),
		own: redis.NewScript(ownSource), ack: redis.NewScript(ackSource),
		beat: redis.NewScript(beatSource), take: redis.NewScript(takeSource), release: redis.NewScript(releaseSource),
		trim: redis.NewScript(trimSource),
	}
}
