// Package push fans events out to browsers over server-sent events (WHATWG HTML, 9.2), resumable.
//
// A consumer appends frames to a [Log] in its transaction; a [Hub] follows the log, encodes each frame
// once, and hands it to every connection whose feed shows it:
//
//	hub, err := push.NewHub(store.Feed(), push.Config{})
//	go hub.Run(ctx)
//	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) { hub.ServeFeed(w, r, "") })
//
// # Guarantee
//
// A connection gets the frames of its feed in the order of the log without a silent gap: after a
// reconnect every frame after Last-Event-ID, or an explicit event "reset" that tells the page to load
// its data anew. A client that is too slow holds no memory and slows nobody. Frames may come twice
// around a reconnect; their ids tell.
//
// # What this package does not do
//
// It authorises nobody: do that before ServeFeed. Frames are not kept for ever: see Config.Keep.
package push
