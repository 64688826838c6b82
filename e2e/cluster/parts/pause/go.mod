module bulkhead.dev/e2e/cluster/parts/pause

go 1.26
