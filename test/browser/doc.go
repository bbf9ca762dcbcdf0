// Package browser tests the shop's pages in headless Chromium against the built program, as a person
// uses them. It has no code of its own.
package browser
