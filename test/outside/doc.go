// Package outside tests the programs outside the shop, pgsim and platformsim, over the store that they
// run on. It has no code of its own.
package outside
