module github.com/settledev/settle/shop

go 1.26.0

require (
	github.com/google/uuid v1.6.0
	github.com/settledev/settle v0.0.0
	github.com/shopspring/decimal v1.6.0
	github.com/standard-webhooks/standard-webhooks/libraries v0.0.1
	pgregory.net/rapid v1.3.0
)

replace github.com/settledev/settle => ../
