// Package replay sends a real retail data set through the shop and compares the books afterwards.
//
// The input is the Online Retail CSV (UCI Machine Learning Repository, 2015). Invoices are sent over HTTP
// as they stand, dirty ones included: the shop must refuse them, the replay must not hide them. A journal
// of the answers is synced before the next step counts on it, so a replay that was killed goes on where it
// was.
//
// # What this package does not do
//
// It reads no service's tables: the report asks the services, the gateway and the platform over HTTP, and
// compares reference by reference.
package replay
