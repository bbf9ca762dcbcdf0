// Package dialects holds the shop's SQL files against the databases they are written for: every statement
// prepares, means the same everywhere, locks what it says it locks, and finds its rows by an index.
package dialects
