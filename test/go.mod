module github.com/settledev/settle/test

go 1.26.0

require (
	github.com/chromedp/cdproto v0.159.0
	github.com/chromedp/chromedp v0.22.1
	pgregory.net/rapid v1.3.0
)

require (
	github.com/go-json-experiment/json v0.0.0-20260213210345-44df1a37e875 // indirect
	github.com/settledev/settle v0.0.0
	github.com/settledev/settle/cmd/settle v0.0.0
	github.com/settledev/settle/driver v0.0.0
	github.com/settledev/settle/shop v0.0.0
)

replace github.com/settledev/settle => ../

replace github.com/settledev/settle/driver => ../driver

replace github.com/settledev/settle/shop => ../shop

replace github.com/settledev/settle/cmd/settle => ../cmd/settle
