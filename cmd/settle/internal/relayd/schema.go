package relayd

import _ "embed"

//go:embed relay.schema.json
var schema []byte

// Schema is the JSON Schema (draft 2020-12) of [Config].
func Schema() []byte { return schema }
