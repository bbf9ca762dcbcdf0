// Package peers measures settle beside other libraries of the same purpose, on one server and in one run. It
// holds only benchmarks, so that nobody who uses settle links a peer.
package peers
