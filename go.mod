module github.com/settledev/settle

go 1.26
