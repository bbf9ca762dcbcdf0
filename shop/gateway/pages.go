package gateway

import (
	"embed"
	"io/fs"
	"net/http"
)

// web has the pages as they are served: no build step comes between.
//
//go:embed web
var web embed.FS

//go:embed openapi.json
var openAPI []byte

// OpenAPI returns the description of the HTTP API (OpenAPI 3.1, JSON).
func OpenAPI() []byte { return openAPI }

// pages are the web pages: each is a file, whatever the id in its path, and loads its data itself.
func pages() map[string]http.Handler {
	all := map[string]http.Handler{}
	for route, file := range map[string]string{
		"GET /{$}":           "index.html",
		"GET /order/{id}":    "order.html",
		"GET /customer/{id}": "customer.html",
		"GET /live":          "live.html",
	} {
		all[route] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(w, r, web, "web/"+file)
		})
	}
	assets, err := fs.Sub(web, "web/assets")
	if err != nil {
		panic(err) // The folder is part of the program.
	}
	all["GET /assets/"] = http.StripPrefix("/assets/", http.FileServerFS(assets))
	all["GET /openapi.json"] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(openAPI)
	})
	return all
}
