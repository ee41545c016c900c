module berth.local/sandbox/sample

go 1.26.0
