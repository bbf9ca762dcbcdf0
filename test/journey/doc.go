// Package journey follows orders through the real command, over HTTP: what customers and operators do, what
// is refused, and what the outside world and the machine do wrong meanwhile.
package journey
